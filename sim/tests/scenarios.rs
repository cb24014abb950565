//! Every scenario in `sim/scenarios`, played over the configuration that the agent makes of its Corefile.
//!
//! `NODENS_SCENARIO=12` plays only the files whose names begin so.

use nodens_agent::build_config::{Environment, ZoneIds, build};
use nodens_agent::corefile::{LoadOptions, Source, load};
use nodens_core::Config;
use nodens_sim::scenario::Scenario;
use std::io;
use std::path::{Path, PathBuf};

/// A test of caching rules with fewer files than this has lost some.
const SCENARIOS_MIN: usize = 100;

/// The Corefile in a scenario, and nothing else: no imports, no environment.
struct Text<'a>(&'a str);

impl Source for Text<'_> {
    fn read(&self, _: &str) -> io::Result<Vec<u8>> {
        Ok(self.0.as_bytes().to_vec())
    }

    fn list(&self, _: &str) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn env(&self, _: &str) -> Option<String> {
        None
    }
}

/// What the agent would run on a machine with one core and without IPv6: one worker.
fn configured(file: &str, corefile: &str) -> Result<(Config, usize), String> {
    let environment = Environment {
        default_port: 53,
        workers: Some(1),
        runtime: None,
        cores: 1,
        has_ipv6: false,
        read: &|_| None,
        interface: &|_| None,
    };
    let told = |faults: Vec<nodens_agent::corefile::Diagnostic>| {
        faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let corefile = load(file, &Text(corefile), &LoadOptions::default()).map_err(told)?;
    let built = build(&corefile, &environment, &mut ZoneIds::default()).map_err(told)?;
    Ok((built.config, built.plan.cache_bytes as usize))
}

fn play(file: &str, text: &str) -> Result<(), String> {
    let scenario = Scenario::read(file, text).map_err(|fault| fault.to_string())?;
    let (config, cache_bytes) = configured(file, scenario.corefile())?;
    scenario.play(config, cache_bytes).map_err(|fault| fault.to_string())
}

/// Name, as in the repository, and text of every scenario.
fn files() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let entries = std::fs::read_dir(&folder).expect("the folder of the scenarios");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rpl"));
    paths.sort();
    let named = |path: PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name in ASCII");
        (format!("sim/scenarios/{name}"), std::fs::read_to_string(&path).expect("a readable scenario"))
    };
    paths.into_iter().map(named).collect()
}

#[test]
fn every_scenario_goes_as_it_says() {
    let chosen = std::env::var("NODENS_SCENARIO").unwrap_or_default();
    let files = files();
    let mut faults = Vec::new();
    for (file, text) in files.iter().filter(|(file, _)| file.contains(&format!("/{chosen}"))) {
        if let Err(fault) = play(file, text) {
            faults.push(fault);
        }
    }
    assert!(faults.is_empty(), "{} scenarios fail\n\n{}", faults.len(), faults.join("\n"));
    assert!(files.len() >= SCENARIOS_MIN, "{} scenarios, {SCENARIOS_MIN} are the least", files.len());
}

/// A copy of a scenario in which one check expects something else.
struct Spoiled {
    /// Of the step that must fail.
    line: usize,
    what: &'static str,
    text: String,
}

/// All the ways to spoil one check: another status, another TTL, another question, nothing where something was expected.
fn spoiled(text: &str) -> Vec<Spoiled> {
    let lines: Vec<&str> = text.lines().collect();
    let mut copies = Vec::new();
    let checks = |at: usize| {
        lines[at].starts_with("STEP ")
            && lines[at].contains(" CHECK_")
            && lines.get(at + 1) == Some(&"ENTRY_BEGIN")
    };
    for at in (0..lines.len()).filter(|at| checks(*at)) {
        let step = lines[at];
        let mut with = |what, changed: usize, line: String| {
            let mut copy = lines.clone();
            copy[changed] = &line;
            copies.push(Spoiled { line: at + 1, what, text: copy.join("\n") });
        };
        let len = lines[at..].iter().position(|line| *line == "ENTRY_END").unwrap_or_default();
        let find = |start: &str| (at..at + len).find(|n| lines[*n].starts_with(start));
        let question = find("SECTION QUESTION").map(|n| n + 1);
        let records = (at..at + len).filter(|n| lines[*n].contains(" IN ") && Some(*n) != question);
        let matched = find("MATCH ").map_or("", |n| lines[n]);
        if step.contains("CHECK_ANSWER") {
            if let Some(reply) =
                find("REPLY ").filter(|_| matched.contains("all") || matched.contains("rcode"))
            {
                with("another status", reply, format!("{} RCODE10", lines[reply]));
            }
            for record in records.filter(|_| matched.contains("ttl")) {
                let words: Vec<&str> = lines[record].splitn(3, ' ').collect();
                let ttl: u32 = words[1].parse().expect("a TTL");
                with("another TTL", record, format!("{} {} {}", words[0], ttl.wrapping_add(1), words[2]));
            }
        }
        if let Some(question) = question {
            with("another question", question, "spoiled.invalid. IN A".into());
        }
        if step.contains("CHECK_OUT_QUERY") {
            with("another upstream", at, format!("{step} ADDRESS 203.0.113.254"));
        }
    }
    copies
}

