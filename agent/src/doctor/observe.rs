//! Finding facts out. Nothing on the node is changed; what cannot be read is missing from the facts.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};

use nodens_core::Config;
use nodens_core::config::UpstreamTransport;
use nodens_core::rng::Rng;
use nodens_node::link::Links;
use nodens_node::rules::chain_names;
use nodens_node::{Node, Part, Wish, icmp, is_anybody_there};

use super::ask::ask;
use super::facts::{Dummy, Facts, IoUring, Side, Transport, Upstream, Wanted};
use crate::build_config::{Environment, Plan, interface_addresses};
use crate::cli::{DoctorOptions, RunOptions};
use crate::corefile::ListenAddr;
use crate::corefile::config::RuntimeChoice;
use crate::node::desired;
use crate::run::{Failure, control_runtime, load};
use crate::service::entropy;
use crate::sockets;

/// The address that is looked at if none is named: the one that node-local DNS has everywhere.
const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 20, 10));
/// Where network plug-ins have their configuration: on the node, and in a Pod that mounts the node's.
const CNI: [&str; 2] = ["/etc/cni/net.d", "/host/etc/cni/net.d"];
/// Bytes of such a file that are looked at.
const CNI_BYTES_MAX: usize = 64 << 10;
/// A domain that exists nowhere (RFC 6761 §6.4), so that whoever stands behind an upstream says so at once.
const NOWHERE: &str = "invalid.";
/// Questions at most: so many upstreams times so many domains.
const QUESTIONS_MAX: usize = 32;
/// node-cache's usual HTTP ports, for when there is no Corefile: health, ready, metrics.
const USUAL: [(&str, u16); 3] = [("health", 8080), ("ready", 8081), ("metrics", 9253)];

/// All of them.
pub(super) fn observe(options: &DoctorOptions) -> Result<Facts, Failure> {
    let mut flags = (*options.flags).clone();
    if flags.localip.is_empty() {
        flags.localip.push(ADDRESS);
    }
    let environment = Environment { default_port: flags.dns_port, ..Environment::of_this_machine() };
    let path = flags.corefile_path();
    let built = load(path, &environment).map(|(built, _)| built);
    let no_corefile = built.as_ref().err().map(|failure| {
        format!(
            "{} cannot be used: {}",
            path.display(),
            failure.to_string().lines().next().unwrap_or_default()
        )
    });
    let built = built.ok();
    let mut facts = Facts {
        no_corefile,
        addresses: flags.localip.clone(),
        dns_port: flags.dns_port,
        uid: nix::unistd::geteuid().as_raw(),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        io_uring: io_uring(),
        io_uring_asked: flags.runtime == Some(RuntimeChoice::Uring)
            || built.as_ref().is_some_and(|built| built.plan.runtime == RuntimeChoice::Uring),
        wanted: wanted(&flags, built.as_ref().map(|built| &built.plan)),
        links: links(),
        ipvs: interface_addresses("kube-ipvs0").unwrap_or_default(),
        legacy_tables: read("/proc/thread-self/net/ip_tables_names").lines().map(str::to_owned).collect(),
        cni: cni(),
        icmp: icmp::read(&icmp::folder()),
        resolv_conf: fs::read_to_string("/etc/resolv.conf").ok(),
        ..Facts::default()
    };
    facts.dummy = dummy(&facts.kernel);
    facts.listening = sockets::listening();
    facts.listening.retain(|held| facts.wanted.iter().any(|wanted| wanted.port == held.address.port()));
    sockets::name_processes(&mut facts.listening);
    let seed = entropy().map_err(|error| Failure::Other(format!("cannot read /dev/urandom: {error}")))?;
    let mut chance = Rng::new(&seed);
    control_runtime()?.block_on(async {
        facts.node = node(&flags).await;
        facts.chains = chain_names().await.ok();
        let questions = built.map(|built| questions(&built.config, &options.names)).unwrap_or_default();
        let asked = questions.into_iter().take(QUESTIONS_MAX).map(|question| {
            let labels = [chance.next_u64(), chance.next_u64()].map(|number| format!("{number:016x}"));
            tokio::spawn(async move {
                let Question { address, over_tcp, domain } = question;
                let (udp, tcp) = tokio::join!(
                    ask(address, Transport::Udp, &labels[0], &domain),
                    ask(address, Transport::Tcp, &labels[1], &domain)
                );
                Upstream { address, over_tcp, domain, udp, tcp }
            })
        });
        for upstream in asked.collect::<Vec<_>>() {
            facts.upstreams.extend(upstream.await);
        }
    });
    Ok(facts)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(feature = "uring")]
fn io_uring() -> IoUring {
    match nodens_runtime_uring::probe() {
        Ok(()) => IoUring::Works,
        Err(unavailable) => IoUring::Unavailable(unavailable.to_string()),
    }
}

#[cfg(not(feature = "uring"))]
fn io_uring() -> IoUring {
    IoUring::NotBuilt
}

fn dummy(release: &str) -> Dummy {
    let folder = format!("/lib/modules/{release}");
    let list = |name: &str| fs::read_to_string(format!("{folder}/{name}"));
    let has = |text: &str| {
        text.lines().any(|line| line.split(':').next().is_some_and(|path| path.contains("/dummy.ko")))
    };
    match (fs::exists("/sys/module/dummy"), list("modules.builtin"), list("modules.dep")) {
        (Ok(true), ..) => Dummy::Loaded,
        (_, Ok(text), _) if has(&text) => Dummy::Loaded,
        (_, _, Ok(text)) if has(&text) => Dummy::Loadable,
        (_, _, Ok(_)) => Dummy::Missing,
        _ => Dummy::Unknown,
    }
}

