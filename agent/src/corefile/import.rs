//! Reading files, and putting `import`ed text where it is asked for.
//!
//! Works on tokens, before there is any tree, because an import may stand wherever a line may begin: between server blocks,
//! inside one, or inside a plug-in's options. `(name) { … }` between server blocks defines a snippet and vanishes; `import
//! name` replays it, `import path` reads a file (relative to the importing one, `*` and `?` allowed), and further arguments
//! replace `{args[0]}`, `{args[1]}`, … in what comes in.
//!
//! The text may be hostile: an import of itself is refused by name, and depth, file size and the number of tokens are bounded,
//! so that a few lines cannot unfold into gigabytes.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;

use super::diagnostic::{Diagnostic, SourceFile, Span, quote};
use super::glob::{clean, glob};
use super::lexer::{Kind, Token, lex};
use super::source::{FILE_BYTES_MAX, Source, too_large};

/// Deepest chain of imports. People use two; symbolic links can hide a cycle from the check by name.
const IMPORT_DEPTH_MAX: usize = 16;

/// Tokens in the whole configuration. A thousand server blocks have some twenty thousand.
const TOKENS_MAX: usize = 200_000;

/// Imports carried out. Empty snippets that import each other add no tokens and would go on for ever.
const IMPORTS_MAX: usize = 10_000;

/// Reads `path` and everything it imports.
pub(crate) fn read_all(path: &str, source: &dyn Source, diagnostics: &mut Vec<Diagnostic>) -> Vec<Token> {
    let mut importer = Importer {
        source,
        diagnostics,
        files: 0,
        snippets: HashMap::new(),
        chain: vec![clean(path)],
        braces: 0,
        out: Vec::new(),
        imports: 0,
        full: false,
    };
    match importer.file(path) {
        Ok(tokens) => importer.expand(tokens),
        Err(error) => {
            let file = Arc::new(SourceFile { index: 0, name: path.to_owned(), text: String::new() });
            let missing = "name a file that is there: `nodens -conf FILE`, or `nodens check FILE`";
            let problem = Diagnostic::error(&Span::whole_file(&file), unreadable(path, &error));
            importer.diagnostics.push(problem.help(remedy(&error, missing)));
        }
    }
    importer.out
}

struct Importer<'a> {
    source: &'a dyn Source,
    diagnostics: &'a mut Vec<Diagnostic>,
    /// Files read so far.
    files: usize,
    snippets: HashMap<String, Rc<[Token]>>,
    /// What is being imported right now, outermost first: paths, and snippets as `(name)`.
    chain: Vec<String>,
    /// Braces open at this point of the output.
    braces: usize,
    out: Vec<Token>,
    /// Imports carried out so far.
    imports: usize,
    /// A bound on the whole configuration was hit and reported; nothing more is read.
    full: bool,
}

