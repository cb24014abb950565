//! From text to a scenario. Every mistake is told with its line, and with what could stand there instead.
//!
//! Line by line: a line's first word says what it is. Lines that begin with `;` are comments, anywhere.

use super::entry::{EdnsLine, Entry, FLAGS, OPCODES, Question, RCODES};
use super::lines::Lines;
use super::matching::Word;
use super::{Event, Fault, Range, Scenario, Step};
use nodens_core::{DropReason, Rejection, Transport};
use nodens_testkit::msg::{check_record, option_code, try_name_to_wire, try_type_number};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The client of steps that name none.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

type Words<'a> = std::str::SplitWhitespace<'a>;

pub(super) fn read(file: &str, text: &str) -> Result<Scenario, Fault> {
    let lines: Vec<_> = text.lines().map(str::trim).enumerate().map(|(n, line)| (n + 1, line)).collect();
    let mut lines = Lines { file, lines: &lines, line: 1 };
    let corefile = corefile(&mut lines)?;
    let title = lines.next("SCENARIO_BEGIN")?;
    let Some(title) = title.strip_prefix("SCENARIO_BEGIN ") else {
        return lines.fault(format!("'{title}' stands where SCENARIO_BEGIN and a title belong"));
    };
    let mut scenario = Scenario {
        file: file.to_owned(),
        title: title.trim().to_owned(),
        corefile,
        ranges: Vec::new(),
        steps: Vec::new(),
        end: 0,
    };
    loop {
        let line = lines.next("SCENARIO_END")?;
        let mut words = line.split_whitespace();
        match words.next() {
            Some("RANGE_BEGIN") => scenario.ranges.push(range(&mut lines, words)?),
            Some("STEP") => {
                let step = step(&mut lines, words)?;
                if scenario.steps.last().is_some_and(|last| last.number >= step.number) {
                    let message = "the numbers of steps must rise";
                    return Err(Fault { file: file.to_owned(), line: step.line, message: message.into() });
                }
                scenario.steps.push(step);
            }
            Some("SCENARIO_END") => break,
            _ => return lines.fault(format!("'{line}': RANGE_BEGIN, STEP or SCENARIO_END belongs here")),
        }
    }
    scenario.end = lines.line;
    if let Ok(line) = lines.next("") {
        return lines.fault(format!("'{line}' stands behind SCENARIO_END"));
    }
    Ok(scenario)
}

/// Everything up to CONFIG_END, comments blanked out, so that its lines keep their numbers.
fn corefile(lines: &mut Lines<'_>) -> Result<String, Fault> {
    let mut text = String::new();
    for (n, line) in lines.lines {
        if *line == "CONFIG_END" {
            lines.skip_to(n + 1);
            return Ok(text);
        }
        text.push_str(if line.starts_with(';') { "" } else { line });
        text.push('\n');
    }
    lines.skip_to(lines.lines.len());
    lines.fault("the file has no CONFIG_END: a Corefile and that word come first")
}

fn range(lines: &mut Lines<'_>, mut words: Words<'_>) -> Result<Range, Fault> {
    let first = lines.number(words.next(), "the first step of the range")?;
    let last = lines.number(words.next(), "the last step of the range")?;
    let mut range = Range { first, last, address: None, entries: Vec::new() };
    loop {
        let line = lines.next("RANGE_END")?;
        let mut words = line.split_whitespace();
        match words.next() {
            Some("ADDRESS") => range.address = Some(lines.address(words.next())?),
            Some("ENTRY_BEGIN") => range.entries.push(entry(lines)?),
            Some("RANGE_END") => return Ok(range),
            _ => return lines.fault(format!("'{line}': ADDRESS, ENTRY_BEGIN or RANGE_END belongs here")),
        }
    }
}

