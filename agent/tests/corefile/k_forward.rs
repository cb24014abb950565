//! Table K: the `forward` plug-in's lines. K27-K36 (the name behind `%`) are tested beside the function.

use std::time::Duration;

use nodens_agent::corefile::config::{ForwardOptions, Policy, Transport};

use super::{Texts, block, messages, reads, refuses};

fn forward(lines: &str, refused: &[&str]) -> ForwardOptions {
    reads(lines, refused).forward.into_iter().next().expect("a forward")
}

/// `forward . 127.0.0.1` with one option, which nodens has.
fn with(option: &str) -> ForwardOptions {
    forward(&format!("forward . 127.0.0.1 {{\n{option}\n}}"), &[])
}

/// The same with options that nodens refuses by name, but reads.
fn not_yet(option: &str, refused: &[&str]) -> ForwardOptions {
    let refused: Vec<String> = refused.iter().map(|option| format!("`{option}` of `forward`")).collect();
    let refused: Vec<&str> = refused.iter().map(String::as_str).collect();
    forward(&format!("forward . 127.0.0.1 {{\n{option}\n}}"), &refused)
}

fn fails(option: &str, because: &str) {
    refuses(&format!("forward . 127.0.0.1 {{\n{option}\n}}"), because);
}

fn to(forward: &ForwardOptions) -> Vec<String> {
    forward.to.iter().map(|upstream| upstream.addr.to_string()).collect()
}

#[test]
fn k01_k07_options() {
    let plain = forward("forward . 127.0.0.1", &[]);
    assert_eq!((plain.from.as_str(), plain.max_fails, plain.expire), (".", 2, Duration::from_secs(10)));
    assert_eq!((plain.policy, plain.max_concurrent), (Policy::Random, None));
    let check = with("health_check 0.5s domain example.org").health_check;
    assert_eq!((check.domain.as_str(), check.interval), ("example.org.", Duration::from_millis(500)));
    assert_eq!(with("except miek.nl").except, ["miek.nl."]);
    assert_eq!(with("max_fails 3").max_fails, 3);
    assert!(with("force_tcp").force_tcp);
    assert!(with("prefer_udp").prefer_udp);
    let both = with("force_tcp\nprefer_udp");
    assert!(both.force_tcp && both.prefer_udp);
}

#[test]
fn k08_k12_addresses() {
    for (line, addr) in [
        ("127.0.0.1", "127.0.0.1:53"),
        ("127.0.0.1:53", "127.0.0.1:53"),
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("[::1]:53", "[::1]:53"),
        ("[2003::1]:53", "[2003::1]:53"),
        ("127.0.0.1 ", "127.0.0.1:53"),
        ("dns://127.0.0.1", "127.0.0.1:53"),
    ] {
        assert_eq!(to(&forward(&format!("forward . {line}"), &[])), [addr], "{line}");
    }
}

#[test]
fn k13_an_address_block_forwards_its_first_zone_and_says_so() {
    let (corefile, diagnostics) = block("forward 10.9.3.0/18 127.0.0.1").examine();
    assert_eq!(corefile.blocks[0].forward[0].from, "0.9.10.in-addr.arpa.");
    assert_eq!(
        messages(&diagnostics, false),
        ["`10.9.3.0/18` is several reverse zones; only the first, `0.9.10.in-addr.arpa.`, is forwarded"]
    );
}

#[test]
fn k14_two_stanzas() {
    let server = reads("forward . ::1\nforward com ::2", &["`forward` with several stanzas"]);
    let from: Vec<&str> = server.forward.iter().map(|forward| forward.from.as_str()).collect();
    assert_eq!(from, [".", "com."]);
}

#[test]
fn k15_tls_with_a_server_name() {
    let line = "forward . tls://[2400:3200::1%dns.alidns.com]:853 {\ntls\n}";
    let forward = forward(line, &["`tls://` of `forward`", "`tls` of `forward`"]);
    assert_eq!(to(&forward), ["[2400:3200::1]:853"]);
    assert_eq!(forward.to[0].transport, Transport::Tls);
    assert_eq!(forward.to[0].tls_server_name.as_deref(), Some("dns.alidns.com"));
}

