//! Single tasks: accepted durably, resolved by their result.

use std::time::Duration;

use futures::future::{join_all, try_join_all};
use sheaf::{Bytes, Code, Failure, FailureKind, Function, Grid, JobState, TaskError, core::limits};

use super::echo;
use crate::fake::Fake;

#[tokio::test(start_paused = true)]
async fn a_ticket_is_its_result() {
    let fake = Fake::new();
    let grid = Grid::over(fake.clone());
    let ticket = grid.submit(&echo(), 42).await.expect("accepted");
    let id = ticket.id();
    assert_eq!(fake.chunks(id.chunk.job)[&0].pack.tasks(), 1, "it is in the grid when submit returns");
    let result = ticket.await.expect("the grid works");
    assert_eq!((result.id, result.outcome), (id, Ok(42)));
}

#[tokio::test(start_paused = true)]
async fn a_single_task_does_not_linger() {
    let fake = Fake::new();
    let grid = Grid::over(fake);
    grid.submit(&echo(), 0).await.expect("accepted").await.expect("works");
    let before = tokio::time::Instant::now();
    grid.submit(&echo(), 1).await.expect("accepted").await.expect("works");
    assert!(before.elapsed() < Duration::from_millis(2), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn concurrent_tasks_travel_together() {
    let fake = Fake::new();
    fake.knows(0.1).behave(|manners| manners.submit_takes = Duration::from_millis(3));
    let grid = Grid::over(fake.clone());
    let function = echo();
    let tickets = try_join_all((0..5_000).map(|item| grid.submit(&function, item))).await.expect("accepted");
    assert!(fake.calls("submit") < 30, "{} calls", fake.calls("submit"));
    assert_eq!(fake.jobs_created().len(), 1);
    for (item, result) in join_all(tickets).await.into_iter().enumerate() {
        assert_eq!(result.expect("works").outcome, Ok(item as u64));
    }
}

#[tokio::test(start_paused = true)]
async fn trouble_on_the_way_is_not_seen() {
    let fake = Fake::new();
    fake.behave(|manners| {
        (manners.throttle, manners.lose) = (0.4, 0.3);
        manners.chunk_takes = Duration::from_millis(30);
    });
    let grid = Grid::over(fake.clone());
    let function = echo();
    let tickets = try_join_all((0..500).map(|item| grid.submit(&function, item))).await.expect("accepted");
    for (item, result) in join_all(tickets).await.into_iter().enumerate() {
        assert_eq!(result.expect("works").outcome, Ok(item as u64));
    }
    assert_eq!(fake.runs(), 500);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_the_ticket_s_outcome() {
    let fake = Fake::new().with_function("fails", |_| Err(Failure::new(FailureKind::Error, "no")));
    let grid = Grid::over(fake);
    let ticket = grid.submit(&Function::<u64, u64>::named("fails"), 1).await.expect("accepted");
    assert!(
        matches!(ticket.await.expect("the grid works").outcome, Err(TaskError::Failed(failure)) if failure.message == "no")
    );
}

#[tokio::test(start_paused = true)]
async fn too_large_a_task_is_refused_at_once() {
    let grid = Grid::over(Fake::new());
    let item = Bytes::from(vec![0; limits::TASK_BYTES_MAX + 1]);
    let refused = grid.submit(&Function::raw("echo"), item).await.expect_err("too large");
    assert_eq!(refused.code(), Code::TooLarge);
}

#[tokio::test(start_paused = true)]
async fn closing_seals_and_tells_the_tickets() {
    let fake = Fake::new();
    fake.behave(|manners| manners.hold = true);
    let grid = Grid::over(fake.clone());
    let ticket = grid.submit(&echo(), 1).await.expect("accepted");
    let (job, twin) = (ticket.id().chunk.job, grid.clone());
    grid.close().await;
    assert!(matches!(fake.job_state(job), Some(JobState::Sealed { seal }) if (seal.chunks, seal.tasks) == (1, 1)));
    assert_eq!(ticket.await.expect_err("nobody waits any more").code(), Code::Stopped);
    assert_eq!(twin.submit(&echo(), 2).await.expect_err("closed").code(), Code::Stopped);
}

/// Whoever waits for the budget when the handle is closed has passed the first look at that.
#[tokio::test(start_paused = true)]
async fn closing_ends_with_a_task_that_waits_for_the_budget() {
    let fake = Fake::new();
    fake.behave(|manners| manners.stall = true);
    let grid = sheaf::builder().unacknowledged_bytes(1).over(fake.clone());
    let (function, twin) = (echo(), grid.clone());
    let submits = async { futures::join!(twin.submit(&function, 1), twin.submit(&function, 2)) };
    let closes = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let unstalls = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            fake.behave(|manners| manners.stall = false);
        };
        let closes = tokio::time::timeout(Duration::from_secs(3_600), grid.close());
        futures::join!(closes, unstalls).0.expect("it ends");
    };
    let ((first, second), ()) = futures::join!(submits, closes);
    let _ticket = first.expect("it was on its way");
    assert_eq!(second.expect_err("it was not").code(), Code::Stopped);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_handle_seals_and_tickets_still_resolve() {
    let fake = Fake::new();
    fake.behave(|manners| manners.hold = true);
    let grid = Grid::over(fake.clone());
    let ticket = grid.submit(&echo(), 1).await.expect("accepted");
    let job = ticket.id().chunk.job;
    drop(grid);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(matches!(fake.job_state(job), Some(JobState::Sealed { .. })));
    fake.behave(|manners| manners.hold = false);
    assert_eq!(ticket.await.expect("works").outcome, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_cancelled_is_replaced() {
    let fake = Fake::new();
    let grid = Grid::over(fake.clone());
    fake.behave(|manners| manners.hold = true);
    let ticket = grid.submit(&echo(), 1).await.expect("accepted");
    let job = grid.attach(ticket.id().chunk.job).await.expect("there");
    job.cancel().await.expect("cancelled");
    assert_eq!(ticket.await.expect("the grid works").outcome, Err(TaskError::Cancelled));
    fake.behave(|manners| manners.hold = false);
    let mut results = Vec::new();
    for item in 2..6 {
        if let Ok(ticket) = grid.submit(&echo(), item).await {
            results.push(ticket.await.expect("works").outcome);
        }
    }
    assert!(results.len() >= 3, "at most the first was refused: {results:?}");
    assert_eq!(results.last(), Some(&Ok(5)));
    assert_eq!(fake.jobs_created().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_function_is_told_to_each() {
    let fake = Fake::new();
    fake.behave(|manners| manners.refuse = Some((0, Code::Stopped)));
    let grid = Grid::over(fake.clone());
    let function = echo();
    let refused = join_all((0..10).map(|item| grid.submit(&function, item))).await;
    assert!(refused.iter().any(|ticket| ticket.as_ref().is_err_and(|error| error.code() == Code::Stopped)));
    fake.behave(|manners| manners.refuse = None);
    let ticket = grid.submit(&function, 11).await.expect("another job takes it");
    assert_eq!(ticket.await.expect("works").outcome, Ok(11));
}
