//! The command line: node-cache's and CoreDNS' flags, spelled as Go's flag package spells them, and our few of our own.
//!
//! `-flag value`, `-flag=value`, `--flag…`; a boolean is `-flag` or `-flag=false`, with every spelling of true and false that Go
//! takes. A flag given twice has its last value. What is not known is an
//! error that names the nearest known flag.
//!
//! All flags stand in one table (`flags`), from which the parser and the help text are made. This file reads no file and
//! starts nothing.

mod flags;
mod help;

use std::ffi::OsString;
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nodens_node::BackEndChoice;

use crate::corefile::config::RuntimeChoice;
use crate::corefile::{ListenAddr, nearest};
use crate::privilege::{UID, User};
use flags::{FLAGS, Scope, Value};

/// Exit code for a command line that cannot be understood, and for a Corefile that is refused.
pub const EXIT_USAGE: u8 = 2;

/// Port of `demo` unless `-dns.port` says otherwise: one that needs no privilege.
const DEMO_PORT: u16 = 5300;

/// Port of DNS unless `-dns.port` says otherwise (RFC 1035 §4.2).
const DNS_PORT: u16 = 53;

/// The commands, as they are typed.
const COMMANDS: [(&str, Scope); 6] = [
    ("run", Scope::Run),
    ("check", Scope::Check),
    ("demo", Scope::Demo),
    ("node", Scope::Node),
    ("doctor", Scope::Doctor),
    ("help", Scope::Help),
];

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve what the Corefile says. The default.
    Run(Box<RunOptions>),
    /// Validate a Corefile and exit.
    Check(CheckOptions),
    /// Serve a small built-in upstream on the loopback, to try things out.
    Demo(DemoOptions),
    /// Look at the node's interface and packet rules, or change them, by hand.
    Node(NodeOptions),
    /// Look at the node and say what is wrong with it.
    Doctor(DoctorOptions),
    /// Print [`help_text`].
    Help,
    /// Print [`version_text`].
    Version,
    /// Print [`crate::corefile::describe_plugins`].
    Plugins,
}

/// Everything `run` can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// `-conf`; see [`Self::corefile_path`].
    pub conf: Option<PathBuf>,
    /// `-corefile`: where node-cache writes the Corefile it makes from `-basecorefile`.
    pub corefile: PathBuf,
    /// `-basecorefile`: the template.
    pub basecorefile: PathBuf,
    /// `-kubednscm`: directory of the kube-dns ConfigMap.
    pub kubednscm: Option<PathBuf>,
    /// `-upstreamsvc`: name of the Service in front of the cluster's DNS.
    pub upstreamsvc: String,
    /// `-reloadwithsignal`.
    pub reloadwithsignal: bool,
    /// `-prometheus-listen-address`: what stands for `__PROMETHEUS__ENDPOINT__` in the template.
    pub prometheus_listen_address: ListenAddr,
    /// `-dns.port`: the port of zones that name none.
    pub dns_port: u16,
    /// `-localip`: addresses of the interface, of either family.
    pub localip: Vec<IpAddr>,
    /// `-setupinterface`.
    pub setupinterface: bool,
    /// `-interfacename`.
    pub interfacename: String,
    /// `-setupiptables`.
    pub setupiptables: bool,
    /// `-packetrules`: what writes them.
    pub packetrules: BackEndChoice,
    /// `-seticmpratemask`: port unreachables are let through the kernel's limit.
    pub seticmpratemask: bool,
    /// `-syncinterval`.
    pub syncinterval: Duration,
    /// `-skipteardown`.
    pub skipteardown: bool,
    /// `-forwardonexit`.
    pub forwardonexit: bool,
    /// `-health-port`: port of the probe in the packet rules.
    pub health_port: u16,
    /// `-metrics-listen-address`: where the set-up's own metrics are.
    pub metrics_listen_address: ListenAddr,
    /// `-user`: who the agent becomes if it was started as root.
    pub user: User,
    /// `-sandbox`: system calls are filtered.
    pub sandbox: bool,
    /// `-pidfile`: written once the service answers.
    pub pidfile: Option<PathBuf>,
    /// `-quiet`: no lines about the start.
    pub quiet: bool,
    /// `-workers`; None: as the Corefile says.
    pub workers: Option<u16>,
    /// `-runtime`; None: as the Corefile says.
    pub runtime: Option<RuntimeChoice>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            conf: None,
            corefile: "/etc/Corefile".into(),
            basecorefile: "/etc/coredns/Corefile.base".into(),
            kubednscm: None,
            upstreamsvc: "kube-dns".into(),
            reloadwithsignal: false,
            prometheus_listen_address: ListenAddr::any(9253),
            dns_port: DNS_PORT,
            localip: Vec::new(),
            setupinterface: true,
            interfacename: "nodelocaldns".into(),
            setupiptables: true,
            packetrules: BackEndChoice::Auto,
            seticmpratemask: false,
            syncinterval: Duration::from_secs(60),
            skipteardown: false,
            forwardonexit: false,
            health_port: 8080,
            metrics_listen_address: ListenAddr {
                ip: Some(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)),
                port: 9353,
            },
            user: User::Become(UID),
            sandbox: false,
            pidfile: None,
            quiet: false,
            workers: None,
            runtime: None,
        }
    }
}

