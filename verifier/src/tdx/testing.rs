//! A simulated platform and everything around one quote of it, good as [`Scene::new`] gives it.

use std::sync::OnceLock;

use protocols::kbs::TdxEvidence;
use protocols::tdx::Quote;
pub(crate) use simulated_tee::tdx::{Body, CollateralFacts, Params, Platform};

use super::{TdxClaims, TdxCollateral, TdxMeasurements, TdxPolicy, TdxRoot, verify_tdx};
use crate::snp::ExpectedMeasurement;
use crate::trace::Trace;
use protocols::environment::Environment;
use protocols::reason::Refusal;
use protocols::time::Timestamp;

pub(crate) const REPORT_DATA: [u8; 64] = [0x44; 64];
pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000);

/// The keys of this run.
pub(crate) fn platform() -> &'static Platform {
    static PLATFORM: OnceLock<Platform> = OnceLock::new();
    PLATFORM.get_or_init(|| Platform::new(NOW).unwrap())
}

/// Another Intel with another platform of the same kind.
pub(crate) fn stranger() -> &'static Platform {
    static PLATFORM: OnceLock<Platform> = OnceLock::new();
    PLATFORM.get_or_init(|| Platform::new(NOW).unwrap())
}

pub(crate) fn root() -> TdxRoot {
    TdxRoot::from_der(&platform().root_der(), true).unwrap()
}

type Edit<T> = Option<fn(&mut T)>;

/// One verification.
pub(crate) struct Scene {
    pub(crate) platform: Platform,
    pub(crate) facts: CollateralFacts,
    pub(crate) params: Params,
    /// Certificates in the quote; `None`: the platform's.
    pub(crate) chain: Option<Vec<Vec<u8>>>,
    /// Changes the signed quote.
    pub(crate) quote: Edit<Quote>,
    /// Changes the quote's bytes.
    pub(crate) bytes: Edit<Vec<u8>>,
    /// Changes the collateral's JSON.
    pub(crate) collateral: Edit<serde_json::Value>,
    pub(crate) policy: TdxPolicy,
    pub(crate) report_data: [u8; 64],
    pub(crate) now: Timestamp,
}

impl Scene {
    pub(crate) fn new(body: Body) -> Self {
        let platform = platform().clone();
        Self {
            facts: CollateralFacts::new(&platform, NOW),
            params: Params::new(body, REPORT_DATA),
            chain: None,
            quote: None,
            bytes: None,
            collateral: None,
            policy: policy(),
            report_data: REPORT_DATA,
            now: NOW,
            platform,
        }
    }

    /// The quote as it is shown.
    pub(crate) fn shown(&self) -> Vec<u8> {
        let chain = self.chain.clone().unwrap_or_else(|| self.platform.chain());
        let mut quote = self.platform.quote_with(&self.params, chain).unwrap();
        if let Some(edit) = self.quote {
            edit(&mut quote);
        }
        let mut bytes = quote.encode();
        if let Some(edit) = self.bytes {
            edit(&mut bytes);
        }
        bytes
    }

    /// The policy with the collateral in it.
    pub(crate) fn policy(&self) -> TdxPolicy {
        let mut collateral = serde_json::from_str(&self.platform.collateral(&self.facts)).unwrap();
        if let Some(edit) = self.collateral {
            edit(&mut collateral);
        }
        let collateral = TdxCollateral::parse(collateral.to_string().as_bytes()).unwrap();
        TdxPolicy { collateral: vec![collateral], ..self.policy.clone() }
    }

    pub(crate) fn run(&self) -> Result<TdxClaims, Refusal> {
        let evidence = TdxEvidence { cc_eventlog: None, quote: self.shown() };
        verify_tdx(&evidence, &self.report_data, &self.policy(), self.now, &mut Trace::off())
    }
}

/// Development, since the roots are simulated; everything else as strict as in production.
pub(crate) fn policy() -> TdxPolicy {
    let listed = |byte| ExpectedMeasurement::Listed(vec![[byte; 48]]);
    TdxPolicy {
        roots: vec![root()],
        collateral: vec![],
        statuses: vec![super::TcbStatus::UpToDate],
        advisories: vec![],
        minimum_evaluation: 17,
        measurements: TdxMeasurements { mr_td: listed(0x7D), rtmr: [listed(0x10), listed(0x11), listed(0x12)] },
        environment: Environment::Development,
    }
}
