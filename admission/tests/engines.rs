//! The golden cases' patches applied by engines of other people's writing: the json-patch crate, python-jsonpatch, and kubectl, whose engine is
//! of the API server's family. All must apply, and agree.

mod support;

use std::process::{Command, Stdio};

use nodens_testkit::skip;
use serde_json::{Value, json};
use support::{Case, Oracle, manifest_path, patch_of, response};

/// Each golden case with a patch: its name, the Pod, the patch as the server sent it.
fn patches() -> Vec<(String, Value, Value)> {
    let with_patch = |case: Case| {
        let answered = case.surroundings().answer(case.review.as_bytes());
        let patch = patch_of(&response(&answered))?;
        let review: Value = serde_json::from_str(&case.review).expect("JSON");
        Some((case.name, review["request"]["object"].clone(), patch))
    };
    let found: Vec<_> = Case::all().into_iter().filter_map(with_patch).collect();
    assert!(found.len() > 30, "{} patches", found.len());
    found
}

/// What the json-patch crate makes of it.
fn applied(document: &Value, patch: &Value) -> Value {
    let mut document = document.clone();
    let patch: json_patch::Patch = serde_json::from_value(patch.clone()).expect("RFC 6902");
    json_patch::patch(&mut document, &patch).expect("it applies");
    document
}

#[test]
fn patches_change_what_they_say_and_nothing_else() {
    for (name, document, patch) in patches() {
        let mut after = applied(&document, &patch);
        assert_eq!(after["spec"]["dnsPolicy"], "None", "{name}");
        let mut before = document;
        for pod in [&mut before, &mut after] {
            let spec = pod["spec"].as_object_mut().expect("an object");
            spec.remove("dnsPolicy");
            spec.remove("dnsConfig");
            let metadata = pod["metadata"].as_object_mut().expect("an object");
            for (map, mark) in
                [("annotations", "node-local-dns/status"), ("labels", "node-local-dns-injection")]
            {
                if let Some(map) = metadata.get_mut(map).and_then(Value::as_object_mut) {
                    map.retain(|key, value| key != mark || value == "enabled" || value == "false");
                }
                if metadata.get(map).is_some_and(|map| map.is_null() || map == &json!({})) {
                    metadata.remove(map);
                }
            }
        }
        assert_eq!(before, after, "{name}");
    }
}

#[test]
fn python_jsonpatch_agrees() {
    let has_module = |python: &&str| {
        let run = Command::new(python).args(["-c", "import jsonpatch"]).stderr(Stdio::null()).status();
        run.is_ok_and(|status| status.success())
    };
    let Some(python) = ["python3", "/usr/bin/python3"].into_iter().find(has_module) else {
        return skip("no `python3` with `jsonpatch` is installed (Debian package python3-jsonpatch)");
    };
    let patches = patches();
    let lines: Vec<String> = patches
        .iter()
        .map(|(_, document, patch)| json!({"document": document, "patch": patch}).to_string())
        .collect();
    Oracle::run(python, &manifest_path("tests/oracle/apply.py")).ask(lines.into_iter(), |place, theirs| {
        let (name, document, patch) = &patches[place];
        assert_eq!(theirs, applied(document, patch), "{name}");
    });
}

#[test]
fn kubectl_agrees() {
    let kubectl = |arguments: &[&str]| {
        Command::new("kubectl").args(arguments).env("KUBECONFIG", "/dev/null").stdin(Stdio::null()).output()
    };
    if !kubectl(&["version", "--client"]).is_ok_and(|output| output.status.success()) {
        return skip("`kubectl` is not installed (Debian package kubernetes-client)");
    }
    let folder = tempdir();
    for (name, document, patch) in patches() {
        if name == "row-15-unknown-fields" {
            // kubectl reads Pods into its own types and drops what it does not know.
            continue;
        }
        let file = folder.join(format!("{name}.json"));
        std::fs::write(&file, document.to_string()).expect("a file");
        let file = file.to_str().expect("text");
        let patch_text = patch.to_string();
        let output =
            kubectl(&["patch", "--local", "-f", file, "--type=json", "-p", &patch_text, "-o", "json"])
                .expect("it runs");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let theirs: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(pruned(theirs), pruned(applied(&document, &patch)), "{name}");
    }
    std::fs::remove_dir_all(folder).expect("the test's own folder");
}

/// kubectl leaves empty members out, or writes them, by the type's rules.
fn pruned(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let members = map.into_iter().map(|(key, value)| (key, pruned(value)));
            let full = |value: &Value| ![json!(null), json!({}), json!([]), json!("")].contains(value);
            Value::Object(members.filter(|(_, value)| full(value)).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(pruned).collect()),
        other => other,
    }
}

fn tempdir() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("nodens-engines-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    folder
}
