//! "Did you mean": the known name nearest to a mistyped one.

/// Longest word that is compared. Names here have at most 25 characters; the bound keeps hostile input cheap.
const WORD_MAX: usize = 40;

/// The candidate that needs the fewest single-letter changes, if they are few enough to be a slip of the finger.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(WORD_MAX + 1).flat_map(char::to_lowercase).collect();
    if word.len() > WORD_MAX {
        return None;
    }
    // One slip in a short word, two in a longer one. Of two letters, every other one would be near.
    let limit = match word.len() {
        0..=2 => 0,
        3..=5 => 1,
        _ => 2,
    };
    candidates
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= limit)
        .map(|candidate| (distance(&word, &candidate.chars().collect::<Vec<_>>()), candidate))
        .filter(|&(distance, _)| distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Changes from `a` to `b`: insert, remove or replace a letter, or swap two neighbours.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let names = ["forward", "cache", "errors", "log", "loop"];
        for (word, found) in [
            ("foward", Some("forward")),
            ("forwrad", Some("forward")),
            ("Cache", Some("cache")),
            ("cahce", Some("cache")),
            ("lop", Some("log")),
            ("error", Some("errors")),
            ("kubernetes", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, names), found, "{word}");
        }
        assert_eq!(nearest(&"f".repeat(100_000), names), None);
    }
}
