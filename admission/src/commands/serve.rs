//! `serve`: the server, put together. Reads the flags, opens the sockets, starts what keeps the certificate and the snapshot good,
//! serves, and ends without losing a review.
//!
//! How it ends: on SIGTERM `/readyz` says no, so that no endpoint leads here any more; until that has got about, everything is served as
//! before; then each connection is closed after its next answer. A second signal ends it at once.

mod certificate;
mod options;
mod watching;

use std::fmt::Display;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::time::sleep;

pub use certificate::{CertMode, CertificateOptions};
pub use options::{InjectionOptions, PROBES, ServeOptions, injection_flags, probes_flag, serve_flags};

use super::signals::Signals;
use crate::certificates::files::Targets;
use crate::cli::{self, Ended};
use crate::flags;
use crate::log::{Level, Log};
use crate::metrics::Metrics;
use crate::readiness::{Need, Readiness};
use crate::reviewer::{FreshNamespaces, Reviewer};
use crate::server::limits::Limits;
use crate::server::listen;
use crate::server::probes::Probes;
use crate::server::serve::{Serving, Telling, serve};
use crate::server::webhook::Webhook;
use crate::snapshot::Snapshot;
use crate::tls::Tls;

/// Threads that serve. One does thousands of reviews a second; with two, a review of several MiB does not hold up the others.
const THREADS: usize = 2;

/// Descriptors besides connections: listeners, files, the API server, the runtime's own.
const DESCRIPTORS_BESIDES: u64 = 64;

/// Runs `serve` with the words behind it.
pub fn run(words: &[String]) -> Ended {
    let options = ServeOptions::parse(words)?;
    if options.help {
        let usage = "Usage: nodens-admission [serve] [FLAGS]\n";
        return cli::say(&format!("{usage}{}", flags::help(&serve_flags())));
    }
    let (log, writer) = Log::new(io::stderr());
    let result = start(&options, &log);
    if let Err(why) = &result {
        log.say(Level::Error, why);
    }
    drop((log, writer));
    Ok(if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn start(options: &ServeOptions, log: &Log) -> Result<(), String> {
    for word in &options.ignored {
        log.say(Level::Info, format!("the argument `{word}` is ignored; it was meant for a shell"));
    }
    let limits = Limits { connections_max: connections_max(log), ..Limits::default() };
    let webhook = listen::bind(options.listen, "listen").map_err(text)?;
    let probes = listen::bind(options.http_listen, "http-listen").map_err(text)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("serve")
        .enable_all()
        .build()
        .map_err(|why| format!("the runtime cannot be started: {why}"))?;
    let result = runtime.block_on(serve_until_told(options, limits, webhook, probes, log));
    // What still runs is not waited for: connections have had their time.
    runtime.shutdown_background();
    result
}

async fn serve_until_told(
    options: &ServeOptions,
    limits: Limits,
    webhook: std::net::TcpListener,
    probes: std::net::TcpListener,
    log: &Log,
) -> Result<(), String> {
    let mut signals = Signals::new()?;
    let metrics = Arc::new(Metrics::new());
    let tls = Arc::new(Tls::default());
    let readiness = Arc::new(Readiness::new([Need::Certificate]));
    let telling = Telling { metrics: Arc::clone(&metrics), log: log.clone() };

    let injection = &options.injection;
    let snapshot = Snapshot::alone(options.settings(), injection.kube_dns.clone());
    metrics.upstream(snapshot.config.kube_dns(), true);
    let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));

    let targets = Targets {
        tls: Arc::clone(&tls),
        readiness: Arc::clone(&readiness),
        metrics: Arc::clone(&metrics),
        log: log.clone(),
    };
    let client = match options.no_kube {
        true => None,
        false => Some(options.access.client().await.map_err(|why| format!("{why}, or with --no-kube"))?),
    };
    certificate::start(options, client.as_ref(), targets);
    let watching = client
        .as_ref()
        .map(|client| watching::start(client, options, &snapshot, (&readiness, &metrics, log)));
    let fresh =
        watching.as_ref().map(|watching| Arc::new(watching.fresh.clone()) as Arc<dyn FreshNamespaces>);
    let events = watching.as_ref().and_then(|watching| watching.events.clone());
    let reviewer = Arc::new(Reviewer::new(snapshot, fresh, events));
    let handler = Arc::new(Webhook::new(reviewer, limits, telling.clone(), options.is_verbose()));
    let probes_handler = Arc::new(Probes { readiness: Arc::clone(&readiness), metrics });
    let failed = |why: io::Error| format!("the server cannot be started: {why}");
    let webhook = serve(webhook, Some(tls), handler, limits, telling.clone()).map_err(failed)?;
    let probes = serve(probes, None, probes_handler, Limits::probes(), telling).map_err(failed)?;
    log.say(
        Level::Info,
        format!(
            "nodens-admission {} listens on {} (TLS: /inject, /mutate, /healthz) and {} (/livez, /readyz, /metrics)",
            env!("CARGO_PKG_VERSION"),
            webhook.local_addr(),
            probes.local_addr()
        ),
    );
    signals.next().await;
    readiness.set(Need::NotStopping, false);
    let (delay, drain) = (options.shutdown_delay, options.drain_timeout);
    log.say(Level::Info, format!("told to end: serving for another {delay:?}, then closing connections"));
    tokio::select! {
        () = end(webhook, delay, drain, log) => {}
        () = signals.next() => log.say(Level::Warning, "told to end again: ending at once"),
    }
    // Only now: kubelets ask until the end.
    drop(probes);
    Ok(())
}

/// The end of a replica, as the module's documentation has it.
async fn end(webhook: Serving, delay: Duration, drain: Duration, log: &Log) {
    sleep(delay).await;
    match webhook.drain(drain).await {
        0 => log.say(Level::Info, "all connections have ended"),
        cut => log
            .say(Level::Warning, format!("{cut} connections did not end within {drain:?} and were cut off")),
    }
}

/// As many connections as the limits say, or as the system lets us have.
fn connections_max(log: &Log) -> usize {
    let wanted = Limits::default().connections_max;
    let needed = wanted as u64 + DESCRIPTORS_BESIDES;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return wanted };
    if soft < needed && setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard).is_ok() {
        return connections_within(needed.min(hard), wanted, log);
    }
    connections_within(soft, wanted, log)
}

fn connections_within(descriptors: u64, wanted: usize, log: &Log) -> usize {
    let possible = usize::try_from(descriptors.saturating_sub(DESCRIPTORS_BESIDES)).unwrap_or(wanted).max(8);
    if possible < wanted {
        let needed = wanted as u64 + DESCRIPTORS_BESIDES;
        log.say(
            Level::Warning,
            format!("the limit of {descriptors} open files leaves room for {possible} connections; raise it to {needed} or more"),
        );
    }
    possible.min(wanted)
}

fn text(error: impl Display) -> String {
    error.to_string()
}
