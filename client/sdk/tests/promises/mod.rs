//! What a job gives whatever the way to its grid: the same checks for a grid in this process, one behind HTTP, and one on AWS.
#![allow(dead_code, reason = "each of the tests uses those that its grids can keep")]

use std::{collections::BTreeSet, path::Path};

use sheaf::{Bytes, FailureKind, Function, Grid, JobState, TaskError};

/// Every task comes back once, with its own result, as chunks end.
pub(crate) async fn many_tasks_come_back_once(grid: &Grid, echo: &Function<u64, u64>, tasks: u64) {
    let mut results = grid.job("many").map(echo, 0..tasks).start().await.expect("started");
    let mut seen = vec![false; tasks as usize];
    while let Some(result) = results.next().await {
        let result = result.expect("the grid works");
        assert_eq!(result.outcome, Ok(result.index));
        assert!(!std::mem::replace(&mut seen[result.index as usize], true), "{} came twice", result.index);
    }
    assert!(seen.into_iter().all(|seen| seen));
}

/// In order means in order of submission.
pub(crate) async fn results_come_in_order(grid: &Grid, echo: &Function<u64, u64>, tasks: u64) {
    let map = grid.job("order").chunk_tasks(10).map(echo, 0..tasks);
    let mut results = map.start().await.expect("started").in_order();
    for expected in 0..tasks {
        let result = results.next().await.expect("one more").expect("the grid works");
        assert_eq!((result.index, result.outcome), (expected, Ok(expected)));
    }
    assert!(results.next().await.is_none());
}

/// Tickets resolve, each with its own.
pub(crate) async fn tickets_resolve(grid: &Grid, echo: &Function<u64, u64>, tasks: u64) {
    let tickets = futures::future::try_join_all((0..tasks).map(|number| grid.submit(echo, number))).await;
    for (number, ticket) in tickets.expect("accepted").into_iter().enumerate() {
        assert_eq!(ticket.await.expect("works").outcome, Ok(number as u64));
    }
}

/// A job that was submitted is there for others, and its results for as many readers as want them.
pub(crate) async fn a_job_is_there_for_others(grid: &Grid, echo: &Function<u64, u64>, tasks: u64) {
    let started = grid.job("for others").label("desk", "rates").map(echo, 0..tasks).start().await.expect("started");
    started.submitted().await.expect("submitted");
    let id = started.job_id();
    drop(started);
    let job = grid.attach(id).await.expect("it is there");
    let view = job.wait().await.expect("it ends");
    assert!(matches!(view.job.state, JobState::Done { .. }));
    assert_eq!((view.summary.totals.succeeded, view.job.options.labels["desk"].as_str()), (tasks, "rates"));
    for _ in 0..2 {
        let mut results = job.results_of(echo);
        let mut seen = BTreeSet::new();
        while let Some(result) = results.next().await {
            let result = result.expect("works");
            assert!(seen.insert(result.outcome.expect("echoed")));
        }
        assert_eq!(seen.len() as u64, tasks);
    }
    let missing = grid.attach(sheaf::JobId::from_bytes([1; 16])).await.expect_err("no such job");
    assert_eq!(missing.code(), sheaf::Code::NotFound);
}

/// A task that fails says why, is not run again unless asked for, and those beside it succeed. `odd` fails for odd numbers.
pub(crate) async fn failures_are_told(grid: &Grid, odd: &Function<u64, u64>, tasks: u64) {
    let mut results = grid.job("failures").chunk_tasks(7).map(odd, 0..tasks).start().await.expect("started");
    let mut failed = 0;
    while let Some(result) = results.next().await {
        let result = result.expect("the grid works");
        match (result.index % 2, result.outcome) {
            (0, outcome) => assert_eq!(outcome, Ok(result.index)),
            (_, Err(error)) => {
                let failure = error.failure().expect("a reason");
                assert_eq!(failure.kind, FailureKind::Error, "{failure:?}");
                failed += 1;
            }
            (_, Ok(number)) => panic!("{number} is odd"),
        }
    }
    assert_eq!(failed, tasks / 2);
    let job = results.job();
    let view = job.wait().await.expect("it ends");
    assert_eq!((view.summary.totals.succeeded, view.summary.totals.failed), (tasks - failed, failed));
    let again = job.retry_failed().await.expect("a job of those that failed");
    let view = again.wait().await.expect("it ends");
    assert_eq!((view.summary.totals.succeeded, view.summary.totals.failed), (0, failed), "they fail again");
}

/// What is cancelled ends, each task once, and most of them without having run. `slow` takes a second for each.
pub(crate) async fn what_is_cancelled_ends(grid: &Grid, slow: &Function<u64, u64>, tasks: u64) {
    let mut results = grid.job("cancelled").chunk_tasks(10).map(slow, 0..tasks).start().await.expect("started");
    results.submitted().await.expect("submitted");
    results.job().cancel().await.expect("cancelled");
    results.job().cancel().await.expect("a second time is no error");
    let (mut seen, mut cancelled) = (BTreeSet::new(), 0);
    while let Some(result) = results.next().await {
        let result = result.expect("the grid works");
        assert!(seen.insert(result.index), "{} came twice", result.index);
        match result.outcome {
            Ok(number) => assert_eq!(number, result.index),
            Err(TaskError::Cancelled) => cancelled += 1,
            Err(error) => panic!("{}: {error}", result.index),
        }
    }
    assert_eq!(seen.len() as u64, tasks);
    assert!(cancelled > tasks / 2, "only {cancelled} of {tasks} were cancelled");
}

/// Payloads and results that no single request takes, each of `bytes`.
pub(crate) async fn large_ones_come_back_whole(grid: &Grid, echo: &Function<Bytes, Bytes>, tasks: u64, bytes: usize) {
    // What does not shrink.
    let noise = move |task: u64| -> Bytes {
        let mut state = task.wrapping_mul(2).wrapping_add(1);
        let words = std::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        });
        words.take(bytes / 4).flat_map(u32::to_le_bytes).collect()
    };
    let mut results = grid.job("large").map(echo, (0..tasks).map(noise)).start().await.expect("started").in_order();
    for task in 0..tasks {
        let result = results.next().await.expect("one more").expect("the grid works");
        assert!(result.outcome.expect("echoed") == noise(task), "task {task} came back as something else");
    }
    assert!(results.next().await.is_none());
}

/// A client that comes again with its journal goes on where it was: what it had delivered is not given again.
pub(crate) async fn a_journal_outlives_its_client<C>(connect: C, journal: &Path, tasks: u64)
where
    C: AsyncFn() -> (Grid, Function<u64, u64>),
{
    let mut seen = BTreeSet::new();
    for round in 0.. {
        let (grid, echo) = connect().await;
        let map = grid.job("eod").chunk_tasks(20).journal(journal).map(&echo, 0..tasks);
        let mut results = map.start().await.expect("started");
        // Each round reads a part, says so, and goes.
        for _ in 0..tasks / 3 {
            let Some(result) = results.next().await else { break };
            let result = result.expect("the grid works");
            assert!(seen.insert(result.outcome.expect("echoed")), "{} came twice, in round {round}", result.index);
        }
        results.delivered().await.expect("written");
        drop(results);
        grid.close().await;
        if seen.len() as u64 == tasks {
            break;
        }
        assert!(round < 9, "{} of {tasks} after ten rounds", seen.len());
    }
}
