//! What users do with jobs.

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt, time::Duration};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use sheaf::Function;
use sheaf_core::{JobId, Totals};

use crate::deployed::{Deployed, SKIPPED, succeeded};

/// Longer than any of these jobs takes, sweeper included.
const PATIENCE: Duration = Duration::from_secs(240);

/// The checks that a user runs first.
pub(crate) async fn doctor(grid: &Deployed) -> anyhow::Result<String> {
    let said = grid.sheaf(&["doctor"]).await?;
    Ok(format!("{} checks", said.lines().count()))
}

/// Declares the functions that the other scenarios use: a package that also runs as a Lambda function.
pub(crate) async fn functions(grid: &Deployed) -> anyhow::Result<String> {
    let package = grid.program("bootstrap-examples")?;
    let mut text = String::new();
    for (name, timeout) in
        [("echo", "60s"), ("sleep", "600s"), ("sum_prime_numbers", "60s"), ("typeA", "60s"), ("fail_times", "60s")]
    {
        let package = package.display();
        text += &format!(
            "[functions.{name}]\npackage = {:?}\ntimeout = {timeout:?}\nmemory = \"128MiB\"\nbatch = {}\n\n",
            package.to_string(),
            name == "echo"
        );
    }
    let file = grid.write("functions.toml", &text)?;
    grid.sheaf(&["function", "add", &file]).await?;
    let listed = grid.sheaf(&["function", "list"]).await?;
    ensure!(["echo", "sleep", "fail_times"].iter().all(|name| listed.contains(name)), "{listed}");
    Ok("5 functions of one package".to_owned())
}

/// The same through the HTTP API, signed.
pub(crate) async fn over_http(grid: &Deployed) -> anyhow::Result<String> {
    let Some(api) = &grid.api else { return Ok(format!("{SKIPPED} no HTTP API was deployed")) };
    let arguments = ["submit", "--array", "1-2000", "--function", "echo", "--chunk-tasks", "500", "--wait"];
    let output = grid.sheaf_at(api, &arguments)?.output().await?;
    succeeded(&arguments, output)?;
    let results = grid.sheaf_at(api, &["results", "last"])?.output().await?;
    let lines = succeeded(&["results", "last"], results)?.lines().count();
    ensure!(lines == 2_000, "{lines} results of 2,000");
    Ok("2,000 tasks submitted, waited for and read with SigV4".to_owned())
}

/// The load-test harness against the deployed grid. Its function is the command itself, which is on this machine, as Lambdas are.
pub(crate) async fn bench(grid: &Deployed) -> anyhow::Result<String> {
    let script = format!("#!/bin/sh\nexec '{}' bench function\n", grid.program("sheaf")?.display());
    let script = grid.write("bootstrap-bench", &script)?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    let declared = format!("[functions.bench_batch]\npackage = {script:?}\nmemory = \"512MiB\"\nbatch = true\n");
    let file = grid.write("bench.toml", &declared)?;
    grid.sheaf(&["function", "add", &file]).await?;
    // Ends with another code than 0 if a result was wrong, missing or there twice.
    let arguments = ["bench", "child-batch", "--function", "bench_batch", "--tasks", "100000", "--json", "bench.json"];
    grid.sheaf(&arguments).await?;
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(grid.directory.path().join("bench.json"))?)?;
    let run = &report["runs"][0];
    ensure!(run["tasks"] == 100_000, "{run}");
    let figure = |name: &str| run["figures"][name].as_f64().with_context(|| format!("no {name} in {run}"));
    Ok(format!("100,000 results checked, each right and there once, {:.0} tasks/s", figure("tasks_per_s")?))
}

