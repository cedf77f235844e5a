//! Where the tasks of a submission come from: lines, an array, NDJSON or CSV.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Deserialize;
use sheaf_api::{
    Code,
    intake::{CommandReader, Format, IntakeError},
};
use sheaf_core::limits;

use crate::problem::{Outcome, Problem};

/// Which tasks to submit.
#[derive(Debug, Clone, Default, Args)]
#[group(multiple = false)]
pub(crate) struct InputArgs {
    /// One task per line of this file (`-`: stdin); the line is the payload
    #[arg(long, value_name = "FILE")]
    pub(crate) lines: Option<PathBuf>,
    /// One task per line of this NDJSON file: the line is the payload, or {"id": …, "arguments": …}
    #[arg(long, value_name = "FILE")]
    pub(crate) ndjson: Option<PathBuf>,
    /// One task per row of this CSV file; the payload is an object of its cells by header
    #[arg(long, value_name = "FILE")]
    pub(crate) csv: Option<PathBuf>,
    /// One task per number of this range, such as 1-1000; the payload is the number
    #[arg(long, value_name = "FIRST-LAST", value_parser = parse_range)]
    pub(crate) array: Option<Range>,
}

/// Numbers from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Range {
    first: u64,
    last: u64,
}

impl TryFrom<String> for Range {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse_range(&text)
    }
}

fn parse_range(text: &str) -> Result<Range, String> {
    let parsed = text.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    match parsed {
        Some((first, last)) if first <= last => Ok(Range { first, last }),
        _ => Err(format!("{text:?} is not a range such as 1-1000")),
    }
}

/// One task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Task {
    /// What the function is given.
    pub(crate) payload: Vec<u8>,
    /// What the input calls it; empty for nothing.
    pub(crate) key: String,
}

/// Tasks, one after the other.
pub(crate) enum Input {
    /// A task without a payload.
    Once(bool),
    Lines {
        reader: Box<dyn BufRead + Send>,
        path: PathBuf,
        buffer: Vec<u8>,
    },
    Array {
        next: u64,
        last: u64,
    },
    Commands {
        reader: Box<CommandReader<Box<dyn Read + Send>>>,
        path: PathBuf,
        function: String,
    },
    /// Tasks that are here already.
    Tasks(std::vec::IntoIter<Task>),
}

impl InputArgs {
    /// Whether nothing was asked for.
    pub(crate) const fn is_empty(&self) -> bool {
        self.lines.is_none() && self.ndjson.is_none() && self.csv.is_none() && self.array.is_none()
    }

    /// Opens it. `function` is what runs the tasks: commands that name another one are refused.
    pub(crate) fn open(&self, function: &str) -> Outcome<Option<Input>> {
        if let Some(Range { first, last }) = self.array {
            return Ok(Some(Input::Array { next: first, last }));
        }
        if let Some(path) = &self.lines {
            let reader = Box::new(BufReader::new(source(path)?));
            return Ok(Some(Input::Lines { reader, path: path.clone(), buffer: Vec::new() }));
        }
        let (path, ending) = match (&self.ndjson, &self.csv) {
            (Some(path), _) => (path, ".ndjson"),
            (None, Some(path)) => (path, ".csv"),
            (None, None) => return Ok(None),
        };
        let name = path.to_string_lossy();
        let wrapping = [".gz", ".zst"].into_iter().find(|wrapping| name.ends_with(wrapping)).unwrap_or_default();
        let format = Format::of(&format!("tasks{ending}{wrapping}")).map_err(|error| unreadable(path, error))?;
        let reader =
            CommandReader::new(source(path)?, format, Some(function)).map_err(|error| unreadable(path, error))?;
        Ok(Some(Input::Commands { reader: Box::new(reader), path: path.clone(), function: function.to_owned() }))
    }

    /// The same input once more from its start, if there is one.
    pub(crate) fn can_be_read_twice(&self) -> bool {
        [&self.lines, &self.ndjson, &self.csv]
            .into_iter()
            .flatten()
            .all(|path| path.as_os_str() != "-" && path.is_file())
    }
}

fn source(path: &Path) -> Outcome<Box<dyn Read + Send>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(io::stdin()));
    }
    let file = File::open(path)
        .map_err(|error| Problem::file("read", path, error).with_hint("give a file, or - for stdin"))?;
    Ok(Box::new(file))
}

/// A file that is not what it should be.
pub(crate) fn unreadable(path: &Path, error: IntakeError) -> Problem {
    let code = error.code();
    let hint = error.hint().map(ToOwned::to_owned);
    let problem = Problem::new(Code::Invalid, format!("{}: {error}", path.display())).with_code(code);
    let problem = match hint {
        Some(hint) => problem.with_hint(hint),
        None => problem,
    };
    match std::error::Error::source(&error) {
        Some(_) => problem.with_source(error),
        None => problem,
    }
}

impl Input {
    /// The next task.
    pub(crate) fn next_task(&mut self) -> Outcome<Option<Task>> {
        match self {
            Self::Once(given) => Ok((!std::mem::replace(given, true)).then(Task::default)),
            Self::Tasks(tasks) => Ok(tasks.next()),
            Self::Array { next, last } if *next > *last => Ok(None),
            Self::Array { next, .. } => {
                let payload = next.to_string().into_bytes();
                *next += 1;
                Ok(Some(Task { payload, key: String::new() }))
            }
            Self::Lines { reader, path, buffer } => {
                buffer.clear();
                // A line too long for a task is cut one byte beyond what a task may have, and so refused.
                let mut line = reader.take(limits::TASK_BYTES_MAX as u64 + 2);
                let read = line.read_until(b'\n', buffer).map_err(|error| Problem::file("read", path, error))?;
                let line = buffer.strip_suffix(b"\n").unwrap_or(buffer);
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                Ok((read > 0).then(|| Task { payload: line.to_owned(), key: String::new() }))
            }
            Self::Commands { reader, path, function } => {
                let command = reader.next_command().map_err(|error| unreadable(path, error))?;
                let Some(command) = command else { return Ok(None) };
                if command.function != function {
                    let message = format!(
                        "{}: command {:?} is for {}, and --function is {function}",
                        path.display(),
                        command.id,
                        command.function
                    );
                    return Err(Problem::new(Code::Invalid, message)
                        .with_hint("`sheaf run FILE` runs files whose commands name several functions"));
                }
                Ok(Some(Task { payload: command.payload.to_owned(), key: command.id.into_owned() }))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn all(mut input: Input) -> Vec<String> {
        std::iter::from_fn(|| input.next_task().unwrap()).map(|task| String::from_utf8(task.payload).unwrap()).collect()
    }

    #[test]
    fn arrays_and_lines_are_read() {
        assert_eq!(all(Input::Array { next: 8, last: 10 }), ["8", "9", "10"]);
        let reader = Box::new(&b"a\r\n\nlast"[..]);
        assert_eq!(all(Input::Lines { reader, path: PathBuf::new(), buffer: Vec::new() }), ["a", "", "last"]);
        assert_eq!(all(Input::Once(false)), [""]);
        assert!(parse_range("5-1").is_err() && parse_range("5").is_err() && parse_range("1-x").is_err());
    }
}
