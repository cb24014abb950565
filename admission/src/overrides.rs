//! What a Pod's or a namespace's annotations change about injection, within bounds. A value out of bounds is ignored and said
//! aloud; it never keeps a Pod from being created or injected. The Pod's annotation beats the namespace's.

use std::fmt;

use crate::names;
use crate::pod::Metadata;
use crate::settings::{ATTEMPTS, NDOTS_MAX, TIMEOUT_S};
use crate::snapshot::NamespaceView;
use crate::validate;

/// Search domains that an annotation may add: with the cluster's three these are as many as resolvers read before glibc 2.26 and
/// musl still wants to search through.
pub const SEARCHES_MAX: usize = 6;

/// What the annotations say, as far as it is usable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `ndots`
    pub ndots: Option<u32>,
    /// `attempts`
    pub attempts: Option<u32>,
    /// `timeout`, in seconds
    pub timeout_s: Option<u32>,
    /// Further search domains.
    pub searches: Vec<String>,
    /// No backup nameserver.
    pub single_nameserver: bool,
    /// The namespace's rollout percentage.
    pub rollout_percent: Option<u8>,
}

/// An annotation that was not heeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// The annotation.
    pub key: &'static str,
    /// What would be right.
    pub wanted: String,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "annotation {} ignored: {}", self.key, self.wanted)
    }
}

impl Overrides {
    /// Reads both; what cannot be heeded goes into `ignored`.
    pub fn read(pod: &Metadata<'_>, namespace: NamespaceView<'_>, ignored: &mut Vec<Ignored>) -> Self {
        let mut read = Reader { pod, namespace, ignored };
        Self {
            ndots: read.number(names::NDOTS_ANNOTATION, 0, NDOTS_MAX),
            attempts: read.number(names::ATTEMPTS_ANNOTATION, ATTEMPTS.0, ATTEMPTS.1),
            timeout_s: read.number(names::TIMEOUT_ANNOTATION, TIMEOUT_S.0, TIMEOUT_S.1),
            searches: read.searches(),
            single_nameserver: read
                .value(names::SINGLE_NAMESERVER_ANNOTATION, "true or false", |text| text.parse().ok())
                .unwrap_or(false),
            rollout_percent: read.percentage(),
        }
    }
}

struct Reader<'a, 'b> {
    pod: &'a Metadata<'b>,
    namespace: NamespaceView<'a>,
    ignored: &'a mut Vec<Ignored>,
}

impl Reader<'_, '_> {
    fn on_namespace(&self, key: &str) -> Option<&str> {
        match self.namespace {
            NamespaceView::Known(facts) => facts.annotation(key),
            NamespaceView::Selected => None,
        }
    }

    /// The Pod's value if it is usable, else the namespace's if that is.
    fn value<T>(&mut self, key: &'static str, wanted: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let sources = [self.pod.annotation(key), self.on_namespace(key)];
        let parsed = sources.map(|source| source.map(|text| parse(text.trim())));
        for source in parsed {
            match source {
                Some(Some(value)) => return Some(value),
                Some(None) => self.ignored.push(Ignored { key, wanted: format!("it should be {wanted}") }),
                None => {}
            }
        }
        None
    }

    fn number(&mut self, key: &'static str, least: u32, most: u32) -> Option<u32> {
        let wanted = format!("a number from {least} to {most}");
        self.value(key, &wanted, |text| digits(text).filter(|number| (least..=most).contains(number)))
    }

    fn searches(&mut self) -> Vec<String> {
        let wanted = format!("at most {SEARCHES_MAX} domains, separated by commas");
        self.value(names::SEARCHES_ANNOTATION, &wanted, |text| {
            let domains: Vec<String> = text
                .split(',')
                .map(|domain| domain.trim().trim_end_matches('.').to_ascii_lowercase())
                .filter(|domain| !domain.is_empty())
                .collect();
            let usable = domains.len() <= SEARCHES_MAX
                && domains.iter().all(|domain| validate::is_dns1123_subdomain(domain));
            usable.then_some(domains)
        })
        .unwrap_or_default()
    }

    fn percentage(&mut self) -> Option<u8> {
        let key = names::ROLLOUT_ANNOTATION;
        let percent = digits(self.on_namespace(key)?.trim()).filter(|percent| *percent <= 100);
        let percent = percent.and_then(|percent| u8::try_from(percent).ok());
        if percent.is_none() {
            self.ignored.push(Ignored { key, wanted: "it should be a number from 0 to 100".into() });
        }
        percent
    }
}

/// Rust's own parser would take a plus sign too.
fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}
