//! What the suites share: the golden cases, answers taken apart, the Python oracle as a child process.

#![allow(dead_code, reason = "each suite uses its part")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nodens_admission::review::{self, Answered};
use nodens_admission::settings::InjectionSettings;
use nodens_admission::snapshot::{Config, NamespaceFacts, NamespaceView, Namespaces, Snapshot};
use serde::Deserialize;
use serde_json::Value;

/// `config.json`, and the surroundings of a generated case.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Surroundings {
    /// What the case is about, for people.
    #[serde(default)]
    pub(crate) about: String,
    pub(crate) settings: InjectionSettings,
    #[serde(default)]
    pub(crate) kube_dns: Vec<IpAddr>,
    pub(crate) namespace: Option<Metadata>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Metadata {
    #[serde(default)]
    pub(crate) labels: HashMap<String, String>,
    #[serde(default)]
    pub(crate) annotations: HashMap<String, String>,
}

impl Surroundings {
    pub(crate) fn read(json: &str) -> Self {
        let mut read: Self = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
        read.settings = read.settings.checked().expect("usable settings");
        read
    }

    /// The namespace, if there is a view of it.
    pub(crate) fn facts(&self) -> Option<NamespaceFacts> {
        fn pairs(map: &HashMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
            map.iter().map(|(key, value)| (key.as_str(), value.as_str()))
        }
        let namespace = self.namespace.as_ref()?;
        Some(NamespaceFacts::new(&self.settings, pairs(&namespace.labels), pairs(&namespace.annotations)))
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            config: Arc::new(Config::new(Arc::new(self.settings.clone()), self.kube_dns.clone())),
            namespaces: Arc::new(Namespaces::Selected),
        }
    }

    pub(crate) fn answer(&self, review: &[u8]) -> Answered {
        let facts = self.facts();
        let view = facts.as_ref().map_or(NamespaceView::Selected, NamespaceView::Known);
        review::answer_for(review, &self.snapshot(), view)
    }
}

/// One folder of `tests/cases`.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) config: String,
    pub(crate) review: String,
    pub(crate) expect: Value,
}

impl Case {
    pub(crate) fn all() -> Vec<Self> {
        let root = manifest_path("tests/cases");
        let mut folders: Vec<PathBuf> = std::fs::read_dir(root)
            .expect("the cases")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        folders.sort();
        folders.iter().map(|folder| Self::read(folder)).collect()
    }

    fn read(folder: &Path) -> Self {
        let text = |file| std::fs::read_to_string(folder.join(file)).expect("a case has three files");
        Self {
            name: folder.file_name().expect("a name").to_string_lossy().into_owned(),
            config: text("config.json"),
            review: text("review.json"),
            expect: serde_json::from_str(&text("expect.json")).expect("JSON"),
        }
    }

    pub(crate) fn surroundings(&self) -> Surroundings {
        Surroundings::read(&self.config)
    }
}

pub(crate) fn manifest_path(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The response object of an answer.
pub(crate) fn response(answered: &Answered) -> Value {
    let body: Value = serde_json::from_slice(&answered.body).expect("JSON");
    body["response"].clone()
}

/// The patch in a response, as JSON.
pub(crate) fn patch_of(response: &Value) -> Option<Value> {
    let patch = STANDARD.decode(response.get("patch")?.as_str()?).expect("base64");
    Some(serde_json::from_slice(&patch).expect("a patch is JSON"))
}

/// What the patch writes to one path.
pub(crate) fn written<'a>(patch: &'a Value, path: &str) -> Option<&'a Value> {
    patch.as_array()?.iter().find(|operation| operation["path"] == path).map(|operation| &operation["value"])
}

/// Python, or the test is skipped aloud.
pub(crate) fn python() -> Option<&'static str> {
    let works = |python: &&str| {
        let run = Command::new(python).arg("-c").arg("pass").stderr(Stdio::null()).status();
        run.is_ok_and(|status| status.success())
    };
    let found = ["python3", "/usr/bin/python3"].into_iter().find(works);
    if found.is_none() {
        nodens_testkit::skip("`python3` is not installed (Debian package python3)");
    }
    found
}

/// The oracle as a child: cases in, verdicts out, in the same order.
pub(crate) struct Oracle {
    child: Child,
}

impl Oracle {
    pub(crate) fn start(python: &str) -> Self {
        Self::run(python, &manifest_path("tests/oracle/decide.py"))
    }

    /// Another script that answers line by line.
    pub(crate) fn run(python: &str, script: &Path) -> Self {
        let child = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        Self { child }
    }

    /// Feeds all cases from a thread of its own, and hands each verdict to `judge` with the case's number.
    pub(crate) fn ask(
        mut self,
        cases: impl Iterator<Item = String> + Send,
        mut judge: impl FnMut(usize, Value),
    ) {
        let mut stdin = self.child.stdin.take().expect("piped");
        let stdout = BufReader::new(self.child.stdout.take().expect("piped"));
        let (sent, answered) = std::thread::scope(|scope| {
            let feeder = scope.spawn(move || {
                let mut sent = 0;
                for case in cases {
                    // It ended early; the count below tells.
                    if stdin.write_all(case.as_bytes()).and_then(|()| stdin.write_all(b"\n")).is_err() {
                        break;
                    }
                    sent += 1;
                }
                sent
            });
            let mut answered = 0;
            for line in stdout.lines() {
                let verdict = serde_json::from_str(&line.expect("text")).expect("the oracle writes JSON");
                judge(answered, verdict);
                answered += 1;
            }
            (feeder.join().expect("the feeder"), answered)
        });
        assert!(self.child.wait().expect("it ends").success(), "the oracle failed; see its message above");
        assert_eq!(sent, answered, "one verdict for each case");
    }
}
