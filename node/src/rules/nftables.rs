//! nftables over netlink: a table `inet nodens` that is written whole, in one transaction, and read back.
//!
//! ```text
//! table inet nodens {
//!     chain prerouting {
//!         type filter hook prerouting priority raw; policy accept;
//!         ip daddr 169.254.20.10 udp dport 53 counter packets 0 bytes 0 notrack comment "NodeLocal DNS Cache: skip conntrack"
//!         …
//! ```
//!
//! Where somebody else has put something into this table, nothing is written whole any more: our own rules are added
//! and removed one by one, in one transaction as well. No rule of ours drops a packet, and what one accepts other tables
//! see all the same. Such a rule goes before all others; else the order does not matter.

use std::io;
use std::net::IpAddr;

use super::expression::{self, decode, encode};
use super::rule::{Action, Chain, FoundRule, Rule};
use super::{BackEnd, PacketRules, Pending, RulesError, RulesErrorKind, from_kernel};
use crate::netlink::{
    Attributes, Message, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, Reply, attribute, be32, dump,
    exchange, text,
};
use crate::observed::ObservedRules;
use crate::plan::Step;

/// Our table.
pub(crate) const TABLE: &str = "nodens";

/// A list that changes while it is read is read again this often.
const DUMP_ATTEMPTS: usize = 5;

/// Most messages of one batch. The kernel keeps an acknowledgement for each in the socket's buffer: 208 KiB by
/// default, of which one takes about 768 bytes. Sixteen addresses need 133.
const BATCH_MAX: usize = 160;

/// Families of tables (`NFPROTO_*`).
const INET: u8 = 1;
const ANY: u8 = 0;

/// The back end.
#[derive(Debug, Default)]
pub struct Nftables {
    /// Where the rules were that were seen last.
    handles: Vec<(FoundRule, Chain, u64)>,
}

impl Nftables {
    /// Asks the kernel whether it would take these rules, without changing anything: a batch without an end is undone.
    pub async fn check(rules: &[Rule]) -> Result<(), RulesError> {
        Batch::replace(rules).send(false).await
    }
}

impl PacketRules for Nftables {
    fn back_end(&self) -> BackEnd {
        BackEnd::Nftables
    }

    fn observe<'a>(&'a mut self, wanted: &'a [Rule], _: &'a [IpAddr]) -> Pending<'a, ObservedRules> {
        Box::pin(self.read(wanted))
    }

    fn apply<'a>(&'a mut self, steps: &'a [Step]) -> Pending<'a, ()> {
        Box::pin(self.write(steps))
    }
}

impl Nftables {
    async fn read(&mut self, wanted: &[Rule]) -> Result<ObservedRules, RulesError> {
        let mut interrupted = 0;
        loop {
            match self.read_once(wanted).await {
                Err(error) if error.kind() == io::ErrorKind::Interrupted && interrupted < DUMP_ATTEMPTS => {
                    interrupted += 1;
                }
                read => {
                    return read.map_err(|error| from_kernel("cannot read the table inet nodens", &error));
                }
            }
        }
    }

