//! The SNP attester over a directory tree that a fake guest driver answers in, with reports of a simulated chip.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, LazyLock};

use attester::sev::SevPaths;
use attester::tsm::fake::FakeConfigfs;
use attester::{Attester as _, AttesterError, SevAttester};
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::guest::GuestId;
use protocols::kbs::{SnpEvidence, Tee, report_data};
use protocols::register::{HashAlg, RegisterKind, RegisterValue};
use protocols::snp::{Report, write_certificates};
use simulated_tee::{Chip, Params, Pki};

const HOST_DATA: [u8; 32] = [0x0A; 32];

static PKI: LazyLock<Arc<Pki>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    Arc::new(Pki::create_for(&dir.path().join("pki"), &Chip::random().unwrap()).unwrap())
});

/// A driver whose reports are of the guest that `guest` names, over what was asked plus `tamper`.
fn driver(root: &Path, provider: &'static str, guest: Arc<AtomicU8>, tamper: u8) -> FakeConfigfs {
    let pki = Arc::clone(&PKI);
    let report = move |inblob: &[u8], level: &str| {
        let mut data: [u8; 64] = inblob.try_into().unwrap();
        data[63] ^= tamper;
        let good = Params::new(data, HOST_DATA, [guest.load(Ordering::SeqCst); 32]);
        pki.report(&Params { vmpl: level.parse().unwrap(), ..good }).unwrap().to_bytes().to_vec()
    };
    FakeConfigfs::new(root, provider, Box::new(report)).with_auxblob(&write_certificates(&PKI.certificates()))
}

struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tsm")).unwrap();
        Self { dir }
    }

    fn tsm(&self) -> PathBuf {
        self.dir.path().join("tsm")
    }

    fn open(&self, fake: FakeConfigfs, vmpl: u32) -> Result<SevAttester, AttesterError> {
        SevAttester::open(Box::new(fake.tsm()), vmpl, self.dir.path())
    }

    fn driver(&self) -> FakeConfigfs {
        driver(&self.tsm(), "sev_guest", Arc::new(AtomicU8::new(7)), 0)
    }
}

fn binding() -> Sha384Digest {
    Sha384Digest::of(b"runtime data")
}

#[test]
fn evidence_is_the_platforms_report_over_the_binding_with_the_hosts_certificates() {
    let scene = Scene::new();
    for vmpl in [0, 2] {
        let attester = scene.open(scene.driver(), vmpl).unwrap();
        let evidence: SnpEvidence = serde_json::from_value(attester.evidence(&binding()).unwrap()).unwrap();
        let report = Report::from_json(&evidence.attestation_report).unwrap();
        assert_eq!((report.fields().report_data, report.fields().vmpl), (report_data(&binding()), vmpl));
        assert_eq!(evidence.cert_chain, Some(PKI.certificates()));
        assert_eq!(attester.tee(), Tee::Snp);
        assert_eq!(attester.guest(&[1; 32]).unwrap(), GuestId::new([7; 32]));
        assert_eq!(attester.initdata_bound(), Some(RegisterValue::Sha256(Sha256Digest::new(HOST_DATA))));
        attester.bind_initdata(&RegisterValue::Sha256(Sha256Digest::new(HOST_DATA))).unwrap();
        let other = attester.bind_initdata(&RegisterValue::Sha256(Sha256Digest::of(b"other"))).unwrap_err();
        assert_eq!(other.code().as_str(), "evidence.initdata");
    }
    assert!(std::fs::read_dir(scene.tsm()).unwrap().next().is_none(), "nothing is left behind");
}

#[test]
fn the_register_is_kept_in_software_for_as_long_as_the_state_lasts() {
    let scene = Scene::new();
    let attester = scene.open(scene.driver(), 0).unwrap();
    let info = attester.register();
    assert_eq!((info.kind, info.alg, info.simulated), (RegisterKind::Software, HashAlg::Sha384, false));
    assert_eq!(attester.read_register().unwrap(), attester.register_start().unwrap());
    let digest = RegisterValue::Sha384(Sha384Digest::of(b"record"));
    attester.extend(&digest).unwrap();
    let expected = HashAlg::Sha384.zero().extend(&digest);
    assert_eq!(Some(attester.read_register().unwrap()), expected);
    drop(attester);
    assert_eq!(Some(scene.open(scene.driver(), 0).unwrap().read_register().unwrap()), expected);
}

#[test]
fn a_report_that_is_not_the_one_asked_for_is_no_evidence() {
    let scene = Scene::new();
    let refused = |fake: FakeConfigfs| scene.open(fake, 0).map(|_| ()).unwrap_err().to_string();
    let one = || Arc::new(AtomicU8::new(7));
    assert!(refused(driver(&scene.tsm(), "sev_guest", one(), 1)).contains("over other data"));
    assert!(refused(driver(&scene.tsm(), "tdx_guest", one(), 0)).contains("tdx_guest"));
    assert!(refused(scene.driver().with_auxblob(&[1; 30])).contains("certificates"));
    let short = FakeConfigfs::new(&scene.tsm(), "sev_guest", Box::new(|_, _| vec![3; 1183]));
    assert!(refused(short).contains("1184 bytes"));

    let guest = one();
    let attester = scene.open(driver(&scene.tsm(), "sev_guest", Arc::clone(&guest), 0), 0).unwrap();
    attester.evidence(&binding()).unwrap();
    guest.store(8, Ordering::SeqCst);
    assert!(attester.evidence(&binding()).unwrap_err().to_string().contains("another guest"));
}

#[test]
fn a_host_without_certificates_leaves_them_out() {
    let scene = Scene::new();
    let attester = scene.open(scene.driver().with_auxblob(&[]), 0).unwrap();
    let evidence: SnpEvidence = serde_json::from_value(attester.evidence(&binding()).unwrap()).unwrap();
    assert_eq!(evidence.cert_chain, None);
}

#[test]
fn the_interface_that_is_there_is_used_and_none_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let none = SevPaths { tsm: dir.path().join("tsm"), device: dir.path().join("sev-guest") };
    let error = none.source().unwrap_err();
    assert_eq!(error.code().as_str(), "evidence.unavailable");
    assert!(error.to_string().contains("sev-guest") && error.to_string().contains("Linux 6.7"), "{error}");
    // Any other device answers no such request, and is named.
    let device = SevPaths { device: "/dev/null".into(), ..none.clone() };
    let error = device.source().unwrap().report(&[0; 64], 0).unwrap_err().to_string();
    assert!(error.contains("/dev/null: SNP_GET_EXT_REPORT"), "{error}");
    // Where configfs-tsm is, it is asked, and nothing else when it has no driver.
    std::fs::create_dir(&none.tsm).unwrap();
    let error = device.source().unwrap().report(&[0; 64], 0).unwrap_err().to_string();
    assert!(!error.contains("/dev/null"), "{error}");
}
