//! Dropped files: what an upload or a watched folder takes in, and what it answers.
//!
//! A file that somebody writes by hand or by script becomes a job, so this module is generous in what it names when the
//! file is wrong (line, column, id, what was expected) and strict in what it lets in: every format is read as a stream, in
//! memory bounded by [`limits`], and nothing of a bad file runs, because a file is read twice. [`scan`] checks all of it and
//! tells how many commands there are; [`read`] then gives them out. [`CommandReader`] is the same, pulled.
//!
//! | ending | a command is | id |
//! |---|---|---|
//! | `.json` | a member of one object: `id → {"type": "greet", "arguments": {"arg1": "Hello"}}` | the key |
//! | `.ndjson` `.jsonl` | a line `{"id": …, "type": …, "arguments": …}`; if the caller names a function, a line without `type` and `arguments` is the payload itself, of any kind | `id` (string or number), else the line's number |
//! | `.csv` | a row: an object of its cells as strings, by header, without the columns `id` and `type` | the cell `id`, if not empty, else the row's number after the header |
//! | `.pack` | not read here | |
//!
//! Any of them may be wrapped in gzip (`.gz`) or zstd (`.zst`). A command without `type` runs the function that the caller
//! names for the file; one without `arguments` gets `{}`. Payloads stay the JSON text that the file has, so numbers of any
//! size survive. Fields that are not in the table are refused.
//!
//! What comes back is text: [`write_line`] writes a command's line into the results, with [`python_text`] for how values
//! look, and [`ErrorReport`] is what a bad file gets instead.
//!
//! What this module does not do: know functions, start jobs, touch files.

mod commands;
mod compression;
mod csv;
mod duplicates;
mod error;
mod format;
mod json;
pub mod limits;
mod ndjson;
mod outbox;
mod python_scalar;
mod python_text;
mod reader;
mod window;

pub use compression::{Inflated, inflate};
pub use error::{IntakeError, Place};
pub use format::{Compression, Format, Shape, stem};
pub use outbox::{ErrorReport, OutcomeText, write_line};
pub use python_text::python_text;
pub use reader::{Command, CommandReader, Scan, read, scan};
