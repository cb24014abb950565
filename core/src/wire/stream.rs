//! Messages on a byte stream: a two-octet length, then the message (RFC 1035 §4.2.2, RFC 7766 §8).
//!
//! Bytes may arrive in any chopping, a message may come in a hundred pieces and ten messages in one. The buffer
//! holds what is not yet a whole message plus what arrived behind it; it grows to what one message needs and not
//! further, so a slow sender costs what it sent.

use super::header::HEADER_LEN;
use alloc::vec::Vec;

/// The longest message there can be on a stream.
pub const MESSAGE_LEN_MAX: usize = 65_535;

/// The receiving half of one connection.
#[derive(Debug, Default)]
pub struct StreamFraming {
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that were given out already.
    taken: usize,
}

/// The peer announced a message that is too short to be one; nothing after it can be trusted.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct FramingFault;

impl StreamFraming {
    /// Nothing received yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes as they arrived. Drain [`next_message`](Self::next_message) before more are pushed, then the buffer never holds
    /// more than one message and one read.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, if it has arrived.
    pub fn next_message(&mut self) -> Result<Option<&[u8]>, FramingFault> {
        let rest = &self.buffer[self.taken..];
        let Some(prefix) = rest.first_chunk::<2>() else { return Ok(None) };
        let len = usize::from(u16::from_be_bytes(*prefix));
        if len < HEADER_LEN {
            return Err(FramingFault);
        }
        if rest.len() < 2 + len {
            return Ok(None);
        }
        let start = self.taken + 2;
        self.taken = start + len;
        Ok(Some(&self.buffer[start..start + len]))
    }

    /// Bytes that are waiting for the rest of their message.
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.taken
    }

    /// Gives the memory back while nothing is pending: an idle connection holds none.
    pub fn shrink(&mut self) {
        if self.pending() == 0 {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn framed(messages: &[&[u8]]) -> Vec<u8> {
        messages.iter().flat_map(|m| [&(m.len() as u16).to_be_bytes(), *m].concat()).collect()
    }

    #[test]
    fn any_chopping_gives_the_same_messages() {
        let first = [1u8; 12];
        let second: Vec<u8> = (0..=255).cycle().take(700).collect();
        let bytes = framed(&[&first, &second]);
        for chunk in 1..=bytes.len() {
            let mut framing = StreamFraming::new();
            let mut got: Vec<Vec<u8>> = vec![];
            for piece in bytes.chunks(chunk) {
                framing.push(piece);
                while let Ok(Some(message)) = framing.next_message() {
                    got.push(message.to_vec());
                }
            }
            assert_eq!(got, [first.to_vec(), second.clone()], "in pieces of {chunk}");
            assert_eq!(framing.pending(), 0);
        }
    }

    #[test]
    fn a_length_that_holds_no_header_ends_the_connection() {
        let mut framing = StreamFraming::new();
        framing.push(&[0, 11]);
        assert_eq!(framing.next_message(), Err(FramingFault));
    }
}
