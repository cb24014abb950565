//! The plug-ins around the cache: where it listens, what it logs, which endpoints it opens.

use std::net::IpAddr;
use std::time::Duration;

use super::address::ListenAddr;
use super::check::Checker;
use super::config::{
    Bind, BindTarget, Consolidate, ErrorsOptions, HealthOptions, LogClass, LogRule, PrometheusOptions,
    ReadyOptions, ReloadOptions,
};
use super::diagnostic::quote;
use super::duration::show;
use super::lexer::Token;
use super::parse::Directive;

/// EDNS size that `bufsize` alone means: what passes every link unfragmented (DNS flag day 2020).
const BUFSIZE: u16 = 1232;
/// Sizes that `bufsize` takes (RFC 6891 §6.2.3 names both ends).
const BUFSIZES: std::ops::RangeInclusive<u16> = 512..=4096;
/// Port of `/health` unless the file says otherwise.
const HEALTH: ListenAddr = ListenAddr::any(8080);
/// Port of `/ready` unless the file says otherwise.
const READY: ListenAddr = ListenAddr::any(8181);
/// Address of `/metrics` unless the file says otherwise.
const PROMETHEUS: ListenAddr = ListenAddr::localhost(9153);
/// Longest regular expression that `consolidate` takes, in octets.
const REGEXP_MAX: usize = 10_000;
/// Longest interface name of the kernel (IFNAMSIZ without its final NUL).
const INTERFACE_NAME_MAX: usize = 15;
/// What `reload` alone means, and the least it takes.
const RELOAD_INTERVAL: Duration = Duration::from_secs(30);
const RELOAD_INTERVAL_MIN: Duration = Duration::from_secs(2);
const RELOAD_JITTER: Duration = Duration::from_secs(15);
const RELOAD_JITTER_MIN: Duration = Duration::from_secs(1);

/// Reads `bind ADDRESS|INTERFACE… { except ADDRESS|INTERFACE… }`.
pub(crate) fn bind(checker: &mut Checker<'_>, directive: &Directive) -> Bind {
    let what = "IP addresses or interface names";
    let targets = bind_targets(checker, directive, what);
    let mut except = Vec::new();
    for option in checker.options(directive, &["except"]) {
        except.extend(bind_targets(checker, option, what));
    }
    Bind { targets, except, span: directive.name.span.clone() }
}

fn bind_targets(checker: &mut Checker<'_>, directive: &Directive, what: &str) -> Vec<BindTarget> {
    checker.some(directive, what).iter().filter_map(|token| bind_target(checker, token)).collect()
}

fn bind_target(checker: &mut Checker<'_>, token: &Token) -> Option<BindTarget> {
    let text = token.text.as_str();
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(BindTarget::Address(ip));
    }
    // What begins like an address was meant as one: 1.2.3.invalid, 300.1.1.1, 10.0.0.1:53, fe80::1%eth0.
    let like_address =
        text.contains(':') || text.split_once('.').is_some_and(|(first, _)| first.parse::<u32>().is_ok());
    let fits = (1..=INTERFACE_NAME_MAX).contains(&text.len()) && !text.contains(['/', '%']);
    if like_address || !fits || text.contains(char::is_whitespace) {
        let message = format!("{} is not a valid IP address or interface name", quote(text));
        checker.error(
            &token.span,
            message,
            "the port belongs behind the zone, as in `.:53`; here stands the address alone",
        );
        return None;
    }
    Some(BindTarget::Interface(text.to_owned()))
}

/// Reads `bufsize [SIZE]`.
pub(crate) fn bufsize(checker: &mut Checker<'_>, directive: &Directive) -> Option<u16> {
    checker.at_most(directive, 1);
    checker.no_block(directive);
    match directive.arguments.first() {
        None => Some(BUFSIZE),
        Some(token) => checker.number(token, BUFSIZES),
    }
}

/// Reads `loop`.
pub(crate) fn loop_detection(checker: &mut Checker<'_>, directive: &Directive) -> bool {
    checker.at_most(directive, 0);
    checker.no_block(directive);
    true
}

/// Reads `errors [stdout] { … }`.
pub(crate) fn errors(checker: &mut Checker<'_>, directive: &Directive) -> ErrorsOptions {
    checker.at_most(directive, 1);
    if let Some(token) = directive.arguments.first().filter(|t| t.text != "stdout") {
        let message = format!("{} is not a place for errors", quote(&token.text));
        checker.error(&token.span, message, "errors go to standard output; write `errors` alone");
    }
    let mut errors = ErrorsOptions::default();
    for option in checker.options(directive, &["consolidate"]) {
        match option.name.text.as_str() {
            "consolidate" => errors.consolidate.extend(consolidate(checker, option)),
            _ => checker.at_most(option, 0),
        }
    }
    errors
}

/// `DURATION REGEXP [LEVEL] [show_first]`. The expression itself is checked when it is compiled.
fn consolidate(checker: &mut Checker<'_>, option: &Directive) -> Option<Consolidate> {
    checker.at_most(option, 4);
    let [period, pattern, rest @ ..] = option.arguments.as_slice() else {
        let message = "`consolidate` needs a duration and a regular expression";
        checker.error(&option.name.span, message, "write for example `consolidate 5m \".* i/o timeout$\"`");
        return None;
    };
    let period = checker.duration(period);
    if pattern.text.len() > REGEXP_MAX {
        let message = format!("this expression has {} octets", pattern.text.len());
        checker.error(&pattern.span, message, format!("write at most {REGEXP_MAX}"));
    }
    let mut level = None;
    let mut show_first = false;
    for token in rest.iter().take(2) {
        let known = ["error", "warning", "info", "debug"].into_iter().find(|known| *known == token.text);
        if token.text == "show_first" {
            show_first = true;
        } else if known.is_none() {
            let message = format!("{} is not an option of `consolidate`", quote(&token.text));
            checker.error(
                &token.span,
                message,
                "write a level (error, warning, info, debug), `show_first` or both",
            );
        } else if level.is_some() {
            checker.error(&token.span, "`consolidate` has two levels", "keep one of them");
        } else if show_first {
            checker.error(&token.span, "the level stands behind `show_first`", "write the level first");
        } else {
            level = known;
        }
    }
    Some(Consolidate {
        period: period?,
        pattern: pattern.text.clone(),
        level: level.unwrap_or("error"),
        show_first,
    })
}

