//! Rotation at work: two replicas with real keys and real TLS, an API server that trusts what the webhook configuration says and finds out
//! late, and reviews all the while. None may be lost.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use futures_util::future::ready;
use nodens_admission::certificates::files::Targets;
use nodens_admission::certificates::keeper::{Clock, Keeper};
use nodens_admission::certificates::rotation::{Step, Times};
use nodens_admission::certificates::store::{
    CertificateStore, StoreError, Stored, StoredBundles, StoredSecret,
};
use nodens_admission::log::Log;
use nodens_admission::readiness::{Need, Readiness};
use nodens_admission::reviewer::Reviewer;
use nodens_admission::server::limits::Limits;
use nodens_admission::server::listen::{ListenAddress, bind};
use nodens_admission::server::serve::{Serving, Telling, serve};
use nodens_admission::server::webhook::Webhook;
use nodens_admission::settings::InjectionSettings;
use nodens_admission::snapshot::Snapshot;
use nodens_testkit::note;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until};

use crate::support::{Client, NAME, client_config, pod, review, tls};

/// Both objects, in memory, with versions as the API server has them.
#[derive(Default)]
struct Memory {
    state: Mutex<State>,
    conflicts: AtomicU64,
}

#[derive(Default)]
struct State {
    versions: u64,
    secret: Option<StoredSecret>,
    /// Of two webhooks in one configuration.
    bundles: Option<StoredBundles>,
    /// Nothing answers.
    is_away: bool,
}

impl State {
    fn next_version(&mut self) -> String {
        self.versions += 1;
        self.versions.to_string()
    }
}

impl Memory {
    fn new() -> Arc<Self> {
        let bundles = StoredBundles { version: "0".into(), bundles: vec![Vec::new(), Vec::new()] };
        let state = State { bundles: Some(bundles), ..State::default() };
        Arc::new(Self { state: Mutex::new(state), ..Self::default() })
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> Result<T, StoreError>) -> Stored<'_, T>
    where
        T: Send + 'static,
    {
        let mut state = self.state.lock().expect("no test panics within");
        let result = match state.is_away {
            true => Err(StoreError::Failed("the API server is away".into())),
            false => act(&mut state),
        };
        if matches!(result, Err(StoreError::Conflict)) {
            self.conflicts.fetch_add(1, Ordering::Relaxed);
        }
        Box::pin(ready(result))
    }

    /// For a keeper.
    fn shared(self: &Arc<Self>) -> Arc<dyn CertificateStore> {
        Arc::<Self>::clone(self)
    }

    /// What an API server trusts for the first webhook.
    fn bundle(&self) -> Vec<u8> {
        self.state.lock().expect("no test panics within").bundles.as_ref().expect("there is one").bundles[0]
            .clone()
    }

    /// Somebody else writes into the Secret.
    fn spoil(&self, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) {
        let mut state = self.state.lock().expect("no test panics within");
        change(&mut state.secret.as_mut().expect("there is one").data);
    }
}

impl CertificateStore for Memory {
    fn secret(&self) -> Stored<'_, Option<StoredSecret>> {
        self.with(|state| Ok(state.secret.clone()))
    }

    fn put_secret<'a>(
        &'a self,
        data: &'a BTreeMap<String, Vec<u8>>,
        version: Option<&'a str>,
    ) -> Stored<'a, ()> {
        self.with(|state| {
            if state.secret.as_ref().map(|secret| secret.version.as_str()) != version {
                return Err(StoreError::Conflict);
            }
            let version = state.next_version();
            state.secret = Some(StoredSecret { version, data: data.clone() });
            Ok(())
        })
    }

    fn bundles(&self) -> Stored<'_, Option<StoredBundles>> {
        self.with(|state| Ok(state.bundles.clone()))
    }

    fn put_bundles<'a>(&'a self, bundle: &'a [u8], version: &'a str) -> Stored<'a, ()> {
        self.with(|state| {
            let next = state.next_version();
            match &mut state.bundles {
                Some(stored) if stored.version == version => {
                    stored.version = next;
                    stored.bundles.iter_mut().for_each(|one| *one = bundle.to_vec());
                    Ok(())
                }
                _ => Err(StoreError::Conflict),
            }
        })
    }
}