#[test]
fn k16_https() {
    let forward = forward("forward . https://127.0.0.1 ", &["`https://` of `forward`"]);
    assert_eq!((to(&forward), forward.to[0].transport), (vec!["127.0.0.1:443".to_owned()], Transport::Https));
}

#[test]
fn k17_k21_broken_stanzas() {
    refuses("forward . https://1.1.1.1/ ", "paths are not allowed in HTTPS upstream addresses");
    refuses("forward . a27.0.0.1", "`a27.0.0.1` is neither an IP address nor a file");
    fails("blaatl", "unknown property `blaatl` of `forward`");
    fails("health_check 0.5s domain", "`domain` needs an argument");
    refuses(&format!("forward {} 127.0.0.1", "x".repeat(64)), "has a label of 64 characters");
    refuses("forward", "`forward` needs a zone and at least one upstream");
    refuses("forward .", "`forward` needs a zone and at least one upstream");
    refuses("forward . grpc://127.0.0.1", "`grpc` is not a way to speak to an upstream");
    refuses("forward . 127.0.0.1:0", "`127.0.0.1:0` has port 0");
    refuses("forward . fe80::1%eth0", "`fe80::1%eth0` has an interface scope");
}

#[test]
fn k22_k26_source_address() {
    for (line, address) in [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:0db8:85a3:0000:1319:8a2e:0370:7344", "2001:db8:85a3:0:1319:8a2e:370:7344"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ] {
        let forward = not_yet(&format!("source_address {line}"), &["source_address"]);
        assert_eq!(forward.source_address.map(|ip| ip.to_string()).as_deref(), Some(address));
    }
    fails("source_address not-an-ip", "`not-an-ip` is not an IP address");
    fails("source_address ", "`source_address` needs an argument");
}

#[test]
fn k37_k44_tls_server_names() {
    let tls = "`tls://` of `forward`";
    let option = "`tls_servername` of `forward`";
    let block = "`tls` of `forward`";
    reads("forward . tls://127.0.0.1 {\ntls_servername dns\n}", &[tls, option]);
    reads("forward . tls://127.0.0.1%example.net {\ntls\n}", &[tls, block]);
    let several = "forward . tls://127.0.0.1%example.net:854 tls://127.0.0.2%example.net tls://fe80::1%example.com {\ntls\n}";
    let forward = forward(several, &[tls, tls, tls, block]);
    assert_eq!(to(&forward), ["127.0.0.1:854", "127.0.0.2:853", "[fe80::1]:853"]);
    let names: Vec<_> =
        forward.to.iter().filter_map(|upstream| upstream.tls_server_name.as_deref()).collect();
    assert_eq!(names, ["example.net", "example.net", "example.com"]);
    let clash = "forward . tls://127.0.0.1%example.net:854 {\ntls_servername foo.bar\n}";
    refuses(clash, "an upstream has a TLS server name of its own");
    reads("forward . 127.0.0.1 {\ntls_servername foo.bar\ntls\n}", &[option, block]);
    fails("tls a b c d", "unexpected `d` after `c`");
}

/// One server block that forwards to a file.
fn with_file(text: &str, more: &str) -> Texts {
    Texts::corefile(format!(".:53 {{\nforward . resolv.conf{more}\n}}\n")).file("resolv.conf", text)
}

#[test]
fn k45_k48_files() {
    let servers = |texts: Texts| to(&texts.good().blocks[0].forward[0]);
    assert_eq!(
        servers(with_file("nameserver 10.10.255.252\nnameserver 10.10.255.253", "")),
        ["10.10.255.252:53", "10.10.255.253:53"]
    );
    assert_eq!(with_file("# nameserver 10.10.255.253\n", "").errors(), ["no valid upstream addresses found"]);
    let scoped = "nameserver 0388:d254:7aec:6892:9f7f:e93b:5806:1b0f%en0";
    assert_eq!(servers(with_file(scoped, "")), ["[388:d254:7aec:6892:9f7f:e93b:5806:1b0f]:53"]);
    assert_eq!(
        servers(with_file("; none\nsearch example.org\nnameserver\n", " 127.0.0.1")),
        ["127.0.0.1:53"]
    );
    assert_eq!(
        with_file("nameserver example.org\n", "").errors(),
        ["`resolv.conf` names the nameserver `example.org`, which is no IP address"]
    );
    refuses("forward . /etc/none", "`/etc/none` cannot be read: ");
}

