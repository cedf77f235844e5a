//! What checks came to, whoever made them.

use std::process::{Command, Stdio};

use anyhow::Context;

/// What cannot be checked where it is says so on a line that begins with this.
const SKIPPED: &str = "SKIPPED:";

/// What checks came to.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) passed: u64,
    /// What did not pass, by name.
    failures: Vec<String>,
    /// What could not be checked, each with why.
    skipped: Vec<String>,
}

impl Checked {
    /// Says that something cannot be checked, and why.
    pub(crate) fn skip(&mut self, what: &str) {
        let why = format!("{SKIPPED} {what}");
        println!("{why}");
        self.skipped.push(why);
    }

    /// Takes in a line of what checks say: whether it says that something was skipped.
    pub(crate) fn hear(&mut self, line: &str) -> bool {
        let skipped = line.find(SKIPPED).map(|at| line[at..].trim_end().to_owned());
        let heard = skipped.is_some();
        self.skipped.extend(skipped);
        heard
    }

    pub(crate) fn fail(&mut self, what: impl Into<String>) {
        self.failures.push(what.into());
    }

    /// Runs a check, and shows what it says only when it does not pass.
    pub(crate) fn take(&mut self, what: &str, command: &mut Command) -> anyhow::Result<()> {
        let (ended_well, said) = listen(command)?;
        if ended_well {
            self.passed += 1;
        } else {
            println!("{said}\n{what}: FAILED");
            self.fail(what);
        }
        Ok(())
    }

    /// Takes in checks that may have broken off.
    pub(crate) fn include(&mut self, what: &str, checks: anyhow::Result<Self>) {
        match checks {
            Ok(checked) => self.add(checked),
            Err(error) => self.fail(format!("{what}: {error:#}")),
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
        self.skipped.extend(other.skipped);
    }

    pub(crate) fn failed(&self) -> usize {
        self.failures.len()
    }

    /// Says how many passed and failed, of one kind of checks.
    pub(crate) fn sum_up(&self, kind: &str) {
        println!("{kind}: {} passed, {} failed", self.passed, self.failed());
    }

    /// Says what was skipped and what failed, last of all, where it is found; an error if anything failed.
    pub(crate) fn conclude(mut self) -> anyhow::Result<()> {
        println!();
        self.skipped.sort();
        for reason in self.skipped.chunk_by(|a, b| a == b) {
            println!("{} ({} times)", reason[0], reason.len());
        }
        self.failures.iter().for_each(|what| println!("FAILED: {what}"));
        println!("{} passed, {} failed, {} skipped", self.passed, self.failed(), self.skipped.len());
        anyhow::ensure!(self.failures.is_empty(), "what failed is named above, with what it said further up");
        Ok(())
    }
}

/// Runs a command: whether it ended well, and all that it said.
pub(crate) fn listen(command: &mut Command) -> anyhow::Result<(bool, String)> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}
