//! The flags of `serve`: the original server's as they are, and ours.

use std::net::IpAddr;
use std::time::Duration;

use super::certificate::{CertificateOptions, certificate_flags};
use crate::commands::access::{AccessOptions, access_flags};
use crate::duration;
use crate::flags::{self, Flag, UsageError};
use crate::server::listen::ListenAddress;
use crate::settings::{DualStack, InjectionSettings, Marker, MergeMode, SoftPlacement};

/// Verbosity at which every review has a line.
const VERBOSE: u8 = 4;

/// Injection as the command line wants it; the commands that decide offline take these flags too.
#[derive(Clone, Debug, Default)]
pub struct InjectionOptions {
    /// Unchecked as yet.
    pub settings: InjectionSettings,
    /// `--kube-dns-ip`
    pub kube_dns: Vec<IpAddr>,
    /// `--nameserver` was given: the default is replaced, not added to.
    nameserver_given: bool,
}

/// Everything `serve` can be told.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// What is injected.
    pub injection: InjectionOptions,
    /// `--listen`
    pub listen: ListenAddress,
    /// `--http-listen`
    pub http_listen: ListenAddress,
    /// `--no-kube`
    pub no_kube: bool,
    /// Which cluster.
    pub access: AccessOptions,
    /// `--events`
    pub events: bool,
    /// Where the certificate comes from.
    pub certificate: CertificateOptions,
    /// `--shutdown-delay`
    pub shutdown_delay: Duration,
    /// `--drain-timeout`
    pub drain_timeout: Duration,
    /// `-v`
    verbosity: u8,
    /// `--help`
    pub help: bool,
    /// Words that mean nothing, to be told.
    pub ignored: Vec<String>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            injection: InjectionOptions::default(),
            listen: ListenAddress::any(8443),
            http_listen: PROBES,
            no_kube: false,
            access: AccessOptions::default(),
            events: false,
            certificate: CertificateOptions::default(),
            shutdown_delay: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(15),
            verbosity: 2,
            help: false,
            ignored: Vec::new(),
        }
    }
}

impl ServeOptions {
    /// Reads the words behind `serve`, and checks them as far as one can without looking at the world.
    pub fn parse(words: &[String]) -> Result<Self, UsageError> {
        let mut options = Self::default();
        let rest = flags::parse(&serve_flags(), words, &mut options)?;
        for word in rest {
            // The original chart passes this to the server, not to a shell.
            if word != "2>&1" {
                let help = "`nodens-admission serve --help` shows what can be written; a switch takes its value with `=`";
                return Err(UsageError::new(format!("unexpected argument `{word}`"), help));
            }
            options.ignored.push(word);
        }
        options.injection = options.injection.checked()?;
        options.certificate.check(options.no_kube)?;
        let alone = options.no_kube && options.injection.settings.include_kube_dns;
        if alone && options.injection.kube_dns.is_empty() && !options.help {
            return Err(UsageError::new(
                "`--no-kube` leaves nobody to ask for the address of kube-dns, the backup nameserver",
                "give it with `--kube-dns-ip`, or do without with `--include-kube-dns=false`",
            ));
        }
        Ok(options)
    }

    /// Injection with the server's own namespace exempt: a server that cannot start must not stand in the way of its own Pods.
    pub fn settings(&self) -> InjectionSettings {
        let mut settings = self.injection.settings.clone();
        settings.exempt_namespaces.push(self.access.namespace.clone());
        settings
    }

    /// Whether every review has a line in the log.
    pub fn is_verbose(&self) -> bool {
        self.verbosity >= VERBOSE
    }
}

impl InjectionOptions {
    /// With settings in canonical form.
    pub fn checked(mut self) -> Result<Self, UsageError> {
        let checked = self.settings.checked();
        self.settings = checked.map_err(|why| {
            UsageError::new(why.to_string(), "`nodens-admission serve --help` names the flag")
        })?;
        Ok(self)
    }
}

