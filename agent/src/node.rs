//! The node's own side of the agent: what the command line wishes of the node, and when.
//!
//! | when | done |
//! | --- | --- |
//! | before the Corefile is read | interface, addresses, ICMP limit |
//! | `/ready` answers 200 | packet rules |
//! | meanwhile | what others destroy is made again |
//! | told to end, or ended | rules away, or (`-forwardonexit`) rules that send queries to the upstream |
//! | drained | interface and addresses away |
//!
//! With `-skipteardown`, and while another agent is on this node, the last two leave everything as it is. No step of
//! them waits for longer than its patience, so a lock that somebody holds does not keep the agent from ending.
//! Whatever fails here is a line and a count: DNS is served whenever its sockets can be bound.

mod command;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nodens_node::rules::{Programs, choose, rules_for};
use nodens_node::{
    BackEnd, Desired, Events, Figures, Keeper, Node, Outcome, Ports, Presence, Report, RulesWish, Step, Wish,
};

use crate::cli::RunOptions;
use crate::log::{Level, LineSink, Log};

pub use command::run;

/// How long the rules may take to go. Together with the grace for queries in flight (5 s) and [`LINK_PATIENCE`] an
/// end without `lameduck` takes 8 s at most.
const RULES_PATIENCE: Duration = Duration::from_secs(2);
/// How long the interface may take to go.
const LINK_PATIENCE: Duration = Duration::from_secs(1);

/// A node that is being looked after.
pub struct NodeSide {
    keeper: Keeper,
    presence: Arc<Presence>,
    /// While the agent serves.
    desired: Desired,
    skip_teardown: bool,
    forward_on_exit: bool,
    quiet: bool,
    /// The rules are dealt with.
    withdrawn: bool,
    /// What was said once; the same is found again with each order.
    told: BTreeSet<String>,
}

/// The wish that a command line is.
pub fn desired(options: &RunOptions) -> Desired {
    let wish = |is_wished| if is_wished { Wish::Present } else { Wish::LeaveAlone };
    let ports = Ports { dns: options.dns_port, health: options.health_port };
    Desired {
        interface: options.interfacename.clone(),
        addresses: options.localip.clone(),
        link: wish(options.setupinterface),
        rules: if options.setupiptables { RulesWish::Serve(ports) } else { RulesWish::LeaveAlone },
        unthrottled: wish(options.seticmpratemask),
    }
}

/// Whether the command line wishes anything of the node.
fn is_idle(desired: &Desired) -> bool {
    let nothing = desired.link == Wish::LeaveAlone
        && desired.rules == RulesWish::LeaveAlone
        && desired.unthrottled == Wish::LeaveAlone;
    desired.addresses.is_empty() || nothing
}

/// What setting up the node takes: whether there is anything to do, and whether iptables' programs do it, as far as
/// can be told now. To be called within the control thread's event loop.
pub async fn takes(options: &RunOptions) -> (bool, bool) {
    let desired = desired(options);
    if is_idle(&desired) {
        return (false, false);
    }
    let programs = Programs::find();
    if desired.rules == RulesWish::LeaveAlone || !programs.are_there() {
        return (true, false);
    }
    let (wanted, _) = rules_for(&desired.rules, &desired.addresses, BackEnd::Nftables);
    let chosen = choose(options.packetrules, &wanted, &programs).await;
    (true, chosen.is_ok_and(|chosen| chosen.rules.back_end() == BackEnd::Iptables))
}

