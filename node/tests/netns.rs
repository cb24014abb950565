//! The executor against the real kernel: interface, addresses and rules of both back ends, in namespaces of their own.

mod support;

use nodens_node::desired::{Desired, RulesWish, Wish};
use nodens_node::node::Outcome;
use nodens_node::rules::BackEnd;
use nodens_node::{BackEndChoice, Node, Step};
use support::{ADDRESS, NAME, Namespace, PORTS, ip, wish};

const NFTABLES: BackEndChoice = BackEndChoice::Only(BackEnd::Nftables);
const IPTABLES: BackEndChoice = BackEndChoice::Only(BackEnd::Iptables);

fn reach(namespace: &Namespace, choice: BackEndChoice, desired: &Desired) -> Outcome {
    namespace.block_on(async || Node::open(choice).expect("netlink").reach(desired).await)
}

fn remove(namespace: &Namespace, desired: &Desired) -> Outcome {
    namespace.block_on(async || Node::open(BackEndChoice::Auto).expect("netlink").remove(desired).await)
}

fn succeeded(outcome: &Outcome) {
    assert!(outcome.failures.is_empty(), "{outcome:#?}");
}

/// Reaching it once more has nothing to do.
fn is_stable(namespace: &Namespace, choice: BackEndChoice, desired: &Desired) {
    let again = reach(namespace, choice, desired);
    succeeded(&again);
    assert!(again.done.is_empty(), "{again:#?}");
}

#[test]
fn the_interface_carries_both_families_and_goes_again() {
    let Some(node) = Namespace::new(&[]) else { return };
    let desired = wish(&[ADDRESS, "fd00:53::10"]);
    let outcome = reach(&node, NFTABLES, &desired);
    succeeded(&outcome);
    let shown = node.run("ip", &["-d", "address", "show", "dev", NAME]);
    assert!(shown.contains("alias nodens"), "{shown}");
    assert!(shown.contains("inet 169.254.20.10/32 ") && shown.contains("inet6 fd00:53::10/128 "), "{shown}");
    assert!(shown.contains(",UP"), "{shown}");
    let of_ours = |line: &&str| line.contains("169.254.20.10") || line.contains("fd00:53::10");
    assert!(!shown.lines().filter(of_ours).any(|line| line.contains("tentative")), "{shown}");
    assert!(shown.contains("dummy") || shown.contains("veth"), "a link of its own: {shown}");
    is_stable(&node, NFTABLES, &desired);
    succeeded(&remove(&node, &desired));
    let links = node.run("ip", &["-o", "link"]);
    assert_eq!(links.lines().count(), 1, "only the loopback: {links}");
    assert_eq!(node.shell("ip -o address | grep -c nodelocaldns || true").trim(), "0");
}

#[test]
fn the_addresses_are_local_for_udp_and_tcp_at_once() {
    let Some(node) = Namespace::new(&[]) else { return };
    succeeded(&reach(&node, NFTABLES, &wish(&[ADDRESS, "fd00:53::10"])));
    node.enter(|| {
        for address in [ADDRESS, "fd00:53::10"] {
            let address = std::net::SocketAddr::new(ip(address), 53);
            std::net::UdpSocket::bind(address).expect("no second owner is looked for");
            std::net::TcpListener::bind(address).expect("nor here");
        }
    });
}

#[test]
fn what_a_half_done_run_left_is_finished() {
    let Some(node) = Namespace::new(&[]) else { return };
    // As after a SIGKILL between making the link and everything else.
    node.shell("ip link add nodelocaldns type veth peer name nodelocaldns-p");
    let desired = wish(&[ADDRESS]);
    let outcome = reach(&node, NFTABLES, &desired);
    succeeded(&outcome);
    assert!(outcome.remarks.is_empty(), "{outcome:#?}");
    assert!(node.run("ip", &["address", "show", "dev", NAME]).contains("169.254.20.10/32"));
    // The address is gone, the link is down, the mark is not.
    node.shell(&format!("ip address flush dev {NAME}; ip link set {NAME} down"));
    let outcome = reach(&node, NFTABLES, &desired);
    succeeded(&outcome);
    assert_eq!(outcome.done.len(), 2, "{outcome:#?}");
}

