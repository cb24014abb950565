//! What happened, as a number while it happens and as text and packets when somebody wants to know.
//!
//! Every packet and every decision is folded into one 64-bit number. Two runs of a seed on one commit must give the same number;
//! if they do not, hash-map order, a clock or a stray random number got in. Text costs far more than the world itself, so it is
//! written only in a second run of a seed that failed.

use crate::draw::mix;
use std::fmt::Write as _;
use std::net::SocketAddr;

/// The trace of one world.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    recording: Option<Recording>,
}

/// A trace in full.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// One line per event.
    pub lines: Vec<String>,
    /// Every packet, with the time in nanoseconds.
    pub packets: Vec<Packet>,
}

/// A packet on one of the world's networks.
#[derive(Clone, Debug)]
pub struct Packet {
    /// When, in nanoseconds.
    pub at: u64,
    /// From where.
    pub from: SocketAddr,
    /// To where.
    pub to: SocketAddr,
    /// Over TCP; shown as UDP as well, without the two bytes of length.
    pub tcp: bool,
    /// The message.
    pub bytes: Vec<u8>,
}

impl Trace {
    /// An empty trace; `recording` says whether text and packets are wanted.
    pub fn new(recording: bool) -> Self {
        Trace { hash: 0, recording: recording.then(Recording::default) }
    }

    /// Folds a number in.
    #[inline]
    pub fn fold(&mut self, number: u64) {
        self.hash = mix(self.hash ^ number);
    }

    /// Folds bytes in.
    #[inline]
    pub fn fold_bytes(&mut self, bytes: &[u8]) {
        let (chunks, rest) = bytes.as_chunks::<8>();
        let mut hash = self.hash ^ bytes.len() as u64;
        for chunk in chunks {
            hash = (hash ^ u64::from_le_bytes(*chunk)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        for byte in rest {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.hash = mix(hash);
    }

    /// The number of everything so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Whether text is wanted.
    #[inline]
    pub fn is_recording(&self) -> bool {
        self.recording.is_some()
    }

    /// Writes a line, if text is wanted.
    #[inline]
    pub fn line(&mut self, at: u64, text: impl FnOnce() -> String) {
        if let Some(recording) = &mut self.recording {
            let mut line = format!("{:>4}.{:06} ", at / 1_000_000_000, at / 1000 % 1_000_000);
            let _ = write!(line, "{}", text());
            recording.lines.push(line);
        }
    }

    /// Keeps a packet, if packets are wanted.
    #[inline]
    pub fn packet(&mut self, at: u64, from: SocketAddr, to: SocketAddr, tcp: bool, bytes: &[u8]) {
        if let Some(recording) = &mut self.recording {
            recording.packets.push(Packet { at, from, to, tcp, bytes: bytes.to_vec() });
        }
    }

    /// What was recorded.
    pub fn into_recording(self) -> Option<Recording> {
        self.recording
    }
}
