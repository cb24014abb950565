//! The table of flags: names, value, help, and who takes them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use nodens_node::BackEndChoice;
use nodens_node::link::NAME_MAX;
use nodens_node::plan::LOOPBACK;

use super::{Command, Parser};
use crate::corefile::config::RuntimeChoice;
use crate::corefile::{ListenAddr, parse_go_duration};
use crate::privilege::User;

/// Most workers, as in the Corefile.
const WORKERS_MAX: u16 = 256;

/// Most addresses of one node. Their rules are written in one transaction, which holds this many and some.
const ADDRESSES_MAX: usize = 16;

/// The commands, as far as flags go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Scope {
    #[default]
    Run,
    Check,
    Demo,
    Node,
    Doctor,
    Help,
}

impl Scope {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Check => "check",
            Self::Demo => "demo",
            Self::Node => "node",
            Self::Doctor => "doctor",
            Self::Help => "help",
        }
    }
}

/// Headings of the help text, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    Serving,
    Configuration,
    Node,
    Information,
}

/// What a flag takes. The error of `set` says what would be right.
pub(super) enum Value {
    Switch(fn(&mut Parser, bool)),
    Text { metavar: &'static str, default: &'static str, set: fn(&mut Parser, &str) -> Result<(), String> },
}

pub(super) struct Flag {
    /// All spellings; the first is the one shown.
    pub(super) names: &'static [&'static str],
    pub(super) value: Value,
    pub(super) group: Group,
    pub(super) scopes: &'static [Scope],
    pub(super) help: &'static str,
}

const RUN: &[Scope] = &[Scope::Run];
const SERVING: &[Scope] = &[Scope::Run, Scope::Demo, Scope::Doctor];
const RUN_DOCTOR: &[Scope] = &[Scope::Run, Scope::Doctor];
const RUN_CHECK: &[Scope] = &[Scope::Run, Scope::Check, Scope::Doctor];
const RUN_NODE: &[Scope] = &[Scope::Run, Scope::Node, Scope::Doctor];
const WORKING: &[Scope] = &[Scope::Run, Scope::Check, Scope::Demo];
const WITH_PORT: &[Scope] = &[Scope::Run, Scope::Check, Scope::Demo, Scope::Node, Scope::Doctor];
const ALL: &[Scope] = &[Scope::Run, Scope::Check, Scope::Demo, Scope::Node, Scope::Doctor, Scope::Help];

