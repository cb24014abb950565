//! The control thread of `nodens run`: from the Corefile to a service, then signals, HTTP and log lines until the end.
//!
//! | from | to | done |
//! | --- | --- | --- |
//! | starting | starting | sockets bound, if nobody else serves these addresses, see `claim` |
//! | starting | starting | privileges given up, see `privilege` |
//! | starting | starting | there is a template and nothing yet to fill it with: one line, and another try from time to time |
//! | starting | serving | the node's interface made, Corefile read, sockets bound if they are not, workers up, endpoints open, `/ready` 200, pid file written, then the node's packet rules |
//! | serving | serving | SIGHUP, SIGUSR1 or a look at the files: another Corefile is in force, or the old one stays |
//! | serving | leaving | SIGTERM, SIGINT or SIGQUIT: `/ready` 503; the packet rules go; answers go on for `lameduck` |
//! | leaving | draining | queries in flight are finished, for [`GRACE`](crate::service::GRACE) at most; when new ones are refused says [`departure`](nodens_runtime::departure) |
//! | any | over | drained; a second signal; or a worker died, which is exit code 1; last the interface goes |

mod claim;
mod filler;
mod serving;
mod signals;

use std::fmt;
use std::future::Future;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nodens_runtime::listen::held_by_others;
use tokio::time::{MissedTickBehavior, interval};

use crate::admin::{Bound, Endpoint};
use crate::build_config::{Built, Environment, Plan};
use crate::cli::RunOptions;
use crate::corefile::Diagnostic;
use crate::log::{Level, LineSink, Log, Output};
use crate::node::{self, NodeSide};
use crate::privilege::{self, Needs, SteppedDown};
use crate::reload::{Loaded, Reloader};
use crate::runtimes;
use crate::service::{Service, StartError};
use crate::takeover::Takeover;
use crate::template::Template;
use claim::Claim;
use filler::Filler;
use serving::{Beside, Serving};
use signals::{ReloadSignals, Signals};

pub use signals::StopSignals;

/// How often the workers' events are taken: short enough for a `tail -f`, long enough to sleep in between.
const EVENTS_PERIOD: Duration = Duration::from_millis(25);
/// How often the log tells what it left out.
const LOG_TICK: Duration = Duration::from_secs(1);

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
pub fn load(path: &Path, environment: &Environment<'_>) -> Result<(Built, Vec<Diagnostic>), Failure> {
    let Loaded { built, warnings, .. } = Reloader::new(path).read(environment).map_err(Failure::Corefile)?;
    Ok((built, warnings))
}

/// Serves until it is told to end.
pub fn run(options: &RunOptions) -> Result<(), Failure> {
    let environment = Environment {
        default_port: options.dns_port,
        workers: options.workers,
        runtime: options.runtime,
        ..Environment::of_this_machine()
    };
    let mut template = Template::of(options).map(|template| Filler::new(template, options));
    let mut claim = None;
    if template.is_none() {
        claim = Claim::stake(options, &environment);
    }
    let control = control_runtime()?;
    let privileges = step_down(options, &control);
    let mut log = Log::new(Output::new(io::stdout()));
    privileges.complaints.iter().for_each(|line| log.say(Level::Warning, line));
    // From now on a signal waits until somebody can act on it.
    let mut signals = {
        let _in_control = control.enter();
        Signals { stop: StopSignals::new()?, reload: ReloadSignals::new()? }
    };
    if let Some(template) = &mut template {
        if !control.block_on(template.wait(&mut signals, &mut log)) {
            return Ok(());
        }
        claim = Claim::stake(options, &environment);
    }
    // Before the Corefile: `bind` may name the interface.
    let mut node = control.block_on(NodeSide::begin(options, &mut log));
    let threads = Threads { control: &control, privileges: &privileges };
    let beside = Beside { template, node: node.as_mut(), setup_metrics: None, takeover: None };
    let served = serve(options, &environment, threads, signals, claim, beside, &mut log);
    // However it ended, the node is not left with what nobody uses.
    if let Some(node) = node {
        control.block_on(node.leave(&mut log));
        log.tick(Instant::now());
    }
    served
}

/// Gives up what is not needed. From here on the process may have more than one thread.
fn step_down(options: &RunOptions, control: &tokio::runtime::Runtime) -> SteppedDown {
    let (sets_up, iptables) = control.block_on(node::takes(options));
    let of_template = Template::of(options).map(|_| options.corefile.clone());
    let writes = of_template.into_iter().chain(options.pidfile.clone()).collect();
    privilege::step_down(&Needs { user: options.user, sets_up, iptables, writes })
}

/// The two kinds of threads that there are.
#[derive(Copy, Clone)]
struct Threads<'a> {
    control: &'a tokio::runtime::Runtime,
    privileges: &'a SteppedDown,
}

