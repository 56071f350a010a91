//! Services on this machine, with simulated endorsements: what they give, what they give wrongly, and what they do not.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use endorsements::{Directory, EndorsementError, Limits, PlatformName, Service, VekName};
use protocols::environment::Environment;
use protocols::kbs::{SnpCertificate, TdxEvidence};
use protocols::snp::Report;
use protocols::time::Timestamp;
use simulated_tee::tdx::{Body, CollateralFacts, Params as TdxParams, Platform};
use simulated_tee::{Chip, Params, Pki};
use verifier::snp::{AllowedChips, ExpectedMeasurement, Product, SnpPolicy, TrustedArk, verify_snp_bytes};
use verifier::tdx::{TcbStatus, TdxCollateral, TdxRoot};
use verifier::{TdxMeasurements, TdxPolicy, Trace, verify_tdx};

/// What a path gives: status, headers, body.
type Given = (u16, Vec<(&'static str, String)>, Vec<u8>);

/// A service; every answer of a path is given once, the last one again and again.
struct Server {
    address: String,
    answers: Arc<Mutex<HashMap<String, Vec<Given>>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (answers, asked) =
            (Arc::<Mutex<HashMap<String, Vec<Given>>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (given, seen) = (Arc::clone(&answers), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (given, seen) = (Arc::clone(&given), Arc::clone(&seen));
                std::thread::spawn(move || answer(stream, &given, &seen));
            }
        });
        Self { address, answers, asked }
    }

    fn gives(&self, path: &str, given: Given) {
        self.answers.lock().unwrap().entry(path.to_owned()).or_default().push(given);
    }

    fn ok(&self, path: &str, body: &[u8]) {
        self.gives(path, (200, vec![], body.to_vec()));
    }

    fn forgets(&self) {
        self.answers.lock().unwrap().clear();
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn service(&self) -> Service {
        Service::new(&self.address, limits()).unwrap()
    }
}

fn limits() -> Limits {
    Limits {
        request: Duration::from_secs(2),
        total: Duration::from_secs(20),
        attempts: 3,
        wait: Duration::from_millis(1),
        bytes: 64 * 1024,
    }
}

fn answer(
    mut stream: TcpStream,
    answers: &Mutex<HashMap<String, Vec<Given>>>,
    asked: &Mutex<Vec<String>>,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let path = String::from_utf8(head).ok()?.split(' ').nth(1)?.trim_start_matches('/').to_owned();
    asked.lock().unwrap().push(path.clone());
    let (status, headers, body) = {
        let mut answers = answers.lock().unwrap();
        match answers.get_mut(&path) {
            None => (404, vec![], vec![]),
            Some(list) if list.len() > 1 => list.remove(0),
            Some(list) => list[0].clone(),
        }
    };
    if status == SLOW {
        // The head comes, and of the body one byte; the client must not wait for the rest.
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n.").ok()?;
        std::thread::sleep(Duration::from_secs(60));
        return None;
    }
    let mut text = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(&[text.as_bytes(), b"\r\n", &body].concat()).ok()
}

/// In place of a status: an answer that does not end.
const SLOW: u16 = 1;

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

static PKI: LazyLock<Pki> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    Pki::create_for(dir.path(), &Chip::random().unwrap()).unwrap()
});

fn report() -> Report {
    PKI.report(&Params::new([1; 64], [2; 32], [3; 32])).unwrap()
}

fn name() -> VekName {
    VekName::of(&report(), None).unwrap()
}

fn path() -> String {
    let id: String = PKI.chip().id.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("vcek/v1/Milan/{id}?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219")
}

/// The code under which the verifier takes the report with this certificate.
fn judged(vek: &[u8], now: Timestamp) -> &'static str {
    let policy = SnpPolicy {
        roots: vec![TrustedArk::from_ders([PKI.ark_der(), PKI.ask_der()], true, PKI.chip().tcb).unwrap()],
        measurements: ExpectedMeasurement::Listed(vec![[0x5A; 48]]),
        vmpl: 0,
        chips: AllowedChips::AnyChip,
        providers: Vec::new(),
        environment: Environment::Development,
    };
    let certificates = [SnpCertificate { cert_type: "VCEK".to_owned(), data: vek.to_vec() }];
    verify_snp_bytes(report().to_bytes(), &certificates, &[1; 64], &policy, now, &mut Trace::off())
        .map_or_else(|refusal| refusal.code.as_str(), |_| "pass")
}

