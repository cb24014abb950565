//! Where this replica's certificate comes from: files, or the server's own authority.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use kube::Client;

use super::options::{ServeOptions, one_of, time};
use crate::certificates::files::{Files, Targets};
use crate::certificates::keeper::Keeper;
use crate::certificates::rotation::Times;
use crate::cluster::KubeStore;
use crate::flags::{self, Flag, UsageError};
use crate::log::Level;
use crate::readiness::Need;

/// Where the original chart mounts the certificate.
const CERT_DIR: &str = "/var/run/node-local-dns-admission-controller";

/// What the original chart calls the Deployment, its Service and the webhook configuration of a release called node-local-dns.
const USUAL_NAME: &str = "node-local-dns-admission-controller";

/// Where the certificate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertMode {
    /// Files if there are any when the server starts, else its own authority.
    Auto,
    /// The server's own authority, kept in a Secret and rotated by the replicas.
    OwnAuthority,
    /// Files that somebody else makes.
    Files,
}

/// The server's certificate, as the command line wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateOptions {
    /// `--cert-mode`
    pub mode: CertMode,
    /// `--cert-dir`
    pub dir: PathBuf,
    /// `--service`: the name by which the API server calls.
    pub service: String,
    /// `--cert-secret`
    pub secret: Option<String>,
    /// `--webhook-configuration`
    pub configuration: Option<String>,
    /// `--ca-life`, `--leaf-life`, `--settle-time`, `--clock-skew`
    pub times: Times,
}

impl Default for CertificateOptions {
    fn default() -> Self {
        Self {
            mode: CertMode::Auto,
            dir: CERT_DIR.into(),
            service: USUAL_NAME.into(),
            secret: None,
            configuration: None,
            times: Times::default(),
        }
    }
}

impl CertificateOptions {
    /// Whether a rotation fits into these times: what is left of an authority when its successor comes, a third, holds the time to
    /// settle and a leaf's life after it.
    pub(super) fn check(&self, no_kube: bool) -> Result<(), UsageError> {
        if no_kube && self.mode == CertMode::OwnAuthority {
            let help = "leave out one of them; `--cert-mode=files` needs no API server";
            return Err(UsageError::new(
                "`--cert-mode=self` keeps its authority in the API server, and `--no-kube` knows none",
                help,
            ));
        }
        let Times { ca_life_s, leaf_life_s, settle_s, skew_s } = self.times;
        let needed_s = 3 * (settle_s + leaf_life_s + skew_s);
        if leaf_life_s == 0 || ca_life_s < needed_s {
            return Err(UsageError::new(
                format!(
                    "an authority that is good for {ca_life_s} s cannot be replaced in time by one that settles for {settle_s} s and signs for {leaf_life_s} s"
                ),
                format!(
                    "give `--leaf-life` at least 1s, and `--ca-life` three times the sum of `--leaf-life`, `--settle-time` and `--clock-skew`: {needed_s}s"
                ),
            ));
        }
        Ok(())
    }

    /// The Secret that holds the authority.
    fn secret(&self) -> String {
        self.secret.clone().unwrap_or_else(|| format!("{}-cert", self.service))
    }

    fn configuration(&self) -> &str {
        self.configuration.as_ref().unwrap_or(&self.service)
    }

    /// By `files` and `auto`, with files in place.
    fn uses_files(&self, has_cluster: bool) -> bool {
        match self.mode {
            CertMode::Files => true,
            CertMode::OwnAuthority => false,
            CertMode::Auto => !has_cluster || self.dir.join("tls.crt").exists(),
        }
    }
}

/// Starts keeping a certificate in service. `client` is None where the server talks to no API server.
pub(super) fn start(options: &ServeOptions, client: Option<&Client>, targets: Targets) {
    let certificate = &options.certificate;
    let client = client.filter(|_| !certificate.uses_files(client.is_some()));
    let Some(client) = client else {
        tokio::spawn(Files::new(&certificate.dir).follow(targets));
        return;
    };
    let namespace = &options.access.namespace;
    let (service, secret, configuration) =
        (&certificate.service, certificate.secret(), certificate.configuration());
    targets.log.say(
        Level::Info,
        format!("the certificate is signed by an authority in Secret {namespace}/{secret}, which webhook configuration {configuration} is made to trust"),
    );
    // API servers call the last one; the others are for people.
    let names = vec![service.clone(), format!("{service}.{namespace}"), format!("{service}.{namespace}.svc")];
    let store = Arc::new(KubeStore::new(client.clone(), namespace, &secret, configuration));
    targets.readiness.set(Need::CaBundle, false);
    let clock = Arc::new(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap_or_default().as_secs()
    });
    tokio::spawn(Keeper::new(store, names, certificate.times, clock, targets).follow());
}