/// Reads `log [NAME…] [FORMAT] { class CLASS… }`: a rule per name.
pub(crate) fn log(checker: &mut Checker<'_>, directive: &Directive) -> Vec<LogRule> {
    let mut scopes = directive.arguments.as_slice();
    let mut format = None;
    // A lone argument is a name whatever it looks like; behind names, what holds a brace is the format.
    if let [before @ .., last] = scopes
        && !before.is_empty()
        && last.text.contains('{')
    {
        scopes = before;
        if last.text != "{common}" {
            checker.stand("log", "own formats", &last.span);
            format = Some(last.text.clone());
        }
    }
    if let Some(token) = scopes.iter().find(|t| t.text != ".") {
        checker.stand("log", "name scopes", &token.span);
    }
    let names: Vec<String> = match scopes {
        [] => vec![".".into()],
        _ => scopes.iter().filter_map(|token| checker.name(token)).collect(),
    };
    let mut classes = Vec::new();
    let mut all = false;
    for option in checker.options(directive, &["class"]) {
        for token in checker.some(option, "`all`, `success`, `denial` or `error`") {
            let words = [
                ("all", None),
                ("success", Some(LogClass::Success)),
                ("denial", Some(LogClass::Denial)),
                ("error", Some(LogClass::Error)),
            ];
            match checker.word(token, &words) {
                Some(None) => all = true,
                Some(Some(class)) => classes.push(class),
                None => {}
            }
        }
    }
    if all {
        classes.clear();
    }
    let rule = |scope| LogRule { scope, format: format.clone(), classes: classes.clone() };
    names.into_iter().map(rule).collect()
}

/// Reads `health [ADDRESS] { lameduck DURATION }`.
pub(crate) fn health(checker: &mut Checker<'_>, directive: &Directive) -> HealthOptions {
    let addr = endpoint(checker, directive, HEALTH);
    let mut lameduck = Duration::ZERO;
    for option in checker.options(directive, &[]) {
        if let Some(token) = checker.one(option, "a duration, for example `5s`") {
            lameduck = checker.duration(token).unwrap_or(lameduck);
        }
    }
    HealthOptions { addr, lameduck, span: directive.name.span.clone() }
}

/// Reads `ready [ADDRESS] { monitor until-ready|continuously }`.
pub(crate) fn ready(checker: &mut Checker<'_>, directive: &Directive) -> ReadyOptions {
    let addr = endpoint(checker, directive, READY);
    let mut continuously = false;
    for option in checker.options(directive, &[]) {
        if let Some(token) = checker.one(option, "`until-ready` or `continuously`") {
            continuously =
                checker.word(token, &[("until-ready", false), ("continuously", true)]).unwrap_or(false);
        }
    }
    ReadyOptions { addr, continuously, span: directive.name.span.clone() }
}

/// Reads `prometheus [ADDRESS] { … }`.
pub(crate) fn prometheus(checker: &mut Checker<'_>, directive: &Directive) -> PrometheusOptions {
    let addr = endpoint(checker, directive, PROMETHEUS);
    for option in checker.options(directive, &[]) {
        match option.name.text.as_str() {
            "tls" => {
                let _ = checker.one(option, "the path of a TLS configuration");
            }
            _ => checker.at_most(option, 0),
        }
    }
    PrometheusOptions { addr, span: directive.name.span.clone() }
}

fn endpoint(checker: &mut Checker<'_>, directive: &Directive, default: ListenAddr) -> ListenAddr {
    checker.at_most(directive, 1);
    directive.arguments.first().and_then(|token| checker.listen_addr(token)).unwrap_or(default)
}

/// Reads `reload [INTERVAL] [JITTER]`.
pub(crate) fn reload(checker: &mut Checker<'_>, directive: &Directive) -> ReloadOptions {
    checker.at_most(directive, 2);
    checker.no_block(directive);
    let mut interval = RELOAD_INTERVAL;
    let mut jitter = RELOAD_JITTER;
    if let Some(token) = directive.arguments.first()
        && let Some(duration) = checker.duration(token)
    {
        interval = duration;
        if interval < RELOAD_INTERVAL_MIN {
            let message = format!("{} is too short an interval", quote(&token.text));
            checker.error(&token.span, message, format!("write at least `{}`", show(RELOAD_INTERVAL_MIN)));
        }
    }
    if let Some(token) = directive.arguments.get(1)
        && let Some(duration) = checker.duration(token)
    {
        jitter = duration;
        if !jitter.is_zero() && jitter < RELOAD_JITTER_MIN {
            let message = format!("{} is too short a jitter", quote(&token.text));
            checker.error(
                &token.span,
                message,
                format!("write `0` or at least `{}`", show(RELOAD_JITTER_MIN)),
            );
        }
    }
    ReloadOptions { interval, jitter: jitter.min(interval / 2) }
}
