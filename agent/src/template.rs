//! The Corefile from a template, as node-cache makes it.
//!
//! `-basecorefile` is a Corefile with variables. What they stand for comes from flags, from the environment that Kubernetes gives to
//! every container, and from the kube-dns ConfigMap if `-kubednscm` names where it is mounted. The result is written to
//! `-corefile` and read from there like any other. The same input makes the same text, so that only a change is one.
//!
//! | variable | what stands for it |
//! | --- | --- |
//! | `__PILLAR__LOCAL__DNS__` | `-localip`, separated by blanks |
//! | `__PILLAR__DNS__SERVER__` | nothing: `-localip` has all addresses |
//! | `__PILLAR__CLUSTER__DNS__` | the cluster IP of the Service `-upstreamsvc` |
//! | `__PILLAR__UPSTREAM__SERVERS__` | `upstreamNameservers` of the ConfigMap, or `/etc/resolv.conf` |
//! | `__PROMETHEUS__ENDPOINT__` | `-prometheus-listen-address` |

mod json;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::Permissions;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::cli::RunOptions;
use crate::corefile::{ListenAddr, Source};

const LOCAL_DNS: &str = "__PILLAR__LOCAL__DNS__";
const DNS_SERVER: &str = "__PILLAR__DNS__SERVER__";
const CLUSTER_DNS: &str = "__PILLAR__CLUSTER__DNS__";
const UPSTREAM_SERVERS: &str = "__PILLAR__UPSTREAM__SERVERS__";
const PROMETHEUS_ENDPOINT: &str = "__PROMETHEUS__ENDPOINT__";

/// Who is asked for names outside the cluster unless the ConfigMap says so.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How long a stub domain's answers are kept at most, in seconds; node-cache's value.
const STUB_TTL_S: u32 = 30;
/// Everybody may read the result, as with node-cache.
const MODE: u32 = 0o644;

/// A template and what is put into it.
#[derive(Debug)]
pub struct Template {
    base: PathBuf,
    output: PathBuf,
    config_map: Option<PathBuf>,
    local: Vec<IpAddr>,
    port: u16,
    service: String,
    prometheus: ListenAddr,
    /// What the ConfigMap held when it could be read last.
    kube_dns: KubeDns,
}

/// What became of filling in.
#[derive(Debug, Eq, PartialEq)]
pub struct FilledIn {
    /// The result differs from what was there.
    pub changed: bool,
    /// What is wrong with the ConfigMap; its last good state counts.
    pub complaint: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct KubeDns {
    upstreams: Vec<String>,
    stubs: BTreeMap<String, Vec<String>>,
}

impl Template {
    /// The template that the command line asks for. `None`: there is none, the Corefile is complete. A template at the default place
    /// counts if it is there; one that is asked for by name must be.
    pub fn of(options: &RunOptions) -> Option<Template> {
        let base = &options.basecorefile;
        if *base == RunOptions::default().basecorefile && !base.exists() {
            return None;
        }
        Some(Template {
            base: base.clone(),
            output: options.corefile.clone(),
            config_map: options.kubednscm.clone(),
            local: options.localip.clone(),
            port: options.dns_port,
            service: options.upstreamsvc.clone(),
            prometheus: options.prometheus_listen_address,
            kube_dns: KubeDns::default(),
        })
    }

    /// Fills the template in and writes the result, if it is another than what is there. The error is one line: what is missing and what
    /// to do; what is there stays.
    pub fn fill_in(&mut self, source: &dyn Source) -> Result<FilledIn, String> {
        let base = read(source, &self.base).map_err(|error| {
            format!("cannot read the template {}: {error}; see -basecorefile", self.base.display())
        })?;
        let mut complaint = None;
        if let Some(directory) = &self.config_map {
            match KubeDns::read(source, directory) {
                Ok(kube_dns) => self.kube_dns = kube_dns,
                Err(why) => complaint = Some(why),
            }
        }
        let text = self.text(&base, source)?;
        let changed = read(source, &self.output).ok().as_ref() != Some(&text);
        if changed {
            write(&self.output, &text).map_err(|error| {
                let output = self.output.display();
                format!("cannot write the Corefile {output}: {error}; name a place that may be written to with -corefile")
            })?;
        }
        Ok(FilledIn { changed, complaint })
    }

