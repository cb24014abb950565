//! Who becomes whom, and keeps what.

use super::*;

const ALL: CapabilitySet = CapabilitySet::from_bits_retain((1 << 41) - 1);
const NOTHING: CapabilitySet = CapabilitySet::empty();

fn needs() -> Needs {
    Needs { user: User::Become(UID), sets_up: true, iptables: false, writes: Vec::new() }
}

fn decided(uid: u32, permitted: CapabilitySet, needs: &Needs) -> (Change, Vec<&'static str>, Option<String>) {
    let Decision { change, keep, complaint } = decide(Standing { uid, permitted }, needs);
    let names = NAMES.iter().filter(|(one, _)| keep.contains(*one)).map(|(_, name)| *name).collect();
    let known = NAMES.iter().fold(NOTHING, |all, (one, _)| all | *one);
    assert!(known.contains(keep), "every capability that is kept has a name for the log");
    (change, names, complaint)
}

#[test]
fn each_row_of_the_table() {
    let full = CapabilitySet::NET_ADMIN | CapabilitySet::NET_BIND_SERVICE;
    let container = full | CapabilitySet::SETUID | CapabilitySet::SETGID;
    let iptables = Needs { iptables: true, ..needs() };
    let keep = Needs { user: User::Keep, ..needs() };
    let serves_only = Needs { sets_up: false, ..needs() };
    let two = vec!["NET_ADMIN", "NET_BIND_SERVICE"];
    let three = vec!["NET_ADMIN", "NET_BIND_SERVICE", "NET_RAW"];
    let five = vec!["NET_ADMIN", "NET_BIND_SERVICE", "NET_RAW", "SETUID", "SETGID"];
    let rows = [
        (0, ALL, &needs(), Change::All(UID), two.clone()),
        (0, container, &needs(), Change::All(UID), two.clone()),
        (0, ALL, &iptables, Change::AllButControl(UID), five),
        (0, ALL, &keep, Change::Nobody, two.clone()),
        (0, ALL, &Needs { iptables: true, ..keep.clone() }, Change::Nobody, three),
        (0, ALL, &serves_only, Change::All(UID), vec!["NET_BIND_SERVICE"]),
        (1000, full, &needs(), Change::Nobody, two),
        (UID, ALL, &serves_only, Change::Nobody, vec!["NET_BIND_SERVICE"]),
    ];
    for (uid, permitted, needs, change, kept) in rows {
        assert_eq!(decided(uid, permitted, needs), (change, kept, None), "UID {uid}, {needs:?}");
    }
}

#[test]
fn what_is_missing_is_one_line_that_says_what_to_do() {
    let full = CapabilitySet::NET_ADMIN | CapabilitySet::NET_BIND_SERVICE;
    let (change, kept, complaint) = decided(0, full, &needs());
    assert_eq!((change, kept.len()), (Change::Nobody, 2), "no CAP_SETUID");
    assert!(
        complaint.is_some_and(|line| line.contains("grant them, start as that user, or say `-user keep`"))
    );
    let (change, kept, complaint) = decided(1000, NOTHING, &needs());
    assert_eq!((change, kept.len()), (Change::Nobody, 0));
    let line = complaint.expect("NET_ADMIN is missing");
    assert!(line.contains("CAP_NET_ADMIN") && line.contains("DNS is served all the same"), "{line}");
    let nothing_to_set_up = Needs { sets_up: false, ..needs() };
    assert_eq!(decided(1000, NOTHING, &nothing_to_set_up).2, None, "then nothing is missing");
}

#[test]
fn a_bare_thread_and_those_it_starts_may_nothing() {
    let of_this_thread = || std::fs::read_to_string("/proc/thread-self/status").expect("always there");
    let statuses = Bare::default()
        .run(|| [of_this_thread(), std::thread::spawn(of_this_thread).join().expect("it reads a file")])
        .expect("giving up is always allowed");
    for status in statuses {
        for line in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
            assert!(status.contains(&format!("{line}:\t0000000000000000")), "{status}");
        }
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    }
}
