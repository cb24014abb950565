//! Table F: the `cache` plug-in's lines.

use std::time::Duration;

use nodens_agent::corefile::config::{CacheLimits, CacheOptions, Prefetch, ServeStale};

use super::{reads, refuses};

fn cache(lines: &str) -> CacheOptions {
    reads(lines, &[]).cache.expect("a cache")
}

/// One option in a block, refused by name or not.
fn with(option: &str, refused: &[&str]) -> CacheOptions {
    reads(&format!("cache {{\n{option}\n}}"), refused).cache.expect("a cache")
}

fn limits(capacity: u32, ttl_max_s: u32, ttl_min_s: Option<u32>) -> CacheLimits {
    CacheLimits { capacity, ttl_max_s, ttl_min_s }
}

fn fails(option: &str, because: &str) {
    refuses(&format!("cache {{\n{option}\n}}"), because);
}

#[test]
fn f01_defaults() {
    for lines in ["cache", "cache {}", "cache { }", "cache {\n}"] {
        let cache = cache(lines);
        assert_eq!(cache.zones, [""; 0]);
        assert_eq!(cache.success, limits(10_000, 3600, None));
        assert_eq!(cache.denial, limits(10_000, 1800, None));
        assert_eq!(cache.success.effective_capacity(), 9984);
        assert_eq!(cache.servfail, Duration::from_secs(5));
        assert_eq!((cache.prefetch, cache.serve_stale, cache.keepttl), (None, None, false));
    }
}

#[test]
fn f02_a_small_capacity_is_rounded_up_to_the_shard_minimum() {
    let cache = cache("cache example.nl {\nsuccess 10\n}");
    assert_eq!(cache.zones, ["example.nl."]);
    assert_eq!(cache.success, limits(10, 3600, None));
    assert_eq!(cache.success.effective_capacity(), 1024);
}

#[test]
fn f03_success_with_ttl_and_least_ttl() {
    assert_eq!(cache("cache example.nl {\nsuccess 10 1800 30\n}").success, limits(10, 1800, Some(30)));
}

#[test]
fn f04_success_and_denial() {
    let cache = cache("cache example.nl {\nsuccess 10\ndenial 10 15\n}");
    assert_eq!((cache.success, cache.denial), (limits(10, 3600, None), limits(10, 15, None)));
}

#[test]
fn f05_denial_with_least_ttl() {
    assert_eq!(cache("cache example.nl {\nsuccess 10\ndenial 10 15 2\n}").denial, limits(10, 15, Some(2)));
}

#[test]
fn f06_a_ttl_for_both_and_one_for_denial() {
    let cache = cache("cache 25 example.nl {\nsuccess 10\ndenial 10 15\n}");
    assert_eq!((cache.success, cache.denial), (limits(10, 25, None), limits(10, 15, None)));
    assert_eq!(cache.zones, ["example.nl."]);
}

#[test]
fn f07_a_first_argument_that_is_no_number_is_a_zone() {
    assert_eq!(cache("cache aaa example.nl").zones, ["aaa.", "example.nl."]);
    assert_eq!(cache("cache 30 10.0.0.0/15").zones, ["0.10.in-addr.arpa.", "1.10.in-addr.arpa."]);
}

#[test]
fn f08_prefetch() {
    let refused = &["`prefetch` of `cache`"];
    let window = Duration::from_secs(60);
    assert_eq!(with("prefetch 10", refused).prefetch, Some(Prefetch { amount: 10, window, percentage: 10 }));
    let window = Duration::from_secs(30);
    assert_eq!(
        with("prefetch 5 30s 20%", refused).prefetch,
        Some(Prefetch { amount: 5, window, percentage: 20 })
    );
}

#[test]
fn f09_f13_broken_limits() {
    fails("success", "`success` needs an argument");
    fails("denial aaa", "`aaa` is not a whole number");
    fails("positive 15", "unknown property `positive` of `cache`");
    refuses("cache 0 example.nl", "`0` is out of range");
    refuses("cache -1 example.nl", "`-1` is negative");
    fails("success 10 0", "`0` is out of range");
    fails("success 10 5 -1", "`-1` is negative");
    fails("success 10 5 1 1", "unexpected `1` after `1`");
    fails("denial 10 4294967296", "`4294967296` is out of range");
}

#[test]
fn f14_f16_broken_prefetch_and_a_second_cache() {
    fails("prefetch -1", "`-1` is negative");
    fails("prefetch 0 blurp", "`blurp` is not a duration");
    fails("prefetch 1 1m 9%", "`9%` is not a percentage");
    fails("prefetch 1 1m 20", "`20` is not a percentage");
    refuses("cache\ncache", "`cache` stands twice in this server block");
}

#[test]
fn f17_f34_serve_stale() {
    let (zero, second) = (Duration::ZERO, Duration::from_secs(1));
    let verify = Some(Duration::from_millis(400));
    for (line, up_to, verify, response_ttl_s) in [
        ("", second * 3600, verify, 30),
        ("20m", second * 1200, verify, 30),
        ("1h20m", second * 4800, verify, 30),
        ("0m", zero, verify, 30),
        ("0", zero, verify, 30),
        ("0 verify", zero, verify, 30),
        ("0 immediate", zero, None, 30),
        ("0 VERIFY", zero, verify, 30),
        ("1h immediate 30s", second * 3600, None, 30),
        ("1h immediate 30s 30s", second * 3600, None, 30),
        ("1h immediate 4294967295s", second * 3600, None, u32::MAX),
        ("1h immediate 0", second * 3600, None, 0),
        ("1h verify 100ms", second * 3600, Some(second / 10), 30),
        ("1h verify 100ms 20s", second * 3600, Some(second / 10), 20),
        ("1h verify 100ms 30s 30s", second * 3600, Some(second / 10), 30),
        ("1h verify 0", second * 3600, Some(zero), 30),
        ("1h verify 0 1m", second * 3600, Some(zero), 60),
        ("1h VERIFY 250ms", second * 3600, Some(second / 4), 30),
    ] {
        let stale =
            with(&format!("serve_stale {line}"), &["`serve_stale` of `cache`"]).serve_stale.expect(line);
        assert_eq!(
            (stale.up_to, stale.verify, stale.response_ttl_s),
            (up_to, verify, response_ttl_s),
            "{line}"
        );
    }
}

