//! Every field that a check reads, altered alone, signed anew, for every version and kind of key.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use super::*;
use crate::snp::testing::{ASK_SERIAL, CrlSpec, HARDWARE_ID_PLACE, VEK_SERIAL, csp_id, hardware_id};
use crate::snp::{AllowedChips, VerifiedVek, verify_report};
use protocols::reason;

const PROVIDER: &str = "Provider";

/// One report, its chain, and what it is judged by.
#[derive(Clone)]
struct Case {
    name: &'static str,
    kind: &'static str,
    fields: Fields,
    vek: Spec,
    issuer: Spec,
    crl: CrlSpec,
    minimum: TcbVersion,
    policy: SnpPolicy,
    asked: [u8; 64],
}

/// Signing with RSA-4096 is slow; most rows leave most of the chain as it was.
fn cached(spec: &str, sign: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    static SIGNED: LazyLock<Mutex<HashMap<String, Vec<u8>>>> = LazyLock::new(Mutex::default);
    if let Some(known) = SIGNED.lock().unwrap().get(spec) {
        return known.clone();
    }
    let made = sign();
    SIGNED.lock().unwrap().insert(spec.to_owned(), made.clone());
    made
}

fn certificate(spec: &Spec, signer: &str) -> Vec<u8> {
    let key = if signer == "ARK" { &keys().ark } else { &keys().ask };
    let Spec { version, serial, algorithm, issuer, subject, not_before, not_after, spki, extensions } = spec;
    let text = format!(
        "{signer}{version:?}{serial}{algorithm:?}{issuer:?}{subject:?}{not_before}{not_after}{spki:?}{extensions:?}"
    );
    cached(&text, || spec.signed(key))
}

impl Case {
    fn evidence(&self) -> SnpEvidence {
        let chain =
            vec![entry(self.kind, certificate(&self.vek, "ASK")), entry("ASK", certificate(&self.issuer, "ARK"))];
        SnpEvidence { attestation_report: signed(self.fields.clone()).to_json(), cert_chain: Some(chain) }
    }

    fn policy(&self) -> SnpPolicy {
        let ark = certificate(&Spec::ark(), "ARK");
        let CrlSpec { algorithm, issuer, this_update, next_update, revoked, entry_extensions, extensions } = &self.crl;
        let text =
            format!("{algorithm:?}{issuer:?}{this_update}{next_update:?}{revoked:?}{entry_extensions:?}{extensions:?}");
        let crl = cached(&text, || self.crl.signed(&keys().ark));
        let root = TrustedArk::from_pem(&pem(&[ark]), false, self.minimum).unwrap().with_crl(&crl).unwrap();
        SnpPolicy { roots: vec![root], ..self.policy.clone() }
    }

    fn run(&self) -> Result<SnpClaims, Refusal> {
        verify_snp(&self.evidence(), &self.asked, &self.policy(), NOW)
    }

    fn turin(&self) -> bool {
        self.fields.cpuid_fam_id == Some(0x1A)
    }

    fn all_tcbs(&mut self) -> [&mut TcbVersion; 4] {
        let fields = &mut self.fields;
        [&mut fields.current_tcb, &mut fields.reported_tcb, &mut fields.committed_tcb, &mut fields.launch_tcb]
    }

    /// The component's extension of the VEK, with another value.
    fn endorse(&mut self, number: u8, value: u8) {
        let place = [1, 2, 3, 8].iter().position(|known| *known == number);
        let old = place.unwrap_or_else(|| self.vek.extensions.iter().position(|e| *e == component(9, 4)).unwrap());
        self.vek.extensions[old] = component(number, value);
    }
}

