//! What the clients ask: a Kubernetes node's mix, names that are all cached, or names that are all new.
//!
//! The mix is that of a normal node: short service names that the first search suffix completes, names of other namespaces that
//! the second does, external names that fail under four suffixes before they are asked as they stand (`ndots:5`), each as a
//! pair of A and AAAA from one port; a few names that nobody asks twice; a few PTR, SRV and HTTPS. Hot names follow Zipf's
//! law. What exists is decided by the shape of a name, see [`exists`], so that the upstream needs no data.

use crate::message::{A, AAAA, HEADER_LEN, HTTPS, PTR, SRV, Verdict, labels, name_end};
use crate::random::{Random, Zipf};
use std::str::FromStr;

/// A Pod's search list in wire form, with a cloud's node domain, and last the root: the name as it stands.
const SUFFIXES: [&[u8]; 5] = [
    b"\x07default\x03svc\x07cluster\x05local\0",
    b"\x03svc\x07cluster\x05local\0",
    b"\x07cluster\x05local\0",
    b"\x04node\x08internal\0",
    b"\0",
];
const AS_IT_STANDS: u8 = SUFFIXES.len() as u8 - 1;

/// Services that are asked for. A node sees 20 to 200.
const SERVICES: usize = 100;
/// External names that are asked for more than once. A node sees 50 to 500.
const EXTERNALS: usize = 200;
/// Of 100 lookups, how many use EDNS: most Pods' resolvers do not.
const EDNS_PERCENT: u32 = 15;
/// Kinds of lookup and their weights. One external name is ten queries, one PTR is one, so the shares of queries differ.
const KINDS: [(Kind, u32); 7] = [
    (Kind::Service, 500),
    (Kind::OtherNamespace, 180),
    (Kind::External, 240),
    (Kind::OneHit, 20),
    (Kind::Reverse, 100),
    (Kind::Srv, 72),
    (Kind::Https, 72),
];

/// Lookups that a mix begins with, unmeasured: some 20 000 queries, after which nearly all hot names are cached.
const WARM_LOOKUPS: u32 = 5000;

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Kind {
    Service,
    OtherNamespace,
    External,
    OneHit,
    Reverse,
    Srv,
    Https,
}

/// Which questions a run asks.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum TrafficKind {
    /// A node's mix.
    Mix,
    /// This many names, which are asked for once before the run.
    Hits(u32),
    /// Each name once.
    Misses,
}

impl FromStr for TrafficKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "mix" => Ok(TrafficKind::Mix),
            "hits" => Ok(TrafficKind::Hits(HIT_NAMES)),
            "misses" => Ok(TrafficKind::Misses),
            _ => Err("must be mix, hits or misses".to_string()),
        }
    }
}

/// Names of a run of hits, unless said otherwise: far more than a processor's nearest cache holds, far fewer than any server's cache.
pub const HIT_NAMES: u32 = 1000;

/// One client's lookup: a name, completed by one suffix after the other until it exists.
#[derive(Clone, Debug, Default)]
pub struct Lookup {
    base: Vec<u8>,
    step: u8,
    qtypes: [u16; 2],
    /// One or two of `qtypes`.
    questions: usize,
    /// Whether its queries carry an OPT record.
    pub edns: bool,
}

impl Lookup {
    /// The name to ask for now, in two parts.
    pub fn name(&self) -> [&[u8]; 2] {
        [&self.base, SUFFIXES[usize::from(self.step)]]
    }

    /// The types to ask for, together.
    pub fn qtypes(&self) -> &[u16] {
        &self.qtypes[..self.questions]
    }

    /// The name did not exist: goes on to the next suffix. False if there is none.
    pub fn advance(&mut self) -> bool {
        self.step += 1;
        self.step <= AS_IT_STANDS
    }

    fn set(&mut self, name: &str, first_step: u8, qtypes: &[u16]) {
        self.base = labels(name);
        self.step = first_step;
        self.questions = qtypes.len();
        self.qtypes[..qtypes.len()].copy_from_slice(qtypes);
    }
}

/// A source of lookups.
#[derive(Debug)]
pub struct Traffic {
    source: Source,
    random: Random,
    services: Zipf,
    externals: Zipf,
    /// Makes names unique within a run, and `run` among runs.
    unique: u64,
    run: u64,
}

#[derive(Debug)]
enum Source {
    Kind(TrafficKind),
    /// Each of the names of [`TrafficKind::Hits`] once.
    Warm {
        next: u32,
        names: u32,
    },
    /// So many lookups of the mix.
    WarmMix {
        left: u32,
    },
}

impl Traffic {
    /// Traffic of a kind. Runs with different seeds share their hot names and no other.
    pub fn new(kind: TrafficKind, seed: u64) -> Self {
        Self::from_source(Source::Kind(kind), seed)
    }

    /// What must be asked before a run of this kind; `None` if nothing.
    pub fn before(kind: TrafficKind, seed: u64) -> Option<Self> {
        match kind {
            TrafficKind::Hits(names) => Some(Self::from_source(Source::Warm { next: 0, names }, seed)),
            // Another seed: the hot names are the same, those that nobody asks twice are not.
            TrafficKind::Mix => Some(Self::from_source(Source::WarmMix { left: WARM_LOOKUPS }, !seed)),
            TrafficKind::Misses => None,
        }
    }

