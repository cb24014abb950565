//! Upstreams over TCP in a world of ours: pooling, pipelining, serial peers, connections that end, stall or grow old.

mod world;

use nodens_core::config::Config;
use nodens_core::{Path, PathEvent, Rejection, Transport};
use nodens_testkit::{Query, Reply};
use std::collections::{HashMap, HashSet};
use world::{Sent, World, config, name, over_tcp, upstream};

/// An upstream that works on each connection in its own way; time passes in steps of a millisecond.
struct Scene {
    world: World,
    /// When each query was asked, by client port.
    asked: HashMap<u16, u64>,
    /// From asking to answer in ms, with the RCODE.
    took: Vec<(u64, u16)>,
    /// What is going to be answered, and when.
    due: Vec<(u64, Sent)>,
    busy_until: HashMap<Path, u64>,
    ms: u64,
}

impl Scene {
    fn new(config: Config) -> Scene {
        Scene {
            world: World::new(config),
            asked: HashMap::new(),
            took: Vec::new(),
            due: Vec::new(),
            busy_until: HashMap::new(),
            ms: 0,
        }
    }

    fn ask(&mut self, n: u32) {
        let port = (n % 60_000) as u16 + 1;
        self.asked.insert(port, self.ms);
        if let Some(reply) = self.world.ask(World::client(port), &name(n)) {
            let asked = self.asked.remove(&port).expect("asked");
            self.took.push((self.ms - asked, reply.rcode));
        }
    }

    /// One millisecond. `when` says when the upstream will have answered a query that just arrived; `None`: never.
    fn step(&mut self, mut when: impl FnMut(&mut HashMap<Path, u64>, u64, &Sent) -> Option<u64>) {
        self.settle(&mut when);
        self.world.pass_ms(1);
        self.ms += 1;
        let (now, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.due).into_iter().partition(|(at, _)| *at <= self.ms);
        self.due = later;
        for (_, sent) in now {
            // Late answers to what was closed go nowhere.
            if self.world.open.get(&sent.path.slot).is_some_and(|open| open.0 == sent.path) {
                let reply = sent.reply().answer("@ 60 IN A 192.0.2.1").bytes();
                let _ = self.world.deliver(&sent, &reply);
            }
        }
        self.settle(&mut when);
    }

    fn settle(&mut self, when: &mut impl FnMut(&mut HashMap<Path, u64>, u64, &Sent) -> Option<u64>) {
        for sent in std::mem::take(&mut self.world.sent) {
            if let Some(at) = when(&mut self.busy_until, self.ms, &sent) {
                self.due.push((at, sent));
            }
        }
        for (client, bytes) in std::mem::take(&mut self.world.answers) {
            let asked = self.asked.remove(&client.peer.port()).expect("answered once");
            self.took.push((self.ms - asked, Reply::parse(&bytes).rcode));
        }
    }

    fn percentile(&self, percent: usize) -> u64 {
        let mut times: Vec<u64> = self.took.iter().map(|(ms, _)| *ms).collect();
        times.sort_unstable();
        times[(times.len() * percent).div_ceil(100) - 1]
    }

    fn all_answered(&self) {
        assert!(self.asked.is_empty(), "{} without an answer", self.asked.len());
        let failed: Vec<_> = self.took.iter().filter(|(_, rcode)| *rcode != 0).collect();
        assert!(failed.is_empty(), "failures after (ms, rcode): {failed:?}");
    }
}

/// One connection strictly in order, `work` ms each.
fn serial(work: u64) -> impl FnMut(&mut HashMap<Path, u64>, u64, &Sent) -> Option<u64> {
    move |busy, now, sent| {
        let done = busy.get(&sent.path).copied().unwrap_or(0).max(now) + work;
        busy.insert(sent.path, done);
        Some(done)
    }
}

