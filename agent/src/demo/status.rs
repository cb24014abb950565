//! The demo's status line: what the workers have done, in one line that is rewritten in place.
//!
//! The numbers are the workers' own counters, the same that `/metrics` exports. Times are known to the bucket of their histogram
//! only, so the line says "<=".

use std::future::Future;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nodens_core::Stats;
use nodens_core::stats::{Counter, DURATION_BOUNDS_US, RouteStats};

/// Time between two lines on a terminal.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(500);
/// Time between two lines in a file or pipe.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);
/// Carriage return, and then, after the text, what is left of an older and longer line goes.
const REWRITE: (&str, &str) = ("\r", "\x1b[K");

/// Sums over all workers.
#[derive(Clone, Debug, Default)]
struct Totals {
    queries: u64,
    looked_up: u64,
    hits: u64,
    upstream: u64,
    durations: [u64; DURATION_BOUNDS_US.len() + 1],
}

impl Totals {
    fn of(stats: &[Arc<Stats>]) -> Self {
        let mut totals = Totals::default();
        for stats in stats {
            for route in stats.routes.iter().flatten() {
                totals.queries += queries(route);
                for (total, bucket) in totals.durations.iter_mut().zip(&route.duration.buckets) {
                    *total += bucket.get();
                }
            }
            for zone in &stats.zones {
                totals.looked_up += zone.cache_requests.get();
                totals.hits += zone.hits_success.get() + zone.hits_denial.get();
            }
            totals.upstream += stats.upstreams.iter().map(|upstream| upstream.attempts.get()).sum::<u64>();
        }
        totals
    }

    /// The bound of the bucket that holds the `percent`th percentile.
    fn percentile(&self, percent: u64) -> String {
        let count: u64 = self.durations.iter().sum();
        if count == 0 {
            return "-".to_owned();
        }
        let rank = (count * percent).div_ceil(100);
        let mut seen = 0;
        for (bound_us, in_bucket) in DURATION_BOUNDS_US.iter().zip(&self.durations) {
            seen += in_bucket;
            if seen >= rank {
                return format!("<={} ms", *bound_us as f64 / 1000.0);
            }
        }
        format!(">{} ms", DURATION_BOUNDS_US[DURATION_BOUNDS_US.len() - 1] / 1000)
    }
}

fn queries(route: &RouteStats) -> u64 {
    route.requests.iter().flatten().flatten().map(Counter::get).sum()
}

/// Makes status lines; remembers the last one for the rate.
#[derive(Debug)]
pub struct Status {
    last: Totals,
    at: Instant,
}

impl Status {
    /// Counting begins at `now`.
    pub fn new(now: Instant) -> Self {
        Status { last: Totals::default(), at: now }
    }

    /// The line for what the workers' counters say at `now`: totals and percentiles since the start, the rate since the
    /// last line.
    pub fn line(&mut self, stats: &[Arc<Stats>], now: Instant) -> String {
        let totals = Totals::of(stats);
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        let new = totals.queries.saturating_sub(self.last.queries);
        let rate = if elapsed > 0.0 { (new as f64 / elapsed).round() } else { 0.0 };
        let ratio = match totals.looked_up {
            0 => "-".to_owned(),
            looked_up => format!("{:.1} %", 100.0 * totals.hits as f64 / looked_up as f64),
        };
        let line = format!(
            "queries {} ({}/s) | hit ratio {ratio} | p50 {} p99 {} | upstream {}",
            grouped(totals.queries),
            grouped(rate as u64),
            totals.percentile(50),
            totals.percentile(99),
            grouped(totals.upstream),
        );
        (self.last, self.at) = (totals, now);
        line
    }
}

