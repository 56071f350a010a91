//! Simulated evidence is real cryptography: checked by openssl, by the `sev` crate and by `ring`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use protocols::snp::{Generation, POLICY_DEBUG, Report, SnpError, TcbVersion};
use sev::certs::snp::{Certificate, Chain, Verifiable as _, ca};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser as _;
use simulated_tee::{Chip, Params, Pki, SimulatedError};

struct Installation {
    dir: PathBuf,
    pki: Pki,
}

/// A fresh directory in the build directory. Statics are not dropped: what ended processes left is removed here.
fn scratch(name: &str) -> PathBuf {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR")).join("simulated-tee");
    std::fs::create_dir_all(&parent).unwrap();
    for entry in parent.read_dir().unwrap().flatten() {
        let file_name = entry.file_name().into_string().unwrap();
        let (pid, _) = file_name.split_once('-').unwrap();
        if !Path::new("/proc").join(pid).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    parent.join(format!("{}-{name}", std::process::id()))
}

static MILAN: LazyLock<Installation> = LazyLock::new(|| {
    let dir = scratch("milan");
    let pki = Pki::create(&dir).unwrap();
    Installation { dir, pki }
});

static TURIN: LazyLock<Installation> = LazyLock::new(|| {
    let dir = scratch("turin");
    let mut id = [0; 64];
    id[..8].copy_from_slice(b"\xFEturin\0\x01");
    let tcb = TcbVersion { fmc: Some(1), bootloader: 2, tee: 3, snp: 200, microcode: 255 };
    let pki = Pki::create_for(&dir, &Chip { id, tcb, provider: None }).unwrap();
    Installation { dir, pki }
});

fn params() -> Params {
    Params::new([1; 64], [2; 32], [3; 32])
}

fn verify_by_sev(pki: &Pki, report: &[u8]) -> std::io::Result<()> {
    let read = |der| Certificate::from_der(der);
    let ca = ca::Chain { ark: read(pki.ark_der())?, ask: read(pki.ask_der())? };
    let chain = Chain { ca, vek: read(pki.vcek_der())? };
    (&chain, &AttestationReport::from_bytes(report)?).verify()
}

fn verify_by_ring(pki: &Pki, report: &Report) -> Result<(), ring::error::Unspecified> {
    // The uncompressed point is the end of the key's only BIT STRING; its first byte is 4.
    let vcek = pki.vcek_der();
    let marker = [0x03, 0x62, 0x00, 0x04];
    let at = vcek.windows(4).position(|w| w == marker).unwrap() + 3;
    ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P384_SHA384_FIXED, &vcek[at..at + 97])
        .verify(report.signed_bytes(), &report.fields().signature.to_p384().unwrap())
}

fn openssl_verify(roots: &Path, leaf: &Path) -> bool {
    Command::new("openssl")
        .arg("verify")
        .arg("-CAfile")
        .arg(roots.join("ark.pem"))
        .arg("-untrusted")
        .arg(roots.join("ask.pem"))
        .arg(leaf.join("vcek.pem"))
        .output()
        .expect("openssl is installed")
        .status
        .success()
}

#[test]
fn reports_of_every_version_and_generation_verify() {
    for (installation, generation) in [(&*MILAN, Generation::Legacy), (&*TURIN, Generation::Turin)] {
        for version in 2..=5 {
            let report = installation.pki.report(&Params { version, ..params() }).unwrap();
            assert_eq!(report.generation(), generation);
            assert_eq!(report.fields().reported_tcb, installation.pki.chip().tcb);
            verify_by_sev(&installation.pki, report.to_bytes()).unwrap();
            verify_by_ring(&installation.pki, &report).unwrap();
        }
    }
}

#[test]
fn openssl_accepts_the_chain_and_no_other_root() {
    assert!(openssl_verify(&MILAN.dir, &MILAN.dir));
    assert!(openssl_verify(&TURIN.dir, &TURIN.dir));
    assert!(!openssl_verify(&MILAN.dir, &TURIN.dir));
}

#[test]
fn another_installations_root_is_refused() {
    let report = MILAN.pki.report(&params()).unwrap();
    assert!(verify_by_sev(&TURIN.pki, report.to_bytes()).is_err());
    assert!(verify_by_ring(&TURIN.pki, &report).is_err());
}

#[test]
fn a_flipped_bit_is_refused() {
    let report = MILAN.pki.report(&params()).unwrap();
    for offset in [0x50, 0x90, 0xC0, 0x140, 0x2A0, 0x2E8] {
        let mut bytes = *report.to_bytes();
        bytes[offset] ^= 1;
        assert!(verify_by_ring(&MILAN.pki, &Report::parse(&bytes).unwrap()).is_err(), "offset {offset:#x}");
    }
}