fn step(lines: &mut Lines<'_>, mut words: Words<'_>) -> Result<Step, Fault> {
    let line = lines.line;
    let number = lines.number(words.next(), "the number of the step")?;
    let event = words.next().unwrap_or_default();
    let options = match event {
        "TIME_PASSES" | "WALL_CLOCK" => {
            let (unit, value) = (words.next(), words.next().unwrap_or_default());
            let event = match (event, unit) {
                ("TIME_PASSES", Some("ELAPSE")) => seconds(value).map(Event::TimePasses),
                ("WALL_CLOCK", Some("STEPS")) => value.parse().ok().map(Event::WallClock),
                _ => None,
            };
            let Some(event) = event else {
                return lines.fault("TIME_PASSES ELAPSE and WALL_CLOCK STEPS take a number of seconds");
            };
            return Ok(Step { number, line, event });
        }
        _ => options(lines, words)?,
    };
    let Options { address, label, over, listener } = options;
    if over.is_some() && !event.ends_with("REACHABLE") {
        return lines.fault("UDP and TCP belong to UNREACHABLE and REACHABLE alone");
    }
    if listener.is_some() && event != "QUERY" {
        return lines.fault("LISTENER belongs to QUERY alone");
    }
    let upstream = |lines: &Lines<'_>| match address {
        Some(address) => Ok(address),
        None => lines.fault(format!("{event} needs ADDRESS and an upstream")),
    };
    let event = match event {
        "NOTHING" => Event::Nothing,
        "TIMEOUT" => Event::Timeout,
        "UNREACHABLE" => Event::Refusing { upstream: upstream(lines)?, over, refuses: true },
        "REACHABLE" => Event::Refusing { upstream: upstream(lines)?, over, refuses: false },
        "CLOSE" => Event::Close(upstream(lines)?),
        "CHECK_NO_ANSWER" => Event::CheckNoAnswer,
        "CHECK_NO_OUT_QUERY" => Event::CheckNoOutQuery,
        "QUERY" => {
            let dropped = lines.label(label, "DROPPED", &DropReason::LABELS)?;
            let (client, listener) = (address.unwrap_or(CLIENT), listener.unwrap_or(0));
            Event::Query { client, listener, entry: message(lines)?, dropped }
        }
        "REPLY" => {
            let rejected = lines.label(label, "REJECTED", &Rejection::LABELS)?;
            Event::Reply { upstream: address, entry: message(lines)?, rejected }
        }
        "CHECK_ANSWER" => Event::CheckAnswer { client: address, entry: checked_message(lines)? },
        "CHECK_OUT_QUERY" => Event::CheckOutQuery { upstream: address, entry: checked_message(lines)? },
        other => return lines.fault(format!("'{other}' is no event of a step")),
    };
    Ok(Step { number, line, event })
}

/// What may follow the event of a step on its line.
struct Options<'a> {
    address: Option<IpAddr>,
    /// `DROPPED reason`, `REJECTED reason`.
    label: Option<(&'a str, &'a str)>,
    over: Option<Transport>,
    /// Which listening address a query arrives at, in the order of the Corefile.
    listener: Option<u16>,
}

fn options<'a>(lines: &Lines<'_>, mut words: Words<'a>) -> Result<Options<'a>, Fault> {
    let mut options = Options { address: None, label: None, over: None, listener: None };
    while let Some(word) = words.next() {
        match word {
            "ADDRESS" => options.address = Some(lines.address(words.next())?),
            "LISTENER" => options.listener = Some(lines.number(words.next(), "the number of a listener")?),
            "UDP" => options.over = Some(Transport::Udp),
            "TCP" => options.over = Some(Transport::Tcp),
            "DROPPED" | "REJECTED" => options.label = Some((word, words.next().unwrap_or_default())),
            _ => {
                return lines
                    .fault(format!("'{word}': ADDRESS, LISTENER, UDP, TCP, DROPPED or REJECTED may follow"));
            }
        }
    }
    Ok(options)
}

/// An entry with its ENTRY_BEGIN.
fn message(lines: &mut Lines<'_>) -> Result<Entry, Fault> {
    match lines.next("ENTRY_BEGIN")? {
        "ENTRY_BEGIN" => entry(lines),
        line => lines.fault(format!("'{line}' stands where ENTRY_BEGIN belongs")),
    }
}

/// The entry of a check: it has to compare something.
fn checked_message(lines: &mut Lines<'_>) -> Result<Entry, Fault> {
    let entry = message(lines)?;
    match entry.words.is_empty() || entry.raw.is_some() {
        true => lines.fault("a check needs MATCH and what to match, and no HEX_ANSWER"),
        false => Ok(entry),
    }
}

/// An entry whose ENTRY_BEGIN has been read.
fn entry(lines: &mut Lines<'_>) -> Result<Entry, Fault> {
    let mut entry = Entry { line: lines.line, ..Entry::default() };
    // 0 is the question, then the sections that hold records.
    let mut section = None;
    loop {
        let line = lines.next("ENTRY_END")?;
        let mut words = line.split_whitespace();
        match words.next() {
            Some("ENTRY_END") => break,
            Some("MATCH") => {
                for word in words {
                    match Word::from_text(word) {
                        Some(word) => entry.words.push(word),
                        None => return lines.fault(format!("'{word}' is nothing that can be matched")),
                    }
                }
            }
            Some("REPLY") => words.try_for_each(|word| header_word(lines, &mut entry, word))?,
            Some("ADJUST") => words.try_for_each(|word| adjustment(lines, &mut entry, word))?,
            Some("EDNS") => {
                let edns = entry.edns.get_or_insert_default();
                words.try_for_each(|word| edns_word(lines, edns, word))?;
            }
            Some("ID") => entry.id = Some(lines.number(words.next(), "an ID")?),
            Some("HEX_ANSWER_BEGIN") => entry.raw = Some(raw_message(lines)?),
            Some("SECTION") => {
                let names = ["QUESTION", "ANSWER", "AUTHORITY", "ADDITIONAL"];
                let wanted = words.next();
                section = names.iter().position(|name| Some(*name) == wanted);
                if section.is_none() {
                    return lines.fault(format!("'{line}': the sections are {}", names.join(", ")));
                }
            }
            _ => match section {
                Some(0) => entry.question = Some(question(lines, line)?),
                Some(n) => match check_record(line) {
                    Ok(()) => entry.sections[n - 1].push(line.to_owned()),
                    Err(why) => return lines.fault(format!("'{line}' is no record: {why}")),
                },
                None => return lines.fault(format!("'{line}' belongs into a SECTION, or is misspelled")),
            },
        }
    }
    if entry.rcode > 15 && entry.edns.is_none() {
        return lines.fault("a status above 15 needs an EDNS line");
    }
    Ok(entry)
}