#[test]
fn k49_k51_max_concurrent() {
    assert_eq!(with("max_concurrent 1000").max_concurrent, Some(1000));
    assert_eq!(with("max_concurrent 0").max_concurrent, None);
    fails("max_concurrent many", "`many` is not a whole number");
    fails("max_concurrent -4", "`-4` is negative");
}

#[test]
fn k52_k56_max_connect_attempts() {
    assert_eq!(with("").max_connect_attempts, None);
    assert_eq!(with("max_connect_attempts 0").max_connect_attempts, Some(0));
    assert_eq!(with("max_connect_attempts 5").max_connect_attempts, Some(5));
    fails("max_connect_attempts many", "`many` is not a whole number");
    fails("max_connect_attempts -4", "`-4` is negative");
}

#[test]
fn k57_k61_max_idle_conns() {
    let option = &["max_idle_conns"];
    assert_eq!(with("").max_idle_conns, None);
    assert_eq!(not_yet("max_idle_conns 10", option).max_idle_conns, Some(10));
    assert_eq!(not_yet("max_idle_conns 0", option).max_idle_conns, None);
    fails("max_idle_conns many", "`many` is not a whole number");
    fails("max_idle_conns -1", "`-1` is negative");
}

#[test]
fn k62_k68_health_check() {
    for (line, interval_ms, recursion_desired, domain) in [
        ("", 500, true, "."),
        ("health_check 0.5s", 500, true, "."),
        ("health_check 0.2s no_rec", 200, false, "."),
        ("health_check 0.5s no_rec domain example.org", 500, false, "example.org."),
        ("health_check 0.5s domain example.org", 500, true, "example.org."),
        ("health_check 1s domain . no_rec", 1000, false, "."),
        ("health_check 0.5s domain Example.org.", 500, true, "example.org."),
    ] {
        let check = with(line).health_check;
        assert_eq!(
            (check.interval, check.recursion_desired, check.domain.as_str()),
            (Duration::from_millis(interval_ms), recursion_desired, domain),
            "{line}"
        );
    }
}

#[test]
fn k69_k73_broken_health_check() {
    fails("health_check no_rec", "`no_rec` is not a duration");
    fails("health_check domain example.org", "`domain` is not a duration");
    fails("health_check 0.5s rec", "`rec` is not an option of `health_check`");
    fails("health_check 0.5s domain", "`domain` needs an argument");
    fails("health_check 0.5s domain example..org", "`example..org` has an empty label");
    fails("health_check", "`health_check` needs an argument");
    fails("health_check -1s", "`-1s` is negative");
}

#[test]
fn k74_k77_next() {
    for (line, codes) in [
        ("NXDOMAIN", vec![3]),
        ("SERVFAIL", vec![2]),
        ("nxdomain SERVFAIL", vec![3, 2]),
        ("NXDOMAIN SERVFAIL REFUSED", vec![3, 2, 5]),
    ] {
        assert_eq!(not_yet(&format!("next {line}"), &["next"]).next, codes, "{line}");
    }
    assert!(not_yet("next_on_nodata", &["next_on_nodata"]).next_on_nodata);
    assert_eq!(with("failover SERVFAIL").failover, [2]);
    fails("next", "`next` needs an argument");
    fails("next MAYBE", "`MAYBE` is not a response code");
    fails("failover NOERROR", "`NOERROR` cannot stand in `failover`");
    fails("next_on_nodata yes", "unexpected `yes`");
}

#[test]
fn k78_k80_failfast() {
    let option = "failfast_all_unhealthy_upstreams";
    assert!(!with("").failfast_all_unhealthy_upstreams);
    assert!(with(option).failfast_all_unhealthy_upstreams);
    fails(&format!("{option} arg"), "unexpected `arg`");
}

