//! The Corefile: from text to a configuration, or to a list of everything that is wrong with it.
//!
//! Layers, each its own file: [`source`] gives text, `lexer` cuts it into tokens, `import` unfolds snippets and imported
//! files, `parse` builds the tree of blocks and lines, `validate` and the `plugin_*` files turn the tree into the plain data of
//! [`config`]. `standing` is the one table of what nodens has, has not yet, and will not have.
//!
//! The rules are CoreDNS': what it refuses is refused. Beyond that, nothing is ignored silently: an option that nodens does
//! not have yet is refused by name, and plug-ins that change answers are sent where they belong, into CoreDNS itself.
//!
//! Nothing here opens sockets, looks names up or asks what interfaces there are.

mod address;
mod check;
pub mod config;
mod diagnostic;
mod duration;
mod glob;
mod import;
mod lexer;
mod parse;
mod plugin_cache;
mod plugin_forward;
mod plugin_nodens;
mod plugin_serving;
pub mod source;
mod standing;
mod suggest;
mod upstream;
mod validate;
mod zone;

use std::sync::Arc;

pub use address::ListenAddr;
pub use config::Corefile;
pub use diagnostic::{Diagnostic, Severity, SourceFile, Span};
pub use source::{Source, SystemSource};
pub use standing::describe_plugins;

pub(crate) use duration::parse_go_duration;
pub(crate) use suggest::nearest;

use check::Checker;

/// Port of DNS (RFC 1035 §4.2).
const DNS_PORT: u16 = 53;

/// Complaints kept at most. Who has a hundred mistakes needs no list of them all; hostile input must not cost memory.
const DIAGNOSTICS_MAX: usize = 100;

/// What the reading of a Corefile depends on besides its text.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// The port of zones that name none (`-dns.port`).
    pub default_port: u16,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { default_port: DNS_PORT }
    }
}

/// Reads and checks a Corefile. The error is every complaint there is, warnings included, in the order of the text.
pub fn load(path: &str, source: &dyn Source, options: &LoadOptions) -> Result<Corefile, Vec<Diagnostic>> {
    let (mut corefile, diagnostics) = examine(path, source, options);
    if diagnostics.iter().any(Diagnostic::is_error) {
        return Err(diagnostics);
    }
    corefile.warnings = diagnostics;
    Ok(corefile)
}

/// Reads a Corefile as far as it can be understood: what was understood, and every complaint in the order of the text. Only
/// [`load`] says whether it may be used; this is for those who explain a file.
pub fn examine(path: &str, source: &dyn Source, options: &LoadOptions) -> (Corefile, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let tokens = import::read_all(path, source, &mut diagnostics);
    let placeholders: Vec<_> = tokens.iter().filter(|token| is_placeholder(&token.text)).collect();
    let tree = parse::parse(&tokens, &mut diagnostics);
    let mut corefile = Corefile::default();
    // A tree with a brace in the wrong place would only make complaints about nothing.
    if !diagnostics.iter().any(Diagnostic::is_error) {
        let mut checker = Checker { source, diagnostics };
        corefile = validate::validate(&mut checker, &tree, options);
        diagnostics = checker.diagnostics;
        // That a placeholder is no address goes without saying.
        diagnostics.retain(|found| !placeholders.iter().any(|token| token.span.contains(&found.span)));
        if tree.blocks.is_empty() {
            let file = Arc::new(SourceFile { index: 0, name: path.to_owned(), text: String::new() });
            let empty = Diagnostic::error(&Span::whole_file(&file), "there is no server block in it")
                .help("the least there is: `. {`, `forward . IP` and `}`, each on its line");
            diagnostics.push(empty);
        }
    }
    diagnostics.extend(placeholders.iter().map(|token| {
        let quoted = diagnostic::quote(&token.text);
        let message = format!("{quoted} is a template variable that nothing has replaced");
        Diagnostic::error(&token.span, message).help("write the address or name it stands for")
    }));
    diagnostic::sort(&mut diagnostics);
    // A snippet used in several blocks is read several times.
    diagnostics.dedup();
    // Errors first into the bound: a flood of warnings must not hide what refuses the file.
    if diagnostics.len() > DIAGNOSTICS_MAX {
        diagnostics.sort_by_key(|d| !d.is_error());
        diagnostics.truncate(DIAGNOSTICS_MAX);
        diagnostic::sort(&mut diagnostics);
    }
    (corefile, diagnostics)
}

/// What node-cache's manifests hold in place of addresses until somebody fills them in.
fn is_placeholder(text: &str) -> bool {
    text.contains("__PILLAR__") || text.contains("__PROMETHEUS__")
}
