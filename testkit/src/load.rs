//! A steady stream of questions over UDP, and what became of each: for tests that take something away meanwhile.
//!
//! Open loop: a question is sent when its time has come, whether or not those before were answered, and never again. Who
//! could not send in time makes up for nothing: bursts would be another test. A question is lost if nothing came for it until [`PATIENCE`] after the last one was sent, so a slow machine loses nothing.
//! Sockets take turns, so that a kernel that spreads ports over several listeners does so. Every fourth name is one that
//! nobody asked for before: a forwarder always has some in flight.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::lock;
use crate::msg::Query;

/// How long the last answers are waited for.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How many sockets take turns. A question's number is its socket and its ID, so there are 65 536 for each.
const SOCKETS: usize = 64;
/// How many names are asked for again and again.
const NAMES: u32 = 300;
/// How far behind its pace the sender may be and still catch up.
const LATE_AT_MOST: Duration = Duration::from_millis(5);
/// How long the receiver sleeps at most before it looks whether it is over.
const LOOK_MS: u16 = 20;

/// Questions that are being asked.
pub struct Load {
    asked: Arc<Mutex<Vec<Asked>>>,
    is_over: Arc<AtomicBool>,
    sender: JoinHandle<()>,
    receiver: JoinHandle<()>,
}

struct Asked {
    at: Instant,
    /// When an answer came, and its RCODE.
    answered: Option<(Instant, u8)>,
}

/// What became of them.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Questions.
    pub sent: usize,
    /// Without any answer.
    pub lost: usize,
    /// With an answer that is none: another RCODE than NOERROR.
    pub failed: usize,
    /// How long questions were sent.
    pub took: Duration,
    /// The longest way to an answer.
    pub slowest: Duration,
    /// The longest time in which every question was lost, from the first of them to the next that was answered.
    pub outage: Duration,
}

impl Load {
    /// Begins to ask `server`, from the network namespace of the calling thread.
    pub fn start(server: SocketAddr, per_second: u32) -> Load {
        Load::begin(server, per_second, true)
    }

    /// The same without new names: what is lost then was in no forwarder's hands.
    pub fn start_known(server: SocketAddr, per_second: u32) -> Load {
        Load::begin(server, per_second, false)
    }

    fn begin(server: SocketAddr, per_second: u32, with_new: bool) -> Load {
        let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = || {
            let socket = UdpSocket::bind(any).and_then(|socket| socket.connect(server).map(|()| socket));
            let socket = socket.unwrap_or_else(|why| panic!("no client for {server}: {why}"));
            socket.set_nonblocking(true).expect("a socket can be told not to wait");
            socket
        };
        let sockets: Arc<Vec<UdpSocket>> = Arc::new((0..SOCKETS).map(|_| socket()).collect());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let sender = {
            let (sockets, asked, is_over) = (sockets.clone(), asked.clone(), is_over.clone());
            thread::spawn(move || send(&sockets, &asked, &is_over, per_second, with_new))
        };
        let receiver = {
            let (asked, is_over) = (asked.clone(), is_over.clone());
            thread::spawn(move || receive(&sockets, &asked, &is_over))
        };
        Load { asked, is_over, sender, receiver }
    }

    /// How many were sent so far.
    pub fn sent(&self) -> usize {
        lock(&self.asked).len()
    }

    /// Asks no more, waits for the last answers, and counts.
    pub fn finish(self) -> Tally {
        self.is_over.store(true, Ordering::Relaxed);
        self.sender.join().expect("the sender");
        self.receiver.join().expect("the receiver");
        tally(&lock(&self.asked))
    }
}

fn tally(asked: &[Asked]) -> Tally {
    let mut tally = Tally { sent: asked.len(), ..Tally::default() };
    if let (Some(first), Some(last)) = (asked.first(), asked.last()) {
        tally.took = last.at - first.at;
    }
    let mut silent_since = None;
    for question in asked {
        match question.answered {
            None => {
                tally.lost += 1;
                silent_since.get_or_insert(question.at);
            }
            Some((at, rcode)) => {
                tally.failed += usize::from(rcode != 0);
                tally.slowest = tally.slowest.max(at - question.at);
                if let Some(since) = silent_since.take() {
                    tally.outage = tally.outage.max(question.at - since);
                }
            }
        }
    }
    if let (Some(since), Some(last)) = (silent_since, asked.last()) {
        tally.outage = tally.outage.max(last.at - since);
    }
    tally
}

