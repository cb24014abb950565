//! A service that serves: told to end, told to reload, or looking for a new Corefile by itself.
//!
//! A reload is all or nothing. The new Corefile is read, checked and converted, and every socket it wants in addition is bound
//! before the workers hear of it; whatever fails until then is logged, and the old configuration stays. The sockets that
//! both have in common, the cache and the counters are not touched.

use std::fmt;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nodens_core::rng::Rng;
use nodens_core::{Config, Seed};
use nodens_node::Report;
use nodens_runtime::BindError;
use nodens_runtime::listen::LOOKS;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{sleep, sleep_until};

use super::filler::{Filler, TEMPLATE_PERIOD};
use super::signals::Signals;
use super::{AgentLog, Failure, drain, last_words, say_all, tend};
use crate::admin::{AdminServer, Bound, Endpoint, Readiness, probe};
use crate::build_config::{Built, Environment};
use crate::cli::RunOptions;
use crate::corefile::config::{NodensOptions, ReloadOptions};
use crate::log::Level;
use crate::loop_check::{self, Check, Found};
use crate::node::NodeSide;
use crate::reload::{Loaded, Reloader, pause};
use crate::service::{Service, entropy};
use crate::sockets::{self, Transport};
use crate::takeover::Takeover;

/// What `/ready` waits for.
const SOCKETS: &str = "sockets";

pub(super) struct Serving<'a> {
    service: Service,
    built: Built,
    environment: Environment<'a>,
    reloader: Reloader,
    watch: Option<ReloadOptions>,
    /// What only a restart changes.
    started_with: NodensOptions,
    beside: Beside<'a>,
    probes: Vec<AbortHandle>,
    chance: Rng,
}

/// What is looked after beside the service.
pub(super) struct Beside<'a> {
    pub(super) template: Option<Filler>,
    pub(super) node: Option<&'a mut NodeSide>,
    /// An endpoint that no Corefile names.
    pub(super) setup_metrics: Option<Endpoint>,
    /// Other agents on this node.
    pub(super) takeover: Option<Takeover>,
}

/// What ended a wait.
enum Wake {
    Stop,
    Reload,
    Look,
    Template,
    Loops(Vec<Found>),
    Node(Report),
    Neighbours(Vec<BindError>),
    Inherited(usize),
}

impl<'a> Serving<'a> {
    pub(super) fn new(
        service: Service,
        built: Built,
        environment: Environment<'a>,
        reloader: Reloader,
        watch: Option<ReloadOptions>,
        started_with: NodensOptions,
        beside: Beside<'a>,
    ) -> Self {
        // Only the moment of the next look depends on it.
        let chance = Rng::new(&entropy().unwrap_or(Seed([0; 32])));
        let probes = Vec::new();
        Serving { service, built, environment, reloader, watch, started_with, beside, probes, chance }
    }

    /// Serves until it is told to end. `held` are addresses that somebody else served before.
    pub(super) async fn run(
        mut self,
        endpoints: Bound,
        mut signals: Signals,
        options: &RunOptions,
        held: Vec<BindError>,
        log: &mut AgentLog,
    ) -> Result<(), Failure> {
        let readiness = Arc::new(Readiness::new([SOCKETS]));
        let figures = Arc::clone(&self.service.figures);
        let mut admin = AdminServer::new(Arc::clone(&readiness), Arc::new(move || figures.render()));
        admin
            .serve(endpoints)
            .map_err(|error| Failure::Other(format!("cannot serve the HTTP endpoints: {error}")))?;
        for (endpoint, local) in admin.addresses().filter(|_| !options.quiet) {
            log.say(Level::Info, format_args!("http://{local} serves{}", paths(&endpoint)));
        }
        self.probe_health(&admin);
        if let Some(path) = &options.pidfile {
            let text = format!("{}\n", std::process::id());
            std::fs::write(path, text).map_err(|error| {
                Failure::Other(format!(
                    "cannot write the pid file {}: {error}; name a file in a directory that is there and may be written to, \
                     or leave out -pidfile",
                    path.display()
                ))
            })?;
        }
        readiness.set_ready(SOCKETS);
        if !options.quiet {
            log.say(Level::Info, "ready");
        }
        log.tick(Instant::now());
        if let Some(node) = &mut self.beside.node {
            // Whoever is sent here by them finds somebody who answers.
            let outcome = tend(&mut self.service, log, node.install_rules()).await?;
            node.say(&outcome, log);
            log.tick(Instant::now());
        }

        self.until_told_to_end(&mut admin, &mut signals, held, log).await?;
        readiness.stop();
        if let Some(node) = &mut self.beside.node {
            let upstreams = forward_on_exit(&self.built.config);
            let outcome = tend(&mut self.service, log, node.withdraw(upstreams)).await?;
            node.say(&outcome, log);
        }
        let lameduck = self.built.plan.lameduck;
        log.say(Level::Info, format_args!("told to end{}", Rest(lameduck)));
        log.tick(Instant::now());
        tokio::select! {
            ended = tend(&mut self.service, log, sleep(lameduck)) => {
                ended?;
                drain(&mut self.service, log, &mut signals.stop).await;
            }
            // Whoever says it twice does not want to wait for the queries in flight either.
            () = signals.stop.next() => last_words(&mut self.service, log),
        }
        Ok(())
    }

