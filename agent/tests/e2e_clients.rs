//! The real binary as Pods' resolvers see it: `dig`, `kdig` and glibc ask it, in a network of their own where they need port 53.

mod support;

use std::process::Command;
use std::time::Duration;

use nodens_testkit::msg::rcode::NOERROR;
use nodens_testkit::real::BIG_ADDRESSES;
use nodens_testkit::{Query, Received, Reply, Response, UdpClient, Upstream, answers};

use support::{Agent, COREFILE, Directory, Ended, PATIENCE, loopback, run, skip, tool};

/// Set for the part of a test that runs in a namespace of its own; the value is a directory for its files.
const INSIDE: &str = "NODENS_E2E_INSIDE";

/// A small world: `v4only` has no AAAA, `both` has, `big` is too large for 512 octets; the rest does not exist.
fn world(query: &Received) -> Response {
    let reply = query.response();
    let negative = "example. 30 IN SOA ns.example. admin.example. 1 3600 600 86400 30";
    match (query.qname.as_str(), query.qtype) {
        ("v4only.example." | "both.example.", 1) => reply.answer("@ 60 IN A 192.0.2.4"),
        ("both.example.", 28) => reply.answer("@ 60 IN AAAA 2001:db8::4"),
        ("big.example.", 1) => {
            (1..=BIG_ADDRESSES).fold(reply, |reply, n| reply.answer(&format!("@ 60 IN A 198.51.100.{n}")))
        }
        ("4.2.0.192.in-addr.arpa.", 12) => reply.answer("@ 60 IN PTR both.example."),
        ("v4only.example." | "both.example." | "big.example.", _) => reply.authority(negative),
        _ => reply.rcode(3).authority(negative),
    }
}

/// The world as a server tells it that does not recurse: RA is 0.
fn cluster_dns(query: &Received) -> Response {
    world(query).ra(false)
}

fn dig(agent: &Agent, arguments: &[&str]) -> Option<Ended> {
    let mut command = Command::new(tool("dig", "bind9-dnsutils")?);
    command.args(["@127.0.0.1", "-p", &agent.dns.port().to_string(), "+tries=1", "+time=5"]).args(arguments);
    Some(run(command))
}

#[test]
fn dig_understands_every_answer() {
    let upstream = Upstream::start(answers(world));
    let agent = Agent::before(upstream.addr());
    let whole = format!("ANSWER: {BIG_ADDRESSES},");
    let rows: [(&[&str], &[&str]); 9] = [
        (&["both.example", "A"], &["status: NOERROR", "192.0.2.4", "(UDP)"]),
        (&["both.example", "AAAA", "+tcp"], &["status: NOERROR", "2001:db8::4", "(TCP)"]),
        (&["big.example", "A", "+noedns", "+ignore"], &["flags: qr tc rd", "(UDP)"]),
        (&["big.example", "A", "+noedns"], &[&whole, "Truncated, retrying in TCP", "(TCP)"]),
        (&["big.example", "A", "+bufsize=1232"], &[&whole, "udp: 1232", "(UDP)"]),
        (&["big.example", "A", "+bufsize=600", "+ignore"], &["flags: qr tc rd"]),
        (&["both.example", "A", "+dnssec"], &["flags: do; udp: 1232", "192.0.2.4"]),
        (&["v4only.example", "AAAA"], &["status: NOERROR", "ANSWER: 0, AUTHORITY: 1"]),
        (&["nothing.example", "A"], &["status: NXDOMAIN", "SOA"]),
    ];
    for (arguments, wanted) in rows {
        let Some(ended) = dig(&agent, arguments) else { return };
        let text = ended.out.join("\n");
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.dump());
        for part in wanted {
            assert!(text.contains(part), "dig {arguments:?} does not show {part:?}:\n{text}");
        }
        for complaint in ["WARNING", "malformed", "bad", "extra"] {
            assert!(!text.contains(complaint), "dig {arguments:?} complains:\n{text}");
        }
    }
}