fn send(
    sockets: &[UdpSocket],
    asked: &Mutex<Vec<Asked>>,
    is_over: &AtomicBool,
    per_second: u32,
    with_new: bool,
) {
    let (mut due, gap) = (Instant::now(), Duration::from_secs(1) / per_second);
    for n in 0_u32.. {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // Timers are late by less than this on a machine that has time for us.
        due = (due + gap).max(Instant::now().checked_sub(LATE_AT_MOST).unwrap_or(due));
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let id = u16::try_from(n as usize / SOCKETS).expect("no more questions than IDs");
        let is_new = with_new && n.is_multiple_of(4);
        let name = if is_new { format!("u{n}.example.") } else { format!("n{}.example.", n % NAMES) };
        let (socket, query) = (&sockets[n as usize % SOCKETS], Query::new(&name, "A").id(id).bytes());
        lock(asked).push(Asked { at: Instant::now(), answered: None });
        // The first error may be that of an earlier one, sent back by the network. The second is ours: lost.
        let _ = socket.send(&query).or_else(|_| socket.send(&query));
    }
}

fn receive(sockets: &[UdpSocket], asked: &Mutex<Vec<Asked>>, is_over: &AtomicBool) {
    let mut buffer = [0; 1500];
    let mut deadline = None;
    loop {
        let mut waited: Vec<PollFd<'_>> =
            sockets.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        // A signal is no reason to end.
        let _ = poll(&mut waited, PollTimeout::from(LOOK_MS));
        for (n, (socket, waited)) in sockets.iter().zip(&waited).enumerate() {
            if waited.any() == Some(false) {
                continue;
            }
            // Whatever is no message is an error of the network's for a question that stays without an answer.
            while let Ok(len) = socket.recv(&mut buffer) {
                let [high, low, _, flags, ..] = buffer[..len] else { continue };
                let number = usize::from(u16::from_be_bytes([high, low])) * SOCKETS + n;
                if let Some(question) = lock(asked).get_mut(number) {
                    question.answered.get_or_insert((Instant::now(), flags & 0x0f));
                }
            }
        }
        if is_over.load(Ordering::Relaxed) {
            let until = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
            if Instant::now() > until || lock(asked).iter().all(|question| question.answered.is_some()) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Asked, Load, NAMES, tally};
    use crate::{Action, Received, Upstream};

    #[test]
    fn what_is_answered_fails_or_is_lost_is_counted() {
        let upstream = Upstream::start(|query: &Received| match query.qname.as_str() {
            "n1.example." => vec![Action::Send(query.response().rcode(2).bytes())],
            "n2.example." => vec![Action::Drop],
            _ => vec![Action::Send(query.response().answer("@ 30 IN A 192.0.2.1").bytes())],
        });
        let load = Load::start(upstream.addr(), 100);
        while load.sent() < 20 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let tally = load.finish();
        let of = |name| (0..tally.sent).filter(|n| n % 4 != 0 && n % NAMES as usize == name).count();
        assert_eq!((tally.failed, tally.lost), (of(1), of(2)), "{tally:?}");
        assert!(tally.sent >= 20 && tally.lost > 0 && tally.outage > Duration::ZERO, "{tally:?}");
    }

    #[test]
    fn an_outage_is_from_the_first_that_is_lost_to_the_next_that_is_not() {
        let start = Instant::now();
        let row = |ms, is_answered: bool| {
            let at = start + Duration::from_millis(ms);
            Asked { at, answered: is_answered.then_some((at, 0)) }
        };
        let rows =
            [row(0, true), row(10, false), row(20, false), row(35, true), row(40, false), row(50, true)];
        let tally = tally(&rows);
        assert_eq!((tally.lost, tally.outage), (3, Duration::from_millis(25)));
    }
}
