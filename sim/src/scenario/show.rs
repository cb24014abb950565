//! Messages as text, laid out as `dig` does it, for people who look at a failure.

use super::entry::{FLAGS, OPCODES, RCODES};
use nodens_testkit::{Reply, msg::type_text};
use std::fmt::Write as _;

/// A message, each line indented.
pub(super) fn message(reply: &Reply) -> String {
    let mut text = String::new();
    let opcode = name_of(&OPCODES, reply.opcode).unwrap_or("?");
    let status = rcode(reply.rcode);
    let on = [reply.qr, reply.aa, reply.tc, reply.rd, reply.ra, reply.z, reply.ad, reply.cd];
    let flags: Vec<_> =
        FLAGS.iter().zip(on).filter(|(_, on)| *on).map(|((name, _), _)| name.to_lowercase()).collect();
    line(&mut text, &format!(";; opcode: {opcode}, status: {status}, flags: {}", flags.join(" ")));
    if let Some(opt) = &reply.opt {
        let do_bit = if opt.do_bit { " do" } else { "" };
        let options: Vec<_> = opt.options.iter().map(|(code, data)| option(*code, data)).collect();
        let edns = format!(";; EDNS: version: {}, flags:{do_bit}, udp: {}", opt.version, opt.size);
        line(&mut text, &[&[edns][..], &options].concat().join(", "));
    }
    line(&mut text, ";; QUESTION");
    if let Some(question) = &reply.question {
        let (qtype, class) = (type_text(question.qtype), class(question.qclass));
        line(&mut text, &format!("{} {class} {qtype}", question.name));
    }
    let sections =
        [("ANSWER", &reply.answers), ("AUTHORITY", &reply.authority), ("ADDITIONAL", &reply.additional)];
    for (name, records) in sections.into_iter().filter(|(_, records)| !records.is_empty()) {
        line(&mut text, &format!(";; {name}"));
        for rr in records {
            let (rtype, class) = (type_text(rr.rtype), class(rr.class));
            line(&mut text, &format!("{} {} {class} {rtype} {}", rr.owner, rr.ttl, rr.rdata));
        }
    }
    line(&mut text, &format!(";; {} bytes", reply.raw_len));
    text
}

/// A response code by its name.
pub(super) fn rcode(rcode: u16) -> String {
    name_of(&RCODES, rcode).map_or_else(|| format!("RCODE{rcode}"), str::to_owned)
}

fn line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "    {line}");
}

fn name_of<T: PartialEq>(table: &[(&'static str, T)], number: T) -> Option<&'static str> {
    table.iter().find(|(_, n)| *n == number).map(|(name, _)| *name)
}

fn class(class: u16) -> String {
    match class {
        1 => "IN".into(),
        3 => "CH".into(),
        other => format!("CLASS{other}"),
    }
}

fn option(code: u16, data: &[u8]) -> String {
    let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
    match (code, data.first_chunk()) {
        (15, Some(info)) => format!("EDE: {}", u16::from_be_bytes(*info)),
        _ => format!("option {code}: {hex}"),
    }
}
