//! One bench run: servers that take turns on one core under the same load from another, several rounds, and what came of it.
//!
//! The echo programs run among the servers, in the same rounds, so that "how many times the floor" is a ratio of two figures
//! that met the same machine. Every measurement starts a fresh process: nothing is left from the one before.

use crate::echo::EchoKind;
use crate::load::{self, Plan, Report};
use crate::process::{self, Server};
use crate::traffic::TrafficKind;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

/// Rounds unless said otherwise: three show whether a figure repeats.
pub const ROUNDS: usize = 3;
/// Seconds of each measurement unless said otherwise: CPU time is counted in hundredths of a second.
pub const SECONDS: f64 = 2.0;
/// Queries per second of the mix, a busy node's burst.
const MIX_RATE: f64 = 5000.0;

/// When a query of a bench is lost: a lane that waits longer would be missing for most of a measurement.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How a bench is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How often every server gets its turn.
    pub rounds: usize,
    /// How long each measurement is.
    pub length: Duration,
    /// Where servers run.
    pub server_core: usize,
    /// Where the load runs, and the upstream.
    pub load_core: usize,
}

impl Settings {
    /// The first core for servers, the last for the load. With one core they share it, which is said aloud.
    pub fn new(rounds: usize, seconds: f64) -> Self {
        let cores = process::cores();
        let (first, last) = (cores.first().copied().unwrap_or(0), cores.last().copied().unwrap_or(0));
        if first == last {
            println!("*** ONE CORE: server and load share it; figures are of little use.");
        }
        let length = Duration::from_secs_f64(seconds.clamp(0.1, 600.0));
        Settings { rounds: rounds.clamp(1, 100), length, server_core: first, load_core: last }
    }
}

/// What is asked of a server.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Scenario {
    /// Datagrams come back as they are.
    Echo,
    /// Every answer is in the cache.
    Hits,
    /// No answer is; the upstream is asked over UDP.
    MissesUdp,
    /// No answer is; the upstream is asked over TCP.
    MissesTcp,
    /// A node's mix at 5 000 queries per second.
    Mix,
}

impl Scenario {
    /// What a title says.
    pub fn title(self) -> &'static str {
        match self {
            Scenario::Echo => "floor: echo programs",
            Scenario::Hits => "all answers cached, UDP",
            Scenario::MissesUdp => "all answers missed, UDP upstream",
            Scenario::MissesTcp => "all answers missed, TCP upstream",
            Scenario::Mix => "a node's mix at 5 000/s, UDP upstream",
        }
    }

    /// The load that it means.
    pub fn plan(self, target: SocketAddrV4, settings: &Settings) -> Plan {
        let traffic = match self {
            Scenario::Echo | Scenario::Hits => TrafficKind::Hits(crate::traffic::HIT_NAMES),
            Scenario::MissesUdp | Scenario::MissesTcp => TrafficKind::Misses,
            Scenario::Mix => TrafficKind::Mix,
        };
        let rate = (self == Scenario::Mix).then_some(MIX_RATE);
        let is_echo = self == Scenario::Echo;
        Plan { length: settings.length, rate, is_echo, timeout: TIMEOUT, ..Plan::new(target, traffic) }
    }
}

/// A server in a scenario, and what each round found.
#[derive(Clone, Debug)]
pub struct Row {
    /// The server's name.
    pub name: String,
    /// What was asked of it.
    pub scenario: Scenario,
    /// One per round.
    pub reports: Vec<Report>,
}

impl Row {
    /// A row without measurements yet.
    pub fn new(name: impl Into<String>, scenario: Scenario) -> Self {
        Row { name: name.into(), scenario, reports: vec![] }
    }

    /// Microseconds of CPU per answer: least, median and most of all rounds; `None` without any answer.
    pub fn cost_us(&self) -> Option<[f64; 3]> {
        let costs: Vec<_> = self.reports.iter().filter_map(Report::cpu_us_per_answer).collect();
        spread(costs)
    }

    /// The median over rounds of some figure.
    pub fn median(&self, figure: impl Fn(&Report) -> f64) -> f64 {
        spread(self.reports.iter().map(figure).collect()).map_or(0.0, |[_, median, _]| median)
    }

