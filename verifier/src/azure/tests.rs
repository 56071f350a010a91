use serde_json::Value;

use super::*;
use crate::snp::{AllowedChips, ExpectedMeasurement, TcbVersion, amd_roots};
use crate::testing::NOW;
use protocols::azure::AzureTdxEvidence;
use protocols::environment::Environment;

const V0: &str = include_str!("../../../tests/data/vectors/az-snp-vtpm/evidence-v0.json");
const V2: &str = include_str!("../../../tests/data/vectors/az-snp-vtpm/evidence-v2.json");
const TDX: &str = include_str!("../../../tests/data/vectors/az-tdx-vtpm/evidence-v1.json");

fn snp(text: &str) -> AzureSnpEvidence {
    AzureSnpEvidence::from_json(&serde_json::from_str::<Value>(text).unwrap()).unwrap()
}

/// AMD's roots, and the measurement of the paravisor in the evidence.
fn policy(evidence: &AzureSnpEvidence, user_data: UserData) -> AzurePolicy {
    let hcl = HclReport::parse(&evidence.hcl_report).unwrap();
    let Hardware::Snp(report) = hcl.hardware() else { panic!("an SNP report") };
    let none = TcbVersion::default();
    AzurePolicy {
        snp: SnpPolicy {
            roots: amd_roots(none, none, none).unwrap(),
            measurements: ExpectedMeasurement::Listed(vec![Report::parse(report).unwrap().fields().measurement]),
            vmpl: 0,
            chips: AllowedChips::AnyChip,
            providers: Vec::new(),
            environment: Environment::Production,
        },
        user_data,
    }
}

fn nonce(evidence: &AzureSnpEvidence) -> Vec<u8> {
    protocols::tpm::Attest::parse(&evidence.quote.message).unwrap().extra_data
}

fn word(result: Result<AzureClaims, Refusal>) -> &'static str {
    result.map_or_else(|refusal| refusal.code.as_str(), |_| "pass")
}

fn run(evidence: &AzureSnpEvidence, nonce: &[u8], policy: &AzurePolicy) -> &'static str {
    word(verify_azure_snp(evidence, nonce, policy, NOW, &mut Trace::off()))
}

#[test]
fn real_evidence_passes_under_amds_roots() {
    let newest = snp(V2);
    let bound = policy(&newest, UserData::Nonce);
    let claims = verify_azure_snp(&newest, &nonce(&newest), &bound, NOW, &mut Trace::off()).unwrap();
    assert!(!claims.simulated());
    let AzureHardware::Snp(hardware) = claims.hardware() else { panic!("an SNP report") };
    assert_eq!(hardware.version(), 3);
    assert_eq!(claims.configuration()["secure-boot"], true);
    assert_eq!(claims.tpm().pcrs().len(), 24);

    let oldest = snp(V0);
    assert_eq!(run(&oldest, b"challenge", &policy(&oldest, UserData::AnyUserData)), "pass");
    assert_eq!(run(&oldest, b"challenge", &policy(&oldest, UserData::Nonce)), "evidence.nonce", "zeros for user data");
    assert_eq!(run(&oldest, b"challengf", &policy(&oldest, UserData::AnyUserData)), "evidence.nonce");
    assert_eq!(run(&newest, &nonce(&newest)[..47], &bound), "evidence.nonce", "the start of a nonce");
}

#[test]
fn every_part_of_real_evidence_is_needed() {
    let good = snp(V2);
    let bound = policy(&good, UserData::Nonce);
    let nonce = nonce(&good);
    let other = snp(V0);
    let altered = |change: &dyn Fn(&mut AzureSnpEvidence)| {
        let mut evidence = good.clone();
        change(&mut evidence);
        run(&evidence, &nonce, &bound)
    };
    assert_eq!(altered(&|_| {}), "pass");
    assert_eq!(altered(&|e| e.quote.signature[0] ^= 1), "evidence.signature");
    assert_eq!(altered(&|e| e.quote.signature.push(0)), "evidence.signature");
    assert_eq!(altered(&|e| e.quote.pcrs[14] = "00".repeat(32).replace('0', "1")), "evidence.pcr");
    assert_eq!(altered(&|e| e.quote.pcrs.swap(0, 1)), "evidence.pcr");
    assert_eq!(altered(&|e| drop(e.quote.pcrs.pop())), "evidence.malformed");
    assert_eq!(altered(&|e| e.hcl_report[0x500] ^= 1), "evidence.malformed", "the JSON's syntax");
    assert_eq!(altered(&|e| e.hcl_report[0x4D4 + 75] ^= 1), "evidence.binding", "the key in the JSON");
    assert_eq!(altered(&|e| e.hcl_report[0x20 + 0x50] ^= 1), "evidence.binding", "report data");
    assert_eq!(altered(&|e| e.hcl_report[0x20 + 0x90] ^= 1), "evidence.signature", "the measurement");
    assert_eq!(altered(&|e| e.vcek.clone_from(&other.vcek)), "evidence.signature", "another chip's VCEK");
    assert_eq!(altered(&|e| e.quote = other.quote.clone()), "evidence.signature", "another VM's quote");
    assert_eq!(altered(&|e| e.hcl_report.clone_from(&other.hcl_report)), "evidence.signature", "another VM's report");
    let nobody = AzurePolicy { snp: SnpPolicy { roots: Vec::new(), ..bound.snp.clone() }, ..bound.clone() };
    assert_eq!(run(&good, &nonce, &nobody), "evidence.chain");
    let unlisted = ExpectedMeasurement::Listed(Vec::new());
    let unlisted = AzurePolicy { snp: SnpPolicy { measurements: unlisted, ..bound.snp.clone() }, ..bound };
    assert_eq!(run(&good, &nonce, &unlisted), "evidence.measurement");
}