/// Runs tasks that each give back their own number, and checks that each has exactly one outcome, and the right one.
async fn numbers(grid: &Deployed, tasks: u64, chunk_tasks: u32) -> anyhow::Result<(JobId, Totals)> {
    let sheaf = grid.connect().await?;
    let echo = Function::<u64, u64>::named("echo");
    let map = sheaf.job("numbers").chunk_tasks(chunk_tasks).map(&echo, 0..tasks);
    let mut results = map.start().await?;
    let job = results.job().id();
    let mut seen = vec![false; tasks as usize];
    while let Some(chunk) = results.next_chunk().await {
        for result in chunk?.iter() {
            let number = result.outcome.map_err(|error| anyhow::anyhow!("task {}: {error}", result.index))?;
            ensure!(number == result.index, "task {} gave {number}", result.index);
            let seen = seen.get_mut(number as usize).with_context(|| format!("there is no task {number}"))?;
            ensure!(!std::mem::replace(seen, true), "task {number} has two outcomes");
        }
    }
    let missing = seen.iter().filter(|seen| !**seen).count();
    ensure!(missing == 0, "{missing} tasks have no outcome");
    let totals = grid.wait(job, PATIENCE).await?;
    ensure!(totals.succeeded == tasks, "the grid counts {totals:?}");
    sheaf.close().await;
    Ok((job, totals))
}

pub(crate) async fn hundred_thousand(grid: &Deployed) -> anyhow::Result<String> {
    let (job, _) = numbers(grid, 100_000, 1_000).await?;
    let cost = grid.sheaf(&["cost", &job.to_string()]).await?;
    println!("{cost}");
    Ok("100,000 tasks by SDK, each result right and given once".to_owned())
}

pub(crate) async fn million(grid: &Deployed) -> anyhow::Result<String> {
    numbers(grid, 1_000_000, 1_000).await?;
    Ok("1,000,000 tasks in one job, exactly one outcome each".to_owned())
}

/// Submits tasks that sleep, by the command.
pub(crate) async fn sleepers(grid: &Deployed, tasks: u32, ms: u32, chunk_tasks: u32) -> anyhow::Result<JobId> {
    let line = json!({ "ms": ms }).to_string() + "\n";
    let lines = grid.write(&format!("sleepers-{}.txt", crate::deployed::unique()), &line.repeat(tasks as usize))?;
    let chunk_tasks = chunk_tasks.to_string();
    let submit = ["submit", "--lines", &lines, "--function", "sleep", "--chunk-tasks", &chunk_tasks];
    grid.sheaf(&submit).await?.trim().parse().context("submit prints a job id")
}

pub(crate) async fn cancel(grid: &Deployed) -> anyhow::Result<String> {
    let job = sleepers(grid, 400, 2_000, 4).await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    grid.sheaf(&["job", "cancel", &job.to_string()]).await?;
    let totals = grid.wait(job, PATIENCE).await?;
    ensure!(totals.cancelled > 0, "nothing was cancelled: {totals:?}");
    ensure!(totals.ended() == 400, "{totals:?} are not 400 outcomes");
    Ok(format!("{} of 400 cancelled, {} had succeeded", totals.cancelled, totals.succeeded))
}

pub(crate) async fn retry(grid: &Deployed) -> anyhow::Result<String> {
    let tasks: Vec<String> = (0..20)
        .map(|task| {
            let file = grid.directory.path().join(format!("fails-{task}"));
            // Every other one fails once.
            json!({ "n": task % 2, "file": file.display().to_string() }).to_string()
        })
        .collect();
    let lines = grid.write("fail-times.txt", &(tasks.join("\n") + "\n"))?;
    let job = grid.sheaf(&["submit", "--lines", &lines, "--function", "fail_times"]).await?;
    let job: JobId = job.trim().parse()?;
    let first = grid.wait(job, PATIENCE).await?;
    ensure!((first.succeeded, first.failed) == (10, 10), "{first:?}");
    let again: JobId = grid.sheaf(&["job", "retry", "--failed", &job.to_string()]).await?.trim().parse()?;
    let second = grid.wait(again, PATIENCE).await?;
    ensure!(second.succeeded == 10, "{second:?}");
    ensure!(grid.wait(job, PATIENCE).await? == first, "an outcome has changed");
    Ok("10 of 20 failed, all 10 succeeded when run again".to_owned())
}

/// What a task's explanation says, as JSON.
pub(crate) async fn explain(grid: &Deployed, task: &str) -> anyhow::Result<BTreeMap<String, Value>> {
    Ok(serde_json::from_str(&grid.sheaf(&["task", "info", task, "-o", "json"]).await?)?)
}
