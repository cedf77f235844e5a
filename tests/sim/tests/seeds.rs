//! Seeds that once broke a promise, each with what it found. They break nothing now.

use sheaf_sim::{Options, run};

fn holds(seed: u64) {
    let report = run(seed, &Options::small());
    assert!(report.violations.is_empty(), "seed {seed}: {:#?}", report.violations);
}

/// A commit of others' results took the marker away from the task that still ran: its death convicted nobody, and it killed a
/// sixth worker.
#[test]
fn a_commit_leaves_the_marker_of_the_task_that_runs() {
    holds(637);
}

/// A retry whose answer was lost was asked for again when the new job had been cancelled by its own `fail_fast` meanwhile; it
/// was refused instead of told how the new job stands.
#[test]
fn a_repeated_retry_finds_its_job_cancelled() {
    holds(700);
}

/// An isolated chunk kept results in memory while its next task killed the worker, so that slow tasks before it ran again for
/// each death, and the job took half an hour longer.
#[test]
fn an_isolated_chunk_commits_before_it_risks_the_next_task() {
    holds(5_002_928);
}

/// A Lambda sealed a job whose chunks had all ended, and died before it looked whether that completes the job: nobody did after
/// it, and the job was never done. The sweeper does now.
#[test]
fn a_seal_that_completes_a_job_is_seen() {
    holds(1_413_839);
}
