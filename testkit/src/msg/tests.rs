//! The encoders against a foreign parser (hickory), and the parser against a
//! foreign encoder and against broken messages.

use std::net::Ipv4Addr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as HickoryQuery, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType, rdata};
use hickory_proto::serialize::binary::BinDecodable;

use super::{Query, Reply, Response, option_code, rcode, rtype};

fn hickory(bytes: &[u8]) -> Message {
    Message::from_bytes(bytes).expect("hickory reads the message")
}

#[test]
fn a_query_is_read_by_hickory_as_it_was_meant() {
    let bytes = Query::new("WwW.Example.com.", "AAAA")
        .id(0x1234)
        .rd(false)
        .cd(true)
        .ad(true)
        .edns(1400)
        .do_bit()
        .option(option_code::COOKIE, [1, 2, 3, 4, 5, 6, 7, 8])
        .bytes();
    let msg = hickory(&bytes);
    assert_eq!(msg.metadata.id, 0x1234);
    assert_eq!(msg.metadata.message_type, MessageType::Query);
    assert!(!msg.metadata.recursion_desired && msg.metadata.checking_disabled);
    assert!(msg.metadata.authentic_data);
    assert_eq!(msg.queries.len(), 1);
    assert_eq!(msg.queries[0].query_type(), RecordType::AAAA);
    assert_eq!(msg.queries[0].name().to_string(), "WwW.Example.com.");
    let edns = msg.edns.expect("an OPT record");
    assert_eq!((edns.max_payload(), edns.version(), edns.flags().dnssec_ok), (1400, 0, true));
    assert_eq!(edns.options().as_ref().len(), 1);
}

#[test]
fn a_plain_query_has_the_expected_bytes() {
    let bytes = Query::new("Ab.", "TYPE65280").id(0xbeef).class(3).opcode(5).aa(true).bytes();
    assert_eq!(bytes, b"\xbe\xef\x2d\x00\0\x01\0\0\0\0\0\0\x02Ab\0\xff\x00\0\x03");
}

#[test]
fn illegal_queries_can_be_written() {
    let query = Query::new("a.example.", "A");
    let two = Reply::parse(&query.clone().qdcount(2).bytes());
    assert_eq!((two.qdcount, two.trailing), (2, 0));
    let none = Reply::parse(&query.clone().qdcount(0).bytes());
    assert_eq!((none.qdcount, none.question, none.raw_len), (0, None, 12));
    assert!(Reply::try_parse(&query.clone().claimed_qdcount(3).bytes()).is_err());
    let opts = Reply::parse(&query.clone().two_opts().bytes());
    assert_eq!((opts.opt_count, opts.opt_is_last), (2, true));
    let odd = Reply::parse(&query.clone().edns(1).edns_version(7).bytes());
    assert_eq!(odd.opt.map(|opt| (opt.size, opt.version)), Some((1, 7)));
    assert_eq!(Reply::parse(&query.clone().trailing(b"xyz").bytes()).trailing, 3);
    let with = Reply::parse(&query.clone().additional("@ 0 IN A 192.0.2.1").dono().bytes());
    assert_eq!(with.additional[0].line(), "a.example. A 192.0.2.1");
    assert_eq!(with.opt.map(|opt| opt.do_bit), Some(false));
    assert!(Reply::try_parse(&query.raw_name(b"\xc0\x0c").bytes()).is_err());
}

#[test]
fn padding_hits_the_length_exactly() {
    for len in [60, 128, 512, 1232] {
        let bytes = Query::new("a.example.", "A").option(option_code::NSID, []).pad_to(len).bytes();
        assert_eq!(bytes.len(), len);
        assert!(Reply::parse(&bytes).option(option_code::PADDING).is_some());
    }
}

