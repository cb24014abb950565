//! A TCP peer's bytes in any chopping.
//!
//! The first byte says how many choppings follow, one byte each; the rest is the stream. It is pushed in those pieces, in turn
//! and over again, and must give the messages that a look at the whole stream gives. What waits is never more than one message and its length.

use crate::input::Input;
use nodens_core::wire::{FramingFault, MESSAGE_LEN_MAX, StreamFraming};

/// Choppings that an input can name.
const PIECES_MAX: usize = 16;

/// The target.
pub fn stream_bytes(data: &[u8]) {
    let mut input = Input::new(data);
    let count = input.below(PIECES_MAX + 1);
    let pieces = input.take(count);
    let stream = input.rest();
    let expected = split(stream);
    assert_eq!(assemble(stream, &[]), expected, "in one piece");
    if !pieces.is_empty() {
        assert_eq!(assemble(stream, pieces), expected, "in pieces of {pieces:?}");
    }
}

/// What is on the stream: its whole messages, and what comes after them.
#[derive(Debug, Eq, PartialEq)]
struct Stream<'a> {
    messages: Vec<&'a [u8]>,
    ending: Result<usize, FramingFault>,
}

/// RFC 1035 §4.2.2 read from the whole stream.
fn split(mut rest: &[u8]) -> Stream<'_> {
    let mut messages = Vec::new();
    let ending = loop {
        let [high, low, after @ ..] = rest else { break Ok(rest.len()) };
        let len = usize::from(*high) << 8 | usize::from(*low);
        if len < 12 {
            break Err(FramingFault);
        }
        let Some(message) = after.get(..len) else { break Ok(rest.len()) };
        messages.push(message);
        rest = &after[len..];
    };
    Stream { messages, ending }
}

/// The same through the core; messages are given as places in the stream, to be compared without copies.
fn assemble<'a>(stream: &'a [u8], pieces: &[u8]) -> Stream<'a> {
    let mut framing = StreamFraming::new();
    let mut found = Stream { messages: Vec::new(), ending: Ok(0) };
    let (mut pushed, mut taken, mut turn) = (0, 0, 0);
    while pushed < stream.len() {
        let piece = match pieces {
            [] => stream.len(),
            // 0 is a piece too: a read that brought nothing.
            _ => usize::from(pieces[turn % pieces.len()]).max(usize::from(pieces.iter().all(|p| *p == 0))),
        };
        turn += 1;
        let end = (pushed + piece).min(stream.len());
        framing.push(&stream[pushed..end]);
        pushed = end;
        loop {
            match framing.next_message() {
                Ok(Some(message)) => {
                    let place = &stream[taken + 2..taken + 2 + message.len()];
                    assert_eq!(message, place, "a message that is not on the stream at {taken}");
                    found.messages.push(place);
                    taken += 2 + message.len();
                }
                Ok(None) => break,
                Err(fault) => {
                    assert_eq!(framing.next_message(), Err(fault), "a fault that heals");
                    found.ending = Err(fault);
                    return found;
                }
            }
        }
        assert_eq!(framing.pending(), pushed - taken, "bytes that wait");
        assert!(framing.pending() < 2 + MESSAGE_LEN_MAX, "more than one message waits");
        // An idle connection gives its memory back and goes on as before.
        if framing.pending() == 0 {
            framing.shrink();
        }
    }
    found.ending = Ok(framing.pending());
    found
}
