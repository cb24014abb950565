//! The real process on a "node" of its own: a network namespace with a "Pod", the address, the rules, and what is
//! left of them however the process ends.

mod support;
#[path = "support/world.rs"]
mod world;

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nodens_testkit::msg::rtype;
use nodens_testkit::process::signal::SIGTERM;
use nodens_testkit::{Process, Query, UdpClient, Upstream, answers};

use support::{NODENS, PATIENCE, eventually, get, report};
use world::netns::{ADDRESS, NAME, ask, ip};
use world::{ANSWER, COREFILE, EtcNetns, UPSTREAM, World, end, expect};

#[test]
fn interface_sockets_ready_rules_and_the_reverse_at_the_end() {
    let Some(world) = World::new(&["nft", "conntrack"]) else { return };
    let mut agent = world.started(&[]);
    let lines = agent.stdout_lines();
    let at = |text: &str| {
        lines.iter().position(|line| line.contains(text)).unwrap_or_else(|| panic!("{lines:#?}"))
    };
    assert!(at("+ interface nodelocaldns") < at("listening on 169.254.20.10:53"));
    assert!(at("listening on 169.254.20.10:53") < at("[INFO] ready"));
    assert!(at("[INFO] ready") < at("packet rules by nftables: "));
    assert!(world.resolves() && world.rules() == 8);
    let tracked = world.node.shell("conntrack -L 2>/dev/null | grep -c 169.254.20.10 || true");
    assert_eq!(tracked.trim(), "0", "nothing of it is tracked");
    let metrics = world.metrics();
    for kind in ["iptables", "iptables_lock", "interface_add", "interface_check", "configmap"] {
        assert_eq!(metrics.value("coredns_nodecache_setup_errors_total", &[("errortype", kind)]), Some(0.0));
    }
    assert_eq!(metrics.value("nodens_node_packet_rules", &[("backend", "nftables")]), Some(1.0));
    assert!(metrics.value("nodens_node_last_success_timestamp_seconds", &[]).is_some_and(|at| at > 1e9));
    let other = world.node.enter(|| get(SocketAddr::from(([127, 0, 0, 1], 9353)), "/metrics"));
    assert!(other.is_some_and(|page| page.body.contains("coredns_nodecache_setup_errors_total")));

    end(&mut agent);
    assert!(!world.has_address() && world.rules() == 0, "{}", agent.dump());
    assert_eq!(world.node.run("nft", &["list", "ruleset"]), "");
    let lines = agent.stdout_lines();
    let at = |text: &str| {
        lines.iter().position(|line| line.contains(text)).unwrap_or_else(|| panic!("{lines:#?}"))
    };
    assert!(
        at("- table inet nodens") < at("told to end") && at("[INFO] ended") < at("- interface nodelocaldns")
    );
}

#[test]
fn with_skipteardown_a_pod_is_refused_at_once_until_the_next_start() {
    let Some(world) = World::new(&["nft"]) else { return };
    let mut agent = world.started(&["-skipteardown=true"]);
    assert!(world.resolves());
    end(&mut agent);
    assert!(world.has_address() && world.rules() == 8);
    let refused = ask(&world.pod, ADDRESS, 53, Duration::from_secs(2)).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let agent = world.start(&["-skipteardown=true"]);
    expect(&agent, "[INFO] ready");
    assert!(world.resolves());
}

