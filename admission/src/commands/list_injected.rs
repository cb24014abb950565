//! `list-injected`: the Pods that ask the node-local address, and so depend on its being served until they are recreated.

use std::fmt;
use std::net::IpAddr;

use kube::Client;
use serde::Serialize;

use super::pods::{self, Origin};
use super::table::Table;
use crate::cluster::read::ReadError;

/// What to look for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the node-local DNS listens.
    pub node_local: Vec<IpAddr>,
    /// None: all.
    pub namespace: Option<String>,
    /// Also Pods whose containers have ended.
    pub ended: bool,
}

/// One Pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Row {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `Kind/name` of what made it; nothing for a bare Pod, which nobody recreates.
    pub owner: String,
    /// As in `Running`.
    pub phase: String,
    /// How it came to it.
    pub origin: Origin,
    /// All its nameservers.
    pub nameservers: Vec<IpAddr>,
}

/// All of them.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// By namespace and name.
    pub pods: Vec<Row>,
    /// Pods that could not be read.
    pub unreadable: usize,
}

/// Looks through the cluster.
pub async fn run(client: &Client, options: &Options) -> Result<Report, ReadError> {
    let mut rows = Vec::new();
    let unreadable = pods::each(client, options.namespace.as_deref(), |stored| {
        if stored.asks(&options.node_local) && (stored.is_live || options.ended) {
            rows.push(Row {
                namespace: stored.namespace().to_owned(),
                name: stored.name().to_owned(),
                owner: stored.owner(),
                phase: stored.phase.to_string(),
                origin: stored.origin(),
                nameservers: stored.nameservers(),
            });
        }
    })
    .await?;
    rows.sort();
    Ok(Report { pods: rows, unreadable })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pods.is_empty() {
            f.write_str("No Pod asks the node-local address.\n")?;
        } else {
            let mut table = Table::new(&["NAMESPACE", "POD", "OWNER", "PHASE", "BY", "NAMESERVERS"]);
            for row in &self.pods {
                table.row([
                    row.namespace.clone(),
                    row.name.clone(),
                    row.owner.clone(),
                    row.phase.clone(),
                    row.origin.as_str().into(),
                    row.nameservers.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(","),
                ]);
            }
            write!(f, "{table}")?;
            let unmarked = self.pods.iter().filter(|row| row.origin == Origin::Unmarked).count();
            writeln!(
                f,
                "\n{} Pods ask the node-local address, {unmarked} of them without the injector's mark.",
                self.pods.len()
            )?;
        }
        if self.unreadable > 0 {
            writeln!(f, "{} Pods could not be read and are not in this list.", self.unreadable)?;
        }
        Ok(())
    }
}
