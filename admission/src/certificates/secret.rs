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
//! An empty Secret holds nothing yet: the chart makes one so that the server needs no right to create Secrets. Other keys are somebody
//! else's, such as a `tls.crt` of the original chart, and stay.

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

/// The Secret's data; `before` is what was in it.
pub fn encode(held: &Held, before: Option<&BTreeMap<String, Vec<u8>>>) -> BTreeMap<String, Vec<u8>> {
    let mut data = before.cloned().unwrap_or_default();
    for own in [ACTIVE.0, ACTIVE.1, NEXT.0, NEXT.1, PREVIOUS, RETIRE_AT, ALL] {
        data.remove(own);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::authority::new_authority;
    use crate::certificates::rotation::Times;

    fn held() -> Held {
        let new = |now_s| new_authority(now_s, &Times::default()).expect("an authority");
        let previous = vec![new(1_000_000).certificate, new(1_100_000).certificate];
        Held { active: new(1_200_000), next: Some(new(1_300_000)), previous, retire_at_s: Some(1_400_000) }
    }

    #[test]
    fn what_is_written_is_read_back_and_what_is_not_ours_stays() {
        let all = held();
        let data = encode(&all, None);
        assert_eq!(decode(&data), Ok(Some(all.clone())));
        assert_eq!(bundle(&data[ALL]).expect("PEM").len(), 4);
        let mut foreign = data;
        foreign.insert("tls.crt".into(), b"theirs".to_vec());
        let less = Held { next: None, previous: Vec::new(), retire_at_s: None, ..all };
        let data = encode(&less, Some(&foreign));
        assert_eq!(data.keys().collect::<Vec<_>>(), ["active.crt", "active.key", "ca.crt", "tls.crt"]);
        assert_eq!(decode(&data), Ok(Some(less)));
    }

    #[test]
    fn an_empty_secret_holds_nothing_and_a_broken_one_is_told() {
        assert_eq!(decode(&BTreeMap::new()), Ok(None));
        let good = encode(&held(), None);
        let why = |key: &str, value: Option<&[u8]>| {
            let mut data = good.clone();
            data.remove(key);
            value.map(|value| data.insert(key.into(), value.to_vec()));
            decode(&data).expect_err(key).0
        };
        assert_eq!(why("active.key", None), "active.crt and active.key belong together, and one is missing");
        assert_eq!(why("next.key", Some(&good["active.key"])), "next.key: the key is another certificate's");
        assert!(why("active.crt", Some(b"x")).starts_with("active.crt: there is no PEM certificate"));
        assert!(
            why("previous.crt", Some(b"-----BEGIN CERTIFICATE-----"))
                .starts_with("previous.crt: it is no PEM")
        );
        assert_eq!(why("retire-at", Some(b"-1")), "retire-at: it is no number of seconds");
    }
}
