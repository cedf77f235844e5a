//! The `sheaf` command.
//!
//! `args` is its grammar, `commands` holds a module per noun or verb. What they share: `connect` (the way to the grid),
//! `settings` (what was set where), `output` (what goes to stdout), `problem` (what went wrong), `wait` and `progress`
//! (what one sees meanwhile), `functions_file` (functions out of a `functions.toml`), `bags` (the files of plan and simulate).
//! Nothing here decides anything about jobs: every command is some calls of [`sheaf_api::Api`], or
//! of [`sheaf_scheduler`].

mod answers;
mod args;
mod bags;
mod commands;
mod connect;
mod exit;
mod feed;
mod functions_file;
mod input;
mod output;
mod problem;
mod progress;
mod select;
mod serve;
mod settings;
mod text;
mod wait;

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use sheaf_api::Code;

use crate::{
    args::Cli,
    exit::Exit,
    problem::{Outcome, Problem},
    settings::Settings,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let debug = cli.global.debug;
    match start(cli) {
        Ok(exit) => exit.into(),
        Err(problem) if problem.is_broken_pipe() => Exit::Succeeded.into(),
        Err(problem) => {
            problem.report(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(), debug);
            problem.exit().into()
        }
    }
}

fn start(cli: Cli) -> Outcome {
    let settings = Settings::load(&cli.global, cli.command.flags())?;
    start_log(settings.log.as_deref().or(cli.command.log_default()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        Problem::new(Code::Internal, "the threads of this process cannot be started").with_source(error)
    })?;
    let outcome = runtime.block_on(cli.command.run(&settings));
    // A thread that reads a terminal or a pipe may never come back.
    runtime.shutdown_background();
    outcome
}

/// Logs to stderr what `SHEAF_LOG` asks for; by default nothing, but where a command says otherwise.
fn start_log(filter: Option<&str>) -> Outcome<()> {
    let Some(filter) = filter else { return Ok(()) };
    let filter = tracing_subscriber::EnvFilter::try_new(filter).map_err(|error| {
        Problem::usage(format!("SHEAF_LOG is {filter:?}, which is no filter"))
            .with_hint("give a level such as info, or a list such as sheaf_local=debug,warn")
            .with_source(error)
    })?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    Ok(())
}
