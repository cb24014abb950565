//! From facts to findings. Each check is a function of its own, and none of them asks the node anything.
//!
//! | here | what it is about |
//! | --- | --- |
//! | `kernel`, `io_uring`, `dummy`, `privileges` | the machine |
//! | `ports`, `address`, `interface`, `rules`, `icmp` | the node's own side |
//! | [`cluster`] | who else is at work on packets: kube-proxy, the network plug-in |
//! | [`upstream`] | whom the agent asks, and whether that comes round in a circle |

mod cluster;
mod upstream;

use nodens_node::desired::is_own;
use nodens_node::icmp;

use super::facts::{Dummy, Facts, IoUring, Listening, Wanted};
use super::finding::{Finding, Severity};
use Severity::{Fail, Info, Ok, Warn};

/// nft's `socket` expression came with this one; NOTRACK from nftables is older.
const KERNEL_FOR_RULES: (u32, u32) = (4, 18);

/// All of them, in the order of a walk from the kernel to the upstreams.
pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let mut all = vec![kernel(facts), io_uring(facts), dummy(facts), privileges(facts)];
    all.extend(corefile(facts));
    all.extend(ports(facts));
    all.extend(address(facts));
    all.extend([interface(facts), rules(facts)]);
    all.extend(icmp_limits(facts));
    all.push(cluster::kube_proxy(facts));
    all.extend(cluster::network(facts));
    all.push(upstream::resolv_conf(facts));
    all.extend(upstream::circle(facts));
    all.extend(upstream::upstreams(facts));
    all
}

fn kernel(facts: &Facts) -> Finding {
    let found = format!("Linux {}", facts.kernel);
    let mut numbers = facts.kernel.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(std::result::Result::Ok(major)), Some(std::result::Result::Ok(minor)))
            if (major, minor) < KERNEL_FOR_RULES =>
        {
            let (major, minor) = KERNEL_FOR_RULES;
            Finding::new("kernel", Warn, found).advise(format!(
                "packet rules by nftables need Linux {major}.{minor}; say -packetrules=iptables"
            ))
        }
        _ => Finding::new("kernel", Ok, found),
    }
}

fn io_uring(facts: &Facts) -> Finding {
    match &facts.io_uring {
        IoUring::Works => Finding::new("io_uring", Ok, "works here"),
        #[cfg(not(feature = "uring"))]
        IoUring::NotBuilt => Finding::new("io_uring", Info, "this build goes without; epoll serves"),
        IoUring::Unavailable(why) if facts.io_uring_asked => Finding::new("io_uring", Fail, why)
            .advise("`-runtime uring` insists on it: the agent does not start; say `-runtime auto`"),
        IoUring::Unavailable(why) => {
            Finding::new("io_uring", Info, why).advise("nothing has to be done: `-runtime auto` takes epoll")
        }
    }
}

fn dummy(facts: &Facts) -> Finding {
    match facts.dummy {
        Dummy::Loaded => Finding::new("dummy", Ok, "the driver for dummy interfaces is in the kernel"),
        Dummy::Loadable => {
            Finding::new("dummy", Ok, "the kernel loads the driver for dummy interfaces when it is needed")
        }
        Dummy::Missing => Finding::new(
            "dummy",
            Info,
            "this kernel has no driver for dummy interfaces; a veth, else the loopback, carries the addresses",
        ),
        Dummy::Unknown => Finding::new(
            "dummy",
            Info,
            "the kernel's modules are not to be seen from here (/lib/modules); where there is no driver for dummy interfaces a \
             veth carries the addresses",
        ),
    }
}

fn privileges(facts: &Facts) -> Finding {
    match facts.uid {
        0 => Finding::new("privileges", Ok, "root: everything can be looked at"),
        uid => Finding::new("privileges", Info, format!("UID {uid}: not everything can be looked at"))
            .advise("run the doctor as root on the node, or in the agent's Pod, to have all checks"),
    }
}

fn corefile(facts: &Facts) -> Option<Finding> {
    let why = facts.no_corefile.as_ref()?;
    let advice = "name it with -conf to have the upstreams checked, and the ports that it really wants";
    Some(Finding::new("corefile", Info, why).advise(advice))
}

/// Whether a socket is in the way of one that is wanted.
fn is_in_the_way(held: &Listening, wanted: &Wanted) -> bool {
    let ours = wanted.address.is_none_or(|ip| ip.is_unspecified());
    let theirs = held.address.ip();
    let meet = ours || theirs.is_unspecified() || wanted.address == Some(theirs);
    // A wildcard of IPv6 takes IPv4 as well, unless it was told not to; that cannot be seen from here.
    let family = wanted.address.is_none_or(|ip| ip.is_ipv4() == theirs.is_ipv4() || theirs.is_unspecified());
    held.transport == wanted.transport && held.address.port() == wanted.port && meet && family
}

