//! Evidence of simulated platforms through the same functions that judge real ones.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::result_large_err)] // a test fails by panicking

use std::path::PathBuf;
use std::sync::LazyLock;

use protocols::azure::AzureSnpEvidence;
use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::kbs::SnpEvidence;
use protocols::snp::{POLICY_DEBUG, POLICY_MIGRATE_MA, TcbVersion};
use protocols::time::Timestamp;
use serde_json::{Value, json};
use simulated_tee::{AzureVm, Chip, Params, Pki, VtpmQuote};
use verifier::snp::{AllowedChips, ExpectedMeasurement, SnpPolicy, TrustedArk, verify_snp};
use verifier::{AzurePolicy, Trace, UserData, verify_azure_snp};

const NONCE: [u8; 48] = [0x4E; 48];
const PROVIDER: &str = "Simulated provider";

/// Outlives every test; the keys in it are worth nothing.
fn pki(name: &str, chip: &Chip) -> Pki {
    let parent = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let dir = tempfile::Builder::new().prefix(name).tempdir_in(parent).unwrap();
    let made = Pki::create_for(dir.path(), chip).unwrap();
    let read = Pki::open(dir.path()).unwrap();
    assert_eq!((read.chip(), read.vek_kind()), (made.chip(), made.vek_kind()));
    read
}

static MILAN: LazyLock<Pki> = LazyLock::new(|| pki("milan", &Chip::random().unwrap()));

fn policy(pki: &Pki) -> SnpPolicy {
    let ders = [pki.ark_der(), pki.ask_der()];
    SnpPolicy {
        roots: vec![TrustedArk::from_ders(ders, true, pki.chip().tcb).unwrap()],
        measurements: ExpectedMeasurement::Listed(vec![[0x5A; 48]]),
        vmpl: 0,
        chips: AllowedChips::Listed(vec![pki.chip().id]),
        providers: vec![PROVIDER.to_owned()],
        environment: Environment::Development,
    }
}

#[test]
fn every_version_generation_and_kind_of_key_passes() {
    let turin = pki("turin", &Chip::random_turin().unwrap());
    let vlek = pki("vlek", &Chip::random().unwrap().of_provider(PROVIDER));
    let turin_vlek = pki("turin-vlek", &Chip::random_turin().unwrap().of_provider(PROVIDER));
    for (pki, versions) in [(&*MILAN, 2..=5), (&turin, 2..=5), (&vlek, 3..=5), (&turin_vlek, 3..=5)] {
        for version in versions {
            let params = Params { version, ..Params::new([1; 64], [2; 32], [3; 32]) };
            let report = pki.report(&params).unwrap();
            let evidence = SnpEvidence { attestation_report: report.to_json(), cert_chain: Some(pki.certificates()) };
            let run = |policy: &SnpPolicy| verify_snp(&evidence, &[1; 64], policy, Timestamp::now(), &mut Trace::off());
            let claims = run(&policy(pki)).unwrap();
            assert_eq!((claims.version(), claims.simulated()), (version, true));
            assert_eq!(claims.provider(), pki.chip().provider.as_deref());
            let production = SnpPolicy { environment: Environment::Production, ..policy(pki) };
            assert_eq!(run(&production).unwrap_err().code.as_str(), "policy.environment");
        }
    }
}

/// One VM's evidence in its parts, and what it is judged by.
struct Case {
    params: Params,
    claims: Value,
    /// Shown in place of the claims that the report was made over.
    shown: Option<Value>,
    report_data: Option<[u8; 64]>,
    quote: VtpmQuote,
    nonce: Vec<u8>,
    policy: AzurePolicy,
    finish: fn(&mut AzureSnpEvidence),
}

fn pcrs() -> [Sha256Digest; 24] {
    std::array::from_fn(|number| Sha256Digest::new([u8::try_from(number).unwrap(); 32]))
}

fn vm() -> &'static AzureVm {
    static VM: LazyLock<AzureVm> = LazyLock::new(|| AzureVm::new().unwrap());
    &VM
}

