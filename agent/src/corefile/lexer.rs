//! Text to tokens, by the Caddyfile's rules.
//!
//! A token ends at white space. `#` starts a comment anywhere outside quotes. A token that *starts* with `"` runs to the next
//! `"`, over line ends if need be; only `\"` is an escape in it. A brace is a token only when it stands alone; `{}` is an
//! empty block. A backslash at the end of a line joins it to the next one. `{$NAME}`, `{%NAME%}` and `{$NAME:default}` are
//! replaced by environment variables; what they put in is text, never a brace, and never splits into several tokens.

use std::iter::Peekable;
use std::str::Chars;
use std::sync::Arc;

use super::diagnostic::{Diagnostic, SourceFile, Span, quote};
use super::source::Source;

/// What a token is for the parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A bare or quoted word.
    Word,
    /// `{` standing alone.
    Open,
    /// `}` standing alone.
    Close,
}

/// One token and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    /// The text after unquoting and substitution.
    pub(crate) text: String,
    pub(crate) span: Span,
    pub(crate) kind: Kind,
    /// The first token of its (joined) line: where a directive can begin.
    pub(crate) starts_line: bool,
    /// In quotes: never a keyword.
    pub(crate) quoted: bool,
}

/// Cuts one file into tokens. Complaints go to `diagnostics`; the tokens are as good as they get.
pub(crate) fn lex(
    file: &Arc<SourceFile>,
    source: &dyn Source,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Token> {
    // Editors on other systems put a byte order mark in front.
    let text = file.text.strip_prefix('\u{FEFF}').unwrap_or(&file.text);
    let mut lexer = Lexer {
        file,
        source,
        diagnostics,
        chars: text.chars().peekable(),
        line: 1,
        column: 1,
        fresh_line: true,
    };
    let mut tokens = Vec::new();
    while lexer.skip_blank() {
        lexer.token(&mut tokens);
    }
    tokens
}

struct Lexer<'a> {
    file: &'a Arc<SourceFile>,
    source: &'a dyn Source,
    diagnostics: &'a mut Vec<Diagnostic>,
    chars: Peekable<Chars<'a>>,
    line: u32,
    column: u32,
    /// No token has been seen on this line yet.
    fresh_line: bool,
}

