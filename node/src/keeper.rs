//! Keeps the node as it should be: on orders, on events, and on a timer in case an event was missed.
//!
//! | wakes it | done |
//! | --- | --- |
//! | an order | another [`Desired`] holds from now on and is reached; the answer says what came of it |
//! | an event that may concern us | after [`SETTLE`], what is missing is made again |
//! | the timer (`-syncinterval`), or [`RETRY`] after a failure | the same |
//! | an agent that came later | nothing, until that one is gone: two would undo each other's work |
//!
//! A task on the control thread's event loop. Whoever fights over the node with somebody else does it at most once
//! every [`PAUSE`], and says it at most once every [`TELL`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use crate::desired::{Desired, RulesWish, Wish};
use crate::events::Events;
use crate::node::{Failure, FailureKind, Node, Outcome, Part};
use crate::presence::Presence;
use crate::rules::BackEnd;

/// How long to wait for the rest of what somebody is doing: `ip link del` is several events.
pub const SETTLE: Duration = Duration::from_millis(5);
/// Between two repairs: someone who deletes in a loop costs us a twentieth of the control thread.
pub const PAUSE: Duration = Duration::from_millis(20);
/// After a failure: long enough for the lock of iptables to be free, and sooner than the timer.
pub const RETRY: Duration = Duration::from_secs(5);
/// Between two lines about repairs.
pub const TELL: Duration = Duration::from_secs(10);

/// Numbers for `/metrics`; may be read from any thread.
#[derive(Debug, Default)]
pub struct Figures {
    errors: [AtomicU64; FailureKind::ALL.len()],
    drifts: [AtomicU64; Part::ALL.len()],
    repairs: AtomicU64,
    last_success_s: AtomicU64,
    /// 0: none yet; else the index into [`BackEnd::ALL`] and one.
    back_end: AtomicU8,
}

impl Figures {
    /// Failures of this kind.
    pub fn errors(&self, kind: FailureKind) -> u64 {
        self.errors[kind as usize].load(Ordering::Relaxed)
    }

    /// How often this part was found to be otherwise than it should be, after it had been so.
    pub fn drifts(&self, part: Part) -> u64 {
        self.drifts[part as usize].load(Ordering::Relaxed)
    }

    /// How often something was put right.
    pub fn repairs(&self) -> u64 {
        self.repairs.load(Ordering::Relaxed)
    }

    /// When the node was last seen to be as it should be; seconds since 1970, 0 for never.
    pub fn last_success_s(&self) -> u64 {
        self.last_success_s.load(Ordering::Relaxed)
    }

    /// What writes packet rules, once it was chosen.
    pub fn back_end(&self) -> Option<BackEnd> {
        let index = usize::from(self.back_end.load(Ordering::Relaxed)).checked_sub(1)?;
        BackEnd::ALL.get(index).copied()
    }

    fn note(&self, outcome: &Outcome, back_end: Option<BackEnd>) {
        for failure in &outcome.failures {
            self.errors[failure.kind as usize].fetch_add(1, Ordering::Relaxed);
        }
        if outcome.failures.is_empty() {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            self.last_success_s.store(now, Ordering::Relaxed);
        }
        let index = BackEnd::ALL.iter().position(|known| Some(*known) == back_end);
        let number = index.and_then(|index| u8::try_from(index + 1).ok()).unwrap_or(0);
        self.back_end.store(number, Ordering::Relaxed);
    }
}

/// What the keeper is told.
enum Order {
    Reach(Desired, oneshot::Sender<Outcome>),
    RemoveRules(Desired, oneshot::Sender<Outcome>),
}

/// The way to a keeper that runs as a task. Dropping it ends the task; the node stays as it is.
pub struct Keeper {
    orders: mpsc::Sender<Order>,
    reports: mpsc::Receiver<Report>,
    /// Its numbers.
    pub figures: Arc<Figures>,
}

/// Something the keeper found without having been asked.
#[derive(Debug)]
pub enum Report {
    /// What others had changed was put right; each entry is a step. The number counts earlier repairs that were not told.
    Repaired(Vec<String>, u64),
    /// Something could not be put right.
    Failed(Failure),
    /// It stays as it is now, because an agent that came later looks after the node.
    Relieved,
}

/// Reports that may wait for somebody to read them; what is above it is dropped.
const REPORTS_MAX: usize = 64;

impl Keeper {
    /// Starts the task; to be called within a tokio runtime. `sync_interval` is the time between two looks.
    pub fn start(node: Node, events: Events, presence: Arc<Presence>, sync_interval: Duration) -> Keeper {
        let (orders, taken) = mpsc::channel(1);
        let (told, reports) = mpsc::channel(REPORTS_MAX);
        let figures = Arc::new(Figures::default());
        let task = Task {
            node,
            events,
            presence,
            desired: None,
            figures: Arc::clone(&figures),
            reports: told,
            told_at: None,
            untold: 0,
            last_failures: Vec::new(),
            is_relieved: false,
        };
        tokio::spawn(task.run(taken, sync_interval));
        Keeper { orders, reports, figures }
    }

