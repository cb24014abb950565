//! The log lines of the real binary, read as people's scripts read CoreDNS': field by field, against what was sent.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use nodens_testkit::{Action, Query, Reply, TcpClient, UdpClient, Upstream};

use support::{Agent, COREFILE, PATIENCE};

/// One line of the `log` plug-in.
#[derive(Debug, PartialEq)]
struct Line {
    remote: SocketAddr,
    id: u16,
    qtype: String,
    class: String,
    name: String,
    proto: String,
    size: usize,
    do_bit: bool,
    bufsize: u16,
    rcode: String,
    flags: Vec<String>,
    rsize: usize,
    duration: Duration,
}

/// `{remote}:{port} - {id} "{type} {class} {name} {proto} {size} {do} {bufsize}" {rcode} {flags} {rsize} {duration}`
fn parse(line: &str) -> Option<Line> {
    let (remote, rest) = line.strip_prefix("[INFO] ")?.split_once(" - ")?;
    let (id, rest) = rest.split_once(" \"")?;
    let (question, answer) = rest.rsplit_once("\" ")?;
    let [qtype, class, name, proto, size, do_bit, bufsize] = fields(question)?;
    let [rcode, flags, rsize, duration] = fields(answer)?;
    let seconds = duration.strip_suffix('s')?;
    // No exponent and no other unit: scripts do not expect them.
    if !seconds.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    Some(Line {
        remote: remote.parse().ok()?,
        id: id.parse().ok()?,
        qtype: qtype.to_owned(),
        class: class.to_owned(),
        name: name.to_owned(),
        proto: proto.to_owned(),
        size: size.parse().ok()?,
        do_bit: do_bit.parse().ok()?,
        bufsize: bufsize.parse().ok()?,
        rcode: rcode.to_owned(),
        flags: flags.split(',').map(str::to_owned).collect(),
        rsize: rsize.parse().ok()?,
        duration: Duration::from_secs_f64(seconds.parse().ok()?),
    })
}

fn fields<const N: usize>(text: &str) -> Option<[&str; N]> {
    text.split(' ').collect::<Vec<_>>().try_into().ok()
}

fn agent() -> (Upstream, Agent) {
    let upstream = Upstream::start(|query| {
        let reply = query.response();
        let soa = "example. 30 IN SOA ns.example. admin.example. 1 3600 600 86400 30";
        let answer = match query.qname.as_str() {
            "slow.example." => {
                let answer = reply.answer("@ 60 IN A 192.0.2.1").bytes();
                return vec![Action::Delay(Duration::from_millis(50)), Action::Send(answer)];
            }
            "gone.example." => reply.rcode(3).authority(soa),
            _ => reply.answer("@ 60 IN A 192.0.2.1"),
        };
        vec![Action::Send(answer.bytes())]
    });
    let corefile = COREFILE.replace("errors\n", "errors\n    log\n");
    let agent = Agent::start(&corefile, &[("UPSTREAM", &upstream.addr().to_string())]);
    (upstream, agent)
}

/// The line about the query with this ID.
fn line_of(agent: &Agent, id: u16) -> Line {
    let line = agent.process.wait_for_line(&format!(" - {id} \""), PATIENCE);
    let line = line.unwrap_or_else(|| panic!("no line about {id}: {}", agent.process.dump()));
    parse(&line).unwrap_or_else(|| panic!("not CoreDNS' common format: {line}"))
}

#[test]
fn m22_queries_are_logged_in_the_common_format() {
    let (_upstream, agent) = agent();
    let udp = UdpClient::new();
    let mut tcp = TcpClient::connect(agent.dns).expect("connected");
    let plain = Query::new("Slow.EXAMPLE.", "A").id(101);
    let with_do = Query::new("gone.example.", "AAAA").id(102).edns(4096).do_bit();
    let over_tcp = Query::new("slow.example.", "A").id(103);
    let mut replies: Vec<Reply> = Vec::new();
    for query in [&plain, &with_do] {
        replies.push(udp.ask(agent.dns, &query.bytes(), PATIENCE).expect("an answer"));
    }
    replies.push(tcp.ask(&over_tcp.bytes(), PATIENCE).expect("an answer"));

    let first = line_of(&agent, 101);
    assert!(first.duration >= Duration::from_millis(50) && first.duration < PATIENCE, "{first:?}");
    let expected = Line {
        remote: udp.local_addr(),
        id: 101,
        qtype: "A".into(),
        class: "IN".into(),
        name: "slow.example.".into(),
        proto: "udp".into(),
        size: plain.bytes().len(),
        do_bit: false,
        bufsize: 512,
        rcode: "NOERROR".into(),
        flags: flags(&replies[0]),
        rsize: replies[0].raw_len,
        duration: first.duration,
    };
    assert_eq!(first, expected);

    let second = line_of(&agent, 102);
    assert_eq!((second.qtype.as_str(), second.rcode.as_str()), ("AAAA", "NXDOMAIN"));
    assert_eq!((second.do_bit, second.bufsize, second.size), (true, 4096, with_do.bytes().len()));
    assert_eq!((second.flags, second.rsize), (flags(&replies[1]), replies[1].raw_len));

    let third = line_of(&agent, 103);
    assert_eq!((third.remote, third.proto.as_str(), third.bufsize), (tcp.local_addr(), "tcp", 65535));
    assert_eq!((third.rsize, third.do_bit), (replies[2].raw_len, false));
}

/// As CoreDNS lists them.
fn flags(reply: &Reply) -> Vec<String> {
    let all = [(reply.qr, "qr"), (reply.aa, "aa"), (reply.tc, "tc"), (reply.rd, "rd"), (reply.ra, "ra")];
    all.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.to_owned()).collect()
}

#[test]
fn m10_failures_are_logged_with_the_upstream_and_the_cause() {
    let (upstream, agent) = agent();
    upstream.stop();
    let reply = agent.udp(&Query::new("broken.example.", "A").id(201));
    let error = agent.process.wait_for_line("[ERROR] ", PATIENCE);
    let wanted =
        format!("[ERROR] plugin/errors: 2 broken.example. A: {}: connection refused", upstream.addr());
    assert_eq!(error.as_deref(), Some(&*wanted), "{}", agent.process.dump());
    let line = line_of(&agent, 201);
    assert_eq!((line.rcode.as_str(), line.rsize), ("SERVFAIL", reply.raw_len));

    // The probes find it out, and find out that it is back.
    let down = format!("[WARNING] plugin/forward: upstream {} is down", upstream.addr());
    assert!(agent.process.wait_for_line(&down, PATIENCE).is_some(), "{}", agent.process.dump());
    upstream.restart();
    let up = format!("[INFO] plugin/forward: upstream {} is up again", upstream.addr());
    assert!(agent.process.wait_for_line(&up, PATIENCE).is_some(), "{}", agent.process.dump());
}

#[test]
fn without_the_plugin_nothing_is_logged() {
    let upstream = Upstream::start(|query| vec![Action::Send(query.response().bytes())]);
    let agent = Agent::before(upstream.addr());
    agent.udp(&Query::new("a.example.", "A").id(301));
    // Longer than lines stay in the buffer.
    assert_eq!(agent.process.wait_for_line("a.example.", Duration::from_millis(1300)), None);
}
