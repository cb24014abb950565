//! The TLS side of the webhook: which certificate is served now.
//!
//! Each handshake takes the configuration of its moment, as a whole; a swap touches no connection that exists. Nothing is swapped in
//! before it is known to work: the chain parses, the key is the leaf's. Sessions are not resumed, since API servers keep their
//! connections, and a resumed session would outlive its certificate.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::TlsAcceptor;

/// The only protocol that is offered: see [`crate::server::serve`].
const ALPN: &[u8] = b"http/1.1";

/// The certificate in service, if there is one.
#[derive(Debug)]
pub struct Tls {
    provider: Arc<CryptoProvider>,
    config: ArcSwapOption<ServerConfig>,
}

impl Default for Tls {
    fn default() -> Self {
        Self { provider: Arc::new(rustls::crypto::ring::default_provider()), config: ArcSwapOption::empty() }
    }
}

/// A certificate that cannot be served: whose fault, and what is wrong.
#[derive(Debug)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// What is needed to serve.
#[derive(Debug)]
pub struct Identity {
    /// The leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
    /// If not empty, clients must have a certificate that one of these signed.
    pub client_authorities: Vec<CertificateDer<'static>>,
}

impl Tls {
    /// Takes a certificate into service for all handshakes from now on. An error changes nothing.
    pub fn install(&self, identity: Identity) -> Result<(), TlsError> {
        let refuse = |what: &str, why: rustls::Error| TlsError(format!("{what}: {why}"));
        // Also holds the key against the certificate.
        let certified = CertifiedKey::from_der(identity.chain, identity.key, &self.provider)
            .map_err(|why| refuse("certificate and key cannot be used together", why))?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|why| refuse("TLS cannot be set up", why))?;
        let builder = if identity.client_authorities.is_empty() {
            builder.with_no_client_auth()
        } else {
            let mut roots = rustls::RootCertStore::empty();
            for authority in identity.client_authorities {
                roots.add(authority).map_err(|why| refuse("the clients' authority cannot be used", why))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
                    .build()
                    .map_err(|why| TlsError(format!("the clients' authority cannot be used: {why}")))?;
            builder.with_client_cert_verifier(verifier)
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        self.config.store(Some(Arc::new(config)));
        Ok(())
    }

    /// For one handshake; None as long as there is no certificate.
    pub fn acceptor(&self) -> Option<TlsAcceptor> {
        self.config.load_full().map(TlsAcceptor::from)
    }

    /// Whether there is a certificate.
    pub fn is_installed(&self) -> bool {
        self.config.load().is_some()
    }
}
