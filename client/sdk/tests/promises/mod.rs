//! What a job gives whatever the way to its grid: the same checks for a grid in this process and for one on AWS.

use std::collections::BTreeSet;

use sheaf::{Function, Grid, JobState};

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
