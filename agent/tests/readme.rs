//! The README's tables name what there is: every flag of `--help` and every plug-in of `-plugins` that is served, taken or not
//! there yet.

use nodens_agent::{cli, corefile};

const README: &str = include_str!("../../README.md");

#[test]
fn every_flag_of_the_help_text_is_in_the_readme() {
    let help = cli::help_text();
    let flags: Vec<&str> = help
        .lines()
        .filter(|line| line.starts_with("  -"))
        .flat_map(|line| line.split([' ', ',']).filter(|word| word.starts_with('-')))
        .collect();
    assert!(flags.len() > 20, "{flags:?}");
    for flag in flags {
        let named = README.contains(&format!("`{flag}`")) || README.contains(&format!("`{flag} "));
        assert!(named, "the README does not name {flag}");
    }
}

#[test]
fn every_plug_in_that_is_not_refused_for_good_is_in_the_readme() {
    let list = corefile::describe_plugins();
    let known = list.split("Refused").next().expect("a list");
    let plugins: Vec<&str> = known.lines().filter_map(|line| line.strip_prefix("  ")).collect();
    assert!(plugins.contains(&"cache") && plugins.contains(&"reload"), "{plugins:?}");
    for plugin in plugins {
        assert!(README.contains(&format!("`{plugin}`")), "the README does not name {plugin}");
    }
}
