//! What is told about a world that failed: the block of examples.md §9.5, and files to look into.

use crate::failure::Failure;
use crate::options::{Cuts, Options};
use crate::trace::{Packet, Recording};
use crate::world;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Lines of the trace that the block shows.
const LAST_LINES: usize = 40;
/// Where the files go, below the current folder.
const FOLDER: &str = "target/sim";

/// Runs the world once more with text and packets, writes them to files and returns the block.
pub fn block(options: &Options, cuts: &Cuts, failure: &Failure) -> String {
    let ended = world::run(&options.clone().cut(cuts), true);
    let recording = ended.recording.unwrap_or_default();
    let folder = PathBuf::from(FOLDER).join(format!("{:#x}", options.seed));
    let files = match write_files(&folder, &recording) {
        Ok(()) => format!("{}/{{trace.txt, traffic.pcap}}", folder.display()),
        Err(error) => format!("not written: {error}"),
    };
    let shown = ended.failure.as_deref().unwrap_or(failure);
    let profile = options.profile.name();
    let mut text = String::new();
    let _ = writeln!(
        text,
        "FAILED  check: {}   at t={:.3}s  event {}",
        shown.check,
        shown.at as f64 / 1e9,
        shown.event
    );
    let _ = writeln!(text, "        {}", shown.text);
    let _ = writeln!(text, "seed    {:#x}   commit {}   profile {profile}", options.seed, commit());
    let _ = writeln!(text, "options {}", options.clone().cut(cuts));
    let run = "cargo run -p nodens-sim --profile sim --";
    let _ = writeln!(text, "replay  {run} replay {:#x} --profile {profile}{cuts}", options.seed);
    let _ = writeln!(text, "shrink  {run} shrink {:#x} --profile {profile}", options.seed);
    let _ = writeln!(text, "last");
    let skipped = recording.lines.len().saturating_sub(LAST_LINES);
    for line in &recording.lines[skipped..] {
        let _ = writeln!(text, "  {line}");
    }
    let _ = writeln!(text, "files   {files}");
    text
}

/// The commit that is checked out, if git tells.
pub fn commit() -> String {
    let output = std::process::Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let text = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    let text = text.map(|text| String::from_utf8_lossy(&text).trim().to_owned());
    text.unwrap_or_else(|| "unknown".to_owned())
}

/// Writes `trace.txt` and `traffic.pcap`.
///
/// # Errors
///
/// What the file system says.
pub fn write_files(folder: &Path, recording: &Recording) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut trace = std::io::BufWriter::new(std::fs::File::create(folder.join("trace.txt"))?);
    for line in &recording.lines {
        writeln!(trace, "{line}")?;
    }
    trace.flush()?;
    let mut pcap = std::io::BufWriter::new(std::fs::File::create(folder.join("traffic.pcap"))?);
    // Nanosecond magic, version 2.4, no offset, no accuracy, whole packets, raw IP (LINKTYPE_RAW).
    for number in [0xa1b2_3c4d_u32, 4 << 16 | 2, 0, 0, 0x4_0000, 101] {
        pcap.write_all(&number.to_le_bytes())?;
    }
    for packet in &recording.packets {
        write_packet(&mut pcap, packet)?;
    }
    pcap.flush()
}

/// One packet as UDP over IP; what went over TCP is shown as the message alone, to port 53 all the same.
fn write_packet(pcap: &mut impl std::io::Write, packet: &Packet) -> std::io::Result<()> {
    let udp_len = (8 + packet.bytes.len()) as u16;
    let mut bytes = Vec::with_capacity(64 + packet.bytes.len());
    match (packet.from, packet.to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            bytes.extend_from_slice(&[0x45, u8::from(packet.tcp)]);
            bytes.extend_from_slice(&(20 + udp_len).to_be_bytes());
            bytes.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0]);
            bytes.extend_from_slice(&from.ip().octets());
            bytes.extend_from_slice(&to.ip().octets());
        }
        _ => {
            bytes.extend_from_slice(&[0x60, 0, 0, 0]);
            bytes.extend_from_slice(&udp_len.to_be_bytes());
            bytes.extend_from_slice(&[17, 64]);
            bytes.extend_from_slice(&ipv6(packet.from));
            bytes.extend_from_slice(&ipv6(packet.to));
        }
    }
    for number in [packet.from.port(), packet.to.port(), udp_len, 0] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes.extend_from_slice(&packet.bytes);
    let (seconds, nanos) = (packet.at / 1_000_000_000, packet.at % 1_000_000_000);
    for number in [seconds as u32, nanos as u32, bytes.len() as u32, bytes.len() as u32] {
        pcap.write_all(&number.to_le_bytes())?;
    }
    pcap.write_all(&bytes)
}

fn ipv6(address: SocketAddr) -> [u8; 16] {
    match address {
        SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped().octets(),
        SocketAddr::V6(v6) => v6.ip().octets(),
    }
}
