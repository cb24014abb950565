//! The datagram ring: every UDP socket of a worker, behind an interface that is safe to use.
//!
//! Listeners have one multishot receive each: armed once, it completes for every datagram, into a buffer of the kernel's choice,
//! with the sender's address in front. Upstream sockets have a receive per expected answer, from the same buffers. Answers leave
//! through send slots. A turn collects all it wants and [`submit`](Datagrams::submit)s it in one entry into the kernel,
//! which also brings what has arrived in the meantime.
//!
//! Sockets are not registered with the ring. That would save looking up a descriptor for each request, which is not to be told from the
//! noise in what an answer costs; but the kernel lets go of registered sockets only 30 to 50 ms after their process was killed,
//! and until then takes queries for the dead. Of others it lets go after 5 ms.
//!
//! # What the kernel holds, and how it is got back
//!
//! Requests refer to our memory: the shared buffers, a slot per send. It must not be freed, nor touched by us, while a request
//! may use it. So every request is counted when it is pushed, and struck off by its last completion (the one without the mark
//! that more will follow). On stop ([`Datagrams::close`], and on drop):
//!
//! 1. nothing is armed again: completions of ended receives are not followed by new ones;
//! 2. one request cancels all others;
//! 3. we wait until the count is zero, which means that every buffer and slot is back;
//! 4. then the ring is closed, and the memory freed.
//!
//! If the third step does not succeed in time, because the ring itself fails, the memory is leaked: better some megabytes than
//! the kernel writing into somebody else's.

use crate::address::{CONTROL_LEN, NAME_LEN, read_name, read_packet_info};
use crate::buffers::{self, Buffer, Buffers};
use crate::ring::{ENTER_GETEVENTS, RingError, datagram_ring, restrict_and_enable};
use crate::slots::Slots;
use io_uring::types::{CancelBuilder, Fd, RecvMsgOut, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use nix::libc;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nodens_core::{Duration, ListenerId, Path};
use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How long a closing ring waits for its requests. Cancelling what waits for a datagram takes microseconds.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// Listeners that can be told apart, of which those that came and went within seconds take some too.
const PLACES: u16 = u16::MAX;
/// Entries into the kernel per submit: one, and a few more for receives that ended in the meantime.
const ENTERS_MAX: usize = 4;

/// Something that arrived, or failed to.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// Where.
    pub(crate) socket: Receiver,
    /// The datagram, without a buffer if it is empty; or the socket's error.
    pub(crate) result: Result<Option<Buffer>, i32>,
}

/// A socket that receives.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Receiver {
    /// By its place in the ring.
    Listener(u16),
    /// A path to an upstream.
    Path(Path),
}

/// A datagram that a listener received.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Datagram<'b> {
    /// Who sent it; `None` where senders have no address.
    pub(crate) peer: Option<SocketAddr>,
    /// The address of ours it was sent to, on wildcard sockets.
    pub(crate) local: Option<IpAddr>,
    pub(crate) message: &'b [u8],
}

/// The ring with all it refers to.
pub(crate) struct Datagrams {
    ring: ManuallyDrop<IoUring>,
    lent: ManuallyDrop<Lent>,
    /// The kernel's sign that there is something to collect. A ring of this kind does not wake those who poll its own descriptor.
    signal: EventFd,
    /// Completions were taken since the signal was last forgotten. Those of sends are signalled as well, though nobody waits for them.
    collected: bool,
    /// Requests whose last completion has not come.
    pending: u32,
    arrived: VecDeque<Arrival>,
    listeners: Vec<Place>,
    /// Places of listeners whose receive has ended.
    unarmed: Vec<u16>,
    /// Closed, but perhaps named by a request that is not submitted yet: were they closed for good, another socket could get the
    /// number.
    closed: Vec<UdpSocket>,
    /// The same of listeners.
    left: Vec<Rc<dyn AsFd>>,
    closing: bool,
    failure: Option<RingError>,
    /// Answers that the kernel did not take, since the last [`take_send_failures`](Self::take_send_failures).
    send_failures: u64,
}