#[test]
fn a_foreign_link_under_our_name_stays_and_the_loopback_carries_the_address() {
    let Some(node) = Namespace::new(&[]) else { return };
    node.shell(&format!("ip link add {NAME} type bridge; ip address add 192.0.2.1/24 dev {NAME}"));
    let before = node.shell(&format!("ip -o address show dev {NAME}"));
    let desired = wish(&[ADDRESS, "fd00:53::10"]);
    let outcome = reach(&node, NFTABLES, &desired);
    succeeded(&outcome);
    assert_eq!(outcome.remarks.len(), 1, "{outcome:#?}");
    assert!(outcome.remarks[0].contains("not ours (bridge, with 192.0.2.1): left alone"), "{outcome:#?}");
    let lo = node.shell("ip -o address show dev lo");
    assert!(lo.contains("169.254.20.10/32") && lo.contains("fd00:53::10/128"), "{lo}");
    is_stable(&node, NFTABLES, &desired);
    succeeded(&remove(&node, &desired));
    assert_eq!(node.shell(&format!("ip -o address show dev {NAME}")), before);
    let lo = node.shell("ip -o address show dev lo");
    assert!(!lo.contains("169.254.20.10") && !lo.contains("fd00:53::10"), "{lo}");
}

#[test]
fn an_address_that_somebody_else_has_stays_where_it_is() {
    let Some(node) = Namespace::new(&[]) else { return };
    node.shell("ip link add kube-ipvs0 type bridge; ip address add 10.96.0.10/32 dev kube-ipvs0");
    let desired = wish(&[ADDRESS, "10.96.0.10"]);
    let outcome = reach(&node, NFTABLES, &desired);
    succeeded(&outcome);
    assert!(
        outcome.remarks[0].starts_with("10.96.0.10 is on the interface kube-ipvs0 already"),
        "{outcome:#?}"
    );
    assert!(!node.shell(&format!("ip -o address show dev {NAME}")).contains("10.96.0.10"));
    succeeded(&remove(&node, &desired));
    assert!(node.shell("ip -o address show dev kube-ipvs0").contains("10.96.0.10"));
}

#[test]
fn an_address_that_somebody_put_on_the_loopback_is_not_ours() {
    let Some(node) = Namespace::new(&[]) else { return };
    node.shell(&format!("ip address add {ADDRESS}/32 dev lo; ip address add fd00:53::10/128 dev lo nodad"));
    let desired = wish(&[ADDRESS, "fd00:53::10"]);
    let outcome = reach(&node, NFTABLES, &desired);
    succeeded(&outcome);
    assert_eq!(outcome.remarks.len(), 2, "{outcome:#?}");
    succeeded(&remove(&node, &desired));
    let lo = node.shell("ip -o address show dev lo");
    assert!(lo.contains(ADDRESS) && lo.contains("fd00:53::10"), "{lo}");
}

#[test]
fn where_ipv6_is_off_ipv4_is_served_and_the_rest_told() {
    let Some(node) = Namespace::new(&[]) else { return };
    node.shell("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6");
    let outcome = reach(&node, NFTABLES, &wish(&[ADDRESS, "fd00:53::10"]));
    succeeded(&outcome);
    assert!(outcome.remarks[0].starts_with("IPv6 is switched off on this node: fd00:53::10 left out"));
    assert!(node.shell("ip -o address").contains(ADDRESS));
}

