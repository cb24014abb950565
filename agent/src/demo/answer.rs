//! One query in, one answer out: the demo's upstream without its sockets.

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::zones::{Found, World};

/// The size without EDNS (RFC 1035 §4.2.1).
const UDP_SIZE: u16 = 512;
/// What we offer and use at most over UDP (RFC 9715).
const UDP_SIZE_MAX: u16 = 1232;
/// CNAMEs that are followed in one answer.
const CHAIN_MAX: usize = 8;
/// A DNS header.
const HEADER_LEN: usize = 12;

/// How the query came.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Transport {
    /// Answers are cut at what the client can take.
    Udp,
    /// Answers are whole.
    Tcp,
}

/// The answer to `query`; `None` for what gets none: a stub of a message, or a response.
pub fn answer(world: &World, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
    if query.len() < HEADER_LEN || query[2] & 0x80 != 0 {
        return None;
    }
    let Ok(query) = Message::from_vec(query) else {
        return Some(malformed(query));
    };
    let mut reply = Message::new(query.metadata.id, MessageType::Response, query.metadata.op_code);
    reply.metadata = Metadata::response_from_request(&query.metadata);
    reply.metadata.recursion_available = true;
    reply.add_queries(query.queries.iter().cloned());
    let mut size = UDP_SIZE;
    let mut version = 0;
    if let Some(edns) = &query.edns {
        size = edns.max_payload().clamp(UDP_SIZE, UDP_SIZE_MAX);
        version = edns.version();
        let mut ours = Edns::new();
        ours.set_max_payload(UDP_SIZE_MAX).set_version(0);
        ours.set_dnssec_ok(edns.flags().dnssec_ok);
        reply.set_edns(ours);
    }
    match query.queries.as_slice() {
        _ if query.metadata.op_code != OpCode::Query => reply.metadata.response_code = ResponseCode::NotImp,
        [_] if version != 0 => reply.metadata.response_code = ResponseCode::BADVERS,
        [question] => match (question.query_class(), question.query_type()) {
            (DNSClass::IN, RecordType::AXFR | RecordType::IXFR) => {
                reply.metadata.response_code = ResponseCode::Refused;
            }
            (DNSClass::IN, qtype) => resolve(world, question.name().clone(), qtype, &mut reply),
            _ => reply.metadata.response_code = ResponseCode::Refused,
        },
        _ => reply.metadata.response_code = ResponseCode::FormErr,
    }
    let whole = reply.to_vec().ok()?;
    if transport == Transport::Tcp || whole.len() <= usize::from(size) {
        return Some(whole);
    }
    reply.truncate().to_vec().ok()
}

/// A header that says FORMERR: there is nothing else that could be repeated.
fn malformed(query: &[u8]) -> Vec<u8> {
    let mut reply = vec![0; HEADER_LEN];
    reply[..2].copy_from_slice(&query[..2]);
    reply[2] = 0x80 | query[2] & 0x79;
    reply[3] = 0x80 | 1;
    reply
}

/// Fills in answer, authority and additional sections.
fn resolve(world: &World, mut name: Name, qtype: RecordType, reply: &mut Message) {
    reply.metadata.authoritative = true;
    for _ in 0..CHAIN_MAX {
        let records = match world.find(&name) {
            Found::Records(records) => records,
            nothing => {
                if matches!(nothing, Found::Nothing) {
                    reply.metadata.response_code = ResponseCode::NXDomain;
                }
                reply.add_authority(world.soa(&name).clone());
                return;
            }
        };
        let fits = |record: &&Record| qtype == RecordType::ANY || record.record_type() == qtype;
        let found: Vec<Record> = records.iter().filter(fits).map(|record| owned_by(&name, record)).collect();
        if !found.is_empty() {
            additional(world, &found, reply);
            reply.add_answers(found);
            return;
        }
        let Some((alias, target)) = records.iter().find_map(|record| match &record.data {
            RData::CNAME(target) => Some((owned_by(&name, record), target.0.clone())),
            _ => None,
        }) else {
            reply.add_authority(world.soa(&name).clone());
            return;
        };
        reply.add_answer(alias);
        name = target;
    }
}

/// The client's spelling of the name comes back (as CoreDNS has it).
fn owned_by(name: &Name, record: &Record) -> Record {
    let mut record = record.clone();
    record.name = name.clone();
    record
}

/// The addresses of the servers that SRV records name, each once (RFC 2782).
fn additional(world: &World, found: &[Record], reply: &mut Message) {
    for record in found {
        let RData::SRV(srv) = &record.data else { continue };
        if let Found::Records(records) = world.find(&srv.target) {
            let addresses = records.iter().filter(|r| r.record_type() == RecordType::A).cloned();
            reply.add_additionals(addresses);
        }
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
