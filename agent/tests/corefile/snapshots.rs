//! Complaints word for word: what a person sees.
//!
//! To accept new wording, run the tests with `NODENS_BLESS=1` and read the difference before committing it.

use super::Texts;

fn check(name: &str) {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corefile/fixtures");
    let read =
        |suffix: &str| std::fs::read_to_string(format!("{directory}/{name}.{suffix}")).unwrap_or_default();
    let (_, diagnostics) = Texts::corefile(read("corefile")).examine();
    let shown: String = diagnostics.iter().map(|diagnostic| format!("{diagnostic}\n\n")).collect();
    if std::env::var_os("NODENS_BLESS").is_some() {
        std::fs::write(format!("{directory}/{name}.expected"), &shown).unwrap();
    }
    assert!(!shown.is_empty());
    assert_eq!(shown, read("expected"), "complaints about {name} changed");
}

#[test]
fn broken_options() {
    check("broken-options");
}

#[test]
fn broken_braces() {
    check("broken-braces");
}

#[test]
fn broken_zones() {
    check("broken-zones");
}

#[test]
fn a_file_that_cannot_be_read() {
    let (_, diagnostics) = Texts::default().examine();
    assert_eq!(
        diagnostics[0].to_string(),
        "Corefile: error: `Corefile` cannot be read: entity not found\n\
         help: name a file that is there: `nodens -conf FILE`, or `nodens check FILE`"
    );
    assert_eq!(diagnostics.len(), 1);
}

#[test]
fn a_file_without_a_server_block() {
    for text in ["", "\n\n", "# nothing\n", "(snippet) {\n errors\n}\n"] {
        let (_, diagnostics) = Texts::corefile(text).examine();
        assert_eq!(
            diagnostics[0].to_string(),
            "Corefile: error: there is no server block in it\n\
             help: the least there is: `. {`, `forward . IP` and `}`, each on its line"
        );
    }
}

#[test]
fn a_file_that_is_not_text() {
    let (_, diagnostics) = Texts::corefile(b".:53 {\n  forward . \xff\n}\n").examine();
    assert_eq!(
        diagnostics[0].to_string(),
        "Corefile:2:13: error: this is not UTF-8 text\n      forward . \u{fffd}\n                ^\nhelp: save the file as UTF-8"
    );
}

#[test]
fn a_complaint_inside_an_imported_file_names_that_file() {
    let texts = Texts::corefile(".:53 {\n  import upstream.conf\n}\n")
        .file("upstream.conf", "\nforward . nowhere/\n");
    assert_eq!(
        texts.examine().1[0].to_string(),
        "upstream.conf:2:11: error: `nowhere/` cannot be read: entity not found\n    forward . nowhere/\n              ^^^^^^^^\n\
         help: name a file with `nameserver` lines, or write the servers' addresses"
    );
}
