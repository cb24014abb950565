//! Corefile text in, configuration and plan out.

use std::io;

use nodens_core::config::Policy;

use super::*;
use crate::corefile::{LoadOptions, Source, load};

/// One file, no environment.
struct Text<'a>(&'a str);

impl Source for Text<'_> {
    fn read(&self, _: &str) -> io::Result<Vec<u8>> {
        Ok(self.0.as_bytes().to_vec())
    }

    fn list(&self, _: &str) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn env(&self, _: &str) -> Option<String> {
        None
    }
}

fn environment() -> Environment<'static> {
    Environment {
        default_port: 53,
        workers: None,
        runtime: None,
        cores: 8,
        has_ipv6: true,
        read: &|_| None,
        interface: &|name| {
            (name == "lo").then(|| vec!["127.0.0.1".parse().expect("v4"), "::1".parse().expect("v6")])
        },
    }
}

fn try_build(text: &str, environment: &Environment<'_>) -> Result<Built, Vec<Diagnostic>> {
    let corefile = load("Corefile", &Text(text), &LoadOptions::default()).expect("a good Corefile");
    build(&corefile, environment, &mut ZoneIds::default())
}

fn served(text: &str) -> Built {
    try_build(text, &environment()).expect("it can be served")
}

fn addresses(built: &Built) -> Vec<String> {
    built.plan.listeners.iter().map(SocketAddr::to_string).collect()
}

fn routes(built: &Built, listener: usize) -> Vec<(String, usize)> {
    built.config.listeners[listener].routes.iter().map(|r| (r.apex.to_string(), r.zone)).collect()
}

/// The Corefile of an untouched NodeLocal DNSCache, as far as it is served.
const NODE_CACHE: &str = "
cluster.local:53 {
    errors
    cache {
        success 9984 30
        denial 9984 5
    }
    bind 169.254.20.10 10.96.0.10
    forward . 10.96.0.11
    prometheus :9253
    health 169.254.20.10:8080
}
in-addr.arpa:53 ip6.arpa:53 {
    errors
    cache 30
    bind 169.254.20.10 10.96.0.10
    forward . 10.96.0.11
    prometheus :9253
}
.:53 {
    errors
    cache 30
    bind 169.254.20.10 10.96.0.10
    forward . 192.0.2.1 192.0.2.2 {
        policy round_robin
        max_concurrent 1000
    }
    prometheus :9253
}
";

#[test]
fn blocks_on_one_address_share_its_listener() {
    let built = served(NODE_CACHE);
    assert_eq!(addresses(&built), ["169.254.20.10:53", "10.96.0.10:53"]);
    let all = [("cluster.local.", 0), ("in-addr.arpa.", 1), ("ip6.arpa.", 1), (".", 2)];
    let all: Vec<_> = all.into_iter().map(|(apex, zone)| (apex.to_owned(), zone)).collect();
    assert_eq!(routes(&built, 0), all);
    assert_eq!(routes(&built, 1), all);
    assert_eq!(built.config.zones.len(), 3);
    assert_eq!(built.config.check(), Ok(()));
}

#[test]
fn upstreams_are_kept_once_by_their_whole_settings() {
    let built = served(NODE_CACHE);
    let forward = |zone: usize| built.config.zones[zone].forward.as_ref().expect("forward");
    assert_eq!(built.config.upstreams.len(), 3);
    assert_eq!(forward(0).upstreams, forward(1).upstreams);
    assert_eq!((forward(2).upstreams.len(), forward(2).policy), (2, Policy::RoundRobin));
    // Four workers share what the Corefile allows the process.
    assert_eq!((forward(0).max_concurrent, forward(2).max_concurrent), (0, 250));
    let other = "a { \n forward . 10.0.0.1 {\n max_fails 0\n }\n }\n b {\n forward . 10.0.0.1 \n }";
    assert_eq!(served(other).config.upstreams.len(), 2);
}

