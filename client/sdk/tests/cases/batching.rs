//! Every item once, in chunks within their limits.

use std::time::Duration;

use proptest::prelude::*;
use sheaf::{
    Bytes, Code, Function, JobId, JobState,
    core::{Seal, limits},
};

use super::{assert_echoed, echo, paused, read_all};
use crate::fake::Fake;

/// Checks the boundaries of a job's chunks and that they hold all its tasks.
fn check_chunks(fake: &Fake, job: JobId, tasks: u64) {
    let mut next = 0;
    for (expected, (number, chunk)) in fake.chunks(job).into_iter().enumerate() {
        assert_eq!((number, chunk.task_first), (expected as u32, next));
        assert!((1..=limits::CHUNK_TASKS_MAX).contains(&chunk.pack.tasks()));
        next += u64::from(chunk.pack.tasks());
    }
    assert_eq!(next, tasks);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn every_item_comes_back_once(
        seed in any::<u64>(),
        tasks in 0_u64..3_000,
        mean_us in prop::sample::select(vec![0.0, 0.1, 50.0, 5_000.0, 1e6, 1e9]),
        known in any::<bool>(),
        exact in any::<bool>(),
        throttle in 0.0_f64..0.5,
        lose in 0.0_f64..0.3,
        takes_ms in 0_u64..50,
        slots in 1_u32..16,
        segments in 1_u32..4,
        chosen in prop::option::of(1_u32..2_000),
        budget in prop::sample::select(vec![1_usize, 5_000, 64 << 20]),
        in_order in any::<bool>(),
    ) {
        paused(async {
            let fake = Fake::seeded(seed);
            if known {
                fake.knows(mean_us);
            }
            fake.behave(|manners| {
                (manners.throttle, manners.lose, manners.mean_us) = (throttle, lose, mean_us);
                manners.submit_takes = Duration::from_millis(takes_ms / 10);
                manners.chunk_takes = Duration::from_millis(takes_ms);
                (manners.slots, manners.segments) = (slots, segments);
            });
            let grid = sheaf::builder().unacknowledged_bytes(budget).over(fake.clone());
            let mut job = grid.job("all");
            if let Some(chosen) = chosen {
                job = job.chunk_tasks(chosen);
            }
            let items = 0..tasks;
            let map = if exact { job.map(&echo(), items) } else { job.map(&echo(), items.filter(|_| true)) };
            let mut results = map.start().await.expect("started");
            if in_order {
                results = results.in_order();
            }
            let mut last = None;
            let mut seen = Vec::new();
            while let Some(result) = results.next().await {
                let result = result.expect("the grid works");
                prop_assert_eq!(result.outcome, Ok(result.index));
                prop_assert!(!in_order || last < Some(result.index), "{:?} then {}", last, result.index);
                last = Some(result.index);
                seen.push(result.index);
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..tasks).collect::<Vec<_>>());
            check_chunks(&fake, results.job_id(), tasks);
            let counts = results.progress().now();
            prop_assert_eq!((counts.submitted, counts.acknowledged, counts.ended()), (tasks, tasks, tasks));
            prop_assert_eq!(counts.total, Some(tasks));
            prop_assert!(counts.is_over());
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn no_items_are_a_job_that_is_done() {
    let fake = Fake::new();
    let grid = sheaf::Grid::over(fake.clone());
    let mut results = grid.job("none").map(&echo(), Vec::new()).start().await.expect("started");
    assert!(results.next().await.is_none());
    let done = Some(JobState::Done { seal: Seal { chunks: 0, tasks: 0 }, at_ms: 2 });
    assert_eq!(fake.job_state(results.job_id()), done);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_function_is_probed_with_single_tasks() {
    let fake = Fake::new();
    fake.behave(|manners| manners.chunk_takes = Duration::from_millis(30));
    let grid = sheaf::Grid::over(fake.clone());
    let mut results = grid.job("probe").map(&echo(), 0..50_000).start().await.expect("started");
    assert_echoed(&read_all(&mut results).await.expect("read"), 50_000);
    let sizes: Vec<u32> = fake.chunks(results.job_id()).values().map(|chunk| chunk.pack.tasks()).collect();
    let singles = sizes.iter().take_while(|&&tasks| tasks == 1).count();
    assert_eq!(singles, 16, "{sizes:?}");
    assert!(sizes[singles + 1..sizes.len() - 1].iter().all(|&tasks| tasks == 1_024), "{sizes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_function_that_stays_unknown_is_fed_all_the_same() {
    let fake = Fake::new();
    fake.behave(|manners| manners.hold = true);
    let grid = sheaf::Grid::over(fake.clone());
    let results = grid.job("slow").map(&echo(), 0..100).start().await.expect("started");
    tokio::time::timeout(Duration::from_secs(10), results.submitted()).await.expect("soon").expect("submitted");
    assert_eq!(fake.chunks(results.job_id()).len(), 100, "one by one");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_job_is_spread() {
    let fake = Fake::new();
    fake.knows(10_000.0).behave(|manners| manners.slots = 4);
    let grid = sheaf::Grid::over(fake.clone());
    let results = grid.job("tail").map(&echo(), 0..20_000).start().await.expect("started");
    results.submitted().await.expect("submitted");
    let sizes: Vec<u32> = fake.chunks(results.job_id()).values().map(|chunk| chunk.pack.tasks()).collect();
    assert_eq!(sizes[0], 1_000, "ten seconds of work");
    assert!(sizes.windows(2).all(|pair| pair[0] >= pair[1]), "{sizes:?}");
    assert_eq!(*sizes.last().expect("some"), 1);
}

#[tokio::test(start_paused = true)]
async fn large_payloads_close_chunks_by_their_bytes() {
    let fake = Fake::new();
    fake.knows(0.1);
    let grid = sheaf::Grid::over(fake.clone());
    let items = (0..20).map(|_| Bytes::from(vec![7; 300 * 1024]));
    let results = grid.job("large").map(&Function::raw("echo"), items).start().await.expect("started");
    results.submitted().await.expect("submitted");
    let sizes: Vec<u32> = fake.chunks(results.job_id()).values().map(|chunk| chunk.pack.tasks()).collect();
    assert_eq!(sizes, [4, 4, 4, 4, 4], "the task that reaches 1 MiB closes it");
}

#[tokio::test(start_paused = true)]
async fn a_slow_stream_lingers_five_milliseconds() {
    let fake = Fake::new();
    fake.knows(0.1);
    let grid = sheaf::Grid::over(fake.clone());
    let items = futures::stream::unfold(0_u64, |item| async move {
        tokio::time::sleep(Duration::from_millis(2)).await;
        (item < 30).then_some((item, item + 1))
    });
    let mut results = grid.job("slow").map_stream(&echo(), items).start().await.expect("started");
    assert_echoed(&read_all(&mut results).await.expect("read"), 30);
    let sizes: Vec<u32> = fake.chunks(results.job_id()).values().map(|chunk| chunk.pack.tasks()).collect();
    assert_eq!(sizes, [3; 10], "a task at 0, 2 and 4 ms");
}

#[tokio::test(start_paused = true)]
async fn an_ordered_job_is_one_chunk() {
    let fake = Fake::new();
    let grid = sheaf::Grid::over(fake.clone());
    let mut results = grid.job("ordered").ordered().map(&echo(), 0..5_000).start().await.expect("started");
    assert_echoed(&read_all(&mut results).await.expect("read"), 5_000);
    assert_eq!(fake.chunks(results.job_id()).len(), 1);

    let many = u64::from(limits::ORDERED_TASKS_MAX) + 1;
    let mut results = grid.job("too many").ordered().map(&echo(), 0..many).start().await.expect("started");
    let refused = results.next().await.expect("an error").expect_err("too many");
    assert_eq!(refused.code(), Code::TooLarge);
    assert!(refused.hint().is_some_and(|hint| hint.contains("split")), "{refused:?}");
    assert!(results.next().await.is_none(), "an error ends the stream");
}

#[tokio::test(start_paused = true)]
async fn an_item_beyond_the_limit_is_named() {
    let grid = sheaf::Grid::over(Fake::new());
    let items = (0..10).map(|item| Bytes::from(vec![0; if item == 7 { limits::TASK_BYTES_MAX + 1 } else { 10 }]));
    let mut results = grid.job("large").map(&Function::raw("echo"), items).start().await.expect("started");
    let refused = loop {
        if let Err(error) = results.next().await.expect("an error comes") {
            break error;
        }
    };
    assert_eq!(refused.to_string(), "task 7 cannot be sent");
    assert_eq!(refused.code(), Code::TooLarge);
}

#[tokio::test]
async fn an_iterator_that_panics_is_told() {
    let fake = Fake::new();
    let grid = sheaf::Grid::over(fake);
    let items = (0..100).inspect(|&item| assert!(item < 50, "this panic is part of the test"));
    let mut results = grid.job("panics").chunk_tasks(10).map(&echo(), items).start().await.expect("started");
    let mut told = None;
    while let Some(result) = results.next().await {
        told = result.err().or(told);
    }
    assert_eq!(told.expect("an error").code(), Code::Stopped);
}
