//! What goes back for a dropped file: a line per command, or one report of what is wrong with the file.

use serde::{Deserialize, Serialize};

use super::{IntakeError, python_text, stem};

/// How a command ended, as its line tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeText<'a> {
    /// It gave this JSON text, which is written in [Python's form](python_text).
    Json(&'a [u8]),
    /// It gave these bytes, which are written as they are.
    Text(&'a [u8]),
    /// There is no such function.
    NotHandled {
        /// The name that the command asked for.
        function: &'a str,
    },
    /// It failed.
    Failed {
        /// What kind of failure, as the function or the grid names it.
        kind: &'a str,
        /// What it said.
        message: &'a str,
    },
}

/// Appends a command's line: `id result`, `id function not handled` or `id ERROR kind: message`, and a line break.
///
/// A result may span lines, as a string or a text may. Everything else stays on one: line feeds and carriage returns in
/// ids, names and messages are written `\n` and `\r`. A backslash is not doubled, so this is for people and for ids
/// without line breaks; programs that need more read the job's results.
pub fn write_line(out: &mut Vec<u8>, id: &str, outcome: &OutcomeText<'_>) {
    write_on_one_line(out, id);
    out.push(b' ');
    match outcome {
        OutcomeText::Json(json) => python_text(json, out),
        OutcomeText::Text(text) => out.extend_from_slice(text),
        OutcomeText::NotHandled { function } => {
            write_on_one_line(out, function);
            out.extend_from_slice(b" not handled");
        }
        OutcomeText::Failed { kind, message } => {
            out.extend_from_slice(b"ERROR ");
            write_on_one_line(out, kind);
            out.extend_from_slice(b": ");
            write_on_one_line(out, message);
        }
    }
    out.push(b'\n');
}

fn write_on_one_line(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            _ => out.push(byte),
        }
    }
}

/// The contents of `<stem>.error.json`, which stands where a bad file's results would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// The file, as it was named to the grid.
    pub file: String,
    /// A stable word for programs; see [`IntakeError::code`].
    pub code: String,
    /// What is wrong, with what lies behind it.
    pub message: String,
    /// The line at fault, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The byte in that line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u64>,
    /// What the file's author can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ErrorReport {
    /// The report on a file.
    pub fn new(file: &str, error: &IntakeError) -> Self {
        let place = error.place();
        let sources = std::iter::successors(std::error::Error::source(error), |source| source.source());
        Self {
            file: file.into(),
            code: error.code().into(),
            message: sources.fold(error.to_string(), |message, source| format!("{message}: {source}")),
            line: place.map(|place| place.line),
            column: place.map(|place| place.column),
            hint: error.hint().map(Into::into),
        }
    }

    /// The name that the report on a file goes under.
    pub fn name(file: &str) -> String {
        format!("{}.error.json", stem(file))
    }
}
