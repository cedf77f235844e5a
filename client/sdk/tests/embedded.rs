//! The client with a real grid in the same process: handlers of every form, and what outlives a process.
#![cfg(feature = "embedded")]

mod promises;

use std::{collections::BTreeSet, path::Path, time::Duration};

use sheaf::{Bytes, Code, Failure, FailureKind, Function, Grid, GridError, Outcome, TaskError};

async fn memory() -> Grid {
    sheaf::builder().memory(true).slots(2).connect().await.expect("a grid in memory")
}

async fn disk(directory: &Path) -> Result<Grid, GridError> {
    sheaf::builder().directory(directory).slots(2).connect().await
}

/// The outcomes of a job over some items, in order.
async fn outcomes<I, O>(grid: &Grid, function: &Function<I, O>, items: Vec<I>) -> Vec<Result<O, TaskError>>
where
    I: Send + 'static,
{
    let mut results = grid.job("outcomes").map(function, items).start().await.expect("started").in_order();
    let mut outcomes = Vec::new();
    while let Some(result) = results.next().await {
        outcomes.push(result.expect("the grid works").outcome);
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_of_every_form_answer() {
    let grid = memory().await;
    let half = grid
        .handler(
            "half",
            |number: u32| if number.is_multiple_of(2) { Ok(number / 2) } else { Err(format!("{number} is odd")) },
        )
        .await
        .expect("registered");
    let answers = outcomes(&grid, &half, vec![4, 5]).await;
    assert_eq!(answers[0], Ok(2));
    let failure = answers[1].as_ref().expect_err("odd").failure().expect("a reason");
    assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::Error, "5 is odd"));

    let waits = grid
        .handler_async("waits", |ms: u64| async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            Ok::<_, std::io::Error>(ms + 1)
        })
        .await
        .expect("registered");
    assert_eq!(outcomes(&grid, &waits, vec![1, 20]).await, [Ok(2), Ok(21)]);

    let raw = grid
        .handler_raw("raw", |payload, result| {
            result.extend(payload.iter().rev());
            Ok(())
        })
        .await
        .expect("registered");
    assert_eq!(outcomes(&grid, &raw, vec![[1, 2], [3, 4]]).await, [Ok(Bytes::from(vec![2, 1])), Ok(vec![4, 3].into())]);

    let batch = grid
        .handler_batch("batch", |batch| {
            let tasks: Vec<_> = batch.tasks().collect();
            for (task, payload) in tasks {
                match payload {
                    b"bad" => batch.fail(task, Failure::new(FailureKind::Error, "bad")),
                    payload => batch.succeed(task, payload),
                }
            }
            Ok(())
        })
        .await
        .expect("registered");
    let answers = outcomes(&grid, &batch, vec!["a", "bad", "c"]).await;
    assert_eq!(answers[2], Ok("c".into()));
    assert_eq!(answers[1].as_ref().expect_err("bad").outcome(), Outcome::Failed);

    let panics = grid
        .handler("panics", |_: u32| -> Result<u32, String> { panic!("this panic is part of the test") })
        .await
        .expect("registered");
    let answers = outcomes(&grid, &panics, vec![1]).await;
    assert_eq!(answers[0].as_ref().expect_err("it panicked").failure().expect("a reason").kind, FailureKind::Panic);
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grid_in_this_process_keeps_the_promises() {
    let grid = memory().await;
    let echo = grid.handler("echo", |number: u64| Ok::<_, String>(number)).await.expect("registered");
    promises::many_tasks_come_back_once(&grid, &echo, 200_000).await;
    promises::results_come_in_order(&grid, &echo, 2_000).await;
    promises::tickets_resolve(&grid, &echo, 2_000).await;
    promises::a_job_is_there_for_others(&grid, &echo, 2_000).await;
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cancelled_ends() {
    // No slots: nothing runs.
    let grid = sheaf::builder().memory(true).slots(0).connect().await.expect("a grid in memory");
    let echo = grid.handler("echo", |number: u64| Ok::<_, String>(number)).await.expect("registered");
    let mut results = grid.job("cancelled").chunk_tasks(10).map(&echo, 0..200).start().await.expect("started");
    results.submitted().await.expect("submitted");
    results.job().cancel().await.expect("cancelled");
    let mut ended = 0;
    while let Some(result) = results.next().await {
        assert_eq!(result.expect("works").outcome, Err(TaskError::Cancelled));
        ended += 1;
    }
    assert_eq!(ended, 200);
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_in_the_next_process() {
    let directory = tempfile::tempdir().expect("a directory");
    let grid = disk(directory.path()).await.expect("opened");
    let gate = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let closed = gate.clone();
    let slow = move |number: u64| {
        while !closed.load(std::sync::atomic::Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok::<_, String>(number)
    };
    let slow = grid.handler("slow", slow).await.expect("registered");
    let results = grid.job("left behind").chunk_tasks(5).map(&slow, 0..50).start().await.expect("started");
    results.submitted().await.expect("submitted");
    let id = results.job_id();
    drop(results);
    gate.store(true, std::sync::atomic::Ordering::Relaxed);
    grid.close().await;

    let grid = disk(directory.path()).await.expect("opened again");
    grid.handler("slow", |number: u64| Ok::<_, String>(number)).await.expect("registered");
    let mut results = grid.attach(id).await.expect("it is there").results::<u64>();
    let mut seen = BTreeSet::new();
    while let Some(result) = results.next().await {
        assert!(seen.insert(result.expect("works").outcome.expect("echoed")));
    }
    assert_eq!(seen.len(), 50);
    grid.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_outlives_its_client_and_its_grid() {
    let directory = tempfile::tempdir().expect("a directory");
    let connect = async || {
        let grid = disk(&directory.path().join("grid")).await.expect("opened");
        let echo = grid.handler("echo", |number: u64| Ok::<_, String>(number)).await.expect("registered");
        (grid, echo)
    };
    promises::a_journal_outlives_its_client(connect, &directory.path().join("eod.journal"), 20_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_use_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = disk(directory.path()).await.expect("opened");
    let second = disk(directory.path()).await.expect_err("it is in use");
    assert!(matches!(second, GridError::Open { in_use: true, .. }), "{second:?}");
    assert_eq!(second.code(), Code::Unavailable);
    assert!(second.hint().is_some_and(|hint| hint.contains("sheaf up")));
    first.close().await;
}

#[tokio::test]
async fn an_address_where_nobody_is_is_told() {
    let refused = sheaf::builder().grid("http://127.0.0.1:1").connect().await;
    assert_eq!(refused.expect_err("nobody is there").code(), Code::Unavailable);
}