/// Shows the status until `stop` is done: in place if `out` is a terminal, else one line every five seconds. The last line ends
/// with a line end, whatever `out` is.
pub async fn show(
    stats: &[Arc<Stats>],
    out: &mut impl Write,
    terminal: bool,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut status = Status::new(Instant::now());
    let interval = if terminal { TERMINAL_INTERVAL } else { PLAIN_INTERVAL };
    let mut ticks = tokio::time::interval(interval);
    tokio::pin!(stop);
    loop {
        let stopped = tokio::select! {
            () = &mut stop => true,
            _ = ticks.tick() => false,
        };
        let line = status.line(stats, Instant::now());
        match terminal {
            true => write!(out, "{}{line}{}", REWRITE.0, REWRITE.1)?,
            false => writeln!(out, "{line}")?,
        }
        if stopped && terminal {
            writeln!(out)?;
        }
        out.flush()?;
        if stopped {
            return Ok(());
        }
    }
}

/// `1234567` as `1 234 567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build_config::{Environment, ZoneIds, build};
    use crate::corefile::Corefile;
    use nodens_core::config::{CacheRules, ForwardZone, Listener, Route, UpstreamConfig};
    use nodens_core::wire::Name;

    fn stats() -> Arc<Stats> {
        let empty = build(&Corefile::default(), &Environment::of_this_machine(), &mut ZoneIds::default());
        let mut config = empty.expect("nothing is wrong with nothing").config;
        config.listeners = vec![Listener { routes: vec![Route { apex: Name::root(), zone: 0 }] }];
        config.zones = vec![ForwardZone {
            id: nodens_core::ZoneId(0),
            cache: Some(CacheRules::coredns()),
            forward: None,
            udp_size_max: 1232,
            log_queries: false,
            log_errors: false,
        }];
        config.upstreams = vec![UpstreamConfig::new(([127, 0, 0, 1], 53).into())];
        Arc::new(Stats::new(&config))
    }

    #[test]
    fn the_line_adds_up_what_the_workers_did() {
        let workers = [stats(), stats()];
        for worker in &workers {
            worker.routes[0][0].requests[0][0][0].add(617);
            worker.zones[0].cache_requests.add(617);
            worker.zones[0].hits_success.add(576);
            worker.upstreams[0].attempts.add(38);
            for _ in 0..98 {
                worker.routes[0][0].duration.observe(100, &DURATION_BOUNDS_US);
            }
            for _ in 0..2 {
                worker.routes[0][0].duration.observe(6_100, &DURATION_BOUNDS_US);
            }
        }
        let begin = Instant::now();
        let mut status = Status::new(begin);
        assert_eq!(
            status.line(&workers, begin + Duration::from_secs(2)),
            "queries 1 234 (617/s) | hit ratio 93.4 % | p50 <=0.25 ms p99 <=8 ms | upstream 76"
        );
        assert!(status.line(&workers, begin + Duration::from_secs(3)).starts_with("queries 1 234 (0/s) | "));
    }

    #[test]
    fn before_the_first_query_there_is_no_ratio_and_no_time() {
        let begin = Instant::now();
        assert_eq!(
            Status::new(begin).line(&[stats()], begin),
            "queries 0 (0/s) | hit ratio - | p50 - p99 - | upstream 0"
        );
    }

    #[test]
    fn what_is_beyond_the_last_bound_is_said_to_be() {
        let worker = stats();
        worker.routes[0][1].duration.observe(60_000_000, &DURATION_BOUNDS_US);
        assert!(Status::new(Instant::now()).line(&[worker], Instant::now()).contains("p50 >8192 ms"));
    }

    #[test]
    fn numbers_are_grouped() {
        let all = [0, 999, 1_000, 12_345, 1_234_567].map(grouped);
        assert_eq!(all, ["0", "999", "1 000", "12 345", "1 234 567"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_terminal_is_rewritten_and_a_file_gets_lines() {
        for (terminal, seconds, line_ends, rewrites) in [(true, 2, 1, 5), (false, 11, 4, 0)] {
            let mut out = Vec::new();
            let stop = tokio::time::sleep(Duration::from_millis(seconds * 1000 - 100));
            show(&[stats()], &mut out, terminal, stop).await.expect("written");
            let text = String::from_utf8(out).expect("text");
            assert_eq!(text.matches('\n').count(), line_ends, "{text:?}");
            assert_eq!(text.matches('\r').count(), rewrites, "{text:?}");
            assert!(text.ends_with('\n'));
        }
    }
}