#[test]
fn a_vcek_is_asked_for_by_chip_and_tcb_once_and_kept() {
    let (server, dir) = (Server::new(), tempfile::tempdir().unwrap());
    let kept = Directory::new(&dir.path().join("cache"));
    server.ok(&path(), PKI.vcek_der());
    server.ok("vcek/v1/Milan/crl", b"list");
    let vek = wait(server.service().vek(&name(), &kept)).unwrap();
    assert_eq!(judged(&vek, Timestamp::now()), "pass");
    assert_eq!(kept.vek(&name()).unwrap(), None, "nothing is kept before it was verified");
    kept.keep(&name().file(), &vek).unwrap();
    server.forgets();
    assert_eq!(wait(server.service().vek(&name(), &kept)).unwrap(), vek);
    assert_eq!(server.asked(), 1, "the second time it comes from the directory");
    assert!(matches!(wait(server.service().crl(&name())), Err(EndorsementError::Missing { .. })));
}

#[test]
fn turin_is_asked_for_by_8_bytes_and_its_fmc_and_a_vlek_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let turin = Pki::create_for(&dir.path().join("turin"), &Chip::random_turin().unwrap()).unwrap();
    let turin = turin.report(&Params::new([1; 64], [2; 32], [3; 32])).unwrap();
    let path = VekName::of(&turin, None).unwrap().path().unwrap();
    assert!(
        path.starts_with("vcek/v1/Turin/") && path.ends_with("?fmcSPL=01&blSPL=01&teeSPL=01&snpSPL=04&ucodeSPL=75")
    );
    assert_eq!(path.split(['/', '?']).nth(3).unwrap().len(), 16);

    let with = |change: fn(&mut protocols::snp::Fields)| {
        let mut fields = PKI.fields(&Params::new([1; 64], [2; 32], [3; 32]));
        change(&mut fields);
        PKI.sign(fields).unwrap()
    };
    let vlek = VekName::of(&with(|fields| fields.key_info = 1 << 2), None).unwrap();
    assert!(matches!(vlek.path(), Err(EndorsementError::Unnamed(_))));
    let genoa = VekName::of(&with(|fields| fields.cpuid_mod_id = Some(0x11)), Some(Product::Milan)).unwrap();
    assert_eq!(genoa.product, Product::Genoa, "what the report says counts");
    let old = PKI.report(&Params { version: 2, ..Params::new([1; 64], [2; 32], [3; 32]) }).unwrap();
    assert!(VekName::of(&old, None).is_err(), "version 2 tells no product");
    assert_eq!(VekName::of(&old, Some(Product::Milan)).unwrap(), name());
    assert!(VekName::of(&with(|fields| fields.key_info = 7 << 2), None).is_err());
}

#[test]
fn what_a_service_gives_wrongly_the_verifier_refuses() {
    let (server, dir) = (Server::new(), tempfile::tempdir().unwrap());
    let other = Pki::create_for(&dir.path().join("other"), &Chip::random().unwrap()).unwrap();
    let fetch = |body: &[u8]| {
        server.forgets();
        server.ok(&path(), body);
        wait(server.service().vek(&name(), &Directory::new(&dir.path().join("none")))).unwrap()
    };
    let now = Timestamp::now();
    assert_eq!(judged(&fetch(other.vcek_der()), now), "evidence.chain", "another root's chip");
    assert_eq!(judged(&fetch(PKI.ask_der()), now), "evidence.chain");
    assert_eq!(judged(&fetch(b"<html>"), now), "evidence.chain");
    assert_eq!(judged(&fetch(PKI.vcek_der()), now.plus(40 * 365 * 86_400)), "evidence.chain", "expired");
    assert_eq!(judged(&fetch(PKI.vcek_der()), now), "pass");
}

#[test]
fn failures_that_may_pass_are_tried_again_and_others_are_not() {
    let (server, none) = (Server::new(), Directory::new("/nowhere".as_ref()));
    let get = || wait(server.service().vek(&name(), &none));
    for status in [429, 408, 500, 502, 503] {
        server.forgets();
        let before = server.asked();
        server.gives(&path(), (status, vec![], vec![]));
        server.gives(&path(), (status, vec![("retry-after", "0".to_owned())], vec![]));
        server.ok(&path(), b"der");
        assert_eq!(get().unwrap(), b"der", "{status}");
        assert_eq!(server.asked() - before, 3);
    }
    for (given, expected) in [(301, 1), (400, 1), (403, 1), (404, 1), (429, 3), (503, 3)] {
        server.forgets();
        let before = server.asked();
        server.gives(&path(), (given, vec![("location", format!("{}/elsewhere", server.address))], vec![]));
        get().unwrap_err();
        assert_eq!(server.asked() - before, expected, "{given}");
    }
    // More patience than there is.
    server.forgets();
    server.gives(&path(), (429, vec![("retry-after", "3600".to_owned())], vec![]));
    assert!(matches!(get(), Err(EndorsementError::Unavailable { what, .. }) if what.contains("429")));
    // Nobody listens.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let service = Service::new(&format!("http://{gone}"), limits()).unwrap();
    assert!(matches!(wait(service.vek(&name(), &none)), Err(EndorsementError::Unavailable { .. })));
}

