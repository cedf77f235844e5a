//! Compares embedded stores on the load of the grid: what a broker would
//! write, make durable, read back and delete per chunk.
//!
//! A chunk costs one durable submission (payload blob, state, index), one
//! lease (state, index moved; handed to the system, not synced) and one durable
//! completion (result blob, state, index removed, summary); each blob is read
//! once. Every run is a child process of its own that is killed with SIGKILL
//! at its end; a second child opens what is left, checks it and takes the time.
//! Stores alternate within each round; the table gives median (least–most).
//!
//! All stores and group sizes, three rounds:
//!
//! ```text
//! cargo run --release -- table --dir <scratch directory> --rounds 3
//! ```
//!
//! Chunks of one small task:
//!
//! ```text
//! cargo run --release -- table --dir <scratch directory> --chunks 500000 \
//!     --payload 64 --result 64 --groups 256
//! ```
//!
//! Deleting the blobs of finished jobs, and what becomes of the space:
//!
//! ```text
//! cargo run --release -- deletion --store fjall-kvsep --dir <scratch directory>
//! ```

mod load;
mod store;

use std::{
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};

use crate::{
    load::{JOBS, Shape},
    store::{Kind, Tuning},
};

#[derive(Parser)]
#[command(about = "Compares embedded stores on the load of the grid")]
struct Cli {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Run every store at every group size and print the table.
    Table {
        #[arg(long = "store", value_delimiter = ',', default_values = ["fjall", "fjall-kvsep", "files+fjall", "redb", "sqlite"])]
        stores: Vec<Kind>,
        #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16, 64])]
        groups: Vec<u64>,
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        #[command(flatten)]
        common: Common,
    },
    /// One run; prints its figures, then waits to be killed.
    Run(One),
    /// Open what a run left behind and check it.
    Reopen(One),
    /// Load, then delete the blobs of half the jobs, then of all.
    Deletion(One),
}

#[derive(Args, Clone)]
struct Common {
    /// Scratch directory; stores are created below it and removed.
    #[arg(long)]
    dir: PathBuf,
    #[arg(long, default_value_t = 4000)]
    chunks: u64,
    #[arg(long, default_value_t = 68 << 10)]
    payload: usize,
    #[arg(long, default_value_t = 72 << 10)]
    result: usize,
    /// fjall: most MiB of journals before idle keyspaces are flushed.
    #[arg(long, default_value_t = 128)]
    journal_mb: u64,
    /// fjall: MiB of the memtable of the blobs.
    #[arg(long, default_value_t = 64)]
    memtable_mb: u64,
    /// fjall: MiB of the memtable of each other keyspace.
    #[arg(long, default_value_t = 16)]
    state_memtable_mb: u64,
    /// fjall: threads that flush and compact.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// files+fjall: give a new segment file its length at once.
    #[arg(long)]
    preallocate: bool,
}

impl Common {
    fn shape(&self, group: u64) -> Shape {
        Shape { chunks: self.chunks, payload: self.payload, result: self.result, group }
    }

    fn tuning(&self) -> Tuning {
        Tuning {
            journal_mb: self.journal_mb,
            memtable_mb: self.memtable_mb,
            state_memtable_mb: self.state_memtable_mb,
            workers: self.workers,
            preallocate: self.preallocate,
        }
    }
}

#[derive(Args, Clone)]
struct One {
    #[arg(long)]
    store: Kind,
    #[arg(long, default_value_t = 64)]
    group: u64,
    #[command(flatten)]
    common: Common,
}

/// Names of the figures of one run, in the order they are printed and parsed.
const FIGURES: [&str; 9] =
    ["chunks/s", "p50 ms", "p99 ms", "max ms", "MB written", "RSS MB", "CPU s", "MB on disk", "reopen ms"];

fn main() -> Result<()> {
    match Cli::parse().command {
        What::Table { stores, groups, rounds, common } => table(&stores, &groups, rounds, &common),
        What::Run(one) => run(&one),
        What::Reopen(one) => reopen(&one),
        What::Deletion(one) => deletion(&one),
    }
}

fn run(one: &One) -> Result<()> {
    let shape = one.common.shape(one.group);
    let mut store = store::open(one.store, &one.common.dir, one.common.tuning())?;
    let outcome = load::run(store.as_mut(), &shape)?;
    let at = |share: f64| {
        let position = ((outcome.commits.len() - 1) as f64 * share) as usize;
        outcome.commits[position].as_secs_f64() * 1e3
    };
    eprintln!("  {:?} group {}: {}", one.store, one.group, store.note());
    println!(
        "{:.1} {:.3} {:.3} {:.1} {} {} {:.2}",
        shape.chunks as f64 / outcome.seconds,
        at(0.5),
        at(0.99),
        at(1.0),
        outcome.written_mb,
        outcome.peak_rss_mb,
        outcome.cpu_seconds,
    );
    // The parent kills this process here; nothing may be closed in order.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn reopen(one: &One) -> Result<()> {
    let start = Instant::now();
    let store = store::open(one.store, &one.common.dir, one.common.tuning())?;
    let opened = start.elapsed();
    load::verify(store.as_ref(), &one.common.shape(one.group))?;
    println!("{:.1}", opened.as_secs_f64() * 1e3);
    Ok(())
}

