//! What the commands that look at a cluster have in common: flags, a client, a report as a table or as JSON, an exit code.

use std::fmt::Display;
use std::process::ExitCode;
use std::sync::Arc;

use kube::Client;
use serde::Serialize;

use super::access::{AccessOptions, access_flags};
use super::serve::{InjectionOptions, injection_flags};
use super::{audit, deployed, list_injected, preflight, uninstall};
use crate::cli::{self, Ended};
use crate::cluster::read::ReadError;
use crate::flags::{self, Flag, UsageError};
use crate::settings::InjectionSettings;

/// What was typed behind a command; `O` is what this command alone takes.
#[derive(Clone, Debug, Default)]
struct Typed<O> {
    access: AccessOptions,
    injection: InjectionOptions,
    json: bool,
    help: bool,
    own: O,
}

/// A report, and whether all is well.
type Found<R> = Result<(R, bool), ReadError>;

/// One command: how it is called, and its own flags.
struct Command<O: 'static> {
    usage: &'static str,
    flags: Vec<Flag<O>>,
}

impl<O: Default + 'static> Command<O> {
    fn all_flags(self) -> Vec<Flag<Typed<O>>> {
        type T<O> = Typed<O>;
        let own = self.flags.into_iter().map(|flag| flag.within(|typed: &mut T<O>| &mut typed.own));
        let mut all = flags::group("This command", own.collect());
        all.extend(flags::group(
            "This command",
            vec![
                Flag::switch(&["json"], "print data instead of a table", |typed: &mut T<O>, on| {
                    typed.json = on;
                }),
                Flag::switch(&["help", "h"], "print this text", |typed: &mut T<O>, on| {
                    typed.help = on;
                }),
            ],
        ));
        all.extend(access_flags().into_iter().map(|flag| flag.within(|typed: &mut T<O>| &mut typed.access)));
        all.extend(
            injection_flags().into_iter().map(|flag| flag.within(|typed: &mut T<O>| &mut typed.injection)),
        );
        all
    }

    /// Parses, connects, runs, prints.
    fn run<R: Display + Serialize>(
        self,
        words: &[String],
        work: impl AsyncFnOnce(&Client, Typed<O>) -> Found<R>,
    ) -> Ended {
        let usage = self.usage;
        let flags = self.all_flags();
        let mut typed = Typed::default();
        let rest = flags::parse(&flags, words, &mut typed)?;
        if typed.help {
            return cli::say(&format!("Usage: nodens-admission {usage}\n{}", flags::help(&flags)));
        }
        if let Some(word) = rest.first() {
            let help = format!("write it as `nodens-admission {usage}`");
            return Err(UsageError::new(format!("unexpected argument `{word}`"), help));
        }
        typed.injection = typed.injection.checked()?;
        let json = typed.json;
        let access = typed.access.clone();
        match on_a_cluster(&access, async |client| work(client, typed).await) {
            Ok((report, is_well)) => {
                let text = if json { to_json(&report) } else { report.to_string() };
                cli::say(&text)?;
                Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
            Err(why) => {
                cli::complain(&why);
                Ok(ExitCode::FAILURE)
            }
        }
    }
}

/// Runs something with a client for the cluster that is meant; what goes wrong comes back in words.
pub(super) fn on_a_cluster<R>(
    access: &AccessOptions,
    work: impl AsyncFnOnce(&Client) -> Result<R, ReadError>,
) -> Result<R, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|why| format!("the runtime cannot be started: {why}"))?;
    runtime.block_on(async {
        let client = access.client().await.map_err(|why| why.to_string())?;
        work(&client).await.map_err(|why| why.to_string())
    })
}

fn to_json(report: &impl Serialize) -> String {
    // Reports are maps with strings as keys: this cannot fail.
    serde_json::to_string_pretty(report).unwrap_or_default() + "\n"
}

/// The settings that were typed, else those of the server that runs, else the defaults; its own namespace exempt.
pub(super) async fn judged_with(
    client: &Client,
    typed: InjectionOptions,
    namespace: &str,
) -> InjectionOptions {
    let is_typed = typed.settings != InjectionSettings::default() || !typed.kube_dns.is_empty();
    let mut judged = if is_typed { typed } else { deployed::injection(client).await.unwrap_or(typed) };
    judged.settings.exempt_namespaces.push(namespace.into());
    judged
}

