//! The real process restarted, replaced, killed and robbed while a Pod asks: rows 12-14 and 27-29 of the reliability
//! scoreboard, and F25 of the failures, for `make soak` in the lengths that the rows name and here in short.
//!
//! Each prints what was lost. In short the bounds say only that it works at all, however busy the machine is, but where
//! nothing may be lost nothing may be lost in short either.

mod support;
#[path = "support/world.rs"]
mod world;

use std::thread::sleep;
use std::time::{Duration, Instant};

use nodens_testkit::process::signal::{SIGHUP, SIGTERM};
use nodens_testkit::{Load, Process, Tally};

use support::{PATIENCE, report};
use world::netns::{ADDRESS, NAME};
use world::{COREFILE, World, end, expect};

/// Set to anything: as long and as often as the rows say, and held to their figures.
const LONG: &str = "NODENS_TEST_LONG";

fn is_long() -> bool {
    std::env::var_os(LONG).is_some_and(|value| !value.is_empty())
}

/// The row's figure, or what a busy machine can keep.
fn of<T>(short: T, long: T) -> T {
    if is_long() { long } else { short }
}

/// What came of a load, and what the kernel threw away for want of room in a socket: a machine that has no time for us
/// loses that much, and no agent can help it.
struct Outcome {
    tally: Tally,
    overflowed: usize,
}

impl Outcome {
    /// Lost by the agent's own doing.
    fn lost(&self) -> usize {
        self.tally.lost.saturating_sub(self.overflowed)
    }

    fn told(&self) -> String {
        let Outcome { tally, overflowed } = self;
        let percent = 100.0 * tally.lost as f64 / tally.sent.max(1) as f64;
        format!(
            "{} lost ({percent:.4} %; full sockets threw {overflowed} away) and {} failed of {} in {:.1} s, longest outage \
             {:?}, slowest answer {:?}",
            tally.lost,
            tally.failed,
            tally.sent,
            tally.took.as_secs_f64(),
            tally.outage,
            tally.slowest
        )
    }

    /// Nothing was lost or failed; the short form allows for an upstream that gets no time from a busy machine.
    fn expect_nothing_lost(&self, agent: &Process) {
        let failures = of(self.tally.sent / 50, 0);
        let is_well = self.tally.sent > 200 && self.lost() == 0 && self.tally.failed <= failures;
        assert!(is_well, "{}\n{}", self.told(), agent.dump());
    }
}

/// Datagrams for which a socket of this node had no room, since it is there.
fn overflowed(world: &World) -> usize {
    let text = world.node.shell("cat /proc/net/snmp");
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (rows.next().unwrap_or_default(), rows.next().unwrap_or_default());
    let mut columns = names.split(' ').zip(values.split(' '));
    let found = columns.find(|(name, _)| *name == "RcvbufErrors");
    found.and_then(|(_, value)| value.parse().ok()).expect("the kernel counts them")
}

/// Questions for `time`, or until `meanwhile` has ended if that takes longer.
fn under_load(world: &World, per_second: u32, time: Duration, meanwhile: impl FnOnce()) -> Outcome {
    of_load(world, || world.load(per_second), time, meanwhile)
}

fn of_load(world: &World, start: impl FnOnce() -> Load, time: Duration, meanwhile: impl FnOnce()) -> Outcome {
    let (begun, before) = (Instant::now(), overflowed(world));
    let load = start();
    meanwhile();
    sleep(time.saturating_sub(begun.elapsed()));
    let tally = load.finish();
    Outcome { tally, overflowed: overflowed(world) - before }
}

/// The agent that serves, as its first line says: each runtime has figures of its own.
fn runtime_of(agent: &Process) -> String {
    let line = expect(agent, "[INFO] runtime ");
    line.split([' ', ':']).nth(2).unwrap_or_default().to_owned()
}

