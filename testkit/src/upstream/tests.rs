//! The scripted upstream against the clients of the kit.

use std::time::{Duration, Instant};

use super::{Action, Transport, Upstream, answers};
use crate::client::{End, TcpClient, UdpClient, ask_tcp, ask_udp};
use crate::msg::{Query, Reply, Response};

const SOON: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(5);

fn query() -> Vec<u8> {
    Query::new("Web.Example.", "A").id(77).edns(1232).do_bit().bytes()
}

fn address(query: &super::Received) -> Response {
    query.response().answer("@ 30 IN A 192.0.2.1")
}

#[test]
fn it_answers_and_writes_down_over_both_transports() {
    let upstream = Upstream::start(answers(address));
    let over_udp = ask_udp(upstream.addr(), &query()).expect("an answer over UDP");
    let over_tcp = ask_tcp(upstream.addr(), &query()).expect("an answer over TCP");
    assert_eq!(over_udp, over_tcp);
    assert_eq!(over_udp.rdatas("A"), ["192.0.2.1"]);
    let log = upstream.received();
    assert_eq!((log[0].qname.as_str(), log[0].qname_raw.as_str()), ("web.example.", "Web.Example."));
    assert_eq!((log[0].id, log[0].qtype, log[0].do_bit, log[0].rd, log[0].cd), (77, 1, true, true, false));
    assert_eq!((log[0].transport, log[0].connection), (Transport::Udp, None));
    assert_eq!((log[1].transport, log[1].connection, log[1].seq), (Transport::Tcp, Some(0), 1));
    assert_eq!((upstream.count(), upstream.udp_count(), upstream.tcp_count()), (2, 1, 1));
    assert_eq!((upstream.count_for("WEB.example", "A"), upstream.count_for("web.example.", "AAAA")), (2, 0));
    upstream.clear();
    assert_eq!((upstream.count(), upstream.connections()), (0, 1));
}

#[test]
fn a_delay_holds_up_nobody_else() {
    let upstream = Upstream::start(|query| {
        let answer = Action::Send(address(query).bytes());
        if query.seq == 0 { vec![Action::Delay(SOON), answer] } else { vec![answer] }
    });
    let (slow, fast) = (UdpClient::new(), UdpClient::new());
    let start = Instant::now();
    slow.send(upstream.addr(), &query());
    assert!(upstream.wait_for_count(1, LONG));
    assert!(fast.ask(upstream.addr(), &query(), LONG).is_some());
    assert!(start.elapsed() < SOON, "the fast answer waited for the slow one");
    assert!(slow.recv(LONG).is_some());
    assert!(start.elapsed() >= SOON, "the slow answer did not wait");
}

#[test]
fn delays_run_in_order_of_their_time() {
    let upstream = Upstream::start(|query| {
        let pause = Duration::from_millis(if query.seq == 0 { 150 } else { 20 });
        vec![Action::Delay(pause), Action::Send(address(query).bytes())]
    });
    let client = UdpClient::new();
    for id in [1, 2] {
        client.send(upstream.addr(), &Query::new("a.", "A").id(id).bytes());
    }
    let ids: Vec<_> = (0..2).map(|_| Reply::parse(&client.recv(LONG).expect("an answer").0).id).collect();
    assert_eq!(ids, [2, 1]);
}

#[test]
fn answers_can_come_from_elsewhere() {
    let upstream = Upstream::start(|query| {
        let bytes = address(query).bytes();
        vec![Action::SendFromOtherPort(bytes.clone()), Action::SendFromOtherAddress(bytes)]
    });
    let (client, addr) = (UdpClient::new(), upstream.addr());
    client.send(addr, &query());
    let (_, from) = client.recv(LONG).expect("from another port");
    assert!(from.ip() == addr.ip() && from.port() != addr.port(), "{from}");
    let (_, from) = client.recv(LONG).expect("from another address");
    assert!(from.ip() != addr.ip() && from.port() == addr.port(), "{from}");
    assert!(client.ask(addr, &query(), SOON).is_none(), "a client takes answers of its server only");
}

#[test]
fn silence_is_silence() {
    let upstream = Upstream::start(|_| vec![Action::Drop, Action::Send(b"never".to_vec())]);
    assert!(UdpClient::new().ask(upstream.addr(), &query(), SOON).is_none());
    upstream.set_handler(answers(address));
    assert!(ask_udp(upstream.addr(), &query()).is_some());
    upstream.pause();
    assert!(UdpClient::new().ask(upstream.addr(), &query(), SOON).is_none());
    upstream.resume();
    assert!(ask_udp(upstream.addr(), &query()).is_some());
    assert_eq!(upstream.count(), 4, "a pause is written down");
}

