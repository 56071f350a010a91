//! Endorsements that guests do not bring: the attestor finds them in its directory or at a service on this machine.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking

mod support;

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use endorsements::{PlatformName, VekName};
use protocols::guest::GuestId;
use protocols::kbs::{SnpEvidence, TdxEvidence, Tee, TeeEvidence, report_data};
use protocols::register::{HashAlg, RegisterKind};
use protocols::tcl::LogBinding;
use protocols::time::Timestamp;
use serde_json::Value;
use simulated_tee::tdx::{Body, CollateralFacts, Params as TdxParams, Platform};
use simulated_tee::{Params, Pki};
use support::World;
use verifier::TdxCollateral;

/// What a path gives: headers and body.
type Given = (Vec<(&'static str, String)>, Vec<u8>);

/// A service that has what it was told of, and takes a moment for each answer.
struct Server {
    address: String,
    answers: Arc<Mutex<HashMap<String, Given>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let answers: Arc<Mutex<HashMap<String, Given>>> = Arc::default();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (given, seen) = (Arc::clone(&answers), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (given, seen) = (Arc::clone(&given), Arc::clone(&seen));
                std::thread::spawn(move || answer(stream, &given, &seen));
            }
        });
        Self { address, answers, asked }
    }

    fn has(&self, path: &str, headers: Vec<(&'static str, String)>, body: &[u8]) {
        self.answers.lock().unwrap().insert(path.to_owned(), (headers, body.to_vec()));
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn answer(mut stream: TcpStream, answers: &Mutex<HashMap<String, Given>>, asked: &Mutex<Vec<String>>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let path = String::from_utf8(head).ok()?.split(' ').nth(1)?.trim_start_matches('/').to_owned();
    asked.lock().unwrap().push(path.clone());
    std::thread::sleep(Duration::from_millis(300));
    let found = answers.lock().unwrap().get(&path).cloned();
    let (status, (headers, body)) = found.map_or((404, (vec![], vec![])), |given| (200, given));
    let mut text = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(&[text.as_bytes(), b"\r\n", &body].concat()).ok()
}

fn log(kind: RegisterKind) -> LogBinding {
    LogBinding { alg: HashAlg::Sha384, count: 1, guest: GuestId::new([5; 32]), head: HashAlg::Sha384.zero(), kind }
}

/// Asks for a session; the code of a refusal.
async fn attest(world: &World, tee: Tee, kind: RegisterKind, evidence: impl Fn([u8; 64]) -> Value) -> &'static str {
    let challenged = world.client().challenge(tee).await.unwrap();
    let log = log(kind);
    let shown = evidence(report_data(&challenged.binding(Some(&log)).unwrap()));
    let evidence = TeeEvidence { primary_evidence: shown, additional_evidence: String::new() };
    challenged.attest(evidence, Some(log), None).await.map_or_else(|error| error.code().as_str(), |_| "session")
}

async fn world(directory: tempfile::TempDir, register: &str, more: &str) -> World {
    let world = World::edited(directory, "development", |text| {
        text.replace("\"tpm-listed\"", &format!("\"{register}\"")) + more
    })
    .await;
    world.clock.store(Timestamp::now().0, Ordering::SeqCst);
    world
}

static PKI: LazyLock<(tempfile::TempDir, Pki)> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::create(&directory.path().join("pki")).unwrap();
    (directory, pki)
});

fn params(data: [u8; 64]) -> Params {
    Params::new(data, [0; 32], [5; 32])
}

/// A report without any certificate.
fn bare(data: [u8; 64]) -> Value {
    let attestation_report = PKI.1.report(&params(data)).unwrap().to_json();
    serde_json::to_value(SnpEvidence { attestation_report, cert_chain: None }).unwrap()
}

fn vek() -> VekName {
    VekName::of(&PKI.1.report(&params([0; 64])).unwrap(), None).unwrap()
}

async fn snp_world(kept: &Path, service: &str) -> World {
    let ark = PKI.0.path().join("pki/ark.pem");
    let more = format!(
        "\n[[snp.root]]\npath = \"{}\"\nsimulated = true\n[endorsements]\ndirectory = \"{}\"\n{service}\n",
        pem_with_ask(&ark).display(),
        kept.display()
    );
    world(tempfile::tempdir().unwrap(), "software", &more).await
}

