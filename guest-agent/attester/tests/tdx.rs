//! The TDX backend on a directory tree as Linux 6.16 shows it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};

use attester::tdx::{FakeMeasurements, Measurements as _, Sysfs, TdxAttester};
use attester::tsm::fake::{FakeConfigfs, Trouble};
use attester::tsm::{PROVIDER_SNP, PROVIDER_TDX, Tsm};
use attester::{Attester as _, AttesterConfig, AttesterError, open};
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::environment::Environment;
use protocols::guest::GuestId;
use protocols::kbs::{self, TdxEvidence, Tee};
use protocols::reason;
use protocols::register::{HashAlg, RegisterKind, RegisterValue};
use protocols::tdx::{Quote, trim};

/// A real quote and the padding it came in.
const QUOTE: &[u8] = include_bytes!("../../../tests/data/vectors/tdx/tdx_quote");

/// A real table of the firmware's.
const CCEL: &[u8] = include_bytes!("../../../tests/data/vectors/eventlog/CCEL_data_ovmf");

/// `/sys` of a TDX guest.
struct Sys {
    dir: tempfile::TempDir,
}

impl Sys {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["measurements", "report"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    fn measurements(&self) -> PathBuf {
        self.dir.path().join("measurements")
    }

    fn set(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.measurements().join(name), bytes).unwrap();
    }

    /// A driver whose quotes are the real one over what was asked, in a buffer of whole pages.
    fn driver(&self) -> FakeConfigfs {
        let report = |inblob: &[u8], _: &str| {
            let mut quote = Quote::parse(trim(QUOTE).unwrap()).unwrap();
            quote.report.report_data = inblob.try_into().unwrap();
            let mut bytes = quote.encode();
            bytes.resize(8192, 0);
            bytes
        };
        FakeConfigfs::new(&self.dir.path().join("report"), PROVIDER_TDX, Box::new(report))
    }

    fn ccel(&self) -> PathBuf {
        self.dir.path().join("CCEL")
    }

    fn open(&self) -> TdxAttester<FakeConfigfs, FakeMeasurements> {
        self.open_with(self.driver()).unwrap()
    }

    fn open_with(&self, driver: FakeConfigfs) -> Result<TdxAttester<FakeConfigfs, FakeMeasurements>, AttesterError> {
        let registers = FakeMeasurements::new(&self.measurements()).unwrap();
        TdxAttester::with(driver.tsm(), registers, &self.ccel())
    }
}

fn evidence(attester: &impl attester::Attester, binding: &Sha384Digest) -> TdxEvidence {
    serde_json::from_value(attester.evidence(binding).unwrap()).unwrap()
}

#[test]
fn the_register_is_rtmr3_and_extends_as_the_module_does() {
    let sys = Sys::new();
    let attester = sys.open();
    let info = attester.register();
    assert_eq!((attester.tee(), info.kind, info.mr, info.alg), (Tee::Tdx, RegisterKind::Rtmr, 4, HashAlg::Sha384));
    assert!(!info.simulated);
    assert_eq!(attester.register_start().unwrap(), HashAlg::Sha384.zero());
    assert_eq!(attester.read_register().unwrap(), HashAlg::Sha384.zero());

    let digest = RegisterValue::Sha384(Sha384Digest::of(b"record"));
    attester.extend(&digest).unwrap();
    let expected = HashAlg::Sha384.zero().extend(&digest).unwrap();
    assert_eq!(attester.read_register().unwrap(), expected);
    assert_eq!(sys.open().read_register().unwrap(), expected, "it stays with the guest, not with the process");

    let other = RegisterValue::Sha256(Sha256Digest::of(b"record"));
    assert_eq!(attester.extend(&other).unwrap_err().code(), reason::REGISTER_EXTEND);
    assert_eq!(attester.read_register().unwrap(), expected);
    assert_eq!(attester.boot_pcr(7).unwrap(), None);
}

/// What is written to a plain file is there, not extended: a register that does so is none.
#[test]
fn an_extend_that_did_not_happen_is_noticed() {
    let sys = Sys::new();
    drop(sys.open());
    let attester = TdxAttester::with(sys.driver().tsm(), Sysfs::new(&sys.measurements()), &sys.ccel()).unwrap();
    let digest = RegisterValue::Sha384(Sha384Digest::of(b"record"));
    let error = attester.extend(&digest).unwrap_err();
    assert_eq!(error.code(), reason::REGISTER_EXTEND);
    assert!(error.to_string().contains("does not follow"), "{error}");
}

