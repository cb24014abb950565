//! Everything that can be out of the ordinary in a world, by name.
//!
//! A world's seed first decides which of these exist in it at all, then how strong each is (examples.md §9.4): most worlds lack most
//! of them, which finds more than turning everything on. A strength is how often the thing happens, in thousandths of
//! the occasions that its place in the code has: packets, answers, queries, seconds.

/// What becomes of a hazard when the world is healed.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Group {
    /// How clients ask and what upstreams' answers look like: no fault, stays.
    Habit,
    /// Bounds that the configuration sets: stays.
    Shape,
    /// A fault of the network, an upstream or the host: gone once the world is healed.
    Fault,
}

/// One row of the table.
#[derive(Copy, Clone, Debug)]
pub struct Row {
    /// Which.
    pub hazard: Hazard,
    /// As options and reports print it.
    pub name: &'static str,
    /// What becomes of it.
    pub group: Group,
    /// Least and greatest strength, in thousandths.
    pub strength: (u16, u16),
    /// In how many worlds of a hundred it exists, if the profile does not say otherwise.
    pub worlds: u8,
}

macro_rules! hazards {
    ($($hazard:ident $name:literal $group:ident $low:literal..$high:literal in $worlds:literal : $doc:literal)*) => {
        /// One thing that can be out of the ordinary.
        #[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
        pub enum Hazard { $(#[doc = $doc] $hazard,)* }

        /// All of them, in the order of their numbers.
        pub const TABLE: &[Row] = &[$(Row {
            hazard: Hazard::$hazard,
            name: $name,
            group: Group::$group,
            strength: ($low, $high),
            worlds: $worlds,
        },)*];
    };
}

hazards! {
    ClientLoss "client-loss" Fault 10..300 in 15: "A packet between a client and us is lost."
    ClientDuplicate "client-duplicate" Fault 5..200 in 12: "A client's datagram arrives twice."
    ClientJitter "client-jitter" Fault 50..900 in 12: "A client's datagram is held up, so that others overtake it."
    UpstreamLoss "upstream-loss" Fault 10..300 in 18: "A datagram between us and an upstream is lost."
    UpstreamDuplicate "upstream-duplicate" Fault 5..300 in 12: "A datagram from an upstream arrives twice."
    UpstreamJitter "upstream-jitter" Fault 50..900 in 12: "A datagram from an upstream is held up for up to a second."
    Burst "loss-burst" Fault 100..900 in 10: "For a while everything to and from one upstream is lost."
    OneWay "one-way-blackhole" Fault 100..900 in 10: "For a while one direction of one upstream is lost."
    Unreachable "port-unreachable" Fault 20..600 in 12: "A datagram to an upstream is answered with ICMP port unreachable."
    ForgedIcmp "forged-icmp" Fault 5..100 in 6: "Somebody forges port unreachable for an open path."
    Slow "slow" Fault 50..700 in 15: "An answer takes 0.2 to 5 seconds."
    Dead "dead" Fault 100..1000 in 12: "An upstream is down for a while and answers nothing."
    Servfail "servfail" Fault 30..700 in 14: "An upstream answers SERVFAIL."
    Refused "refused" Fault 30..500 in 10: "An upstream answers REFUSED."
    Notimp "notimp" Fault 20..300 in 8: "An upstream answers NOTIMP."
    OtherRcode "other-rcode" Fault 20..300 in 6: "An upstream answers with an RCODE that nobody expects."
    FormerrToEdns "formerr-to-edns" Fault 1000..1000 in 8: "An upstream answers FORMERR to queries with an OPT record."
    Mute "mute" Fault 300..1000 in 8: "An upstream is well as far as probes can tell, and gives no answers."
    Truncating "truncating" Fault 50..1000 in 12: "An upstream truncates what it sends over UDP."
    WrongId "wrong-id" Fault 20..500 in 10: "An answer comes first with another ID."
    WrongQuestion "wrong-question" Fault 20..500 in 10: "An answer comes first with another question."
    NotAResponse "not-a-response" Fault 20..300 in 8: "An answer comes first without QR or with another opcode."
    WrongClass "wrong-class" Fault 20..300 in 8: "An answer comes first with records of another class."
    Malformed "malformed" Fault 20..500 in 12: "An answer comes first cut short, with false counts or broken names."
    BadOpt "bad-opt" Fault 20..300 in 8: "An answer comes first with two OPT records or an EDNS version that does not exist."
    WrongCase "wrong-case" Habit 50..1000 in 12: "An upstream spells the question in its own way."
    AnswersTwice "answers-twice" Fault 20..400 in 10: "An upstream answers twice, with different data."
    LateDelivery "late-delivery" Fault 100..900 in 10: "What arrives on a path that was closed is handed in all the same."
    OtherPath "other-path" Fault 20..300 in 8: "An answer arrives on another open path to the same upstream."
    TtlZero "ttl-zero" Habit 30..500 in 10: "A TTL is 0."
    TtlTopBit "ttl-top-bit" Habit 30..300 in 8: "A TTL has its top bit set (RFC 2181 §8)."
    TtlHuge "ttl-huge" Habit 30..500 in 12: "A TTL is up to 2^31-1."
    TtlMixed "ttl-mixed" Habit 100..1000 in 25: "The records of one answer have different TTLs."
    NoData "nodata" Habit 30..500 in 25: "A name exists without the type."
    NxDomain "nxdomain" Habit 30..600 in 25: "A name does not exist."
    NoSoa "no-soa" Habit 50..1000 in 12: "A negative answer has no SOA record."
    ForeignSoa "foreign-soa" Habit 50..1000 in 10: "A negative answer's SOA belongs to another zone."
    Referral "referral" Habit 20..300 in 6: "An upstream refers us to others."
    Chain "cname-chain" Habit 50..700 in 15: "An answer begins with CNAME records."
    ChainLoop "cname-loop" Habit 20..300 in 6: "An answer is a CNAME loop or fork."
    Big "big-answers" Habit 30..500 in 12: "An answer has dozens of records."
    Additional "additional" Habit 50..800 in 15: "An answer has additional records."
    OptFirst "opt-first" Habit 100..1000 in 8: "The OPT record stands before other additional records."
    NoOpt "no-opt" Habit 50..1000 in 10: "An upstream leaves the OPT record out."
    ExtendedError "extended-error" Habit 50..1000 in 10: "An upstream explains itself (RFC 8914)."
    Scoped "scoped" Habit 20..400 in 6: "An upstream's answer is for one client subnet only (RFC 7871)."
    TrailingBytes "trailing-bytes" Habit 20..500 in 8: "Bytes follow the last record."
    AdBit "upstream-ad" Habit 100..1000 in 20: "An upstream sets AD."
    NoRa "no-ra" Habit 50..1000 in 8: "An upstream offers no recursion."
    TcpRefuse "tcp-refuse" Fault 50..900 in 10: "An upstream refuses a TCP connection."
    TcpNoAnswer "tcp-no-answer" Fault 50..500 in 8: "A TCP connection never comes about."
    TcpStall "tcp-stall" Fault 50..500 in 12: "A TCP connection is accepted and never brings anything."
    TcpSwallowed "tcp-swallowed" Fault 10..200 in 10: "A TCP connection that served falls silent."
    TcpCutShort "tcp-cut-short" Fault 10..300 in 10: "A TCP connection ends in the middle of a message."
    TcpBytewise "tcp-bytewise" Fault 100..1000 in 10: "A message arrives over TCP in pieces of a few bytes."
    TcpSerial "tcp-serial" Habit 1000..1000 in 12: "An upstream answers one query of a connection after the other."
    TcpCloses "tcp-closes" Fault 50..900 in 10: "An upstream ends the connection after an answer."
    TcpBadLength "tcp-bad-length" Fault 10..200 in 8: "An upstream announces a message that is too short to be one."
    OffPath "off-path-attacker" Fault 100..1000 in 15: "Somebody who sees nothing but knows the port guesses IDs."
    SpoofedClients "spoofed-clients" Habit 20..300 in 8: "Somebody sends a client's query again under that client's address, port and ID."
    Pairs "pairs" Habit 200..1000 in 40: "A and AAAA are asked together from one port."
    Retransmission "retransmission" Habit 300..1000 in 40: "A client repeats itself with the same ID until it is answered."
    SearchList "search-list" Habit 50..600 in 20: "A client tries a name under several suffixes at once."
    MixedCase "mixed-case" Habit 100..1000 in 25: "A client spells names in its own way."
    Edns "edns" Habit 200..1000 in 60: "A client sends an OPT record with a size from 0 to 4096."
    DoBit "do" Habit 100..700 in 25: "A client wants DNSSEC records."
    CdBit "cd" Habit 50..500 in 15: "A client wants no validation."
    AdWanted "ad-wanted" Habit 50..700 in 15: "A client wants to know about AD."
    RdZero "rd-0" Habit 30..400 in 12: "A client desires no recursion."
    TcpClients "tcp-clients" Habit 50..1000 in 30: "A client asks over TCP."
    HangUp "client-hangs-up" Habit 50..600 in 10: "A client's connection is gone before its answer."
    SlowSenders "slow-senders" Habit 100..1000 in 10: "A client's TCP bytes arrive one by one."
    Garbage "garbage" Habit 20..300 in 15: "A client sends what is no query."
    SamePort "same-port" Habit 200..1000 in 15: "A client asks many things from one port, with IDs that repeat."
    Thunder "thunder" Habit 200..1000 in 15: "All clients ask for the same name at the same moment."
    LateTimers "late-timers" Fault 100..900 in 15: "A wake-up comes late."
    Pauses "pauses" Fault 100..900 in 8: "The machine is suspended for seconds to minutes."
    Coarse "coarse-clock" Fault 1000..1000 in 15: "The clock moves in steps of milliseconds."
    Batches "batches" Habit 1000..1000 in 30: "A worker takes several packets in one turn."
    WallClock "wall-clock" Fault 100..900 in 8: "The wall clock jumps."
    Reload "reload" Fault 100..900 in 15: "A new configuration with other rules."
    UpstreamChange "upstream-change" Fault 100..900 in 10: "A new configuration with other upstreams."
    Flush "flush" Fault 100..700 in 6: "A zone is flushed from the cache."
    Upgrade "upgrade" Fault 1000..1000 in 6: "A new process takes over while the old one drains."
    SendRefused "send-refused" Fault 10..300 in 8: "This machine cannot send a datagram."
    PortTaken "port-taken" Fault 50..900 in 8: "A drawn source port is in use."
    OpenFails "open-fails" Fault 10..300 in 8: "This machine has no descriptors left."
    BusyLock "busy-lock" Fault 50..1000 in 10: "The cache's lock is in use when an answer is to be kept."
    SmallMemory "small-memory" Shape 1000..1000 in 10: "The cache has a few kilobytes."
    FewEntries "few-entries" Shape 1000..1000 in 10: "The zone may keep a few entries."
    FewPaths "few-paths" Shape 1000..1000 in 8: "Few upstream sockets may be open at once."
    FewWaiters "few-waiters" Shape 1000..1000 in 8: "Few clients may wait."
    FewLookups "few-lookups" Shape 1000..1000 in 8: "Few lookups may be in flight."
    SharedSockets "shared-sockets" Shape 1000..1000 in 10: "UDP sockets to upstreams are shared at a low rate."
    Ceiling "max-concurrent" Shape 1000..1000 in 6: "A zone has `max_concurrent`."
    Failfast "failfast" Shape 1000..1000 in 8: "A zone has `failfast_all_unhealthy_upstreams`."
    Failover "failover" Shape 1000..1000 in 10: "A zone has `failover`."
    NoCache "no-cache" Shape 1000..1000 in 5: "A zone has no cache."
}

/// How many there are.
pub const COUNT: usize = TABLE.len();

/// A set of hazards.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub struct Hazards(u128);

impl Hazards {
    /// Whether `hazard` is in it.
    #[inline]
    pub const fn has(self, hazard: Hazard) -> bool {
        self.0 & (1 << hazard as u32) != 0
    }

    /// Puts one in.
    pub const fn insert(&mut self, hazard: Hazard) {
        self.0 |= 1 << hazard as u32;
    }

    /// Takes one out.
    pub const fn remove(&mut self, hazard: Hazard) {
        self.0 &= !(1 << hazard as u32);
    }

    /// Those that are in it.
    pub fn iter(self) -> impl Iterator<Item = Hazard> {
        TABLE.iter().map(|row| row.hazard).filter(move |hazard| self.has(*hazard))
    }

    /// What is left of it once the world is healed.
    #[must_use]
    pub fn healed(mut self) -> Self {
        TABLE.iter().filter(|row| row.group == Group::Fault).for_each(|row| self.remove(row.hazard));
        self
    }
}

impl Hazard {
    /// Its row of the table.
    pub const fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The one with this name.
    pub fn parse(name: &str) -> Option<Hazard> {
        TABLE.iter().find(|row| row.name == name).map(|row| row.hazard)
    }
}

// The set is one number.
const _: () = assert!(COUNT <= 128);