impl Lexer<'_> {
    fn bump(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        if c == '\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
        Some(c)
    }

    /// Moves to the next token. False at the end of the file.
    fn skip_blank(&mut self) -> bool {
        while let Some(&c) = self.chars.peek() {
            if c == '#' {
                while self.chars.peek().is_some_and(|&c| c != '\n') {
                    self.bump();
                }
            } else if c == '\\' && self.at_line_join() {
                while self.bump().is_some_and(|c| c != '\n') {}
            } else if c.is_whitespace() {
                self.fresh_line |= c == '\n';
                self.bump();
            } else {
                return true;
            }
        }
        false
    }

    /// Whether a backslash and then a line end come next.
    fn at_line_join(&self) -> bool {
        let mut ahead = self.chars.clone();
        if ahead.next() != Some('\\') {
            return false;
        }
        match ahead.next() {
            Some('\n') => true,
            Some('\r') => ahead.next() == Some('\n'),
            _ => false,
        }
    }

    fn token(&mut self, tokens: &mut Vec<Token>) {
        let (line, column) = (self.line, self.column);
        let starts_line = std::mem::take(&mut self.fresh_line);
        if self.chars.peek() == Some(&'"') {
            let (raw, length) = self.quoted(line, column);
            let span = Span::new(self.file, line, column, length);
            let text = self.substitute(&raw, &span);
            tokens.push(Token { text, span, kind: Kind::Word, starts_line, quoted: true });
            return;
        }
        let raw = self.word();
        let length = u32::try_from(raw.chars().count()).unwrap_or(u32::MAX);
        let span = Span::new(self.file, line, column, length);
        let mut brace = |kind, offset, starts_line| {
            let text = if kind == Kind::Open { "{" } else { "}" }.to_owned();
            tokens.push(Token { text, span: span.part(offset, 1), kind, starts_line, quoted: false });
        };
        match raw.as_str() {
            "{" => brace(Kind::Open, 0, starts_line),
            "}" => brace(Kind::Close, 0, starts_line),
            "{}" => {
                brace(Kind::Open, 0, starts_line);
                brace(Kind::Close, 1, false);
            }
            _ => {
                let text = self.substitute(&raw, &span);
                tokens.push(Token { text, span, kind: Kind::Word, starts_line, quoted: false });
            }
        }
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(&c) = self.chars.peek() {
            if c.is_whitespace() || c == '#' || (c == '\\' && self.at_line_join()) {
                break;
            }
            word.push(c);
            self.bump();
        }
        word
    }

    /// The text between quotes, and its length as written, on its first line.
    fn quoted(&mut self, line: u32, column: u32) -> (String, u32) {
        self.bump();
        let mut text = String::new();
        let mut length = 1;
        loop {
            if self.line == line {
                length = self.column - column;
            }
            match self.bump() {
                Some('"') => {
                    if self.line == line {
                        length = self.column - column;
                    }
                    return (text, length);
                }
                Some('\\') if self.chars.peek() == Some(&'"') => {
                    self.bump();
                    text.push('"');
                }
                Some(c) => text.push(c),
                None => {
                    let span = Span::new(self.file, line, column, 1);
                    self.diagnostics.push(
                        Diagnostic::error(&span, "this quoted text never ends")
                            .help("close it with `\"`; inside, write `\\\"` for a quote"),
                    );
                    return (text, length);
                }
            }
        }
    }

    /// Puts environment variables in. One pass: what a variable contains is not looked at again.
    fn substitute(&mut self, raw: &str, span: &Span) -> String {
        let mut out = String::new();
        let mut rest = raw;
        while let Some(at) = variable(rest) {
            let close = if rest[at..].starts_with("{$") { "}" } else { "%}" };
            let inner = &rest[at + 2..];
            let Some(end) = inner.find(close).filter(|&end| end > 0) else { break };
            out.push_str(&rest[..at]);
            rest = &inner[end + close.len()..];
            let (name, default) = match inner[..end].split_once(':') {
                Some((name, default)) => (name, Some(default)),
                None => (&inner[..end], None),
            };
            match (self.source.env(name), default) {
                (Some(value), _) => out.push_str(&value),
                (None, Some(default)) => out.push_str(default),
                (None, None) => self.diagnostics.push(
                    Diagnostic::warning(
                        span,
                        format!(
                            "environment variable {} is not set; nothing stands in its place",
                            quote(name)
                        ),
                    )
                    .help("set it, or give a default: `{$NAME:default}`"),
                ),
            }
        }
        out.push_str(rest);
        out
    }
}

