//! Evidence of simulated Azure VMs on TDX through the function that judges real ones.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::result_large_err)] // a test fails by panicking

use std::sync::LazyLock;

use protocols::azure::AzureTdxEvidence;
use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::reason::Refusal;
use protocols::tdx::{TdAttributes, TdReport, TdReport15};
use protocols::time::Timestamp;
use serde_json::{Value, json};
use simulated_tee::tdx::{Body, CollateralFacts, Params, Platform};
use simulated_tee::{AzureVm, VtpmQuote, claims_data};
use verifier::tdx::{TcbStatus, TdxPolicy, TdxRoot};
use verifier::{
    AzureClaims, AzureHardware, AzureTdxPolicy, ExpectedMeasurement, SeptVe, TdxCollateral, TdxMeasurements, Trace,
    UserData, verify_azure_tdx,
};

const NONCE: [u8; 48] = [0x4E; 48];
const NOW: Timestamp = Timestamp(1_800_000_000);

static PLATFORM: LazyLock<Platform> = LazyLock::new(|| Platform::new(NOW).unwrap());
static VM: LazyLock<AzureVm> = LazyLock::new(|| AzureVm::new().unwrap());

fn user_data() -> [u8; 64] {
    let mut user_data = [0; 64];
    user_data[..48].copy_from_slice(&NONCE);
    user_data
}

fn policy() -> AzureTdxPolicy {
    let listed = |byte| ExpectedMeasurement::Listed(vec![[byte; 48]]);
    AzureTdxPolicy {
        tdx: TdxPolicy {
            roots: vec![TdxRoot::from_der(&PLATFORM.root_der(), true).unwrap()],
            collateral: vec![],
            statuses: vec![TcbStatus::UpToDate],
            advisories: vec![],
            minimum_evaluation: 17,
            measurements: TdxMeasurements { mr_td: listed(0x7D), rtmr: [listed(0x10), listed(0x11), listed(0x12)] },
            environment: Environment::Development,
        },
        sept_ve: SeptVe::NotRequired,
        user_data: UserData::Nonce,
    }
}

/// One VM's evidence in its parts, and what it is judged by.
struct Case {
    body: Body,
    td: fn(&mut TdReport),
    facts: CollateralFacts,
    claims: Value,
    /// Shown in place of the claims that the report was made over.
    shown: Option<Value>,
    /// Changes the report that the paravisor shows, and leaves the quote's.
    local: fn(&mut TdReport),
    /// Changes the quote's bytes.
    td_quote: fn(&mut Vec<u8>),
    quote: VtpmQuote,
    nonce: Vec<u8>,
    policy: AzureTdxPolicy,
    finish: fn(&mut AzureTdxEvidence),
    now: Timestamp,
}

impl Case {
    /// As Azure starts its TDs: without `SEPT_VE_DISABLE`.
    fn good() -> Self {
        Self {
            body: Body::V4,
            td: |_| {},
            facts: CollateralFacts::new(&PLATFORM, NOW),
            claims: VM.claims(&user_data()),
            shown: None,
            local: |_| {},
            td_quote: |_| {},
            quote: VtpmQuote::new(&NONCE, &std::array::from_fn(|n| Sha256Digest::new([u8::try_from(n).unwrap(); 32]))),
            nonce: NONCE.to_vec(),
            policy: policy(),
            finish: |_| {},
            now: NOW,
        }
    }

    fn evidence(&self) -> AzureTdxEvidence {
        let var_data = self.claims.to_string().into_bytes();
        let mut params = Params::new(self.body, claims_data(&var_data));
        params.report.td_attributes = TdAttributes(0);
        (self.td)(&mut params.report);
        let mut td_quote = PLATFORM.quote(&params).unwrap().encode();
        (self.td_quote)(&mut td_quote);
        let mut local = params.report;
        (self.local)(&mut local);
        let shown = self.shown.as_ref().map_or(var_data, |shown| shown.to_string().into_bytes());
        let mut evidence = VM.td_evidence_of(&local, td_quote, &shown, &self.quote);
        (self.finish)(&mut evidence);
        // As it travels.
        AzureTdxEvidence::from_json(&evidence.to_json()).unwrap()
    }

    fn judge(&self, evidence: &AzureTdxEvidence) -> Result<AzureClaims, Refusal> {
        let collateral = PLATFORM.collateral(&self.facts);
        let collateral = vec![TdxCollateral::parse(collateral.as_bytes()).unwrap()];
        let tdx = TdxPolicy { collateral, ..self.policy.tdx.clone() };
        let policy = AzureTdxPolicy { tdx, ..self.policy.clone() };
        verify_azure_tdx(evidence, &self.nonce, &policy, self.now, &mut Trace::off())
    }

    fn code(&self) -> &'static str {
        self.judge(&self.evidence()).map_or_else(|refusal| refusal.code.as_str(), |_| "pass")
    }
}

fn key(case: &mut Case) -> &mut Value {
    &mut case.claims["keys"][0]
}

type Change = fn(&mut Case);