#[test]
fn one_connection_serves_one_query_after_the_other() {
    let mut world = World::new(over_tcp(1));
    let mut paths = HashSet::new();
    for n in 0..100 {
        world.ask(World::client(n as u16), &name(n));
        let sent = world.next_sent();
        assert_eq!(sent.transport, Transport::Tcp);
        paths.insert(sent.path);
        world.deliver(&sent, &sent.reply().answer("@ 60 IN A 192.0.2.1").bytes()).expect("accepted");
        world.pass_ms(10);
    }
    assert_eq!((paths.len(), world.answers.len()), (1, 100));
    assert_eq!(world.forwarder.stats().upstreams[0].connections_reused.get(), 99);
}

#[test]
fn rfc7766_7_answers_out_of_order_reach_their_clients() {
    let mut world = World::new(over_tcp(1));
    for n in 0..20 {
        world.ask(World::client(n as u16), &name(n));
    }
    let sent = std::mem::take(&mut world.sent);
    assert_eq!(
        sent.iter().map(|s| s.path).collect::<HashSet<_>>().len(),
        1,
        "asked at once, they share a connection"
    );
    assert_eq!(
        sent.iter().map(|s| s.bytes[..2].to_vec()).collect::<HashSet<_>>().len(),
        20,
        "IDs are unique on it"
    );
    for sent in sent.iter().rev() {
        world.deliver(sent, &sent.reply().answer("@ 60 IN A 192.0.2.1").bytes()).expect("accepted");
    }
    assert_eq!(world.answers.len(), 20);
    for (client, bytes) in &world.answers {
        let reply = Reply::parse(bytes);
        assert_eq!(reply.id, client.peer.port());
        assert_eq!(reply.question.expect("a question").name, format!("n{}.example.org.", client.peer.port()));
    }
}

#[test]
fn a_serial_upstream_at_1000_misses_a_second_has_a_p99_below_60_ms() {
    let mut scene = Scene::new(over_tcp(1));
    let mut upstream = serial(20);
    for n in 0..5_000 {
        scene.ask(n);
        scene.step(&mut upstream);
    }
    (0..300).for_each(|_| scene.step(&mut upstream));
    scene.all_answered();
    assert!(
        scene.percentile(99) < 60,
        "p99 {} ms, slowest {} ms",
        scene.percentile(99),
        scene.percentile(100)
    );
    assert!(scene.world.open.len() <= 32, "{} connections", scene.world.open.len());
}

#[test]
fn a_parallel_upstream_is_served_by_few_connections() {
    let mut scene = Scene::new(over_tcp(1));
    let mut n = 0;
    // 20 ms each, some 5 ms, so answers overtake each other.
    let mut upstream = |_: &mut HashMap<Path, u64>, now: u64, _: &Sent| {
        n += 1;
        Some(now + if n % 3 == 0 { 5 } else { 20 })
    };
    for n in 0..2_000 {
        scene.ask(n);
        scene.step(&mut upstream);
    }
    (0..100).for_each(|_| scene.step(&mut upstream));
    scene.all_answered();
    assert!(scene.percentile(99) <= 21, "p99 {}", scene.percentile(99));
    assert!(scene.world.open.len() <= 16, "{} connections", scene.world.open.len());
}

#[test]
fn h28_s19_an_upstream_that_ends_each_connection_after_one_answer_loses_nothing() {
    let mut scene = Scene::new(over_tcp(1));
    let mut answered: HashSet<Path> = HashSet::new();
    for n in 0..1_000 {
        scene.ask(n);
        let before = scene.took.len();
        let mut paths = Vec::new();
        scene.step(|_, now, sent| {
            paths.push(sent.path);
            // Only the first on a connection is ever answered.
            answered.insert(sent.path).then_some(now + 3)
        });
        let _ = before;
        // Whoever has answered closes.
        let closing: Vec<Path> = scene
            .world
            .open
            .values()
            .map(|open| open.0)
            .filter(|path| answered.contains(path) && !scene.due.iter().any(|(_, sent)| sent.path == *path))
            .collect();
        for path in closing {
            scene.world.open.remove(&path.slot);
            scene.world.forwarder.handle_path_event(scene.world.now, path, PathEvent::Closed);
            scene.world.drain();
        }
    }
    for _ in 0..200 {
        scene.step(|_, now, sent| answered.insert(sent.path).then_some(now + 3));
    }
    scene.all_answered();
    assert_eq!(scene.world.forwarder.stats().upstreams[0].down.get(), 0);
}

