//! The commands of `nodens-admission`, and which one was typed. Without one it serves: that is how the original server is started.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::commands;
use crate::flags::{self, UsageError};

/// Exit code for a command line that cannot be understood.
pub const EXIT_USAGE: u8 = 2;

/// What a command ends with.
pub type Ended = Result<ExitCode, UsageError>;

/// One command.
pub struct Command {
    name: &'static str,
    /// For the help text.
    summary: &'static str,
    /// Does it, with the words behind its name. An error is printed and ends with [`EXIT_USAGE`].
    run: fn(&[String]) -> Ended,
}

/// All commands. The first is the default.
const COMMANDS: &[Command] = &[
    Command {
        name: "serve",
        summary: "answer the API server's admission reviews; also what is done without a command",
        run: commands::serve::run,
    },
    Command {
        name: "explain",
        summary: "why a Pod is injected or left alone, check by check, and what would change that",
        run: commands::explain::run,
    },
    Command {
        name: "inject",
        summary: "print manifests with the DNS fields in them; needs no cluster",
        run: commands::inject::run,
    },
    Command {
        name: "policy",
        summary: "print a MutatingAdmissionPolicy that injects without a webhook; needs no cluster",
        run: commands::policy::run,
    },
    Command {
        name: "policy-controller",
        summary: "keep the parameters of that policy in step with the cluster's DNS",
        run: commands::policy_controller::run,
    },
    Command {
        name: "audit",
        summary: "what injection does in this cluster: agents beside nodes, each namespace, stale addresses, NetworkPolicies in the way",
        run: commands::operator::audit,
    },
    Command {
        name: "list-injected",
        summary: "the Pods that ask the node-local address",
        run: commands::operator::list_injected,
    },
    Command {
        name: "preflight",
        summary: "whether it will work in this cluster",
        run: commands::operator::preflight,
    },
    Command {
        name: "uninstall",
        summary: "stop injection, and say who still depends on the node-local address",
        run: commands::operator::uninstall,
    },
];

/// Runs what the words say; without the program's own name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Result<Vec<String>, OsString> = arguments.into_iter().map(OsString::into_string).collect();
    let ended = match words {
        Ok(words) => dispatch(&words),
        Err(word) => Err(UsageError::new(
            format!("the argument {} is not UTF-8", word.display()),
            "name files with UTF-8 characters",
        )),
    };
    ended.unwrap_or_else(|error| {
        // Nobody is left to be told if this fails.
        let _ = writeln!(io::stderr(), "{error}");
        ExitCode::from(EXIT_USAGE)
    })
}

fn dispatch(words: &[String]) -> Ended {
    let first = words.first().map(String::as_str).unwrap_or_default();
    match first {
        "help" | "--help" | "-help" | "-h" => return say(&help_text()),
        "version" | "--version" | "-version" => {
            return say(&format!("nodens-admission-{}\n", env!("CARGO_PKG_VERSION")));
        }
        _ => {}
    }
    if let Some(command) = COMMANDS.iter().find(|command| command.name == first) {
        return (command.run)(&words[1..]);
    }
    let near = flags::nearest(first, COMMANDS.iter().map(|command| command.name));
    if let Some(near) = near.filter(|_| !first.is_empty() && !first.starts_with('-')) {
        let help = format!("did you mean `nodens-admission {near}`?");
        return Err(UsageError::new(format!("unknown command `{first}`"), help));
    }
    (COMMANDS[0].run)(words)
}

/// Prints to standard output.
pub fn say(text: &str) -> Ended {
    // Whoever closed our output has read enough.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}

/// Says on standard error why something failed.
pub fn complain(why: &str) {
    // Nobody is left to be told if this fails.
    let _ = writeln!(io::stderr(), "nodens-admission: {why}");
}

/// What can be typed behind `nodens-admission`.
pub fn command_names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().map(|command| command.name)
}

fn help_text() -> String {
    let mut text = String::from(
        "nodens-admission: gives Pods node-local DNS, and says why it does not\n\nUsage: nodens-admission [COMMAND] [FLAGS]\n\nCommands:\n",
    );
    for command in COMMANDS {
        flags::entry(&mut text, command.name, command.summary);
    }
    flags::entry(&mut text, "help, version", "print this text, or the version");
    text += "\n`nodens-admission COMMAND --help` lists a command's flags.\n";
    text += "Exit codes: 0 as asked, 1 it failed, 2 the command line is wrong.\n";
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_told_and_not_served() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let error = dispatch(&words("serv --no-kube")).expect_err("no such command");
        assert_eq!(error.help, "did you mean `nodens-admission serve`?");
        let error = dispatch(&words("--no-cube")).expect_err("no such flag");
        assert_eq!(error.help, "did you mean `--no-kube`?");
    }

    #[test]
    fn the_help_names_every_command() {
        let text = help_text();
        assert!(COMMANDS.iter().all(|command| text.contains(&format!("  {}", command.name))), "{text}");
    }
}