#[test]
fn kdig_asks_several_times_on_one_connection() {
    let upstream = Upstream::start(answers(world));
    let agent = Agent::before(upstream.addr());
    let Some(kdig) = tool("kdig", "knot-dnsutils") else { return };
    let mut command = Command::new(kdig);
    command.args([
        "@127.0.0.1",
        "-p",
        &agent.dns.port().to_string(),
        "+tcp",
        "+keepopen",
        "+retry=0",
        "+short",
    ]);
    for name in ["both.example", "v4only.example", "both.example", "big.example"] {
        command.args(["-q", name, "-t", "A"]);
    }
    let before = agent.metrics();
    let ended = run(command);
    assert_eq!(ended.code, Some(0), "{}", ended.dump());
    let addresses: Vec<_> = ended.out.iter().filter(|line| !line.is_empty()).collect();
    assert_eq!(addresses.len(), 3 + BIG_ADDRESSES, "{}", ended.dump());
    assert!(addresses[..3].iter().all(|line| *line == "192.0.2.4"), "{}", ended.dump());
    let after = agent.metrics();
    let more = |name| after.sum(name, &[]) - before.sum(name, &[]);
    let counts = (more("nodens_tcp_connections_opened_total"), more("coredns_dns_requests_total"));
    assert_eq!(counts, (1, 4), "one connection, four queries");
}

#[test]
fn a_and_aaaa_at_once_from_one_port_are_both_answered() {
    let upstream = Upstream::start(answers(world));
    let agent = Agent::before(upstream.addr());
    let client = UdpClient::new();
    // From the upstream and from the cache; glibc sends the second before it has the first answer.
    for round in 0..4 {
        let pair = [("A", 100 + round), ("AAAA", 200 + round)];
        for (qtype, id) in pair {
            client.send(agent.dns, &Query::new("both.example.", qtype).id(id).bytes());
        }
        let mut replies: Vec<_> =
            pair.iter().map(|_| Reply::parse(&client.recv(PATIENCE).expect("two answers").0)).collect();
        replies.sort_by_key(|reply| reply.id);
        assert_eq!((replies[0].id, replies[0].rdatas("A")), (100 + round, vec!["192.0.2.4"]));
        assert_eq!((replies[1].id, replies[1].rdatas("AAAA")), (200 + round, vec!["2001:db8::4"]));
    }
    assert_eq!(client.recv(Duration::from_millis(50)), None, "nobody is answered twice");
}

/// What runs in a namespace: an upstream, nodens on port 53 before it, and glibc.
fn resolver_world() -> (Upstream, Agent) {
    let upstream = Upstream::on(loopback(5301), answers(cluster_dns));
    let variables = [("UPSTREAM", "127.0.0.1:5301")];
    let agent = Agent::try_start(COREFILE, &variables, loopback(53), loopback(9253));
    (upstream, agent.unwrap_or_else(|log| panic!("nodens does not start:\n{log}")))
}

/// Makes glibc ask these servers, in this order.
fn use_nameservers(directory: &Directory, nameservers: &[&str]) {
    let mut text = "options timeout:1 attempts:1\n".to_owned();
    nameservers.iter().for_each(|server| text += &format!("nameserver {server}\n"));
    let resolv_conf = directory.write("resolv.conf", &text);
    let nsswitch = directory.write("nsswitch.conf", "hosts: dns\n");
    for (from, to) in [(resolv_conf, "/etc/resolv.conf"), (nsswitch, "/etc/nsswitch.conf")] {
        let mut mount = Command::new("mount");
        mount.args(["--bind", &from, to]);
        let ended = run(mount);
        assert_eq!(ended.code, Some(0), "{}", ended.dump());
    }
}

fn getent(arguments: &[&str]) -> Ended {
    let mut command = Command::new("getent");
    command.args(arguments);
    run(command)
}

