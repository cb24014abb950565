//! From the node as it is and as it should be to steps: a pure function, readable for an operator.
//!
//! | found under our name | interface wished | interface wished away |
//! | --- | --- | --- |
//! | nothing | made: dummy, else veth; where the kernel has neither, the loopback carries the addresses | nothing |
//! | ours (marked), or a dummy that carries nothing but wished addresses (an older installation's) | marked, switched on, missing addresses added | removed |
//! | anything else | left alone; the loopback carries the addresses | left alone |
//!
//! A wished address that somebody else has on another interface is local already: it stays there, and is told. Rules
//! are ours if they stand in our table with our comment, or carry node-cache's comment and one of our addresses.
//! Nothing that is not ours is ever removed; what was found and left alone is a remark.
//!
//! Steps are in the order of a start (interface, ICMP limit, rules) or of an end (the reverse). The properties in
//! `tests/plan.rs`: carrying out a plan reaches what is desired, and the next plan is empty.

use std::fmt;
use std::net::IpAddr;

use crate::desired::{Desired, RulesWish, Wish};
use crate::icmp;
use crate::observed::{Elsewhere, IcmpFamily, LinkKind, Mark, Observed, ObservedRules};
use crate::rules::{FoundRule, Rule, rules_for};

/// The interface that every node has.
pub const LOOPBACK: &str = "lo";

/// One change of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Makes the interface.
    CreateLink(String, LinkKind),
    /// Writes our mark on it.
    MarkLink(String, Mark),
    /// Switches it on.
    SetUp(String),
    /// Adds an address to an interface.
    AddAddress(String, IpAddr),
    /// Takes one away.
    RemoveAddress(String, IpAddr),
    /// Removes the interface, and its addresses with it.
    RemoveLink(String),
    /// Writes an ICMP limit.
    SetIcmp(IcmpFamily, String),
    /// Writes our table anew, with exactly these rules.
    ReplaceTable(Vec<Rule>),
    /// Removes our table.
    RemoveTable,
    /// Adds a rule beside what others have there.
    AddRule(Rule),
    /// Removes one of our rules.
    RemoveRule(FoundRule),
}

/// What is to be done, and what there is to say about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
    /// What was found and left alone, and what can be done about it; a sentence each.
    pub remarks: Vec<String>,
}

/// What there is to do.
pub fn plan(observed: &Observed, desired: &Desired) -> Plan {
    let mut plan = Plan::default();
    let (usable, off): (Vec<IpAddr>, Vec<IpAddr>) =
        desired.addresses.iter().partition(|address| observed.ipv6 || address.is_ipv4());
    if desired.link == Wish::Present && !off.is_empty() {
        plan.remarks.push(format!(
            "IPv6 is switched off on this node: {} left out; switch it on, or take it out of -localip",
            list(&off)
        ));
    }
    let mut link = Plan::default();
    let holder = match desired.link {
        Wish::LeaveAlone => None,
        Wish::Present => Some(present_link(&mut link, observed, desired, &usable)),
        Wish::Absent => {
            absent_link(&mut link, observed, desired);
            None
        }
    };
    let icmp = icmp_steps(&mut plan.remarks, observed, desired);
    if let Some(Holder { link: true, mark }) = &holder
        && let Some(mark) = icmp.remembered_by(mark.as_ref())
    {
        link.steps.push(Step::MarkLink(desired.interface.clone(), mark));
    }
    let rules = observed.rules.as_ref().filter(|_| desired.rules != RulesWish::LeaveAlone);
    let rules = rules.map(|found| rule_steps(&mut plan.remarks, found, &desired.rules, &usable));
    let rules = rules.unwrap_or_default();
    plan.remarks.splice(0..0, link.remarks);
    plan.steps = match desired.link == Wish::Absent || desired.rules == RulesWish::Absent {
        true => rules.into_iter().chain(icmp.steps).chain(link.steps).collect(),
        false => link.steps.into_iter().chain(icmp.steps).chain(rules).collect(),
    };
    plan
}

/// What carries the addresses.
struct Holder {
    /// The interface with our name; else the loopback.
    link: bool,
    /// The mark that the interface has.
    mark: Option<Mark>,
}

/// Whether the interface with our name is one that we may use and remove.
fn is_ours(observed: &Observed, desired: &Desired) -> bool {
    observed.link.as_ref().is_some_and(|link| {
        let only_wished = || link.addresses.iter().all(|address| desired.addresses.contains(address));
        link.mark.is_some() || (link.kind.is_some() && only_wished())
    })
}