/// From the Corefile until the last answer.
fn serve(
    options: &RunOptions,
    environment: &Environment<'_>,
    Threads { control, privileges }: Threads<'_>,
    signals: Signals,
    claim: Option<Claim>,
    mut beside: Beside<'_>,
    log: &mut AgentLog,
) -> Result<(), Failure> {
    let mut reloader = Reloader::new(options.corefile_path());
    let Loaded { built, warnings: complaints, watch, nodens } =
        reloader.read(environment).map_err(Failure::Corefile)?;
    // What works here for the workers, not for us.
    let bare = privileges.bare;
    let starter = bare.run(|| runtimes::choose(built.plan.runtime));
    let starter = starter
        .map_err(|error| Failure::Other(format!("cannot start a thread without privileges: {error}")))?
        .map_err(Failure::Usage)?;
    if !options.quiet {
        log.say(Level::Info, format_args!("nodens {}", env!("CARGO_PKG_VERSION")));
        log.say(Level::Info, format_args!("runtime {}: {}", starter.name, starter.reason));
        log.say(Level::Info, &privileges.kept);
    }
    if let Some(line) = unused(options, beside.template.is_some()) {
        log.say(Level::Warning, line);
    }
    say_all(log, Level::Warning, &complaints);
    let plan = built.plan.clone();
    let claimed = claim.and_then(|claim| claim.into_listeners(&plan));
    let held = if claimed.is_some() { Vec::new() } else { held_by_others(&plan.listeners) };
    // Everything that may be in the way is bound before anything is answered.
    let mut endpoints = Bound::open(&plan.endpoints).map_err(|error| Failure::Other(error.to_string()))?;
    beside.setup_metrics = beside.node.as_ref().and_then(|_| setup_metrics(options, &plan));
    if let Some(endpoint) = beside.setup_metrics {
        // As in node-cache: who has this port already keeps it, and DNS is served all the same.
        match Bound::open(&[endpoint]) {
            Ok(bound) => endpoints.join(bound),
            Err(error) => log.say(Level::Warning, format_args!("{error}, with -metrics-listen-address")),
        }
    }
    let listeners = claimed.map_or_else(|| Service::bind(&plan), Ok)?;
    let for_others = listeners.share_udp();
    let service = Service::start(built.clone(), listeners, &starter, bare)?;
    if options.sandbox {
        let (level, line) = sandbox(service.runtime, privileges.iptables);
        log.say(level, line);
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
        announce(log, &service, &plan);
    }
    if let Some(node) = &beside.node {
        // The only one who ever sets it.
        let _ = service.figures.node.set(node.figures());
    }
    let takeover = {
        let _in_control = control.enter();
        for_others.and_then(|sockets| Takeover::begin(sockets, privileges.user))
    };
    beside.takeover = takeover.inspect_err(|error| log.say(Level::Warning, no_takeover(error))).ok();
    let serving = Serving::new(service, built, *environment, reloader, watch, nodens, beside);
    control.block_on(serving.run(endpoints, signals, options, held, log))
}

fn no_takeover(error: &io::Error) -> String {
    format!(
        "other agents on this node cannot take over from this one if it is killed ({error}); DNS is served all the same"
    )
}

/// Filters system calls: every thread there is runs now, and those that come inherit it. Whatever stands in the way
/// is told; DNS is served all the same.
fn sandbox(runtime: &str, iptables: bool) -> (Level, String) {
    if iptables {
        let line = "sandbox: not entered, because packet rules are written by programs of iptables; say -packetrules=nftables";
        return (Level::Warning, line.to_owned());
    }
    match privilege::sandbox::enter(runtime == "uring") {
        Ok(()) => (Level::Info, "sandbox: other system calls than serving takes fail from now on".to_owned()),
        Err(why) => {
            (Level::Warning, format!("sandbox: not entered: {why}; the kernel needs seccomp filters"))
        }
    }
}

/// `-metrics-listen-address`, unless the Corefile has an endpoint there.
fn setup_metrics(options: &RunOptions, plan: &Plan) -> Option<Endpoint> {
    let addr = options.metrics_listen_address;
    let is_free = !plan.endpoints.iter().any(|endpoint| endpoint.addr == addr);
    is_free.then_some(Endpoint { metrics: true, ..Endpoint::at(addr) })
}

/// Flags that miss each other.
fn unused(options: &RunOptions, has_template: bool) -> Option<String> {
    let (base, served) = (options.basecorefile.display(), options.corefile_path());
    if !has_template {
        let line = format!(
            "-kubednscm has no effect: there is no template {base}, and {} is served as it is",
            served.display()
        );
        return options.kubednscm.is_some().then_some(line);
    }
    (served != options.corefile).then(|| {
        let output = options.corefile.display();
        format!(
            "the template {base} is filled in and written to {output}, but -conf says to serve {}",
            served.display()
        )
    })
}

/// Complaints about a Corefile, a line each.
fn say_all<S: LineSink>(log: &mut Log<S>, level: Level, complaints: &[Diagnostic]) {
    for complaint in complaints {
        let help = complaint.help.as_ref().map_or_else(String::new, |help| format!("; {help}"));
        log.say(level, format_args!("{}: {}{help}", complaint.span, complaint.message));
    }
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

/// Ends the workers; a second signal does not wait for them.
pub async fn drain<S: LineSink>(service: &mut Service, log: &mut Log<S>, stop: &mut StopSignals) {
    service.stop();
    let mut ticks = interval(Duration::from_millis(1));
    while !service.tend_stop() {
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
async fn tend<S: LineSink, T>(
    service: &mut Service,
    log: &mut Log<S>,
    until: impl Future<Output = T>,
) -> Result<T, Failure> {
    let mut until = std::pin::pin!(until);
    let mut events = interval(EVENTS_PERIOD);
    events.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Instant::now();
    loop {
        tokio::select! {
            done = &mut until => return Ok(done),
            _ = events.tick() => {
                take_events(service, log);
                match service.tend_workers() {
                    Some(Ok(replaced)) => log.say(Level::Warning, replaced),
                    Some(Err(failure)) => return Err(Failure::Other(failure.to_string())),
                    None => {}
                }
                service.tend_orders().iter().for_each(|line| log.say(Level::Error, line));
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
