//! What the demo's world says.

use std::net::Ipv4Addr;

use hickory_proto::op::Query;
use hickory_proto::rr::rdata::A;

use super::*;

fn query(name: &str, qtype: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), qtype));
    message
}

fn send(message: &Message, transport: Transport) -> Message {
    let bytes = message.to_vec().expect("a message");
    let reply = answer(&World::new(), &bytes, transport).expect("an answer");
    Message::from_vec(&reply).expect("a message")
}

fn ask(name: &str, qtype: RecordType) -> Message {
    send(&query(name, qtype), Transport::Udp)
}

fn addresses(records: &[Record]) -> Vec<Ipv4Addr> {
    let address = |record: &Record| match record.data {
        RData::A(A(ip)) => Some(ip),
        _ => None,
    };
    records.iter().filter_map(address).collect()
}

fn negative_ttl(reply: &Message) -> Option<(String, u32, u32)> {
    match (&reply.authorities[..], reply.answers.is_empty()) {
        ([record], true) => match &record.data {
            RData::SOA(soa) => Some((record.name.to_string(), record.ttl, soa.minimum)),
            _ => None,
        },
        _ => None,
    }
}

#[test]
fn a_service_has_its_address_with_the_clusters_ttl() {
    let reply = ask("Kubernetes.default.svc.cluster.local.", RecordType::A);
    assert_eq!(addresses(&reply.answers), [Ipv4Addr::new(10, 96, 0, 1)]);
    assert_eq!(reply.answers[0].ttl, 30);
    assert_eq!(reply.answers[0].name.to_string(), "Kubernetes.default.svc.cluster.local.");
    assert!(reply.metadata.recursion_available && reply.metadata.recursion_desired && reply.metadata.id == 7);
}

#[test]
fn a_headless_service_has_all_its_pods() {
    assert_eq!(ask("web.default.svc.cluster.local.", RecordType::A).answers.len(), 3);
    assert_eq!(ask("web-1.web.default.svc.cluster.local.", RecordType::A).answers.len(), 1);
}

#[test]
fn srv_records_bring_addresses() {
    let reply = ask("_dns._udp.kube-dns.kube-system.svc.cluster.local.", RecordType::SRV);
    assert_eq!(reply.answers.len(), 1);
    assert_eq!(addresses(&reply.additionals), [Ipv4Addr::new(10, 96, 0, 10)]);
}

#[test]
fn aliases_are_followed_across_zones() {
    let reply = ask("shop.default.svc.cluster.local.", RecordType::A);
    assert_eq!((reply.answers.len(), addresses(&reply.answers).len()), (2, 1));
    let reply = ask("www.example.com.", RecordType::AAAA);
    assert_eq!(reply.answers.len(), 2);
    let reply = ask("www.example.com.", RecordType::SRV);
    assert_eq!((reply.answers.len(), reply.authorities.len()), (1, 1));
}

#[test]
fn reverse_names_exist() {
    for reverse in ["1.0.96.10.in-addr.arpa.", "10.1.244.10.in-addr.arpa."] {
        assert_eq!(ask(reverse, RecordType::PTR).answers.len(), 1);
    }
}

#[test]
fn rfc2308_negative_answers_carry_the_soa_of_their_zone() {
    let nodata = ask("kubernetes.default.svc.cluster.local.", RecordType::AAAA);
    assert_eq!(nodata.metadata.response_code, ResponseCode::NoError);
    assert_eq!(negative_ttl(&nodata), Some(("cluster.local.".to_owned(), 30, 30)));
    let futile = ask("example.com.default.svc.cluster.local.", RecordType::A);
    assert_eq!(futile.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(negative_ttl(&futile), Some(("cluster.local.".to_owned(), 30, 30)));
    let foreign = ask("nothing.invalid.", RecordType::A);
    assert_eq!(foreign.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(negative_ttl(&foreign), Some((".".to_owned(), 60, 60)));
    let between = ask("svc.cluster.local.", RecordType::A);
    assert_eq!(between.metadata.response_code, ResponseCode::NoError);
}

#[test]
fn a_large_answer_is_truncated_over_udp_and_whole_over_tcp() {
    let mut message = query("big.example.com.", RecordType::A);
    for edns in [false, true] {
        if edns {
            message.set_edns(Edns::new().set_max_payload(4096).clone());
        }
        let udp = send(&message, Transport::Udp);
        assert!(udp.metadata.truncation && udp.answers.is_empty());
        assert_eq!(udp.edns.is_some(), edns);
        let tcp = send(&message, Transport::Tcp);
        assert_eq!((tcp.metadata.truncation, tcp.answers.len()), (false, 100));
    }
}

#[test]
fn the_probe_of_the_root_is_answered() {
    assert_eq!(ask(".", RecordType::NS).answers.len(), 1);
    let all = ask("example.com.", RecordType::ANY);
    assert!(all.answers.len() >= 5);
}

#[test]
fn what_is_not_served_gets_the_error_for_it() {
    let code = |message: &Message| send(message, Transport::Udp).metadata.response_code;
    assert_eq!(code(&query("example.com.", RecordType::AXFR)), ResponseCode::Refused);
    let mut chaos = query("version.bind.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&chaos), ResponseCode::Refused);
    let mut update = query("example.com.", RecordType::A);
    update.metadata.op_code = OpCode::Status;
    assert_eq!(code(&update), ResponseCode::NotImp);
    let mut future = query("example.com.", RecordType::A);
    future.set_edns(Edns::new().set_version(1).clone());
    // 16 has two names in the registry: BADVERS here, BADSIG in a TSIG record.
    assert_eq!(u16::from(code(&future)), 16);
    let mut empty = query("example.com.", RecordType::A);
    empty.queries.clear();
    assert_eq!(code(&empty), ResponseCode::FormErr);
}

#[test]
fn stubs_and_responses_get_nothing_and_garbage_gets_formerr() {
    let world = World::new();
    assert_eq!(answer(&world, &[0; 11], Transport::Udp), None);
    let mut response = query("example.com.", RecordType::A).to_vec().expect("a message");
    response[2] |= 0x80;
    assert_eq!(answer(&world, &response, Transport::Udp), None);
    let garbage = [9, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 63];
    let reply = answer(&world, &garbage, Transport::Udp).expect("an answer");
    assert_eq!((&reply[..2], reply[3] & 15, reply.len()), (&[9, 9][..], 1, 12));
}