fn present_link(plan: &mut Plan, observed: &Observed, desired: &Desired, wished: &[IpAddr]) -> Holder {
    let name = &desired.interface;
    let (on_others, on_loopback): (Vec<&Elsewhere>, Vec<&Elsewhere>) =
        observed.elsewhere.iter().partition(|found| !found.ours);
    for found in &on_others {
        plan.remarks.push(format!(
            "{} is on the interface {} already, which is not ours: it is left there, and Pods are served all the same",
            found.address, found.interface
        ));
    }
    let missing = |have: &[IpAddr]| -> Vec<IpAddr> {
        let has = |address: &IpAddr| {
            have.contains(address) || on_others.iter().any(|found| found.address == *address)
        };
        wished.iter().filter(|address| !has(address)).copied().collect()
    };
    let add = |plan: &mut Plan, interface: &str, addresses: Vec<IpAddr>| {
        let steps = addresses.into_iter().map(|address| Step::AddAddress(interface.to_owned(), address));
        plan.steps.extend(steps);
    };
    let kind = LinkKind::ALL.into_iter().find(|kind| !observed.missing_kinds.contains(kind));
    let (holder, have) = match (&observed.link, kind) {
        (Some(link), _) if is_ours(observed, desired) => {
            if link.mark.is_none() {
                plan.steps.push(Step::MarkLink(name.clone(), Mark::default()));
            }
            if !link.up {
                plan.steps.push(Step::SetUp(name.clone()));
            }
            let extra: Vec<_> =
                link.addresses.iter().filter(|a| !desired.addresses.contains(a)).copied().collect();
            if !extra.is_empty() {
                plan.remarks.push(format!(
                    "{name} carries {} as well, which -localip does not name: left there, so that Pods that still ask it get an \
                     error at once and not silence; `ip address del` takes it away",
                    list(&extra)
                ));
            }
            let mark = link.mark.clone().or_else(|| Some(Mark::default()));
            (Holder { link: true, mark }, link.addresses.clone())
        }
        (None, Some(kind)) => {
            // Made for the first time, or again: then what was changed on the node is remembered on.
            let mark = observed.last_mark.clone().unwrap_or_default();
            plan.steps.push(Step::CreateLink(name.clone(), kind));
            plan.steps.push(Step::MarkLink(name.clone(), mark.clone()));
            plan.steps.push(Step::SetUp(name.clone()));
            (Holder { link: true, mark: Some(mark) }, Vec::new())
        }
        (foreign, _) => {
            plan.remarks.push(match foreign {
                Some(link) => format!(
                    "there is an interface {name} that is not ours ({}, with {}): left alone, and {LOOPBACK} carries the addresses; \
                     remove it, or choose another -interfacename",
                    link.kind_name,
                    if link.addresses.is_empty() { "no address".to_owned() } else { list(&link.addresses) }
                ),
                None => format!(
                    "this kernel makes neither dummy nor veth interfaces: {LOOPBACK} carries the addresses (`modprobe dummy` on the \
                     node, then a restart, gives them an interface of their own)"
                ),
            });
            let have: Vec<_> = on_loopback.iter().map(|found| found.address).collect();
            add(plan, LOOPBACK, missing(&have));
            return Holder { link: false, mark: None };
        }
    };
    add(plan, name, missing(&have));
    // An earlier run may have had no choice but the loopback.
    plan.steps
        .extend(on_loopback.iter().map(|found| Step::RemoveAddress(found.interface.clone(), found.address)));
    holder
}

fn absent_link(plan: &mut Plan, observed: &Observed, desired: &Desired) {
    let name = &desired.interface;
    for found in &observed.elsewhere {
        match found.ours {
            true => plan.steps.push(Step::RemoveAddress(found.interface.clone(), found.address)),
            false => plan.remarks.push(format!(
                "{} is on the interface {}, which is not ours: left there",
                found.address, found.interface
            )),
        }
    }
    if is_ours(observed, desired) {
        plan.steps.push(Step::RemoveLink(name.clone()));
    } else if let Some(link) = &observed.link {
        plan.remarks.push(format!(
            "the interface {name} is not ours ({}): left alone; `ip link del {name}` removes it",
            link.kind_name
        ));
    }
}

/// The limits to write, with what they were.
struct IcmpSteps {
    steps: Vec<Step>,
    before: Vec<(IcmpFamily, String)>,
}