    async fn read_once(&mut self, wanted: &[Rule]) -> io::Result<ObservedRules> {
        let mut found = ObservedRules {
            back_end: BackEnd::Nftables,
            present: false,
            rules: Vec::new(),
            foreign: Vec::new(),
        };
        // How many things the table holds, whatever they are.
        let mut holds = 0;
        dump(Message::new(GETTABLE, NLM_F_DUMP, INET, 0), |reply| {
            if is_ours(reply, table::NAME) {
                found.present = true;
                holds = be32(reply.attributes(), table::USE).unwrap_or(0);
            }
        })
        .await?;
        self.handles.clear();
        if !found.present {
            return Ok(found);
        }
        let mut chains = Vec::new();
        dump(Message::new(GETCHAIN, NLM_F_DUMP, INET, 0).text(chain::TABLE, TABLE), |reply| {
            if is_ours(reply, chain::TABLE) {
                match known_chain(reply.attributes()) {
                    Ok(chain) => chains.push(chain),
                    Err(name) => found.foreign.push(format!("chain {name}")),
                }
            }
        })
        .await?;
        let others = usize::try_from(holds).unwrap_or(0).saturating_sub(chains.len() + found.foreign.len());
        if others > 0 {
            found.foreign.push(format!("{others} sets or objects"));
        }
        let of = |rule: &Rule| (*rule, expression::of_rule(rule));
        let wanted: Vec<_> = wanted.iter().map(of).collect();
        let handles = &mut self.handles;
        dump(Message::new(GETRULE, NLM_F_DUMP, INET, 0).text(rule::TABLE, TABLE), |reply| {
            if !is_ours(reply, rule::TABLE) {
                return;
            }
            let attributes = reply.attributes();
            let name = text(attributes, rule::CHAIN).unwrap_or_default();
            let chain = CHAINS.into_iter().find(|chain| chain.name() == name);
            let comment = attribute(attributes, rule::USERDATA).and_then(comment).unwrap_or_default();
            let handle = attribute(attributes, rule::HANDLE).and_then(|value| value.first_chunk().copied());
            let (Some(chain), Some(handle), true) = (chain, handle, is_our_comment(comment)) else {
                found.foreign.push(format!("a rule in chain {name}"));
                return;
            };
            let handle = u64::from_be_bytes(handle);
            let expressions = attribute(attributes, rule::EXPRESSIONS).and_then(decode);
            let same = wanted.iter().find(|(rule, wanted)| {
                rule.chain == chain && expressions.as_ref() == Some(wanted) && rule.comment() == comment
            });
            let rule = match same {
                Some((rule, _)) => FoundRule::Known(*rule),
                None => FoundRule::Stale(format!("{name}: handle {handle}, \"{comment}\"")),
            };
            found.rules.push(rule.clone());
            handles.push((rule, chain, handle));
        })
        .await?;
        Ok(found)
    }

    async fn write(&mut self, steps: &[Step]) -> Result<(), RulesError> {
        let mut batch = Batch::default();
        for step in steps {
            match step {
                Step::ReplaceTable(rules) => batch.append(Batch::replace(rules)),
                Step::RemoveTable => batch.append(Batch::remove()),
                Step::AddRule(rule) => batch.append(Batch::add(rule)),
                Step::RemoveRule(gone) => {
                    // Whoever was quicker has done the same.
                    if let Some(at) = self.handles.iter().position(|(rule, ..)| rule == gone) {
                        let (rule, chain, handle) = self.handles.swap_remove(at);
                        batch.push(format!("remove rule {rule}"), delete_rule(chain, handle));
                    }
                }
                _ => {}
            }
        }
        if batch.messages.is_empty() { Ok(()) } else { batch.send(true).await }
    }
}

/// The chains that we make.
const CHAINS: [Chain; 3] = [Chain::Prerouting, Chain::Output, Chain::Postrouting];

/// The hook and the priority of a chain: before connection tracking (-200) for what is to pass it, and after source
/// translation (100) for what has come back through it.
const fn hook(chain: Chain) -> (u32, i32) {
    match chain {
        Chain::Prerouting => (0, RAW),
        Chain::Input => (LOCAL_IN, RAW),
        Chain::Output => (LOCAL_OUT, RAW),
        Chain::Postrouting => (4, AFTER_NAT),
    }
}

const LOCAL_IN: u32 = 1;
const LOCAL_OUT: u32 = 3;
/// `priority raw`
const RAW: i32 = -300;
/// `priority srcnat + 200`
const AFTER_NAT: i32 = 300;

/// Messages that are carried out together or not at all.
#[derive(Default)]
struct Batch {
    /// What each is for, for the message if it fails.
    messages: Vec<(String, Message)>,
}

impl Batch {
    fn push(&mut self, what: impl Into<String>, message: Message) {
        self.messages.push((what.into(), message));
    }

    fn append(&mut self, other: Batch) {
        self.messages.extend(other.messages);
    }

    /// The table with exactly these rules, whatever was in it.
    fn replace(rules: &[Rule]) -> Batch {
        let mut batch = Self::remove();
        batch.push("make the table inet nodens", new_table());
        for chain in CHAINS.into_iter().filter(|chain| rules.iter().any(|rule| rule.chain == *chain)) {
            batch.push(format!("make the chain {} in the table inet nodens", chain.name()), new_chain(chain));
        }
        for rule in rules {
            batch.push(format!("add the rule {rule}"), new_rule(rule));
        }
        batch
    }

    /// No table. Made first if it is missing: removing what is not there is an error, making what is there is none.
    fn remove() -> Batch {
        let mut batch = Batch::default();
        batch.push("make the table inet nodens", new_table());
        let gone = Message::new(DELTABLE, NLM_F_ACK, INET, 0).text(table::NAME, TABLE);
        batch.push("remove the table inet nodens", gone);
        batch
    }

