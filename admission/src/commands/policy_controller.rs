//! `policy-controller`: what runs in policy mode in place of the webhook. It watches the cluster's DNS and keeps the policy's parameters
//! in step; see [`crate::policy::controller`].

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::access::{AccessOptions, access_flags};
use super::policy::parameters_flags;
use super::serve::{InjectionOptions, PROBES, injection_flags, probes_flag};
use super::signals::Signals;
use crate::cli::{self, Ended};
use crate::cluster::{Notice, Notify, Watches};
use crate::flags::{self, Flag, UsageError};
use crate::log::{Level, Log};
use crate::metrics::Metrics;
use crate::policy::Names;
use crate::policy::controller::{Controller, Told};
use crate::readiness::{Need, Readiness};
use crate::server::limits::Limits;
use crate::server::listen::{self, ListenAddress};
use crate::server::probes::Probes;
use crate::server::serve::{Telling, serve};
use crate::snapshot::Snapshot;

/// Everything it can be told.
#[derive(Clone, Debug)]
struct Options {
    access: AccessOptions,
    injection: InjectionOptions,
    names: Names,
    http_listen: ListenAddress,
    help: bool,
}

/// Reads the words behind the command and does it.
pub fn run(words: &[String]) -> Ended {
    let mut options = Options {
        access: AccessOptions::default(),
        injection: InjectionOptions::default(),
        names: Names::default(),
        http_listen: PROBES,
        help: false,
    };
    let rest = flags::parse(&all_flags(), words, &mut options)?;
    if options.help {
        let usage = "Usage: nodens-admission policy-controller [FLAGS]\n";
        return cli::say(&format!("{usage}{}", flags::help(&all_flags())));
    }
    if let Some(word) = rest.first() {
        return Err(UsageError::new(
            format!("unexpected argument `{word}`"),
            "it takes flags only; see `--help`",
        ));
    }
    options.injection = options.injection.checked()?;
    let (log, writer) = Log::new(io::stderr());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(control(&options, &log)),
        Err(why) => Err(format!("the runtime cannot be started: {why}")),
    };
    if let Err(why) = &result {
        log.say(Level::Error, why);
    }
    drop((log, writer));
    Ok(if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn control(options: &Options, log: &Log) -> Result<(), String> {
    let mut signals = Signals::new()?;
    let probes = listen::bind(options.http_listen, "http-listen").map_err(|why| why.to_string())?;
    let client = options.access.client().await.map_err(|why| why.to_string())?;
    let metrics = Arc::new(Metrics::new());
    let readiness = Arc::new(Readiness::new([]));
    let mut settings = options.injection.settings.clone();
    settings.exempt_namespaces.push(options.access.namespace.clone());
    let is_fixed = !options.injection.kube_dns.is_empty() || !settings.include_kube_dns;
    let snapshot = Snapshot::alone(settings, options.injection.kube_dns.clone());
    metrics.upstream(snapshot.config.kube_dns(), is_fixed);
    let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));

    let looks = watch::Sender::new(u64::from(is_fixed));
    let controller = Controller::new(client.clone(), &options.names).follow(
        Arc::clone(&snapshot),
        looks.subscribe(),
        tell(log),
    );
    let _watches = (!is_fixed).then(|| {
        readiness.set(Need::KubeDns, false);
        let notify = notify(looks.clone(), &readiness, &metrics, log);
        Watches::kube_dns(&client, options.access.source.clone(), &snapshot, &notify)
    });
    let telling = Telling { metrics: Arc::clone(&metrics), log: log.clone() };
    let handler = Arc::new(Probes { readiness, metrics });
    let probes = serve(probes, None, handler, Limits::probes(), telling)
        .map_err(|why| format!("the server cannot be started: {why}"))?;
    log.say(
        Level::Info,
        format!(
            "nodens-admission {} keeps ConfigMap {}/{} in step with the cluster's DNS; {} serves /livez, /readyz, /metrics",
            env!("CARGO_PKG_VERSION"),
            options.names.namespace,
            options.names.parameters,
            probes.local_addr()
        ),
    );
    tokio::select! {
        () = controller => {}
        () = signals.next() => {}
    }
    Ok(())
}

fn tell(log: &Log) -> impl Fn(Told) + Send + use<> {
    let log = log.clone();
    move |told| match told {
        Told::Written(upstream) if upstream.is_empty() => {
            log.say(Level::Warning, "the policy's parameters name no cluster DNS: it injects nobody");
        }
        Told::Written(upstream) => {
            log.say(Level::Info, format!("the policy's parameters name cluster DNS at {upstream}"));
        }
        Told::Failed(why) => {
            log.say(
                Level::Error,
                format!("the policy's parameters: {why}; Pods go on being injected as they say"),
            );
        }
    }
}

fn notify(
    looks: watch::Sender<u64>,
    readiness: &Arc<Readiness>,
    metrics: &Arc<Metrics>,
    log: &Log,
) -> Notify {
    let (readiness, metrics, log) = (Arc::clone(readiness), Arc::clone(metrics), log.clone());
    Arc::new(move |notice: Notice| {
        log.say(if notice.is_warning() { Level::Warning } else { Level::Info }, &notice);
        if let Notice::KubeDnsChanged { new, .. } = &notice {
            metrics.upstream(new, !new.is_empty());
            metrics.config_changed();
            readiness.set(Need::KubeDns, !new.is_empty());
            looks.send_modify(|looks| *looks += 1);
        }
    })
}

fn all_flags() -> Vec<Flag<Options>> {
    type O = Options;
    let mut own: Vec<_> =
        parameters_flags().map(|flag| flag.within(|options: &mut O| &mut options.names)).into();
    own.push(probes_flag().within(|options: &mut O| &mut options.http_listen));
    own.push(Flag::switch(&["help", "h"], "print this text", |o: &mut O, on| o.help = on));
    let mut all = flags::group("This command", own);
    all.extend(access_flags().into_iter().map(|flag| flag.within(|options: &mut O| &mut options.access)));
    all.extend(
        injection_flags().into_iter().map(|flag| flag.within(|options: &mut O| &mut options.injection)),
    );
    all
}