    /// Makes the node so, and keeps it so from now on.
    pub async fn reach(&self, desired: Desired) -> Outcome {
        self.order(|answer| Order::Reach(desired, answer)).await
    }

    /// Removes our rules of every back end, and keeps nothing from now on.
    pub async fn remove_rules(&self, desired: Desired) -> Outcome {
        self.order(|answer| Order::RemoveRules(desired, answer)).await
    }

    async fn order(&self, order: impl FnOnce(oneshot::Sender<Outcome>) -> Order) -> Outcome {
        let (answer, outcome) = oneshot::channel();
        // The task ends after this handle only.
        let _ = self.orders.send(order(answer)).await;
        outcome.await.unwrap_or_default()
    }

    /// Keeps nothing from now on, and leaves everything as it is.
    pub async fn rest(&self) {
        let _ = self.reach(Desired::nothing()).await;
    }

    /// Waits for something to tell.
    pub async fn report(&mut self) -> Report {
        match self.reports.recv().await {
            Some(report) => report,
            // The task ends after this handle only.
            None => std::future::pending().await,
        }
    }
}

struct Task {
    node: Node,
    events: Events,
    presence: Arc<Presence>,
    desired: Option<Desired>,
    figures: Arc<Figures>,
    reports: mpsc::Sender<Report>,
    told_at: Option<Instant>,
    untold: u64,
    last_failures: Vec<Failure>,
    is_relieved: bool,
}

impl Task {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>, sync_interval: Duration) {
        let mut timer = interval_at(Instant::now() + sync_interval, sync_interval);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let back_end = self.node.back_end();
            let nothing = Desired::nothing();
            let watched = self.desired.as_ref().unwrap_or(&nothing);
            let order = tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => Some(order),
                    None => return,
                },
                () = self.events.next(watched, back_end) => None,
                _ = timer.tick() => None,
                () = sleep(RETRY), if !self.last_failures.is_empty() => None,
            };
            match order {
                Some(order) => self.obey(order).await,
                None => {
                    sleep(SETTLE).await;
                    self.repair().await;
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn obey(&mut self, order: Order) {
        let (outcome, answer) = match order {
            Order::Reach(desired, answer) => {
                let outcome = self.node.reach(&desired).await;
                self.desired = Some(desired);
                (outcome, answer)
            }
            Order::RemoveRules(desired, answer) => {
                self.desired = None;
                (self.node.remove_rules(&desired).await, answer)
            }
        };
        self.figures.note(&outcome, self.node.back_end());
        self.last_failures.clone_from(&outcome.failures);
        // Whoever ordered it may not wait for the answer any more.
        let _ = answer.send(outcome);
    }

    async fn repair(&mut self) {
        let Some(desired) = &self.desired else { return };
        let is_relieved = self.presence.is_relieved();
        if is_relieved != std::mem::replace(&mut self.is_relieved, is_relieved) && is_relieved {
            self.tell(Report::Relieved);
        }
        if is_relieved {
            return;
        }
        let outcome = self.node.reach(desired).await;
        self.figures.note(&outcome, self.node.back_end());
        if !outcome.done.is_empty() {
            self.figures.repairs.fetch_add(1, Ordering::Relaxed);
            for part in Part::ALL.into_iter().filter(|part| outcome.done.iter().any(|s| s.part() == *part)) {
                self.figures.drifts[part as usize].fetch_add(1, Ordering::Relaxed);
            }
            let now = Instant::now();
            match self.told_at {
                Some(told_at) if now - told_at < TELL => self.untold += 1,
                _ => {
                    self.told_at = Some(now);
                    let untold = std::mem::take(&mut self.untold);
                    let steps = outcome.done.iter().map(ToString::to_string).collect();
                    self.tell(Report::Repaired(steps, untold));
                }
            }
        }
        // The same failure again is no news.
        for failure in &outcome.failures {
            if !self.last_failures.contains(failure) {
                self.tell(Report::Failed(failure.clone()));
            }
        }
        self.last_failures = outcome.failures;
    }

    fn tell(&self, report: Report) {
        // Nobody reads: then nobody wants to know.
        let _ = self.reports.try_send(report);
    }
}

impl Desired {
    /// A node that is none of our business.
    fn nothing() -> Desired {
        Desired {
            interface: String::new(),
            addresses: Vec::new(),
            link: Wish::LeaveAlone,
            rules: RulesWish::LeaveAlone,
            unthrottled: Wish::LeaveAlone,
        }
    }
}