    /// A rule and what holds it.
    fn add(rule: &Rule) -> Batch {
        let mut batch = Batch::default();
        batch.push("make the table inet nodens", new_table());
        batch.push(
            format!("make the chain {} in the table inet nodens", rule.chain.name()),
            new_chain(rule.chain),
        );
        batch.push(format!("add the rule {rule}"), new_rule(rule));
        batch
    }

    /// Sends it; without `commit` the kernel checks it and undoes it.
    async fn send(self, commit: bool) -> Result<(), RulesError> {
        if self.messages.len() > BATCH_MAX {
            return Err(RulesError {
                kind: RulesErrorKind::Other,
                text: format!(
                    "{} changes of packet rules are too many for one transaction; name fewer addresses in -localip",
                    self.messages.len()
                ),
            });
        }
        let acknowledged = self.messages.len();
        let (names, inner): (Vec<String>, Vec<Message>) = self.messages.into_iter().unzip();
        let mut messages = vec![Message::new(BATCH_BEGIN, 0, ANY, SUBSYSTEM)];
        messages.extend(inner);
        if commit {
            messages.push(Message::new(BATCH_END, 0, ANY, SUBSYSTEM));
        }
        exchange(messages, acknowledged).await.map_err(|(index, error)| {
            let what = index.checked_sub(1).and_then(|index| names.get(index));
            let what = what.map_or_else(|| "write packet rules".to_owned(), Clone::clone);
            from_kernel(&format!("nftables: cannot {what}"), &error)
        })
    }
}

fn new_table() -> Message {
    Message::new(NEWTABLE, NLM_F_CREATE | NLM_F_ACK, INET, 0).text(table::NAME, TABLE)
}

fn new_chain(of: Chain) -> Message {
    let (hook, priority) = hook(of);
    let place = Attributes::default()
        .be32(chain::HOOK_NUMBER, hook)
        .bytes(chain::HOOK_PRIORITY, &priority.to_be_bytes());
    Message::new(NEWCHAIN, NLM_F_CREATE | NLM_F_ACK, INET, 0)
        .text(chain::TABLE, TABLE)
        .text(chain::NAME, of.name())
        .nested(chain::HOOK, &place)
        .be32(chain::POLICY, NF_ACCEPT)
        .text(chain::TYPE, "filter")
}

fn new_rule(of: &Rule) -> Message {
    let expressions = encode(&expression::of_rule(of), of.transport.number());
    // Without it the rule becomes the chain's first.
    let at_the_end = if of.action == Action::Spare { 0 } else { NLM_F_APPEND };
    Message::new(NEWRULE, NLM_F_CREATE | at_the_end | NLM_F_ACK, INET, 0)
        .text(rule::TABLE, TABLE)
        .text(rule::CHAIN, of.chain.name())
        .nested(rule::EXPRESSIONS, &expressions)
        .bytes(rule::USERDATA, &comment_bytes(of.comment()))
}

fn delete_rule(chain: Chain, handle: u64) -> Message {
    Message::new(DELRULE, NLM_F_ACK, INET, 0)
        .text(rule::TABLE, TABLE)
        .text(rule::CHAIN, chain.name())
        .be64(rule::HANDLE, handle)
}

/// A comment as `nft` stores it in a rule: type 0, length, text with a zero at its end.
fn comment_bytes(comment: &str) -> Vec<u8> {
    let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    [&[0, length], comment.as_bytes(), &[0]].concat()
}

fn comment(bytes: &[u8]) -> Option<&str> {
    let (&[kind, length], rest) = bytes.split_first_chunk()?;
    let value = rest.get(..usize::from(length)).filter(|_| kind == 0)?;
    std::str::from_utf8(value.strip_suffix(&[0])?).ok()
}

/// Whether only we write this comment into this table.
fn is_our_comment(comment: &str) -> bool {
    comment.starts_with("NodeLocal DNS Cache: ") || comment.starts_with("nodens: ")
}

fn is_ours(reply: &Reply<'_>, table_attribute: u16) -> bool {
    reply.family() == INET && text(reply.attributes(), table_attribute) == Some(TABLE)
}