#[test]
fn registers_have_exactly_48_bytes() {
    let sys = Sys::new();
    let attester = sys.open();
    for length in [0, 47, 49, 97] {
        sys.set("rtmr3:sha384", &vec![0; length]);
        assert_eq!(attester.read_register().unwrap_err().code(), reason::REGISTER_UNAVAILABLE, "{length}");
    }
    std::fs::remove_file(sys.measurements().join("rtmr3:sha384")).unwrap();
    assert_eq!(attester.read_register().unwrap_err().code(), reason::REGISTER_UNAVAILABLE);
    assert_eq!(
        Sysfs::new(&sys.measurements()).extend("none", &[0; 48]).unwrap_err().kind(),
        std::io::ErrorKind::NotFound
    );
}

#[test]
fn an_older_kernel_is_named() {
    let sys = Sys::new();
    let none = sys.dir.path().join("none");
    let error = TdxAttester::with(sys.driver().tsm(), Sysfs::new(&none), &sys.ccel()).unwrap_err();
    assert_eq!(error.code(), reason::REGISTER_UNAVAILABLE);
    assert!(error.to_string().contains("6.16"), "{error}");
    let registers = FakeMeasurements::new(&sys.measurements()).unwrap();
    let error = TdxAttester::with(Tsm::new(&none), registers, &sys.ccel()).unwrap_err();
    assert_eq!(error.code(), reason::EVIDENCE_UNAVAILABLE);
    // This machine is no TDX guest.
    assert!(!Path::new(attester::tdx::MEASUREMENTS).exists());
    assert_eq!(TdxAttester::open().unwrap_err().code(), reason::REGISTER_UNAVAILABLE);
}

#[test]
fn evidence_is_one_exact_quote_over_the_binding() {
    let sys = Sys::new();
    let attester = sys.open();
    let binding = Sha384Digest::of(b"binding");
    let shown = evidence(&attester, &binding);
    assert_eq!(Quote::parse(&shown.quote).unwrap().report.report_data, kbs::report_data(&binding));
    assert_eq!(shown.cc_eventlog, None);
    assert_eq!(std::fs::read_dir(sys.dir.path().join("report")).unwrap().count(), 0);

    std::fs::write(sys.ccel(), CCEL).unwrap();
    let log = protocols::encoding::un_b64(&evidence(&attester, &binding).cc_eventlog.unwrap()).unwrap();
    assert!(CCEL.starts_with(&log) && log.len() == 2120, "{} bytes, without the padding", log.len());
    std::fs::write(sys.ccel(), b"no log").unwrap();
    assert_eq!(evidence(&attester, &binding).cc_eventlog, None);
}

#[test]
fn what_is_no_quote_over_the_binding_is_no_evidence() {
    let binding = Sha384Digest::of(b"binding");
    let refused = |sys: &Sys, driver: FakeConfigfs| {
        let error = sys.open_with(driver).unwrap().evidence(&binding).unwrap_err();
        assert_eq!(error.code(), reason::EVIDENCE_UNAVAILABLE);
        error.to_string()
    };
    let sys = Sys::new();
    let report = sys.dir.path().join("report");
    let answer = |bytes: Vec<u8>| FakeConfigfs::new(&report, PROVIDER_TDX, Box::new(move |_, _| bytes.clone()));
    let quote = trim(QUOTE).unwrap().to_vec();
    assert!(refused(&sys, answer(quote.clone())).contains("other data"));
    assert!(refused(&sys, answer(vec![0; 4096])).contains("version 0"));
    assert!(refused(&sys, answer([quote.as_slice(), &[1]].concat())).contains("1 bytes follow"));
    assert!(refused(&sys, answer(quote[..4000].to_vec())).contains("cut short"));
    assert!(refused(&sys, sys.driver().with_trouble(Trouble::OtherWriter)).contains("generation"));
    let snp = FakeConfigfs::new(&report, PROVIDER_SNP, Box::new(|_, _| vec![1]));
    assert!(refused(&sys, snp).contains("sev_guest"));
    evidence(&sys.open_with(sys.driver().with_trouble(Trouble::Busy(3))).unwrap(), &binding);
}

