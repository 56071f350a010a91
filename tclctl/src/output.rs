//! What commands print: short text for people, one JSON value for programs.

use std::io::Write as _;
use std::process::ExitCode;

use serde_json::Value;

use crate::outcome::{Failure, one_line};

/// How answers are printed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether programs read along.
    pub(crate) const fn json(&self) -> bool {
        self.json
    }

    /// Prints `value` for programs, or `lines` for people.
    pub(crate) fn tell(
        &self,
        value: impl FnOnce() -> Value,
        lines: impl FnOnce() -> Vec<String>,
    ) -> Result<(), Failure> {
        let text = if self.json {
            format!("{}\n", value())
        } else {
            lines().iter().fold(String::new(), |text, line| text + &one_line(line) + "\n")
        };
        self.raw(text.as_bytes())
    }

    /// Writes bytes to standard output as they are.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            // Whoever read along has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(|error| Failure::Io(format!("standard output: {error}"))),
        }
    }

    /// A remark that is not the answer.
    pub(crate) fn note(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{}", one_line(text));
    }

    /// Says why on standard error, and gives the exit status.
    pub(crate) fn failed(&self, failure: &Failure) -> ExitCode {
        let line = if self.json { failure.json().to_string() } else { failure.line() };
        let _ = writeln!(std::io::stderr(), "{line}");
        ExitCode::from(failure.status())
    }
}

/// Aligns rows in columns two spaces apart.
pub(crate) fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (place, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(place) {
                Some(known) => *known = width.max(*known),
                None => widths.push(width),
            }
        }
    }
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  "));
        cells.collect::<String>().trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "bc".to_owned()], vec!["def".to_owned(), String::new()]];
        assert_eq!(columns(&rows), ["a    bc", "def"]);
    }
}
