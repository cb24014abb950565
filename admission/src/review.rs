//! An AdmissionReview in, an AdmissionReview out: bytes to bytes, versions v1 and v1beta1.
//!
//! The answer never denies. What is no AdmissionReview gets an HTTP error, since there is no request to answer; everything else
//! gets `allowed: true`, with a patch or without. A patch leaves only when it has been read back, would apply to this Pod, and the result
//! would pass the API server's validation: `failurePolicy: Ignore` does not cover patches that break a Pod.

use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::decide::{self, Decision, Input, Request};
use crate::overrides::Ignored;
use crate::patch;
use crate::pod::{Object, Pod, Text};
use crate::reason::Reason;
use crate::snapshot::{NamespaceView, Namespaces, Snapshot};

mod outcome;
mod proof;
mod response;

pub use outcome::{Action, Outcome, Owner};
pub use response::WARNING_MAX;

/// The response to one HTTP request.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The HTTP status: 200, or 400 for what is no AdmissionReview.
    pub status: u16,
    /// JSON with status 200, else one line of text.
    pub body: Vec<u8>,
    /// What was decided, for metrics, logs and events; or what was wrong with the request.
    pub outcome: Result<Outcome, BadRequest>,
    /// Set when the namespace as known here stands against the API server's selector, which has let the request through: the watch may
    /// lag. Get this namespace afresh and call [`answer_for`] with it, or with [`NamespaceView::Selected`] if that fails.
    pub recheck_namespace: Option<String>,
}

/// Not an AdmissionReview that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRequest(pub String);

impl fmt::Display for BadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    #[serde(borrow)]
    api_version: Option<Text<'a>>,
    #[serde(borrow)]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    request: Option<Object<ReviewRequest<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReviewRequest<'a> {
    #[serde(borrow)]
    uid: Option<Text<'a>>,
    #[serde(default)]
    dry_run: Option<bool>,
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
    #[serde(borrow, default)]
    operation: Option<Text<'a>>,
    #[serde(borrow, default)]
    resource: Option<Object<decide::Resource<'a>>>,
    #[serde(borrow, default)]
    sub_resource: Option<Text<'a>>,
    #[serde(borrow, default)]
    namespace: Option<Text<'a>>,
}

/// Answers a review with the namespaces as the snapshot knows them.
pub fn answer(body: &[u8], snapshot: &Snapshot) -> Answered {
    let review = match Parsed::read(body) {
        Ok(review) => review,
        Err(bad) => return refused(bad),
    };
    let namespace = match &*snapshot.namespaces {
        Namespaces::Selected => return review.answer(snapshot, NamespaceView::Selected),
        Namespaces::Watched(all) => all.get(review.request.namespace()),
    };
    let Some(facts) = namespace else {
        let answered = review.answer(snapshot, NamespaceView::Selected);
        return Answered { recheck_namespace: review.namespace_to_get(snapshot), ..answered };
    };
    let answered = review.answer(snapshot, NamespaceView::Known(facts));
    let doubtful = answered.outcome.as_ref().is_ok_and(|outcome| {
        matches!(outcome.reason, Reason::NamespaceNotEnabled | Reason::NamespaceVirtualNode)
    });
    let recheck_namespace = doubtful.then(|| review.namespace_to_get(snapshot)).flatten();
    Answered { recheck_namespace, ..answered }
}

/// Answers a review with this knowledge of its namespace.
pub fn answer_for(body: &[u8], snapshot: &Snapshot, namespace: NamespaceView<'_>) -> Answered {
    match Parsed::read(body) {
        Ok(review) => review.answer(snapshot, namespace),
        Err(bad) => refused(bad),
    }
}

fn refused(bad: BadRequest) -> Answered {
    Answered {
        status: 400,
        body: format!("{bad}\n").into_bytes(),
        outcome: Err(bad),
        recheck_namespace: None,
    }
}

/// A review that can be answered.
struct Parsed<'a> {
    api_version: &'static str,
    uid: Text<'a>,
    dry_run: bool,
    object: Option<&'a RawValue>,
    request: Request<'a>,
}

