//! The HTTP endpoints of the real binary after real traffic: CoreDNS' names and labels, numbers that are exactly what was sent,
//! and clients that mean no good.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nodens_testkit::msg::rcode::{NOERROR, REFUSED};
use nodens_testkit::{Query, Received, Response, UdpClient, Upstream, answers};

use support::{Agent, COREFILE, Metrics, PATIENCE, eventually};

/// Two zones, one of them behind two names, that share the HTTP address; nothing is there for the rest of the world.
const ZONES: &str = "\
cluster.local:{$DNS} {
    bind 127.0.0.1
    errors
    cache
    forward . {$UPSTREAM}
    prometheus {$HTTP}
}
example:{$DNS} example.org:{$DNS} {
    bind 127.0.0.1
    errors
    forward . {$UPSTREAM}
    health {$HTTP}
    prometheus {$HTTP}
}
";

fn world(query: &Received) -> Response {
    let reply = query.response();
    match query.qtype {
        1 => reply.answer("@ 60 IN A 192.0.2.1"),
        28 => reply.authority(". 30 IN SOA ns.example. admin.example. 1 3600 600 86400 30"),
        _ => reply.rcode(3).authority(". 30 IN SOA ns.example. admin.example. 1 3600 600 86400 30"),
    }
}

fn agent(corefile: &str) -> (Upstream, Agent) {
    let upstream = Upstream::start(answers(world));
    let agent = Agent::start(corefile, &[("UPSTREAM", &upstream.addr().to_string())]);
    (upstream, agent)
}

/// The metrics once `queries` were counted: a worker counts before it answers, but on another core.
fn counted(agent: &Agent, queries: u64) -> Metrics {
    eventually("all queries counted", PATIENCE, || {
        let metrics = agent.metrics();
        (metrics.sum("coredns_dns_requests_total", &[]) >= queries).then_some(metrics)
    })
}

#[test]
fn the_numbers_are_exactly_what_was_sent() {
    let (upstream, agent) = agent(COREFILE);
    let a = Query::new("a.example.", "A");
    // Each from a port of its own, so that both workers have a share: 4 A over UDP, one with DO; 2 A over TCP; 3 AAAA; a type of no
    // label of its own.
    for query in [&a, &a, &a, &a.clone().do_bit()] {
        assert_eq!(agent.udp(query).rcode, NOERROR);
    }
    let tcp_len = [(); 2].map(|()| agent.tcp(&a).raw_len)[1];
    for _ in 0..3 {
        agent.udp(&Query::new("a.example.", "AAAA"));
    }
    agent.udp(&Query::new("a.example.", "TYPE65300"));

    let metrics = counted(&agent, 10);
    let server = format!("dns://{}", agent.dns);
    let place = [("server", server.as_str()), ("zone", "."), ("view", "")];
    let value = |name: &str, more: &[(&str, &str)]| {
        let labels: Vec<_> = place.iter().chain(more).copied().collect();
        metrics.value(name, &labels).unwrap_or_else(|| panic!("no {name} {labels:?}")) as u64
    };
    for (proto, qtype, wanted) in [("udp", "A", 4), ("tcp", "A", 2), ("udp", "AAAA", 3), ("udp", "other", 1)]
    {
        let labels = [("proto", proto), ("family", "1"), ("type", qtype)];
        assert_eq!(value("coredns_dns_requests_total", &labels), wanted, "{labels:?}");
    }
    assert_eq!(metrics.sum("coredns_dns_requests_total", &[]), 10);
    for (rcode, wanted) in [("NOERROR", 9), ("NXDOMAIN", 1)] {
        let labels = [("rcode", rcode), ("plugin", "forward")];
        assert_eq!(value("coredns_dns_responses_total", &labels), wanted);
    }
    assert_eq!(metrics.sum("coredns_dns_responses_total", &[]), 10);
    assert_eq!(value("coredns_dns_do_requests_total", &[]), 1);
    assert_eq!(value("coredns_dns_request_duration_seconds_count", &[]), 10);
    assert_eq!(value("coredns_dns_request_size_bytes_sum", &[("proto", "tcp")]), 2 * a.bytes().len() as u64);
    assert_eq!(value("coredns_dns_response_size_bytes_sum", &[("proto", "tcp")]), 2 * tcp_len as u64);
    assert_eq!(value("coredns_dns_response_size_bytes_count", &[("proto", "udp")]), 8);
    assert_eq!(value("coredns_plugin_enabled", &[("name", "cache")]), 1);

    // DO is a key of the cache, so four questions went upstream.
    let misses = upstream.count() as u64;
    assert_eq!(misses, 4, "{:?}", upstream.received());
    let cache = |name: &str, class: &str| {
        let labels = [("server", server.as_str()), ("type", class), ("zones", "."), ("view", "")];
        metrics.value(name, &labels).unwrap_or_else(|| panic!("no {name} {labels:?}")) as u64
    };
    assert_eq!(
        [cache("coredns_cache_hits_total", "success"), cache("coredns_cache_hits_total", "denial")],
        [4, 2]
    );
    assert_eq!([cache("coredns_cache_entries", "success"), cache("coredns_cache_entries", "denial")], [2, 2]);
    assert_eq!(cache("coredns_cache_evictions_total", "success"), 0);
    for (name, wanted) in [
        ("coredns_cache_requests_total", 10),
        ("coredns_cache_misses_total", 4),
        ("coredns_forward_requests_total", misses),
        ("coredns_forward_responses_total", misses),
        ("coredns_proxy_request_duration_seconds_count", misses),
        ("nodens_upstream_down", 0),
        ("nodens_queries_dropped_total", 0),
    ] {
        assert_eq!(metrics.sum(name, &[]), wanted, "{name}");
    }
    let to = upstream.addr().to_string();
    let labels = [("proxy_name", "forward"), ("to", &*to), ("rcode", "NXDOMAIN")];
    assert_eq!(metrics.value("coredns_proxy_request_duration_seconds_count", &labels), Some(1.0));
}

