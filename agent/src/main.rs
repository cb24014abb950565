//! nodens: node-local DNS for Kubernetes. Reads the command line and does what it says.

use std::io::{self, Write};
use std::process::ExitCode;

use nodens_agent::build_config::Environment;
use nodens_agent::cli::{self, CheckOptions, Command, EXIT_USAGE};
use nodens_agent::corefile;
use nodens_agent::doctor;
use nodens_agent::node;
use nodens_agent::run::{self, Failure};

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(error) => return refuse(&format!("{error}\n")),
    };
    match command {
        Command::Help => say(&cli::help_text()),
        Command::Version => say(&cli::version_text()),
        Command::Plugins => say(&corefile::describe_plugins()),
        Command::Check(options) => check(&options),
        Command::Run(options) => ended(run::run(&options)),
        Command::Node(options) => match node::run(&options) {
            Ok(text) => say(&text),
            Err(failure) => ended(Err(failure)),
        },
        Command::Doctor(options) => match doctor::run(&options) {
            Ok((text, code)) => {
                say(&text);
                ExitCode::from(code)
            }
            Err(failure) => ended(Err(failure)),
        },
        Command::Demo(options) => ended(nodens_agent::demo::run(&options)),
    }
}

/// Reads the Corefile as `run` would, up to the sockets.
fn check(options: &CheckOptions) -> ExitCode {
    let environment = Environment { default_port: options.dns_port, ..Environment::of_this_machine() };
    match run::load(&options.file, &environment) {
        Ok((built, warnings)) => {
            let mut text = String::new();
            for warning in warnings.iter().filter(|_| !options.quiet) {
                text += &format!("{warning}\n\n");
            }
            text += &format!(
                "{}: good; {}, {}, {}\n",
                options.file.display(),
                counted(built.config.zones.len(), "server block", "server blocks"),
                counted(built.config.upstreams.len(), "upstream", "upstreams"),
                counted(built.plan.listeners.len(), "listening address", "listening addresses")
            );
            say(&text)
        }
        Err(failure) => ended(Err(failure)),
    }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn ended(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure @ (Failure::Corefile(_) | Failure::Usage(_))) => refuse(&failure.to_string()),
        Err(failure) => {
            let _ = io::stderr().write_all(failure.to_string().as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) -> ExitCode {
    // Whoever closed our output has read enough.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn refuse(text: &str) -> ExitCode {
    let _ = io::stderr().write_all(text.as_bytes());
    ExitCode::from(EXIT_USAGE)
}