#[test]
fn a_response_is_read_by_hickory_as_it_was_meant() {
    let query = Query::new("Www.Example.com.", "A").id(7).cd(true).bytes();
    let lines = [
        "www.example.com. 300 IN CNAME b.example.com.",
        "b.example.com. 60 IN A 192.0.2.1",
        "b.example.com. 60 IN AAAA 2001:db8::1",
        "b.example.com. 60 IN MX 10 mail.example.com.",
        "b.example.com. 60 IN SRV 1 2 3 srv.example.com.",
        "b.example.com. 60 IN TXT \"one two\" three \"q\\\"\\059\"",
        "b.example.com. 60 IN NS ns.example.com.",
        "b.example.com. 60 IN PTR ptr.example.com.",
    ];
    let response = lines.iter().fold(Response::to(&query), |response, line| response.answer(line));
    let response = response
        .authority("example.com. 30 IN SOA ns.example.com. host.example.com. 1 2 3 4 5")
        .additional("ns.example.com. 30 IN A 192.0.2.53")
        .edns(1232, true)
        .ede(22)
        .aa();
    for response in [response.clone(), response.clone().compress_all(), response.clone().no_compression()] {
        let msg = hickory(&response.bytes());
        assert_eq!((msg.metadata.id, msg.metadata.op_code), (7, OpCode::Query));
        assert_eq!(msg.metadata.message_type, MessageType::Response);
        let flags = &msg.metadata;
        assert!(flags.authoritative && flags.recursion_available && flags.recursion_desired);
        assert!(flags.checking_disabled && !flags.truncation);
        assert_eq!(msg.queries[0].name().to_string(), "Www.Example.com.");
        let texts: Vec<_> = msg.answers.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), lines.len());
        assert!(texts[0].eq_ignore_ascii_case(lines[0]), "{}", texts[0]);
        for n in [1, 2, 3, 4, 6, 7] {
            assert_eq!(texts[n], lines[n]);
        }
        let RData::TXT(txt) = &msg.answers[5].data else { panic!("{}", texts[5]) };
        assert_eq!(
            txt.txt_data.iter().map(|s| &s[..]).collect::<Vec<_>>(),
            [&b"one two"[..], b"three", b"q\";"]
        );
        let RData::SOA(soa) = &msg.authorities[0].data else { panic!("no SOA") };
        assert_eq!((soa.serial, soa.minimum), (1, 5));
        assert_eq!(msg.additionals.len(), 1);
        assert!(msg.edns.is_some());

        let own = Reply::parse(&response.bytes());
        assert_eq!(own.answers.len(), lines.len());
        assert_eq!(own.rdatas("TXT"), ["\"one two\" \"three\" \"q\\\";\""]);
        assert_eq!(own.rdatas("SRV"), ["1 2 3 srv.example.com."]);
        assert_eq!(own.authority[0].rdata, "ns.example.com. host.example.com. 1 2 3 4 5");
        assert_eq!((own.min_answer_ttl(), own.ede(), own.opt_is_last), (Some(60), Some(22), true));
    }
    let (all, some, none) =
        (response.clone().compress_all().bytes(), response.bytes(), response.no_compression().bytes());
    assert!(all.len() < some.len() && some.len() < none.len());
}

#[test]
fn the_owner_points_to_the_question_only_when_it_is_the_same_name() {
    let query = Query::new("a.example.", "A").bytes();
    let head = 12 + 11 + 4;
    let same = Response::to(&query).answer("A.example. 1 IN A 192.0.2.1").bytes();
    assert_eq!(same[head..head + 2], [0xc0, 0x0c]);
    let at = Response::to(&query).answer("@ 1 IN A 192.0.2.1").bytes();
    assert_eq!(at[head..head + 2], [0xc0, 0x0c]);
    let other = Response::to(&query).answer("b.example. 1 IN A 192.0.2.1").bytes();
    assert_eq!(other[head..head + 2], *b"\x01b");
    let replaced = Response::to(&query).question("b.example.", "A").answer("@ 1 IN A 192.0.2.1").bytes();
    assert_eq!(replaced[head..head + 2], *b"\x01a", "the owner keeps its name");
    let without = Response::to(&query).no_question().answer("@ 1 IN A 192.0.2.1").bytes();
    assert_eq!(without[12..14], *b"\x01a");
}

