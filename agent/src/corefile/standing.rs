//! What nodens has, what it does not have yet, and what it will not have: one table.
//!
//! Every plug-in and every option that CoreDNS knows stands here once. An option that is understood but not built is refused
//! by name; ignoring it would start a service that does something else than the file says. When a thing is built, its line
//! becomes `Supported`, and nothing else here changes: the values of `NotYet` options are read and checked already.

use Standing::{CoreDns, NoEffect, NotYet, Other, Supported};

/// How nodens stands to a plug-in or option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It does what CoreDNS does.
    Supported,
    /// It is understood and refused.
    NotYet,
    /// It is taken with a warning and does nothing, for this reason.
    NoEffect(&'static str),
    /// It changes answers, which a transparent proxy must not: refused, belongs into CoreDNS.
    CoreDns,
    /// It is refused for another reason; this is what to do instead.
    Other(&'static str),
}

/// (plug-in, option, standing). The plug-in itself has the option `""`. Options with a blank or `://` in their name are not
/// keywords but ways to use a plug-in.
const TABLE: &[(&str, &str, Standing)] = &[
    ("bind", "", Supported),
    ("bind", "except", Supported),
    ("bufsize", "", Supported),
    ("cache", "", Supported),
    ("cache", "success", Supported),
    ("cache", "denial", Supported),
    ("cache", "servfail", Supported),
    ("cache", "prefetch", NotYet),
    ("cache", "serve_stale", NotYet),
    ("cache", "serve_stale_policy", NotYet),
    ("cache", "disable", NotYet),
    ("cache", "keepttl", NotYet),
    ("errors", "", Supported),
    ("errors", "consolidate", NotYet),
    ("errors", "stacktrace", NoEffect("there are no Go stack traces")),
    ("forward", "", Supported),
    ("forward", "policy", Supported),
    ("forward", "max_fails", Supported),
    ("forward", "health_check", Supported),
    ("forward", "expire", Supported),
    ("forward", "max_concurrent", Supported),
    ("forward", "read_timeout", Supported),
    ("forward", "force_tcp", Supported),
    ("forward", "prefer_udp", Supported),
    ("forward", "except", Supported),
    ("forward", "next", NotYet),
    ("forward", "next_on_nodata", NotYet),
    ("forward", "failover", Supported),
    ("forward", "failfast_all_unhealthy_upstreams", Supported),
    ("forward", "max_age", Supported),
    ("forward", "max_idle_conns", NotYet),
    ("forward", "max_connect_attempts", Supported),
    ("forward", "source_address", NotYet),
    ("forward", "resolver", NotYet),
    ("forward", "tls", NotYet),
    ("forward", "tls_servername", NotYet),
    ("forward", "doh_method", NotYet),
    ("forward", "tls://", NotYet),
    ("forward", "https://", NotYet),
    ("forward", "host names", NotYet),
    ("forward", "several stanzas", NotYet),
    ("health", "", Supported),
    ("health", "lameduck", Supported),
    ("log", "", Supported),
    ("log", "class", NotYet),
    ("log", "name scopes", NotYet),
    ("log", "own formats", NotYet),
    ("loop", "", Supported),
    ("nodens", "", Supported),
    ("nodens", "workers", Supported),
    ("nodens", "runtime", Supported),
    ("nodens", "cache_bytes", Supported),
    ("nodens", "ttl_floor", Supported),
    ("nodens", "trust_ad", Supported),
    ("nodens", "cluster_domain", Supported),
    ("nodens", "aa", NotYet),
    ("nodens", "rotate", NotYet),
    ("nodens", "impossible_names", NotYet),
    ("nodens", "client_rate", NotYet),
    ("prometheus", "", Supported),
    ("prometheus", "runtime_metrics", NoEffect("there is no Go runtime to measure")),
    ("prometheus", "tls", NotYet),
    ("ready", "", Supported),
    ("ready", "monitor", NotYet),
    ("reload", "", Supported),
    ("loadbalance", "", NotYet),
    ("timeouts", "", NotYet),
    // Taken for the sake of files that have them.
    ("debug", "", NoEffect("it changes CoreDNS' own logging")),
    ("nsid", "", NoEffect("a node's cache has no server identity of its own")),
    ("pprof", "", NoEffect("it profiles the Go runtime")),
    ("trace", "", NoEffect("queries are not traced")),
    ("whoami", "", NoEffect("nodens answers from its cache and from upstream only")),
    // What changes or makes answers.
    ("acl", "", CoreDns),
    ("any", "", CoreDns),
    ("auto", "", CoreDns),
    ("autopath", "", CoreDns),
    ("azure", "", CoreDns),
    ("chaos", "", CoreDns),
    ("clouddns", "", CoreDns),
    ("dns64", "", CoreDns),
    ("dnssec", "", CoreDns),
    ("erratic", "", CoreDns),
    ("etcd", "", CoreDns),
    ("file", "", CoreDns),
    ("geoip", "", CoreDns),
    ("header", "", CoreDns),
    ("hosts", "", CoreDns),
    ("k8s_external", "", CoreDns),
    ("kubernetes", "", CoreDns),
    ("local", "", CoreDns),
    ("metadata", "", CoreDns),
    ("minimal", "", CoreDns),
    ("nomad", "", CoreDns),
    ("rewrite", "", CoreDns),
    ("route53", "", CoreDns),
    ("secondary", "", CoreDns),
    ("sign", "", CoreDns),
    ("template", "", CoreDns),
    ("transfer", "", CoreDns),
    ("tsig", "", CoreDns),
    ("view", "", CoreDns),
    // What is there in another shape, or has no place on a node.
    ("cancel", "", Other("remove it: every query has a deadline without it")),
    ("dnstap", "", Other("remove it: queries can be logged with `log`")),
    ("grpc", "", Other("use `forward`: upstreams are asked over UDP and TCP")),
    ("grpc_server", "", Other("remove it: Pods ask over UDP and TCP")),
    ("https", "", Other("remove it: Pods ask over UDP and TCP")),
    ("https3", "", Other("remove it: Pods ask over UDP and TCP")),
    (
        "multisocket",
        "",
        Other("remove it: every worker has its own sockets; set `workers` in the `nodens` block"),
    ),
    ("on", "", Other("remove it: nodens starts no other programs")),
    ("proxyproto", "", Other("remove it: Pods reach the node's cache directly")),
    ("quic", "", Other("remove it: Pods ask over UDP and TCP")),
    ("root", "", Other("remove it and write paths in full")),
    ("shed", "", Other("remove it: what is under way at once is bounded without it")),
    ("tls", "", Other("remove it: Pods ask over UDP and TCP")),
];

/// How nodens stands to an option, or to the plug-in itself if `option` is empty. None: CoreDNS has nothing of that name.
pub(crate) fn of(plugin: &str, option: &str) -> Option<Standing> {
    TABLE.iter().find(|row| row.0 == plugin && row.1 == option).map(|row| row.2)
}

/// Every plug-in's name.
pub(crate) fn plugins() -> impl Iterator<Item = &'static str> {
    TABLE.iter().filter(|row| row.1.is_empty()).map(|row| row.0)
}

