//! `explain`: the decision table walked for a manifest, each check with its outcome and what would change it.

mod live;

use std::process::ExitCode;
use std::sync::Arc;

use serde_json::Value;

use super::access::{AccessOptions, access_flags};
use super::files;
use super::operator::on_a_cluster;
use super::serve::{InjectionOptions, injection_flags};
use crate::cli::{Ended, complain, say};
use crate::explain::{self, Explanation, Subject, render_json, render_text};
use crate::flags::{self, Flag, UsageError};
use crate::inject::{self, DEFAULT_NAMESPACE, Namespaces};
use crate::manifest::{self, ManifestError};
use crate::snapshot::{Config, NamespaceView};

/// Everything `explain` can be told.
#[derive(Clone, Debug)]
struct ExplainOptions {
    injection: InjectionOptions,
    access: AccessOptions,
    files: Vec<String>,
    namespace: String,
    json: bool,
    help: bool,
}

/// Reads the words behind `explain` and does it.
pub fn run(words: &[String]) -> Ended {
    let mut options = ExplainOptions {
        injection: InjectionOptions::default(),
        access: AccessOptions::default(),
        files: Vec::new(),
        namespace: DEFAULT_NAMESPACE.into(),
        json: false,
        help: false,
    };
    let rest = flags::parse(&explain_flags(), words, &mut options)?;
    if options.help {
        return say(&format!(
            "Usage: nodens-admission explain (pod|deployment|…|namespace) NAME [FLAGS]\n       \
             nodens-admission explain -f FILE [-f FILE]... [FLAGS]\n\n\
             Says for an object of the cluster, or for each Pod of the manifests, whether it would be injected, check by check, and \
             what would change that.\n{}",
            flags::help(&explain_flags())
        ));
    }
    match (rest.is_empty(), options.files.is_empty()) {
        (false, true) => return live(&rest, options),
        (true, false) => {}
        (true, true) => {
            let help = "write a kind and a name, as in `explain deployment web -n shop`, or `-f FILE`; `-f -` is standard input";
            return Err(UsageError::new("nothing is named to explain", help));
        }
        (false, false) => {
            let help = "name manifests with `-f FILE`, or an object of the cluster, not both";
            return Err(UsageError::new(format!("unexpected argument `{}`", rest[0]), help));
        }
    }
    let config = options.injection.offline_config()?;
    let mut found = Found { json: options.json, text: String::new(), values: Vec::new() };
    for file in &options.files {
        let explained = files::read(file).and_then(|text| {
            let all = documents(&text, &config, &options.namespace, |explanation| found.add(explanation));
            all.map_err(|error| format!("{file}: {error}"))
        });
        if let Err(problem) = explained {
            complain(&problem);
            return Ok(ExitCode::FAILURE);
        }
    }
    found.print()
}

/// Explains an object of a cluster.
fn live(words: &[String], options: ExplainOptions) -> Ended {
    let target = live::Target::parse(words, &options.namespace)?;
    let ExplainOptions { injection, access, json, .. } = options;
    let injection = injection.checked()?;
    let fetched =
        on_a_cluster(&access, async |client| live::fetch(client, &target, injection, &access).await);
    let explained = fetched.and_then(|live::Live { documents: text, injection, notes }| {
        let config = Config::new(Arc::new(injection.settings), injection.kube_dns);
        let mut found = Found { json, text: String::new(), values: Vec::new() };
        let walked = documents(&text, &config, &access.namespace, |explanation| {
            let mut explanation = explanation.clone();
            explanation.notes.extend(notes.clone());
            found.add(&explanation);
        });
        walked.map(|()| found).map_err(|error| error.to_string())
    });
    match explained {
        Ok(found) => found.print(),
        Err(problem) => {
            complain(&problem);
            Ok(ExitCode::FAILURE)
        }
    }
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
            Flag::value(
                &["n", "namespace"],
                "NAMESPACE",
                "of the object, and of what names none in a file",
                |o: &mut O, text| {
                    o.namespace = text.into();
                    Ok(())
                },
            )
            .default(DEFAULT_NAMESPACE),
            Flag::switch(&["json"], "for machines: a JSON array", |o: &mut O, on| o.json = on),
            Flag::switch(&["help", "h"], "print this text", |o: &mut O, on| o.help = on),
        ],
    );
    all.extend(access_flags().into_iter().map(|flag| flag.within(|options: &mut O| &mut options.access)));
    all.extend(
        injection_flags().into_iter().map(|flag| flag.within(|options: &mut O| &mut options.injection)),
    );
    all
}