#[test]
fn the_certificates_say_what_amds_say() {
    for (installation, hwid_size) in [(&*MILAN, 64), (&*TURIN, 8)] {
        let text = |name: &str| {
            let out = Command::new("openssl")
                .args(["x509", "-noout", "-text", "-in"])
                .arg(installation.dir.join(name))
                .output()
                .expect("openssl is installed");
            String::from_utf8(out.stdout).unwrap()
        };
        for name in ["ark.pem", "ask.pem", "vcek.pem"] {
            let text = text(name);
            assert!(text.contains("Hash Algorithm: sha384") && text.contains("Salt Length: 0x30"), "{text}");
            assert!(text.contains("O = SIMULATED") || text.contains("O=SIMULATED"), "{text}");
        }
        let text = text("vcek.pem");
        for number in ["1", "2", "3.1", "3.2", "3.3", "3.4", "3.5", "3.6", "3.7", "3.8", "4"] {
            assert!(text.contains(&format!("1.3.6.1.4.1.3704.1.{number}:")), "{number}: {text}");
        }
        assert_eq!(text.contains("1.3.6.1.4.1.3704.1.3.9:"), hwid_size == 8);
        // OCTET STRING of exactly the id's bytes: no DER inside.
        let id = &installation.pki.chip().id[..hwid_size];
        let raw = [&[0x04, u8::try_from(hwid_size).unwrap()], id].concat();
        assert!(installation.pki.vcek_der().windows(raw.len()).any(|w| w == raw));
    }
}

#[test]
fn an_opened_installation_is_the_one_that_was_made() {
    for installation in [&*MILAN, &*TURIN] {
        let again = Pki::open(&installation.dir).unwrap();
        assert_eq!(again.chip(), installation.pki.chip());
        assert_eq!(again.ark_der(), installation.pki.ark_der());
        assert_eq!(again.ask_der(), installation.pki.ask_der());
        assert_eq!(again.vcek_der(), installation.pki.vcek_der());
        let report = again.report(&params()).unwrap();
        verify_by_sev(&installation.pki, report.to_bytes()).unwrap();
    }
}

#[test]
fn the_private_key_is_for_its_owner_only() {
    let mode = MILAN.dir.join("vcek.key").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut names: Vec<_> =
        MILAN.dir.read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["ark.pem", "ask.pem", "vcek.key", "vcek.pem"], "no authority's key is kept");
}

#[test]
fn existing_roots_are_never_overwritten() {
    let before = std::fs::read(MILAN.dir.join("ark.pem")).unwrap();
    assert!(matches!(Pki::create(&MILAN.dir), Err(SimulatedError::File { .. })));
    assert_eq!(std::fs::read(MILAN.dir.join("ark.pem")).unwrap(), before);
}

fn copy_of_milan() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["ark.pem", "ask.pem", "vcek.pem", "vcek.key"] {
        std::fs::copy(MILAN.dir.join(name), dir.path().join(name)).unwrap();
    }
    dir
}

#[test]
fn mixed_or_missing_files_are_refused() {
    let dir = copy_of_milan();
    std::fs::copy(TURIN.dir.join("vcek.key"), dir.path().join("vcek.key")).unwrap();
    assert!(matches!(Pki::open(dir.path()), Err(SimulatedError::Malformed { what: "not the VCEK's key", .. })));

    let dir = copy_of_milan();
    std::fs::copy(MILAN.dir.join("ask.pem"), dir.path().join("vcek.pem")).unwrap();
    assert!(matches!(Pki::open(dir.path()), Err(SimulatedError::Malformed { what: "it does not name a chip", .. })));

    let dir = copy_of_milan();
    std::fs::remove_file(dir.path().join("ark.pem")).unwrap();
    assert!(matches!(Pki::open(dir.path()), Err(SimulatedError::File { .. })));
}

#[test]
fn certificates_that_do_not_say_simulated_are_refused() {
    let dir = copy_of_milan();
    let subject = "/CN=ARK-Milan/O=Advanced Micro Devices";
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "/dev/null", "-subj", subject, "-out"])
        .arg(dir.path().join("ark.pem"))
        .output()
        .expect("openssl is installed");
    assert!(made.status.success());
    let refused = Pki::open(dir.path()).unwrap_err();
    assert!(matches!(refused, SimulatedError::Malformed { what: "the subject does not say O=SIMULATED", .. }));
}

#[test]
fn wrong_reports_can_be_made_on_purpose() {
    let debug = MILAN.pki.report(&Params { policy: 0x3_0000 | POLICY_DEBUG, ..params() }).unwrap();
    verify_by_sev(&MILAN.pki, debug.to_bytes()).unwrap();
    assert_ne!(debug.fields().policy & POLICY_DEBUG, 0);

    let other_chip = MILAN.pki.report(&Params { chip_id: Some([7; 64]), ..params() }).unwrap();
    verify_by_ring(&MILAN.pki, &other_chip).unwrap();
    assert_ne!(other_chip.fields().chip_id, MILAN.pki.chip().id);

    let turin_tcb = Params { tcb: Some(TURIN.pki.chip().tcb), ..params() };
    assert!(matches!(MILAN.pki.report(&turin_tcb), Err(SimulatedError::Report(SnpError::Field("fmc")))));
    assert!(MILAN.pki.report(&Params { version: 6, ..params() }).is_err());
}

#[test]
fn a_chip_of_no_generation_is_refused_before_keys_are_made() {
    let dir = tempfile::tempdir().unwrap();
    let tcb = MILAN.pki.chip().tcb;
    for chip in [
        Chip { id: [0; 64], tcb, provider: None },
        Chip { id: [1; 64], tcb: TcbVersion { fmc: Some(1), ..tcb }, provider: None },
        Chip { id: [1; 64], tcb, provider: Some("Provider".to_owned()) },
        Chip { id: [0; 64], tcb, provider: Some(String::new()) },
    ] {
        assert!(matches!(Pki::create_for(dir.path(), &chip), Err(SimulatedError::Chip(_))));
    }
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
}
