//! iptables by its programs, with exactly node-cache's rules, for hosts where only a rule of iptables opens a closed
//! chain or whose operators look for them there.
//!
//! The tables are everybody's, so nothing is written whole: what is there is listed (`-S`), what is missing is put in
//! front (`-I`), what is there twice or not wished any more is taken out (`-D`). Before a rule is added `-C` has to
//! agree that it is missing: a listing that we failed to read would otherwise add the same rule each minute
//! (kubernetes/dns#568). Ours are the rules with node-cache's comments and one of our addresses; those of another
//! address may be another node-cache's and are left alone.
//!
//! Every call waits for the lock (`-w`), and is ended when it waits for longer than [`PATIENCE`].

use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::rule::{ALLOW_COMMENT, Action, Chain, FoundRule, Rule, SKIP_COMMENT, Side, Transport};
use super::{BackEnd, PacketRules, Pending, RulesError, RulesErrorKind};
use crate::observed::ObservedRules;
use crate::plan::Step;

/// Seconds that iptables waits for its lock: kube-proxy holds it for seconds on a node with many Services.
const LOCK_PATIENCE_S: &str = "5";
/// For one call as a whole.
const PATIENCE: Duration = Duration::from_secs(10);
/// What iptables exits with when it did not get the lock.
const EXIT_LOCKED: i32 = 4;

/// Where the programs are if PATH does not say: the image's and the distributions' places.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// The programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Programs {
    v4: Option<PathBuf>,
    v6: Option<PathBuf>,
    /// The same for the older half of the kernel, whichever half `v4` speaks to.
    legacy_v4: Option<PathBuf>,
    legacy_v6: Option<PathBuf>,
}

/// The tables of the older half that are there. Listing others would make the kernel have them.
const LEGACY_TABLES: &str = "/proc/thread-self/net/ip_tables_names";

impl Programs {
    /// Looks for them.
    pub fn find() -> Programs {
        Programs {
            v4: find("iptables"),
            v6: find("ip6tables"),
            legacy_v4: find("iptables-legacy"),
            legacy_v6: find("ip6tables-legacy"),
        }
    }

    /// Whether rules can be written.
    pub fn are_there(&self) -> bool {
        self.v4.is_some()
    }

    /// Those for the older half, if that is in use.
    pub(crate) fn older(&self) -> Option<Programs> {
        let tables = std::fs::read_to_string(LEGACY_TABLES).unwrap_or_default();
        let is_in_use = tables.lines().any(|table| ["raw", "filter"].contains(&table));
        (is_in_use && self.legacy_v4.is_some()).then(|| Programs {
            v4: self.legacy_v4.clone(),
            v6: self.legacy_v6.clone(),
            legacy_v4: None,
            legacy_v6: None,
        })
    }

    /// What to say if not.
    pub(super) fn missing(&self) -> RulesError {
        RulesError {
            kind: RulesErrorKind::Unsupported,
            text: "the program iptables is not installed; use an image that has it, or say -packetrules=nftables".to_owned(),
        }
    }

