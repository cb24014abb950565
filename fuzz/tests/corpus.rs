//! Each target's body over its committed corpus and over mutations of it, from a fixed seed.
//!
//! What a fuzzer once found is in the corpus, so this is also the fuzzers' regression test.

mod mutate;

use mutate::{Random, mutate};
use nodens_fuzz::TARGETS;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Mutations of each corpus. All targets together take some ten seconds in a debug build.
const MUTATIONS: usize = 3_000;
/// A history is a hundred messages.
const HISTORIES: usize = 600;
/// A committed file is a case, not a load.
const FILE_BYTES_MAX: u64 = 8 * 1024;
/// More files than these are for somebody's disk, not for the repository.
const FILES_MAX: usize = 60;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder("corpus").join(target))
        .unwrap_or_else(|error| panic!("{target} has no corpus: {error}"))
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).expect("a readable file"))).collect()
}

/// The words of a target's dictionary, in libFuzzer's format: one quoted string to a line.
fn words(target: &str) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(folder("dictionaries").join(format!("{target}.dict"))).unwrap_or_default();
    let quoted = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    quoted.map(|line| unquote(line).unwrap_or_else(|| panic!("{target}.dict: {line}"))).collect()
}

fn unquote(line: &str) -> Option<Vec<u8>> {
    let mut rest = line.strip_prefix('"')?.strip_suffix('"')?.as_bytes();
    let mut word = Vec::new();
    loop {
        rest = match rest {
            [] => return Some(word),
            [b'\\', b'x', high, low, rest @ ..] => {
                let hex = [*high, *low];
                word.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
                rest
            }
            [b'\\', escaped @ (b'"' | b'\\'), rest @ ..] => {
                word.push(*escaped);
                rest
            }
            [b'\\', ..] => return None,
            [byte, rest @ ..] => {
                word.push(*byte);
                rest
            }
        };
    }
}

fn over_corpus_and_mutations(target: &str, mutations: usize) {
    let (_, body) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target of that name");
    let files = corpus(target);
    assert!(files.len() >= 10, "{target}: {} files are no corpus", files.len());
    for (path, bytes) in &files {
        assert!(
            catch_unwind(|| body(bytes)).is_ok(),
            "{} breaks a promise of {target}; what it says is above",
            path.display()
        );
    }
    let inputs: Vec<Vec<u8>> = files.into_iter().map(|(_, bytes)| bytes).collect();
    let words = words(target);
    let mut random = Random(1);
    for round in 0..mutations {
        let bytes = mutate(&mut random, &inputs, &words);
        let judged = catch_unwind(AssertUnwindSafe(|| body(&bytes)));
        assert!(judged.is_ok(), "mutation {round} breaks a promise of {target}: {}", hex(&bytes));
    }
}

/// As `xxd -r -p` takes it.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn cached_answer() {
    over_corpus_and_mutations("cached_answer", MUTATIONS);
}

#[test]
fn corefile_text() {
    over_corpus_and_mutations("corefile_text", MUTATIONS);
}

#[test]
fn query_bytes() {
    over_corpus_and_mutations("query_bytes", MUTATIONS);
}

#[test]
fn response_bytes() {
    over_corpus_and_mutations("response_bytes", MUTATIONS);
}

#[test]
fn stream_bytes() {
    over_corpus_and_mutations("stream_bytes", MUTATIONS);
}

#[test]
fn transitions() {
    over_corpus_and_mutations("transitions", HISTORIES);
}

#[test]
fn every_target_is_here_has_an_entry_for_libfuzzer_and_a_small_corpus() {
    let here = include_str!("corpus.rs");
    let manifest = fs::read_to_string(folder("libfuzzer/Cargo.toml")).expect("a manifest");
    for (target, _) in TARGETS {
        assert!(here.contains(&format!("over_corpus_and_mutations(\"{target}\",")), "{target} is not run");
        assert!(
            manifest.contains(&format!("name = \"{target}\"")),
            "{target} is not in libfuzzer/Cargo.toml"
        );
        assert!(
            folder("libfuzzer/fuzz_targets").join(format!("{target}.rs")).exists(),
            "{target} has no entry"
        );
        let files = corpus(target);
        assert!(
            files.len() <= FILES_MAX,
            "{target}: {} files; `.ci/fuzz --cmin` keeps those that matter",
            files.len()
        );
        for (path, bytes) in files {
            assert!(bytes.len() as u64 <= FILE_BYTES_MAX, "{}: {} bytes", path.display(), bytes.len());
        }
    }
}
