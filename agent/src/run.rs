//! The control thread of `nodens run`: from the Corefile to a service, then signals, HTTP and log lines until the end.
//!
//! | from | to | done |
//! | --- | --- | --- |
//! | starting | serving | Corefile read, sockets bound, workers up, endpoints open, `/ready` 200, pid file written |
//! | serving | leaving | SIGTERM, SIGINT or SIGQUIT: `/ready` 503; answers go on for `lameduck` |
//! | leaving | draining | no new connections; queries in flight are finished, for [`GRACE`](crate::service::GRACE) at most |
//! | any | over | drained; a second signal; or a worker died, which is exit code 1 |

use std::fmt;
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nodens_runtime::listen::held_by_others;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::admin::{AdminServer, Bound, Readiness, probe};
use crate::build_config::{self, Built, Environment, Plan, ZoneIds};
use crate::cli::RunOptions;
use crate::corefile::{self, Diagnostic, LoadOptions, SystemSource};
use crate::log::{Level, LineSink, Log, Output};
use crate::runtimes;
use crate::service::{Service, StartError};

/// How often the workers' events are taken: short enough for a `tail -f`, long enough to sleep in between.
const EVENTS_PERIOD: Duration = Duration::from_millis(25);
/// How often the log tells what it left out.
const LOG_TICK: Duration = Duration::from_secs(1);
/// What `/ready` waits for.
const SOCKETS: &str = "sockets";

/// The agent's log on standard output.
pub type AgentLog = Log<Output>;

/// Why `run` ended before its time.
#[derive(Debug)]
pub enum Failure {
    /// The Corefile is refused: exit code 2.
    Corefile(Vec<Diagnostic>),
    /// What was asked for is not to be had, on the command line or in the Corefile: exit code 2.
    Usage(String),
    /// Something else, in one line that says what to do: exit code 1.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Corefile(diagnostics) => {
                diagnostics.iter().try_for_each(|diagnostic| writeln!(f, "{diagnostic}\n"))
            }
            Failure::Usage(line) | Failure::Other(line) => writeln!(f, "nodens: {line}"),
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Failure::Other(error.to_string())
    }
}

/// Reads a Corefile and converts it. The second value holds its warnings.
pub fn load(
    path: &Path,
    environment: &Environment<'_>,
    ids: &mut ZoneIds,
) -> Result<(Built, Vec<Diagnostic>), Failure> {
    let options = LoadOptions { default_port: environment.default_port };
    let corefile =
        corefile::load(&path.to_string_lossy(), &SystemSource, &options).map_err(Failure::Corefile)?;
    let mut built = build_config::build(&corefile, environment, ids).map_err(Failure::Corefile)?;
    let mut warnings = corefile.warnings;
    warnings.append(&mut built.warnings);
    Ok((built, warnings))
}

/// Serves until it is told to end.
pub fn run(options: &RunOptions, warnings: &[String]) -> Result<(), Failure> {
    let environment = Environment {
        default_port: options.dns_port,
        workers: options.workers,
        runtime: options.runtime,
        ..Environment::of_this_machine()
    };
    let mut log = Log::new(Output::new(io::stdout()));
    let (built, complaints) = load(options.corefile_path(), &environment, &mut ZoneIds::default())?;
    let starter = runtimes::choose(built.plan.runtime).map_err(Failure::Usage)?;
    if !options.quiet {
        log.say(Level::Info, format_args!("nodens {}", env!("CARGO_PKG_VERSION")));
        log.say(Level::Info, format_args!("runtime {}: {}", starter.name, starter.reason));
    }
    for warning in warnings {
        log.say(Level::Warning, warning);
    }
    for complaint in complaints {
        let help = complaint.help.map_or_else(String::new, |help| format!("; {help}"));
        log.say(Level::Warning, format_args!("{}: {}{help}", complaint.span, complaint.message));
    }
    let plan = built.plan.clone();
    let shared = held_by_others(&plan.listeners);
    // Everything that may be in the way is bound before anything is answered.
    let endpoints = Bound::open(&plan.endpoints).map_err(|error| Failure::Other(error.to_string()))?;
    let service = Service::start(built, &starter)?;
    for held in shared {
        let text = format_args!(
            "another process already serves {} and shares its queries; if that is not a takeover, stop it (`{}` names it)",
            held.address,
            held.who_holds_it()
        );
        log.say(Level::Warning, text);
    }
    for addr in &endpoints.shared {
        let text = format_args!(
            "another process already serves http://{addr}, and each gets a part of the requests; \
             if that is not a takeover, stop it (`ss -ltnp sport = :{}` names it)",
            addr.port
        );
        log.say(Level::Warning, text);
    }
    if !options.quiet {
        announce(&mut log, &service, &plan);
    }
    control_runtime()?.block_on(serve(service, endpoints, &plan, options, &mut log))
}

