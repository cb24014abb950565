//! Rows 14, 16 and the merging of dnsConfig in CEL (see [`decide`](crate::decide) for the rules). Evaluated lazily by the API server, in this order.
//!
//! CEL has neither `distinct()` nor `slice()`: a comprehension over index and value keeps what is the first of its kind, or among the first three.

use super::literal;
use crate::names::{
    ATTEMPTS_ANNOTATION, NDOTS_ANNOTATION, SEARCHES_ANNOTATION, SINGLE_NAMESERVER_ANNOTATION,
    STATUS_ANNOTATION, TIMEOUT_ANNOTATION,
};
use crate::overrides;
use crate::settings::{ATTEMPTS, InjectionSettings, Marker, MergeMode, NDOTS_MAX, TIMEOUT_S};
use crate::validate::{NAMESERVERS_MAX, SEARCH_CHARS_MAX, SEARCHES_MAX};

/// Search domains as the API server takes them since 1.32.
const RELAXED: &str = r"^[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?(\\.[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?)*\\.?$";

/// What an annotation may add, final dots allowed.
const SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\\.*$";

/// Names and expressions.
pub(super) fn variables(settings: &InjectionSettings) -> Vec<(&'static str, String)> {
    let keep = settings.merge != MergeMode::Overwrite;
    let own = |list: &str| match keep {
        true => format!("object.spec.?dnsConfig.?{list}.orValue([])"),
        false => "[]".to_owned(),
    };
    vec![
        // What annotations say: the Pod's, then the namespace's.
        ("said", "[dyn(object.metadata.?annotations.orValue({})), dyn(namespaceObject.metadata.?annotations.orValue({}))]".into()),
        ("ndots", number(NDOTS_ANNOTATION, "ndots", 0, NDOTS_MAX)),
        ("attempts", number(ATTEMPTS_ANNOTATION, "attempts", ATTEMPTS.0, ATTEMPTS.1)),
        ("timeout", number(TIMEOUT_ANNOTATION, "timeout", TIMEOUT_S.0, TIMEOUT_S.1)),
        ("single", single()),
        ("saidSearches", said_searches()),
        ("ownNameservers", own("nameservers")),
        ("ownSearches", own("searches")),
        ("ownOptions", own("options")),
        (
            "base",
            format!(
                "variables.single || {} ? params.data.local.split(',') : \
                 params.data.upstream == '' ? [] : params.data.local.split(',') + params.data.upstream.split(',')",
                !settings.include_kube_dns
            ),
        ),
        (
            "addresses",
            "variables.base + variables.ownNameservers.filter(n, isIP(n)).map(n, string(ip(n)))".into(),
        ),
        (
            "distinctAddresses",
            "variables.addresses.transformList(i, a, variables.addresses.indexOf(a) == i, a)".into(),
        ),
        (
            "nameservers",
            format!("variables.distinctAddresses.transformList(i, a, i < {NAMESERVERS_MAX}, a)"),
        ),
        (
            "allSearches",
            "[request.namespace + '.svc.' + params.data.domain, 'svc.' + params.data.domain, string(params.data.domain)]\
             + params.data.searches.split(',').filter(s, s != '') + variables.saidSearches + variables.ownSearches"
                .into(),
        ),
        (
            "bareSearches",
            "variables.allSearches.map(s, (s.endsWith('.') ? s.substring(0, s.size() - 1) : s).lowerAscii())".into(),
        ),
        (
            "searches",
            "variables.allSearches.transformList(i, s, variables.bareSearches.indexOf(variables.bareSearches[i]) == i, s)"
                .into(),
        ),
        (
            "missingOptions",
            "[['ndots', variables.ndots], ['attempts', variables.attempts], ['timeout', variables.timeout]]\
             .filter(d, !variables.ownOptions.exists(o, o.?name.orValue('') == d[0]))"
                .into(),
        ),
        ("fits", fits()),
    ]
}

/// The first usable value among what was said, else the parameter.
fn number(annotation: &str, parameter: &str, least: u32, most: u32) -> String {
    let key = literal(annotation);
    format!(
        "(variables.said.map(m, m[?{key}].orValue('').trim())\
         .filter(t, t.matches('^0*[0-9]{{1,9}}$') && int(t) >= {least} && int(t) <= {most})\
         .map(t, string(int(t))) + [string(params.data.{parameter})])[0]"
    )
}

