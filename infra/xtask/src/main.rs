//! What people repeat: setting up a machine, and checking the tree.

mod setup;
mod test;

use clap::Parser;

/// Tasks of the project.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Install what the tests need: PostgreSQL, ffmpeg, and Python packages in a venv of their own.
    Setup,
    /// Set up, then run every check and test; counts what had to be skipped.
    Test {
        /// Only the tests: neither the format nor the lints are checked.
        #[arg(long)]
        no_lints: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Task::parse() {
        Task::Setup => setup::run().map(|_| ()),
        Task::Test { no_lints } => test::run(!no_lints),
    }
}
