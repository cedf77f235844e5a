//! What the driver says, and what it is answered.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

/// What is to be done.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub(crate) enum Command {
    /// Submit tasks and read the results of all.
    Run(Run),
    /// This process was killed and started again: read the results of what it had submitted.
    Resume(Run),
    /// Tasks one at a time, until so many or so long.
    Latency { tasks: u64, seconds: f64 },
}

/// Tasks, and where their results go: a line each, the task's number and what it gave.
#[derive(Debug, Deserialize)]
pub(crate) struct Run {
    pub(crate) tasks: u64,
    pub(crate) results: PathBuf,
    /// Whether what was read must be in the file at once.
    pub(crate) flush: bool,
}

/// Whom the driver may kill, by what its command line contains; empty for this process.
#[derive(Debug, Serialize)]
pub(crate) struct Role {
    #[serde(rename = "match")]
    pub(crate) pattern: &'static str,
    /// The commands that bring it back, where nobody else does.
    pub(crate) restart: Vec<Vec<String>>,
}

/// An answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answer {
    Ready { version: String, roles: BTreeMap<&'static str, Role> },
    Ran { seconds: f64 },
    Latency { us: Vec<f64> },
}

impl Answer {
    pub(crate) fn say(&self) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&line)?;
        Ok(stdout.flush()?)
    }
}

/// 64 bytes that depend on the task, as in all runners.
pub(crate) fn payload(index: u64) -> Vec<u8> {
    let mut payload = format!("{index:016}").into_bytes();
    payload.resize(64, b'a' + (index % 26) as u8);
    payload
}

/// The file of results.
pub(crate) struct Results {
    file: BufWriter<File>,
    flush: bool,
}

impl Results {
    pub(crate) fn create(run: &Run) -> anyhow::Result<Self> {
        let file = BufWriter::with_capacity(1 << 20, File::create(&run.results)?);
        Ok(Self { file, flush: run.flush })
    }

    pub(crate) fn take(&mut self, index: u64, result: &[u8]) -> std::io::Result<()> {
        write!(self.file, "{index} ")?;
        self.file.write_all(unquoted(result))?;
        self.file.write_all(b"\n")?;
        if self.flush { self.file.flush() } else { Ok(()) }
    }

    pub(crate) fn finish(mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// The text of a result; a function in a package answers in JSON.
pub(crate) fn unquoted(result: &[u8]) -> &[u8] {
    result.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As runners in other languages make it, and as the driver expects it.
    #[test]
    fn payloads_are_the_same_in_every_language() {
        assert_eq!(payload(27), [b"0000000000000027".as_slice(), &[b'b'; 48]].concat());
    }

    #[test]
    fn an_answer_in_json_is_the_text_it_quotes() {
        assert_eq!(unquoted(b"\"a\""), b"a");
        assert_eq!(unquoted(b"a"), b"a");
        assert_eq!(unquoted(b"\""), b"\"");
    }

    #[test]
    fn the_driver_is_understood() -> anyhow::Result<()> {
        let run: Command = serde_json::from_str(r#"{"do": "run", "tasks": 3, "results": "/r", "flush": true}"#)?;
        assert!(matches!(run, Command::Run(Run { tasks: 3, flush: true, .. })));
        let latency: Command = serde_json::from_str(r#"{"do": "latency", "tasks": 3, "seconds": 0.5}"#)?;
        assert!(matches!(latency, Command::Latency { tasks: 3, .. }));
        Ok(())
    }
}
