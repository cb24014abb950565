//! Reading PEM: certificates, keys, and until when a certificate is good.

use std::fmt;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Certificates in one PEM text at most; a chain has two or three.
const CERTIFICATES_MAX: usize = 16;

/// What was to be read, and why it cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError(pub String);

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ReadError {}

/// When a certificate is good, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before_s: u64,
    /// The last second.
    pub not_after_s: u64,
}

/// All certificates of a PEM text, at least one.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ReadError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(CERTIFICATES_MAX + 1).collect();
    match read {
        Ok(all) if all.is_empty() => Err(ReadError("there is no PEM certificate in it".into())),
        Ok(all) if all.len() > CERTIFICATES_MAX => {
            Err(ReadError(format!("there are more than {CERTIFICATES_MAX} certificates in it")))
        }
        Ok(all) => Ok(all),
        Err(why) => Err(ReadError(format!("it is no PEM text: {why}"))),
    }
}

/// The first private key of a PEM text: PKCS#8, SEC1 or PKCS#1.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, ReadError> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|why| ReadError(format!("there is no PEM private key in it: {why}")))
}

/// When a certificate is good.
pub fn validity(certificate: &CertificateDer<'_>) -> Result<Validity, ReadError> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|why| ReadError(format!("a certificate in it cannot be read: {why}")))?;
    let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
    Ok(Validity {
        not_before_s: seconds(parsed.validity().not_before.timestamp()),
        not_after_s: seconds(parsed.validity().not_after.timestamp()),
    })
}
