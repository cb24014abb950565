//! An upstream's message kept and served, against the same message decoded and served as values (rule R25).
//!
//! The first bytes choose the client; the next says whether the rest is the message itself or decisions that a sound one is built from.

use crate::input::Input;
use crate::message;
use crate::oracle::{Parsed, plain_question};
use crate::spec::{Client, check_reply, extended_error};
use hickory_proto::op::Message as HickoryMessage;
use hickory_proto::rr::Record as HickoryRecord;
use nodens_core::cache::{Answer, AnswerMeta, Kind, ReplyFrame, Ttls, render};
use nodens_core::config::{UDP_SIZE_DEFAULT, UDP_SIZE_MIN};
use nodens_core::wire::{Flags, Header, Message, Question, read_options};

/// The target.
pub fn cached_answer(data: &[u8]) {
    let mut input = Input::new(data);
    let choices = input.byte();
    let flags = input.word() & 0x7fff;
    let size = input.word();
    let ttl_s = input.word();
    let spelling = input.byte();
    let has = |bit: u8| choices & bit != 0;
    let built = has(0x01);
    let upstream = if built { message::response(&mut input) } else { input.rest().to_vec() };
    if upstream.len() > usize::from(u16::MAX) {
        return;
    }
    let (Some(header), Some(question)) = (Header::read(&upstream), Question::read(&upstream)) else { return };
    // Validation has seen to these (V4 to V6) before anything is walked.
    if !header.flags.has(Flags::QR) || header.flags.opcode() != 0 || header.counts[0] != 1 {
        return;
    }
    let walked = Message::walk(&upstream, header, question);
    let parsed = Parsed::read(&upstream);
    assert_eq!(
        walked.is_ok(),
        parsed.is_ok(),
        "{walked:?} to us, {:?} to the slow reader",
        parsed.as_ref().err()
    );
    let (Ok(walked), Ok(parsed)) = (walked, parsed) else {
        assert!(!built, "a message that is sound by construction is refused");
        return;
    };
    assert_eq!(walked.rcode().0, parsed.rcode(), "RCODE");

    let options = walked.opt.as_ref().map(|(_, range)| read_options(&upstream[range.start + 11..range.end]));
    let error = options.unwrap_or_default().extended_error;
    assert_eq!(error, extended_error(&parsed), "the upstream's extended error");
    let meta = AnswerMeta {
        rcode: walked.rcode(),
        flags: Flags(walked.header.flags.0 & (Flags::RA | Flags::AD)),
        counts: [0; 3],
        kind: Some(Kind::Positive),
        extended_error: error,
        ttl_s: u32::from(ttl_s),
    };
    let answer = Answer::from_message(&walked, meta);

    let do_bit = has(0x02).then_some(has(0x04));
    let len_max = if has(0x08) { usize::from(u16::MAX) } else { usize::from(size.clamp(UDP_SIZE_MIN, 4096)) };
    let client = Client {
        id: size ^ ttl_s,
        flags,
        question: respelled(&plain_question(&upstream).expect("it was read"), spelling),
        do_bit,
        udp_size: UDP_SIZE_DEFAULT,
        len_max,
        trust_ad: has(0x10),
    };
    let frame = ReplyFrame {
        id: client.id,
        query_flags: Flags(flags),
        question: &client.question,
        do_bit,
        udp_size: client.udp_size,
        len_max,
        trust_ad: client.trust_ad,
    };
    let mut out = vec![0xa5; len_max];
    let ttls = if has(0x20) { Ttls::Verbatim } else { Ttls::Flat(u32::from(ttl_s)) };
    let rendered = render(answer.as_ref(), ttls, &frame, &mut out);
    let (reply, untouched) = out.split_at(rendered.len);
    assert!(untouched.iter().all(|byte| *byte == 0xa5), "written behind the answer's end");
    let ttl_s = (ttls != Ttls::Verbatim).then_some(u32::from(ttl_s));
    check_reply(&upstream, ttl_s, error, &client, reply);
    assert_eq!(rendered.truncated, reply[2] & 2 != 0);
    check_with_hickory(&upstream, reply, ttl_s);
}

/// The question with the case of some of its letters turned, by the bits of `spelling` in turn.
fn respelled(question: &[u8], spelling: u8) -> Vec<u8> {
    let mut question = question.to_vec();
    let name_len = question.len() - 4;
    for (n, byte) in question[..name_len].iter_mut().enumerate() {
        // Lengths are below 64, letters above.
        if byte.is_ascii_alphabetic() && spelling >> (n % 8) & 1 == 1 {
            *byte ^= 0x20;
        }
    }
    question
}

/// NAPTR, SVCB, HTTPS, ANAME: names in their RDATA must not be compressed (RFC 3597 §4, RFC 9460 §2.2), and are octets to us. hickory
/// follows pointers there all the same, even into a TTL.
const NEVER_COMPRESSED: [u16; 4] = [35, 64, 65, 65_305];

/// Where hickory understands every record of the upstream, it understands the reply, and in the same way.
fn check_with_hickory(upstream: &[u8], reply: &[u8], ttl_s: Option<u32>) {
    let Ok(upstream) = HickoryMessage::from_vec(upstream) else { return };
    if upstream.all_sections().any(|record| NEVER_COMPRESSED.contains(&record.record_type().into())) {
        return;
    }
    let reply =
        HickoryMessage::from_vec(reply).expect("hickory reads what the upstream said, but not our reply");
    let sections = [
        (&upstream.answers, &reply.answers),
        (&upstream.authorities, &reply.authorities),
        (&upstream.additionals, &reply.additionals),
    ];
    for (theirs, ours) in sections {
        assert!(ours.len() <= theirs.len(), "records that the upstream did not send");
        for (theirs, ours) in theirs.iter().zip(ours) {
            let content = |r: &HickoryRecord| (r.name.clone(), r.dns_class, r.data.clone());
            assert_eq!(content(theirs), content(ours));
            assert_eq!(ours.ttl, ttl_s.unwrap_or(theirs.ttl));
        }
    }
}
