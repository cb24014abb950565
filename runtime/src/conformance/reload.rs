//! A new configuration for running workers: nobody is lost, nobody is answered by the old one, and the sockets that stay are not
//! touched.
#![allow(missing_docs, reason = "a row is called what it proves")]

use super::bench::{PATIENCE, Row, Setup};
use super::harness::forwarding_to;
use crate::listen::Listeners;
use crate::worker::Runtime;
use nodens_core::config::{Listener, Route};
use nodens_core::wire::Name;
use nodens_core::{Config, ListenerId, ZoneId};
use nodens_testkit::{
    Action, Query, Received, Reply, Response, TcpClient, UdpClient, Upstream, answers, ask_udp,
};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const OLD: &str = "192.0.2.1";
const NEW: &str = "192.0.2.2";

/// An upstream that signs its answers.
fn signing(with: &'static str) -> impl Fn(&Received) -> Response + Send + Sync + 'static {
    move |query| query.response().answer(&format!("@ 60 IN A {with}"))
}

/// Everything goes to another upstream: another zone, as far as the cache is concerned.
fn moved(upstream: SocketAddr) -> Config {
    let mut config = forwarding_to(upstream);
    let zone = &mut config.zones[0];
    (zone.id, zone.log_queries, zone.log_errors) = (ZoneId(1), false, false);
    config
}

fn named(n: usize) -> Query {
    Query::new(&format!("n{n}.example."), "A").id(n as u16)
}

pub fn a_new_configuration_loses_no_query_and_ends_the_old_upstream_s_say<R: Runtime>() {
    const QUERIES: usize = 500;
    let row = Row::start::<R>(signing(OLD));
    let new = Upstream::start(answers(signing(NEW)));
    let config = moved(new.addr());
    let (server, clients) = (row.bench.addr, [UdpClient::new(), UdpClient::new()]);
    let mut changed_at = None;
    for n in 0..QUERIES {
        if n == QUERIES / 2 {
            // Whatever is sent from now on is asked under the new configuration.
            row.bench.running().reconfigure(&config, vec![], &[]).expect("in force");
            changed_at = Some(n);
        }
        clients[n % 2].send(server, &named(n).bytes());
    }
    let changed_at = changed_at.expect("half way");
    let mut answered = vec![false; QUERIES];
    for n in 0..QUERIES {
        let Some((bytes, _)) = clients[n % 2].recv(PATIENCE) else {
            panic!("{} of {QUERIES} were lost", answered.iter().filter(|done| !**done).count())
        };
        let reply = Reply::parse(&bytes);
        let id = usize::from(reply.id);
        assert!(!std::mem::replace(&mut answered[id], true), "{id} is answered twice");
        assert!(id < changed_at || reply.rdatas("A") == [NEW], "{id} is answered by {:?}", reply.rdatas("A"));
    }
}

pub fn what_is_in_flight_is_asked_again_under_the_new_configuration<R: Runtime>() {
    let row = Row::behind::<R>(Upstream::start(|_: &Received| vec![Action::Drop]), |setup| setup);
    let new = Upstream::start(answers(signing(NEW)));
    let (udp, mut tcp) = (UdpClient::new(), TcpClient::connect(row.bench.addr).expect("connected"));
    udp.send(row.bench.addr, &named(1).bytes());
    tcp.send_framed(&named(2).bytes()).expect("sent");
    assert!(row.upstream.wait_for_count(2, PATIENCE));
    let began = Instant::now();
    let stats = row.bench.running().reconfigure(&moved(new.addr()), vec![], &[]).expect("in force");
    let over_udp = udp.recv(PATIENCE).expect("an answer").0;
    let over_tcp = tcp.recv_framed(PATIENCE).expect("the connection stays");
    assert!(began.elapsed() < Duration::from_secs(1), "asked again at once: {:?}", began.elapsed());
    for (bytes, id) in [(over_udp, 1), (over_tcp, 2)] {
        let reply = Reply::parse(&bytes);
        assert_eq!((reply.id, reply.rdatas("A")), (id, vec![NEW]));
    }
    let asked: u64 = stats
        .iter()
        .flat_map(|stats| stats.routes[0][0].requests.iter().flatten().flatten())
        .map(nodens_core::stats::Counter::get)
        .sum();
    assert_eq!(asked, 2, "counts go on, and nobody is counted twice");
}

pub fn m82_the_cache_stays<R: Runtime>() {
    let row = Row::start::<R>(signing(OLD));
    assert_eq!(row.bench.ask(&named(1)).rdatas("A"), [OLD]);
    let mut same = Setup::new(&[&row.upstream]).config;
    same.zones[0].udp_size_max = 1400;
    row.bench.running().reconfigure(&same, vec![], &[]).expect("in force");
    assert_eq!(row.bench.ask(&named(1)).rdatas("A"), [OLD]);
    assert_eq!(row.upstream.count(), 1, "answered from the cache");
}

pub fn listeners_come_and_go_while_others_serve<R: Runtime>() {
    let row = Row::start::<R>(signing(OLD));
    let workers = row.bench.running().workers.len();
    let address = SocketAddr::from(([127, 0, 0, 1], nodens_testkit::free_port()));
    let mut two = Setup::new(&[&row.upstream]).config;
    two.listeners.push(Listener { routes: vec![Route { apex: Name::root(), zone: 0 }] });
    let bound = Listeners::bind_at(&[(1, address)], workers).expect("a free port").into_workers();
    if let Err(error) = row.bench.running().reconfigure(&two, bound, &[]) {
        // A runtime may refuse; then nothing has changed.
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert_eq!(row.bench.ask(&named(1)).rdatas("A"), [OLD]);
        return;
    }
    assert_eq!(ask_udp(address, &named(1).bytes()).expect("an answer").rdatas("A"), [OLD]);
    let mut kept = TcpClient::connect(address).expect("connected");
    assert!(kept.ask(&named(2).bytes(), PATIENCE).is_some());
    assert_eq!(row.bench.ask(&named(3)).rdatas("A"), [OLD], "the first one goes on");

    // One that goes leaves its place; what it has in flight is answered.
    let slow = |query: &Received| {
        vec![Action::Delay(Duration::from_millis(300)), Action::Send(signing(OLD)(query).bytes())]
    };
    row.upstream.set_handler(slow);
    let (udp, mut tcp) = (UdpClient::new(), TcpClient::connect(address).expect("connected"));
    let before = row.upstream.count();
    udp.send(address, &named(4).bytes());
    tcp.send_framed(&named(5).bytes()).expect("sent");
    assert!(row.upstream.wait_for_count(before + 2, PATIENCE));
    row.bench.running().reconfigure(&two, vec![], &[ListenerId(1)]).expect("in force");
    assert!(udp.recv(PATIENCE).is_some() && tcp.recv_framed(PATIENCE).is_some(), "both are answered");
    let closed = |_: &_| TcpClient::connect(address).is_err();
    assert!(row.bench.running().wait_until(closed), "no new connections");
    assert!(UdpClient::new().ask(address, &named(1).bytes(), Duration::from_millis(100)).is_none());
    assert_eq!(row.bench.ask(&named(1)).rdatas("A"), [OLD], "the first one goes on");

    // And it may come again at once.
    let bound = Listeners::bind_at(&[(1, address)], workers).expect("its own port").into_workers();
    row.bench.running().reconfigure(&two, bound, &[]).expect("in force");
    assert_eq!(ask_udp(address, &named(1).bytes()).expect("an answer").rdatas("A"), [OLD]);
    assert!(TcpClient::connect(address).is_ok());
}
