//! A job from another process, later.

use std::time::Duration;

use sheaf::{Code, Function, Grid, JobId};

use super::{assert_echoed, echo, read_all};
use crate::fake::Fake;

#[tokio::test(start_paused = true)]
async fn everything_can_be_asked_of_a_job() {
    let fake = Fake::new();
    let id = {
        let grid = Grid::over(fake.clone());
        let results = grid.job("eod").label("desk", "rates").map(&echo(), 0..500).start().await.expect("started");
        results.submitted().await.expect("submitted");
        results.job_id()
    };
    let grid = Grid::over(fake.clone());
    let job = grid.attach(id).await.expect("it is there");
    let info = job.info().await.expect("works");
    assert_eq!((info.job.options.name.as_str(), &info.job.options.labels["desk"]), ("eod", &"rates".to_owned()));
    assert_eq!(job.wait().await.expect("works").summary.totals.succeeded, 500);
    assert_echoed(&read_all(&mut job.results::<u64>()).await.expect("read"), 500);
    assert_echoed(&read_all(&mut job.results_of(&echo()).in_order()).await.expect("read"), 500);
    let first = job.results_raw().in_order().next().await.expect("one").expect("works");
    assert_eq!(&*first.outcome.expect("echoed"), b"0");
    assert_eq!(job.explain(first.id).await.expect("works").why, "because");
    assert_eq!(&*job.logs(first.id).await.expect("works"), format!("logs of {}", first.id).as_bytes());
    assert_ne!(job.retry_failed().await.expect("works").id(), id);
    let mut progress = job.progress();
    assert!(progress.changed().await.expect("works").is_over());
}

#[tokio::test(start_paused = true)]
async fn no_such_job_is_an_error() {
    let grid = Grid::over(Fake::new());
    let missing = grid.attach(JobId::from_bytes([1; 16])).await.expect_err("no such job");
    assert_eq!(missing.code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn cancelling_from_elsewhere_ends_the_stream() {
    let fake = Fake::new();
    fake.knows(1e6).behave(|manners| manners.chunk_takes = Duration::from_secs(1_000));
    let grid = Grid::over(fake.clone());
    let mut results =
        grid.job("long").map(&Function::<u64, u64>::named("echo"), 0..1_000).start().await.expect("started");
    let job = Grid::over(fake.clone()).attach(results.job_id()).await.expect("there");
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        job.cancel().await.expect("works");
    });
    let all = read_all(&mut results).await.expect("the grid works");
    assert!(all.values().any(Result::is_err), "some were cancelled");
}

#[tokio::test(start_paused = true)]
async fn a_submission_whose_job_was_cancelled_elsewhere_just_ends() {
    let fake = Fake::new();
    fake.knows(0.1).behave(|manners| manners.submit_takes = Duration::from_millis(50));
    let grid = Grid::over(fake.clone());
    let mut results = grid.job("endless").map(&echo(), 0..).start().await.expect("started");
    let job = Grid::over(fake.clone()).attach(results.job_id()).await.expect("there");
    tokio::time::sleep(Duration::from_secs(1)).await;
    job.cancel().await.expect("works");
    results.submitted().await.expect("nothing went wrong");
    assert!(read_all(&mut results).await.expect("the grid works").len() > 1_000);
}

#[tokio::test(start_paused = true)]
async fn the_same_id_and_items_are_the_same_job() {
    let fake = Fake::new();
    fake.knows(0.1);
    let id = JobId::from_bytes([7; 16]);
    for _ in 0..2 {
        let grid = Grid::over(fake.clone());
        let mut results =
            grid.job("same").id(id).chunk_tasks(100).map(&echo(), 0..1_000).start().await.expect("started");
        assert_echoed(&read_all(&mut results).await.expect("read"), 1_000);
    }
    assert_eq!(fake.runs(), 1_000);
}

#[cfg(feature = "embedded")]
#[tokio::test]
async fn handlers_belong_to_a_grid_in_this_process() {
    let refused = Grid::over(Fake::new()).handler("half", |number: u64| Ok::<_, String>(number / 2)).await;
    assert!(matches!(refused, Err(sheaf::GridError::HandlerElsewhere { function }) if function == "half"));
}