#[test]
fn h29_a_reset_connection_is_replaced_and_everything_on_it_is_asked_again() {
    let mut world = World::new(over_tcp(1));
    // It has served before.
    world.ask(World::client(1), &name(1));
    let first = world.next_sent();
    world.deliver(&first, &first.reply().bytes()).expect("accepted");
    for n in 2..30 {
        world.ask(World::client(n as u16), &name(n));
    }
    let path = world.sent[0].path;
    assert_eq!(path, first.path);
    world.sent.clear();
    world.open.remove(&path.slot);
    world.forwarder.handle_path_event(world.now, path, PathEvent::Closed);
    world.drain();
    assert_eq!(world.sent.len(), 28, "all are out again, at once");
    for sent in std::mem::take(&mut world.sent) {
        world.deliver(&sent, &sent.reply().bytes()).expect("accepted");
    }
    assert_eq!(world.answers.len(), 29);
    let stats = world.forwarder.stats();
    assert_eq!(stats.upstreams[0].probes.get(), 0, "its health is not charged");
}

#[test]
fn f4_a_black_holed_flow_loses_nothing_and_costs_less_than_300_ms() {
    let mut scene = Scene::new(over_tcp(1));
    let mut dead: HashSet<Path> = HashSet::new();
    for n in 0..4_000 {
        if n % 25 == 0 {
            scene.ask(n);
        }
        if n == 1_000 {
            dead = scene.world.open.values().map(|open| open.0).collect();
            assert!(!dead.is_empty());
        }
        let dead = &dead;
        scene.step(|_, now, sent| (!dead.contains(&sent.path)).then_some(now + 1));
    }
    scene.all_answered();
    assert!(scene.percentile(100) < 300, "slowest {} ms", scene.percentile(100));
    assert_eq!(scene.world.forwarder.stats().upstreams[0].down.get(), 0);
}

/// Every connection of a pool dies without a word, and the upstream behind new ones is well: how long the slowest client waits, in ms.
fn slowest_when_all_connections_die(connections_max: u32, connections: u32) -> u64 {
    let mut limited = over_tcp(1);
    limited.limits.connections_per_upstream_max = connections_max;
    let mut scene = Scene::new(limited);
    // A burst of slow questions, each on a connection of its own; then all are idle.
    for n in 0..connections {
        scene.ask(n);
        (0..10).for_each(|_| scene.step(|_, now, _| Some(now + 90)));
    }
    (0..200).for_each(|_| scene.step(|_, now, _| Some(now + 90)));
    scene.all_answered();
    scene.took.clear();
    let dead: HashSet<Path> = scene.world.open.values().map(|open| open.0).collect();
    assert!(dead.len() >= connections as usize / 2, "{} connections", dead.len());
    for n in 0..2_000 {
        if n % 200 == 0 {
            scene.ask(1_000 + n);
        }
        scene.step(|_, now, sent| (!dead.contains(&sent.path)).then_some(now + 1));
    }
    scene.all_answered();
    scene.percentile(100)
}

#[test]
fn f4_a_pool_of_dead_connections_costs_one_stall_and_not_one_for_each() {
    for connections in [1, 8, 16] {
        let slowest = slowest_when_all_connections_die(64, connections);
        assert!(slowest < 300, "{connections} connections: slowest {slowest} ms");
    }
    // Where there is no room for another one, it takes a probe to show that it is not the upstream that is silent.
    for (max, connections) in [(8, 8), (4, 8)] {
        let slowest = slowest_when_all_connections_die(max, connections);
        assert!(slowest < 1_000, "{connections} of {max} connections: slowest {slowest} ms");
    }
}

