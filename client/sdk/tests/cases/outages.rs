//! Throttling, lost answers and outages pass; refusals do not.

use std::time::Duration;

use sheaf::{Code, Grid, Waiting, WriteOutcome};

use super::{assert_echoed, echo, read_all};
use crate::fake::Fake;

#[tokio::test(start_paused = true)]
async fn a_throttling_grid_is_followed_for_as_long_as_it_takes() {
    let fake = Fake::new();
    fake.knows(0.1).behave(|manners| manners.throttle = 1.0);
    let grid = Grid::over(fake.clone());
    let mut results = grid.job("throttled").map(&echo(), 0..1_000).start().await.expect("started");
    tokio::time::sleep(Duration::from_secs(600)).await;
    let waiting = results.progress().now().waiting;
    assert!(matches!(&waiting, Some(Waiting::Throttled { message }) if message == "too many at once"), "{waiting:?}");
    fake.behave(|manners| manners.throttle = 0.0);
    assert_echoed(&read_all(&mut results).await.expect("read"), 1_000);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_runs_nothing_twice() {
    let fake = Fake::new();
    fake.knows(100.0).behave(|manners| manners.lose = 0.7);
    let grid = Grid::over(fake.clone());
    let mut results = grid.job("lossy").map(&echo(), 0..2_000).start().await.expect("started");
    assert_echoed(&read_all(&mut results).await.expect("read"), 2_000);
    assert_eq!(fake.runs(), 2_000);
    assert!(fake.calls("submit") > 3, "some answers were lost");
}

#[tokio::test(start_paused = true)]
async fn a_grid_that_restarts_is_waited_for() {
    let fake = Fake::new();
    fake.knows(1_000.0).behave(|manners| {
        manners.submit_takes = Duration::from_millis(50);
        manners.chunk_takes = Duration::from_millis(500);
    });
    let grid = Grid::over(fake.clone());
    let mut results = grid.job("restart").chunk_tasks(10).map(&echo(), 0..20_000).start().await.expect("started");
    let away = fake.clone();
    tokio::spawn(async move {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(120)).await;
            away.behave(|manners| manners.away = true);
            tokio::time::sleep(Duration::from_secs(10)).await;
            away.behave(|manners| manners.away = false);
        }
    });
    assert_echoed(&read_all(&mut results).await.expect("read"), 20_000);
    assert_eq!(fake.runs(), 20_000);
}

/// No answer comes while there is no news, and none that is waited for survives the restarts.
#[tokio::test(start_paused = true)]
async fn a_job_without_news_is_waited_for_through_any_number_of_restarts() {
    let fake = Fake::new();
    fake.knows(0.1).behave(|manners| manners.hold = true);
    let grid = Grid::over(fake.clone());
    let mut results = grid.job("quiet").chunk_tasks(10).map(&echo(), 0..100).start().await.expect("started");
    results.submitted().await.expect("submitted");
    let job = grid.attach(results.job_id()).await.expect("there");
    let mut progress = job.progress();
    let restarts = fake.clone();
    tokio::spawn(async move {
        for _ in 0..300 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            restarts.behave(|manners| manners.away = true);
            tokio::time::sleep(Duration::from_millis(100)).await;
            restarts.behave(|manners| manners.away = false);
        }
        restarts.behave(|manners| manners.hold = false);
    });
    let watched = async {
        while !progress.changed().await?.is_over() {}
        Ok::<_, sheaf::GridError>(())
    };
    let (read, waited, watched) = tokio::join!(read_all(&mut results), job.wait(), watched);
    assert_echoed(&read.expect("read"), 100);
    assert_eq!(waited.expect("waited").summary.totals.succeeded, 100);
    watched.expect("watched");
    assert!(fake.calls("results") < 3_000, "restarts cost few calls: {}", fake.calls("results"));
}

/// The same for tickets, which read in their own way.
#[tokio::test(start_paused = true)]
async fn a_ticket_outlives_any_number_of_restarts() {
    let fake = Fake::new();
    fake.knows(0.1).behave(|manners| manners.hold = true);
    let grid = Grid::over(fake.clone());
    let ticket = grid.submit(&echo(), 7).await.expect("accepted");
    let restarts = fake.clone();
    tokio::spawn(async move {
        for _ in 0..150 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            restarts.behave(|manners| manners.away = true);
            tokio::time::sleep(Duration::from_millis(100)).await;
            restarts.behave(|manners| manners.away = false);
        }
        restarts.behave(|manners| manners.hold = false);
    });
    assert_eq!(ticket.await.expect("works").outcome, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn a_grid_that_stays_away_is_an_error_in_the_end() {
    let fake = Fake::new();
    fake.knows(0.1);
    let grid = Grid::over(fake.clone());
    let mut results = grid.job("gone").map(&echo(), 0..1_000_000_u64).start().await.expect("started");
    fake.behave(|manners| manners.away = true);
    let error = loop {
        if let Err(error) = results.next().await.expect("an error comes") {
            break error;
        }
    };
    assert!(matches!(error.code(), Code::Unavailable | Code::Unknown), "{error:?}");
    assert_ne!(error.outcome(), WriteOutcome::Final, "it may be tried again");
    assert!(results.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_ends_the_submission() {
    for code in [Code::Conflict, Code::Invalid, Code::TooLarge] {
        let fake = Fake::new();
        fake.knows(0.1).behave(|manners| manners.refuse = Some((3, code)));
        let grid = Grid::over(fake.clone());
        let results = grid.job("refused").chunk_tasks(10).map(&echo(), 0..1_000).start().await.expect("started");
        let refused = results.submitted().await.expect_err("chunk 3 is refused");
        assert_eq!((refused.code(), refused.outcome()), (code, WriteOutcome::Final), "{refused:?}");
    }
}
