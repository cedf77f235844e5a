//! What a task costs beside its own work, in counts: allocations, bytes written, syncs and system calls of a job of no-op
//! tasks on an embedded grid on disk, from the first task submitted to the last result read.
//!
//! Each is asserted from both sides: more is a loss, and whoever achieves less writes it down here, so that it stays so.
//! Counts of a grid depend a little on which writes happen to gather in a group; the ranges have room for that, and for other machines.

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
use sheaf::{Bytes, Function, Grid};
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
const ALLOCATIONS: RangeInclusive<u64> = 160..=280;
/// Bytes written for a task, to files and pipes. Measured: 147. It is written twice: in a pack as 64 bytes of payload and 4 of
/// its offset, and in a segment as 64 bytes of result and 13 of its entry; 2 are its share of its chunk's rows.
const BYTES_WRITTEN: RangeInclusive<u64> = 140..=156;
/// Syncs for 100,000 tasks, which are 100 chunks. Measured: 21 to 108. A chunk must be durable when it is submitted and when it
/// is finished, each time in a volume and in the journal: 400, if none shared a group with another. The slower the disk, the
/// more of them share one, so that only [`SYNCS_ALONE`] can be exact.
const SYNCS: RangeInclusive<u64> = 4..=400;
/// Syncs for 100 tasks submitted one after the other, each when the result of the one before has been read: one serves both its
/// submission and its end, where it ends in time, and else there are two. Payloads and results of this size lie in the journal.
const SYNCS_ALONE: RangeInclusive<u64> = 96..=212;
/// System calls for 1,000 tasks, which are one chunk. Measured: 14 to 22. 5 write (a pack,
/// a segment, and rows into the journal) and 1 reads the segment; the others wake threads and let them sleep, and grow the heap.
const CALLS: RangeInclusive<u64> = 6..=60;

/// Before a directory and a number of tasks: what this program does as a process of its own, with a job of so many tasks or
/// with tasks one by one.
const RUN: [&str; 2] = ["--job", "--one-by-one"];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().collect();
    if let [_, flag, directory, tasks] = arguments.as_slice()
        && RUN.contains(&flag.as_str())
    {
        return run(flag, Path::new(directory), tasks.parse()?);
    }
    let trials = vec![
        Trial::test("allocations_and_bytes_written_for_a_task", allocations_and_bytes_written),
        Trial::test("syncs_and_system_calls_for_a_task", syncs_and_system_calls),
        Trial::test("syncs_for_a_task_alone", syncs_alone),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// Runs the tasks on a grid of its own.
#[tokio::main]
async fn run(flag: &str, directory: &Path, tasks: u64) -> Result<(), Box<dyn Error>> {
    let grid = sheaf::builder().directory(directory).slots(2).connect().await?;
    let noop = grid.handler_raw("noop", |payload, result| {
        result.extend_from_slice(payload);
        Ok(())
    });
    let noop = noop.await?;
    if flag == RUN[0] {
        as_a_job(&grid, &noop, tasks).await?;
    } else {
        one_by_one(&grid, &noop, tasks).await?;
    }
    grid.close().await;
    Ok(())
}

/// Prints what the job has cost.
async fn as_a_job(grid: &Grid, noop: &Function<[u8; TASK_BYTES], Bytes>, tasks: u64) -> Result<(), Box<dyn Error>> {
    let (allocated, written) = (Region::new(ALLOCATOR), bytes_written()?);
    let payloads = (0..tasks).map(|_| [7; TASK_BYTES]);
    let mut results = grid.job("counted").chunk_tasks(CHUNK_TASKS).map(noop, payloads).start().await?;
    let mut left = tasks;
    while let Some(result) = results.next().await {
        assert_eq!(result?.outcome.as_deref(), Ok(&[7; TASK_BYTES][..]));
        left -= 1;
    }
    assert_eq!(left, 0, "every task has come back");
    let allocated = allocated.change();
    println!("allocations {}", allocated.allocations + allocated.reallocations);
    println!("written {}", bytes_written()? - written);
    Ok(())
}

async fn one_by_one(grid: &Grid, noop: &Function<[u8; TASK_BYTES], Bytes>, tasks: u64) -> Result<(), Box<dyn Error>> {
    for _ in 0..tasks {
        let ticket = grid.submit(noop, [7; TASK_BYTES]).await?;
        assert_eq!(ticket.await?.outcome.as_deref(), Ok(&[7; TASK_BYTES][..]));
    }
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
    let output = succeed(Command::new(env::current_exe()?).arg(RUN[0]).arg(directory.path()).arg(TASKS.to_string()))?;
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
    let [job, _] = RUN;
    let (empty, full) = (calls(job, 0)?, calls(job, TASKS)?);
    for (name, calls) in &full {
        println!("{name}: {calls}, of which {} without tasks", empty.get(name).unwrap_or(&0));
    }
    let all = |calls: &Calls| calls.values().sum::<u64>();
    check([
        ("syncs for 100,000 tasks", syncs(&full).saturating_sub(syncs(&empty)), SYNCS),
        ("system calls for 1,000 tasks", all(&full).saturating_sub(all(&empty)) / (TASKS / 1_000), CALLS),
    ])
}

/// What the first task alone costs in syncs, its job among it, is taken off.
fn syncs_alone() -> Result<(), Failed> {
    if let Some(reason) = no_strace() {
        return skip(&reason);
    }
    let [_, one_by_one] = RUN;
    let (one, more) = (calls(one_by_one, 1)?, calls(one_by_one, 101)?);
    check([("syncs for 100 tasks one by one", syncs(&more).saturating_sub(syncs(&one)), SYNCS_ALONE)])
}

/// System calls by name.
type Calls = BTreeMap<String, u64>;

fn syncs(calls: &Calls) -> u64 {
    ["fsync", "fdatasync", "sync_file_range", "msync"].iter().filter_map(|name| calls.get(*name)).sum()
}

/// How often a run with so many tasks makes each system call.
fn calls(flag: &str, tasks: u64) -> Result<Calls, Failed> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let table = directory.path().join("calls");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-o"]).arg(&table).arg(env::current_exe()?);
    succeed(strace.arg(flag).arg(directory.path().join("grid")).arg(tasks.to_string()))?;
    // Columns: % time, seconds, µs per call, calls, errors (may be empty), name.
    let row = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (name, calls) = (columns.last()?, columns.get(3)?.parse().ok()?);
        (*name != "total").then(|| ((*name).to_owned(), calls))
    };
    Ok(std::fs::read_to_string(&table)?.lines().filter_map(row).collect())
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