/// All flags of `serve`.
pub fn serve_flags() -> Vec<Flag<ServeOptions>> {
    type O = ServeOptions;
    let default = O::default();
    let mut all: Vec<Flag<O>> = injection_flags()
        .into_iter()
        .map(|flag| flag.within(|options: &mut O| &mut options.injection))
        .collect();
    all.extend(flags::group(
        "Serving",
        vec![
            Flag::value(&["listen"], "ADDRESS", "where the API server finds /inject and /mutate, in TLS", |o: &mut O, text| {
                o.listen = ListenAddress::parse(text)?;
                Ok(())
            })
            .default(default.listen),
            probes_flag().within(|o: &mut O| &mut o.http_listen),
            Flag::switch(
                &["no-kube"],
                "talk to no API server: needs --kube-dns-ip, and takes the namespaces of all requests as enabled",
                |o: &mut O, on| o.no_kube = on,
            ),
            Flag::value(&["shutdown-delay"], "TIME", "how long to go on serving after SIGTERM, until no endpoint leads here", |o: &mut O, text| {
                o.shutdown_delay = time(text)?;
                Ok(())
            })
            .default("5s"),
            Flag::value(&["drain-timeout"], "TIME", "how long connections may take to end after that", |o: &mut O, text| {
                o.drain_timeout = time(text)?;
                Ok(())
            })
            .default("15s"),
        ],
    ));
    all.extend(access_flags().into_iter().map(|flag| flag.within(|options: &mut O| &mut options.access)));
    all.extend(flags::group(
        "The cluster",
        vec![Flag::switch(
            &["events"],
            "tell owners of Pods that were unexpectedly left alone, as Events; the webhook configuration then says sideEffects: NoneOnDryRun",
            |o: &mut O, on| o.events = on,
        )],
    ));
    let certificate = certificate_flags().into_iter();
    all.extend(certificate.map(|flag| flag.within(|options: &mut O| &mut options.certificate)));
    all.extend(flags::group(
        "Information",
        vec![
            Flag::value(&["v"], "N", "verbosity; from 4 on, every review has a line", |o: &mut O, text| {
                o.verbosity = number(text, 0, 255)? as u8;
                Ok(())
            })
            .default(default.verbosity),
            Flag::switch(
                &["logtostderr"],
                "accepted, as the original server's; lines always go there",
                |_: &mut O, _| {},
            ),
            Flag::switch(&["help", "h"], "print this text", |o: &mut O, on| o.help = on),
        ],
    ));
    all
}

/// Where the chart's probes and monitors look.
pub const PROBES: ListenAddress = ListenAddress::any(8080);

/// The flag that says where `/livez`, `/readyz` and `/metrics` are.
pub fn probes_flag() -> Flag<ListenAddress> {
    Flag::value(
        &["http-listen"],
        "ADDRESS",
        "where kubelet and Prometheus find /livez, /readyz and /metrics, in plain HTTP",
        |address: &mut ListenAddress, text| {
            *address = ListenAddress::parse(text)?;
            Ok(())
        },
    )
    .default(PROBES)
}