fn wanted(flags: &RunOptions, plan: Option<&Plan>) -> Vec<Wanted> {
    let mut all = Vec::new();
    let here: Vec<SocketAddr> = match plan {
        Some(plan) => plan.listeners.clone(),
        None => flags.localip.iter().map(|ip| SocketAddr::new(*ip, flags.dns_port)).collect(),
    };
    for place in here {
        for transport in [Transport::Udp, Transport::Tcp] {
            let (address, port) = (Some(place.ip()), place.port());
            all.push(Wanted { purpose: "DNS", transport, address, port, is_vital: true });
        }
    }
    let mut http = |purpose, addr: ListenAddr, is_vital| {
        let is_known = all.iter().any(|known: &Wanted| (known.address, known.port) == (addr.ip, addr.port));
        if !is_known && addr.port != 0 {
            all.push(Wanted {
                purpose,
                transport: Transport::Tcp,
                address: addr.ip,
                port: addr.port,
                is_vital,
            });
        }
    };
    match plan {
        Some(plan) => {
            for endpoint in &plan.endpoints {
                let purpose = match endpoint {
                    endpoint if endpoint.health => "health",
                    endpoint if endpoint.ready => "ready",
                    _ => "metrics",
                };
                http(purpose, endpoint.addr, true);
            }
        }
        None => USUAL.into_iter().for_each(|(purpose, port)| http(purpose, ListenAddr::any(port), false)),
    }
    http("metrics of the set-up", flags.metrics_listen_address, false);
    all
}

fn links() -> Vec<String> {
    let names = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let of_sys = names.filter_map(|entry| entry.file_name().into_string().ok());
    // In another network namespace /sys may still show the one it was mounted in.
    let of_kernel = nix::ifaddrs::getifaddrs().into_iter().flatten().map(|entry| entry.interface_name);
    let mut all: Vec<_> = of_kernel.collect();
    if all.is_empty() {
        all.extend(of_sys);
    }
    all.sort();
    all.dedup();
    all
}

fn cni() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in CNI.into_iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
        let path = entry.path();
        let is_ours = path.extension().is_some_and(|end| end == "conf" || end == "conflist");
        if let (true, Ok(mut text)) = (is_ours, fs::read_to_string(&path)) {
            text.truncate(text.floor_char_boundary(CNI_BYTES_MAX));
            found.push((path.display().to_string(), text));
        }
    }
    found
}

/// What the agent would see and do.
async fn node(flags: &RunOptions) -> Side {
    let wish = desired(flags);
    let mut side = Side { is_looked_after: is_anybody_there(&wish.interface), ..Side::default() };
    let opened: io::Result<_> = Node::open(flags.packetrules).and_then(|node| Ok((node, Links::open()?)));
    let (mut node, links) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            side.failures.push(format!("no netlink socket is to be had: {error}"));
            return side;
        }
    };
    if let Ok(found) = links.observe(&wish).await {
        let others = found.elsewhere.into_iter().filter(|other| !other.ours);
        side.elsewhere = others.map(|other| (other.address, other.interface)).collect();
        let foreign = found.link.filter(|link| link.mark.is_none() && link.kind.is_none());
        side.foreign = foreign.filter(|_| wish.link != Wish::LeaveAlone).map(|link| link.kind_name);
    }
    let (plan, outcome) = node.plan(&wish).await;
    for step in plan.steps {
        let text = step.to_string().lines().next().unwrap_or_default().trim_end_matches(':').to_owned();
        match step.part() {
            Part::Rules => side.rule_steps.push(text),
            Part::Interface | Part::Sysctl => side.link_steps.push(text),
        }
    }
    side.remarks = outcome.remarks;
    side.failures = outcome.failures.into_iter().map(|failure| failure.text).collect();
    side.back_end = outcome.chosen;
    side
}

struct Question {
    address: SocketAddr,
    over_tcp: bool,
    domain: String,
}

/// Each upstream is asked about its zone; those of the root about a domain that exists nowhere, and about those that
/// were named.
fn questions(config: &Config, names: &[String]) -> Vec<Question> {
    let mut all: Vec<Question> = Vec::new();
    for route in config.listeners.iter().flat_map(|listener| &listener.routes) {
        let Some(rules) = config.zones.get(route.zone).and_then(|zone| zone.forward.as_ref()) else {
            continue;
        };
        let domains = match route.apex.label_count() {
            0 => [NOWHERE.to_owned()].into_iter().chain(names.iter().cloned()).collect(),
            _ => vec![route.apex.to_string()],
        };
        let over_tcp = rules.transport == UpstreamTransport::ForceTcp;
        let upstreams = rules.upstreams.iter().filter_map(|id| config.upstreams.get(usize::from(id.0)));
        for upstream in upstreams {
            for domain in &domains {
                let address = upstream.address;
                if !all.iter().any(|known| known.address == address && known.domain == *domain) {
                    all.push(Question { address, over_tcp, domain: domain.clone() });
                }
            }
        }
    }
    all
}