fn user_data() -> [u8; 64] {
    let mut user_data = [0; 64];
    user_data[..48].copy_from_slice(&NONCE);
    user_data
}

impl Case {
    fn good() -> Self {
        Self {
            params: Params::new([0; 64], [0; 32], [3; 32]),
            claims: vm().claims(&user_data()),
            shown: None,
            report_data: None,
            quote: VtpmQuote::new(&NONCE, &pcrs()),
            nonce: NONCE.to_vec(),
            policy: AzurePolicy { snp: policy(&MILAN), user_data: UserData::Nonce },
            finish: |_| {},
        }
    }

    fn code(&self) -> &'static str {
        let var_data = self.claims.to_string().into_bytes();
        let mut report_data = [0; 64];
        report_data[..32].copy_from_slice(Sha256Digest::of(&var_data).as_bytes());
        let report_data = self.report_data.unwrap_or(report_data);
        let report = MILAN.report(&Params { report_data, ..self.params.clone() }).unwrap();
        let shown = self.shown.as_ref().map_or(var_data, |shown| shown.to_string().into_bytes());
        let mut evidence = vm().evidence_of(&MILAN, &report, &shown, &self.quote);
        (self.finish)(&mut evidence);
        // As it travels.
        let evidence = AzureSnpEvidence::from_json(&evidence.to_json()).unwrap();
        verify_azure_snp(&evidence, &self.nonce, &self.policy, Timestamp::now(), &mut Trace::off())
            .map_or_else(|refusal| refusal.code.as_str(), |_| "pass")
    }
}

fn key(case: &mut Case) -> &mut Value {
    &mut case.claims["keys"][0]
}

type Change = fn(&mut Case);

