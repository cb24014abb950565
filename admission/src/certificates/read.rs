//! Reading PEM: certificates, keys, and until when a certificate is good.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
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

/// Whether a certificate is for this public key, given as the bits that X.509 has.
pub fn has_public_key(certificate: &[u8], public_key: &[u8]) -> Result<bool, ReadError> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|why| ReadError(format!("a certificate in it cannot be read: {why}")))?;
    Ok(*parsed.public_key().subject_public_key.data == *public_key)
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

/// Characters in a line of PEM (RFC 7468 §2).
const PEM_LINE: usize = 64;

/// As PEM, with this label.
pub fn to_pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while let Some((line, more)) = rest.split_at_checked(PEM_LINE) {
        pem += &format!("{line}\n");
        rest = more;
    }
    if !rest.is_empty() {
        pem += &format!("{rest}\n");
    }
    pem + &format!("-----END {label}-----\n")
}
