//! A whole node: a virtual machine with a distribution's kernel, where this program is run by the first process.
//!
//! `.ci/test-node` puts it into a machine and judges what it prints. Anywhere else each of these tests is ignored, and
//! refuses to begin: they take down what they find. What only such a machine can show: the dummy driver, loaded by the
//! kernel when the agent asks for the interface; both generations of iptables; an older kernel's io_uring; the node's
//! own network namespace rather than one made for a test. "Pods" are namespaces. The tests run one after the other,
//! and each finds the node bare.

mod image;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/world.rs"]
mod world;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::libc;
use nodens_testkit::msg::rtype;
use nodens_testkit::process::signal::{SIGKILL, SIGTERM};
use nodens_testkit::{Process, Upstream, answers, seccomp};

use support::{Ended, NODENS, PATIENCE, eventually, report, run};
use world::netns::{ADDRESS, NAME, Namespace, ask};
use world::{ANSWER, COREFILE, EtcNetns, World, end, expect};

/// The node's other address.
const ADDRESS_V6: &str = "fd00:53::10";
/// Both, as a command line has them.
const BOTH: &str = "169.254.20.10,fd00:53::10";
/// Rules of nftables for both: eight for an address that only the node can have, four for one that a Service could have.
const RULES: usize = 12;
/// Where the image has the older `iptables` under its plain name.
const LEGACY: &str = "/legacy";
/// What a node has its resolvers look for.
const SEARCHED: &str = "www.example.";

/// Between two questions of a Pod that waits for the first answer.
const BETWEEN: Duration = Duration::from_millis(50);

/// Set by the machine's first process.
const MACHINE: &str = "NODENS_TEST_MACHINE";

/// The node, bare, with a Pod. Its kernel tracks connections, as with kube-proxy.
fn a_node() -> World {
    assert!(
        std::env::var_os(MACHINE).is_some(),
        "only in the machine of `make test-node`: rules are flushed"
    );
    let node = Namespace::of_this_machine("node");
    eventually("the Pod of the test before is gone", PATIENCE, || {
        (!node.shell("ip -o link").contains("pod1")).then_some(())
    });
    node.shell(
        "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; \
         echo 6168 > /proc/sys/net/ipv4/icmp_ratemask; echo 0-1,3-127 > /proc/sys/net/ipv6/icmp/ratemask; \
         nft flush ruleset; \
         nft add table inet tracking; \
         nft add chain inet tracking seen '{ type filter hook input priority 0; }'; \
         nft add rule inet tracking seen ct state new counter",
    );
    let world = World::on(node);
    let removed = world.node_command("remove", &[]);
    assert_eq!(removed.code, Some(0), "{}", removed.dump());
    assert!(!world.has_address());
    let corefile = COREFILE.replace(&format!("bind {ADDRESS}\n"), &format!("bind {ADDRESS} {ADDRESS_V6}\n"));
    world.directory.write("Corefile", &corefile);
    world
}

/// The agent with both addresses.
fn start(world: &World, flags: &[&str]) -> Process {
    let path = world.directory.path("Corefile");
    let mut command = world.command(&[NODENS, "-localip", BOTH, "-conf", &path]);
    command.args(flags);
    Process::spawn(command)
}

fn started(world: &World, flags: &[&str]) -> Process {
    let agent = start(world, flags);
    expect(&agent, "[INFO] packet rules by ");
    agent
}

fn resolves_everywhere(world: &World) -> bool {
    [ADDRESS, ADDRESS_V6].iter().all(|address| world.resolves_at(address) && world.resolves_over_tcp(address))
}

/// Connections to or from the node's DNS that the kernel keeps track of.
fn tracked(world: &World) -> Vec<String> {
    let both = world.node.shell("conntrack -L 2>/dev/null; conntrack -L -f ipv6 2>/dev/null");
    let ours = both.lines().filter(|line| line.contains(ADDRESS) || line.contains(ADDRESS_V6));
    ours.map(str::to_owned).collect()
}

/// What is asked from now on bypasses connection tracking.
#[track_caller]
fn assert_untracked(world: &World, agent: &Process) {
    world.node.run("conntrack", &["-F"]);
    assert!(resolves_everywhere(world), "{}", agent.dump());
    assert_eq!(tracked(world), Vec::<String>::new(), "{}", agent.dump());
}