#[test]
fn f3_a_slow_upstream_is_waited_for() {
    let mut scene = Scene::new(over_tcp(1));
    for n in 0..20 {
        scene.ask(n);
        for _ in 0..50 {
            scene.step(|_, now, _| Some(now + 1_500));
        }
    }
    (0..4_000).for_each(|_| scene.step(|_, now, _| Some(now + 1_500)));
    scene.all_answered();
    assert!(scene.percentile(100) <= 1_501, "slowest {}", scene.percentile(100));
    assert!(scene.world.open.len() <= 32);
}

#[test]
fn f2_one_of_two_tcp_upstreams_silent_and_nobody_waits_a_second() {
    let mut scene = Scene::new(over_tcp(2));
    let silent = upstream(1);
    for n in 0..9_000 {
        if n % 9 == 0 {
            scene.ask(n);
        }
        scene.step(|_, now, sent| (sent.upstream != silent).then_some(now + 2));
    }
    (0..300).for_each(|_| scene.step(|_, now, sent| (sent.upstream != silent).then_some(now + 2)));
    scene.all_answered();
    assert!(scene.percentile(100) <= 250, "slowest {}", scene.percentile(100));
    assert!(scene.percentile(95) < 10, "p95 {}", scene.percentile(95));
}

#[test]
fn i03_an_idle_connection_closes_after_expire_and_an_old_one_is_retired() {
    let mut world = World::new(over_tcp(1));
    world.ask(World::client(1), &name(1));
    let first = world.next_sent();
    world.deliver(&first, &first.reply().bytes()).expect("accepted");
    world.pass_ms(9_999);
    assert_eq!(world.open.len(), 1);
    world.pass_ms(1);
    assert!(world.open.is_empty());
    assert_eq!(world.forwarder.poll_timeout(), None);

    let mut paths = HashSet::new();
    for n in 2..40 {
        world.ask(World::client(n as u16), &name(n));
        let sent = world.next_sent();
        paths.insert(sent.path);
        world.deliver(&sent, &sent.reply().bytes()).expect("accepted");
        world.pass_ms(5_000);
    }
    assert!((3..=5).contains(&paths.len()), "190 s at 45 to 75 s each: {} connections", paths.len());
    assert_eq!(world.open.len(), 1);
}

#[test]
fn s19_unknown_ids_second_answers_and_nonsense() {
    let mut world = World::new(over_tcp(1));
    world.ask(World::client(1), &name(1));
    let first = world.next_sent();
    let reply = first.reply().answer("@ 60 IN A 192.0.2.1").bytes();
    let mut other_id = reply.clone();
    other_id[0] ^= 0xff;
    assert_eq!(world.deliver(&first, &other_id), Err(Rejection::WrongId));
    world.deliver(&first, &reply).expect("accepted");
    assert_eq!(world.deliver(&first, &reply), Err(Rejection::WrongId), "the second answer");
    assert_eq!(world.only_answer().rcode, 0);
    // Nonsense ends the connection, and the question is asked on another.
    world.ask(World::client(2), &name(2));
    let second = world.next_sent();
    assert_eq!(second.path, first.path);
    let wrong = second.reply().question("other.", "A").bytes();
    assert_eq!(world.deliver(&second, &wrong), Err(Rejection::WrongQuestion));
    let third = world.next_sent();
    assert_ne!(third.path, second.path);
    world.deliver(&third, &third.reply().bytes()).expect("accepted");
    assert_eq!(world.only_answer().rcode, 0);
}

#[test]
fn a_late_answer_to_a_lookup_that_is_over_harms_nobody() {
    let mut world = World::new(over_tcp(2));
    world.ask(World::client(1), &name(1));
    let slow = world.next_sent();
    world.pass_ms(100);
    let fast = world.next_sent();
    assert_eq!((slow.upstream, fast.upstream), (upstream(1), upstream(2)));
    world.deliver(&fast, &fast.reply().bytes()).expect("accepted");
    assert_eq!(world.only_answer().rcode, 0);
    world.deliver(&slow, &slow.reply().bytes()).expect("the connection lives");
    assert!(world.answers.is_empty());
    assert_eq!(world.forwarder.stats().replies_late.get(), 1);
}