fn variants() -> Vec<Case> {
    let milan = |name, version, mit: Option<u64>| {
        let mut fields = fields();
        fields.version = version;
        if version == 2 {
            (fields.cpuid_fam_id, fields.cpuid_mod_id, fields.cpuid_step) = (None, None, None);
        }
        (fields.launch_mit_vector, fields.current_mit_vector) = (mit, mit);
        let policy = SnpPolicy {
            chips: AllowedChips::Listed(vec![CHIP]),
            providers: vec![PROVIDER.to_owned()],
            roots: vec![],
            ..policy()
        };
        Case {
            name,
            kind: "VCEK",
            fields,
            vek: Spec::vcek(&TCB, &CHIP),
            issuer: Spec::ask(),
            crl: CrlSpec::good(),
            minimum: TCB,
            policy,
            asked: REPORT_DATA,
        }
    };
    let turin = |name, version, mit: Option<u64>| {
        let tcb = TcbVersion { fmc: Some(4), ..TCB };
        let mut case = milan(name, version, mit);
        let mut chip = [0; 64];
        chip[..8].fill(0x71);
        (case.fields.cpuid_fam_id, case.fields.cpuid_mod_id) = (Some(0x1A), Some(2));
        case.fields.chip_id = chip;
        case.all_tcbs().into_iter().for_each(|place| *place = tcb);
        (case.vek, case.minimum) = (Spec::vcek(&tcb, &chip[..8]), tcb);
        case.policy.chips = AllowedChips::Listed(vec![chip]);
        case
    };
    let vlek = |name, mut case: Case| {
        case.name = name;
        case.kind = "VLEK";
        case.fields.key_info = 1 << 2;
        case.vek = Spec::vlek(&case.fields.reported_tcb, PROVIDER);
        case.issuer = Spec::asvk();
        case
    };
    vec![
        milan("v2", 2, None),
        milan("v3", 3, None),
        milan("v4", 4, None),
        milan("v5", 5, Some(3)),
        turin("Turin v3", 3, None),
        turin("Turin v5", 5, Some(0)),
        vlek("VLEK v2", milan("", 2, None)),
        vlek("VLEK v3", milan("", 3, None)),
        vlek("VLEK Turin v5", turin("", 5, Some(0))),
    ]
}

type Change = fn(&mut Case);

