//! TDX quotes under Intel's root, or a simulated one.
//!
//! The checks, in their fixed order:
//!
//! | # | code | passes when |
//! |---|---|---|
//! | 1 | `evidence.malformed` | the bytes are exactly one quote of version 4 or 5 over TD report 1.0 or 1.5 |
//! | 2 | `policy.environment` | in production: nothing simulated, neither by its mark nor by its root, and measurements are listed |
//! | 3 | `evidence.debug`, `.migration`, `.policy` | the TD: nothing of "under debug", not migratable, no reserved attribute, `SEPT_VE_DISABLE` (of Azure's as policy says), no service TD. Before any signature, since none could mend it |
//! | 4 | `evidence.chain` | the PCK certificate can be read, and its chain ends in a pinned root |
//! | 5 | `evidence.collateral` | there is collateral for the platform, and `now` is within all of it |
//! | 5 | `policy.environment` | in production: none of its signers is simulated |
//! | 6 | `evidence.collateral` | the root stands behind TCB info, QE identity and both revocation lists |
//! | 7 | `evidence.chain`, `.revoked` | PCK <- intermediate <- root, valid and not revoked; the quoting enclave is Intel's |
//! | 8 | `evidence.signature` | the PCK signed the enclave's report, which binds the attestation key, which signed the quote |
//! | 9 | `evidence.tcb` | platform, TDX module and quoting enclave are of a level that the collateral knows, not a revoked one |
//! | 10 | `evidence.nonce` | report data is what was asked for, all 64 bytes |
//! | 11 | `evidence.tcb` | status, advisories and evaluation data number are ones that policy accepts |
//! | 12 | `evidence.measurement` | MRTD and RTMR0 to RTMR2 are expected ones |
//! | 13 | `evidence.malformed`, `.binding` | the firmware's log, where one is shown, is well formed and leads to RTMR0, RTMR1 and RTMR2 |
//!
//! 6 to 9 are the quote library's, over the same bytes, with the pinned root and `now`.

mod collateral;
mod reasons;
mod root;
mod sept;

use dcap_qvl::intel::{PckExtension, parse_pck_extension};
use dcap_qvl::verify::{QuoteVerifier, VerifiedReport};
use protocols::encoding;
use protocols::environment::Environment;
use protocols::kbs::TdxEvidence;
use protocols::reason::{self, Code, Refusal};
use protocols::register::HashAlg;
use protocols::tcg_log::TcgLog;
use protocols::tdx::{PckChain, Quote, TdAttributes, TdReport};
use protocols::time::Timestamp;
use subtle::ConstantTimeEq as _;

pub use collateral::{CollateralError, TdxCollateral};
pub use dcap_qvl::TcbStatus;
pub use root::{TdxRoot, TdxRootError};

use crate::certificate::Certificate;
use crate::hex;
use crate::snp::ExpectedMeasurement;
use crate::trace::Trace;

/// What refusals are about.
const SUBJECT: &str = "TDX quote";

/// What the guest must have been started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdxMeasurements {
    /// MRTD: the firmware.
    pub mr_td: ExpectedMeasurement,
    /// RTMR0 to RTMR2: the firmware's configuration, the loader, the kernel.
    pub rtmr: [ExpectedMeasurement; 3],
}

impl TdxMeasurements {
    /// Any; in development only.
    pub const ANY: Self =
        Self { mr_td: ExpectedMeasurement::AnyMeasurement, rtmr: [const { ExpectedMeasurement::AnyMeasurement }; 3] };

    fn each(&self) -> [(&'static str, &ExpectedMeasurement); 4] {
        let [rtmr0, rtmr1, rtmr2] = &self.rtmr;
        [("MRTD", &self.mr_td), ("RTMR0", rtmr0), ("RTMR1", rtmr1), ("RTMR2", rtmr2)]
    }
}

/// Whether a TD must have been started with `SEPT_VE_DISABLE`. Without it a host that takes a page away has the guest
/// handle an exception, at a moment of the host's choice, instead of ending the TD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeptVe {
    /// It must.
    Required,
    /// It need not: the guest, or a paravisor beneath it, is trusted to end the TD itself.
    NotRequired,
}