/// By nftables alone, and beside iptables, whose rules are to go for that. The upstream is a Service's address, behind rules as kube-proxy
/// writes them.
#[test]
fn with_forwardonexit_a_pod_is_answered_while_the_agent_is_away() {
    const SERVICE: &str = "10.96.0.20";
    for back_end in ["nftables", "iptables"] {
        let Some(world) = World::new(&["nft", "iptables"]) else { return };
        let dns = world.node.pod(2);
        let far: SocketAddr = "10.244.2.2:53".parse().expect("an address");
        let _far =
            dns.enter(|| Upstream::on(far, answers(|query| query.response().answer("@ 60 IN A 192.0.2.1"))));
        world.node.shell("echo 1 > /proc/sys/net/ipv4/ip_forward");
        for chain in ["PREROUTING", "OUTPUT"] {
            for transport in ["udp", "tcp"] {
                world.node.shell(&format!(
                    "iptables -t nat -A {chain} -d {SERVICE} -p {transport} --dport 53 -j DNAT --to-destination 10.244.2.2:53"
                ));
            }
        }
        world.node.shell(&format!("ip route add {SERVICE} dev lo"));
        world.directory.write("Corefile", &COREFILE.replace(UPSTREAM, &format!("{SERVICE}:53")));
        let by = format!("-packetrules={back_end}");
        let flags = ["-skipteardown=true", "-forwardonexit=true", &by];
        let mut agent = world.started(&flags);
        let of_iptables = || world.node.shell("iptables-save -t raw").matches("NodeLocal DNS Cache").count();
        // nft shows those of iptables as well, where that is the newer one.
        let (kept, all) = (of_iptables(), world.rules());
        assert_eq!(kept > 0, back_end == "iptables");
        assert!(world.resolves() && all > 0, "{}", agent.dump());
        end(&mut agent);
        assert!(world.resolves(), "{}", agent.dump());
        assert!(world.resolves_over_tcp(ADDRESS), "{}", agent.dump());
        assert!(world.rules() == 0 && of_iptables() == 0, "{}", agent.dump());
        let mut agent = world.started(&flags);
        assert!(world.resolves(), "{}", agent.dump());
        assert_eq!((of_iptables(), world.rules()), (kept, all), "its next start takes them back");
        let table = world.node.shell("nft list tables");
        assert_eq!(table.contains("inet nodens"), back_end == "nftables", "{table}");
        end(&mut agent);
        let removed = world.node_command("remove", &[]);
        assert_eq!(removed.code, Some(0), "{}", removed.dump());
        assert!(!world.node.shell("nft list tables").contains("inet nodens") && of_iptables() == 0);
    }
}

#[test]
fn f25_a_kill_at_any_moment_and_one_clean_start_end_in_the_desired_state() {
    let Some(world) = World::new(&["nft"]) else { return };
    // The start takes some tens of milliseconds; kills are spread over it and beyond.
    for n in 0..15 {
        let mut agent = world.start(&["-quiet"]);
        std::thread::sleep(Duration::from_millis(n * 12));
        agent.kill();
    }
    let begun = Instant::now();
    let mut agent = world.started(&[]);
    let took = begun.elapsed();
    assert!(world.resolves() && world.rules() == 8, "{}", agent.dump());
    report(&format!("a clean start after 15 kills at spread moments: rules after {took:?}"));
    agent.kill();
    let mut agent = world.start(&[]);
    expect(&agent, "[INFO] ready");
    end(&mut agent);
    assert!(!world.has_address() && world.rules() == 0, "{}", agent.dump());
    assert_eq!(world.node.shell("ip -o link | grep -c nodelocaldns || true").trim(), "0");
}

#[test]
fn f20_of_two_agents_neither_removes_what_the_other_needs() {
    let Some(world) = World::new(&["nft"]) else { return };
    let mut old = world.started(&[]);
    let mut new = world.start(&[]);
    expect(&new, "[INFO] ready");
    expect(&new, "another process already serves 169.254.20.10:53");
    end(&mut old);
    assert!(world.has_address() && world.rules() == 8, "{}", old.dump());
    assert!(world.resolves());
    // The one that stays looks after it.
    world.node.shell("nft flush ruleset");
    eventually("the rules are there again", PATIENCE, || (world.rules() == 8).then_some(()));
    let refused = world.node_command("remove", &[]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err[0].contains("an agent looks after nodelocaldns on this node"), "{}", refused.dump());
    end(&mut new);
    assert!(!world.has_address() && world.rules() == 0, "{}", new.dump());
}

#[test]
fn f13_what_others_destroy_is_put_right_said_and_counted() {
    let Some(world) = World::new(&["nft"]) else { return };
    let agent = world.started(&[]);
    world.node.run("ip", &["link", "del", NAME]);
    expect(&agent, "[WARNING] node: somebody changed it, and it was put right: + interface nodelocaldns");
    assert!(world.resolves(), "the same sockets");
    let metrics = world.metrics();
    assert_eq!(metrics.value("nodens_node_drifts_total", &[("part", "interface")]), Some(1.0));
    assert_eq!(metrics.value("nodens_node_repairs_total", &[]), Some(1.0));
}

