//! The lives of connections: what each waits for, since when, and who has to go.
//!
//! | phase     | begins with                   | ends with                     | at most             |
//! |-----------|-------------------------------|-------------------------------|---------------------|
//! | Handshake | accept                        | TLS is established            | `handshake_timeout` |
//! | Idle      | TLS, or an answer was taken   | first byte of a request       | `idle_timeout`      |
//! | Head      | first byte of a request       | its header is complete        | `head_timeout`      |
//! | Busy      | header complete               | the answer is made            | body and answer have deadlines of their own |
//! | Writing   | the answer is made            | the client's system has it    | `write_timeout`     |
//!
//! One sweep looks at all deadlines a few times a second, so a connection costs no timer. When there are too many, one that
//! never asked anything goes first, the oldest first; then the one that has been idle longest: a flood of empty connections
//! evicts itself, not the API server.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::limits::{AGE_SPREAD, Limits};

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    Handshake,
    Idle,
    Head,
    Busy,
    Writing,
}

/// One connection, as its task, its stream and the sweep see it.
#[derive(Debug)]
pub(super) struct Life {
    id: u64,
    clock: Instant,
    born_ms: u64,
    age_max_ms: u64,
    phase: AtomicU8,
    since_ms: AtomicU64,
    /// A request was answered on it.
    has_asked: AtomicBool,
    ending: AtomicBool,
    end: Notify,
}

/// All connections of a listener.
#[derive(Debug)]
pub(super) struct Lives {
    clock: Instant,
    limits: Limits,
    state: Mutex<State>,
    draining: AtomicBool,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    lives: HashMap<u64, Arc<Life>>,
}

/// A place among the connections; giving it back is dropping it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) life: Arc<Life>,
    lives: Arc<Lives>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.lives.lock();
        state.lives.remove(&self.life.id);
        let empty = state.lives.is_empty();
        drop(state);
        if empty {
            self.lives.emptied.notify_waiters();
        }
    }
}

