//! Events in, lines out.

use nodens_core::wire::Name;
use nodens_core::{ClientAddr, ConnectionId, ListenerId, QueryEvent, UpstreamId};

use super::*;

fn query(name: &str) -> QueryEvent {
    QueryEvent {
        client: ClientAddr {
            listener: ListenerId(0),
            peer: "127.0.0.1:40212".parse().expect("an address"),
            local: None,
            connection: None,
        },
        id: 7,
        qname: Name::parse(name).expect("a name"),
        qtype: 1,
        qclass: 1,
        do_bit: false,
        udp_size: 512,
        query_len: 29,
        flags: 0x8182,
        rcode: 2,
        response_len: 29,
        duration: Duration::from_nanos(123_456),
    }
}

fn failure(cause: FailureCause) -> Event {
    let qname = Name::parse("example.org").expect("a name");
    Event::Failure(FailureEvent { qname, qtype: 1, cause, upstream: Some(UpstreamId(0)) })
}

fn upstreams() -> [SocketAddr; 1] {
    ["10.96.0.10:53".parse().expect("an address")]
}

fn lines(events: &[Event]) -> Vec<String> {
    let mut log = Log::new(Vec::new());
    events.iter().for_each(|event| log.event(Instant::now(), event, &upstreams()));
    log.into_sink()
}

#[test]
fn m22_a_query_in_the_common_format() {
    assert_eq!(
        lines(&[Event::Query(query("example.org"))]),
        [
            "[INFO] 127.0.0.1:40212 - 7 \"A IN example.org. udp 29 false 512\" SERVFAIL qr,rd,ra 29 0.000123456s"
        ]
    );
}

#[test]
fn m32_ipv6_clients_stand_in_brackets_and_mapped_ones_as_ipv4() {
    let mut event = query("example.org");
    event.client.peer = "[2001:db8::7]:53".parse().expect("an address");
    event.client.connection = Some(ConnectionId(1));
    event.do_bit = true;
    assert!(
        Common(&event)
            .to_string()
            .starts_with("[2001:db8::7]:53 - 7 \"A IN example.org. tcp 29 true 65535\"")
    );
    event.client.peer = "[::ffff:10.0.0.7]:53".parse().expect("an address");
    assert!(Common(&event).to_string().starts_with("10.0.0.7:53 - "));
}

#[test]
fn m35_s22_names_cannot_steer_the_line() {
    let event = query("%s\\010[ERROR]\\027[31m\\\"\\000\\255.org");
    let line = Common(&event).to_string();
    assert!(line.contains("\"A IN %s\\010[error]\\027[31m\\\"\\000\\255.org. udp"), "{line}");
    assert!(!line.contains(char::is_control));
}

#[test]
fn flags_are_listed_in_corednss_order() {
    let mut event = query("a");
    event.flags = 0x87f0;
    event.rcode = 0;
    assert!(Common(&event).to_string().contains("NOERROR qr,aa,tc,rd,ra,z,ad,cd 29 "));
    event.flags = 0;
    assert!(Common(&event).to_string().contains("NOERROR  29 "));
}

#[test]
fn durations_have_no_exponent() {
    let mut event = query("a");
    for (nanos, text) in [(0, " 0s"), (100, " 0.0000001s"), (1_500_000_000, " 1.5s"), (2_000_000_000, " 2s")]
    {
        event.duration = Duration::from_nanos(nanos);
        assert!(Common(&event).to_string().ends_with(text), "{}", Common(&event));
    }
}

#[test]
fn m10_a_failure_in_the_format_of_errors() {
    assert_eq!(
        lines(&[failure(FailureCause::TimedOut), failure(FailureCause::Refused)]),
        [
            "[ERROR] plugin/errors: 2 example.org. A: 10.96.0.10:53: i/o timeout",
            "[ERROR] plugin/errors: 2 example.org. A: 10.96.0.10:53: connection refused",
        ]
    );
}

#[test]
fn upstreams_that_go_and_come_are_told() {
    let event = |down| Event::Upstream { upstream: UpstreamId(0), down };
    assert_eq!(
        lines(&[event(true), event(false)]),
        [
            "[WARNING] plugin/forward: upstream 10.96.0.10:53 is down: it will be asked last, and probed",
            "[INFO] plugin/forward: upstream 10.96.0.10:53 is up again",
        ]
    );
}

#[test]
fn a_flood_is_cut_and_counted_and_other_causes_are_still_told() {
    let mut log = Log::new(Vec::new());
    let begin = Instant::now();
    for i in 0..1000 {
        log.event(begin + Duration::from_micros(i), &failure(FailureCause::TimedOut), &upstreams());
    }
    log.event(begin, &failure(FailureCause::Refused), &upstreams());
    log.tick(begin + Duration::from_millis(500));
    log.tick(begin + Duration::from_millis(1100));
    log.tick(begin + Duration::from_millis(2200));
    let lines = log.into_sink();
    assert_eq!(
        lines.iter().filter(|line| line.ends_with(": i/o timeout") && line.contains("53")).count(),
        50
    );
    assert_eq!(lines.iter().filter(|line| line.ends_with("connection refused")).count(), 1);
    assert_eq!(lines.last().expect("lines"), "[ERROR] plugin/errors: 950 more: i/o timeout");
    assert_eq!(lines.len(), 52);
}

#[test]
fn the_budget_comes_back_with_time() {
    let mut budget = Budget::default();
    let begin = Instant::now();
    let allowed = |budget: &mut Budget, at| (0..100).filter(|_| budget.spend(at)).count();
    assert_eq!(allowed(&mut budget, begin), 50);
    assert_eq!(allowed(&mut budget, begin + Duration::from_millis(200)), 10);
    assert_eq!(allowed(&mut budget, begin + Duration::from_secs(60)), 50);
}

#[test]
fn the_agents_own_lines_hold_no_control_characters() {
    let mut log = Log::new(Vec::new());
    log.say(Level::Warning, "plugin/reload: bad\nline \u{1b}[31m");
    assert_eq!(log.into_sink(), ["[WARNING] plugin/reload: bad\\nline \\u{1b}[31m"]);
}

#[test]
fn what_two_workers_find_out_at_once_is_one_line() {
    let mut log = Log::new(Vec::new());
    let begin = Instant::now();
    for (ms, down) in [(0, true), (300, true), (400, false), (700, false), (800, true), (5000, true)] {
        let event = Event::Upstream { upstream: UpstreamId(0), down };
        log.event(begin + Duration::from_millis(ms), &event, &upstreams());
    }
    let lines = log.into_sink();
    let told: Vec<_> = lines.iter().map(|line| line.contains("is down")).collect();
    assert_eq!(told, [true, false, true, true], "the last comes much later: {lines:?}");
}