#[test]
fn n_setup_that_is_switched_off_leaves_all_alone() {
    let Some(world) = World::new(&["nft"]) else { return };
    world.node.shell(&format!("ip address add {ADDRESS}/32 dev lo"));
    let before = world.node.shell("ip -o address; ip -o link");
    let mut agent = world.start(&["-setupinterface=false", "-setupiptables=false"]);
    expect(&agent, "[INFO] ready");
    assert!(world.resolves());
    assert_eq!(world.node.shell("ip -o address; ip -o link; nft list ruleset"), before);
    end(&mut agent);
    assert_eq!(world.node.shell("ip -o address; ip -o link; nft list ruleset"), before);
}

#[test]
fn without_privilege_each_part_says_what_is_missing_and_dns_is_served() {
    let Some(world) = World::new(&["setpriv"]) else { return };
    let corefile = COREFILE.replace(".:53", ".:5353").replace("bind 169.254.20.10", "bind 127.0.0.1");
    world.directory.write("Corefile", &corefile.replace("health 169.254.20.10", "health 127.0.0.1"));
    let path = world.directory.path("Corefile");
    let mut command = world.command(&["setpriv", "--reuid", "65534", "--clear-groups", "--inh-caps=-all"]);
    command.args([
        "--bounding-set=-all",
        "--",
        NODENS,
        "-localip",
        ADDRESS,
        "-conf",
        &path,
        "-seticmpratemask",
    ]);
    let mut agent = Process::spawn(command);
    expect(&agent, "[INFO] ready");
    expect(
        &agent,
        "[ERROR] node: cannot do `+ interface nodelocaldns (dummy)`: Operation not permitted (os error 1); grant CAP_NET_ADMIN",
    );
    expect(&agent, "[ERROR] node: cannot do `~ net.ipv4.icmp_ratemask = 6160`: Permission denied");
    expect(&agent, "CAP_NET_ADMIN, or say -setupiptables=false");
    std::thread::sleep(Duration::from_millis(100));
    let errors = agent.stdout_lines().iter().filter(|line| line.starts_with("[ERROR]")).count();
    assert_eq!(errors, 3, "a line for each part: {}", agent.dump());
    let metrics = world.metrics();
    assert!(metrics.sum("coredns_nodecache_setup_errors_total", &["errortype=\"interface_add\""]) > 0);
    assert!(metrics.sum("coredns_nodecache_setup_errors_total", &["errortype=\"iptables\""]) > 0);
    world.node.enter(|| {
        let server = SocketAddr::from(([127, 0, 0, 1], 5353));
        let query = Query::new("www.example.", "A").bytes();
        assert!(UdpClient::new().ask(server, &query, PATIENCE).is_some(), "DNS is served all the same");
    });
    end(&mut agent);
    assert!(!world.has_address());
}

#[test]
fn a_read_only_proc_sys_is_told_and_nothing_else_suffers() {
    let Some(world) = World::new(&["nft", "unshare"]) else { return };
    let path = world.directory.path("Corefile");
    let line = format!(
        "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && \
         exec {NODENS} -localip {ADDRESS} -conf {path} -seticmpratemask=true"
    );
    let mut agent = Process::spawn(world.command(&["unshare", "-m", "sh", "-c", &line]));
    expect(&agent, "[INFO] packet rules by ");
    expect(&agent, "[ERROR] node: cannot do `~ net.ipv4.icmp_ratemask = 6160`: Read-only file system");
    assert!(world.resolves() && world.rules() == 8);
    end(&mut agent);
}