fn clock() -> Clock {
    Arc::new(|| SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs())
}

fn targets() -> Targets {
    Targets {
        tls: Arc::default(),
        readiness: Arc::new(Readiness::new([Need::Certificate, Need::CaBundle])),
        metrics: Arc::default(),
        log: Log::silent(),
    }
}

/// A replica within this process.
struct Replica {
    address: SocketAddr,
    readiness: Arc<Readiness>,
    serving: Serving,
    keeping: JoinHandle<()>,
}

impl Replica {
    fn start(store: &Arc<Memory>, times: Times) -> Self {
        let targets = targets();
        let listener =
            bind(ListenAddress::parse("127.0.0.1:0").expect("an address"), "listen").expect("a port");
        let kube_dns = vec!["172.21.0.10".parse().expect("an address")];
        let snapshot = ArcSwap::from_pointee(Snapshot::alone(InjectionSettings::default(), kube_dns));
        let reviewer = Arc::new(Reviewer::new(Arc::new(snapshot), None, None));
        let telling = Telling { metrics: Arc::clone(&targets.metrics), log: targets.log.clone() };
        let handler = Arc::new(Webhook::new(reviewer, Limits::default(), telling.clone(), false));
        let serving = serve(listener, Some(Arc::clone(&targets.tls)), handler, Limits::default(), telling)
            .expect("served");
        let readiness = Arc::clone(&targets.readiness);
        let keeper = Keeper::new(store.shared(), vec![NAME.into()], times, clock(), targets);
        let keeping = tokio::spawn(keeper.follow());
        Self { address: serving.local_addr(), readiness, serving, keeping }
    }

    fn is_ready(&self) -> bool {
        self.readiness.missing().is_empty()
    }