#[test]
fn health_check_settings_reach_the_upstream() {
    let built = served(
        ". {\n forward . 10.0.0.1:5353 {\n max_fails 3\n health_check 2s no_rec domain Example.org\n }\n}",
    );
    let upstream = &built.config.upstreams[0];
    assert_eq!(upstream.address.to_string(), "10.0.0.1:5353");
    assert_eq!((upstream.max_fails, upstream.probe_interval), (3, Duration::from_secs(2)));
    assert_eq!((upstream.probe_name.to_string().as_str(), upstream.probe_rd), ("example.org.", false));
}

#[test]
fn cache_rules_follow_the_corefile_and_the_floor() {
    let built = served(
        ". {\n cache {\n success 20000 60 0\n denial 512 7\n servfail 1500ms\n }\n nodens {\n ttl_floor 2\n }\n}\n\
         a {\n cache 30 b.a\n}\nc {\n}\n",
    );
    let cache = |zone: usize| built.config.zones[zone].cache.as_ref();
    let first = cache(0).expect("cache");
    assert_eq!(first.success, KindRules { entries_max: 19_968, ttl_max_s: 60, ttl_min_s: 0 });
    assert_eq!(first.denial, KindRules { entries_max: 1024, ttl_max_s: 7, ttl_min_s: 2 });
    assert_eq!((first.servfail_ttl_s, first.zones.len()), (2, 0));
    let second = cache(1).expect("cache");
    assert_eq!(
        (second.success.ttl_max_s, second.success.ttl_min_s, second.success.entries_max),
        (30, 2, 9984)
    );
    assert_eq!(second.zones, [Name::parse("b.a").expect("a name")]);
    assert!(cache(2).is_none());
    assert_eq!(built.plan.labels.zones[1].zones, "b.a.");
    assert_eq!(built.plan.labels.zones[2].zones, "c.");
}

#[test]
fn the_corednss_defaults_are_the_cores_defaults() {
    let built = served(". {\n cache\n}");
    let cache = built.config.zones[0].cache.as_ref().expect("cache");
    let known = CacheRules::coredns();
    assert_eq!(
        (cache.success, cache.denial, cache.servfail_ttl_s),
        (known.success, known.denial, known.servfail_ttl_s)
    );
    assert_eq!(built.config.zones[0].udp_size_max, UDP_SIZE_DEFAULT);
}

#[test]
fn m01_m04_bufsize_log_and_errors() {
    let built = served(". {\n bufsize 1024\n log\n}\na {\n bufsize\n errors\n}");
    let [first, second] = [&built.config.zones[0], &built.config.zones[1]];
    assert_eq!((first.udp_size_max, first.log_queries, first.log_errors), (1024, true, false));
    assert_eq!((second.udp_size_max, second.log_queries, second.log_errors), (1232, false, true));
}

#[test]
fn without_bind_every_address_of_both_families_is_served() {
    let built = served(". {\n}\na:5353 {\n}");
    assert_eq!(addresses(&built), ["0.0.0.0:53", "[::]:53", "0.0.0.0:5353", "[::]:5353"]);
    assert_eq!(built.plan.labels.listeners[1].server, "dns://:53");
    let v4 = Environment { has_ipv6: false, default_port: 1053, ..environment() };
    assert_eq!(addresses(&try_build(". {\n}", &v4).expect("served")), ["0.0.0.0:1053"]);
}

#[test]
fn m66_interfaces_become_their_addresses() {
    let built = served(". {\n bind 127.0.0.1 lo\n}");
    assert_eq!(addresses(&built), ["127.0.0.1:53", "[::1]:53"]);
    assert_eq!(built.plan.labels.listeners[1].server, "dns://[::1]:53");
    let except = served(". {\n bind lo {\n except 127.0.0.1\n }\n}");
    assert_eq!(addresses(&except), ["[::1]:53"]);
}

