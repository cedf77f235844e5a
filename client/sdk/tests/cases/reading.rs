//! Results as they end or in order, failures as items, and what cancelling leaves.

use std::{collections::BTreeSet, time::Duration};

use futures::StreamExt;
use proptest::prelude::*;
use sheaf::{Failure, FailureKind, Function, Grid, JobState, Outcome, TaskError};

use super::{assert_echoed, echo, paused, read_all};
use crate::fake::Fake;

/// Fails on odd numbers, dies on multiples of ten.
fn picky() -> Fake {
    Fake::new().with_function("picky", |payload| {
        let number: u64 = serde_json::from_slice(payload).expect("a number");
        match number {
            0 => Ok(b"0".to_vec()),
            _ if number.is_multiple_of(10) => Err(Failure::new(FailureKind::WorkerDied, "killed its worker")),
            _ if number % 2 == 1 => Err(Failure::new(FailureKind::Error, format!("{number} is odd")).with_type("Odd")),
            _ => Ok(payload.to_vec()),
        }
    })
}

#[tokio::test(start_paused = true)]
async fn results_come_as_chunks_end() {
    let fake = Fake::new();
    fake.knows(0.1).behave(|manners| manners.hold = true);
    let grid = Grid::over(fake.clone());
    let mut results = grid.job("late").chunk_tasks(10).map(&echo(), 0..100).start().await.expect("started");
    results.submitted().await.expect("submitted");
    fake.run(results.job_id(), 7);
    let first = results.next().await.expect("one").expect("works");
    assert_eq!((first.index, first.id.to_string()), (70, format!("{}/7/0", results.job_id())));
    fake.behave(|manners| manners.hold = false);
    assert_eq!(read_all(&mut results).await.expect("read").len(), 99);
}

