//! The number of containers, which follows the work.

use std::time::{Duration, Instant};

use anyhow::ensure;
use sheaf_aws::Services;

use crate::{deployed::Deployed, machines};

/// The sweeper is started each minute; a container that has nothing to do stays for a boot at most, and its end is seen then.
const PATIENCE: Duration = Duration::from_secs(180);
const TASKS: usize = 30;
const TASK_MS: u32 = 2_000;

/// Submits to containers' lane, sees one being asked for, plays it, and sees that none is asked for any more.
pub(crate) async fn follows_the_work(grid: &Deployed) -> anyhow::Result<String> {
    let services = Services::over(&sheaf_aws::load_config().await, &grid.name);
    let wait_for = async |what: &str, is_it: fn(u32) -> bool| {
        let (names, began) = ([format!("{}-spot", grid.name)], Instant::now());
        loop {
            let desired = services.describe(&names).await?[0].desired;
            if is_it(desired) {
                return anyhow::Ok((desired, began.elapsed().as_secs()));
            }
            ensure!(began.elapsed() < PATIENCE, "{desired} containers are asked for, not {what}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    // Other scenarios have had work for containers, too.
    wait_for("none", |desired| desired == 0).await?;
    let job = machines::spot_sleepers(grid, TASKS, TASK_MS, 1).await?;
    let (asked, rose_s) = wait_for("some", |desired| desired > 0).await?;
    let mut container = grid.worker_of("spot", None)?;
    let totals = grid.wait(job, PATIENCE).await?;
    ensure!(totals.succeeded == TASKS as u64, "{totals:?}");
    let (_, fell_s) = wait_for("none", |desired| desired == 0).await?;
    container.kill().await?;
    Ok(format!("{asked} containers asked for {rose_s} s after the work came, none {fell_s} s after it was done"))
}
