//! What is not acknowledged is bounded, and waiting for it is said.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sheaf::{Bytes, Function, Waiting};

use crate::fake::Fake;

const PAYLOAD_BYTES: usize = 1_000;

#[tokio::test(start_paused = true)]
async fn the_budget_bounds_what_is_taken_from_the_iterator() {
    let fake = Fake::new();
    fake.knows(0.1).behave(|manners| manners.stall = true);
    let grid = sheaf::builder().unacknowledged_bytes(1 << 20).over(fake.clone());
    let taken = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&taken);
    let items = (0..100_000).map(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Bytes::from_static(&[1; PAYLOAD_BYTES])
    });
    let mut results =
        grid.job("pressed").chunk_tasks(100).map(&Function::raw("echo"), items).start().await.expect("started");
    tokio::time::sleep(Duration::from_secs(60)).await;

    let bytes = taken.load(Ordering::Relaxed) as usize * PAYLOAD_BYTES;
    assert!((900_000..=(1 << 20) + 200 * PAYLOAD_BYTES).contains(&bytes), "{bytes} bytes were taken");
    let counts = results.progress().now();
    assert_eq!(counts.acknowledged, 0);
    assert!(matches!(counts.waiting, Some(Waiting::Acknowledgement { bytes }) if bytes > 900_000), "{counts:?}");
    assert_eq!(counts.waiting.expect("it waits").to_string(), "waiting for 1.0 MiB to be acknowledged");

    fake.behave(|manners| manners.stall = false);
    let mut read = 0;
    while let Some(result) = results.next().await {
        result.expect("the grid works").outcome.expect("echoed");
        read += 1;
    }
    assert_eq!(read, 100_000);
    assert_eq!(results.progress().now().waiting, None);
}

#[tokio::test(start_paused = true)]
async fn tiny_chunks_do_not_pile_up_under_the_budget() {
    let fake = Fake::new();
    fake.knows(1e9).behave(|manners| manners.stall = true);
    let grid = sheaf::Grid::over(fake.clone());
    let results = grid.job("tiny").map(&super::echo(), 0..100_000).start().await.expect("started");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let submitted = results.progress().now().submitted;
    assert!(submitted <= 700, "{submitted} chunks of one task wait");
}

#[tokio::test(start_paused = true)]
async fn jobs_of_a_handle_share_the_budget_and_all_end() {
    let fake = Fake::new();
    fake.knows(0.1).behave(|manners| manners.submit_takes = Duration::from_millis(3));
    let grid = sheaf::builder().unacknowledged_bytes(10_000).over(fake.clone());
    let jobs = (0..5).map(|_| async {
        let mut results =
            grid.job("shared").chunk_tasks(50).map(&super::echo(), 0..5_000).start().await.expect("started");
        super::assert_echoed(&super::read_all(&mut results).await.expect("read"), 5_000);
    });
    futures::future::join_all(jobs).await;
    assert!((1..=10_000).contains(&fake.in_flight_bytes_max()), "{}", fake.in_flight_bytes_max());
}
