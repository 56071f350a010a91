//! The Azure backend against a real swtpm that was prepared as the paravisor leaves its vTPM, and a metadata service on
//! loopback. A swtpm has no paravisor: a thread here renews the report when it sees new user data, by tpm2-tools.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use attester::azure::{AzureLimits, AzureTee};
use attester::{Attester as _, AttesterError, AzureAttester};
use common::{By, Swtpm};
use protocols::digest::Sha384Digest;
use protocols::environment::Environment;
use protocols::guest::GuestId;
use protocols::kbs::Tee;
use protocols::reason;
use protocols::register::{HashAlg, RegisterKind};
use protocols::tdx::{TdAttributes, TdReport, parse_local};
use protocols::time::Timestamp;
use simulated_tee::tdx::{Body, CollateralFacts, Params as TdParams, Platform};
use simulated_tee::{Params, Pki, claims_for, paravisor_report, paravisor_td_report};
use verifier::tdx::{TcbStatus, TdxMeasurements, TdxPolicy};
use verifier::{
    AllowedChips, AzureHardware, AzurePolicy, AzureTdxPolicy, EvidenceClaims, EvidencePolicy, ExpectedMeasurement,
    SamplePolicy, SeptVe, SnpPolicy, TdxCollateral, TdxRoot, TpmPolicy, TrustedArk, UserData, verify_evidence,
};

const REPORT: &str = "0x01400001";
const USER_DATA: &str = "0x01400002";
const AK: &str = "0x81000003";
const LIMITS: AzureLimits = AzureLimits { renewal: Duration::from_secs(20), service: Duration::from_secs(20) };
const SHORT: AzureLimits = AzureLimits { renewal: Duration::from_millis(300), service: Duration::from_millis(300) };

static PLATFORM: LazyLock<Platform> = LazyLock::new(|| Platform::new(Timestamp::now()).unwrap());

/// A vTPM with an attestation key at its handle and a report that names it.
struct Vtpm {
    tee: AzureTee,
    swtpm: Swtpm,
    modulus: Vec<u8>,
}

impl Vtpm {
    fn start(tee: AzureTee) -> Self {
        let swtpm = Swtpm::start(By::Unix);
        let path = |name: &str| swtpm.dir.path().join(name).display().to_string();
        let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|sign";
        let kind = ["-C", "e", "-g", "sha256", "-G", "rsa2048:rsassa-sha256:null", "-a", attributes];
        swtpm.tool("tpm2_createprimary", &[&kind[..], &["-Q", "-c", &path("ak.ctx")]].concat());
        swtpm.tool("tpm2_evictcontrol", &["-Q", "-C", "o", "-c", &path("ak.ctx"), AK]);
        swtpm.tool("tpm2_flushcontext", &["-t"]);
        swtpm.tool("tpm2_readpublic", &["-Q", "-c", AK, "-f", "der", "-o", &path("ak.der")]);
        // SubjectPublicKeyInfo of an RSA-2048 key: the modulus is after 33 bytes.
        let modulus = std::fs::read(path("ak.der")).unwrap()[33..33 + 256].to_vec();
        let vtpm = Self { tee, swtpm, modulus };
        let report = report(tee, &vtpm.modulus, &[0; 64]);
        let size = report.len().to_string();
        vtpm.swtpm.tool("tpm2_nvdefine", &["-Q", REPORT, "-C", "o", "-s", &size, "-a", "ownerread|ownerwrite"]);
        vtpm.write(&report);
        vtpm
    }

    fn write(&self, report: &[u8]) {
        let file = self.swtpm.dir.path().join("report");
        std::fs::write(&file, report).unwrap();
        self.swtpm.tool("tpm2_nvwrite", &["-Q", REPORT, "-C", "o", "-i", &file.display().to_string()]);
    }