#[test]
fn an_unknown_interface_is_a_fault_with_its_place() {
    let faults = try_build(". {\n bind eth9\n}", &environment()).expect_err("no such interface");
    assert_eq!(faults.len(), 1);
    assert!(faults[0].message.contains("eth9") && faults[0].span.line() == 2, "{}", faults[0]);
}

#[test]
fn l28_a_zone_served_twice_on_one_address_names_both_places() {
    let faults =
        try_build(". {\n bind lo\n}\n.:53 {\n bind 127.0.0.1\n}", &environment()).expect_err("twice");
    assert_eq!(faults.len(), 1);
    assert!(faults[0].message.contains("127.0.0.1:53") && faults[0].span.line() == 4, "{}", faults[0]);
    assert!(faults[0].help.as_ref().is_some_and(|help| help.contains("Corefile:1:1")), "{}", faults[0]);
}

#[test]
fn endpoints_of_several_blocks_on_one_address_are_merged() {
    let built = served(NODE_CACHE);
    let endpoints: Vec<_> =
        built.plan.endpoints.iter().map(|e| (e.addr.to_string(), e.health, e.ready, e.metrics)).collect();
    assert_eq!(
        endpoints,
        [("169.254.20.10:8080".to_owned(), true, false, false), (":9253".to_owned(), false, false, true)]
    );
    let one = served(". {\n health :9000 {\n lameduck 3s\n }\n ready :9000\n prometheus :9000\n}");
    assert_eq!(one.plan.endpoints.len(), 1);
    assert!(one.plan.endpoints[0].health && one.plan.endpoints[0].ready && one.plan.endpoints[0].metrics);
    assert_eq!(one.plan.lameduck, Duration::from_secs(3));
    let defaults = served(". {\n health\n ready\n prometheus\n}");
    let defaults: Vec<_> = defaults.plan.endpoints.iter().map(|e| e.addr.to_string()).collect();
    assert_eq!(defaults, [":8080", ":8181", "127.0.0.1:9153"]);
}

#[test]
fn labels_say_what_coredns_says() {
    let built = served(NODE_CACHE);
    let listener = &built.plan.labels.listeners[0];
    assert_eq!(listener.server, "dns://169.254.20.10:53");
    assert_eq!(listener.routes[0].zone, "cluster.local.");
    assert_eq!(listener.routes[0].plugins, ["prometheus", "errors", "cache", "forward"]);
    assert!(listener.routes[0].counted);
    assert_eq!(built.plan.labels.zones[1].zones, "in-addr.arpa.,ip6.arpa.");
    assert_eq!(built.plan.labels.zones[1].server, "dns://169.254.20.10:53");
}

#[test]
fn workers_default_to_cores_quota_and_four() {
    let workers =
        |environment: &Environment<'_>, text| try_build(text, environment).expect("served").plan.workers;
    assert_eq!(workers(&environment(), ". {\n}"), 4);
    assert_eq!(workers(&Environment { cores: 2, ..environment() }, ". {\n}"), 2);
    let quota = |path: &str| path.ends_with("cpu.max").then(|| "10000 100000".to_owned());
    assert_eq!(workers(&Environment { read: &quota, ..environment() }, ". {\n}"), 1);
    assert_eq!(
        workers(&Environment { read: &quota, ..environment() }, ". {\n nodens {\n workers 3\n }\n}"),
        3
    );
    let flag = Environment { workers: Some(7), ..environment() };
    assert_eq!(workers(&flag, ". {\n nodens {\n workers 3\n }\n}"), 7);
}

#[test]
fn the_cache_defaults_to_a_quarter_of_the_limit_within_bounds() {
    let bytes = |limit: Option<u64>, text| {
        let read = move |path: &str| {
            limit.filter(|_| path == "/sys/fs/cgroup/memory.max").map(|limit| limit.to_string())
        };
        try_build(text, &Environment { read: &read, ..environment() }).expect("served").plan.cache_bytes
    };
    assert_eq!(bytes(None, ". {\n}"), 32 << 20);
    assert_eq!(bytes(Some(64 << 20), ". {\n}"), 16 << 20);
    assert_eq!(bytes(Some(16 << 20), ". {\n}"), 8 << 20);
    assert_eq!(bytes(Some(4 << 30), ". {\n}"), 128 << 20);
    assert_eq!(bytes(Some(64 << 20), ". {\n nodens {\n cache_bytes 3Mi\n }\n}"), 3 << 20);
}

