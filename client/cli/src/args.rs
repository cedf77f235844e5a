//! The command line: its grammar, and which module does what.

use clap::{Args, Parser, Subcommand};

use crate::{
    commands,
    exit::Exit,
    problem::Outcome,
    settings::{Flags, Settings},
};

/// Sheaf, a serverless compute grid: run any number of tasks, each to exactly one outcome.
///
/// Without more ado the grid is this machine: it lies in a data directory, and whichever command runs tasks is its worker.
/// `sheaf up` keeps it running and watches a folder for files. --grid picks another.
#[derive(Debug, Parser)]
#[command(name = "sheaf", version, max_term_width = 100, after_long_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// What applies to every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Jobs are named `last`, `last-2`, by their id (job_…) or its first digits; tasks by job, chunk and index: `last/0/3`.

Exit codes, also when the job was already over:
  0    everything succeeded
  1    it could not be done
  2    the arguments make no sense
  3    some tasks failed, expired or were quarantined
  4    the job was cancelled
  5    the job was not over in the time given
  130  Ctrl-C; the job goes on";

/// What applies to every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The grid: a URL, a data directory, `memory`, or aws:NAME for one on AWS without its API [env: SHEAF_GRID]
    #[arg(long, global = true, value_name = "URL|DIR|memory|aws:NAME", help_heading = "Global options")]
    pub(crate) grid: Option<String>,
    /// How stdout is formatted: table, json, ndjson or id [env: SHEAF_OUTPUT]
    #[arg(short, long, global = true, value_name = "FORMAT", help_heading = "Global options")]
    pub(crate) output: Option<String>,
    /// Show no progress bar, even on a terminal
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) no_progress: bool,
    /// Show what lies behind an error
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) debug: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(commands::run::Run),
    Up(commands::up::Up),
    Submit(commands::submit::Submit),
    Wait(commands::wait::Wait),
    Watch(commands::watch::Watch),
    Explain(commands::explain::Explain),
    Logs(commands::logs::Logs),
    Results(commands::results::Results),
    Cost(commands::cost::Cost),
    Bench(commands::bench::Bench),
    Plan(commands::plan::Plan),
    Simulate(commands::simulate::Simulate),
    Control(commands::control::Control),
    /// Jobs: list, info, cancel, retry, events, report, seal
    #[command(subcommand)]
    Job(commands::job::Job),
    /// Tasks: list, info
    #[command(subcommand)]
    Task(commands::task::Task),
    /// Workers: start, list, info
    #[command(subcommand)]
    Worker(commands::worker::Worker),
    /// Functions: list, add, info
    #[command(subcommand)]
    Function(commands::function::Function),
    Doctor(commands::doctor::Doctor),
    Config(commands::config::Config),
    Completions(commands::completions::Completions),
}

impl Command {
    /// Settings that the command's own flags give.
    pub(crate) fn flags(&self) -> Flags {
        match self {
            Self::Run(run) => run.flags(),
            Self::Up(up) => up.flags(),
            Self::Worker(worker) => worker.flags(),
            _ => Flags::default(),
        }
    }

    /// What is logged unless something else is asked for: what goes wrong, of a command that runs for long by itself.
    pub(crate) const fn log_default(&self) -> Option<&'static str> {
        match self {
            Self::Worker(commands::worker::Worker::Start(_)) => Some("warn"),
            _ => None,
        }
    }

    /// Does it.
    pub(crate) async fn run(self, settings: &Settings) -> Outcome<Exit> {
        match self {
            Self::Run(run) => Box::pin(run.run(settings)).await,
            Self::Up(up) => Box::pin(up.run(settings)).await,
            Self::Submit(submit) => Box::pin(submit.run(settings)).await,
            Self::Wait(wait) => Box::pin(wait.run(settings)).await,
            Self::Watch(watch) => Box::pin(watch.run(settings)).await,
            Self::Explain(explain) => Box::pin(explain.run(settings)).await,
            Self::Logs(logs) => Box::pin(logs.run(settings)).await,
            Self::Results(results) => Box::pin(results.run(settings)).await,
            Self::Cost(cost) => Box::pin(cost.run(settings)).await,
            Self::Bench(bench) => Box::pin(bench.run(settings)).await,
            Self::Plan(plan) => plan.run(settings),
            Self::Simulate(simulate) => simulate.run(settings),
            Self::Control(control) => Box::pin(control.run(settings)).await,
            Self::Job(job) => Box::pin(job.run(settings)).await,
            Self::Task(task) => Box::pin(task.run(settings)).await,
            Self::Worker(worker) => Box::pin(worker.run(settings)).await,
            Self::Function(function) => Box::pin(function.run(settings)).await,
            Self::Doctor(doctor) => Box::pin(doctor.run(settings)).await,
            Self::Config(config) => config.run(settings),
            Self::Completions(completions) => completions.run(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::{fmt::Write, path::Path};

    use clap::CommandFactory;

    use super::*;

    /// The help of a command and of those below it, as a section of a page.
    fn section(page: &mut String, command: &mut clap::Command, level: usize) {
        let hidden = |id: &str| matches!(id, "grid" | "output" | "no_progress" | "debug");
        let mut shown = command
            .clone()
            .mut_args(|arg| if level > 1 && hidden(arg.get_id().as_str()) { arg.hide(true) } else { arg });
        let help = shown.render_long_help().to_string();
        let help: Vec<_> = help.lines().map(str::trim_end).collect();
        let name = command.get_bin_name().unwrap_or("sheaf").to_owned();
        writeln!(page, "\n{} `{name}`\n\n```text\n{}\n```", "#".repeat(level), help.join("\n").trim()).unwrap();
        for below in command.get_subcommands_mut().filter(|below| below.get_name() != "help") {
            section(page, below, (level + 1).min(3));
        }
    }

    #[test]
    fn the_reference_is_that_of_this_build() {
        let mut command = Cli::command().term_width(100).disable_help_subcommand(true);
        command.build();
        let mut page =
            "<!-- Written by `UPDATE_DOCS=1 cargo test -p sheaf-cli reference`; do not edit. -->\n".to_owned();
        section(&mut page, &mut command, 1);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
        if std::env::var("UPDATE_DOCS").is_ok_and(|update| update == "1") {
            std::fs::write(&path, &page).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == page,
            "docs/cli.md is not that of this build: UPDATE_DOCS=1 cargo test -p sheaf-cli reference"
        );
    }

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }
}