#[test]
fn by_hand_a_plan_is_shown_applied_and_removed() {
    let Some(world) = World::new(&["nft"]) else { return };
    let plan = world.node_command("plan", &["-seticmpratemask"]);
    assert_eq!(plan.code, Some(0), "{}", plan.dump());
    for text in [
        "+ interface nodelocaldns (dummy)",
        "+ address 169.254.20.10 on nodelocaldns",
        "+ table inet nodens, 8 rules:",
    ] {
        assert!(plan.out.iter().any(|line| line == text), "{text}: {}", plan.dump());
    }
    assert!(!world.has_address() && world.rules() == 0, "it only prints");
    let applied = world.node_command("apply", &["-seticmpratemask"]);
    assert_eq!(applied.code, Some(0), "{}", applied.dump());
    assert!(world.has_address() && world.rules() == 8);
    let mask = || world.node.shell("cat /proc/sys/net/ipv4/icmp_ratemask");
    assert_eq!(mask().trim(), "6160");
    let plan = world.node_command("plan", &["-seticmpratemask"]);
    assert_eq!(plan.out[0], "nothing to do: the node is as it should be", "{}", plan.dump());
    let removed = world.node_command("remove", &[]);
    assert_eq!(removed.code, Some(0), "{}", removed.dump());
    assert!(!world.has_address() && world.rules() == 0);
    assert_eq!(mask().trim(), "6168", "restored without being told");
    let again = world.node_command("remove", &[]);
    assert_eq!((again.code, again.out.len()), (Some(0), 1), "{}", again.dump());
}

#[test]
fn f26_a_held_lock_of_iptables_does_not_keep_the_agent_from_ending() {
    let Some(world) = World::new(&["iptables-legacy", "flock"]) else { return };
    world.node.shell("iptables-legacy -P OUTPUT DROP; iptables-legacy -A OUTPUT -j ACCEPT");
    let mut agent = world.started(&[]);
    let lock = "(flock -x 9; echo held; sleep 4) 9>/run/xtables.lock";
    let mut holder = Command::new("sh").args(["-c", lock]).stdout(Stdio::piped()).spawn().expect("a shell");
    let mut held = [0; 5];
    holder.stdout.as_mut().expect("a pipe").read_exact(&mut held).expect("it says so once it holds the lock");
    let told = Instant::now();
    agent.signal(SIGTERM);
    assert!(agent.wait(PATIENCE).is_some(), "{}", agent.dump());
    let took = told.elapsed();
    assert!(took < Duration::from_millis(3_900), "{took:?}: {}", agent.dump());
    expect(&agent, "the kernel or the lock of iptables took longer than");
    holder.wait().expect("it ends");
}

#[test]
fn p1_when_the_agent_is_killed_a_services_address_is_kube_proxys_again() {
    const SERVICE: &str = "10.96.0.10";
    const OF_KUBE_DNS: &str = "192.0.2.53";
    let Some(world) = World::new(&["nft", "iptables"]) else { return };
    let dns = world.node.pod(2);
    let far: SocketAddr = "10.244.2.2:53".parse().expect("an address");
    let handler = answers(|query| query.response().answer(&format!("@ 60 IN A {OF_KUBE_DNS}")));
    let _kube_dns = dns.enter(|| Upstream::on(far, handler));
    // kube-proxy's part.
    world.node.shell(&format!(
        "echo 1 > /proc/sys/net/ipv4/ip_forward && \
         iptables -t nat -A PREROUTING -d {SERVICE} -p udp --dport 53 -j DNAT --to-destination 10.244.2.2:53"
    ));
    let both = COREFILE.replace("bind 169.254.20.10", &format!("bind 169.254.20.10 {SERVICE}"));
    world.directory.write("Corefile", &both);
    let (server, any) = (SocketAddr::new(ip(SERVICE), 53), SocketAddr::from(([0; 4], 0)));
    let query = Query::new("www.example.", "A").bytes();
    let answered_by = |timeout| {
        let reply = world.pod.enter(|| UdpClient::bind(any).ask(server, &query, timeout))?;
        reply.rdatas("A").first().map(ToString::to_string)
    };
    assert_eq!(answered_by(PATIENCE).as_deref(), Some(OF_KUBE_DNS), "before there is an agent");
    let (path, addresses) = (world.directory.path("Corefile"), format!("{ADDRESS},{SERVICE}"));
    let flags = ["-localip", &addresses, "-conf", &path, "-packetrules=nftables", "-skipteardown=true"];
    let mut agent = Process::spawn(world.command(&[&[NODENS], &flags[..]].concat()));
    expect(&agent, "[INFO] packet rules by nftables");
    assert_eq!(answered_by(PATIENCE).as_deref(), Some(ANSWER), "{}", agent.dump());
    agent.kill();
    let killed = Instant::now();
    // Patient enough for kube-dns, and not for what is lost.
    let by = eventually("somebody answers again", PATIENCE, || answered_by(Duration::from_millis(5)));
    let took = killed.elapsed();
    assert_eq!(by, OF_KUBE_DNS);
    report(&format!("a Service's address, the agent killed: kube-dns answers after {took:?}"));
    assert!(world.has_address(), "address and rules are still there");
}