#[test]
fn every_metric_that_dashboards_ask_for_is_there_with_its_type() {
    let (_upstream, agent) = agent(COREFILE);
    agent.udp(&Query::new("a.example.", "A"));
    let metrics = counted(&agent, 1);
    for name in [
        "coredns_panics_total",
        "coredns_reload_failed_total",
        "coredns_dns_requests_total",
        "coredns_dns_responses_total",
        "coredns_dns_do_requests_total",
        "coredns_cache_hits_total",
        "coredns_cache_misses_total",
        "coredns_cache_requests_total",
        "coredns_cache_drops_total",
        "coredns_cache_evictions_total",
        "coredns_forward_healthcheck_broken_total",
        "coredns_forward_max_concurrent_rejects_total",
        "coredns_proxy_healthcheck_failures_total",
        "coredns_health_request_failures_total",
    ] {
        assert!(metrics.has(name, "counter"), "{name}");
    }
    for name in ["coredns_build_info", "coredns_plugin_enabled", "coredns_cache_entries", "process_open_fds"]
    {
        assert!(metrics.has(name, "gauge"), "{name}");
    }
    for name in [
        "coredns_dns_request_duration_seconds",
        "coredns_dns_request_size_bytes",
        "coredns_dns_response_size_bytes",
        "coredns_proxy_request_duration_seconds",
        "coredns_health_request_duration_seconds",
    ] {
        assert!(metrics.has(name, "histogram"), "{name}");
    }
    let page = agent.get("/metrics").expect("served");
    assert!(
        page.head.to_ascii_lowercase().contains("content-type: text/plain; version=0.0.4"),
        "{}",
        page.head
    );
}

#[test]
fn l18_m92_every_zone_is_counted_by_name_and_the_rest_is_dropped() {
    let (upstream, agent) = agent(ZONES);
    for name in ["x.cluster.local.", "x.example.", "y.example.", "x.example.org."] {
        assert_eq!(agent.udp(&Query::new(name, "A")).rcode, NOERROR, "{name}");
    }
    assert_eq!(agent.udp(&Query::new("www.example.net.", "A")).rcode, REFUSED);
    let metrics = counted(&agent, 5);
    for (zone, wanted) in [("cluster.local.", 1), ("example.", 2), ("example.org.", 1), ("dropped", 1)] {
        let zone = format!("zone=\"{zone}\"");
        assert_eq!(metrics.sum("coredns_dns_requests_total", &[&zone]), wanted, "{zone}");
    }
    assert_eq!(metrics.sum("coredns_dns_responses_total", &["zone=\"dropped\"", "rcode=\"REFUSED\""]), 1);
    assert_eq!(metrics.sum("coredns_cache_requests_total", &["zones=\"cluster.local.\""]), 1);
    assert_eq!(upstream.count_for("www.example.net.", "A"), 0);
    assert_eq!(agent.get("/health").expect("served").status, 200, "on the same address");
}