#[tokio::test(start_paused = true)]
async fn in_order_waits_for_the_first_and_bounds_what_waits() {
    let fake = Fake::new();
    fake.knows(0.1).behave(|manners| manners.hold = true);
    let grid = Grid::over(fake.clone());
    let results = grid.job("order").chunk_tasks(1).map(&echo(), 0..1_000).start().await.expect("started");
    let mut results = results.in_order();
    results.submitted().await.expect("submitted");
    for number in 1..1_000 {
        fake.run(results.job_id(), number);
    }
    let early = tokio::time::timeout(Duration::from_secs(300), results.next()).await;
    assert!(early.is_err(), "the first has not ended");
    assert!(fake.calls("results") < 100, "waiting costs few calls: {}", fake.calls("results"));
    fake.run(results.job_id(), 0);
    for expected in 0..1_000 {
        let result = results.next().await.expect("one").expect("works");
        assert_eq!((result.index, result.outcome), (expected, Ok(expected)));
    }
    assert!(results.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn failures_are_items_with_their_reasons() {
    let fake = picky();
    let grid = Grid::over(fake.clone());
    let function = Function::<u64, u64>::named("picky");
    let mut results = grid.job("picky").map(&function, 0..100).start().await.expect("started");
    let all = read_all(&mut results).await.expect("the grid works");
    assert_eq!(all[&4], Ok(4));
    let Err(TaskError::Failed(failure)) = &all[&7] else { panic!("{:?}", all[&7]) };
    assert_eq!((failure.message.as_str(), failure.error_type.as_str()), ("7 is odd", "Odd"));
    let died = all[&20].as_ref().expect_err("it died");
    assert_eq!(died.outcome(), Outcome::Quarantined);
    assert_eq!(died.failure().expect("a reason").kind, FailureKind::WorkerDied);
    let counts = results.progress().now();
    assert_eq!((counts.totals.succeeded, counts.totals.failed), (41, 59));
}

#[tokio::test(start_paused = true)]
async fn a_result_of_another_type_is_the_task_s_problem() {
    let grid = Grid::over(Fake::new());
    let function = Function::<u64, String>::named("echo");
    let mut results = grid.job("typed").map(&function, [1]).start().await.expect("started");
    let result = results.next().await.expect("one").expect("the grid works");
    assert!(matches!(result.outcome, Err(TaskError::Unreadable { .. })), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn fail_fast_cancels_and_the_stream_ends() {
    let fake = picky();
    fake.knows(0.1).behave(|manners| {
        manners.submit_takes = Duration::from_millis(1);
        manners.chunk_takes = Duration::from_millis(10);
    });
    let grid = Grid::over(fake.clone());
    let function = Function::<u64, u64>::named("picky");
    // Endless: only the cancellation stops it.
    let mut results = grid.job("fast").fail_fast(5).chunk_tasks(4).map(&function, 0..).start().await.expect("started");
    let all = read_all(&mut results).await.expect("the grid works");
    assert!(matches!(fake.job_state(results.job_id()), Some(JobState::Cancelled { seal: None, .. })));
    let failed = all.values().filter(|outcome| outcome.as_ref().is_err_and(|error| error.failure().is_some())).count();
    let cancelled = all.values().filter(|outcome| **outcome == Err(TaskError::Cancelled)).count();
    assert!(failed >= 5 && cancelled > 0, "{failed} failed, {cancelled} cancelled");
    grid.close().await;
}

#[tokio::test(start_paused = true)]
async fn whole_chunks_and_single_results_mix() {
    let fake = Fake::new();
    fake.knows(0.1).behave(|manners| manners.segments = 3);
    let grid = Grid::over(fake);
    let mut results = grid.job("mix").chunk_tasks(10).map(&echo(), 0..30).start().await.expect("started").in_order();
    for expected in 0..4 {
        assert_eq!(results.next().await.expect("one").expect("works").index, expected);
    }
    let rest = results.next_chunk().await.expect("the rest of the first").expect("works");
    assert_eq!(rest.iter().map(|result| result.index).collect::<Vec<_>>(), [4, 5, 6, 7, 8, 9]);
    let second = results.next_chunk().await.expect("the second").expect("works");
    let raw: Vec<(u64, String)> = second
        .raw()
        .map(|(index, outcome)| (index, String::from_utf8(outcome.expect("echoed").to_vec()).expect("text")))
        .collect();
    assert_eq!(raw, (10..20).map(|index| (index, index.to_string())).collect::<Vec<_>>());
    assert_eq!((second.len(), second.number()), (10, 1));
    let third: Vec<u64> = results.map(|result| result.expect("works").index).collect().await;
    assert_eq!(third, (20..30).collect::<Vec<_>>(), "it is a stream as well");
}

#[tokio::test(start_paused = true)]
async fn dropping_results_cancels_nothing() {
    let fake = Fake::new();
    fake.knows(0.1).behave(|manners| manners.submit_takes = Duration::from_millis(50));
    let grid = Grid::over(fake.clone());
    let id = grid.job("dropped").map(&echo(), 0..100_000).start().await.expect("started").job_id();
    let job = grid.attach(id).await.expect("it is there");
    let view = job.wait().await.expect("it ends");
    assert_eq!(view.summary.totals.succeeded, 100_000);
    assert_eq!(fake.calls("cancel"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_waits_for_ever_is_left_when_its_job_is_cancelled() {
    let fake = Fake::new();
    fake.knows(0.1);
    let grid = Grid::over(fake.clone());
    let items = futures::stream::iter(0..10).chain(futures::stream::pending());
    let mut results = grid.job("idle").map_stream(&echo(), items).start().await.expect("started");
    for _ in 0..10 {
        results.next().await.expect("one").expect("works").outcome.expect("echoed");
    }
    results.cancel().await.expect("works");
    assert!(results.next().await.is_none());
    tokio::time::timeout(Duration::from_secs(1), grid.close()).await.expect("nothing holds it");
}

#[tokio::test(start_paused = true)]
async fn progress_knows_of_results_that_nobody_reads() {
    let fake = Fake::new();
    fake.knows(0.1).behave(|manners| manners.submit_takes = Duration::from_millis(100));
    let grid = Grid::over(fake);
    // Its submission never pauses for long, and nothing reads: only the grid can tell what has ended.
    let items = futures::stream::unfold(0_u64, |item| async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Some((item, item + 1))
    });
    let results = grid.job("unread").map_stream(&echo(), items).start().await.expect("started");
    let mut progress = results.progress();
    for _ in 0..10 {
        progress.changed().await.expect("works");
    }
    let counts = progress.now();
    assert!(counts.ended() > 1_000 && counts.waiting.is_none(), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn progress_tells_of_the_end() {
    let fake = Fake::new();
    fake.knows(1_000.0).behave(|manners| manners.chunk_takes = Duration::from_secs(20));
    let grid = Grid::over(fake);
    let results = grid.job("watched").map(&echo(), 0..10_000).start().await.expect("started");
    let mut progress = results.progress();
    let (mut told, mut rates) = (0, 0);
    loop {
        let counts = progress.changed().await.expect("works");
        told += 1;
        rates += u32::from(counts.rate_per_s > 0.0 && counts.time_left().is_some());
        if counts.is_over() {
            assert_eq!((counts.total, counts.ended()), (Some(10_000), 10_000));
            break;
        }
    }
    assert!((2..=90).contains(&told), "at most four times a second, told {told} times");
    assert!(rates > 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// A cancelled job may have gaps: chunks that were refused while later ones were accepted.
    #[test]
    fn in_order_passes_over_what_does_not_exist(
        seed in any::<u64>(),
        chunks in 1_u32..400,
        missing in prop::collection::vec((0_u32..400, 0_u32..200), 0..4),
        held in any::<bool>(),
    ) {
        let missing: BTreeSet<u32> = missing.into_iter().flat_map(|(first, count)| first..first + count).collect();
        paused(async {
            let fake = Fake::seeded(seed);
            fake.knows(0.1);
            let grid = Grid::over(fake.clone());
            let results =
                grid.job("gaps").chunk_tasks(1).map(&echo(), 0..u64::from(chunks)).start().await.expect("started");
            fake.behave(|manners| manners.hold = held);
            results.submitted().await.expect("submitted");
            let id = results.job_id();
            tokio::time::sleep(Duration::from_millis(1)).await;
            missing.iter().for_each(|&number| fake.forget_chunk(id, number));
            fake.reopen(id);
            let job = grid.attach(id).await.expect("there");
            job.cancel().await.expect("cancelled");
            let expected: Vec<u64> =
                (0..chunks).filter(|number| !missing.contains(number)).map(u64::from).collect();
            let ordered: Vec<u64> =
                job.results::<u64>().in_order().map(|result| result.expect("works").index).collect().await;
            prop_assert_eq!(&ordered, &expected);
            let mut results = job.results::<u64>();
            let all = read_all(&mut results).await.expect("works");
            prop_assert_eq!(all.into_keys().collect::<Vec<_>>(), expected);
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn reading_twice_gives_the_same() {
    let grid = Grid::over(Fake::new());
    let mut results = grid.job("twice").map(&echo(), 0..100).start().await.expect("started");
    assert_echoed(&read_all(&mut results).await.expect("read"), 100);
    let mut again = results.job().results::<u64>();
    assert_echoed(&read_all(&mut again).await.expect("read"), 100);
}