/// The memory that requests refer to.
#[derive(Debug)]
struct Lent {
    buffers: Buffers,
    slots: Slots,
    /// How much of addresses and control data datagrams bring, on ordinary and on wildcard sockets; at fixed places.
    shapes: Box<[libc::msghdr; 2]>,
}

/// A place for a listener.
struct Place {
    id: ListenerId,
    /// Until it is removed.
    socket: Option<Rc<dyn AsFd>>,
    is_wildcard: bool,
    state: PlaceState,
}

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum PlaceState {
    Served,
    /// Removed, but the last completion of its receive has not come.
    Leaving,
    Free,
}

impl Datagrams {
    /// A ring without sockets.
    pub(crate) fn new() -> Result<Self, RingError> {
        let ring = datagram_ring().map_err(|e| RingError::new("set up a ring", e))?;
        let shapes = Box::new([shape(false), shape(true)]);
        let lent = Lent { buffers: Buffers::new(), slots: Slots::new(), shapes };
        // SAFETY: `lent` goes with the ring from here on, and `drop` frees it only when nothing is pending.
        unsafe { lent.buffers.register(&ring.submitter()) }
            .map_err(|e| RingError::new("register receive buffers", e))?;
        let signal = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
            .map_err(|e| RingError::new("create its eventfd", e.into()))?;
        ring.submitter()
            .register_eventfd(signal.as_fd().as_raw_fd())
            .map_err(|e| RingError::new("register its eventfd", e))?;
        restrict_and_enable(&ring).map_err(|e| RingError::new("enable the ring", e))?;
        Ok(Datagrams {
            ring: ManuallyDrop::new(ring),
            lent: ManuallyDrop::new(lent),
            signal,
            collected: false,
            pending: 0,
            arrived: VecDeque::with_capacity(usize::from(buffers::COUNT)),
            listeners: vec![],
            unarmed: vec![],
            closed: vec![],
            left: vec![],
            closing: false,
            failure: None,
            send_failures: 0,
        })
    }

    /// Receives on a listening socket from the next submit on; with `is_wildcard`, its datagrams bring the address they were sent
    /// to. Returns its place.
    pub(crate) fn add_listener(
        &mut self,
        id: ListenerId,
        socket: Rc<dyn AsFd>,
        is_wildcard: bool,
    ) -> Result<u16, RingError> {
        let free = self.listeners.iter().position(|place| place.state == PlaceState::Free);
        let place = free.unwrap_or(self.listeners.len()) as u16;
        if place == PLACES {
            return Err(RingError::from_code("find a place for another listener", libc::ENOSPC));
        }
        let served = Place { id, socket: Some(socket), is_wildcard, state: PlaceState::Served };
        match free {
            Some(at) => self.listeners[at] = served,
            None => self.listeners.push(served),
        }
        self.unarmed.push(place);
        Ok(place)
    }

    /// Receives and sends no more on a listener.
    pub(crate) fn remove_listener(&mut self, place: u16) {
        let listener = &mut self.listeners[usize::from(place)];
        // What was sent from it may not be submitted yet.
        self.left.extend(listener.socket.take());
        if let Some(at) = self.unarmed.iter().position(|unarmed| *unarmed == place) {
            self.unarmed.swap_remove(at);
            listener.state = PlaceState::Free;
            return;
        }
        listener.state = PlaceState::Leaving;
        let cancel = opcode::AsyncCancel::new(Token::Listener(place).to_bits()).build();
        // If there is no room, the place stays taken until the ring is closed.
        self.push(&cancel.user_data(Token::Cancel.to_bits()));
    }

    /// The listener at a place.
    pub(crate) fn listener(&self, place: u16) -> ListenerId {
        self.listeners[usize::from(place)].id
    }

