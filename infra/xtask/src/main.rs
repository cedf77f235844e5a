//! What people repeat: setting up a machine, and checking the tree.

mod fuzz;
mod setup;
mod test;

use std::time::Duration;

use clap::Parser;

/// Tasks of the project.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Install what the tests need: PostgreSQL, ffmpeg, strace, and Python packages in venvs of their own.
    Setup,
    /// Set up, then run every check and test; counts what had to be skipped.
    Test {
        /// Only the tests: neither the format nor the lints are checked.
        #[arg(long)]
        no_lints: bool,
        /// Seconds of fuzzing, all targets together; 0 for none.
        #[arg(long, default_value_t = 60)]
        fuzz_seconds: u64,
    },
    /// Run the fuzz targets of tests/fuzz, and say what each of them did; fails when one has crashed.
    Fuzz {
        /// Seconds, all targets together.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Only these targets.
        targets: Vec<String>,
    },
}

fn main() -> anyhow::Result<()> {
    match Task::parse() {
        Task::Setup => setup::run().map(|_| ()),
        Task::Test { no_lints, fuzz_seconds } => test::run(!no_lints, Duration::from_secs(fuzz_seconds)),
        Task::Fuzz { seconds, targets } => {
            let fuzzed = fuzz::run(Duration::from_secs(seconds), &targets)?;
            anyhow::ensure!(fuzzed.failed == 0, "there are crashes above; their inputs are in tests/fuzz/artifacts");
            Ok(())
        }
    }
}
