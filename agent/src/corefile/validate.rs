//! The tree becomes a configuration: server blocks, their keys, their plug-ins in turn, and that no two blocks want the same
//! queries.

use std::collections::HashMap;

use super::LoadOptions;
use super::check::Checker;
use super::config::{BindTarget, Corefile, ServerBlock, ZoneKey};
use super::diagnostic::{Span, quote};
use super::lexer::Token;
use super::parse::{Block, Directive, SyntaxTree};
use super::standing::{self, Standing};
use super::suggest::nearest;
use super::{plugin_cache, plugin_forward, plugin_nodens, plugin_serving};

/// Plug-ins of which CoreDNS refuses a second one in a server block.
const ONCE: [&str; 6] = ["cache", "errors", "loop", "ready", "prometheus", "nodens"];

/// Plug-ins of which CoreDNS takes a second one and drops one of the two.
const ONE_COUNTS: [&str; 3] = ["bufsize", "health", "reload"];

/// Reads the whole tree. The result is complete only if no error was reported.
pub(crate) fn validate(checker: &mut Checker<'_>, tree: &SyntaxTree, options: &LoadOptions) -> Corefile {
    let mut corefile = Corefile::default();
    for block in &tree.blocks {
        if let [key] = block.keys.as_slice()
            && key.text == "nodens"
        {
            checker.error(
                &key.span,
                "the `nodens` block stands outside of a server block",
                "move it into one of the server blocks, any one: `.:53 { nodens { … } }`; it counts for all of them",
            );
            continue;
        }
        let block = server_block(checker, block, &mut corefile);
        corefile.blocks.push(block);
    }
    overlaps(checker, &corefile.blocks, options.default_port);
    corefile
}

fn server_block(checker: &mut Checker<'_>, block: &Block, corefile: &mut Corefile) -> ServerBlock {
    let mut server = ServerBlock {
        zones: Vec::new(),
        bind: Vec::new(),
        cache: None,
        forward: Vec::new(),
        errors: None,
        log: Vec::new(),
        health: None,
        ready: None,
        prometheus: None,
        loop_detection: false,
        bufsize: None,
        reload: None,
        span: block.keys[0].span.clone(),
    };
    for key in &block.keys {
        server.zones.extend(zone_keys(checker, key));
    }
    let mut seen: Vec<&str> = Vec::new();
    for directive in &block.directives {
        let name = directive.name.text.as_str();
        let span = &directive.name.span;
        let Some(standing) = standing::of(name, "") else {
            unknown(checker, directive);
            continue;
        };
        let again = seen.contains(&name);
        if !again {
            seen.push(name);
        }
        if again && ONCE.contains(&name) {
            let message = format!("{} stands twice in this server block", quote(name));
            checker.error(span, message, "merge the two, or remove one of them");
            continue;
        }
        if again && ONE_COUNTS.contains(&name) {
            let message = format!("{} stands twice in this server block", quote(name));
            checker.warning(span, message, "only the last one counts; remove the other");
        }
        checker.stand(name, "", span);
        if matches!(standing, Standing::Supported | Standing::NotYet | Standing::NoEffect(_)) {
            plugin(checker, directive, &mut server, corefile);
        }
    }
    if server.forward.is_empty() && !seen.contains(&"forward") {
        checker.warning(
            &server.span,
            "nothing in this server block answers: every query gets REFUSED",
            "add `forward . IP`, with the address of the DNS server that is asked",
        );
    }
    server
}

/// Reads one plug-in into its place.
fn plugin(
    checker: &mut Checker<'_>,
    directive: &Directive,
    server: &mut ServerBlock,
    corefile: &mut Corefile,
) {
    let span = &directive.name.span;
    match directive.name.text.as_str() {
        "bind" => server.bind.push(plugin_serving::bind(checker, directive)),
        "bufsize" => server.bufsize = plugin_serving::bufsize(checker, directive),
        "cache" => server.cache = Some(plugin_cache::read(checker, directive)),
        "errors" => server.errors = Some(plugin_serving::errors(checker, directive)),
        "forward" => {
            if !server.forward.is_empty() {
                checker.stand("forward", "several stanzas", span);
            }
            server.forward.push(plugin_forward::read(checker, directive));
        }
        "health" => server.health = Some(plugin_serving::health(checker, directive)),
        "log" => server.log.extend(plugin_serving::log(checker, directive)),
        "loop" => server.loop_detection = plugin_serving::loop_detection(checker, directive),
        "prometheus" => server.prometheus = Some(plugin_serving::prometheus(checker, directive)),
        "ready" => server.ready = Some(plugin_serving::ready(checker, directive)),
        "reload" => server.reload = Some(plugin_serving::reload(checker, directive)),
        "nodens" => match &corefile.nodens.span {
            Some(first) => {
                let message = format!("a second `nodens` block; the first one stands at {first}");
                checker.error(span, message, "one block counts for the whole file; merge the two");
            }
            None => plugin_nodens::read(checker, directive, &mut corefile.nodens),
        },
        _ => {}
    }
}