/// One of our chains as we make it; else its name.
fn known_chain(attributes: &[u8]) -> Result<Chain, String> {
    let name = text(attributes, chain::NAME).unwrap_or_default();
    let place = attribute(attributes, chain::HOOK).unwrap_or_default();
    let same = |chain: &Chain| {
        let (number, priority) = hook(*chain);
        chain.name() == name
            && be32(place, chain::HOOK_NUMBER) == Some(number)
            && attribute(place, chain::HOOK_PRIORITY) == Some(&priority.to_be_bytes())
            && text(attributes, chain::TYPE) == Some("filter")
            && be32(attributes, chain::POLICY) == Some(NF_ACCEPT)
    };
    CHAINS.into_iter().find(same).ok_or_else(|| name.to_owned())
}

/// A chain that drops packets to or from this node unless a rule of it lets them pass.
pub(super) struct ClosedChain {
    /// Family, table and chain.
    pub(super) name: String,
    /// Whether iptables can write into it.
    pub(super) is_of_iptables: bool,
}

/// Looks for such chains.
pub(super) async fn closed_chains() -> Result<Vec<ClosedChain>, RulesError> {
    let mut closed = Vec::new();
    let request = Message::new(GETCHAIN, NLM_F_DUMP, ANY, 0);
    let listed = dump(request, |reply| {
        let attributes = reply.attributes();
        let family = FAMILIES.iter().find(|(number, _)| *number == reply.family());
        let place = attribute(attributes, chain::HOOK).and_then(|hook| be32(hook, chain::HOOK_NUMBER));
        let drops = be32(attributes, chain::POLICY) == Some(NF_DROP);
        if let (Some((_, family)), Some(LOCAL_IN | LOCAL_OUT), true) = (family, place, drops) {
            let table = text(attributes, chain::TABLE).unwrap_or_default();
            let chain = text(attributes, chain::NAME).unwrap_or_default();
            let is_of_iptables =
                *family != "inet" && table == "filter" && ["INPUT", "OUTPUT"].contains(&chain);
            closed.push(ClosedChain { name: format!("{family} {table} {chain}"), is_of_iptables });
        }
    });
    match listed.await {
        // Somebody is writing just now: what was read is enough for a choice.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(closed),
        listed => {
            listed.map(|()| closed).map_err(|error| from_kernel("cannot list the chains of nftables", &error))
        }
    }
}

/// All chains of nftables that anybody has: family, table and name, separated by blanks. iptables' newer half has its
/// own here too.
pub async fn chain_names() -> Result<Vec<String>, RulesError> {
    let mut names = Vec::new();
    let request = Message::new(GETCHAIN, NLM_F_DUMP, ANY, 0);
    let listed = dump(request, |reply| {
        let attributes = reply.attributes();
        let family = FAMILIES.iter().find(|(number, _)| *number == reply.family());
        if let (Some((_, family)), Some(table), Some(chain)) =
            (family, text(attributes, chain::TABLE), text(attributes, chain::NAME))
        {
            names.push(format!("{family} {table} {chain}"));
        }
    });
    match listed.await {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(names),
        listed => {
            listed.map(|()| names).map_err(|error| from_kernel("cannot list the chains of nftables", &error))
        }
    }
}

const FAMILIES: [(u8, &str); 3] = [(INET, "inet"), (2, "ip"), (10, "ip6")];

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = SUBSYSTEM << 8;
const GETTABLE: u16 = SUBSYSTEM << 8 | 1;
const DELTABLE: u16 = SUBSYSTEM << 8 | 2;
const NEWCHAIN: u16 = SUBSYSTEM << 8 | 3;
const GETCHAIN: u16 = SUBSYSTEM << 8 | 4;
const NEWRULE: u16 = SUBSYSTEM << 8 | 6;
const GETRULE: u16 = SUBSYSTEM << 8 | 7;
const DELRULE: u16 = SUBSYSTEM << 8 | 8;

const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

mod table {
    pub(super) const NAME: u16 = 1;
    pub(super) const USE: u16 = 3;
}

mod chain {
    pub(super) const TABLE: u16 = 1;
    pub(super) const NAME: u16 = 3;
    pub(super) const HOOK: u16 = 4;
    pub(super) const POLICY: u16 = 5;
    pub(super) const TYPE: u16 = 7;
    pub(super) const HOOK_NUMBER: u16 = 1;
    pub(super) const HOOK_PRIORITY: u16 = 2;
}

mod rule {
    pub(super) const TABLE: u16 = 1;
    pub(super) const CHAIN: u16 = 2;
    pub(super) const HANDLE: u16 = 3;
    pub(super) const EXPRESSIONS: u16 = 4;
    pub(super) const USERDATA: u16 = 7;
}