/// The flags that say what is injected.
pub fn injection_flags() -> Vec<Flag<InjectionOptions>> {
    type O = InjectionOptions;
    let default = InjectionSettings::default();
    flags::group(
        "What is injected, and where",
        vec![
            Flag::value(
                &["nameserver"],
                "IP",
                "where node-local DNS listens; give it twice for two address families",
                |o: &mut O, text| {
                    if !o.nameserver_given {
                        o.settings.node_local.clear();
                        o.nameserver_given = true;
                    }
                    collect(&mut o.settings.node_local, text, address)
                },
            )
            .default("169.254.20.10"),
            Flag::switch(&["include-kube-dns"], "put kube-dns behind it as backup (default true)", |o: &mut O, on| {
                o.settings.include_kube_dns = on;
            }),
            Flag::value(
                &["kube-dns-ip"],
                "IP",
                "the ClusterIP of kube-dns instead of looking for it; several for two address families",
                |o: &mut O, text| collect(&mut o.kube_dns, text, address),
            ),
            Flag::value(&["cluster-domain"], "DOMAIN", "the cluster's domain", |o: &mut O, text| {
                o.settings.cluster_domain = text.into();
                Ok(())
            })
            .default(&default.cluster_domain),
            Flag::value(&["ndots"], "N", "resolver option ndots", |o: &mut O, text| {
                o.settings.ndots = number(text, 0, u32::MAX)?;
                Ok(())
            })
            .default(default.ndots),
            Flag::value(&["attempts"], "N", "resolver option attempts", |o: &mut O, text| {
                o.settings.attempts = number(text, 0, u32::MAX)?;
                Ok(())
            })
            .default(default.attempts),
            Flag::value(&["timeout"], "SECONDS", "resolver option timeout", |o: &mut O, text| {
                o.settings.timeout_s = number(text, 0, u32::MAX)?;
                Ok(())
            })
            .default(default.timeout_s),
            Flag::value(
                &["extra-searches"],
                "DOMAINS",
                "further search domains, such as the nodes' own, which injected Pods do not get",
                |o: &mut O, text| collect(&mut o.settings.extra_searches, text, |one| Ok(one.to_owned())),
            ),
            Flag::value(
                &["merge"],
                "MODE",
                "Pods with a dnsConfig of their own: `merge` keeps it and adds ours, `skip` leaves the Pod alone, `overwrite` replaces it",
                |o: &mut O, text| {
                    let modes = [("merge", MergeMode::Merge), ("skip", MergeMode::Skip), ("overwrite", MergeMode::Overwrite)];
                    o.settings.merge = one_of(text, &modes)?;
                    Ok(())
                },
            )
            .default("merge"),
            Flag::value(
                &["exempt-namespaces"],
                "NAMES",
                "namespaces that get nothing, besides kube-system, kube-public and the server's own",
                |o: &mut O, text| collect(&mut o.settings.exempt_namespaces, text, |one| Ok(one.to_owned())),
            ),
            Flag::value(
                &["virtual-node-keys"],
                "KEYS",
                "further label keys that mean virtual nodes",
                |o: &mut O, text| collect(&mut o.settings.virtual_node_keys, text, |one| Ok(one.to_owned())),
            ),
            Flag::value(
                &["virtual-node-soft-policy"],
                "POLICY",
                "Pods that may land on virtual nodes: `skip` or `inject`",
                |o: &mut O, text| {
                    o.settings.soft_placement =
                        one_of(text, &[("skip", SoftPlacement::Skip), ("inject", SoftPlacement::Inject)])?;
                    Ok(())
                },
            )
            .default("skip"),
            Flag::switch(
                &["lenient-host-net-policy"],
                "inject ClusterFirstWithHostNet without host network too",
                |o: &mut O, on| o.settings.host_net_policy_without_host_network = on,
            ),
            Flag::value(&["dual-stack"], "WHO", "who gets two of the three places in two address families: `kube-dns` or `node-local`", |o: &mut O, text| {
                o.settings.dual_stack =
                    one_of(text, &[("kube-dns", DualStack::BothBackups), ("node-local", DualStack::BothLocals)])?;
                Ok(())
            })
            .default("kube-dns"),
            Flag::value(&["marker"], "KIND", "how injected Pods are marked: `annotation`, `label` or `none`", |o: &mut O, text| {
                o.settings.marker =
                    one_of(text, &[("annotation", Marker::Annotation), ("label", Marker::AnnotationAndLabel), ("none", Marker::None)])?;
                Ok(())
            })
            .default("annotation"),
            Flag::switch(&["default-enabled"], "namespaces without the label count as enabled", |o: &mut O, on| {
                o.settings.default_enabled = on;
            }),
            Flag::switch(&["pod-opt-in"], "Pods labelled `enabled` count in every namespace that is not exempt", |o: &mut O, on| {
                o.settings.pod_opt_in = on;
            }),
            Flag::switch(&["report-only"], "decide, count and annotate the audit log, but change no Pod", |o: &mut O, on| {
                o.settings.report_only = on;
            }),
            Flag::value(&["rollout-percent"], "PERCENT", "the share of owners whose Pods are injected", |o: &mut O, text| {
                o.settings.rollout_percent = number(text, 0, 100)? as u8;
                Ok(())
            })
            .default(default.rollout_percent),
        ],
    )
}

fn number(text: &str, min: u32, max: u32) -> Result<u32, String> {
    match text.parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ if max == u32::MAX => Err("write a whole number".into()),
        _ => Err(format!("write a whole number from {min} to {max}")),
    }
}