impl<'a> Parsed<'a> {
    fn read(body: &'a [u8]) -> Result<Self, BadRequest> {
        let bad = |what: &str| Err(BadRequest(what.to_owned()));
        let review: Review<'a> = match serde_json::from_slice::<Object<_>>(body) {
            Ok(review) => review.0,
            Err(error) => return Err(BadRequest(format!("the body is no AdmissionReview: {error}"))),
        };
        if review.kind.as_deref() != Some("AdmissionReview") {
            return bad("the body is no AdmissionReview: its kind is another");
        }
        let api_version = match review.api_version.as_deref() {
            Some("admission.k8s.io/v1") => "admission.k8s.io/v1",
            Some("admission.k8s.io/v1beta1") => "admission.k8s.io/v1beta1",
            _ => return bad("the AdmissionReview's apiVersion is neither admission.k8s.io/v1 nor v1beta1"),
        };
        let Some(Object(request)) = review.request else { return bad("the AdmissionReview has no request") };
        let Some(uid) = request.uid.filter(|uid| !uid.is_empty()) else {
            return bad("the AdmissionReview's request has no uid");
        };
        let ReviewRequest { dry_run, object, operation, resource, sub_resource, namespace, .. } = request;
        let request =
            Request { operation, resource: resource.map(|resource| resource.0), sub_resource, namespace };
        Ok(Self { api_version, uid, dry_run: dry_run.unwrap_or(false), object, request })
    }

    fn namespace_to_get(&self, snapshot: &Snapshot) -> Option<String> {
        let namespace = self.request.namespace();
        // Rows 1 and 3 need no namespace's labels.
        let decided = namespace.is_empty() || snapshot.config.settings().is_exempt(namespace);
        (!decided).then(|| namespace.to_owned())
    }

    fn answer(&self, snapshot: &Snapshot, namespace: NamespaceView<'_>) -> Answered {
        let config = &*snapshot.config;
        let settings = config.settings();
        let mut outcome = Outcome {
            action: Action::Skipped,
            reason: Reason::NotPodCreate,
            dry_run: self.dry_run,
            uid: self.uid.to_string(),
            namespace: self.request.namespace().to_owned(),
            pod: String::new(),
            owner: None,
            patch_bytes: 0,
            names_other_namespace: false,
            notes: Vec::new(),
        };
        if !self.request.is_pod_create() {
            return response::respond(self.api_version, &self.uid, config.fingerprint(), outcome, None);
        }
        let pod: Result<Pod<'_>, _> = match self.object {
            Some(object) => Pod::read(object.get()).map_err(|error| error.to_string()),
            None => Err("there is no object".to_owned()),
        };
        let pod = match pod {
            Ok(pod) => pod,
            Err(error) => {
                outcome.reason = Reason::Undecodable;
                outcome.notes.push(error);
                return response::respond(self.api_version, &self.uid, config.fingerprint(), outcome, None);
            }
        };
        outcome.pod = pod.metadata.display_name();
        outcome.owner = pod.metadata.owner().map(|owner| Owner {
            api_version: owned(&owner.api_version),
            kind: owned(&owner.kind),
            name: owned(&owner.name),
            uid: owned(&owner.uid),
        });
        let own_namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        outcome.names_other_namespace = !own_namespace.is_empty() && own_namespace != outcome.namespace;
        if outcome.names_other_namespace {
            outcome.notes.push("the object names another namespace than the request, which counts".into());
        }
        let input = Input::new(&self.request, &pod, namespace, config);
        let patch = match decide::decide(&input) {
            Decision::Skip(reason) => {
                outcome.reason = reason;
                if let (Reason::LimitsExceeded, Err(broken)) = (reason, input.dns_settings()) {
                    outcome.notes.push(format!("dnsConfig: {broken}"));
                }
                None
            }
            Decision::Inject(dns) => {
                let patch = patch::render(&pod, &dns, settings.marker, config.fingerprint());
                match proof::check(&patch, &pod, &dns) {
                    Err(unproven) => {
                        outcome.reason = Reason::PatchUnproven;
                        outcome.notes.push(unproven);
                        None
                    }
                    Ok(()) if settings.report_only => {
                        (outcome.action, outcome.reason) = (Action::WouldInject, Reason::Injected);
                        None
                    }
                    Ok(()) => {
                        (outcome.action, outcome.reason) = (Action::Injected, Reason::Injected);
                        Some(patch)
                    }
                }
            }
        };
        outcome.notes.extend(input.ignored.iter().map(Ignored::to_string));
        response::respond(self.api_version, &self.uid, config.fingerprint(), outcome, patch)
    }
}

fn owned(text: &Option<Text<'_>>) -> String {
    text.as_deref().unwrap_or_default().to_owned()
}