    async fn ready(&self) {
        let began = Instant::now();
        while !self.is_ready() {
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", self.readiness.missing());
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn end(self) {
        self.readiness.set(Need::NotStopping, false);
        self.serving.drain(Duration::from_secs(5)).await;
        self.keeping.abort();
    }
}

/// What an API server trusts, given its view of the configuration.
fn trust(bundle: &[u8]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle) {
        roots.add(certificate.expect("PEM")).expect("an authority");
    }
    client_config(roots)
}

struct Soak {
    reviews: u64,
    handshakes: u64,
    leaves: usize,
    bundles: usize,
}

/// 200 reviews a second for this time: some over kept connections, each eighth over a new one; the view of `caBundle` is up to `lag` old. In the
/// middle one replica is replaced by another.
async fn soak(times: Times, time: Duration, lag: Duration) -> Soak {
    const PAUSE: Duration = Duration::from_millis(5);
    let store = Memory::new();
    let mut replicas = vec![Replica::start(&store, times), Replica::start(&store, times)];
    for replica in &replicas {
        replica.ready().await;
    }
    let mut soak = Soak { reviews: 0, handshakes: 0, leaves: 0, bundles: 0 };
    let (mut leaves, mut bundles) = (BTreeSet::new(), BTreeSet::new());
    let mut view = trust(&store.bundle());
    let mut seen = tokio::time::Instant::now();
    let mut kept: Vec<Option<Client>> = vec![None, None];
    let began = tokio::time::Instant::now();
    let mut is_replaced = false;
    while began.elapsed() < time {
        sleep_until(began + PAUSE * soak.reviews as u32).await;
        if seen.elapsed() >= lag {
            let bundle = store.bundle();
            view = trust(&bundle);
            bundles.insert(bundle);
            seen = tokio::time::Instant::now();
        }
        if !is_replaced && began.elapsed() > time / 2 {
            is_replaced = true;
            let new = Replica::start(&store, times);
            new.ready().await;
            kept[0] = None;
            std::mem::replace(&mut replicas[0], new).end().await;
        }
        let which = (soak.reviews % 2) as usize;
        let replica = &replicas[which];
        assert!(replica.is_ready(), "{:?} after {:?}", replica.readiness.missing(), began.elapsed());
        let body = review(&soak.reviews.to_string(), pod());
        if soak.reviews.is_multiple_of(8) {
            // A new connection each time, and what it shows.
            let stream = tls(replica.address, Arc::clone(&view)).await;
            let stream = stream.unwrap_or_else(|why| panic!("lost after {:?}: {why}", began.elapsed()));
            let shown = stream.get_ref().1.peer_certificates().expect("a certificate")[0].to_vec();
            leaves.insert(shown);
            soak.handshakes += 1;
            kept[which] = None;
        }
        if kept[which].is_none() {
            let client = Client::connect(replica.address, Arc::clone(&view)).await;
            kept[which] =
                Some(client.unwrap_or_else(|why| panic!("lost after {:?}: {why}", began.elapsed())));
            soak.handshakes += 1;
        }
        let client = kept[which].as_mut().expect("just connected");
        let reply = client.review(body).await;
        let reply = reply.unwrap_or_else(|why| panic!("lost after {:?}: {why}", began.elapsed()));
        assert!(reply.has_patch());
        if reply.headers.contains_key("connection") {
            kept[which] = None;
        }
        soak.reviews += 1;
    }
    (soak.leaves, soak.bundles) = (leaves.len(), bundles.len());
    for replica in replicas {
        replica.end().await;
    }
    soak
}

#[tokio::test(flavor = "multi_thread")]
async fn f22_a_rotation_under_load_loses_no_review() {
    let is_long = std::env::var_os("NODENS_TEST_LONG").is_some();
    let (times, time, rotations) = match is_long {
        // A leaf every 5 s, an authority every 30 s.
        true => (Times { ca_life_s: 45, leaf_life_s: 8, settle_s: 2, skew_s: 1 }, 300, 8),
        false => (Times { ca_life_s: 18, leaf_life_s: 6, settle_s: 1, skew_s: 1 }, 26, 1),
    };
    let soak = soak(times, Duration::from_secs(time), Duration::from_millis(500)).await;
    note(&format!(
        "rotation: {} reviews and {} handshakes in {time} s, {} leaves and {} states of caBundle seen, none lost",
        soak.reviews, soak.handshakes, soak.leaves, soak.bundles
    ));
    // A machine with other things to do sends fewer; the long form is for one without.
    assert!(soak.reviews >= time * if is_long { 150 } else { 10 }, "{} reviews", soak.reviews);
    // Each rotation shows the bundle with one authority, with two before the switch and after it in another order, and with one again.
    assert!(soak.bundles > 2 * rotations, "{} states of caBundle", soak.bundles);
    assert!(soak.leaves as u64 >= 2 * time / (times.leaf_life_s + 1), "{} leaves", soak.leaves);
}

#[tokio::test]
async fn a_replica_founds_publishes_and_rests_and_the_next_one_joins() {
    let store = Memory::new();
    let start = |targets: &Targets| {
        Keeper::new(store.shared(), vec![NAME.into()], Times::default(), clock(), targets.clone())
    };
    let (one, other) = (targets(), targets());
    let mut keeper = start(&one);
    assert_eq!(keeper.turn().await, Step::Found);
    assert_eq!(keeper.turn().await, Step::Publish);
    assert_eq!(keeper.turn().await, Step::Rest);
    assert!(one.readiness.missing().is_empty() && one.tls.is_installed());
    assert_eq!(start(&other).turn().await, Step::Rest);
    assert!(other.readiness.missing().is_empty() && other.tls.is_installed());
    let text = one.metrics.text();
    assert!(text.contains("rotation_phase 1\n") && text.contains("ca_bundle_in_sync 1\n"), "{text}");
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no test panics within").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_api_server_that_is_away_changes_nothing_and_is_told_once() {
    let store = Memory::new();
    let lines = Lines::default();
    let (log, writer) = Log::new(lines.clone());
    let targets = Targets { log, ..targets() };
    let mut keeper =
        Keeper::new(store.shared(), vec![NAME.into()], Times::default(), clock(), targets.clone());
    while keeper.turn().await != Step::Rest {}
    store.state.lock().expect("free").is_away = true;
    for _ in 0..10 {
        assert_eq!(keeper.turn().await, Step::Rest);
    }
    assert!(targets.readiness.missing().is_empty(), "what was known stays known");
    store.state.lock().expect("free").is_away = false;
    assert_eq!(keeper.turn().await, Step::Rest);
    drop((keeper, targets, writer));
    let text = String::from_utf8(lines.0.lock().expect("free").clone()).expect("text");
    let told: Vec<&str> = text.lines().filter(|line| line.contains("is away")).collect();
    assert_eq!(told.len(), 1, "{text}");
    assert!(told[0].contains("the certificate in service is good for another 604"), "{text}");
}

#[tokio::test]
async fn what_somebody_wrote_into_the_secret_or_the_configuration_is_put_right() {
    let store = Memory::new();
    let targets = targets();
    let mut keeper =
        Keeper::new(store.shared(), vec![NAME.into()], Times::default(), clock(), targets.clone());
    while keeper.turn().await != Step::Rest {}
    let good = store.bundle();
    for bad in [b"".as_slice(), b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
    {
        store.state.lock().expect("free").bundles = Some(StoredBundles {
            version: format!("by hand {}", bad.len()),
            bundles: vec![good.clone(), bad.to_vec()],
        });
        assert_eq!(keeper.turn().await, Step::Publish);
        assert_eq!(keeper.turn().await, Step::Rest);
        assert_eq!(store.bundle(), good);
    }
    // Each way in which the Secret can be broken makes a new authority, and the old one stays trusted.
    for (key, value) in [
        ("active.key", b"garbage".as_slice()),
        ("active.crt", b""),
        ("retire-at", b"soon"),
        ("next.key", b"x"),
    ] {
        let before = store.bundle();
        store.spoil(|data| {
            data.insert(key.into(), value.to_vec());
        });
        assert_eq!(keeper.turn().await, Step::Found, "{key}");
        assert_eq!(keeper.turn().await, Step::Publish, "{key}");
        let after = store.bundle();
        let (before, after) = (String::from_utf8_lossy(&before), String::from_utf8_lossy(&after));
        assert!(
            before.split_inclusive("-----END CERTIFICATE-----\n").all(|old| after.contains(old)),
            "{key}"
        );
        assert_eq!(after.matches("BEGIN").count(), (before.matches("BEGIN").count() + 1).min(5), "{key}");
    }
    // An empty Secret is one that the chart made beforehand.
    store.spoil(BTreeMap::clear);
    assert_eq!(keeper.turn().await, Step::Found);
}

#[tokio::test]
async fn two_replicas_that_start_together_agree_on_one_authority() {
    let store = Memory::new();
    let all: Vec<Targets> = (0..8).map(|_| targets()).collect();
    let mut tasks = Vec::new();
    for targets in &all {
        let mut keeper =
            Keeper::new(store.shared(), vec![NAME.into()], Times::default(), clock(), targets.clone());
        tasks.push(tokio::spawn(async move {
            for _ in 0..20 {
                keeper.turn().await;
                tokio::task::yield_now().await;
            }
        }));
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    assert!(all.iter().all(|targets| targets.readiness.missing().is_empty()));
    assert_eq!(String::from_utf8_lossy(&store.bundle()).matches("BEGIN").count(), 1);
}