fn unknown(checker: &mut Checker<'_>, directive: &Directive) {
    let name = directive.name.text.as_str();
    let help = match nearest(name, standing::plugins()) {
        Some(near) => format!("did you mean {}?", quote(near)),
        None if name.ends_with('{') => "put a blank in front of the brace".into(),
        None if directive.body.is_some() && name.contains(['.', ':']) => {
            "a server block begins here? Close the one above with `}` first".into()
        }
        None => "`nodens -plugins` lists what a Corefile may use".into(),
    };
    checker.error(&directive.name.span, format!("unknown plug-in {}", quote(name)), help);
}

/// The zones of one key: `[SCHEME://]NAME|ADDRESS/LENGTH[:PORT]`.
fn zone_keys(checker: &mut Checker<'_>, key: &Token) -> Vec<ZoneKey> {
    let mut rest = key.text.as_str();
    if let Some((scheme, after)) = rest.split_once("://") {
        rest = after;
        if scheme != "dns" {
            let message = format!("{} serves something else than plain DNS", quote(&key.text));
            checker.error(&key.span, message, format!("Pods ask over UDP and TCP; write {}", quote(after)));
        }
    }
    if rest.ends_with('{') {
        let message = format!("{} ends with a brace", quote(&key.text));
        checker.error(&key.span, message, "put a blank in front of the brace");
        return Vec::new();
    }
    let mut port = None;
    // Behind the last colon stands a port, except in an IPv6 block, where a slash follows.
    if let Some((name, digits)) = rest.rsplit_once(':')
        && !digits.contains('/')
    {
        if name.contains(':') && !name.contains('/') {
            let message = format!("{} is an address, not a zone", quote(&key.text));
            checker.error(
                &key.span,
                message,
                "say where to listen with `bind`; a reverse zone needs its `/LENGTH`",
            );
            return Vec::new();
        }
        match digits.parse::<u16>() {
            Ok(number) => port = Some(number),
            Err(_) => {
                let message = format!("{} has the port {}", quote(&key.text), quote(digits));
                checker.error(&key.span, message, "a port is a number up to 65535, as in `.:53`");
                return Vec::new();
            }
        }
        rest = name;
    }
    if rest.parse::<std::net::Ipv4Addr>().is_ok() {
        let message = format!("{} is served as a zone of that name, not as an address", quote(rest));
        checker.warning(
            &key.span,
            message,
            "say where to listen with `bind`; a reverse zone needs its `/LENGTH`",
        );
    }
    let zone = Token { text: rest.to_owned(), ..key.clone() };
    let names = checker.zones(&zone);
    names.into_iter().map(|name| ZoneKey { name, port, span: key.span.clone() }).collect()
}

/// Reports zones that two blocks serve on the same port: at the same address, or one of them at every address.
fn overlaps(checker: &mut Checker<'_>, blocks: &[ServerBlock], default_port: u16) {
    let mut exact: HashMap<(&str, u16, Option<&BindTarget>), &Span> = HashMap::new();
    let mut anywhere: HashMap<(&str, u16), &Span> = HashMap::new();
    for block in blocks {
        let bound: Vec<Option<&BindTarget>> = match block.bind.as_slice() {
            [] => vec![None],
            lines => lines.iter().flat_map(|line| &line.targets).map(Some).collect(),
        };
        for zone in &block.zones {
            let (name, port) = (zone.name.as_str(), zone.port.unwrap_or(default_port));
            for &target in &bound {
                let other = exact.get(&(name, port, target)).copied();
                let wider = match target {
                    None => anywhere.get(&(name, port)).copied(),
                    Some(_) => exact.get(&(name, port, None)).copied(),
                };
                let (first, how) = match (other, wider) {
                    (Some(first), _) => (first, "is already served"),
                    (None, Some(first)) => (first, "is already served at an address that both listen on"),
                    (None, None) => {
                        exact.insert((name, port, target), &zone.span);
                        anywhere.entry((name, port)).or_insert(&zone.span);
                        continue;
                    }
                };
                let message = format!("{} on port {port} {how}, by the server block at {first}", quote(name));
                let help = "merge the blocks, or give them different zones, ports or `bind` addresses";
                checker.error(&zone.span, message, help);
                break;
            }
        }
    }
}
