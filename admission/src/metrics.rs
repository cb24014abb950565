//! What Prometheus sees. Every series that can be known beforehand is there from the start, at zero, so that a rate over the first
//! occurrence is not missed. No label has a value that a client chooses.

use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::reason::Reason;
use crate::review::Action;

/// What `/metrics` answers as its type.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Before every name.
const PREFIX: &str = "nodelocaldns_admission";

/// Upper bounds of answer times, in seconds: from a small Pod to what the API server waits for at most.
const DURATION_BUCKETS_S: [f64; 12] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

/// Upper bounds of patches' sizes, in bytes; the usual one has 250 to 450.
const PATCH_BUCKETS_BYTES: [f64; 6] = [250.0, 350.0, 500.0, 1000.0, 2500.0, 5000.0];

/// What can go wrong with a request or a connection; the label `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The system refused a connection.
    Accept,
    /// A connection was sent away because all others were at work.
    NoPlace,
    /// A TLS handshake failed.
    Handshake,
    /// What came is not HTTP/1.1, or ended in the middle.
    Http,
    /// A request's header or the taking of an answer took too long.
    TimedOut,
    /// A path that does not exist.
    Path,
    /// A method that the path does not take.
    Method,
    /// A body that is not JSON by its own word.
    ContentType,
    /// A body above the limit.
    BodyTooLong,
    /// A body that took too long.
    BodyTooSlow,
    /// All bodies together above their limit.
    NoRoom,
    /// A body that ended too early.
    BodyBroken,
    /// A review that cannot be read, or its object.
    Undecodable,
    /// A review whose object names another namespace than the request, whose counts.
    OtherNamespace,
    /// The answer was not ready in time.
    Overdue,
    /// A defect of ours, caught.
    Internal,
}

impl ErrorKind {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Accept,
        Self::NoPlace,
        Self::Handshake,
        Self::Http,
        Self::TimedOut,
        Self::Path,
        Self::Method,
        Self::ContentType,
        Self::BodyTooLong,
        Self::BodyTooSlow,
        Self::NoRoom,
        Self::BodyBroken,
        Self::Undecodable,
        Self::OtherNamespace,
        Self::Overdue,
        Self::Internal,
    ];

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::NoPlace => "no-place",
            Self::Handshake => "handshake",
            Self::Http => "http",
            Self::TimedOut => "timed-out",
            Self::Path => "path",
            Self::Method => "method",
            Self::ContentType => "content-type",
            Self::BodyTooLong => "body-too-long",
            Self::BodyTooSlow => "body-too-slow",
            Self::NoRoom => "no-room",
            Self::BodyBroken => "body-broken",
            Self::Undecodable => "undecodable",
            Self::OtherNamespace => "other-namespace",
            Self::Overdue => "overdue",
            Self::Internal => "internal",
        }
    }
}

impl EncodeLabelValue for ErrorKind {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

impl EncodeLabelValue for Reason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

/// Whose end of life a certificate metric tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CertificateKind {
    /// The authority that signs.
    Ca,
    /// The one that is served.
    Leaf,
}