/// How often `getent` asks; more than the six errors that the kernel sends to one client before it limits them.
const LOOKUPS: usize = 12;

#[test]
fn a_dead_agent_costs_glibc_one_round_trip_with_the_mask_and_a_second_without_the_address() {
    let Some(world) = World::new(&["nft", "getent"]) else { return };
    // The Pod's second server: kube-dns, elsewhere.
    let dns = world.node.pod(2);
    world.node.shell("echo 1 > /proc/sys/net/ipv4/ip_forward");
    let second: SocketAddr = "10.244.2.2:53".parse().expect("an address");
    let handler = answers(|query| match query.qtype {
        rtype::A => query.response().answer("@ 60 IN A 192.0.2.1"),
        _ => query.response(),
    });
    let _second = dns.enter(|| Upstream::on(second, handler));
    let resolv = format!("nameserver {ADDRESS}\nnameserver 10.244.2.2\noptions timeout:1 attempts:2\n");
    let resolver = EtcNetns::write(&world.pod.name, &resolv);
    let lookup = || {
        let begun = Instant::now();
        world.pod.run("getent", &["ahostsv4", "www.example.test"]);
        begun.elapsed()
    };
    let worst = || (0..LOOKUPS).map(|_| lookup()).max().unwrap_or_default();
    // The fastest: what a lookup costs. What else runs on this machine makes others slower.
    let fastest = |all: &[Duration]| all.iter().min().copied().unwrap_or_default();
    let flags = ["-skipteardown=true", "-seticmpratemask=true"];
    let mut agent = world.started(&flags);
    let alive: Vec<_> = (0..LOOKUPS).map(|_| lookup()).collect();
    let alive = fastest(&alive);
    agent.kill();
    // The kernel takes a moment to close what a killed process had in its ring.
    let killed = Instant::now();
    eventually("the kernel refuses", PATIENCE, || {
        let asked = ask(&world.pod, ADDRESS, 53, Duration::from_millis(1));
        asked.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused).then_some(())
    });
    let closed = killed.elapsed();
    // 5 to 20 ms with io_uring and 0.2 with epoll, on a machine that has time (docs/evidence).
    assert!(closed < Duration::from_secs(5), "{closed:?}");
    let dead: Vec<_> = (0..LOOKUPS).map(|_| lookup()).collect();
    let (with_mask, slowest) = (fastest(&dead), dead.iter().max().copied().unwrap_or_default());
    let extra = with_mask.saturating_sub(alive);
    assert!(extra < Duration::from_millis(10), "{extra:?} more than with the agent ({alive:?})");
    assert!(slowest < Duration::from_millis(900), "no lookup waits for a timeout: {dead:?}");
    world.node.shell("echo 6168 > /proc/sys/net/ipv4/icmp_ratemask");
    let limited = worst();
    world.node.run("ip", &["link", "del", NAME]);
    let without = lookup();
    assert!(without > Duration::from_millis(900), "the Pod waits for its timeout: {without:?}");
    report(&format!(
        "getent with two servers: agent alive {alive:?}; killed, address and mask kept {with_mask:?} (fastest; worst {slowest:?} of \
         {LOOKUPS}; refused from {closed:?} after the kill on); without the mask at worst {limited:?}; without the address {without:?}"
    ));
    drop(resolver);
}
