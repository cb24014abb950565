//! The whole text, read back by a strict parser.

use nodens_core::config::{
    CacheRules, ForwardRules, ForwardZone, Limits, Listener, Route, UDP_SIZE_DEFAULT, UpstreamConfig,
    UpstreamId,
};
use nodens_core::stats::{DURATION_BOUNDS_US, SIZE_BOUNDS, rcode_label, type_label};
use nodens_core::wire::Name;

use super::super::strict_parser::{Parsed, parse};
use super::*;

/// A zone name with everything that could break a line.
const ODD: &str = "a\\\"b\\\\\\010{x}\\027[31m.";
const SERVER: &str = "dns://169.254.20.10:53";
const UPSTREAM: &str = "10.96.0.10:53";

struct World {
    config: Config,
    labels: Labels,
    workers: Vec<Worker>,
    usage: CacheUsage,
    control: Control,
    health: HealthProbe,
}

impl World {
    /// Two zones on one listener, two upstreams of the same address, two workers.
    fn new() -> Self {
        let apexes = [Name::root(), Name::parse(ODD).expect("a name")];
        let upstream = UpstreamConfig::new(UPSTREAM.parse().expect("an address"));
        let zone = |id, upstream| ForwardZone {
            id: ZoneId(id),
            cache: Some(CacheRules::coredns()),
            forward: Some(ForwardRules::to(vec![UpstreamId(upstream)])),
            udp_size_max: UDP_SIZE_DEFAULT,
            log_queries: false,
            log_errors: true,
        };
        let routes = |zones: &[Name]| {
            zones.iter().enumerate().map(|(zone, apex)| Route { apex: apex.clone(), zone }).collect()
        };
        let config = Config {
            listeners: vec![Listener { routes: routes(&apexes) }],
            zones: vec![zone(7, 0), zone(8, 1)],
            upstreams: vec![upstream.clone(), UpstreamConfig { max_fails: 0, ..upstream }],
            trust_ad: true,
            limits: Limits::default(),
        };
        config.check().expect("a good configuration");
        let route = |apex: &Name| RouteLabels {
            zone: apex.to_string(),
            plugins: vec!["cache", "forward"],
            counted: true,
        };
        let labels = Labels {
            listeners: vec![ListenerLabels {
                server: SERVER.to_owned(),
                routes: apexes.iter().map(route).collect(),
            }],
            zones: apexes
                .iter()
                .map(|apex| ZoneLabels { server: SERVER.to_owned(), zones: apex.to_string() })
                .collect(),
        };
        let worker = || Worker {
            stats: Arc::new(Stats::new(&config)),
            vitals: Arc::default(),
            heartbeat_age: Some(Duration::from_millis(20)),
            runtime: "tokio",
        };
        World {
            workers: vec![worker(), worker()],
            config,
            labels,
            usage: CacheUsage::default(),
            control: Control::default(),
            health: HealthProbe::default(),
        }
    }

    fn text(&self) -> String {
        render(&Snapshot {
            config: &self.config,
            labels: &self.labels,
            workers: &self.workers,
            cache: &self.usage,
            control: &self.control,
            health: Some(&self.health),
            node: None,
            build: Build { version: "0.1.0", revision: "abc", rustc: "rustc 1.95.0" },
            process: Process::default(),
        })
    }

    fn parsed(&self) -> Parsed {
        let text = self.text();
        parse(&text).unwrap_or_else(|wrong| panic!("{wrong}\n{text}"))
    }
}

#[test]
fn s22_zone_names_with_anything_in_them_survive_a_strict_parser() {
    let world = World::new();
    let zone = Name::parse(ODD).expect("a name").to_string();
    let labels = [("server", SERVER), ("zone", &zone), ("view", "")];
    assert_eq!(world.parsed().value("coredns_dns_do_requests_total", &labels), Some(0.0));
}

