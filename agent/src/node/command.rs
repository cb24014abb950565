//! `nodens node plan|apply|remove`: what the agent does to the node, by hand.

use std::fmt::Write;

use nodens_node::{Node, Outcome, Wish, is_anybody_there};

use super::desired;
use crate::cli::{NodeOptions, NodeVerb};
use crate::run::{Failure, control_runtime};

/// Does it. The text is for standard output; a failure means that something could not be done.
pub fn run(options: &NodeOptions) -> Result<String, Failure> {
    let mut wish = desired(&options.flags);
    if options.verb == NodeVerb::Remove && is_anybody_there(&wish.interface) {
        return Err(Failure::Other(format!(
            "an agent looks after {} on this node and would make again what is removed: stop it first",
            wish.interface
        )));
    }
    control_runtime()?.block_on(async {
        let failed = |error| Failure::Other(format!("cannot ask the kernel: {error}"));
        let mut node = Node::open(options.flags.packetrules).map_err(failed)?;
        let (mut text, outcome) = match options.verb {
            NodeVerb::Plan => {
                let (plan, outcome) = node.plan(&wish).await;
                (plan.to_string(), outcome)
            }
            NodeVerb::Apply => {
                let outcome = node.reach(&wish).await;
                (done(&outcome, "nothing to do: the node is as it should be"), outcome)
            }
            NodeVerb::Remove => {
                // Whether it was this command line that lifted it, the mark on the interface says.
                wish.unthrottled = Wish::Present;
                let outcome = node.remove(&wish).await;
                (done(&outcome, "nothing to do: nothing of ours is on this node"), outcome)
            }
        };
        if let Some(chosen) = &outcome.chosen {
            let _ = writeln!(text, "packet rules by {chosen}");
        }
        if outcome.failures.is_empty() {
            return Ok(text);
        }
        // What was done is worth knowing, all the more if the rest was not.
        let failures: Vec<_> = outcome.failures.iter().map(|failure| failure.text.as_str()).collect();
        Err(Failure::Other(format!("{}\n{text}", failures.join("\nnodens: ")).trim_end().to_owned()))
    })
}

fn done(outcome: &Outcome, nothing: &str) -> String {
    let mut text = String::new();
    for step in &outcome.done {
        let _ = writeln!(text, "{step}");
    }
    for remark in &outcome.remarks {
        let _ = writeln!(text, "! {remark}");
    }
    if outcome.done.is_empty() && outcome.failures.is_empty() {
        let _ = writeln!(text, "{nothing}");
    }
    text
}
