//! Events for those who ask `kubectl describe` why their Pods were left alone.
//!
//! The Pod does not exist yet when it is reviewed, so the Event is about its owner: the ReplicaSet, StatefulSet or Job. Only outcomes
//! that somebody who asked for injection would want to hear of, once per owner and reason in [`REPEAT_AFTER`], never for a dry
//! run, and never waited for: a review hands its outcome over and goes on. Off by default; a webhook configuration for a
//! server with Events has `sideEffects: NoneOnDryRun`.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::reason::Reason;
use crate::review::{Outcome, Owner};

/// The same is told again after this long: half of the hour that the API server keeps Events.
pub const REPEAT_AFTER: Duration = Duration::from_secs(30 * 60);

/// Outcomes that may wait to be written; more than these are dropped and counted.
const WAITING_MAX: usize = 256;

/// Owners and reasons that are remembered. When there are more, all are forgotten: some Events come twice.
const TOLD_MAX: usize = 4096;

/// For how long an Event is tried.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Takes outcomes and makes Events of some. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Events {
    outcomes: mpsc::Sender<Told>,
    lost: Counter,
}

#[derive(Debug)]
struct Told {
    reason: Reason,
    namespace: String,
    owner: Owner,
    notes: Vec<String>,
}

impl Events {
    /// Writes with this client as `instance`, the name of this Pod; `lost` counts what could not be written or had to be dropped. The
    /// writer ends with the last clone. To be called within a tokio runtime.
    pub fn start(client: Client, instance: Option<String>, lost: Counter) -> Self {
        let (outcomes, waiting) = mpsc::channel(WAITING_MAX);
        let reporter = Reporter { controller: "node-local-dns-admission".into(), instance };
        tokio::spawn(write_all(Recorder::new(client, reporter), waiting, lost.clone()));
        Self { outcomes, lost }
    }

    /// Notes an outcome; returns at once.
    pub fn offer(&self, outcome: &Outcome) {
        if outcome.dry_run || !is_worth_telling(outcome.reason) {
            return;
        }
        let Some(owner) = outcome.owner.clone() else { return };
        let (reason, namespace, notes) = (outcome.reason, outcome.namespace.clone(), outcome.notes.clone());
        if self.outcomes.try_send(Told { reason, namespace, owner, notes }).is_err() {
            self.lost.inc();
        }
    }
}

/// What somebody who labelled the namespace did not expect. The other rows are what they wrote themselves.
fn is_worth_telling(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::VirtualNodePlacement
            | Reason::VirtualNodePossible
            | Reason::UpstreamUnknown
            | Reason::UserDnsConfig
            | Reason::LimitsExceeded
            | Reason::PatchUnproven
    )
}

async fn write_all(recorder: Recorder, mut waiting: mpsc::Receiver<Told>, lost: Counter) {
    let mut told: HashMap<(String, Reason), Instant> = HashMap::new();
    while let Some(next) = waiting.recv().await {
        let now = Instant::now();
        let key = (next.owner.uid.clone(), next.reason);
        if told.get(&key).is_some_and(|before| now < *before + REPEAT_AFTER) {
            continue;
        }
        let written = timeout(WRITE_TIMEOUT, recorder.publish(&event(&next), &reference(next))).await;
        if !matches!(written, Ok(Ok(()))) {
            lost.inc();
            continue;
        }
        if told.len() >= TOLD_MAX {
            told.clear();
        }
        told.insert(key, now);
    }
}

fn event(told: &Told) -> Event {
    let notes: String = told.notes.iter().map(|note| format!(" ({note})")).collect();
    let note = format!(
        "Pods are created without node-local DNS, {}: {}{notes}. To change it: {}",
        told.reason,
        told.reason.meaning(),
        told.reason.remedy()
    );
    Event {
        type_: EventType::Warning,
        reason: camel_case(told.reason.as_str()),
        note: Some(cut(note)),
        action: "Injecting".into(),
        secondary: None,
    }
}

/// `limits-exceeded` as `NodeLocalDnsLimitsExceeded`, the way Events name reasons.
fn camel_case(name: &str) -> String {
    let word = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    "NodeLocalDns".to_owned() + &name.split('-').map(word).collect::<String>()
}

/// The API server refuses notes of more than 1024 bytes.
fn cut(mut note: String) -> String {
    const NOTE_BYTES_MAX: usize = 1024;
    let mut end = note.len().min(NOTE_BYTES_MAX);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    note.truncate(end);
    note
}

fn reference(told: Told) -> ObjectReference {
    ObjectReference {
        api_version: Some(told.owner.api_version),
        kind: Some(told.owner.kind),
        name: Some(told.owner.name),
        namespace: Some(told.namespace),
        uid: Some(told.owner.uid),
        ..Default::default()
    }
}
