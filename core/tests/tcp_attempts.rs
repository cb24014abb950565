//! Attempts over TCP: what counts as one, and what is asked again.

mod world;

use nodens_core::PathEvent;
use world::{Sent, World, name, over_tcp};

#[test]
fn what_is_out_when_an_upstream_comes_back_is_asked_again_whatever_max_connect_attempts_says() {
    let mut ruled = over_tcp(1);
    ruled.zones[0].forward.as_mut().expect("a forward").max_connect_attempts = Some(1);
    let mut world = World::new(ruled);
    world.ask(World::client(1), &name(1));
    let is_probe = |sent: &Sent| sent.bytes[12] == 0;
    // Silent for so long that it is down; then a client asks, and a probe is answered.
    world.pass_ms(4_600);
    assert_eq!(world.only_answer().rcode, 2);
    world.pass_ms(2_000);
    world.sent.clear();
    world.ask(World::client(2), &name(2));
    assert!(world.sent.iter().any(|sent| !is_probe(sent)), "one query goes out");
    world.pass_ms(600);
    let probe = world.sent.iter().rfind(|sent| is_probe(sent)).expect("a probe").clone();
    world.sent.clear();
    world.deliver(&probe, &probe.reply().bytes()).expect("accepted");
    let again = world.sent.iter().find(|sent| !is_probe(sent)).expect("asked again").clone();
    world.deliver(&again, &again.reply().answer("@ 60 IN A 192.0.2.1").bytes()).expect("accepted");
    assert_eq!(world.only_answer().rdatas("A"), ["192.0.2.1"]);
}

#[test]
fn a_question_goes_once_over_a_connection_and_counts_once_when_that_is_refused() {
    let mut ruled = over_tcp(1);
    ruled.limits.connections_per_upstream_max = 1;
    ruled.upstreams[0].max_fails = 0;
    let mut world = World::new(ruled.clone());
    world.ask(World::client(1), &name(1));
    world.pass_ms(3_000);
    assert_eq!(world.sent.len(), 1, "silent, and no other may be opened");

    let mut world = World::new(ruled);
    world.connects = false;
    world.ask(World::client(1), &name(1));
    world.pass_ms(1_000);
    let connecting = world.open.values().next().expect("a path").0;
    world.open.clear();
    world.connects = true;
    world.forwarder.handle_path_event(world.now, connecting, PathEvent::Refused);
    world.drain();
    world.pass_ms(100);
    let sent = world.next_sent();
    world.deliver(&sent, &sent.reply().answer("@ 60 IN A 192.0.2.1").bytes()).expect("accepted");
    assert_eq!(world.only_answer().rdatas("A"), ["192.0.2.1"], "one of two attempts was refused");
}
