//! The server's metrics in Prometheus format.
//!
//! Labels are constants and upstream prefixes, so clients cannot create series.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use axum::response::IntoResponse;
use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, prometheus_text, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::problem::{Code, Problem};
use crate::cache::SpanCache;
use crate::error::ErrorKind;

/// Latency buckets in seconds: from an answer out of memory to an upstream that timed out.
const BUCKETS: [f64; 12] = [0.000_25, 0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The kind of object a request is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Base,
    Catalog,
    Tags,
    Manifest,
    Blob,
    Upload,
    Referrers,
    /// Pages and files.
    Page,
    /// Health and metrics.
    Probe,
    /// Invalid paths.
    Other,
}

impl Kind {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Catalog => "catalog",
            Self::Tags => "tags",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Upload => "upload",
            Self::Referrers => "referrers",
            Self::Page => "page",
            Self::Probe => "probe",
            Self::Other => "other",
        }
    }
}

/// Where a manifest or blob of an upstream was served from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Without a request to the upstream.
    Cache,
    /// With a request to the upstream, for at least a part.
    Upstream,
    /// The last known answer, since the upstream was unreachable.
    Stale,
}

impl Source {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Cache => "hit",
            Self::Upstream => "miss",
            Self::Stale => "stale",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    kind: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabels {
    upstream: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    upstream: Arc<str>,
    kind: &'static str,
    source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    upstream: Arc<str>,
    operation: &'static str,
    outcome: &'static str,
}

type Latency = Family<KindLabels, Histogram, fn() -> Histogram>;
type Bytes = Gauge<u64, AtomicU64>;

/// All metrics.
pub(super) struct Metrics {
    registry: Registry,
    cache: SpanCache,
    requests: Family<RequestLabels, Counter>,
    latency: Latency,
    answers: Family<AnswerLabels, Counter>,
    sent: Family<UpstreamLabels, Counter>,
    received: Family<UpstreamLabels, Counter>,
    saved: Family<UpstreamLabels, Bytes>,
    outcomes: Family<OutcomeLabels, Counter>,
    cache_used: Bytes,
    cache_size: Bytes,
    lost_lines: Counter,
    /// By prefix. Locked only for a glance.
    upstreams: Mutex<BTreeMap<Arc<str>, UpstreamMetrics>>,
}

impl Metrics {
    /// Metrics at zero.
    pub(super) fn new(cache: &SpanCache) -> Self {
        let mut registry = Registry::with_prefix("ocifs");
        let requests = Family::default();
        registry.register("requests", "Requests by method, kind of object and status", requests.clone());
        let latency = Latency::new_with_constructor(|| Histogram::new(BUCKETS));
        let help = "Time until the head of the response";
        registry.register_with_unit("request_duration", help, Unit::Seconds, latency.clone());
        let answers = Family::default();
        registry.register("upstream_answers", "Manifests and blobs of upstreams by where they were served from", answers.clone());
        let (sent, received, saved) = (Family::default(), Family::default(), Family::default());
        let help = "Bytes of upstream manifests, blobs and files sent to clients";
        registry.register_with_unit("upstream_sent", help, Unit::Bytes, sent.clone());
        registry.register_with_unit("upstream_received", "Bytes received from upstreams", Unit::Bytes, received.clone());
        let help = "Bytes sent to clients beyond those received from upstreams for them";
        registry.register_with_unit("upstream_saved", help, Unit::Bytes, saved.clone());
        let outcomes = Family::default();
        registry.register("upstream_requests", "Requests to upstreams by operation and outcome", outcomes.clone());
        let (cache_used, cache_size) = (Bytes::default(), Bytes::default());
        registry.register_with_unit("cache_used", "Bytes in the cache", Unit::Bytes, cache_used.clone());
        registry.register_with_unit("cache_size", "Maximum bytes in the cache", Unit::Bytes, cache_size.clone());
        let lost_lines = Counter::default();
        registry.register("access_log_lines_lost", "Access log lines dropped because their reader was too slow", lost_lines.clone());
        Self {
            registry,
            cache: cache.clone(),
            requests,
            latency,
            answers,
            sent,
            received,
            saved,
            outcomes,
            cache_used,
            cache_size,
            lost_lines,
            upstreams: Mutex::default(),
        }
    }

