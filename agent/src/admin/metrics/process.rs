//! `process_*`: what every Prometheus client exports about its process, read from `/proc`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::admin::exposition::{Exposition, Kind};

/// The unit of CPU times in `/proc`: fixed at 100 per second in Linux' ABI for user space, whatever the kernel uses.
const TICKS_PER_S: f64 = 100.0;
/// Pages of `/proc/self/statm` on every target that we build for.
const PAGE_BYTES: u64 = 4096;

/// What the kernel says about this process; what could not be read is missing and not exported.
#[derive(Copy, Clone, Debug, Default)]
pub struct Process {
    /// When it started, since 1970.
    pub start: Duration,
    /// Resident memory in bytes.
    pub resident_bytes: Option<u64>,
    /// User and system CPU time in seconds.
    pub cpu_s: Option<f64>,
    /// Open file descriptors.
    pub descriptors: Option<u64>,
}

impl Process {
    /// Reads `/proc/self`.
    pub fn read(start: SystemTime) -> Self {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).ok();
        Process {
            start: start.duration_since(UNIX_EPOCH).unwrap_or_default(),
            resident_bytes: read("statm").as_deref().and_then(resident_bytes),
            cpu_s: read("stat").as_deref().and_then(cpu_s),
            descriptors: std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64),
        }
    }

    pub(super) fn write(&self, out: &mut Exposition) {
        out.gauge(
            "process_start_time_seconds",
            "When the process started, in seconds since 1970.",
            self.start.as_secs_f64(),
        );
        if let Some(bytes) = self.resident_bytes {
            out.gauge("process_resident_memory_bytes", "Resident memory.", bytes);
        }
        if let Some(seconds) = self.cpu_s {
            out.family(Kind::Counter, "process_cpu_seconds_total", "User and system CPU time.")
                .sample(&[], seconds);
        }
        if let Some(count) = self.descriptors {
            out.gauge("process_open_fds", "Open file descriptors.", count);
        }
    }
}

fn resident_bytes(statm: &str) -> Option<u64> {
    Some(statm.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()? * PAGE_BYTES)
}

/// Fields 14 and 15, counted after the command's name, which may hold blanks and parentheses.
fn cpu_s(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read() {
        assert_eq!(resident_bytes("5000 321 200 1 0 400 0\n"), Some(321 * 4096));
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 12345 1000 321";
        assert_eq!(cpu_s(stat), Some(3.0));
        assert_eq!(cpu_s("7 (a"), None);
        assert_eq!(resident_bytes(""), None);
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let process = Process::read(SystemTime::now());
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 100_000));
        assert!(process.descriptors.is_some_and(|count| count >= 3));
        assert!(process.cpu_s.is_some() && process.start.as_secs() > 0);
    }
}
