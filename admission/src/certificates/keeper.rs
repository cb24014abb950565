//! The rotation at work: looks at the world every few seconds, does the one thing that [`super::rotation`] says, and keeps a leaf in service.
//!
//! An API server that is away changes nothing for a long time: the leaf in service is good for days. What goes wrong is told once,
//! and again when it lasts; the metric with the leaf's end is what to alert on.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::authority::{new_authority, new_leaf};
use super::files::Targets;
use super::read::ReadError;
use super::rotation::{self, Leaf, Live, Look, Memory, Step, Times};
use super::secret;
use super::store::{CertificateStore, StoreError, StoredBundles};
use crate::log::Level;
use crate::metrics::CertificateKind;
use crate::readiness::Need;

/// Longest time between two looks.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(10);

/// Looks within a leaf's life at least, where lives are short.
const LOOKS_PER_LEAF: u32 = 60;

/// Steps that may follow each other without a pause. A whole rotation has five.
const STEPS_IN_A_ROW: u32 = 8;

/// Longest wait for the API server's answer to one read or write.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often something that stays wrong is told again, in looks: about every five minutes.
const REMINDER_LOOKS: u32 = 30;

/// Seconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Keeps one replica's leaf, and its share of the rotation.
pub struct Keeper {
    store: Arc<dyn CertificateStore>,
    names: Vec<String>,
    times: Times,
    clock: Clock,
    targets: Targets,
    memory: Memory,
    leaf: Option<Leaf>,
    trouble: Option<(String, u32)>,
}

impl Keeper {
    /// `names` are what the leaf is for: the Service's, as API servers call it.
    pub fn new(
        store: Arc<dyn CertificateStore>,
        names: Vec<String>,
        times: Times,
        clock: Clock,
        targets: Targets,
    ) -> Self {
        Self { store, names, times, clock, targets, memory: Memory::default(), leaf: None, trouble: None }
    }

    /// For ever.
    pub async fn follow(mut self) {
        let life = Duration::from_secs(self.times.leaf_life_s);
        let interval = (life / LOOKS_PER_LEAF).min(LOOK_INTERVAL_MAX);
        loop {
            for _ in 0..STEPS_IN_A_ROW {
                if self.turn().await == Step::Rest {
                    break;
                }
            }
            sleep(interval).await;
        }
    }

    /// One look and one step, with what goes wrong told; [`Step::Rest`] if there is nothing to go on with.
    pub async fn turn(&mut self) -> Step {
        let result = self.look().await;
        // Whatever went wrong: a certificate that has expired is none.
        let is_good = self.leaf.as_ref().is_some_and(|leaf| (self.clock)() < leaf.not_after_s);
        self.targets.readiness.set(Need::Certificate, is_good);
        match result {
            Ok(step) => {
                self.trouble = None;
                step
            }
            // Another replica was faster: look again.
            Err(StoreError::Conflict) => Step::Publish,
            Err(StoreError::Failed(why)) => {
                self.complain(why);
                Step::Rest
            }
        }
    }

    async fn look(&mut self) -> Result<Step, StoreError> {
        let store = Arc::clone(&self.store);
        let began_s = (self.clock)();
        let mut stored = within(store.bundles()).await?;
        let secret = within(store.secret()).await?;
        let ended_s = (self.clock)();
        let held = match secret.as_ref().map(|secret| secret::decode(&secret.data)).transpose() {
            Ok(held) => held.flatten(),
            Err(why) => {
                self.complain(format!(
                    "the Secret of the certificate authority cannot be read ({why}); a new one is made"
                ));
                None
            }
        };
        let mut live = stored.as_ref().and_then(read_live);
        let look = Look { began_s, ended_s, held: held.as_ref(), live: live.as_ref() };
        let step = rotation::decide(&look, &self.times, &mut self.memory);
        self.keep_leaf(&look)?;
        self.tell(&look);
        if step == Step::Found {
            // Row 1 goes by what is trusted after it was clear that there is no Secret.
            stored = within(store.bundles()).await?;
            live = stored.as_ref().and_then(read_live);
        }
        let look = Look { began_s, ended_s, held: held.as_ref(), live: live.as_ref() };
        match step {
            Step::Rest => return Ok(step),
            Step::Publish => {
                let (Some(held), Some(stored)) = (&held, &stored) else { return Ok(Step::Rest) };
                let bundle = secret::pem(held.trusted());
                within(store.put_bundles(bundle.as_bytes(), &stored.version)).await?;
            }
            Step::Found | Step::Prepare | Step::Switch | Step::Schedule | Step::Retire => {
                let failed = |why: ReadError| StoreError::Failed(format!("no authority can be made: {why}"));
                let new = step.needs_authority().then(|| new_authority(ended_s, &self.times));
                let new = new.transpose().map_err(failed)?;
                let Some(next) = rotation::apply(step, &look, &self.times, new) else {
                    return Ok(Step::Rest);
                };
                let version = secret.as_ref().map(|secret| secret.version.as_str());
                let data = secret::encode(&next, secret.as_ref().map(|secret| &secret.data));
                within(store.put_secret(&data, version)).await?;
            }
        }
        self.targets.log.say(Level::Info, format!("certificates: {}", step.text()));
        Ok(step)
    }