#[test]
fn answers_without_an_end_end() {
    let (server, none) = (Server::new(), Directory::new("/nowhere".as_ref()));
    let limits = Limits { request: Duration::from_millis(300), ..limits() };
    let get = || wait(Service::new(&server.address, limits).unwrap().vek(&name(), &none));
    server.ok(&path(), &vec![0; limits.bytes]);
    assert_eq!(get().unwrap().len(), limits.bytes);
    server.forgets();
    server.ok(&path(), &vec![0; limits.bytes + 1]);
    assert!(matches!(get(), Err(EndorsementError::Malformed { what, .. }) if what.contains("longer")));
    server.forgets();
    server.gives(&path(), (SLOW, vec![], vec![]));
    let started = Instant::now();
    assert!(matches!(get(), Err(EndorsementError::Unavailable { what, .. }) if what.contains("in time")));
    assert!(started.elapsed() < Duration::from_secs(30), "the server holds each for a minute");
}

#[test]
fn only_https_or_this_machine_is_asked() {
    for good in ["https://kds.example", "http://127.0.0.1:8081/pccs", "http://localhost:1/", "http://[::1]:2"] {
        Service::new(good, Limits::default()).unwrap();
    }
    for bad in [
        "http://kds.example",
        "http://10.0.0.1",
        "ftp://127.0.0.1",
        "kds.example",
        "",
        "https://a/?x=1",
        "http://127.0.0.1.example",
    ] {
        assert!(matches!(Service::new(bad, Limits::default()), Err(EndorsementError::Address { .. })), "{bad}");
    }
}

/// Intel's side of one platform.
struct Intel {
    platform: Platform,
    now: Timestamp,
}

const LIST: &str = "sgx/certification/v4/pckcrl?ca=platform&encoding=der";
const ROOT_LIST: &str = "sgx/certification/v4/rootcacrl";
const IDENTITY: &str = "tdx/certification/v4/qe/identity";
const TCB: &str = "tdx/certification/v4/tcb?fmspc=53494d544458";

impl Intel {
    fn new() -> Self {
        let now = Timestamp::now();
        Self { platform: Platform::new(now).unwrap(), now }
    }

    fn quote(&self) -> Vec<u8> {
        let params = TdxParams::new(Body::V4, [1; 64]);
        self.platform.quote_with(&params, self.platform.chain()).unwrap().encode()
    }

    fn name(&self) -> PlatformName {
        PlatformName::of(&protocols::tdx::Quote::parse(&self.quote()).unwrap()).unwrap()
    }

    /// As a PCCS has them.
    fn serve(&self, server: &Server, facts: &CollateralFacts) {
        let all: serde_json::Value = serde_json::from_str(&self.platform.collateral(facts)).unwrap();
        let text = |member: &str| all[member].as_str().unwrap().to_owned();
        let chain = |member: &str| text(member).bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let signed = |name: &str, value: &str, signature: &str| {
            format!("{{\"{name}\":{},\"signature\":\"{}\"}}", text(value), text(signature)).into_bytes()
        };
        server.forgets();
        // The one as bytes, the other as text: both are met.
        let der: Vec<u8> = text("pck_crl")
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        server.gives(LIST, (200, vec![("SGX-PCK-CRL-Issuer-Chain", chain("pck_crl_issuer_chain"))], der));
        server.ok(ROOT_LIST, text("root_ca_crl").as_bytes());
        let identity = signed("enclaveIdentity", "qe_identity", "qe_identity_signature");
        server.gives(
            IDENTITY,
            (200, vec![("SGX-Enclave-Identity-Issuer-Chain", chain("qe_identity_issuer_chain"))], identity),
        );
        let tcb = signed("tcbInfo", "tcb_info", "tcb_info_signature");
        server.gives(TCB, (200, vec![("TCB-Info-Issuer-Chain", chain("tcb_info_issuer_chain"))], tcb));
    }

    fn facts(&self) -> CollateralFacts {
        CollateralFacts::new(&self.platform, self.now)
    }