impl Importer<'_> {
    fn file(&mut self, path: &str) -> io::Result<Vec<Token>> {
        let bytes = self.source.read(path)?;
        if bytes.len() > FILE_BYTES_MAX {
            return Err(too_large());
        }
        let (text, broken) = match String::from_utf8(bytes) {
            Ok(text) => (text, None),
            Err(e) => {
                let valid = e.utf8_error().valid_up_to();
                (String::from_utf8_lossy(e.as_bytes()).into_owned(), Some(valid))
            }
        };
        let file = Arc::new(SourceFile { index: self.files, name: path.to_owned(), text });
        self.files += 1;
        if let Some(offset) = broken {
            let before = &file.text[..offset];
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |tail| tail.chars().count()) + 1;
            let at = |n| u32::try_from(n).unwrap_or(u32::MAX);
            self.diagnostics.push(
                Diagnostic::error(&Span::new(&file, at(line), at(column), 1), "this is not UTF-8 text")
                    .help("save the file as UTF-8"),
            );
        }
        Ok(lex(&file, self.source, self.diagnostics))
    }

    /// Copies tokens to the output, unfolding snippets and imports on the way.
    fn expand(&mut self, tokens: Vec<Token>) {
        let mut rest = tokens.as_slice();
        while let Some((token, tail)) = rest.split_first()
            && !self.full
        {
            let keyword = token.starts_line && token.kind == Kind::Word && !token.quoted;
            if keyword && self.braces == 0 && is_snippet(tail.first(), token) {
                rest = self.define(token, tail);
            } else if keyword && token.text == "import" {
                let count = tail.iter().take_while(|t| !t.starts_line && t.kind == Kind::Word).count();
                let (arguments, after) = tail.split_at(count);
                self.import(token, arguments);
                rest = after;
            } else {
                self.push(token.clone());
                rest = tail;
            }
        }
    }

    fn push(&mut self, token: Token) {
        match token.kind {
            Kind::Open => self.braces += 1,
            Kind::Close => self.braces = self.braces.saturating_sub(1),
            Kind::Word => {}
        }
        if self.out.len() >= TOKENS_MAX {
            self.stop(&token.span, format!("the configuration has more than {TOKENS_MAX} words"));
        } else {
            self.out.push(token);
        }
    }

    /// Ends the reading at a bound, with one complaint: of a part, the parser would only say that braces are missing.
    fn stop(&mut self, span: &Span, message: String) {
        self.full = true;
        self.out.clear();
        self.error(span, message, "look for imports that import each other many times over");
    }

    /// Takes `(name) { … }` out of the text. Returns what follows it.
    fn define<'t>(&mut self, name: &Token, tail: &'t [Token]) -> &'t [Token] {
        let mut open = 0_usize;
        let end = tail.iter().position(|t| {
            match t.kind {
                Kind::Open => open += 1,
                Kind::Close => open -= 1,
                Kind::Word => {}
            }
            open == 0
        });
        let Some(end) = end else {
            self.diagnostics.push(
                Diagnostic::error(&tail[0].span, "this `{` is never closed")
                    .help("end the snippet with `}` on a line of its own"),
            );
            return &[];
        };
        let mut body = tail[1..end].to_vec();
        if let Some(first) = body.first_mut() {
            first.starts_line = true;
        }
        let key = name.text[1..name.text.len() - 1].to_owned();
        if self.snippets.insert(key, body.into()).is_some() {
            self.diagnostics.push(
                Diagnostic::error(&name.span, format!("the snippet {} is defined twice", quote(&name.text)))
                    .help("give one of them another name"),
            );
        }
        &tail[end + 1..]
    }

    fn import(&mut self, keyword: &Token, arguments: &[Token]) {
        let Some((what, arguments)) = arguments.split_first() else {
            self.error(&keyword.span, "`import` needs the name of a snippet or file", "write `import NAME`");
            return;
        };
        if what.text.is_empty() {
            self.error(&what.span, "`import` of nothing", "write the name of a snippet or a file");
            return;
        }
        if let Some(body) = self.snippets.get(&what.text).cloned() {
            self.replay(format!("({})", what.text), what, body.to_vec(), arguments);
            return;
        }
        for path in self.matching(what) {
            if self.chain.len() > IMPORT_DEPTH_MAX || self.chain.contains(&path) {
                self.replay(path, what, Vec::new(), arguments);
                continue;
            }
            match self.file(&path) {
                Ok(tokens) => self.replay(path, what, tokens, arguments),
                Err(error) => {
                    let missing = if what.text.contains(['/', '.', '*']) {
                        "paths are relative to the file that imports"
                    } else {
                        "a snippet must be defined above its use: `(name) { … }`"
                    };
                    self.error(&what.span, unreadable(&path, &error), remedy(&error, missing));
                }
            }
        }
    }

    /// Expands tokens that come from elsewhere, unless that elsewhere is being expanded already.
    fn replay(&mut self, link: String, what: &Token, mut tokens: Vec<Token>, arguments: &[Token]) {
        if self.chain.contains(&link) {
            let message = format!("{} imports itself", quote(&link));
            self.error(&what.span, message, format!("the chain is {} -> {}", self.chain.join(" -> "), link));
            return;
        }
        if self.chain.len() > IMPORT_DEPTH_MAX {
            self.error(
                &what.span,
                format!("imports nest deeper than {IMPORT_DEPTH_MAX}"),
                "put the text in directly",
            );
            return;
        }
        self.imports += 1;
        if self.imports > IMPORTS_MAX {
            self.stop(&what.span, format!("the configuration has more than {IMPORTS_MAX} imports"));
            return;
        }
        let mut missing = None;
        for token in &mut tokens {
            if let Some((text, gap)) = fill_in(&token.text, arguments) {
                token.text = text;
                missing = missing.or(gap);
            }
        }
        if let Some(number) = missing {
            self.error(
                &what.span,
                format!("{} uses argument {number}, but only {} are given", quote(&link), arguments.len()),
                "arguments are counted from 0: `import name first second`",
            );
        }
        self.chain.push(link);
        self.expand(tokens);
        self.chain.pop();
    }

    /// The files an import names: one, or those that match its pattern, sorted.
    fn matching(&mut self, what: &Token) -> Vec<String> {
        let base = what.span.file();
        let path = match base.rfind('/') {
            Some(slash) if !what.text.starts_with('/') => clean(&format!("{}/{}", &base[..slash], what.text)),
            _ => clean(&what.text),
        };
        if path.contains('[') && path.contains(']') {
            self.error(&what.span, "`[…]` in an import pattern is not understood", "use `*` and `?` only");
            return Vec::new();
        }
        if !path.contains(['*', '?']) {
            return vec![path];
        }
        let root = if path.starts_with('/') { "/" } else { "" };
        let mut found = vec![root.to_owned()];
        for part in path.split('/').filter(|part| !part.is_empty()) {
            found = found.iter().flat_map(|directory| self.matches_in(directory, part)).collect();
        }
        found.sort();
        if found.is_empty() {
            self.diagnostics.push(
                Diagnostic::warning(&what.span, format!("no file matches {}", quote(&what.text)))
                    .help("nothing is imported here until one does"),
            );
        }
        found
    }

    fn matches_in(&self, directory: &str, part: &str) -> Vec<String> {
        let join = |name: &str| match directory {
            "" => name.to_owned(),
            "/" => format!("/{name}"),
            _ => format!("{directory}/{name}"),
        };
        if !part.contains(['*', '?']) {
            return vec![join(part)];
        }
        let names = self.source.list(if directory.is_empty() { "." } else { directory }).unwrap_or_default();
        // A mounted ConfigMap holds `..data` and the like; a pattern means the visible files, as in a shell.
        let wanted =
            names.iter().filter(|name| (!name.starts_with('.') || part.starts_with('.')) && glob(part, name));
        wanted.map(|name| join(name)).collect()
    }

    fn error(&mut self, span: &Span, message: impl Into<String>, help: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error(span, message).help(help));
    }
}