const ROWS: &[(&str, &str, Change)] = &[
    ("nothing", "pass", |_| {}),
    ("a TD with SEPT_VE_DISABLE", "pass", |c| c.td = |td| td.td_attributes.0 |= TdAttributes::SEPT_VE_DISABLE),
    ("a quote of version 5", "pass", |c| c.body = Body::V5Report10),
    ("a quote of report 1.5", "pass", |c| c.body = Body::V5Report15),
    ("policy that asks for SEPT_VE_DISABLE", "evidence.policy", |c| c.policy.sept_ve = SeptVe::Required),
    ("it and a TD that has it", "pass", |c| {
        c.policy.sept_ve = SeptVe::Required;
        c.td = |td| td.td_attributes.0 |= TdAttributes::SEPT_VE_DISABLE;
    }),
    // The hardware: with the bit cleared, every check of a quote is made.
    ("a TD under debug", "evidence.debug", |c| c.td = |td| td.td_attributes.0 |= 1),
    ("a TD that can migrate", "evidence.migration", |c| c.td = |td| td.td_attributes.0 |= TdAttributes::MIGRATABLE),
    ("a reserved attribute", "evidence.policy", |c| c.td = |td| td.td_attributes.0 |= 1 << 40),
    ("a service TD", "evidence.policy", |c| {
        c.body = Body::V5Report15;
        c.td = |td| td.v15 = td.v15.take().map(|v15| TdReport15 { mr_service_td: [1; 48], ..v15 });
    }),
    ("the bit set after signing", "evidence.signature", |c| {
        c.td_quote = |q| q[48 + 120 + 3] |= 0x10;
        c.local = |td| td.td_attributes.0 |= TdAttributes::SEPT_VE_DISABLE;
    }),
    ("the bit cleared after signing", "evidence.signature", |c| {
        c.td = |td| td.td_attributes.0 |= TdAttributes::SEPT_VE_DISABLE;
        c.td_quote = |q| q[48 + 120 + 3] &= !0x10;
        c.local = |td| td.td_attributes.0 &= !TdAttributes::SEPT_VE_DISABLE;
    }),
    ("an attribute cleared after signing", "evidence.signature", |c| {
        c.td = |td| td.td_attributes.0 |= 1 << 27;
        c.td_quote = |q| q[48 + 120 + 3] &= !0x08;
        c.local = |td| td.td_attributes.0 &= !(1 << 27);
    }),
    ("the quote's signature", "evidence.signature", |c| c.td_quote = |q| q[48 + 584 + 4] ^= 1),
    ("the quote's header", "evidence.signature", |c| c.td_quote = |q| q[30] ^= 1),
    ("another MRTD after signing", "evidence.signature", |c| {
        c.td_quote = |q| q[48 + 136] ^= 1;
        c.local = |td| td.mr_td[0] ^= 1;
        c.policy.tdx.measurements = TdxMeasurements::ANY;
    }),
    ("another paravisor", "evidence.measurement", |c| c.td = |td| td.mr_td[0] ^= 1),
    ("another RTMR0", "evidence.measurement", |c| c.td = |td| td.rtmr[0][0] ^= 1),
    ("another RTMR1", "evidence.measurement", |c| c.td = |td| td.rtmr[1][0] ^= 1),
    ("another RTMR2", "evidence.measurement", |c| c.td = |td| td.rtmr[2][0] ^= 1),
    ("another platform's roots", "evidence.chain", |c| {
        let stranger = Platform::new(NOW).unwrap();
        c.policy.tdx.roots = vec![TdxRoot::from_der(&stranger.root_der(), true).unwrap()];
    }),
    ("no roots", "evidence.chain", |c| c.policy.tdx.roots.clear()),
    ("collateral of another platform", "evidence.collateral", |c| c.facts.fmspc[0] ^= 1),
    ("collateral out of its time", "evidence.collateral", |c| c.now = NOW.plus(20 * 366 * 24 * 3600)),
    ("a PCK that is revoked", "evidence.revoked", |c| c.facts.crls.pck_revoked.push(PLATFORM.pck.serial)),
    ("a TDX module that is too old", "evidence.tcb", |c| c.td = |td| td.tee_tcb_svn[0] = 0),
    ("a status that does not count", "evidence.tcb", |c| c.policy.tdx.statuses.clear()),
    ("older collateral than policy takes", "evidence.tcb", |c| c.policy.tdx.minimum_evaluation = u32::MAX),
    ("production", "policy.environment", |c| c.policy.tdx.environment = Environment::Production),
    // What ties the vTPM to it.
    ("another TD's report", "evidence.binding", |c| c.local = |td| td.mr_td[0] ^= 1),
    ("another TD's registers", "evidence.binding", |c| c.local = |td| td.rtmr[3][0] ^= 1),
    ("another TDX module", "evidence.binding", |c| c.local = |td| td.mr_seam[0] ^= 1),
    ("what only report 1.5 has", "evidence.binding", |c| {
        c.body = Body::V5Report15;
        c.local = |td| td.v15 = None;
    }),
    ("report data with a tail", "evidence.binding", |c| c.td = |td| td.report_data[63] = 1),
    ("other report data in the quote", "evidence.binding", |c| c.td_quote = |q| q[48 + 520] ^= 1),
    ("other claims", "evidence.binding", |c| {
        let mut other = c.claims.clone();
        other["vm-configuration"]["secure-boot"] = json!(false);
        c.shown = Some(other);
    }),
    ("another VM's key, not vouched for", "evidence.binding", |c| {
        c.shown = Some(AzureVm::new().unwrap().claims(&user_data()));
    }),
    ("another VM's key, vouched for", "evidence.signature", |c| {
        c.claims = AzureVm::new().unwrap().claims(&user_data())
    }),
    ("a hash in the TD report", "evidence.malformed", |c| c.finish = |e| e.hcl_report[0x20 + 32] ^= 1),
    ("the TD report's type", "evidence.malformed", |c| c.finish = |e| e.hcl_report[0x20] = 0x80),
    ("an SNP report's mark", "evidence.policy", |c| c.finish = |e| e.hcl_report[0x4C8] = 2),
    ("a header of another version", "evidence.malformed", |c| c.finish = |e| e.hcl_report[4] = 3),
    ("a TD quote cut short", "evidence.malformed", |c| c.td_quote = |q| q.truncate(700)),
    ("zero bytes behind the TD quote", "evidence.malformed", |c| c.td_quote = |q| q.push(0)),
    ("no TD quote", "evidence.malformed", |c| c.td_quote = |q| q.clear()),
    // The vTPM.
    ("a quote made outside the vTPM", "evidence.malformed", |c| c.quote.magic ^= 1),
    ("another kind of attestation", "evidence.malformed", |c| c.quote.kind = 0x8017),
    ("first byte of the nonce", "evidence.nonce", |c| c.quote.extra_data[0] ^= 1),
    ("a nonce cut short", "evidence.nonce", |c| c.quote.extra_data.truncate(32)),
    ("user data of an older report", "evidence.nonce", |c| c.claims = VM.claims(&[0; 64])),
    ("an older report where that may be", "pass", |c| {
        c.claims = VM.claims(&[0; 64]);
        c.policy.user_data = UserData::AnyUserData;
    }),
    ("user data cut short", "evidence.malformed", |c| c.claims["user-data"] = json!("4E".repeat(48))),
    ("no selection", "evidence.pcr", |c| c.quote.selections.clear()),
    ("another bank", "evidence.pcr", |c| c.quote.selections[0].0 = 0x000C),
    ("two selections", "evidence.pcr", |c| c.quote.selections.push((0x000B, vec![0xFF; 3]))),
    ("digest of other values", "evidence.pcr", |c| c.quote.digest[31] ^= 1),
    ("another value shown", "evidence.pcr", |c| c.quote.pcrs[7] = Sha256Digest::of(b"x")),
    ("a value left out", "evidence.malformed", |c| c.quote.pcrs.truncate(23)),
    ("signature of other bytes", "evidence.signature", |c| c.finish = |e| e.quote.signature[17] ^= 1),
    ("a key of another name", "evidence.malformed", |c| key(c)["kid"] = json!("HCLEkPub")),
    ("another exponent", "evidence.malformed", |c| key(c)["e"] = json!("Aw")),
];

