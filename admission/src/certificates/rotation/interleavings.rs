//! Every interleaving of two replicas, with a crash at every point and time passing between any two of their reads and writes.
//!
//! The world is small and exact: two versioned objects, API servers that lag behind them, two replicas whose looks are four moments (the clock,
//! the configuration, the Secret, the write), and a clock that all of it shares. The search visits every state that can be reached in any
//! order, and holds the promises of [`super`] against each. From every state it also lets both replicas run on undisturbed and
//! expects a steady end. To show that it can find what it looks for, it is also run over replicas that break a rule.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::*;

/// Which rule a replica breaks, for the tests that must fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    AllKept,
    /// The Secret is read before the configuration.
    SecretFirst,
    /// Row 1 goes by a configuration that was read before the Secret.
    FoundsOnOldView,
    /// The configuration is written whatever its version.
    BlindPublish,
    /// What was published is used at once.
    NoSettling,
    /// The date of row 5 forgets the life of leaves.
    RetiresAtOnce,
    /// A leaf's life counts from when it is signed, two units after the Secret was read.
    LeafFromNow,
}

#[derive(Clone, Copy, Debug)]
struct Setup {
    rule: Rule,
    times: Times,
    /// How far API servers' views lag behind.
    lag: u64,
    /// The second replica's clock is ahead by this.
    ahead: u64,
    /// How often replicas may crash, and the Secret be deleted, on one way.
    crashes: u8,
    deletions: u8,
    /// How many units of time replicas may be held up within a look, together, on one way.
    pauses: u8,
    horizon: u64,
}

/// Time is counted in small units: an authority is renewed after 16 of its 24, a leaf after 2 of its 3.
const TIMES: Times = Times { ca_life_s: 24, leaf_life_s: 3, settle_s: 1, skew_s: 1 };

/// The age of the first authority when a search begins: a rotation is due.
const AGE: u64 = 16;

/// What `make test` searches; in `make soak` replicas are held up for longer.
const SETUP: Setup = Setup {
    rule: Rule::AllKept,
    times: TIMES,
    lag: 1,
    ahead: 0,
    crashes: 0,
    deletions: 0,
    pauses: 2,
    horizon: 7,
};

/// Whether to search for minutes: set in the environment.
fn is_long() -> bool {
    std::env::var_os("NODENS_TEST_LONG").is_some()
}