#[test]
fn m92_queries_are_summed_over_workers_and_kept_apart_by_zone() {
    let world = World::new();
    for worker in &world.workers {
        let route = &worker.stats.routes[0][0];
        route.requests[0][0][type_label(1)].add(2);
        route.responses[rcode_label(3)].add(1);
        route.duration.observe(300, &DURATION_BOUNDS_US);
        route.response_size[0].observe(120, &SIZE_BOUNDS);
    }
    let parsed = world.parsed();
    let place = [("server", SERVER), ("zone", "."), ("view", "")];
    let with = |more: &[(&'static str, &'static str)]| [&place[..], more].concat();
    let asked = with(&[("proto", "udp"), ("family", "1"), ("type", "A")]);
    assert_eq!(parsed.value("coredns_dns_requests_total", &asked), Some(4.0));
    assert_eq!(parsed.series("coredns_dns_requests_total"), 1);
    let answered = with(&[("rcode", "NXDOMAIN"), ("plugin", "forward")]);
    assert_eq!(parsed.value("coredns_dns_responses_total", &answered), Some(2.0));
    assert_eq!(parsed.value("coredns_dns_request_duration_seconds_count", &place), Some(2.0));
    assert_eq!(parsed.value("coredns_dns_request_duration_seconds_sum", &place), Some(0.0006));
    let below = with(&[("le", "0.00025")]);
    assert_eq!(parsed.value("coredns_dns_request_duration_seconds_bucket", &below), Some(0.0));
    let sizes = with(&[("proto", "udp"), ("le", "200")]);
    assert_eq!(parsed.value("coredns_dns_response_size_bytes_bucket", &sizes), Some(2.0));
    assert_eq!(parsed.series("coredns_dns_request_size_bytes_count"), 0);
}

#[test]
fn both_families_of_a_wildcard_are_one_server() {
    let mut world = World::new();
    world.config.listeners.push(world.config.listeners[0].clone());
    world.labels.listeners.push(world.labels.listeners[0].clone());
    world.workers[0].stats = Arc::new(Stats::new(&world.config));
    for listener in &world.workers[0].stats.routes {
        listener[0].requests[0][0][type_label(28)].add(1);
    }
    let parsed = world.parsed();
    let place = [("server", SERVER), ("zone", "."), ("view", "")];
    let asked = [&place[..], &[("proto", "udp"), ("family", "1"), ("type", "AAAA")]].concat();
    assert_eq!(parsed.value("coredns_dns_requests_total", &asked), Some(2.0));
}

#[test]
fn queries_outside_all_zones_are_dropped_and_appear_with_the_first() {
    let world = World::new();
    assert!(!world.text().contains("dropped\""));
    let outside = &world.workers[0].stats.routes[0][2];
    outside.requests[1][1][type_label(65_280)].add(1);
    outside.responses[rcode_label(5)].add(1);
    outside.duration.observe(10, &DURATION_BOUNDS_US);
    let parsed = world.parsed();
    let place = [("server", SERVER), ("zone", "dropped"), ("view", "")];
    let asked = [&place[..], &[("proto", "tcp"), ("family", "2"), ("type", "other")]].concat();
    assert_eq!(parsed.value("coredns_dns_requests_total", &asked), Some(1.0));
    let refused = [&place[..], &[("rcode", "REFUSED"), ("plugin", "")]].concat();
    assert_eq!(parsed.value("coredns_dns_responses_total", &refused), Some(1.0));
}

#[test]
fn m91_plugins_are_listed_per_block_and_uncounted_blocks_are_left_out() {
    let mut world = World::new();
    let plugin = |name| [("server", SERVER), ("zone", "."), ("view", ""), ("name", name)];
    assert_eq!(world.parsed().value("coredns_plugin_enabled", &plugin("cache")), Some(1.0));
    assert_eq!(world.parsed().value("coredns_plugin_enabled", &plugin("chaos")), None);
    assert_eq!(world.parsed().series("coredns_plugin_enabled"), 4);
    world.labels.listeners[0].routes[1].counted = false;
    assert_eq!(world.parsed().series("coredns_plugin_enabled"), 2);
    assert_eq!(world.parsed().series("coredns_dns_do_requests_total"), 1);
}

