//! The plan as a pure function: whatever is found, carrying out the plan reaches what is desired, the next plan is
//! empty, and nothing of others is touched. The kernel is a model here: a few lines per step.

use std::net::{IpAddr, SocketAddr};

use nodens_node::desired::{Desired, Ports, RulesWish, Wish};
use nodens_node::observed::{
    Elsewhere, IcmpFamily, IcmpLimit, Link, LinkKind, Mark, Observed, ObservedRules,
};
use nodens_node::plan::{Step, plan};
use nodens_node::rules::{BackEnd, FoundRule, Rule, rules_for};
use proptest::prelude::*;
use proptest::sample::subsequence;

const NAME: &str = "nodelocaldns";
const PORTS: Ports = Ports { dns: 53, health: 8080 };

/// Own addresses, a Service's, and one of each family that nobody wishes.
const WISHED: [&str; 4] = ["169.254.20.10", "10.96.0.10", "fe80::10", "fd00::a"];
const UNWISHED: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

/// What the kernel would do.
fn carry_out(world: &mut Observed, step: &Step) {
    let is_ours = |name: &String| name == NAME;
    match step {
        Step::CreateLink(_, kind) => {
            assert!(world.link.is_none() && !world.missing_kinds.contains(kind), "{step}");
            world.link = Some(Link {
                kind: Some(*kind),
                kind_name: kind.to_string(),
                mark: None,
                up: false,
                addresses: Vec::new(),
            });
        }
        Step::MarkLink(_, mark) => link(world).mark = Some(mark.clone()),
        Step::SetUp(_) => link(world).up = true,
        Step::AddAddress(name, address) if is_ours(name) => link(world).addresses.push(*address),
        Step::AddAddress(name, address) => {
            world.elsewhere.push(Elsewhere { interface: name.clone(), address: *address, ours: true });
        }
        Step::RemoveAddress(name, address) if is_ours(name) => link(world).addresses.retain(|a| a != address),
        Step::RemoveAddress(name, address) => {
            world.elsewhere.retain(|found| !(found.interface == *name && found.address == *address));
        }
        Step::RemoveLink(_) => world.link = None,
        Step::SetIcmp(family, value) => {
            let limit = world.icmp.iter_mut().find(|limit| limit.family == *family).expect("it was read");
            limit.value.clone_from(value);
        }
        Step::ReplaceTable(rules) => {
            let found = world.rules.as_mut().expect("a back end");
            assert!(found.foreign.is_empty(), "others' things would be gone");
            found.rules = rules.iter().copied().map(FoundRule::Known).collect();
            found.present = true;
        }
        Step::RemoveTable => {
            let found = world.rules.as_mut().expect("a back end");
            assert!(found.foreign.is_empty(), "others' things would be gone");
            (found.present, found.rules) = (false, Vec::new());
        }
        Step::AddRule(rule) => {
            let found = world.rules.as_mut().expect("a back end");
            found.rules.push(FoundRule::Known(*rule));
        }
        Step::RemoveRule(gone) => {
            let rules = &mut world.rules.as_mut().expect("a back end").rules;
            let at = rules.iter().position(|rule| rule == gone).expect("it was read");
            rules.remove(at);
        }
    }
}

fn link(world: &mut Observed) -> &mut Link {
    world.link.as_mut().expect("the link is there")
}

/// Carries out plans until one is empty.
fn reach(world: &mut Observed, desired: &Desired) {
    let first = plan(world, desired);
    first.steps.iter().for_each(|step| carry_out(world, step));
    let second = plan(world, desired);
    assert!(second.is_empty(), "after\n{first}\nthere is still\n{second}");
}

/// Everything in it that is somebody else's.
fn of_others(world: &Observed, desired: &Desired) -> (Option<Link>, Vec<Elsewhere>, Vec<String>) {
    let is_foreign = |link: &&Link| {
        link.mark.is_none()
            && (link.kind.is_none() || link.addresses.iter().any(|a| !desired.addresses.contains(a)))
    };
    let link = world.link.as_ref().filter(is_foreign).cloned();
    let elsewhere = world.elsewhere.iter().filter(|found| !found.ours).cloned().collect();
    (link, elsewhere, world.rules.as_ref().map(|found| found.foreign.clone()).unwrap_or_default())
}