impl RunOptions {
    /// The Corefile to serve: `-conf` if it is given, else `-corefile`, as in node-cache.
    pub fn corefile_path(&self) -> &Path {
        self.conf.as_deref().unwrap_or(&self.corefile)
    }
}

/// What `check` is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckOptions {
    /// The Corefile.
    pub file: PathBuf,
    /// `-dns.port`: the port of zones that name none.
    pub dns_port: u16,
    /// `-quiet`: say nothing of warnings.
    pub quiet: bool,
}

/// What `demo` is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoOptions {
    /// `-dns.port`, 5300 by default; the address is 127.0.0.1.
    pub port: u16,
    /// `-quiet`: no lines about the start.
    pub quiet: bool,
    /// `-workers`.
    pub workers: Option<u16>,
    /// `-runtime`.
    pub runtime: Option<RuntimeChoice>,
}

/// What `node` is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeOptions {
    /// What is to be done.
    pub verb: NodeVerb,
    /// The flags that concern the node; the others have their defaults.
    pub flags: Box<RunOptions>,
}

/// What `doctor` is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoctorOptions {
    /// The agent's flags.
    pub flags: Box<RunOptions>,
    /// `-json`.
    pub json: bool,
    /// `-name`: domains that upstreams are asked about as well, with their last dot.
    pub names: Vec<String>,
}

/// What `node` does.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum NodeVerb {
    /// Print what would be done.
    Plan,
    /// Do it, as a start of the agent does.
    Apply,
    /// Remove what is ours, and restore what was changed.
    Remove,
}

/// As they are typed.
const VERBS: [(&str, NodeVerb); 3] =
    [("plan", NodeVerb::Plan), ("apply", NodeVerb::Apply), ("remove", NodeVerb::Remove)];

/// A command line that cannot be understood. Prints as one sentence and what would be right; exit with [`EXIT_USAGE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    message: String,
    help: String,
}

impl Display for UsageError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "nodens: {}\nhelp: {}", self.message, self.help)
    }
}

impl std::error::Error for UsageError {}

fn usage<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, UsageError> {
    Err(UsageError { message: message.into(), help: help.into() })
}

/// Reads the arguments, without the program's name.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut words = Vec::new();
    for argument in arguments {
        match argument.into_string() {
            Ok(word) => words.push(word),
            Err(raw) => {
                let message = format!("the argument {} is not UTF-8", raw.display());
                return usage(message, "name files with UTF-8 characters");
            }
        }
    }
    let mut parser =
        Parser { scope: Scope::Run, options: RunOptions::default(), port: None, ..Parser::default() };
    let mut words = words.into_iter().peekable();
    if let Some(&(_, scope)) = words.peek().and_then(|word| COMMANDS.iter().find(|(name, _)| name == word)) {
        parser.scope = scope;
        words.next();
    }
    let mut only_files = false;
    while let Some(word) = words.next() {
        if !only_files && word == "--" {
            only_files = true;
        } else if !only_files && word.len() > 1 && word.starts_with('-') {
            parser.flag(&word, &mut words)?;
        } else {
            parser.file(word)?;
        }
    }
    parser.finish()
}

/// The text of `help`.
pub fn help_text() -> String {
    help::text()
}

/// The text of `-version`, in the shape CoreDNS prints its own.
pub fn version_text() -> String {
    format!("nodens-{}\n{}/{}\n", env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH)
}

#[derive(Default)]
struct Parser {
    scope: Scope,
    options: RunOptions,
    /// Set if given: its default depends on the command.
    port: Option<u16>,
    files: Vec<String>,
    verb: Option<NodeVerb>,
    /// For `doctor`.
    json: bool,
    names: Vec<String>,
    /// A flag that asks for text instead of the command.
    instead: Option<Command>,
}

