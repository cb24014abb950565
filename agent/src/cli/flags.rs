//! The table of flags: names, value, help, who takes them, and whether they do anything yet.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Command, Parser};
use crate::corefile::config::RuntimeChoice;
use crate::corefile::{ListenAddr, parse_go_duration};

/// Most workers, as in the Corefile.
const WORKERS_MAX: u16 = 256;

/// The commands, as far as flags go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Scope {
    #[default]
    Run,
    Check,
    Demo,
    Help,
}

impl Scope {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Check => "check",
            Self::Demo => "demo",
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

/// Whether a flag does anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Works,
    /// Accepted; the text completes "has no effect yet: …".
    NotYet(&'static str),
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
    pub(super) stage: Stage,
    pub(super) scopes: &'static [Scope],
    pub(super) help: &'static str,
}

const RUN: &[Scope] = &[Scope::Run];
const SERVING: &[Scope] = &[Scope::Run, Scope::Demo];
const RUN_CHECK: &[Scope] = &[Scope::Run, Scope::Check];
const WORKING: &[Scope] = &[Scope::Run, Scope::Check, Scope::Demo];
const ALL: &[Scope] = &[Scope::Run, Scope::Check, Scope::Demo, Scope::Help];

const INTERFACE: Stage =
    Stage::NotYet("nodens sets up no interface; the addresses that `bind` names must exist");
const RULES: Stage = Stage::NotYet("nodens sets up no packet rules");
const TEARDOWN: Stage =
    Stage::NotYet("nodens sets up neither interface nor packet rules, so it takes none down");

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
        stage: Stage::Works,
        scopes: WORKING,
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
        stage: Stage::Works,
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
        stage: Stage::Works,
        scopes: SERVING,
        help: "what drives the sockets: `auto`, `uring` (io_uring) or `tokio` (epoll); goes before `runtime` in the Corefile; \
               the default is `auto`",
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
        stage: Stage::Works,
        scopes: RUN,
        help: "write the process id here once the service answers",
    },
    Flag {
        names: &["quiet"],
        value: Value::Switch(|p, on| p.options.quiet = on),
        group: Group::Serving,
        stage: Stage::Works,
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
        stage: Stage::NotYet(
            "there is no set-up to count errors of; `prometheus` in the Corefile opens /metrics",
        ),
        scopes: RUN,
        help: "where the metrics about setting up the node are",
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
        stage: Stage::Works,
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
        stage: Stage::Works,
        scopes: RUN,
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
        stage: Stage::Works,
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
        stage: Stage::Works,
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
        stage: Stage::Works,
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
        stage: Stage::Works,
        scopes: RUN,
        help: "what stands for __PROMETHEUS__ENDPOINT__ in the template",
    },
    Flag {
        names: &["reloadwithsignal"],
        value: Value::Switch(|p, on| p.options.reloadwithsignal = on),
        group: Group::Configuration,
        stage: Stage::Works,
        scopes: RUN,
        help: "reload at once when the template was filled in anew",
    },
    Flag {
        names: &["localip"],
        value: Value::Text { metavar: "IP,…", default: "", set: set_localip },
        group: Group::Node,
        stage: INTERFACE,
        scopes: RUN,
        help: "addresses of the interface, separated by commas, of either family",
    },
    Flag {
        names: &["setupinterface"],
        value: Value::Switch(|p, on| p.options.setupinterface = on),
        group: Group::Node,
        stage: INTERFACE,
        scopes: RUN,
        help: "create the interface and keep it there (default true)",
    },
    Flag {
        names: &["interfacename"],
        value: Value::Text {
            metavar: "NAME",
            default: "nodelocaldns",
            set: |p, text| {
                p.options.interfacename = some(text)?;
                Ok(())
            },
        },
        group: Group::Node,
        stage: INTERFACE,
        scopes: RUN,
        help: "name of the interface",
    },
    Flag {
        names: &["setupiptables"],
        value: Value::Switch(|p, on| p.options.setupiptables = on),
        group: Group::Node,
        stage: RULES,
        scopes: RUN,
        help: "set up packet rules that bypass connection tracking (default true)",
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
        stage: RULES,
        scopes: RUN,
        help: "port of the health probe in the packet rules",
    },
    Flag {
        names: &["syncinterval"],
        value: Value::Text { metavar: "TIME", default: "60", set: set_syncinterval },
        group: Group::Node,
        stage: TEARDOWN,
        scopes: RUN,
        help: "time between two looks at interface and rules: seconds, or a duration such as 30s",
    },
    Flag {
        names: &["skipteardown"],
        value: Value::Switch(|p, on| p.options.skipteardown = on),
        group: Group::Node,
        stage: TEARDOWN,
        scopes: RUN,
        help: "leave interface and rules there at exit, so that Pods get an error at once and ask their next server",
    },
    Flag {
        names: &["forwardonexit"],
        value: Value::Switch(|p, on| p.options.forwardonexit = on),
        group: Group::Node,
        stage: TEARDOWN,
        scopes: RUN,
        help: "send queries to the cluster's DNS after exit",
    },
    Flag {
        names: &["plugins"],
        value: Value::Switch(|p, on| show(p, on, Command::Plugins)),
        group: Group::Information,
        stage: Stage::Works,
        scopes: ALL,
        help: "list what a Corefile may use",
    },
    Flag {
        names: &["version"],
        value: Value::Switch(|p, on| show(p, on, Command::Version)),
        group: Group::Information,
        stage: Stage::Works,
        scopes: ALL,
        help: "print the version",
    },
    Flag {
        names: &["help", "h"],
        value: Value::Switch(|p, on| show(p, on, Command::Help)),
        group: Group::Information,
        stage: Stage::Works,
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

fn set_localip(parser: &mut Parser, text: &str) -> Result<(), String> {
    let addresses: Result<Vec<IpAddr>, _> =
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::parse).collect();
    parser.options.localip = addresses.map_err(|_| "write IP addresses, separated by commas".to_owned())?;
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