/// For [`Setup::pauses`]: as long as there is time.
const ALWAYS: u8 = u8::MAX;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum At {
    Rest,
    /// The first object was read.
    Half {
        began: u64,
        held: Option<(Held, u64)>,
        live: Option<Live>,
    },
    /// There is no Secret: the configuration is read again.
    Founds,
    /// A write was decided.
    Writes {
        step: Step,
        secret_version: Option<u64>,
        config_version: String,
        held: Option<Held>,
        bundle: Vec<Trusted>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Replica {
    at: At,
    memory: Memory,
    leaf: Option<Leaf>,
    /// What `/readyz` goes by: its last look found its leaf's issuer trusted.
    serves: bool,
    /// It has finished a look in this unit of time. Time passes for those that have, and for those that are held up within one; being held up
    /// before a look is the same as after its first read, only with less to go wrong.
    looked: bool,
}

const NEW: Replica =
    Replica { at: At::Rest, memory: Memory { unchanged: None }, leaf: None, serves: false, looked: false };

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    now: u64,
    secret: Option<(Held, u64)>,
    config: (Vec<Trusted>, u64),
    /// What API servers may still see: earlier bundles, and until when they were the present one.
    seen: Vec<(Vec<Trusted>, u64)>,
    /// For versions and authorities that differ.
    count: u64,
    replicas: [Replica; 2],
    crashes: u8,
    deletions: u8,
    pauses: u8,
    /// An authority was made because there was none: the one case where API servers may find out later than replicas.
    founded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Step(usize),
    Crash(usize),
    Tick,
    DeleteSecret,
}

impl World {
    /// Before the first replica starts.
    fn empty() -> Self {
        let config = (Vec::new(), 0);
        let replicas = [NEW, NEW];
        let (crashes, deletions, pauses, founded) = (0, 0, 0, false);
        Self {
            now: 100,
            secret: None,
            config,
            seen: Vec::new(),
            count: 0,
            replicas,
            crashes,
            deletions,
            pauses,
            founded,
        }
    }

    /// After the first authority has been trusted for long.
    fn steady(setup: &Setup) -> Self {
        let mut world = Self::empty();
        let active = world.authority(setup, 0);
        world.config = (vec![active.certificate.clone()], 1);
        world.secret = Some((Held { active, next: None, previous: Vec::new(), retire_at_s: None }, 2));
        world.count = 3;
        world.now += AGE - 1;
        // Each replica has been there for a while.
        for i in 0..2 {
            (0..2).for_each(|_| world.step(i, setup));
        }
        world.now += 1;
        world.replicas.iter_mut().for_each(|replica| replica.looked = false);
        world
    }

    fn authority(&mut self, setup: &Setup, replica: usize) -> Authority {
        self.count += 1;
        let from = self.clock(setup, replica);
        let certificate = Trusted {
            der: Arc::from(self.count.to_be_bytes()),
            not_before_s: from,
            not_after_s: from + setup.times.ca_life_s,
        };
        Authority { certificate, key_pem: Arc::from("") }
    }

    fn clock(&self, setup: &Setup, replica: usize) -> u64 {
        self.now + if replica == 1 { setup.ahead } else { 0 }
    }

    fn live(&self) -> Live {
        Live { version: self.config.1.to_string(), bundles: vec![Some(self.config.0.clone())] }
    }

    fn set_config(&mut self, bundle: Vec<Trusted>) {
        self.count += 1;
        let old = std::mem::replace(&mut self.config, (bundle, self.count));
        self.seen.push((old.0, self.now));
    }

    fn set_secret(&mut self, held: Option<Held>) {
        self.count += 1;
        let version = self.count;
        self.secret = held.map(|held| (held, version));
    }

    /// How many replicas are within a look.
    fn held_up(&self) -> u8 {
        self.replicas.iter().filter(|replica| replica.at != At::Rest).count() as u8
    }

    fn act(&mut self, act: Act, setup: &Setup) {
        match act {
            Act::Tick => {
                // Where there is no limit, ways of different numbers need not be told apart.
                if setup.pauses < ALWAYS {
                    self.pauses = self.pauses.saturating_add(self.held_up());
                }
                self.now += 1;
                let (now, lag) = (self.now, setup.lag);
                self.seen.retain(|(_, until)| until + lag > now);
                self.replicas.iter_mut().for_each(|replica| replica.looked = false);
            }
            Act::Crash(i) => {
                self.crashes += 1;
                self.replicas[i] = NEW;
            }
            Act::DeleteSecret => {
                self.deletions += 1;
                self.set_secret(None);
            }
            Act::Step(i) => self.step(i, setup),
        }
    }

    fn step(&mut self, i: usize, setup: &Setup) {
        let mut replica = std::mem::replace(&mut self.replicas[i], NEW);
        let clock = self.clock(setup, i);
        replica.at = match std::mem::replace(&mut replica.at, At::Rest) {
            At::Rest if setup.rule == Rule::SecretFirst => {
                At::Half { began: clock, held: self.secret.clone(), live: None }
            }
            At::Rest => At::Half { began: clock, held: None, live: Some(self.live()) },
            At::Half { began, held, live } => {
                let (held, live) = match live {
                    Some(live) => (self.secret.clone(), live),
                    None => (held, self.live()),
                };
                self.look(i, &mut replica, began, clock, held, live, setup)
            }
            At::Founds => {
                let live = self.live();
                let look = Look { began_s: clock, ended_s: clock, held: None, live: Some(&live) };
                let new = self.authority(setup, i);
                let held = apply(Step::Found, &look, &setup.times, Some(new));
                let config_version = live.version.clone();
                At::Writes {
                    step: Step::Found,
                    secret_version: None,
                    config_version,
                    held,
                    bundle: Vec::new(),
                }
            }
            At::Writes { step, secret_version, config_version, held, bundle } => {
                let is_present = self.secret.as_ref().map(|(_, version)| *version) == secret_version;
                if step == Step::Publish {
                    let is_newest = config_version == self.config.1.to_string();
                    if is_newest || setup.rule == Rule::BlindPublish {
                        self.set_config(bundle);
                    }
                } else if is_present {
                    self.founded |= step == Step::Found;
                    self.set_secret(held);
                }
                At::Rest
            }
        };
        replica.looked |= replica.at == At::Rest;
        self.replicas[i] = replica;
    }

    #[expect(clippy::too_many_arguments, reason = "one moment of one replica, all of it")]
    fn look(
        &mut self,
        i: usize,
        replica: &mut Replica,
        began_s: u64,
        ended_s: u64,
        secret: Option<(Held, u64)>,
        live: Live,
        setup: &Setup,
    ) -> At {
        let mut times = setup.times;
        let (held, version) = secret.unzip();
        let look = Look { began_s, ended_s, held: held.as_ref(), live: Some(&live) };
        match setup.rule {
            Rule::NoSettling => times.settle_s = 0,
            Rule::RetiresAtOnce => times.leaf_life_s = 0,
            _ => {}
        }
        let step = decide(&look, &times, &mut replica.memory);
        if let Some(held) = look.held
            && wants_leaf(&look, &times, &replica.memory, replica.leaf.as_ref())
        {
            let issuer = held.active.certificate.clone();
            let from_s = if setup.rule == Rule::LeafFromNow { ended_s + 2 } else { began_s };
            let not_after_s = Leaf::end_s(&Look { began_s: from_s, ..look }, &setup.times, &issuer);
            replica.leaf = Some(Leaf { issuer, from_s, not_after_s });
        }
        let leaf = replica.leaf.as_ref();
        replica.serves = leaf.is_some_and(|leaf| live.trusts(&leaf.issuer) && ended_s < leaf.not_after_s);
        if step == Step::Rest {
            return At::Rest;
        }
        if step == Step::Found && held.is_none() && setup.rule != Rule::FoundsOnOldView {
            return At::Founds;
        }
        let bundle = look.held.map(|held| held.trusted().into_iter().cloned().collect()).unwrap_or_default();
        let new = step.needs_authority().then(|| self.authority(setup, i));
        let held = apply(step, &look, &times, new);
        At::Writes { step, secret_version: version, config_version: live.version.clone(), held, bundle }
    }

    /// The promises; a sentence about the one that is broken.
    fn check(&self) -> Result<(), String> {
        for replica in &self.replicas {
            let Some(leaf) = replica.leaf.as_ref().filter(|_| replica.serves) else { continue };
            // An expired leaf is refused for its date; the replica finds out in its next look.
            if self.now >= leaf.not_after_s {
                continue;
            }
            let views = self.seen.iter().filter(|_| !self.founded).map(|(bundle, _)| bundle);
            if !views.chain([&self.config.0]).all(|bundle| bundle.contains(&leaf.issuer)) {
                return Err(format!("an API server does not trust the leaf in service: {leaf:?}"));
            }
        }
        let places = 1 + usize::from(self.deletions) + 2;
        if self.config.0.len() > places {
            return Err(format!("{} authorities are trusted", self.config.0.len()));
        }
        Ok(())
    }

    /// Both replicas run on, undisturbed: the world must become steady again, by itself and within a rotation.
    fn settles(&self, setup: &Setup) -> Result<(), String> {
        let mut world = self.clone();
        for _ in 0..2 * (setup.times.ca_life_s + setup.times.leaf_life_s) + 8 {
            world.act(Act::Tick, setup);
            for _ in 0..12 {
                world.act(Act::Step(0), setup);
                world.act(Act::Step(1), setup);
                world.check()?;
            }
            let Some((held, _)) = &world.secret else { continue };
            let good = |replica: &Replica| {
                replica.serves
                    && replica.leaf.as_ref().is_some_and(|leaf| leaf.issuer == held.active.certificate)
            };
            if held.phase() == 1 && world.live().is_in_step(held) && world.replicas.iter().all(good) {
                return Ok(());
            }
        }
        Err("it does not become steady again".into())
    }
}

/// What a search found out.
struct Found {
    states: usize,
    /// Steps that were carried out in some state.
    steps: HashSet<Step>,
    broken: Option<String>,
}

/// All states that can be reached from `start`.
fn search(start: World, setup: Setup) -> Found {
    let mut found = Found { states: 0, steps: HashSet::new(), broken: None };
    let mut known: HashSet<u64> = HashSet::new();
    let mut waiting = VecDeque::from([start.clone()]);
    known.insert(fingerprint(&start, &setup));
    let horizon = start.now + setup.horizon;
    while let Some(world) = waiting.pop_front() {
        found.states += 1;
        // Running on from every state would mostly repeat itself.
        let runs_on = found.states.is_multiple_of(64);
        let checked = world.check().and_then(|()| if runs_on { world.settles(&setup) } else { Ok(()) });
        if let Err(why) = checked {
            found.broken = Some(format!("{why}\nin {world:#?}"));
            return found;
        }
        let acts = [Act::Step(0), Act::Step(1), Act::Crash(0), Act::Crash(1), Act::DeleteSecret, Act::Tick];
        for act in acts {
            let may = match act {
                Act::Step(_) => true,
                Act::Crash(i) => world.crashes < setup.crashes && world.replicas[i] != NEW,
                Act::DeleteSecret => world.deletions < setup.deletions && world.secret.is_some(),
                Act::Tick => {
                    let all_looked =
                        world.replicas.iter().all(|replica| replica.looked || replica.at != At::Rest);
                    let may_wait = world.pauses.saturating_add(world.held_up()) <= setup.pauses;
                    world.now < horizon && all_looked && may_wait
                }
            };
            if !may {
                continue;
            }
            if let Act::Step(i) = act
                && let At::Writes { step, .. } = &world.replicas[i].at
            {
                found.steps.insert(*step);
            }
            let mut next = world.clone();
            next.act(act, &setup);
            if known.insert(fingerprint(&next, &setup)) {
                waiting.push_back(next);
            }
        }
    }
    found
}

/// Versions and authorities are only ever compared, and replicas with equal clocks are alike: states that differ in nothing but their
/// numbers, or in who is who, are one state.
fn fingerprint(world: &World, setup: &Setup) -> u64 {
    let one = Namer::digest(world, [0, 1]);
    if setup.ahead == 0 { one.min(Namer::digest(world, [1, 0])) } else { one }
}

/// Hashes a world with names in the order of their appearance.
#[derive(Default)]
struct Namer {
    names: Vec<u64>,
    hasher: DefaultHasher,
}

impl Namer {
    fn digest(world: &World, order: [usize; 2]) -> u64 {
        let mut namer = Self::default();
        let World { now, secret, config, seen, count: _, replicas, crashes, deletions, pauses, founded } =
            world;
        (now, crashes, deletions, pauses, founded, seen.len()).hash(&mut namer.hasher);
        namer.bundle(&config.0);
        namer.name(config.1);
        namer.versioned(secret.as_ref());
        for (bundle, until) in seen {
            until.hash(&mut namer.hasher);
            namer.bundle(bundle);
        }
        for Replica { at, memory, leaf, serves, looked } in order.map(|i| &replicas[i]) {
            (serves, looked, std::mem::discriminant(at), leaf.is_some(), memory.unchanged.is_some())
                .hash(&mut namer.hasher);
            if let Some(leaf) = leaf {
                (leaf.from_s, leaf.not_after_s).hash(&mut namer.hasher);
                namer.bundle([&leaf.issuer]);
            }
            if let Some((version, since_s)) = &memory.unchanged {
                since_s.hash(&mut namer.hasher);
                namer.name(number(version));
            }
            match at {
                At::Rest | At::Founds => {}
                At::Half { began, held, live } => {
                    began.hash(&mut namer.hasher);
                    namer.versioned(held.as_ref());
                    if let Some(live) = live {
                        namer.name(number(&live.version));
                        live.bundles.iter().flatten().for_each(|bundle| namer.bundle(bundle));
                    }
                }
                At::Writes { step, secret_version, config_version, held, bundle } => {
                    (step, secret_version.is_some()).hash(&mut namer.hasher);
                    // A write names one version; the other one does not matter any more.
                    if *step == Step::Publish {
                        namer.name(number(config_version));
                        namer.bundle(bundle);
                    } else {
                        secret_version.iter().for_each(|version| namer.name(*version));
                        held.iter().for_each(|held| namer.held(held));
                    }
                }
            }
        }
        namer.hasher.finish()
    }

    fn name(&mut self, number: u64) {
        let known = self.names.iter().position(|name| *name == number);
        let place = known.unwrap_or_else(|| {
            self.names.push(number);
            self.names.len() - 1
        });
        place.hash(&mut self.hasher);
    }

    fn bundle<'a>(&mut self, bundle: impl IntoIterator<Item = &'a Trusted>) {
        for one in bundle {
            (one.not_before_s, one.not_after_s).hash(&mut self.hasher);
            self.name(u64::from_be_bytes((*one.der).try_into().expect("eight bytes")));
        }
        u64::MAX.hash(&mut self.hasher);
    }

    fn held(&mut self, held: &Held) {
        (held.next.is_some(), held.retire_at_s).hash(&mut self.hasher);
        self.bundle(held.trusted());
    }

    fn versioned(&mut self, secret: Option<&(Held, u64)>) {
        secret.is_some().hash(&mut self.hasher);
        if let Some((held, version)) = secret {
            self.name(*version);
            self.held(held);
        }
    }
}

