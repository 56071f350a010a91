//! Spans for OpenTelemetry: OTLP over HTTP in JSON, posted in batches, never waited for by a request.
//!
//! Only spans leave, with the fields that this program gives them; events, which may tell of requests, stay in the log.

use std::fmt::Debug;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Span, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::challenge::random;
use crate::config::{ConfigError, TracesConfig};

/// Spans that wait to be posted; further ones are dropped.
const WAITING: usize = 4096;
/// Spans of one post.
const BATCH: usize = 512;
/// How long spans are gathered.
const GATHER: Duration = Duration::from_secs(1);
/// The longest one post may take.
const POST_TIME: Duration = Duration::from_secs(5);
/// The field that names the caller's span, as `<trace>-<span>`.
const CALLER: &str = "trace";

/// The caller's span, of a W3C `traceparent` (version 00).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parent {
    trace: [u8; 16],
    span: [u8; 8],
}

impl Parent {
    /// Reads the header; what is not well formed names nobody.
    pub(crate) fn parse(header: &str) -> Option<Self> {
        let rest = header.strip_prefix("00-")?;
        let (ids, flags) = rest.split_at_checked(49)?;
        let flagged =
            flags.len() == 3 && flags.starts_with('-') && flags.bytes().skip(1).all(|b| b.is_ascii_hexdigit());
        Self::ids(ids).filter(|_| flagged)
    }

    fn ids(text: &str) -> Option<Self> {
        let (trace, span) = text.split_once('-')?;
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        let mut parent = Self { trace: [0; 16], span: [0; 8] };
        hex::decode_to_slice(trace, &mut parent.trace).ok()?;
        hex::decode_to_slice(span, &mut parent.span).ok()?;
        (parent.trace != [0; 16] && parent.span != [0; 8]).then_some(parent)
    }

    /// Says that `span` was asked for by this one.
    pub(crate) fn of(self, span: &Span) {
        span.record(CALLER, format!("{}-{}", hex::encode(self.trace), hex::encode(self.span)).as_str());
    }
}

/// A span that is open.
#[derive(Debug)]
struct Open {
    trace: [u8; 16],
    span: [u8; 8],
    parent: Option<[u8; 8]>,
    name: &'static str,
    start: SystemTime,
    fields: Vec<(&'static str, Value)>,
}

impl Visit for Open {
    fn record_str(&mut self, field: &Field, value: &str) {
        match Parent::ids(value).filter(|_| field.name() == CALLER) {
            Some(caller) => (self.trace, self.parent) = (caller.trace, Some(caller.span)),
            None => self.fields.push((field.name(), json!({ "stringValue": value }))),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push((field.name(), json!({ "intValue": value.to_string() })));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.push((field.name(), json!({ "stringValue": format!("{value:?}") })));
    }
}

impl Open {
    fn field(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(named, _)| *named == name).map(|(_, value)| value)
    }