    fn from_source(source: Source, seed: u64) -> Self {
        Traffic {
            source,
            random: Random::new(seed),
            services: Zipf::new(SERVICES),
            externals: Zipf::new(EXTERNALS),
            unique: 0,
            run: seed,
        }
    }

    /// Begins the next lookup; false if there are no more.
    pub fn begin(&mut self, lookup: &mut Lookup) -> bool {
        lookup.edns = false;
        match &mut self.source {
            Source::Warm { next, names } => {
                if next >= names {
                    return false;
                }
                lookup.set(&hit_name(*next), AS_IT_STANDS, &[A, AAAA]);
                *next += 1;
            }
            Source::Kind(TrafficKind::Hits(names)) => {
                lookup.set(&hit_name(self.random.below(*names)), AS_IT_STANDS, &[A, AAAA]);
            }
            Source::Kind(TrafficKind::Misses) => {
                let name = format!("{}.new.example.net", self.unique_label());
                lookup.set(&name, AS_IT_STANDS, &[A, AAAA]);
            }
            Source::WarmMix { left: 0 } => return false,
            Source::WarmMix { left } => {
                *left -= 1;
                self.begin_mixed(lookup);
            }
            Source::Kind(TrafficKind::Mix) => self.begin_mixed(lookup),
        }
        true
    }

    fn begin_mixed(&mut self, lookup: &mut Lookup) {
        lookup.edns = self.random.below(100) < EDNS_PERCENT;
        let kind = self.draw_kind();
        // Two of three services have IPv4 alone, as most clusters do; of external names every other.
        let service = self.services.draw(&mut self.random);
        let external = self.externals.draw(&mut self.random);
        let service_label = format!("svc-{service}{}", if service.is_multiple_of(3) { "" } else { "-v4" });
        let external_label = format!("www-{external}{}", if external.is_multiple_of(2) { "" } else { "-v4" });
        match kind {
            Kind::Service => lookup.set(&service_label, 0, &[A, AAAA]),
            Kind::OtherNamespace => {
                lookup.set(&format!("{service_label}.ns-{}", service % 7), 0, &[A, AAAA]);
            }
            Kind::External => lookup.set(&format!("{external_label}.example.com"), 0, &[A, AAAA]),
            Kind::OneHit => {
                let name = format!("{}.bucket.example.net", self.unique_label());
                lookup.set(&name, 0, &[A, AAAA]);
            }
            Kind::Reverse => {
                lookup.set(&format!("{service}.0.96.10.in-addr.arpa"), AS_IT_STANDS, &[PTR]);
            }
            Kind::Srv => {
                let name = format!("_http._tcp.{service_label}.default.svc.cluster.local");
                lookup.set(&name, AS_IT_STANDS, &[SRV]);
            }
            Kind::Https => lookup.set(&format!("{external_label}.example.com"), AS_IT_STANDS, &[HTTPS]),
        }
    }

    fn draw_kind(&mut self) -> Kind {
        let mut point = self.random.below(KINDS.iter().map(|(_, share)| share).sum());
        for (kind, share) in KINDS {
            if point < share {
                return kind;
            }
            point -= share;
        }
        Kind::Service
    }

    fn unique_label(&mut self) -> String {
        self.unique += 1;
        format!("u{:x}-{:x}", self.unique, self.run)
    }
}

fn hit_name(n: u32) -> String {
    format!("hit-{n}.example.com")
}

/// What the authority says about a question, by the shape of its name in wire form.
///
/// In `cluster.local` there are only `svc-….NAMESPACE.svc.cluster.local` and names with `_` below it; nothing is in `node.internal`;
/// all else exists. A first label that ends in `-v4` has no AAAA, and nothing has HTTPS.
pub fn exists(qname: &[u8], qtype: u16) -> Verdict {
    let is_under = |suffix: &[u8]| qname.len() >= suffix.len() && qname.ends_with(suffix);
    let first = label(qname, 0);
    let is_there = if is_under(SUFFIXES[3]) {
        false
    } else if is_under(SUFFIXES[1]) {
        let owner = if first.starts_with(b"_") { 2 } else { 0 };
        label(qname, owner).starts_with(b"svc-") && label_count(qname) == 5 + owner
    } else {
        !is_under(SUFFIXES[2])
    };
    match qtype {
        _ if !is_there => Verdict::NxDomain,
        AAAA if first.ends_with(b"-v4") => Verdict::NoData,
        A | AAAA | PTR | SRV => Verdict::Positive,
        _ => Verdict::NoData,
    }
}

/// The question of a query: its name in wire form, its type, and where it ends.
pub fn question(query: &[u8]) -> Option<(&[u8], u16, usize)> {
    let end = name_end(query, HEADER_LEN)?;
    let tail = query.get(end..end + 4)?;
    Some((&query[HEADER_LEN..end], u16::from_be_bytes([tail[0], tail[1]]), end + 4))
}

