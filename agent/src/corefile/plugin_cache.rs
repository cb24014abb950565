//! The `cache` plug-in's lines.

use std::time::Duration;

use super::check::Checker;
use super::config::{CacheLimits, CacheOptions, Prefetch, ServeStale};
use super::diagnostic::quote;
use super::duration::show;
use super::lexer::Token;
use super::parse::Directive;

/// Entries per kind of answer unless the file says otherwise.
const CAPACITY: u32 = 10_000;
/// Longest time a success is kept unless the file says otherwise, in seconds.
const SUCCESS_TTL_S: u32 = 3600;
/// Longest time a denial is kept unless the file says otherwise, in seconds.
const DENIAL_TTL_S: u32 = 1800;
/// Largest TTL there is (RFC 2181 §8).
const TTL_MAX_S: u32 = i32::MAX as u32;
/// Time a failure is remembered unless the file says otherwise.
const SERVFAIL: Duration = Duration::from_secs(5);
/// Longest time a failure may be remembered (RFC 2308 §7.1).
const SERVFAIL_MAX: Duration = Duration::from_secs(300);
/// Longest pause after a failed refresh, for the same reason.
const RECHECK_MAX: Duration = Duration::from_secs(300);
/// Time upstream gets before a stale answer goes out, unless the file says otherwise: injected Pods wait one second.
const STALE_VERIFY: Duration = Duration::from_millis(400);
/// TTL of a stale answer unless the file says otherwise (RFC 8767 §4).
const STALE_TTL_S: u32 = 30;