impl EncodeLabelValue for CertificateKind {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let value = match self {
            Self::Ca => "ca",
            Self::Leaf => "leaf",
        };
        EncodeLabelValue::encode(&value, encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReviewLabels {
    decision: &'static str,
    reason: Reason,
    dry_run: DryRun,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct DryRun(bool);

impl EncodeLabelValue for DryRun {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&if self.0 { "true" } else { "false" }, encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    kind: ErrorKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AddressLabels {
    ip: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabels {
    kind: CertificateKind,
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reviews: Family<ReviewLabels, Counter>,
    errors: Family<ErrorLabels, Counter>,
    duration: Histogram,
    patch_bytes: Histogram,
    in_flight: Gauge,
    connections: Gauge,
    upstream: Family<AddressLabels, Gauge>,
    upstream_synced: Gauge,
    config_generation: Gauge,
    ready: Gauge,
    not_after: Family<CertificateLabels, Gauge<f64, AtomicU64>>,
    ca_bundle_in_sync: Gauge,
    rotation_phase: Gauge,
    certificate_loads: Counter,
    events_lost: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The actions that a reason can come with.
fn actions(reason: Reason) -> &'static [Action] {
    match reason {
        Reason::Injected => &[Action::Injected, Action::WouldInject],
        _ => &[Action::Skipped],
    }
}

impl Metrics {
    /// All of them, at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let metrics = Self {
            reviews: Family::default(),
            errors: Family::default(),
            duration: Histogram::new(DURATION_BUCKETS_S),
            patch_bytes: Histogram::new(PATCH_BUCKETS_BYTES),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            upstream: Family::default(),
            upstream_synced: Gauge::default(),
            config_generation: Gauge::default(),
            ready: Gauge::default(),
            not_after: Family::default(),
            ca_bundle_in_sync: Gauge::default(),
            rotation_phase: Gauge::default(),
            certificate_loads: Counter::default(),
            events_lost: Counter::default(),
            registry: Registry::default(),
        };
        for reason in Reason::ALL {
            for (action, dry_run) in
                actions(reason).iter().flat_map(|action| [(action, false), (action, true)])
            {
                let labels = ReviewLabels { decision: action.as_str(), reason, dry_run: DryRun(dry_run) };
                drop(metrics.reviews.get_or_create(&labels));
            }
        }
        for kind in ErrorKind::ALL {
            drop(metrics.errors.get_or_create(&ErrorLabels { kind }));
        }
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version that runs", version);
        registry.register("requests", "Reviews answered, by decision and reason", metrics.reviews.clone());
        registry.register(
            "request_duration_seconds",
            "From the end of a request's header to its answer",
            metrics.duration.clone(),
        );
        registry.register("patch_bytes", "Sizes of the patches sent", metrics.patch_bytes.clone());
        registry.register("in_flight", "Reviews being answered", metrics.in_flight.clone());
        registry.register(
            "errors",
            "Requests and connections that went wrong, by kind",
            metrics.errors.clone(),
        );
        registry.register("connections", "Connections to the webhook", metrics.connections.clone());
        registry.register(
            "upstream_info",
            "Addresses of kube-dns, the backup nameserver",
            metrics.upstream.clone(),
        );
        registry.register(
            "upstream_synced",
            "1 if the address of kube-dns is known, or not needed",
            metrics.upstream_synced.clone(),
        );
        registry.register(
            "config_generation",
            "How often the addresses of kube-dns changed since the start",
            metrics.config_generation.clone(),
        );
        registry.register("ready", "1 if /readyz says so", metrics.ready.clone());
        registry.register(
            "cert_not_after_timestamp_seconds",
            "When certificates end, in seconds since 1970",
            metrics.not_after.clone(),
        );
        registry.register(
            "ca_bundle_in_sync",
            "1 if the live webhook configuration trusts the authorities that it should",
            metrics.ca_bundle_in_sync.clone(),
        );
        registry.register(
            "rotation_phase",
            "0: no authority yet or not ours to rotate; 1: steady; 2: the next authority is being published; 3: the last one is being retired",
            metrics.rotation_phase.clone(),
        );
        registry.register(
            "certificate_loads",
            "Certificates that were taken into service",
            metrics.certificate_loads.clone(),
        );
        registry.register(
            "events_lost",
            "Events that could not be written, or had to be dropped",
            metrics.events_lost.clone(),
        );
        Self { registry, ..metrics }
    }

    /// The text that `/metrics` serves.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail; what is there is served either way.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// A review and its answer; `patch_bytes` is 0 without a patch.
    pub fn review(&self, action: Action, reason: Reason, dry_run: bool, patch_bytes: usize, took: Duration) {
        let labels = ReviewLabels { decision: action.as_str(), reason, dry_run: DryRun(dry_run) };
        self.reviews.get_or_create(&labels).inc();
        self.duration.observe(took.as_secs_f64());
        if patch_bytes > 0 {
            self.patch_bytes.observe(patch_bytes as f64);
        }
    }

    /// Something went wrong.
    pub fn error(&self, kind: ErrorKind) {
        self.errors.get_or_create(&ErrorLabels { kind }).inc();
    }

    /// How often it did.
    pub fn errors(&self, kind: ErrorKind) -> u64 {
        self.errors.get_or_create(&ErrorLabels { kind }).get()
    }

    /// A review that is being answered, until what comes back is dropped.
    pub fn in_flight(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// Open connections to the webhook.
    pub fn connections(&self, count: usize) {
        self.connections.set(count as i64);
    }

    /// kube-dns' addresses, and whether what is known of them is enough.
    pub fn upstream(&self, addresses: &[IpAddr], synced: bool) {
        self.upstream.clear();
        for address in addresses {
            self.upstream.get_or_create(&AddressLabels { ip: address.to_string() }).set(1);
        }
        self.upstream_synced.set(synced.into());
    }

    /// What Pods are given is another from now on.
    pub fn config_changed(&self) {
        self.config_generation.inc();
    }

    /// What `/readyz` says.
    pub fn ready(&self, ready: bool) {
        self.ready.set(ready.into());
    }

    /// A certificate was taken into service, or the authority changed.
    pub fn certificate(&self, kind: CertificateKind, not_after_s: u64) {
        self.not_after.get_or_create(&CertificateLabels { kind }).set(not_after_s as f64);
        if kind == CertificateKind::Leaf {
            self.certificate_loads.inc();
        }
    }

    /// For whoever writes Events.
    pub fn events_lost(&self) -> Counter {
        self.events_lost.clone()
    }

    /// How the rotation stands.
    pub fn rotation(&self, phase: i64, in_sync: bool) {
        self.rotation_phase.set(phase);
        self.ca_bundle_in_sync.set(in_sync.into());
    }
}

/// See [`Metrics::in_flight`].
#[derive(Debug)]
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_start() {
        let text = Metrics::new().text();
        for reason in Reason::ALL {
            for dry_run in ["false", "true"] {
                let decision = if reason == Reason::Injected { "would-inject" } else { "skip" };
                let series = format!(
                    "nodelocaldns_admission_requests_total{{decision=\"{decision}\",reason=\"{reason}\",dry_run=\"{dry_run}\"}} 0"
                );
                assert!(text.contains(&series), "{series} in {text}");
            }
        }
        for kind in ErrorKind::ALL {
            let series = format!("nodelocaldns_admission_errors_total{{kind=\"{}\"}} 0", kind.as_str());
            assert!(text.contains(&series), "{series}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_review_moves_its_series_alone() {
        let metrics = Metrics::new();
        metrics.review(Action::Injected, Reason::Injected, true, 300, Duration::from_micros(300));
        let text = metrics.text();
        let moved: Vec<&str> =
            text.lines().filter(|line| line.contains("requests_total{") && line.ends_with(" 1")).collect();
        assert_eq!(
            moved,
            [
                r#"nodelocaldns_admission_requests_total{decision="inject",reason="injected",dry_run="true"} 1"#
            ]
        );
        assert!(text.contains(r#"request_duration_seconds_bucket{le="0.0005"} 1"#), "{text}");
        assert!(text.contains(r#"patch_bytes_bucket{le="350.0"} 1"#), "{text}");
    }

    #[test]
    fn addresses_replace_each_other() {
        let metrics = Metrics::new();
        metrics.upstream(&["172.21.0.10".parse().expect("an address")], true);
        metrics.upstream(&["172.21.0.11".parse().expect("an address")], true);
        let text = metrics.text();
        assert!(
            !text.contains("172.21.0.10") && text.contains(r#"upstream_info{ip="172.21.0.11"} 1"#),
            "{text}"
        );
    }
}
