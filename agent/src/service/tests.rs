//! Workers that misbehave: one whose ring fails is replaced on the other runtime, alone, and what it counted is not forgotten; one
//! that is late with a new configuration, or refuses it, is told of.
#![cfg(all(feature = "tokio", feature = "uring"))]

use std::net::UdpSocket;
use std::time::Duration;

use nodens_runtime::orders::{Order, Orders};
use nodens_runtime::worker::{WorkerSetup, launch};
use nodens_runtime_uring::RingError;
use nodens_testkit::{Query, Upstream, answers};

use super::*;
use crate::build_config::{Environment, ZoneIds, build};
use crate::corefile::{LoadOptions, Source, load};

/// No upstream is asked.
const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

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

fn epoll() -> Starter {
    runtimes::choose(crate::corefile::config::RuntimeChoice::Tokio).expect("epoll is always there")
}

/// A service of two workers, and what it was built from.
fn two_workers(
    upstream: SocketAddr,
    start: fn(WorkerSpec<SharedCache>) -> io::Result<WorkerHandle>,
) -> (Service, Built) {
    let port = nodens_testkit::free_port();
    let text = Text(format!(
        ".:{port} {{\n bind 127.0.0.1\n cache\n forward . {upstream}\n nodens {{\n workers 2\n }}\n}}\n"
    ));
    let corefile = load("Corefile", &text, &LoadOptions::default()).expect("a good Corefile");
    let built =
        build(&corefile, &Environment::of_this_machine(), &mut ZoneIds::default()).expect("can be served");
    let starter = Starter { name: "uring", reason: String::new(), start };
    let listeners = Service::bind(&built.plan).expect("free");
    (Service::start(built.clone(), listeners, &starter, Bare::default()).expect("started"), built)
}

fn reconfigure(service: &mut Service, built: Built) -> Result<Vec<String>, StartError> {
    let control = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    control.block_on(service.reconfigure(built))
}

fn stop(service: &mut Service) {
    service.stop();
    while !service.tend_stop() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Worker 1 is one whose ring fails; the others are sound.
fn fails_for_worker_1(spec: WorkerSpec<SharedCache>) -> io::Result<WorkerHandle> {
    if spec.id != 1 {
        return (epoll().start)(spec);
    }
    launch(spec, |setup| {
        setup.started.report();
        std::thread::sleep(LIFE);
        drop(setup.listeners);
        Err(RingError { doing: "wait", cause: io::ErrorKind::PermissionDenied.into() }.into())
    })
}

/// How worker 1 of a service takes its first order; worker 0 is sound.
fn worker_1_that(
    takes: fn(WorkerSetup<SharedCache>) -> io::Result<()>,
    spec: WorkerSpec<SharedCache>,
) -> io::Result<WorkerHandle> {
    if spec.id == 1 { launch(spec, takes) } else { (epoll().start)(spec) }
}

fn sleeps_first(setup: WorkerSetup<SharedCache>) -> io::Result<()> {
    setup.started.report();
    std::thread::sleep(LIFE);
    let order = first_order(&setup.orders);
    let counters = Arc::new(nodens_core::Stats::new(&order.config));
    order.answer(Ok(counters));
    std::thread::sleep(2 * LIFE);
    Ok(())
}

fn refuses(setup: WorkerSetup<SharedCache>) -> io::Result<()> {
    setup.started.report();
    first_order(&setup.orders).answer(Err(io::ErrorKind::StorageFull.into()));
    std::thread::sleep(LIFE);
    Ok(())
}

fn first_order(orders: &Orders) -> Order {
    let control = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    control.block_on(orders.next())
}

#[test]
fn a_worker_that_is_late_with_a_configuration_is_told_and_waited_for() {
    let (mut service, built) = two_workers(NOBODY, |spec| worker_1_that(sleeps_first, spec));
    service.order_patience = LIFE / 3;
    let told = reconfigure(&mut service, built).expect("in force");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("worker 1 has not taken the new configuration"), "{told:?}");
    let shown = |service: &Service| Arc::clone(&service.figures.current.load().workers[1].stats);
    let before = shown(&service);
    std::thread::sleep(LIFE);
    assert!(service.tend_orders().is_empty(), "it has taken it");
    assert!(service.open_orders.is_empty());
    assert!(!Arc::ptr_eq(&before, &shown(&service)), "its new counters are the ones that are shown");
    stop(&mut service);
}

#[test]
fn a_worker_that_refuses_a_configuration_that_others_take_is_told() {
    let (mut service, built) = two_workers(NOBODY, |spec| worker_1_that(refuses, spec));
    let told = reconfigure(&mut service, built).expect("worker 0 took it");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("worker 1 cannot serve the new configuration"), "{told:?}");
    stop(&mut service);
}

#[test]
fn f12_a_ring_that_fails_moves_its_worker_alone() {
    let upstream = Upstream::start(answers(|query| query.response().answer("@ 60 IN A 192.0.2.1")));
    let (mut service, _) = two_workers(upstream.addr(), fails_for_worker_1);
    let port = service.addresses[0].port();
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
    stop(&mut service);
}