fn number(version: &str) -> u64 {
    version.parse().expect("versions are numbers here")
}

fn assert_safe(start: World, mut setup: Setup) -> Found {
    if is_long() {
        setup.pauses = setup.pauses.saturating_add(2);
    }
    let found = search(start, setup);
    nodens_testkit::note(&format!("{} states of two replicas: {setup:?}", found.states));
    assert!(found.broken.is_none(), "{}", found.broken.unwrap_or_default());
    found
}

/// That the search finds what a broken rule, or a world outside the assumptions, leads to.
fn assert_found(start: World, setup: Setup) {
    let found = search(start, setup);
    let broken = found.broken.unwrap_or_else(|| panic!("{} states, and nothing found", found.states));
    assert!(broken.starts_with("an API server does not trust the leaf in service"), "{broken}");
}

#[test]
fn two_replicas_rotate_in_every_order_without_a_gap() {
    let setup = Setup { pauses: if is_long() { ALWAYS } else { SETUP.pauses }, ..SETUP };
    let found = assert_safe(World::steady(&setup), setup);
    for step in [Step::Publish, Step::Prepare, Step::Switch, Step::Schedule, Step::Retire] {
        assert!(found.steps.contains(&step), "{step:?} did not happen: the search is too short");
    }
    assert!(found.states > 10_000, "{} states", found.states);
}