    fn open(&self, imds: &str, limits: AzureLimits) -> Result<AzureAttester, AttesterError> {
        AzureAttester::open(self.tee, self.swtpm.address.clone(), 14, imds, limits)
    }

    /// Renews the report whenever there are new user data, until the test ends.
    fn with_paravisor(self) -> Paravisor {
        let (vtpm, ended) = (Arc::new(self), Arc::new(AtomicBool::new(false)));
        let (watched, end) = (Arc::clone(&vtpm), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            let mut shown = [0; 64];
            let file = watched.swtpm.dir.path().join("user-data");
            let arguments = ["-Q", USER_DATA, "-C", "o", "-o", &file.display().to_string()];
            while !end.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(20));
                // Before the attester has made the index there is nothing to read.
                if watched.swtpm.try_tool("tpm2_nvread", &arguments).is_none() {
                    continue;
                }
                let found: [u8; 64] = std::fs::read(&file).unwrap().try_into().unwrap();
                if found != shown {
                    watched.write(&report(watched.tee, &watched.modulus, &found));
                    shown = found;
                }
            }
        });
        Paravisor { vtpm, ended, thread: Some(thread) }
    }
}

struct Paravisor {
    vtpm: Arc<Vtpm>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Paravisor {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn pki() -> Pki {
    Pki::open(common::pki()).unwrap()
}

fn report(tee: AzureTee, modulus: &[u8], user_data: &[u8; 64]) -> Vec<u8> {
    let claims = claims_for(modulus, user_data);
    match tee {
        AzureTee::Snp => paravisor_report(&pki(), &Params::new([0; 64], [0; 32], [3; 32]), &claims).unwrap(),
        AzureTee::Tdx => paravisor_td_report(&td(), &claims),
    }
}

/// As Azure starts its TDs: without `SEPT_VE_DISABLE`.
fn td() -> TdReport {
    TdReport { td_attributes: TdAttributes(0), ..TdParams::new(Body::V4, [0; 64]).report }
}

/// What the machine's quoting enclave makes of a TD report.
fn td_quote(report: TdReport) -> String {
    let params = TdParams { report: TdReport { v15: None, ..report }, ..TdParams::new(Body::V4, [0; 64]) };
    let mut page = PLATFORM.quote(&params).unwrap().encode();
    page.resize(8192, 0);
    serde_json::json!({ "quote": protocols::encoding::b64url(&page) }).to_string()
}

/// What the service answers.
#[derive(Clone, Copy)]
enum Answer {
    Certificate,
    TdQuote,
    /// A quote of a TD report that it was not asked about.
    OtherTdQuote,
    Nothing,
    TooMuch,
    NotFound,
    NoCertificate,
}

/// A metadata service on loopback that counts its requests and keeps the last.
struct Service {
    url: String,
    requests: Arc<AtomicUsize>,
    last: Arc<Mutex<String>>,
}

impl Service {
    fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (requests, last) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(String::new())));
        let (count, seen) = (Arc::clone(&requests), Arc::clone(&last));
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                open.push(serve(stream, answer, &seen));
            }
        });
        Self { url, requests, last }
    }
}

/// Gives the connection back: one that is closed is not a slow one.
fn serve(mut stream: TcpStream, answer: Answer, seen: &Mutex<String>) -> TcpStream {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        request.push(byte[0]);
    }
    let head = String::from_utf8(request).unwrap();
    let length = head
        .to_lowercase()
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next().and_then(|number| number.parse::<usize>().ok()));
    let mut sent = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut sent).unwrap();
    *seen.lock().unwrap() = head;
    let asked = || {
        let json: serde_json::Value = serde_json::from_slice(&sent).unwrap();
        let report = protocols::encoding::un_b64url(json["report"].as_str().unwrap()).unwrap();
        parse_local(&report.try_into().unwrap()).unwrap()
    };
    let body = match answer {
        Answer::TdQuote => td_quote(asked()),
        Answer::OtherTdQuote => td_quote(TdReport { report_data: [9; 64], ..asked() }),
        Answer::Nothing => return stream,
        Answer::NotFound | Answer::NoCertificate => "{}".to_owned(),
        Answer::TooMuch => " ".repeat(1 << 20),
        Answer::Certificate => {
            let der = protocols::encoding::b64(pki().vcek_der());
            let pem = format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n");
            serde_json::json!({"vcekCert": pem, "tcbm": "00", "certificateChain": "", "cacheControl": "86400"})
                .to_string()
        }
    };
    let status = if matches!(answer, Answer::NotFound) { "404 Not Found" } else { "200 OK" };
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
    // Whoever has read enough may hang up.
    let _ = stream.write_all(&[head.as_bytes(), body.as_bytes()].concat());
    stream
}

