//! Any text as a Corefile, with what it imports.
//!
//! The input is the Corefile; behind each record separator (0x1e) stands another file: `first`, `second`, `third`. Whatever it
//! is, it is read without a panic and judged: a complaint points at a place that exists, and what is accepted can be served.

use nodens_agent::build_config::{Environment, ZoneIds, build};
use nodens_agent::corefile::{Diagnostic, LoadOptions, Source, examine, load};
use nodens_cache::SharedCache;
use nodens_core::{Forwarder, Instant, Seed};
use std::io;
use std::sync::Arc;

/// Names of the files, in the order in which they stand in the input.
const FILES: [&str; 4] = ["Corefile", "first", "second", "third"];
/// Separates them: "record separator", which no sane file holds.
const SEPARATOR: u8 = 0x1e;
/// What a Corefile names most often as the host's own upstreams.
const RESOLV_CONF: &str = "search example.\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n";

/// The target.
pub fn corefile_text(data: &[u8]) {
    let files: Vec<&[u8]> = data.splitn(FILES.len(), |byte| *byte == SEPARATOR).collect();
    let texts = Texts { files: &files };
    let options = LoadOptions::default();
    let (corefile, complaints) = examine(FILES[0], &texts, &options);
    texts.check(&complaints);
    let refused = complaints.iter().any(Diagnostic::is_error);
    assert!(refused || !corefile.blocks.is_empty(), "a Corefile that serves nothing is taken in silence");
    let loaded = load(FILES[0], &texts, &options);
    assert_eq!(loaded.is_err(), refused, "examined and loaded, it is judged differently");
    let Ok(corefile) = loaded else { return };
    assert_eq!(corefile.warnings, complaints);

    let mut ids = ZoneIds::default();
    let environment = environment();
    let built = match build(&corefile, &environment, &mut ids) {
        Ok(built) => built,
        Err(complaints) => {
            assert!(complaints.iter().any(Diagnostic::is_error), "refused without a reason");
            texts.check(&complaints);
            return;
        }
    };
    texts.check(&built.warnings);
    built.config.check().expect("what is built can be run");
    assert_eq!(built.config.listeners.len(), built.plan.listeners.len(), "listeners and their sockets");
    assert!(built.plan.workers > 0);
    let again = build(&corefile, &environment, &mut ids).expect("the same Corefile again");
    let zones = |built: &nodens_agent::build_config::Built| -> Vec<_> {
        built.config.zones.iter().map(|zone| zone.id).collect()
    };
    assert_eq!(zones(&built), zones(&again), "a reload of the same Corefile keeps its zones' numbers");
    let cache = Arc::new(SharedCache::new(1 << 16, &Seed([1; 32])));
    drop(Forwarder::new(Arc::new(built.config), cache, Seed([2; 32]), Instant::ZERO));
}

/// A machine with four cores, both families and a loopback interface.
fn environment() -> Environment<'static> {
    Environment {
        default_port: 53,
        workers: None,
        runtime: None,
        cores: 4,
        has_ipv6: true,
        read: &|_| None,
        interface: &|name| {
            (name == "lo").then(|| vec![[127, 0, 0, 1].into(), "::1".parse().expect("an address")])
        },
    }
}

/// The files of one input.
struct Texts<'a> {
    files: &'a [&'a [u8]],
}

impl Texts<'_> {
    fn text(&self, name: &str) -> Option<&[u8]> {
        self.files.get(FILES.iter().position(|file| *file == name)?).copied()
    }

    /// Each complaint points into a file that there is, and prints without control characters.
    fn check(&self, complaints: &[Diagnostic]) {
        for complaint in complaints {
            let shown = complaint.to_string();
            let harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
            assert!(shown.chars().all(harmless), "{shown:?}");
            assert!(!complaint.message.is_empty());
            let span = &complaint.span;
            if span.line() == 0 {
                continue;
            }
            let text = self.text(span.file()).unwrap_or_else(|| panic!("{span}: there is no such file"));
            let text = String::from_utf8_lossy(text);
            let line = text.split('\n').nth(span.line() as usize - 1);
            let line = line.unwrap_or_else(|| panic!("{span}: there is no such line"));
            let columns = 1..=line.chars().count() as u32 + 1;
            assert!(columns.contains(&span.column()), "{span}: there is no such column in {line:?}");
        }
    }
}

impl Source for Texts<'_> {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        if path == "/etc/resolv.conf" {
            return Ok(RESOLV_CONF.into());
        }
        self.text(path).map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        match directory {
            "." => Ok(FILES[..self.files.len()].iter().map(|name| (*name).to_owned()).collect()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn env(&self, name: &str) -> Option<String> {
        match name {
            "UPSTREAM" => Some("192.0.2.53".into()),
            // It may hold anything, braces and line ends too.
            "BLOCK" => Some("{ cache 5 }\n".into()),
            _ => None,
        }
    }
}