fn a_link() -> impl Strategy<Value = Option<Link>> {
    let mark = prop::option::of(prop::option::of(Just((IcmpFamily::V4, "6168".to_owned()))));
    let kind = prop::option::of(prop_oneof![Just(LinkKind::Dummy), Just(LinkKind::Veth)]);
    let addresses = (subsequence(WISHED.to_vec(), 0..4), subsequence(UNWISHED.to_vec(), 0..2));
    let link = (mark, kind, addresses, any::<bool>()).prop_map(|(mark, kind, (wished, unwished), up)| Link {
        kind,
        kind_name: kind.map_or("bridge".to_owned(), |kind| kind.to_string()),
        mark: mark.map(|icmp| Mark { icmp: icmp.into_iter().collect() }),
        up,
        addresses: ips(&[wished, unwished].concat()),
    });
    prop::option::of(link)
}

fn elsewhere() -> impl Strategy<Value = Vec<Elsewhere>> {
    let one = |ours: bool, interface: &'static str| {
        subsequence(WISHED.to_vec(), 0..3).prop_map(move |texts| {
            let found = |address| Elsewhere { interface: interface.to_owned(), address, ours };
            ips(&texts).into_iter().map(found).collect::<Vec<_>>()
        })
    };
    (one(false, "kube-ipvs0"), one(true, "lo"), one(false, "lo")).prop_map(|(others, ours, on_lo)| {
        // One interface has an address once.
        let on_lo = on_lo.into_iter().filter(|found| !ours.iter().any(|o| o.address == found.address));
        others.into_iter().chain(on_lo).chain(ours.clone()).collect()
    })
}

fn wishes() -> impl Strategy<Value = Desired> {
    let wish = || prop_oneof![Just(Wish::LeaveAlone), Just(Wish::Present), Just(Wish::Absent)];
    let upstreams: Vec<SocketAddr> = vec!["192.0.2.53:53".parse().expect("an address")];
    let rules = prop_oneof![
        Just(RulesWish::LeaveAlone),
        Just(RulesWish::Absent),
        Just(RulesWish::Serve(PORTS)),
        Just(RulesWish::Forward { ports: PORTS, upstreams }),
    ];
    (wish(), rules, wish()).prop_map(|(link, rules, unthrottled)| Desired {
        interface: NAME.to_owned(),
        addresses: ips(&WISHED),
        link,
        rules,
        unthrottled,
    })
}

fn found_rules() -> impl Strategy<Value = Option<ObservedRules>> {
    let back_end = prop_oneof![Just(BackEnd::Nftables), Just(BackEnd::Iptables)];
    let rules = back_end.prop_flat_map(|back_end| {
        let (all, _) = rules_for(&RulesWish::Serve(PORTS), &ips(&WISHED), back_end);
        let twice: Vec<Rule> = all.iter().chain(&all).copied().collect();
        let count = twice.len();
        let found = (subsequence(twice, 0..=count), 0..3usize, 0..2usize);
        found.prop_map(move |(known, stale, foreign)| {
            let stale = (0..stale).map(|n| FoundRule::Stale(format!("handle {n}")));
            let rules: Vec<_> = known.into_iter().map(FoundRule::Known).chain(stale).collect();
            let foreign = if back_end.has_own_table() { foreign } else { 0 };
            ObservedRules {
                back_end,
                present: !rules.is_empty() || foreign > 0,
                rules,
                foreign: (0..foreign).map(|n| format!("chain x{n}")).collect(),
            }
        })
    });
    prop::option::of(rules)
}

