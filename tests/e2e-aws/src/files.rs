//! Uploaded files.

use std::{collections::BTreeSet, time::Duration};

use anyhow::ensure;
use serde_json::json;
use sheaf_core::{Job, JobId, Origin};

use crate::{deployed::Deployed, queues};

const PATIENCE: Duration = Duration::from_secs(180);
/// For how long nothing more may happen.
const QUIET: Duration = Duration::from_secs(10);

/// Commands of several functions, one of which nobody knows.
fn commands() -> (String, BTreeSet<String>) {
    let mut commands = serde_json::Map::new();
    let mut lines = BTreeSet::new();
    for n in 0..300 {
        commands.insert(format!("a{n}"), json!({ "type": "typeA", "arguments": { "arg1": n, "arg2": "x" } }));
        lines.insert(format!("a{n} {n}_x"));
    }
    commands.insert("p".into(), json!({ "type": "sum_prime_numbers", "arguments": { "n": 30 } }));
    lines.insert("p 129".into());
    commands.insert("u".into(), json!({ "type": "nobody", "arguments": {} }));
    lines.insert("u nobody not handled".into());
    (serde_json::Value::Object(commands).to_string(), lines)
}

fn same(text: &str, expected: &BTreeSet<String>) -> anyhow::Result<()> {
    let found: BTreeSet<String> = text.lines().map(|line| line.replace(['\'', '"'], "")).collect();
    let missing: Vec<_> = expected.difference(&found).take(3).collect();
    let strange: Vec<_> = found.difference(expected).take(3).collect();
    ensure!(missing.is_empty() && strange.is_empty(), "missing {missing:?}, not expected {strange:?}");
    ensure!(text.lines().count() == expected.len(), "a command has two lines");
    Ok(())
}

pub(crate) async fn upload(grid: &Deployed) -> anyhow::Result<String> {
    let (text, expected) = commands();
    grid.upload("inbox/first.json", text).await?;
    same(&grid.object("outbox/first.txt", PATIENCE).await?, &expected)?;
    Ok(format!("{} commands from inbox/first.json to outbox/first.txt", expected.len()))
}

pub(crate) async fn bad_upload(grid: &Deployed) -> anyhow::Result<String> {
    grid.upload("inbox/bad.json", "{\"a\": {\"type\": \"typeA\",").await?;
    let report = grid.object("outbox/bad.error.json", PATIENCE).await?;
    ensure!(report.contains("bad.json") && report.contains("line"), "{report}");
    let (text, expected) = commands();
    grid.upload("inbox/after-bad.json", text).await?;
    same(&grid.object("outbox/after-bad.txt", PATIENCE).await?, &expected)?;
    Ok("an error report, and the next file is not held up".to_owned())
}

/// Events come twice, late and out of order.
pub(crate) async fn duplicate_events(grid: &Deployed) -> anyhow::Result<String> {
    let (text, expected) = commands();
    let keys = ["inbox/twice.json", "inbox/again.json"];
    for key in keys {
        grid.upload(key, text.clone()).await?;
    }
    for result in ["outbox/twice.txt", "outbox/again.txt"] {
        same(&grid.object(result, PATIENCE).await?, &expected)?;
    }
    let first = jobs_of(grid, &keys).await?;
    ensure!(first.len() == 2, "{} jobs of two uploads", first.len());
    let (twice, is_its_own) = queues::upload_event(grid, keys[0]).await?;
    let (again, _) = queues::upload_event(grid, keys[1]).await?;
    let events = [&twice, &again, &twice, &twice, &again, &again];
    for event in events {
        queues::send(grid, "uploads", event).await?;
    }
    tokio::time::sleep(QUIET).await;
    queues::drained(grid, "uploads", PATIENCE).await?;
    let after = jobs_of(grid, &keys).await?;
    let more = if is_its_own { 0 } else { 2 };
    ensure!(after.len() == 2 + more && first.is_subset(&after), "replayed events made {} jobs", after.len());
    same(&grid.object("outbox/twice.txt", PATIENCE).await?, &expected)?;
    Ok(format!("{} more events of 2 uploads, in any order: {} jobs", events.len(), after.len()))
}

/// The jobs that these objects have become.
async fn jobs_of(grid: &Deployed, keys: &[&str]) -> anyhow::Result<BTreeSet<JobId>> {
    let jobs = queues::jobs(grid).await?.into_iter();
    let is_it = |job: &Job| match &job.origin {
        Some(Origin::File { path }) => keys.iter().any(|key| path.ends_with(key)),
        Some(Origin::RetryOf { .. }) | None => false,
    };
    Ok(jobs.filter(is_it).map(|job| job.id).collect())
}