/// `audit`
pub fn audit(words: &[String]) -> Ended {
    let command = Command::<()> { usage: "audit [FLAGS]", flags: Vec::new() };
    command.run(words, async |client, typed| {
        let injection = judged_with(client, typed.injection, &typed.access.namespace).await;
        let settings = Arc::new(injection.settings);
        let options = audit::Options { settings, source: typed.access.source, kube_dns: injection.kube_dns };
        audit::run(client, &options).await.map(|report| (report, true))
    })
}

#[derive(Default)]
struct ListOptions {
    only: Option<String>,
    ended: bool,
}

/// `list-injected`
pub fn list_injected(words: &[String]) -> Ended {
    type O = ListOptions;
    let flags = vec![
        Flag::value(&["n", "namespace"], "NAME", "one namespace instead of all", |o: &mut O, text| {
            o.only = Some(text.into());
            Ok(())
        }),
        Flag::switch(&["ended"], "also Pods whose containers have ended", |o: &mut O, on| o.ended = on),
    ];
    Command { usage: "list-injected [FLAGS]", flags }.run(words, async |client, typed| {
        let injection = judged_with(client, typed.injection, &typed.access.namespace).await;
        let options = list_injected::Options {
            node_local: injection.settings.node_local,
            namespace: typed.own.only,
            ended: typed.own.ended,
        };
        list_injected::run(client, &options).await.map(|report| (report, true))
    })
}

#[derive(Default)]
struct PreflightOptions {
    upstream_ip: Option<std::net::IpAddr>,
    release: Option<String>,
}

/// `preflight`
pub fn preflight(words: &[String]) -> Ended {
    type O = PreflightOptions;
    let flags = vec![
        Flag::value(
            &["upstream-ip"],
            "IP",
            "the address that Service node-local-upstream is to have (env.upstream_ip)",
            |o: &mut O, text| {
                o.upstream_ip = Some(text.parse().map_err(|_| "write an address like 10.96.0.20")?);
                Ok(())
            },
        ),
        Flag::value(
            &["from-release"],
            "NAME",
            "the Helm release that is to be replaced (default: all of the original chart)",
            |o: &mut O, text| {
                o.release = Some(text.into());
                Ok(())
            },
        ),
    ];
    Command { usage: "preflight [FLAGS]", flags }.run(words, async |client, mut typed| {
        typed.injection.settings.exempt_namespaces.push(typed.access.namespace.clone());
        let options = preflight::Options {
            upstream_ip: typed.own.upstream_ip,
            settings: typed.injection.settings,
            source: typed.access.source,
            namespace: typed.access.namespace,
            release: typed.own.release,
        };
        let report = preflight::run(client, &options).await?;
        let is_passed = report.is_passed();
        Ok((report, is_passed))
    })
}

#[derive(Default)]
struct UninstallOptions {
    names: Vec<String>,
    dry_run: bool,
    force: bool,
}

/// `uninstall`
pub fn uninstall(words: &[String]) -> Ended {
    type O = UninstallOptions;
    let flags = vec![
        Flag::value(
            &["name"],
            "NAME",
            "only the webhook configuration, policy or binding of this name; several times",
            |o: &mut O, text| {
                o.names.push(text.into());
                Ok(())
            },
        ),
        Flag::switch(&["dry-run"], "only say what would be done", |o: &mut O, on| o.dry_run = on),
        Flag::switch(
            &["force"],
            "succeed although Pods still ask the node-local address",
            |o: &mut O, on| o.force = on,
        ),
    ];
    Command { usage: "uninstall [FLAGS]", flags }.run(words, async |client, typed| {
        let injection = judged_with(client, typed.injection, &typed.access.namespace).await;
        let dependents = list_injected::Options {
            node_local: injection.settings.node_local,
            namespace: None,
            ended: false,
        };
        let UninstallOptions { names, dry_run, force } = typed.own;
        let report =
            uninstall::run(client, &uninstall::Options { names, dry_run, force, dependents }).await?;
        let is_done = report.is_done();
        Ok((report, is_done))
    })
}
