//! Who the agent's threads are and what they may, seen from outside; and that everything still works: reloads that
//! bind, repairs, the end. Each on a node of its own, as root, as in a container and as nobody.

#[path = "../../node/tests/support/mod.rs"]
mod netns;
mod support;

use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::Duration;

use nodens_agent::privilege::UID;
use nodens_testkit::process::signal::{SIGHUP, SIGTERM};
use nodens_testkit::{Process, Query, UdpClient, Upstream, answers};

use netns::{ADDRESS, NAME, Namespace};
use support::{Directory, NODENS, PATIENCE, eventually, get, runtime};

const COREFILE: &str = "\
.:53 {
    bind 169.254.20.10
    cache 30
    forward . 127.0.0.9:5300
    prometheus 127.0.0.1:9253
    nodens {
        workers 2
        runtime {$RUNTIME}
    }
}
";

/// Numbers of capabilities (capability.h).
const SETGID: u32 = 6;
const SETUID: u32 = 7;
const NET_BIND_SERVICE: u32 = 10;
const NET_ADMIN: u32 = 12;
const NET_RAW: u32 = 13;

/// A node with an upstream.
struct World {
    node: Namespace,
    _upstream: Upstream,
    directory: Directory,
}

impl World {
    fn new(programs: &[&str]) -> Option<World> {
        let node = Namespace::new(programs)?;
        let address: SocketAddr = "127.0.0.9:5300".parse().expect("an address");
        let handler = answers(|query| query.response().answer("@ 60 IN A 192.0.2.1"));
        let upstream = node.enter(|| Upstream::on(address, handler));
        let directory = Directory::create();
        directory.write("Corefile", COREFILE);
        Some(World { node, _upstream: upstream, directory })
    }

    /// The agent behind `before`, a program that changes what it may.
    fn start_on(&self, runtime: &str, before: &[&str], flags: &[&str]) -> Process {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.node.name]).args(before).args([NODENS, "-localip", ADDRESS]);
        command.args(["-conf", &self.directory.path("Corefile")]).args(flags).env("RUNTIME", runtime);
        Process::spawn(command)
    }

    fn start(&self, before: &[&str], flags: &[&str]) -> Process {
        self.start_on(&runtime(), before, flags)
    }

    fn resolves_at(&self, server: &str) -> bool {
        let server: SocketAddr = server.parse().expect("an address");
        self.node.enter(|| {
            let query = Query::new("www.example.", "A").bytes();
            let reply = UdpClient::bind(SocketAddr::from(([0, 0, 0, 0], 0))).ask(server, &query, PATIENCE);
            reply.is_some_and(|reply| reply.rdatas("A") == ["192.0.2.1"])
        })
    }

    fn resolves(&self) -> bool {
        self.resolves_at(&format!("{ADDRESS}:53"))
    }

    fn rules(&self) -> usize {
        self.node.shell("nft list ruleset").matches("notrack").count()
    }
}

/// A thread, as `/proc` shows it.
#[derive(Debug)]
struct Thread {
    id: u32,
    name: String,
    /// Real, effective, saved, of the file system.
    users: [u32; 4],
    permitted: u64,
    effective: u64,
    bounding: u64,
    gains_nothing: bool,
    is_filtered: bool,
}

/// All threads; the control thread first.
fn threads(process: &Process) -> Vec<Thread> {
    let folder = format!("/proc/{}/task", process.pid());
    let entries = std::fs::read_dir(&folder).expect("the agent runs");
    let mut threads: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("readable").path();
            let status = std::fs::read_to_string(path.join("status")).expect("root may");
            let value = |key: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
                line.unwrap_or_else(|| panic!("{key}: {status}")).trim().to_owned()
            };
            let hexadecimal = |key| u64::from_str_radix(&value(key), 16).expect("a number");
            let users: Vec<u32> =
                value("Uid").split_whitespace().map(|id| id.parse().expect("a number")).collect();
            Thread {
                id: value("Pid").parse().expect("a number"),
                name: value("Name"),
                users: users.try_into().expect("four"),
                permitted: hexadecimal("CapPrm"),
                effective: hexadecimal("CapEff"),
                bounding: hexadecimal("CapBnd"),
                gains_nothing: value("NoNewPrivs") == "1",
                is_filtered: value("Seccomp") == "2",
            }
        })
        .collect();
    threads.sort_by_key(|thread| thread.id != process.pid());
    threads
}

