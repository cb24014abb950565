//! Following a collection of objects: list, watch, list again when the server forgot, for as long as the process lives.
//!
//! kube-runtime does the protocol and the waiting between attempts; this file turns its events into three calls that a keeper of
//! knowledge needs, several events at a time. What a list brings replaces what was known only once it is complete, and an API
//! server that is away changes nothing: knowledge grows old, it does not vanish.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher::DefaultBackoff};
use tokio::time::timeout;

use super::notice::{Notice, Notify, Subject};

/// For how long one watch request runs, in seconds. It is also the time after which a connection that died without a word is
/// noticed; the servers' own default is 5 to 10 minutes.
const WATCH_S: u32 = 60;

/// Events taken at once, so that a thousand changes in a row are published a few times, not a thousand times.
const BATCH: usize = 256;

/// A resumed watch says nothing until something changes. When this long nothing failed, it runs: longer than the longest wait
/// between attempts (30 s, with jitter) and a connection that says nothing ([`WATCH_S`]) together.
const QUIET: Duration = Duration::from_secs(120);

/// Keeps what is known about one kind of objects.
pub(super) trait Keeper<K>: Send {
    /// These are all there are.
    fn replace(&mut self, objects: Vec<K>);
    /// This one is new, or changed.
    fn put(&mut self, object: K);
    /// This one is gone.
    fn remove(&mut self, object: K);
    /// Called after several of the above, and after [`replace`](Self::replace): let everybody see it.
    fn publish(&mut self);
}

/// How such a watch is to be made.
pub(super) fn watch_config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_S)
}

/// Follows `events` and never returns while the stream goes on. Says when the API server is lost and when it is back, each once.
pub(super) async fn follow<K, S>(events: S, subject: Subject, mut keeper: impl Keeper<K>, notify: Notify)
where
    K: Clone + Debug + Send + 'static,
    S: Stream<Item = watcher::Result<Event<K>>> + Send,
{
    let mut batches = pin!(events.backoff(DefaultBackoff::default()).ready_chunks(BATCH));
    let mut listed: Vec<K> = Vec::new();
    let mut is_lost = false;
    loop {
        let next = batches.next();
        let batch = if is_lost { timeout(QUIET, next).await } else { Ok(next.await) };
        let batch = match batch {
            Ok(Some(batch)) => batch,
            Ok(None) => return,
            Err(_) => {
                is_lost = false;
                notify(Notice::Back { subject });
                continue;
            }
        };
        let mut is_changed = false;
        for event in batch {
            let event = match event {
                Ok(event) => event,
                Err(error) if is_routine(&error) => continue,
                Err(error) => {
                    if !is_lost {
                        is_lost = true;
                        notify(Notice::Lost { subject, error: error_text(&error) });
                    }
                    continue;
                }
            };
            // A list begins before it is known whether the server answers.
            if is_lost && !matches!(event, Event::Init) {
                is_lost = false;
                notify(Notice::Back { subject });
            }
            match event {
                Event::Init => listed = Vec::new(),
                Event::InitApply(object) => listed.push(object),
                Event::InitDone => {
                    keeper.replace(std::mem::take(&mut listed));
                    is_changed = true;
                }
                Event::Apply(object) => {
                    keeper.put(object);
                    is_changed = true;
                }
                Event::Delete(object) => {
                    keeper.remove(object);
                    is_changed = true;
                }
            }
        }
        if is_changed {
            keeper.publish();
        }
    }
}

/// A server that forgot old versions says so with 410; the watcher lists again by itself.
fn is_routine(error: &watcher::Error) -> bool {
    const GONE: u16 = 410;
    match error {
        watcher::Error::WatchError(status) => status.code == GONE,
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == GONE,
        _ => false,
    }
}

/// The error and what caused it, on one line.
pub(super) fn error_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text = format!("{text}: {inner}");
        }
        cause = error.source();
    }
    text.replace(['\n', '\r'], " ")
}
