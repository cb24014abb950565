//! Table M, its configuration rows: the plug-ins around the cache. And our own block.

use std::net::IpAddr;
use std::time::Duration;

use nodens_agent::corefile::config::{BindTarget, Consolidate, LogClass, NodensOptions, RuntimeChoice};

use super::{block, messages, reads, refuses};

/// What `bind` comes to on a machine whose loopback has its two usual addresses.
fn bound(lines: &str) -> Result<Vec<String>, String> {
    let loopback =
        |name: &str| (name == "lo").then(|| vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()]);
    let mut all = Vec::new();
    for bind in reads(lines, &[]).bind {
        all.extend(bind.addresses(loopback)?.iter().map(IpAddr::to_string));
    }
    Ok(all)
}

#[test]
fn m04_m09_bufsize() {
    assert_eq!(reads("bufsize", &[]).bufsize, Some(1232));
    assert_eq!(reads("bufsize 1220", &[]).bufsize, Some(1220));
    refuses("bufsize 5000", "`5000` is out of range");
    refuses("bufsize 512 512", "unexpected `512` after `512`");
    refuses("bufsize 511", "`511` is out of range");
    refuses("bufsize abc123", "`abc123` is not a whole number");
}

#[test]
fn m16_m21_errors() {
    assert!(reads("errors", &[]).errors.is_some());
    assert!(reads("errors stdout", &[]).errors.is_some());
    assert_eq!(reads("", &[]).errors, None);
    refuses("errors errors.txt", "`errors.txt` is not a place for errors");
    refuses("errors\nerrors", "`errors` stands twice in this server block");
    refuses("errors a b", "unexpected `b` after `a`");
    refuses("errors {\nlog visible\n}", "unknown property `log` of `errors`");
    for (line, because) in [
        ("", "needs a duration and a regular expression"),
        ("1m", "needs a duration and a regular expression"),
        ("1m error error info extra", "unexpected `extra`"),
        ("abc error", "`abc` is not a duration"),
        ("1 error", "`1` has no unit"),
        ("1m error warning info", "has two levels"),
        ("1m error show_first warning", "the level stands behind `show_first`"),
        ("1m error maybe", "`maybe` is not an option of `consolidate`"),
    ] {
        refuses(&format!("errors {{\nconsolidate {line}\n}}"), because);
    }
    let long = "x".repeat(10_001);
    refuses(&format!("errors {{\nconsolidate 1m {long}\n}}"), "this expression has 10001 octets");
    for (line, level, show_first) in [
        ("1m ^err", "error", false),
        ("1m ^err warning", "warning", false),
        ("1m ^err show_first", "error", true),
        ("1m ^err debug show_first", "debug", true),
    ] {
        let errors =
            reads(&format!("errors {{\nconsolidate {line}\n}}"), &["`consolidate` of `errors`"]).errors;
        let expected =
            Consolidate { period: Duration::from_secs(60), pattern: "^err".into(), level, show_first };
        assert_eq!(errors.unwrap().consolidate, [expected], "{line}");
    }
    let two = "errors {\nconsolidate 1m a\nconsolidate 2m b\n}";
    assert_eq!(reads(two, &["`consolidate` of `errors`"; 2]).errors.unwrap().consolidate.len(), 2);
}

#[test]
fn m29_m35_log_scopes_formats_and_classes() {
    for lines in ["log", "log .", "log . {common}", "log . {\n}"] {
        let log = reads(lines, &[]).log;
        assert_eq!((log[0].scope.as_str(), &log[0].format, log[0].classes.len()), (".", &None, 0), "{lines}");
    }
    assert!(reads("", &[]).log.is_empty());
    let scopes = &["`log` with name scopes"];
    let log = reads("log example.org Example.net.", scopes).log;
    assert_eq!((log[0].scope.as_str(), log[1].scope.as_str()), ("example.org.", "example.net."));
    assert_eq!(reads("log example.org {common}", scopes).log[0].format, None);
    let combined = reads("log . {combined}", &["`log` with own formats"]).log;
    assert_eq!(combined[0].format.as_deref(), Some("{combined}"));
    let quoted = reads("log . \"{remote} says {type}\"", &["`log` with own formats"]).log;
    assert_eq!(quoted[0].format.as_deref(), Some("{remote} says {type}"));
    let class = &["`class` of `log`"];
    assert_eq!(
        reads("log {\nclass denial error\n}", class).log[0].classes,
        [LogClass::Denial, LogClass::Error]
    );
    assert_eq!(reads("log {\nclass success all\n}", class).log[0].classes, []);
    refuses("log {\nclass\n}", "`class` needs an argument");
    refuses("log {\nclass abracadabra\n}", "`abracadabra` is not a value for this");
    refuses("log {\nunknown\n}", "unknown property `unknown` of `log`");
}