/// The control thread's own small runtime.
pub fn control_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let failed = |error| Failure::Other(format!("cannot start the control thread's event loop: {error}"));
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)
}

fn announce(log: &mut AgentLog, service: &Service, plan: &Plan) {
    let addresses: Vec<_> = service.addresses.iter().map(ToString::to_string).collect();
    log.say(
        Level::Info,
        format_args!(
            "listening on {} (UDP and TCP), {} workers on runtime {}, cache of {} MiB",
            addresses.join(", "),
            plan.workers,
            service.runtime,
            plan.cache_bytes >> 20
        ),
    );
}

async fn serve(
    mut service: Service,
    endpoints: Bound,
    plan: &Plan,
    options: &RunOptions,
    log: &mut AgentLog,
) -> Result<(), Failure> {
    // Before anybody is told that we are ready: who knows the process may end it.
    let mut stop = StopSignals::new()?;
    let readiness = Arc::new(Readiness::new([SOCKETS]));
    let figures = Arc::clone(&service.figures);
    let mut admin = AdminServer::new(Arc::clone(&readiness), Arc::new(move || figures.render()));
    admin
        .serve(endpoints)
        .map_err(|error| Failure::Other(format!("cannot serve the HTTP endpoints: {error}")))?;
    for (endpoint, local) in admin.addresses() {
        if !options.quiet {
            log.say(Level::Info, format_args!("http://{local} serves{}", paths(&endpoint)));
        }
        if endpoint.health {
            tokio::spawn(probe::run(local, Arc::clone(&service.figures.health)));
        }
    }
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

    tend(&mut service, log, stop.next()).await?;
    readiness.stop();
    log.say(Level::Info, format_args!("told to end{}", Rest(plan.lameduck)));
    log.tick(Instant::now());
    tokio::select! {
        ended = tend(&mut service, log, sleep(plan.lameduck)) => {
            ended?;
            drain(&mut service, log, &mut stop).await;
        }
        // Whoever says it twice does not want to wait for the queries in flight either.
        () = stop.next() => last_words(&mut service, log),
    }
    Ok(())
}

/// Ends the workers; a second signal does not wait for them.
pub async fn drain<S: LineSink>(service: &mut Service, log: &mut Log<S>, stop: &mut StopSignals) {
    service.stop();
    let mut ticks = interval(Duration::from_millis(5));
    while !service.is_stopped() {
        tokio::select! {
            _ = ticks.tick() => take_events(service, log),
            () = stop.next() => break,
        }
    }
    last_words(service, log);
}

fn last_words<S: LineSink>(service: &mut Service, log: &mut Log<S>) {
    take_events(service, log);
    log.say(Level::Info, "ended");
    log.tick(Instant::now());
}

/// Looks after a running service until `until` is done, or a worker dies.
async fn tend<S: LineSink>(
    service: &mut Service,
    log: &mut Log<S>,
    until: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let mut until = std::pin::pin!(until);
    let mut events = interval(EVENTS_PERIOD);
    events.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Instant::now();
    loop {
        tokio::select! {
            () = &mut until => return Ok(()),
            _ = events.tick() => {
                take_events(service, log);
                if let Some(failure) = service.dead_worker() {
                    return Err(Failure::Other(failure.to_string()));
                }
                if told.elapsed() >= LOG_TICK {
                    told = Instant::now();
                    log.tick(told);
                }
            }
        }
    }
}

fn take_events<S: LineSink>(service: &mut Service, log: &mut Log<S>) {
    let upstreams = service.upstreams();
    let now = Instant::now();
    service.drain_events(|event| log.event(now, event, &upstreams));
}

fn paths(endpoint: &crate::admin::Endpoint) -> String {
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

/// SIGTERM, SIGINT and SIGQUIT, whichever comes.
pub struct StopSignals([Signal; 3]);

impl StopSignals {
    /// From now on these signals do not kill the process.
    pub fn new() -> Result<Self, Failure> {
        let catch =
            |kind| signal(kind).map_err(|error| Failure::Other(format!("cannot handle signals: {error}")));
        Ok(StopSignals([
            catch(SignalKind::terminate())?,
            catch(SignalKind::interrupt())?,
            catch(SignalKind::quit())?,
        ]))
    }

    /// Waits for one more.
    pub async fn next(&mut self) {
        let [terminate, interrupt, quit] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
        }
    }
}