impl Parser {
    /// One flag, with its value if that is a word of its own.
    fn flag(&mut self, word: &str, rest: &mut impl Iterator<Item = String>) -> Result<(), UsageError> {
        let body = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).unwrap_or(word);
        let (name, given) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        let Some(flag) = FLAGS.iter().find(|flag| flag.names.contains(&name)) else {
            return unknown(name);
        };
        if !flag.scopes.contains(&self.scope) {
            let message = format!("`-{name}` means nothing to `{}`", self.scope.name());
            return usage(message, "`nodens help` says which flags each command takes");
        }
        let value = match (&flag.value, given) {
            (Value::Switch(_), None) => "true".to_owned(),
            (_, Some(value)) => value,
            (Value::Text { metavar, .. }, None) => match rest.next() {
                Some(value) => value,
                None => {
                    return usage(format!("`-{name}` needs a value"), format!("write `-{name} {metavar}`"));
                }
            },
        };
        let set = match &flag.value {
            Value::Switch(set) => match go_bool(&value) {
                Some(on) => {
                    set(self, on);
                    Ok(())
                }
                None => Err("write `true` or `false`".to_owned()),
            },
            Value::Text { set, .. } => set(self, &value),
        };
        set.or_else(|help| usage(format!("`{value}` is not a value for `-{name}`"), help))
    }

    fn file(&mut self, word: String) -> Result<(), UsageError> {
        if self.scope == Scope::Check && self.files.is_empty() {
            self.files.push(word);
            return Ok(());
        }
        if self.scope == Scope::Node && self.verb.is_none() {
            self.verb = VERBS.iter().find(|(name, _)| *name == word).map(|(_, verb)| *verb);
            if self.verb.is_some() {
                return Ok(());
            }
            return usage(format!("`node` cannot `{word}`"), "write `nodens node plan`, `apply` or `remove`");
        }
        let help = match nearest(&word, COMMANDS.iter().map(|(name, _)| *name)) {
            Some(near) if self.scope == Scope::Run => format!("did you mean `nodens {near}`?"),
            _ if go_bool(&word).is_some() => {
                "the value of a switch is written with `=`, as in `-skipteardown=true`".into()
            }
            _ => "`nodens help` shows what can be written".into(),
        };
        usage(format!("unexpected argument `{word}`"), help)
    }

    fn finish(self) -> Result<Command, UsageError> {
        let mut options = self.options;
        options.dns_port = self.port.unwrap_or(DNS_PORT);
        let command = match (self.instead, self.scope) {
            (Some(command), _) => command,
            (None, Scope::Run) => Command::Run(Box::new(options)),
            (None, Scope::Check) => {
                let Some(file) = self.files.first().map(PathBuf::from).or(options.conf) else {
                    return usage("`check` needs a file", "write `nodens check FILE`");
                };
                Command::Check(CheckOptions { file, dns_port: options.dns_port, quiet: options.quiet })
            }
            (None, Scope::Demo) => Command::Demo(DemoOptions {
                port: self.port.unwrap_or(DEMO_PORT),
                quiet: options.quiet,
                workers: options.workers,
                runtime: options.runtime,
            }),
            (None, Scope::Node) => {
                let Some(verb) = self.verb else {
                    return usage(
                        "`node` needs to know what to do",
                        "write `nodens node plan`, `apply` or `remove`",
                    );
                };
                if options.localip.is_empty() {
                    return usage(
                        "`node` needs the addresses it is about",
                        "write `-localip 169.254.20.10`, and the other flags as the agent has them",
                    );
                }
                Command::Node(NodeOptions { verb, flags: Box::new(options) })
            }
            (None, Scope::Doctor) => Command::Doctor(DoctorOptions {
                flags: Box::new(options),
                json: self.json,
                names: self.names,
            }),
            (None, Scope::Help) => Command::Help,
        };
        Ok(command)
    }
}

fn unknown(name: &str) -> Result<(), UsageError> {
    let known = FLAGS.iter().flat_map(|flag| flag.names).copied();
    let help = match nearest(name, known) {
        Some(near) => format!("did you mean `-{near}`?"),
        None => "`nodens help` lists all flags".into(),
    };
    usage(format!("unknown flag `-{name}`"), help)
}

/// The spellings Go's `strconv.ParseBool` takes.
fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
