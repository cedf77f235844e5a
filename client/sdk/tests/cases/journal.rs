//! A run that was killed is continued by giving it the same items again.

use std::{collections::BTreeSet, path::Path, time::Duration};

use proptest::prelude::*;
use sheaf::{Code, Grid, GridError, JobBuilder, JournalError};

use super::{assert_echoed, echo, paused, read_all};
use crate::fake::Fake;

const TASKS: u64 = 300;

fn job(grid: &Grid, path: &Path) -> JobBuilder {
    grid.job("resumed").journal(path)
}

/// The records of a journal: kind, body, and where each ends. As the format says, read independently of the crate.
fn records(bytes: &[u8]) -> Vec<(u8, Vec<u8>, usize)> {
    let mut records = Vec::new();
    let mut at = 8;
    while at < bytes.len() {
        let body_bytes = u32::from_le_bytes(bytes[at + 1..at + 5].try_into().expect("four bytes")) as usize;
        let end = at + 5 + body_bytes + 4;
        records.push((bytes[at], bytes[at + 5..end - 4].to_vec(), end));
        at = end;
    }
    records
}

fn number(body: &[u8]) -> u32 {
    u32::from_le_bytes(body[..4].try_into().expect("four bytes"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Killed at any byte of its journal: chunks whose boundary was not yet durable had not been sent, those acknowledged
    /// are in the grid, the others may be.
    #[test]
    fn a_kill_at_any_byte_of_the_journal_is_survived(
        seed in any::<u64>(),
        share in 0.0_f64..1.0,
        arrived in any::<u64>(),
        read in 0_usize..400,
        chosen in prop::option::of(1_u32..50),
        mean_us in prop::sample::select(vec![0.1, 200_000.0, 1_000_000.0]),
        in_order in any::<bool>(),
    ) {
        paused(async {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("journal");
            let fake = Fake::seeded(seed);
            fake.behave(|manners| {
                manners.mean_us = mean_us;
                manners.chunk_takes = Duration::from_millis(20);
            });
            let start = async |grid: &Grid| {
                let mut job = job(grid, &path);
                if let Some(chosen) = chosen {
                    job = job.chunk_tasks(chosen);
                }
                let results = job.map(&echo(), 0..TASKS).start().await.expect("started");
                if in_order { results.in_order() } else { results }
            };
            let mut got = BTreeSet::new();
            {
                let mut results = start(&Grid::over(fake.clone())).await;
                for _ in 0..read {
                    let Some(result) = results.next().await else { break };
                    got.insert(result.expect("works").index);
                }
                results.submitted().await.expect("submitted");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let whole = std::fs::read(&path).expect("there");
            let cut = (share * whole.len() as f64) as usize;
            let kept: Vec<_> = records(&whole).into_iter().filter(|(_, _, end)| *end <= cut).collect();
            let of_kind = |kind| kept.iter().filter(move |record| record.0 == kind).map(|record| number(&record.1));
            let (recorded, acknowledged): (BTreeSet<u32>, BTreeSet<u32>) = (of_kind(3).collect(), of_kind(4).collect());
            let delivered: BTreeSet<u32> = of_kind(6).collect();
            std::fs::write(&path, &whole[..cut]).expect("cut");
            let first_job = fake.jobs_created()[0];
            fake.reopen(first_job);
            let mut given = BTreeSet::new();
            for (number, chunk) in fake.chunks(first_job) {
                let reached = acknowledged.contains(&number)
                    || (recorded.contains(&number) && arrived >> (number % 64) & 1 == 1);
                if !reached {
                    fake.forget_chunk(first_job, number);
                } else if delivered.contains(&number) {
                    given.extend(chunk.task_first..chunk.task_first + u64::from(chunk.pack.tasks()));
                }
            }

            let mut results = start(&Grid::over(fake.clone())).await;
            let again = read_all(&mut results).await.expect("read");
            let all: BTreeSet<u64> = again.keys().copied().chain(given.iter().copied()).collect();
            prop_assert_eq!(all.len() as u64, TASKS, "every result was given, before or now");
            prop_assert!(given.is_subset(&got), "only what the reader has is marked");
            prop_assert!(given.iter().all(|task| !again.contains_key(task)), "none was given twice");
            prop_assert!(again.iter().all(|(index, outcome)| outcome == &Ok(*index)));
            let resumed = !kept.is_empty();
            prop_assert_eq!(results.job_id() == first_job, resumed, "it is the same job once that was recorded");

            drop(results);
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut third = start(&Grid::over(fake.clone())).await;
            prop_assert!(read_all(&mut third).await.expect("read").is_empty(), "all was given");
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn acknowledged_chunks_are_passed_over() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("journal");
    let fake = Fake::new();
    fake.knows(0.1);
    let grid = Grid::over(fake.clone());
    let results = job(&grid, &path).chunk_tasks(10).map(&echo(), 0..TASKS).start().await.expect("started");
    results.submitted().await.expect("submitted");
    drop(results);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let submissions = fake.calls("submit");
    let untouched = std::iter::from_fn(|| panic!("the whole job was sealed: nobody needs its items"));
    let mut again = job(&grid, &path).chunk_tasks(10).map(&echo(), untouched).start().await.expect("started");
    again.submitted().await.expect("it was before");
    assert_echoed(&read_all(&mut again).await.expect("read"), TASKS);
    assert_eq!(fake.calls("submit"), submissions, "nothing was sent again");
    assert_eq!(fake.runs(), TASKS);
}

#[tokio::test(start_paused = true)]
async fn boundaries_are_written_before_anything_is_sent() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("journal");
    let fake = Fake::new();
    fake.knows(0.1).behave(|manners| manners.stall = true);
    let grid = Grid::over(fake.clone());
    let results = job(&grid, &path).chunk_tasks(10).map(&echo(), 0..TASKS).start().await.expect("started");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(fake.calls("submit") > 0 && fake.chunks(results.job_id()).is_empty(), "sent, and not arrived");
    let written = records(&std::fs::read(&path).expect("there"));
    let written: Vec<u8> = written.iter().map(|record| record.0).collect();
    assert!(written.len() > 2 && written.starts_with(&[1, 2, 3]), "{written:?}");
    assert!(!written.contains(&4), "nothing was acknowledged: {written:?}");
}

#[tokio::test(start_paused = true)]
async fn a_mark_within_a_chunk_is_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("journal");
    let fake = Fake::new();
    fake.knows(0.1);
    let grid = Grid::over(fake.clone());
    let start = async || {
        let results = job(&grid, &path).chunk_tasks(100).map(&echo(), 0..TASKS).start().await.expect("started");
        results.in_order()
    };
    let mut results = start().await;
    for expected in 0..150 {
        assert_eq!(results.next().await.expect("one").expect("works").index, expected);
    }
    results.delivered().await.expect("written");
    for expected in 150..170 {
        assert_eq!(results.next().await.expect("one").expect("works").index, expected);
    }
    results.submitted().await.expect("submitted");
    drop(results);
    tokio::time::sleep(Duration::from_secs(1)).await;

    let mut results = start().await;
    assert_eq!(results.next().await.expect("one").expect("works").index, 150, "behind the mark");
    drop(results);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let again = job(&grid, &path).chunk_tasks(100).give_again().map(&echo(), 0..TASKS).start().await;
    assert_echoed(&read_all(&mut again.expect("started")).await.expect("read"), TASKS);
}

/// A run that stops in the middle: half of its chunks are acknowledged.
async fn half_done(fake: &Fake, path: &Path) {
    fake.knows(0.1).behave(|manners| manners.refuse = Some((15, Code::Stopped)));
    let grid = Grid::over(fake.clone());
    let results = job(&grid, path).chunk_tasks(10).map(&echo(), 0..TASKS).start().await.expect("started");
    results.submitted().await.expect_err("it stopped");
    fake.behave(|manners| manners.refuse = None);
    tokio::time::sleep(Duration::from_secs(1)).await;
}

fn journal_error(error: GridError) -> JournalError {
    match error {
        GridError::Journal { source, .. } => source,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn fewer_items_than_before_are_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("journal");
    let fake = Fake::new();
    half_done(&fake, &path).await;
    let grid = Grid::over(fake.clone());
    let results = job(&grid, &path).chunk_tasks(10).map(&echo(), 0..47).start().await.expect("started");
    let refused = results.submitted().await.expect_err("items are missing");
    assert_eq!(refused.code(), Code::Conflict);
    assert!(refused.hint().is_some_and(|hint| hint.contains("same items")));
    let expected = JournalError::OtherItems { job: results.job_id(), chunk: 4, expected: 10, found: 7 };
    assert_eq!(journal_error(refused).to_string(), expected.to_string());
}

#[tokio::test(start_paused = true)]
async fn other_items_than_before_are_a_conflict() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("journal");
    let fake = Fake::new();
    fake.knows(0.1).behave(|manners| manners.lose = 1.0);
    let grid = Grid::over(fake.clone());
    // The grid has the chunks, but no answer ever came.
    fake.behave(|manners| manners.lose = 0.0);
    let results = job(&grid, &path).chunk_tasks(10).map(&echo(), 0..TASKS).start().await.expect("started");
    results.submitted().await.expect("submitted");
    drop(results);
    let bytes = std::fs::read(&path).expect("there");
    let last_chunk = records(&bytes).into_iter().rfind(|record| record.0 == 3).expect("a chunk").2;
    let first_ack = records(&bytes).into_iter().find(|record| record.0 == 4).expect("an answer");
    let cut = last_chunk.min(first_ack.2 - 13);
    tokio::time::sleep(Duration::from_secs(1)).await;
    std::fs::write(&path, &bytes[..cut]).expect("cut");
    fake.reopen(fake.jobs_created()[0]);
    let results = job(&grid, &path).chunk_tasks(10).map(&echo(), 5..TASKS).start().await.expect("started");
    let refused = results.submitted().await.expect_err("other items");
    assert_eq!(refused.code(), Code::Conflict, "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_grid_that_lost_the_job_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("journal");
    let fake = Fake::new();
    half_done(&fake, &path).await;
    let grid = Grid::over(fake.clone());
    fake.forget_job(fake.jobs_created()[0]);
    let lost = job(&grid, &path).chunk_tasks(10).map(&echo(), 0..TASKS).start().await.expect_err("it is gone");
    assert!(matches!(journal_error(lost), JournalError::JobLost { .. }));
    assert!(fake.jobs_created().is_empty(), "and not made anew");
}

#[tokio::test(start_paused = true)]
async fn two_runs_at_once_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("journal");
    let fake = Fake::new();
    fake.behave(|manners| manners.stall = true);
    let grid = Grid::over(fake.clone());
    let _first = job(&grid, &path).map(&echo(), 0..TASKS).start().await.expect("started");
    let second = job(&grid, &path).map(&echo(), 0..TASKS).start().await.expect_err("in use");
    assert!(matches!(journal_error(second), JournalError::Locked));
}

#[tokio::test(start_paused = true)]
async fn an_ordered_job_is_resumed() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("journal");
    let fake = Fake::new();
    fake.behave(|manners| manners.refuse = Some((0, Code::Stopped)));
    let grid = Grid::over(fake.clone());
    let results = job(&grid, &path).ordered().map(&echo(), 0..TASKS).start().await.expect("started");
    results.submitted().await.expect_err("it stopped");
    drop(results);
    tokio::time::sleep(Duration::from_secs(1)).await;
    fake.behave(|manners| manners.refuse = None);
    let mut results = job(&grid, &path).ordered().map(&echo(), 0..TASKS).start().await.expect("started");
    assert_echoed(&read_all(&mut results).await.expect("read"), TASKS);
}
