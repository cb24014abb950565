//! Caps, deadlines and pauses of clients' connections.

use super::*;

const LIMITS: ClientLimits =
    ClientLimits { connections_max: 10, per_source_max: 4, bytes_held_max: 400 * 1024 };

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn peer(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], port))
}

fn open(clients: &mut TcpClients, now: Instant, host: u8) -> Option<ConnectionId> {
    clients.open(now, ListenerId(0), peer(host, 4000))
}

fn framed(len: usize) -> Vec<u8> {
    let mut bytes = vec![7; len + 2];
    bytes[..2].copy_from_slice(&(len as u16).to_be_bytes());
    bytes
}

/// Takes every query there is, as if each had to be forwarded.
fn forward_all(clients: &mut TcpClients, now: Instant, id: ConnectionId) -> usize {
    let mut count = 0;
    while clients.ask(now, id, |_, _| true) {
        count += 1;
    }
    count
}

fn closed(clients: &mut TcpClients) -> Vec<(ConnectionId, CloseReason)> {
    let mut all: Vec<_> = std::iter::from_fn(|| clients.poll_closed()).collect();
    all.sort();
    all
}

impl PartialOrd for CloseReason {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for CloseReason {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (*self as u8).cmp(&(*other as u8))
    }
}

#[test]
fn ten_thousand_idle_connections_leave_the_newest_and_bounded_memory() {
    let limits = ClientLimits::per_worker(1);
    let mut clients = TcpClients::new(limits);
    let mut newest = ConnectionId(0);
    for n in 0..10_000u32 {
        let peer = SocketAddr::from(((n % 5000).to_be_bytes(), 53));
        newest = clients.open(at(u64::from(n) / 100), ListenerId(0), peer).expect("an idle one makes room");
        assert!(clients.len() <= CONNECTIONS_MAX);
        assert!(closed(&mut clients).iter().all(|(_, reason)| *reason == CloseReason::Evicted));
    }
    assert_eq!(clients.len(), CONNECTIONS_MAX);
    assert_eq!(clients.bytes_held(), 0);
    assert_eq!(clients.sources.len(), CONNECTIONS_MAX);
    clients.received(newest, &framed(12));
    assert_eq!(forward_all(&mut clients, at(200), newest), 1, "the newest is served");
}

#[test]
fn one_source_displaces_only_itself() {
    let mut clients = TcpClients::new(LIMITS);
    let other = open(&mut clients, at(0), 2).expect("room");
    let first = open(&mut clients, at(1), 1).expect("room");
    for n in 0..3 {
        open(&mut clients, at(2 + n), 1).expect("room");
    }
    open(&mut clients, at(9), 1).expect("the oldest idle one of this source makes room");
    assert_eq!(closed(&mut clients), [(first, CloseReason::Evicted)]);
    assert!(clients.connections.contains_key(&other));
}

#[test]
fn a_source_whose_connections_all_wait_gets_no_more() {
    let mut clients = TcpClients::new(LIMITS);
    for _ in 0..4 {
        let id = open(&mut clients, at(0), 1).expect("room");
        clients.received(id, &framed(20));
        forward_all(&mut clients, at(0), id);
    }
    assert_eq!(open(&mut clients, at(1), 1), None);
    assert!(open(&mut clients, at(1), 2).is_some(), "others are served");
    assert!(closed(&mut clients).is_empty());
}

#[test]
fn ids_are_never_given_twice() {
    let mut clients = TcpClients::new(LIMITS);
    let first = open(&mut clients, at(0), 1).expect("room");
    clients.close(first, CloseReason::Lost);
    let second = open(&mut clients, at(0), 1).expect("room");
    assert_ne!(first, second);
    clients.late_answer(first, &framed(30));
    assert!(clients.unsent(second).is_empty(), "an answer for the dead reaches nobody");
    assert_eq!(clients.bytes_held(), 0);
}

#[test]
fn idle_connections_end_after_ten_seconds_or_two_in_a_crowd() {
    let mut clients = TcpClients::new(LIMITS);
    let first = open(&mut clients, at(0), 1).expect("room");
    assert_eq!(clients.poll_timeout(), Some(at(10_000)));
    clients.handle_timeout(at(9_999));
    assert!(closed(&mut clients).is_empty());
    clients.handle_timeout(at(10_000));
    assert_eq!(closed(&mut clients), [(first, CloseReason::Idle)]);
    assert_eq!(clients.poll_timeout(), None);

    for host in 0..9 {
        open(&mut clients, at(20_000), host).expect("room");
    }
    assert_eq!(clients.poll_timeout(), Some(at(22_000)), "nine of ten is a crowd");
    clients.handle_timeout(at(22_000));
    assert_eq!(closed(&mut clients).len(), 9);
}

