//! `explain`: the decision table walked for a manifest, each check with its outcome and what would change it.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::Value;

use super::files;
use super::serve::{InjectionOptions, injection_flags};
use crate::cli::{Ended, say};
use crate::explain::{self, Explanation, Subject, render_json, render_text};
use crate::flags::{self, Flag, UsageError};
use crate::inject::{self, DEFAULT_NAMESPACE, Namespaces};
use crate::manifest::{self, ManifestError};
use crate::snapshot::{Config, NamespaceView};

/// Everything `explain` can be told.
#[derive(Clone, Debug)]
struct ExplainOptions {
    injection: InjectionOptions,
    files: Vec<String>,
    namespace: String,
    json: bool,
    help: bool,
}

/// Reads the words behind `explain` and does it.
pub fn run(words: &[String]) -> Ended {
    let mut options = ExplainOptions {
        injection: InjectionOptions::default(),
        files: Vec::new(),
        namespace: DEFAULT_NAMESPACE.into(),
        json: false,
        help: false,
    };
    let rest = flags::parse(&explain_flags(), words, &mut options)?;
    if options.help {
        return say(&format!(
            "Usage: nodens-admission explain -f FILE [-f FILE]... [FLAGS]\n\n\
             Says for each Pod of the manifests whether it would be injected, check by check, and what would change that.\n{}",
            flags::help(&explain_flags())
        ));
    }
    if let Some(word) = rest.first() {
        return Err(UsageError::new(
            format!("unexpected argument `{word}`"),
            "name manifests with `-f FILE`",
        ));
    }
    if options.files.is_empty() {
        return Err(UsageError::new(
            "nothing is named to explain",
            "write `-f FILE`, or `-f -` for standard input",
        ));
    }
    let config = options.injection.offline_config()?;
    let mut found = Found { json: options.json, text: String::new(), values: Vec::new() };
    for file in &options.files {
        let explained = files::read(file).and_then(|text| {
            let all = documents(&text, &config, &options.namespace, |explanation| found.add(explanation));
            all.map_err(|error| format!("{file}: {error}"))
        });
        if let Err(problem) = explained {
            // Nobody is left to be told if this fails.
            let _ = writeln!(io::stderr(), "nodens-admission: {problem}");
            return Ok(ExitCode::FAILURE);
        }
    }
    found.print()
}

/// What is to be printed at the end.
struct Found {
    json: bool,
    text: String,
    values: Vec<Value>,
}

impl Found {
    fn add(&mut self, explanation: &Explanation<'_>) {
        if self.json {
            self.values.push(render_json(explanation));
            return;
        }
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text += &render_text(explanation);
    }

    fn print(self) -> Ended {
        match self.json {
            true => say(&format!("{:#}\n", Value::Array(self.values))),
            false if self.text.is_empty() => say("no document makes Pods\n"),
            false => say(&self.text),
        }
    }
}

/// Explains every workload of a text.
fn documents(
    text: &str,
    config: &Config,
    namespace: &str,
    mut then: impl FnMut(&Explanation<'_>),
) -> Result<(), ManifestError> {
    let documents = manifest::read(text)?;
    let namespaces = Namespaces::of(&documents, config.settings());
    for workload in documents.iter().flat_map(manifest::workloads) {
        let namespace = workload.namespace.as_deref().unwrap_or(namespace);
        let subject = Subject::new(&workload.kind, namespace, &workload.name, &workload.pod_path);
        inject::with_input(&workload, namespace, &namespaces, config, |input| {
            let mut explanation = explain::walk(subject, input);
            if matches!(input.namespace, NamespaceView::Selected) {
                let note =
                    format!("the labels of namespace {namespace} are not in the file; taken as enabled");
                explanation.notes.push(note);
            }
            then(&explanation);
            Ok(())
        })?;
    }
    Ok(())
}

fn explain_flags() -> Vec<Flag<ExplainOptions>> {
    type O = ExplainOptions;
    let mut all = flags::group(
        "What to explain",
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
            Flag::value(&["n"], "NAMESPACE", "of what names none", |o: &mut O, text| {
                o.namespace = text.into();
                Ok(())
            })
            .default(DEFAULT_NAMESPACE),
            Flag::switch(&["json"], "for machines: a JSON array", |o: &mut O, on| o.json = on),
            Flag::switch(&["help", "h"], "print this text", |o: &mut O, on| o.help = on),
        ],
    );
    all.extend(
        injection_flags().into_iter().map(|flag| flag.within(|options: &mut O| &mut options.injection)),
    );
    all
}