#[test]
fn the_cache_is_counted_per_zone_and_class() {
    let mut world = World::new();
    world.workers[1].stats.zones[0].hits_denial.add(5);
    world.workers[1].stats.zones[0].cache_requests.add(9);
    world.usage.zones = vec![ZoneUsage { zone: ZoneId(7), entries: [3, 4], evictions: [0, 1] }];
    world.usage.bytes = 4096;
    let parsed = world.parsed();
    let class = |class| [("server", SERVER), ("type", class), ("zones", "."), ("view", "")];
    assert_eq!(parsed.value("coredns_cache_hits_total", &class("denial")), Some(5.0));
    assert_eq!(parsed.value("coredns_cache_hits_total", &class("success")), Some(0.0));
    assert_eq!(parsed.value("coredns_cache_entries", &class("success")), Some(3.0));
    assert_eq!(parsed.value("coredns_cache_evictions_total", &class("denial")), Some(1.0));
    let zone = [("server", SERVER), ("zones", "."), ("view", "")];
    assert_eq!(parsed.value("coredns_cache_requests_total", &zone), Some(9.0));
    assert_eq!(parsed.value("coredns_cache_misses_total", &zone), Some(0.0));
    assert_eq!(parsed.value("nodens_cache_bytes", &[]), Some(4096.0));
    world.config.zones[0].cache = None;
    assert_eq!(world.parsed().series("coredns_cache_requests_total"), 1);
}

#[test]
fn upstreams_of_one_address_are_one_server() {
    let world = World::new();
    for upstream in &world.workers[0].stats.upstreams {
        upstream.attempts.add(1);
        upstream.down.set(1);
        upstream.duration[rcode_label(0)].observe(1_000, &DURATION_BOUNDS_US);
    }
    let parsed = world.parsed();
    assert_eq!(parsed.value("coredns_forward_requests_total", &[("to", UPSTREAM)]), Some(2.0));
    let noerror = [("proxy_name", "forward"), ("to", UPSTREAM), ("rcode", "NOERROR")];
    assert_eq!(parsed.value("coredns_proxy_request_duration_seconds_count", &noerror), Some(2.0));
    let failures = [("proxy_name", "forward"), ("to", UPSTREAM)];
    assert_eq!(parsed.value("coredns_proxy_healthcheck_failures_total", &failures), Some(0.0));
    assert_eq!(parsed.value("nodens_upstream_down", &[("to", UPSTREAM)]), Some(1.0));
}

#[test]
fn what_the_process_says_about_itself_is_there() {
    let world = World::new();
    world.workers[0].vitals.events_dropped.add(1);
    world.workers[1].stats.events_lost.add(2);
    world.workers[1].vitals.connections_closed[1].add(4);
    world.workers[0].stats.dropped[1].add(1);
    world.workers[1].stats.lookups.set(6);
    world.health.duration.observe(400, &PROBE_BOUNDS_US);
    let parsed = world.parsed();
    let build = [("version", "0.1.0"), ("revision", "abc"), ("goversion", "rustc 1.95.0")];
    assert_eq!(parsed.value("coredns_build_info", &build), Some(1.0));
    assert_eq!(parsed.value("coredns_panics_total", &[]), Some(0.0));
    assert_eq!(parsed.value("coredns_health_request_duration_seconds_count", &[]), Some(1.0));
    assert_eq!(parsed.value("nodens_runtime", &[("name", "tokio")]), Some(2.0));
    assert_eq!(parsed.value("nodens_runtime", &[("name", "uring")]), Some(0.0));
    assert_eq!(parsed.value("nodens_log_events_lost_total", &[]), Some(3.0));
    assert_eq!(parsed.value("nodens_tcp_connections_closed_total", &[("reason", "idle")]), Some(4.0));
    assert_eq!(parsed.value("nodens_queries_dropped_total", &[("reason", "response")]), Some(1.0));
    assert_eq!(parsed.value("nodens_lookups", &[]), Some(6.0));
    assert_eq!(parsed.value("nodens_worker_heartbeat_age_seconds", &[("worker", "1")]), Some(0.02));
}

#[test]
fn counters_of_another_configuration_are_left_out_not_a_panic() {
    let mut world = World::new();
    let other =
        Config { listeners: Vec::new(), zones: Vec::new(), upstreams: Vec::new(), ..world.config.clone() };
    world.workers[0].stats = Arc::new(Stats::new(&other));
    world.workers[1].stats.upstreams[0].attempts.add(1);
    assert_eq!(world.parsed().value("coredns_forward_requests_total", &[("to", UPSTREAM)]), Some(1.0));
}