impl NodeSide {
    /// Makes interface and addresses; `None` if nothing is wished for or nothing can be done. To be called within the
    /// control thread's event loop.
    pub async fn begin<S: LineSink>(options: &RunOptions, log: &mut Log<S>) -> Option<NodeSide> {
        let desired = desired(options);
        if is_idle(&desired) {
            return None;
        }
        let opened = Node::open(options.packetrules)
            .and_then(|node| Ok((node, Events::open()?, Presence::show(&options.interfacename)?)));
        let (node, events, presence) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let text = "cannot set up the node: no netlink or unix socket is to be had";
                log.say(Level::Error, format_args!("{text} ({error}); the DNS service starts without"));
                return None;
            }
        };
        let presence = Arc::new(presence);
        let keeper = Keeper::start(node, events, Arc::clone(&presence), options.syncinterval);
        let mut side = NodeSide {
            keeper,
            presence,
            desired,
            skip_teardown: options.skipteardown,
            forward_on_exit: options.forwardonexit,
            quiet: options.quiet,
            withdrawn: false,
            told: BTreeSet::new(),
        };
        let outcome = side.keeper.reach(side.without_rules()).await;
        side.say(&outcome, log);
        Some(side)
    }

    /// The numbers of it.
    pub fn figures(&self) -> Arc<Figures> {
        Arc::clone(&self.keeper.figures)
    }

    /// Writes the rules: somebody answers now.
    pub async fn install_rules(&self) -> Outcome {
        self.keeper.reach(self.desired.clone()).await
    }

    /// Waits until there is something to tell; see [`Self::tell`].
    pub async fn report(&mut self) -> Report {
        self.keeper.report().await
    }

    /// Takes the rules away while answers still go out, or has them send queries to the first of `upstreams` of each
    /// family.
    pub async fn withdraw(&mut self, upstreams: Vec<SocketAddr>) -> Outcome {
        self.withdrawn = true;
        let stays = self.presence.leave();
        let rules = match (&self.desired.rules, stays) {
            (RulesWish::Serve(ports), false) if self.forward_on_exit => {
                RulesWish::Forward { ports: *ports, upstreams }
            }
            (RulesWish::Serve(_), false) if !self.skip_teardown => RulesWish::Absent,
            _ => {
                // A keeper that waits for a lock hears it later, or never: then it ends with us.
                let _ = tokio::time::timeout(LINK_PATIENCE, self.keeper.rest()).await;
                return Outcome::default();
            }
        };
        let wish = Desired { link: Wish::LeaveAlone, unthrottled: Wish::LeaveAlone, ..self.desired.clone() };
        if rules == RulesWish::Absent {
            in_time(RULES_PATIENCE, self.keeper.remove_rules(wish)).await
        } else {
            in_time(RULES_PATIENCE, self.keeper.reach(Desired { rules, ..wish })).await
        }
    }

    /// Takes the interface away, unless it is to stay or another agent needs it; before that the rules, if that was
    /// not done.
    pub async fn leave<S: LineSink>(mut self, log: &mut Log<S>) {
        if !self.withdrawn {
            let outcome = self.withdraw(Vec::new()).await;
            self.say(&outcome, log);
        }
        if self.skip_teardown || self.presence.leave() || self.desired.link != Wish::Present {
            return;
        }
        let wish = Desired { rules: RulesWish::LeaveAlone, ..self.desired.removed() };
        let outcome = in_time(LINK_PATIENCE, self.keeper.reach(wish)).await;
        self.say(&outcome, log);
    }

    fn without_rules(&self) -> Desired {
        Desired { rules: RulesWish::LeaveAlone, ..self.desired.clone() }
    }

    /// What came of an order.
    pub fn say<S: LineSink>(&mut self, outcome: &Outcome, log: &mut Log<S>) {
        if let Some(chosen) = outcome.chosen.as_ref().filter(|_| !self.quiet) {
            log.say(Level::Info, format_args!("packet rules by {chosen}"));
        }
        if !outcome.done.is_empty() && !self.quiet {
            log.say(Level::Info, format_args!("node: {}", in_short(&outcome.done)));
        }
        let remarks = outcome.remarks.iter().map(|remark| (Level::Warning, remark));
        let failures = outcome.failures.iter().map(|failure| (Level::Error, &failure.text));
        for (level, text) in remarks.chain(failures) {
            if self.told.insert(text.clone()) {
                log.say(level, format_args!("node: {text}"));
            }
        }
    }

    /// What was found on the way.
    pub fn tell<S: LineSink>(report: Report, log: &mut Log<S>) {
        match report {
            Report::Repaired(steps, untold) => {
                let more =
                    if untold == 0 { String::new() } else { format!(" ({untold} more repairs before)") };
                let text = "node: somebody changed it, and it was put right";
                log.say(Level::Warning, format_args!("{text}: {}{more}", steps.join("; ")));
            }
            Report::Failed(failure) => log.say(Level::Error, format_args!("node: {}", failure.text)),
            Report::Relieved => {
                log.say(Level::Info, "node: an agent that came later looks after it from now on");
            }
        }
    }
}

/// Steps in one line; a table by the number of its rules.
fn in_short(steps: &[Step]) -> String {
    let short = |step: &Step| {
        let text = step.to_string();
        text.lines().next().unwrap_or_default().trim_end_matches(':').to_owned()
    };
    steps.iter().map(short).collect::<Vec<_>>().join("; ")
}

async fn in_time(patience: Duration, what: impl Future<Output = Outcome>) -> Outcome {
    match tokio::time::timeout(patience, what).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::late(patience),
    }
}
