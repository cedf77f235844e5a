//! What a task costs beside its own work, in counts: allocations, bytes written, syncs and system calls of a job of no-op
//! tasks on an embedded grid on disk, from the first task submitted to the last result read.
//!
//! Each is asserted from both sides: more is a loss, and whoever achieves less writes it down here, so that it stays so.
//! Counts of a grid depend a little on which writes happen to gather in a group; the ranges have room for that.

use std::{
    alloc::System,
    collections::BTreeMap,
    env,
    error::Error,
    io::Write,
    ops::RangeInclusive,
    path::Path,
    process::{Command, Output},
};

use libtest_mimic::{Arguments, Failed, Trial};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Tasks of the job.
const TASKS: u64 = 100_000;
/// Tasks of a chunk. Left to itself the SDK chooses by how long the tasks take, which no two runs agree on.
const CHUNK_TASKS: u32 = 1_000;
/// Bytes of each payload, and of each result, which is the same.
const TASK_BYTES: usize = 64;

/// Allocations and reallocations for 1,000 tasks, which are one chunk. Measured: 199 to 213. None is made for a task: they
/// are the buffer that grows to the size of a segment, and what the three writes of a chunk (submitted, claimed, finished)
/// take: its row, its rows in the index of due chunks, in its job's history and in the feed, each once as made here and once
/// as fjall keeps it.
const ALLOCATIONS: RangeInclusive<u64> = 185..=235;
/// Bytes written for a task, to files and pipes. Measured: 147. It is written twice: in a pack as 64 bytes of payload and 4 of
/// its offset, and in a segment as 64 bytes of result and 13 of its entry; 2 are its share of its chunk's rows.
const BYTES_WRITTEN: RangeInclusive<u64> = 146..=148;
/// Syncs for 100,000 tasks, which are 100 chunks. Measured: 21 to 44. A chunk must be durable when it is submitted and when it
/// is finished, each time in a volume and in the journal: 400, if none shared a group with another. The slower the disk, the
/// more of them share one.
const SYNCS: RangeInclusive<u64> = 6..=100;
/// System calls for 1,000 tasks, which are one chunk. Measured: 14 to 22. 5 write (a pack,
/// a segment, and rows into the journal) and 1 reads the segment; the others wake threads and let them sleep, and grow the heap.
const CALLS: RangeInclusive<u64> = 8..=35;

/// Before a directory and a number of tasks: what this program does as a process of its own.
const RUN: &str = "--run";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().collect();
    if let [_, flag, directory, tasks] = arguments.as_slice()
        && flag == RUN
    {
        return run(Path::new(directory), tasks.parse()?);
    }
    let trials = vec![
        Trial::test("allocations_and_bytes_written_for_a_task", allocations_and_bytes_written),
        Trial::test("syncs_and_system_calls_for_a_task", syncs_and_system_calls),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// Runs the job, and prints what it has cost.
#[tokio::main]
async fn run(directory: &Path, tasks: u64) -> Result<(), Box<dyn Error>> {
    let grid = sheaf::builder().directory(directory).slots(2).connect().await?;
    let noop = grid.handler_raw("noop", |payload, result| {
        result.extend_from_slice(payload);
        Ok(())
    });
    let noop = noop.await?;
    let (allocated, written) = (Region::new(ALLOCATOR), bytes_written()?);
    let payloads = (0..tasks).map(|_| [7; TASK_BYTES]);
    let mut results = grid.job("counted").chunk_tasks(CHUNK_TASKS).map(&noop, payloads).start().await?;
    let mut left = tasks;
    while let Some(result) = results.next().await {
        assert_eq!(result?.outcome.as_deref(), Ok(&[7; TASK_BYTES][..]));
        left -= 1;
    }
    assert_eq!(left, 0, "every task has come back");
    let allocated = allocated.change();
    println!("allocations {}", allocated.allocations + allocated.reallocations);
    println!("written {}", bytes_written()? - written);
    grid.close().await;
    Ok(())
}

/// Bytes that this process has handed to `write` and its kin.
fn bytes_written() -> Result<u64, Box<dyn Error>> {
    let counters = std::fs::read_to_string("/proc/self/io")?;
    let line = counters.lines().find_map(|line| line.strip_prefix("wchar: ")).ok_or("there is no wchar in it")?;
    Ok(line.parse()?)
}

fn allocations_and_bytes_written() -> Result<(), Failed> {
    if cfg!(not(target_os = "linux")) {
        return skip("bytes written are counted on Linux only");
    }
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let output = succeed(job(&mut Command::new(env::current_exe()?), directory.path(), TASKS))?;
    let output = String::from_utf8(output.stdout)?;
    let counts: BTreeMap<&str, u64> = output
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, count)| Ok((name, count.parse()?)))
        .collect::<Result<_, std::num::ParseIntError>>()?;
    let expected = [
        ("allocations for 1,000 tasks", counts["allocations"] / (TASKS / 1_000), ALLOCATIONS),
        ("bytes written for a task", counts["written"] / TASKS, BYTES_WRITTEN),
    ];
    check(expected)
}