/// Reads `cache [TTL] [ZONE…] { … }`.
pub(crate) fn read(checker: &mut Checker<'_>, directive: &Directive) -> CacheOptions {
    let limits = |ttl_max_s| CacheLimits { capacity: CAPACITY, ttl_max_s, ttl_min_s: None };
    let mut cache = CacheOptions {
        zones: Vec::new(),
        success: limits(SUCCESS_TTL_S),
        denial: limits(DENIAL_TTL_S),
        servfail: SERVFAIL,
        prefetch: None,
        serve_stale: None,
        disable_success: Vec::new(),
        disable_denial: Vec::new(),
        keepttl: false,
        span: directive.name.span.clone(),
    };
    let mut arguments = directive.arguments.as_slice();
    // The first argument is a TTL if it is a number, else a zone.
    if let Some((first, rest)) = arguments.split_first()
        && is_integer(&first.text)
    {
        arguments = rest;
        if let Some(ttl) = checker.number(first, 1..=TTL_MAX_S) {
            cache.success.ttl_max_s = ttl;
            cache.denial.ttl_max_s = ttl;
        }
    }
    for zone in arguments {
        cache.zones.extend(checker.zones(zone));
    }
    let mut policy = None;
    for option in checker.options(directive, &["disable"]) {
        match option.name.text.as_str() {
            "success" => limits_of(checker, option, &mut cache.success),
            "denial" => limits_of(checker, option, &mut cache.denial),
            "servfail" => servfail(checker, option, &mut cache.servfail),
            "prefetch" => cache.prefetch = prefetch(checker, option),
            "serve_stale" => cache.serve_stale = serve_stale(checker, option),
            "serve_stale_policy" => {
                if policy.is_some() {
                    checker.error(
                        &option.name.span,
                        "`serve_stale_policy` stands here twice",
                        "remove one of them",
                    );
                }
                policy = Some(option);
            }
            "disable" => disable(checker, option, &mut cache),
            "keepttl" => {
                checker.at_most(option, 0);
                cache.keepttl = true;
            }
            _ => {}
        }
    }
    if let Some(option) = policy {
        stale_policy(checker, directive, option, &mut cache);
    }
    cache
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// `CAPACITY [TTL [MINTTL]]`.
fn limits_of(checker: &mut Checker<'_>, option: &Directive, limits: &mut CacheLimits) {
    checker.at_most(option, 3);
    let arguments = checker.some(option, "CAPACITY [TTL [MINTTL]], for example `9984 30`");
    if let Some(capacity) = arguments.first().and_then(|t| checker.number(t, 0..=u32::MAX)) {
        limits.capacity = capacity;
    }
    if let Some(ttl) = arguments.get(1).and_then(|t| checker.number(t, 1..=TTL_MAX_S)) {
        limits.ttl_max_s = ttl;
    }
    if let Some(ttl) = arguments.get(2).and_then(|t| checker.number(t, 0..=TTL_MAX_S)) {
        limits.ttl_min_s = Some(ttl);
    }
}

fn servfail(checker: &mut Checker<'_>, option: &Directive, servfail: &mut Duration) {
    let Some(token) = checker.one(option, "a duration, for example `5s`") else { return };
    if let Some(duration) = at_most(checker, token, SERVFAIL_MAX) {
        *servfail = duration;
    }
}

/// A duration with an upper end.
fn at_most(checker: &mut Checker<'_>, token: &Token, most: Duration) -> Option<Duration> {
    let duration = checker.duration(token)?;
    if duration > most {
        let message = format!("{} is too long", quote(&token.text));
        checker.error(&token.span, message, format!("write at most `{}`", show(most)));
        return None;
    }
    Some(duration)
}

/// `AMOUNT [DURATION [PERCENTAGE%]]`.
fn prefetch(checker: &mut Checker<'_>, option: &Directive) -> Option<Prefetch> {
    checker.at_most(option, 3);
    let arguments = checker.some(option, "AMOUNT [DURATION [PERCENTAGE%]], for example `10 1m 10%`");
    let amount = checker.number(arguments.first()?, 0..=u32::MAX);
    let window = match arguments.get(1) {
        Some(token) => checker.duration(token),
        None => Some(Duration::from_secs(60)),
    };
    let percentage = match arguments.get(2) {
        Some(token) => match token.text.strip_suffix('%').and_then(|n| n.parse().ok()) {
            Some(percent @ 10..=90) => Some(percent),
            _ => {
                let message = format!("{} is not a percentage from 10% to 90%", quote(&token.text));
                checker.error(&token.span, message, "write it with its sign, for example `10%`");
                None
            }
        },
        None => Some(10),
    };
    Some(Prefetch { amount: amount?, window: window?, percentage: percentage? })
}

/// `[DURATION] [immediate [TTL [RECHECK]] | verify [TIMEOUT [TTL [RECHECK]]]]`.
fn serve_stale(checker: &mut Checker<'_>, option: &Directive) -> Option<ServeStale> {
    let mut stale = ServeStale {
        up_to: Duration::from_secs(3600),
        verify: Some(STALE_VERIFY),
        response_ttl_s: STALE_TTL_S,
        recheck: Duration::ZERO,
        prefer_positive: false,
    };
    let mut arguments = option.arguments.iter();
    if let Some(token) = arguments.next() {
        stale.up_to = checker.duration(token)?;
    }
    if let Some(token) = arguments.next() {
        match token.text.to_ascii_lowercase().as_str() {
            "immediate" => stale.verify = None,
            "verify" => {
                if let Some(token) = arguments.next() {
                    stale.verify = Some(checker.duration(token)?);
                }
            }
            _ => {
                let message = format!("{} is not a way to serve stale answers", quote(&token.text));
                checker.error(&token.span, message, "write `immediate` or `verify`");
                return None;
            }
        }
    }
    if let Some(token) = arguments.next() {
        stale.response_ttl_s = response_ttl(checker, token)?;
    }
    if let Some(token) = arguments.next() {
        stale.recheck = at_most(checker, token, RECHECK_MAX)?;
    }
    if let Some(token) = arguments.next() {
        let message = format!("unexpected {} at the end of `serve_stale`", quote(&token.text));
        checker.error(&token.span, message, "remove it");
        return None;
    }
    Some(stale)
}

fn response_ttl(checker: &mut Checker<'_>, token: &Token) -> Option<u32> {
    let duration = checker.duration(token)?;
    match u32::try_from(duration.as_secs()) {
        Ok(ttl) if duration.subsec_nanos() == 0 => Some(ttl),
        _ => {
            let message = format!("{} cannot be a TTL", quote(&token.text));
            checker.error(&token.span, message, "write whole seconds, at most `4294967295s`");
            None
        }
    }
}

fn stale_policy(checker: &mut Checker<'_>, plugin: &Directive, option: &Directive, cache: &mut CacheOptions) {
    if !plugin.options().iter().any(|o| o.name.text == "serve_stale") {
        checker.error(&option.name.span, "`serve_stale_policy` without `serve_stale`", "add `serve_stale`");
    }
    let Some(token) = checker.one(option, "`prefer_positive`") else { return };
    if !token.text.eq_ignore_ascii_case("prefer_positive") {
        let message = format!("{} is not a policy for stale answers", quote(&token.text));
        checker.error(&token.span, message, "write `prefer_positive`");
    } else if let Some(stale) = &mut cache.serve_stale {
        stale.prefer_positive = true;
    }
}

/// `success|denial [ZONE…]`; no zone is all of them.
fn disable(checker: &mut Checker<'_>, option: &Directive, cache: &mut CacheOptions) {
    let arguments = checker.some(option, "`success` or `denial`, and zones if only some are meant");
    let Some((kind, zones)) = arguments.split_first() else { return };
    let mut names: Vec<String> = zones.iter().filter_map(|zone| checker.name(zone)).collect();
    if zones.is_empty() {
        names.push(".".into());
    }
    match checker.word(kind, &[("success", true), ("denial", false)]) {
        Some(true) => cache.disable_success = names,
        Some(false) => cache.disable_denial = names,
        None => {}
    }
}