    /// The metrics of an upstream, which go on counting if it is replaced.
    pub(super) fn of_upstream(&self, prefix: &str) -> UpstreamMetrics {
        let upstream: Arc<str> = prefix.into();
        let labels = UpstreamLabels { upstream: Arc::clone(&upstream) };
        let metrics = UpstreamMetrics {
            sent: self.sent.get_or_create_owned(&labels),
            received: self.received.get_or_create_owned(&labels),
            saved: self.saved.get_or_create_owned(&labels),
            answers: self.answers.clone(),
            outcomes: self.outcomes.clone(),
            upstream: Arc::clone(&upstream),
        };
        self.upstreams.lock().insert(upstream, metrics.clone());
        metrics
    }

    /// Dropped lines of the access log.
    pub(super) fn lost_lines(&self) -> Counter {
        self.lost_lines.clone()
    }

    /// Counts a response whose head took `latency`.
    pub(super) fn answered(&self, method: &Method, kind: Kind, status: StatusCode, took: Duration) {
        let labels = RequestLabels { method: method_name(method), kind: kind.text(), status: status.as_u16() };
        self.requests.get_or_create(&labels).inc();
        self.latency.get_or_create(&KindLabels { kind: kind.text() }).observe(took.as_secs_f64());
    }

    /// All metrics as text, in the format that the client prefers.
    pub(super) fn answer(&self, headers: &HeaderMap) -> Response<Body> {
        self.cache_used.set(self.cache.used());
        self.cache_size.set(self.cache.size());
        for upstream in self.upstreams.lock().values() {
            upstream.saved.set(upstream.sent.get().saturating_sub(upstream.received.get()));
        }
        let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let is_open = accept.flat_map(|value| value.split(',')).any(|kind| kind.trim().starts_with("application/openmetrics-text"));
        let mut body = String::new();
        let encoded: fmt::Result =
            if is_open { text::encode(&mut body, &self.registry) } else { prometheus_text::encode(&mut body, &self.registry) };
        match encoded {
            Ok(()) => {
                let kind = HeaderValue::from_static(if is_open { OPENMETRICS } else { PROMETHEUS });
                ([(header::CONTENT_TYPE, kind)], body).into_response()
            }
            Err(error) => Problem::of(ErrorKind::Other, error.to_string(), Code::Unknown).into_response(),
        }
    }
}

/// The metrics of one upstream. Cheap to clone.
#[derive(Clone)]
pub(super) struct UpstreamMetrics {
    upstream: Arc<str>,
    sent: Counter,
    received: Counter,
    saved: Bytes,
    answers: Family<AnswerLabels, Counter>,
    outcomes: Family<OutcomeLabels, Counter>,
}

impl UpstreamMetrics {
    /// Counts a response to a client.
    pub(super) fn answered(&self, kind: Kind, source: Source) {
        let labels = AnswerLabels { upstream: Arc::clone(&self.upstream), kind: kind.text(), source: source.text() };
        self.answers.get_or_create(&labels).inc();
    }

    /// Counts bytes sent to a client.
    pub(super) fn sent(&self, bytes: u64) {
        self.sent.inc_by(bytes);
    }

    /// Counts bytes received from the upstream.
    pub(super) fn received(&self, bytes: u64) {
        self.received.inc_by(bytes);
    }

    /// Counts a request to the upstream; `failure` is its error, if any.
    pub(super) fn asked(&self, operation: &'static str, failure: Option<ErrorKind>) {
        let labels = OutcomeLabels { upstream: Arc::clone(&self.upstream), operation, outcome: outcome(failure) };
        self.outcomes.get_or_create(&labels).inc();
    }
}

fn outcome(failure: Option<ErrorKind>) -> &'static str {
    match failure {
        None => "ok",
        Some(ErrorKind::NotFound) => "not-found",
        Some(ErrorKind::Denied) => "denied",
        Some(ErrorKind::Unreachable) => "unreachable",
        Some(ErrorKind::TimedOut) => "timed-out",
        Some(ErrorKind::Integrity) => "integrity",
        Some(ErrorKind::Unsupported) => "unsupported",
        Some(_) => "other",
    }
}

/// The label of a method; uncommon ones share one label, whatever a client invents.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
