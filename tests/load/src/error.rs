//! What can go wrong with a measurement, apart from its results.

use std::path::PathBuf;

use sheaf::GridError;
use sheaf_charts::ChartError;

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A scenario that cannot be run as it stands.
    #[error("the scenario {place}: {wrong}")]
    Scenario {
        /// Its file or name.
        place: String,
        /// What is wrong with it.
        wrong: String,
    },
    /// No built-in scenario has this name.
    #[error("there is no scenario {name:?}; there are {known}")]
    NoScenario {
        /// What was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A file cannot be used.
    #[error("{} cannot be {doing}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A file is no report of this harness, or of another version of it.
    #[error("{} is not a report that this version reads: {wrong}", path.display())]
    Report {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        wrong: String,
    },
    /// The grid failed, or could not be reached.
    #[error(transparent)]
    Grid(#[from] GridError),
    /// The grid's process could not be started, or ended too soon.
    #[error("{} did not start: {wrong}", program.display())]
    Process {
        /// What was started.
        program: PathBuf,
        /// What came of it.
        wrong: String,
    },
    /// The tasks' function is not there.
    #[error(
        "the grid at {place} is not on this machine, and the tasks' function is: give --function NAME, one of its own"
    )]
    NoFunction {
        /// The grid.
        place: String,
    },
    /// This process could not go on as a function's child.
    #[error("serving as a function's child process failed: {wrong}")]
    Served {
        /// Why.
        wrong: String,
    },
    /// It took longer than the scenario allows.
    #[error("{name} was not over after {timeout_s} s; {done} of {submitted} tasks had come back")]
    TimedOut {
        /// The scenario.
        name: String,
        /// What it allows.
        timeout_s: u64,
        /// How many came back.
        done: u64,
        /// Of how many.
        submitted: u64,
    },
    /// This machine does not let us look at a process.
    #[error("process {pid} cannot be looked at: {wrong}")]
    Unseen {
        /// The process.
        pid: u32,
        /// Why not.
        wrong: String,
    },
    /// A chart of a page could not be drawn.
    #[error(transparent)]
    Chart(#[from] ChartError),
}
