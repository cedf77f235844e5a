//! The number of containers, which follows the work.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sheaf_aws::Services;
use tokio::process::Child;

use crate::{
    deployed::Deployed,
    jobs,
    machines::{self, Sleepers},
};

/// The sweeper is started each minute; a container that has nothing to do stays for a boot at most, and its end is seen then.
const PATIENCE: Duration = Duration::from_secs(180);
const TASKS: usize = 30;
const TASK_MS: u32 = 2_000;
/// Less than a container on demand takes to boot: the scaler must have one guard this from the beginning.
const DEADLINE: Duration = Duration::from_secs(80);
/// Long enough for its child to be found.
const HUNG_TASK_MS: u32 = 8_000;

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
    let job = machines::spot_sleepers(grid, Sleepers::new(TASKS, TASK_MS, 1)).await?;
    let (asked, rose_s) = wait_for("some", |desired| desired > 0).await?;
    let mut container = grid.worker_of("spot", None)?;
    let totals = grid.wait(job, PATIENCE).await?;
    ensure!(totals.succeeded == TASKS as u64, "{totals:?}");
    let (_, fell_s) = wait_for("none", |desired| desired == 0).await?;
    container.kill().await?;
    Ok(format!("{asked} containers asked for {rose_s} s after the work came, none {fell_s} s after it was done"))
}

/// A task hangs in a container on spot, which lives on and renews its lease. Its deadline is near, and a container on demand has
/// nothing to do: the scaler has it run a second copy, whose outcome counts.
pub(crate) async fn outruns_what_hangs(grid: &Deployed) -> anyhow::Result<String> {
    let mut spot = grid.worker_of("spot", None)?;
    let sleepers = Sleepers::new(1, HUNG_TASK_MS, 1).due(DEADLINE, Duration::from_secs(30));
    let job = machines::spot_sleepers(grid, sleepers).await?;
    machines::held(grid, job).await?;
    stop_children(&spot).await?;
    let stopped = Instant::now();
    let mut on_demand = grid.worker_of("on-demand,spot", None)?;
    let totals = grid.wait(job, PATIENCE).await?;
    let took_s = stopped.elapsed().as_secs();
    ensure!(totals.succeeded == 1, "{totals:?}");
    ensure!(spot.try_wait()?.is_none(), "the container on spot has ended");
    let task = jobs::explain(grid, &format!("{job}/0/0")).await?;
    let past = task.get("past").cloned().unwrap_or_default();
    ensure!(past[0]["released"] == "outrun", "the attempt on spot ended so: {past}");
    ensure!(task.get("crashes").is_none_or(|crashes| *crashes == 0), "somebody was charged: {task:?}");
    spot.kill().await?;
    on_demand.kill().await?;
    Ok(format!("a task that hangs on spot was outrun by its second copy on demand within {took_s} s, nobody charged"))
}

/// Stops what a container runs, as if it hung.
async fn stop_children(container: &Child) -> anyhow::Result<()> {
    let pid = container.id().context("it runs")?;
    for _ in 0..40 {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten();
        let children: String =
            tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok()).collect();
        if !children.is_empty() {
            let stopped = std::process::Command::new("kill").arg("-STOP").args(children.split_whitespace()).status()?;
            ensure!(stopped.success(), "kill -STOP {children} ended with {stopped}");
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("the container runs nothing")
}