impl IcmpSteps {
    /// The mark that has to be written before the limits are, so that they can be restored; `None` if it stands already.
    fn remembered_by(&self, mark: Option<&Mark>) -> Option<Mark> {
        let mut new = mark.cloned().unwrap_or_default();
        for (family, value) in &self.before {
            // What was there before the first of us is what counts.
            if new.icmp(*family).is_none() {
                new.icmp.push((*family, value.clone()));
            }
        }
        (Some(&new) != mark).then_some(new)
    }
}

fn icmp_steps(remarks: &mut Vec<String>, observed: &Observed, desired: &Desired) -> IcmpSteps {
    let mut icmp = IcmpSteps { steps: Vec::new(), before: Vec::new() };
    let of_link = observed.link.as_ref().and_then(|link| link.mark.as_ref());
    let saved = |family| of_link.or(observed.last_mark.as_ref()).and_then(|mark| mark.icmp(family));
    for limit in &observed.icmp {
        let family = limit.family;
        match desired.unthrottled {
            Wish::LeaveAlone => {}
            Wish::Present => {
                if let Some(value) = icmp::unthrottled(family, &limit.value) {
                    icmp.steps.push(Step::SetIcmp(family, value));
                    icmp.before.push((family, limit.value.clone()));
                }
            }
            Wish::Absent => match saved(family) {
                Some(value) if value != limit.value => {
                    icmp.steps.push(Step::SetIcmp(family, value.to_owned()));
                }
                Some(_) => {}
                None if icmp::unthrottled(family, &limit.value).is_none() => remarks.push(format!(
                    "{family} is {}, and nothing says whether nodens made it so: left; the kernel's default is `sysctl -w \
                     {family}={}`",
                    limit.value,
                    icmp::kernel_default(family)
                )),
                None => {}
            },
        }
    }
    icmp
}

fn rule_steps(
    remarks: &mut Vec<String>,
    found: &ObservedRules,
    wish: &RulesWish,
    addresses: &[IpAddr],
) -> Vec<Step> {
    let (wanted, complaints) = rules_for(wish, addresses, found.back_end);
    remarks.extend(complaints);
    if !found.foreign.is_empty() {
        remarks.push(format!(
            "somebody else put something where our rules are ({}): left alone; `{}` shows it",
            found.foreign.join(", "),
            found.back_end.show_command()
        ));
    }
    // Each wanted rule accounts for one that is there; what is left over is to go.
    let mut surplus = found.rules.clone();
    let mut missing = Vec::new();
    for rule in &wanted {
        match surplus.iter().position(|there| *there == FoundRule::Known(*rule)) {
            Some(at) => drop(surplus.swap_remove(at)),
            None => missing.push(*rule),
        }
    }
    let same = missing.is_empty() && surplus.is_empty();
    if found.back_end.has_own_table() && found.foreign.is_empty() {
        return match (wanted.is_empty(), found.present) {
            (true, true) => vec![Step::RemoveTable],
            (true, false) => Vec::new(),
            (false, present) if present && same => Vec::new(),
            (false, _) => vec![Step::ReplaceTable(wanted)],
        };
    }
    let added = missing.into_iter().map(Step::AddRule);
    let removed = surplus.into_iter().map(Step::RemoveRule);
    added.chain(removed).collect()
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

impl Plan {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl fmt::Display for Plan {
    /// A line for each step and each remark.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        for remark in &self.remarks {
            writeln!(f, "! {remark}")?;
        }
        if self.steps.is_empty() {
            writeln!(f, "nothing to do: the node is as it should be")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    /// `+` makes something, `-` removes something, `~` changes something.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::CreateLink(name, kind) => write!(f, "+ interface {name} ({kind})"),
            Step::MarkLink(name, mark) => write!(f, "~ interface {name}: alias \"{mark}\""),
            Step::SetUp(name) => write!(f, "~ interface {name}: up"),
            Step::AddAddress(name, address) => write!(f, "+ address {address} on {name}"),
            Step::RemoveAddress(name, address) => write!(f, "- address {address} on {name}"),
            Step::RemoveLink(name) => write!(f, "- interface {name}, with its addresses"),
            Step::SetIcmp(family, value) => write!(f, "~ {family} = {value}"),
            Step::ReplaceTable(rules) => {
                write!(f, "+ table inet nodens, {} rules:", rules.len())?;
                rules.iter().try_for_each(|rule| write!(f, "\n    {rule}"))
            }
            Step::RemoveTable => f.write_str("- table inet nodens, with its rules"),
            Step::AddRule(rule) => write!(f, "+ rule {rule}"),
            Step::RemoveRule(rule) => write!(f, "- rule {rule}"),
        }
    }
}