/// Which quotes count. Empty lists accept none.
#[derive(Debug, Clone)]
pub struct TdxPolicy {
    /// Trusted roots.
    pub roots: Vec<TdxRoot>,
    /// What is known of kinds of platforms.
    pub collateral: Vec<TdxCollateral>,
    /// TCB statuses that count.
    pub statuses: Vec<TcbStatus>,
    /// Advisories that may be open, by id.
    pub advisories: Vec<String>,
    /// The lowest evaluation data number that counts.
    pub minimum_evaluation: u32,
    /// Expected measurements.
    pub measurements: TdxMeasurements,
    /// The judging side's environment.
    pub environment: Environment,
}

/// What a verified quote says. Only [`verify_tdx`] makes one:
///
/// ```compile_fail,E0277
/// let forged: verifier::TdxClaims = serde_json::from_str("{}").unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdxClaims {
    quote: Quote,
    tcb_status: String,
    advisories: Vec<String>,
    evaluation: u32,
    fmspc: [u8; 6],
    ppid: Vec<u8>,
    simulated: bool,
}

impl TdxClaims {
    /// The whole quote, for claims this type has no name for.
    #[must_use]
    pub const fn quote(&self) -> &Quote {
        &self.quote
    }

    /// The TD report.
    #[must_use]
    pub const fn report(&self) -> &TdReport {
        &self.quote.report
    }

    /// MRTD, the measurement of the firmware.
    #[must_use]
    pub const fn mr_td(&self) -> &[u8; 48] {
        &self.quote.report.mr_td
    }

    /// MRCONFIGID: SHA-384 of the initdata where there is one, zeros where there is none.
    #[must_use]
    pub const fn mr_config_id(&self) -> &[u8; 48] {
        &self.quote.report.mr_config_id
    }

    /// RTMR0 to RTMR2, which firmware and kernel extend.
    #[must_use]
    pub const fn boot_rtmrs(&self) -> [[u8; 48]; 3] {
        let [firmware, loader, kernel, _] = self.quote.report.rtmr;
        [firmware, loader, kernel]
    }

    /// RTMR3, the event log's register.
    #[must_use]
    pub const fn rtmr3(&self) -> &[u8; 48] {
        let [_, _, _, register] = &self.quote.report.rtmr;
        register
    }

    /// The platform's TCB status, such as `UpToDate`.
    #[must_use]
    pub fn tcb_status(&self) -> &str {
        &self.tcb_status
    }

    /// Open advisories of that status.
    #[must_use]
    pub fn advisories(&self) -> &[String] {
        &self.advisories
    }

    /// Evaluation data number of the collateral that the status is by.
    #[must_use]
    pub const fn evaluation(&self) -> u32 {
        self.evaluation
    }

    /// The kind of platform.
    #[must_use]
    pub const fn fmspc(&self) -> &[u8; 6] {
        &self.fmspc
    }

    /// The platform (PPID).
    #[must_use]
    pub fn platform(&self) -> &[u8] {
        &self.ppid
    }

    /// Whether the root is a simulated one.
    #[must_use]
    pub const fn simulated(&self) -> bool {
        self.simulated
    }
}

/// Verifies a quote over `report_data` ([`protocols::kbs::report_data`]) at time `now`; `trace` takes down every check.
///
/// # Errors
/// `evidence.malformed`, `.debug`, `.migration`, `.policy`, `.chain`, `.revoked`, `.collateral`, `.signature`, `.tcb`,
/// `.nonce`, `.measurement`, `.binding`, `policy.environment`; see the module's table.
pub fn verify_tdx(
    evidence: &TdxEvidence,
    report_data: &[u8; 64],
    policy: &TdxPolicy,
    now: Timestamp,
    trace: &mut Trace,
) -> Result<TdxClaims, Refusal> {
    verify_td(evidence, report_data, policy, SeptVe::Required, now, trace)
}

