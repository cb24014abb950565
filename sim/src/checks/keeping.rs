//! Checks 4 and 5: what goes into the cache, under which key and for how long.
//!
//! * RFC 2308 §5: a negative answer lives for the least of the SOA's TTL and MINIMUM; §2.1.1: without a SOA an NXDOMAIN is not kept.
//! * RFC 2181 §8: a TTL with its top bit set is 0. §5.2 and §5.4.1: one TTL for an answer, nothing used beyond its question.
//! * RFC 2181 §9: a truncated answer is not kept. RFC 9520 §3.2: a failure for no more than five minutes.
//! * RFC 4035 §3.2: DO and CD ask different questions. RFC 7871 §7.3.1: an answer for one client's network is no other's.

use crate::cache::Noted;
use crate::failure::{Checked, ensure, fail};
use crate::model::{Kept, Key, lifetime};
use crate::questions::Space;
use crate::said::{Said, Version};
use crate::world::World;
use nodens_core::Duration;
use nodens_core::cache::{Inserted, Kind};

impl World {
    /// Whether an answer that ended the lookup for `key` was kept as it must be. Returns the TTL that waiting clients must see;
    /// `None`: the upstream's own.
    pub(crate) fn check_kept(
        &mut self,
        worker: usize,
        key: &Key,
        zone: usize,
        version: Version,
        noted: Option<&Noted>,
    ) -> Checked<Option<u32>> {
        let now = self.clock();
        let plan = self.workers[worker].plan.clone();
        let Some(said) = self.book.said(version) else { return Ok(None) };
        let rules = plan.cache_rules(&self.space, key.question, zone).filter(|_| key.rd);
        let expected = rules.and_then(|rules| lifetime(said.facts.nature, rules));
        let ttl_s = expected.map(|(_, ttl_s)| ttl_s);
        let context = || {
            format!(
                "worker {worker}, {}, answer {version} ({:?}) under {rules:?}: {noted:?}",
                self.space.text(key.question),
                said.facts.nature
            )
        };
        let fits = self.entry_bytes(said) <= plan.config.limits.entry_bytes_max as usize;
        let Some((kind, ttl_s_kept)) = expected.filter(|_| fits) else {
            ensure(noted.is_none(), "keeping/what", || format!("{}; it must not be kept", context()))?;
            return Ok(ttl_s);
        };
        let Some(noted) = noted else {
            return fail("keeping/what", format!("{}; it must be kept", context()));
        };
        let name = self.space.name(key.question);
        let qtype = Space::qtype(key.question).to_be_bytes();
        let question = [&name.wire[..], &qtype, &[0, 1]].concat();
        ensure(noted.zone == key.zone && noted.question == question, "keeping/key", || {
            format!("{}; the key must be {key:?}", context())
        })?;
        ensure(noted.do_bit == key.do_bit && noted.cd == key.cd, "answers/mixed", || {
            format!("{}; the key must be {key:?}", context())
        })?;
        let expires = now + Duration::from_secs(u64::from(ttl_s_kept));
        ensure(noted.stored == now && noted.expires == expires, "keeping/lifetime", || {
            format!("{}; it must be kept for {ttl_s_kept} s from {now:?}", context())
        })?;
        let is_failure = |kind| kind == Kind::Failure;
        ensure(
            noted
                .kind
                .is_some_and(|noted| noted.class() == kind.class() && is_failure(noted) == is_failure(kind)),
            "keeping/kind",
            || format!("{}; it is {kind:?}", context()),
        )?;
        self.note_kept(
            *key,
            Kept { version, kind, stored: now, expires, ttl_s: ttl_s_kept },
            noted.inserted,
        )?;
        Ok(ttl_s)
    }

    fn note_kept(&mut self, key: Key, new: Kept, inserted: Inserted) -> Checked {
        let fresh = self.kept.get(&key).filter(|kept| kept.expires > new.stored);
        let hides = new.kind == Kind::Failure && fresh.is_some_and(|kept| kept.kind != Kind::Failure);
        match inserted {
            Inserted::Stored => {
                ensure(!hides || self.may_forget, "keeping/failure", || {
                    format!("a failure took the place of {fresh:?}, which is fresh")
                })?;
                self.kept.insert(key, new);
            }
            Inserted::Kept => {
                ensure(hides || self.may_forget, "keeping/what", || format!("{new:?} was not stored"))?;
            }
            // The lock was in use: what was there stays.
            Inserted::Busy => {}
            Inserted::TooLarge => {
                ensure(self.may_forget, "keeping/what", || format!("{new:?} was too large"))?;
            }
        }
        Ok(())
    }

    /// What an answer takes in the cache: its records without the OPT, and two bytes each.
    fn entry_bytes(&self, said: &Said) -> usize {
        self.book.body(said).len() + 2 * self.book.marks(said).len()
    }

    /// Bounds of the cache: bytes, and entries per zone and class.
    pub(crate) fn check_cache_bounds(&self) -> Checked {
        let usage = self.cache.usage().table;
        ensure(usage.bytes <= self.cache_bytes_max, "effort/bytes", || {
            format!("the cache holds {} bytes of {}", usage.bytes, self.cache_bytes_max)
        })?;
        // A small cache is one shard, and a class may have four entries in a shard at least.
        let most = u64::from(self.planner.entries_max()).max(4);
        for class in usage.classes.iter().filter(|_| self.may_forget) {
            ensure(class.entries <= most, "effort/entries", || {
                format!("zone {} has {} entries of a class, {most} are allowed", class.zone.0, class.entries)
            })?;
        }
        Ok(())
    }
}