    async fn until_told_to_end(
        &mut self,
        admin: &mut AdminServer,
        signals: &mut Signals,
        held: Vec<BindError>,
        log: &mut AgentLog,
    ) -> Result<(), Failure> {
        let mut neighbours =
            (!held.is_empty()).then(|| tokio::spawn(stay(held, self.service.worker_count())));
        let mut look_at = self.next_look();
        let mut checking = self.check_for_loops();
        let mut fill_in_at = self.beside.template.is_some().then(|| Instant::now() + TEMPLATE_PERIOD);
        loop {
            let wake = async {
                tokio::select! {
                    () = signals.stop.next() => Wake::Stop,
                    () = signals.reload.next() => Wake::Reload,
                    () = reached(look_at) => Wake::Look,
                    () = reached(fill_in_at) => Wake::Template,
                    found = finished(&mut checking) => Wake::Loops(found),
                    report = found_on_the_node(&mut self.beside.node) => Wake::Node(report),
                    found = finished(&mut neighbours) => Wake::Neighbours(found),
                    Some(queries) = inherited(&mut self.beside.takeover) => Wake::Inherited(queries),
                }
            };
            let reloaded = match tend(&mut self.service, log, wake).await? {
                Wake::Stop => return Ok(()),
                Wake::Reload => {
                    self.fill_in(log);
                    let reloaded = self.reload(admin, true, log).await;
                    look_at = self.next_look();
                    reloaded
                }
                Wake::Look => {
                    let reloaded = self.reload(admin, false, log).await;
                    look_at = self.next_look();
                    reloaded
                }
                Wake::Template => {
                    fill_in_at = Some(Instant::now() + TEMPLATE_PERIOD);
                    self.fill_in(log) && self.reload(admin, true, log).await
                }
                Wake::Loops(found) => {
                    self.refuse(found, log).await;
                    false
                }
                Wake::Node(report) => {
                    NodeSide::tell(report, log);
                    false
                }
                Wake::Inherited(queries) => {
                    let text =
                        "another agent on this node ended without having answered all that it was asked";
                    log.say(
                        Level::Warning,
                        format_args!("{text}; {queries} of the queries are answered by this one"),
                    );
                    false
                }
                Wake::Neighbours(found) => {
                    for neighbour in found {
                        let text = format_args!(
                            "another process already serves {} and shares its queries; if that is not a takeover, stop it \
                             (`{}` names it)",
                            neighbour.address,
                            neighbour.who_holds_it()
                        );
                        log.say(Level::Warning, text);
                    }
                    false
                }
            };
            if reloaded {
                // What is found out about the old configuration's upstreams means nothing any more.
                checking.into_iter().for_each(|check| check.abort());
                checking = self.check_for_loops();
            }
            log.tick(Instant::now());
        }
    }