#[test]
fn m82_a_reload_keeps_the_zone_ids() {
    let corefile = |text| load("Corefile", &Text(text), &LoadOptions::default()).expect("a good Corefile");
    let mut ids = ZoneIds::default();
    let mut ids_of = |text| {
        let built = build(&corefile(text), &environment(), &mut ids).expect("it can be served");
        built.config.zones.iter().map(|zone| zone.id).collect::<Vec<_>>()
    };
    let before = ids_of("a {\n forward . 10.0.0.1\n}\nb {\n forward . 10.0.0.1\n}");
    let after = ids_of("b {\n cache 5\n forward . 10.0.0.1\n}\na {\n forward . 10.0.0.2\n}");
    assert_eq!(after[0], before[1]);
    assert!(!before.contains(&after[1]));
}

#[test]
fn an_http_endpoint_where_dns_is_served_is_refused_with_its_place() {
    for (zone, bind, endpoint) in [
        (".:5390", "bind 127.0.0.9", "prometheus 127.0.0.9:5390"),
        (".:5390", "bind 127.0.0.9", "health :5390"),
        (".:5390", "bind 127.0.0.9", "ready 0.0.0.0:5390"),
        (".:5390", "bind 127.0.0.9", "ready [::]:5390"),
        (".:5390", "", "health 127.0.0.9:5390"),
        (".:5390", "bind ::1", "prometheus [::]:5390"),
        (".", "", "prometheus localhost:53"),
    ] {
        let text = format!("{zone} {{\n{bind}\n  {endpoint}\n  forward . 192.0.2.1\n}}\n");
        let faults = try_build(&text, &environment()).expect_err(endpoint);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!((faults[0].span.line(), faults[0].span.column()), (3, 3), "{endpoint}");
        assert!(faults[0].message.contains("where DNS is served"), "{}", faults[0]);
    }
    for (zone, endpoint) in [
        (".:5390", "health 127.0.0.9:5391"),
        (".:5390", "health 127.0.0.8:5390"),
        (".:5390", "health [::1]:5390"),
        (".:0", "health 127.0.0.9:0"),
    ] {
        served(&format!("{zone} {{\nbind 127.0.0.9\n{endpoint}\nforward . 192.0.2.1\n}}\n"));
    }
    let two = ".:5390 {\nbind 127.0.0.9\nforward . 192.0.2.1\n}\nb.:5391 {\nhealth 127.0.0.9:5390\nforward . 192.0.2.1\n}\n";
    assert!(try_build(two, &environment()).is_err(), "blocks share the machine");
}

#[test]
fn who_forwards_to_itself_is_told() {
    let itself = ".:5390 {\nbind 127.0.0.9\nforward . 192.0.2.1 127.0.0.9:5390\n}\n";
    let faults = try_build(itself, &environment()).expect_err("a loop");
    assert_eq!((faults.len(), faults[0].span.line()), (1, 3), "{faults:?}");
    assert!(faults[0].message.contains("would ask itself"), "{}", faults[0]);
    let perhaps = served(". {\nforward . 127.0.0.1\n}\n");
    assert_eq!(perhaps.warnings.len(), 1, "{:?}", perhaps.warnings);
    let chain = "a.example.:53 {\nbind 127.0.0.8\nforward . 127.0.0.9\n}\n. {\nbind 127.0.0.9\nforward . 192.0.2.1\n}\n";
    assert_eq!(served(chain).warnings.len(), 0, "one block may ask another");
    assert_eq!(served(".:5300 {\nforward . 127.0.0.1\n}\n").warnings.len(), 0, "another port");
}
