//! The `forward` plug-in's lines.

use std::time::Duration;

use super::check::Checker;
use super::config::{ForwardOptions, HealthCheck, Policy, Transport};
use super::diagnostic::quote;
use super::duration::show;
use super::lexer::Token;
use super::parse::Directive;
use super::upstream;

/// Most servers of one stanza.
const UPSTREAMS_MAX: usize = 15;
/// Idle upstream connections are closed after this unless the file says otherwise.
const EXPIRE: Duration = Duration::from_secs(10);
/// A reply may take this long unless the file says otherwise.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// Failed checks that make an upstream unhealthy unless the file says otherwise.
const MAX_FAILS: u32 = 2;
/// Time between health checks unless the file says otherwise.
const HEALTH_CHECK: Duration = Duration::from_millis(500);

/// Response codes by name (RFC 6895 §2.3 and the registry it keeps).
const RCODES: [(&str, u16); 20] = [
    ("NOERROR", 0),
    ("FORMERR", 1),
    ("SERVFAIL", 2),
    ("NXDOMAIN", 3),
    ("NOTIMP", 4),
    ("REFUSED", 5),
    ("YXDOMAIN", 6),
    ("YXRRSET", 7),
    ("NXRRSET", 8),
    ("NOTAUTH", 9),
    ("NOTZONE", 10),
    ("BADSIG", 16),
    ("BADVERS", 16),
    ("BADKEY", 17),
    ("BADTIME", 18),
    ("BADMODE", 19),
    ("BADNAME", 20),
    ("BADALG", 21),
    ("BADTRUNC", 22),
    ("BADCOOKIE", 23),
];

/// Reads `forward FROM TO… { … }`.
pub(crate) fn read(checker: &mut Checker<'_>, directive: &Directive) -> ForwardOptions {
    let span = &directive.name.span;
    let mut forward = ForwardOptions {
        from: ".".into(),
        to: Vec::new(),
        except: Vec::new(),
        policy: Policy::default(),
        expire: EXPIRE,
        max_age: None,
        max_idle_conns: None,
        max_fails: MAX_FAILS,
        health_check: HealthCheck { interval: HEALTH_CHECK, recursion_desired: true, domain: ".".into() },
        max_concurrent: None,
        max_connect_attempts: None,
        read_timeout: READ_TIMEOUT,
        force_tcp: false,
        prefer_udp: false,
        next: Vec::new(),
        next_on_nodata: false,
        failover: Vec::new(),
        failfast_all_unhealthy_upstreams: false,
        source_address: None,
        span: span.clone(),
    };
    match directive.arguments.split_first() {
        Some((from, to)) if !to.is_empty() => {
            read_from(checker, from, &mut forward);
            read_to(checker, directive, to, &mut forward);
        }
        _ => checker.error(
            span,
            "`forward` needs a zone and at least one upstream",
            "write `forward . IP`, with the address of the DNS server that is asked",
        ),
    }
    let mut server_name = None;
    for option in checker.options(directive, &["except", "next", "failover"]) {
        if option.name.text == "tls_servername" {
            server_name = checker.one(option, "the name in the upstream's certificate");
        } else {
            read_option(checker, option, &mut forward);
        }
    }
    if let Some(token) = server_name
        && forward.to.iter().any(|to| to.transport == Transport::Tls && to.tls_server_name.is_some())
    {
        let help = "keep either `tls_servername` or the name behind `%`";
        checker.error(&token.span, "an upstream has a TLS server name of its own", help);
    }
    if let Some(max_age) = forward.max_age.filter(|&max_age| max_age < forward.expire) {
        checker.error(
            span,
            format!("`max_age` ({}) is less than `expire` ({})", show(max_age), show(forward.expire)),
            "a connection cannot be idle for longer than it lives; raise `max_age` or lower `expire`",
        );
    }
    forward
}

fn read_from(checker: &mut Checker<'_>, token: &Token, forward: &mut ForwardOptions) {
    let mut zones = checker.zones(token).into_iter();
    let Some(first) = zones.next() else { return };
    if zones.next().is_some() {
        let message = format!(
            "{} is several reverse zones; only the first, {}, is forwarded",
            quote(&token.text),
            quote(&first)
        );
        checker.warning(&token.span, message, "write a `forward` line for each, or a shorter prefix length");
    }
    forward.from = first;
}

fn read_to(checker: &mut Checker<'_>, directive: &Directive, to: &[Token], forward: &mut ForwardOptions) {
    let before = checker.diagnostics.len();
    for token in to {
        upstream::read(checker, token, &mut forward.to);
        if forward.to.len() > UPSTREAMS_MAX {
            let message = format!("`forward` has more than {UPSTREAMS_MAX} upstreams");
            checker.error(&token.span, message, "remove this one and those behind it");
            break;
        }
    }
    let complained = checker.diagnostics[before..].iter().any(super::Diagnostic::is_error);
    let span = &directive.name.span;
    if forward.to.is_empty() && !complained {
        let help = "the file named has no `nameserver` line; correct it, or write the servers' addresses";
        checker.error(span, "no valid upstream addresses found", help);
    }
}

