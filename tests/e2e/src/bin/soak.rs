//! A grid that is killed every few seconds for a long time, while clients go on and everything is checked.
//!
//! `cargo build --release --workspace --bins && cargo run --release -p sheaf-e2e --bin soak -- --minutes 30 --every 2s`
//!
//! A real `sheaf up` is killed with SIGKILL and started again. Meanwhile plain HTTP clients, clients with the SDK, and SDK
//! clients in processes of their own, which are killed and resumed from their journals, submit tasks whose results are
//! known, and read them again and again. In the end the store is opened by `sheaf-durability audit`. Exits with 1 when
//! something acknowledged was lost, a result was wrong or changed, or a task was seen to end twice.

#[path = "../soak/mod.rs"]
mod soak;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::{Parser, Subcommand};

/// Kills a grid again and again while clients use it, and checks every result.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// For how long.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// How long the grid lives on average, as `2s` or `500ms`; each life is drawn between half and one and a half of it.
    #[arg(long, default_value = "2s", value_parser = duration)]
    every: Duration,
    /// Plain HTTP clients.
    #[arg(long, default_value_t = 2)]
    plain: u32,
    /// Clients with the SDK in this process.
    #[arg(long, default_value_t = 1)]
    sdk: u32,
    /// Clients with the SDK and a journal that are killed too.
    #[arg(long, default_value_t = 1)]
    killed: u32,
    /// Plants a bug: after some kills, the newest journal of the store is emptied. The soak must fail.
    #[arg(long)]
    plant: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A client that is killed: what the soak starts.
    #[command(hide = true)]
    Client { url: String, token_file: PathBuf, journal: PathBuf, output: PathBuf },
}

fn duration(text: &str) -> anyhow::Result<Duration> {
    let (number, unit_ms) = match text.strip_suffix("ms") {
        Some(number) => (number, 1.0),
        None => (text.strip_suffix('s').context("a number of s or ms")?, 1_000.0),
    };
    let ms = number.parse::<f64>()? * unit_ms;
    anyhow::ensure!((50.0..=3_600_000.0).contains(&ms), "50ms to 3600s");
    Ok(Duration::from_secs_f64(ms / 1_000.0))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if let Some(Command::Client { url, token_file, journal, output }) = &args.command {
        Box::pin(soak::sdk::client(url, token_file, journal, output)).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let plan = soak::Plan {
        length: Duration::from_secs_f64(args.minutes * 60.0),
        every: args.every,
        plain: args.plain,
        sdk: args.sdk,
        killed: args.killed,
        plant: args.plant,
    };
    let tally = Box::pin(soak::run(&plan)).await?;
    Ok(if tally.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
