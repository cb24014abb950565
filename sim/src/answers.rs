//! How upstreams make up answers: each one new, with its number in the record data, and with what the RFCs make of it.

use crate::draw::Draw;
use crate::hazards::Hazard;
use crate::message::{Asked, OPT, Opt, flag};
use crate::questions::{A, AAAA, ANY, CNAME, QuestionId, SRV, Space, TXT};
use crate::said::{Facts, Nature, Version};
use crate::world::World;

const IN: u16 = 1;
const NS: u16 = 2;
const SOA: u16 = 6;
const NOERROR: u16 = 0;
const FORMERR: u16 = 1;
const SERVFAIL: u16 = 2;
const NXDOMAIN: u16 = 3;
const NOTIMP: u16 = 4;
const REFUSED: u16 = 5;
/// A pointer to the question's name.
const QNAME: [u8; 2] = [0xc0, 12];
/// Links of a chain that resolvers follow (reliability.md V12).
const CHAIN_MAX: usize = 11;
/// A negative answer without a SOA is kept no longer (design §4a).
const SOALESS_TTL_MAX_S: u32 = 5;

/// What a server says about a name.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Content {
    Positive,
    Loop,
    Fork,
    NoData,
    NxDomain,
    Referral,
}

/// TTLs of one answer: each drawn, the least remembered.
struct TtlDraw {
    usual: u32,
    mixed: bool,
    least: Option<u32>,
}

impl TtlDraw {
    fn next(&mut self, draw: &mut Draw, most: u32) -> u32 {
        let ttl = if self.mixed { draw.between(0, u64::from(most)) as u32 } else { self.usual };
        let counts = effective(ttl);
        self.least = Some(self.least.map_or(counts, |least| least.min(counts)));
        ttl
    }
}

/// RFC 2181 §8: a TTL with the top bit set counts as 0.
const fn effective(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 { 0 } else { ttl }
}

impl World {
    /// Makes up an answer and puts it into the book.
    pub(crate) fn make_answer(
        &mut self,
        upstream: usize,
        question: QuestionId,
        asked: &Asked<'_>,
        tcp: bool,
    ) -> Version {
        let at = self.now;
        let facts = Facts {
            question,
            upstream,
            at,
            asked_do: asked.opt.map(|opt| opt.do_bit),
            asked_cd: asked.flags & flag::CD != 0,
            asked_rd: asked.flags & flag::RD != 0,
            rcode: NOERROR,
            flags: 0,
            truncated: false,
            nature: Nature::Relay,
            counts: [0; 3],
            opt: None,
            opt_before: 0,
        };
        self.book.begin();
        if asked.opt.is_some() && self.refuses_edns(upstream) {
            return self.book.end(Facts { rcode: FORMERR, ..facts });
        }
        let facts = self.draw_frame(upstream, facts, asked);
        if let Some((rcode, nature)) = self.draw_refusal(upstream, facts.opt.is_some()) {
            let scoped = facts.opt.is_some_and(|opt| opt.scoped);
            let nature = if scoped { Nature::Relay } else { nature };
            return self.book.end(Facts { rcode, nature, ..facts });
        }
        let truncating = self.ratio(Hazard::Truncating);
        let truncating = !tcp && self.upstreams[upstream].draw.hit(truncating);
        let facts = self.draw_records(upstream, facts);
        let limit = asked.opt.map_or(512, |opt| usize::from(opt.size.max(512)));
        let opt_len = if facts.opt.is_some() { OPT + 17 } else { 0 };
        let room = limit.saturating_sub(crate::message::HEADER + asked.question.len() + opt_len);
        let facts = if truncating || (!tcp && self.book.len() > room) {
            self.truncate(upstream, facts, truncating, room)
        } else {
            facts
        };
        self.book.end(facts)
    }