fn header_word(lines: &Lines<'_>, entry: &mut Entry, word: &str) -> Result<(), Fault> {
    if let Some((_, bit)) = FLAGS.iter().find(|(name, _)| *name == word) {
        entry.flags |= bit;
    } else if let Some((_, opcode)) = OPCODES.iter().find(|(name, _)| *name == word) {
        entry.opcode = *opcode;
    } else if let Some((_, rcode)) = RCODES.iter().find(|(name, _)| *name == word) {
        entry.rcode = *rcode;
    } else if let Some(rcode) = word.strip_prefix("RCODE").and_then(|n| n.parse().ok()) {
        entry.rcode = rcode;
    } else if word == "DO" {
        entry.edns.get_or_insert_default().do_bit = true;
    } else {
        return lines.fault(format!("'{word}' is no flag, opcode or status"));
    }
    Ok(())
}

fn adjustment(lines: &Lines<'_>, entry: &mut Entry, word: &str) -> Result<(), Fault> {
    match word.split_once('=') {
        None => match word {
            "copy_id" => entry.copy_id = true,
            "copy_query" => entry.copy_query = true,
            "do_not_answer" => entry.do_not_answer = true,
            "compress" => entry.compress = true,
            _ => return lines.fault(format!("'{word}' is nothing that can be adjusted")),
        },
        Some(("trailing", digits)) => entry.trailing = lines.hex(digits)?,
        Some(_) => return lines.fault(format!("'{word}' is nothing that can be adjusted")),
    }
    Ok(())
}

fn edns_word(lines: &Lines<'_>, edns: &mut EdnsLine, word: &str) -> Result<(), Fault> {
    match word.split_once('=') {
        None if word == "do" => edns.do_bit = true,
        Some(("size", size)) => edns.size = lines.number(Some(size), "a size in bytes")?,
        Some(("version", version)) => edns.version = lines.number(Some(version), "an EDNS version")?,
        Some(("ede", code)) => {
            let code: u16 = lines.number(Some(code), "an INFO-CODE")?;
            edns.options.push((option_code::EXTENDED_ERROR, code.to_be_bytes().to_vec()));
        }
        Some(("option", value)) => {
            let (code, digits) = value.split_once(':').unwrap_or((value, ""));
            edns.options.push((lines.number(Some(code), "an option's code")?, lines.hex(digits)?));
        }
        _ => {
            return lines
                .fault(format!("'{word}': EDNS takes size=, do, version=, ede= and option=CODE:HEX"));
        }
    }
    Ok(())
}

fn question(lines: &Lines<'_>, line: &str) -> Result<Question, Fault> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [name, class, qtype] = words[..] else {
        return lines.fault(format!("'{line}' is no question: name, class, type"));
    };
    if let Err(why) = try_name_to_wire(name) {
        return lines.fault(format!("'{name}' is no name: {why}"));
    }
    if try_type_number(qtype).is_none() {
        return lines.fault(format!("'{qtype}' is no type: write TYPEnnn"));
    }
    let qclass = match class {
        "IN" => 1,
        "CH" => 3,
        "ANY" => 255,
        _ => return lines.fault(format!("'{class}' is no class: IN, CH or ANY")),
    };
    Ok(Question { name: name.to_owned(), qtype: qtype.to_owned(), qclass })
}

fn raw_message(lines: &mut Lines<'_>) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    loop {
        let line = lines.next("HEX_ANSWER_END")?;
        if line == "HEX_ANSWER_END" {
            return Ok(bytes);
        }
        let digits: String = line.split(';').next().unwrap_or_default().split_whitespace().collect();
        bytes.extend(lines.hex(&digits)?);
    }
}

/// `1`, `0.25`.
fn seconds(text: &str) -> Option<Duration> {
    text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}