    /// Fills the template in, if there is one. Returns whether the Corefile is to be read at once.
    fn fill_in(&mut self, log: &mut AgentLog) -> bool {
        let Some(template) = &mut self.beside.template else { return false };
        let is_changed = template.again(log);
        self.service.figures.control.templates_failed.add(template.take_failures());
        is_changed
    }

    /// All endpoints of a configuration.
    fn endpoints(&self, of_corefile: &[Endpoint]) -> Vec<Endpoint> {
        let mut all = of_corefile.to_vec();
        let own = self.beside.setup_metrics;
        all.extend(own.filter(|own| !all.iter().any(|endpoint| endpoint.addr == own.addr)));
        all
    }

    fn next_look(&mut self) -> Option<Instant> {
        self.watch.map(|watch| Instant::now() + pause(watch, &mut self.chance))
    }

    fn check_for_loops(&mut self) -> Option<JoinHandle<Vec<Found>>> {
        let checks = self.built.plan.loop_checks.clone();
        let chance = Rng::new(&self.chance.child());
        (!checks.is_empty()).then(|| tokio::spawn(loop_check::find(checks, self.service.vitals(), chance)))
    }

    /// Asks these upstreams no more, until the next reload.
    async fn refuse(&mut self, found: Vec<Found>, log: &mut AgentLog) {
        if found.is_empty() {
            return;
        }
        for Found { check, name } in found {
            let Check { zone, apex, upstream, address, .. } = check;
            let text = format_args!(
                "plugin/loop: Loop ({address} -> nodens) detected for zone \"{apex}\"; {address} is not asked any more, \
                 name a server that does not ask this node. Query: \"HINFO {name}\""
            );
            log.say(Level::Error, text);
            let rules = &mut self.built.config.zones[zone].forward;
            if let Some(forward) = rules {
                forward.upstreams.retain(|asked| *asked != upstream);
            }
            rules.take_if(|forward| forward.upstreams.is_empty());
        }
        match self.service.reconfigure(self.built.clone()).await {
            Ok(exceptions) => exceptions.iter().for_each(|line| log.say(Level::Error, line)),
            Err(error) => {
                log.say(Level::Error, format_args!("plugin/loop: the upstream is still asked: {error}"));
            }
        }
    }

    /// Takes the Corefile as it is now; if nobody asked, only if it has changed. Returns whether another is in force.
    async fn reload(&mut self, admin: &mut AdminServer, asked: bool, log: &mut AgentLog) -> bool {
        // The workers there are get the new configuration.
        let workers = u16::try_from(self.service.worker_count()).ok();
        let environment = Environment { workers, ..self.environment };
        let read = if asked {
            self.reloader.read(&environment)
        } else {
            let Some(read) = self.reloader.look(&environment) else { return false };
            read
        };
        log.say(Level::Info, "Reloading");
        let applied = match read {
            Ok(loaded) => self.apply(loaded, admin, log).await,
            Err(complaints) => {
                say_all(log, Level::Error, &complaints);
                let errors = complaints.iter().filter(|complaint| complaint.is_error()).count();
                Err(if errors == 1 { "one mistake".to_owned() } else { format!("{errors} mistakes") })
            }
        };
        match &applied {
            Ok(()) => log.say(Level::Info, "Reloading complete"),
            Err(why) => {
                self.service.figures.control.reloads_failed.add(1);
                let text = "plugin/reload: Corefile changed but reload failed, the old one stays in force";
                log.say(Level::Error, format_args!("{text}: {why}"));
            }
        }
        applied.is_ok()
    }

    async fn apply(
        &mut self,
        loaded: Loaded,
        admin: &mut AdminServer,
        log: &mut AgentLog,
    ) -> Result<(), String> {
        let Loaded { built, warnings, watch, nodens } = loaded;
        say_all(log, Level::Warning, &warnings);
        let plan = built.plan.clone();
        let copy = built.clone();
        // What may fail comes first.
        let endpoints = Bound::open(&admin.missing(&plan.endpoints)).map_err(|error| error.to_string())?;
        let exceptions = self.service.reconfigure(built).await.map_err(|error| error.to_string())?;
        exceptions.iter().for_each(|line| log.say(Level::Error, line));
        if let Some(takeover) = &self.beside.takeover {
            takeover.keep_only(&self.service.open_addresses());
        }
        // From here on the new configuration is in force: what fails now is said, and does not take it back.
        if let Err(error) = admin.serve(endpoints) {
            log.say(Level::Error, format_args!("cannot serve a new HTTP endpoint: {error}"));
        }
        for error in admin.apply(&self.endpoints(&plan.endpoints)) {
            log.say(Level::Error, error);
        }
        self.probe_health(admin);
        for what in needs_restart(&self.started_with, &nodens, &self.environment) {
            log.say(Level::Warning, format_args!("`{what}` in the Corefile is changed by a restart only"));
        }
        self.built = copy;
        self.watch = watch;
        Ok(())
    }

