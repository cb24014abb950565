//! The executor: looks at the node, plans, and carries the plan out until there is nothing left to do.
//!
//! A step that fails ends its own part (interface, ICMP limit or rules) and nothing else, and is told in one
//! sentence; whatever can be had is had. After the steps the node is looked at again, so a success is one that was
//! seen.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::desired::{Desired, RulesWish, Wish};
use crate::icmp;
use crate::link::{Links, has_ipv6};
use crate::observed::{LinkKind, Mark, Observed};
use crate::plan::{Plan, Step, plan};
use crate::rules::{
    BackEnd, BackEndChoice, Iptables, Nftables, PacketRules, Programs, RulesError, RulesErrorKind, choose,
    rules_for,
};

/// Looks and plans until there is nothing to do: once for the plan, once for each kind of link that turns out to be
/// missing, once to see that it worked, and one more because somebody may have been at it meanwhile.
const ROUNDS_MAX: usize = 5;

/// This node.
pub struct Node {
    choice: BackEndChoice,
    programs: Programs,
    icmp_folder: PathBuf,
    links: Links,
    rules: Option<Box<dyn PacketRules>>,
    missing_kinds: Vec<LinkKind>,
    /// As in [`Observed`].
    last_mark: Option<Mark>,
    /// What the choice of a back end had to say.
    choice_remarks: Vec<String>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was done, in this order.
    pub done: Vec<Step>,
    /// What was found and left alone.
    pub remarks: Vec<String>,
    /// What went wrong.
    pub failures: Vec<Failure>,
    /// Which back end was chosen just now, and why.
    pub chosen: Option<String>,
}

/// Something that could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of thing.
    pub kind: FailureKind,
    /// What, why, and what to do.
    pub text: String,
}

/// The kinds of failures that are counted; node-cache's where it has them.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Packet rules, of either back end.
    Rules,
    /// The lock of iptables was held by somebody else.
    RulesLock,
    /// Interface or address could not be made or removed.
    InterfaceAdd,
    /// They could not be looked at.
    InterfaceCheck,
    /// The ICMP limit.
    Sysctl,
}

impl FailureKind {
    /// All.
    pub const ALL: [FailureKind; 5] = [
        FailureKind::Rules,
        FailureKind::RulesLock,
        FailureKind::InterfaceAdd,
        FailureKind::InterfaceCheck,
        FailureKind::Sysctl,
    ];

    /// The value of the label `errortype`.
    pub const fn label(self) -> &'static str {
        match self {
            FailureKind::Rules => "iptables",
            FailureKind::RulesLock => "iptables_lock",
            FailureKind::InterfaceAdd => "interface_add",
            FailureKind::InterfaceCheck => "interface_check",
            FailureKind::Sysctl => "sysctl",
        }
    }
}

/// The parts of a node that fail independently of each other.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Interface and addresses.
    Interface,
    /// ICMP limits.
    Sysctl,
    /// Packet rules.
    Rules,
}

impl Part {
    /// All.
    pub const ALL: [Part; 3] = [Part::Interface, Part::Sysctl, Part::Rules];

    /// The value of the label `part`.
    pub const fn label(self) -> &'static str {
        match self {
            Part::Interface => "interface",
            Part::Sysctl => "sysctl",
            Part::Rules => "rules",
        }
    }
}

impl Step {
    /// The part that it belongs to.
    pub const fn part(&self) -> Part {
        match self {
            Step::CreateLink(..)
            | Step::MarkLink(..)
            | Step::SetUp(_)
            | Step::AddAddress(..)
            | Step::RemoveAddress(..)
            | Step::RemoveLink(_) => Part::Interface,
            Step::SetIcmp(..) => Part::Sysctl,
            Step::ReplaceTable(_) | Step::RemoveTable | Step::AddRule(_) | Step::RemoveRule(_) => Part::Rules,
        }
    }
}

impl Node {
    /// To be called within a tokio runtime.
    pub fn open(choice: BackEndChoice) -> io::Result<Node> {
        Ok(Node {
            choice,
            programs: Programs::find(),
            icmp_folder: icmp::folder(),
            links: Links::open()?,
            rules: None,
            missing_kinds: Vec::new(),
            last_mark: None,
            choice_remarks: Vec::new(),
        })
    }

    /// The back end, once it was chosen.
    pub fn back_end(&self) -> Option<BackEnd> {
        self.rules.as_ref().map(|rules| rules.back_end())
    }

    /// What would be done. Changes nothing.
    pub async fn plan(&mut self, desired: &Desired) -> (Plan, Outcome) {
        let mut outcome = Outcome::default();
        let observed = self.observe(desired, &mut outcome).await;
        let plan = plan(&observed, desired);
        outcome.remarks = self.remarks(&plan);
        (plan, outcome)
    }

    /// Makes the node so.
    pub async fn reach(&mut self, desired: &Desired) -> Outcome {
        let mut outcome = self.reach_by_chosen(desired).await;
        if self.back_end() == Some(BackEnd::Iptables) {
            outcome.append(self.reach_beside_iptables(desired).await);
        }
        outcome
    }