    fn text(&self, base: &str, source: &dyn Source) -> Result<String, String> {
        let local = self.local.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ");
        if local.is_empty() && base.contains(LOCAL_DNS) {
            return Err(format!(
                "the template has {LOCAL_DNS}, but no address is given; write them with -localip"
            ));
        }
        let mut text = without_server(base).replace(LOCAL_DNS, &local);
        if text.contains(CLUSTER_DNS) {
            text = text.replace(CLUSTER_DNS, &self.cluster_dns(source)?.to_string());
        }
        text = match self.kube_dns.upstreams.as_slice() {
            [] => text.replace(UPSTREAM_SERVERS, RESOLV_CONF),
            servers => over_udp(&text).replace(UPSTREAM_SERVERS, &servers.join(" ")),
        };
        text = text.replace(PROMETHEUS_ENDPOINT, &self.prometheus.to_string());
        for (domain, servers) in &self.kube_dns.stubs {
            let bind = if local.is_empty() { String::new() } else { format!("    bind {local}\n") };
            let _ = write!(
                text,
                "{domain}:{} {{\n    errors\n    cache {STUB_TTL_S}\n{bind}    forward . {}\n}}\n",
                self.port,
                servers.join(" ")
            );
        }
        Ok(text)
    }

    /// The cluster IP of the Service, as Kubernetes tells it to containers that are started after the Service.
    fn cluster_dns(&self, source: &dyn Source) -> Result<IpAddr, String> {
        let variable = format!("{}_SERVICE_HOST", self.service.to_uppercase().replace('-', "_"));
        let service = &self.service;
        let Some(value) = source.env(&variable).filter(|value| !value.is_empty()) else {
            return Err(format!(
                "there is no {variable} in the environment, so the Service `{service}` is not known; \
                 create it in this namespace, then restart the Pod, or name another with -upstreamsvc"
            ));
        };
        value.parse().map_err(|_| {
            format!(
                "{variable} is `{value}`, which is no IP address; the Service `{service}` needs a cluster IP"
            )
        })
    }
}

impl KubeDns {
    fn read(source: &dyn Source, directory: &Path) -> Result<KubeDns, String> {
        let file = |name: &str| {
            let path = directory.join(name);
            let text = read(source, &path);
            let broken = move |why: String| format!("{}: {why}; what it said before counts", path.display());
            match text {
                Ok(text) if text.trim().is_empty() => Ok(None),
                Ok(text) => Ok(Some((text, broken))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(broken(error.to_string())),
            }
        };
        let mut kube_dns = KubeDns::default();
        if let Some((text, broken)) = file("upstreamNameservers")? {
            kube_dns.upstreams = json::strings(&text).and_then(servers).map_err(broken)?;
        }
        if let Some((text, broken)) = file("stubDomains")? {
            kube_dns.stubs = json::strings_by_name(&text).and_then(stubs).map_err(broken)?;
        }
        Ok(kube_dns)
    }
}

/// They become part of a Corefile: nothing but addresses may.
fn servers(servers: Vec<String>) -> Result<Vec<String>, String> {
    let is_address = |text: &String| {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        bare.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok()
    };
    match servers.iter().find(|server| !is_address(server)) {
        Some(server) => Err(format!("{server:?} is no IP address, with or without a port")),
        None => Ok(servers),
    }
}

fn stubs(stubs: BTreeMap<String, Vec<String>>) -> Result<BTreeMap<String, Vec<String>>, String> {
    let is_name = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    };
    let read = |(domain, addresses): (String, Vec<String>)| {
        if !is_name(&domain) {
            return Err(format!("{domain:?} is not a domain name"));
        }
        if addresses.is_empty() {
            return Err(format!("the stub domain `{domain}` has no server"));
        }
        Ok((domain, servers(addresses)?))
    };
    stubs.into_iter().map(read).collect()
}

/// Takes the variable out, and the blank or comma that separates it from what stands before.
fn without_server(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (n, part) in text.split(DNS_SERVER).enumerate() {
        if n > 0 && out.ends_with([' ', ',']) {
            out.pop();
        }
        out += part;
    }
    out
}

/// Servers that somebody named are asked over UDP: `force_tcp` is there for the cluster's own DNS and the node's, whose way
/// leads through connection tracking.
fn over_udp(text: &str) -> String {
    let mut parts = text.split(UPSTREAM_SERVERS);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out += UPSTREAM_SERVERS;
        let options =
            part.trim_start_matches([' ', '\t']).strip_prefix('{').and_then(|rest| rest.split_once('}'));
        out += match options {
            Some((inside, after)) if inside.trim() == "force_tcp" => after,
            _ => part,
        };
    }
    out
}

fn read(source: &dyn Source, path: &Path) -> io::Result<String> {
    let bytes = source.read(&path.to_string_lossy())?;
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// Whoever reads the file meanwhile sees the old or the new text, never a part.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let replace = || {
        std::fs::write(&new, text)?;
        std::fs::set_permissions(&new, Permissions::from_mode(MODE))?;
        std::fs::rename(&new, path)
    };
    replace().or_else(|_| {
        // A file that is a mount by itself cannot be replaced, nor one in a directory that is read-only.
        let _ = std::fs::remove_file(&new);
        std::fs::write(path, text)
    })
}

#[cfg(test)]
mod tests;
