//! As much JSON as the kube-dns ConfigMap holds: an array of strings, or an object of such arrays (RFC 8259).
//!
//! Anything else is refused with the place where it stands. There is no recursion, and nothing grows beyond the text.

use std::collections::BTreeMap;

/// Reads `["a", "b"]`.
pub(super) fn strings(text: &str) -> Result<Vec<String>, String> {
    let mut reader = Reader { text, at: 0 };
    let strings = reader.array()?;
    reader.end()?;
    Ok(strings)
}

/// Reads `{"name": ["a", "b"]}`. Of equal names the last one counts, as everywhere.
pub(super) fn strings_by_name(text: &str) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut reader = Reader { text, at: 0 };
    let mut found = BTreeMap::new();
    reader.expect('{', "an object, as in {\"example.org\": [\"192.0.2.1\"]}")?;
    if !reader.take('}') {
        loop {
            let name = reader.string()?;
            reader.expect(':', "`:`")?;
            let strings = reader.array()?;
            found.insert(name, strings);
            if reader.take('}') {
                break;
            }
            reader.expect(',', "`,` or `}`")?;
        }
    }
    reader.end()?;
    Ok(found)
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl Reader<'_> {
    fn array(&mut self) -> Result<Vec<String>, String> {
        let mut strings = Vec::new();
        self.expect('[', "an array, as in [\"192.0.2.1\"]")?;
        if self.take(']') {
            return Ok(strings);
        }
        loop {
            strings.push(self.string()?);
            if self.take(']') {
                return Ok(strings);
            }
            self.expect(',', "`,` or `]`")?;
        }
    }

    fn string(&mut self) -> Result<String, String> {
        self.expect('"', "a string in double quotes")?;
        let mut string = String::new();
        loop {
            match self.next() {
                None => return Err("a string has no end".to_owned()),
                Some('"') => return Ok(string),
                Some('\\') => string.push(self.escaped()?),
                Some(c) if c < ' ' => return self.unexpected("control characters written as escapes"),
                Some(c) => string.push(c),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, String> {
        Ok(match self.next() {
            Some(c @ ('"' | '\\' | '/')) => c,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            // Beyond the first plane there are no names and addresses: a half of a pair is refused like any other nonsense.
            Some('u') => {
                let digits =
                    self.text.get(self.at..self.at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
                let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
                let Some(character) = code.and_then(char::from_u32) else {
                    return self.unexpected("four hexadecimal digits of a character");
                };
                self.at += 4;
                character
            }
            _ => return self.unexpected("an escape that JSON knows"),
        })
    }

    fn next(&mut self) -> Option<char> {
        let next = self.text[self.at..].chars().next()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn take(&mut self, wanted: char) -> bool {
        let rest = self.text[self.at..].trim_start_matches([' ', '\t', '\r', '\n']);
        self.at = self.text.len() - rest.len();
        let found = rest.starts_with(wanted);
        self.at += if found { wanted.len_utf8() } else { 0 };
        found
    }

    fn expect(&mut self, wanted: char, what: &str) -> Result<(), String> {
        if self.take(wanted) { Ok(()) } else { self.unexpected(what) }
    }

    fn end(&mut self) -> Result<(), String> {
        // Nothing is `\0`, so this only goes past blanks.
        self.take('\0');
        if self.at == self.text.len() { Ok(()) } else { self.unexpected("nothing more") }
    }

    fn unexpected<T>(&self, wanted: &str) -> Result<T, String> {
        let line = self.text[..self.at].matches('\n').count() + 1;
        Err(format!("line {line}: expected {wanted}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_config_map_holds_is_read() {
        assert_eq!(strings(" [ ] ").expect("empty"), [""; 0]);
        assert_eq!(
            strings("[\"192.0.2.1\",\n \"[2001:db8::1]:53\"]\n").expect("two"),
            ["192.0.2.1", "[2001:db8::1]:53"]
        );
        assert_eq!(strings(r#"["a\"\\\/\n\u00e9"]"#).expect("escapes"), ["a\"\\/\né"]);
        let map =
            strings_by_name(r#"{"b.example": ["192.0.2.1"], "a.example" : [], "b.example": ["192.0.2.2"]}"#);
        let map: Vec<_> = map.expect("an object").into_iter().collect();
        assert_eq!(
            map,
            [("a.example".to_owned(), vec![]), ("b.example".to_owned(), vec!["192.0.2.2".to_owned()])]
        );
        assert!(strings_by_name("{}").expect("empty").is_empty());
    }

    #[test]
    fn everything_else_is_refused_with_its_line() {
        for text in [
            "",
            "[",
            "[\"a\"",
            "[\"a\",]",
            "[a]",
            "[1]",
            "[\"a\"] x",
            "[\"a",
            "[\"\\x\"]",
            "[\"\\ud800\"]",
            "[\"\\u12\"]",
            "[\"a\nb\"]",
            "{}",
            "null",
            "[[]]",
            "[\"\\u12é\"]",
        ] {
            assert!(strings(text).is_err(), "{text}");
        }
        for text in ["[]", "{\"a\"}", "{\"a\": \"b\"}", "{\"a\": []", "{\"a\": [],}", "{a: []}"] {
            assert!(strings_by_name(text).is_err(), "{text}");
        }
        assert!(strings("[\n\n1]").is_err_and(|why| why.starts_with("line 3: expected a string")));
    }
}