#[test]
fn m45_m50_loop() {
    let (corefile, diagnostics) = block("loop\nforward . 1.1.1.1").examine();
    assert!(corefile.blocks[0].loop_detection);
    assert_eq!(messages(&diagnostics, true), [""; 0]);
    assert_eq!(messages(&diagnostics, false), [""; 0]);
    refuses("loop argument", "unexpected `argument` after `loop`");
    refuses("loop\nloop", "`loop` stands twice in this server block");
}

/// `bla:a` differs from CoreDNS, which takes it and then cannot listen there.
#[test]
fn m52_m57_health() {
    let health = |lines| reads(lines, &[]).health.expect("health");
    assert_eq!(health("health").addr.to_string(), ":8080");
    assert_eq!(health("health localhost:1234").addr.to_string(), "127.0.0.1:1234");
    assert_eq!(health("health 169.254.20.10:8080").addr.to_string(), "169.254.20.10:8080");
    assert_eq!(health("health").lameduck, Duration::ZERO);
    assert_eq!(health("health localhost:1234 {\nlameduck 4s\n}").lameduck, Duration::from_secs(4));
    refuses("health bla:a", "`bla:a` has the port `a`");
    refuses("health bla", "`bla` has no port");
    refuses("health bla bla", "unexpected `bla` after `bla`");
    refuses("health localhost:1234 {\nlameduck a\n}", "`a` is not a duration");
    refuses("health localhost:1234 {\nlamedudk 4\n}", "unknown property `lamedudk` of `health`");
    refuses("health {\nlameduck\n}", "`lameduck` needs an argument");
}

#[test]
fn m60_m67_bind() {
    assert_eq!(bound("bind 1.2.3.4").unwrap(), ["1.2.3.4"]);
    refuses("bind", "`bind` needs an argument");
    refuses("bind 1.2.3.invalid", "`1.2.3.invalid` is not a valid IP address or interface name");
    assert_eq!(bound("bind 1.2.3.4 ::5").unwrap(), ["1.2.3.4", "::5"]);
    assert_eq!(bound("bind ::1 1.2.3.4 ::5 127.9.9.0").unwrap(), ["::1", "1.2.3.4", "::5", "127.9.9.0"]);
    assert_eq!(bound("bind ::1 1.2.3.4 ::5 127.9.9.0 noone"), Err("noone".into()));
    assert_eq!(bound("bind 1.2.3.4 lo").unwrap(), ["1.2.3.4", "127.0.0.1", "::1"]);
    assert_eq!(bound("bind lo {\nexcept 127.0.0.1\n}\n").unwrap(), ["::1"]);
    assert_eq!(bound("bind 1.2.3.4\nbind lo").unwrap(), ["1.2.3.4", "127.0.0.1", "::1"]);
    let vlan = &reads("bind eth0.100", &[]).bind[0].targets[0];
    assert_eq!(*vlan, BindTarget::Interface("eth0.100".into()));
    for wrong in
        ["10.0.0.1:53", "300.1.1.1", "fe80::1%eth0", "a-name-longer-than-interfaces-have", "a/b", "\"\""]
    {
        refuses(&format!("bind {wrong}"), "is not a valid IP address or interface name");
    }
    refuses("bind lo {\nexcept\n}", "`except` needs an argument");
    refuses("bind lo {\nbut lo\n}", "unknown property `but` of `bind`");
}

#[test]
fn m68_m77_reload() {
    for (line, interval_ms, jitter_ms) in
        [("", 30_000, 15_000), ("10s", 10_000, 5_000), ("10s 2s", 10_000, 2_000), ("2s 0s", 2_000, 0)]
    {
        let reload = reads(&format!("reload {line}"), &[]).reload.expect("reload");
        let expected = (Duration::from_millis(interval_ms), Duration::from_millis(jitter_ms));
        assert_eq!((reload.interval, reload.jitter), expected, "{line}");
    }
    refuses("reload foo", "`foo` is not a duration");
    refuses("reload 10s foo", "`foo` is not a duration");
    refuses("reload 10s 2s 5s", "unexpected `5s` after `2s`");
    refuses("reload 1s", "`1s` is too short an interval");
    refuses("reload 0s", "`0s` is too short an interval");
    refuses("reload 3s 0.5s", "`0.5s` is too short a jitter");
}