/// `nft` shows our table; typed into another one, it has to become the very same expressions and look the same.
fn is_what_nft_makes(node: &Namespace) -> String {
    let shown = node.run("nft", &["list", "table", "inet", "nodens"]);
    let typed = shown.replace("table inet nodens", "table inet typed");
    let file = std::env::temp_dir().join(format!("{}.nft", node.name));
    std::fs::write(&file, &typed).expect("a temporary file");
    node.run("nft", &["-f", &file.to_string_lossy()]);
    std::fs::remove_file(&file).expect("it was written");
    assert_eq!(node.run("nft", &["list", "table", "inet", "typed"]), typed);
    let bytecode = |table: &str| {
        let text = node.run("nft", &["--debug=netlink", "list", "table", "inet", table]);
        let expressions = text.lines().filter(|line| line.starts_with("  ["));
        expressions.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(bytecode("nodens"), bytecode("typed"), "the very same expressions");
    shown
}

#[test]
fn nftables_shows_forwarding_as_it_would_be_typed() {
    let Some(node) = Namespace::new(&["nft"]) else { return };
    let upstreams = ["10.96.0.11:53", "[fd00:96::b]:5353"].map(|text| text.parse().expect("an address"));
    let rules = RulesWish::Forward { ports: PORTS, upstreams: upstreams.to_vec() };
    let desired = Desired { rules, ..wish(&[ADDRESS, "fd00:53::10"]) };
    succeeded(&reach(&node, NFTABLES, &desired));
    is_stable(&node, NFTABLES, &desired);
    let shown = is_what_nft_makes(&node);
    assert!(shown.contains("ip daddr 169.254.20.10 udp dport 53"), "{shown}");
    assert!(shown.contains("zone set 28260 ip daddr set 10.96.0.11"), "{shown}");
    assert!(shown.contains("ip6 saddr set fd00:53::10 tcp sport set 53"), "{shown}");
}

#[test]
fn nftables_shows_our_rules_as_they_would_be_typed() {
    let Some(node) = Namespace::new(&["nft"]) else { return };
    succeeded(&reach(&node, NFTABLES, &wish(&[ADDRESS, "10.96.0.10", "fe80::10"])));
    let shown = is_what_nft_makes(&node);
    let rule = |rest: &str| format!("{rest} comment \"NodeLocal DNS Cache: skip conntrack\"");
    let counted = "counter packets 0 bytes 0 notrack";
    for line in [
        rule(&format!("ip daddr 169.254.20.10 udp dport 53 {counted}")),
        rule(&format!("ip saddr 169.254.20.10 tcp sport 53 {counted}")),
        rule(&format!("ip daddr 169.254.20.10 tcp dport 8080 {counted}")),
        rule(&format!("ip daddr 10.96.0.10 udp dport 53 socket wildcard 0 {counted}")),
        rule(&format!("ip daddr 10.96.0.10 tcp dport 53 socket transparent 0 {counted}")),
        "ip daddr 10.96.0.10 tcp dport 53 socket wildcard 1 counter packets 0 bytes 0 accept comment \"nodens: another server's\"".to_owned(),
        rule(&format!("ip6 daddr fe80::10 tcp dport 53 {counted}")),
        "type filter hook prerouting priority raw; policy accept;".to_owned(),
        "type filter hook output priority raw; policy accept;".to_owned(),
    ] {
        assert!(shown.contains(&line), "{line}\nis not in\n{shown}");
    }
}

#[test]
fn nftables_rules_are_read_back_and_put_right() {
    let Some(node) = Namespace::new(&["nft"]) else { return };
    let desired = wish(&[ADDRESS, "fd00:53::10"]);
    succeeded(&reach(&node, NFTABLES, &desired));
    let good = node.run("nft", &["list", "table", "inet", "nodens"]);
    is_stable(&node, NFTABLES, &desired);
    for damage in [
        "nft flush ruleset",
        "nft flush chain inet nodens output",
        "nft delete table inet nodens",
        "nft delete rule inet nodens prerouting handle \
         $(nft -a list table inet nodens | sed -n 's/.*daddr 169.*udp dport 53.*# handle //p' | head -1)",
        // One of ours that an older version may have written.
        "nft add rule inet nodens output ip daddr 192.0.2.9 counter comment '\"NodeLocal DNS Cache: skip conntrack\"'",
    ] {
        node.shell(damage);
        let outcome = reach(&node, NFTABLES, &desired);
        succeeded(&outcome);
        assert!(matches!(outcome.done[..], [Step::ReplaceTable(_)]), "{damage}: {outcome:#?}");
        assert_eq!(node.run("nft", &["list", "table", "inet", "nodens"]), good, "after {damage}");
    }
    succeeded(&remove(&node, &desired));
    assert_eq!(node.run("nft", &["list", "ruleset"]), "");
}

#[test]
fn what_others_put_into_our_table_stays() {
    let Some(node) = Namespace::new(&["nft"]) else { return };
    let desired = wish(&[ADDRESS]);
    succeeded(&reach(&node, NFTABLES, &desired));
    node.shell(
        "nft add rule inet nodens output ip daddr 192.0.2.9 counter; nft add chain inet nodens mine; \
         nft flush chain inet nodens prerouting",
    );
    let outcome = reach(&node, NFTABLES, &desired);
    succeeded(&outcome);
    assert_eq!(outcome.done.len(), 2, "two rules, one by one: {outcome:#?}");
    assert!(outcome.remarks[0].contains("a rule in chain output"), "{outcome:#?}");
    is_stable(&node, NFTABLES, &desired);
    succeeded(&remove(&node, &desired));
    let left = node.run("nft", &["list", "table", "inet", "nodens"]);
    assert!(
        left.contains("192.0.2.9") && left.contains("chain mine") && !left.contains("NodeLocal"),
        "{left}"
    );
}

#[test]
fn a_chain_of_our_name_that_is_not_ours_is_left_and_told() {
    let Some(node) = Namespace::new(&["nft"]) else { return };
    node.shell("nft add table inet nodens; nft add chain inet nodens prerouting");
    let outcome = reach(&node, NFTABLES, &wish(&[ADDRESS]));
    assert_eq!(outcome.failures.len(), 1, "{outcome:#?}");
    let text = &outcome.failures[0].text;
    assert!(
        text.starts_with("nftables: cannot make the chain prerouting in the table inet nodens: "),
        "{text}"
    );
    assert!(outcome.remarks.iter().any(|remark| remark.contains("chain prerouting")), "{outcome:#?}");
    assert_eq!(node.shell("nft list table inet nodens | grep -c chain").trim(), "1");
}

#[test]
fn features_1_4_iptables_has_exactly_node_caches_rules() {
    let Some(node) = Namespace::new(&["iptables", "ip6tables"]) else { return };
    let desired = wish(&[ADDRESS, "fd00:53::10"]);
    succeeded(&reach(&node, IPTABLES, &desired));
    is_stable(&node, IPTABLES, &desired);
    for (program, address) in [("iptables", "169.254.20.10/32"), ("ip6tables", "fd00:53::10/128")] {
        let rules = |table: &str| {
            let text = node.run(program, &["-t", table, "-S"]);
            text.lines().filter(|line| line.starts_with("-A")).count()
        };
        assert_eq!((rules("raw"), rules("filter")), (8, 4), "{program}");
        let address = address.split('/').next().expect("an address");
        for transport in ["udp", "tcp"] {
            for (table, chain, side, port, target, comment) in [
                ("raw", "PREROUTING", "-d", "--dport", "NOTRACK", "skip conntrack"),
                ("filter", "INPUT", "-d", "--dport", "ACCEPT", "allow DNS traffic"),
                ("raw", "OUTPUT", "-s", "--sport", "NOTRACK", "skip conntrack"),
                ("filter", "OUTPUT", "-s", "--sport", "ACCEPT", "allow DNS traffic"),
                ("raw", "OUTPUT", "-d", "--dport", "NOTRACK", "skip conntrack"),
            ] {
                let comment = format!("NodeLocal DNS Cache: {comment}");
                node.run(
                    program,
                    &[
                        "-t",
                        table,
                        "-C",
                        chain,
                        "-p",
                        transport,
                        side,
                        address,
                        port,
                        "53",
                        "-j",
                        target,
                        "-m",
                        "comment",
                        "--comment",
                        &comment,
                    ],
                );
            }
        }
    }
    succeeded(&remove(&node, &desired));
    for (program, table) in [("iptables", "raw"), ("iptables", "filter"), ("ip6tables", "raw")] {
        assert!(!node.run(program, &["-t", table, "-S"]).contains("-A"), "{program} {table}");
    }
}

#[test]
fn p18_iptables_rules_are_put_right_and_never_pile_up() {
    let Some(node) = Namespace::new(&["iptables"]) else { return };
    let desired = wish(&[ADDRESS]);
    succeeded(&reach(&node, IPTABLES, &desired));
    let sorted = || {
        let text = node.shell("iptables -t raw -S; iptables -t filter -S");
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let good = sorted();
    let skip = "-m comment --comment 'NodeLocal DNS Cache: skip conntrack'";
    for damage in [
        "iptables -F; iptables -t raw -F".to_owned(),
        "iptables -t raw -F PREROUTING".to_owned(),
        format!("iptables -t raw -A OUTPUT -p udp -s {ADDRESS} --sport 53 -j NOTRACK {skip}"),
        format!("iptables -t raw -A OUTPUT -p udp -s {ADDRESS} --sport 5353 -j NOTRACK {skip}"),
        format!("iptables -t raw -A OUTPUT -o lo -p udp -s {ADDRESS} --sport 53 -j NOTRACK {skip}"),
    ] {
        node.shell(&damage);
        assert_ne!(sorted(), good, "{damage} changes something");
        succeeded(&reach(&node, IPTABLES, &desired));
        assert_eq!(sorted(), good, "after {damage}");
    }
    // Another node-cache's.
    let others = format!("iptables -t raw -A OUTPUT -p udp -s 169.254.25.10 --sport 53 -j NOTRACK {skip}");
    node.shell(&others);
    is_stable(&node, IPTABLES, &desired);
}

#[test]
fn p17_the_lock_of_iptables_is_waited_for() {
    let Some(node) = Namespace::new(&["iptables-legacy", "flock"]) else { return };
    // The older half has a lock file; the newer one has none.
    node.shell("iptables-legacy -P INPUT DROP");
    let lock = "(flock -x 9; sleep 0.6) 9>/run/xtables.lock";
    let mut holder = std::process::Command::new("sh").args(["-c", lock]).spawn().expect("a shell");
    std::thread::sleep(std::time::Duration::from_millis(200));
    let start = std::time::Instant::now();
    succeeded(&reach(&node, BackEndChoice::Auto, &wish(&[ADDRESS])));
    assert!(start.elapsed() > std::time::Duration::from_millis(200), "{:?}", start.elapsed());
    assert_eq!(node.shell("iptables-legacy -S | grep -c NodeLocal").trim(), "4");
    holder.wait().expect("it ends");
}

#[test]
fn auto_takes_nftables_unless_a_chain_of_iptables_drops_by_default() {
    let Some(node) = Namespace::new(&["nft", "iptables"]) else { return };
    let desired = wish(&[ADDRESS]);
    let chosen = |node: &Namespace| {
        let outcome = reach(node, BackEndChoice::Auto, &desired);
        succeeded(&outcome);
        let remarks = outcome.remarks.clone();
        succeeded(&remove(node, &desired));
        (outcome.chosen.expect("a choice"), remarks)
    };
    assert!(chosen(&node).0.starts_with("nftables: "));
    node.shell(
        "nft add table inet f; nft add chain inet f i '{ type filter hook input priority 0; policy drop; }'",
    );
    let (reason, remarks) = chosen(&node);
    assert!(reason.starts_with("nftables: "), "{reason}");
    assert!(remarks[0].starts_with("the chain inet f i drops what it does not allow"), "{remarks:?}");
    node.shell("nft delete table inet f; iptables -P INPUT DROP");
    let (reason, _) = chosen(&node);
    assert!(reason.starts_with("iptables: the chain ip filter INPUT drops by default"), "{reason}");
}

#[test]
fn a_drop_policy_of_the_older_iptables_is_seen_too() {
    let Some(node) = Namespace::new(&["iptables-legacy"]) else { return };
    node.shell("iptables-legacy -P INPUT DROP");
    let outcome = reach(&node, BackEndChoice::Auto, &wish(&[ADDRESS]));
    succeeded(&outcome);
    assert!(outcome.chosen.expect("a choice").starts_with("iptables: the chain ip filter INPUT drops"));
    let allowed = || node.shell("iptables-legacy -S | grep -c NodeLocal || true");
    assert_eq!(allowed().trim(), "4", "only a rule of the same half opens it");
    succeeded(&remove(&node, &wish(&[ADDRESS])));
    assert_eq!(allowed().trim(), "0");
}

#[test]
fn the_icmp_limit_is_lifted_remembered_and_restored() {
    let Some(node) = Namespace::new(&[]) else { return };
    let read = || node.shell("cat /proc/sys/net/ipv4/icmp_ratemask /proc/sys/net/ipv6/icmp/ratemask");
    assert_eq!(read(), "6168\n0-1,3-127\n");
    let desired = Desired { unthrottled: Wish::Present, ..wish(&[ADDRESS]) };
    succeeded(&reach(&node, NFTABLES, &desired));
    assert_eq!(read(), "6160\n0,3-127\n");
    is_stable(&node, NFTABLES, &desired);
    succeeded(&remove(&node, &desired));
    assert_eq!(read(), "6168\n0-1,3-127\n");
    // Somebody's own choice is not ours to restore.
    node.shell("echo 0 > /proc/sys/net/ipv4/icmp_ratemask");
    let outcome = remove(&node, &desired);
    succeeded(&outcome);
    assert!(
        outcome.remarks.iter().any(|remark| remark.contains("net.ipv4.icmp_ratemask is 0")),
        "{outcome:#?}"
    );
    assert_eq!(read(), "0\n0-1,3-127\n");
}

#[test]
fn what_is_not_wished_for_is_left_alone() {
    let Some(node) = Namespace::new(&["nft"]) else { return };
    let nothing = Desired { link: Wish::LeaveAlone, rules: RulesWish::LeaveAlone, ..wish(&[ADDRESS]) };
    let outcome = reach(&node, BackEndChoice::Auto, &nothing);
    succeeded(&outcome);
    assert!(outcome.done.is_empty() && outcome.chosen.is_none(), "{outcome:#?}");
    assert_eq!(node.run("nft", &["list", "ruleset"]), "");
    let only_link = Desired { rules: RulesWish::LeaveAlone, ..wish(&[ADDRESS]) };
    succeeded(&reach(&node, BackEndChoice::Auto, &only_link));
    assert_eq!(node.run("nft", &["list", "ruleset"]), "");
    assert!(node.shell("ip -o address").contains(ADDRESS));
}