/// The same, where the TD is another's than the guest's own.
pub(crate) fn verify_td(
    evidence: &TdxEvidence,
    report_data: &[u8; 64],
    policy: &TdxPolicy,
    sept_ve: SeptVe,
    now: Timestamp,
    trace: &mut Trace,
) -> Result<TdxClaims, Refusal> {
    let quote = Quote::parse(&evidence.quote)
        .map_err(|error| refuse(reason::EVIDENCE_MALFORMED, "a TDX quote", error.to_string()));
    let quote = trace.outcome(("quote", reason::EVIDENCE_MALFORMED), quote, |quote| {
        ("a TDX quote".to_owned(), format!("one of version {:?}", quote.header.version))
    })?;
    let chain = &quote.signature.pck_chain;
    let certificates = chain.certificates().iter().map(|der| Certificate::parse(der)).collect::<Result<Vec<_>, _>>();
    let root = policy.roots.iter().find(|root| root.der() == chain.last());
    let marked = certificates.as_ref().is_ok_and(|chain| chain.iter().any(Certificate::is_simulated));
    let simulated = marked || root.is_some_and(TdxRoot::simulated);
    check_environment(policy, simulated, trace)?;
    check_attributes(&quote.report, sept_ve, trace)?;

    let (facts, root, pck_issuer) =
        trace.outcome(("PCK certificate", reason::EVIDENCE_CHAIN), pck(chain, certificates, root), |(facts, ..)| {
            ("a PCK certificate under a pinned root".to_owned(), format!("FMSPC {}", hex(&facts.fmspc)))
        })?;
    let collateral = trace.outcome(
        ("collateral", reason::EVIDENCE_COLLATERAL),
        choose(policy, &facts, &pck_issuer, now),
        |collateral| {
            let (from, to) = collateral.window();
            (format!("collateral that counts at {now}"), format!("one that counts from {from} to {to}"))
        },
    )?;
    let told = policy.environment == Environment::Production && collateral.simulated();
    trace.require(
        (SUBJECT, "collateral's environment", reason::POLICY_ENVIRONMENT),
        !told,
        || format!("collateral for {}", policy.environment),
        || (if told { "SIMULATED collateral" } else { "what may be shown there" }).to_owned(),
    )?;
    let verified = if quote.report.td_attributes.any(TdAttributes::SEPT_VE_DISABLE) {
        QuoteVerifier::new(root.der().to_vec())
            .verify(&evidence.quote, collateral.inner(), now.0)
            .map_err(|error| format!("{error:#}"))
    } else {
        sept::verify(&quote, collateral, root, now)
    };
    let verified = verified.map_err(|message| explain(&message, collateral, root, now));
    let verified =
        trace.outcome(("chains, signatures, TCB level", reason::EVIDENCE_SIGNATURE), verified, |verified| {
            (
                "collateral, PCK, quoting enclave and quote signed under the root".to_owned(),
                format!("TCB {}", verified.status),
            )
        })?;
    trace.require(
        (SUBJECT, "report data", reason::EVIDENCE_NONCE),
        quote.report.report_data.ct_eq(report_data).into(),
        || hex(report_data),
        || hex(&quote.report.report_data),
    )?;
    check_tcb(&verified, collateral.evaluation(), policy, trace)?;
    check_measurements(&quote.report, &policy.measurements, trace)?;
    check_firmware_log(evidence.cc_eventlog.as_deref(), &quote.report, trace)?;
    Ok(TdxClaims {
        tcb_status: verified.status,
        advisories: verified.advisory_ids,
        evaluation: collateral.evaluation(),
        fmspc: facts.fmspc,
        ppid: facts.ppid,
        simulated: simulated || collateral.simulated(),
        quote,
    })
}

/// Whether `collateral` stands at `now` behind a quote that was accepted before: what it measured and what it was made
/// over are not asked again. So collateral is judged that no guest waits for.
///
/// # Errors
/// As [`verify_tdx`].
pub fn check_collateral(
    quote: &[u8],
    collateral: &TdxCollateral,
    policy: &TdxPolicy,
    now: Timestamp,
) -> Result<(), Refusal> {
    let evidence = TdxEvidence { cc_eventlog: None, quote: quote.to_vec() };
    let parsed =
        Quote::parse(quote).map_err(|error| refuse(reason::EVIDENCE_MALFORMED, "a TDX quote", error.to_string()))?;
    let own = |value: &[u8; 48]| ExpectedMeasurement::Listed(vec![*value]);
    let [rtmr0, rtmr1, rtmr2, _] = &parsed.report.rtmr;
    let measurements = TdxMeasurements { mr_td: own(&parsed.report.mr_td), rtmr: [own(rtmr0), own(rtmr1), own(rtmr2)] };
    let policy = TdxPolicy { collateral: vec![collateral.clone()], measurements, ..policy.clone() };
    let report_data = parsed.report.report_data;
    verify_td(&evidence, &report_data, &policy, SeptVe::NotRequired, now, &mut Trace::off()).map(|_| ())
}

/// The kind of platform (FMSPC) that a PCK certificate, DER, is for. Nothing of it is verified: it names the collateral
/// to look for.
#[must_use]
pub fn fmspc(pck: &[u8]) -> Option<[u8; 6]> {
    parse_pck_extension(pck).ok().map(|extension| extension.fmspc)
}