/// Rows for every variant.
const ROWS: &[(&str, &str, Change)] = &[
    ("nothing", "pass", |_| {}),
    ("signature algorithm 0", "evidence.malformed", |c| c.fields.sig_algo = 0),
    ("signature algorithm 2", "evidence.malformed", |c| c.fields.sig_algo = 2),
    ("signed by no key", "evidence.policy", |c| c.fields.key_info |= 7 << 2),
    ("signed by an unknown key", "evidence.policy", |c| c.fields.key_info = 2 << 2),
    ("signed by the other kind of key", "evidence.endorsement", |c| c.fields.key_info ^= 1 << 2),
    ("the other kind in the table too", "evidence.endorsement", |c| {
        c.fields.key_info ^= 1 << 2;
        c.kind = if c.kind == "VCEK" { "VLEK" } else { "VCEK" };
    }),
    ("no VEK in the table", "evidence.chain", |c| c.kind = "CRL"),
    ("VEK of no known issuer", "evidence.chain", |c| c.vek.issuer.1 = "Stranger"),
    ("VEK expired", "evidence.chain", |c| c.vek.not_after = "250101000000Z"),
    ("VEK not valid yet", "evidence.chain", |c| c.vek.not_before = "390101000000Z"),
    ("issuer expired", "evidence.chain", |c| c.issuer.not_after = "250101000000Z"),
    ("issuer not valid yet", "evidence.chain", |c| c.issuer.not_before = "390101000000Z"),
    ("issuer no authority", "evidence.chain", |c| c.issuer.extensions = vec![basic_constraints(false), key_usage(4)]),
    ("issuer of another root", "evidence.chain", |c| c.issuer.issuer.1 = "Stranger"),
    ("simulated VEK", "policy.environment", |c| c.vek.subject.0 = "SIMULATED"),
    ("list expired", "evidence.crl", |c| c.crl.next_update = Some("250101000000Z")),
    ("list of the future", "evidence.crl", |c| c.crl.this_update = "390101000000Z"),
    ("VEK revoked", "evidence.revoked", |c| c.crl.revoked.push(VEK_SERIAL)),
    ("issuer revoked", "evidence.revoked", |c| c.crl.revoked.push(ASK_SERIAL)),
    ("endorsed boot loader", "evidence.endorsement", |c| c.endorse(1, TCB.bootloader + 1)),
    ("endorsed PSP system", "evidence.endorsement", |c| c.endorse(2, TCB.tee + 1)),
    ("endorsed SNP firmware", "evidence.endorsement", |c| c.endorse(3, TCB.snp - 1)),
    ("endorsed microcode", "evidence.endorsement", |c| c.endorse(8, TCB.microcode - 1)),
    ("reported boot loader", "evidence.endorsement", |c| c.fields.reported_tcb.bootloader += 1),
    ("reported PSP system", "evidence.endorsement", |c| c.fields.reported_tcb.tee += 1),
    ("reported SNP firmware", "evidence.endorsement", |c| c.fields.reported_tcb.snp += 1),
    ("reported microcode", "evidence.endorsement", |c| c.fields.reported_tcb.microcode += 1),
    ("first byte of report data", "evidence.nonce", |c| c.fields.report_data[0] ^= 1),
    ("last byte of report data", "evidence.nonce", |c| c.fields.report_data[63] ^= 1),
    ("other report data asked for", "evidence.nonce", |c| c.asked[20] ^= 1),
    ("VMPL 1", "evidence.vmpl", |c| c.fields.vmpl = 1),
    ("VMPL of the host", "evidence.vmpl", |c| c.fields.vmpl = u32::MAX),
    ("VMPL 2 expected", "evidence.vmpl", |c| c.policy.vmpl = 2),
    ("debugging", "evidence.debug", |c| c.fields.policy |= 1 << 19),
    ("migration", "evidence.migration", |c| c.fields.policy |= 1 << 18),
    ("first byte of a migration agent", "evidence.migration", |c| c.fields.report_id_ma[0] = 0xFE),
    ("last byte of a migration agent", "evidence.migration", |c| c.fields.report_id_ma[31] = 0),
    ("current boot loader", "evidence.tcb", |c| c.fields.current_tcb.bootloader -= 1),
    ("current PSP system", "evidence.tcb", |c| c.fields.current_tcb.tee -= 1),
    ("current SNP firmware", "evidence.tcb", |c| c.fields.current_tcb.snp -= 1),
    ("current microcode", "evidence.tcb", |c| c.fields.current_tcb.microcode -= 1),
    ("committed boot loader", "evidence.tcb", |c| c.fields.committed_tcb.bootloader -= 1),
    ("committed PSP system", "evidence.tcb", |c| c.fields.committed_tcb.tee -= 1),
    ("committed SNP firmware", "evidence.tcb", |c| c.fields.committed_tcb.snp -= 1),
    ("committed microcode", "evidence.tcb", |c| c.fields.committed_tcb.microcode -= 1),
    ("launch boot loader", "evidence.tcb", |c| c.fields.launch_tcb.bootloader -= 1),
    ("launch PSP system", "evidence.tcb", |c| c.fields.launch_tcb.tee -= 1),
    ("launch SNP firmware", "evidence.tcb", |c| c.fields.launch_tcb.snp -= 1),
    ("launch microcode", "evidence.tcb", |c| c.fields.launch_tcb.microcode -= 1),
    ("endorsed and reported boot loader", "evidence.tcb", |c| {
        c.fields.reported_tcb.bootloader -= 1;
        c.endorse(1, TCB.bootloader - 1);
    }),
    ("endorsed and reported microcode", "evidence.tcb", |c| {
        c.fields.reported_tcb.microcode -= 1;
        c.endorse(8, TCB.microcode - 1);
    }),
    ("a higher minimum of the boot loader", "evidence.tcb", |c| c.minimum.bootloader += 1),
    ("a higher minimum of the PSP system", "evidence.tcb", |c| c.minimum.tee += 1),
    ("a higher minimum of the SNP firmware", "evidence.tcb", |c| c.minimum.snp += 1),
    ("a higher minimum of the microcode", "evidence.tcb", |c| c.minimum.microcode += 1),
    ("a chip that is not listed", "evidence.chip", |c| c.policy.chips = AllowedChips::Listed(vec![[0xC2; 64]])),
    ("no chip listed", "evidence.chip", |c| c.policy.chips = AllowedChips::Listed(vec![])),
    ("first byte of the measurement", "evidence.measurement", |c| c.fields.measurement[0] ^= 1),
    ("last byte of the measurement", "evidence.measurement", |c| c.fields.measurement[47] ^= 1),
    ("no measurement listed", "evidence.measurement", |c| c.policy.measurements = ExpectedMeasurement::Listed(vec![])),
    // Fields that nothing here judges: the initdata and the guest are compared with the log.
    ("HOST_DATA", "pass", |c| c.fields.host_data[0] ^= 1),
    ("REPORT_ID", "pass", |c| c.fields.report_id[0] ^= 1),
    ("an author key", "pass", |c| c.fields.key_info |= 1),
    ("the guest's version", "pass", |c| c.fields.guest_svn = 7),
    ("any chip", "pass", |c| c.policy.chips = AllowedChips::AnyChip),
];

const VCEK_ROWS: &[(&str, &str, Change)] = &[
    ("first byte of the chip's id", "evidence.endorsement", |c| c.fields.chip_id[0] ^= 1),
    ("last byte of the chip's id", "evidence.endorsement", |c| c.fields.chip_id[63] ^= 1),
    ("another hardware id", "evidence.endorsement", |c| c.vek.extensions[HARDWARE_ID_PLACE] = hardware_id(&[0xC2; 64])),
    ("a hardware id cut short", "evidence.endorsement", |c| {
        let id = c.fields.chip_id;
        c.vek.extensions[HARDWARE_ID_PLACE] = hardware_id(&id[..if c.turin() { 7 } else { 63 }]);
    }),
    ("no hardware id", "evidence.endorsement", |c| drop(c.vek.extensions.remove(HARDWARE_ID_PLACE))),
    ("a provider beside the chip", "evidence.endorsement", |c| c.vek.extensions.push(csp_id(PROVIDER))),
];