#[test]
fn k81_k87_max_age() {
    assert_eq!(with("").max_age, None);
    assert_eq!(with("max_age 30s").max_age, Some(Duration::from_secs(30)));
    assert_eq!(with("expire 10s\nmax_age 10s").max_age, Some(Duration::from_secs(10)));
    assert_eq!(with("max_age 0s").max_age, None);
    fails("max_age -1s", "`-1s` is negative");
    fails("max_age invalid", "`invalid` is not a duration");
    fails("expire 30s\nmax_age 10s", "`max_age` (10s) is less than `expire` (30s)");
    fails("max_age 10s\nexpire 1m30s", "`max_age` (10s) is less than `expire` (1m30s)");
}

#[test]
fn k88_k94_read_timeout() {
    assert_eq!(with("").read_timeout, Duration::from_secs(2));
    assert_eq!(with("read_timeout 5s").read_timeout, Duration::from_secs(5));
    assert_eq!(with("read_timeout 500ms").read_timeout, Duration::from_millis(500));
    fails("read_timeout 0s", "`read_timeout` must be positive");
    fails("read_timeout -1s", "`-1s` is negative");
    fails("read_timeout invalid", "`invalid` is not a duration");
    fails("read_timeout", "`read_timeout` needs an argument");
}

#[test]
fn k95_k106_kinds_of_upstreams() {
    for (line, addr, refused) in [
        ("10.0.0.1", "10.0.0.1:53", None),
        ("10.0.0.1:5353", "10.0.0.1:5353", None),
        ("2001:db8::1", "[2001:db8::1]:53", None),
        ("tls://10.0.0.1", "10.0.0.1:853", Some("`tls://` of `forward`")),
    ] {
        assert_eq!(to(&forward(&format!("forward . {line}"), refused.as_slice())), [addr], "{line}");
    }
    for name in [
        "dns.example.org",
        "dns.example.org:5353",
        "tls://dns.example.org",
        "https://dns.example.org",
        "a.ns.svc.cluster.local",
    ] {
        let errors = block(&format!("forward . {name}")).errors();
        let not_yet = "`forward` with host names is not in nodens yet".to_owned();
        assert!(errors.contains(&not_yet), "{name}: {errors:?}");
        assert!(
            errors.contains(&format!("`{name}` is neither an IP address nor a file")),
            "{name}: {errors:?}"
        );
    }
    let mixed = block("forward . 10.0.0.1 dns.example.org 10.0.0.2").examine().0;
    assert_eq!(to(&mixed.blocks[0].forward[0]), ["10.0.0.1:53", "10.0.0.2:53"]);
}

#[test]
fn k107_repetitions_are_dropped_in_the_order_of_the_file() {
    let texts = Texts::corefile(".:53 {\nforward . a b 10.0.0.3 10.0.0.2\n}\n")
        .file("a", "nameserver 10.0.0.1\nnameserver 10.0.0.2\n")
        .file("b", "nameserver 10.0.0.2\nnameserver 10.0.0.3\n");
    assert_eq!(to(&texts.good().blocks[0].forward[0]), ["10.0.0.1:53", "10.0.0.2:53", "10.0.0.3:53"]);
}

#[test]
fn k108_k112_resolver() {
    for line in ["10.0.0.53", "10.0.0.53 10.0.0.54:5353", "::1"] {
        not_yet(&format!("resolver {line}"), &["resolver"]);
    }
    fails("resolver dns.example.org", "`dns.example.org` is not an IP address");
    fails("resolver", "`resolver` needs an argument");
}

#[test]
fn k113_policy() {
    for (line, policy) in
        [("random", Policy::Random), ("round_robin", Policy::RoundRobin), ("sequential", Policy::Sequential)]
    {
        assert_eq!(with(&format!("policy {line}")).policy, policy);
    }
    fails("policy random2", "`random2` is not a value for this");
    fails("policy", "`policy` needs an argument");
}

#[test]
fn at_most_fifteen_upstreams() {
    let line = |count: u8| (1..=count).map(|i| format!(" 10.0.0.{i}")).collect::<String>();
    assert_eq!(forward(&format!("forward .{}", line(15)), &[]).to.len(), 15);
    refuses(&format!("forward .{}", line(16)), "`forward` has more than 15 upstreams");
}
