//! The table of promises: every check of `tests/conformance` over every backend.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    process::{Command, Stdio},
};

use crate::setup::root;

/// The backends in the order of the table, as the tests' modules call them.
const BACKENDS: [&str; 5] = ["memory", "disk", "ministack", "dynoxide", "account"];
/// A test that cannot run where it is says so on a line that begins with this.
const SKIPPED: &str = "SKIPPED:";

/// What a backend made of a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Kept,
    Broken,
    Skipped,
}

type Table = BTreeMap<String, BTreeMap<String, Found>>;

/// Runs the suites and prints the table; fails when a promise is broken.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut tests = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // As all tests are built, so that nothing is built twice.
    tests.current_dir(root()).args(["test", "--workspace", "--locked", "--no-fail-fast", "--test", "conformance"]);
    // One after the other, so that what is skipped stands beside the test that skips itself.
    tests.args(["--", "--test-threads=1", "--nocapture"]).stdin(Stdio::null());
    let said = in_order(tests)?;
    let mut table = Table::new();
    read(&said, &mut table);
    let backends: BTreeSet<&str> = table.values().flat_map(BTreeMap::keys).map(String::as_str).collect();
    anyhow::ensure!(BACKENDS.iter().all(|backend| backends.contains(backend)), "not all suites ran:\n{said}");
    println!("{}", text(&table));
    let broken = table.values().flat_map(BTreeMap::values).filter(|found| **found == Found::Broken).count();
    anyhow::ensure!(broken == 0, "{broken} promises are broken");
    Ok(())
}

/// All that a command says, on stdout and on stderr, in the order in which it says it.
fn in_order(mut command: Command) -> anyhow::Result<String> {
    let (mut reader, writer) = std::io::pipe()?;
    let mut child = command.stdout(writer.try_clone()?).stderr(writer).spawn()?;
    // It holds the pipe's other end; with it, this would wait for ever.
    drop(command);
    let mut said = Vec::new();
    reader.read_to_end(&mut said)?;
    child.wait()?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// Takes in what a suite said: a line `test BACKEND::PORT::CHECK ... ok`, in which other output may stand before the end.
fn read(said: &str, table: &mut Table) {
    for part in said.split("\ntest ").skip(1) {
        let Some((name, rest)) = part.split_once(" ... ") else { continue };
        let mut words = name.splitn(2, "::");
        let (Some(backend), Some(promise)) = (words.next(), words.next()) else { continue };
        if !BACKENDS.contains(&backend) || !promise.contains("::") {
            continue;
        }
        let found = match rest {
            _ if rest.contains(SKIPPED) => Found::Skipped,
            _ if rest.split_whitespace().any(|word| word == "ok") => Found::Kept,
            _ => Found::Broken,
        };
        table.entry(promise.to_owned()).or_default().insert(backend.to_owned(), found);
    }
}

fn text(table: &Table) -> String {
    let there: BTreeSet<&str> = table.values().flat_map(BTreeMap::keys).map(String::as_str).collect();
    let backends: Vec<&str> = BACKENDS.into_iter().filter(|backend| there.contains(backend)).collect();
    let mut text = format!("{:56}", "PROMISE");
    backends.iter().for_each(|backend| text += &format!(" {backend:>10}"));
    for (promise, found) in table {
        text += &format!("\n{promise:56}");
        for backend in &backends {
            let word = match found.get(*backend) {
                Some(Found::Kept) => "kept",
                Some(Found::Broken) => "BROKEN",
                Some(Found::Skipped) => "skipped",
                None => "-",
            };
            text += &format!(" {word:>10}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_suites_say_becomes_a_table() {
        let mut table = Table::new();
        let said = "running 4 tests\ntest memory::queue::turns ... ok\ntest disk::queue::turns ... \nthread panicked\nFAILED\n\
            test account::queue::turns ... \nSKIPPED: no account\nok\ntest other ... ok\n";
        read(said, &mut table);
        let found = &table["queue::turns"];
        assert_eq!(table.len(), 1);
        assert_eq!((found["memory"], found["disk"], found["account"]), (Found::Kept, Found::Broken, Found::Skipped));
        let text = text(&table);
        assert!(text.contains("memory") && text.contains("BROKEN") && !text.contains("dynoxide"), "{text}");
    }
}