    /// Probes every `/health` there is, and no other.
    fn probe_health(&mut self, admin: &AdminServer) {
        self.probes.drain(..).for_each(|probe| probe.abort());
        for (_, local) in admin.addresses().filter(|(endpoint, _)| endpoint.health) {
            let probe = tokio::spawn(probe::run(local, Arc::clone(&self.service.figures.health)));
            self.probes.push(probe.abort_handle());
        }
    }
}

/// The options that the service was started with and that differ now, unless the command line decides about them.
fn needs_restart(
    then: &NodensOptions,
    now: &NodensOptions,
    environment: &Environment<'_>,
) -> Vec<&'static str> {
    let changed = [
        ("workers", then.workers != now.workers && environment.workers.is_none()),
        ("runtime", then.runtime != now.runtime && environment.runtime.is_none()),
        ("cache_bytes", then.cache_bytes != now.cache_bytes),
    ];
    changed.into_iter().filter(|(_, changed)| *changed).map(|(what, _)| what).collect()
}

async fn finished<T>(checking: &mut Option<JoinHandle<Vec<T>>>) -> Vec<T> {
    let Some(check) = checking else { return pending().await };
    let found = check.await.unwrap_or_default();
    *checking = None;
    found
}

/// Which of those who held our addresses before we bound them are no ending processes, but go on beside our `own` sockets.
async fn stay(mut held: Vec<BindError>, own: usize) -> Vec<BindError> {
    let (looks, pause) = LOOKS;
    for _ in 1..looks {
        sleep(pause).await;
        held.retain(|one| {
            let transport =
                if one.transport == Transport::Udp.name() { Transport::Udp } else { Transport::Tcp };
            !sockets::shared(transport, &[one.address], own).is_empty()
        });
    }
    held
}

async fn inherited(takeover: &mut Option<Takeover>) -> Option<usize> {
    match takeover {
        Some(takeover) => takeover.reports.recv().await,
        None => pending().await,
    }
}

async fn found_on_the_node(node: &mut Option<&mut NodeSide>) -> Report {
    match node {
        Some(node) => node.report().await,
        None => pending().await,
    }
}

/// Where queries go while the agent is away: the upstreams of the root zone, else of the first that has some.
fn forward_on_exit(config: &Config) -> Vec<SocketAddr> {
    let roots = config.listeners.iter().flat_map(|listener| &listener.routes);
    let root = roots.filter(|route| route.apex.label_count() == 0).map(|route| route.zone).next();
    let zones = root.into_iter().chain(0..config.zones.len()).filter_map(|zone| config.zones.get(zone));
    let rules = zones.filter_map(|zone| zone.forward.as_ref()).find(|rules| !rules.upstreams.is_empty());
    let ids = rules.map(|rules| rules.upstreams.as_slice()).unwrap_or_default();
    ids.iter()
        .filter_map(|id| config.upstreams.get(usize::from(id.0)))
        .map(|upstream| upstream.address)
        .collect()
}

async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => pending().await,
    }
}

fn paths(endpoint: &Endpoint) -> String {
    let all = [(endpoint.health, " /health"), (endpoint.ready, " /ready"), (endpoint.metrics, " /metrics")];
    all.into_iter().filter(|(wanted, _)| *wanted).map(|(_, path)| path).collect()
}

/// How long answers go on, if they do.
struct Rest(Duration);

impl fmt::Display for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() { Ok(()) } else { write!(f, "; answering for another {:?}", self.0) }
    }
}