#[test]
fn initdata_is_what_mrconfigid_holds_whole() {
    let sys = Sys::new();
    let digest = Sha384Digest::of(b"initdata");
    assert_eq!(sys.open().initdata_bound(), None);
    let none = sys.open().bind_initdata(&digest.into()).unwrap_err();
    assert_eq!(none.code(), reason::EVIDENCE_INITDATA);

    sys.set("mrconfigid", digest.as_bytes());
    let attester = sys.open();
    assert_eq!((attester.initdata_alg(), attester.initdata_bound()), (HashAlg::Sha384, Some(digest.into())));
    attester.bind_initdata(&digest.into()).unwrap();
    for other in
        [RegisterValue::Sha384(Sha384Digest::of(b"other")), RegisterValue::Sha256(Sha256Digest::of(b"initdata"))]
    {
        assert_eq!(attester.bind_initdata(&other).unwrap_err().code(), reason::EVIDENCE_INITDATA);
    }
    // A shorter digest, padded with zeros, is another value.
    let mut padded = Sha256Digest::of(b"initdata").as_bytes().to_vec();
    padded.resize(48, 0);
    sys.set("mrconfigid", &padded);
    assert!(sys.open().bind_initdata(&Sha256Digest::of(b"initdata").into()).is_err());
}

#[test]
fn the_guest_is_named_by_what_it_booted() {
    let sys = Sys::new();
    for (place, name) in ["rtmr0:sha384", "rtmr1:sha384", "rtmr2:sha384"].into_iter().enumerate() {
        sys.set(name, &[u8::try_from(place).unwrap() + 1; 48]);
    }
    let attester = sys.open();
    let guest = attester.guest(&[9; 32]).unwrap();
    let digest = Sha256Digest::of_parts(&[b"tcl-guest-tdx-v1", &[1; 48], &[2; 48], &[3; 48], &[9; 32]]);
    assert_eq!(guest, GuestId::new(*digest.as_bytes()));
    attester.extend(&RegisterValue::Sha384(Sha384Digest::of(b"record"))).unwrap();
    assert_eq!(attester.guest(&[9; 32]).unwrap(), guest, "RTMR3 is no part of it");
    assert_ne!(attester.guest(&[8; 32]).unwrap(), guest);
}

#[test]
fn the_simulated_platform_quotes_its_own_register() {
    let dir = tempfile::tempdir().unwrap();
    let (pki, state) = (dir.path().join("pki"), dir.path().join("state"));
    simulated_tee::tdx::Machine::create(&pki).unwrap();
    let initdata = dir.path().join("initdata.toml");
    std::fs::write(&initdata, "algorithm = \"sha384\"\n").unwrap();
    let attester = TdxAttester::simulated(&pki, Some(&initdata), &state).unwrap();
    let info = attester.register();
    assert_eq!((attester.tee(), info.kind, info.mr, info.simulated), (Tee::Tdx, RegisterKind::Rtmr, 4, true));
    let record = RegisterValue::Sha384(Sha384Digest::of(b"record"));
    attester.extend(&record).unwrap();
    assert!(attester.extend(&RegisterValue::Sha256(Sha256Digest::of(b"record"))).is_err());

    // The same boot in another process.
    let attester = TdxAttester::simulated(&pki, Some(&initdata), &state).unwrap();
    let register = attester.read_register().unwrap();
    assert_eq!(Some(register), HashAlg::Sha384.zero().extend(&record));
    let binding = Sha384Digest::of(b"binding");
    let quote = Quote::parse(&evidence(&attester, &binding).quote).unwrap();
    assert_eq!(quote.report.report_data, kbs::report_data(&binding));
    assert_eq!(quote.report.rtmr[3], register.as_bytes());
    let digest = Sha384Digest::of(b"algorithm = \"sha384\"\n");
    assert_eq!(quote.report.mr_config_id, *digest.as_bytes());
    assert_eq!(attester.initdata_bound(), Some(digest.into()));
    attester.bind_initdata(&digest.into()).unwrap();
    assert_eq!(attester.guest(&[5; 32]).unwrap(), GuestId::of_tdx(&[[0; 48]; 3], &[5; 32]));

    std::fs::write(state.join("simulated-tdx/rtmr3"), [0; 47]).unwrap();
    assert_eq!(attester.read_register().unwrap_err().code(), reason::REGISTER_UNAVAILABLE);
}

#[test]
fn production_opens_no_simulated_platform() {
    let dir = tempfile::tempdir().unwrap();
    simulated_tee::tdx::Machine::create(dir.path()).unwrap();
    let config = AttesterConfig::SimulatedTdx { pki: dir.path().to_owned(), initdata: None };
    let refused = open(&config, Environment::Production, dir.path()).unwrap_err();
    assert_eq!(refused.code(), reason::POLICY_ENVIRONMENT);
    assert!(open(&config, Environment::Development, dir.path()).unwrap().register().simulated);
}
