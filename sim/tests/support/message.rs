//! Answers that prove where they come from: the address in them follows from the question and a secret of the upstreams.
//!
//! Written by hand rather than with the test kit, because some rows need tens of thousands.

use nodens_sim::draw::mix;
use nodens_testkit::Reply;

/// Bytes of a header.
const HEADER: usize = 12;

/// Where the question of a message ends, type and class included.
pub(crate) fn question_end(message: &[u8]) -> usize {
    let mut at = HEADER;
    while message[at] != 0 {
        at += 1 + usize::from(message[at]);
    }
    at + 5
}

/// The address that upstreams give for a question, in whatever spelling.
pub(crate) fn address_for(question: &[u8]) -> [u8; 4] {
    let fold = |hash, byte: &u8| mix(hash ^ u64::from(byte.to_ascii_lowercase()));
    let [.., a, b, c] = question.iter().fold(0x6e6f_6465_6e73, fold).to_be_bytes();
    [203, a, b, c]
}

/// An upstream's answer to `query`: one record, which lives for `ttl_s` and is an address where
/// one was asked for. For a probe, its question and nothing else.
pub(crate) fn genuine(query: &[u8], ttl_s: u32) -> Vec<u8> {
    let end = question_end(query);
    let question = &query[HEADER..end];
    let records = u8::from(question[0] != 0);
    let mut bytes = vec![query[0], query[1], 0x80 | query[2] & 1, 0x80, 0, 1, 0, records, 0, 0, 0, 0];
    bytes.extend_from_slice(question);
    if records > 0 {
        // The name, type and class of the question.
        bytes.extend_from_slice(&[0xc0, 12]);
        bytes.extend_from_slice(&question[question.len() - 4..]);
        bytes.extend_from_slice(&ttl_s.to_be_bytes());
        bytes.extend_from_slice(&[0, 4]);
        // As a TXT record this is three bytes of text, and as a record of an unknown type it is what it is.
        let [first, rest @ ..] = address_for(question);
        let asks_for_an_address = question[question.len() - 4..] == [0, 1, 0, 1];
        bytes.push(if asks_for_an_address { first } else { rest.len() as u8 });
        bytes.extend_from_slice(&rest);
    }
    bytes
}

/// Checks that an answer repeats its question, and that every address in it is the genuine one.
pub(crate) fn is_genuine(query: &[u8], answer: &[u8]) {
    let reply = Reply::parse(answer);
    assert!(reply.qr, "a client gets a query");
    if reply.qdcount == 0 {
        // A query that could not be read is answered with a header alone.
        assert_eq!((reply.answers.len(), answer.len()), (0, HEADER));
        return;
    }
    let question = &query[HEADER..question_end(query)];
    assert_eq!(answer[HEADER..question_end(answer)], *question, "another question, or another spelling");
    let [a, b, c, d] = address_for(question);
    for address in reply.rdatas("A") {
        assert_eq!(address, format!("{a}.{b}.{c}.{d}"), "poisoned");
    }
}