    /// Signs and installs a leaf if one is due.
    fn keep_leaf(&mut self, look: &Look<'_>) -> Result<(), StoreError> {
        let Some(held) =
            look.held.filter(|_| rotation::wants_leaf(look, &self.times, &self.memory, self.leaf.as_ref()))
        else {
            return Ok(());
        };
        let failed =
            |why: &dyn std::fmt::Display| StoreError::Failed(format!("no certificate can be made: {why}"));
        let issuer = &held.active.certificate;
        let not_after_s = Leaf::end_s(look, &self.times, issuer);
        let identity = new_leaf(&held.active, &self.names, look.began_s, not_after_s, &self.times)
            .map_err(|why| failed(&why))?;
        self.targets.tls.install(identity).map_err(|why| failed(&why))?;
        self.leaf = Some(Leaf { issuer: issuer.clone(), from_s: look.began_s, not_after_s });
        self.targets.metrics.certificate(CertificateKind::Leaf, not_after_s);
        Ok(())
    }

    /// Readiness and metrics.
    fn tell(&self, look: &Look<'_>) {
        let metrics = &self.targets.metrics;
        let is_trusted =
            self.leaf.as_ref().is_some_and(|leaf| look.live.is_some_and(|live| live.trusts(&leaf.issuer)));
        if self.targets.readiness.set(Need::CaBundle, is_trusted) && !is_trusted {
            let why =
                "certificates: the webhook configuration does not trust this replica's certificate any more";
            self.targets.log.say(Level::Warning, why);
        }
        if let Some(held) = look.held {
            let in_step = look.live.is_some_and(|live| live.is_in_step(held));
            metrics.rotation(held.phase(), in_step);
            metrics.certificate(CertificateKind::Ca, held.active.certificate.not_after_s);
        }
    }

    fn complain(&mut self, why: String) {
        let again = match &mut self.trouble {
            Some((last, looks)) if *last == why => {
                *looks += 1;
                looks.is_multiple_of(REMINDER_LOOKS)
            }
            _ => {
                self.trouble = Some((why.clone(), 0));
                true
            }
        };
        if again {
            let now_s = (self.clock)();
            let left = self.leaf.as_ref().map(|leaf| leaf.not_after_s.saturating_sub(now_s));
            let left = match left {
                Some(left) => format!("the certificate in service is good for another {left} s"),
                None => "there is no certificate in service".into(),
            };
            self.targets.log.say(Level::Error, format!("certificates: {why}; {left}"));
        }
    }
}

fn read_live(stored: &StoredBundles) -> Option<Live> {
    // A configuration without webhooks is none.
    (!stored.bundles.is_empty()).then(|| Live {
        version: stored.version.clone(),
        bundles: stored.bundles.iter().map(|pem| secret::bundle(pem).ok()).collect(),
    })
}

async fn within<T>(stored: super::store::Stored<'_, T>) -> Result<T, StoreError> {
    tokio::time::timeout(STORE_TIMEOUT, stored).await.unwrap_or_else(|_| {
        Err(StoreError::Failed(format!("the API server does not answer within {STORE_TIMEOUT:?}")))
    })
}
