//! Least privilege: what the process gives up before it answers anything, and what its threads keep.
//!
//! | started as | packet rules by | control thread | workers |
//! | --- | --- | --- | --- |
//! | root | nftables, or none | [`UID`], NET_ADMIN, NET_BIND_SERVICE | [`UID`], nothing |
//! | root | iptables | UID 0 with files and sockets as [`UID`]; NET_RAW, SETUID, SETGID besides | [`UID`], nothing |
//! | root, `-user keep`, or CAP_SETUID or CAP_SETGID is missing | any | UID 0 with the same capabilities | UID 0, nothing |
//! | another user | any | that user, with what it has of the same capabilities | that user, nothing |
//!
//! NET_ADMIN is kept only if there is a node to set up. No thread can ever gain anything (`no_new_privs`).
//!
//! **Every socket belongs to one user.** The kernel lets two processes share a port only if one user opened both sockets, and sockets
//! are opened at the start and at every reload. If the first were root's and the later ones not, neither reload nor
//! overlap would work. So NET_BIND_SERVICE stays, and a start that binds before the change of user (see `run::claim`)
//! does so as the user that it will be ([`as_owner_of_sockets`]).
//!
//! In Linux all of this belongs to a thread, and a new thread has what its parent had. So the change is made while
//! the process has a single thread, and workers are started by a thread that has given up the rest ([`Bare`]).
//! Threads share their memory: whoever can run code of its own in a worker can get at the control thread. What this
//! prevents is that a worker is *made* to ask the kernel for something.

pub mod sandbox;
mod thread;

use std::fs::{OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::thread::CapabilitySet;

use thread::Standing;

/// The user that the agent becomes, and its group. One of its own: whoever has the same UID may share our ports and
/// take a part of the queries, so it is none of those that images usually run as (1000, 65532, 65534).
pub const UID: u32 = 65_053;

/// What the control thread needs while it serves.
const TO_SERVE: CapabilitySet = CapabilitySet::NET_BIND_SERVICE;
/// In addition for interface, ICMP limit and packet rules.
const TO_SET_UP: CapabilitySet = CapabilitySet::NET_ADMIN;
/// In addition for the programs of iptables, which ask for a raw socket; and to be another user in workers than here.
const FOR_IPTABLES: CapabilitySet =
    CapabilitySet::NET_RAW.union(CapabilitySet::SETUID).union(CapabilitySet::SETGID);
/// To become another user.
const TO_CHANGE: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::SETGID);

/// Those that are named in the log, as operators write them.
const NAMES: [(CapabilitySet, &str); 5] = [
    (CapabilitySet::NET_ADMIN, "NET_ADMIN"),
    (CapabilitySet::NET_BIND_SERVICE, "NET_BIND_SERVICE"),
    (CapabilitySet::NET_RAW, "NET_RAW"),
    (CapabilitySet::SETUID, "SETUID"),
    (CapabilitySet::SETGID, "SETGID"),
];

/// Everybody may write a file of ours that cannot be given to our user; node-cache's mode.
const MODE_FOR_ALL: u32 = 0o666;

/// Which user is asked for (`-user`).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// This one, if the agent was started as root.
    Become(u32),
    /// Whoever started it.
    Keep,
}

/// What the process is going to do, as far as privileges go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// As whom.
    pub user: User,
    /// There is a node to set up.
    pub sets_up: bool,
    /// Its packet rules are written by the programs of iptables, which must be root's.
    pub iptables: bool,
    /// Files that are written later on.
    pub writes: Vec<PathBuf>,
}

/// Who is who from now on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Change {
    Nobody,
    /// All threads are this user.
    All(u32),
    /// Workers are, and files and sockets of the control thread are this user's.
    AllButControl(u32),
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
struct Decision {
    change: Change,
    keep: CapabilitySet,
    complaint: Option<String>,
}

/// How threads are started that need nothing. Can be copied to wherever workers are started.
#[derive(Copy, Clone, Debug, Default)]
pub struct Bare {
    become_user: Option<u32>,
}

/// What was given up.
#[derive(Debug)]
pub struct SteppedDown {
    /// For the threads that need nothing.
    pub bare: Bare,
    /// Who owns sockets.
    pub user: u32,
    /// Programs of iptables are started later.
    pub iptables: bool,
    /// Who is who now, for the log.
    pub kept: String,
    /// What is missing, or could not be given up, and what to do.
    pub complaints: Vec<String>,
}