#[test]
fn each_part_altered_alone_gives_exactly_its_code() {
    for (name, expected, change) in ROWS {
        let mut case = Case::good();
        change(&mut case);
        assert_eq!(case.code(), *expected, "{name}");
    }
    assert!(ROWS.len() >= 55);
}

#[test]
fn the_claims_are_those_of_the_quote_that_was_signed() {
    let case = Case::good();
    let claims = case.judge(&case.evidence()).unwrap();
    let AzureHardware::Tdx(tdx) = claims.hardware() else { panic!("a TD") };
    assert_eq!((tdx.report().td_attributes, tdx.mr_td()), (TdAttributes(0), &[0x7D; 48]));
    assert_eq!((tdx.tcb_status(), claims.simulated(), claims.tpm().simulated()), ("UpToDate", true, true));
}

/// No byte can change: of what is not signed, the TD report's CPUSVN, MAC and version say nothing that is believed.
#[test]
fn no_byte_can_be_changed() {
    let case = Case::good();
    let good = case.evidence();
    type Part = fn(&mut AzureTdxEvidence) -> &mut Vec<u8>;
    let parts: [(&str, Part, usize); 4] = [
        ("HCL report", |e| &mut e.hcl_report, 3),
        ("TD quote", |e| &mut e.td_quote, 7),
        ("quote", |e| &mut e.quote.message, 1),
        ("signature", |e| &mut e.quote.signature, 5),
    ];
    let unread = [0x22..0x23, 0x30..0x40, 0x100..0x120];
    for (name, part, step) in parts {
        let size = part(&mut good.clone()).len();
        for place in (0..size).step_by(step) {
            if name == "HCL report" && unread.iter().any(|unread| unread.contains(&place)) {
                continue;
            }
            let mut evidence = good.clone();
            part(&mut evidence)[place] ^= 1;
            assert!(case.judge(&evidence).is_err(), "{name} byte {place:#x}");
        }
    }
}