fn policy() -> EvidencePolicy {
    let (environment, pki) = (Environment::Development, pki());
    let snp = SnpPolicy {
        roots: vec![TrustedArk::from_ders([pki.ark_der(), pki.ask_der()], true, pki.chip().tcb).unwrap()],
        measurements: ExpectedMeasurement::Listed(vec![[0x5A; 48]]),
        vmpl: 0,
        chips: AllowedChips::AnyChip,
        providers: Vec::new(),
        environment,
    };
    let collateral = PLATFORM.collateral(&CollateralFacts::new(&PLATFORM, Timestamp::now()));
    let tdx = TdxPolicy {
        roots: vec![TdxRoot::from_der(&PLATFORM.root_der(), true).unwrap()],
        collateral: vec![TdxCollateral::parse(collateral.as_bytes()).unwrap()],
        statuses: vec![TcbStatus::UpToDate],
        advisories: Vec::new(),
        minimum_evaluation: 1,
        measurements: TdxMeasurements::ANY,
        environment,
    };
    EvidencePolicy {
        tpm: TpmPolicy { aks: Vec::new(), pcr: 14, environment },
        snp: snp.clone(),
        azure: AzurePolicy { snp, user_data: UserData::Nonce },
        azure_tdx: AzureTdxPolicy { tdx: tdx.clone(), sept_ve: SeptVe::NotRequired, user_data: UserData::Nonce },
        tdx,
        sample: SamplePolicy::Refused,
        registers: vec![RegisterKind::VtpmHcl],
        environment,
    }
}

/// The code and the words of a refusal.
fn refusal<T: std::fmt::Debug>(result: Result<T, AttesterError>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.code(), reason::EVIDENCE_UNAVAILABLE, "{error}");
    error.to_string()
}

#[test]
fn collected_evidence_is_verified_and_each_is_over_its_own_binding() {
    let paravisor = Vtpm::start(AzureTee::Snp).with_paravisor();
    let service = Service::start(Answer::Certificate);
    let attester = paravisor.vtpm.open(&service.url, LIMITS).unwrap();
    let info = attester.register();
    assert_eq!((info.kind, info.mr, info.alg, info.simulated), (RegisterKind::VtpmHcl, 14, HashAlg::Sha256, true));
    assert_eq!((attester.tee(), service.requests.load(Ordering::SeqCst)), (Tee::AzSnpVtpm, 0));

    let event = HashAlg::Sha256.hash(&[b"an event"]);
    attester.extend(&event).unwrap();
    let head = HashAlg::Sha256.zero().extend(&event).unwrap();
    assert_eq!((attester.read_register().unwrap(), paravisor.vtpm.swtpm.pcrread(14)), (head, head));

    let now = Timestamp::now();
    let mut reports = Vec::new();
    for text in [b"first", b"other"] {
        let binding = Sha384Digest::of(text);
        let evidence = attester.evidence(&binding).unwrap();
        let claims = verify_evidence(Tee::AzSnpVtpm, &evidence, &binding, &policy(), now).unwrap();
        let EvidenceClaims::Azure(azure) = &claims else { panic!("an Azure VM") };
        assert_eq!(azure.tpm().pcrs()[14].as_bytes().as_slice(), head.as_bytes());
        let identity = GuestId::of_tpm(azure.tpm().ak_spki(), azure.tpm().reset_count(), &[1; 32]);
        assert_eq!(attester.guest(&[1; 32]).unwrap(), identity);
        let wrong = verify_evidence(Tee::AzSnpVtpm, &evidence, &Sha384Digest::of(b"x"), &policy(), now).unwrap_err();
        assert_eq!(wrong.code, reason::EVIDENCE_NONCE);
        reports.push(evidence["hcl_report"].clone());
    }
    assert_ne!(reports[0], reports[1]);
    assert_eq!(service.requests.load(Ordering::SeqCst), 1, "the certificate of the same chip and TCB is kept");
    let request = service.last.lock().unwrap().clone();
    assert!(request.starts_with("GET /metadata/THIM/amd/certification HTTP/1.1\r\n"), "{request}");
    assert!(request.to_lowercase().contains("\r\nmetadata: true\r\n"), "{request}");
}