    /// Cuts an answer: after the records that fit as servers do, or anywhere, even inside a record.
    fn truncate(&mut self, upstream: usize, facts: Facts, anywhere: bool, room: usize) -> Facts {
        let draw = &mut self.upstreams[upstream].draw;
        let fitting = self.book.fitting(room);
        let kept = if anywhere { draw.below(fitting as u64 + 1) as usize } else { fitting };
        let torn_bytes = if anywhere { draw.below(12) as usize } else { 0 };
        let before = self.book.records();
        self.book.cut(kept, torn_bytes);
        // A message that is torn says that it has the record which is not whole, and its OPT is gone with the rest.
        let torn = torn_bytes > 0 && kept < before;
        let mut left = kept as u16 + u16::from(torn);
        let counts = facts.counts.map(|count| {
            let count = count.min(left);
            left -= count;
            count
        });
        let opt = facts.opt.filter(|_| !torn);
        Facts { truncated: true, nature: Nature::Relay, counts, opt, opt_before: 0, ..facts }
    }

    /// Header bits and the OPT record.
    fn draw_frame(&mut self, upstream: usize, facts: Facts, asked: &Asked<'_>) -> Facts {
        let (no_ra, ad, no_opt) =
            (self.ratio(Hazard::NoRa), self.ratio(Hazard::AdBit), self.ratio(Hazard::NoOpt));
        let (error, scoped) = (self.ratio(Hazard::ExtendedError), self.ratio(Hazard::Scoped));
        let draw = &mut self.upstreams[upstream].draw;
        let mut flags = if draw.hit(no_ra) { 0 } else { flag::RA };
        flags |= if draw.hit(ad) { flag::AD } else { 0 };
        let opt = asked.opt.filter(|_| !draw.hit(no_opt)).map(|opt| Opt {
            error: draw.hit(error).then(|| draw.below(30) as u16),
            scoped: draw.hit(scoped),
            ..Opt::plain(1232, opt.do_bit)
        });
        Facts { flags, opt, ..facts }
    }

    /// An answer that is only an RCODE, if it comes to that.
    fn draw_refusal(&mut self, upstream: usize, edns: bool) -> Option<(u16, Nature)> {
        let (servfail, refused, notimp, other) = (
            self.ratio(Hazard::Servfail),
            self.ratio(Hazard::Refused),
            self.ratio(Hazard::Notimp),
            self.ratio(Hazard::OtherRcode),
        );
        let draw = &mut self.upstreams[upstream].draw;
        if draw.hit(servfail) {
            Some((SERVFAIL, Nature::Failure))
        } else if draw.hit(refused) {
            Some((REFUSED, Nature::Relay))
        } else if draw.hit(notimp) {
            Some((NOTIMP, Nature::Failure))
        } else if draw.hit(other) {
            // YXDOMAIN, NOTAUTH, one that is reserved, BADCOOKIE (which needs an OPT to be said).
            let rcode = draw.pick(&[6, 9, 11, 23]);
            Some((if edns { rcode } else { rcode & 0xf }, Nature::Relay)).filter(|(rcode, _)| *rcode > 5)
        } else {
            None
        }
    }

    fn draw_content(&mut self, upstream: usize) -> Content {
        let (nx, nodata, referral, around) = (
            self.ratio(Hazard::NxDomain),
            self.ratio(Hazard::NoData),
            self.ratio(Hazard::Referral),
            self.ratio(Hazard::ChainLoop),
        );
        let draw = &mut self.upstreams[upstream].draw;
        if draw.hit(nx) {
            Content::NxDomain
        } else if draw.hit(nodata) {
            Content::NoData
        } else if draw.hit(referral) {
            Content::Referral
        } else if draw.hit(around) {
            draw.pick(&[Content::Loop, Content::Fork])
        } else {
            Content::Positive
        }
    }