fn set(capabilities: &[u32]) -> u64 {
    capabilities.iter().fold(0, |set, capability| set | 1 << capability)
}

/// Asserts what the control thread is and may, and that no worker may anything.
fn assert_threads(process: &Process, control: [u32; 4], kept: &[u32], workers: u32) {
    let threads = threads(process);
    let (first, others) = threads.split_first().expect("one at least");
    assert_eq!(
        (first.users, first.effective, first.permitted),
        (control, set(kept), set(kept)),
        "{first:#?}"
    );
    let is_worker = |thread: &&Thread| thread.name.starts_with("nodens-worker");
    assert_eq!(others.iter().filter(is_worker).count(), 2, "{threads:#?}");
    for thread in others.iter().filter(is_worker) {
        assert_eq!((thread.users, thread.effective, thread.permitted), ([workers; 4], 0, 0), "{thread:#?}");
    }
    // The log's thread is not a worker, and is as the control thread.
    assert!(others.iter().all(|thread| thread.permitted & !set(kept) == 0), "{threads:#?}");
    assert!(threads.iter().all(|thread| thread.gains_nothing), "{threads:#?}");
}

fn expect(process: &Process, text: &str) -> String {
    let line = process.wait_for_line(text, PATIENCE);
    line.unwrap_or_else(|| panic!("waited for {text:?}\n{}", process.dump()))
}

fn end(process: &mut Process) {
    process.signal(SIGTERM);
    let status = process.wait(PATIENCE);
    assert_eq!(status.and_then(|status| status.code()), Some(0), "{}", process.dump());
}

/// Start, reload that binds, repairs, metrics and end, on both runtimes. `look` sees the agent while it serves.
fn walk(flags: &[&str], look: impl Fn(&Process)) {
    for runtime in ["tokio", "uring"] {
        let Some(world) = World::new(&["nft"]) else { return };
        let mask = || world.node.shell("cat /proc/sys/net/ipv4/icmp_ratemask").trim().to_owned();
        let mut agent = world.start_on(runtime, &[], &[&["-seticmpratemask"], flags].concat());
        expect(
            &agent,
            "privileges: UID 65053; the control thread keeps NET_ADMIN, NET_BIND_SERVICE, workers keep nothing",
        );
        expect(&agent, "[INFO] packet rules by nftables");
        look(&agent);
        assert!(world.resolves() && world.rules() == 8);
        assert_eq!(mask(), "6160", "the kernel lets NET_ADMIN write it, whoever owns the file");

        let more = COREFILE.replace("bind 169.254.20.10", "bind 169.254.20.10 127.0.0.5");
        world.directory.write("Corefile", &more);
        agent.signal(SIGHUP);
        expect(&agent, "Reloading complete");
        assert!(world.resolves_at("127.0.0.5:53"), "a port below 1024, bound after the start");
        world.node.shell("nft flush ruleset");
        eventually("the rules are there again", PATIENCE, || (world.rules() == 8).then_some(()));
        world.node.run("ip", &["link", "del", NAME]);
        // Told only once in a while, so the interface itself is waited for.
        let is_back = || world.node.shell("ip -o address").contains(ADDRESS).then_some(());
        eventually("the interface is there again", PATIENCE, is_back);
        assert!(world.resolves());
        let page = world.node.enter(|| get(SocketAddr::from(([127, 0, 0, 1], 9253)), "/metrics"));
        let page = page.expect("/metrics").body;
        // Read from /proc, which belongs to root for a process that has changed its user.
        assert!(page.contains("\nprocess_open_fds ") && page.contains("\nprocess_resident_memory_bytes "));
        expect(&agent, &format!("[INFO] runtime {runtime}: asked for"));

        end(&mut agent);
        assert_eq!(
            mask(),
            "6168",
            "restored, though the interface that remembered it was deleted in between"
        );
        assert_eq!(world.node.shell("nft list ruleset; ip -o link | grep nodelocaldns || true"), "");
        // iptables' programs, if they are installed, are not asked for what was never theirs.
        assert!(!agent.dump().contains("must be root"), "{}", agent.dump());
    }
}

