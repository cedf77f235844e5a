//! Runs the fuzz targets of `tests/fuzz`, each for a while over its seeds and what earlier runs have found.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context;

use crate::{
    checked::Checked,
    setup::{root, succeed},
};

/// The release that the targets were written with.
const CARGO_FUZZ: &str = "0.13.2";
/// One allocation, in MiB: the largest pack there may be, and its frame. Fuzzed input is of some KB.
const MALLOC_MIB_MAX: u32 = 272;
/// All memory of a target, in MiB, that of the sanitizer included.
const RSS_MIB_MAX: u32 = 2_048;

/// Fuzzes every target, or those named, all of them together for so long; the build takes its own time.
pub(crate) fn run(total: Duration, only: &[String]) -> anyhow::Result<Checked> {
    let mut checked = Checked::default();
    let cargo_fuzz = match CargoFuzz::find() {
        Ok(cargo_fuzz) => cargo_fuzz,
        Err(error) => {
            checked.skip(&format!("all fuzz targets: cargo-fuzz cannot be had: {error:#}"));
            return Ok(checked);
        }
    };
    let mut targets = targets()?;
    if let Some(unknown) = only.iter().find(|name| !targets.contains(name)) {
        anyhow::bail!("there is no fuzz target {unknown}; there are {}", targets.join(", "));
    }
    targets.retain(|target| only.is_empty() || only.contains(target));
    succeed(cargo_fuzz.command("build").stdout(Stdio::null()))?;
    // What is over is spread: a share is whole seconds, and none is nothing.
    let seconds = (total.as_secs() / targets.len() as u64).max(1);
    println!(
        "{:16} {:>12} {:>9} {:>8} {:>9}  each for {seconds} s",
        "TARGET", "EXECUTIONS", "EXEC/S", "CORPUS", "COVERAGE"
    );
    for target in &targets {
        let found = cargo_fuzz.fuzz(target, seconds)?;
        println!("{:16} {}", target, found.line());
        if found.ended_well {
            checked.passed += 1;
        } else {
            println!("{}", found.said);
            checked.fail(format!("the fuzz target {target}"));
        }
    }
    checked.sum_up("fuzz targets");
    Ok(checked)
}

/// The targets, by name: those that the manifest names.
fn targets() -> anyhow::Result<Vec<String>> {
    let folder = folder().join("targets");
    let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut targets: Vec<String> =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".rs")?.to_owned())).collect();
    targets.sort();
    anyhow::ensure!(!targets.is_empty(), "there are no targets in {}", folder.display());
    Ok(targets)
}

fn folder() -> PathBuf {
    root().join("tests/fuzz")
}

/// The program, wherever it is.
struct CargoFuzz {
    program: PathBuf,
}

impl CargoFuzz {
    /// Finds it on the PATH or where an earlier run has put it; else installs it there.
    fn find() -> anyhow::Result<Self> {
        let tools = root().join("target/tools");
        let own = tools.join("bin/cargo-fuzz");
        for program in [PathBuf::from("cargo-fuzz"), own.clone()] {
            let version = Command::new(&program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            if version.is_ok_and(|status| status.success()) {
                return Ok(Self { program });
            }
        }
        println!("installing cargo-fuzz {CARGO_FUZZ}");
        let mut install = cargo();
        install.args(["install", "--quiet", "--locked", "cargo-fuzz", "--version", CARGO_FUZZ, "--root"]).arg(&tools);
        succeed(install.env("CARGO_TARGET_DIR", tools.join("build")))?;
        Ok(Self { program: own })
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args([verb, "--fuzz-dir"]).arg(folder()).current_dir(root()).stdin(Stdio::null());
        // Sanitizers are flags that a stable compiler hides and yet ships the libraries of.
        command.env("RUSTC_BOOTSTRAP", "1").env("CARGO_TARGET_DIR", root().join("target/fuzz"));
        command
    }

    /// Runs a target. What it finds new is kept in the target folder for the next run.
    fn fuzz(&self, target: &str, seconds: u64) -> anyhow::Result<Found> {
        let (found, seeds) = (root().join("target/fuzz/corpus").join(target), folder().join("corpus").join(target));
        std::fs::create_dir_all(&found).with_context(|| found.display().to_string())?;
        let mut command = self.command("run");
        command.arg(target).arg(&found).args(Some(&seeds).filter(|seeds| seeds.is_dir()).map(Path::new));
        command.args(["--", "-print_final_stats=1", "-timeout=20"]);
        command.arg(format!("-max_total_time={seconds}"));
        command.arg(format!("-malloc_limit_mb={MALLOC_MIB_MAX}")).arg(format!("-rss_limit_mb={RSS_MIB_MAX}"));
        let output = command.output().with_context(|| format!("{command:?}"))?;
        Ok(Found::read(output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}

fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).stdin(Stdio::null());
    cargo
}

/// What a run of a target said.
struct Found {
    ended_well: bool,
    said: String,
}

impl Found {
    fn read(ended_well: bool, said: String) -> Self {
        Self { ended_well, said }
    }

    /// The word behind the last mention of a name.
    fn last(&self, name: &str) -> &str {
        let behind = self.said.rfind(name).map(|at| &self.said[at + name.len()..]);
        behind.and_then(|behind| behind.split_whitespace().next()).unwrap_or("-")
    }

    fn line(&self) -> String {
        let corpus = self.last(" corp: ").split('/').next().unwrap_or("-");
        format!(
            "{:>12} {:>9} {corpus:>8} {:>9}{}",
            self.last("stat::number_of_executed_units:"),
            self.last("stat::average_exec_per_sec:"),
            self.last(" cov: "),
            if self.ended_well { "" } else { "  FAILED" }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_says_is_read() {
        let said = "#2\tINITED cov: 5 ft: 6 corp: 1/1b exec/s: 0 rss: 40Mb\n\
            #900\tDONE   cov: 120 ft: 300 corp: 17/2048b lim: 4096 exec/s: 450 rss: 60Mb\n\
            Done 900 runs in 2 second(s)\n\
            stat::number_of_executed_units: 900\nstat::average_exec_per_sec:     450\n";
        let line = Found::read(true, said.to_owned()).line();
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["900", "450", "17", "120"]);
        let line = Found::read(false, "it did not even start".to_owned()).line();
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["-", "-", "-", "-", "FAILED"]);
    }

    #[test]
    fn every_target_is_in_the_manifest_and_has_seeds() {
        let manifest = std::fs::read_to_string(folder().join("Cargo.toml")).expect("a manifest");
        for target in targets().expect("targets") {
            assert!(manifest.contains(&format!("path = \"targets/{target}.rs\"")), "{target} is in no [[bin]]");
            let seeds = std::fs::read_dir(folder().join("corpus").join(&target)).map_or(0, Iterator::count);
            assert!(seeds > 0, "{target} has no seeds");
        }
    }
}