/// `prometheus {}` differs from CoreDNS, which takes the braces for an address: here they are an empty block, everywhere.
#[test]
fn m83_m90_prometheus() {
    let addr = |lines| reads(lines, &[]).prometheus.expect("prometheus").addr.to_string();
    assert_eq!(addr("prometheus"), "127.0.0.1:9153");
    assert_eq!(addr("prometheus {}"), "127.0.0.1:9153");
    assert_eq!(addr("prometheus localhost:53"), "127.0.0.1:53");
    assert_eq!(addr("prometheus :9253"), ":9253");
    assert_eq!(addr("prometheus {\nruntime_metrics\n}"), "127.0.0.1:9153");
    assert_eq!(addr("prometheus localhost:53 {\nruntime_metrics\n}"), "127.0.0.1:53");
    refuses("prometheus {\nruntime_metrics extra_arg\n}", "unexpected `extra_arg`");
    refuses("prometheus /foo", "`/foo` has no port");
    refuses("prometheus a b c", "unexpected `b` after `a`");
    refuses("prometheus\nprometheus", "`prometheus` stands twice in this server block");
}

#[test]
fn m94_m96_ready() {
    assert_eq!(reads("ready", &[]).ready.unwrap().addr.to_string(), ":8181");
    assert_eq!(reads("ready localhost:1234", &[]).ready.unwrap().addr.to_string(), "127.0.0.1:1234");
    let refused = &["`monitor` of `ready`"];
    assert!(reads("ready {\nmonitor continuously\n}", refused).ready.unwrap().continuously);
    assert!(!reads("ready {\nmonitor until-ready\n}", refused).ready.unwrap().continuously);
    refuses("ready bla", "`bla` has no port");
    refuses("ready {\nmonitor sometimes\n}", "`sometimes` is not a value for this");
    refuses("ready\nready", "`ready` stands twice in this server block");
}

#[test]
fn plugins_without_effect_are_taken_with_a_warning_whatever_they_say() {
    for lines in ["debug", "pprof :6053", "trace zipkin host:1 {\nevery 10\n}", "nsid \"a b\"", "whoami"] {
        let (_, diagnostics) = block(&format!("forward . 1.1.1.1\n{lines}")).examine();
        assert_eq!(messages(&diagnostics, true), [""; 0], "{lines}");
        let warnings = messages(&diagnostics, false);
        let name = lines.split_whitespace().next().unwrap();
        assert_eq!(warnings.len(), 1, "{lines}");
        assert!(warnings[0].starts_with(&format!("`{name}` has no effect: ")), "{}", warnings[0]);
    }
}

#[test]
fn plugins_that_are_known_and_not_there_yet_are_refused_by_name() {
    for lines in ["loadbalance", "timeouts {\nread 5s\n}"] {
        let name = lines.split_whitespace().next().unwrap();
        assert_eq!(block(lines).errors(), [format!("`{name}` is not in nodens yet")]);
    }
}

#[test]
fn plugins_that_change_answers_are_sent_into_coredns() {
    for name in [
        "hosts",
        "rewrite",
        "template",
        "file",
        "kubernetes",
        "autopath",
        "dns64",
        "acl",
        "any",
        "minimal",
        "header",
        "etcd",
        "auto",
        "secondary",
        "route53",
    ] {
        let (_, diagnostics) = block(&format!("  {name} a b {{\nc d\n}}\nforward . 1.1.1.1")).examine();
        let [diagnostic] = diagnostics.as_slice() else { panic!("{name}: {diagnostics:?}") };
        assert_eq!(diagnostic.span.to_string(), "Corefile:2:3");
        assert_eq!(
            diagnostic.message,
            format!("`{name}` is not for a node's cache, which is a transparent proxy for CoreDNS")
        );
        assert_eq!(
            diagnostic.help.as_deref().unwrap(),
            format!("put `{name}` into the configuration of CoreDNS itself")
        );
    }
}