fn read_option(checker: &mut Checker<'_>, option: &Directive, forward: &mut ForwardOptions) {
    match option.name.text.as_str() {
        "policy" => {
            let policies = [
                ("random", Policy::Random),
                ("round_robin", Policy::RoundRobin),
                ("sequential", Policy::Sequential),
                ("least_outstanding", Policy::LeastOutstanding),
            ];
            if let Some(token) =
                checker.one(option, "`random`, `round_robin`, `sequential` or `least_outstanding`")
                && let Some(policy) = checker.word(token, &policies)
            {
                forward.policy = policy;
            }
        }
        "max_fails" => set(&mut forward.max_fails, number(checker, option)),
        "max_concurrent" => set(&mut forward.max_concurrent, number(checker, option).map(at_most)),
        "max_idle_conns" => set(&mut forward.max_idle_conns, number(checker, option).map(at_most)),
        "max_connect_attempts" => set(&mut forward.max_connect_attempts, number(checker, option).map(Some)),
        "expire" => set(&mut forward.expire, duration(checker, option)),
        "max_age" => {
            set(&mut forward.max_age, duration(checker, option).map(|d| Some(d).filter(|d| !d.is_zero())));
        }
        "read_timeout" => match duration(checker, option) {
            Some(Duration::ZERO) => {
                let token = option.arguments.first().unwrap_or(&option.name);
                checker.error(&token.span, "`read_timeout` must be positive", "write for example `2s`");
            }
            timeout => set(&mut forward.read_timeout, timeout),
        },
        "health_check" => health_check(checker, option, &mut forward.health_check),
        "except" => {
            for token in checker.some(option, "the zones that are not forwarded") {
                forward.except.extend(checker.zones(token));
            }
        }
        "next" => forward.next.extend(rcodes(checker, option)),
        "failover" => failover(checker, option, forward),
        "force_tcp" => forward.force_tcp = flag(checker, option),
        "prefer_udp" => forward.prefer_udp = flag(checker, option),
        "next_on_nodata" => forward.next_on_nodata = flag(checker, option),
        "failfast_all_unhealthy_upstreams" => {
            forward.failfast_all_unhealthy_upstreams = flag(checker, option);
        }
        "source_address" => {
            if let Some(token) = checker.one(option, "an IP address of this machine") {
                forward.source_address = address(checker, token);
            }
        }
        "resolver" => {
            for token in checker.some(option, "the IP address of a DNS server") {
                resolver(checker, token);
            }
        }
        "tls" => checker.at_most(option, 3),
        "doh_method" => {
            if let Some(token) = checker.one(option, "`POST` or `GET`") {
                let _ = checker.word(token, &[("POST", ()), ("GET", ())]);
            }
        }
        _ => {}
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// Zero is how CoreDNS writes "any number".
fn at_most(number: u32) -> Option<u32> {
    Some(number).filter(|&n| n > 0)
}

fn number(checker: &mut Checker<'_>, option: &Directive) -> Option<u32> {
    let token = checker.one(option, "a whole number")?;
    checker.number(token, 0..=u32::MAX)
}

fn duration(checker: &mut Checker<'_>, option: &Directive) -> Option<Duration> {
    let token = checker.one(option, "a duration, for example `10s`")?;
    checker.duration(token)
}

fn flag(checker: &mut Checker<'_>, option: &Directive) -> bool {
    checker.at_most(option, 0);
    true
}

fn address(checker: &mut Checker<'_>, token: &Token) -> Option<std::net::IpAddr> {
    match token.text.parse::<std::net::IpAddr>() {
        Ok(ip) => Some(ip.to_canonical()),
        Err(_) => {
            checker.error(
                &token.span,
                format!("{} is not an IP address", quote(&token.text)),
                "write an IP address",
            );
            None
        }
    }
}

fn resolver(checker: &mut Checker<'_>, token: &Token) {
    let text = token.text.as_str();
    if text.parse::<std::net::IpAddr>().is_err() && text.parse::<std::net::SocketAddr>().is_err() {
        checker.error(&token.span, format!("{} is not an IP address", quote(text)), "write IP or IP:PORT");
    }
}

/// `DURATION [no_rec] [domain NAME]`, the latter two in any order.
fn health_check(checker: &mut Checker<'_>, option: &Directive, check: &mut HealthCheck) {
    let mut arguments = checker.some(option, "the time between two checks, for example `0.5s`").iter();
    let Some(interval) = arguments.next() else { return };
    set(&mut check.interval, checker.duration(interval));
    while let Some(token) = arguments.next() {
        match token.text.as_str() {
            "no_rec" => check.recursion_desired = false,
            "domain" => match arguments.next() {
                Some(name) => set(&mut check.domain, checker.name(name)),
                None => checker.error(
                    &token.span,
                    "`domain` needs an argument",
                    "write the name that is asked for",
                ),
            },
            _ => {
                let message = format!("{} is not an option of `health_check`", quote(&token.text));
                checker.error(
                    &token.span,
                    message,
                    "write `no_rec`, `domain NAME` or both behind the duration",
                );
            }
        }
    }
}

fn rcodes(checker: &mut Checker<'_>, option: &Directive) -> Vec<u16> {
    let mut codes = Vec::new();
    for token in checker.some(option, "response codes, for example `NXDOMAIN`") {
        let name = token.text.to_ascii_uppercase();
        match RCODES.iter().find(|(known, _)| *known == name) {
            Some(&(_, code)) => codes.push(code),
            None => {
                let message = format!("{} is not a response code", quote(&token.text));
                checker.error(
                    &token.span,
                    message,
                    "response codes are written like `NXDOMAIN` or `SERVFAIL`",
                );
            }
        }
    }
    codes
}

fn failover(checker: &mut Checker<'_>, option: &Directive, forward: &mut ForwardOptions) {
    let codes = rcodes(checker, option);
    if codes.contains(&0) {
        let help = "an answer is no reason to ask another upstream; name failures only";
        checker.error(&option.name.span, "`NOERROR` cannot stand in `failover`", help);
    }
    forward.failover.extend(codes);
}
