//! What the cases showed: rows, peers, starters.

use crate::lab::peer::Implementation;
use crate::lab::scenario::Initiator;
use serde_json::json;
use std::fmt::Write as _;

/// Outcome of one case with one peer, started from one end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cell {
    /// Every step held.
    Pass,
    /// A step that did not, and why.
    Fail(String),
    /// It cannot be tried with this peer.
    NotApplicable(String),
}

impl Cell {
    /// One line for people.
    pub fn line(&self) -> String {
        match self {
            Self::Pass => "pass".to_owned(),
            Self::Fail(why) => format!("FAIL: {why}"),
            Self::NotApplicable(why) => format!("n.a.: {why}"),
        }
    }

    const fn word(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail(_) => "FAIL",
            Self::NotApplicable(_) => "n.a.",
        }
    }
}

/// One line of the matrix.
struct Entry {
    row: u8,
    title: &'static str,
    peer: Implementation,
    starter: Initiator,
    cell: Cell,
}

/// All outcomes.
#[derive(Default)]
pub struct Matrix {
    entries: Vec<Entry>,
}

impl Matrix {
    /// Adds an outcome.
    pub fn add(&mut self, row: u8, title: &'static str, peer: Implementation, starter: Initiator, cell: Cell) {
        self.entries.push(Entry { row, title, peer, starter, cell });
    }

    /// True when something was tried and nothing failed.
    pub fn ok(&self) -> bool {
        self.count("pass") > 0 && self.count("FAIL") == 0
    }

    fn count(&self, word: &str) -> usize {
        self.entries.iter().filter(|e| e.cell.word() == word).count()
    }

    /// The matrix for people (also as the README shows it).
    pub fn text(&self) -> String {
        let columns = [Implementation::StrongSwan, Implementation::Libreswan]
            .into_iter()
            .flat_map(|peer| [Initiator::Peer, Initiator::Gateway].map(|starter| (peer, starter)));
        let mut rows: Vec<(u8, &str)> = Vec::new();
        for e in &self.entries {
            if !rows.contains(&(e.row, e.title)) {
                rows.push((e.row, e.title));
            }
        }
        let mut text = String::from(
            "| row | scenario | strongSwan starts | gateway starts | libreswan starts | gateway starts |\n|---|---|---|---|---|---|\n",
        );
        let mut notes: Vec<String> = Vec::new();
        for (row, title) in rows {
            let _ = write!(text, "| {row} | {title} |");
            for (peer, starter) in columns.clone() {
                let cell = self
                    .entries
                    .iter()
                    .find(|e| e.row == row && e.title == title && e.peer == peer && e.starter == starter)
                    .map(|e| &e.cell);
                let word = match cell {
                    None => "".to_owned(),
                    Some(Cell::Pass) => "pass".to_owned(),
                    Some(Cell::Fail(why) | Cell::NotApplicable(why)) => {
                        let number = notes.iter().position(|n| n == why).unwrap_or_else(|| {
                            notes.push(why.clone());
                            notes.len() - 1
                        });
                        format!("{} ({})", cell.map_or("", Cell::word), number + 1)
                    }
                };
                let _ = write!(text, " {word} |");
            }
            text.push('\n');
        }
        for (n, note) in notes.iter().enumerate() {
            let _ = writeln!(text, "({}) {note}", n + 1);
        }
        let _ =
            writeln!(text, "interop: {} passed, {} failed, {} not applicable", self.count("pass"), self.count("FAIL"), self.count("n.a."));
        text
    }

    /// The same as one JSON line.
    pub fn json_line(&self) -> String {
        let cells: Vec<_> = self
            .entries
            .iter()
            .map(|e| {
                let why = match &e.cell {
                    Cell::Pass => None,
                    Cell::Fail(why) | Cell::NotApplicable(why) => Some(why),
                };
                json!({ "row": e.row, "title": e.title, "peer": e.peer.name(), "starter": e.starter.name(), "outcome": e.cell.word(), "why": why })
            })
            .collect();
        json!({ "ok": self.ok(), "passed": self.count("pass"), "failed": self.count("FAIL"), "cells": cells }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_holds_only_with_a_pass_and_without_a_failure() {
        let mut matrix = Matrix::default();
        assert!(!matrix.ok());
        matrix.add(1, "one", Implementation::StrongSwan, Initiator::Peer, Cell::NotApplicable("no such peer".into()));
        assert!(!matrix.ok());
        matrix.add(1, "one", Implementation::StrongSwan, Initiator::Gateway, Cell::Pass);
        assert!(matrix.ok());
        assert!(matrix.text().contains("| 1 | one | n.a. (1) | pass |  |  |\n(1) no such peer\n"), "{}", matrix.text());
        matrix.add(1, "one", Implementation::Libreswan, Initiator::Peer, Cell::Fail("up: nothing".into()));
        assert!(!matrix.ok());
        assert!(matrix.json_line().contains(r#""ok":false"#));
    }
}