const ROWS: &[(&str, &str, Change)] = &[
    ("nothing", "pass", |_| {}),
    ("a quote made outside the vTPM", "evidence.malformed", |c| c.quote.magic ^= 1),
    ("another kind of attestation", "evidence.malformed", |c| c.quote.kind = 0x8017),
    ("first byte of the nonce", "evidence.nonce", |c| c.quote.extra_data[0] ^= 1),
    ("last byte of the nonce", "evidence.nonce", |c| c.quote.extra_data[47] ^= 1),
    ("a nonce cut short", "evidence.nonce", |c| c.quote.extra_data.truncate(32)),
    ("a longer nonce", "evidence.nonce", |c| c.quote.extra_data.push(0)),
    ("no nonce", "evidence.nonce", |c| c.quote.extra_data.clear()),
    ("user data of an older report", "evidence.nonce", |c| c.claims = vm().claims(&[0; 64])),
    ("user data longer than the nonce", "evidence.nonce", |c| {
        let mut longer = user_data();
        longer[48] = 1;
        c.claims = vm().claims(&longer);
    }),
    ("user data that is no hex", "evidence.malformed", |c| c.claims["user-data"] = json!("zz")),
    ("user data cut short", "evidence.malformed", |c| c.claims["user-data"] = json!("4E".repeat(48))),
    ("an older report where that may be", "pass", |c| {
        c.claims = vm().claims(&[0; 64]);
        c.policy.user_data = UserData::AnyUserData;
    }),
    ("no selection", "evidence.pcr", |c| c.quote.selections.clear()),
    ("another bank", "evidence.pcr", |c| c.quote.selections[0].0 = 0x000C),
    ("PCR 14 left out", "evidence.pcr", |c| c.quote.selections[0].1[1] = 0xBF),
    ("two selections", "evidence.pcr", |c| c.quote.selections.push((0x000B, vec![0xFF; 3]))),
    ("digest of other values", "evidence.pcr", |c| c.quote.digest[31] ^= 1),
    ("another value shown", "evidence.pcr", |c| c.quote.pcrs[7] = Sha256Digest::of(b"x")),
    ("two values swapped", "evidence.pcr", |c| c.quote.pcrs.swap(14, 15)),
    ("a value left out", "evidence.malformed", |c| c.quote.pcrs.truncate(23)),
    ("signature of other bytes", "evidence.signature", |c| c.finish = |e| e.quote.signature[17] ^= 1),
    ("a bare signature that is longer", "evidence.signature", |c| c.finish = |e| e.quote.signature.insert(0, 0)),
    ("a key of another name", "evidence.malformed", |c| key(c)["kid"] = json!("HCLEkPub")),
    ("a key for encryption", "evidence.malformed", |c| key(c)["key_ops"] = json!(["encrypt"])),
    ("another kind of key", "evidence.malformed", |c| key(c)["kty"] = json!("EC")),
    ("another exponent", "evidence.malformed", |c| key(c)["e"] = json!("Aw")),
    ("a short modulus", "evidence.malformed", |c| key(c)["n"] = json!("AQAB")),
    ("two keys", "evidence.malformed", |c| {
        let one = key(c).clone();
        c.claims["keys"].as_array_mut().unwrap().push(one);
    }),
    ("no key", "evidence.malformed", |c| c.claims["keys"] = json!([])),
    ("another VM's key, vouched for", "evidence.signature", |c| {
        c.claims = AzureVm::new().unwrap().claims(&user_data())
    }),
    ("another VM's key, not vouched for", "evidence.binding", |c| {
        c.shown = Some(AzureVm::new().unwrap().claims(&user_data()));
    }),
    ("other claims", "evidence.binding", |c| {
        let mut other = c.claims.clone();
        other["vm-configuration"]["secure-boot"] = json!(false);
        c.shown = Some(other);
    }),
    ("report data with a tail", "evidence.binding", |c| {
        let mut data = [0; 64];
        data[..32].copy_from_slice(Sha256Digest::of(c.claims.to_string().as_bytes()).as_bytes());
        data[63] = 1;
        c.report_data = Some(data);
    }),
    ("a header of another version", "evidence.malformed", |c| c.finish = |e| e.hcl_report[4] = 3),
    ("a TD report's mark", "evidence.policy", |c| c.finish = |e| e.hcl_report[0x4C8] = 4),
    ("a byte of the report", "evidence.signature", |c| c.finish = |e| e.hcl_report[0x20 + 0x90] ^= 1),
    ("a certificate that is none", "evidence.chain", |c| c.finish = |e| e.vcek.truncate(100)),
    ("a report of version 1", "evidence.malformed", |c| c.finish = |e| e.hcl_report[0x20] = 1),
    ("a report from the guest's own level", "evidence.vmpl", |c| c.params.vmpl = 1),
    ("debugging", "evidence.debug", |c| c.params.policy |= POLICY_DEBUG),
    ("migration", "evidence.migration", |c| c.params.policy |= POLICY_MIGRATE_MA),
    ("another chip", "evidence.endorsement", |c| c.params.chip_id = Some([7; 64])),
    ("another TCB", "evidence.endorsement", |c| {
        c.params.tcb = Some(TcbVersion { fmc: None, bootloader: 3, tee: 0, snp: 24, microcode: 219 })
    }),
    ("another paravisor", "evidence.measurement", |c| c.params.measurement[0] ^= 1),
    ("a chip that is not listed", "evidence.chip", |c| c.policy.snp.chips = AllowedChips::Listed(vec![])),
    ("no roots", "policy.environment", |c| {
        c.policy.snp.roots.clear();
        c.policy.snp.environment = Environment::Production;
    }),
    ("no roots in development", "evidence.chain", |c| c.policy.snp.roots.clear()),
    ("production", "policy.environment", |c| c.policy.snp.environment = Environment::Production),
];

#[test]
fn each_part_of_an_azure_vms_evidence_altered_alone_gives_exactly_its_code() {
    for (name, expected, change) in ROWS {
        let mut case = Case::good();
        change(&mut case);
        assert_eq!(case.code(), *expected, "{name}");
    }
    assert!(ROWS.len() >= 45);
}
