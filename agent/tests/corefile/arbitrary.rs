//! Whatever bytes the file holds, it is read in bounded time, without a panic, and judged.

use nodens_agent::corefile::Diagnostic;

use super::Texts;

/// Rounds of each generator. All of them together take a second or two in a debug build.
const ROUNDS: u64 = 3_000;

/// Words that reach deep into the readers.
const WORDS: [&str; 64] = [
    "{",
    "}",
    "{}",
    "\n",
    "\n",
    "\n",
    " ",
    "\t",
    "\\\n",
    "\"",
    "#",
    ",",
    ".",
    ":53",
    ".:53",
    "a.org",
    "10.0.0.0/15",
    "::/3",
    "(s)",
    "import",
    "s",
    "Corefile",
    "*",
    "{args[0]}",
    "{args.9}",
    "{$A}",
    "{%A%}",
    "{$B:x}",
    "{$",
    "cache",
    "success",
    "denial",
    "servfail",
    "serve_stale",
    "verify",
    "prefetch",
    "10",
    "30",
    "-1",
    "0",
    "5s",
    "1h20m",
    "99999999999999999999",
    "forward",
    "127.0.0.1",
    "tls://1.1.1.1%a:5",
    "https://x/",
    "[::1]:53",
    "health_check",
    "domain",
    "policy",
    "bind",
    "except",
    "lo",
    "errors",
    "consolidate",
    "log",
    "class",
    "health",
    "lameduck",
    "nodens",
    "workers",
    "é",
    "\u{0}",
];

/// A small generator with a seed (SplitMix64), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }
}

/// Reads the text and prints every complaint, as the agent would.
fn judge(text: &[u8]) {
    let texts = Texts::corefile(text).file("s", text).env("A", "{ } a");
    let (corefile, diagnostics) = texts.examine();
    for diagnostic in &diagnostics {
        let shown = diagnostic.to_string();
        assert!(!shown.contains('\u{0}'), "{shown:?}");
    }
    // Nothing is taken in silence that holds nothing.
    assert!(!corefile.blocks.is_empty() || diagnostics.iter().any(Diagnostic::is_error), "{text:?}");
}

#[test]
fn arbitrary_bytes_are_judged() {
    let mut random = Random(1);
    for _ in 0..ROUNDS {
        let length = random.below(200);
        let text: Vec<u8> = (0..length).map(|_| random.next().to_le_bytes()[0]).collect();
        judge(&text);
    }
}

#[test]
fn arbitrary_words_are_judged() {
    let mut random = Random(2);
    for _ in 0..ROUNDS {
        let mut text = String::new();
        for _ in 0..random.below(60) {
            text.push_str(WORDS[random.below(WORDS.len())]);
            if random.below(4) > 0 {
                text.push(' ');
            }
        }
        judge(text.as_bytes());
    }
}

#[test]
fn damaged_files_are_judged() {
    let mut random = Random(3);
    let whole = include_bytes!("fixtures/four-blocks.corefile");
    for _ in 0..ROUNDS / 3 {
        let mut text = whole.to_vec();
        for _ in 0..=random.below(8) {
            if text.is_empty() {
                break;
            }
            let at = random.below(text.len());
            match random.below(3) {
                0 => drop(text.remove(at)),
                1 => text[at] = random.next().to_le_bytes()[0],
                _ => text.truncate(at.max(1)),
            }
        }
        judge(&text);
    }
}

#[test]
fn deep_and_long_inputs_are_judged() {
    judge("{\n".repeat(50_000).as_bytes());
    judge("a {\n".repeat(50_000).as_bytes());
    judge("}\n".repeat(50_000).as_bytes());
    judge("a ".repeat(100_000).as_bytes());
    judge("a,".repeat(100_000).as_bytes());
    judge(format!(". {{\n{}\n}}", "x\n".repeat(50_000)).as_bytes());
    judge(format!(". {{\nforward . {}\n}}", "1.1.1.1 ".repeat(20_000)).as_bytes());
    judge("x".repeat(500_000).as_bytes());
    judge("{$A}".repeat(50_000).as_bytes());
    judge("\"".repeat(50_001).as_bytes());
    judge(&vec![b'a'; (1 << 20) + 1]);
}
