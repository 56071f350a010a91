//! `tclctl evidence collect-endorsements` at a service on this machine, and verifying offline from what it kept.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use integration_tests::command::{Seen, run};
use integration_tests::process::binary;
use protocols::snp::Report;
use protocols::time::Timestamp;
use simulated_tee::tdx::{Body, CollateralFacts, Params as TdxParams, Platform};
use simulated_tee::{Chip, Params, Pki};

/// One header and the body.
type Given = (String, Vec<u8>);

/// A service that has what it was given, and nothing else.
struct Server {
    address: String,
    has: Arc<Mutex<HashMap<String, Given>>>,
}

impl Server {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let has = Arc::<Mutex<HashMap<String, Given>>>::default();
        let given = Arc::clone(&has);
        std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| _ = answer(stream, &given)));
        Self { address, has }
    }

    fn gives(&self, path: &str, header: &str, body: &[u8]) {
        self.has.lock().unwrap().insert(path.to_owned(), (header.to_owned(), body.to_vec()));
    }
}

fn answer(mut stream: TcpStream, has: &Mutex<HashMap<String, Given>>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let path = String::from_utf8(head).ok()?.split(' ').nth(1)?.trim_start_matches('/').to_owned();
    let given = has.lock().unwrap().get(&path).cloned();
    let (status, (header, body)) = given.map_or((404, Given::default()), |given| (200, given));
    let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\n{header}content-length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), &body].concat()).ok()
}

fn tclctl(dir: &Path, arguments: &[&str]) -> Seen {
    let mut command = Command::new(binary("tclctl"));
    command.arg("evidence").args(arguments).current_dir(dir);
    run(command)
}