const VLEK_ROWS: &[(&str, &str, Change)] = &[
    ("another provider", "evidence.chip", |c| *c.vek.extensions.last_mut().unwrap() = csp_id("Other")),
    ("no provider listed", "evidence.chip", |c| c.policy.providers.clear()),
    ("no provider", "evidence.endorsement", |c| drop(c.vek.extensions.pop())),
    ("a provider without a name", "evidence.endorsement", |c| *c.vek.extensions.last_mut().unwrap() = csp_id("")),
    ("a chip beside the provider", "evidence.endorsement", |c| c.vek.extensions.push(hardware_id(&CHIP))),
];

const TURIN_ROWS: &[(&str, &str, Change)] = &[
    ("a higher minimum of the FMC", "evidence.tcb", |c| c.minimum.fmc = Some(5)),
    ("endorsed FMC", "evidence.endorsement", |c| c.endorse(9, 5)),
    ("reported FMC", "evidence.endorsement", |c| c.fields.reported_tcb.fmc = Some(5)),
    ("current FMC", "evidence.tcb", |c| c.fields.current_tcb.fmc = Some(3)),
    ("committed FMC", "evidence.tcb", |c| c.fields.committed_tcb.fmc = Some(3)),
    ("launch FMC", "evidence.tcb", |c| c.fields.launch_tcb.fmc = Some(3)),
    ("endorsed without an FMC", "evidence.endorsement", |c| c.vek.extensions.retain(|e| *e != component(9, 4))),
];

const LEGACY_ROWS: &[(&str, &str, Change)] = &[
    ("endorsed with an FMC", "evidence.endorsement", |c| c.vek.extensions.push(component(9, 0))),
    ("a minimum with an FMC", "evidence.tcb", |c| c.minimum.fmc = Some(0)),
];

#[test]
fn each_field_altered_alone_gives_exactly_its_code() {
    let mut rows = 0;
    for good in variants() {
        let own = if good.kind == "VCEK" { VCEK_ROWS } else { VLEK_ROWS };
        let layout = if good.turin() { TURIN_ROWS } else { LEGACY_ROWS };
        for (name, expected, change) in ROWS.iter().chain(own).chain(layout) {
            let mut case = good.clone();
            change(&mut case);
            let result = case.run();
            let actual = result.as_ref().map_err(ToString::to_string);
            let code = result.as_ref().map_or_else(|refusal| refusal.code.as_str(), |_| "pass");
            assert_eq!(code, *expected, "{}: {name}: {actual:?}", good.name);
            rows += 1;
        }
    }
    assert!(rows >= 500, "{rows}");
}

#[test]
fn what_a_vlek_vouches_for_is_told() {
    let claims = variants().iter().map(|case| case.run().unwrap().provider().map(str::to_owned)).collect::<Vec<_>>();
    let provider = Some(PROVIDER.to_owned());
    assert_eq!(claims[..6], [None, None, None, None, None, None]);
    assert_eq!(claims[6..], [provider.clone(), provider.clone(), provider]);
}

/// Bytes as they travel: a flip is no report any more, or one that is refused. Nothing of the 1184 bytes is outside
/// the signature but the signature itself, its padding and the reserved bytes behind it, which must be zero.
#[test]
fn no_byte_of_any_version_can_be_changed() {
    for case in variants() {
        let good = signed(case.fields.clone());
        let (evidence, policy) = (case.evidence(), case.policy());
        let certificates = evidence.cert_chain.unwrap();
        let key = case.fields.signing_key().unwrap();
        let vek = VerifiedVek::verify(&certificates, key, &policy, NOW, &mut Trace::off()).unwrap();
        let run = |bytes: &[u8]| {
            let report = Report::parse(bytes);
            let report =
                report.map_err(|error| crate::snp::refuse(reason::EVIDENCE_MALFORMED, "", error.to_string()))?;
            verify_report(report, &vek, &case.asked, &policy, NOW, &mut Trace::off())
        };
        run(good.to_bytes()).unwrap();
        for place in 0..good.to_bytes().len() {
            let mut bytes = *good.to_bytes();
            bytes[place] ^= 1 << (place % 8);
            let code = word(run(&bytes));
            let expected: &[&str] = match place {
                // Reserved, of another version or generation, or no such algorithm.
                _ if Report::parse(&bytes).is_err() => &["evidence.malformed"],
                0x34..0x38 => &["evidence.malformed"],
                0x48 => &["evidence.signature", "evidence.policy", "evidence.endorsement"],
                _ => &["evidence.signature"],
            };
            assert!(expected.contains(&code), "{} byte {place:#x}: {code}", case.name);
        }
    }
}