/// Where the next `{$` or `{%` stands.
fn variable(text: &str) -> Option<usize> {
    text.match_indices('{').map(|(at, _)| at).find(|at| text[at + 1..].starts_with(['$', '%']))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Env;

    impl Source for Env {
        fn read(&self, _: &str) -> std::io::Result<Vec<u8>> {
            Err(std::io::ErrorKind::NotFound.into())
        }
        fn list(&self, _: &str) -> std::io::Result<Vec<String>> {
            Err(std::io::ErrorKind::NotFound.into())
        }
        fn env(&self, name: &str) -> Option<String> {
            match name {
                "IP" => Some("10.0.0.10".into()),
                "BRACE" => Some("{".into()),
                "LOOP" => Some("{$LOOP}".into()),
                _ => None,
            }
        }
    }

    fn run(text: &str) -> (Vec<Token>, Vec<Diagnostic>) {
        let file = Arc::new(SourceFile { index: 0, name: "Corefile".into(), text: text.into() });
        let mut diagnostics = Vec::new();
        (lex(&file, &Env, &mut diagnostics), diagnostics)
    }

    /// `text@line:column`, with a `|` in front of a token that starts its line.
    fn lay(text: &str) -> Vec<String> {
        run(text)
            .0
            .iter()
            .map(|t| {
                let bar = if t.starts_line { "|" } else { "" };
                format!("{bar}{}@{}:{}", t.text, t.span.line(), t.span.column())
            })
            .collect()
    }

    #[test]
    fn tokens_know_their_line_and_column() {
        assert_eq!(lay(".:53 {\n  cache 30\n}\n"), ["|.:53@1:1", "{@1:6", "|cache@2:3", "30@2:9", "|}@3:1"]);
        assert_eq!(lay("\u{FEFF}. é x"), ["|.@1:1", "é@1:3", "x@1:5"]);
        assert_eq!(lay("a\r\nb"), ["|a@1:1", "|b@2:1"]);
    }

    #[test]
    fn a_comment_starts_anywhere_outside_quotes() {
        assert_eq!(lay("a#b c\nd \"#e\" # f\n"), ["|a@1:1", "|d@2:1", "#e@2:3"]);
    }

    #[test]
    fn quotes_keep_blanks_and_line_ends_and_escape_only_quotes() {
        assert_eq!(lay(r#"a "b c" "d\"e\d" ""x"#), ["|a@1:1", "b c@1:3", "d\"e\\d@1:9", "@1:18", "x@1:20"]);
        assert_eq!(lay("\"a\nb\" c\nd"), ["|a\nb@1:1", "c@2:4", "|d@3:1"]);
        assert_eq!(run(r#"x "b c" y"#).0[1].span.length(), 5);
    }

    #[test]
    fn an_open_quote_is_reported_where_it_opens() {
        let (tokens, diagnostics) = run("a\n  \"b\nc");
        assert_eq!(tokens.len(), 2);
        assert_eq!(diagnostics[0].span.to_string(), "Corefile:2:3");
        assert_eq!(diagnostics[0].message, "this quoted text never ends");
    }

    #[test]
    fn a_brace_is_one_only_alone_and_unquoted() {
        let kinds: Vec<Kind> = run("{ } {} x{ {x} \"{\"").0.iter().map(|t| t.kind).collect();
        use Kind::{Close, Open, Word};
        assert_eq!(kinds, [Open, Close, Open, Close, Word, Word, Word]);
    }

    #[test]
    fn a_backslash_joins_lines() {
        assert_eq!(
            lay("forward . \\\n  1.1.1.1\nerrors"),
            ["|forward@1:1", ".@1:9", "1.1.1.1@2:3", "|errors@3:1"]
        );
        assert_eq!(lay("a\\\r\nb c\\d"), ["|a@1:1", "b@2:1", "c\\d@2:3"]);
    }

    #[test]
    fn environment_variables_are_put_in_once_and_stay_one_word() {
        assert_eq!(
            lay("{$IP}:53 {%IP%} x{$IP}y {$NO:9.9.9.9} \"{$IP}\""),
            ["|10.0.0.10:53@1:1", "10.0.0.10@1:10", "x10.0.0.10y@1:17", "9.9.9.9@1:25", "10.0.0.10@1:39"]
        );
        assert_eq!(run("{$BRACE}").0[0].kind, Kind::Word);
        assert_eq!(lay("{$LOOP} {$} {$IP"), ["|{$LOOP}@1:1", "{$}@1:9", "{$IP@1:13"]);
    }

    #[test]
    fn a_variable_that_is_not_set_is_worth_a_warning() {
        let (tokens, diagnostics) = run("a {$NO}");
        assert_eq!(tokens[1].text, "");
        assert_eq!(
            diagnostics[0].message,
            "environment variable `NO` is not set; nothing stands in its place"
        );
        assert!(!diagnostics[0].is_error());
    }
}
