//! What was decided about a request, for whoever counts it, logs it or makes an event of it.

use std::fmt;

use crate::reason::Reason;

/// What happens to the Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A patch was sent.
    Injected,
    /// A patch would have been sent, but the server only reports.
    WouldInject,
    /// Left alone.
    Skipped,
}

impl Action {
    /// All of them, for metrics.
    pub const ALL: [Self; 3] = [Self::Injected, Self::WouldInject, Self::Skipped];

    /// The label in metrics and the audit log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Injected => "inject",
            Self::WouldInject => "would-inject",
            Self::Skipped => "skip",
        }
    }
}

/// What was decided about one request, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What happens.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// The request changes nothing in the cluster: no events.
    pub dry_run: bool,
    /// The request's.
    pub uid: String,
    /// The request's.
    pub namespace: String,
    /// The Pod's name, or its beginning and a star.
    pub pod: String,
    /// Who made the Pod.
    pub owner: Option<Owner>,
    /// The size of the patch, 0 without one.
    pub patch_bytes: usize,
    /// The object names another namespace than the request, whose counts.
    pub names_other_namespace: bool,
    /// Things worth a warning: annotations that were not heeded, a limit that was broken, the object's namespace.
    pub notes: Vec<String>,
}

/// Who made a Pod, for events and logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// As in `apps/v1`.
    pub api_version: String,
    /// As in `ReplicaSet`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// One line for the log.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, reason, namespace, pod, uid, .. } = self;
        write!(f, "{} {reason} pod={namespace}/{pod} uid={uid}", action.as_str())?;
        if let Some(owner) = &self.owner {
            write!(f, " owner={}/{}", owner.kind, owner.name)?;
        }
        if self.dry_run {
            f.write_str(" dry-run")?;
        }
        self.notes.iter().try_for_each(|note| write!(f, "; {note}"))
    }
}
