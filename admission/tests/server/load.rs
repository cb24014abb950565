//! What it costs: reviews at a steady rate over kept-alive TLS connections, with the server on one core.
//!
//! The figures that are promised (2 000 reviews a second, p99 below 5 ms, less than 25 MiB) are those of a release build on a machine
//! with nothing else to do: `make soak` asks for them. Elsewhere the same load runs, slower, and only the loss of a review fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nodens_testkit::note;
use serde_json::{Value, json};
use tokio::time::sleep_until;

use crate::support::{Authority, Client, Folder, Server, pod, review};

/// As many as an API server keeps, and more.
const CONNECTIONS: u32 = 16;

/// Set in the environment: the promised rate, for longer, and the promises are asked for.
const LONG_FORM: &str = "NODENS_TEST_LONG";

/// A Pod with about this many bytes of what Pods have.
fn pod_of(bytes: usize) -> Value {
    let mut pod = pod();
    let container = |i: usize| {
        json!({
            "name": format!("container-{i}"),
            "image": "registry.example.com/team/service:1.2.3",
            "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}}],
            "resources": {"limits": {"cpu": "1", "memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "64Mi"}},
            "volumeMounts": [{"name": "config", "mountPath": "/etc/config", "readOnly": true}],
            "terminationMessagePath": "/dev/termination-log",
            "imagePullPolicy": "IfNotPresent",
        })
    };
    let one = container(0).to_string().len();
    pod["spec"]["containers"] = (0..bytes.div_ceil(one)).map(container).collect();
    pod
}

struct Figures {
    latencies: Vec<Duration>,
    took: Duration,
}

impl Figures {
    fn percentile(&self, percent: usize) -> Duration {
        self.latencies[(self.latencies.len() * percent / 100).min(self.latencies.len() - 1)]
    }
}

/// Sends at this rate in all, whether answers come or not; latency counts from when a review was due.
async fn load(server: &Server, body: &[u8], per_second: u32, time: Duration) -> Figures {
    let pause = Duration::from_secs(1) * CONNECTIONS / per_second;
    let each = (time.as_nanos() / pause.as_nanos()) as u32;
    let began = tokio::time::Instant::now() + Duration::from_millis(100);
    let mut tasks = Vec::new();
    for connection in 0..CONNECTIONS {
        let (body, to, trust) = (body.to_vec(), server.webhook, Arc::clone(&server.trust));
        tasks.push(tokio::spawn(async move {
            let mut client = Client::connect(to, trust).await.expect("a connection");
            let mut latencies = Vec::with_capacity(each as usize);
            for round in 0..each {
                let due = began + pause * round + pause * connection / CONNECTIONS;
                sleep_until(due).await;
                let reply = client.review(body.clone()).await.expect("no review is lost");
                latencies.push(due.elapsed());
                assert!(reply.has_patch());
            }
            latencies
        }));
    }
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("no review is lost"));
    }
    latencies.sort();
    Figures { latencies, took: began.elapsed() }
}

/// Seconds of CPU that a process has used.
fn cpu_s(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is there");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks: u64 = [fields[11], fields[12]].iter().map(|field| field.parse::<u64>().expect("ticks")).sum();
    // Linux counts in hundredths of a second for every architecture that this runs on.
    ticks as f64 / 100.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reviews_at_a_steady_rate_over_16_connections_on_one_core() {
    let is_long = std::env::var_os(LONG_FORM).is_some();
    let (rate, time) = if is_long { (2000, Duration::from_secs(15)) } else { (64, Duration::from_secs(3)) };
    let (folder, authority) = (Folder::new(), Authority::new());
    let (certificate, key) = authority.leaf(1);
    folder.write("tls.crt", certificate);
    folder.write("tls.key", key);
    // No line for each review: that is not what is measured.
    let server = Server::start_in(folder, authority, &["-v=2"], Some(&["taskset", "-c", "0"]));
    server.ready().await;
    for bytes in [4 * 1024, 50 * 1024] {
        let body = review("load", pod_of(bytes));
        let before = (cpu_s(server.process.pid()), Instant::now());
        let figures = load(&server, &body, rate, time).await;
        let cpu = (cpu_s(server.process.pid()) - before.0) / figures.latencies.len() as f64;
        let (p50, p99) = (figures.percentile(50), figures.percentile(99));
        let achieved = figures.latencies.len() as f64 / figures.took.as_secs_f64();
        note(&format!(
            "{} reviews of {} KiB at {achieved:.0}/s over {CONNECTIONS} TLS connections, server on one core: p50 {p50:.1?}, p99 {p99:.1?}, max {:.1?}, {:.0} µs of CPU each, {:.1} MiB resident (most {:.1})",
            figures.latencies.len(),
            body.len() / 1024,
            figures.percentile(100),
            cpu * 1e6,
            server.resident_kib() as f64 / 1024.0,
            server.peak_kib() as f64 / 1024.0,
        ));
        if is_long {
            // Pods have a few KiB; at 50 KiB this rate is 100 MiB of TLS a second, which is the load generator's limit as much as ours.
            let usual = bytes <= 4 * 1024;
            assert!(!usual || p99 < Duration::from_millis(5), "p99 {p99:?} at {} bytes", body.len());
            assert!(server.peak_kib() < 25 * 1024, "{} KiB", server.peak_kib());
        }
    }
    assert_eq!(server.errors("overdue").await, 0);
}