    /// As OTLP has it. A request is named for its method and route, and failed when it was not our caller's fault.
    fn ended(self, end: SystemTime) -> Value {
        let text = |name| self.field(name).and_then(|value| value.get("stringValue")).and_then(Value::as_str);
        let (name, kind) = match (text("method"), text("route")) {
            (Some(method), Some(route)) => (format!("{method} {route}"), 2),
            _ => (self.name.to_owned(), 1),
        };
        let status = self.field("status").and_then(|value| value.get("intValue")).and_then(Value::as_str);
        let failed = status.is_some_and(|status| status.starts_with('5'));
        let attributes: Vec<Value> =
            self.fields.iter().map(|(key, value)| json!({ "key": attribute(key), "value": value })).collect();
        json!({
            "traceId": hex::encode(self.trace),
            "spanId": hex::encode(self.span),
            "parentSpanId": self.parent.map(hex::encode).unwrap_or_default(),
            "name": name,
            "kind": kind,
            "startTimeUnixNano": nanos(self.start),
            "endTimeUnixNano": nanos(end),
            "attributes": attributes,
            "status": { "code": if failed { 2 } else { 0 } },
        })
    }
}

/// The semantic conventions' names, where they have one.
fn attribute(field: &str) -> &str {
    match field {
        "method" => "http.request.method",
        "route" => "http.route",
        "status" => "http.response.status_code",
        "id" => "request.id",
        other => other,
    }
}

fn nanos(time: SystemTime) -> String {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

/// The layer that gathers spans.
#[derive(Debug)]
pub struct Spans {
    out: mpsc::Sender<Value>,
}

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut open = Open {
            trace: random().unwrap_or_default(),
            span: random().unwrap_or_default(),
            parent: None,
            name: attributes.metadata().name(),
            start: SystemTime::now(),
            fields: Vec::new(),
        };
        if let Some(around) = span.parent()
            && let Some(around) = around.extensions().get::<Open>()
        {
            (open.trace, open.parent) = (around.trace, Some(around.span));
        }
        attributes.record(&mut open);
        span.extensions_mut().insert(open);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(open) = span.extensions_mut().get_mut::<Open>()
        {
            values.record(open);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let open = context.span(&id).and_then(|span| span.extensions_mut().remove::<Open>());
        if let Some(open) = open {
            // A collector that is slow or away costs spans, not requests.
            let _ = self.out.try_send(open.ended(SystemTime::now()));
        }
    }
}

/// Posts what [`Spans`] gathered.
#[derive(Debug)]
pub struct Exporter {
    waiting: mpsc::Receiver<Value>,
    client: reqwest::Client,
    endpoint: reqwest::Url,
}

/// A layer, and what posts its spans to the configured collector.
///
/// # Errors
/// [`ConfigError`] when the endpoint is none.
pub fn exporter(config: &TracesConfig) -> Result<(Spans, Exporter), ConfigError> {
    let wrong = |what: String| ConfigError::Value { field: "traces.endpoint", what };
    let endpoint = reqwest::Url::parse(&config.endpoint).map_err(|error| wrong(error.to_string()))?;
    if !["http", "https"].contains(&endpoint.scheme())
        || !endpoint.username().is_empty()
        || endpoint.password().is_some()
    {
        return Err(wrong("must be an http or https address without credentials".to_owned()));
    }
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(POST_TIME)
        .build()
        .map_err(|error| wrong(error.to_string()))?;
    let (out, waiting) = mpsc::channel(WAITING);
    Ok((Spans { out }, Exporter { waiting, client, endpoint }))
}

impl Exporter {
    /// Posts batches until `stop` is done or dropped, then what is left.
    pub async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let (mut reached, mut batch) = (true, Vec::new());
        loop {
            let first = tokio::select! {
                first = self.waiting.recv() => first,
                _ = &mut stop => break,
            };
            let Some(first) = first else { break };
            batch.push(first);
            let stopped = tokio::select! {
                () = self.gather(&mut batch) => false,
                stopped = tokio::time::timeout(GATHER, &mut stop) => stopped.is_ok(),
            };
            self.post(&mut batch, &mut reached).await;
            if stopped {
                break;
            }
        }
        while let Ok(span) = self.waiting.try_recv() {
            batch.push(span);
        }
        self.post(&mut batch, &mut reached).await;
    }

    async fn gather(&mut self, batch: &mut Vec<Value>) {
        while batch.len() < BATCH {
            match self.waiting.recv().await {
                Some(span) => batch.push(span),
                None => return,
            }
        }
    }

    async fn post(&self, batch: &mut Vec<Value>, reached: &mut bool) {
        if batch.is_empty() {
            return;
        }
        let resource = [("service.name", "key-broker"), ("service.version", env!("CARGO_PKG_VERSION"))]
            .map(|(key, value)| json!({ "key": key, "value": { "stringValue": value } }));
        let body = json!({ "resourceSpans": [{
            "resource": { "attributes": resource },
            "scopeSpans": [{ "scope": { "name": "key_broker" }, "spans": std::mem::take(batch) }],
        }]});
        let sent = self.client.post(self.endpoint.clone()).json(&body).send().await;
        let taken = sent.is_ok_and(|answer| answer.status().is_success());
        if *reached && !taken {
            tracing::warn!("the collector of traces takes no spans");
        }
        *reached = taken;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_counts_only_when_it_is_well_formed() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parent = Parent::parse(good).unwrap();
        assert_eq!(hex::encode(parent.trace), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(hex::encode(parent.span), "b7ad6b7169203331");
        for bad in [
            "",
            "00",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-zz",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-éaf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(Parent::parse(bad), None, "{bad}");
        }
    }
}