/// Check 2.
fn check_environment(policy: &TdxPolicy, simulated: bool, trace: &mut Trace) -> Result<(), Refusal> {
    let production = policy.environment == Environment::Production;
    let any = policy.measurements.each().iter().any(|(_, expected)| **expected == ExpectedMeasurement::AnyMeasurement);
    let word = |wrong: bool, bad: &str, good: &str| if wrong { bad.to_owned() } else { good.to_owned() };
    trace.require(
        (SUBJECT, "environment", reason::POLICY_ENVIRONMENT),
        !(production && simulated),
        || word(production, "evidence of real hardware", "any evidence, in development"),
        || word(simulated, "SIMULATED evidence", "no simulated mark or root"),
    )?;
    trace.require(
        (SUBJECT, "expectations", reason::POLICY_ENVIRONMENT),
        !(production && any),
        || word(production, "listed measurements", "any policy, in development"),
        || word(any, "a policy that accepts any measurement", "listed measurements"),
    )
}

/// Check 3.
fn check_attributes(report: &TdReport, sept_ve: SeptVe, trace: &mut Trace) -> Result<(), Refusal> {
    let attributes = report.td_attributes;
    let service = report.v15.as_ref().map_or([0; 48], |v15| v15.mr_service_td);
    let (pending, wanted) = match sept_ve {
        SeptVe::Required => (attributes.any(TdAttributes::SEPT_VE_DISABLE), "SEPT_VE_DISABLE"),
        SeptVe::NotRequired => (true, "SEPT_VE_DISABLE or not, as policy says"),
    };
    let serviced = attributes.any(TdAttributes::SERVTD_EXT) || service != [0; 48];
    for (name, code, passed, expected) in [
        ("debug", reason::EVIDENCE_DEBUG, !attributes.any(TdAttributes::TUD), "a TD that is not under debug"),
        (
            "migration",
            reason::EVIDENCE_MIGRATION,
            !attributes.any(TdAttributes::MIGRATABLE),
            "a TD that cannot migrate",
        ),
        ("reserved attributes", reason::EVIDENCE_POLICY, !attributes.any(TdAttributes::RESERVED), "none"),
        ("pending pages", reason::EVIDENCE_POLICY, pending, wanted),
    ] {
        let actual = || format!("attributes {attributes}");
        trace.require((SUBJECT, name, code), passed, || expected.to_owned(), actual)?;
    }
    trace.require(
        (SUBJECT, "service TDs", reason::EVIDENCE_POLICY),
        !serviced,
        || "none".to_owned(),
        || format!("attributes {attributes}, MR_SERVICETD {}", hex(&service)),
    )
}

/// Check 4: what the PCK certificate says, the root it leads to, and the DER of its issuer's name.
fn pck<'p>(
    chain: &PckChain,
    certificates: Result<Vec<Certificate>, &'static str>,
    root: Option<&'p TdxRoot>,
) -> Result<(PckExtension, &'p TdxRoot, Vec<u8>), Refusal> {
    let failed = |what: &str| refuse(reason::EVIDENCE_CHAIN, "a PCK certificate under a pinned root", what);
    let certificates = certificates.map_err(failed)?;
    let pck = certificates.first().ok_or_else(|| failed("no certificate"))?;
    let facts = parse_pck_extension(chain.pck()).map_err(|_| failed("a certificate without the SGX extension"))?;
    let root = root.ok_or_else(|| failed("a chain that ends in another root"))?;
    Ok((facts, root, pck.issuer_der()))
}

/// Check 5: the newest collateral for the platform that counts at `now`.
fn choose<'p>(
    policy: &'p TdxPolicy,
    facts: &PckExtension,
    pck_issuer: &[u8],
    now: Timestamp,
) -> Result<&'p TdxCollateral, Refusal> {
    let refuse = |expected: String, actual: String| Err(refuse(reason::EVIDENCE_COLLATERAL, expected, actual));
    let known: Vec<_> = policy.collateral.iter().filter(|each| each.is_for(&facts.fmspc, pck_issuer)).collect();
    let current = |each: &&&TdxCollateral| {
        let (from, to) = each.window();
        from <= now && now <= to
    };
    if let Some(found) = known.iter().filter(current).max_by_key(|each| each.evaluation()) {
        return Ok(found);
    }
    let Some(nearest) = known.iter().max_by_key(|each| each.window().1) else {
        let expected = format!("collateral for FMSPC {} and its PCK authority", hex(&facts.fmspc));
        return refuse(expected, format!("none among {}", policy.collateral.len()));
    };
    let (from, to) = nearest.window();
    refuse(format!("collateral that counts at {now}"), format!("one that counts from {from} to {to}"))
}

