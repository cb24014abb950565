//! Where the authority is kept and where API servers look: one Secret, and the webhook configuration's `caBundle`.
//!
//! A trait, so that the rotation runs on a cluster, in a simulated world and in memory alike. Every write names the version that it
//! was computed from and fails with [`StoreError::Conflict`] if that is not the present one; nothing else keeps replicas apart.

use std::collections::BTreeMap;
use std::fmt;

use futures_util::future::BoxFuture;

/// The Secret as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSecret {
    /// Changes with every write.
    pub version: String,
    /// Its `data`, decoded.
    pub data: BTreeMap<String, Vec<u8>>,
}

/// The live webhook configuration as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBundles {
    /// Changes with every write, by whomever.
    pub version: String,
    /// The `caBundle` of each webhook in it, decoded; empty if there is none.
    pub bundles: Vec<Vec<u8>>,
}

/// Why something could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// Somebody else wrote meanwhile. Reading again is all that is needed.
    Conflict,
    /// Everything else: whose fault it is and what to do.
    Failed(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict => f.write_str("somebody else wrote at the same time"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for StoreError {}

/// What a store gives back.
pub type Stored<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// The two places. Reads are of the newest state, not of a cache: the rotation's safety depends on it.
pub trait CertificateStore: Send + Sync + 'static {
    /// The Secret; None if it does not exist.
    fn secret(&self) -> Stored<'_, Option<StoredSecret>>;

    /// Replaces the Secret's data if it still has this version; without one, creates it, and it is a conflict if it exists.
    fn put_secret<'a>(
        &'a self,
        data: &'a BTreeMap<String, Vec<u8>>,
        version: Option<&'a str>,
    ) -> Stored<'a, ()>;

    /// The bundles of the live configuration; None if it does not exist (yet).
    fn bundles(&self) -> Stored<'_, Option<StoredBundles>>;

    /// Writes this PEM text as the `caBundle` of every webhook in the configuration, if that still has this version.
    fn put_bundles<'a>(&'a self, bundle: &'a [u8], version: &'a str) -> Stored<'a, ()>;
}