    /// Where rules are written by iptables, our table of nftables holds what iptables cannot do, forwarding while the agent is away, and
    /// nothing else: an earlier run's rules go.
    async fn reach_beside_iptables(&mut self, desired: &Desired) -> Outcome {
        let rules = match &desired.rules {
            RulesWish::LeaveAlone => return Outcome::default(),
            RulesWish::Serve(_) | RulesWish::Absent => RulesWish::Absent,
            RulesWish::Forward { .. } => desired.rules.clone(),
        };
        let mut table = Nftables::default();
        if rules == RulesWish::Absent {
            // What the kernel does not have, or does not show us, holds nothing that we could remove.
            let found = table.observe(&[], &[]).await;
            if !found.is_ok_and(|found| found.present) {
                return Outcome::default();
            }
        }
        let wish =
            Desired { link: Wish::LeaveAlone, unthrottled: Wish::LeaveAlone, rules, ..desired.clone() };
        let chosen = self.rules.replace(Box::new(table));
        let outcome = self.reach_by_chosen(&wish).await;
        self.rules = chosen;
        outcome
    }

    async fn reach_by_chosen(&mut self, desired: &Desired) -> Outcome {
        let mut outcome = Outcome::default();
        for _ in 0..ROUNDS_MAX {
            let failed_before = outcome.failures.len();
            let observed = self.observe(desired, &mut outcome).await;
            let plan = plan(&observed, desired);
            outcome.remarks = self.remarks(&plan);
            if plan.steps.is_empty() {
                break;
            }
            self.carry_out(plan.steps, &mut outcome).await;
            if outcome.failures.len() > failed_before {
                break;
            }
        }
        outcome
    }

    /// Removes what is ours.
    pub async fn remove(&mut self, desired: &Desired) -> Outcome {
        let desired = desired.removed();
        let mut outcome = Outcome::default();
        if desired.rules != RulesWish::LeaveAlone {
            outcome = self.remove_rules(&desired).await;
        }
        outcome.append(self.reach(&Desired { rules: RulesWish::LeaveAlone, ..desired }).await);
        outcome
    }

    /// Removes our rules, whichever back end wrote them: an earlier run may have chosen differently.
    pub async fn remove_rules(&mut self, desired: &Desired) -> Outcome {
        let wish = Desired {
            link: Wish::LeaveAlone,
            rules: RulesWish::Absent,
            unthrottled: Wish::LeaveAlone,
            ..desired.clone()
        };
        let mut all: Vec<Box<dyn PacketRules>> = vec![Box::new(Nftables::default())];
        let newer = Some(self.programs.clone()).filter(Programs::are_there);
        for programs in newer.into_iter().chain(self.programs.older()) {
            all.push(Box::new(Iptables::new(programs)));
        }
        let mut outcome = Outcome::default();
        let chosen = self.rules.take();
        let is_ours_by_nftables = chosen.as_ref().is_some_and(|rules| rules.back_end() == BackEnd::Nftables);
        for mut rules in all {
            let is_of_earlier = is_ours_by_nftables && rules.back_end() == BackEnd::Iptables;
            let is_nothing = |error: RulesError| match error.kind {
                // What the kernel does not have holds nothing of ours.
                RulesErrorKind::Unsupported => true,
                // The programs of iptables want root, which whoever writes by nftables may have given up. An earlier
                // run's rules are then for `nodens node remove`.
                RulesErrorKind::Permission => is_of_earlier,
                RulesErrorKind::Locked | RulesErrorKind::Other => false,
            };
            let found = rules.observe(&[], &desired.addresses).await;
            if found.is_err_and(is_nothing) {
                continue;
            }
            self.rules = Some(rules);
            outcome.append(self.reach(&wish).await);
        }
        self.rules = chosen;
        outcome
    }

    fn remarks(&self, plan: &Plan) -> Vec<String> {
        plan.remarks.iter().chain(&self.choice_remarks).cloned().collect()
    }

    async fn observe(&mut self, desired: &Desired, outcome: &mut Outcome) -> Observed {
        let mut observed = Observed {
            link: None,
            last_mark: None,
            elsewhere: Vec::new(),
            missing_kinds: self.missing_kinds.clone(),
            ipv6: has_ipv6(),
            rules: None,
            icmp: Vec::new(),
        };
        if desired.link != Wish::LeaveAlone || desired.unthrottled != Wish::LeaveAlone {
            match self.links.observe(desired).await {
                Ok(found) => (observed.link, observed.elsewhere) = (found.link, found.elsewhere),
                Err(error) => {
                    outcome.fail(FailureKind::InterfaceCheck, format!("cannot look at interfaces: {error}"));
                }
            }
        }
        if let Some(mark) = observed.link.as_ref().and_then(|link| link.mark.clone()) {
            self.last_mark = Some(mark);
        }
        observed.last_mark.clone_from(&self.last_mark);
        if desired.unthrottled != Wish::LeaveAlone {
            observed.icmp = icmp::read(&self.icmp_folder);
        }
        if desired.rules != RulesWish::LeaveAlone {
            match self.observe_rules(desired, observed.ipv6, outcome).await {
                Ok(found) => observed.rules = Some(found),
                Err(error) => outcome.fail_rules(error),
            }
        }
        observed
    }