#[test]
fn from_root_to_a_user_of_its_own_and_reload_repair_and_end_still_work() {
    walk(&[], |agent| {
        assert_threads(agent, [UID; 4], &[NET_ADMIN, NET_BIND_SERVICE], UID);
        assert_eq!(threads(agent)[0].bounding, set(&[NET_ADMIN, NET_BIND_SERVICE]), "nor could a program");
    });
}

#[test]
fn in_the_sandbox_reload_repair_and_end_still_work() {
    walk(&["-sandbox"], |agent| {
        expect(agent, "[INFO] sandbox: other system calls than serving takes fail from now on");
        assert_threads(agent, [UID; 4], &[NET_ADMIN, NET_BIND_SERVICE], UID);
        let all = threads(agent);
        assert!(all.iter().all(|thread| thread.is_filtered), "{all:#?}");
    });
}

#[test]
fn with_iptables_there_is_no_sandbox_and_one_line_says_so() {
    let Some(world) = World::new(&["iptables"]) else { return };
    let mut agent = world.start(&[], &["-packetrules=iptables", "-sandbox"]);
    expect(
        &agent,
        "[WARNING] sandbox: not entered, because packet rules are written by programs of iptables",
    );
    expect(&agent, "[INFO] packet rules by iptables");
    assert!(world.resolves());
    end(&mut agent);
}

#[test]
fn for_iptables_the_control_thread_stays_root_and_workers_do_not() {
    let Some(world) = World::new(&["iptables", "nft"]) else { return };
    let mut agent = world.start(&[], &["-packetrules=iptables"]);
    expect(&agent, "privileges: UID 65053, but the control thread stays root because iptables wants that");
    expect(&agent, "[INFO] packet rules by iptables");
    let kept = [NET_ADMIN, NET_BIND_SERVICE, NET_RAW, SETUID, SETGID];
    assert_threads(&agent, [0, 0, 0, UID], &kept, UID);
    let rules = || world.node.shell("iptables -S -t raw; iptables -S").matches(ADDRESS).count();
    assert!(world.resolves() && rules() > 0, "{}", agent.dump());
    let all = rules();
    world.node.shell("iptables -t raw -F");
    assert!(rules() < all);
    expect(&agent, "put right");
    eventually("the rules are there again", PATIENCE, || (rules() == all).then_some(()));

    // Their sockets are one user's, so two versions can overlap whichever back end each of them has.
    let mut newer = world.start(&[], &["-packetrules=nftables"]);
    expect(&newer, "another process already serves 169.254.20.10:53");
    expect(&newer, "[INFO] ready");
    end(&mut agent);
    assert!(world.resolves());
    end(&mut newer);
}

#[test]
fn as_in_a_container_with_few_capabilities() {
    let Some(world) = World::new(&["setpriv", "nft"]) else { return };
    // What `drop: [ALL]` and `add: […]` leave to root in a container.
    let of_container = |add: &str| format!("--bounding-set=-all{add}");
    let four = of_container(",+net_admin,+net_bind_service,+setuid,+setgid");
    let mut agent = world.start(&["setpriv", &four, "--inh-caps=-all", "--"], &[]);
    expect(&agent, "packet rules by nftables");
    assert_threads(&agent, [UID; 4], &[NET_ADMIN, NET_BIND_SERVICE], UID);
    assert!(world.resolves() && world.rules() == 8);
    end(&mut agent);

    let two = of_container(",+net_admin,+net_bind_service");
    let mut agent = world.start(&["setpriv", &two, "--inh-caps=-all", "--"], &[]);
    expect(
        &agent,
        "[WARNING] privileges: the agent stays root: CAP_SETUID and CAP_SETGID are needed to become UID 65053",
    );
    expect(&agent, "packet rules by nftables");
    assert_threads(&agent, [0; 4], &[NET_ADMIN, NET_BIND_SERVICE], 0);
    assert!(world.resolves() && world.rules() == 8);
    end(&mut agent);

    // A user that is given the capabilities, as by `setcap` on the program.
    let user = [
        "setpriv",
        "--reuid=1000",
        "--regid=1000",
        "--clear-groups",
        "--inh-caps=-all,+net_admin,+net_bind_service",
    ];
    let before = [&user[..], &["--ambient-caps=-all,+net_admin,+net_bind_service", "--"]].concat();
    let mut agent = world.start(&before, &[]);
    expect(
        &agent,
        "privileges: UID 1000; the control thread keeps NET_ADMIN, NET_BIND_SERVICE, workers keep nothing",
    );
    expect(&agent, "packet rules by nftables");
    assert_threads(&agent, [1000; 4], &[NET_ADMIN, NET_BIND_SERVICE], 1000);
    assert!(world.resolves() && world.rules() == 8);
    end(&mut agent);
}

