//! What a run of load found: as a table for people and as JSON for programs.

use crate::histogram::Histogram;
use crate::message::Verdict;
use std::fmt::{self, Write};

/// What was sent and what came back.
#[derive(Clone, Eq, PartialEq, Debug, Default)]
pub struct Counts {
    /// Queries handed to the kernel, or meant to be.
    pub sent: u64,
    /// Queries the kernel did not take; they are among the lost as well.
    pub not_taken: u64,
    /// Answers to them.
    pub answered: u64,
    /// Queries without an answer in time.
    pub lost: u64,
    /// Datagrams that answer no open query: late, double, or with another question.
    pub strays: u64,
    /// NOERROR with records.
    pub positive: u64,
    /// NOERROR without.
    pub no_data: u64,
    /// NXDOMAIN.
    pub nx_domain: u64,
    /// SERVFAIL.
    pub serv_fail: u64,
    /// Other RCODEs, and cut answers.
    pub other: u64,
}

impl Counts {
    pub(super) fn count(&mut self, verdict: Verdict) {
        self.answered += 1;
        *match verdict {
            Verdict::Positive => &mut self.positive,
            Verdict::NoData => &mut self.no_data,
            Verdict::NxDomain => &mut self.nx_domain,
            Verdict::ServFail => &mut self.serv_fail,
            Verdict::Other => &mut self.other,
        } += 1;
    }
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Queries and answers.
    pub counts: Counts,
    /// From query (or from when it was due) to answer, in nanoseconds.
    pub latency: Histogram,
    /// How long questions were asked. The wait for the last answers, or for the time-out of lost ones, is not part of it.
    pub seconds: f64,
    /// CPU time of the server in seconds, if its process was given.
    pub server_cpu_s: Option<f64>,
    /// Its resident memory at the end.
    pub server_rss_kib: Option<u64>,
    /// CPU time of the load generator.
    pub own_cpu_s: f64,
}

impl Report {
    /// Microseconds of the server's CPU time per answered query; `None` without its process or without answers.
    pub fn cpu_us_per_answer(&self) -> Option<f64> {
        let answered = self.counts.answered;
        self.server_cpu_s.filter(|_| answered > 0).map(|cpu_s| cpu_s * 1e6 / answered as f64)
    }

    /// Answers per second.
    pub fn answers_per_s(&self) -> f64 {
        self.counts.answered as f64 / self.seconds
    }

    /// The share of the time in which the server computed; near 1 it was the bottleneck.
    pub fn server_busy(&self) -> Option<f64> {
        self.server_cpu_s.map(|cpu_s| cpu_s / self.seconds)
    }

    /// One JSON object on one line.
    pub fn to_json(&self) -> String {
        let Counts { sent, not_taken, answered, lost, strays, .. } = self.counts;
        let Counts { positive, no_data, nx_domain, serv_fail, other, .. } = self.counts;
        let mut json = format!(
            "{{\"sent\":{sent},\"not_taken\":{not_taken},\"answered\":{answered},\"lost\":{lost},\"strays\":{strays},\
             \"positive\":{positive},\"no_data\":{no_data},\"nx_domain\":{nx_domain},\"serv_fail\":{serv_fail},\
             \"other\":{other},\"seconds\":{:.3},\"answers_per_s\":{:.0}",
            self.seconds,
            self.answers_per_s()
        );
        for (name, percent) in PERCENTILES {
            let micros = self.latency.percentile(percent) as f64 / 1000.0;
            let _ = write!(json, ",\"{name}_us\":{micros:.1}");
        }
        let _ = write!(json, ",\"load_cpu_s\":{:.2}", self.own_cpu_s);
        let figures = [
            ("server_cpu_s", self.server_cpu_s),
            ("server_cpu_us_per_answer", self.cpu_us_per_answer()),
            ("server_rss_kib", self.server_rss_kib.map(|kib| kib as f64)),
        ];
        for (name, value) in figures {
            let text = value.map_or("null".to_string(), |value| format!("{value:.3}"));
            let _ = write!(json, ",\"{name}\":{text}");
        }
        json.push('}');
        json
    }
}

const PERCENTILES: [(&str, f64); 4] = [("p50", 50.0), ("p99", 99.0), ("p999", 99.9), ("max", 100.0)];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        let share = |part: u64| 100.0 * part as f64 / counts.answered.max(1) as f64;
        writeln!(
            f,
            "queries    {} sent, {} answered ({:.0}/s), {} lost, {} strays, {} not taken by the kernel",
            counts.sent,
            counts.answered,
            self.answers_per_s(),
            counts.lost,
            counts.strays,
            counts.not_taken
        )?;
        writeln!(
            f,
            "answers    {:.1} % positive, {:.1} % no data, {:.1} % no such name, {:.2} % SERVFAIL, {:.2} % other",
            share(counts.positive),
            share(counts.no_data),
            share(counts.nx_domain),
            share(counts.serv_fail),
            share(counts.other)
        )?;
        write!(f, "latency   ")?;
        for (name, percent) in PERCENTILES {
            write!(f, " {name} {:.0} us", self.latency.percentile(percent) as f64 / 1000.0)?;
        }
        writeln!(f)?;
        if let (Some(cost), Some(busy)) = (self.cpu_us_per_answer(), self.server_busy()) {
            let mib = self.server_rss_kib.unwrap_or(0) as f64 / 1024.0;
            writeln!(
                f,
                "server     {cost:.2} us CPU per answer, busy {:.0} % of the time, {mib:.1} MiB resident",
                100.0 * busy
            )?;
        }
        write!(f, "load       {:.2} s CPU in {:.2} s", self.own_cpu_s, self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut latency = Histogram::default();
        latency.record(50_000);
        let mut counts = Counts { sent: 3, lost: 1, ..Counts::default() };
        counts.count(Verdict::Positive);
        counts.count(Verdict::NxDomain);
        Report {
            counts,
            latency,
            seconds: 2.0,
            server_cpu_s: Some(1.0),
            server_rss_kib: Some(2048),
            own_cpu_s: 0.5,
        }
    }

    #[test]
    fn figures_are_derived_from_counts() {
        let mut report = report();
        assert_eq!((report.cpu_us_per_answer(), report.answers_per_s()), (Some(500_000.0), 1.0));
        assert_eq!(report.server_busy(), Some(0.5));
        report.counts.answered = 0;
        assert_eq!(report.cpu_us_per_answer(), None);
    }

    #[test]
    fn both_forms_tell_the_same() {
        let (text, json) = (report().to_string(), report().to_json());
        assert!(text.contains("3 sent, 2 answered (1/s), 1 lost") && text.contains("2.0 MiB"), "{text}");
        assert!(json.contains("\"sent\":3,") && json.contains("\"nx_domain\":1,"), "{json}");
        assert!(json.contains("\"p50_us\":50.0") && json.ends_with("\"server_rss_kib\":2048.000}"), "{json}");
        let unknown = Report { server_cpu_s: None, ..report() };
        assert!(unknown.to_json().contains("\"server_cpu_us_per_answer\":null"));
    }
}
