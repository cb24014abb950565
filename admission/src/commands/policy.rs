//! `policy`: prints the documents of policy mode, for `kubectl apply -f -`.

use serde_json::json;

use super::serve::{InjectionOptions, injection_flags};
use crate::cli::{Ended, say};
use crate::flags::{self, Flag, UsageError};
use crate::policy::{self, Names};

/// Everything `policy` can be told.
#[derive(Clone, Debug, Default)]
struct PolicyOptions {
    injection: InjectionOptions,
    names: Names,
    help: bool,
}

/// Reads the words behind `policy` and does it.
pub fn run(words: &[String]) -> Ended {
    let mut options = PolicyOptions::default();
    let rest = flags::parse(&policy_flags(), words, &mut options)?;
    if options.help {
        return say(&format!(
            "Usage: nodens-admission policy --kube-dns-ip IP [FLAGS]\n\n\
             Prints a MutatingAdmissionPolicy that injects without a webhook, with its binding and parameters (Kubernetes 1.36 and later).\n{}",
            flags::help(&policy_flags())
        ));
    }
    if let Some(word) = rest.first() {
        return Err(UsageError::new(
            format!("unexpected argument `{word}`"),
            "it takes flags only; see `--help`",
        ));
    }
    let config = options.injection.offline_config()?;
    let documents = policy::documents(&config, &options.names)
        .map_err(|why| UsageError::new(format!("a policy cannot carry out the {}", why.setting), why.help))?;
    say(&format!("{:#}\n", json!({"apiVersion": "v1", "kind": "List", "items": documents.all()})))
}

/// Where the ConfigMap of parameters is, for whoever writes or reads it.
pub(super) fn parameters_flags() -> [Flag<Names>; 2] {
    let names = Names::default();
    [
        Flag::value(
            &["parameters-name"],
            "NAME",
            "of the ConfigMap of parameters",
            |names: &mut Names, text| {
                names.parameters = text.into();
                Ok(())
            },
        )
        .default(&names.parameters),
        Flag::value(&["parameters-namespace"], "NAMESPACE", "where that is", |names: &mut Names, text| {
            names.namespace = text.into();
            Ok(())
        })
        .default(&names.namespace),
    ]
}

fn policy_flags() -> Vec<Flag<PolicyOptions>> {
    type O = PolicyOptions;
    let mut own = vec![
        Flag::value(&["policy-name"], "NAME", "of policy and binding", |o: &mut O, text| {
            o.names.policy = text.into();
            Ok(())
        })
        .default(Names::default().policy),
    ];
    own.extend(parameters_flags().map(|flag| flag.within(|options: &mut O| &mut options.names)));
    own.push(Flag::switch(&["help", "h"], "print this text", |o: &mut O, on| o.help = on));
    let mut all = flags::group("Documents", own);
    all.extend(
        injection_flags().into_iter().map(|flag| flag.within(|options: &mut O| &mut options.injection)),
    );
    all
}