#[test]
fn the_pool_has_a_ceiling() {
    let mut limited = over_tcp(1);
    limited.limits.connections_per_upstream_max = 4;
    let mut scene = Scene::new(limited);
    for n in 0..300 {
        scene.ask(n);
        scene.step(serial(20));
        assert!(scene.world.open.len() <= 4);
    }
}

#[test]
fn h01_to_h08_the_transport_is_the_clients_unless_the_corefile_says_otherwise() {
    use nodens_core::config::UpstreamTransport::{AsClient, ForceTcp, PreferUdp};
    let rows = [
        (AsClient, Transport::Udp, Transport::Tcp),
        (ForceTcp, Transport::Tcp, Transport::Tcp),
        (PreferUdp, Transport::Udp, Transport::Udp),
    ];
    for (rule, for_udp, for_tcp) in rows {
        let mut ruled = config(1);
        ruled.zones[0].forward.as_mut().expect("a forward").transport = rule;
        let mut world = World::new(ruled);
        world.ask(World::client(1), &name(1));
        world.ask(World::tcp_client(2), &name(2));
        let transports: Vec<_> = world.sent.iter().map(|sent| sent.transport).collect();
        assert_eq!(transports, [for_udp, for_tcp], "{rule:?}");
    }
}

#[test]
fn g04_g05_g07_g08_connects_are_counted_and_end() {
    for (upstreams, attempts, expected) in [(1, Some(1), 1), (1, Some(10), 10), (1, None, 2), (3, None, 6)] {
        let mut ruled = over_tcp(upstreams);
        for upstream in &mut ruled.upstreams {
            upstream.max_fails = 0;
        }
        ruled.zones[0].forward.as_mut().expect("a forward").max_connect_attempts = attempts;
        let mut world = World::new(ruled);
        world.refusing = (1..=upstreams).map(upstream).collect();
        world.ask(World::client(1), &name(1));
        world.pass_ms(1_000);
        assert_eq!(world.only_answer().rcode, 2);
        let stats = world.forwarder.stats();
        let made: u64 = stats.upstreams.iter().map(|u| u.attempts.get()).sum();
        assert_eq!(made, expected, "{upstreams} upstreams, {attempts:?}");
    }
}

#[test]
fn j09_with_all_upstreams_down_one_query_goes_out() {
    let mut world = World::new(over_tcp(2));
    world.ask(World::client(1), &name(1));
    world.pass_ms(4_500);
    assert_eq!(world.only_answer().rcode, 2);
    world.sent.clear();
    world.ask(World::client(2), &name(2));
    world.pass_ms(900);
    assert_eq!(world.only_answer().rcode, 2);
    let real = world.sent.iter().filter(|sent| sent.bytes[12] != 0).count();
    assert_eq!(real, 1, "probes aside");
    assert_eq!(world.forwarder.stats().all_down.get(), 1);
}

#[test]
fn g11_g12_g13_failover_asks_each_upstream_once_and_gives_the_last_word() {
    let ask = |failover: &[u16], rcodes: &[u16]| {
        let mut ruled = config(rcodes.len() as u8);
        let forward = ruled.zones[0].forward.as_mut().expect("a forward");
        forward.failover = failover.iter().map(|code| nodens_core::wire::Rcode(*code)).collect();
        let mut world = World::new(ruled);
        world.ask(World::client(1), &name(1));
        let mut asked = Vec::new();
        while !world.sent.is_empty() {
            let sent = world.next_sent();
            asked.push(sent.upstream);
            let rcode = rcodes[usize::from(match sent.upstream {
                std::net::SocketAddr::V4(v4) => v4.ip().octets()[3],
                std::net::SocketAddr::V6(_) => 0,
            }) - 1];
            world.deliver(&sent, &sent.reply().rcode(rcode).bytes()).expect("accepted");
        }
        (world.only_answer().rcode, asked.len())
    };
    assert_eq!(ask(&[2], &[2, 2]), (2, 2), "G11");
    assert_eq!(ask(&[2, 5], &[2, 5, 0]), (0, 3), "G12");
    assert_eq!(ask(&[], &[2, 5, 0]), (2, 1), "G13");
    assert_eq!(ask(&[2], &[0, 2]), (0, 1), "G14");
}

