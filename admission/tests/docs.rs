//! `docs/admission.md` says what the code does: its tables are made from the code. `NODENS_WRITE_DOCS=1` writes them anew.

use std::path::Path;

use nodens_admission::cli;
use nodens_admission::commands::serve::serve_flags;
use nodens_admission::decide::ROWS;
use nodens_admission::flags;
use nodens_admission::names;
use nodens_admission::overrides;
use nodens_admission::reason::Reason;
use nodens_admission::settings::{ATTEMPTS, NDOTS_MAX, TIMEOUT_S};

fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let own: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let mut text = line(&own) + &line(&vec!["---".to_owned(); head.len()]);
    for row in rows {
        assert_eq!(row.len(), head.len());
        text += &line(&row.iter().map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>());
    }
    text
}

fn rows() -> String {
    let reasons = |number: u8| {
        let all = Reason::ALL.into_iter().filter(|reason| reason.row() == Some(number));
        all.map(|reason| format!("`{reason}`")).collect::<Vec<_>>().join(", ")
    };
    let mut all: Vec<(u8, &str)> = ROWS.iter().map(|row| (row.number, row.wants)).collect();
    all.insert(1, (2, "the object can be read as a Pod"));
    table(
        &["row", "what has to hold", "else left alone as"],
        all.into_iter().map(|(number, wants)| vec![number.to_string(), wants.to_owned(), reasons(number)]),
    )
}

fn reasons() -> String {
    table(
        &["reason", "row", "meaning", "if you want another outcome"],
        Reason::ALL.into_iter().map(|reason| {
            let row = reason.row().map_or("-".to_owned(), |row| row.to_string());
            vec![format!("`{reason}`"), row, reason.meaning().to_owned(), reason.remedy().to_owned()]
        }),
    )
}

fn annotations() -> String {
    let row = |key: &str, place: &str, value: String| vec![format!("`{key}`"), place.to_owned(), value];
    let both = "Pod, namespace";
    table(
        &["annotation", "on", "value"],
        [
            row(names::NDOTS_ANNOTATION, both, format!("0 to {NDOTS_MAX}")),
            row(names::ATTEMPTS_ANNOTATION, both, format!("{} to {}", ATTEMPTS.0, ATTEMPTS.1)),
            row(names::TIMEOUT_ANNOTATION, both, format!("{} to {} seconds", TIMEOUT_S.0, TIMEOUT_S.1)),
            row(
                names::SEARCHES_ANNOTATION,
                both,
                format!("up to {} further search domains, separated by commas", overrides::SEARCHES_MAX),
            ),
            row(
                names::SINGLE_NAMESERVER_ANNOTATION,
                both,
                "`true`: no kube-dns behind the node-local address".into(),
            ),
            row(
                names::ROLLOUT_ANNOTATION,
                "namespace",
                "0 to 100: this namespace's rollout percentage".into(),
            ),
        ],
    )
}

#[test]
fn the_tables_of_the_documentation_are_the_codes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/admission.md");
    let text = std::fs::read_to_string(&path).expect("docs/admission.md");
    let mut made = text.clone();
    for (name, table) in [("rows", rows()), ("reasons", reasons()), ("overrides", annotations())] {
        let begin = format!("<!-- generated: {name} -->\n");
        let (head, rest) = made.split_once(&begin).unwrap_or_else(|| panic!("no {begin}"));
        let (_, tail) = rest.split_once("<!-- end -->").expect("an end");
        made = format!("{head}{begin}{table}<!-- end -->{tail}");
    }
    if std::env::var_os("NODENS_WRITE_DOCS").is_some() {
        std::fs::write(&path, &made).expect("written");
        return;
    }
    assert!(
        made == text,
        "docs/admission.md is behind the code: run this test with NODENS_WRITE_DOCS=1 and look at the change"
    );
}

#[test]
fn remedies_name_flags_and_commands_that_exist() {
    let help = flags::help(&serve_flags());
    let mut seen = 0;
    let docs = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/admission.md"))
        .expect("docs");
    let remedies = Reason::ALL.into_iter().map(|reason| reason.remedy().to_owned());
    for text in remedies.chain([docs]) {
        for rest in text.split(" --").skip(1).chain(text.split("`--").skip(1)) {
            let flag: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            if !flag.starts_with(|c: char| c.is_ascii_lowercase()) {
                // A table's ruler.
                continue;
            }
            assert!(flag == "type" || help.contains(&format!("--{flag}")), "--{flag} in {text:.200}");
            seen += 1;
        }
        for rest in text.split("nodens-admission ").skip(1) {
            let command: String = rest.chars().take_while(char::is_ascii_lowercase).collect();
            if command.is_empty() {
                // The name alone.
                continue;
            }
            assert!(cli::command_names().any(|name| name == command), "nodens-admission {command}");
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
}