fn worlds() -> impl Strategy<Value = Observed> {
    let icmp = prop_oneof![Just(vec![]), Just(vec!["6168"]), Just(vec!["6160", "0-1,3-127"])];
    let missing = subsequence(LinkKind::ALL.to_vec(), 0..=2);
    (a_link(), elsewhere(), missing, any::<bool>(), found_rules(), icmp).prop_map(
        |(link, elsewhere, missing_kinds, ipv6, rules, icmp)| Observed {
            link,
            last_mark: None,
            elsewhere,
            missing_kinds,
            ipv6,
            rules,
            icmp: IcmpFamily::ALL
                .into_iter()
                .zip(icmp)
                .map(|(family, value)| IcmpLimit { family, value: value.to_owned() })
                .collect(),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn carrying_out_a_plan_reaches_what_is_desired_and_touches_nothing_of_others(
        mut world in worlds(),
        desired in wishes(),
    ) {
        let before = world.clone();
        let others = of_others(&world, &desired);
        reach(&mut world, &desired);
        prop_assert_eq!(of_others(&world, &desired), others);

        let usable: Vec<IpAddr> =
            desired.addresses.iter().copied().filter(|address| world.ipv6 || address.is_ipv4()).collect();
        let on_link = world.link.as_ref().map(|link| link.addresses.clone()).unwrap_or_default();
        let is_local = |address: &IpAddr| {
            on_link.contains(address) || world.elsewhere.iter().any(|found| found.address == *address)
        };
        match desired.link {
            Wish::LeaveAlone => prop_assert_eq!(&world.elsewhere, &before.elsewhere),
            Wish::Present => prop_assert!(usable.iter().all(is_local), "{world:?}"),
            Wish::Absent => {
                prop_assert!(world.link.is_none() || world.link == others_link(&before, &desired), "{world:?}");
                prop_assert!(world.elsewhere.iter().all(|found| !found.ours));
            }
        }
        if let (Some(found), wish) = (&world.rules, &desired.rules) && *wish != RulesWish::LeaveAlone {
            let (wanted, _) = rules_for(wish, &usable, found.back_end);
            let wanted: Vec<_> = wanted.into_iter().map(FoundRule::Known).collect();
            prop_assert_eq!(found.rules.len(), wanted.len());
            prop_assert!(wanted.iter().all(|rule| found.rules.contains(rule)));
        }
        if desired.unthrottled == Wish::Present {
            prop_assert!(world.icmp.iter().all(|limit| !["6168", "0-1,3-127"].contains(&limit.value.as_str())));
        }
    }

    #[test]
    fn what_was_made_can_be_removed_and_leaves_the_node_as_it_was(mut world in worlds(), mut desired in wishes()) {
        // A node that nothing of ours has touched.
        world.link = world.link.filter(|link| link.mark.is_none() && link.kind.is_none());
        world.elsewhere.retain(|found| !found.ours);
        if let Some(found) = &mut world.rules {
            found.rules.clear();
            found.present = !found.foreign.is_empty();
        }
        let before = world.clone();
        desired.link = Wish::Present;
        reach(&mut world, &desired);
        let has_link = world.link != before.link;
        let removed = desired.removed();
        reach(&mut world, &removed);
        if !has_link {
            // Nothing to remember the old limit by.
            world.icmp.clone_from(&before.icmp);
        }
        prop_assert_eq!(world, before);
    }
}

fn others_link(before: &Observed, desired: &Desired) -> Option<Link> {
    of_others(before, desired).0
}

fn a_bare_node() -> Observed {
    Observed {
        link: None,
        last_mark: None,
        elsewhere: vec![],
        missing_kinds: vec![],
        ipv6: true,
        rules: None,
        icmp: vec![],
    }
}

fn a_usual_wish() -> Desired {
    Desired {
        interface: NAME.to_owned(),
        addresses: ips(&["169.254.20.10", "fe80::10"]),
        link: Wish::Present,
        rules: RulesWish::Serve(PORTS),
        unthrottled: Wish::Present,
    }
}

#[test]
fn an_interface_that_others_deleted_is_made_again_with_what_it_remembered() {
    let mut world = a_bare_node();
    world.icmp = vec![IcmpLimit { family: IcmpFamily::V4, value: "6160".to_owned() }];
    world.last_mark = Mark::parse("nodens icmp_ratemask=6168");
    let again = plan(&world, &Desired { rules: RulesWish::LeaveAlone, ..a_usual_wish() }).to_string();
    assert!(again.contains("alias \"nodens icmp_ratemask=6168\"") && !again.contains("6160"), "{again}");
    let removed = plan(&world, &a_usual_wish().removed()).to_string();
    assert!(removed.contains("~ net.ipv4.icmp_ratemask = 6168"), "{removed}");
}

#[test]
fn a_plan_reads_like_what_an_operator_would_type() {
    let mut world = a_bare_node();
    world.icmp = vec![IcmpLimit { family: IcmpFamily::V4, value: "6168".to_owned() }];
    let mut wish = a_usual_wish();
    wish.addresses.truncate(1);
    let nft = ObservedRules { back_end: BackEnd::Nftables, present: false, rules: vec![], foreign: vec![] };
    world.rules = Some(nft);
    assert_eq!(
        plan(&world, &wish).to_string(),
        "+ interface nodelocaldns (dummy)\n\
         ~ interface nodelocaldns: alias \"nodens\"\n\
         ~ interface nodelocaldns: up\n\
         + address 169.254.20.10 on nodelocaldns\n\
         ~ interface nodelocaldns: alias \"nodens icmp_ratemask=6168\"\n\
         ~ net.ipv4.icmp_ratemask = 6160\n\
         + table inet nodens, 8 rules:\n    \
             prerouting: ip daddr 169.254.20.10 tcp dport 53 notrack\n    \
             output: ip saddr 169.254.20.10 tcp sport 53 notrack\n    \
             output: ip daddr 169.254.20.10 tcp dport 53 notrack\n    \
             prerouting: ip daddr 169.254.20.10 udp dport 53 notrack\n    \
             output: ip saddr 169.254.20.10 udp sport 53 notrack\n    \
             output: ip daddr 169.254.20.10 udp dport 53 notrack\n    \
             output: ip daddr 169.254.20.10 tcp dport 8080 notrack\n    \
             output: ip saddr 169.254.20.10 tcp sport 8080 notrack\n"
    );
}

#[test]
fn a_foreign_link_under_our_name_is_left_alone_and_told() {
    let mut world = a_bare_node();
    let foreign = Link {
        kind: None,
        kind_name: "bridge".to_owned(),
        mark: None,
        up: true,
        addresses: ips(&["192.0.2.1"]),
    };
    world.link = Some(foreign);
    let plan = plan(&world, &a_usual_wish());
    assert!(
        plan.steps.iter().all(|step| matches!(step, Step::AddAddress(name, _) if name == "lo")),
        "{plan}"
    );
    assert_eq!(plan.remarks.len(), 1);
    assert!(plan.remarks[0].contains("an interface nodelocaldns that is not ours (bridge, with 192.0.2.1)"));
}

#[test]
fn without_ipv6_its_addresses_are_left_out_and_told() {
    let world = Observed { ipv6: false, ..a_bare_node() };
    let plan = plan(&world, &a_usual_wish());
    assert!(!plan.to_string().contains("+ address fe80::10"), "{plan}");
    assert!(plan.remarks[0].starts_with("IPv6 is switched off on this node: fe80::10 left out"), "{plan}");
}

#[test]
fn p14_what_an_older_installation_left_is_taken_over() {
    let mut world = a_bare_node();
    world.link = Some(Link {
        kind: Some(LinkKind::Dummy),
        kind_name: "dummy".to_owned(),
        mark: None,
        up: false,
        addresses: ips(&["169.254.20.10"]),
    });
    let text = plan(&world, &a_usual_wish()).to_string();
    assert!(
        text.contains("alias \"nodens\"") && text.contains("+ address fe80::10") && !text.contains('!'),
        "{text}"
    );
    let wish = a_usual_wish().removed();
    assert_eq!(plan(&world, &wish).to_string(), "- interface nodelocaldns, with its addresses\n");
}

#[test]
fn an_address_that_a_service_may_have_is_taken_over_only_while_somebody_listens() {
    let (rules, _) = rules_for(&RulesWish::Serve(PORTS), &ips(&["10.96.0.10"]), BackEnd::Nftables);
    let texts: Vec<_> = rules.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "prerouting: ip daddr 10.96.0.10 tcp dport 53 if a socket listens on every address: as without us",
            "prerouting: ip daddr 10.96.0.10 tcp dport 53 if a socket listens: notrack",
            "output: ip saddr 10.96.0.10 tcp sport 53 notrack",
            "prerouting: ip daddr 10.96.0.10 udp dport 53 if a socket listens: notrack",
            "output: ip saddr 10.96.0.10 udp sport 53 notrack",
        ]
    );
}

#[test]
fn queries_are_forwarded_to_no_address_of_our_own_and_within_a_family() {
    let to = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let wish = |upstreams: &[&str]| RulesWish::Forward {
        ports: PORTS,
        upstreams: upstreams.iter().map(|text| to(text)).collect(),
    };
    let addresses = ips(&["169.254.20.10", "fe80::10"]);
    let (rules, remarks) =
        rules_for(&wish(&["169.254.20.10:53", "10.96.0.11:5353"]), &addresses, BackEnd::Nftables);
    assert_eq!((rules.len(), remarks.len()), (4, 1), "{remarks:?}");
    assert!(rules.iter().any(|rule| rule.to_string().ends_with("to 10.96.0.11:5353 in zone 28260")));
    let (rules, remarks) = rules_for(&wish(&["10.96.0.11:53"]), &addresses, BackEnd::Iptables);
    assert_eq!((rules.len(), remarks.len()), (0, 0), "nftables does it beside iptables");
}