    /// Readable when something is to be [`collect`](Self::collect)ed. Only within a tokio runtime.
    pub(crate) fn readiness(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let signal = self.signal.as_fd().try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` always refers to the same open file, and closes it only when dropped.
        Ok(unsafe { AsyncFd::register_with_interest(signal, Interest::READABLE) }?)
    }

    /// To be called before waiting: forgets the signal of what has been collected already. Returns whether waiting is in order.
    pub(crate) fn may_wait(&mut self) -> bool {
        if self.collected {
            self.collected = false;
            // Would block: it was forgotten before.
            let _ = self.signal.read();
            // What came before that may not be signalled again.
            if self.ring.submission().taskrun() || !self.ring.completion().is_empty() {
                self.collect();
            }
        }
        self.arrived.is_empty()
    }

    /// The oldest thing that arrived.
    pub(crate) fn next(&mut self) -> Option<Arrival> {
        self.arrived.pop_front()
    }

    /// Whether [`next`](Self::next) has something.
    pub(crate) fn has_arrived(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// Takes apart what a listener received.
    pub(crate) fn datagram(&self, place: u16, buffer: &Buffer) -> Option<Datagram<'_>> {
        let shape = &self.lent.shapes[usize::from(self.listeners[usize::from(place)].is_wildcard)];
        let out = RecvMsgOut::parse(self.lent.buffers.bytes(buffer), shape).ok()?;
        let bytes = self.lent.buffers.bytes(buffer);
        // As slices of the buffer, whose life is longer than that of `out`.
        let payload_at = bytes.len() - out.payload_data().len();
        let peer = read_name(out.name_data());
        Some(Datagram { peer, local: read_packet_info(out.control_data()), message: &bytes[payload_at..] })
    }

    /// What an upstream sent.
    pub(crate) fn message(&self, buffer: Option<&Buffer>) -> &[u8] {
        buffer.map_or(&[], |buffer| self.lent.buffers.bytes(buffer))
    }

    /// Returns a buffer to the kernel.
    pub(crate) fn give_back(&mut self, buffer: Buffer) {
        self.lent.buffers.give_back(buffer);
    }

    /// Sends a datagram from a listener, with the next submit. It is lost, and counted, if there is no room for it.
    pub(crate) fn send(
        &mut self,
        place: u16,
        peer: Option<SocketAddr>,
        local: Option<IpAddr>,
        message: &[u8],
    ) {
        let mut filled = self.lent.slots.fill(peer, local, message);
        if filled.is_none() && self.lent.slots.none_free() {
            // A burst, as when hundreds waited for one answer: those in the slots leave now.
            self.enter(0);
            filled = self.lent.slots.fill(peer, local, message);
        }
        let Some((slot, header)) = filled else {
            self.send_failures += 1;
            return;
        };
        // Nonblocking: what the socket does not take at once is dropped, instead of keeping the slot.
        let flags = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u32;
        let send = self.listeners[usize::from(place)].fd().map(|fd| opcode::SendMsg::new(fd, header));
        let send = send.map(|send| send.flags(flags).build().user_data(Token::Send(slot).to_bits()));
        if !send.is_some_and(|send| self.push(&send)) {
            // SAFETY: the send was not submitted.
            unsafe { self.lent.slots.release(slot) };
            self.send_failures += 1;
        }
    }

    /// Receives one datagram on a path's socket. Returns whether the request is on its way; if not, try again after a submit.
    pub(crate) fn receive(&mut self, path: Path, socket: &impl AsFd) -> bool {
        if self.closing {
            return false;
        }
        let receive =
            opcode::Recv::new(Fd(socket.as_fd().as_raw_fd()), std::ptr::null_mut(), buffers::LEN as u32)
                .buf_group(buffers::GROUP)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT);
        self.push(&receive.user_data(Token::Path(path).to_bits()))
    }

    /// Closes a path's socket; `receives` if a request of [`receive`](Self::receive) may be pending.
    pub(crate) fn close_path(&mut self, path: Path, socket: UdpSocket, receives: bool) {
        if receives {
            let cancel = opcode::AsyncCancel::new(Token::Path(path).to_bits()).build();
            if !self.push(&cancel.user_data(Token::Cancel.to_bits())) {
                // The socket is closed all the same; the request ends when the ring does.
                self.failure.get_or_insert_with(|| RingError::from_code("cancel a receive", libc::EBUSY));
            }
        }
        self.closed.push(socket);
    }

    /// Answers the kernel did not take.
    pub(crate) fn take_send_failures(&mut self) -> u64 {
        std::mem::take(&mut self.send_failures)
    }

    /// Submits everything, arms listeners again, and collects what has completed. No system call if there is nothing to submit.
    pub(crate) fn submit(&mut self) -> Result<(), RingError> {
        for _ in 0..ENTERS_MAX {
            self.arm_listeners();
            if self.ring.submission().is_empty() {
                break;
            }
            self.enter(0);
        }
        if self.ring.submission().is_empty() {
            self.closed.clear();
            self.left.clear();
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Collects what has completed.
    pub(crate) fn collect(&mut self) {
        self.enter(0);
    }

    /// Waits a moment for something to collect.
    pub(crate) fn wait(&mut self) -> Result<(), RingError> {
        self.enter(1);
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Whether listeners wait to be armed again, for want of buffers or room.
    pub(crate) fn needs_submit(&self) -> bool {
        !self.closing && !self.unarmed.is_empty()
    }

    /// Takes everything back from the kernel (see the module). Returns whether that succeeded.
    pub(crate) fn close(&mut self) -> bool {
        self.closing = true;
        self.unarmed.clear();
        let deadline = std::time::Instant::now() + CLOSE_WAIT;
        self.failure = None;
        while self.pending > 0 && self.failure.is_none() && std::time::Instant::now() < deadline {
            // Once is enough, unless a request was being worked on and could not be cancelled at that moment.
            let all = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
            self.push(&all.user_data(Token::Cancel.to_bits()));
            self.enter(1);
            while let Some(arrival) = self.arrived.pop_front() {
                if let Ok(Some(buffer)) = arrival.result {
                    self.give_back(buffer);
                }
            }
        }
        self.pending == 0
    }

    fn arm_listeners(&mut self) {
        // Without a buffer a receive would end at once.
        while !self.closing && self.lent.buffers.any_left() {
            let Some(place) = self.unarmed.pop() else { return };
            let listener = &self.listeners[usize::from(place)];
            let shape: *const _ = &raw const self.lent.shapes[usize::from(listener.is_wildcard)];
            // A place whose socket is gone is not among these.
            let Some(fd) = listener.fd() else { continue };
            let receive = opcode::RecvMsgMulti::new(fd, shape, buffers::GROUP).build();
            if !self.push(&receive.user_data(Token::Listener(place).to_bits())) {
                self.unarmed.push(place);
                return;
            }
        }
    }

    /// Queues a request, entering the kernel first if the queue is full. Every request refers to sockets that are open or in `closed` or
    /// `left`, and to memory in `lent`, if any.
    fn push(&mut self, request: &squeue::Entry) -> bool {
        if self.ring.submission().is_full() {
            self.enter(0);
        }
        // SAFETY: what the request refers to lives until its last completion: memory as said at the top, descriptors because sockets
        // are closed only after a submit.
        let pushed = unsafe { self.ring.submission().push(request) }.is_ok();
        self.pending += u32::from(pushed);
        pushed
    }

    /// Enters the kernel with everything queued, waits for `want` completions (for a moment), and takes in all there are.
    fn enter(&mut self, want: usize) {
        self.lent.buffers.publish();
        let queued = {
            let mut queue = self.ring.submission();
            queue.sync();
            queue.len() as u32
        };
        let entered = if want == 0 {
            // SAFETY: the parameters are those of a plain submit, plus the flag that lets completions come that were put off.
            unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, 0, ENTER_GETEVENTS, None) }
        } else {
            let moment = Timespec::new().nsec(100_000_000);
            self.ring.submitter().submit_with_args(want, &SubmitArgs::new().timespec(&moment))
        };
        match entered.map_err(|e| (e.raw_os_error(), e)) {
            // Interrupted, short of memory, too many completions waiting: what is queued stays queued.
            Ok(_) | Err((Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ETIME), _)) => {}
            Err((_, e)) => drop(self.failure.get_or_insert_with(|| RingError::new("submit", e))),
        }
        self.take_completions();
    }

    fn take_completions(&mut self) {
        let Datagrams {
            ring,
            lent,
            pending,
            arrived,
            unarmed,
            listeners,
            failure,
            send_failures,
            collected,
            ..
        } = self;
        for completion in ring.completion() {
            *collected = true;
            let flags = completion.flags();
            let is_last = !cqueue::more(flags);
            *pending -= u32::from(is_last);
            let code = completion.result();
            let result = match cqueue::buffer_select(flags) {
                // SAFETY: this is the completion that hands the buffer over.
                Some(id) if code >= 0 => Ok(Some(unsafe { lent.buffers.take(id, code as usize) })),
                Some(id) => {
                    // SAFETY: as above; it holds nothing.
                    let buffer = unsafe { lent.buffers.take(id, 0) };
                    lent.buffers.give_back(buffer);
                    Err(-code)
                }
                None if code >= 0 => Ok(None),
                None => Err(-code),
            };
            match Token::from_bits(completion.user_data()) {
                Token::Listener(place) => {
                    let listener = &mut listeners[usize::from(place)];
                    match listener.state {
                        PlaceState::Served if is_last => unarmed.push(place),
                        PlaceState::Leaving if is_last => listener.state = PlaceState::Free,
                        _ => {}
                    }
                    match result {
                        Err(e) if is_fatal(e) => {
                            failure.get_or_insert_with(|| RingError::from_code("receive datagrams", e));
                        }
                        // No buffer was left, or an ICMP error of an earlier answer.
                        Err(_) => {}
                        Ok(_) => arrived.push_back(Arrival { socket: Receiver::Listener(place), result }),
                    }
                }
                Token::Path(path) if code != -libc::ECANCELED => {
                    arrived.push_back(Arrival { socket: Receiver::Path(path), result });
                }
                Token::Send(slot) => {
                    *send_failures += u64::from(code < 0);
                    // SAFETY: this is the send's only completion.
                    unsafe { lent.slots.release(slot) };
                }
                Token::Path(_) | Token::Cancel => {}
            }
        }
    }
}

impl Place {
    fn fd(&self) -> Option<Fd> {
        self.socket.as_ref().map(|socket| Fd(socket.as_fd().as_raw_fd()))
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        let all_back = self.close();
        // SAFETY: neither is used after this. The ring goes first; the memory goes if nothing refers to it, else it is leaked.
        unsafe {
            ManuallyDrop::drop(&mut self.ring);
            if all_back {
                ManuallyDrop::drop(&mut self.lent);
            }
        }
    }
}

/// An error of a receive that trying again cannot cure.
fn is_fatal(code: i32) -> bool {
    matches!(
        code,
        libc::EINVAL
            | libc::EBADF
            | libc::ENOTSOCK
            | libc::EOPNOTSUPP
            | libc::EPERM
            | libc::EACCES
            | libc::EFAULT
            | libc::ENOSYS
    )
}

/// What a listener's datagrams bring besides themselves. Only the two lengths count; there are no places to point to.
fn shape(is_wildcard: bool) -> libc::msghdr {
    // SAFETY: zeros are a valid header: lengths of zero, and null pointers.
    let mut shape: libc::msghdr = unsafe { std::mem::zeroed() };
    shape.msg_namelen = NAME_LEN as u32;
    shape.msg_controllen = if is_wildcard { CONTROL_LEN as _ } else { 0 };
    shape
}

/// What a completion belongs to, in the 64 bits that the kernel carries along: the kind in the upper two.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Token {
    Listener(u16),
    Path(Path),
    Send(u16),
    Cancel,
}

impl Token {
    fn to_bits(self) -> u64 {
        let (kind, rest) = match self {
            Token::Listener(index) => (0, u64::from(index)),
            Token::Send(slot) => (1, u64::from(slot)),
            // A slot costs a descriptor, of which no process has 2^30.
            Token::Path(path) => {
                (2, u64::from(path.slot & (u32::MAX >> 2)) << 32 | u64::from(path.generation))
            }
            Token::Cancel => (3, 0),
        };
        kind << 62 | rest
    }

    fn from_bits(bits: u64) -> Self {
        match bits >> 62 {
            0 => Token::Listener(bits as u16),
            1 => Token::Send(bits as u16),
            2 => Token::Path(Path { slot: (bits >> 32) as u32 & (u32::MAX >> 2), generation: bits as u32 }),
            _ => Token::Cancel,
        }
    }
}

#[cfg(test)]
mod tests;
