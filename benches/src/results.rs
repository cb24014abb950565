//! What a bench found, for people: Markdown tables, a plot in SVG, and the places in `RESULTS.md` where they go.

use crate::floor::{Row, Scenario, best_echo};
use std::fmt::Write;

/// The order of tables and of the plot.
const ORDER: [Scenario; 5] =
    [Scenario::Echo, Scenario::Hits, Scenario::MissesUdp, Scenario::MissesTcp, Scenario::Mix];

/// Tables of all scenarios that have rows.
pub fn tables(rows: &[Row]) -> String {
    let mut out = String::new();
    let floor = best_echo(rows);
    for scenario in ORDER {
        let mut own: Vec<_> = rows.iter().filter(|row| row.scenario == scenario).collect();
        if own.is_empty() {
            continue;
        }
        own.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
        let _ = writeln!(out, "\n### {}\n", capitalized(scenario.title()));
        out.push_str("| server | µs CPU per answer | lowest–highest | × best echo | answers/s | server busy | p99 µs | RSS MiB | bad % |\n");
        out.push_str("|---|---|---|---|---|---|---|---|---|\n");
        for row in own {
            let Some([least, median, most]) = row.cost_us() else { continue };
            let ratio = floor.map_or("-".to_string(), |(floor, _)| format!("{:.2}", median / floor));
            let busy = 100.0 * row.median(|report| report.server_busy().unwrap_or(0.0));
            let p99 = row.median(|report| report.latency.percentile(99.0) as f64 / 1000.0);
            let rss = row.median(|report| report.server_rss_kib.unwrap_or(0) as f64 / 1024.0);
            let _ = writeln!(
                out,
                "| {} | {median:.2} | {least:.2}–{most:.2} | {ratio} | {:.0} | {busy:.0} % | {p99:.0} | {rss:.1} | {:.2} |",
                row.name,
                row.median(crate::load::Report::answers_per_s),
                row.bad_percent()
            );
        }
    }
    out
}

/// A plot: a bar per server and scenario, as long as its CPU time per answer; the floor as a line through all.
pub fn plot(rows: &[Row]) -> String {
    const WIDTH: f64 = 900.0;
    const BARS_LEFT: f64 = 290.0;
    const BARS_RIGHT: f64 = 790.0;
    const BAR: f64 = 18.0;
    const STEP: f64 = 24.0;
    const TITLE: f64 = 34.0;
    let longest = rows.iter().map(cost).filter(|cost| cost.is_finite()).fold(1.0, f64::max);
    let length = |us: f64| (BARS_RIGHT - BARS_LEFT) * us / longest;
    let (mut y, mut body) = (10.0, String::new());
    for scenario in ORDER {
        let mut own: Vec<_> =
            rows.iter().filter(|row| row.scenario == scenario && cost(row).is_finite()).collect();
        if own.is_empty() {
            continue;
        }
        own.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
        let _ = writeln!(
            body,
            "<text class=\"title\" x=\"10\" y=\"{:.0}\">{}</text>",
            y + 20.0,
            escaped(scenario.title())
        );
        y += TITLE;
        for row in own {
            let class = if row.name.starts_with("nodens") { "own" } else { "other" };
            let (text_y, bar) = (y + 14.0, length(cost(row)));
            let _ = writeln!(
                body,
                "<text x=\"{:.0}\" y=\"{text_y:.0}\" text-anchor=\"end\">{}</text>\
                 <rect class=\"{class}\" x=\"{BARS_LEFT}\" y=\"{y:.0}\" width=\"{bar:.1}\" height=\"{BAR}\"/>\
                 <text x=\"{:.0}\" y=\"{text_y:.0}\">{:.2} µs</text>",
                BARS_LEFT - 8.0,
                escaped(&row.name),
                BARS_LEFT + bar + 6.0,
                cost(row)
            );
            y += STEP;
        }
    }
    if let Some((floor, _)) = best_echo(rows) {
        let x = BARS_LEFT + length(floor);
        let _ = writeln!(body, "<line x1=\"{x:.1}\" y1=\"10\" x2=\"{x:.1}\" y2=\"{y:.0}\"/>");
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {:.0}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <title>CPU time per answered query, shorter is better; the line is the best echo program</title>\n\
         <style>.title{{font-weight:bold}}.own{{fill:#2a6fb0}}.other{{fill:#b0b4b8}}line{{stroke:#c0392b;stroke-dasharray:4 3}}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}</svg>\n",
        y + 10.0
    )
}

/// Puts a section into a page, in place of the one of that name, or at the end. What people wrote around sections stays.
pub fn put_section(page: &str, name: &str, section: &str) -> String {
    let (begin, end) =
        (format!("<!-- {name}: begin, written by nodens-bench -->"), format!("<!-- {name}: end -->"));
    let whole = format!("{begin}\n{}\n{end}", section.trim());
    match (page.find(&begin), page.find(&end)) {
        (Some(from), Some(to)) if from < to => {
            format!("{}{whole}{}", &page[..from], &page[to + end.len()..])
        }
        _ => format!("{}\n\n{whole}\n", page.trim_end()),
    }
}

/// The machine, in a line: processor, cores, kernel, how busy it was when the run ended.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let processor = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    format!(
        "{}, {} cores, Linux {}; load average of the last minute {}",
        processor.map_or("unknown processor", |(_, name)| name).trim(),
        cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
        kernel.trim().split('-').next().unwrap_or_default(),
        load.split(' ').next().unwrap_or_default()
    )
}

