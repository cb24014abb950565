//! The help text, made from the table of flags.

use super::flags::{FLAGS, Flag, Group, Value};

/// Widest line: what a terminal and a log viewer both show.
const WIDTH: usize = 100;

/// Column where explanations begin.
const INDENT: usize = 36;

const USAGE: [(&str, &str); 6] = [
    ("nodens [run] [FLAGS]", "serve DNS as the Corefile says"),
    ("nodens check FILE", "say what is wrong with a Corefile; exits with 2 if it cannot be used"),
    ("nodens demo [FLAGS]", "serve 127.0.0.1:5300 from a small built-in upstream, to try things out"),
    (
        "nodens node plan|apply|remove [FLAGS]",
        "the node's interface and packet rules by hand; `plan` only prints",
    ),
    (
        "nodens doctor [FLAGS]",
        "look at the node with the agent's flags and say what is wrong; exits with 3 after a warning, 4 after a failure",
    ),
    ("nodens help", "print this text"),
];

const GROUPS: [(Group, &str); 4] = [
    (Group::Serving, "Serving"),
    (Group::Configuration, "Configuration"),
    (Group::Node, "The node's interface and packet rules"),
    (Group::Information, "Information"),
];

pub(super) fn text() -> String {
    let mut out =
        String::from("nodens: node-local DNS for Kubernetes, a caching DNS proxy on every node\n\nUsage:\n");
    for (command, help) in USAGE {
        entry(&mut out, command, help);
    }
    out.push_str("\nFlags are written `-flag value` or `-flag=value`, switches `-flag` or `-flag=false`.\n");
    out.push_str("Two dashes work as well as one.\n");
    for (group, heading) in GROUPS {
        out.push_str(&format!("\n{heading}:\n"));
        for flag in FLAGS.iter().filter(|flag| flag.group == group) {
            entry(&mut out, &head(flag), &body(flag));
        }
    }
    out.push_str(
        "\nExit codes: 0 as asked, 1 the service failed, 2 the command line or the Corefile is wrong.\n",
    );
    out
}

fn head(flag: &Flag) -> String {
    let names: Vec<String> = flag.names.iter().map(|name| format!("-{name}")).collect();
    match &flag.value {
        Value::Switch(_) => names.join(", "),
        Value::Text { metavar, .. } => format!("{} {metavar}", names.join(", ")),
    }
}

fn body(flag: &Flag) -> String {
    let mut text = flag.help.to_owned();
    if let Value::Text { default, .. } = &flag.value
        && !default.is_empty()
    {
        text.push_str(&format!(" (default {default})"));
    }
    text
}

/// One line, or several: the head, and its explanation in a column of its own.
fn entry(out: &mut String, head: &str, help: &str) {
    let mut line = format!("  {head}");
    let mut used = line.chars().count();
    if used + 2 > INDENT {
        out.push_str(&line);
        out.push('\n');
        (line, used) = (String::new(), 0);
    }
    line.push_str(&" ".repeat(INDENT - used));
    let mut column = INDENT;
    for word in help.split_whitespace() {
        let length = word.chars().count();
        if column > INDENT && column + 1 + length > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = " ".repeat(INDENT);
            column = INDENT;
        }
        if column > INDENT {
            line.push(' ');
            column += 1;
        }
        line.push_str(word);
        column += length;
    }
    out.push_str(&line);
    out.push('\n');
}
