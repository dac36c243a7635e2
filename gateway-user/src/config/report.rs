//! Errors with a place and a cure, and the collector that lets one run report all of them.

use super::index::{Index, Mark};
use std::fmt;

/// A refused manifest item. `Display` gives `FILE:LINE:COL: PATH: cause; cure`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// Manifest as it was named.
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Column, counted from 1, in characters.
    pub column: usize,
    /// Key path (`crypto.isakmp.policy.1.hash`); empty for the document itself.
    pub path: String,
    /// What is wrong.
    pub cause: String,
    /// What to do.
    pub cure: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}; {}", self.cause, self.cure)
    }
}

impl std::error::Error for ConfigError {}

/// One step of a key path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) enum Step {
    /// Key of a mapping.
    Key(String),
    /// Index of a list, counted from 0.
    Item(usize),
}

/// Where a value stands in the manifest.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub(super) struct KeyPath(pub(super) Vec<Step>);

impl KeyPath {
    /// The value under `key`.
    pub(super) fn key(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        Self(steps)
    }

    /// Item `n` of the list.
    pub(super) fn item(&self, n: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Item(n));
        Self(steps)
    }

    /// The path one step up; `None` at the document.
    pub(super) fn parent(&self) -> Option<Self> {
        let (_, init) = self.0.split_last()?;
        Some(Self(init.to_vec()))
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(k) if n == 0 => write!(f, "{k}")?,
                Step::Key(k) => write!(f, ".{k}")?,
                Step::Item(i) => write!(f, "[{i}]")?,
            }
        }
        Ok(())
    }
}

/// Collects errors and warnings of one manifest.
pub(super) struct Report {
    file: String,
    pub(super) index: Index,
    errors: Vec<ConfigError>,
    warnings: Vec<ConfigError>,
}

impl Report {
    /// An empty report on `file`.
    pub(super) fn new(file: &str, index: Index) -> Self {
        Self { file: file.to_owned(), index, errors: Vec::new(), warnings: Vec::new() }
    }

    fn at(&self, mark: Mark, path: &KeyPath, cause: String, cure: String) -> ConfigError {
        ConfigError { file: self.file.clone(), line: mark.line, column: mark.column, path: path.to_string(), cause, cure }
    }

    /// An error at the value of `path`.
    pub(super) fn error(&mut self, path: &KeyPath, cause: impl Into<String>, cure: impl Into<String>) {
        let e = self.at(self.index.value(path), path, cause.into(), cure.into());
        self.errors.push(e);
    }

    /// An error at the key of `path`.
    pub(super) fn error_key(&mut self, path: &KeyPath, cause: impl Into<String>, cure: impl Into<String>) {
        let e = self.at(self.index.key(path), path, cause.into(), cure.into());
        self.errors.push(e);
    }

    /// An error at a given mark.
    pub(super) fn error_at(&mut self, mark: Mark, path: &KeyPath, cause: impl Into<String>, cure: impl Into<String>) {
        let e = self.at(mark, path, cause.into(), cure.into());
        self.errors.push(e);
    }

    /// A warning at the value of `path`.
    pub(super) fn warn(&mut self, path: &KeyPath, cause: impl Into<String>, cure: impl Into<String>) {
        let e = self.at(self.index.value(path), path, cause.into(), cure.into());
        self.warnings.push(e);
    }

    /// True while nothing was refused.
    pub(super) fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// Number of errors so far.
    pub(super) fn error_count(&self) -> usize {
        self.errors.len()
    }

    /// Warnings as text, or all errors in order of their place.
    pub(super) fn finish(mut self) -> Result<Vec<String>, Vec<ConfigError>> {
        if self.errors.is_empty() {
            self.warnings.sort_by_key(|e| (e.line, e.column));
            return Ok(self.warnings.iter().map(ToString::to_string).collect());
        }
        self.errors.sort_by_key(|e| (e.line, e.column));
        Err(self.errors)
    }
}

/// The word of `valid` nearest to `word`, if one is near enough to be what was meant.
pub fn nearest<'a>(word: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    valid
        .into_iter()
        .map(|v| (likeness(&lower, &v.to_lowercase()), v))
        .filter(|(score, _)| *score >= 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, v)| v)
}

/// How alike two words are, 0 to 1. One slip of the finger counts as much, however short the word.
fn likeness(a: &str, b: &str) -> f64 {
    let slip = a.len().min(b.len()) >= 3 && strsim::damerau_levenshtein(a, b) == 1;
    strsim::jaro_winkler(a, b).max(if slip { 0.9 } else { 0.0 })
}

/// Cure of a wrong word: the nearest valid one, then all of them.
pub(super) fn one_of(word: &str, valid: &[&str]) -> String {
    if valid.is_empty() {
        return "there is none yet: add it, or take this out".to_owned();
    }
    let all = valid.join(", ");
    match nearest(word, valid.iter().copied()) {
        Some(v) => format!("did you mean `{v}`? valid: {all}"),
        None => format!("valid: {all}"),
    }
}