/// The keywords a plug-in's block may hold.
pub(crate) fn options(plugin: &str) -> impl Iterator<Item = &'static str> {
    TABLE
        .iter()
        .filter(move |row| row.0 == plugin && !row.1.is_empty() && !row.1.contains([' ', ':']))
        .map(|row| row.1)
}

/// The list that `-plugins` prints: what a Corefile may use, and what becomes of the rest.
pub fn describe_plugins() -> String {
    let list = |heading: &str, wanted: fn(Standing) -> bool| {
        let mut names: Vec<&str> =
            TABLE.iter().filter(|row| row.1.is_empty() && wanted(row.2)).map(|row| row.0).collect();
        names.sort_unstable();
        format!("{heading}:\n  {}\n", names.join("\n  "))
    };
    [
        list("Server plug-ins", |s| s == Supported),
        list("Taken without effect, with a warning", |s| matches!(s, NoEffect(_))),
        list("Known and not there yet (refused)", |s| s == NotYet),
        list("Refused: they belong into the configuration of CoreDNS", |s| s == CoreDns),
        list("Refused: no place in a node's cache", |s| matches!(s, Other(_))),
    ]
    .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_there_once_and_every_option_has_its_plugin() {
        for (i, row) in TABLE.iter().enumerate() {
            assert!(
                !TABLE[..i].iter().any(|other| (other.0, other.1) == (row.0, row.1)),
                "{row:?} is there twice"
            );
            assert!(of(row.0, "").is_some(), "{row:?} has no plug-in");
        }
    }

    #[test]
    fn the_list_of_plugins_names_all_of_them() {
        let text = describe_plugins();
        for name in plugins() {
            assert!(text.contains(&format!("\n  {name}\n")), "{name}");
        }
    }
}