    /// The share of queries without a good answer, in percent: lost, SERVFAIL, cut or refused.
    pub fn bad_percent(&self) -> f64 {
        let sum = |count: fn(&Report) -> u64| self.reports.iter().map(count).sum::<u64>() as f64;
        100.0 * sum(|r| r.counts.lost + r.counts.serv_fail + r.counts.other) / sum(|r| r.counts.sent).max(1.0)
    }
}

fn spread(mut values: Vec<f64>) -> Option<[f64; 3]> {
    values.sort_by(f64::total_cmp);
    Some([*values.first()?, values[values.len() / 2], *values.last()?])
}

/// The cost of the cheapest echo program, by its median, and its name.
pub fn best_echo(rows: &[Row]) -> Option<(f64, &str)> {
    let echoes = rows.iter().filter(|row| row.scenario == Scenario::Echo);
    let costs = echoes.filter_map(|row| Some((row.cost_us()?[1], row.name.as_str())));
    costs.min_by(|a, b| a.0.total_cmp(&b.0))
}

/// One measurement of a running server.
///
/// # Errors
///
/// The load could not be run.
pub fn measure(
    scenario: Scenario,
    server: &Server,
    target: SocketAddr,
    settings: &Settings,
) -> io::Result<Report> {
    let SocketAddr::V4(target) = target else {
        return Err(io::Error::other("servers here are on 127.0.0.1"));
    };
    load::run(&Plan { pid: Some(server.pid()), ..scenario.plan(target, settings) })
}

/// Gives each echo program its turn, adding to its row; a way of doing I/O that the kernel refuses is said so and left out.
pub fn echo_round(rows: &mut Vec<Row>, settings: &Settings) {
    for kind in EchoKind::ALL {
        let turn = || -> io::Result<Report> {
            let (server, address) =
                Server::start_own(settings.server_core, &["echo", "--kind", kind.word()])?;
            measure(Scenario::Echo, &server, address, settings)
        };
        add(rows, &kind.to_string(), Scenario::Echo, turn());
    }
}

/// Adds a measurement to its row, or says loudly why there is none.
pub fn add(rows: &mut Vec<Row>, name: &str, scenario: Scenario, result: io::Result<Report>) {
    match result {
        Err(why) => println!("*** LEFT OUT: {name}, {}: {why}", scenario.title()),
        Ok(report) => {
            let cost = report.cpu_us_per_answer().unwrap_or(f64::NAN);
            println!("{:36} {name:36} {cost:6.2} us, {:7.0}/s", scenario.title(), report.answers_per_s());
            let place = rows.iter().position(|row| row.name == name && row.scenario == scenario);
            let place = place.unwrap_or_else(|| {
                rows.push(Row::new(name, scenario));
                rows.len() - 1
            });
            rows[place].reports.push(report);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::Histogram;
    use crate::load::Counts;

    pub(crate) fn report(cpu_us: f64) -> Report {
        Report {
            counts: Counts { sent: 1_000_000, answered: 1_000_000, positive: 1_000_000, ..Counts::default() },
            latency: Histogram::default(),
            seconds: 1.0,
            server_cpu_s: Some(cpu_us),
            server_rss_kib: Some(1024),
            own_cpu_s: 1.0,
        }
    }

    #[test]
    fn a_row_is_judged_by_its_median_and_the_floor_is_the_best_median() {
        let mut rows = vec![];
        for cost in [2.0, 9.0, 3.0] {
            add(&mut rows, "one", Scenario::Echo, Ok(report(cost)));
            add(&mut rows, "other", Scenario::Echo, Ok(report(cost + 0.5)));
            add(&mut rows, "server", Scenario::Hits, Ok(report(1.0)));
            add(&mut rows, "absent", Scenario::Hits, Err(io::Error::other("not installed")));
        }
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[0].cost_us(), Some([2.0, 3.0, 9.0]));
        assert_eq!(best_echo(&rows), Some((3.0, "one")));
        assert_eq!(best_echo(&rows[2..]), None);
    }

    #[test]
    fn bad_answers_are_a_share_of_all_queries() {
        let mut bad = report(1.0);
        (bad.counts.lost, bad.counts.serv_fail) = (100_000, 50_000);
        let row = Row { reports: vec![bad, report(1.0)], ..Row::new("server", Scenario::Hits) };
        assert_eq!(row.bad_percent(), 7.5);
    }
}
