//! Machines that vanish.

use std::{collections::HashSet, os::unix::fs::PermissionsExt, process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use serde_json::json;
use sheaf::Function;
use sheaf_core::{JobId, Lane};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use crate::{
    deployed::{Deployed, LANES, SKIPPED, processes},
    jobs,
};

/// Longer than a lease, a redelivery and the work.
const PATIENCE: Duration = Duration::from_secs(240);

/// A job of tasks that sleep.
pub(crate) struct Sleepers {
    tasks: usize,
    ms: u32,
    chunk_tasks: u32,
    /// By when, and how long a task is expected to take.
    due: Option<(Duration, Duration)>,
}

impl Sleepers {
    pub(crate) const fn new(tasks: usize, ms: u32, chunk_tasks: u32) -> Self {
        Self { tasks, ms, chunk_tasks, due: None }
    }

    pub(crate) const fn due(self, deadline: Duration, expected: Duration) -> Self {
        Self { due: Some((deadline, expected)), ..self }
    }
}

/// Submits tasks that sleep to the containers' lane; the job lives on without its client.
pub(crate) async fn spot_sleepers(grid: &Deployed, sleepers: Sleepers) -> anyhow::Result<JobId> {
    let Sleepers { tasks, ms, chunk_tasks, due } = sleepers;
    let sheaf = grid.connect().await?;
    let sleep = Function::<serde_json::Value, u32>::named("sleep");
    let mut job = sheaf.job("sleepers").lane(Lane::Spot).chunk_tasks(chunk_tasks);
    if let Some((deadline, expected)) = due {
        job = job.deadline(deadline).expect(expected);
    }
    let results = job.map(&sleep, vec![json!({ "ms": ms }); tasks]).start().await?;
    results.submitted().await?;
    let job = results.job().id();
    drop(results);
    sheaf.close().await;
    Ok(job)
}

/// Waits until a task's chunk is held by a worker.
pub(crate) async fn held(grid: &Deployed, job: JobId) -> anyhow::Result<()> {
    for _ in 0..240 {
        let task = jobs::explain(grid, &format!("{job}/0/0")).await?;
        if task.get("chunk_state").and_then(|state| state.as_str()).is_some_and(|state| state == "running") {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    anyhow::bail!("no worker took {job}/0")
}

/// Kills a process at once.
fn kill(pid: i32) -> anyhow::Result<()> {
    let status = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status()?;
    ensure!(status.success(), "kill -9 {pid} ended with {status}");
    Ok(())
}

/// Gives a program a read-only root file system (the first argument) with nothing in it but itself, a scratch directory (the
/// second), and the devices and processes that an engine of containers adds, and runs it as the user of the image.
const IN_AN_EMPTY_IMAGE: &str = r#"
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --bind /dev "$1/dev"
mount --bind "$2" "$1/scratch"
mount -o remount,bind,ro "$1"
exec chroot --userspec=10001:10001 "$1" /sheaf-worker-container
"#;

/// The containers' program as packaged, in an image that has no library and no shell.
pub(crate) async fn image(grid: &Deployed) -> anyhow::Result<String> {
    let Some(program) = &grid.container else {
        return Ok(format!("{SKIPPED} the containers' program is not packaged with --quick"));
    };
    if !rustix::process::geteuid().is_root() {
        return Ok(format!("{SKIPPED} only root can give a process another root file system"));
    }
    let folders = ["image", "image/dev", "image/proc", "image/scratch", "image/etc", "scratch"];
    let [root, _, _, _, _, scratch] = folders.map(|folder| grid.directory.path().join(folder));
    for folder in folders {
        std::fs::create_dir(grid.directory.path().join(folder))?;
    }
    std::os::unix::fs::chown(&scratch, Some(10_001), Some(10_001))?;
    std::fs::set_permissions(grid.directory.path(), std::fs::Permissions::from_mode(0o755))?;
    std::fs::copy(program, root.join("sheaf-worker-container"))?;
    // What an engine of containers puts there.
    std::fs::write(root.join("etc/hosts"), "127.0.0.1 localhost aws.in-this-image\n")?;
    let mut worker = Command::new("unshare");
    worker.args(["--mount", "sh", "-euc", IN_AN_EMPTY_IMAGE, "sh"]).args([&root, &scratch]);
    // By a name, so that names are resolved there.
    let endpoint = std::env::var("AWS_ENDPOINT_URL").unwrap_or_default().replace("127.0.0.1", "aws.in-this-image");
    worker
        .env("AWS_ENDPOINT_URL", endpoint)
        .env("SHEAF_SCRATCH", "/scratch")
        .env("SHEAF_METADATA", "http://127.0.0.1:9");
    let sheaf = grid.connect().await?;
    let before: HashSet<_> = sheaf.workers().await?.rows.into_iter().map(|worker| worker.id).collect();
    let log = grid.directory.path().join("image.log");
    let mut worker = grid.start_worker(worker, LANES, &log)?;
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    let alive = async {
        loop {
            if sheaf.workers().await?.rows.iter().any(|worker| !before.contains(&worker.id)) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    tokio::select! {
        alive = tokio::time::timeout(Duration::from_secs(60), alive) => alive.with_context(said)??,
        status = worker.wait() => anyhow::bail!("it ended with {}: {}", status?, said()),
    }
    sheaf.close().await;
    let pid = worker.id().context("it runs")?;
    let asked = std::process::Command::new("kill").arg(pid.to_string()).status()?;
    ensure!(asked.success(), "kill {pid} ended with {asked}");
    let status = tokio::time::timeout(Duration::from_secs(40), worker.wait()).await.with_context(said)??;
    ensure!(status.success(), "it ended with {status}: {}", said());
    Ok("it joins the grid and drains, on a read-only root file system with nothing else in it, as user 10001"
        .to_owned())
}

pub(crate) async fn worker_killed(grid: &Deployed) -> anyhow::Result<String> {
    let mut first = grid.worker(None)?;
    let job = spot_sleepers(grid, Sleepers::new(8, 3_000, 8)).await?;
    held(grid, job).await?;
    kill(first.id().context("it runs")? as i32)?;
    first.wait().await?;
    let killed = std::time::Instant::now();
    let mut second = grid.worker(None)?;
    let totals = grid.wait(job, PATIENCE).await?;
    second.kill().await?;
    ensure!(totals.succeeded == 8, "{totals:?}");
    let crashes = jobs::explain(grid, &format!("{job}/0/7")).await?.get("crashes").and_then(|crashes| crashes.as_u64());
    ensure!(crashes == Some(1), "the chunk counts {crashes:?} crashes");
    Ok(format!("8 tasks done {:.0} s after their worker was killed, one crash counted", killed.elapsed().as_secs_f64()))
}

pub(crate) async fn worker_reclaimed(grid: &Deployed) -> anyhow::Result<String> {
    let mut metadata = Command::new(grid.program("sheaf-metadata-standin")?);
    metadata.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut metadata = metadata.spawn()?;
    let mut said = BufReader::new(metadata.stdout.take().context("a pipe")?).lines();
    let url = said.next_line().await?.context("the stand-in of the metadata service says where it is")?;
    let mut first = grid.worker(Some(&url))?;
    let job = spot_sleepers(grid, Sleepers::new(12, 6_000, 12)).await?;
    held(grid, job).await?;
    let notice = json!({ "action": "terminate", "in_s": 20 });
    let told = reqwest::Client::new().put(format!("{url}/notice")).json(&notice).send().await?;
    ensure!(told.status().is_success(), "the notice was answered with {}", told.status());
    let ended = tokio::time::timeout(Duration::from_secs(40), first.wait()).await;
    let status = ended.context("the worker was still there 40 s after the notice")??;
    ensure!(status.success(), "the worker ended with {status}");
    metadata.kill().await?;
    let mut second = grid.worker(None)?;
    let totals = grid.wait(job, PATIENCE).await?;
    second.kill().await?;
    ensure!(totals.succeeded == 12, "{totals:?}");
    let task = jobs::explain(grid, &format!("{job}/0/11")).await?;
    let count = |name: &str| task.get(name).and_then(|count| count.as_u64());
    ensure!((count("crashes"), count("strikes")) == (Some(0), Some(0)), "a reclaim was charged: {task:?}");
    Ok("12 tasks, half of them given back within the notice, nobody charged".to_owned())
}

/// Kills the process of the Lambda function that runs a chunk.
pub(crate) async fn dispatch_killed(grid: &Deployed) -> anyhow::Result<String> {
    let job = jobs::sleepers(grid, 10, 1_500, 10).await?;
    held(grid, job).await?;
    let name = format!("AWS_LAMBDA_FUNCTION_NAME={}-dispatch", grid.name);
    let dispatchers = processes(|variable| variable == name);
    ensure!(!dispatchers.is_empty(), "no process of {}-dispatch", grid.name);
    dispatchers.iter().try_for_each(|pid| kill(*pid))?;
    let killed = std::time::Instant::now();
    let totals = grid.wait(job, PATIENCE).await?;
    ensure!(totals.succeeded == 10, "{totals:?}");
    let crashes = jobs::explain(grid, &format!("{job}/0/9")).await?.get("crashes").and_then(|crashes| crashes.as_u64());
    ensure!(crashes >= Some(1), "the chunk counts {crashes:?} crashes");
    Ok(format!("10 tasks done {:.0} s after the Lambda that ran them was killed", killed.elapsed().as_secs_f64()))
}
