//! What is wrong in a Corefile, and where.
//!
//! Every token of the file carries a [`Span`], every complaint is a [`Diagnostic`] that points at one. A diagnostic prints
//! itself whole: place, severity, sentence, the line of the file with the spot marked, and what would be right. A span keeps
//! its file's text alive, so a diagnostic can be printed long after the file was read (or replaced).
//!
//! The file is somebody's input: control characters in it never reach the terminal as they are, and a line of a megabyte is
//! cut to the part that matters.

use std::fmt::{self, Display, Formatter, Write};
use std::sync::Arc;

/// Characters of a source line that a diagnostic shows at most: about two terminal lines.
const LINE_SHOWN_MAX: usize = 160;

/// Characters kept in front of the marked spot when the line has to be cut.
const CONTEXT_BEFORE: usize = 60;

/// Characters of a token that a message quotes at most.
const QUOTED_MAX: usize = 64;

/// One text that was read: the Corefile itself or something it imports.
pub struct SourceFile {
    /// Position in reading order; the Corefile itself is 0.
    pub(crate) index: usize,
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A place in a file: where a token begins and how long it is.
#[derive(Clone)]
pub struct Span {
    file: Arc<SourceFile>,
    line: u32,
    column: u32,
    length: u32,
}

impl Span {
    pub(crate) fn new(file: &Arc<SourceFile>, line: u32, column: u32, length: u32) -> Self {
        Self { file: Arc::clone(file), line, column, length }
    }

    /// A span for complaints about the file as such (it cannot be read, it is empty).
    pub(crate) fn whole_file(file: &Arc<SourceFile>) -> Self {
        Self::new(file, 0, 0, 0)
    }

    /// The same file and line, `offset` characters further right.
    pub(crate) fn part(&self, offset: u32, length: u32) -> Self {
        Self { file: Arc::clone(&self.file), line: self.line, column: self.column + offset, length }
    }

    /// The file's name, as the user gave it or as the import made it.
    pub fn file(&self) -> &str {
        &self.file.name
    }

    /// The line, counted from 1; 0 means the file as a whole.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// The column in characters, counted from 1.
    pub fn column(&self) -> u32 {
        self.column
    }

    /// Length in characters as written in the file.
    pub(crate) fn length(&self) -> u32 {
        self.length
    }

    /// Whether the other place begins within this one.
    pub(crate) fn contains(&self, other: &Span) -> bool {
        let columns = self.column..self.column + self.length.max(1);
        self.file.index == other.file.index && self.line == other.line && columns.contains(&other.column)
    }

    fn order(&self) -> (usize, u32, u32) {
        (self.file.index, self.line, self.column)
    }
}

impl Display for Span {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return write!(f, "{}", printable(&self.file.name));
        }
        write!(f, "{}:{}:{}", printable(&self.file.name), self.line, self.column)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

/// Two spans are the same when they name the same place.
impl PartialEq for Span {
    fn eq(&self, other: &Self) -> bool {
        self.file.name == other.file.name && self.order() == other.order() && self.length == other.length
    }
}

impl Eq for Span {}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is taken; somebody should read this.
    Warning,
}

/// One complaint about the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the file is refused because of it.
    pub severity: Severity,
    /// Where.
    pub span: Span,
    /// What is wrong: one sentence without a full stop.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

impl Diagnostic {
    pub(crate) fn error(span: &Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, span: span.clone(), message: message.into(), help: None }
    }

    pub(crate) fn warning(span: &Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, message) }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Whether this one refuses the file.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Sorts diagnostics the way a reader meets them: by file, line and column.
pub(crate) fn sort(diagnostics: &mut [Diagnostic]) {
    diagnostics.sort_by_key(|d| d.span.order());
}

impl Display for Diagnostic {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}: {severity}: {}", self.span, printable(&self.message))?;
        if let Some(line) = self.span.line.checked_sub(1)
            && let Some(text) = self.span.file.text.split('\n').nth(line as usize)
        {
            let (shown, marker) = excerpt(text, self.span.column, self.span.length);
            write!(f, "\n    {shown}\n    {marker}")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\nhelp: {}", printable(help))?;
        }
        Ok(())
    }
}

/// The line as it may be printed, and a second line that marks `length` characters from `column` on.
fn excerpt(line: &str, column: u32, length: u32) -> (String, String) {
    let start = (column as usize).saturating_sub(1);
    let line = line.trim_end_matches('\r');
    let total = line.chars().count();
    let skipped = if total > LINE_SHOWN_MAX { start.saturating_sub(CONTEXT_BEFORE) } else { 0 };
    let mut shown: String = line.chars().skip(skipped).take(LINE_SHOWN_MAX).map(harmless).collect();
    // Tabs are repeated under the line, so the marker stands right whatever the terminal makes of them.
    let mut marker: String = shown
        .chars()
        .chain(std::iter::repeat(' '))
        .take(start - skipped)
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    // A token that spans lines is marked on its first line only.
    let width = (length as usize).min((skipped + LINE_SHOWN_MAX).min(total).saturating_sub(start)).max(1);
    marker.extend(std::iter::repeat_n('^', width));
    if total > skipped + LINE_SHOWN_MAX {
        shown.push('…');
    }
    if skipped > 0 {
        shown.insert(0, '…');
        marker.insert(0, ' ');
    }
    (shown, marker)
}

/// Control characters could repaint the terminal of whoever reads the message.
fn harmless(c: char) -> char {
    if c.is_control() && c != '\t' { '\u{FFFD}' } else { c }
}

fn printable(text: &str) -> String {
    text.chars().map(harmless).collect()
}

/// A token as a message shows it: in back quotes, control characters made visible, cut when long.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::from("`");
    for (i, c) in text.chars().enumerate() {
        if i == QUOTED_MAX {
            out.push('…');
            break;
        }
        if c.is_control() {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out.push('`');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, line: u32, column: u32, length: u32) -> Span {
        let file = Arc::new(SourceFile { index: 0, name: "Corefile".into(), text: text.into() });
        Span::new(&file, line, column, length)
    }

    #[test]
    fn the_marker_stands_under_the_token_behind_tabs() {
        let d = Diagnostic::error(&at(".:53 {\n\thosts\n}", 2, 2, 5), "no").help("remove it");
        assert_eq!(d.to_string(), "Corefile:2:2: error: no\n    \thosts\n    \t^^^^^\nhelp: remove it");
    }

    #[test]
    fn a_long_line_is_cut_around_the_spot() {
        let text = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let shown = Diagnostic::warning(&at(&text, 1, 501, 1), "m").to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].chars().count() < LINE_SHOWN_MAX + 10, "{}", lines[1]);
        let column = lines[2].chars().position(|c| c == '^').unwrap();
        assert_eq!(lines[1].chars().nth(column), Some('X'));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let shown = Diagnostic::error(&at("a\u{1b}[2Jb", 1, 1, 1), quote("x\u{1b}[2J")).to_string();
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
        assert!(shown.contains("`x\\u{1b}[2J`"), "{shown}");
    }

    #[test]
    fn a_complaint_about_the_whole_file_shows_no_line() {
        let file = Arc::new(SourceFile { index: 0, name: "Corefile".into(), text: String::new() });
        let d = Diagnostic::error(&Span::whole_file(&file), "cannot be read");
        assert_eq!(d.to_string(), "Corefile: error: cannot be read");
    }
}
