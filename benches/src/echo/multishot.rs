//! The echo on io_uring as it is meant to be used: one receive that goes on for ever, buffers that the kernel chooses from,
//! sends from those same buffers.
//!
//! Each of the buffers is the kernel's (to receive into), or under way as a send, or in our hands for a moment; a send's buffer goes
//! back when the send has completed. One system call hands in a batch of sends and waits for what has arrived.
//!
//! This is the only unsafe code of the benches. What requests refer to is kept by [`Lent`], which is leaked on purpose: the echo
//! ends with its process, and a ring may write to its buffers up to then.

use io_uring::types::{BufRingEntry, Fixed, RecvMsgOut};
use io_uring::{IoUring, cqueue, opcode, squeue};
use nix::libc;
use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// Buffers; a power of two. More than the load has queries out, with defaults.
const COUNT: u16 = 512;
/// Bytes of a buffer: the kernel's head of 16, an IPv4 address, and any datagram of ours.
const LEN: usize = 2048 + 64;
const NAME_LEN: usize = size_of::<libc::sockaddr_in>();
const GROUP: u16 = 0;
/// A send for each buffer may be handed in at once.
const SUBMISSIONS: u32 = 1024;
const COMPLETIONS: u32 = 4096;
/// Token of the receive; sends have their buffer's number.
const RECEIVE: u64 = u64::MAX;
const SOCKET: Fixed = Fixed(0);

/// Memory that requests refer to, as long as the process lives.
struct Lent {
    /// The ring of `COUNT` entries that is shared with the kernel.
    entries: NonNull<BufRingEntry>,
    /// `COUNT` buffers of `LEN` bytes.
    memory: NonNull<u8>,
    tail: u16,
    /// The header and vector of each buffer's send.
    headers: &'static mut [libc::msghdr],
    vectors: &'static mut [libc::iovec],
    shape: &'static libc::msghdr,
}

/// Echoes until the process ends.
pub(super) fn serve(socket: &UdpSocket, listening: impl Fn()) -> io::Result<()> {
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_cqsize(COMPLETIONS)
        .build(SUBMISSIONS)?;
    let mut lent = Lent::new();
    // SAFETY: the entries are never freed.
    unsafe { ring.submitter().register_buf_ring(lent.entries.as_ptr() as u64, COUNT, GROUP)? };
    ring.submitter().register_files(&[socket.as_raw_fd()])?;
    listening();
    let mut needs_receive = true;
    let mut done: Vec<(u64, i32, u32)> = Vec::with_capacity(COMPLETIONS as usize);
    loop {
        if needs_receive {
            let receive = opcode::RecvMsgMulti::new(SOCKET, lent.shape, GROUP).build().user_data(RECEIVE);
            push(&mut ring, &receive)?;
            needs_receive = false;
        }
        lent.publish();
        match ring.submit_and_wait(1) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        done.extend(ring.completion().map(|c| (c.user_data(), c.result(), c.flags())));
        for (token, result, flags) in done.drain(..) {
            if token != RECEIVE {
                lent.give_back(token as u16);
                continue;
            }
            needs_receive |= !cqueue::more(flags);
            let Some(buffer) = cqueue::buffer_select(flags) else { continue };
            match usize::try_from(result).ok().and_then(|len| lent.reply(buffer, len)) {
                Some(header) => {
                    let send = opcode::SendMsg::new(SOCKET, header).build().user_data(buffer.into());
                    push(&mut ring, &send)?;
                }
                None => lent.give_back(buffer),
            }
        }
    }
}

/// Queues a request that refers to [`Lent`]'s memory and the registered socket alone.
fn push(ring: &mut IoUring, request: &squeue::Entry) -> io::Result<()> {
    // SAFETY: all that the request refers to lives as long as the process.
    while unsafe { ring.submission().push(request) }.is_err() {
        ring.submit()?;
    }
    Ok(())
}

impl Lent {
    fn new() -> Self {
        // SAFETY: zeros are a valid header: lengths of zero, and null pointers.
        let empty: libc::msghdr = unsafe { std::mem::zeroed() };
        let shape = libc::msghdr { msg_namelen: NAME_LEN as u32, ..empty };
        let vector = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let mut lent = Lent {
            entries: allocate(usize::from(COUNT) * size_of::<BufRingEntry>()).cast(),
            memory: allocate(usize::from(COUNT) * LEN),
            tail: 0,
            headers: vec![empty; usize::from(COUNT)].leak(),
            vectors: vec![vector; usize::from(COUNT)].leak(),
            shape: Box::leak(Box::new(shape)),
        };
        (0..COUNT).for_each(|buffer| lent.give_back(buffer));
        lent
    }

    /// Prepares a send of what a buffer received, to whom it came from.
    fn reply(&mut self, buffer: u16, len: usize) -> Option<*const libc::msghdr> {
        let at = usize::from(buffer);
        // SAFETY: the buffer is in our hands from its completion on, `len` is what the kernel wrote, and the memory was zeroed.
        let bytes =
            unsafe { std::slice::from_raw_parts_mut(self.memory.add(at * LEN).as_ptr(), len.min(LEN)) };
        let out = RecvMsgOut::parse(bytes, self.shape).ok()?;
        let (name_len, payload_len) = (out.name_data().len(), out.payload_data().len());
        let payload_at = bytes.len() - payload_len;
        let name_at = payload_at - NAME_LEN;
        self.vectors[at] =
            libc::iovec { iov_base: bytes[payload_at..].as_mut_ptr().cast(), iov_len: payload_len };
        let header = &mut self.headers[at];
        header.msg_name = bytes[name_at..].as_mut_ptr().cast();
        header.msg_namelen = name_len as u32;
        header.msg_iov = &raw mut self.vectors[at];
        header.msg_iovlen = 1;
        Some(header)
    }

    /// Lets the kernel receive into a buffer again, once published.
    fn give_back(&mut self, buffer: u16) {
        let at = usize::from(self.tail % COUNT);
        // SAFETY: `at` is within the entries, and the kernel reads only those up to the published tail. The setters do not touch
        // the tail, which lies in entry 0.
        unsafe {
            let entry = &mut *self.entries.add(at).as_ptr();
            entry.set_addr(self.memory.add(usize::from(buffer % COUNT) * LEN).as_ptr() as u64);
            entry.set_len(LEN as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the pointer is to entry 0, and the tail is only ever written as an atomic. Release makes the entries visible first.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

/// Zeroed memory that begins at a page, as the kernel wants the ring of buffers to.
fn allocate(len: usize) -> NonNull<u8> {
    let layout = Layout::from_size_align(len, 4096).expect("about a megabyte");
    // SAFETY: the length is not zero.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}
