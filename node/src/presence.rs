//! Two agents on one node: during an update of the DaemonSet the new one starts before the old one ends.
//!
//! | who is there | who looks after the node | who may clear it |
//! | --- | --- | --- |
//! | one | it | it, when it ends |
//! | several | the one that came last: its command line is the one that is to be | none of those that leave while another stays |
//!
//! Each shows that it is there by a name (see [`names`]) that holds the interface; nothing is ever sent. Whoever leaves takes
//! its own name away first and looks then, so of two that leave at once at least one sees that it was the last.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::{Mutex, PoisonError};

use crate::names;

/// Before the interface's name in a socket's name.
const PREFIX: &str = "nodens-node/";

/// That this process is there.
#[derive(Debug)]
pub struct Presence {
    group: String,
    /// The part of the name that says since when; later is greater.
    since: String,
    /// The name exists as long as this is open.
    socket: Mutex<Option<UnixDatagram>>,
}

impl Presence {
    /// Shows that an agent is there for this interface from now on.
    pub fn show(interface: &str) -> io::Result<Presence> {
        let group = group(interface);
        let (since, socket) = names::show(&group, UnixDatagram::bind_addr)?;
        Ok(Presence { group, since, socket: Mutex::new(Some(socket)) })
    }

    /// Whether an agent is there that came later than this one.
    pub fn is_relieved(&self) -> bool {
        names::shown(&self.group).iter().any(|since| *since > self.since)
    }

    /// Takes the name away. Returns whether another agent stays, so that nothing may be cleared away; may be asked again.
    pub fn leave(&self) -> bool {
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = None;
        names::shown(&self.group).iter().any(|since| *since != self.since)
    }
}

/// Whether an agent is there for this interface.
pub fn is_anybody_there(interface: &str) -> bool {
    !names::shown(&group(interface)).is_empty()
}

fn group(interface: &str) -> String {
    format!("{PREFIX}{interface}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_later_relieves_who_came_before_and_nobody_clears_while_another_stays() {
        let interface = format!("t{}", std::process::id());
        let first = Presence::show(&interface).expect("an abstract socket");
        assert!(!first.is_relieved());
        let second = Presence::show(&interface).expect("another one");
        assert!(first.is_relieved());
        assert!(!second.is_relieved());
        assert!(first.leave(), "the second stays");
        assert!(!second.is_relieved());
        assert!(!second.leave(), "nobody stays");
    }

    #[test]
    fn the_last_one_to_come_may_leave_first() {
        let interface = format!("u{}", std::process::id());
        let first = Presence::show(&interface).expect("an abstract socket");
        let second = Presence::show(&interface).expect("another one");
        assert!(second.leave());
        assert!(!first.is_relieved(), "it looks after the node again");
        assert!(!first.leave());
    }
}
