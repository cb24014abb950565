//! The whole way once: the original server's paths and flags, a review and its patch, the probes, the end.

use std::time::Duration;

use base64::Engine;
use hyper::Method;
use nodens_testkit::process::signal;
use serde_json::{Value, json};

use crate::support::{Folder, LONG, Server, pod, review};

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_injected_on_both_paths_as_the_seed_shows() {
    let server = Server::start(&[]);
    server.ready().await;
    let mut client = server.connect().await;
    for path in ["/inject", "/mutate", "/inject?timeout=3s"] {
        let body = review("0f1e", pod());
        let reply = client.send(Method::POST, path, Some("application/json"), body).await.expect("an answer");
        assert_eq!(
            (reply.status, &reply.headers["content-type"]),
            (200, &"application/json".parse().expect("ascii"))
        );
        assert!(reply.has_patch());
        let json = reply.json();
        assert_eq!((&json["kind"], &json["response"]["uid"]), (&json!("AdmissionReview"), &json!("0f1e")));
        let patch = base64::engine::general_purpose::STANDARD
            .decode(json["response"]["patch"].as_str().expect("a patch"))
            .expect("base64");
        let patch: Vec<Value> = serde_json::from_slice(&patch).expect("a list");
        let dns = patch.iter().find(|op| op["path"] == "/spec/dnsConfig").expect("dnsConfig");
        assert_eq!(dns["value"]["nameservers"], json!(["169.254.20.10", "172.21.0.10"]));
        assert!(patch.iter().any(|op| op["path"] == "/spec/dnsPolicy" && op["value"] == "None"));
    }
    let series = r#"requests_total{decision="inject",reason="injected",dry_run="false"}"#;
    assert_eq!(server.metric(series).await, 3);
    let line = "[INFO] inject injected pod=default/alpine uid=0f1e";
    assert!(server.process.wait_for_line(line, LONG).is_some(), "{}", server.process.dump());
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_healthz_answer_where_they_are_looked_for() {
    let server = Server::start(&[]);
    server.ready().await;
    assert_eq!(
        server.connect().await.send(Method::GET, "/healthz", None, "").await.expect("an answer").status,
        200
    );
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(server.get(path).await, (200, "ok\n".into()), "{path}");
    }
    let (status, text) = server.get("/metrics").await;
    assert!(
        status == 200 && text.contains("nodelocaldns_admission_ready 1\n") && text.ends_with("# EOF\n"),
        "{text}"
    );
    assert_eq!(server.get("/inject").await.0, 404, "no reviews without TLS");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_original_charts_command_line_starts_it() {
    // As templates/admission-deployment.yaml of chart 1.3.2 writes it; ports and directory are this test's.
    let folder = Folder::new();
    let authority = crate::support::Authority::new();
    let (certificate, key) = authority.leaf(1);
    folder.write("tls.crt", certificate);
    folder.write("tls.key", key);
    let flags = [
        "--include-kube-dns",
        "--ndots=3",
        "--attempts=2",
        "--timeout=1",
        "--nameserver",
        "169.254.20.10",
        "--cluster-domain",
        "cluster.local",
        "--logtostderr",
        "-v=4",
        "2>&1",
    ];
    let server = Server::start_in(folder, authority, &flags, None);
    server.ready().await;
    assert!(server.connect().await.review(review("1", pod())).await.expect("an answer").has_patch());
    assert!(server.process.wait_for_line("the argument `2>&1` is ignored", LONG).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_loses_no_review() {
    let mut server = Server::start(&["--shutdown-delay=1s"]);
    server.ready().await;
    let mut kept = server.connect().await;
    let mut silent = server.connect().await;
    assert!(silent.review(review("0", pod())).await.expect("an answer").has_patch());
    server.process.signal(signal::SIGTERM);
    assert!(server.process.wait_for_line("told to end", LONG).is_some());
    assert_eq!(server.get("/readyz").await, (503, "the server is about to stop\n".into()));
    // As before until the delay is over, on connections old and new.
    let mut late = server.connect().await;
    for client in [&mut kept, &mut late] {
        let reply = client.review(review("1", pod())).await.expect("an answer");
        assert!(reply.has_patch() && !reply.headers.contains_key("connection"));
    }
    tokio::time::sleep(Duration::from_millis(1300)).await;
    for client in [&mut kept, &mut late] {
        let reply = client.review(review("2", pod())).await.expect("an answer while it drains");
        assert!(reply.has_patch());
        assert_eq!(reply.headers["connection"], "close");
    }
    // The silent one is let go; nobody waits for it until the end of the drain's 15 s.
    let status = server.process.wait(Duration::from_secs(10)).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", server.process.dump());
    assert!(server.process.dump().contains("[INFO] all connections have ended"), "{}", server.process.dump());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_it_waits_for_one_and_says_so() {
    let folder = Folder::new();
    let authority = crate::support::Authority::new();
    let (certificate, key) = authority.leaf(1);
    let server = Server::start_in(folder, authority, &[], None);
    assert_eq!(server.get("/readyz").await, (503, "there is no certificate to serve\n".into()));
    assert!(server.process.wait_for_line("no certificate can be taken from", LONG).is_some());
    server.folder.write("tls.crt", certificate);
    server.folder.write("tls.key", key);
    server.ready().await;
    assert!(server.connect().await.review(review("1", pod())).await.expect("an answer").has_patch());
    let complaints =
        server.process.stderr_lines().iter().filter(|line| line.contains("no certificate")).count();
    // The one for the missing files, and perhaps one for a half-written pair.
    assert!((1..=2).contains(&complaints), "{}", server.process.dump());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_line_that_is_wrong_exits_with_2_and_says_what_is_right() {
    let binary = env!("CARGO_BIN_EXE_nodens-admission");
    for (words, said) in [
        (&["--ndot=3"][..], "help: did you mean `--ndots`?"),
        (&["--no-kube"][..], "help: give it with `--kube-dns-ip`"),
        (&["--ndots", "99"][..], "99 is above 15"),
        (&["serv"][..], "help: did you mean `nodens-admission serve`?"),
    ] {
        let mut process = nodens_testkit::Process::start(binary, words, &[]);
        assert_eq!(process.wait(LONG).and_then(|status| status.code()), Some(2), "{words:?}");
        assert!(process.dump().contains(said), "{words:?}: {}", process.dump());
    }
    let mut process = nodens_testkit::Process::start(binary, &["serve", "--help"], &[]);
    assert_eq!(process.wait(LONG).and_then(|status| status.code()), Some(0));
    assert!(process.dump().contains("--kube-dns-ip IP"), "{}", process.dump());
}
