//! Tools for the plug-ins' readers: counting arguments, reading values, and saying what is wrong with them.
//!
//! Every method reports on its own and returns `None` or carries on, so that a reader goes through all of its block and one
//! run reports all mistakes.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::address::ListenAddr;
use super::diagnostic::{Diagnostic, Span, quote};
use super::duration::parse_go_duration;
use super::lexer::Token;
use super::parse::Directive;
use super::source::Source;
use super::standing::{self, Standing};
use super::suggest::nearest;
use super::zone;

/// Collects what is found while a tree is read.
pub(crate) struct Checker<'a> {
    pub(crate) source: &'a dyn Source,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl Checker<'_> {
    pub(crate) fn error(&mut self, span: &Span, message: impl Into<String>, help: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error(span, message).help(help));
    }

    pub(crate) fn warning(&mut self, span: &Span, message: impl Into<String>, help: impl Into<String>) {
        self.diagnostics.push(Diagnostic::warning(span, message).help(help));
    }

    /// Reports what the table of [`standing`] says about a way to use a plug-in. Nothing if it is supported.
    pub(crate) fn stand(&mut self, plugin: &str, option: &str, span: &Span) {
        let named = if option.is_empty() {
            quote(plugin)
        } else if option.contains(' ') {
            format!("{} with {option}", quote(plugin))
        } else {
            format!("{} of {}", quote(option), quote(plugin))
        };
        match standing::of(plugin, option) {
            Some(Standing::NotYet) => self.error(
                span,
                format!("{named} is not in nodens yet"),
                "nodens refuses what it would otherwise ignore; take this out to start without it",
            ),
            Some(Standing::NoEffect(why)) => {
                self.diagnostics.push(Diagnostic::warning(span, format!("{named} has no effect: {why}")));
            }
            Some(Standing::CoreDns) => self.error(
                span,
                format!("{named} is not for a node's cache, which is a transparent proxy for CoreDNS"),
                format!("put {} into the configuration of CoreDNS itself", quote(plugin)),
            ),
            Some(Standing::Other(instead)) => {
                self.error(span, format!("nodens has no plug-in {named}"), instead);
            }
            Some(Standing::Supported) | None => {}
        }
    }

    /// Reports arguments behind the first `most`.
    pub(crate) fn at_most(&mut self, directive: &Directive, most: usize) {
        if let Some(extra) = directive.arguments.get(most) {
            let after = directive.arguments[..most].last().unwrap_or(&directive.name);
            self.error(
                &extra.span,
                format!("unexpected {} after {}", quote(&extra.text), quote(&after.text)),
                match most {
                    0 => format!("{} takes no arguments", quote(&directive.name.text)),
                    1 => format!("{} takes one argument", quote(&directive.name.text)),
                    _ => format!("{} takes at most {most} arguments", quote(&directive.name.text)),
                },
            );
        }
    }

    /// The only argument of a directive.
    pub(crate) fn one<'d>(&mut self, directive: &'d Directive, what: &str) -> Option<&'d Token> {
        self.at_most(directive, 1);
        let argument = directive.arguments.first();
        if argument.is_none() {
            self.missing(directive, what);
        }
        argument
    }

    /// All arguments, at least one.
    pub(crate) fn some<'d>(&mut self, directive: &'d Directive, what: &str) -> &'d [Token] {
        if directive.arguments.is_empty() {
            self.missing(directive, what);
        }
        &directive.arguments
    }

    fn missing(&mut self, directive: &Directive, what: &str) {
        let name = &directive.name;
        self.error(
            &name.span,
            format!("{} needs an argument", quote(&name.text)),
            format!("write {what} behind it"),
        );
    }

    /// A whole number within a range.
    pub(crate) fn number<T>(&mut self, token: &Token, range: RangeInclusive<T>) -> Option<T>
    where
        T: Copy + Display + Ord + TryFrom<i128>,
    {
        let (least, most) = (*range.start(), *range.end());
        let text = token.text.as_str();
        let problem = match text.parse::<i128>() {
            Ok(number) => match T::try_from(number).ok().filter(|n| range.contains(n)) {
                Some(number) => return Some(number),
                None if number < 0 => "is negative",
                None => "is out of range",
            },
            Err(_) => "is not a whole number",
        };
        self.error(
            &token.span,
            format!("{} {problem}", quote(text)),
            format!("write a whole number from {least} to {most}"),
        );
        None
    }

    /// A duration that is not negative.
    pub(crate) fn duration(&mut self, token: &Token) -> Option<Duration> {
        let (problem, help) = match parse_go_duration(&token.text) {
            Ok(ns) => match u64::try_from(ns) {
                Ok(ns) => return Some(Duration::from_nanos(ns)),
                Err(_) => ("is negative".to_owned(), "write a duration of 0 or more".to_owned()),
            },
            Err(error) => error.explain(),
        };
        self.error(&token.span, format!("{} {problem}", quote(&token.text)), help);
        None
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(&mut self, token: &Token, words: &[(&str, T)]) -> Option<T> {
        if let Some(&(_, value)) = words.iter().find(|(word, _)| *word == token.text) {
            return Some(value);
        }
        let list: Vec<String> = words.iter().map(|(word, _)| quote(word)).collect();
        let message = format!("{} is not a value for this", quote(&token.text));
        self.error(&token.span, message, format!("write {}", list.join(" or ")));
        None
    }

    /// The address of an HTTP endpoint.
    pub(crate) fn listen_addr(&mut self, token: &Token) -> Option<ListenAddr> {
        match ListenAddr::parse(&token.text) {
            Ok(addr) => Some(addr),
            Err((problem, help)) => {
                self.error(&token.span, format!("{} {problem}", quote(&token.text)), help);
                None
            }
        }
    }

    /// One name.
    pub(crate) fn name(&mut self, token: &Token) -> Option<String> {
        match zone::normalize(&token.text) {
            Ok(name) => Some(name),
            Err(error) => {
                self.error(&token.span, format!("{} {}", quote(&token.text), error.problem), error.help);
                None
            }
        }
    }

    /// The zones that a name or an address block stands for; none if it is wrong.
    pub(crate) fn zones(&mut self, token: &Token) -> Vec<String> {
        match zone::expand(&token.text) {
            Ok(zones) => zones,
            Err(error) => {
                self.error(&token.span, format!("{} {}", quote(&token.text), error.problem), error.help);
                Vec::new()
            }
        }
    }

    /// Reports a block behind something that takes none.
    pub(crate) fn no_block(&mut self, directive: &Directive) {
        if directive.body.as_ref().is_some_and(|body| !body.is_empty()) {
            let name = &directive.name;
            self.error(
                &name.span,
                format!("{} takes no block", quote(&name.text)),
                "remove the braces and what is in them",
            );
        }
    }

    /// The known options of a plug-in's block, each reported as far as the table of [`standing`] says. A repetition is taken, as
    /// CoreDNS takes it, with a warning; `repeatable` options are meant to be repeated.
    pub(crate) fn options<'d>(&mut self, plugin: &'d Directive, repeatable: &[&str]) -> Vec<&'d Directive> {
        let mut known: Vec<&Directive> = Vec::new();
        let mut seen: Vec<&str> = Vec::new();
        for option in plugin.options() {
            let (name, span) = (option.name.text.as_str(), &option.name.span);
            let plugin = plugin.name.text.as_str();
            if !standing::options(plugin).any(|known| known == name) {
                let help = match nearest(name, standing::options(plugin)) {
                    Some(near) => format!("did you mean {}?", quote(near)),
                    None => match standing::options(plugin).map(quote).collect::<Vec<_>>() {
                        none if none.is_empty() => format!("{} takes no options", quote(plugin)),
                        all => format!("{} understands {}", quote(plugin), all.join(", ")),
                    },
                };
                self.error(span, format!("unknown property {} of {}", quote(name), quote(plugin)), help);
                continue;
            }
            self.stand(plugin, name, span);
            self.no_block(option);
            if !seen.contains(&name) {
                seen.push(name);
            } else if !repeatable.contains(&name) {
                self.warning(
                    span,
                    format!("{} stands here twice", quote(name)),
                    "the last one counts; remove the others",
                );
            }
            known.push(option);
        }
        known
    }
}