impl Life {
    fn now_ms(&self) -> u64 {
        self.clock.elapsed().as_millis() as u64
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Handshake,
            1 => Phase::Idle,
            2 => Phase::Head,
            3 => Phase::Busy,
            _ => Phase::Writing,
        }
    }

    /// Enters a phase.
    pub(super) fn enter(&self, phase: Phase) {
        // The time first: the sweep may see an old phase with a new time, which only delays it.
        self.since_ms.store(self.now_ms(), Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
        if phase == Phase::Writing {
            self.has_asked.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the next answer is to be its last.
    pub(super) fn is_old(&self) -> bool {
        self.ending.load(Ordering::Relaxed) || self.now_ms().saturating_sub(self.born_ms) >= self.age_max_ms
    }

    /// Comes back when the connection has to go.
    pub(super) async fn ended(&self) {
        // `notify_one` keeps its permit, so an end before this call is not missed.
        self.end.notified().await;
    }

    fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
        self.end.notify_one();
    }

    /// Its time limit in the present phase.
    fn is_overdue(&self, limits: &Limits, now_ms: u64, draining: bool) -> bool {
        let limit = match self.phase() {
            Phase::Handshake => limits.handshake_timeout,
            // While the server goes down, whoever still sends requests gets a last answer; whoever is silent for a while is let go.
            Phase::Idle if draining => limits.idle_timeout.min(DRAIN_IDLE),
            Phase::Idle => limits.idle_timeout,
            Phase::Head => limits.head_timeout,
            Phase::Busy => return false,
            Phase::Writing => limits.write_timeout,
        };
        now_ms.saturating_sub(self.since_ms.load(Ordering::Relaxed)) >= limit.as_millis() as u64
    }
}

/// See [`Life::is_overdue`].
const DRAIN_IDLE: Duration = Duration::from_secs(3);

impl Lives {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            clock: Instant::now(),
            limits,
            state: Mutex::default(),
            draining: AtomicBool::new(false),
            emptied: Notify::new(),
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a new connection; another one may have to go for it. None if all are at work.
    pub(super) fn admit(self: &Arc<Self>, phase: Phase) -> Option<Place> {
        let mut state = self.lock();
        if state.lives.len() >= self.limits.connections_max {
            let waits = |life: &&Arc<Life>| {
                !life.ending.load(Ordering::Relaxed)
                    && matches!(life.phase(), Phase::Handshake | Phase::Idle | Phase::Head)
            };
            let rank = |life: &&Arc<Life>| {
                (life.has_asked.load(Ordering::Relaxed), life.since_ms.load(Ordering::Relaxed), life.id)
            };
            state.lives.values().filter(waits).min_by_key(rank)?.end();
        }
        let id = state.next_id;
        state.next_id += 1;
        let now_ms = self.clock.elapsed().as_millis() as u64;
        let life = Arc::new(Life {
            id,
            clock: self.clock,
            born_ms: now_ms,
            age_max_ms: spread(self.limits.age_max, id).as_millis() as u64,
            phase: AtomicU8::new(phase as u8),
            since_ms: AtomicU64::new(now_ms),
            has_asked: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            end: Notify::new(),
        });
        state.lives.insert(id, Arc::clone(&life));
        drop(state);
        Some(Place { life, lives: Arc::clone(self) })
    }

    /// Ends what is overdue; how many.
    pub(super) fn sweep(&self) -> usize {
        let now_ms = self.clock.elapsed().as_millis() as u64;
        let draining = self.is_draining();
        let state = self.lock();
        let overdue = |life: &&Arc<Life>| {
            !life.ending.load(Ordering::Relaxed) && life.is_overdue(&self.limits, now_ms, draining)
        };
        state.lives.values().filter(overdue).map(|life| life.end()).count()
    }

    /// Whether somebody who was told to go is still there.
    pub(super) fn is_over_full(&self) -> bool {
        self.count() > self.limits.connections_max
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.lock().lives.len()
    }

    /// From now on every answer is its connection's last.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Comes back when no connection is left.
    pub(super) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.lock().lives.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Ends all of them.
    pub(super) fn end_all(&self) {
        for life in self.lock().lives.values() {
            life.end();
        }
    }
}

/// Ages that differ from connection to connection. Not chance, but spread as evenly as can be: multiples of the golden ratio.
fn spread(age: Duration, id: u64) -> Duration {
    let fraction = (id as f64 * 0.618_033_988_749_895).fract();
    age.mul_f64(1.0 - AGE_SPREAD + 2.0 * AGE_SPREAD * fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lives(connections_max: usize) -> Arc<Lives> {
        Arc::new(Lives::new(Limits { connections_max, ..Limits::default() }))
    }

    fn is_ending(place: &Place) -> bool {
        place.life.ending.load(Ordering::Relaxed)
    }

    #[test]
    fn what_never_asked_goes_before_what_did() {
        let lives = lives(3);
        let api_server = lives.admit(Phase::Handshake).expect("room");
        api_server.life.enter(Phase::Writing);
        api_server.life.enter(Phase::Idle);
        std::thread::sleep(Duration::from_millis(5));
        let empty: Vec<Place> =
            (0..4).map(|_| lives.admit(Phase::Handshake).expect("someone goes")).collect();
        assert_eq!(empty.iter().map(is_ending).collect::<Vec<_>>(), [true, true, false, false]);
        assert!(!is_ending(&api_server));
    }

    #[test]
    fn who_is_at_work_is_never_evicted() {
        let lives = lives(2);
        let busy: Vec<Place> = (0..2).map(|_| lives.admit(Phase::Idle).expect("room")).collect();
        busy.iter().for_each(|place| place.life.enter(Phase::Busy));
        assert!(lives.admit(Phase::Handshake).is_none());
        drop(busy);
        assert_eq!(lives.count(), 0);
        assert!(lives.admit(Phase::Handshake).is_some());
    }

    #[test]
    fn a_deadline_belongs_to_the_phase() {
        let limits = Limits::default();
        let lives = lives(8);
        let place = lives.admit(Phase::Idle).expect("room");
        let at = |phase: Phase, seconds: u64, draining| {
            place.life.enter(phase);
            let since = place.life.since_ms.load(Ordering::Relaxed);
            place.life.is_overdue(&limits, since + 1000 * seconds, draining)
        };
        assert!(at(Phase::Head, 5, false) && !at(Phase::Head, 4, false));
        assert!(at(Phase::Idle, 120, false) && !at(Phase::Idle, 100, false));
        assert!(at(Phase::Idle, 3, true), "a drain lets go of silent ones");
        assert!(!at(Phase::Busy, 1000, true));
        assert!(at(Phase::Writing, 5, false));
    }

    #[test]
    fn ages_are_spread() {
        let ages: Vec<f64> = (0..1000).map(|id| spread(Duration::from_secs(300), id).as_secs_f64()).collect();
        assert!(ages.iter().all(|age| (240.0..=360.0).contains(age)));
        let early = ages.iter().filter(|age| **age < 264.0).count();
        assert!((180..=220).contains(&early), "a fifth of them in a fifth of the span, not {early}");
    }
}