/// Checks 6 to 9, told apart.
fn explain(message: &str, collateral: &TdxCollateral, root: &TdxRoot, now: Timestamp) -> Refusal {
    let mut code = reasons::code_of(message);
    // The library says "certificate chain" of the PCK's and of the collateral's signers alike.
    if [reason::EVIDENCE_CHAIN, reason::EVIDENCE_REVOKED].contains(&code) && !collateral.is_signed_under(root, now) {
        code = reason::EVIDENCE_COLLATERAL;
    }
    let actual: String = message.chars().take(300).collect();
    refuse(code, code.check(), actual)
}

/// Check 11.
fn check_tcb(verified: &VerifiedReport, evaluation: u32, policy: &TdxPolicy, trace: &mut Trace) -> Result<(), Refusal> {
    let check = |name| (SUBJECT, name, reason::EVIDENCE_TCB);
    trace.require(
        check("TCB status"),
        policy.statuses.iter().any(|status| status.to_string() == verified.status),
        || policy.statuses.iter().map(TcbStatus::to_string).collect::<Vec<_>>().join(" or "),
        || format!("{} [{}]", verified.status, verified.advisory_ids.join(", ")),
    )?;
    trace.require(
        check("advisories"),
        verified.advisory_ids.iter().all(|id| policy.advisories.contains(id)),
        || format!("none open but [{}]", policy.advisories.join(", ")),
        || format!("[{}]", verified.advisory_ids.join(", ")),
    )?;
    trace.require(
        check("evaluation data number"),
        evaluation >= policy.minimum_evaluation,
        || format!("at least {}", policy.minimum_evaluation),
        || evaluation.to_string(),
    )
}

/// Check 12.
fn check_measurements(report: &TdReport, expected: &TdxMeasurements, trace: &mut Trace) -> Result<(), Refusal> {
    let [rtmr0, rtmr1, rtmr2, _] = &report.rtmr;
    let found = [&report.mr_td, rtmr0, rtmr1, rtmr2];
    for ((name, expected), found) in expected.each().into_iter().zip(found) {
        let (passed, listed) = match expected {
            ExpectedMeasurement::AnyMeasurement => (true, None),
            ExpectedMeasurement::Listed(list) => (list.contains(found), Some(list.len())),
        };
        trace.require(
            (SUBJECT, name, reason::EVIDENCE_MEASUREMENT),
            passed,
            || listed.map_or_else(|| "any".to_owned(), |count| format!("one of {count} listed")),
            || hex(found),
        )?;
    }
    Ok(())
}

/// Check 13. RTMR3 is the event log's own: [`crate::bind_log`] compares it.
fn check_firmware_log(log: Option<&str>, report: &TdReport, trace: &mut Trace) -> Result<(), Refusal> {
    let Some(log) = log else { return Ok(()) };
    let malformed = |actual: String| refuse(reason::EVIDENCE_MALFORMED, "a firmware log (CCEL)", actual);
    let replayed = || {
        let bytes = encoding::un_b64(log).map_err(|error| malformed(error.to_string()))?;
        let log = TcgLog::parse(&bytes).map_err(|error| malformed(error.to_string()))?;
        let replay = |register| log.replay(register, HashAlg::Sha384).map_err(|error| malformed(error.to_string()));
        Ok([
            ("firmware log, RTMR0", replay(1)?),
            ("firmware log, RTMR1", replay(2)?),
            ("firmware log, RTMR2", replay(3)?),
        ])
    };
    let replayed = trace.outcome(("firmware log", reason::EVIDENCE_MALFORMED), replayed(), |_| {
        ("a firmware log (CCEL)".to_owned(), "one".to_owned())
    })?;
    for ((name, replayed), found) in replayed.into_iter().zip(&report.rtmr) {
        trace.require(
            (SUBJECT, name, reason::EVIDENCE_BINDING),
            replayed.as_bytes() == found,
            || hex(found),
            || hex(replayed.as_bytes()),
        )?;
    }
    Ok(())
}

fn refuse(code: Code, expected: impl Into<String>, actual: impl Into<String>) -> Refusal {
    Refusal::new(code, SUBJECT, expected, actual)
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
