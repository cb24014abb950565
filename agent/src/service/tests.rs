//! A worker whose ring fails is replaced on the other runtime, alone, and what it counted is not forgotten.
#![cfg(all(feature = "tokio", feature = "uring"))]

use std::net::UdpSocket;
use std::time::Duration;

use nodens_runtime::worker::launch;
use nodens_runtime_uring::RingError;
use nodens_testkit::{Query, Upstream, answers};

use super::*;
use crate::build_config::{Environment, ZoneIds, build};
use crate::corefile::{LoadOptions, Source, load};

/// How long the worker lives whose ring is going to fail.
const LIFE: Duration = Duration::from_millis(300);

struct Text(String);

impl Source for Text {
    fn read(&self, _: &str) -> io::Result<Vec<u8>> {
        Ok(self.0.clone().into_bytes())
    }

    fn list(&self, _: &str) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn env(&self, _: &str) -> Option<String> {
        None
    }
}

/// Worker 1 is one whose ring fails; the others are sound.
fn fails_for_worker_1(spec: WorkerSpec<SharedCache>) -> io::Result<WorkerHandle> {
    if spec.id != 1 {
        return (runtimes::choose(crate::corefile::config::RuntimeChoice::Tokio).expect("epoll").start)(spec);
    }
    launch(spec, |setup| {
        setup.started.report();
        std::thread::sleep(LIFE);
        drop(setup.listeners);
        Err(RingError { doing: "wait", cause: io::ErrorKind::PermissionDenied.into() }.into())
    })
}

#[test]
fn f12_a_ring_that_fails_moves_its_worker_alone() {
    let upstream = Upstream::start(answers(|query| query.response().answer("@ 60 IN A 192.0.2.1")));
    let port = nodens_testkit::free_port();
    let text = Text(format!(
        ".:{port} {{\n bind 127.0.0.1\n cache\n forward . {}\n nodens {{\n workers 2\n }}\n}}\n",
        upstream.addr()
    ));
    let corefile = load("Corefile", &text, &LoadOptions::default()).expect("a good Corefile");
    let built =
        build(&corefile, &Environment::of_this_machine(), &mut ZoneIds::default()).expect("can be served");
    let starter = Starter { name: "uring", reason: String::new(), start: fails_for_worker_1 };
    let mut service = Service::start(built, &starter).expect("started");
    assert!(service.tend_workers().is_none(), "all is well");

    std::thread::sleep(LIFE + Duration::from_millis(200));
    let told = service.tend_workers().expect("it has ended").expect("another runtime serves");
    assert!(
        told.contains("io_uring failed to wait") && told.ends_with("goes on with runtime tokio"),
        "{told}"
    );
    assert!(service.tend_workers().is_none());
    assert_eq!(service.worker_count(), 2);

    // Enough sockets that the kernel gives some to either worker.
    for n in 0..40 {
        let client = UdpSocket::bind("127.0.0.1:0").expect("bound");
        client.set_read_timeout(Some(Duration::from_secs(5))).expect("an option");
        client.send_to(&Query::new("www.example.", "A").id(n).bytes(), ("127.0.0.1", port)).expect("sent");
        let mut answer = [0; 512];
        client.recv(&mut answer).expect("an answer");
        assert_eq!(answer[..2], n.to_be_bytes());
    }
    let metrics = service.figures.render();
    assert!(metrics.contains("nodens_runtime{name=\"tokio\"} 1\n"), "{metrics}");
    assert!(metrics.contains("nodens_runtime{name=\"uring\"} 1\n"), "the sound one is where it was");
    service.stop();
    while !service.is_stopped() {
        std::thread::sleep(Duration::from_millis(5));
    }
}
