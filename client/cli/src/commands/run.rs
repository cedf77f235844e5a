//! `sheaf run`: files of commands, or one command many times.

use std::path::PathBuf;

use clap::Args;
use sheaf_core::{Priority, limits};

use crate::{
    commands::{run_command, run_files},
    connect::{Need, Session},
    exit::Exit,
    functions_file::{self, FunctionsFile, Prepared},
    input::InputArgs,
    problem::{Outcome, Problem},
    settings::{Flags, Settings},
    text,
};

/// Run files of commands, or one command many times, and print the results
///
/// sheaf run FILE… runs command files (.json), NDJSON and CSV files, and prints a line per command: its id and its result. With
/// -o json, ndjson or id it prints a report per file instead.
///
/// sheaf run -- CMD ARGS… runs a program once per line of --lines (or stdin, if an argument holds {}), per number of --array, or
/// just once, and prints what it prints, in order. {} in an argument stands for the line, {name} for a member of a line that
/// is a JSON object; without either the line comes on stdin. CMD itself is found from here, as in a shell. It starts in a
/// scratch directory of its own, with PATH and the variables of --env: give the files it reads by absolute paths.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Files of commands
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The program to run and its arguments
    #[arg(last = true, value_name = "CMD", conflicts_with_all = ["files", "functions", "out", "function"])]
    command: Vec<String>,
    /// Declare the functions of this file first; without it, those of functions.toml beside the first FILE or here
    #[arg(long, value_name = "FILE")]
    functions: Vec<PathBuf>,
    /// Runs the commands of FILE that name no function
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// Write the results of each FILE into this directory instead of stdout
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    pub(super) limits: run_command::Limits,
    /// How urgent: high, normal or low
    #[arg(long, default_value_t)]
    priority: Priority,
    /// How often a task is tried if its function reports an error; 1 by default
    #[arg(long, value_name = "TIMES", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::TASK_ATTEMPTS_MAX)))]
    max_attempts: Option<u32>,
    /// How many tasks an embedded grid runs at once; as many as there are processors by default
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    slots: Option<u32>,
}

impl Run {
    pub(crate) fn flags(&self) -> Flags {
        Flags { slots: self.slots, ..Flags::default() }
    }

    pub(crate) async fn run(self, settings: &Settings) -> Outcome {
        if !self.command.is_empty() {
            let job = run_command::Job { priority: self.priority, max_attempts: self.max_attempts };
            return run_command::run(settings, &self.command, &self.input, &self.limits, job).await;
        }
        if self.files.is_empty() {
            return Err(Problem::usage("nothing is named to run")
                .with_hint("give files of commands, or -- and a program: sheaf run -- echo hello"));
        }
        if !self.input.is_empty() || !self.limits.are_default() {
            return Err(Problem::usage(
                "--lines, --array, --ndjson, --csv, --env, --timeout and --memory are for -- CMD",
            )
            .with_hint("`sheaf submit` runs a function over lines or a range"));
        }
        let mut prepared = Vec::new();
        for file in self.functions_files() {
            prepared.extend(FunctionsFile::read(&file)?.prepare(&[])?);
        }
        let session = Session::open(settings, Need::Run).await?;
        let outcome = self.files(&session, settings, prepared).await;
        super::wait::end(session, outcome).await
    }

    async fn files(&self, session: &Session, settings: &Settings, functions: Vec<Prepared>) -> Outcome {
        for function in functions {
            function.declare(session.api()).await?;
        }
        let options = sheaf_local::files::FileOptions {
            function: self.function.clone(),
            max_attempts: self.max_attempts,
            priority: self.priority,
            ..Default::default()
        };
        run_files::run(session, settings, &self.files, &options, self.out.as_deref()).await
    }

    /// Those that were given, or else the one beside the first file, or else the one here.
    fn functions_files(&self) -> Vec<PathBuf> {
        if !self.functions.is_empty() {
            return self.functions.clone();
        }
        let beside = self.files.first().and_then(|file| Some(file.parent()?.join(functions_file::NAME)));
        let here = PathBuf::from(functions_file::NAME);
        beside.into_iter().chain([here]).find(|file| file.is_file()).into_iter().collect()
    }
}

/// The worse of two answers, where one may be that there is none.
pub(super) fn worse(exit: Exit, other: &Outcome) -> Exit {
    exit.and(other.as_ref().map_or(Exit::Failed, |other| *other))
}

/// Reads `--memory`.
pub(super) fn parse_memory(text: &str) -> Result<u64, String> {
    text::parse_bytes(text)
}
