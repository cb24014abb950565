//! The `nodens { … }` block: what CoreDNS has no word for.

use super::check::Checker;
use super::config::{NodensOptions, RuntimeChoice};
use super::diagnostic::quote;
use super::duration::parse_size;
use super::lexer::Token;
use super::parse::Directive;

/// Most workers: each has its own sockets, and no node has a use for more.
const WORKERS_MAX: u16 = 256;
/// Least cache: below this a few large answers fill it.
const CACHE_BYTES_MIN: u64 = 1 << 20;
/// Highest TTL floor, in seconds: a floor of more than an hour outlives every default cap.
const TTL_FLOOR_MAX_S: u32 = 3600;

const SWITCH: [(&str, bool); 2] = [("on", true), ("off", false)];

/// Reads `nodens { … }` on top of what is known already.
pub(crate) fn read(checker: &mut Checker<'_>, directive: &Directive, nodens: &mut NodensOptions) {
    nodens.span = Some(directive.name.span.clone());
    checker.at_most(directive, 0);
    for option in checker.options(directive, &[]) {
        let name = option.name.text.as_str();
        let what = match name {
            "workers" => "the number of threads",
            "runtime" => "`auto`, `uring` or `tokio`",
            "cache_bytes" => "a size, for example `32Mi`",
            "ttl_floor" => "seconds, for example `5`",
            "cluster_domain" => "the cluster's domain, for example `cluster.local`",
            "aa" => "`coredns`",
            "impossible_names" => "`answer`",
            "client_rate" => "queries per second",
            _ => "`on` or `off`",
        };
        let Some(token) = checker.one(option, what) else { continue };
        match name {
            "workers" => nodens.workers = checker.number(token, 1..=WORKERS_MAX),
            "runtime" => nodens.runtime = checker.word(token, &RuntimeChoice::NAMES),
            "cache_bytes" => nodens.cache_bytes = size(checker, token),
            "ttl_floor" => keep(&mut nodens.ttl_floor_s, ttl_floor(checker, token)),
            "cluster_domain" => keep(&mut nodens.cluster_domain, checker.name(token)),
            "trust_ad" => keep(&mut nodens.trust_ad, checker.word(token, &SWITCH)),
            "rotate" => keep(&mut nodens.rotate, checker.word(token, &SWITCH)),
            "aa" => keep(&mut nodens.aa_coredns, checker.word(token, &[("coredns", true), ("off", false)])),
            "impossible_names" => {
                keep(&mut nodens.impossible_names, checker.word(token, &[("answer", true), ("off", false)]));
            }
            "client_rate" => nodens.client_rate = checker.number(token, 1..=u32::MAX),
            _ => {}
        }
    }
}

fn keep<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

fn size(checker: &mut Checker<'_>, token: &Token) -> Option<u64> {
    match parse_size(&token.text) {
        Some(bytes) if bytes >= CACHE_BYTES_MIN => Some(bytes),
        Some(_) => {
            let message = format!("{} is too small for a cache", quote(&token.text));
            checker.error(&token.span, message, "write at least `1Mi`");
            None
        }
        None => {
            let message = format!("{} is not a size", quote(&token.text));
            checker.error(
                &token.span,
                message,
                "write a number of bytes, with Ki, Mi or Gi behind it if you like: `32Mi`",
            );
            None
        }
    }
}

/// Seconds, as a plain number or as a duration of whole seconds.
fn ttl_floor(checker: &mut Checker<'_>, token: &Token) -> Option<u32> {
    if token.text.bytes().all(|b| b.is_ascii_digit()) {
        return checker.number(token, 0..=TTL_FLOOR_MAX_S);
    }
    let duration = checker.duration(token)?;
    match u32::try_from(duration.as_secs()) {
        Ok(seconds) if duration.subsec_nanos() == 0 && seconds <= TTL_FLOOR_MAX_S => Some(seconds),
        _ => {
            let message = format!("{} cannot be a TTL floor", quote(&token.text));
            checker.error(&token.span, message, format!("write whole seconds from 0 to {TTL_FLOOR_MAX_S}"));
            None
        }
    }
}
