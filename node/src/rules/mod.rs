//! Packet rules: what they are (`rule`), and the two ways to have the kernel obey them.
//!
//! | back end | where the rules are | how |
//! | --- | --- | --- |
//! | `nftables` | a table of our own, `inet nodens` | netlink messages, one transaction, no program, no lock |
//! | `iptables` | tables `raw` and `filter`, beside everybody's | the host's `iptables` and `ip6tables`, exactly node-cache's rules |
//!
//! `auto` takes nftables unless that cannot do it: the kernel refuses our rules, or a chain of iptables drops by
//! default what is not let in there, which no table of our own can lift. [`choose`] says what it took and why.

mod expression;
mod iptables;
mod nftables;
mod rule;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;

use crate::observed::ObservedRules;
use crate::plan::Step;

pub use iptables::{Iptables, Programs};
pub(crate) use nftables::TABLE;
pub use nftables::{Nftables, chain_names};
pub use rule::{ALLOW_COMMENT, Action, Chain, FoundRule, Rule, SKIP_COMMENT, Side, Transport, rules_for};

/// The ways to have rules obeyed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum BackEnd {
    /// A table of our own over netlink.
    Nftables,
    /// The host's programs.
    Iptables,
}

impl BackEnd {
    /// Both.
    pub const ALL: [BackEnd; 2] = [BackEnd::Nftables, BackEnd::Iptables];

    /// Whether everything where its rules stand is meant to be ours.
    pub const fn has_own_table(self) -> bool {
        matches!(self, BackEnd::Nftables)
    }

    /// What an operator types to see the rules.
    pub const fn show_command(self) -> &'static str {
        match self {
            BackEnd::Nftables => "nft list table inet nodens",
            BackEnd::Iptables => "iptables-save",
        }
    }
}

impl fmt::Display for BackEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BackEnd::Nftables => "nftables",
            BackEnd::Iptables => "iptables",
        })
    }
}

/// Which back end is asked for (`-packetrules`).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum BackEndChoice {
    /// The better one that works here.
    #[default]
    Auto,
    /// This one.
    Only(BackEnd),
}

impl BackEndChoice {
    /// The spellings.
    pub const NAMES: [(&'static str, BackEndChoice); 3] = [
        ("auto", BackEndChoice::Auto),
        ("nftables", BackEndChoice::Only(BackEnd::Nftables)),
        ("iptables", BackEndChoice::Only(BackEnd::Iptables)),
    ];
}

/// Why rules could not be read or written.
#[derive(Debug)]
pub struct RulesError {
    /// What kind of reason.
    pub kind: RulesErrorKind,
    /// What failed, why, and what to do.
    pub text: String,
}

/// Reasons that are treated differently.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum RulesErrorKind {
    /// CAP_NET_ADMIN is missing.
    Permission,
    /// The kernel or the host does not have it.
    Unsupported,
    /// Another program holds the lock of iptables.
    Locked,
    /// Anything else.
    Other,
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for RulesError {}

/// What waits for the kernel or for a program.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, RulesError>> + Send + 'a>>;

/// One way to have rules obeyed.
pub trait PacketRules: Send {
    /// Which.
    fn back_end(&self) -> BackEnd;

    /// Reads what is there. `wanted` are the rules that would be recognised as known; `addresses` say which rules in
    /// a shared table are ours.
    fn observe<'a>(&'a mut self, wanted: &'a [Rule], addresses: &'a [IpAddr]) -> Pending<'a, ObservedRules>;

    /// Carries out those of `steps` that concern rules. Each step can be repeated without harm.
    fn apply<'a>(&'a mut self, steps: &'a [Step]) -> Pending<'a, ()>;
}

/// A back end and why it is this one.
pub struct Chosen {
    /// It.
    pub rules: Box<dyn PacketRules>,
    /// For the log: `nftables: …`.
    pub reason: String,
    /// What stands in the way of packets and cannot be helped from here.
    pub remarks: Vec<String>,
}

