//! Where the servers are found and what their configuration says.
//!
//! Both run in the foreground, without root, without remote control, without
//! rate limits (a load test from one address looks like an attack to them)
//! and with every file inside one temporary directory.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, process};

use super::Zone;

/// Places for servers that are missing from the PATH of ordinary users.
const SYSTEM_PATHS: &[&str] = &["/usr/sbin", "/usr/local/sbin", "/sbin"];

/// A server the kit can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Software {
    Nsd,
    Knot,
}

impl Software {
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Nsd => "nsd",
            Self::Knot => "knotd",
        }
    }

    pub(super) fn find(self) -> Option<PathBuf> {
        let path = env::var_os("PATH").unwrap_or_default();
        let places = env::split_paths(&path).chain(SYSTEM_PATHS.iter().map(PathBuf::from));
        places.map(|place| place.join(self.program())).find(|program| program.is_file())
    }

    pub(super) fn arguments(self, directory: &Directory) -> Vec<String> {
        let config = directory.path.join("server.conf").display().to_string();
        match self {
            Self::Nsd => vec!["-d".into(), "-c".into(), config],
            Self::Knot => vec!["-c".into(), config],
        }
    }

    pub(super) fn configure(self, directory: &Directory, addr: SocketAddr, zones: &[Zone]) {
        let mut config = match self {
            Self::Nsd => nsd(&directory.path, addr),
            Self::Knot => knot(&directory.path, addr),
        };
        for (n, zone) in zones.iter().enumerate() {
            let file = format!("{n}.zone");
            directory.write(&file, &zone.text);
            let origin = &zone.origin;
            let section = match self {
                Self::Nsd => format!("zone:\n  name: \"{origin}\"\n  zonefile: \"{file}\"\n"),
                Self::Knot => format!("  - domain: \"{origin}\"\n    file: \"{file}\"\n"),
            };
            config.push_str(&section);
        }
        directory.write("server.conf", &config);
    }
}

fn nsd(directory: &Path, addr: SocketAddr) -> String {
    let dir = directory.display();
    let mut text = String::from("server:\n");
    let settings = [
        ("ip-address", addr.ip().to_string()),
        ("port", addr.port().to_string()),
        // Stay the current user, outside of any chroot.
        ("username", "\"\"".into()),
        ("chroot", "\"\"".into()),
        ("pidfile", "\"\"".into()),
        ("database", "\"\"".into()),
        ("zonesdir", format!("\"{dir}\"")),
        ("xfrdir", format!("\"{dir}\"")),
        ("xfrdfile", format!("\"{dir}/xfrd.state\"")),
        ("zonelistfile", format!("\"{dir}/zone.list\"")),
        ("server-count", "1".into()),
        ("tcp-count", "500".into()),
        ("rrl-ratelimit", "0".into()),
        ("rrl-whitelist-ratelimit", "0".into()),
    ];
    for (name, value) in settings {
        writeln!(text, "  {name}: {value}").expect("a String takes all");
    }
    text.push_str("remote-control:\n  control-enable: no\n");
    text
}

fn knot(directory: &Path, addr: SocketAddr) -> String {
    let (dir, ip, port) = (directory.display(), addr.ip(), addr.port());
    format!(
        "server:\n  rundir: \"{dir}\"\n  listen: {ip}@{port}\n  udp-workers: 1\n  tcp-workers: 1\n\
         log:\n  - target: stderr\n    any: info\n\
         database:\n  storage: \"{dir}\"\n\
         template:\n  - id: default\n    storage: \"{dir}\"\n    zonefile-sync: -1\n    journal-content: none\n\
         zone:\n"
    )
}

/// A temporary directory, removed when dropped.
pub(super) struct Directory {
    path: PathBuf,
}

impl Directory {
    pub(super) fn create() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("nodens-authority-{}-{n}", process::id()));
        // A leftover of an earlier process with the same ID.
        drop(fs::remove_dir_all(&path));
        fs::create_dir_all(&path).unwrap_or_else(|why| panic!("{} is not writable: {why}", path.display()));
        Self { path }
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.path.join(file);
        fs::write(&path, text).unwrap_or_else(|why| panic!("{} is not writable: {why}", path.display()));
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.path));
    }
}
