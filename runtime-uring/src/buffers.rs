//! Receive buffers that the kernel chooses from (a "provided buffer ring").
//!
//! All receives of a worker share one pool: a socket on which nothing arrives holds no memory. Each buffer is either in the
//! kernel's hands or, as a [`Buffer`], in ours, never both. The kernel takes them from the ring's front as datagrams arrive and
//! says in the completion which one it filled; [`Buffers::give_back`] puts it at the end.
//!
//! The memory may be freed only when the kernel cannot write to it any more; see `datagrams` for how that is made sure.

use crate::address::{CONTROL_LEN, NAME_LEN};
use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use nodens_core::config::UDP_SIZE_MAX;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

/// Buffers of a worker; a power of two. Some four batches: while we work on one, the kernel fills the next. If all are
/// taken, datagrams wait in the socket's queue.
pub(crate) const COUNT: u16 = 256;
/// The kernel's head in front of a datagram received with its address: four numbers of 32 bits.
const HEAD_LEN: usize = 16;
/// Bytes of each: the longest datagram we care for and what comes with it, in whole cache lines.
pub(crate) const LEN: usize =
    (HEAD_LEN + NAME_LEN + CONTROL_LEN + UDP_SIZE_MAX as usize).next_multiple_of(64);
/// The pool's name in the ring; there is no other.
pub(crate) const GROUP: u16 = 0;
/// The kernel wants the ring to begin at a page.
const PAGE: usize = 4096;

/// A buffer in our hands. There is one of each at most.
#[derive(Debug)]
pub(crate) struct Buffer {
    id: u16,
    len: usize,
}

/// The pool.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// The ring of `COUNT` entries that is shared with the kernel.
    entries: NonNull<BufRingEntry>,
    /// `COUNT` buffers of `LEN` bytes.
    memory: NonNull<u8>,
    tail: u16,
    /// Buffers in our hands.
    held: u16,
}

impl Buffers {
    /// A pool with all buffers ready for the kernel, once it is registered.
    pub(crate) fn new() -> Self {
        let mut buffers = Buffers {
            entries: allocate(entries_layout()).cast(),
            memory: allocate(memory_layout()),
            tail: 0,
            held: COUNT,
        };
        for id in 0..COUNT {
            buffers.give_back(Buffer { id, len: 0 });
        }
        buffers.publish();
        buffers
    }

    /// Makes the pool known to a ring.
    ///
    /// # Safety
    ///
    /// The pool must stay alive until the ring is closed or holds no request that may receive.
    pub(crate) unsafe fn register(&self, ring: &Submitter<'_>) -> io::Result<()> {
        // SAFETY: the address is that of `COUNT` entries on a page of their own; their life is the caller's promise.
        unsafe { ring.register_buf_ring(self.entries.as_ptr() as u64, COUNT, GROUP) }
    }

    /// The buffer `id`, which the kernel has filled with `len` bytes.
    ///
    /// # Safety
    ///
    /// It must come from a completion that has not been used for this before: that is how the kernel hands it over.
    pub(crate) unsafe fn take(&mut self, id: u16, len: usize) -> Buffer {
        debug_assert!(id < COUNT && len <= LEN, "the kernel knows no others");
        self.held += 1;
        Buffer { id: id % COUNT, len: len.min(LEN) }
    }

    /// What was received.
    pub(crate) fn bytes(&self, buffer: &Buffer) -> &[u8] {
        // SAFETY: `id` and `len` are within bounds, all of the memory was initialized with zeros, and a buffer that is
        // in our hands is not written to by the kernel.
        unsafe { slice::from_raw_parts(self.memory.add(usize::from(buffer.id) * LEN).as_ptr(), buffer.len) }
    }

    /// Lets the kernel use a buffer again, from the next [`publish`](Self::publish) on.
    pub(crate) fn give_back(&mut self, buffer: Buffer) {
        let at = usize::from(self.tail % COUNT);
        // SAFETY: `at` is below `COUNT`, the entries are zeroed memory of that type, and the kernel reads only those between its
        // head and the published tail. There are no more buffers than entries, so this one is not among them.
        // The tail, which lies in the unused last field of entry 0, is not touched by these setters.
        unsafe {
            let entry = &mut *self.entries.add(at).as_ptr();
            entry.set_addr(self.memory.add(usize::from(buffer.id) * LEN).as_ptr() as u64);
            entry.set_len(LEN as u32);
            entry.set_bid(buffer.id);
        }
        self.tail = self.tail.wrapping_add(1);
        self.held -= 1;
    }

    /// Tells the kernel of the buffers given back since the last time.
    pub(crate) fn publish(&self) {
        // SAFETY: the pointer is to entry 0, and the field is only ever accessed as an atomic, by us and the kernel. Release makes
        // the entries visible first.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    /// Whether the kernel has, or will have after [`publish`](Self::publish), something to receive into.
    pub(crate) fn any_left(&self) -> bool {
        self.held < COUNT
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: both were allocated with these layouts, and the promise to `register` says that nobody uses them now.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), entries_layout());
            dealloc(self.memory.as_ptr(), memory_layout());
        }
    }
}

fn entries_layout() -> Layout {
    let len = usize::from(COUNT) * size_of::<BufRingEntry>();
    Layout::from_size_align(len, PAGE).expect("the size of some pages")
}

fn memory_layout() -> Layout {
    Layout::from_size_align(usize::from(COUNT) * LEN, PAGE).expect("about a megabyte")
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: neither layout is empty.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}