#[test]
fn a_tds_evidence_is_a_quote_of_the_report_over_the_binding() {
    let paravisor = Vtpm::start(AzureTee::Tdx).with_paravisor();
    let service = Service::start(Answer::TdQuote);
    let attester = paravisor.vtpm.open(&service.url, LIMITS).unwrap();
    assert_eq!((attester.tee(), attester.register().kind), (Tee::AzTdxVtpm, RegisterKind::VtpmHcl));
    let event = HashAlg::Sha256.hash(&[b"an event"]);
    attester.extend(&event).unwrap();

    let binding = Sha384Digest::of(b"first");
    let evidence = attester.evidence(&binding).unwrap();
    let verify = |policy: &EvidencePolicy| {
        verify_evidence(Tee::AzTdxVtpm, &evidence, &binding, policy, Timestamp::now()).map_err(|refusal| refusal.code)
    };
    let claims = verify(&policy()).unwrap();
    let EvidenceClaims::Azure(azure) = &claims else { panic!("an Azure VM") };
    let AzureHardware::Tdx(td) = azure.hardware() else { panic!("a TD") };
    assert_eq!((td.mr_td(), td.report().td_attributes), (&[0x7D; 48], TdAttributes(0)));
    let head = HashAlg::Sha256.zero().extend(&event).unwrap();
    assert_eq!(azure.tpm().pcrs()[14].as_bytes().as_slice(), head.as_bytes());
    let request = service.last.lock().unwrap().clone().to_lowercase();
    assert!(request.starts_with("post /acc/tdquote http/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nmetadata: true\r\n") && request.contains("application/json"), "{request}");

    let mut stricter = policy();
    stricter.azure_tdx.sept_ve = SeptVe::Required;
    assert_eq!(verify(&stricter), Err(reason::EVIDENCE_POLICY));
    let other = verify_evidence(Tee::AzTdxVtpm, &evidence, &Sha384Digest::of(b"x"), &policy(), Timestamp::now());
    assert_eq!(other.unwrap_err().code, reason::EVIDENCE_NONCE);
}

#[test]
fn a_td_quote_that_is_none_or_anothers_is_named() {
    let vtpm = Vtpm::start(AzureTee::Tdx);
    let binding = Sha384Digest::of(b"binding");
    let mut user_data = [0; 64];
    user_data[..48].copy_from_slice(binding.as_bytes());
    vtpm.write(&report(vtpm.tee, &vtpm.modulus, &user_data));
    for (answer, expected) in [
        (Answer::OtherTdQuote, "a quote of another TD report"),
        (Answer::Certificate, "not JSON with a quote"),
        (Answer::TooMuch, "more than 65536 bytes"),
        (Answer::NotFound, "acc/tdquote: status 404"),
    ] {
        let attester = vtpm.open(&Service::start(answer).url, LIMITS).unwrap();
        let told = refusal(attester.evidence(&binding));
        assert!(told.contains(expected), "{told}");
    }
    let address = vtpm.swtpm.address.clone();
    let told = refusal(AzureAttester::open(AzureTee::Snp, address, 14, "http://127.0.0.1:1/", SHORT));
    assert!(told.contains("this is not an SNP guest"), "{told}");
}