fn ports(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for wanted in &facts.wanted {
        let in_the_way = facts.listening.iter().filter(|held| is_in_the_way(held, wanted));
        let (ours, others): (Vec<_>, Vec<_>) = in_the_way.partition(|held| is_an_agent(held));
        let place = match wanted.address {
            Some(ip) => std::net::SocketAddr::new(ip, wanted.port).to_string(),
            None => format!("port {}", wanted.port),
        };
        let what = format!("{place} over {} ({})", wanted.transport.name(), wanted.purpose);
        findings.push(match (others.first(), ours.first()) {
            (Some(held), _) => {
                let by = match &held.process {
                    Some((name, id)) => format!("{name} (process {id})"),
                    None => format!("a process of UID {} that cannot be seen from here", held.uid),
                };
                let severity = if wanted.is_vital { Fail } else { Warn };
                Finding::new("ports", severity, format!("{what} is held by {by} at {}", held.address))
                    .advise("stop it, have it listen elsewhere, or give the agent another port")
            }
            (None, Some(_)) => Finding::new("ports", Ok, format!("{what} is served by nodens")),
            (None, None) => Finding::new("ports", Ok, format!("{what} is free")),
        });
    }
    findings
}

fn is_an_agent(held: &Listening) -> bool {
    // The image has the binary under its predecessor's name too; that one's sockets are root's.
    let name = held.process.as_ref().map(|(name, _)| name.as_str());
    name == Some("nodens")
        || (name.is_none_or(|name| name == "node-cache") && held.uid == crate::privilege::UID)
}

fn address(facts: &Facts) -> Vec<Finding> {
    let other = |(address, interface): &(std::net::IpAddr, String)| {
        Finding::new("address", Fail, format!("{address} is on the interface {interface}, which is not ours"))
            .advise(format!(
                "if that is an older node-local DNS, remove it; else choose another -localip. `ip address del {address} dev \
                 {interface}` takes it away"
            ))
    };
    if facts.node.elsewhere.is_empty() {
        let all: Vec<_> = facts.addresses.iter().map(ToString::to_string).collect();
        return vec![Finding::new("address", Ok, format!("nobody else has {}", all.join(", ")))];
    }
    facts.node.elsewhere.iter().map(other).collect()
}

fn interface(facts: &Facts) -> Finding {
    let Some(kind) = &facts.node.foreign else {
        return missing(facts, "interface", &facts.node.link_steps, "interface and addresses are there");
    };
    Finding::new("interface", Fail, format!("the interface with our name is {kind} and not ours"))
        .advise("remove it, or give ours another name with -interfacename")
}

fn rules(facts: &Facts) -> Finding {
    let is_there = match &facts.node.back_end {
        Some(back_end) => format!("packet rules are there, by {back_end}"),
        None => "packet rules are switched off, or could not be looked at".to_owned(),
    };
    let mut finding = missing(facts, "rules", &facts.node.rule_steps, &is_there);
    if let Some(back_end) = facts.node.back_end.as_ref().filter(|_| !facts.node.rule_steps.is_empty()) {
        finding.found += &format!("; the agent would take {back_end}");
    }
    if !facts.node.failures.is_empty() {
        finding = Finding::new("rules", Warn, facts.node.failures.join("; "));
    }
    let stays = stays_taken(facts);
    let advice: Vec<_> = facts.node.remarks.iter().chain(&stays).cloned().collect();
    if !advice.is_empty() {
        finding.severity = finding.severity.max(Warn);
        finding = finding.advise(advice.join("\n"));
    }
    finding
}

/// Whether a Service's address stays taken when the agent is killed. The kernel was asked: nftables is chosen only if it takes our rules, those
/// that look for a listening socket among them.
fn stays_taken(facts: &Facts) -> Option<String> {
    let services = of_services(facts);
    let is_by_iptables = facts.node.back_end.as_ref().is_some_and(|chosen| chosen.starts_with("iptables"));
    (is_by_iptables && !services.is_empty()).then(|| {
        format!(
            "with iptables {} stays taken when the agent is killed, and nobody answers there until it is back: say \
             -packetrules=nftables, or, where the kernel refuses that, have 169.254.20.10 alone in -localip and Pods injected",
            services.join(" and ")
        )
    })
}

/// What the agent would do: bad if it is there and has not done it.
fn missing(facts: &Facts, check: &'static str, steps: &[String], is_there: &str) -> Finding {
    match (steps.is_empty(), facts.node.is_looked_after) {
        (true, _) => Finding::new(check, Ok, is_there),
        (false, true) => Finding::new(
            check,
            Warn,
            format!("not as it should be, although an agent is there: {}", steps.join("; ")),
        )
        .advise("look for `node:` in its log; `nodens node apply` with the agent's flags does it by hand"),
        (false, false) => {
            Finding::new(check, Info, format!("no agent is there; its start would do: {}", steps.join("; ")))
        }
    }
}

fn icmp_limits(facts: &Facts) -> Vec<Finding> {
    let limited: Vec<_> = facts
        .icmp
        .iter()
        .filter(|limit| icmp::unthrottled(limit.family, &limit.value).is_some())
        .map(|limit| format!("{} is {}", limit.family, limit.value))
        .collect();
    match (facts.icmp.is_empty(), limited.is_empty()) {
        (true, _) => vec![Finding::new("icmp", Info, "the limits on ICMP errors are not to be seen from here")],
        (false, true) => vec![Finding::new("icmp", Ok, "every port unreachable is sent: Pods go on to their next server at once")],
        (false, false) => vec![
            Finding::new("icmp", Warn, format!("port unreachables are limited to one a second ({})", limited.join(", ")))
                .advise(
                    "while the agent is away a Pod that asks twice in a second waits for its timeout; start the agent with \
                     -seticmpratemask",
                ),
        ],
    }
}

/// Addresses that are Services': those that are not link-local.
fn of_services(facts: &Facts) -> Vec<String> {
    facts.addresses.iter().filter(|ip| !is_own(**ip)).map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests;
