//! Which cluster, and as what in it: flags that the server and the commands share.

use std::path::{Path, PathBuf};

use kube::Client;

use crate::cluster::{self, ConnectError, KubeDnsSource};
use crate::flags::{self, Flag};

/// Where Kubernetes tells a Pod its namespace.
const OWN_NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Where the original chart installs.
const USUAL_NAMESPACE: &str = "kube-system";

/// Which cluster, and what to look for there.
#[derive(Clone, Debug)]
pub struct AccessOptions {
    /// `--kubeconfig`
    pub kubeconfig: Option<PathBuf>,
    /// `--context`
    pub context: Option<String>,
    /// `--kube-dns-service`
    pub source: KubeDnsSource,
    /// `--server-namespace`: where the admission server is installed.
    pub namespace: String,
}

impl Default for AccessOptions {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            context: None,
            source: KubeDnsSource::default(),
            namespace: own_namespace(Path::new(OWN_NAMESPACE_FILE)),
        }
    }
}

impl AccessOptions {
    /// A client for the cluster that is meant; does not connect yet.
    pub async fn client(&self) -> Result<Client, ConnectError> {
        cluster::client(self.kubeconfig.clone(), self.context.clone()).await
    }
}

fn own_namespace(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let name = text.trim();
    if name.is_empty() { USUAL_NAMESPACE.into() } else { name.into() }
}

/// The flags.
pub fn access_flags() -> Vec<Flag<AccessOptions>> {
    type O = AccessOptions;
    flags::group(
        "The cluster",
        vec![
            Flag::value(
                &["kubeconfig"],
                "FILE",
                "how to reach the API server (default: KUBECONFIG, ~/.kube/config, or the Pod's service account)",
                |o: &mut O, text| {
                    o.kubeconfig = Some(text.into());
                    Ok(())
                },
            ),
            Flag::value(&["context"], "NAME", "which context of the kubeconfig", |o: &mut O, text| {
                o.context = Some(text.into());
                Ok(())
            }),
            Flag::value(
                &["server-namespace"],
                "NAME",
                "where the admission server is installed; its Pods are never injected (default: its own in a Pod, else kube-system)",
                |o: &mut O, text| {
                    o.namespace = text.into();
                    Ok(())
                },
            ),
            Flag::value(
                &["kube-dns-service"],
                "NAMESPACE/NAME",
                "the Service of the cluster's DNS",
                |o: &mut O, text| {
                    let (namespace, name) = text
                        .split_once('/')
                        .ok_or("write a namespace and a name, as in `kube-system/kube-dns`")?;
                    (o.source.namespace, o.source.name) = (namespace.into(), name.into());
                    Ok(())
                },
            )
            .default("kube-system/kube-dns"),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_is_the_pods_own_else_the_usual_one() {
        assert_eq!(own_namespace(Path::new("/nonexistent/namespace")), "kube-system");
        let file = std::env::temp_dir().join(format!("nodens-own-namespace-{}", std::process::id()));
        std::fs::write(&file, "dns\n").expect("a temporary file");
        assert_eq!(own_namespace(&file), "dns");
        std::fs::remove_file(&file).expect("it was there");
    }
}