#[test]
fn row12_a_restart_without_overlap_leaves_a_hole() {
    const PER_SECOND: u32 = 400;
    const STAYS: &str = "SIGTERM, the address stays";
    let Some(world) = World::new(&["nft"]) else { return };
    for (what, flags) in [
        (STAYS, ["-skipteardown=true"].as_slice()),
        ("SIGTERM, all is torn down", &[]),
        ("SIGKILL", &["-skipteardown=true"]),
    ] {
        let mut lost = vec![];
        for _ in 0..of(1, 5) {
            let mut agent = world.started(flags);
            let runtime = runtime_of(&agent);
            let outcome = under_load(&world, PER_SECOND, Duration::from_secs(of(2, 6)), || {
                // Until the names that are asked again and again are known.
                sleep(Duration::from_millis(of(1_200, 3_000)));
                if what == "SIGKILL" {
                    agent.kill();
                } else {
                    end(&mut agent);
                }
                agent = world.start(flags);
                expect(&agent, "[INFO] ready");
            });
            report(&format!("row 12, {what}, then a start ({runtime}): {}", outcome.told()));
            assert!(outcome.tally.outage < Duration::from_secs(of(10, 1)), "{}", outcome.told());
            lost.push(outcome.lost());
            end(&mut agent);
        }
        lost.sort_unstable();
        // The row is about the first: an address that is away has to come back, and what is killed cannot choose its moment.
        assert!(what != STAYS || lost[lost.len() / 2] <= of(usize::MAX, 2), "{lost:?}");
    }
}

#[test]
fn row13_f20_upgrades_that_overlap_lose_nothing() {
    let upgrades = of(3, 100);
    let Some(world) = World::new(&["nft"]) else { return };
    let mut agent = world.started(&[]);
    let runtime = runtime_of(&agent);
    let outcome = under_load(&world, 2_000, Duration::ZERO, || {
        for _ in 0..upgrades {
            let next = world.started(&[]);
            end(&mut agent);
            agent = next;
        }
    });
    report(&format!(
        "row 13, {upgrades} overlapping upgrades at 2000 queries a second ({runtime}): {}",
        outcome.told()
    ));
    outcome.expect_nothing_lost(&agent);
    assert!(world.has_address() && world.rules() == 8, "{}", agent.dump());
    end(&mut agent);
    assert!(!world.has_address() && world.rules() == 0, "{}", agent.dump());
}

#[test]
fn row14_f16_of_two_agents_one_is_killed_again_and_again() {
    const PER_SECOND: u32 = 2_000;
    // What is asked of an upstream is lost with who asked it, so the row is about names that are in the cache. The other load shows that
    // no more than that is lost.
    for (what, is_known, kills) in
        [("known names", true, of(3, 150)), ("every fourth takes 20 ms", false, of(3, 30))]
    {
        let pause = of(Duration::from_millis(500), Duration::from_secs(2));
        let Some(world) = World::new(&["nft"]) else { return };
        let (mut one, mut other) = (world.started(&[]), world.started(&[]));
        let runtime = runtime_of(&one);
        let load = || if is_known { world.load_known(PER_SECOND) } else { world.load(PER_SECOND) };
        let outcome = of_load(&world, load, Duration::ZERO, || {
            for _ in 0..kills {
                sleep(pause);
                one.kill();
                one = std::mem::replace(&mut other, world.started(&[]));
            }
        });
        let each = outcome.lost() as f64 / f64::from(kills);
        let told = outcome.told();
        report(&format!(
            "row 14, {kills} kills, one each {pause:?}, with a second agent, {what} ({runtime}): {each:.2} lost for each kill; {told}"
        ));
        assert!(outcome.tally.outage < Duration::from_secs(of(5, 1)), "{told}");
        assert!(!is_known || outcome.lost() * of(0, 10_000) <= outcome.tally.sent, "{told}");
        end(&mut one);
        end(&mut other);
        assert!(!world.has_address() && world.rules() == 0, "{}", other.dump());
    }
}

#[test]
fn row27_f13_the_address_is_deleted_again_and_again() {
    let times = of(4, 100);
    let Some(world) = World::new(&["nft"]) else { return };
    let mut agent = world.started(&[]);
    let outcome = under_load(&world, 1_000, Duration::ZERO, || {
        for n in 0..times {
            if n % 2 == 0 {
                world.node.run("ip", &["address", "del", &format!("{ADDRESS}/32"), "dev", NAME]);
            } else {
                world.node.run("ip", &["link", "del", NAME]);
            }
            sleep(Duration::from_millis(300));
        }
    });
    report(&format!("row 27, address or interface deleted {times} times: {}", outcome.told()));
    let longest = Duration::from_millis(of(5_000, 200));
    assert!(outcome.tally.outage < longest, "{}\n{}", outcome.told(), agent.dump());
    assert!(world.resolves() && world.has_address());
    end(&mut agent);
}

