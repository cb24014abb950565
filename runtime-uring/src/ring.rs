//! Setting up rings: the flags that make them cheap where the kernel has them, restrictions, and errors that say what failed.

use io_uring::register::Restriction;
use io_uring::{Builder, IoUring, cqueue, opcode, squeue};
use nix::libc;
use std::error::Error;
use std::{fmt, io};

/// Entries of the datagram ring's submission queue: a turn's sends, and what it opens and closes. A full queue is submitted early.
const SUBMISSIONS: u32 = 256;
/// Entries of its completion queue: every receive buffer, every send, and some hundred paths that fail at once. What does not fit
/// waits in the kernel.
const COMPLETIONS: u32 = 2048;
/// IORING_ENTER_GETEVENTS, which the io-uring crate keeps to itself.
pub(crate) const ENTER_GETEVENTS: u32 = 1;

/// A ring failed while a worker ran. The worker ends, and can be started again on another runtime.
///
/// It is inside of the [`io::Error`] that comes out of the worker; [`ring_error`] finds it.
#[derive(Debug)]
pub struct RingError {
    /// What we asked for.
    pub doing: &'static str,
    /// What the kernel said.
    pub cause: io::Error,
}

impl RingError {
    pub(crate) fn new(doing: &'static str, cause: io::Error) -> Self {
        RingError { doing, cause }
    }

    pub(crate) fn from_code(doing: &'static str, code: i32) -> Self {
        Self::new(doing, io::Error::from_raw_os_error(code))
    }
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "io_uring failed to {}: {}; the tokio runtime does without it", self.doing, self.cause)
    }
}

impl Error for RingError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.cause)
    }
}

impl From<RingError> for io::Error {
    fn from(error: RingError) -> Self {
        io::Error::new(error.cause.kind(), error)
    }
}

/// The failure of a ring inside of a worker's error, if it was one: then the sockets are sound, and another runtime can serve.
pub fn ring_error(error: &io::Error) -> Option<&RingError> {
    error.get_ref()?.downcast_ref()
}

/// The ring for datagrams, disabled: registrations come first, then [`restrict_and_enable`].
///
/// One thread submits, and completions wait until it asks for them (Linux 6.1): no interrupts, and a whole batch costs one entry
/// into the kernel. Multishot receives with addresses came with 6.0, so there is no other set of flags to fall back to: the
/// other runtime serves older kernels.
pub(crate) fn datagram_ring() -> io::Result<IoUring> {
    IoUring::<squeue::Entry, cqueue::Entry>::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(COMPLETIONS)
        .setup_r_disabled()
        .build(SUBMISSIONS)
}

/// Limits the ring for good to what we use it for: whoever gets hold of it can open, read or connect nothing. A kernel without
/// restrictions serves as well.
pub(crate) fn restrict_and_enable(ring: &IoUring) -> io::Result<()> {
    let mut rules: Vec<Restriction> =
        DATAGRAM_OPCODES.iter().map(|code| Restriction::sqe_op(*code)).collect();
    rules.push(Restriction::sqe_flags_allowed(squeue::Flags::BUFFER_SELECT.bits()));
    let _ = ring.submitter().register_restrictions(&mut rules);
    ring.submitter().register_enable_rings()
}

/// What the datagram ring is used for.
pub(crate) const DATAGRAM_OPCODES: [u8; 4] =
    [opcode::RecvMsgMulti::CODE, opcode::SendMsg::CODE, opcode::Recv::CODE, opcode::AsyncCancel::CODE];

/// What tokio-uring's ring is used for.
pub(crate) const STREAM_OPCODES: [u8; 4] =
    [opcode::Accept::CODE, opcode::Read::CODE, opcode::PollAdd::CODE, opcode::AsyncCancel::CODE];

/// Entries of tokio-uring's submission queue; a full one is submitted early.
pub(crate) const STREAM_SUBMISSIONS: u32 = 256;

/// The loop with its ring for streams. tokio-uring looks at completions when the ring's descriptor is readable, so they must not wait
/// to be asked for.
pub(crate) fn stream_runtime() -> io::Result<tokio_uring::Runtime> {
    let build = |flags: fn(&mut Builder) -> &mut Builder| {
        let mut ring = tokio_uring::uring_builder();
        flags(&mut ring);
        tokio_uring::Runtime::new(tokio_uring::builder().entries(STREAM_SUBMISSIONS).uring_builder(&ring))
    };
    match build(|b| b.setup_single_issuer().setup_coop_taskrun()) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => build(|b| b),
        built => built,
    }
}
