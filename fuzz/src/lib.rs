//! nodens-fuzz: one function per kind of input that a stranger controls. Each takes bytes and panics when a promise is broken.
//!
//! | target | the bytes are | the promise |
//! | --- | --- | --- |
//! | [`cached_answer()`] | an upstream's message, or decisions that a sound one is built from, and a client | what is served is the message decoded, changed by rule R25 and encoded |
//! | [`corefile_text()`] | a Corefile and what it imports | judged without a panic; complaints point at places that exist; what is accepted can be served |
//! | [`query_bytes()`] | a client's query | answered, forwarded or dropped exactly as the rules say; nothing of it is copied upstream but the question, RD, CD and DO |
//! | [`response_bytes()`] | an upstream's response | accepted only as validation says; what is accepted reaches the client as rule R25 has it and is kept no longer than it may be; what is refused changes nothing |
//! | [`stream_bytes()`] | a TCP stream and its chopping | the same messages however it is chopped, no more memory than one |
//! | [`transitions()`] | whatever happens to a Forwarder: queries, answers and forgeries, paths, time, reloads | every query is answered once and with what an upstream said for it; the books balance after every step; in the end nothing is left |
//!
//! The bodies are judged by slow code of their own (`oracle`, `spec`), which leans on hickory-proto. `tests/corpus.rs` runs
//! them over the committed corpus and over mutations of it, on stable, as ordinary tests; `libfuzzer/` runs them with coverage
//! (`make fuzz`).
//!
//! A find is kept: its file goes from `artifacts/TARGET/` to `corpus/TARGET/` under a name that says what it was, and fails there until the
//! fault is gone. A new target is a file here, a line in [`TARGETS`], an entry in `libfuzzer/`, a line in `tests/corpus.rs` and ten inputs; what
//! it must see goes into `tests/planted.rs`.
#![forbid(unsafe_code)]

mod cached_answer;
mod corefile_text;
mod input;
mod message;
mod oracle;
mod query_bytes;
mod response_bytes;
mod spec;
mod stream_bytes;
mod transitions;
mod world;

pub use cached_answer::cached_answer;
pub use corefile_text::corefile_text;
pub use query_bytes::query_bytes;
pub use response_bytes::response_bytes;
pub use stream_bytes::stream_bytes;
pub use transitions::transitions;

/// A target's body.
pub type Body = fn(&[u8]);

/// All targets, by the names of their folders in `corpus/`.
pub const TARGETS: [(&str, Body); 6] = [
    ("cached_answer", cached_answer),
    ("corefile_text", corefile_text),
    ("query_bytes", query_bytes),
    ("response_bytes", response_bytes),
    ("stream_bytes", stream_bytes),
    ("transitions", transitions),
];