#[test]
fn half_a_query_is_no_activity_and_a_whole_one_is() {
    let mut clients = TcpClients::new(LIMITS);
    let slow = open(&mut clients, at(0), 1).expect("room");
    let busy = open(&mut clients, at(0), 2).expect("room");
    clients.received(slow, &framed(500)[..400]);
    assert!(!clients.ask(at(9_000), slow, |_, _| false));
    clients.received(busy, &framed(500));
    assert!(clients.ask(at(9_000), busy, |_, message| {
        assert_eq!(message.len(), 500);
        false
    }));
    clients.handle_timeout(at(10_000));
    assert_eq!(closed(&mut clients), [(slow, CloseReason::Idle)]);
}

#[test]
fn a_connection_in_a_crowd_may_wait_for_the_core() {
    let mut clients = TcpClients::new(LIMITS);
    let waiting = open(&mut clients, at(0), 1).expect("room");
    clients.received(waiting, &framed(20));
    forward_all(&mut clients, at(0), waiting);
    for host in 2..10 {
        open(&mut clients, at(0), host).expect("room");
    }
    clients.handle_timeout(at(4_600));
    assert_eq!(closed(&mut clients).len(), 8);
    clients.handle_timeout(at(10_000));
    assert_eq!(closed(&mut clients), [(waiting, CloseReason::Idle)], "but not for ever");
}

#[test]
fn a_hundred_queries_in_flight_pause_reading_and_an_answer_resumes_it() {
    let mut clients = TcpClients::new(LIMITS);
    let id = open(&mut clients, at(0), 1).expect("room");
    clients.received(id, &framed(20).repeat(150));
    assert_eq!(forward_all(&mut clients, at(0), id), 100);
    assert_eq!(clients.settle(id), Some(Interest { read: false, write: false }));
    clients.late_answer(id, &framed(40));
    assert!(clients.wants_to_ask(id));
    assert_eq!(forward_all(&mut clients, at(1), id), 1);
    for _ in 0..50 {
        clients.late_answer(id, &framed(40));
    }
    assert_eq!(forward_all(&mut clients, at(2), id), 49);
    assert_eq!(clients.settle(id), Some(Interest { read: true, write: true }));
}

#[test]
fn unsent_answers_pause_reading_until_the_client_reads() {
    let mut clients = TcpClients::new(LIMITS);
    let id = open(&mut clients, at(0), 1).expect("room");
    for _ in 0..3 {
        clients.answer(id, &framed(60_000));
    }
    clients.received(id, &framed(20));
    assert!(!clients.ask(at(1), id, |_, _| true));
    assert_eq!(clients.settle(id), Some(Interest { read: false, write: true }));
    clients.sent(at(2), id, 100_000);
    assert_eq!(forward_all(&mut clients, at(2), id), 1);
    let rest = clients.unsent(id).len();
    clients.sent(at(3), id, rest);
    assert_eq!(clients.settle(id), Some(Interest { read: true, write: false }));
    assert_eq!(clients.bytes_held(), 0);
}

#[test]
fn a_client_that_does_not_read_is_closed_as_idle() {
    let mut clients = TcpClients::new(LIMITS);
    let id = open(&mut clients, at(0), 1).expect("room");
    clients.answer(id, &framed(60_000));
    clients.sent(at(1_000), id, 10);
    clients.handle_timeout(at(10_500));
    assert!(closed(&mut clients).is_empty());
    clients.handle_timeout(at(11_000));
    assert_eq!(closed(&mut clients), [(id, CloseReason::Idle)]);
}

#[test]
fn after_the_clients_fin_outstanding_answers_still_go_out() {
    let mut clients = TcpClients::new(LIMITS);
    let id = open(&mut clients, at(0), 1).expect("room");
    clients.received(id, &framed(20));
    clients.finished(id);
    assert_eq!(forward_all(&mut clients, at(0), id), 1);
    assert_eq!(clients.settle(id), Some(Interest { read: false, write: false }));
    clients.late_answer(id, &framed(40));
    assert_eq!(clients.settle(id), Some(Interest { read: false, write: true }));
    clients.sent(at(1), id, 42);
    assert_eq!(clients.settle(id), None);
    assert_eq!(closed(&mut clients), [(id, CloseReason::Done)]);
    assert!(clients.is_empty() && clients.sources.is_empty());
}

#[test]
fn a_length_that_cannot_be_a_message_ends_the_connection() {
    let mut clients = TcpClients::new(LIMITS);
    let id = open(&mut clients, at(0), 1).expect("room");
    clients.received(id, &[0, 3, 1, 2, 3]);
    assert!(!clients.ask(at(0), id, |_, _| true));
    assert_eq!(closed(&mut clients), [(id, CloseReason::BadFraming)]);
}

#[test]
fn whoever_holds_most_goes_when_all_hold_too_much() {
    let mut clients = TcpClients::new(LIMITS);
    let small = open(&mut clients, at(0), 1).expect("room");
    let large = open(&mut clients, at(0), 2).expect("room");
    clients.received(small, &framed(60_000)[..50_000]);
    for _ in 0..6 {
        clients.late_answer(large, &framed(65_000));
    }
    assert_eq!(closed(&mut clients), [(large, CloseReason::Hoarding)]);
    assert_eq!(clients.bytes_held(), 50_000);
}