/// Starts this program again; `kill` ends it with SIGKILL once it has printed its line.
fn child(verb: &str, one: &One, kill: bool) -> Result<String> {
    let value = clap::ValueEnum::to_possible_value(&one.store).context("hidden store")?;
    let mut process = Command::new(std::env::current_exe()?)
        .args([verb, "--store", value.get_name()])
        .args(["--group", &one.group.to_string()])
        .args(["--chunks", &one.common.chunks.to_string()])
        .args(["--payload", &one.common.payload.to_string()])
        .args(["--result", &one.common.result.to_string()])
        .args(["--journal-mb", &one.common.journal_mb.to_string()])
        .args(["--memtable-mb", &one.common.memtable_mb.to_string()])
        .args(["--state-memtable-mb", &one.common.state_memtable_mb.to_string()])
        .args(["--workers", &one.common.workers.to_string()])
        .args(one.common.preallocate.then_some("--preallocate"))
        .arg("--dir")
        .arg(&one.common.dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(process.stdout.take().context("no output")?).read_line(&mut line)?;
    if kill {
        process.kill()?;
    }
    process.wait()?;
    ensure!(!line.is_empty(), "{verb} of {:?} failed", one.store);
    Ok(line)
}

fn table(stores: &[Kind], groups: &[u64], rounds: usize, common: &Common) -> Result<()> {
    let mut samples = vec![Vec::new(); stores.len() * groups.len()];
    for round in 0..rounds {
        for (g, &group) in groups.iter().enumerate() {
            for s in 0..stores.len() {
                // Another store goes first in every round.
                let s = (s + round) % stores.len();
                let mut common = common.clone();
                common.dir = common.dir.join("store-comparison");
                if common.dir.exists() {
                    std::fs::remove_dir_all(&common.dir)?;
                }
                let one = One { store: stores[s], group, common };
                let line = child("run", &one, true)?;
                let mut figures: Vec<f64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
                figures.push((load::disk_bytes(&one.common.dir)? >> 20) as f64);
                figures.push(child("reopen", &one, false)?.trim().parse()?);
                eprintln!("  round {round} {:?} group {group}: {figures:?}", stores[s]);
                samples[g * stores.len() + s].push(figures);
                std::fs::remove_dir_all(&one.common.dir)?;
            }
        }
    }
    println!("| store | group | {} |", FIGURES.join(" | "));
    println!("|---|---|{}", "---|".repeat(FIGURES.len()));
    for (index, runs) in samples.iter().enumerate() {
        let (group, store) = (groups[index / stores.len()], stores[index % stores.len()]);
        let cells: Vec<String> = (0..FIGURES.len()).map(|figure| spread(runs, figure)).collect();
        println!("| {store:?} | {group} | {} |", cells.join(" | "));
    }
    Ok(())
}

fn spread(runs: &[Vec<f64>], figure: usize) -> String {
    let mut values: Vec<f64> = runs.iter().map(|run| run[figure]).collect();
    values.sort_unstable_by(f64::total_cmp);
    let (least, median, most) = (values[0], values[values.len() / 2], values[values.len() - 1]);
    let digits = if median < 10.0 { 2 } else { 0 };
    format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
}

fn deletion(one: &One) -> Result<()> {
    let dir = &one.common.dir;
    let mut store = store::open(one.store, dir, one.common.tuning())?;
    load::run(store.as_mut(), &one.common.shape(one.group))?;
    thread::sleep(Duration::from_secs(1));
    let report = |label: &str, took: Duration, store: &dyn store::Store| -> Result<()> {
        println!(
            "{:?} | {label} | {:.0} ms | {} MB on disk | {}",
            one.store,
            took.as_secs_f64() * 1e3,
            load::disk_bytes(dir)? >> 20,
            store.note()
        );
        Ok(())
    };
    report("loaded", Duration::ZERO, store.as_ref())?;
    for (label, jobs) in [("half the jobs", 0..JOBS / 2), ("the other half", JOBS / 2..JOBS)] {
        let start = Instant::now();
        let mut deleted = 0;
        for job in jobs {
            deleted += store.delete_blobs(&load::job_prefix(job))?;
        }
        report(&format!("{label} deleted, {deleted} blobs"), start.elapsed(), store.as_ref())?;
        let start = Instant::now();
        thread::sleep(Duration::from_secs(3));
        report("3 s idle", start.elapsed(), store.as_ref())?;
        let start = Instant::now();
        store.reclaim()?;
        report("reclaim 1", start.elapsed(), store.as_ref())?;
        let start = Instant::now();
        store.reclaim()?;
        report("reclaim 2", start.elapsed(), store.as_ref())?;
    }
    Ok(())
}
