//! Manifests as people write them: several YAML or JSON documents in a file, read with the place of every node, so that an edit can leave all
//! other bytes alone (comments, order, quoting, layout).
//!
//! A [`Node`] knows where it stands in the text. [`Node::to_json`] gives its meaning as `kubectl` reads it, YAML 1.1's booleans included.
//! Not a YAML library: what no manifest needs (keys that are no scalars) is refused by name.

mod workload;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle};
use serde_json::{Map, Number, Value};

pub use workload::{Workload, workloads};

/// Bytes of a manifest at most; the API server takes no object above 3 MiB, and a file may hold some.
pub const BYTES_MAX: usize = 32 << 20;

/// Nodes of a document at most, those behind aliases counted each time: a few lines of nested aliases can stand for billions.
const NODES_MAX: usize = 1 << 20;

/// Nesting at most. Objects of the API are at most a few dozen levels deep.
const DEPTH_MAX: usize = 100;

/// A manifest that cannot be used, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

impl std::error::Error for ManifestError {}

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its bytes in the text; of a block collection from its first entry to the end of its last.
    pub range: Range<usize>,
    /// The line of its first byte, from 1.
    pub line: usize,
    /// It stands elsewhere in the text, and an alias leads there.
    pub aliased: bool,
    /// What it is.
    pub content: Content,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Content {
    /// A scalar: its text, and whether its type is to be guessed from the text.
    Scalar {
        /// Unescaped.
        text: String,
        /// Neither quoted nor tagged as a string.
        plain: bool,
    },
    /// A mapping.
    Mapping {
        /// Written with braces.
        flow: bool,
        /// Keys, all scalars, and values in the order of the text.
        entries: Vec<(Node, Node)>,
    },
    /// A sequence.
    Sequence(Vec<Node>),
}

/// Reads all documents of a text. Empty documents are left out.
pub fn read(text: &str) -> Result<Vec<Node>, ManifestError> {
    if text.len() > BYTES_MAX {
        return Err(ManifestError { line: 1, problem: format!("above {} MiB", BYTES_MAX >> 20) });
    }
    let mut reader = Reader { text, events: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    let mut documents = Vec::new();
    while let Some((event, span)) = reader.next()? {
        match event {
            Event::DocumentStart(..) => {
                reader.anchors.clear();
                reader.nodes = 0;
            }
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            event => {
                let node = reader.node(event, span, 0)?;
                if node.to_json() != Value::Null {
                    documents.push(node);
                }
            }
        }
    }
    Ok(documents)
}

struct Reader<'a> {
    text: &'a str,
    events: Parser<'a, granit_parser::StrInput<'a>>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, ManifestError> {
        loop {
            match self.events.next_event() {
                None => return Ok(None),
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(pair)) => return Ok(Some(pair)),
                Some(Err(error)) => {
                    return Err(ManifestError { line: error.marker().line(), problem: error.info() });
                }
            }
        }
    }

    fn expect(&mut self, line: usize) -> Result<(Event<'a>, Span), ManifestError> {
        self.next()?.ok_or_else(|| ManifestError { line, problem: "the document ends too early".into() })
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, ManifestError> {
        let line = span.start.line();
        let refuse = |problem: &str| Err(ManifestError { line, problem: problem.to_owned() });
        let before = self.nodes;
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return refuse("the document is too large, or its aliases stand for too much");
        }
        if depth > DEPTH_MAX {
            return refuse("nested too deeply");
        }
        let mut range = span.byte_range().unwrap_or_default();
        let (content, anchor) = match event {
            Event::Alias(anchor) => {
                let Some((node, size)) = self.anchors.get(&anchor) else {
                    return refuse("an alias within what it stands for");
                };
                self.nodes += size;
                return Ok(Node { range, line, aliased: true, content: node.content.clone() });
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                if matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) {
                    // Its span reaches to the next node.
                    let lines = self.text.get(range.clone()).unwrap_or_default();
                    range.end = range.start + lines.trim_end().len();
                }
                (Content::Scalar { text: text.into_owned(), plain }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => {
                let mut items = Vec::new();
                loop {
                    let (event, span) = self.expect(line)?;
                    if event == Event::SequenceEnd {
                        close(&mut range, span, items.last());
                        break;
                    }
                    items.push(self.node(event, span, depth + 1)?);
                }
                (Content::Sequence(items), anchor)
            }
            Event::MappingStart(style, anchor, _) => {
                let flow = style == StructureStyle::Flow;
                let mut entries: Vec<(Node, Node)> = Vec::new();
                loop {
                    let (event, span) = self.expect(line)?;
                    if event == Event::MappingEnd {
                        close(&mut range, span, entries.last().map(|(_, value)| value));
                        break;
                    }
                    let key = self.node(event, span, depth + 1)?;
                    if key.text().is_none() {
                        return refuse("a key that is no scalar");
                    }
                    let (event, span) = self.expect(line)?;
                    let value = self.node(event, span, depth + 1)?;
                    entries.push((key, value));
                }
                (Content::Mapping { flow, entries }, anchor)
            }
            _ => return refuse("something that is neither scalar, sequence nor mapping"),
        };
        let node = Node { range, line, aliased: false, content };
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before));
        }
        Ok(node)
    }
}

/// A block collection has no closing bracket: it ends where its last member does.
fn close(range: &mut Range<usize>, end: Span, last: Option<&Node>) {
    let end = end.byte_range().unwrap_or_default();
    range.end = match last {
        Some(last) if end.is_empty() => last.range.end,
        _ => end.end,
    };
}

impl Node {
    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The entries of a mapping; none of anything else.
    pub fn entries(&self) -> &[(Self, Self)] {
        match &self.content {
            Content::Mapping { entries, .. } => entries,
            _ => &[],
        }
    }

    /// The value of a key, as written in this mapping itself.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().rev().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value)
    }

    /// The value behind several keys.
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// What it means, as `kubectl` would send it.
    pub fn to_json(&self) -> Value {
        match &self.content {
            Content::Scalar { text, plain: false } => Value::String(text.clone()),
            Content::Scalar { text, plain: true } => guessed(text),
            Content::Sequence(items) => items.iter().map(Self::to_json).collect(),
            Content::Mapping { entries, .. } => {
                let mut map = Map::new();
                for (key, value) in entries {
                    match (key.text(), value.to_json()) {
                        // A merge key: what the other mapping says, where this one says nothing.
                        (Some("<<"), Value::Object(other)) => merge(&mut map, entries, other),
                        (Some("<<"), Value::Array(others)) => {
                            for other in others {
                                if let Value::Object(other) = other {
                                    merge(&mut map, entries, other);
                                }
                            }
                        }
                        (name, value) => {
                            map.insert(name.unwrap_or_default().to_owned(), value);
                        }
                    }
                }
                Value::Object(map)
            }
        }
    }
}

fn merge(map: &mut Map<String, Value>, own: &[(Node, Node)], other: Map<String, Value>) {
    for (key, value) in other {
        let said = own.iter().any(|(name, _)| name.text() == Some(&key));
        if !said && !map.contains_key(&key) {
            map.insert(key, value);
        }
    }
}

/// The type of a plain scalar, as the YAML library of `kubectl` guesses it (YAML 1.1 in what people use of it).
fn guessed(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Value::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    let unsigned = text.trim_start_matches(['+', '-']);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Value::String(text.to_owned());
    }
    if let Ok(number) = text.parse::<i64>() {
        return Value::from(number);
    }
    match text.parse::<f64>().ok().and_then(Number::from_f64) {
        Some(number) => Value::Number(number),
        None => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests;