    fn judged(&self, collateral: &[u8]) -> &'static str {
        let policy = TdxPolicy {
            roots: vec![TdxRoot::from_der(&self.platform.root_der(), true).unwrap()],
            collateral: vec![TdxCollateral::parse(collateral).unwrap()],
            statuses: vec![TcbStatus::UpToDate],
            advisories: vec![],
            minimum_evaluation: 17,
            measurements: TdxMeasurements::ANY,
            environment: Environment::Development,
        };
        let evidence = TdxEvidence { cc_eventlog: None, quote: self.quote() };
        verify_tdx(&evidence, &[1; 64], &policy, self.now, &mut Trace::off())
            .map_or_else(|refusal| refusal.code.as_str(), |_| "pass")
    }
}

#[test]
fn collateral_is_put_together_from_its_parts_as_they_were_signed() {
    let (server, dir, intel) = (Server::new(), tempfile::tempdir().unwrap(), Intel::new());
    let kept = Directory::new(dir.path());
    intel.serve(&server, &intel.facts());
    let fetched = wait(server.service().collateral(&intel.name(), &kept, intel.now)).unwrap();
    assert_eq!(intel.judged(&fetched), "pass");
    kept.keep(&intel.name().file(), &fetched).unwrap();
    server.forgets();
    let again = wait(server.service().collateral(&intel.name(), &kept, intel.now)).unwrap();
    assert_eq!((again, server.asked()), (fetched, 4));
}

#[test]
fn collateral_is_renewed_before_it_ends_and_the_last_good_counts_while_it_may() {
    let (server, dir, intel) = (Server::new(), tempfile::tempdir().unwrap(), Intel::new());
    let kept = Directory::new(dir.path());
    intel.serve(&server, &intel.facts());
    let get = |now| wait(server.service().collateral(&intel.name(), &kept, now));
    let old = get(intel.now).unwrap();
    kept.keep(&intel.name().file(), &old).unwrap();
    let (from, to) = TdxCollateral::parse(&old).unwrap().window();
    let quarter = (to.0 - from.0) / 4;
    let asked = server.asked();
    get(Timestamp(to.0 - quarter - 1)).unwrap();
    assert_eq!(server.asked(), asked, "still fresh");
    get(Timestamp(to.0 - quarter)).unwrap();
    assert_eq!(server.asked(), asked + 4, "renewed");
    server.forgets();
    assert_eq!(get(to).unwrap(), old, "nothing newer is to be had");
    get(Timestamp(to.0 + 1)).unwrap_err();
    // What is no collateral in the directory is as if there were none.
    kept.keep(&intel.name().file(), b"{}").unwrap();
    get(intel.now).unwrap_err();
}

#[test]
fn parts_that_do_not_fit_are_no_collateral() {
    let (server, intel) = (Server::new(), Intel::new());
    let none = Directory::new("/nowhere".as_ref());
    let get = || wait(server.service().collateral(&intel.name(), &none, intel.now));
    for (part, given) in [
        (LIST, (200, vec![], vec![0x30, 0])),
        (ROOT_LIST, (200, vec![], b"<html>".to_vec())),
        (IDENTITY, (200, vec![], b"{}".to_vec())),
        (
            TCB,
            (200, vec![("TCB-Info-Issuer-Chain", "%zz".to_owned())], b"{\"tcbInfo\":{},\"signature\":\"\"}".to_vec()),
        ),
    ] {
        intel.serve(&server, &intel.facts());
        server.answers.lock().unwrap().insert(part.to_owned(), vec![given]);
        assert!(matches!(get(), Err(EndorsementError::Malformed { .. })), "{part}");
        server.answers.lock().unwrap().remove(part);
        assert!(matches!(get(), Err(EndorsementError::Missing { .. })), "{part}");
    }
    intel.serve(&server, &CollateralFacts { fmspc: [9; 6], ..intel.facts() });
    assert!(matches!(get(), Err(EndorsementError::Malformed { what, .. }) if what.contains("another kind")));
    // Another Intel's, in the right form.
    let stranger = Intel::new();
    stranger.serve(&server, &stranger.facts());
    assert_eq!(intel.judged(&get().unwrap()), "evidence.collateral");
}

#[test]
fn a_directory_holds_so_many_and_reads_no_more_than_an_endorsement() {
    let dir = tempfile::tempdir().unwrap();
    let kept = Directory::new(dir.path());
    for number in 0..=endorsements::MAX_KEPT {
        std::fs::write(dir.path().join(format!("{number}")), "").unwrap();
    }
    kept.keep(&name().file(), b"der").unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), endorsements::MAX_KEPT);
    assert_eq!(kept.vek(&name()).unwrap().unwrap(), b"der");
    std::fs::write(dir.path().join(name().file()), vec![0; 1024 * 1024 + 1]).unwrap();
    assert!(matches!(kept.vek(&name()), Err(EndorsementError::File { .. })));
}