#[test]
fn plugins_that_nobody_knows_are_compared_with_those_that_are_known() {
    for (lines, help) in [
        ("foward . 1.1.1.1", "did you mean `forward`?"),
        ("error", "did you mean `errors`?"),
        ("Cache 30", "did you mean `cache`?"),
        ("frobnicate", "`nodens -plugins` lists what a Corefile may use"),
        ("cache{", "did you mean `cache`?"),
        ("example.org {\nerrors\n}", "a server block begins here? Close the one above with `}` first"),
    ] {
        let (_, diagnostics) = block(lines).examine();
        let error = diagnostics.iter().find(|d| d.is_error()).unwrap();
        assert!(error.message.starts_with("unknown plug-in `"), "{lines}: {}", error.message);
        assert_eq!(error.help.as_deref(), Some(help), "{lines}");
    }
}

#[test]
fn what_coredns_takes_twice_is_taken_with_a_warning() {
    for lines in
        ["health :1\nhealth :2", "bufsize 512\nbufsize 4096", "health {\nlameduck 1s\nlameduck 2s\n}"]
    {
        let (corefile, diagnostics) = block(&format!("forward . 1.1.1.1\n{lines}")).examine();
        assert_eq!(messages(&diagnostics, true), [""; 0], "{lines}");
        assert_eq!(messages(&diagnostics, false).len(), 1, "{lines}");
        let server = &corefile.blocks[0];
        assert!(server.bufsize.is_none_or(|size| size == 4096));
        assert!(
            server.health.as_ref().is_none_or(|h| h.addr.port == 2 || h.lameduck == Duration::from_secs(2))
        );
    }
}

fn nodens(lines: &str, refused: &[&str]) -> NodensOptions {
    let (corefile, diagnostics) = block(&format!("nodens {{\n{lines}\n}}")).examine();
    let refused: Vec<String> =
        refused.iter().map(|option| format!("`{option}` of `nodens` is not in nodens yet")).collect();
    assert_eq!(messages(&diagnostics, true), refused, "{lines}");
    corefile.nodens
}

#[test]
fn the_nodens_block() {
    let plain = NodensOptions::default();
    assert_eq!(NodensOptions { span: None, ..nodens("", &[]) }, plain);
    assert_eq!(
        (plain.ttl_floor_s, plain.trust_ad, plain.cluster_domain.as_str()),
        (5, true, "cluster.local.")
    );
    let set = nodens(
        "workers 3\nruntime tokio\ncache_bytes 32Mi\nttl_floor 0\ntrust_ad off\ncluster_domain Example.Cluster",
        &[],
    );
    assert_eq!(
        (set.workers, set.runtime, set.cache_bytes),
        (Some(3), Some(RuntimeChoice::Tokio), Some(32 << 20))
    );
    assert_eq!((set.ttl_floor_s, set.trust_ad, set.cluster_domain.as_str()), (0, false, "example.cluster."));
    assert_eq!(nodens("ttl_floor 10s", &[]).ttl_floor_s, 10);
    let later = nodens(
        "aa coredns\nrotate off\nimpossible_names answer\nclient_rate 500",
        &["aa", "rotate", "impossible_names", "client_rate"],
    );
    assert!(later.aa_coredns && !later.rotate && later.impossible_names);
    assert_eq!(later.client_rate, Some(500));
}

#[test]
fn the_nodens_block_is_checked_like_the_others() {
    for (line, because) in [
        ("workers 0", "`0` is out of range"),
        ("workers many", "`many` is not a whole number"),
        ("runtime epoll", "`epoll` is not a value for this"),
        ("cache_bytes 32mb", "`32mb` is not a size"),
        ("cache_bytes 1000", "`1000` is too small for a cache"),
        ("ttl_floor -1s", "`-1s` is negative"),
        ("ttl_floor 100ms", "`100ms` cannot be a TTL floor"),
        ("ttl_floor 3601", "`3601` is out of range"),
        ("ttl_floor", "`ttl_floor` needs an argument"),
        ("trust_ad maybe", "`maybe` is not a value for this"),
        ("trust_ad on off", "unexpected `off` after `on`"),
        ("worker 2", "unknown property `worker` of `nodens`"),
        ("cluster_domain a..b", "`a..b` has an empty label"),
    ] {
        refuses(&format!("nodens {{\n{line}\n}}"), because);
    }
    refuses("nodens fast", "unexpected `fast` after `nodens`");
    refuses("nodens\nnodens", "`nodens` stands twice in this server block");
}