#[test]
fn g19_excepted_names_are_refused_and_from_itself_is_not() {
    let mut ruled = config(1);
    let forward = ruled.zones[0].forward.as_mut().expect("a forward");
    forward.from = nodens_core::wire::Name::parse("example.org").expect("a name");
    forward.except = vec![nodens_core::wire::Name::parse("example.org").expect("a name")];
    let mut world = World::new(ruled);
    assert_eq!(world.ask(World::client(1), &Query::new("a.example.org.", "A")).expect("at once").rcode, 5);
    assert!(world.ask(World::client(2), &Query::new("example.org.", "A")).is_none());
    assert_eq!(world.ask(World::client(3), &Query::new("example.com.", "A")).expect("at once").rcode, 5);
}

#[test]
fn j08_failfast_answers_at_once_while_all_are_down() {
    let mut ruled = over_tcp(2);
    ruled.zones[0].forward.as_mut().expect("a forward").failfast = true;
    let mut world = World::new(ruled);
    world.ask(World::client(1), &name(1));
    world.pass_ms(4_500);
    assert_eq!(world.only_answer().rcode, 2);
    world.sent.clear();
    assert_eq!(world.ask(World::client(2), &name(2)).expect("at once").rcode, 2);
    assert!(world.sent.is_empty());
}

/// An upstream whose kernel takes everything and whose process hangs for 20 s; old connections stay silent afterwards.
fn hung_and_healed(connections: u32, every_ms: u32) -> (usize, usize) {
    let mut ruled = over_tcp(1);
    ruled.limits.connections_per_upstream_max = connections;
    let mut scene = Scene::new(ruled);
    let mut old: HashSet<Path> = HashSet::new();
    let mut healed_at = 0;
    for n in 0..40_000 {
        if n % every_ms == 0 {
            scene.ask(n);
        }
        if n == 20_000 {
            old = scene.world.open.values().map(|open| open.0).collect();
            healed_at = scene.took.len();
        }
        let old = &old;
        scene.step(|_, now, sent| (n >= 20_000 && !old.contains(&sent.path)).then_some(now + 1));
    }
    let good = scene.took[healed_at..].iter().filter(|(_, rcode)| *rcode == 0).count();
    (good, scene.took.len() - healed_at)
}

#[test]
fn a_pool_of_silent_connections_recovers_with_the_first_probe_that_is_answered() {
    for (connections, every_ms) in [(8, 10), (2, 500), (32, 100)] {
        let (good, all) = hung_and_healed(connections, every_ms);
        // A second for the probe and what was under way, one for the failures that are remembered.
        let lost = 2_000 / every_ms as usize + 10;
        assert!(good + lost >= all, "{connections} connections, one query in {every_ms} ms: {good} of {all}");
    }
}

#[test]
fn a_connection_takes_so_many_queries_and_no_more() {
    let mut ruled = over_tcp(1);
    ruled.limits.connections_per_upstream_max = 1;
    ruled.upstreams[0].max_fails = 0;
    let mut world = World::new(ruled);
    let mut on_path: HashMap<Path, usize> = HashMap::new();
    for n in 0..3_000 {
        world.ask(World::client(n as u16), &name(n));
        if n % 10 == 0 {
            world.pass_ms(1);
        }
        for sent in std::mem::take(&mut world.sent) {
            *on_path.entry(sent.path).or_default() += 1;
        }
    }
    assert!(on_path.values().all(|queries| *queries <= 256), "{on_path:?}");
    world.pass_ms(10_000);
    assert_eq!(world.answers.len(), 3_000, "each has its answer, if only SERVFAIL");
}