    fn of(&self, address: IpAddr) -> Result<&Path, RulesError> {
        match (address, &self.v4, &self.v6) {
            (IpAddr::V4(_), Some(path), _) | (IpAddr::V6(_), _, Some(path)) => Ok(path),
            (IpAddr::V4(_), None, _) => Err(self.missing()),
            (IpAddr::V6(_), _, None) => Err(RulesError {
                kind: RulesErrorKind::Unsupported,
                text: format!("the program ip6tables is not installed, so {address} gets no packet rules"),
            }),
        }
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(FOLDERS.iter().map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// The back end.
#[derive(Debug)]
pub struct Iptables {
    programs: Programs,
    /// Rules that nobody wishes, as they were listed last: their text and how to name them to `-D`.
    stale: Vec<(FoundRule, IpAddr, Vec<String>)>,
}

/// Table and chain of everything that is listed.
const LISTED: [(&str, &str); 4] =
    [("raw", "PREROUTING"), ("raw", "OUTPUT"), ("filter", "INPUT"), ("filter", "OUTPUT")];

impl Iptables {
    /// With these programs.
    pub fn new(programs: Programs) -> Self {
        Iptables { programs, stale: Vec::new() }
    }

    async fn read(&mut self, wanted: &[Rule], addresses: &[IpAddr]) -> Result<ObservedRules, RulesError> {
        let mut rules = Vec::new();
        self.stale.clear();
        // One listing for each family that there is.
        let mut families: Vec<IpAddr> = Vec::new();
        for address in addresses {
            if !families.iter().any(|known| known.is_ipv4() == address.is_ipv4()) {
                families.push(*address);
            }
        }
        for family in families {
            // Rules of a family without a program fail when they are added, and say so.
            let Ok(program) = self.programs.of(family) else { continue };
            for (table, chain) in LISTED {
                let listing = call(program, &["-w", LOCK_PATIENCE_S, "-t", table, "-S", chain]).await?;
                for line in listing.lines() {
                    let words = split(line);
                    let Some(found) = read_line(table, &words, addresses) else { continue };
                    let rule = match found {
                        Some(rule) if wanted.contains(&rule) => FoundRule::Known(rule),
                        Some(_) | None => {
                            let rule = FoundRule::Stale(format!("-t {table} {line}"));
                            let mut arguments = vec!["-t".to_owned(), table.to_owned(), "-D".to_owned()];
                            arguments.extend(words.into_iter().skip(1));
                            self.stale.push((rule.clone(), family, arguments));
                            rule
                        }
                    };
                    rules.push(rule);
                }
            }
        }
        let present = !rules.is_empty();
        Ok(ObservedRules { back_end: BackEnd::Iptables, present, rules, foreign: Vec::new() })
    }

    /// Carries out all steps, whichever fail; the error is the first one.
    async fn write(&mut self, steps: &[Step]) -> Result<(), RulesError> {
        let mut first_error = Ok(());
        for step in steps {
            first_error = first_error.and(self.write_one(step).await);
        }
        first_error
    }

    async fn write_one(&mut self, step: &Step) -> Result<(), RulesError> {
        match step {
            Step::AddRule(rule) => self.add(rule).await,
            Step::RemoveRule(FoundRule::Known(rule)) => {
                call(self.programs.of(rule.address)?, &as_words("-D", rule)).await.map(drop)
            }
            Step::RemoveRule(gone) => {
                let Some(at) = self.stale.iter().position(|(rule, ..)| rule == gone) else { return Ok(()) };
                let (_, family, arguments) = self.stale.swap_remove(at);
                let waiting = ["-w".to_owned(), LOCK_PATIENCE_S.to_owned()];
                let arguments: Vec<_> = waiting.into_iter().chain(arguments).collect();
                call(self.programs.of(family)?, &arguments).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    async fn add(&self, rule: &Rule) -> Result<(), RulesError> {
        let program = self.programs.of(rule.address)?;
        match call(program, &as_words("-C", rule)).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind == RulesErrorKind::Other => {
                call(program, &as_words("-I", rule)).await.map(drop)
            }
            Err(error) => Err(error),
        }
    }
}

impl PacketRules for Iptables {
    fn back_end(&self) -> BackEnd {
        BackEnd::Iptables
    }

    fn observe<'a>(&'a mut self, wanted: &'a [Rule], addresses: &'a [IpAddr]) -> Pending<'a, ObservedRules> {
        Box::pin(self.read(wanted, addresses))
    }

    fn apply<'a>(&'a mut self, steps: &'a [Step]) -> Pending<'a, ()> {
        Box::pin(self.write(steps))
    }
}

/// The chain that drops packets to or from this node by default, as these programs see it.
pub(super) async fn closed_chain(programs: &Programs) -> Option<String> {
    let program = programs.v4.as_deref()?;
    for chain in ["INPUT", "OUTPUT"] {
        let listing = call(program, &["-w", LOCK_PATIENCE_S, "-t", "filter", "-S", chain]).await.ok()?;
        if listing.starts_with(&format!("-P {chain} DROP")) {
            return Some(format!("ip filter {chain}"));
        }
    }
    None
}

/// What to call iptables with for this rule: exactly node-cache's words.
fn as_words(command: &'static str, rule: &Rule) -> Vec<String> {
    let (table, target) = match rule.action {
        Action::Allow => ("filter", "ACCEPT"),
        // Of these only the first is ever asked for: the others need nftables.
        Action::SkipConntrack { .. } | Action::Spare | Action::ForwardTo(..) | Action::AnswerAs(..) => {
            ("raw", "NOTRACK")
        }
    };
    let chain = rule.chain.name().to_uppercase();
    let (side, port) = match rule.side {
        Side::Source => ("-s", "--sport"),
        Side::Destination => ("-d", "--dport"),
    };
    let (transport, comment) = (rule.transport.name(), rule.comment());
    let (address, number) = (rule.address.to_string(), rule.port.to_string());
    let words = [
        "-w",
        LOCK_PATIENCE_S,
        "-t",
        table,
        command,
        &chain,
        "-p",
        transport,
        side,
        &address,
        port,
        &number,
        "-j",
        target,
        "-m",
        "comment",
        "--comment",
        comment,
    ];
    words.map(str::to_owned).to_vec()
}

/// Reads a line of a listing. `None`: none of our business. `Some(None)`: ours, and unlike all that we write.
fn read_line(table: &str, words: &[String], addresses: &[IpAddr]) -> Option<Option<Rule>> {
    let mut rest = words.iter().map(String::as_str);
    if rest.next() != Some("-A") {
        return None;
    }
    let chain = match rest.next()? {
        "PREROUTING" => Chain::Prerouting,
        "INPUT" => Chain::Input,
        "OUTPUT" => Chain::Output,
        _ => return None,
    };
    let (mut end, mut transport, mut port, mut target, mut comment) = (None, None, None, None, None);
    let mut is_understood = true;
    while let Some(word) = rest.next() {
        match word {
            "-s" | "-d" => {
                let address = host(rest.next()?)?;
                end = Some((if word == "-s" { Side::Source } else { Side::Destination }, address));
            }
            "-p" => {
                let name = rest.next()?;
                transport = Transport::ALL.into_iter().find(|known| known.name() == name);
            }
            "--sport" | "--dport" => {
                let side = if word == "--sport" { Side::Source } else { Side::Destination };
                port = rest.next()?.parse::<u16>().ok().map(|port| (side, port));
            }
            "--comment" => comment = rest.next(),
            "-j" => target = rest.next(),
            "-m" => is_understood &= matches!(rest.next(), Some("tcp" | "udp" | "comment")),
            // NOTRACK as newer versions list it: `-j CT --notrack`.
            "--notrack" => target = target.filter(|name| *name == "CT").map(|_| "NOTRACK"),
            _ => is_understood = false,
        }
    }
    let (side, address) = end?;
    let is_ours = matches!(comment, Some(SKIP_COMMENT | ALLOW_COMMENT)) && addresses.contains(&address);
    let action = match (table, target, comment) {
        ("raw", Some("NOTRACK"), Some(SKIP_COMMENT)) => {
            Some(Action::SkipConntrack { while_listening: false })
        }
        ("filter", Some("ACCEPT"), Some(ALLOW_COMMENT)) => Some(Action::Allow),
        _ => None,
    };
    is_ours.then(|| match (transport, port, action) {
        (Some(transport), Some((same, port)), Some(action)) if is_understood && same == side => {
            Some(Rule { chain, transport, side, address, port, action })
        }
        _ => None,
    })
}

/// An address of one host, as it is listed: `169.254.20.10/32`.
fn host(text: &str) -> Option<IpAddr> {
    let (address, prefix) =
        text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address: IpAddr = address.parse().ok()?;
    let whole = if address.is_ipv4() { "32" } else { "128" };
    prefix.is_none_or(|prefix| prefix == whole).then_some(address)
}

/// The words of a line, as a shell would see them: `"…"` is one word, `\` takes the next character as it is.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match c {
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            '\\' => word.get_or_insert_default().extend(characters.next()),
            ' ' if !is_quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

async fn call(program: &Path, arguments: &[impl AsRef<OsStr>]) -> Result<String, RulesError> {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let name = program.file_name().unwrap_or(program.as_os_str()).display();
    let failed = |kind, text| RulesError { kind, text };
    let output = match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => {
            return Err(failed(
                RulesErrorKind::Unsupported,
                format!("cannot run {}: {error}", program.display()),
            ));
        }
        Err(_) => {
            return Err(failed(
                RulesErrorKind::Locked,
                format!("{name} did not end within {PATIENCE:?}; it is tried again"),
            ));
        }
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint = complaint.lines().find(|line| !line.starts_with('#')).unwrap_or("no reason given").trim();
    let kind = kind_of(output.status.code(), complaint);
    let advice = match kind {
        RulesErrorKind::Permission => "; run as root with CAP_NET_ADMIN, or say -setupiptables=false",
        RulesErrorKind::Locked => "; it is tried again",
        _ => "",
    };
    Err(failed(kind, format!("{name}: {complaint}{advice}")))
}

fn kind_of(exit_code: Option<i32>, complaint: &str) -> RulesErrorKind {
    let is_denied = complaint.contains("Permission denied") || complaint.contains("you must be root");
    match exit_code {
        _ if is_denied => RulesErrorKind::Permission,
        Some(EXIT_LOCKED) => RulesErrorKind::Locked,
        _ => RulesErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::{Ports, RulesWish};
    use crate::rules::rules_for;

    const ADDRESS: &str = "169.254.20.10";

    fn ours() -> Vec<IpAddr> {
        vec![ADDRESS.parse().expect("an address"), "fe80::10".parse().expect("an address")]
    }

    fn of(line: &str) -> Option<Option<Rule>> {
        read_line("raw", &split(line), &ours())
    }

    #[test]
    fn features_1_4_a_rule_is_written_in_node_caches_words() {
        let wish = RulesWish::Serve(Ports { dns: 53, health: 8080 });
        let (rules, _) = rules_for(&wish, &ours()[..1], BackEnd::Iptables);
        let lines: Vec<_> = rules.iter().map(|rule| as_words("-I", rule)[2..].join(" ")).collect();
        assert_eq!(lines.len(), 12);
        let skip = "-j NOTRACK -m comment --comment NodeLocal DNS Cache: skip conntrack";
        let allow = "-j ACCEPT -m comment --comment NodeLocal DNS Cache: allow DNS traffic";
        assert_eq!(lines[0], format!("-t raw -I PREROUTING -p tcp -d {ADDRESS} --dport 53 {skip}"));
        assert_eq!(lines[3], format!("-t filter -I INPUT -p udp -d {ADDRESS} --dport 53 {allow}"));
        assert_eq!(lines[7], format!("-t filter -I OUTPUT -p udp -s {ADDRESS} --sport 53 {allow}"));
        assert_eq!(lines[11], format!("-t raw -I OUTPUT -p tcp -s {ADDRESS} --sport 8080 {skip}"));
    }

    #[test]
    fn both_spellings_of_a_listing_are_read() {
        let start = format!(
            "-A OUTPUT -s {ADDRESS}/32 -p udp -m udp --sport 53 -m comment --comment \"{SKIP_COMMENT}\""
        );
        let old = of(&format!("{start} -j NOTRACK")).flatten();
        let rule = old.expect("it is one of ours");
        assert_eq!(
            as_words("-I", &rule)[4..].join(" "),
            format!(
                "-I OUTPUT -p udp -s {ADDRESS} --sport 53 -j NOTRACK -m comment --comment {SKIP_COMMENT}"
            )
        );
        assert_eq!(of(&format!("{start} -j CT --notrack")).flatten(), Some(rule));
    }

    #[test]
    fn rules_of_others_are_none_of_our_business() {
        for line in [
            "-P OUTPUT ACCEPT",
            "-N KUBE-SERVICES",
            "-A OUTPUT -j KUBE-SERVICES",
            &format!("-A OUTPUT -s {ADDRESS}/32 -p udp -m udp --sport 53 -j NOTRACK"),
            &format!("-A OUTPUT -s {ADDRESS}/24 -p udp -m comment --comment \"{SKIP_COMMENT}\" -j NOTRACK"),
            &format!(
                "-A OUTPUT -s 169.254.20.11/32 -p udp --sport 53 -m comment --comment \"{SKIP_COMMENT}\" -j NOTRACK"
            ),
            &format!(
                "-A OTHER -s {ADDRESS}/32 -p udp --sport 53 -m comment --comment \"{SKIP_COMMENT}\" -j NOTRACK"
            ),
            "-A OUTPUT -s",
            "",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
    }

    #[test]
    fn a_rule_of_ours_in_another_shape_is_seen_to_be_ours() {
        for rest in ["-j DROP", "-i eth0 -j NOTRACK", "-m socket -j NOTRACK", "! --sport 53 -j NOTRACK"] {
            let line = format!(
                "-A OUTPUT -s {ADDRESS}/32 -p udp --sport 53 -m comment --comment \"{SKIP_COMMENT}\" {rest}"
            );
            assert_eq!(of(&line), Some(None), "{line}");
        }
    }

    #[test]
    fn a_held_lock_and_a_missing_privilege_are_told_apart() {
        let held =
            "Another app is currently holding the xtables lock; still 4s 0us time ahead to have a chance";
        assert_eq!(kind_of(Some(4), held), RulesErrorKind::Locked);
        let denied = "iptables v1.8.9 (nf_tables): Could not fetch rule set generation id: Permission denied (you must be root)";
        assert_eq!(kind_of(Some(4), denied), RulesErrorKind::Permission);
        assert_eq!(
            kind_of(Some(1), "Bad rule (does a matching rule exist in that chain?)."),
            RulesErrorKind::Other
        );
    }

    #[test]
    fn words_are_split_as_a_shell_does() {
        assert_eq!(
            split(r#"-A X --comment "a \"b\" c"  "" d"#),
            ["-A", "X", "--comment", "a \"b\" c", "", "d"]
        );
        assert_eq!(split("\"unfinished"), ["unfinished"]);
        assert_eq!(split("\\"), [""]);
    }
}