/// A root with the intermediate that the guest does not bring.
fn pem_with_ask(ark: &Path) -> std::path::PathBuf {
    let whole = ark.with_file_name("chain.pem");
    let text = [ark.to_owned(), ark.with_file_name("ask.pem")].map(|path| std::fs::read_to_string(path).unwrap());
    let beside = ark.with_file_name(format!("chain-{:?}.pem", std::thread::current().id()));
    std::fs::write(&beside, text.concat()).unwrap();
    std::fs::rename(&beside, &whole).unwrap();
    whole
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vcek_is_fetched_once_for_all_who_need_it_and_kept() {
    let (server, kept) = (Server::new(), tempfile::tempdir().unwrap());
    server.has(&vek().path().unwrap(), vec![], PKI.1.vcek_der());
    let world = snp_world(kept.path(), &format!("amd = \"{}\"", server.address)).await;
    let asks = (0..12).map(|_| attest(&world, Tee::Snp, RegisterKind::Software, bare));
    let codes = futures_util::future::join_all(asks).await;
    assert_eq!((codes, server.asked()), (vec!["session"; 12], 1));
    assert_eq!(std::fs::read(kept.path().join(vek().file())).unwrap(), PKI.1.vcek_der());

    // Another attestor on the same directory needs nobody.
    let alone = snp_world(kept.path(), "").await;
    assert_eq!(attest(&alone, Tee::Snp, RegisterKind::Software, bare).await, "session");
    let nothing = tempfile::tempdir().unwrap();
    let empty = snp_world(nothing.path(), "").await;
    assert_eq!(attest(&empty, Tee::Snp, RegisterKind::Software, bare).await, "evidence.chain");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_does_not_give_or_gives_wrongly_is_no_pass_and_is_not_kept() {
    let (server, kept) = (Server::new(), tempfile::tempdir().unwrap());
    let world = snp_world(kept.path(), &format!("amd = \"{}\"", server.address)).await;
    let ask = || attest(&world, Tee::Snp, RegisterKind::Software, bare);
    assert_eq!((ask().await, server.asked()), ("evidence.chain", 1));
    assert_eq!((ask().await, server.asked()), ("evidence.chain", 1), "not asked for again at once");

    let stranger = Pki::create(&kept.path().join("other")).unwrap();
    let wrong = Server::new();
    wrong.has(&vek().path().unwrap(), vec![], stranger.vcek_der());
    let deceived = snp_world(kept.path(), &format!("amd = \"{}\"", wrong.address)).await;
    assert_eq!(attest(&deceived, Tee::Snp, RegisterKind::Software, bare).await, "evidence.chain");
    assert!(!kept.path().join(vek().file()).exists());
    // What the guest brings itself is judged, whatever a service would have.
    server.has(&vek().path().unwrap(), vec![], PKI.1.vcek_der());
    let brought = |data| {
        let mut evidence = bare(data);
        let entry = protocols::kbs::SnpCertificate { cert_type: "VCEK".into(), data: stranger.vcek_der().to_vec() };
        evidence["cert_chain"] = serde_json::to_value(vec![entry]).unwrap();
        evidence
    };
    assert_eq!(attest(&world, Tee::Snp, RegisterKind::Software, brought).await, "evidence.chain");
    assert_eq!(server.asked(), 1);
}

/// A TDX platform, and what a PCCS has of it.
struct Td {
    platform: Platform,
}

impl Td {
    fn quote(&self, data: [u8; 64]) -> protocols::tdx::Quote {
        self.platform.quote(&TdxParams::new(Body::V4, data)).unwrap()
    }

    fn evidence(&self, data: [u8; 64]) -> Value {
        serde_json::to_value(TdxEvidence { cc_eventlog: None, quote: self.quote(data).encode() }).unwrap()
    }

    fn serve(&self, server: &Server, facts: &CollateralFacts) {
        let json: Value = serde_json::from_str(&self.platform.collateral(facts)).unwrap();
        let text = |name: &str| json[name].as_str().unwrap().to_owned();
        let chain = |name: &str| text(name).bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let der = |name: &str| hex::decode(text(name)).unwrap();
        let signed = |name: &str, inner: &str, signature: &str| {
            format!("{{\"{name}\":{},\"signature\":\"{}\"}}", text(inner), text(signature)).into_bytes()
        };
        let crl = "sgx/certification/v4/pckcrl?ca=platform&encoding=der";
        server.has(crl, vec![("SGX-PCK-CRL-Issuer-Chain", chain("pck_crl_issuer_chain"))], &der("pck_crl"));
        server.has("sgx/certification/v4/rootcacrl", vec![], &der("root_ca_crl"));
        let identity = signed("enclaveIdentity", "qe_identity", "qe_identity_signature");
        let issuers = vec![("SGX-Enclave-Identity-Issuer-Chain", chain("qe_identity_issuer_chain"))];
        server.has("tdx/certification/v4/qe/identity", issuers, &identity);
        let tcb = signed("tcbInfo", "tcb_info", "tcb_info_signature");
        let path = format!("tdx/certification/v4/tcb?fmspc={}", hex::encode(self.platform.pck.fmspc));
        server.has(&path, vec![("TCB-Info-Issuer-Chain", chain("tcb_info_issuer_chain"))], &tcb);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn collateral_is_fetched_once_renewed_before_it_ends_and_outlives_its_service() {
    const DAY: u64 = 24 * 3600;
    let (server, directory, kept) = (Server::new(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let start = Timestamp::now();
    let td = Td { platform: Platform::new(start).unwrap() };
    let root = directory.path().join("tdx-root.pem");
    std::fs::write(&root, root_pem(&td.platform)).unwrap();
    let more = format!(
        "\n[tdx]\nroot = [{{ path = \"{}\", simulated = true }}]\n[tdx.require]\nminimum_evaluation = 1\n\
         [endorsements]\ndirectory = \"{}\"\nintel = \"{}\"\n",
        root.display(),
        kept.path().display(),
        server.address
    );
    let mut world = world(directory, "rtmr", &more).await;
    world.clock.store(start.0, Ordering::SeqCst);
    let ask = async |world: &World| attest(world, Tee::Tdx, RegisterKind::Rtmr, |data| td.evidence(data)).await;
    assert_eq!(ask(&world).await, "evidence.collateral", "the service has nothing");

    // The next attestor finds it there, fetches it once, and has it from then on.
    let valid = |from: u64| {
        let mut facts = CollateralFacts::new(&td.platform, start);
        let from = start.plus(from * DAY);
        for part in [&mut facts.tcb_info, &mut facts.qe_identity, &mut facts.crls.root, &mut facts.crls.pck] {
            (part.from, part.to) = (from, from.plus(30 * DAY));
        }
        facts
    };
    td.serve(&server, &valid(0));
    world.restart().await;
    let before = server.asked();
    let codes = futures_util::future::join_all((0..8).map(|_| ask(&world))).await;
    assert_eq!((codes, server.asked() - before), (vec!["session"; 8], 4), "four parts, each once");
    assert_eq!((ask(&world).await, server.asked() - before), ("session", 4));
    let file = kept.path().join(PlatformName::of(&td.quote([0; 64])).unwrap().file());
    // A revocation list has ended at its next update: the last moment is the one before.
    let kept = || {
        let (from, to) = TdxCollateral::parse(&std::fs::read(&file).unwrap()).unwrap().window();
        (from, to.plus(1))
    };
    assert_eq!(kept(), (start, start.plus(30 * DAY)));

    // While more than a quarter of its life is left nobody is asked; then it is renewed.
    world.broker().renew_endorsements().await;
    assert_eq!(server.asked() - before, 4);
    td.serve(&server, &valid(24));
    world.pass(25 * DAY);
    world.restart().await;
    assert_eq!((ask(&world).await, server.asked() - before), ("session", 8));
    world.pass(10 * DAY);
    assert_eq!((ask(&world).await, kept().1), ("session", start.plus(54 * DAY)));

    // What is not signed under the root takes no good one's place; that counts while it is valid, and no longer.
    world.pass(15 * DAY);
    Td { platform: Platform::new(start).unwrap() }.serve(&server, &valid(49));
    world.broker().renew_endorsements().await;
    assert_eq!((server.asked() - before, kept().1), (12, start.plus(54 * DAY)));
    assert_eq!(ask(&world).await, "session");
    world.pass(5 * DAY);
    assert_eq!(ask(&world).await, "evidence.collateral");

    // In time, it would have been renewed while nobody asked.
    td.serve(&server, &valid(49));
    world.clock.store(start.plus(50 * DAY).0, Ordering::SeqCst);
    world.restart().await;
    assert_eq!((ask(&world).await, kept().1), ("session", start.plus(79 * DAY)));
    td.serve(&server, &valid(74));
    world.pass(25 * DAY);
    world.broker().renew_endorsements().await;
    assert_eq!(kept().1, start.plus(104 * DAY));
    world.pass(20 * DAY);
    assert_eq!(ask(&world).await, "session");

    // A service that goes back in time takes nothing away that still counts.
    td.serve(&server, &valid(73));
    world.pass(5 * DAY);
    world.restart().await;
    let before = server.asked();
    assert_eq!((ask(&world).await, kept().1), ("session", start.plus(104 * DAY)));
    assert_eq!(server.asked() - before, 4, "it was asked");
    world.broker().renew_endorsements().await;
    assert_eq!(kept().1, start.plus(104 * DAY));
}

fn root_pem(platform: &Platform) -> String {
    let der = protocols::encoding::b64(&platform.root_der());
    let lines: Vec<&str> = der.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
