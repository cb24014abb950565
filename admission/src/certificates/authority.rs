//! Making authorities and leaves: ECDSA P-256, X.509 version 3.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use super::read::{self, ReadError};
use super::rotation::{Authority, Times, Trusted};
use crate::tls::Identity;

/// How the common names of our authorities begin, for people who look at a `caBundle`.
const NAME: &str = "nodens-admission CA";

/// A new authority, good from now on, and a little before for clocks that are behind.
pub fn new_authority(now_s: u64, times: &Times) -> Result<Authority, ReadError> {
    let mut params = CertificateParams::default();
    // Two of them must not have one name: chains are built by name.
    params.distinguished_name.push(DnType::CommonName, format!("{NAME} {now_s}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.not_before = date(now_s.saturating_sub(times.skew_s))?;
    params.not_after = date(now_s + times.ca_life_s)?;
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(Authority { certificate: trusted(certificate.der())?, key_pem: Arc::from(key.serialize_pem()) })
}

/// A leaf for these names, until then; with a key that is kept nowhere else.
pub fn new_leaf(
    authority: &Authority,
    names: &[String],
    now_s: u64,
    end_s: u64,
    times: &Times,
) -> Result<Identity, ReadError> {
    let der = CertificateDer::from(authority.certificate.der.to_vec());
    let issuer = Issuer::from_ca_cert_der(&der, key_pair(authority)?).map_err(failed)?;
    let mut params = CertificateParams::new(names.to_vec()).map_err(failed)?;
    if let Some(name) = names.first() {
        // 64 characters are all that a common name may have (RFC 5280 A.1); names are matched by SAN alone.
        params.distinguished_name.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let earliest_s = authority.certificate.not_before_s;
    params.not_before = date(now_s.saturating_sub(times.skew_s).max(earliest_s))?;
    params.not_after = date(end_s)?;
    let key = KeyPair::generate().map_err(failed)?;
    let leaf = params.signed_by(&key, &issuer).map_err(failed)?;
    Ok(Identity {
        chain: vec![leaf.der().clone()],
        key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        client_authorities: Vec::new(),
    })
}

/// The certificate as the rotation sees it.
pub fn trusted(certificate: &CertificateDer<'_>) -> Result<Trusted, ReadError> {
    let validity = read::validity(certificate)?;
    Ok(Trusted {
        der: Arc::from(certificate.as_ref()),
        not_before_s: validity.not_before_s,
        not_after_s: validity.not_after_s,
    })
}

/// The authority's key, if it is one and is the certificate's.
pub fn key_pair(authority: &Authority) -> Result<KeyPair, ReadError> {
    let key = KeyPair::from_pem(&authority.key_pem).map_err(failed)?;
    let is_own = read::has_public_key(&authority.certificate.der, key.public_key_raw())?;
    if !is_own {
        return Err(ReadError("the key is another certificate's".into()));
    }
    Ok(key)
}

fn date(seconds: u64) -> Result<OffsetDateTime, ReadError> {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_err(|_| ReadError("the clock, or a span of time, is beyond all dates".into()))
}

fn failed(why: rcgen::Error) -> ReadError {
    ReadError(why.to_string())
}
