//! Network namespaces for tests: a "node", "Pods" on it, and everything in them gone at the end.
//!
//! A namespace is made by `ip netns` and used in two ways: programs are run in it, and code of this crate runs on a
//! thread that has entered it. Tests that cannot have namespaces are skipped aloud.

#![allow(dead_code, reason = "each test binary uses its part of this")]

use std::fs::File;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nodens_node::desired::{Desired, Ports, RulesWish, Wish};

/// The interface of all tests.
pub(crate) const NAME: &str = "nodelocaldns";
/// The usual address.
pub(crate) const ADDRESS: &str = "169.254.20.10";
/// The ports of all tests.
pub(crate) const PORTS: Ports = Ports { dns: 53, health: 8080 };

/// More than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A network namespace.
pub(crate) struct Namespace {
    /// As `ip netns` knows it.
    pub(crate) name: String,
}

impl Namespace {
    /// A new one with its loopback up; `None` if there cannot be one here, or if one of `programs` is missing: then
    /// the test is to return.
    pub(crate) fn new(programs: &[&str]) -> Option<Namespace> {
        if !nix::unistd::geteuid().is_root() {
            nodens_testkit::skip("network namespaces need root");
            return None;
        }
        for program in ["ip"].iter().chain(programs) {
            let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
            if !found.is_ok_and(|output| output.status.success()) {
                nodens_testkit::skip(&format!("{program} is not installed (`make tools`)"));
                return None;
            }
        }
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("nodens-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        run("ip", &["netns", "add", &name]);
        let namespace = Namespace { name };
        // Looking for second owners of addresses takes seconds, in which neighbours are not found.
        namespace
            .shell("cd /proc/sys/net/ipv6/conf && echo 0 > all/accept_dad && echo 0 > default/accept_dad");
        namespace.run("ip", &["link", "set", "lo", "up"]);
        Some(namespace)
    }

    /// The one that this machine started with.
    pub(crate) fn of_this_machine(name: &str) -> Namespace {
        run("ip", &["netns", "attach", name, "1"]);
        Namespace { name: name.to_owned() }
    }

    /// Runs a program in it; its output. Panics if it fails.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        let all = [&["netns", "exec", &self.name, program], arguments].concat();
        run("ip", &all)
    }

    /// Runs a line of shell in it.
    pub(crate) fn shell(&self, line: &str) -> String {
        self.run("sh", &["-c", line])
    }

    /// Runs code on a thread that is in it.
    pub(crate) fn enter<T: Send>(&self, code: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/var/run/netns/{}", self.name)).expect("it is there");
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(&file, CloneFlags::CLONE_NEWNET).expect("root may enter it");
                code()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a future on an event loop of its own in it.
    pub(crate) fn block_on<T: Send>(&self, code: impl AsyncFnOnce() -> T + Send) -> T {
        self.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("an event loop").block_on(code())
        })
    }

    /// Connects a "Pod" with this address to this "node": a namespace whose only way out is a pair of interfaces.
    pub(crate) fn pod(&self, number: u8) -> Namespace {
        let pod = Namespace::new(&[]).expect("there was one before");
        let (here, there) = (format!("pod{number}"), format!("tmp{number}-{}", std::process::id()));
        self.run("ip", &["link", "add", &here, "type", "veth", "peer", "name", &there]);
        self.run("ip", &["link", "set", &there, "netns", &pod.name]);
        pod.run("ip", &["link", "set", &there, "name", "eth0"]);
        self.shell(&format!(
            "ip link set {here} up && ip address add 10.244.{number}.1/24 dev {here} && \
             ip address add fd00:{number}::1/64 dev {here} nodad"
        ));
        pod.shell(&format!(
            "ip link set eth0 up && ip address add 10.244.{number}.2/24 dev eth0 && \
             ip address add fd00:{number}::2/64 dev eth0 nodad && \
             ip route add default via 10.244.{number}.1 && ip route add default via fd00:{number}::1"
        ));
        pod
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["netns", "del", &self.name]).output());
    }
}

/// Runs a program; its output. Panics if it fails.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output =
        Command::new(program).args(arguments).output().unwrap_or_else(|why| panic!("{program}: {why}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{out}{err}", output.status);
    out.into_owned()
}

/// A node with this address, fully set up.
pub(crate) fn wish(addresses: &[&str]) -> Desired {
    Desired {
        interface: NAME.to_owned(),
        addresses: addresses.iter().map(|text| ip(text)).collect(),
        link: Wish::Present,
        rules: RulesWish::Serve(PORTS),
        unthrottled: Wish::LeaveAlone,
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Asks once over UDP and waits; the error is the kernel's.
pub(crate) fn ask(from: &Namespace, to: &str, port: u16, timeout: Duration) -> std::io::Result<Vec<u8>> {
    let to = SocketAddr::new(ip(to), port);
    from.enter(|| {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(timeout))?;
        socket.connect(to)?;
        socket.send(b"ping")?;
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer)?;
        Ok(buffer[..length].to_vec())
    })
}

/// A UDP server that answers everything with `text`, until it is dropped.
pub(crate) struct Server {
    socket: UdpSocket,
    is_done: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(at: &Namespace, address: &str, port: u16, text: &'static str) -> Server {
        let address = SocketAddr::new(ip(address), port);
        let socket = at.enter(|| UdpSocket::bind(address)).unwrap_or_else(|why| panic!("{address}: {why}"));
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket");
        let served = socket.try_clone().expect("a socket");
        let is_done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let told = is_done.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while !told.load(Ordering::Relaxed) {
                if let Ok((_, client)) = served.recv_from(&mut buffer) {
                    drop(served.send_to(text.as_bytes(), client));
                }
            }
        });
        Server { socket, is_done, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_done.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(std::thread::JoinHandle::join));
        let _ = &self.socket;
    }
}

/// Waits until something is so; how long it took. Looking may wait for programs: it is done on another thread of the
/// same namespace, so that it does not hold up what is looked at.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool + Send + Sync + 'static) -> Duration {
    let what = what.to_owned();
    let look = move || {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
        start.elapsed()
    };
    match tokio::task::spawn_blocking(look).await {
        Ok(took) => took,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}
