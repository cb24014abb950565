//! Rules that are functions, for all arguments: each file states what must hold whatever goes in.
//!
//! Messages come from the test kit's encoder or from bytes, and are read again with hickory-proto, so that a mistake in our own
//! reader cannot hide.

mod keys;
mod names;
mod order;
mod truncation;
mod ttls;

#[path = "../world/mod.rs"]
mod world;

use nodens_core::wire::{Header, Message, Question};
use proptest::prelude::ProptestConfig;

/// Enough for the edges that the strategies lean to, in a second or two; nothing is written to disk.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Reads a message that is sound.
fn walk(bytes: &[u8]) -> Message<'_> {
    let header = Header::read(bytes).expect("a header");
    let question = Question::read(bytes).expect("a question");
    Message::walk(bytes, header, question).expect("a sound message")
}
