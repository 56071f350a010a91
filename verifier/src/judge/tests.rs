use protocols::environment::Environment;
use protocols::register::RegisterKind;

use super::*;
use crate::azure::{AzurePolicy, AzureTdxPolicy, UserData};
use crate::sample::SamplePolicy;
use crate::snp::SnpPolicy;
use crate::snp::testing::{self as snp, Spec};
use crate::tdx::SeptVe;
use crate::testing::NOW;
use crate::tpm::TpmPolicy;

const BINDING: &[u8] = b"runtime data";

fn judge() -> Judge {
    let (environment, snp) = (Environment::Production, SnpPolicy { roots: vec![snp::root(false)], ..snp::policy() });
    Judge::new(EvidencePolicy {
        tpm: TpmPolicy { aks: Vec::new(), pcr: 14, environment },
        azure: AzurePolicy { snp: snp.clone(), user_data: UserData::Nonce },
        snp,
        azure_tdx: AzureTdxPolicy {
            tdx: crate::tdx::testing::policy(),
            sept_ve: SeptVe::Required,
            user_data: UserData::Nonce,
        },
        tdx: crate::tdx::testing::policy(),
        sample: SamplePolicy::Refused,
        registers: vec![RegisterKind::Software],
        environment,
    })
}

/// Every signature of the chain is another one, and so is the chain: `known` is one that was shown before.
fn evidence(chip: &[u8; 64], known: Option<&Value>, edit: impl FnOnce(&mut protocols::snp::Fields)) -> Value {
    let mut fields = snp::fields();
    fields.report_data = kbs::report_data(&Sha384Digest::of(BINDING));
    fields.chip_id = *chip;
    edit(&mut fields);
    let vcek = Spec::vcek(&snp::TCB, chip).signed(&snp::keys().ask);
    let mut evidence = serde_json::to_value(snp::evidence(&snp::signed(fields), vcek)).unwrap();
    if let Some(known) = known {
        evidence["cert_chain"] = known["cert_chain"].clone();
    }
    evidence
}

fn code(judge: &Judge, evidence: &Value, now: Timestamp) -> &'static str {
    let judged = judge.verify(Tee::Snp, evidence, &Sha384Digest::of(BINDING), now);
    judged.map_or_else(|refusal| refusal.code.as_str(), |_| "pass")
}

fn kept(judge: &Judge) -> usize {
    judge.veks.lock().unwrap().len()
}

#[test]
fn a_chips_key_is_kept_and_everything_else_is_looked_at_again() {
    let judge = judge();
    let good = evidence(&snp::CHIP, None, |_| {});
    let evidence = |edit: fn(&mut protocols::snp::Fields)| evidence(&snp::CHIP, Some(&good), edit);
    for _ in 0..3 {
        assert_eq!(code(&judge, &good, NOW), "pass");
    }
    assert_eq!(kept(&judge), 1);
    // Under the kept key: another nonce, another guest policy, a report of another chip, a signature that is none.
    assert_eq!(code(&judge, &evidence(|fields| fields.report_data[0] ^= 1), NOW), "evidence.nonce");
    assert_eq!(code(&judge, &evidence(|fields| fields.policy |= 1 << 19), NOW), "evidence.debug");
    assert_eq!(code(&judge, &evidence(|fields| fields.chip_id[5] ^= 1), NOW), "evidence.endorsement");
    let mut forged = good.clone();
    forged["attestation_report"]["measurement"][0] = 1.into();
    assert_ne!(code(&judge, &forged, NOW), "pass");
    assert_eq!(kept(&judge), 1);
    // The certificate that was valid when it was met is not any more.
    assert_eq!(code(&judge, &good, Timestamp(u64::MAX)), "evidence.chain");
}

#[test]
fn a_key_counts_for_exactly_what_was_shown_with_it() {
    let judge = judge();
    let good = evidence(&snp::CHIP, None, |_| {});
    assert_eq!(code(&judge, &good, NOW), "pass");
    assert_eq!(code(&judge, &evidence(&[7; 64], None, |_| {}), NOW), "pass", "another chip");
    assert_eq!(kept(&judge), 2);
    let mut altered = good.clone();
    let chain = altered["cert_chain"].as_array_mut().unwrap();
    chain.truncate(0);
    assert_eq!(code(&judge, &altered, NOW), "evidence.chain");
    assert_eq!(kept(&judge), 2, "nothing is kept that was refused");
}
