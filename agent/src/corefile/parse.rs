//! Tokens to a tree: server blocks, their directives, the directives' options.
//!
//! Knows braces and lines, and nothing about any plug-in. A server block is a line of keys (zones) and a `{ … }`; a file that
//! is one server block may leave the braces out. A directive is a line, and may open a `{ … }` of further such lines.
//!
//! Where the grammar is broken the parser says so and goes on at the next line, so that one run reports every mistake.

use super::diagnostic::{Diagnostic, Span, quote};
use super::lexer::{Kind, Token};

/// Deepest nesting of braces. A Corefile has three levels (block, plug-in, option); the bound keeps recursion shallow.
const NESTING_MAX: usize = 8;

/// A whole configuration.
#[derive(Debug)]
pub(crate) struct SyntaxTree {
    pub(crate) blocks: Vec<Block>,
}

/// `KEY… { DIRECTIVE… }`. There is at least one key.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) keys: Vec<Token>,
    pub(crate) directives: Vec<Directive>,
}

/// `NAME ARGUMENT… [{ DIRECTIVE… }]`: a plug-in in a server block, an option in a plug-in.
#[derive(Debug)]
pub(crate) struct Directive {
    pub(crate) name: Token,
    pub(crate) arguments: Vec<Token>,
    /// None without braces; empty with empty ones.
    pub(crate) body: Option<Vec<Directive>>,
}

impl Directive {
    /// The options in braces, none if there are no braces.
    pub(crate) fn options(&self) -> &[Directive] {
        self.body.as_deref().unwrap_or_default()
    }
}

/// Builds the tree. It is complete only if no error was added to `diagnostics`.
pub(crate) fn parse(tokens: &[Token], diagnostics: &mut Vec<Diagnostic>) -> SyntaxTree {
    let mut parser = Parser { tokens, at: 0, diagnostics };
    let mut blocks = Vec::new();
    while parser.peek().is_some() {
        blocks.extend(parser.block());
    }
    SyntaxTree { blocks }
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    diagnostics: &'a mut Vec<Diagnostic>,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    /// Takes the next token if it is of this kind.
    fn take(&mut self, kind: Kind) -> Option<&'a Token> {
        let token = self.peek().filter(|t| t.kind == kind)?;
        self.at += 1;
        Some(token)
    }

    fn error(&mut self, span: &Span, message: impl Into<String>, help: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error(span, message).help(help));
    }

    fn block(&mut self) -> Option<Block> {
        if let Some(brace) = self.take(Kind::Close) {
            self.error(&brace.span, "this `}` closes nothing", "remove it, or add the `{` it belongs to");
            return None;
        }
        let start = self.peek()?;
        let keys = self.keys();
        let open = self.take(Kind::Open);
        if keys.is_empty() {
            self.error(
                &start.span,
                "a server block without a zone",
                "write its zones first, for example `.:53 {`",
            );
        }
        let directives = self.directives(open, 1);
        (!keys.is_empty()).then_some(Block { keys, directives })
    }

    /// Zones, separated by blanks or commas. A comma at the end of a line carries on to the next one.
    fn keys(&mut self) -> Vec<Token> {
        let mut keys = Vec::new();
        let mut comma: Option<&Token> = None;
        let mut first = true;
        while let Some(token) = self.peek().filter(|t| t.kind == Kind::Word) {
            if token.starts_line && !first && comma.is_none() {
                return keys;
            }
            first = false;
            self.at += 1;
            comma = token.text.ends_with(',').then_some(token);
            split_key(token, &mut keys);
        }
        if let Some(token) = comma {
            self.error(
                &token.span,
                "a zone is missing after this comma",
                "remove the comma, or name another zone",
            );
        }
        keys
    }

    /// The lines up to the `}` that belongs to `open`; without `open`, up to the end of the text.
    fn directives(&mut self, open: Option<&Token>, depth: usize) -> Vec<Directive> {
        let mut directives = Vec::new();
        while let Some(token) = self.peek() {
            self.at += 1;
            match token.kind {
                Kind::Close if open.is_some() => return directives,
                Kind::Close => self.error(
                    &token.span,
                    "this `}` closes nothing",
                    "the server block it stands in has no `{` behind its zones",
                ),
                Kind::Open => {
                    self.error(
                        &token.span,
                        "this `{` opens nothing",
                        "put it at the end of the line of the directive it belongs to",
                    );
                    self.skip_braces();
                }
                Kind::Word => directives.push(self.directive(token, depth)),
            }
        }
        if let Some(open) = open {
            self.error(&open.span, "this `{` is never closed", "add `}` on a line of its own");
        }
        directives
    }

    fn directive(&mut self, name: &Token, depth: usize) -> Directive {
        let mut arguments = Vec::new();
        while let Some(token) = self.peek().filter(|t| t.kind == Kind::Word && !t.starts_line) {
            self.at += 1;
            arguments.push(token.clone());
        }
        let body = match self.peek().filter(|t| t.kind == Kind::Open && !t.starts_line) {
            Some(open) => {
                self.at += 1;
                Some(self.body(open, depth))
            }
            None => None,
        };
        // Still on the same line: a brace that should stand alone, or words behind the closing one.
        if let Some(token) = self.peek().filter(|t| !t.starts_line) {
            match token.kind {
                Kind::Close => {
                    self.error(
                        &token.span,
                        "this `}` stands at the end of a line",
                        "put it on a line of its own",
                    );
                }
                Kind::Word | Kind::Open => {
                    let message = format!("{} follows a closing brace", quote(&token.text));
                    self.error(&token.span, message, "start a new line after `}`");
                    while self.peek().is_some_and(|t| t.kind == Kind::Word && !t.starts_line) {
                        self.at += 1;
                    }
                    if self.peek().is_some_and(|t| t.kind == Kind::Open && !t.starts_line) {
                        self.at += 1;
                        self.skip_braces();
                    }
                }
            }
        }
        Directive { name: name.clone(), arguments, body }
    }

    fn body(&mut self, open: &Token, depth: usize) -> Vec<Directive> {
        if depth < NESTING_MAX {
            return self.directives(Some(open), depth + 1);
        }
        self.error(
            &open.span,
            format!("braces nest deeper than {NESTING_MAX}"),
            "no plug-in takes options that deep",
        );
        self.skip_braces();
        Vec::new()
    }

    /// Moves behind the `}` of a `{` just taken, without recursion.
    fn skip_braces(&mut self) {
        let mut open = 1;
        while open > 0
            && let Some(token) = self.peek()
        {
            self.at += 1;
            match token.kind {
                Kind::Open => open += 1,
                Kind::Close => open -= 1,
                Kind::Word => {}
            }
        }
    }
}

/// `a,b` is two zones.
fn split_key(token: &Token, keys: &mut Vec<Token>) {
    // Quotes and variables make the text differ from what is written; then the whole token is the place.
    let literal = token.text.chars().count() == token.span.length() as usize;
    let mut offset = 0;
    for part in token.text.split(',') {
        let length = u32::try_from(part.chars().count()).unwrap_or(u32::MAX);
        if !part.is_empty() {
            let span = if literal { token.span.part(offset, length) } else { token.span.clone() };
            keys.push(Token {
                text: part.to_owned(),
                span,
                kind: token.kind,
                starts_line: token.starts_line,
                quoted: token.quoted,
            });
        }
        offset = offset.saturating_add(length).saturating_add(1);
    }
}
