//! Words past the capture of the test harness, which hides what passing tests
//! print.
//!
//! A test that cannot run here says so and passes. Where that must not
//! happen, in CI, `NODENS_NO_SKIP=1` makes it fail instead.

use std::io::Write;

/// Set to anything but nothing: a test that cannot run here fails.
const NO_SKIP: &str = "NODENS_NO_SKIP";

/// Names a file that collects the lines of [`skip`], for a summary at the end.
const SKIPS: &str = "NODENS_SKIPS";

/// Says that the calling test shows nothing here, and why. The test is to
/// return. Panics where tests must not be skipped.
#[track_caller]
pub fn skip(why: &str) {
    let line = line(why);
    assert!(!is_set(NO_SKIP), "{line}; {NO_SKIP} forbids that");
    tell(&line);
}

/// Says the same as [`skip`] where nothing can be done about it: what the test
/// needs is in no package registry. Never a failure, and counted all the same.
pub fn skip_unobtainable(why: &str) {
    tell(&line(why));
}

fn line(why: &str) -> String {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    format!("SKIPPED: {test}: {why}, so it shows nothing")
}

fn tell(line: &str) {
    if let Some(path) = std::env::var_os(SKIPS) {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        // One write for each line, so that tests running side by side do not mix theirs.
        drop(file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes())));
    }
    note(line);
}

/// Prints a line that is to be seen although the test passes.
pub fn note(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use crate::Process;
    use std::time::Duration;

    /// Runs this binary's `skips` test with a variable set; its exit code and output.
    fn run(variable: &str, value: &str) -> (Option<i32>, String) {
        let path = std::env::current_exe().expect("a test binary has a path");
        let mut process =
            Process::start(path, &["--exact", "skip::tests::skips", "--ignored"], &[(variable, value)]);
        let status = process.wait(Duration::from_secs(30)).expect("it ends");
        (status.code(), process.dump())
    }

    #[test]
    #[ignore = "run by the test below"]
    fn skips() {
        super::skip("nobody needs it");
    }

    #[test]
    fn a_skip_is_seen_and_can_be_forbidden() {
        let (code, output) = run("NODENS_NO_SKIP", "");
        assert_eq!(code, Some(0), "{output}");
        assert!(output.contains("SKIPPED: skip::tests::skips: nobody needs it"), "{output}");
        let (code, output) = run("NODENS_NO_SKIP", "1");
        assert_eq!(code, Some(101), "{output}");
        assert!(output.contains("NODENS_NO_SKIP forbids that"), "{output}");
    }
}