fn single() -> String {
    let key = literal(SINGLE_NAMESERVER_ANNOTATION);
    format!(
        "(variables.said.map(m, m[?{key}].orValue('').trim()).filter(t, t in ['true', 'false']) + ['false'])[0] == 'true'"
    )
}

/// The domains of the first annotation that is usable as a whole; final dots go.
fn said_searches() -> String {
    let key = literal(SEARCHES_ANNOTATION);
    let max = overrides::SEARCHES_MAX;
    format!(
        "(variables.said.filter(m, {key} in m)\
         .map(m, m[{key}].split(',').map(d, d.trim().lowerAscii()).filter(d, !d.matches('^[.]*$')))\
         .filter(l, l.size() <= {max} && l.all(d, d.matches('{SUBDOMAIN}') && d.find('^[-a-z0-9.]*[a-z0-9]').size() <= 253))\
         .map(l, l.map(d, d.find('^[-a-z0-9.]*[a-z0-9]'))) + [[]])[0]"
    )
}

/// The API's limits, on what the Pod brings and on the result.
fn fits() -> String {
    format!(
        "variables.nameservers.size() > 0 && variables.ownNameservers.size() <= {NAMESERVERS_MAX} \
         && variables.ownNameservers.all(n, isIP(n)) && variables.searches.size() <= {SEARCHES_MAX} \
         && variables.ownSearches.size() <= {SEARCHES_MAX} && variables.ownSearches.join(' ').size() <= {SEARCH_CHARS_MAX} \
         && variables.searches.join(' ').size() <= {SEARCH_CHARS_MAX} \
         && variables.ownSearches.all(s, s == '.' || (s.size() <= 254 && s.matches('{RELAXED}'))) \
         && variables.ownOptions.all(o, o.?name.orValue('') != '')"
    )
}

/// The patch, if the result fits.
pub(super) fn mutation(settings: &InjectionSettings) -> String {
    let add = |path: &str, value: &str| format!("JSONPatch{{op: 'add', path: {path}, value: {value}}}");
    let keep = settings.merge != MergeMode::Overwrite;
    // The user's dnsConfig stays with all its fields; where there is none, or it is replaced, an empty one goes first.
    let without = |path: &str| match keep {
        true => format!("has(object.spec.dnsConfig) && has(object.spec.dnsConfig{path})"),
        false => "false".to_owned(),
    };
    let config = match keep {
        true => "has(object.spec.dnsConfig)",
        false => "false",
    };
    let mut lists = vec![
        format!("[{}]", add("'/spec/dnsPolicy'", "'None'")),
        format!("({config} ? [] : [{}])", add("'/spec/dnsConfig'", "Object.spec.dnsConfig{}")),
        format!("[{}]", add("'/spec/dnsConfig/nameservers'", "variables.nameservers")),
        format!("[{}]", add("'/spec/dnsConfig/searches'", "variables.searches")),
        format!("({} ? [] : [{}])", without(".options"), add("'/spec/dnsConfig/options'", "[]")),
        format!(
            "variables.missingOptions.map(d, {})",
            add("'/spec/dnsConfig/options/-'", "Object.spec.dnsConfig.options{name: d[0], value: d[1]}")
        ),
    ];
    if settings.marker != Marker::None {
        let path = literal(&format!("/metadata/annotations/{}", STATUS_ANNOTATION.replace('/', "~1")));
        lists.push(format!(
            "(has(object.metadata.annotations) ? [] : [{}])",
            add("'/metadata/annotations'", "Object.metadata.annotations{}")
        ));
        lists.push(format!("[{}]", add(&path, "params.data.status")));
    }
    if settings.marker == Marker::AnnotationAndLabel {
        let key = literal(crate::names::INJECTION_LABEL);
        let path = literal(&format!("/metadata/labels/{}", crate::names::INJECTION_LABEL));
        let value = literal(crate::patch::INJECTED);
        lists.push(format!(
            "(has(object.metadata.labels) ? [] : [{}])",
            add("'/metadata/labels'", "Object.metadata.labels{}")
        ));
        lists.push(format!(
            "({key} in object.metadata.?labels.orValue({{}}) ? [] : [{}])",
            add(&path, &value)
        ));
    }
    format!("variables.fits ? {} : []", lists.join(" + "))
}
