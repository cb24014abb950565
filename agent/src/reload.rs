//! Noticing that the Corefile has changed, and reading it anew.
//!
//! What the file was made of the last time is kept: its text, everything it imports, every resolv.conf that it names as
//! upstream. A look reads all of it again; only if something differs is there anything to do. A Corefile that is refused counts as seen as well,
//! so it is complained about once and not with every look.
//!
//! Nothing here touches the service; see `run`.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nodens_core::rng::Rng;

use crate::build_config::{self, Built, Environment, ZoneIds};
use crate::corefile::config::{NodensOptions, ReloadOptions};
use crate::corefile::{self, Corefile, Diagnostic, LoadOptions, Source, SystemSource};

/// A Corefile that can be served.
#[derive(Debug)]
pub struct Loaded {
    /// What it comes to.
    pub built: Built,
    /// What somebody should read although it can be served.
    pub warnings: Vec<Diagnostic>,
    /// How often to look for changes; `None`: never.
    pub watch: Option<ReloadOptions>,
    /// What the Corefile says in `nodens`.
    pub nodens: NodensOptions,
}

/// Reads a Corefile again and again.
pub struct Reloader {
    path: PathBuf,
    /// They outlive reloads, so that a zone keeps its cache.
    ids: ZoneIds,
    seen: Option<Footprint>,
}

impl Reloader {
    /// Nothing is read yet.
    pub fn new(path: &Path) -> Self {
        Reloader { path: path.to_owned(), ids: ZoneIds::default(), seen: None }
    }

    /// Reads the Corefile and converts it. The error is every complaint there is.
    pub fn read(&mut self, environment: &Environment<'_>) -> Result<Loaded, Vec<Diagnostic>> {
        let (corefile, footprint) = self.load(environment);
        self.seen = Some(footprint);
        self.build(corefile?, environment)
    }

    /// The same if anything has changed since the last time.
    pub fn look(&mut self, environment: &Environment<'_>) -> Option<Result<Loaded, Vec<Diagnostic>>> {
        let (corefile, footprint) = self.load(environment);
        if self.seen.as_ref() == Some(&footprint) {
            return None;
        }
        self.seen = Some(footprint);
        Some(corefile.and_then(|corefile| self.build(corefile, environment)))
    }

    fn load(&self, environment: &Environment<'_>) -> (Result<Corefile, Vec<Diagnostic>>, Footprint) {
        let options = LoadOptions { default_port: environment.default_port };
        let source = Recorder { source: SystemSource, footprint: RefCell::default() };
        let corefile = corefile::load(&self.path.to_string_lossy(), &source, &options);
        (corefile, source.footprint.into_inner())
    }

    fn build(
        &mut self,
        corefile: Corefile,
        environment: &Environment<'_>,
    ) -> Result<Loaded, Vec<Diagnostic>> {
        let mut built = build_config::build(&corefile, environment, &mut self.ids)?;
        // Each block may say how often; the most impatient one decides for the file.
        let watches = corefile.blocks.iter().filter_map(|block| block.reload);
        let watch = watches.min_by_key(|reload| reload.interval);
        let mut warnings = corefile.warnings;
        warnings.append(&mut built.warnings);
        Ok(Loaded { built, warnings, watch, nodens: corefile.nodens })
    }
}

/// The time until the next look. Nodes get a new ConfigMap at about the same time; the jitter is there so that they do not all start
/// over with their upstreams in the same second.
pub fn pause(watch: ReloadOptions, chance: &mut Rng) -> Duration {
    let jitter_ms = u64::try_from(watch.jitter.as_millis()).unwrap_or(u64::MAX);
    let extra_ms = chance.next_u64().checked_rem(jitter_ms).unwrap_or(0);
    watch.interval + Duration::from_millis(extra_ms)
}

/// Everything that was read, in the order of reading: path, and text if there was any.
type Footprint = Vec<(String, Option<Vec<u8>>)>;

/// Keeps what passes through.
struct Recorder {
    source: SystemSource,
    footprint: RefCell<Footprint>,
}

impl Source for Recorder {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let read = self.source.read(path);
        self.footprint.borrow_mut().push((path.to_owned(), read.as_ref().ok().cloned()));
        read
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        // A file that comes or goes is seen by whether it is read.
        self.source.list(directory)
    }

    fn env(&self, name: &str) -> Option<String> {
        self.source.env(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("nodens-reload-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a directory");
            Directory(path)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, text).expect("a file");
            path
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn environment() -> Environment<'static> {
        Environment::of_this_machine()
    }

    #[test]
    fn a_change_is_seen_once_in_every_file_the_configuration_is_made_of() {
        let directory = Directory::new("seen");
        let resolv = directory.write("resolv.conf", "nameserver 192.0.2.1\n");
        let corefile =
            format!(". {{\n bind 127.0.0.1\n forward . {}\n import *.part\n}}\n", resolv.display());
        let mut reloader = Reloader::new(&directory.write("Corefile", &corefile));
        assert!(reloader.look(&environment()).expect("never read").is_ok());
        assert!(reloader.look(&environment()).is_none());

        directory.write("resolv.conf", "nameserver 192.0.2.2\n");
        let loaded = reloader.look(&environment()).expect("changed").expect("good");
        assert_eq!(loaded.built.config.upstreams[0].address.ip().to_string(), "192.0.2.2");
        directory.write("a.part", "cache 30\n");
        let loaded = reloader.look(&environment()).expect("a file more").expect("good");
        assert!(loaded.built.config.zones[0].cache.is_some());
        directory.write("a.part", "cahce 30\n");
        assert!(reloader.look(&environment()).expect("changed").is_err());
        assert!(reloader.look(&environment()).is_none(), "complained about once");
        assert!(reloader.read(&environment()).is_err(), "unless somebody asks");
        std::fs::remove_file(directory.0.join("a.part")).expect("it is there");
        assert!(reloader.look(&environment()).expect("a file less").is_ok());
        std::fs::remove_file(directory.0.join("Corefile")).expect("it is there");
        assert!(reloader.look(&environment()).expect("gone").is_err());
        assert!(reloader.look(&environment()).is_none());
    }

    #[test]
    fn m68_the_most_impatient_block_decides_and_jitter_spreads() {
        let directory = Directory::new("watch");
        let text =
            "a.example {\n bind 127.0.0.1\n reload\n}\nb.example {\n bind 127.0.0.1\n reload 4s 2s\n}\n";
        let mut reloader = Reloader::new(&directory.write("Corefile", text));
        let watch = reloader.read(&environment()).expect("good").watch.expect("watched");
        assert_eq!((watch.interval, watch.jitter), (Duration::from_secs(4), Duration::from_secs(2)));
        let mut chance = Rng::new(&nodens_core::Seed([7; 32]));
        let pauses: Vec<_> = (0..100).map(|_| pause(watch, &mut chance)).collect();
        assert!(pauses.iter().all(|p| (4..6).contains(&p.as_secs())), "{pauses:?}");
        assert!(pauses.iter().any(|p| *p != pauses[0]));
        let mut unwatched = Reloader::new(&directory.write("Other", ". {\n bind 127.0.0.1\n}\n"));
        assert!(unwatched.read(&environment()).expect("good").watch.is_none());
    }
}
