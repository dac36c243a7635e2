//! Line and column of every key and value of the manifest, and the text of its scalars as it was written.

use super::report::{KeyPath, Step};
use saphyr_parser::{Event, Marker, Parser};
use std::collections::HashMap;

/// A place in the manifest, both counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mark {
    /// Line.
    pub(super) line: usize,
    /// Column in characters.
    pub(super) column: usize,
}

impl Mark {
    const START: Self = Self { line: 1, column: 1 };
}

impl From<Marker> for Mark {
    fn from(m: Marker) -> Self {
        Self { line: m.line().max(1), column: m.col() + 1 }
    }
}

#[derive(Clone, Debug)]
struct Entry {
    key: Mark,
    value: Mark,
    text: Option<String>,
}

/// A key that stands twice in one mapping.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Duplicate {
    /// Path of both.
    pub(super) path: KeyPath,
    /// The first.
    pub(super) first: Mark,
    /// The second.
    pub(super) second: Mark,
}

/// Why a text is no manifest at all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SyntaxError {
    /// Where.
    pub(super) mark: Mark,
    /// What.
    pub(super) cause: String,
    /// What to do.
    pub(super) cure: String,
}

/// Key path → place.
#[derive(Default, Debug)]
pub(super) struct Index {
    entries: HashMap<KeyPath, Entry>,
    /// Keys that stand twice.
    pub(super) duplicates: Vec<Duplicate>,
}

/// Nesting a manifest may have; the deepest real one is 8.
const DEPTH_MAX: usize = 32;

enum Frame {
    Map { pending: Option<(String, Mark)> },
    List { next: usize },
}

impl Index {
    /// Reads the whole text once.
    pub(super) fn build(text: &str) -> Result<Self, SyntaxError> {
        let mut index = Self::default();
        let mut frames: Vec<Frame> = Vec::new();
        let mut path = KeyPath::default();
        let mut documents = 0_usize;
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|e| SyntaxError {
                mark: (*e.marker()).into(),
                cause: format!("not YAML: {}", e.info()),
                cure: "correct the indentation, colon or quote here".to_owned(),
            })?;
            let mark = Mark::from(span.start);
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(SyntaxError {
                            mark,
                            cause: "a second document begins".to_owned(),
                            cure: "keep one document per file, without a further `---`".to_owned(),
                        });
                    }
                }
                Event::Scalar(value, _, _, _) => {
                    if let Some(Frame::Map { pending: pending @ None }) = frames.last_mut() {
                        *pending = Some((value.into_owned(), mark));
                    } else {
                        index.open(&mut frames, &mut path, mark, Some(value.into_owned()));
                        path.0.pop();
                    }
                }
                Event::Alias(_) => {
                    return Err(SyntaxError {
                        mark,
                        cause: "aliases are not used in a manifest".to_owned(),
                        cure: "write the value out".to_owned(),
                    });
                }
                Event::MappingStart(..) | Event::SequenceStart(..) => {
                    if let Some(Frame::Map { pending: None }) = frames.last() {
                        return Err(SyntaxError {
                            mark,
                            cause: "a list or mapping stands where a key belongs".to_owned(),
                            cure: "write the key as a plain word".to_owned(),
                        });
                    }
                    if frames.len() >= DEPTH_MAX {
                        return Err(SyntaxError {
                            mark,
                            cause: format!("nested deeper than {DEPTH_MAX}"),
                            cure: "compare with config/gateway.example.yaml".to_owned(),
                        });
                    }
                    index.open(&mut frames, &mut path, mark, None);
                    frames.push(if matches!(event, Event::MappingStart(..)) {
                        Frame::Map { pending: None }
                    } else {
                        Frame::List { next: 0 }
                    });
                }
                Event::MappingEnd | Event::SequenceEnd => {
                    frames.pop();
                    path.0.pop();
                }
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            }
        }
        Ok(index)
    }

    /// Enters a value: extends `path` by the step that leads to it (at the document: by nothing to pop but itself) and records it.
    fn open(&mut self, frames: &mut [Frame], path: &mut KeyPath, mark: Mark, text: Option<String>) {
        let mut key = mark;
        match frames.last_mut() {
            Some(Frame::Map { pending }) => {
                let (name, at) = pending.take().unwrap_or_else(|| (String::new(), mark));
                key = at;
                path.0.push(Step::Key(name));
            }
            Some(Frame::List { next }) => {
                path.0.push(Step::Item(*next));
                *next += 1;
            }
            None => {}
        }
        if let Some(first) = self.entries.get(path) {
            self.duplicates.push(Duplicate { path: path.clone(), first: first.key, second: key });
        } else {
            self.entries.insert(path.clone(), Entry { key, value: mark, text });
        }
    }

    fn entry(&self, path: &KeyPath) -> Option<&Entry> {
        let mut at = path.clone();
        loop {
            if let Some(entry) = self.entries.get(&at) {
                return Some(entry);
            }
            at = at.parent()?;
        }
    }

    /// Place of the value at `path`, or of the nearest thing around it.
    pub(super) fn value(&self, path: &KeyPath) -> Mark {
        match self.entries.get(path) {
            Some(e) => e.value,
            None => self.key(path),
        }
    }

    /// Place of the key of `path`, or of the nearest thing around it.
    pub(super) fn key(&self, path: &KeyPath) -> Mark {
        self.entry(path).map_or(Mark::START, |e| e.key)
    }

    /// The scalar at `path` as it was written, without quotes.
    pub(super) fn text(&self, path: &KeyPath) -> Option<&str> {
        self.entries.get(path)?.text.as_deref()
    }
}