#[test]
fn user_data_that_never_show_up_are_told_in_time() {
    let vtpm = Vtpm::start(AzureTee::Snp);
    let service = Service::start(Answer::Certificate);
    let attester = vtpm.open(&service.url, SHORT).unwrap();
    let told = refusal(attester.evidence(&Sha384Digest::of(b"binding")));
    assert!(told.contains("not renewed within 300 ms: other user data"), "{told}");
    assert_eq!(service.requests.load(Ordering::SeqCst), 0);
}

#[test]
fn a_report_read_half_does_not_count() {
    let vtpm = Vtpm::start(AzureTee::Snp);
    let service = Service::start(Answer::Certificate);
    let attester = vtpm.open(&service.url, SHORT).unwrap();
    let binding = Sha384Digest::of(b"binding");
    let mut user_data = [0; 64];
    user_data[..48].copy_from_slice(binding.as_bytes());
    // The old hardware report with the new claims behind it.
    let (old, new) = (report(vtpm.tee, &vtpm.modulus, &[0; 64]), report(vtpm.tee, &vtpm.modulus, &user_data));
    vtpm.write(&[&old[..0x4C0], &new[0x4C0..]].concat());
    assert!(refusal(attester.evidence(&binding)).contains("not renewed"));
    vtpm.write(&new);
    attester.evidence(&binding).unwrap();
}

#[test]
fn a_report_that_names_another_key_is_refused_at_the_start() {
    let vtpm = Vtpm::start(AzureTee::Snp);
    let mut other = vtpm.modulus.clone();
    other[100] ^= 1;
    vtpm.write(&report(vtpm.tee, &other, &[0; 64]));
    let told = refusal(vtpm.open("http://127.0.0.1:1/", SHORT));
    assert!(told.contains("names another key than the vTPM's"), "{told}");
    vtpm.write(&vec![0; report(vtpm.tee, &other, &[0; 64]).len()]);
    assert!(refusal(vtpm.open("http://127.0.0.1:1/", SHORT)).contains("the paravisor's report: signature"));
}

#[test]
fn a_plain_tpm_is_no_azure_vm() {
    let swtpm = Swtpm::start(By::Unix);
    refusal(AzureAttester::open(AzureTee::Snp, swtpm.address.clone(), 14, "http://127.0.0.1:1/", SHORT));
}

#[test]
fn each_failure_of_the_metadata_service_is_named() {
    let vtpm = Vtpm::start(AzureTee::Snp);
    let binding = Sha384Digest::of(b"binding");
    let mut user_data = [0; 64];
    user_data[..48].copy_from_slice(binding.as_bytes());
    vtpm.write(&report(vtpm.tee, &vtpm.modulus, &user_data));
    let absent = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let urls = [
        (Service::start(Answer::Nothing).url, "no whole answer within 300 ms"),
        (Service::start(Answer::TooMuch).url, "more than 65536 bytes"),
        (Service::start(Answer::NotFound).url, "status 404"),
        (Service::start(Answer::NoCertificate).url, "not JSON with a vcekCert"),
        (format!("http://{absent}/"), "no connection"),
    ];
    for (url, expected) in urls {
        // Only the slow one is to run into the time.
        let service = if expected.contains("300") { SHORT.service } else { LIMITS.service };
        let attester = vtpm.open(&url, AzureLimits { service, ..LIMITS }).unwrap();
        let told = refusal(attester.evidence(&binding));
        assert!(told.contains(expected), "{told}");
    }
}