pub(super) fn time(text: &str) -> Result<Duration, String> {
    duration::parse(text).ok_or_else(|| "write a time with its unit, as in `30s`, `5m` or `168h`".into())
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "write an IP address".into())
}

/// Adds one value, or several with commas between.
fn collect<V>(into: &mut Vec<V>, text: &str, read: impl Fn(&str) -> Result<V, String>) -> Result<(), String> {
    for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        into.push(read(one)?);
    }
    Ok(())
}

pub(super) fn one_of<V: Copy>(text: &str, values: &[(&str, V)]) -> Result<V, String> {
    values.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<String> = values.iter().map(|(name, _)| format!("`{name}`")).collect();
        format!("write one of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<ServeOptions, UsageError> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        ServeOptions::parse(&words)
    }

    #[test]
    fn the_original_servers_command_line_is_taken_as_it_is() {
        let line = "--include-kube-dns --ndots=3 --attempts=2 --timeout=1 --nameserver 169.254.20.10 \
                    --cluster-domain cluster.local --logtostderr -v=4 2>&1";
        let options = parse(line).expect("the original chart's arguments");
        assert_eq!(options.injection.settings, InjectionSettings::default());
        assert!(options.is_verbose());
        assert_eq!(options.ignored, ["2>&1"]);
        assert_eq!(options.certificate, CertificateOptions::default());
        assert_eq!(options.listen.port, 8443);
    }

    #[test]
    fn values_are_collected_checked_and_refused_in_words() {
        let line = "--nameserver 169.254.20.11,fd00::10 --cluster-domain Example.ORG. --kube-dns-ip 10.0.0.10 --kube-dns-ip fd00::a";
        let options = parse(line).expect("good");
        assert_eq!(options.injection.settings.node_local.len(), 2);
        assert_eq!(options.injection.settings.cluster_domain, "example.org");
        assert_eq!(options.injection.kube_dns.len(), 2);
        for (line, message) in [
            ("--ndots=16", "the ndots cannot be used: 16 is above 15, the most that a resolver heeds"),
            ("--nameserver 10.0.0.1.2", "`10.0.0.1.2` is not a value for `--nameserver`"),
            ("--merge=mix", "`mix` is not a value for `--merge`"),
            ("extra", "unexpected argument `extra`"),
            (
                "--no-kube",
                "`--no-kube` leaves nobody to ask for the address of kube-dns, the backup nameserver",
            ),
        ] {
            assert_eq!(parse(line).expect_err(line).message, message);
        }
        assert!(parse("--no-kube --include-kube-dns=false").is_ok());
        assert!(parse("--no-kube --kube-dns-ip 10.0.0.10").is_ok());
    }

    #[test]
    fn defaults_that_the_help_shows_are_the_defaults() {
        let text = flags::help(&serve_flags());
        let mut line = String::new();
        for part in [
            "--nameserver 169.254.20.10",
            "--cluster-domain cluster.local",
            "--ndots 3",
            "--attempts 2",
            "--timeout 1",
            "--include-kube-dns=true",
            "--merge merge",
            "--virtual-node-soft-policy skip",
            "--dual-stack kube-dns",
            "--marker annotation",
            "--rollout-percent 100",
            "--listen :8443",
            "--http-listen :8080",
            "--shutdown-delay 5s",
            "--drain-timeout 15s",
            "--cert-mode auto",
            "--ca-life 8760h",
            "--leaf-life 168h",
            "--settle-time 5m",
            "--clock-skew 5m",
            "-v 2",
        ] {
            let value = part.rsplit([' ', '=']).next().expect("a value");
            assert!(text.contains(&format!("(default {value})")), "{part}: {text}");
            line += part;
            line.push(' ');
        }
        let (said, unsaid) = (parse(&line).expect("good"), ServeOptions::default());
        assert_eq!(said.injection.settings, unsaid.injection.settings);
        assert_eq!(
            (
                said.listen,
                said.http_listen,
                said.shutdown_delay,
                said.drain_timeout,
                said.certificate.clone(),
                said.verbosity
            ),
            (
                unsaid.listen,
                unsaid.http_listen,
                unsaid.shutdown_delay,
                unsaid.drain_timeout,
                unsaid.certificate,
                unsaid.verbosity
            )
        );
    }
}