#[test]
fn s22_odd_names_break_neither_the_text_nor_the_lines() {
    let (upstream, agent) = agent(&COREFILE.replace("errors\n", "errors\n    log\n"));
    let labels: [&[u8]; 4] =
        [b"\"\n{}\\\x1b[31m", b"\x00\xff\r\n[ERROR] forged", b"a=\"b\",le=\"1\"} 1", b"%s\xc3\x28"];
    for (id, label) in labels.iter().enumerate() {
        let mut name = vec![label.len() as u8];
        name.extend_from_slice(label);
        name.extend_from_slice(b"\x07example\x00");
        let query = Query::new("x.", "A").raw_name(&name).id(7000 + id as u16);
        assert_eq!(agent.udp(&query).rdatas("A"), ["192.0.2.1"], "{label:?}");
    }
    counted(&agent, 4);
    upstream.stop();
    agent.udp(&Query::new("x.", "A").raw_name(b"\x05\n[E]\x1b\x07example\x00").id(7004));
    let last = agent.process.wait_for_line(" - 7004 ", PATIENCE);
    assert!(last.is_some(), "{}", agent.process.dump());
    let lines = agent.process.stdout_lines();
    let queries: Vec<_> = lines.iter().filter(|line| line.contains(" \"A IN ")).collect();
    assert_eq!(queries.len(), 5, "one line per query: {lines:#?}");
    for line in &lines {
        assert!(!line.contains(char::is_control) && line.is_ascii(), "{line:?}");
        assert!(
            line.starts_with("[INFO] ") || line.starts_with("[WARNING] ") || line.starts_with("[ERROR] "),
            "{line:?}"
        );
    }
    let first = queries.iter().find(|line| line.contains(" - 7000 ")).expect("the line of the first query");
    assert!(first.contains("\\\"\\010{}\\\\\\027[31m.example. udp "), "{first}");
    let errors: Vec<_> = lines.iter().filter(|line| line.starts_with("[ERROR] ")).collect();
    assert_eq!(errors.len(), 1, "{lines:#?}");
    assert!(errors[0].contains("\\010[e]\\027.example. A: "), "{}", errors[0]);
}

#[test]
fn m93_a_client_that_dawdles_keeps_nobody_from_the_metrics() {
    let (_upstream, agent) = agent(COREFILE);
    let open = || {
        let mut stream = TcpStream::connect(agent.http).expect("connected");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ").expect("sent");
        stream
    };
    let begin = Instant::now();
    // Fewer than may be open at once, then more.
    for count in [8, 40] {
        let mut slow: Vec<_> = (0..count).map(|_| open()).collect();
        for _ in 0..5 {
            let asked = Instant::now();
            assert_eq!(agent.get("/metrics").expect("served").status, 200);
            assert_eq!(agent.get("/health").expect("served").status, 200);
            assert!(asked.elapsed() < Duration::from_secs(1), "{count}: {:?}", asked.elapsed());
            // A byte now and then, to look alive; whoever was closed already does not take it.
            slow.iter_mut().for_each(|stream| drop(stream.write_all(b"x")));
        }
        if count == 8 {
            continue;
        }
        // All of them are closed in the end.
        for mut stream in slow {
            stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
            eventually("closed", PATIENCE, || match stream.read(&mut [0; 64]) {
                Ok(0) => Some(()),
                Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    Some(())
                }
                _ => {
                    drop(stream.write_all(b"x"));
                    None
                }
            });
        }
    }
    assert!(begin.elapsed() < Duration::from_secs(9), "closed after {:?}", begin.elapsed());
}

#[test]
fn nonsense_over_http_and_dns_is_survived() {
    let (_upstream, agent) = agent(COREFILE);
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
        &[b'A'; 20_000],
    ] {
        let mut stream = TcpStream::connect(agent.http).expect("connected");
        // It may be closed while this is being written.
        drop(stream.write_all(bytes));
        drop(stream);
    }
    let client = UdpClient::new();
    for bytes in [&[][..], &[0], &[0xff; 12], &[0; 11], &[0x80; 600]] {
        client.send(agent.dns, bytes);
    }
    assert_eq!(agent.udp(&Query::new("a.example.", "A")).rcode, NOERROR);
    let metrics = counted(&agent, 1);
    assert!(
        metrics.sum("nodens_queries_dropped_total", &[]) >= 3,
        "what is no query is not answered, but counted"
    );
    assert_eq!(metrics.sum("coredns_panics_total", &[]), 0);
}
