//! docs/admission-server.md says what the server does: names that operators alert on are in step.

use nodens_admission::metrics::{CertificateKind, ErrorKind, Metrics};

const DOC: &str = include_str!("../../../docs/admission-server.md");

#[test]
fn every_metric_and_every_kind_of_error_is_documented_and_no_other() {
    let metrics = Metrics::new();
    // These two have no series before something is known.
    metrics.upstream(&["10.0.0.10".parse().expect("an address")], true);
    metrics.certificate(CertificateKind::Leaf, 0);
    let text = metrics.text();
    let families: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE nodelocaldns_admission_")?.split_once(' '))
        .collect();
    assert!(families.len() > 10, "{text}");
    let section = DOC.split("\n## Metrics\n").nth(1).expect("a section");
    for (name, kind) in &families {
        let name = match *kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => (*name).to_owned(),
        };
        assert!(section.contains(&format!("`{name}")), "{name} is not documented");
    }
    let documented = section.lines().filter(|line| line.starts_with("| `")).count();
    // Two rows name two.
    assert_eq!(documented + 2, families.len(), "{families:?}");
    let answers = DOC.split("\n## What is answered").nth(1).expect("a section");
    for kind in ErrorKind::ALL {
        assert!(answers.contains(&format!("`{}`", kind.as_str())), "{kind:?} is not documented");
    }
}
