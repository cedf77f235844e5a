//! Runs every check, and counts what passed, failed and was skipped.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context;

use crate::{
    checked::Checked,
    e2e_aws, fuzz, infra,
    setup::{self, root, succeed},
};

pub(crate) fn run(lints: bool, fuzzing: Duration) -> anyhow::Result<()> {
    let machine = setup::run()?;
    if lints {
        succeed(cargo().args(["fmt", "--all", "--check"]))?;
        succeed(cargo().args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))?;
    }
    // Tests of whole programs find them beside themselves, in the target folder.
    // Built with the tests, both have the same dependencies, and those are built once.
    succeed(cargo().args(["build", "--workspace", "--bins", "--tests", "--locked"]))?;
    let mut tests = cargo();
    tests.args(["test", "--workspace", "--locked", "--no-fail-fast"]);
    if let Some(python) = &machine.python {
        tests.env("SHEAF_TEST_PYTHON", python);
    }
    let mut checked = watch(&mut tests)?;
    // Instructions are counted of what is optimised.
    let mut counts = cargo();
    counts.args(["test", "--release", "--locked", "--test", "instructions"]);
    counts.args(["-p", "sheaf-api", "-p", "sheaf-scheduler"]);
    checked.add(watch(&mut counts)?);
    if !fuzzing.is_zero() {
        checked.include("fuzz targets", fuzz::run(fuzzing, &[]));
    }
    checked.include("infrastructure", infra::run());
    checked.include("a grid on AWS, end to end", e2e_aws::run(&e2e_aws::Options::with_tests()));
    machine.missing.iter().for_each(|thing| println!("MISSING: {thing}"));
    checked.conclude()
}

pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// Runs tests, passing on what they print.
pub(crate) fn watch(tests: &mut Command) -> anyhow::Result<Checked> {
    // Both streams into one pipe, so that the lines stay in order.
    let (reader, writer) = std::io::pipe()?;
    let mut child = tests.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).spawn()?;
    // The command holds the pipe's other end; without this the reader would wait for ever.
    tests.stdout(Stdio::null()).stderr(Stdio::null());
    let mut heard = Heard::default();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        heard.line(&line)?;
    }
    let status = child.wait().context("the tests")?;
    Ok(heard.end(status.success()))
}

/// What was heard of tests.
#[derive(Default)]
struct Heard {
    checked: Checked,
    /// Tests that skipped themselves: they end well.
    skipped: u64,
    /// Failures that have been named of the program that runs now.
    named: u64,
}

impl Heard {
    fn line(&mut self, line: &str) -> anyhow::Result<()> {
        self.skipped += u64::from(self.checked.hear(line));
        if let Some(name) = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED")) {
            self.checked.fail(name);
            self.named += 1;
        } else if let Some(result) = line.strip_prefix("test result: ") {
            let numbers = result.split([' ', ';']).filter_map(|word| word.parse::<u64>().ok()).collect::<Vec<_>>();
            let [passed, failed, ..] = numbers.as_slice() else { anyhow::bail!("not understood: {line}") };
            self.checked.passed += passed;
            // Another line may have come between a test's name and its end.
            (self.named..*failed).for_each(|_| self.checked.fail("a test whose name was lost among other lines"));
            self.named = 0;
        } else if let Some(program) = line.strip_prefix("error: test failed, to rerun pass ") {
            self.checked.fail(format!("a program of tests: {program}"));
        }
        Ok(())
    }

    fn end(mut self, ended_well: bool) -> Checked {
        self.checked.passed = self.checked.passed.saturating_sub(self.skipped);
        if !ended_well && self.checked.failed() == 0 {
            self.checked.fail("tests that did not come to their end");
        }
        self.checked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tests_say_is_counted_and_failures_are_named() {
        let mut heard = Heard::default();
        let said = "test a ... ok\ntest b::c ... FAILED\ntest d ... SKIPPED: no account\nok\n\
            test result: FAILED. 2 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        said.lines().for_each(|line| heard.line(line).expect("understood"));
        let checked = heard.end(false);
        assert_eq!((checked.passed, checked.failed()), (1, 2));
        let named = format!("{checked:?}");
        assert!(named.contains("b::c") && named.contains("name was lost") && named.contains("no account"), "{named}");
    }

    #[test]
    fn tests_that_break_off_have_failed() {
        assert_eq!(Heard::default().end(false).failed(), 1);
        assert_eq!(Heard::default().end(true).failed(), 0);
    }
}
