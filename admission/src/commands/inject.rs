//! `inject`: manifests in, the same manifests with the DNS fields out. What became of each workload goes to standard error.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use super::files;
use super::serve::{InjectionOptions, injection_flags};
use crate::cli::{Ended, say};
use crate::flags::{self, Flag, UsageError};
use crate::inject::{self, DEFAULT_NAMESPACE};
use crate::reason::Reason;
use crate::snapshot::Config;

/// Everything `inject` can be told.
#[derive(Clone, Debug)]
struct InjectOptions {
    injection: InjectionOptions,
    files: Vec<String>,
    namespace: String,
    quiet: bool,
    help: bool,
}

/// Reads the words behind `inject` and does it.
pub fn run(words: &[String]) -> Ended {
    let mut options = InjectOptions {
        injection: InjectionOptions::default(),
        files: Vec::new(),
        namespace: DEFAULT_NAMESPACE.into(),
        quiet: false,
        help: false,
    };
    let rest = flags::parse(&inject_flags(), words, &mut options)?;
    if options.help {
        return say(&format!(
            "Usage: nodens-admission inject -f FILE [-f FILE]... [FLAGS]\n\n\
             Prints the manifests with dnsPolicy and dnsConfig in every Pod that the server would inject.\n{}",
            flags::help(&inject_flags())
        ));
    }
    options.files.extend(rest);
    if options.files.is_empty() {
        return Err(UsageError::new("no manifest is named", "write `-f FILE`, or `-f -` for standard input"));
    }
    let config = options.injection.offline_config()?;
    let mut documents = String::new();
    for file in &options.files {
        let injected = files::read(file).and_then(|text| {
            inject::inject(&text, &config, &options.namespace).map_err(|error| format!("{file}: {error}"))
        });
        let (text, reports) = match injected {
            Ok(injected) => injected,
            Err(problem) => {
                tell(&format!("nodens-admission: {problem}"));
                return Ok(ExitCode::FAILURE);
            }
        };
        if !documents.is_empty() {
            documents += if documents.ends_with('\n') { "---\n" } else { "\n---\n" };
        }
        documents += &text;
        for report in reports.iter().filter(|_| !options.quiet) {
            let advice = match report.reason {
                Reason::Injected => String::new(),
                reason => format!("; {}", reason.remedy().replace("NAMESPACE", &report.namespace)),
            };
            tell(&format!("{} {}/{}: {}{advice}", report.kind, report.namespace, report.name, report.reason));
        }
    }
    say(&documents)
}

fn tell(line: &str) {
    // Nobody is left to be told if this fails.
    let _ = writeln!(io::stderr(), "{line}");
}

fn inject_flags() -> Vec<Flag<InjectOptions>> {
    type O = InjectOptions;
    let mut all = flags::group(
        "Manifests",
        vec![
            Flag::value(
                &["f", "filename"],
                "FILE",
                "YAML or JSON, several documents in a file; - for standard input",
                |o: &mut O, text| {
                    o.files.push(text.into());
                    Ok(())
                },
            ),
            Flag::value(&["n"], "NAMESPACE", "of documents that name none", |o: &mut O, text| {
                o.namespace = text.into();
                Ok(())
            })
            .default(DEFAULT_NAMESPACE),
            Flag::switch(&["quiet", "q"], "do not say what became of each workload", |o: &mut O, on| {
                o.quiet = on;
            }),
            Flag::switch(&["help", "h"], "print this text", |o: &mut O, on| o.help = on),
        ],
    );
    all.extend(
        injection_flags().into_iter().map(|flag| flag.within(|options: &mut O| &mut options.injection)),
    );
    all
}

impl InjectionOptions {
    /// What commands without a cluster decide with. The address of kube-dns has to come from somebody.
    pub fn offline_config(self) -> Result<Config, UsageError> {
        let Self { settings, kube_dns, .. } = self.checked()?;
        if settings.include_kube_dns && kube_dns.is_empty() {
            return Err(UsageError::new(
                "without a cluster nobody knows the address of kube-dns, the backup nameserver",
                "give it with `--kube-dns-ip`, or do without with `--include-kube-dns=false`",
            ));
        }
        Ok(Config::new(Arc::new(settings), kube_dns))
    }
}