/// Under strace, without what opening and closing a grid and a job costs: those of a job without tasks are taken off.
fn syncs_and_system_calls() -> Result<(), Failed> {
    if let Some(reason) = no_strace() {
        return skip(&reason);
    }
    let (empty, full) = (calls(0)?, calls(TASKS)?);
    let of = |calls: &BTreeMap<String, u64>, is: fn(&str) -> bool| -> u64 {
        calls.iter().filter(|(name, _)| is(name)).map(|(_, calls)| calls).sum()
    };
    let more = |is| of(&full, is).saturating_sub(of(&empty, is));
    for (name, calls) in &full {
        println!("{name} {calls}, of which {} without tasks", empty.get(name).unwrap_or(&0));
    }
    let expected = [
        (
            "syncs for 100,000 tasks",
            more(|name| matches!(name, "fsync" | "fdatasync" | "sync_file_range" | "msync")),
            SYNCS,
        ),
        ("system calls for 1,000 tasks", more(|_| true) / (TASKS / 1_000), CALLS),
    ];
    check(expected)
}

/// How often a run with so many tasks makes each system call.
fn calls(tasks: u64) -> Result<BTreeMap<String, u64>, Failed> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let table = directory.path().join("calls");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-o"]).arg(&table).arg(env::current_exe()?);
    succeed(job(&mut strace, &directory.path().join("grid"), tasks))?;
    // Columns: % time, seconds, µs per call, calls, errors (may be empty), name.
    let row = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (name, calls) = (columns.last()?, columns.get(3)?.parse().ok()?);
        (*name != "total").then(|| ((*name).to_owned(), calls))
    };
    Ok(std::fs::read_to_string(&table)?.lines().filter_map(row).collect())
}

fn job<'a>(command: &'a mut Command, directory: &Path, tasks: u64) -> &'a mut Command {
    command.arg(RUN).arg(directory).arg(tasks.to_string())
}

fn succeed(command: &mut Command) -> Result<Output, Failed> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(output);
    }
    Err(format!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}

/// Why nothing can be traced here, if so.
fn no_strace() -> Option<String> {
    match Command::new("strace").args(["-f", "-c", "-o", "/dev/null", "true"]).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("strace cannot trace here: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Some(format!("no strace (Debian package strace): {error}")),
    }
}

fn skip(reason: &str) -> Result<(), Failed> {
    // Past the capture of test output.
    std::io::stderr().write_all(format!("\nSKIPPED: {reason}\n").as_bytes())?;
    Ok(())
}

fn check<const N: usize>(counts: [(&str, u64, RangeInclusive<u64>); N]) -> Result<(), Failed> {
    let mut wrong = String::new();
    for (what, count, expected) in counts {
        println!("{what}: {count}, expected {expected:?}");
        if count > *expected.end() {
            wrong += &format!("{what}: {count}, of which {} were enough; ", expected.end());
        } else if count < *expected.start() {
            wrong += &format!("{what}: {count}, fewer than the {} so far: write down how few; ", expected.start());
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.into()) }
}