#[test]
fn a_crash_at_any_point_leaves_what_others_can_go_on_from() {
    let setup = Setup { crashes: 1, pauses: 1, ..SETUP };
    assert_safe(World::steady(&setup), setup);
}

#[test]
fn clocks_may_differ_by_as_much_as_is_allowed_for_and_no_more() {
    let setup = Setup { ahead: TIMES.skew_s, pauses: 1, ..SETUP };
    assert_safe(World::steady(&setup), setup);
    let setup = Setup { ahead: TIMES.skew_s + 2, pauses: 1, ..SETUP };
    assert_found(World::steady(&setup), setup);
}

#[test]
fn a_secret_that_is_deleted_at_any_point_costs_nothing() {
    let setup = Setup { deletions: 1, pauses: 1, horizon: 3, ..SETUP };
    let found = assert_safe(World::steady(&setup), setup);
    assert!(found.steps.contains(&Step::Found));
}

#[test]
fn the_first_authority_is_made_once_and_published() {
    let setup = Setup { crashes: 1, horizon: 3, ..SETUP };
    let found = assert_safe(World::empty(), setup);
    assert!(found.steps.contains(&Step::Found) && found.steps.contains(&Step::Publish));
}

#[test]
fn the_search_finds_a_switch_before_everybody_trusts() {
    let setup = Setup { rule: Rule::NoSettling, ..SETUP };
    assert_found(World::steady(&setup), setup);
}