/// All but the TD quote itself, which needs collateral.
#[test]
fn the_vtpm_of_a_real_td_is_bound_to_its_report() {
    let mut evidence = AzureTdxEvidence::from_json(&serde_json::from_str::<Value>(TDX).unwrap()).unwrap();
    let nothing = UserData::AnyUserData;
    let refusal = check_azure_tdx_vtpm(&evidence, b"challenge", nothing, &mut Trace::off()).unwrap_err();
    assert_eq!(refusal.code.as_str(), "evidence.malformed", "zero bytes behind the quote, which attesters cut");
    evidence.td_quote = tdx::trim(&evidence.td_quote).unwrap().to_vec();
    let check = |evidence: &AzureTdxEvidence, nonce: &[u8]| {
        let result = check_azure_tdx_vtpm(evidence, nonce, UserData::AnyUserData, &mut Trace::off());
        result.map_or_else(|refusal| refusal.code.as_str(), |_| "pass")
    };
    assert_eq!(check(&evidence, b"challenge"), "pass");
    assert_eq!(check(&evidence, b"another"), "evidence.nonce");
    let altered = |change: fn(&mut AzureTdxEvidence)| {
        let mut evidence = evidence.clone();
        change(&mut evidence);
        check(&evidence, b"challenge")
    };
    assert_eq!(altered(|e| e.hcl_report[0x20 + 128] ^= 1), "evidence.binding");
    assert_eq!(altered(|e| e.td_quote[48 + 520 + 63] ^= 1), "evidence.binding");
    assert_eq!(altered(|e| e.td_quote[48 + 136] ^= 1), "evidence.binding", "another TD's MRTD");
    assert_eq!(altered(|e| e.td_quote.truncate(600)), "evidence.malformed");
    assert_eq!(altered(|e| e.quote.signature[9] ^= 1), "evidence.signature");
    let snp_inside = AzureTdxEvidence { hcl_report: snp(V2).hcl_report, ..evidence.clone() };
    assert_eq!(check(&snp_inside, b"challenge"), "evidence.policy");
    let as_snp = AzureSnpEvidence {
        version: 1,
        quote: evidence.quote.clone(),
        hcl_report: evidence.hcl_report.clone(),
        vcek: Vec::new(),
    };
    assert_eq!(run(&as_snp, b"challenge", &policy(&snp(V2), UserData::AnyUserData)), "evidence.policy");
}

/// No single byte of any part can change: what is not signed is checked to be zero.
#[test]
fn no_byte_of_real_evidence_can_be_changed() {
    let good = snp(V2);
    let bound = policy(&good, UserData::Nonce);
    let nonce = nonce(&good);
    type Part = fn(&mut AzureSnpEvidence) -> &mut Vec<u8>;
    let parts: [(&str, Part, usize); 4] = [
        ("HCL report", |e| &mut e.hcl_report, 7),
        ("quote", |e| &mut e.quote.message, 1),
        ("signature", |e| &mut e.quote.signature, 5),
        ("VCEK", |e| &mut e.vcek, 11),
    ];
    for (name, part, step) in parts {
        let size = part(&mut good.clone()).len();
        for place in (0..size).step_by(step) {
            let mut evidence = good.clone();
            part(&mut evidence)[place] ^= 1;
            assert_ne!(run(&evidence, &nonce, &bound), "pass", "{name} byte {place:#x}");
        }
    }
}
