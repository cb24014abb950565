//! From a request's bytes to its answer: the pure part, and the one look-up that it may ask for.
//!
//! `kubectl label namespace` followed at once by `kubectl apply` reaches this server before its watch has the label. The API server's
//! selector has let the request through, so where it and the watch differ, the namespace is asked for afresh, briefly; if that does
//! not help, the API server is believed.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, timeout_at};

use crate::cluster::Events;
use crate::review::{self, Answered};
use crate::server::webhook::Review;
use crate::snapshot::{NamespaceFacts, NamespaceView, Snapshot};

/// Longest wait for a namespace; a Pod's creation waits with it.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(300);

/// What is kept of a review's time for answering it after the look-up; a large Pod takes a few milliseconds.
const ANSWERING: Duration = Duration::from_millis(50);

/// Gets a namespace from the API server, past the watch.
pub trait FreshNamespaces: Send + Sync + 'static {
    /// What matters of it; None if it cannot be had. Callers bound the time.
    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<Arc<NamespaceFacts>>>;
}

/// Answers reviews with the snapshot of the moment.
pub struct Reviewer {
    snapshot: Arc<ArcSwap<Snapshot>>,
    fresh: Option<Arc<dyn FreshNamespaces>>,
    events: Option<Events>,
}

impl Reviewer {
    /// `fresh` is None where there is no API server to ask, `events` where nobody wants any.
    pub fn new(
        snapshot: Arc<ArcSwap<Snapshot>>,
        fresh: Option<Arc<dyn FreshNamespaces>>,
        events: Option<Events>,
    ) -> Self {
        Self { snapshot, fresh, events }
    }

    async fn answered(&self, body: &[u8], deadline: Instant) -> Answered {
        let snapshot = self.snapshot.load_full();
        let answered = review::answer(body, &snapshot);
        let (Some(namespace), Some(fresh)) = (&answered.recheck_namespace, &self.fresh) else {
            return answered;
        };
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now).saturating_sub(ANSWERING);
        let until = now + LOOKUP_TIMEOUT.min(left);
        let facts = timeout_at(until, fresh.get(namespace)).await.ok().flatten();
        let view = facts.as_deref().map_or(NamespaceView::Selected, NamespaceView::Known);
        review::answer_for(body, &snapshot, view)
    }
}

impl Review for Reviewer {
    fn review<'a>(&'a self, body: &'a [u8], deadline: Instant) -> BoxFuture<'a, Answered> {
        Box::pin(async move {
            let answered = self.answered(body, deadline).await;
            if let (Ok(outcome), Some(events)) = (&answered.outcome, &self.events) {
                events.offer(outcome);
            }
            answered
        })
    }
}
