//! nodens-node: the node's own side of a node-local DNS.
//!
//! Pods ask an address that exists on every node. Somebody has to put it there, keep it there whatever others do to
//! it, have connection tracking pass the node's DNS, and leave the node so that Pods lose no more than one round trip
//! when the agent is gone.
//!
//! ```text
//! desired (flags) ─┐
//!                  ├─► plan (pure) ─► steps ─► the kernel
//! observed (kernel)┘        ▲                     │
//!                           └──── events ◄────────┘
//! ```
//!
//! | module | what it is |
//! | --- | --- |
//! | [`desired`], [`observed`] | the node as it should be and as it is, as values |
//! | [`mod@plan`] | from both to steps, and to sentences about what is left alone |
//! | [`link`] | the interface and its addresses, over rtnetlink |
//! | [`rules`] | packet rules: nftables over netlink, or the programs of iptables |
//! | [`icmp`] | the kernel's limit on ICMP errors |
//! | [`node`] | the executor: look, plan, carry out, look again |
//! | [`events`], [`keeper`] | what others do to the node, and putting it right |
//! | [`presence`], [`names`] | two agents on one node |
//!
//! It knows nothing of DNS but the number of its port, and nothing of the agent.
#![forbid(unsafe_code)]

pub mod desired;
pub mod events;
pub mod icmp;
pub mod keeper;
pub mod link;
pub mod names;
mod netlink;
pub mod node;
pub mod observed;
pub mod plan;
pub mod presence;
pub mod rules;

pub use desired::{Desired, Ports, RulesWish, Wish};
pub use events::Events;
pub use keeper::{Figures, Keeper, Report};
pub use node::{Failure, FailureKind, Node, Outcome, Part};
pub use observed::{IcmpFamily, LinkKind, Mark, Observed};
pub use plan::{Plan, Step, plan};
pub use presence::{Presence, is_anybody_there};
pub use rules::{BackEnd, BackEndChoice};
