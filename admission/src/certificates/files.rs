//! A certificate that somebody else makes and mounts: `tls.crt`, `tls.key`, and `client-ca.crt` if clients must have one too.
//!
//! The kubelet never writes into these files: it fills a new directory and swaps the symbolic link `..data`. So both are read through
//! that link, resolved once for the pair; and they are simply read again twice a second, which no way of mounting can defeat.
//! What cannot be served (half written, a key that is another's, expired) leaves the last good one in service, with one line in the log.
//! A certificate that nobody replaces is told of while there is time, and makes the replica unready when it expires.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{MissedTickBehavior, interval};

use super::read::{self, ReadError, Validity};
use crate::log::{Level, Log};
use crate::metrics::{CertificateKind, Metrics};
use crate::readiness::{Need, Readiness};
use crate::tls::{Identity, Tls};

/// How often the files are read: a new certificate is to serve within a second.
const READ_INTERVAL: Duration = Duration::from_millis(500);

/// Longest file that is read; a chain with its key has a few KiB.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// How often something that stays wrong is told again.
const REMINDER: Duration = Duration::from_secs(300);

/// A directory with a certificate in it.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    last: Option<(Contents, Validity)>,
    trouble: Option<(String, SystemTime)>,
}

/// The bytes of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_authority: Option<Vec<u8>>,
}

/// Where what was learnt goes.
#[derive(Clone, Debug)]
pub struct Targets {
    /// What is served.
    pub tls: Arc<Tls>,
    /// Whether it can be.
    pub readiness: Arc<Readiness>,
    /// Until when.
    pub metrics: Arc<Metrics>,
    /// What people should know.
    pub log: Log,
}

impl Files {
    /// The file that must be there; [`Self::are_in`] looks for it.
    const CERTIFICATE: &str = "tls.crt";
    const KEY: &str = "tls.key";
    const CLIENT_AUTHORITY: &str = "client-ca.crt";

    /// Nothing is read yet.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), last: None, trouble: None }
    }

    /// Whether somebody has put a certificate there.
    pub fn are_in(directory: &Path) -> bool {
        directory.join(Self::CERTIFICATE).exists()
    }

    /// Keeps what is served in step with the files, for ever.
    pub async fn follow(mut self, targets: Targets) {
        let mut ticks = interval(READ_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look(&targets, SystemTime::now());
        }
    }

    /// Reads once, and installs what is new.
    fn look(&mut self, targets: &Targets, now: SystemTime) {
        let result = match self.read() {
            Ok(contents) if self.last.as_ref().is_some_and(|(last, _)| *last == contents) => Ok(()),
            Ok(contents) => self.install(contents, targets, now),
            Err(why) => Err(why),
        };
        let left = self.last.as_ref().map(|(_, validity)| Left::of(*validity, now));
        targets.readiness.set(Need::Certificate, left.is_some_and(|left| left != Left::Nothing));
        let path = self.directory.join(Self::CERTIFICATE);
        let still = if left.is_some() { "; the last one stays in service" } else { "" };
        match (result, left) {
            (Err(why), _) => {
                self.complain(format!("no certificate can be taken from {why}{still}"), targets, now);
            }
            (Ok(()), Some(Left::Nothing)) => {
                self.complain(
                    format!("{} has expired; whoever makes it must replace it", path.display()),
                    targets,
                    now,
                );
            }
            (Ok(()), Some(Left::Little)) => {
                self.complain(
                    format!("{} expires soon, and nobody has replaced it", path.display()),
                    targets,
                    now,
                );
            }
            (Ok(()), _) => self.trouble = None,
        }
    }

    fn install(&mut self, contents: Contents, targets: &Targets, now: SystemTime) -> Result<(), ReadError> {
        let named = |name: &str| {
            let path = self.directory.join(name);
            move |why: ReadError| ReadError(format!("{}: {why}", path.display()))
        };
        let chain = read::certificates(&contents.certificate).map_err(named(Self::CERTIFICATE))?;
        let key = read::private_key(&contents.key).map_err(named(Self::KEY))?;
        let client_authorities = match &contents.client_authority {
            Some(pem) => read::certificates(pem).map_err(named(Self::CLIENT_AUTHORITY))?,
            None => Vec::new(),
        };
        let validity = read::validity(&chain[0]).map_err(named(Self::CERTIFICATE))?;
        check_time(validity, now).map_err(named(Self::CERTIFICATE))?;
        targets
            .tls
            .install(Identity { chain, key, client_authorities })
            .map_err(|why| named(Self::CERTIFICATE)(ReadError(why.to_string())))?;
        targets.metrics.certificate(CertificateKind::Leaf, validity.not_after_s);
        targets.log.say(Level::Info, format!("serving the certificate in {}", self.directory.display()));
        self.last = Some((contents, validity));
        Ok(())
    }

    /// One line for each new trouble, and a reminder.
    fn complain(&mut self, why: String, targets: &Targets, now: SystemTime) {
        let told = self.trouble.as_ref().is_some_and(|(last, at)| {
            *last == why && now.duration_since(*at).is_ok_and(|since| since < REMINDER)
        });
        if !told {
            targets.log.say(Level::Error, &why);
            self.trouble = Some((why, now));
        }
    }

    fn read(&self) -> Result<Contents, ReadError> {
        // One directory for the whole set, whatever is swapped meanwhile.
        let directory =
            self.directory.join("..data").canonicalize().unwrap_or_else(|_| self.directory.clone());
        let read = |name: &str| {
            read_file(&directory.join(name))
                .map_err(|why| ReadError(format!("{}: {why}", self.directory.join(name).display())))
        };
        let client_authority = match directory.join(Self::CLIENT_AUTHORITY).exists() {
            true => Some(read(Self::CLIENT_AUTHORITY)?),
            false => None,
        };
        Ok(Contents { certificate: read(Self::CERTIFICATE)?, key: read(Self::KEY)?, client_authority })
    }
}

/// What is left of a certificate's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Enough,
    /// Less than a quarter. cert-manager replaces certificates when a third is left.
    Little,
    Nothing,
}

impl Left {
    fn of(validity: Validity, now: SystemTime) -> Self {
        let now_s = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let life_s = validity.not_after_s.saturating_sub(validity.not_before_s);
        match validity.not_after_s.saturating_sub(now_s) {
            0 => Self::Nothing,
            left_s if left_s < life_s / 4 => Self::Little,
            _ => Self::Enough,
        }
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    // A FIFO or a device would block or never end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > FILE_BYTES_MAX {
        true => Err(io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes"))),
        false => Ok(bytes),
    }
}

/// A certificate that clients would refuse must not replace one that they take.
fn check_time(validity: Validity, now: SystemTime) -> Result<(), ReadError> {
    let now_s = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if now_s > validity.not_after_s {
        return Err(ReadError("it has expired".into()));
    }
    if now_s < validity.not_before_s {
        return Err(ReadError("it is not valid yet; check the clocks".into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_runs_out_in_steps() {
        let validity = Validity { not_before_s: 1000, not_after_s: 2000 };
        let left = |seconds| Left::of(validity, UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!([left(1000), left(1750)], [Left::Enough; 2]);
        assert_eq!([left(1751), left(1999)], [Left::Little; 2]);
        assert_eq!([left(2000), left(9000)], [Left::Nothing; 2]);
    }
}