/// The flags.
pub(super) fn certificate_flags() -> Vec<Flag<CertificateOptions>> {
    type O = CertificateOptions;
    type Place = fn(&mut Times) -> &mut u64;
    let seconds = |names, help, place: Place| {
        Flag::value(names, "TIME", help, move |o: &mut O, text| {
            *place(&mut o.times) = time(text)?.as_secs();
            Ok(())
        })
    };
    flags::group(
        "Certificate",
        vec![
            Flag::value(
                &["cert-mode"],
                "MODE",
                "`self`: an authority of its own, kept in a Secret and rotated; `files`: tls.crt and tls.key in --cert-dir, as cert-manager \
                 and the original chart mount them; `auto`: files if there are any at start",
                |o: &mut O, text| {
                    let modes = [("auto", CertMode::Auto), ("self", CertMode::OwnAuthority), ("files", CertMode::Files)];
                    o.mode = one_of(text, &modes)?;
                    Ok(())
                },
            )
            .default("auto"),
            Flag::value(
                &["cert-dir"],
                "DIR",
                "where tls.crt and tls.key are; with client-ca.crt beside them, clients need a certificate too",
                |o: &mut O, text| {
                    o.dir = text.into();
                    Ok(())
                },
            )
            .default(CERT_DIR),
            Flag::value(&["service"], "NAME", "the Service by which the API server calls", |o: &mut O, text| {
                o.service = text.into();
                Ok(())
            })
            .default(USUAL_NAME),
            Flag::value(&["cert-secret"], "NAME", "the Secret that holds the authority (default: the Service's name and -cert)", |o: &mut O, text| {
                o.secret = Some(text.into());
                Ok(())
            }),
            Flag::value(&["webhook-configuration"], "NAME", "whose caBundle is kept (default: the Service's name)", |o: &mut O, text| {
                o.configuration = Some(text.into());
                Ok(())
            }),
            seconds(&["ca-life"], "how long an authority is good; its successor comes at two thirds", |t| &mut t.ca_life_s)
                .default("8760h"),
            seconds(&["leaf-life"], "how long a certificate is good; its successor comes at two thirds", |t| &mut t.leaf_life_s)
                .default("168h"),
            seconds(&["settle-time"], "how long the webhook configuration must have trusted a new authority before it signs", |t| &mut t.settle_s)
                .default("5m"),
            seconds(&["clock-skew"], "by how much clocks in the cluster may differ", |t| &mut t.skew_s).default("5m"),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(ca_life_s: u64, leaf_life_s: u64) -> CertificateOptions {
        let times = Times { ca_life_s, leaf_life_s, settle_s: 2, skew_s: 1 };
        CertificateOptions { times, ..CertificateOptions::default() }
    }

    #[test]
    fn times_that_cannot_work_are_refused_with_what_would() {
        assert!(with(30, 5).check(false).is_ok());
        assert!(with(23, 5).check(false).is_err_and(|error| error.help.contains("24s")));
        assert!(with(30, 0).check(false).is_err());
        assert!(CertificateOptions::default().check(false).is_ok());
    }

    #[test]
    fn an_authority_of_its_own_needs_an_api_server() {
        let own = CertificateOptions { mode: CertMode::OwnAuthority, ..CertificateOptions::default() };
        assert!(own.check(true).is_err());
        assert!(own.check(false).is_ok() && !own.uses_files(true));
        assert!(CertificateOptions::default().check(true).is_ok());
        assert!(CertificateOptions::default().uses_files(false));
    }

    #[test]
    fn names_follow_the_service() {
        let mut options = CertificateOptions { service: "dns".into(), ..CertificateOptions::default() };
        assert_eq!((options.secret().as_str(), options.configuration()), ("dns-cert", "dns"));
        (options.secret, options.configuration) = (Some("s".into()), Some("c".into()));
        assert_eq!((options.secret().as_str(), options.configuration()), ("s", "c"));
    }
}
