//! What is counted, for `/metrics`: routes by template, never a resource, a guest or a credential.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use protocols::kbs::Tee;

/// Bounds of the latency histogram, in seconds: from a challenge to an answer that timed out.
const BOUNDS: [f64; 11] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 20.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Served {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Handshaken {
    tee: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Coded {
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Caused {
    cause: &'static str,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Served, Counter>,
    seconds: Family<Route, Histogram, fn() -> Histogram>,
    handshakes: Family<Handshaken, Counter>,
    decisions: Family<Coded, Counter>,
    refusals: Family<Coded, Counter>,
    bodies: Family<Caused, Counter>,
    store_errors: Counter,
    limited: Counter,
    connections: Gauge,
    memory: Gauge<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("key_broker"),
            requests: Family::default(),
            seconds: Family::<_, _, fn() -> Histogram>::new_with_constructor(|| Histogram::new(BOUNDS)),
            handshakes: Family::default(),
            decisions: Family::default(),
            refusals: Family::default(),
            bodies: Family::default(),
            store_errors: Counter::default(),
            limited: Counter::default(),
            connections: Gauge::default(),
            memory: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("requests", "Requests answered, by route and status", metrics.requests.clone());
        let (name, help) = ("request_duration", "How long answers took, by route");
        registry.register_with_unit(name, help, Unit::Seconds, metrics.seconds.clone());
        registry.register("handshakes", "Attestations, by announced evidence and outcome", metrics.handshakes.clone());
        registry.register("decisions", "Launches decided: pass, or the refusal's code", metrics.decisions.clone());
        registry.register("refusals", "Requests refused, by code", metrics.refusals.clone());
        registry.register("bodies_refused", "Bodies not read, by cause", metrics.bodies.clone());
        registry.register("store_errors", "Requests that the store failed", metrics.store_errors.clone());
        registry.register("rate_limited", "Requests turned away by the rate limit", metrics.limited.clone());
        registry.register("connections", "Connections at this time", metrics.connections.clone());
        let (name, help) = ("resident_memory", "Resident memory of the process");
        registry.register_with_unit(name, help, Unit::Bytes, metrics.memory.clone());
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "This program", build);
        metrics
    }
}

impl Metrics {
    /// The text that Prometheus reads.
    pub(crate) fn text(&self) -> Option<String> {
        self.memory.set(resident().unwrap_or_default());
        let mut out = String::new();
        text::encode(&mut out, &self.registry).ok()?;
        Some(out)
    }

    pub(crate) fn served(&self, method: &'static str, route: &str, status: u16, took: Duration) {
        self.requests.get_or_create(&Served { method, route: route.to_owned(), status }).inc();
        self.seconds.get_or_create(&Route { route: route.to_owned() }).observe(took.as_secs_f64());
    }

    /// Counts an attestation that begins; it counts as refused unless it is told to be done.
    pub(crate) fn handshake(&self, tee: Tee) -> Handshake<'_> {
        Handshake { metrics: self, tee, outcome: "refused" }
    }

    pub(crate) fn decided(&self, code: &'static str) {
        self.decisions.get_or_create(&Coded { code }).inc();
    }

    pub(crate) fn refused(&self, code: &'static str) {
        self.refusals.get_or_create(&Coded { code }).inc();
    }

    pub(crate) fn body_refused(&self, cause: &'static str) {
        self.bodies.get_or_create(&Caused { cause }).inc();
    }

    pub(crate) fn store_failed(&self) {
        self.store_errors.inc();
    }

    pub(crate) fn limited(&self) {
        self.limited.inc();
    }

    /// Counts a connection until what is given is dropped.
    pub(crate) fn connected(self: &Arc<Self>) -> Connected {
        self.connections.inc();
        Connected(Arc::clone(self))
    }
}

/// One attestation that is being judged.
#[derive(Debug)]
pub(crate) struct Handshake<'m> {
    metrics: &'m Metrics,
    tee: Tee,
    outcome: &'static str,
}

impl Handshake<'_> {
    pub(crate) fn attested(mut self) {
        self.outcome = "attested";
    }
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        let labels = Handshaken { tee: self.tee.as_str(), outcome: self.outcome };
        self.metrics.handshakes.get_or_create(&labels).inc();
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connected(Arc<Metrics>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
