//! A new configuration under load: nobody is lost, nobody is answered by the old one, and the cache stays.

mod world;

use nodens_core::config::{Route, UpstreamConfig};
use nodens_core::wire::Name;
use nodens_core::{UpstreamId, ZoneId};
use nodens_testkit::{Query, Reply};
use std::sync::Arc;
use world::{World, config, upstream};

fn query(n: u16) -> Query {
    Query::new(&format!("n{n}.example.org."), "A").id(n)
}

/// As `config(1)`, but asking another upstream: another zone, as far as the cache is concerned.
fn moved() -> nodens_core::Config {
    let mut moved = config(1);
    moved.upstreams = vec![UpstreamConfig::new(upstream(9))];
    moved.zones[0].id = ZoneId(1);
    moved
}

#[test]
fn m82_the_cache_stays_with_zones_that_stay() {
    let mut world = World::new(config(1));
    world.ask(World::client(1), &query(1));
    let sent = world.next_sent();
    world.deliver(&sent, &sent.reply().answer("@ 60 IN A 192.0.2.1").bytes()).expect("accepted");
    let mut same = config(1);
    same.zones[0].log_queries = true;
    world.forwarder.handle_config(world.now, Arc::new(same));
    assert!(world.ask(World::client(2), &query(1)).is_some(), "from the cache");
    assert_eq!(world.forwarder.stats().zones[0].hits_success.get(), 1);
    assert_eq!(world.forwarder.stats().zones[0].misses.get(), 1, "counts go on");
    world.forwarder.handle_config(world.now, Arc::new(moved()));
    assert!(world.ask(World::client(3), &query(1)).is_none(), "what the old upstream said is not used");
    assert_eq!(world.next_sent().upstream, upstream(9));
}

#[test]
fn what_is_in_flight_is_asked_again_under_the_new_configuration() {
    let mut world = World::new(config(1));
    for n in 0..50 {
        world.ask(World::client(n), &query(n % 10).id(n).edns(4096).do_bit());
    }
    let old = std::mem::take(&mut world.sent);
    assert_eq!(old.len(), 10);
    world.forwarder.handle_config(world.now, Arc::new(moved()));
    world.drain();
    for sent in &old {
        assert!(world.deliver(sent, &sent.reply().answer("@ 60 IN A 192.0.2.1").bytes()).is_err());
    }
    assert!(world.answers.is_empty(), "the old upstream has no say any more");
    let new = std::mem::take(&mut world.sent);
    assert_eq!(new.len(), 10, "still one lookup for equal questions");
    for sent in &new {
        assert_eq!(sent.upstream, upstream(9));
        world
            .deliver(sent, &sent.reply().answer("@ 60 IN A 192.0.2.9").edns(1232, true).bytes())
            .expect("accepted");
    }
    assert_eq!(world.answers.len(), 50);
    for (client, bytes) in &world.answers {
        let reply = Reply::parse(bytes);
        assert_eq!((reply.id, reply.rdatas("A")), (client.peer.port(), vec!["192.0.2.9"]));
        assert!(reply.opt.expect("an OPT").do_bit);
    }
    let requests: u64 = world.forwarder.stats().routes[0][0].requests[0][0]
        .iter()
        .map(nodens_core::stats::Counter::get)
        .sum();
    assert_eq!((requests, world.forwarder.lookups()), (50, 0), "asked again, counted once");
}

#[test]
fn a_zone_that_is_gone_is_refused_and_a_listener_that_is_gone_is_silent() {
    let mut world = World::new(config(1));
    world.ask(World::client(1), &query(1));
    let mut other = config(1);
    other.listeners[0].routes = vec![Route { apex: Name::parse("example.com").expect("a name"), zone: 0 }];
    world.forwarder.handle_config(world.now, Arc::new(other));
    world.drain();
    assert_eq!(world.only_answer().rcode, 5);
    assert_eq!(world.forwarder.poll_timeout(), None);

    let mut world = World::new(config(1));
    world.ask(World::client(1), &query(1));
    let mut none = config(1);
    none.listeners.clear();
    world.forwarder.handle_config(world.now, Arc::new(none));
    world.drain();
    assert!(world.answers.is_empty() && world.open.is_empty());
}

#[test]
fn an_upstream_that_stays_keeps_its_round_trip_time() {
    let mut world = World::new(config(2));
    for n in 0..20 {
        world.ask(World::client(n), &query(n));
        let sent = world.next_sent();
        world.pass_ms(1);
        world.deliver(&sent, &sent.reply().bytes()).expect("accepted");
    }
    let mut fewer = config(2);
    fewer.zones[0].forward.as_mut().expect("a forward").upstreams = vec![UpstreamId(0), UpstreamId(1)];
    fewer.limits.lookups_max = 10;
    world.forwarder.handle_config(world.now, Arc::new(fewer));
    world.ask(World::client(30), &query(30));
    let first = world.next_sent();
    world.pass_ms(25);
    let hedge = world.next_sent();
    assert!(hedge.at.since(first.at).as_millis() <= 21, "patience is what was measured, not what is assumed");
}

#[test]
fn a_reload_does_not_stretch_the_clients_patience() {
    let mut silent = config(1);
    silent.upstreams[0].max_fails = 0;
    let mut world = World::new(silent.clone());
    world.ask(World::client(1), &query(1));
    for n in 0..5 {
        world.pass_ms(1_000);
        let mut other = silent.clone();
        other.limits.lookups_max -= n;
        world.forwarder.handle_config(world.now, Arc::new(other));
        world.drain();
    }
    world.pass_ms(1);
    assert_eq!(world.only_answer().rcode, 2);
    let duration = &world.forwarder.stats().routes[0][0].duration;
    assert_eq!(
        duration.buckets[..14].iter().map(nodens_core::stats::Counter::get).sum::<u64>(),
        0,
        "about 4.5 s"
    );
}

#[test]
fn answers_for_a_listener_that_is_gone_are_not_kept() {
    let mut world = World::new(config(1));
    world.ask(World::client(1), &query(1));
    let mut other = config(1);
    other.listeners[0].routes.clear();
    world.forwarder.handle_config(world.now, Arc::new(other.clone()));
    other.listeners.clear();
    world.forwarder.handle_config(world.now, Arc::new(other));
    world.drain();
    assert!(world.answers.is_empty());
}