#[test]
fn nothing_leaves_before_the_connection_is_there_and_everything_leaves_once() {
    let mut world = World::new(over_tcp(1));
    world.connects = false;
    world.ask(World::client(1), &name(1));
    // Silence while connecting: retired, and another is tried.
    world.pass_ms(450);
    world.ask(World::client(2), &name(2));
    assert!(world.sent.is_empty(), "{:?}", world.sent);
    let opening: Vec<Path> = world.open.values().map(|open| open.0).collect();
    for path in &opening {
        for _ in 0..2 {
            world.forwarder.handle_path_event(world.now, *path, PathEvent::Connected);
            world.drain();
        }
    }
    let mut ids: Vec<_> = world.sent.iter().map(|sent| (sent.path, [sent.bytes[0], sent.bytes[1]])).collect();
    let all = ids.len();
    ids.sort_by_key(|(path, id)| (path.slot, *id));
    ids.dedup();
    assert_eq!((ids.len(), all > 0), (all, true), "no query leaves twice");
}

#[test]
fn failures_of_attempts_that_were_never_counted_do_not_overflow() {
    let mut ruled = config(1);
    ruled.zones[0].forward.as_mut().expect("a forward").max_connect_attempts = Some(10);
    let mut world = World::new(ruled);
    world.ask(World::client(1), &name(1));
    let udp = world.next_sent();
    let _ = world.deliver(&udp, &udp.reply().no_question().bytes());
    let tcp = world.next_sent();
    for path in [tcp.path, udp.path] {
        world.forwarder.handle_path_event(world.now, path, PathEvent::Refused);
        world.drain();
    }
    world.pass_ms(4_500);
    assert_eq!(world.only_answer().rcode, 2);
}

#[test]
fn a_machine_with_few_sockets_uses_those_it_has() {
    let mut ruled = over_tcp(1);
    ruled.limits.paths_max = 1;
    let mut world = World::new(ruled);
    for n in 0..10 {
        world.ask(World::client(n as u16), &name(n));
        world.pass_ms(5);
    }
    assert_eq!(world.sent.len(), 10, "the one connection takes all");

    let mut ruled = config(1);
    ruled.limits.paths_max = 100;
    ruled.limits.udp_single_rate_max = 10;
    let mut world = World::new(ruled);
    for n in 0..1_000 {
        world.ask(World::client(n as u16), &name(n));
        let sent = world.sent.pop().expect("sent at once");
        world.deliver(&sent, &sent.reply().bytes()).expect("accepted");
        world.pass_ms(5);
    }
    assert_eq!(world.forwarder.stats().paths_exhausted.get(), 0);
}

#[test]
fn names_that_are_never_answered_do_not_grow_the_pool() {
    let mut scene = Scene::new(over_tcp(1));
    let mut asked = 0;
    for n in 0..20_000 {
        if n % 10 == 0 {
            asked += 1;
            scene.ask(asked);
        }
        scene.step(|_, now, sent| {
            // One name in a hundred.
            let silent = sent.bytes[13..].iter().take(5).map(|b| u32::from(*b)).sum::<u32>() % 100 == 0;
            (!silent).then_some(now + 1)
        });
    }
    assert!(scene.world.open.len() <= 8, "{} connections", scene.world.open.len());
}

#[test]
fn late_answers_on_shared_udp_paths_are_no_attack() {
    let mut ruled = config(2);
    ruled.limits.udp_single_rate_max = 10;
    let mut scene = Scene::new(ruled);
    for n in 0..3_000 {
        scene.ask(n);
        scene.step(|_, now, sent| {
            Some(now + if sent.upstream == upstream(1) && n % 2 == 0 { 130 } else { 1 })
        });
    }
    (0..300).for_each(|_| scene.step(|_, now, _| Some(now + 1)));
    scene.all_answered();
    assert_eq!(scene.world.forwarder.stats().upstreams[0].paths_opened[1].get(), 0, "nobody asked over TCP");
}