#[test]
fn row28_f14_rules_that_are_flushed_each_second_lose_nothing() {
    let flushes = of(2, 60);
    for (back_end, flush) in [
        ("nftables", "nft flush ruleset"),
        ("iptables", "iptables -F; iptables -t raw -F; ip6tables -t raw -F"),
    ] {
        let Some(world) = World::new(&["nft", "iptables"]) else { return };
        let mut agent = world.started(&[&format!("-packetrules={back_end}")]);
        let outcome = under_load(&world, 1_000, Duration::ZERO, || {
            for _ in 0..flushes {
                world.node.shell(flush);
                sleep(Duration::from_secs(1));
            }
        });
        report(&format!("row 28, rules of {back_end} flushed {flushes} times: {}", outcome.told()));
        outcome.expect_nothing_lost(&agent);
        end(&mut agent);
    }
}

/// Numbers that look random and are the same in each run (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

#[test]
fn row29_f26_sigterm_at_any_moment_ends_it_in_time() {
    let times = of(8_usize, 200);
    let Some(world) = World::new(&["nft"]) else { return };
    let mut dice = Dice(0x6e6f_6465_6e73);
    let load = world.load(200);
    let (mut worst, mut left) = (Duration::ZERO, 0);
    for n in 0..times {
        let mut agent = world.start(&[]);
        // From before the first line of the program to well after the start.
        sleep(Duration::from_millis(dice.below(300)));
        // Every second one while it takes a new Corefile, if it has got so far that the signal does not end it.
        if n % 2 == 0 && agent.wait_for_line("[INFO] ready", Duration::ZERO).is_some() {
            world.directory.write("Corefile", &COREFILE.replace("cache 30", &format!("cache {}", 30 + n)));
            agent.signal(SIGHUP);
            sleep(Duration::from_millis(dice.below(40)));
        }
        let began = Instant::now();
        agent.signal(SIGTERM);
        assert!(agent.wait(PATIENCE).is_some(), "it does not end: {}", agent.dump());
        worst = worst.max(began.elapsed());
        left += usize::from(world.has_address() || world.rules() > 0);
    }
    let tally = load.finish();
    report(&format!(
        "row 29, SIGTERM at {times} moments of a start, a reload and of serving, under {} queries: worst end {worst:?}, \
         {left} times something was left on the node",
        tally.sent
    ));
    assert!(worst < Duration::from_secs(8), "{worst:?}");
    // A kernel that is busy for longer than the agent's patience keeps what it was told to remove; the next end takes it.
    assert!(left <= of(1, 0), "{left} of {times}");
    let mut agent = world.started(&[]);
    end(&mut agent);
    assert!(!world.has_address() && world.rules() == 0, "{}", agent.dump());
}

#[test]
fn f25_a_stop_that_is_killed_at_any_moment_and_one_clean_start_end_in_the_desired_state() {
    let times = of(6_usize, 100);
    let Some(world) = World::new(&["nft"]) else { return };
    let mut dice = Dice(0x7374_6f70);
    let (mut slowest, mut killed) = (Duration::ZERO, 0);
    for n in 0..times {
        // With and without teardown: half of the stops have an interface and rules to remove.
        let flags: &[&str] = if n % 2 == 0 { &[] } else { &["-skipteardown=true"] };
        let mut agent = world.started(flags);
        agent.signal(SIGTERM);
        // A stop takes some tens of milliseconds.
        sleep(Duration::from_micros(dice.below(40_000)));
        killed += usize::from(agent.is_running());
        agent.kill();
        let began = Instant::now();
        let mut agent = world.start(&[]);
        while !world.resolves_within(ADDRESS, Duration::from_millis(20)) {
            assert!(began.elapsed() < PATIENCE, "{}", agent.dump());
        }
        slowest = slowest.max(began.elapsed());
        expect(&agent, "[INFO] packet rules by ");
        assert!(world.has_address() && world.rules() == 8, "{}", agent.dump());
        end(&mut agent);
        assert!(!world.has_address() && world.rules() == 0, "{}", agent.dump());
    }
    report(&format!(
        "F25, {times} stops, {killed} of them killed before they had ended: one start later a Pod is answered after {slowest:?} at \
         worst, and its end leaves nothing"
    ));
    assert!(killed > 0, "no kill was early enough");
    assert!(slowest < of(Duration::from_secs(5), Duration::from_secs(1)), "{slowest:?}");
}