/// Nothing of the agent is on the node.
fn assert_bare(world: &World, agent: &Process) {
    let left = world.node.shell(
        "ip -o address; ip -o link; nft list ruleset; iptables-legacy-save; ip6tables-legacy-save; \
         grep nodens /proc/net/unix || true",
    );
    for text in [ADDRESS, ADDRESS_V6, NAME, "inet nodens", "NodeLocal", "@nodens-node"] {
        assert!(!left.contains(text), "{text} is left\n{left}\n{}", agent.dump());
    }
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

#[test]
#[ignore = "in the machine of `make test-node`"]
fn a_dummy_interface_carries_both_families_and_goes_with_the_agent() {
    let world = a_node();
    let begun = Instant::now();
    let mut agent = start(&world, &[]);
    // As after a reboot: nobody has the address, and nobody refuses.
    eventually("the first answer", PATIENCE, || world.resolves_within(ADDRESS, BETWEEN).then_some(()));
    let answered = begun.elapsed();
    expect(&agent, "[INFO] packet rules by ");
    let ruled = begun.elapsed();
    expect(&agent, "+ interface nodelocaldns (dummy)");
    let link = world.node.run("ip", &["-d", "link", "show", NAME]);
    assert!(link.contains("dummy") && link.contains("UP"), "{link}");
    assert!(world.node.shell("cat /proc/modules").contains("dummy"), "the kernel loaded the driver for us");
    let addresses = world.node.run("ip", &["-o", "address", "show", NAME]);
    assert!(addresses.contains(ADDRESS) && addresses.contains(ADDRESS_V6), "{addresses}");
    assert!(resolves_everywhere(&world), "{}", agent.dump());
    let asked = world.pod.run("busybox", &["nslookup", "-type=a", SEARCHED, ADDRESS]);
    assert!(asked.contains(ANSWER), "{asked}");
    report(&format!(
        "a bare node, Linux {}: a Pod is answered {answered:?} after the agent's exec, rules after {ruled:?}",
        kernel()
    ));
    end(&mut agent);
    assert_bare(&world, &agent);
}

#[test]
#[ignore = "in the machine of `make test-node`"]
fn f12_an_older_kernels_io_uring_is_used_and_passes_the_sandbox() {
    let world = a_node();
    let mut agent = started(&world, &["-sandbox"]);
    let line = expect(&agent, "[INFO] runtime ");
    assert!(line.contains("runtime uring: io_uring works here"), "{line}");
    expect(&agent, "[INFO] sandbox: other system calls than serving takes fail from now on");
    assert!(resolves_everywhere(&world), "{}", agent.dump());
    report(&format!("kernel {}: {line}", kernel()));
    end(&mut agent);
    assert_bare(&world, &agent);
}

/// Set to the arguments of nodens in the process that has no io_uring.
const BECOMES: &str = "NODENS_TEST_BECOMES";

#[test]
#[ignore = "started by the test below, in a process of its own"]
fn becomes_nodens_without_io_uring() {
    let Some(arguments) = std::env::var_os(BECOMES) else { return };
    seccomp::refuse(libc::SYS_io_uring_setup, libc::EPERM);
    let arguments = arguments.into_string().expect("UTF-8");
    let error = Command::new(NODENS).args(arguments.split(' ')).exec();
    panic!("{NODENS}: {error}");
}

#[test]
#[ignore = "in the machine of `make test-node`"]
fn f12_io_uring_refused_by_a_seccomp_filter_is_said_and_tokio_serves() {
    let world = a_node();
    let this = std::env::current_exe().expect("this program");
    let mut command = Command::new(this);
    command.args(["--exact", "becomes_nodens_without_io_uring", "--ignored", "--nocapture"]);
    let path = world.directory.path("Corefile");
    command.env("RUNTIME", "auto").env(BECOMES, format!("-localip {BOTH} -conf {path}"));
    let mut agent = Process::spawn(command);
    let line = expect(&agent, "[INFO] runtime ");
    assert!(line.contains("runtime tokio: io_uring is not available"), "{line}");
    assert!(line.contains("seccomp"), "the suspect: {line}");
    expect(&agent, "[INFO] packet rules by ");
    assert!(resolves_everywhere(&world), "{}", agent.dump());
    end(&mut agent);
    assert_bare(&world, &agent);
}

/// Rules of ours in a table of iptables.
fn listed(world: &World, program: &str, table: &str) -> usize {
    world.node.run(program, &["-t", table, "-S"]).matches("NodeLocal DNS Cache").count()
}

#[test]
#[ignore = "in the machine of `make test-node`"]
fn rules_of_each_back_end_stand_let_dns_pass_untracked_and_go() {
    // Node-cache's, for each address.
    const RAW: usize = 8;
    const FILTER: usize = 4;
    let world = a_node();
    let path = std::env::var("PATH").expect("set by init");
    let older = format!("{LEGACY}:{path}");
    let back_ends: [(&str, &[&str], &str); 3] = [
        ("nftables", &[], &path),
        ("iptables", &["iptables", "ip6tables"], &path),
        ("iptables", &["iptables-legacy", "ip6tables-legacy"], &older),
    ];
    // As kube-proxy does. The older iptables has a program of its own load them, which the agent may not.
    world.node.run("modprobe", &["-a", "ip_tables", "ip6_tables"]);
    for (flag, programs, folders) in back_ends {
        // Without rules everything is tracked: the test would see it.
        let mut agent = start(&world, &["-setupiptables=false"]);
        expect(&agent, "[INFO] ready");
        assert!(resolves_everywhere(&world) && tracked(&world).len() >= 4, "{}", agent.dump());
        end(&mut agent);

        let corefile = world.directory.path("Corefile");
        let rules = format!("-packetrules={flag}");
        let mut command = world.command(&[NODENS, "-localip", BOTH, "-conf", &corefile, &rules]);
        command.env("PATH", folders);
        let mut agent = Process::spawn(command);
        expect(&agent, &format!("[INFO] packet rules by {flag}: "));
        for program in programs {
            let found = (listed(&world, program, "raw"), listed(&world, program, "filter"));
            assert_eq!(found, (RAW, FILTER), "{program}\n{}", agent.dump());
        }
        if programs.is_empty() {
            let table = world.node.run("nft", &["list", "table", "inet", "nodens"]);
            assert_eq!(table.matches("notrack").count(), RULES, "{table}");
        }
        assert_untracked(&world, &agent);
        end(&mut agent);
        assert_bare(&world, &agent);
    }
}

#[test]
#[ignore = "in the machine of `make test-node`"]
fn f13_f14_what_others_destroy_is_made_again() {
    let world = a_node();
    let mut agent = started(&world, &[]);
    let begun = Instant::now();
    world.node.run("ip", &["link", "del", NAME]);
    eventually("a Pod is answered again", PATIENCE, || world.resolves_within(ADDRESS, BETWEEN).then_some(()));
    let link = begun.elapsed();
    eventually("at all addresses", PATIENCE, || resolves_everywhere(&world).then_some(()));
    let begun = Instant::now();
    world.node.run("nft", &["flush", "ruleset"]);
    eventually("the rules are back", PATIENCE, || (world.rules() == RULES).then_some(()));
    report(&format!(
        "interface deleted: served again after {link:?}; rules flushed: back after {:?}",
        begun.elapsed()
    ));
    expect(
        &agent,
        "[WARNING] node: somebody changed it, and it was put right: + interface nodelocaldns (dummy)",
    );
    end(&mut agent);
    assert_bare(&world, &agent);
}

#[test]
#[ignore = "in the machine of `make test-node`"]
fn f16_a_killed_agent_costs_a_pod_one_round_trip_and_the_next_start_is_whole() {
    let world = a_node();
    // The Pod's second server: kube-dns, elsewhere.
    let dns = world.node.pod(2);
    let second: SocketAddr = "10.244.2.2:53".parse().expect("an address");
    let handler = answers(|query| match query.qtype {
        rtype::A => query.response().answer("@ 60 IN A 192.0.2.2"),
        _ => query.response(),
    });
    let _second = dns.enter(|| Upstream::on(second, handler));
    let resolv = format!("nameserver {ADDRESS}\nnameserver 10.244.2.2\noptions timeout:1 attempts:2\n");
    let resolver = EtcNetns::write(&world.pod.name, &resolv);
    let lookup = |from: &str| {
        let begun = Instant::now();
        let found = world.pod.run("getent", &["ahostsv4", "www.example.test"]);
        assert!(found.contains(from), "{found}");
        begun.elapsed()
    };
    let mut agent = started(&world, &["-skipteardown=true", "-seticmpratemask=true"]);
    // The first one finds nothing in the caches of a processor that is emulated.
    let alive = (0..3).map(|_| lookup(ANSWER)).min().expect("some");
    agent.kill();
    let killed = Instant::now();
    for address in [ADDRESS, ADDRESS_V6] {
        eventually("the kernel refuses", PATIENCE, || is_refused(&world, address).then_some(()));
    }
    let closed = killed.elapsed();
    // More of them at once than the kernel's limit lets through.
    let dead: Vec<_> = (0..12).map(|_| lookup("192.0.2.2")).collect();
    let (fastest, slowest) = (dead.iter().min().expect("some"), dead.iter().max().expect("some"));
    assert!(*slowest < Duration::from_millis(900), "no lookup waits for its timeout: {dead:?}");
    report(&format!(
        "getent: agent alive {alive:?}; killed {fastest:?} to {slowest:?}, from the second server; both families refused \
         after {closed:?}"
    ));
    let mut agent = started(&world, &["-seticmpratemask=true"]);
    assert!(world.rules() == RULES, "{}", agent.dump());
    assert_untracked(&world, &agent);
    drop(resolver);
    end(&mut agent);
    assert_bare(&world, &agent);
}

#[test]
#[ignore = "in the machine of `make test-node`"]
fn f16_an_agent_out_of_memory_is_killed_refused_at_once_and_the_next_start_is_whole() {
    // Not below /sys, which `ip netns exec` mounts anew.
    const GROUP: &str = "/cgroup/agent";
    let world = a_node();
    world.node.shell(&format!("echo +memory >/cgroup/cgroup.subtree_control; mkdir -p {GROUP}"));
    let path = world.directory.path("Corefile");
    let line = format!(
        "echo $$ >{GROUP}/cgroup.procs && exec {NODENS} -localip {BOTH} -conf {path} -seticmpratemask"
    );
    let mut agent = Process::spawn(world.command(&["sh", "-c", &line]));
    expect(&agent, "[INFO] packet rules by ");
    assert!(resolves_everywhere(&world), "{}", agent.dump());
    // Less than it has.
    let begun = Instant::now();
    world.node.shell(&format!("echo 1M >{GROUP}/memory.max"));
    let status = agent.wait(PATIENCE).unwrap_or_else(|| panic!("it lives on: {}", agent.dump()));
    assert_eq!(status.signal(), Some(SIGKILL), "{}", agent.dump());
    assert!(world.node.shell(&format!("cat {GROUP}/memory.events")).contains("oom_kill 1"));
    eventually("the kernel refuses", PATIENCE, || is_refused(&world, ADDRESS).then_some(()));
    report(&format!("out of memory: refused {:?} after the limit was set", begun.elapsed()));
    let mut agent = started(&world, &["-seticmpratemask"]);
    assert!(resolves_everywhere(&world) && world.rules() == RULES, "{}", agent.dump());
    end(&mut agent);
    assert_bare(&world, &agent);
}

/// Whether a query comes back at once as a refusal.
fn is_refused(world: &World, address: &str) -> bool {
    let asked = ask(&world.pod, address, 53, Duration::from_millis(100));
    asked.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[test]
#[ignore = "in the machine of `make test-node`"]
fn f25_kills_at_spread_moments_and_one_clean_start_end_in_the_desired_state() {
    let world = a_node();
    // A start takes some tens of milliseconds, here several times as long: the processor is emulated.
    for n in 0..8 {
        let mut agent = start(&world, &["-quiet"]);
        std::thread::sleep(Duration::from_millis(n * 60));
        agent.kill();
    }
    let mut agent = started(&world, &[]);
    assert!(resolves_everywhere(&world) && world.rules() == RULES, "{}", agent.dump());
    let told = Instant::now();
    agent.signal(SIGTERM);
    let status = agent.wait(PATIENCE);
    assert_eq!(status.and_then(|status| status.code()), Some(0), "{}", agent.dump());
    report(&format!("SIGTERM to the end, with teardown: {:?}", told.elapsed()));
    assert_bare(&world, &agent);
}

/// The doctor's finding of one check.
#[track_caller]
fn assert_finding(ended: &Ended, severity: &str, check: &str, text: &str) {
    let start = format!("{severity:<5} {check:<12} ");
    let is_there = ended.out.iter().any(|line| line.starts_with(&start) && line.contains(text));
    assert!(is_there, "no {start:?} with {text:?} in {}", ended.dump());
}

#[test]
#[ignore = "in the machine of `make test-node`"]
fn the_doctor_sees_a_bare_node_and_one_that_is_well() {
    let world = a_node();
    let path = world.directory.path("Corefile");
    let doctor = |flags: &[&str]| {
        let all = [NODENS, "doctor", "-localip", BOTH, "-conf", &path, "-seticmpratemask"];
        run(world.command(&[&all, flags].concat()))
    };
    let bare = doctor(&[]);
    assert_finding(&bare, "ok", "kernel", &kernel());
    assert_finding(&bare, "ok", "io_uring", "works here");
    assert_finding(&bare, "ok", "dummy", "the driver for dummy interfaces");
    assert_finding(&bare, "info", "interface", "its start would do: + interface nodelocaldns (dummy)");
    assert_finding(&bare, "warn", "icmp", "net.ipv4.icmp_ratemask is 6168");
    assert_eq!(bare.code, Some(3), "a warning: {}", bare.dump());

    let mut agent = started(&world, &["-seticmpratemask"]);
    let well = doctor(&[]);
    assert_finding(&well, "ok", "dummy", "the driver for dummy interfaces is in the kernel");
    assert_finding(&well, "ok", "address", &format!("nobody else has {ADDRESS}, {ADDRESS_V6}"));
    for (check, text) in
        [("interface", ""), ("rules", "by nftables"), ("icmp", ""), ("upstream", "TCP NOERROR")]
    {
        assert_finding(&well, "ok", check, text);
    }
    for place in [ADDRESS.to_owned(), format!("[{ADDRESS_V6}]")] {
        for transport in ["UDP", "TCP"] {
            let text = format!("{place}:53 over {transport} (DNS) is served by nodens");
            assert_finding(&well, "ok", "ports", &text);
        }
    }
    assert_eq!(well.code, Some(0), "{}", well.dump());
    let json = doctor(&["--json"]);
    assert_eq!(json.code, Some(0), "{}", json.dump());
    // That it is JSON is for `e2e_doctor` to say, where something can read it.
    let json_says = |text: &str| json.out.iter().any(|line| line.starts_with(text));
    assert!(json_says("{\"worst\":\"info\",\"findings\":["), "{}", json.dump());
    assert!(json_says("{\"check\":\"dummy\",\"severity\":\"ok\","), "{}", json.dump());
    end(&mut agent);
    assert_bare(&world, &agent);
}

#[test]
#[ignore = "in the machine of `make test-node`"]
fn by_hand_a_plan_is_shown_applied_and_removed() {
    let world = a_node();
    let flags = ["-seticmpratemask"];
    let plan = world.node_command("plan", &flags);
    assert!(plan.out.iter().any(|line| line == "+ interface nodelocaldns (dummy)"), "{}", plan.dump());
    let applied = world.node_command("apply", &flags);
    assert_eq!(applied.code, Some(0), "{}", applied.dump());
    assert!(world.has_address() && world.rules() == 8);
    let mask = || world.node.shell("cat /proc/sys/net/ipv4/icmp_ratemask").trim().to_owned();
    assert_eq!(mask(), "6160");
    let removed = world.node_command("remove", &[]);
    assert_eq!(removed.code, Some(0), "{}", removed.dump());
    assert!(!world.has_address() && world.rules() == 0);
    assert_eq!(mask(), "6168", "restored");
}
