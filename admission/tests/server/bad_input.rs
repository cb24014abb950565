//! What a client can get wrong, by mistake or on purpose: each gets the status it deserves or an answer that allows, one line in the log and a
//! counter; nothing panics, nobody else notices, memory stays bounded (S26).

use std::time::{Duration, Instant};

use hyper::Method;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::support::{LONG, NAME, Server, pod, read_to_end, review};

const JSON: Option<&str> = Some("application/json");

/// A POST with this body, as bytes on the wire.
fn post(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /inject HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// That the server still does what it is for, and has not panicked.
async fn assert_unharmed(server: &mut Server) {
    assert!(server.connect().await.review(review("after", pod())).await.expect("an answer").has_patch());
    assert!(server.process.is_running());
    assert!(!server.process.dump().contains("panicked"), "{}", server.process.dump());
}

/// How many lines of the log have this in them; told within a moment.
async fn lines(server: &Server, text: &str, expected: usize) -> usize {
    for _ in 0..40 {
        let count = server.process.stderr_lines().iter().filter(|line| line.contains(text)).count();
        if count >= expected {
            return count;
        }
        sleep(Duration::from_millis(25)).await;
    }
    server.process.stderr_lines().iter().filter(|line| line.contains(text)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn s26_what_is_no_review_gets_400_and_the_connection_lives() {
    let mut server = Server::start(&[]);
    server.ready().await;
    let mut client = server.connect().await;
    let bodies: [&[u8]; 12] = [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\"x\"",
        b"\xff\xfe{}",
        b"{\"kind\":\"\xc3\x28\"}",
        br#"{"kind":"Pod"}"#,
        br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#,
        br#"{"apiVersion":"admission.k8s.io/v2","kind":"AdmissionReview","request":{"uid":"1"}}"#,
        br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":""}}"#,
        br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":7}}"#,
    ];
    for (count, body) in bodies.iter().enumerate() {
        let reply = client.send(Method::POST, "/inject", JSON, body.to_vec()).await.expect("an answer");
        assert_eq!(reply.status, 400, "{}", String::from_utf8_lossy(body));
        assert!(reply.body.ends_with(b"\n") && reply.body.len() > 20, "a sentence");
        assert_eq!(server.errors("undecodable").await, count as u64 + 1);
    }
    assert_eq!(lines(&server, "POST /inject of 127.0.0.1", bodies.len()).await, bodies.len());
    assert!(client.review(review("1", pod())).await.expect("the same connection").has_patch());
    assert_unharmed(&mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_no_pod_is_allowed_without_a_patch() {
    let mut server = Server::start(&[]);
    server.ready().await;
    let mut client = server.connect().await;
    let objects = [
        json!(null),
        json!("pod"),
        json!([1, 2]),
        json!({"spec": 7}),
        json!({"spec": {"hostNetwork": "yes"}}),
        json!({"spec": {"dnsConfig": {"nameservers": "10.0.0.1"}}}),
        json!({"metadata": {"labels": ["x"]}, "spec": {}}),
    ];
    for object in &objects {
        let reply = client.review(review("1", object.clone())).await.expect("an answer");
        assert!(!reply.has_patch(), "{object}");
    }
    assert_eq!(server.errors("undecodable").await, objects.len() as u64);
    assert_eq!(lines(&server, "[WARNING] skip undecodable", objects.len()).await, objects.len());
    // Readable, but contradictory or at a limit already.
    let mut four = pod();
    four["spec"]["dnsConfig"] = json!({"nameservers": ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]});
    let mut both = pod();
    both["metadata"]["labels"] = json!({"node-local-dns-injection": "disabled", "eci": "true"});
    let mut policy = pod();
    policy["spec"]["dnsPolicy"] = json!("Sideways");
    for (object, reason) in [(four, "limits-exceeded"), (both, "pod-opt-out"), (policy, "dns-policy-unknown")]
    {
        let reply = client.review(review("2", object)).await.expect("an answer");
        assert!(!reply.has_patch());
        assert_eq!(reply.json()["response"]["auditAnnotations"]["reason"], reason);
    }
    // The request's namespace counts.
    let mut elsewhere = pod();
    elsewhere["metadata"]["namespace"] = json!("kube-system");
    assert_eq!(server.errors("other-namespace").await, 0);
    assert!(client.review(review("3", elsewhere)).await.expect("an answer").has_patch());
    assert_eq!(server.errors("other-namespace").await, 1);
    assert_eq!(lines(&server, "names another namespace than the request", 1).await, 1);
    assert_unharmed(&mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s26_wrong_paths_methods_and_types_get_their_status() {
    let mut server = Server::start(&[]);
    server.ready().await;
    for (method, path, content_type, status, kind) in [
        (Method::POST, "/", JSON, 404, "path"),
        (Method::GET, "/inject/", None, 404, "path"),
        (Method::POST, "/healthz", JSON, 404, "path"),
        (Method::GET, "/inject", None, 405, "method"),
        (Method::PUT, "/mutate", JSON, 405, "method"),
        (Method::POST, "/inject", None, 415, "content-type"),
        (Method::POST, "/inject", Some("text/plain"), 415, "content-type"),
        (Method::POST, "/inject", Some("application/x-www-form-urlencoded"), 415, "content-type"),
    ] {
        let before = server.errors(kind).await;
        let mut client = server.connect().await;
        let reply =
            client.send(method.clone(), path, content_type, review("1", pod())).await.expect("an answer");
        assert_eq!(reply.status, status, "{method} {path}");
        assert_eq!(reply.headers.contains_key("allow"), status == 405);
        assert_eq!(server.errors(kind).await, before + 1, "{method} {path}");
    }
    assert_eq!(lines(&server, "is answered with 4", 8).await, 8);
    assert_unharmed(&mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s26_a_body_above_the_limit_gets_413_however_it_comes() {
    let mut server = Server::start(&[]);
    server.ready().await;
    // Announced: not even read.
    let head = format!(
        "POST /inject HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\nContent-Length: 10000000\r\n\r\n"
    );
    let reply = server.exchange(head.as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 413 "), "{reply}");
    // In chunks, and longer than anybody said.
    let mut stream = server.raw().await;
    let head = format!(
        "POST /inject HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("the head is read");
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    for _ in 0..160 {
        // It stops reading, and closes.
        if stream.write_all(&chunk).await.is_err() {
            break;
        }
    }
    let _ = stream.flush().await;
    let reply = read_to_end(&mut stream).await;
    // The answer can be lost to the reset that follows it: we were still sending.
    assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 413 "), "{reply}");
    assert_eq!(server.errors("body-too-long").await, 2);
    assert_eq!(lines(&server, "413: the body is longer than 8388608 bytes", 2).await, 2);
    // What is just within it is read.
    let mut large = pod();
    large["metadata"]["annotations"] = json!({"x": "y".repeat(8_000_000)});
    assert!(server.connect().await.review(review("1", large)).await.expect("an answer").has_patch());
    assert_unharmed(&mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s26_nesting_without_end_costs_nobody_the_stack() {
    let mut server = Server::start(&[]);
    server.ready().await;
    let mut client = server.connect().await;
    for depth in [127, 1000, 100_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested = format!("{}0{}", open.repeat(depth), close.repeat(depth));
            let reply = client.send(Method::POST, "/inject", JSON, nested.clone()).await.expect("an answer");
            assert_eq!(reply.status, 400, "{depth}");
            // Where only fields that are not looked at are nested, the Pod may be injected; where others are, it is not.
            for place in ["metadata", "spec", "unknown"] {
                let text = review("1", json!({"metadata": {}, "spec": {}})).to_vec();
                let text = String::from_utf8(text).expect("text");
                let field = format!("\"{place}\":{nested},\"kept\":1");
                let text = text.replacen("\"object\":{", &format!("\"object\":{{{field},"), 1);
                let reply = client.send(Method::POST, "/inject", JSON, text).await.expect("an answer");
                assert!(matches!(reply.status, 200 | 400), "{depth} {place}: {}", reply.status);
                if reply.status == 200 {
                    assert_eq!(reply.json()["response"]["allowed"], true);
                }
            }
        }
    }
    assert_unharmed(&mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s26_whoever_is_slow_is_answered_or_closed_in_time() {
    let mut server = Server::start(&[]);
    server.ready().await;
    let body = review("1", pod());
    let began = Instant::now();
    // A body that does not come, and one that drips.
    let mut silent = server.raw().await;
    silent.write_all(&post(&body)[..200]).await.expect("written");
    let mut dripping = server.raw().await;
    let request = post(&body);
    dripping.write_all(&request[..200]).await.expect("written");
    let drip = tokio::spawn(async move {
        for byte in &request[200..] {
            if dripping.write_all(&[*byte]).await.is_err() {
                break;
            }
            let _ = dripping.flush().await;
            sleep(Duration::from_millis(100)).await;
        }
        read_to_end(&mut dripping).await
    });
    // The API server's own time-out counts too.
    let mut hurried = server.raw().await;
    let request = String::from_utf8(post(&body)).expect("text").replacen("/inject", "/inject?timeout=1s", 1);
    hurried.write_all(&request.as_bytes()[..200]).await.expect("written");
    let reply = read_to_end(&mut hurried).await;
    assert!(reply.starts_with("HTTP/1.1 408 "), "{reply}");
    assert!(began.elapsed() < Duration::from_millis(1900), "{:?}", began.elapsed());
    let reply = read_to_end(&mut silent).await;
    assert!(reply.starts_with("HTTP/1.1 408 "), "{reply}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let reply = timeout(LONG, drip).await.expect("in time").expect("no panic");
    assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 408 "), "{reply}");
    assert_eq!(server.errors("body-too-slow").await, 3);
    assert_eq!(lines(&server, "408: the body did not come in time", 3).await, 3);
    assert_unharmed(&mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s26_a_head_or_a_handshake_that_stops_is_closed_in_time() {
    let mut server = Server::start(&[]);
    server.ready().await;
    let began = Instant::now();
    let mut head = server.raw().await;
    head.write_all(b"POST /inject HTTP/1.1\r\nHost:").await.expect("written");
    let mut nothing = TcpStream::connect(server.webhook).await.expect("connected");
    let mut half = TcpStream::connect(server.webhook).await.expect("connected");
    half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.expect("written");
    // Only a connection that has sent nothing of a request may be quiet for longer.
    let mut idle = server.raw().await;
    assert_eq!(read_to_end(&mut head).await, "");
    for stream in [&mut nothing, &mut half] {
        let mut bytes = Vec::new();
        // Whatever alert it sends, it ends.
        let _ = timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("an end in time");
    }
    assert!(began.elapsed() > Duration::from_secs(4) && began.elapsed() < Duration::from_secs(8));
    let quiet = timeout(Duration::from_millis(500), idle.read_u8()).await;
    assert!(quiet.is_err(), "the idle one is still open: {quiet:?}");
    assert_eq!((server.errors("timed-out").await, server.errors("handshake").await), (1, 2));
    assert_eq!(lines(&server, "did not send its request in time", 1).await, 1);
    assert_unharmed(&mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s26_other_protocols_are_refused() {
    let mut server = Server::start(&[]);
    server.ready().await;
    // HTTP/2 with prior knowledge; the offer in TLS does not have it either.
    let reply = server.exchange(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(
        reply.is_empty() || reply.starts_with("HTTP/1.1 400 ") || reply.starts_with("HTTP/1.1 404 "),
        "{reply}"
    );
    assert!(!reply.contains(" 200 "));
    for bytes in [
        b"\x00\x01\x02\x03\r\n\r\n".as_slice(),
        b"POST /inject HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /inject HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /inject HTTP/9.9\r\n\r\n",
    ] {
        let reply = server.exchange(bytes).await;
        assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 4"), "{reply}");
    }
    let many: String = (0..200).map(|i| format!("X-{i}: y\r\n")).collect();
    let long = format!("X: {}\r\n", "y".repeat(64 * 1024));
    for headers in [many, long] {
        let reply =
            server.exchange(format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{headers}\r\n").as_bytes()).await;
        assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 431 "), "{reply}");
    }
    assert!(server.errors("http").await >= 5, "{}", server.get("/metrics").await.1);
    // Plain HTTP on the TLS port, and noise.
    for bytes in [b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(), &[0; 64]] {
        let mut stream = TcpStream::connect(server.webhook).await.expect("connected");
        stream.write_all(bytes).await.expect("written");
        let mut reply = Vec::new();
        let _ = timeout(LONG, stream.read_to_end(&mut reply)).await.expect("an end in time");
        assert!(!reply.starts_with(b"HTTP"));
    }
    assert_eq!(server.errors("handshake").await, 2);
    assert_unharmed(&mut server).await;
}

/// More descriptors for this process, which plays the many.
fn raise_open_files(needed: u64) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard).expect("raised");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_connections_keep_nobody_out() {
    const MANY: usize = 3000;
    raise_open_files(2 * MANY as u64);
    let mut server = Server::start(&[]);
    server.ready().await;
    let mut api_server = server.connect().await;
    assert!(api_server.review(review("1", pod())).await.expect("an answer").has_patch());
    let mut held = Vec::new();
    for count in 0..MANY {
        let Ok(stream) = TcpStream::connect(server.webhook).await else { continue };
        held.push(stream);
        if count.is_multiple_of(500) {
            // Whoever was there before is never the one to go, and newcomers get in.
            let began = Instant::now();
            assert!(api_server.review(review("2", pod())).await.expect("an answer").has_patch());
            assert!(server.connect().await.review(review("3", pod())).await.expect("an answer").has_patch());
            // Not only once others have timed out.
            assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        }
    }
    assert!(server.metric("connections").await <= 1025);
    assert!(api_server.review(review("4", pod())).await.expect("an answer").has_patch());
    let resident = server.resident_kib();
    assert!(resident < 64 * 1024, "{resident} KiB with {MANY} connections");
    drop(held);
    assert_unharmed(&mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_large_bodies_at_once_hold_bounded_memory() {
    let mut server = Server::start(&[]);
    server.ready().await;
    let mut api_server = server.connect().await;
    // Each announces 7 MiB and sends all but the end of it.
    let head = format!(
        "POST /inject HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        7 << 20
    );
    let mut senders = Vec::new();
    for _ in 0..32 {
        let mut stream = server.raw().await;
        let head = head.clone();
        senders.push(tokio::spawn(async move {
            let _ = stream.write_all(head.as_bytes()).await;
            let block = vec![b' '; 64 * 1024];
            for _ in 0..111 {
                if stream.write_all(&block).await.is_err() {
                    break;
                }
            }
            let _ = stream.flush().await;
            read_to_end(&mut stream).await
        }));
    }
    // Meanwhile a usual Pod finds its room.
    for _ in 0..20 {
        assert!(api_server.review(review("1", pod())).await.expect("an answer").has_patch());
        sleep(Duration::from_millis(50)).await;
    }
    for sender in senders {
        let reply = timeout(LONG, sender).await.expect("in time").expect("no panic");
        let is_refused = reply.starts_with("HTTP/1.1 503 ") || reply.starts_with("HTTP/1.1 408 ");
        assert!(reply.is_empty() || is_refused, "{reply}");
    }
    assert!(server.errors("no-room").await > 0);
    let peak = server.peak_kib();
    assert!(peak < 96 * 1024, "{peak} KiB at most");
    nodens_testkit::note(&format!("32 bodies of 7 MiB at once: {} MiB at most", peak / 1024));
    assert_unharmed(&mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_with_random_damage_are_answered_every_one() {
    let mut server = Server::start(&[]);
    server.ready().await;
    let mut client = server.connect().await;
    let good = review("1", pod());
    // xorshift: the same damage every time.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut statuses = [0; 2];
    for round in 0..1000 {
        let mut bytes = good.clone();
        for _ in 0..=random(3) {
            let place = random(bytes.len());
            match random(3) {
                0 => bytes[place] = random(256) as u8,
                1 => drop(bytes.remove(place)),
                _ => bytes.truncate(place.max(1)),
            }
        }
        let reply = client.send(Method::POST, "/mutate", JSON, bytes).await.expect("an answer");
        match reply.status {
            200 => assert_eq!(reply.json()["response"]["allowed"], Value::Bool(true), "round {round}"),
            status => assert_eq!(status, 400, "round {round}"),
        }
        statuses[usize::from(reply.status == 200)] += 1;
    }
    assert!(statuses.iter().all(|count| *count > 50), "{statuses:?}");
    // A flood of them is told in a few lines.
    sleep(Duration::from_millis(1500)).await;
    assert!(server.process.dump().contains("more refused requests"), "{}", server.process.dump());
    assert_unharmed(&mut server).await;
}
