//! Send slots: places where answers wait until the kernel has taken them.
//!
//! A send is described to the kernel by pointers: to a header, which points to the message, to the address and to control data.
//! All of them stand together in a slot at a fixed place. A slot is either free or lent to the kernel; between
//! [`Slots::fill`] and the completion of that send nobody touches it. The slot that became free last is used first, because its
//! memory is still in the cache.

use crate::address::{CONTROL_LEN, NAME_LEN, write_name, write_packet_info};
use nix::libc;
use nodens_core::config::UDP_SIZE_MAX;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::net::{IpAddr, SocketAddr};
use std::ptr::NonNull;

/// Slots of a worker: two batches. UDP sends end while they are submitted, so a batch needs no more than its own size.
pub(crate) const COUNT: u16 = 128;

struct Slot {
    header: libc::msghdr,
    piece: libc::iovec,
    name: [u8; NAME_LEN],
    control: [u8; CONTROL_LEN],
    message: [u8; UDP_SIZE_MAX as usize],
}

/// The slots. Their memory is touched only as far as they are used.
#[derive(Debug)]
pub(crate) struct Slots {
    memory: NonNull<Slot>,
    free: Vec<u16>,
}

impl Slots {
    /// All free.
    pub(crate) fn new() -> Self {
        let layout = layout();
        // SAFETY: the layout is not empty.
        let memory =
            NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        Slots { memory: memory.cast(), free: (0..COUNT).rev().collect() }
    }

    /// Puts a message into a free slot and lends that to the kernel: its number and its header. `None`: there is no free slot, or the
    /// message is too long for a datagram of ours.
    pub(crate) fn fill(
        &mut self,
        peer: Option<SocketAddr>,
        local: Option<IpAddr>,
        message: &[u8],
    ) -> Option<(u16, *const libc::msghdr)> {
        if message.len() > usize::from(UDP_SIZE_MAX) {
            return None;
        }
        let index = self.free.pop()?;
        let slot = self.slot(index);
        // SAFETY: the slot is free, so nobody else refers to it; all of its fields were initialized with zeros, a valid value for each.
        // The pointers stored in it are made from the slot's own raw pointer and point into its fixed place.
        unsafe {
            (&mut (*slot).message)[..message.len()].copy_from_slice(message);
            (*slot).piece.iov_base = (&raw mut (*slot).message).cast();
            (*slot).piece.iov_len = message.len();
            let name_len = peer.map_or(0, |peer| write_name(peer, &mut (*slot).name));
            let control_len = match (local, peer) {
                (Some(local), Some(peer)) => write_packet_info(local, peer, &mut (*slot).control),
                _ => 0,
            };
            let header = &raw mut (*slot).header;
            (*header).msg_name = (&raw mut (*slot).name).cast();
            (*header).msg_namelen = name_len as u32;
            (*header).msg_iov = &raw mut (*slot).piece;
            (*header).msg_iovlen = 1;
            (*header).msg_control = (&raw mut (*slot).control).cast();
            (*header).msg_controllen = control_len as _;
            Some((index, header))
        }
    }

    /// Whether all slots are lent.
    pub(crate) fn none_free(&self) -> bool {
        self.free.is_empty()
    }

    /// The kernel has given a slot back.
    ///
    /// # Safety
    ///
    /// The send from this slot must have completed, or never have been submitted.
    pub(crate) unsafe fn release(&mut self, index: u16) {
        debug_assert!(index < COUNT && !self.free.contains(&index), "a slot is lent once");
        self.free.push(index);
    }

    fn slot(&self, index: u16) -> *mut Slot {
        debug_assert!(index < COUNT);
        // SAFETY: indexes come from `free`, which was filled with those below `COUNT`.
        unsafe { self.memory.add(usize::from(index)).as_ptr() }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; `datagrams` drops the slots only once all of them are back. They own nothing.
        unsafe { dealloc(self.memory.as_ptr().cast(), layout()) }
    }
}

fn layout() -> Layout {
    Layout::array::<Slot>(usize::from(COUNT)).expect("about half a megabyte")
}