fn label(mut name: &[u8], skip: usize) -> &[u8] {
    for _ in 0..skip {
        name = name.split_first().and_then(|(len, rest)| rest.get(usize::from(*len)..)).unwrap_or_default();
    }
    name.split_first().and_then(|(len, rest)| rest.get(..usize::from(*len))).unwrap_or_default()
}

fn label_count(name: &[u8]) -> usize {
    (0..).take_while(|&skip| !label(name, skip).is_empty()).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    struct Asked {
        qtype: u16,
        verdict: Verdict,
        edns: bool,
    }

    /// Asks as a client does; returns all questions, and how often each name was asked for.
    fn play(lookups: usize) -> (Vec<Asked>, HashMap<Vec<u8>, u32>) {
        let mut traffic = Traffic::new(TrafficKind::Mix, 1);
        let (mut lookup, mut asked, mut names) = (Lookup::default(), vec![], HashMap::new());
        for _ in 0..lookups {
            assert!(traffic.begin(&mut lookup), "the mix never ends");
            loop {
                let name = lookup.name().concat();
                *names.entry(name.clone()).or_default() += 1;
                let verdicts: Vec<_> = lookup.qtypes().iter().map(|&t| (t, exists(&name, t))).collect();
                let edns = lookup.edns;
                asked.extend(verdicts.iter().map(|&(qtype, verdict)| Asked { qtype, verdict, edns }));
                if verdicts.iter().any(|(_, v)| *v != Verdict::NxDomain) || !lookup.advance() {
                    break;
                }
            }
        }
        (asked, names)
    }

    #[test]
    fn the_mix_is_a_normal_nodes() {
        let (asked, names) = play(50_000);
        let check = |name: &str, least: f64, most: f64, what: fn(&Asked) -> bool| {
            let count = asked.iter().filter(|question| what(question)).count();
            let share = 100.0 * count as f64 / asked.len() as f64;
            assert!((least..=most).contains(&share), "{name}: {share:.1} % instead of {least} to {most}");
        };
        check("A", 46.5, 48.5, |q| q.qtype == A);
        check("AAAA", 46.5, 48.5, |q| q.qtype == AAAA);
        check("PTR", 1.5, 2.5, |q| q.qtype == PTR);
        check("SRV", 1.0, 2.0, |q| q.qtype == SRV);
        check("HTTPS", 1.0, 2.0, |q| q.qtype == HTTPS);
        check("positive", 27.0, 34.0, |q| q.verdict == Verdict::Positive);
        check("without data", 12.0, 18.0, |q| q.verdict == Verdict::NoData);
        check("no such name", 51.0, 57.0, |q| q.verdict == Verdict::NxDomain);
        check("with EDNS", 13.0, 17.0, |q| q.edns);
        let total: u32 = names.values().sum();
        let once: u32 = names.values().filter(|&&count| count == 1).sum();
        let share = 100.0 * f64::from(once) / f64::from(total);
        assert!((2.0..=10.0).contains(&share), "asked once: {share:.1} %");
    }

    #[test]
    fn external_names_fail_four_times_first() {
        let mut lookup = Lookup::default();
        lookup.set("www-1-v4.example.com", 0, &[A, AAAA]);
        for _ in 0..4 {
            assert_eq!(exists(&lookup.name().concat(), A), Verdict::NxDomain);
            assert!(lookup.advance());
        }
        let name = lookup.name().concat();
        assert_eq!((exists(&name, A), exists(&name, AAAA)), (Verdict::Positive, Verdict::NoData));
        assert_eq!(exists(&name, HTTPS), Verdict::NoData);
        assert!(!lookup.advance());
    }

    #[test]
    fn cluster_names_exist_by_their_shape() {
        let verdict = |name: &str| exists(&[&labels(name)[..], &[0]].concat(), A);
        assert_eq!(verdict("svc-1.default.svc.cluster.local"), Verdict::Positive);
        assert_eq!(verdict("_http._tcp.svc-1.default.svc.cluster.local"), Verdict::Positive);
        assert_eq!(verdict("svc-1.ns-2.default.svc.cluster.local"), Verdict::NxDomain);
        assert_eq!(verdict("www.svc.cluster.local"), Verdict::NxDomain);
        assert_eq!(verdict("svc-1.node.internal"), Verdict::NxDomain);
    }

    #[test]
    fn misses_never_repeat_and_hits_are_warmed() {
        let (mut lookup, mut names) = (Lookup::default(), HashSet::new());
        for seed in [1, 2] {
            let mut misses = Traffic::new(TrafficKind::Misses, seed);
            assert!((0..1000).all(|_| misses.begin(&mut lookup) && names.insert(lookup.name().concat())));
        }
        let mut warm = Traffic::before(TrafficKind::Hits(20), 1).expect("hits are warmed");
        let mut warmed = HashSet::new();
        while warm.begin(&mut lookup) {
            warmed.insert(lookup.name().concat());
        }
        let mut hits = Traffic::new(TrafficKind::Hits(20), 1);
        assert!((0..1000).all(|_| hits.begin(&mut lookup) && warmed.contains(&lookup.name().concat())));
        assert_eq!(warmed.len(), 20);
    }
}
