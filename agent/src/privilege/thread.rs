//! The system calls behind it. All of them are about the calling thread and no other.

use std::io;

use nix::unistd::setfsuid;
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

/// What the thread is and may.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Effective.
    pub(super) uid: u32,
    /// What it could use.
    pub(super) permitted: CapabilitySet,
}

/// Looks.
pub(super) fn standing() -> io::Result<Standing> {
    Ok(Standing { uid: geteuid().as_raw(), permitted: capabilities(None)?.permitted })
}

/// Takes out of reach what is not in `keep`, for programs that are started too. Best effort: it needs CAP_SETPCAP, and
/// without it `no_new_privs` says the same.
pub(super) fn forget_all_but(keep: CapabilitySet, standing: Standing) {
    if !standing.permitted.contains(CapabilitySet::SETPCAP) {
        return;
    }
    // All that there may be: the kernel refuses numbers that it does not know.
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if !keep.contains(one) && remove_capability_from_bounding_set(one).is_err() {
            break;
        }
    }
}

/// Becomes this user and the group of the same number, with no other groups. Capabilities stay permitted.
pub(super) fn become_user(id: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    set_keep_capabilities(true)?;
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(set_keep_capabilities(false)?)
}

/// Stays who it is, but opens files and sockets as this user. A program that is started does not inherit it. The group
/// stays root's: the list of iptables' tables (`ip_tables_names`) can be read by that group only.
pub(super) fn open_as(id: u32) -> io::Result<()> {
    set_thread_groups(&[])?;
    setfsuid(id.into());
    // The call has no error; asking again tells.
    match setfsuid(id.into()).as_raw() == id {
        true => Ok(()),
        false => Err(io::ErrorKind::PermissionDenied.into()),
    }
}

/// Runs `open` as the user who opens files and sockets.
pub(super) fn opening_as<T>(id: u32, open: impl FnOnce() -> T) -> T {
    let before = setfsuid(id.into());
    let opened = open();
    setfsuid(before);
    opened
}

/// Keeps these capabilities, in use, and hands none on by itself.
pub(super) fn keep(set: CapabilitySet) -> io::Result<()> {
    clear_ambient_capability_set()?;
    let sets = CapabilitySets { effective: set, permitted: set, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}

/// From now on no program that is started may more than who starts it.
pub(super) fn no_new_privileges() -> io::Result<()> {
    Ok(set_no_new_privs(true)?)
}