#[test]
fn every_check_of_every_scenario_can_fail() {
    let mut blind = Vec::new();
    // One that fails as it is has been reported by the test above.
    for (file, text) in files().into_iter().filter(|(file, text)| play(file, text).is_ok()) {
        for copy in spoiled(&text) {
            match play(&file, &copy.text) {
                Err(fault) if fault.starts_with(&format!("{file}:{}: ", copy.line)) => {}
                other => blind.push(format!("{file}:{}: {} was taken: {other:?}", copy.line, copy.what)),
            }
        }
    }
    assert!(blind.is_empty(), "{}", blind.join("\n"));
}

/// The smallest scenario: `steps` over a configuration that answers.
fn scenario(steps: &str) -> String {
    format!(
        ". {{\nforward . 192.0.2.1\ncache\n}}\nCONFIG_END\nSCENARIO_BEGIN small\n\
         RANGE_BEGIN 0 99\nENTRY_BEGIN\nMATCH question\nADJUST copy_id copy_query\nREPLY QR RD RA NOERROR\n\
         SECTION QUESTION\na. IN A\nSECTION ANSWER\na. 60 IN A 192.0.2.1\nENTRY_END\nRANGE_END\n{steps}"
    )
}

/// The line on which `steps` begin in [`scenario`].
const FIRST: usize = 18;
const ASK: &str = "STEP 1 QUERY\nENTRY_BEGIN\nREPLY RD\nSECTION QUESTION\na. IN A\nENTRY_END\n";

fn fault_of(steps: &str) -> String {
    play("small.rpl", &scenario(steps)).expect_err("it is wrong")
}

#[test]
fn a_difference_is_shown_as_two_messages_with_the_line_of_the_step() {
    let check = "STEP 2 CHECK_ANSWER\nENTRY_BEGIN\nMATCH all ttl\nREPLY QR RD NXDOMAIN\nEDNS size=1232 ede=22\n\
                 SECTION QUESTION\na. IN A\nSECTION ANSWER\na. 61 IN A 192.0.2.1\nENTRY_END\nSCENARIO_END\n";
    let shown = "\
small.rpl:24: STEP 2: the answer differs in status, flags, answer section, EDNS
  expected
    ;; opcode: QUERY, status: NXDOMAIN, flags: qr rd
    ;; EDNS: version: 0, flags:, udp: 1232, EDE: 22
    ;; QUESTION
    a. IN A
    ;; ANSWER
    a. 61 IN A 192.0.2.1
    ;; 52 bytes
  received
    ;; opcode: QUERY, status: NOERROR, flags: qr rd ra
    ;; QUESTION
    a. IN A
    ;; ANSWER
    a. 60 IN A 192.0.2.1
    ;; 35 bytes
";
    assert_eq!(fault_of(&format!("{ASK}{check}")), shown);
}

#[test]
fn what_no_step_looked_at_is_a_fault_of_the_end() {
    let fault = fault_of(&format!("{ASK}SCENARIO_END\n"));
    assert!(fault.starts_with("small.rpl:24: no step has checked this answer"), "{fault}");
    let unexpected = ASK.replace("a. IN A", "b. IN A");
    let fault = fault_of(&format!("{unexpected}SCENARIO_END\n"));
    assert!(
        fault.starts_with("small.rpl:24: no step and no range expected this: 192.0.2.1 over UDP"),
        "{fault}"
    );
    assert!(fault_of("SCENARIO_END\n").ends_with("the scenario checks nothing"));
}

#[test]
fn what_should_not_happen_is_a_fault_of_its_step() {
    let entry = "ENTRY_BEGIN\nMATCH all\nREPLY QR\nADJUST copy_id\nENTRY_END\n";
    let wrong = [
        ("CHECK_NO_OUT_QUERY\n".to_owned(), "nobody should be asked, but 192.0.2.1 over UDP"),
        ("CHECK_NO_ANSWER\n".into(), "there should be no answer, but:"),
        ("TIMEOUT\n".into(), "no timer is set"),
        (
            format!("CHECK_ANSWER ADDRESS 10.0.0.9\n{entry}"),
            "there is no answer. Queries that wait for one: 0",
        ),
        (format!("REPLY\n{entry}"), "no upstream has been asked what this could answer"),
        (
            format!("QUERY DROPPED duplicate\n{}", ASK.split_once('\n').expect("a line").1),
            "expected that the query is dropped (duplicate), but it is not",
        ),
    ];
    for (event, message) in wrong {
        let fault = fault_of(&format!("{ASK}STEP 2 {event}SCENARIO_END\n"));
        assert!(fault.starts_with(&format!("small.rpl:24: STEP 2: {message}")), "{event}{fault}");
    }
}

