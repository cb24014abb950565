//! What a world that fails leaves behind: the block, the trace, the packets, a smaller world, a line that replays it.
//!
//! A deliberate fault of the core makes a known world fail (`planted.txt`); `make planted` runs this. A program with one test: a
//! chosen fault is chosen for all of it, and so is the folder that the files are written to.
#![cfg(nodens_sim)]

use nodens_core::sim_support::{Fault, choose};
use nodens_sim::options::{Cuts, Options};
use nodens_sim::profiles::Profile;
use nodens_sim::{cli, report, shrink, world};
use std::path::Path;
use std::process::ExitCode;

/// A line of `planted.txt`.
const SEED: u64 = 0;
const CHECK: &str = "answers/ttl";

#[test]
fn what_a_failure_leaves_is_whole_and_leads_back_to_it() {
    let folder = std::env::temp_dir().join(format!("nodens-sim-failing-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    std::env::set_current_dir(&folder).expect("a folder to be in");
    choose(Some(Fault::TtlNeverFalls));
    let options = Options::draw(SEED, Profile::Swarm);
    let failure = *world::run(&options, false).failure.expect("the fault is seen");
    assert_eq!(failure.check, CHECK);

    let block = report::block(&options, &Cuts::default(), &failure);
    let line = |name: &str| {
        let found = block.lines().find(|line| line.split_whitespace().next() == Some(name));
        found.unwrap_or_else(|| panic!("no line {name:?} in\n{block}"))
    };
    assert!(line("FAILED").contains(CHECK), "{block}");
    assert!(block.contains(&failure.text), "{block}");
    assert!(line("seed").contains("0x0 ") && line("seed").ends_with("profile swarm"), "{block}");
    assert!(line("options").contains(&options.to_string()), "{block}");
    assert!(line("shrink").ends_with("-- shrink 0x0 --profile swarm"), "{block}");
    assert_eq!(
        block.lines().skip_while(|line| *line != "last").skip(1).filter(|l| l.starts_with("  ")).count(),
        40
    );
    assert!(block.contains(&format!("FAILED {failure}")), "the trace ends with what did not hold\n{block}");

    let files = folder.join("target/sim/0x0");
    let trace = std::fs::read_to_string(files.join("trace.txt")).expect("a trace");
    assert!(
        trace.lines().last().is_some_and(|last| last.contains(CHECK)),
        "the last line of the trace is the failure"
    );
    check_packets(&files.join("traffic.pcap"));

    let (cuts, smaller) = shrink::shrink(&options, |_| ()).expect("it fails, so it can be made smaller");
    assert_eq!(smaller.check, CHECK);
    let left = options.clone().cut(&cuts);
    assert!(left.hazards.iter().count() < options.hazards.iter().count(), "{cuts:?} leaves no hazard out");
    assert!(left.queries < options.queries, "{cuts:?} leaves no query out");
    assert_eq!(world::run(&left, false).failure.expect("the smaller world fails").check, CHECK);

    // The replay lines of both, as they are printed.
    for cuts in [Cuts::default(), cuts] {
        let block = report::block(&options, &cuts, &failure);
        let replay = block.lines().find_map(|line| line.strip_prefix("replay  ")).expect("a replay line");
        assert!(replay.contains("--profile swarm"), "{replay}");
        let (_, arguments) = replay.split_once(" -- ").expect("arguments of the program");
        let arguments = || arguments.split_whitespace().map(str::to_owned);
        std::fs::remove_dir_all(&files).expect("files to write again");
        assert_eq!(cli::main(arguments()), ExitCode::FAILURE, "{replay}");
        let trace = std::fs::read_to_string(files.join("trace.txt")).expect("a trace");
        assert!(
            trace.lines().last().is_some_and(|last| last.contains(CHECK)),
            "{replay} fails another check"
        );
        choose(None);
        assert_eq!(cli::main(arguments()), ExitCode::SUCCESS, "{replay} fails without the fault");
        choose(Some(Fault::TtlNeverFalls));
    }
    choose(None);
    std::env::set_current_dir("/").expect("a folder to be in");
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
}

/// Reads the file as libpcap's format says: a header of 24 bytes, then packets with 16 bytes before each.
fn check_packets(path: &Path) {
    let bytes = std::fs::read(path).expect("packets");
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    assert_eq!(
        [number(0), number(4), number(20)],
        [0xa1b2_3c4d, 4 << 16 | 2, 101],
        "nanoseconds, 2.4, raw IP"
    );
    let (mut at, mut packets, mut before) = (24, 0, (0, 0));
    while at < bytes.len() {
        let (when, len) = ((number(at), number(at + 4)), number(at + 8) as usize);
        assert!(
            when >= before && when.1 < 1_000_000_000,
            "packet {packets} is from {when:?}, after {before:?}"
        );
        assert_eq!(number(at + 12) as usize, len, "packet {packets} is whole");
        let packet = &bytes[at + 16..at + 16 + len];
        let field = |at: usize| usize::from(packet[at]) << 8 | usize::from(packet[at + 1]);
        let (ip_len, udp) = match packet[0] >> 4 {
            4 => (field(2), 20),
            6 => (40 + field(4), 40),
            version => panic!("packet {packets} is of IP version {version}"),
        };
        assert_eq!((ip_len, field(udp + 4)), (len, len - udp), "lengths of packet {packets}");
        (at, packets, before) = (at + 16 + len, packets + 1, when);
    }
    assert_eq!(at, bytes.len(), "the last packet is whole");
    assert!(packets > 0, "no packets");
}