#[test]
fn the_search_finds_an_authority_that_is_forgotten_too_early() {
    let setup = Setup { rule: Rule::RetiresAtOnce, ..SETUP };
    assert_found(World::steady(&setup), setup);
}

#[test]
fn the_search_finds_a_leaf_that_outlives_its_authority() {
    let setup = Setup { rule: Rule::LeafFromNow, pauses: 3, ..SETUP };
    assert_found(World::steady(&setup), setup);
}

#[test]
fn the_search_finds_a_stale_replica_that_reads_the_secret_first() {
    let setup = Setup { rule: Rule::SecretFirst, pauses: 3, ..SETUP };
    assert_found(World::steady(&setup), setup);
}

#[test]
fn the_search_finds_an_authority_founded_on_an_old_view() {
    let setup = Setup { rule: Rule::FoundsOnOldView, deletions: 1, ..SETUP };
    assert_found(World::steady(&setup), setup);
}

#[test]
fn the_search_finds_a_stale_replica_that_writes_blindly() {
    let setup = Setup { rule: Rule::BlindPublish, pauses: 3, ..SETUP };
    let mut start = World::steady(&setup);
    // Somebody has added an authority by hand: both replicas are about to take it out again.
    let by_hand = start.authority(&setup, 0).certificate;
    start.config.0.push(by_hand);
    assert_found(start, setup);
}