/// Chooses a back end that can write `wanted`.
pub async fn choose(
    choice: BackEndChoice,
    wanted: &[Rule],
    programs: &Programs,
) -> Result<Chosen, RulesError> {
    let as_asked = "as -packetrules says";
    match choice {
        BackEndChoice::Only(BackEnd::Iptables) if programs.are_there() => {
            return Ok(Chosen::iptables(programs.clone(), as_asked));
        }
        BackEndChoice::Only(BackEnd::Iptables) => return Err(programs.missing()),
        BackEndChoice::Only(BackEnd::Nftables) | BackEndChoice::Auto => {}
    }
    let is_asked = choice != BackEndChoice::Auto;
    match Nftables::check(wanted).await {
        Ok(()) if is_asked => Ok(Chosen::nftables(as_asked, Vec::new())),
        Ok(()) => by_closed_chains(programs).await,
        Err(error) if is_asked || error.kind == RulesErrorKind::Permission => Err(error),
        Err(error) if programs.are_there() => {
            let reason = format!("nftables does not work here ({error})");
            Ok(Chosen::iptables(programs.clone(), &reason))
        }
        Err(error) => Err(error),
    }
}

/// nftables works: whether something drops what it does not know, and who could open it.
async fn by_closed_chains(programs: &Programs) -> Result<Chosen, RulesError> {
    let (of_iptables, of_others): (Vec<_>, Vec<_>) =
        nftables::closed_chains().await?.into_iter().partition(|chain| chain.is_of_iptables);
    let opens =
        |chain: &str| format!("the chain {chain} drops by default, and only a rule of iptables opens it");
    if let Some(older) = programs.older()
        && let Some(chain) = iptables::closed_chain(&older).await
    {
        return Ok(Chosen::iptables(older, &opens(&chain)));
    }
    let mut remarks: Vec<String> = of_others
        .iter()
        .map(|chain| {
            format!(
                "the chain {} drops what it does not allow, and no other table can lift that: allow UDP and TCP to the port of \
                 DNS there",
                chain.name
            )
        })
        .collect();
    match of_iptables.first() {
        Some(chain) if programs.are_there() => Ok(Chosen::iptables(programs.clone(), &opens(&chain.name))),
        Some(chain) => {
            remarks.push(format!(
                "the chain {} drops by default: allow UDP and TCP to the port of DNS there, or install iptables for nodens to do \
                 it",
                chain.name
            ));
            Ok(Chosen::nftables("it works here, and iptables is not installed", remarks))
        }
        None => Ok(Chosen::nftables("a table of our own, in one transaction", remarks)),
    }
}

impl Chosen {
    fn nftables(reason: &str, remarks: Vec<String>) -> Chosen {
        let reason = format!("{}: {reason}", BackEnd::Nftables);
        Chosen { rules: Box::new(Nftables::default()), reason, remarks }
    }

    fn iptables(programs: Programs, reason: &str) -> Chosen {
        let reason = format!("{}: {reason}", BackEnd::Iptables);
        Chosen { rules: Box::new(Iptables::new(programs)), reason, remarks: Vec::new() }
    }
}

/// Says what an error of the kernel means.
fn from_kernel(what: &str, error: &io::Error) -> RulesError {
    let (kind, advice) = match error.raw_os_error() {
        Some(EPERM | EACCES) => {
            (RulesErrorKind::Permission, "grant CAP_NET_ADMIN, or say -setupiptables=false")
        }
        Some(EOPNOTSUPP | EPROTONOSUPPORT | EAFNOSUPPORT | ENOENT | EINVAL) => (
            RulesErrorKind::Unsupported,
            "this kernel lacks it; say -packetrules=iptables if the host has iptables",
        ),
        _ => (RulesErrorKind::Other, "it is tried again"),
    };
    RulesError { kind, text: format!("{what}: {error}; {advice}") }
}

/// Numbers of `errno`.
const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const EINVAL: i32 = 22;
const EPROTONOSUPPORT: i32 = 93;
const EOPNOTSUPP: i32 = 95;
const EAFNOSUPPORT: i32 = 97;