/// Gives up what is not needed. To be called before there is a second thread. Whatever cannot be given up is a line.
pub fn step_down(needs: &Needs) -> SteppedDown {
    let standing = match thread::standing() {
        Ok(standing) => standing,
        Err(error) => {
            let kept = format!("privileges: cannot be looked at, and stay as they are: {error}");
            return SteppedDown {
                bare: Bare::default(),
                user: 0,
                iptables: needs.iptables,
                kept,
                complaints: Vec::new(),
            };
        }
    };
    let Decision { change, keep, complaint } = decide(standing, needs);
    let mut complaints = Vec::from_iter(complaint);
    let bare = Bare {
        become_user: match change {
            Change::AllButControl(uid) => Some(uid),
            Change::Nobody | Change::All(_) => None,
        },
    };
    if let Change::All(uid) | Change::AllButControl(uid) = change {
        needs.writes.iter().for_each(|path| hand_over(path, uid));
    }
    let mut failed = |what: &str, error: io::Error| {
        complaints.push(format!("privileges: cannot {what}: {error}"));
    };
    thread::forget_all_but(keep, standing);
    let changed = match change {
        Change::Nobody => Ok(()),
        Change::All(uid) => thread::become_user(uid),
        Change::AllButControl(uid) => thread::open_as(uid),
    };
    changed.unwrap_or_else(|error| failed("become another user", error));
    thread::keep(keep).unwrap_or_else(|error| failed("give up capabilities", error));
    thread::no_new_privileges().unwrap_or_else(|error| failed("set no_new_privs", error));
    let user = match change {
        Change::Nobody => standing.uid,
        Change::All(uid) | Change::AllButControl(uid) => uid,
    };
    SteppedDown { bare, user, iptables: needs.iptables, kept: said(change, keep, standing), complaints }
}

/// Opens sockets for the user who will own all of them, before that change is made.
pub fn as_owner_of_sockets<T>(user: User, open: impl FnOnce() -> T) -> T {
    let needs = Needs { user, sets_up: false, iptables: false, writes: Vec::new() };
    let change = thread::standing().map(|standing| decide(standing, &needs).change);
    match change {
        Ok(Change::All(uid)) => thread::opening_as(uid, open),
        // Whom nothing changes, and who cannot be looked at, is the owner already.
        _ => open(),
    }
}

fn decide(standing: Standing, needs: &Needs) -> Decision {
    let mut wanted = TO_SERVE;
    if needs.sets_up {
        wanted |= TO_SET_UP;
    }
    let is_root = standing.uid == 0;
    let may_change = standing.permitted.contains(TO_CHANGE);
    let mut complaints = Vec::new();
    let change = match needs.user {
        User::Become(uid) if uid == standing.uid => Change::Nobody,
        User::Become(_) if !is_root => Change::Nobody,
        User::Become(uid) if !may_change => {
            complaints.push(format!(
                "the agent stays root: CAP_SETUID and CAP_SETGID are needed to become UID {uid}; grant them, start as \
                 that user, or say `-user keep`"
            ));
            Change::Nobody
        }
        User::Become(uid) if needs.iptables => {
            wanted |= FOR_IPTABLES;
            Change::AllButControl(uid)
        }
        User::Become(uid) => Change::All(uid),
        User::Keep => Change::Nobody,
    };
    if needs.iptables {
        wanted |= CapabilitySet::NET_RAW;
    }
    if needs.sets_up && !standing.permitted.contains(TO_SET_UP) {
        complaints.push(
            "CAP_NET_ADMIN is missing, without which no interface and no packet rules can be made; DNS is served all the same"
                .to_owned(),
        );
    }
    let complaint = (!complaints.is_empty()).then(|| format!("privileges: {}", complaints.join("; ")));
    Decision { change, keep: wanted & standing.permitted, complaint }
}

fn said(change: Change, keep: CapabilitySet, standing: Standing) -> String {
    let names: Vec<_> = NAMES.iter().filter(|(one, _)| keep.contains(*one)).map(|(_, name)| *name).collect();
    let kept = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    let user = match change {
        Change::Nobody => format!("UID {}", standing.uid),
        Change::All(uid) => format!("UID {uid}"),
        Change::AllButControl(uid) => {
            format!("UID {uid}, but the control thread stays root because iptables wants that")
        }
    };
    format!("privileges: {user}; the control thread keeps {kept}, workers keep nothing")
}

/// Whether this user may make files here, as far as owner and mode tell.
fn may_write_in(directory: &Path, uid: u32) -> bool {
    let of_all = |mode: u32| mode & 0o002 != 0;
    std::fs::metadata(directory).is_ok_and(|found| of_all(found.mode()) || found.uid() == uid)
}

/// Makes a file that this user may write, where that user could not make it. If that fails, whoever writes it says so.
fn hand_over(path: &Path, uid: u32) {
    if path.parent().is_some_and(|directory| may_write_in(directory, uid)) && !path.exists() {
        return;
    }
    let is_there = OpenOptions::new().append(true).create(true).open(path).is_ok();
    if is_there && chown(path, Some(uid), Some(uid)).is_err() {
        let _ = std::fs::set_permissions(path, Permissions::from_mode(MODE_FOR_ALL));
    }
}

impl Bare {
    /// Runs `task` on a thread that has given up everything, for good; so have all threads that it starts.
    pub fn run<T: Send>(self, task: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let bare = std::thread::Builder::new().name("nodens-bare".to_owned()).spawn_scoped(
                scope,
                move || {
                    if let Some(uid) = self.become_user {
                        thread::become_user(uid)?;
                    }
                    thread::keep(CapabilitySet::empty())?;
                    thread::no_new_privileges()?;
                    Ok(task())
                },
            )?;
            bare.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

#[cfg(test)]
mod tests;