#[test]
fn wrong_responses_can_be_written() {
    let query = Query::new("a.example.", "A").id(5).bytes();
    let reply = Reply::parse(
        &Response::to(&query)
            .id(6)
            .qr(false)
            .opcode(4)
            .ra(false)
            .ad(true)
            .tc()
            .rcode(rcode::REFUSED)
            .question("b.example.", "AAAA")
            .question_class(3)
            .bytes(),
    );
    assert_eq!((reply.id, reply.qr, reply.opcode, reply.rcode), (6, false, 4, 5));
    assert!(!reply.ra && reply.ad && reply.tc);
    let question = reply.question.expect("a question");
    assert_eq!((question.name.as_str(), question.qtype, question.qclass), ("b.example.", rtype::AAAA, 3));
    let bad = Response::to(&query).edns(1232, false).rcode(rcode::BADVERS).bytes();
    assert_eq!(Reply::parse(&bad).rcode, rcode::BADVERS);
    assert_eq!(u16::from(hickory(&bad).metadata.response_code), rcode::BADVERS);
    assert!(Reply::try_parse(&Response::to(&query).claimed_ancount(1).bytes()).is_err());
    assert_eq!(Response::to(b"\x12\x34\xff").bytes(), b"\x12\x34\x80\x80\0\0\0\0\0\0\0\0");
}

#[test]
fn signatures_and_unknown_types_keep_their_bytes() {
    let query = Query::new("a.example.", "A").bytes();
    let bytes = Response::to(&query)
        .answer("@ 60 IN RRSIG A 8 2 60 20300101000000 20250101000000 4660 example. AQID")
        .answer("@ 60 IN TYPE65280 \\# 3 c0 0001")
        .answer("@ 60 IN DNAME b.example.")
        .bytes();
    let reply = Reply::parse(&bytes);
    // Covers A, RSA/SHA-256, 2 labels, TTL 60, both times, tag, signer, signature.
    assert_eq!(reply.answers[0].rdata, "\\# 30 000108020000003c70dbd880677485801234076578616d706c6500010203");
    assert_eq!(reply.answers[1].rdata, "\\# 3 c00001");
    assert_eq!(reply.answers[2].line(), "a.example. DNAME b.example.");
    assert_eq!(hickory(&bytes).answers.len(), 3);
    let empty = Response::to(&query).answer("@ 60 IN TYPE65280 \\# 0").bytes();
    assert_eq!(Reply::parse(&empty).rdatas("TYPE65280"), ["\\# 0"]);
}

#[test]
fn a_message_of_hickory_is_read() {
    let name = Name::from_ascii("Www.example.com.").expect("a name");
    let mut msg = Message::new(99, MessageType::Response, OpCode::Query);
    msg.metadata.authentic_data = true;
    msg.metadata.response_code = ResponseCode::NXDomain;
    msg.add_query(HickoryQuery::query(name.clone(), RecordType::A));
    let target = Name::from_ascii("web.example.com.").expect("a name");
    msg.add_answer(Record::from_rdata(name, 5, RData::CNAME(rdata::CNAME(target.clone()))));
    msg.add_answer(Record::from_rdata(target, 9, RData::A(rdata::A(Ipv4Addr::new(192, 0, 2, 9)))));
    let mut edns = Edns::new();
    edns.set_max_payload(1400);
    msg.set_edns(edns);
    let reply = Reply::parse(&msg.to_vec().expect("hickory writes it"));
    assert_eq!((reply.id, reply.ad, reply.rcode, reply.min_answer_ttl()), (99, true, 3, Some(5)));
    assert_eq!(
        reply.answer_lines(),
        ["Www.example.com. CNAME web.example.com.", "web.example.com. A 192.0.2.9"]
    );
    let opt = reply.opt.expect("an OPT record");
    assert_eq!((opt.size, opt.do_bit, reply.trailing), (1400, false, 0));
}

#[test]
fn every_prefix_of_a_message_is_malformed() {
    let query = Query::new("a.example.", "A").bytes();
    let bytes = Response::to(&query)
        .answer("@ 1 IN MX 1 b.example.")
        .authority("example. 1 IN SOA a. b. 1 2 3 4 5")
        .edns(512, false)
        .ede(3)
        .compress_all()
        .bytes();
    for len in 0..bytes.len() {
        assert!(Reply::try_parse(&bytes[..len]).is_err(), "{len} of {} bytes were taken", bytes.len());
    }
    assert!(Reply::try_parse(&bytes).is_ok());
}

#[test]
fn rdata_that_disagrees_with_its_length_is_malformed() {
    let query = Query::new("a.example.", "A").bytes();
    for line in
        ["@ 1 IN A \\# 3 c00001", "@ 1 IN MX \\# 4 00010000", "@ 1 IN TXT \\# 2 0561", "@ 1 IN CNAME \\# 0"]
    {
        let bytes = Response::to(&query).answer(line).bytes();
        assert!(Reply::try_parse(&bytes).is_err(), "{line} was taken");
    }
}
