//! Truncation: at the end of a record, no earlier than it must be, and told (semantics.md R10, RFC 2181 §9).

use super::{cases, walk};
use hickory_proto::op::Message as HickoryMessage;
use nodens_core::cache::{Answer, AnswerMeta, Kind, ReplyFrame, Ttls, render};
use nodens_core::wire::{Flags, Rcode};
use nodens_testkit::{Query, Response};
use proptest::prelude::*;

/// A TXT record of so many octets of text in one of the sections.
type Text = (usize, usize);

fn response(records: &[Text], compress: bool) -> Response {
    let to = Response::to(&Query::new("wWw.exAmple.", "TXT").bytes());
    let to = if compress { to.compress_all() } else { to };
    records.iter().fold(to, |response, (section, len)| {
        let text = "x".repeat(*len);
        match section {
            0 => response.answer(&format!("@ 300 IN TXT \"{text}\"")),
            1 => response.authority(&format!("example. 300 IN TXT \"{text}\"")),
            _ => response.additional(&format!("ns.example. 300 IN TXT \"{text}\"")),
        }
    })
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn r10_what_is_left_is_the_longest_run_of_records_that_fits_and_tc_says_if_data_is_missing(
        mut records in prop::collection::vec((0..3usize, 0..200usize), 0..25),
        compress in any::<bool>(),
        len_max in 512..4096usize,
        do_bit in any::<Option<bool>>(),
        extended_error in any::<Option<u16>>(),
    ) {
        records.sort_by_key(|(section, _)| *section);
        let bytes = response(&records, compress).bytes();
        let message = walk(&bytes);
        let meta = AnswerMeta {
            rcode: Rcode::NOERROR,
            flags: Flags(Flags::RA),
            counts: [0; 3],
            kind: Some(Kind::Positive),
            extended_error,
            ttl_s: 300,
        };
        let answer = Answer::from_message(&message, meta);
        let frame = ReplyFrame {
            id: 7,
            query_flags: Flags(Flags::RD),
            question: message.question.bytes,
            do_bit,
            udp_size: 1232,
            len_max,
            trust_ad: true,
        };
        let mut out = vec![0; len_max];
        let rendered = render(answer.as_ref(), Ttls::Flat(9), &frame, &mut out);
        let whole = HickoryMessage::from_vec(&bytes).expect("hickory reads the kit's message");
        let reply = HickoryMessage::from_vec(&out[..rendered.len]).expect("hickory reads the reply");

        // A prefix, section by section, and nothing after the first that is missing.
        let sections = |m: &HickoryMessage| [m.answers.clone(), m.authorities.clone(), m.additionals.clone()];
        let (all, left) = (sections(&whole).concat(), sections(&reply).concat());
        let contents = |records: &[hickory_proto::rr::Record]| -> Vec<_> {
            records.iter().map(|r| (r.name.clone(), r.data.clone())).collect()
        };
        prop_assert_eq!(contents(&left), contents(&all[..left.len()]));
        let counts = sections(&reply).map(|section| section.len());
        let mut expected = sections(&whole).map(|section| section.len());
        let mut room = left.len();
        for count in &mut expected {
            *count = (*count).min(room);
            room -= *count;
        }
        prop_assert_eq!(counts, expected);
        prop_assert!(left.iter().all(|record| record.ttl == 9));

        // It fits, and the next record would not have.
        prop_assert!(rendered.len <= len_max);
        if let Some(next) = message.records.get(left.len()) {
            prop_assert!(rendered.len + (next.end - next.owner) > len_max, "a record was left out for no reason");
        }

        // TC if and only if something of the answer or the authority section is missing; the OPT stays.
        let missing = counts[..2] != [whole.answers.len(), whole.authorities.len()];
        prop_assert_eq!(reply.metadata.truncation, missing);
        prop_assert_eq!(rendered.truncated, missing);
        prop_assert_eq!(reply.edns.as_ref().map(|edns| edns.flags().dnssec_ok), do_bit);
    }
}