#[test]
fn mistakes_in_a_file_are_told_with_their_line() {
    let entry = |line: &str| format!("STEP 1 QUERY\nENTRY_BEGIN\n{line}\nENTRY_END\nSCENARIO_END\n");
    let wrong = [
        ("STEP one QUERY\n".to_owned(), 0, "'one' is not the number of the step"),
        ("STEP 1 QUERRY\n".into(), 0, "'QUERRY' is no event of a step"),
        (
            "STEP 1 QUERY TO 10.0.0.1\n".into(),
            0,
            "'TO': ADDRESS, LISTENER, UDP, TCP, DROPPED or REJECTED may follow",
        ),
        (
            "STEP 1 QUERY DROPPED never\n".into(),
            0,
            "'never' is no reason; there are short, response, duplicate",
        ),
        ("STEP 1 REPLY DROPPED short\n".into(), 0, "DROPPED does not belong to this event"),
        ("STEP 1 NOTHING LISTENER 0\n".into(), 0, "LISTENER belongs to QUERY alone"),
        (
            "STEP 1 QUERY LISTENER 1\nENTRY_BEGIN\nENTRY_END\nSCENARIO_END\n".into(),
            0,
            "STEP 1: there is no listener 1",
        ),
        ("STEP 1 NOTHING TCP\n".into(), 0, "UDP and TCP belong to UNREACHABLE and REACHABLE alone"),
        ("STEP 1 CLOSE\n".into(), 0, "CLOSE needs ADDRESS and an upstream"),
        (
            "STEP 1 TIME_PASSES 5\n".into(),
            0,
            "TIME_PASSES ELAPSE and WALL_CLOCK STEPS take a number of seconds",
        ),
        ("STEP 1 CHECK_ANSWER\nENTRY_BEGIN\nENTRY_END\n".into(), 2, "a check needs MATCH"),
        (format!("{ASK}{ASK}SCENARIO_END\n"), 6, "the numbers of steps must rise"),
        ("STEP 1 NOTHING\n".into(), 0, "the file ends before SCENARIO_END"),
        ("SCENARIO_END\nSTEP 1 NOTHING\n".into(), 1, "'STEP 1 NOTHING' stands behind SCENARIO_END"),
        ("STEPP 1\n".into(), 0, "'STEPP 1': RANGE_BEGIN, STEP or SCENARIO_END belongs here"),
        (entry("MATCH everything"), 2, "'everything' is nothing that can be matched"),
        (entry("REPLY QR RR"), 2, "'RR' is no flag, opcode or status"),
        (entry("REPLY BADVERS"), 3, "a status above 15 needs an EDNS line"),
        (entry("ADJUST copy"), 2, "'copy' is nothing that can be adjusted"),
        (entry("EDNS large"), 2, "'large': EDNS takes size=, do, version=, ede= and option=CODE:HEX"),
        (entry("EDNS option=10:123"), 2, "'123' is not bytes in hexadecimal"),
        (entry("a. IN A"), 2, "'a. IN A' belongs into a SECTION, or is misspelled"),
        (
            entry("SECTION ANSWERS"),
            2,
            "'SECTION ANSWERS': the sections are QUESTION, ANSWER, AUTHORITY, ADDITIONAL",
        ),
        (entry("SECTION QUESTION\na. A"), 3, "'a. A' is no question: name, class, type"),
        (entry("SECTION QUESTION\na..b. IN A"), 3, "'a..b.' is no name"),
        (
            entry("SECTION ANSWER\na. IN A 192.0.2.1"),
            3,
            "'a. IN A 192.0.2.1' is no record: 'IN' is not a TTL",
        ),
    ];
    for (steps, line, message) in wrong {
        let fault = fault_of(&steps);
        assert!(fault.starts_with(&format!("small.rpl:{}: {message}", FIRST + line)), "{steps}{fault}");
    }
    let fault = play("x.rpl", ". {\n}\n").expect_err("no end of the configuration");
    assert!(fault.starts_with("x.rpl:2: the file has no CONFIG_END"), "{fault}");
    let corefile = "; a comment\n. {\nforwards . 192.0.2.1\n}\nCONFIG_END\nSCENARIO_BEGIN x\nSCENARIO_END\n";
    let fault = play("x.rpl", corefile).expect_err("a misspelled Corefile");
    assert!(fault.contains("x.rpl:3"), "{fault}");
}