#[test]
fn f35_f50_broken_serve_stale() {
    for (line, because) in [
        ("20", "`20` has no unit"),
        ("-20m", "`-20m` is negative"),
        ("aa", "`aa` is not a duration"),
        ("1m nono", "`nono` is not a way to serve stale answers"),
        ("0 after nono", "`after` is not a way to serve stale answers"),
        ("1h immediate 100ms", "`100ms` cannot be a TTL"),
        ("1h immediate 4294967296s", "`4294967296s` cannot be a TTL"),
        ("1h immediate -1s", "`-1s` is negative"),
        ("1h immediate garbage", "`garbage` is not a duration"),
        ("1h immediate 30s extra", "`extra` is not a duration"),
        ("1h verify -1ms", "`-1ms` is negative"),
        ("1h verify garbage", "`garbage` is not a duration"),
        ("1h verify 100ms 500ms", "`500ms` cannot be a TTL"),
        ("1h verify 100ms -1s", "`-1s` is negative"),
        ("1h verify 100ms garbage", "`garbage` is not a duration"),
        ("1h verify 100ms 30s extra", "`extra` is not a duration"),
    ] {
        fails(&format!("serve_stale {line}"), because);
    }
}

#[test]
fn f51_f56_recheck() {
    for (line, recheck_ms) in [
        ("1h immediate 30s 30s", 30_000),
        ("1h immediate 0 0", 0),
        ("1h verify 100ms 30s 250ms", 250),
        ("1h verify 0 0 5m", 300_000),
    ] {
        let stale =
            with(&format!("serve_stale {line}"), &["`serve_stale` of `cache`"]).serve_stale.expect(line);
        assert_eq!(stale.recheck, Duration::from_millis(recheck_ms), "{line}");
    }
    for (line, because) in [
        ("1h immediate 30s -1s", "`-1s` is negative"),
        ("1h immediate 30s 5m1s", "`5m1s` is too long"),
        ("1h immediate 30s invalid", "`invalid` is not a duration"),
        ("1h immediate 30s 30s extra", "unexpected `extra`"),
        ("1h verify 100ms 30s -1s", "`-1s` is negative"),
        ("1h verify 100ms 30s 30s extra", "unexpected `extra`"),
    ] {
        fails(&format!("serve_stale {line}"), because);
    }
}

#[test]
fn f57_f60_serve_stale_policy() {
    let refused = &["`serve_stale` of `cache`", "`serve_stale_policy` of `cache`"];
    for lines in [
        "serve_stale\nserve_stale_policy prefer_positive",
        "serve_stale_policy prefer_positive\nserve_stale",
        "serve_stale\nserve_stale_policy PREFER_POSITIVE",
    ] {
        assert!(matches!(with(lines, refused).serve_stale, Some(ServeStale { prefer_positive: true, .. })));
    }
    fails("serve_stale_policy prefer_positive", "`serve_stale_policy` without `serve_stale`");
    fails("serve_stale\nserve_stale_policy", "`serve_stale_policy` needs an argument");
    fails("serve_stale\nserve_stale_policy prefer_positive extra", "unexpected `extra`");
    fails("serve_stale\nserve_stale_policy invalid", "`invalid` is not a policy");
    let twice = "serve_stale\nserve_stale_policy prefer_positive\nserve_stale_policy prefer_positive";
    fails(twice, "`serve_stale_policy` stands here twice");
}

#[test]
fn f61_f64_servfail() {
    for (line, seconds) in [("1s", 1), ("5m", 300), ("0s", 0), ("0", 0)] {
        assert_eq!(with(&format!("servfail {line}"), &[]).servfail, Duration::from_secs(seconds), "{line}");
    }
}

#[test]
fn f65_f70_broken_servfail() {
    fails("servfail", "`servfail` needs an argument");
    fails("servfail 6m", "`6m` is too long");
    fails("servfail 20", "`20` has no unit");
    fails("servfail -1s", "`-1s` is negative");
    fails("servfail aa", "`aa` is not a duration");
    fails("servfail 1m invalid", "unexpected `invalid` after `1m`");
}

#[test]
fn f71_f76_disable() {
    let refused = &["`disable` of `cache`"];
    assert_eq!(
        with("disable denial example.com example.org", refused).disable_denial,
        ["example.com.", "example.org."]
    );
    assert_eq!(
        with("disable success example.com example.org", refused).disable_success,
        ["example.com.", "example.org."]
    );
    assert_eq!(with("disable denial", refused).disable_denial, ["."]);
    assert_eq!(with("disable success", refused).disable_success, ["."]);
    let both = with("disable denial example.org\ndisable success example.com", &[refused[0], refused[0]]);
    assert_eq!(both.disable_denial, ["example.org."]);
    assert_eq!(both.disable_success, ["example.com."]);
    fails("disable invalid example.com", "`invalid` is not a value for this");
    fails("disable", "`disable` needs an argument");
    fails("disable success a..b", "`a..b` has an empty label");
}

#[test]
fn f77_f78_keepttl() {
    assert!(with("keepttl", &["`keepttl` of `cache`"]).keepttl);
    fails("keepttl arg1", "unexpected `arg1` after `keepttl`");
}
