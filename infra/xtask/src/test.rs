//! Runs every check, and counts what passed, failed and was skipped.

use std::{
    io::{BufRead, BufReader},
    ops::Add,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context;

use crate::{
    e2e_aws, fuzz, infra,
    setup::{self, root, succeed},
};

/// A test that cannot run where it is says so on a line that begins with this.
const SKIPPED: &str = "SKIPPED:";

#[derive(Default)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: Vec<String>,
}

impl Add for Count {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self.skipped.extend(other.skipped);
        Self { passed: self.passed + other.passed, failed: self.failed + other.failed, skipped: self.skipped }
    }
}

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
    let (count, ended_well) = watch(&mut tests)?;
    // Instructions are counted of what is optimised.
    let mut counts = cargo();
    counts.args([
        "test",
        "--release",
        "--locked",
        "-p",
        "sheaf-api",
        "-p",
        "sheaf-scheduler",
        "--test",
        "instructions",
    ]);
    let (counted, counted_well) = watch(&mut counts)?;
    let (count, ended_well) = (count + counted, ended_well && counted_well);
    let mut skipped = count.skipped;
    // A test that skips itself ends well.
    let passed = count.passed - count.passed.min(skipped.len() as u64);
    let fuzzed = if fuzzing.is_zero() { None } else { Some(fuzz::run(fuzzing, &[])?) };
    let (passed, failed) =
        fuzzed.as_ref().map_or((passed, count.failed), |fuzzed| (passed + fuzzed.passed, count.failed + fuzzed.failed));
    skipped.extend(fuzzed.and_then(|fuzzed| fuzzed.skipped));
    let checked = infra::run()?;
    let (passed, failed) = (passed + checked.passed, failed + checked.failed);
    skipped.extend(checked.skipped);
    let deployed = e2e_aws::run(&e2e_aws::Options::with_tests())?;
    let (passed, failed) = (passed + deployed.passed, failed + deployed.failed);
    skipped.extend(deployed.skipped);
    println!();
    let skips = skipped.len();
    skipped.sort();
    for reason in skipped.chunk_by(|a, b| a == b) {
        println!("{} ({} times)", reason[0], reason.len());
    }
    machine.missing.iter().for_each(|thing| println!("MISSING: {thing}"));
    println!("{passed} passed, {failed} failed, {skips} skipped");
    anyhow::ensure!(ended_well && failed == 0, "there are failures above");
    Ok(())
}

pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// Runs tests, passing on what they print.
pub(crate) fn watch(tests: &mut Command) -> anyhow::Result<(Count, bool)> {
    // Both streams into one pipe, so that the lines stay in order.
    let (reader, writer) = std::io::pipe()?;
    let mut child = tests.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).spawn()?;
    // The command holds the pipe's other end; without this the reader would wait for ever.
    tests.stdout(Stdio::null()).stderr(Stdio::null());
    let mut count = Count::default();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        if let Some(at) = line.find(SKIPPED) {
            count.skipped.push(line[at..].to_owned());
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            let numbers = result.split([' ', ';']).filter_map(|word| word.parse::<u64>().ok()).collect::<Vec<_>>();
            let [passed, failed, ..] = numbers.as_slice() else { anyhow::bail!("not understood: {line}") };
            count.passed += passed;
            count.failed += failed;
        }
    }
    let status = child.wait().context("the tests")?;
    Ok((count, status.success()))
}