fn pem(der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

fn kept(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("kept")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The path of a Milan chip's certificate.
fn vcek_path(report: &Report) -> String {
    let fields = report.fields();
    let (id, tcb) = (hex::encode(fields.chip_id), fields.reported_tcb);
    let (bootloader, tee, snp, microcode) = (tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode);
    format!("vcek/v1/Milan/{id}?blSPL={bootloader:02}&teeSPL={tee:02}&snpSPL={snp:02}&ucodeSPL={microcode:02}")
}

#[test]
fn a_vcek_is_collected_when_it_is_the_chips_and_verifies_offline() {
    let (server, dir) = (Server::new(), tempfile::tempdir().unwrap());
    let dir = dir.path();
    let pki = Pki::create_for(&dir.join("pki"), &Chip::random().unwrap()).unwrap();
    let other = Pki::create_for(&dir.join("other"), &Chip::random().unwrap()).unwrap();
    let params = Params::new([1; 64], [2; 32], [3; 32]);
    let report = pki.report(&params).unwrap();
    std::fs::write(dir.join("report.bin"), report.to_bytes()).unwrap();
    let old = pki.report(&Params { version: 2, ..params }).unwrap();
    std::fs::write(dir.join("old.bin"), old.to_bytes()).unwrap();
    let json = serde_json::json!({"attestation_report": report.to_json(), "cert_chain": null});
    std::fs::write(dir.join("evidence.json"), json.to_string()).unwrap();
    std::fs::write(dir.join("chain.pem"), pem(pki.ark_der()) + &pem(pki.ask_der())).unwrap();
    let collect = |more: &[&str]| {
        let common = ["collect-endorsements", "--tee", "snp", "--from", &server.address, "--out", "kept"];
        tclctl(dir, &[&common[..], &["--chain", "chain.pem"], more].concat())
    };
    let simulated = ["--report", "report.bin", "--allow-simulated"];

    let seen = collect(&simulated);
    assert!(seen.status == 69 && seen.stderr.contains("not there"), "{seen:#?}");
    server.gives(&vcek_path(&report), "", other.vcek_der());
    let seen = collect(&simulated);
    assert!(seen.status == 77 && seen.stderr.contains("evidence.chain"), "another chip's: {seen:#?}");
    server.gives(&vcek_path(&report), "", pki.vcek_der());
    let seen = collect(&simulated[..2]);
    assert!(seen.status == 77 && seen.stderr.contains("policy.environment"), "{seen:#?}");
    server.gives("vcek/v1/Milan/crl", "", b"no list");
    let seen = collect(&[&simulated[..], &["--crl"]].concat());
    assert!(seen.status == 77 && seen.stderr.contains("evidence.crl"), "{seen:#?}");
    assert_eq!(kept(dir), Vec::<String>::new(), "nothing is kept that does not verify");
    let seen = collect(&["--report", "old.bin", "--allow-simulated"]);
    assert!(seen.status == 64 && seen.stderr.contains("--product"), "{seen:#?}");
    assert_eq!(collect(&["--allow-simulated"]).status, 64, "without evidence");

    let seen = collect(&simulated).ok();
    let [file] = &kept(dir)[..] else { panic!("one file: {seen:#?}") };
    assert!(seen.stdout.contains(&format!("kept/{file}")) && file.starts_with("vcek-milan-"), "{seen:#?}");
    // From now on nobody is asked.
    server.has.lock().unwrap().clear();
    let _ = collect(&["--evidence", "evidence.json", "--allow-simulated"]).ok();
    let now = Timestamp::now().to_string();
    let verify = |directory: &str, more: &[&str]| {
        let common = ["verify", "--tee", "snp", "--at", &now, "--chain", "chain.pem", "--endorsements", directory];
        tclctl(dir, &[&common[..], more].concat())
    };
    let seen = verify("kept", &simulated).ok();
    assert!(seen.stdout.lines().last().unwrap().starts_with("verified: snp"), "{seen:#?}");
    let _ = verify("kept", &["--report", "old.bin", "--product", "Milan", "--allow-simulated"]).ok();
    assert_eq!(verify("kept", &["--report", "old.bin", "--allow-simulated"]).status, 64);
    assert_eq!(verify("none", &simulated).status, 74);
    assert_eq!(verify("kept", &[&simulated[..], &["--vek", "x"]].concat()).status, 64);
    // A directory is believed no more than a file.
    std::fs::write(dir.join("kept").join(file), other.vcek_der()).unwrap();
    assert!(verify("kept", &simulated).stderr.contains("evidence.chain"));
    // A revocation list in it counts.
    std::fs::write(dir.join("kept").join(file), pki.vcek_der()).unwrap();
    std::fs::write(dir.join("kept/milan-crl.der"), b"no list").unwrap();
    assert!(verify("kept", &simulated).stderr.contains("evidence.crl"));
}

#[test]
fn collateral_is_collected_when_its_root_is_trusted_and_verifies_offline() {
    let (server, dir) = (Server::new(), tempfile::tempdir().unwrap());
    let dir = dir.path();
    let now = Timestamp::now();
    let (platform, other) = (Platform::new(now).unwrap(), Platform::new(now).unwrap());
    let quote = platform.quote_with(&TdxParams::new(Body::V4, [1; 64]), platform.chain()).unwrap();
    std::fs::write(dir.join("quote.bin"), quote.encode()).unwrap();
    std::fs::write(dir.join("root.pem"), pem(&platform.root_der())).unwrap();
    let serve = |platform: &Platform| {
        let text = platform.collateral(&CollateralFacts::new(platform, now));
        let all: serde_json::Value = serde_json::from_str(&text).unwrap();
        let text = |member: &str| all[member].as_str().unwrap().to_owned();
        let header = |name: &str, member: &str| {
            let value: String = text(member).bytes().map(|byte| format!("%{byte:02X}")).collect();
            format!("{name}: {value}\r\n")
        };
        let signed = |name: &str, member: &str| {
            let signature = text(&format!("{member}_signature"));
            format!("{{\"{name}\":{},\"signature\":\"{signature}\"}}", text(member)).into_bytes()
        };
        let list = "sgx/certification/v4/pckcrl?ca=platform&encoding=der";
        server.gives(list, &header("SGX-PCK-CRL-Issuer-Chain", "pck_crl_issuer_chain"), text("pck_crl").as_bytes());
        server.gives("sgx/certification/v4/rootcacrl", "", text("root_ca_crl").as_bytes());
        let chain = header("SGX-Enclave-Identity-Issuer-Chain", "qe_identity_issuer_chain");
        server.gives("tdx/certification/v4/qe/identity", &chain, &signed("enclaveIdentity", "qe_identity"));
        let chain = header("TCB-Info-Issuer-Chain", "tcb_info_issuer_chain");
        server.gives("tdx/certification/v4/tcb?fmspc=53494d544458", &chain, &signed("tcbInfo", "tcb_info"));
    };
    let collect = || {
        let common = ["collect-endorsements", "--tee", "tdx", "--from", &server.address, "--out", "kept"];
        let more = ["--quote", "quote.bin", "--root", "root.pem", "--allow-simulated"];
        tclctl(dir, &[&common[..], &more].concat())
    };
    assert_eq!(collect().status, 69);
    serve(&other);
    let seen = collect();
    assert!(seen.status == 77 && seen.stderr.contains("evidence.collateral"), "another root's: {seen:#?}");
    assert_eq!(kept(dir), Vec::<String>::new());
    serve(&platform);
    let _ = collect().ok();
    assert_eq!(kept(dir), ["tdx-53494d544458-platform.json"]);
    server.has.lock().unwrap().clear();
    let at = Timestamp::now().to_string();
    let verify = |directory: &str| {
        let common = ["verify", "--tee", "tdx", "--at", &at, "--quote", "quote.bin", "--root", "root.pem"];
        tclctl(dir, &[&common[..], &["--allow-simulated", "--endorsements", directory]].concat())
    };
    let seen = verify("kept").ok();
    assert!(seen.stdout.lines().last().unwrap().starts_with("verified: tdx"), "{seen:#?}");
    assert_eq!(verify("none").status, 74);
}