/// Every flag. Defaults are repeated as text for the help; a test holds them against the values.
pub(super) const FLAGS: &[Flag] = &[
    Flag {
        names: &["dns.port", "p"],
        value: Value::Text {
            metavar: "PORT",
            default: "53",
            set: |p, text| {
                p.port = Some(number(text)?);
                Ok(())
            },
        },
        group: Group::Serving,
        scopes: WITH_PORT,
        help: "port of the zones that name none in the Corefile; for `demo` the default is 5300",
    },
    Flag {
        names: &["workers"],
        value: Value::Text {
            metavar: "N",
            default: "",
            set: |p, text| {
                match text.parse() {
                    Ok(workers @ 1..=WORKERS_MAX) => p.options.workers = Some(workers),
                    _ => return Err(format!("write a whole number from 1 to {WORKERS_MAX}")),
                }
                Ok(())
            },
        },
        group: Group::Serving,
        scopes: SERVING,
        help: "threads that serve; goes before `workers` in the Corefile; the default is as many as cores and CPU quota \
               allow, at most 4",
    },
    Flag {
        names: &["runtime"],
        value: Value::Text {
            metavar: "NAME",
            default: "",
            set: |p, text| {
                let choice = RuntimeChoice::NAMES.iter().find(|(name, _)| *name == text);
                p.options.runtime = Some(choice.ok_or("write `auto`, `uring` or `tokio`")?.1);
                Ok(())
            },
        },
        group: Group::Serving,
        scopes: SERVING,
        help: "what drives the sockets: `auto`, `uring` (io_uring) or `tokio` (epoll); goes before `runtime` in the Corefile; \
               the default is `auto`",
    },
    Flag {
        names: &["user", "uid"],
        value: Value::Text {
            metavar: "UID",
            default: "65053",
            set: |p, text| {
                p.options.user = match text {
                    "keep" | "0" => User::Keep,
                    // The last number means "no user" to the kernel.
                    _ => match text.parse() {
                        Ok(uid) if uid < u32::MAX => User::Become(uid),
                        _ => return Err("write the number of a user, or `keep`".to_owned()),
                    },
                };
                Ok(())
            },
        },
        group: Group::Serving,
        scopes: RUN,
        help: "who the agent becomes after a start as root, by number; `keep` stays root. Two agents share a node only under one UID",
    },
    Flag {
        names: &["sandbox"],
        value: Value::Switch(|p, on| p.options.sandbox = on),
        group: Group::Serving,
        scopes: RUN,
        help: "allow only the system calls that serving takes (seccomp); not with packet rules by iptables",
    },
    Flag {
        names: &["pidfile"],
        value: Value::Text {
            metavar: "FILE",
            default: "",
            set: |p, text| {
                p.options.pidfile = path(text);
                Ok(())
            },
        },
        group: Group::Serving,
        scopes: RUN,
        help: "write the process id here once the service answers",
    },
    Flag {
        names: &["quiet"],
        value: Value::Switch(|p, on| p.options.quiet = on),
        group: Group::Serving,
        scopes: WORKING,
        help: "print nothing about the start; for `check`: nothing but errors",
    },
    Flag {
        names: &["metrics-listen-address"],
        value: Value::Text {
            metavar: "ADDRESS",
            default: "0.0.0.0:9353",
            set: |p, text| {
                p.options.metrics_listen_address = address(text)?;
                Ok(())
            },
        },
        group: Group::Serving,
        scopes: RUN_DOCTOR,
        help: "where /metrics is as well while the agent sets up a node; `prometheus` in the Corefile opens others",
    },
    Flag {
        names: &["conf"],
        value: Value::Text {
            metavar: "FILE",
            default: "",
            set: |p, text| {
                p.options.conf = path(text);
                Ok(())
            },
        },
        group: Group::Configuration,
        scopes: RUN_CHECK,
        help: "the Corefile; without it, the file that -corefile names",
    },
    Flag {
        names: &["corefile"],
        value: Value::Text {
            metavar: "FILE",
            default: "/etc/Corefile",
            set: |p, text| {
                p.options.corefile = path(text).ok_or("write the path of a file")?;
                Ok(())
            },
        },
        group: Group::Configuration,
        scopes: RUN_DOCTOR,
        help: "the Corefile if -conf is not given",
    },
    Flag {
        names: &["basecorefile"],
        value: Value::Text {
            metavar: "FILE",
            default: "/etc/coredns/Corefile.base",
            set: |p, text| {
                p.options.basecorefile = path(text).ok_or("write the path of a file")?;
                Ok(())
            },
        },
        group: Group::Configuration,
        scopes: RUN,
        help: "template of the Corefile, with __PILLAR__ variables; filled in and written to -corefile. At the default place it is \
               used if it is there",
    },
    Flag {
        names: &["upstreamsvc"],
        value: Value::Text {
            metavar: "NAME",
            default: "kube-dns",
            set: |p, text| {
                p.options.upstreamsvc = some(text)?;
                Ok(())
            },
        },
        group: Group::Configuration,
        scopes: RUN,
        help: "Service whose cluster IP stands for __PILLAR__CLUSTER__DNS__ in the template",
    },
    Flag {
        names: &["kubednscm"],
        value: Value::Text {
            metavar: "DIR",
            default: "",
            set: |p, text| {
                p.options.kubednscm = path(text);
                Ok(())
            },
        },
        group: Group::Configuration,
        scopes: RUN,
        help: "directory where the kube-dns ConfigMap is mounted; its stubDomains and upstreamNameservers go into the template",
    },
    Flag {
        names: &["prometheus-listen-address"],
        value: Value::Text {
            metavar: "ADDRESS",
            default: ":9253",
            set: |p, text| {
                p.options.prometheus_listen_address = address(text)?;
                Ok(())
            },
        },
        group: Group::Configuration,
        scopes: RUN,
        help: "what stands for __PROMETHEUS__ENDPOINT__ in the template",
    },
    Flag {
        names: &["reloadwithsignal"],
        value: Value::Switch(|p, on| p.options.reloadwithsignal = on),
        group: Group::Configuration,
        scopes: RUN,
        help: "reload at once when the template was filled in anew",
    },
    Flag {
        names: &["localip"],
        value: Value::Text { metavar: "IP,…", default: "", set: set_localip },
        group: Group::Node,
        scopes: RUN_NODE,
        help: "addresses of the interface, separated by commas, of either family",
    },
    Flag {
        names: &["setupinterface"],
        value: Value::Switch(|p, on| p.options.setupinterface = on),
        group: Group::Node,
        scopes: RUN_NODE,
        help: "create the interface and keep it there (default true)",
    },
    Flag {
        names: &["interfacename"],
        value: Value::Text {
            metavar: "NAME",
            default: "nodelocaldns",
            set: |p, text| {
                p.options.interfacename = interface_name(text)?;
                Ok(())
            },
        },
        group: Group::Node,
        scopes: RUN_NODE,
        help: "name of the interface",
    },
    Flag {
        names: &["setupiptables"],
        value: Value::Switch(|p, on| p.options.setupiptables = on),
        group: Group::Node,
        scopes: RUN_NODE,
        help: "set up packet rules that bypass connection tracking (default true)",
    },
    Flag {
        names: &["packetrules"],
        value: Value::Text {
            metavar: "NAME",
            default: "auto",
            set: |p, text| {
                let choice = BackEndChoice::NAMES.iter().find(|(name, _)| *name == text);
                p.options.packetrules = choice.ok_or("write `auto`, `nftables` or `iptables`")?.1;
                Ok(())
            },
        },
        group: Group::Node,
        scopes: RUN_NODE,
        help: "what writes packet rules: `nftables`, a table of our own; `iptables`, exactly node-cache's rules; `auto` says in the \
               log what it takes and why",
    },
    Flag {
        names: &["seticmpratemask"],
        value: Value::Switch(|p, on| p.options.seticmpratemask = on),
        group: Group::Node,
        scopes: RUN_NODE,
        help: "let the kernel send every port unreachable, so that Pods go on to their next server at once while the agent is away; \
               `nodens node remove` restores what was there",
    },
    Flag {
        names: &["health-port"],
        value: Value::Text {
            metavar: "PORT",
            default: "8080",
            set: |p, text| {
                p.options.health_port = number(text)?;
                Ok(())
            },
        },
        group: Group::Node,
        scopes: RUN_NODE,
        help: "port of the health probe in the packet rules",
    },
    Flag {
        names: &["syncinterval"],
        value: Value::Text { metavar: "TIME", default: "60", set: set_syncinterval },
        group: Group::Node,
        scopes: RUN,
        help: "time between two looks at interface and rules: seconds, or a duration such as 30s",
    },
    Flag {
        names: &["skipteardown"],
        value: Value::Switch(|p, on| p.options.skipteardown = on),
        group: Group::Node,
        scopes: RUN,
        help: "leave interface and rules there at exit, so that Pods get an error at once and ask their next server",
    },
    Flag {
        names: &["forwardonexit"],
        value: Value::Switch(|p, on| p.options.forwardonexit = on),
        group: Group::Node,
        scopes: RUN,
        help: "leave rules at exit that send queries to the upstream of the root zone, until the next start",
    },
    Flag {
        names: &["name"],
        value: Value::Text { metavar: "DOMAIN,…", default: "", set: set_names },
        group: Group::Node,
        scopes: &[Scope::Doctor],
        help: "for `doctor`: domains that the upstreams are asked about as well, for example a private zone",
    },
    Flag {
        names: &["json"],
        value: Value::Switch(|p, on| p.json = on),
        group: Group::Node,
        scopes: &[Scope::Doctor],
        help: "for `doctor`: findings for programs",
    },
    Flag {
        names: &["plugins"],
        value: Value::Switch(|p, on| show(p, on, Command::Plugins)),
        group: Group::Information,
        scopes: ALL,
        help: "list what a Corefile may use",
    },
    Flag {
        names: &["version"],
        value: Value::Switch(|p, on| show(p, on, Command::Version)),
        group: Group::Information,
        scopes: ALL,
        help: "print the version",
    },
    Flag {
        names: &["help", "h"],
        value: Value::Switch(|p, on| show(p, on, Command::Help)),
        group: Group::Information,
        scopes: ALL,
        help: "print this text",
    },
];