    async fn observe_rules(
        &mut self,
        desired: &Desired,
        ipv6: bool,
        outcome: &mut Outcome,
    ) -> Result<crate::observed::ObservedRules, RulesError> {
        let usable = |address: &std::net::IpAddr| ipv6 || address.is_ipv4();
        let addresses: Vec<_> = desired.addresses.iter().copied().filter(usable).collect();
        let rules = match &mut self.rules {
            Some(rules) => rules,
            none => {
                let (wanted, _) = rules_for(&desired.rules, &addresses, BackEnd::Nftables);
                let chosen = choose(self.choice, &wanted, &self.programs).await?;
                outcome.chosen = Some(chosen.reason);
                self.choice_remarks = chosen.remarks;
                none.insert(chosen.rules)
            }
        };
        let (wanted, _) = rules_for(&desired.rules, &addresses, rules.back_end());
        rules.observe(&wanted, &addresses).await
    }

    async fn carry_out(&mut self, steps: Vec<Step>, outcome: &mut Outcome) {
        let mut failed: Vec<Part> = Vec::new();
        let mut rules = Vec::new();
        let rules_first = steps.first().is_some_and(|step| step.part() == Part::Rules);
        let (rule_steps, other_steps): (Vec<Step>, Vec<Step>) =
            steps.into_iter().partition(|step| step.part() == Part::Rules);
        rules.extend(rule_steps);
        if rules_first {
            self.write_rules(std::mem::take(&mut rules), outcome).await;
        }
        for step in other_steps {
            if failed.contains(&step.part()) {
                continue;
            }
            let done = match &step {
                Step::SetIcmp(family, value) => icmp::write(&self.icmp_folder, *family, value),
                step => self.links.apply(step).await,
            };
            match (done, &step) {
                (Ok(()), done) => {
                    if let Step::MarkLink(_, mark) = done {
                        self.last_mark = Some(mark.clone());
                    }
                    outcome.done.push(step);
                }
                (Err(error), Step::CreateLink(_, kind)) if error.raw_os_error() == Some(EOPNOTSUPP) => {
                    // Not a failure: the next round takes the next kind. Nothing may go before it: the limits on ICMP
                    // have to be remembered on the interface.
                    self.missing_kinds.push(*kind);
                    return;
                }
                (Err(error), step) => {
                    failed.push(step.part());
                    let (kind, advice) = advice(step.part(), &error);
                    outcome.fail(kind, format!("cannot do `{step}`: {error}; {advice}"));
                }
            }
        }
        self.write_rules(rules, outcome).await;
    }

    async fn write_rules(&mut self, steps: Vec<Step>, outcome: &mut Outcome) {
        let Some(rules) = self.rules.as_mut().filter(|_| !steps.is_empty()) else { return };
        match rules.apply(&steps).await {
            Ok(()) => outcome.done.extend(steps),
            Err(error) => outcome.fail_rules(error),
        }
    }
}

fn advice(part: Part, error: &io::Error) -> (FailureKind, &'static str) {
    let denied = error.kind() == io::ErrorKind::PermissionDenied;
    match part {
        Part::Sysctl if denied || error.raw_os_error() == Some(EROFS) => (
            FailureKind::Sysctl,
            "mount the host's /proc/sys/net writable at /host/net-sysctl, or say -seticmpratemask=false",
        ),
        Part::Sysctl => (FailureKind::Sysctl, "say -seticmpratemask=false to leave it"),
        Part::Interface if denied => {
            (FailureKind::InterfaceAdd, "grant CAP_NET_ADMIN, or say -setupinterface=false")
        }
        Part::Interface | Part::Rules => (FailureKind::InterfaceAdd, "it is tried again"),
    }
}

/// The kernel has no driver for such a link.
const EOPNOTSUPP: i32 = 95;
/// A read-only file system.
const EROFS: i32 = 30;

impl Outcome {
    /// What is said of something that is given up waiting for.
    pub fn late(patience: Duration) -> Outcome {
        let mut outcome = Outcome::default();
        let text = format!(
            "the kernel or the lock of iptables took longer than {patience:?}; what is left, `nodens node remove` removes"
        );
        outcome.fail(FailureKind::Rules, text);
        outcome
    }

    fn fail(&mut self, kind: FailureKind, text: String) {
        self.failures.push(Failure { kind, text });
    }

    fn fail_rules(&mut self, error: RulesError) {
        let kind = match error.kind {
            RulesErrorKind::Locked => FailureKind::RulesLock,
            _ => FailureKind::Rules,
        };
        self.fail(kind, error.text);
    }

    fn append(&mut self, other: Outcome) {
        self.done.extend(other.done);
        self.remarks.extend(other.remarks);
        self.failures.extend(other.failures);
        self.chosen = self.chosen.take().or(other.chosen);
    }
}