#[test]
fn a_connection_can_be_closed_or_aborted() {
    let upstream = Upstream::start(|query| match query.qname.as_str() {
        "close." => vec![Action::Send(address(query).bytes()), Action::Close],
        "late." => vec![Action::Delay(Duration::from_millis(30)), Action::Reset],
        _ => vec![Action::Reset],
    });
    let end_for = |name: &str| {
        let mut client = TcpClient::connect(upstream.addr()).expect("a connection");
        client.send_framed(&Query::new(name, "A").bytes()).expect("sent");
        (client.recv_framed(LONG).is_some(), client.recv_end(LONG))
    };
    assert_eq!(end_for("close."), (true, End::Closed));
    assert_eq!(end_for("reset."), (false, End::Reset));
    assert_eq!(end_for("late."), (false, End::Reset));
    let mut quiet = TcpClient::connect(upstream.addr()).expect("a connection");
    assert!(!quiet.recv_eof(SOON), "an idle connection stays open");
    assert_eq!((upstream.connections(), upstream.open_connections()), (4, 1));
}

#[test]
fn streams_come_in_any_pieces() {
    let gap = Duration::from_millis(1);
    let upstream = Upstream::start(move |query| vec![Action::SendByteByByte(address(query).bytes(), gap)]);
    let mut client = TcpClient::connect(upstream.addr()).expect("a connection");
    client.send_in_chunks(&query(), 1).expect("sent");
    let reply = Reply::parse(&client.recv_framed(LONG).expect("an answer"));
    assert_eq!((reply.id, upstream.received()[0].bytes.clone()), (77, query()));

    upstream.set_handler(|query| {
        let bytes = query.response().bytes();
        vec![Action::SendRaw([&[0, 200], &bytes[..]].concat()), Action::Close]
    });
    client.send_framed(&query()).expect("sent");
    assert!(client.recv_framed(LONG).is_none(), "a message cut off is none");
}

#[test]
fn several_queries_on_one_connection_are_answered_in_any_order() {
    let upstream = Upstream::start(|query| {
        let answer = Action::Send(address(query).bytes());
        if query.seq == 0 { vec![Action::Delay(SOON), answer] } else { vec![answer] }
    });
    let mut client = TcpClient::connect(upstream.addr()).expect("a connection");
    for id in [1, 2] {
        client.send_framed(&Query::new("a.", "A").id(id).bytes()).expect("sent");
    }
    let mut next = || Reply::parse(&client.recv_framed(LONG).expect("an answer")).id;
    assert_eq!((next(), next()), (2, 1));
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_stopped_upstream_refuses_and_comes_back_on_its_port() {
    let upstream = Upstream::start(answers(address));
    let addr = upstream.addr();
    let mut open = TcpClient::connect(addr).expect("a connection");
    assert!(open.ask(&query(), LONG).is_some());
    upstream.stop();
    assert!(open.recv_eof(LONG), "stopping closes connections");
    assert!(TcpClient::connect(addr).is_err(), "TCP is refused");
    let connected = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    connected.connect(addr).expect("connected");
    connected.set_read_timeout(Some(LONG)).expect("a timeout");
    connected.send(&query()).expect("sent");
    let refused = connected.recv(&mut [0; 512]).expect_err("no answer");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    upstream.restart();
    assert_eq!(upstream.addr(), addr);
    assert!(ask_udp(addr, &query()).is_some() && ask_tcp(addr, &query()).is_some());
    assert_eq!(upstream.count(), 3, "the log goes on");
}

#[test]
fn broken_messages_are_written_down_as_such() {
    let upstream = Upstream::start(|_| vec![]);
    let client = UdpClient::new();
    client.send(upstream.addr(), b"\x01\x02\x03");
    assert!(upstream.wait_for_count(1, LONG));
    let received = &upstream.received()[0];
    assert!(received.malformed.is_some());
    assert_eq!((received.id, received.qname.as_str(), received.bytes.len()), (0x0102, "", 3));
}

#[test]
#[should_panic(expected = "a handler of the upstream")]
fn a_panicking_handler_fails_the_test() {
    let upstream = Upstream::start(|query| {
        assert_eq!(query.qname, "expected.", "this panic is part of the test");
        vec![]
    });
    assert!(UdpClient::new().ask(upstream.addr(), &query(), SOON).is_none());
}

#[test]
fn a_fixed_address_is_taken() {
    let port = crate::free_port();
    let upstream = Upstream::on(([127, 0, 0, 3], port).into(), answers(address));
    assert_eq!(upstream.addr(), ([127, 0, 0, 3], port).into());
    assert!(ask_tcp(upstream.addr(), &query()).is_some());
}

#[test]
fn a_burst_is_read_whole() {
    let upstream = Upstream::start(answers(address));
    let client = UdpClient::new();
    for id in 0..500 {
        client.send(upstream.addr(), &Query::new("a.", "A").id(id).bytes());
    }
    assert!(upstream.wait_for_count(500, LONG), "{} of 500 arrived", upstream.count());
    assert_eq!((0..500).filter(|_| client.recv(LONG).is_some()).count(), 500);
}
