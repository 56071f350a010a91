//! `log_format`, `[operations]`, `[limits]` and `[traces]`: how the attestor is run and watched.

use std::net::SocketAddr;

use serde::Deserialize;

use super::{ConfigError, TlsConfig, value};

/// The highest rate and burst.
const MAX_RATE: u32 = 1_000_000;

/// How log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[operations]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationsConfig {
    /// Where `/healthz`, `/readyz` and `/metrics` are served, plain HTTP; `/metrics` nowhere else then.
    pub listen: SocketAddr,
}

/// `[limits]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Requests of one source for challenges and attestations, in a second; 0: no limit.
    pub per_second: u32,
    /// How many it may have saved up.
    pub burst: u32,
    /// The header in which the front names the source; absent behind a front: no limit.
    pub forwarded: Option<String>,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { per_second: 100, burst: 1000, forwarded: None }
    }
}

/// Checked `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// As configured.
    pub per_second: u32,
    /// As configured.
    pub burst: u32,
    /// In lower case.
    pub forwarded: Option<String>,
    /// Whether everybody comes through a front.
    pub front: bool,
}

impl LimitsConfig {
    pub(super) fn limits(&self, tls: Option<&TlsConfig>) -> Result<Limits, ConfigError> {
        if self.per_second > MAX_RATE || self.burst > MAX_RATE || self.burst < 1 {
            return Err(value("limits", "per_second must be at most 1000000, and burst from 1 to 1000000"));
        }
        let forwarded = self.forwarded.as_ref().map(|name| axum::http::HeaderName::try_from(name.as_str()));
        let forwarded = forwarded.transpose().map_err(|_| value("limits.forwarded", "must be a header's name"))?;
        Ok(Limits {
            per_second: self.per_second,
            burst: self.burst,
            forwarded: forwarded.map(|name| name.as_str().to_owned()),
            front: matches!(tls, Some(TlsConfig::Front(_))),
        })
    }
}

/// `[traces]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TracesConfig {
    /// Where spans are posted, OTLP over HTTP in JSON, such as `http://127.0.0.1:4318/v1/traces`.
    pub endpoint: String,
}