    /// The records, and what they mean.
    fn draw_records(&mut self, upstream: usize, facts: Facts) -> Facts {
        let content = self.draw_content(upstream);
        let (chain, big, additional, opt_first) = (
            self.ratio(Hazard::Chain),
            self.ratio(Hazard::Big),
            self.ratio(Hazard::Additional),
            self.ratio(Hazard::OptFirst),
        );
        let (no_soa, foreign_soa) = (self.ratio(Hazard::NoSoa), self.ratio(Hazard::ForeignSoa));
        let most = self.options.ttl_max_s;
        let mut ttls = self.draw_ttls(upstream);
        let qtype = Space::qtype(facts.question);
        let name = self.space.name(facts.question);
        let soa_owner = (0xc000 | (crate::message::HEADER + name.domain_at) as u16).to_be_bytes();
        let draw = &mut self.upstreams[upstream].draw;
        let book = &mut self.book;
        let sign = Sign { version: book.next(), question: facts.question, upstream };
        let mut counts = [0u16; 3];

        // Whoever asks for the alias itself gets no chain.
        let links = if draw.hit(chain) && !matches!(qtype, CNAME | ANY) { draw.between(1, 14) } else { 0 };
        let mut owner = QNAME.to_vec();
        if matches!(content, Content::Positive | Content::NoData | Content::NxDomain) {
            for link in 0..links as u8 {
                let target = [&[2, b'c', b'a' + link], &QNAME[..]].concat();
                book.record(&owner, CNAME, IN, ttls.next(draw, most), &target);
                owner = target;
                counts[0] += 1;
            }
        }
        let followed = links as usize <= CHAIN_MAX;
        let mut soa_minimum = None;
        match content {
            Content::Positive => {
                let many = if draw.hit(big) { draw.between(20, 120) } else { draw.between(1, 3) };
                // Two aliases at one name would be a fork.
                let many = if qtype == CNAME { 1 } else { many };
                for n in 0..many {
                    let rtype = if qtype == ANY { A } else { qtype };
                    book.record(&owner, rtype, IN, ttls.next(draw, most), &sign.data(rtype, n as u8));
                    counts[0] += 1;
                }
            }
            Content::Loop | Content::Fork => {
                let other = [2, b'l', b'p', 0xc0, 12];
                let (second_owner, second) = match content {
                    Content::Loop => (&other[..], &QNAME[..]),
                    _ => (&QNAME[..], &[2, b'f', b'k', 0xc0, 12][..]),
                };
                book.record(&QNAME, CNAME, IN, ttls.next(draw, most), &other);
                book.record(second_owner, CNAME, IN, ttls.next(draw, most), second);
                counts[0] += 2;
            }
            Content::NoData | Content::NxDomain if draw.hit(no_soa) => {}
            Content::NoData | Content::NxDomain => {
                let foreign = draw.hit(foreign_soa);
                // A number in the data is no TTL, unless the SOA counts.
                let minimum = draw.between(0, 2 * u64::from(most)) as u32;
                let owner = if foreign { &b"\x07foreign\x00"[..] } else { &soa_owner };
                book.record(owner, SOA, IN, ttls.next(draw, most), &sign.soa(minimum));
                soa_minimum = (!foreign).then_some(effective(minimum));
                counts[1] += 1;
            }
            Content::Referral => {
                book.record(&soa_owner, NS, IN, ttls.next(draw, most), &[2, b'n', b's', 0xc0, 12]);
                counts[1] += 1;
            }
        }
        if draw.hit(additional) {
            let many = draw.between(1, 3);
            for n in 0..many {
                let owner = [2, b'a', b'd', 0xc0, 12];
                book.record(&owner, A, IN, ttls.next(draw, most), &sign.data(A, 200 + n as u8));
                counts[2] += 1;
            }
        }
        let opt_before = if draw.hit(opt_first) { counts[2] } else { 0 };
        let least = ttls.least;
        let (rcode, nature) = match content {
            Content::Positive if followed => (NOERROR, Nature::Positive(least.unwrap_or(0))),
            Content::Loop if matches!(qtype, CNAME | ANY) => (NOERROR, Nature::Positive(least.unwrap_or(0))),
            Content::Fork if qtype == ANY => (NOERROR, Nature::Positive(least.unwrap_or(0))),
            Content::Positive | Content::Loop | Content::Fork | Content::Referral => (NOERROR, Nature::Relay),
            Content::NoData | Content::NxDomain => {
                let rcode = if content == Content::NoData { NOERROR } else { NXDOMAIN };
                let nature = match soa_minimum {
                    Some(minimum) => Nature::Denial(least.unwrap_or(0).min(minimum)),
                    // RFC 2308 §2.1.1: without a SOA a denial of the name is not kept; of the type, a moment.
                    None if rcode == NOERROR && links == 0 && counts[1] == 0 => {
                        Nature::Denial(least.unwrap_or(SOALESS_TTL_MAX_S).min(SOALESS_TTL_MAX_S))
                    }
                    None => Nature::Relay,
                };
                (rcode, nature)
            }
        };
        // RFC 7871 §7.3.1: made for one client's network, whichever that is.
        let nature = if facts.opt.is_some_and(|opt| opt.scoped) { Nature::Relay } else { nature };
        Facts { rcode, nature, counts, opt_before, ..facts }
    }