fn unreadable(path: &str, error: &io::Error) -> String {
    format!("{} cannot be read: {error}", quote(path))
}

/// What to do about a file that cannot be read; `missing` if it is not there.
fn remedy<'a>(error: &io::Error, missing: &'a str) -> &'a str {
    match error.kind() {
        ErrorKind::NotFound => missing,
        ErrorKind::PermissionDenied => "let this process read it",
        ErrorKind::IsADirectory => "name a file in it",
        ErrorKind::FileTooLarge => "see whether this is the right file: Corefiles have some kilobytes",
        ErrorKind::InvalidInput => "write the text to a file, and name that",
        _ => "see that it is a file that this process may read",
    }
}

fn is_snippet(next: Option<&Token>, name: &Token) -> bool {
    name.text.len() > 2
        && name.text.starts_with('(')
        && name.text.ends_with(')')
        && next.is_some_and(|t| t.kind == Kind::Open)
}

/// Replaces `{args[N]}` and `{args.N}`. None if there is nothing to replace; the number is the first argument not given.
fn fill_in(text: &str, arguments: &[Token]) -> Option<(String, Option<usize>)> {
    let mut out = String::new();
    let mut missing = None;
    let mut rest = text;
    while let Some(at) = rest.find("{args") {
        let inner = &rest[at + "{args".len()..];
        let Some(end) = inner.find('}') else { break };
        let digits =
            inner[..end].strip_prefix('.').or_else(|| inner[..end].strip_prefix('[')?.strip_suffix(']'));
        out.push_str(&rest[..at]);
        rest = &inner[end + 1..];
        match digits.and_then(|d| d.parse::<usize>().ok()) {
            Some(number) => match arguments.get(number) {
                Some(token) => out.push_str(&token.text),
                None => missing = missing.or(Some(number)),
            },
            None => {
                out.push_str("{args");
                out.push_str(&inner[..=end]);
            }
        }
    }
    if out.is_empty() && rest.len() == text.len() {
        return None;
    }
    out.push_str(rest);
    Some((out, missing))
}