fn addresses(ended: &Ended) -> Vec<&str> {
    let mut all: Vec<_> = ended.out.iter().filter_map(|line| line.split_whitespace().next()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn glibc_takes_our_answers_and_asks_nobody_else() {
    const TEST: &str = "glibc_takes_our_answers_and_asks_nobody_else";
    let Some(directory) = in_namespace(TEST) else { return };
    let (upstream, agent) = resolver_world();
    let second = Upstream::on(([127, 0, 0, 2], 53).into(), answers(cluster_dns));
    let naked = Upstream::on(([127, 0, 0, 3], 53).into(), answers(cluster_dns));

    // Without nodens: an empty answer without RA sends glibc to the next server. If this ever fails, the rest shows nothing.
    use_nameservers(&directory, &["127.0.0.3", "127.0.0.2"]);
    getent(&["hosts", "v4only.example"]);
    assert!(naked.count_for("v4only.example.", "AAAA") > 0, "glibc asked the first server");
    assert!(second.count_for("v4only.example.", "AAAA") > 0, "and, told nothing useful, the second");
    second.clear();

    use_nameservers(&directory, &["127.0.0.1", "127.0.0.2"]);
    // `hosts` asks for AAAA and, if there is none, for A; `ahosts` for both at once. Later rounds are served from the cache.
    for database in ["hosts", "ahosts", "hosts", "ahosts"] {
        let v4only = getent(&[database, "v4only.example"]);
        assert_eq!((v4only.code, addresses(&v4only)), (Some(0), vec!["192.0.2.4"]), "{}", v4only.dump());
    }
    let both = getent(&["ahosts", "both.example"]);
    assert_eq!(addresses(&both), ["192.0.2.4", "2001:db8::4"], "{}", both.dump());
    let hosts = getent(&["hosts", "both.example"]);
    assert_eq!(addresses(&hosts), ["2001:db8::4"], "{}", hosts.dump());
    let reverse = getent(&["hosts", "192.0.2.4"]);
    assert!(reverse.out.join(" ").contains("both.example"), "{}", reverse.dump());
    let big = getent(&["ahosts", "big.example"]);
    assert_eq!(
        addresses(&big).len(),
        BIG_ADDRESSES,
        "over TCP, because 512 octets are too few; {}",
        big.dump()
    );
    let nothing = getent(&["ahosts", "nothing.example"]);
    assert_eq!((nothing.code, nothing.out.len()), (Some(2), 0), "{}", nothing.dump());
    assert_eq!(second.count(), 0, "the second server has nothing to do: {:?}", second.received());
    assert_eq!(upstream.count_for("v4only.example.", "AAAA"), 1, "and the first is asked once");
    assert!(agent.metrics().sum("coredns_dns_requests_total", &["proto=\"tcp\"", "type=\"A\""]) >= 1);

    // The default port is 53, and it was really that one.
    let reply = nodens_testkit::ask_udp(loopback(53), &Query::new("both.example.", "A").bytes());
    assert_eq!(reply.expect("an answer").rcode, NOERROR);
}

/// A directory, in a network and mount namespace of its own. Outside, runs this test once more inside and passes its verdict on.
fn in_namespace(test: &str) -> Option<Directory> {
    if let Some(path) = std::env::var_os(INSIDE) {
        let mut up = Command::new("ip");
        up.args(["link", "set", "lo", "up"]);
        let ended = run(up);
        assert_eq!(ended.code, Some(0), "{}", ended.dump());
        return Some(Directory::at(path));
    }
    let tools = [("unshare", "util-linux"), ("ip", "iproute2"), ("mount", "mount"), ("getent", "libc-bin")];
    if !tools.iter().all(|(name, package)| tool(name, package).is_some()) {
        return None;
    }
    let unshare = |program: &std::ffi::OsStr| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "--"]).arg(program);
        command
    };
    let may = run(unshare("true".as_ref()));
    if may.code != Some(0) {
        skip(&format!("no namespaces here ({})", may.err.join(" ")));
        return None;
    }
    let this = std::env::current_exe().expect("the path of this test");
    // Made and removed out here: inside, files that are mounted somewhere stay.
    let directory = Directory::create();
    let mut command = unshare(this.as_os_str());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(INSIDE, directory.path(""));
    let ended = run(command);
    assert_eq!(ended.code, Some(0), "inside: {}", ended.dump());
    assert!(ended.out.iter().any(|line| line.contains("1 passed")), "{}", ended.dump());
    None
}