/// Asks for a text instead of the command. Help goes before everything: who asks for it does not know what to write.
fn show(parser: &mut Parser, on: bool, command: Command) {
    if on && (parser.instead.is_none() || command == Command::Help) {
        parser.instead = Some(command);
    }
}

fn number(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "write a whole number up to 65535".to_owned())
}

fn address(text: &str) -> Result<ListenAddr, String> {
    ListenAddr::parse(text).map_err(|(_, help)| help)
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| text.into())
}

fn some(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("write a name".into()) } else { Ok(text.into()) }
}

/// What the kernel takes as the name of an interface, and what can be told apart from the one that everybody has.
fn interface_name(text: &str) -> Result<String, String> {
    let is_taken = |c: char| c.is_ascii_graphic() && !['/', ':', '%'].contains(&c);
    if text.len() > NAME_MAX || !text.chars().all(is_taken) || ["", ".", ".."].contains(&text) {
        return Err(format!("write a name of at most {NAME_MAX} letters and digits"));
    }
    match text == LOOPBACK {
        true => {
            Err(format!("{LOOPBACK} is used by itself where no interface can be made; write another name"))
        }
        false => Ok(text.into()),
    }
}

fn set_localip(parser: &mut Parser, text: &str) -> Result<(), String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let mut addresses: Vec<IpAddr> = Vec::new();
    for part in parts {
        let address: IpAddr =
            part.parse().map_err(|_| "write IP addresses, separated by commas".to_owned())?;
        if address.is_unspecified() || address.is_multicast() {
            return Err(format!("{address} cannot be put on an interface; write an address of one host"));
        }
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.len() > ADDRESSES_MAX {
        return Err(format!("write at most {ADDRESSES_MAX} addresses"));
    }
    parser.options.localip = addresses;
    Ok(())
}

fn set_names(parser: &mut Parser, text: &str) -> Result<(), String> {
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match nodens_core::wire::Name::parse(part) {
            Ok(name) => parser.names.push(name.to_string()),
            Err(error) => return Err(format!("write domain names, separated by commas: {error}")),
        }
    }
    Ok(())
}

/// node-cache multiplies a Go duration by a second, so people write `60`, mean `30s`, and a few found that `60ns` works. All
/// three mean what they look like they were meant to.
fn set_syncinterval(parser: &mut Parser, text: &str) -> Result<(), String> {
    let help = "write seconds, for example `60`, or a duration of at least a second, for example `30s`";
    let seconds = text.strip_suffix("ns").unwrap_or(text).parse::<u32>().ok();
    let interval = match seconds {
        Some(seconds) => Duration::from_secs(seconds.into()),
        None => {
            let nanos = parse_go_duration(text).ok().and_then(|ns| u64::try_from(ns).ok());
            Duration::from_nanos(nanos.ok_or(help)?)
        }
    };
    if interval < Duration::from_secs(1) {
        return Err(help.into());
    }
    parser.options.syncinterval = interval;
    Ok(())
}
