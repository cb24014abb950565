//! How the authorities are written into the Secret, and read back.
//!
//! | key            | what it holds                                                        |
//! |----------------|----------------------------------------------------------------------|
//! | `active.crt`, `active.key` | the authority that signs                                 |
//! | `next.crt`, `next.key`     | the one that is to sign next, if there is one            |
//! | `previous.crt` | those that signed before and are still trusted, if there are any     |
//! | `retire-at`    | when those are forgotten, in seconds since 1970                      |
//! | `ca.crt`       | all that are trusted: what `caBundle` should be; written, never read |
//!
//! An empty Secret holds nothing yet: the chart makes one so that the server needs no right to create Secrets.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::authority::{key_pair, trusted};
use super::read::{self, ReadError};
use super::rotation::{Authority, Held, Trusted};

const ACTIVE: (&str, &str) = ("active.crt", "active.key");
const NEXT: (&str, &str) = ("next.crt", "next.key");
const PREVIOUS: &str = "previous.crt";
const RETIRE_AT: &str = "retire-at";
const ALL: &str = "ca.crt";

/// The Secret's data.
pub fn encode(held: &Held) -> BTreeMap<String, Vec<u8>> {
    let mut data = BTreeMap::new();
    let mut put = |key: &str, text: String| data.insert(key.to_owned(), text.into_bytes());
    let pair = [(ACTIVE, Some(&held.active)), (NEXT, held.next.as_ref())];
    for ((certificate, key), authority) in pair {
        if let Some(authority) = authority {
            put(certificate, pem([&authority.certificate]));
            put(key, authority.key_pem.to_string());
        }
    }
    if !held.previous.is_empty() {
        put(PREVIOUS, pem(&held.previous));
    }
    if let Some(date) = held.retire_at_s {
        put(RETIRE_AT, date.to_string());
    }
    put(ALL, pem(held.trusted()));
    data
}

/// What the Secret holds; None if nothing yet, an error if it is not what [`encode`] writes.
pub fn decode(data: &BTreeMap<String, Vec<u8>>) -> Result<Option<Held>, ReadError> {
    let Some(active) = authority(data, ACTIVE)? else { return Ok(None) };
    let previous = match data.get(PREVIOUS) {
        Some(pem) => bundle(pem).map_err(|why| named(PREVIOUS, why))?,
        None => Vec::new(),
    };
    let retire_at_s = match data.get(RETIRE_AT) {
        Some(text) => {
            let date = std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok());
            Some(date.ok_or_else(|| named(RETIRE_AT, ReadError("it is no number of seconds".into())))?)
        }
        None => None,
    };
    Ok(Some(Held { active, next: authority(data, NEXT)?, previous, retire_at_s }))
}

fn authority(
    data: &BTreeMap<String, Vec<u8>>,
    (certificate, key): (&str, &str),
) -> Result<Option<Authority>, ReadError> {
    let (Some(pem), Some(key_pem)) = (data.get(certificate), data.get(key)) else {
        return match data.contains_key(certificate) || data.contains_key(key) {
            true => Err(ReadError(format!("{certificate} and {key} belong together, and one is missing"))),
            false => Ok(None),
        };
    };
    let read = read::certificates(pem).and_then(|all| trusted(&all[0]));
    let text = std::str::from_utf8(key_pem).map_err(|_| named(key, ReadError("it is no text".into())))?;
    let authority =
        Authority { certificate: read.map_err(|why| named(certificate, why))?, key_pem: Arc::from(text) };
    key_pair(&authority).map_err(|why| named(key, why))?;
    Ok(Some(authority))
}

fn named(key: &str, why: ReadError) -> ReadError {
    ReadError(format!("{key}: {why}"))
}

/// The authorities of a PEM text; none if it is empty.
pub fn bundle(pem: &[u8]) -> Result<Vec<Trusted>, ReadError> {
    if pem.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    read::certificates(pem)?.iter().map(trusted).collect()
}

/// As PEM, one after the other.
pub fn pem<'a>(certificates: impl IntoIterator<Item = &'a Trusted>) -> String {
    certificates.into_iter().map(|one| read::to_pem("CERTIFICATE", &one.der)).collect()
}