#[test]
fn who_stays_root_when_asked_to_gives_up_the_rest() {
    let Some(world) = World::new(&["nft"]) else { return };
    let mut agent = world.start(&[], &["-user", "keep"]);
    expect(&agent, "packet rules by nftables");
    assert_threads(&agent, [0; 4], &[NET_ADMIN, NET_BIND_SERVICE], 0);
    // Another user's sockets cannot share the port: this is what the page on privileges warns of.
    let mut other = world.start(&[], &[]);
    assert_eq!(other.wait(PATIENCE).and_then(|status| status.code()), Some(1), "{}", other.dump());
    assert!(other.dump().contains("Address already in use"), "{}", other.dump());
    assert!(world.resolves());
    end(&mut agent);
    let mut agent = world.start(&[], &["-user=12345", "-setupinterface=false", "-setupiptables=false"]);
    expect(&agent, "privileges: UID 12345; the control thread keeps NET_BIND_SERVICE, workers keep nothing");
    expect(&agent, "[INFO] ready");
    assert_threads(&agent, [12345; 4], &[NET_BIND_SERVICE], 12345);
    end(&mut agent);
}

#[test]
fn without_privilege_one_line_says_what_is_missing() {
    let Some(world) = World::new(&["setpriv"]) else { return };
    let corefile = COREFILE.replace(".:53", ".:5353").replace("bind 169.254.20.10", "bind 127.0.0.1");
    world.directory.write("Corefile", &corefile);
    let before =
        ["setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--"];
    let mut agent = world.start(&before, &[]);
    expect(&agent, "[INFO] ready");
    expect(
        &agent,
        "[WARNING] privileges: CAP_NET_ADMIN is missing, without which no interface and no packet rules can be made",
    );
    let lines = agent.stdout_lines();
    let complaints = lines.iter().filter(|line| line.starts_with("[WARNING] privileges")).count();
    assert_eq!(complaints, 1, "{lines:#?}");
    assert_threads(&agent, [65534; 4], &[], 65534);
    assert!(world.resolves_at("127.0.0.1:5353"));
    end(&mut agent);
}

#[test]
fn files_that_it_writes_in_roots_directories_are_handed_over() {
    let Some(world) = World::new(&["nft"]) else { return };
    let directory = &world.directory;
    std::fs::set_permissions(directory.path(""), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let (base, filled, pid) = (directory.path("base"), directory.path("filled"), directory.path("pid"));
    directory.write("base", &COREFILE.replace("169.254.20.10", "__PILLAR__LOCAL__DNS__"));
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &world.node.name, NODENS, "-localip", ADDRESS]).env("RUNTIME", runtime());
    command.args(["-basecorefile", &base, "-corefile", &filled, "-pidfile", &pid, "-sandbox"]);
    let mut agent = Process::spawn(command);
    expect(&agent, "packet rules by nftables");
    assert!(world.resolves());
    assert_eq!(std::fs::read_to_string(&pid).expect("written"), format!("{}\n", agent.pid()));
    assert_eq!(std::fs::metadata(&filled).expect("written").uid(), UID);
    let text = COREFILE.replace("169.254.20.10", "__PILLAR__LOCAL__DNS__ 127.0.0.6");
    directory.write("base", &text);
    agent.signal(SIGHUP);
    expect(&agent, "Reloading complete");
    eventually("the new text is served", Duration::from_secs(2), || {
        world.resolves_at("127.0.0.6:53").then_some(())
    });
    end(&mut agent);
}
