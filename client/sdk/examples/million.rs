//! A million tasks through a grid in this process: each submitted, run and read back once, and every result checked.
//!
//! ```text
//! cargo run --release -p sheaf-sdk --example million -- --tasks 1000000
//! ```

use std::{
    error::Error,
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use sheaf::ChunkResults;

/// No-op tasks: how many a second, from the first submitted to the last result read.
#[derive(Parser)]
struct Arguments {
    /// How many tasks.
    #[arg(long, short = 'n', default_value_t = 1_000_000)]
    tasks: u64,
    /// Size of a payload and of its result; at least 8, for the task's number.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(8..))]
    payload_bytes: u64,
    /// The data directory; a temporary one by default.
    #[arg(long, conflicts_with = "memory")]
    directory: Option<PathBuf>,
    /// Keep everything in memory.
    #[arg(long)]
    memory: bool,
    /// Acknowledge before it would survive a power cut.
    #[arg(long)]
    not_durable: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let temporary = tempfile::tempdir()?;
    let directory = arguments.directory.clone().unwrap_or_else(|| temporary.path().join("grid"));
    let grid = sheaf::builder()
        .memory(arguments.memory)
        .directory(directory)
        .durable(!arguments.not_durable)
        .connect()
        .await?;
    let noop = grid
        .handler_raw("noop", |payload, result| {
            result.extend_from_slice(payload);
            Ok(())
        })
        .await?;

    let bar = ProgressBar::new(arguments.tasks);
    bar.set_style(ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} {per_sec} {eta}")?);
    bar.enable_steady_tick(Duration::from_millis(250));
    let started = Instant::now();
    let bytes = arguments.payload_bytes as usize;
    let payloads = (0..arguments.tasks).map(move |index| payload(index, bytes));
    let mut results = grid.job("million").map(&noop, payloads).start().await?;
    let mut checked = Checked::new(arguments.tasks, bytes);
    while let Some(chunk) = results.next_chunk().await {
        let chunk = chunk?;
        checked.take(&chunk)?;
        bar.inc(chunk.len() as u64);
    }
    let seconds = started.elapsed().as_secs_f64();
    bar.finish_and_clear();
    checked.finish()?;
    println!(
        "{} tasks of {bytes} bytes, each run and read once: {seconds:.3} s, {:.0} tasks/s ({})",
        arguments.tasks,
        arguments.tasks as f64 / seconds,
        grid.info().await?.backend,
    );
    grid.close().await;
    Ok(())
}

/// A task's payload: its number, then filling that depends on it.
fn payload(index: u64, bytes: usize) -> Vec<u8> {
    let mut payload = vec![index as u8 ^ 0x5a; bytes];
    payload[..8].copy_from_slice(&index.to_le_bytes());
    payload
}

/// Which tasks have come back.
struct Checked {
    seen: Vec<u64>,
    left: u64,
    bytes: usize,
}

impl Checked {
    fn new(tasks: u64, bytes: usize) -> Self {
        Self { seen: vec![0; tasks.div_ceil(64) as usize], left: tasks, bytes }
    }

    /// Checks each result: of a task that was submitted, for the first time, with the bytes that were sent.
    fn take(&mut self, chunk: &ChunkResults<sheaf::Bytes>) -> Result<(), String> {
        for (index, outcome) in chunk.raw() {
            let result = outcome.map_err(|error| format!("task {index}: {error}"))?;
            let (number, filling) = result.split_at_checked(8).ok_or_else(|| format!("task {index}: {result:?}"))?;
            let right = number == index.to_le_bytes()
                && result.len() == self.bytes
                && filling.iter().all(|&byte| byte == index as u8 ^ 0x5a);
            let word = self.seen.get_mut(index as usize / 64).ok_or_else(|| format!("there is no task {index}"))?;
            let bit = 1 << (index % 64);
            if !right || *word & bit != 0 {
                return Err(format!(
                    "task {index} came {} right: {right}",
                    if *word & bit == 0 { "once," } else { "twice," }
                ));
            }
            *word |= bit;
            self.left -= 1;
        }
        Ok(())
    }

    fn finish(self) -> Result<(), String> {
        if self.left == 0 { Ok(()) } else { Err(format!("{} tasks never came back", self.left)) }
    }
}