fn cost(row: &Row) -> f64 {
    row.cost_us().map_or(f64::INFINITY, |[_, median, _]| median)
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::Histogram;
    use crate::load::{Counts, Report};

    fn row(name: &str, scenario: Scenario, cost_us: f64) -> Row {
        let report = Report {
            counts: Counts { sent: 1_000_000, answered: 1_000_000, ..Counts::default() },
            latency: Histogram::default(),
            seconds: 10.0,
            server_cpu_s: Some(cost_us),
            server_rss_kib: Some(2048),
            own_cpu_s: 1.0,
        };
        Row { reports: vec![report], ..Row::new(name, scenario) }
    }

    fn rows() -> Vec<Row> {
        vec![
            row("echo", Scenario::Echo, 2.0),
            row("slow & big", Scenario::Hits, 6.0),
            row("nodens on uring", Scenario::Hits, 3.0),
        ]
    }

    #[test]
    fn tables_show_the_cheapest_first_and_ratios_to_the_floor() {
        let text = tables(&rows());
        let (own, other) = (text.find("| nodens on uring | 3.00"), text.find("| slow & big | 6.00"));
        assert!(own.is_some() && own < other, "{text}");
        assert!(text.contains("| 3.00–3.00 | 1.50 | 100000 | 30 % |"), "{text}");
        assert!(!text.contains("TCP upstream"), "no rows, no table");
    }

    #[test]
    fn the_plot_has_a_bar_for_each_row() {
        let svg = plot(&rows());
        assert_eq!(svg.matches("height=\"18\"").count(), 3);
        assert_eq!((svg.matches("class=\"own\"").count(), svg.matches("<line").count()), (1, 1));
        assert!(svg.contains("slow &amp; big") && svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn a_section_replaces_itself_and_nothing_else() {
        let first = put_section("# Results\n\nWords.\n", "peers", "old");
        let with_more = put_section(&first, "floor", "echo") + "\nMore words.\n";
        let second = put_section(&with_more, "peers", "new");
        assert!(second.contains("Words.") && second.contains("More words.") && second.contains("echo"));
        assert!(second.contains("new") && !second.contains("old"), "{second}");
        assert_eq!(put_section(&second, "peers", "new"), second);
    }
}