    fn draw_ttls(&mut self, upstream: usize) -> TtlDraw {
        let (zero, top, huge, mixed) = (
            self.ratio(Hazard::TtlZero),
            self.ratio(Hazard::TtlTopBit),
            self.ratio(Hazard::TtlHuge),
            self.ratio(Hazard::TtlMixed),
        );
        let most = u64::from(self.options.ttl_max_s);
        let draw = &mut self.upstreams[upstream].draw;
        let usual = if draw.hit(zero) {
            0
        } else if draw.hit(top) {
            draw.between(1 << 31, u64::from(u32::MAX))
        } else if draw.hit(huge) {
            draw.between(most, i32::MAX as u64)
        } else {
            draw.between(1, most)
        };
        TtlDraw { usual: usual as u32, mixed: draw.hit(mixed), least: None }
    }
}

/// What an answer's record data says: who says it, to which question, and under which number.
pub(crate) struct Sign {
    pub(crate) version: Version,
    pub(crate) question: QuestionId,
    pub(crate) upstream: usize,
}

impl Sign {
    fn bytes(&self, n: u8) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[..4].copy_from_slice(&self.question.to_be_bytes());
        bytes[4] = self.upstream as u8;
        bytes[5] = 0x5a;
        bytes[6..].copy_from_slice(&(self.version << 8 | u32::from(n)).to_be_bytes());
        bytes
    }

    /// The data of record number `n` of an answer.
    pub(crate) fn data(&self, rtype: u16, n: u8) -> Vec<u8> {
        let bytes = self.bytes(n);
        match rtype {
            A => bytes[6..].to_vec(),
            AAAA => [&[0xfd, 0, 0, 0, 0, 0], &bytes[..]].concat(),
            TXT => [&[10], &bytes[..]].concat(),
            SRV => [&[0, 1, 0, 1, 0, 53, 10], &bytes[..], &[0]].concat(),
            CNAME => [&[10], &bytes[..], &[0]].concat(),
            _ => bytes.to_vec(),
        }
    }

    /// A SOA's data: the serial number is the version.
    fn soa(&self, minimum: u32) -> Vec<u8> {
        let mut data = vec![0, 0];
        data.extend_from_slice(&self.version.to_be_bytes());
        data.extend_from_slice(&[0; 12]);
        data.extend_from_slice(&minimum.to_be_bytes());
        data
    }
}

/// A forged or broken answer to `question`: it must never be accepted.
pub(crate) fn forged_body(book_question: QuestionId) -> Vec<u8> {
    let sign = Sign { version: crate::said::FORGED >> 8, question: book_question, upstream: 0xff };
    let mut bytes = QNAME.to_vec();
    bytes.extend_from_slice(&A.to_be_bytes());
    bytes.extend_from_slice(&IN.to_be_bytes());
    bytes.extend_from_slice(&[0, 1, 0, 0, 0, 4]);
    bytes.extend_from_slice(&sign.data(A, 0));
    bytes
}
