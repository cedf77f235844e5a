//! `kill -9` of the grid, and of its client, at random moments.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::{
    collections::HashMap,
    process::Command,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use sheaf::Function;
use sheaf_e2e::{Up, examples, program};

const TASKS: u64 = 200_000;
const KILLS: u32 = 50;

fn echo_functions(directory: &std::path::Path) -> std::path::PathBuf {
    let file = directory.join("functions.toml");
    let package = examples();
    std::fs::write(&file, format!("[functions.echo]\npackage = {:?}\nbatch = true\n", package)).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_grid_is_killed_fifty_times_while_a_client_submits() {
    let directory = tempfile::tempdir().unwrap();
    let functions = echo_functions(directory.path());
    let mut up = Up::start(directory.path(), &[functions]).unwrap();
    let grid = sheaf::builder().grid(up.url()).token_file(up.token_file().unwrap()).connect().await.unwrap();

    // Paced over the time that the kills take.
    let items = stream::iter(0..TASKS).then(|item| async move {
        if item % 1_000 == 0 {
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        item
    });
    let echo = Function::<u64, u64>::named("echo");
    let mut results = grid.job("kill").map_stream(&echo, items).start().await.unwrap();
    let job = results.job();

    let killer = tokio::task::spawn_blocking(move || {
        for _ in 0..KILLS {
            std::thread::sleep(Duration::from_millis(rand::random_range(20..500)));
            up.kill();
            up.restart().unwrap();
        }
        up
    });
    let started = Instant::now();
    let mut seen = vec![false; TASKS as usize];
    while let Some(result) = results.next().await {
        let result = result.unwrap();
        assert_eq!(result.outcome.unwrap(), result.index, "each result is right");
        assert!(!std::mem::replace(&mut seen[result.index as usize], true), "task {} twice", result.index);
    }
    assert!(seen.iter().all(|seen| *seen), "every task has a result");
    let up = killer.await.unwrap();
    let view = job.info().await.unwrap();
    assert_eq!(view.job.state.as_str(), "done");
    assert_eq!((view.summary.totals.succeeded, view.summary.totals.ended()), (TASKS, TASKS));
    println!("{TASKS} tasks, {KILLS} kills, {:.1} s", started.elapsed().as_secs_f64());
    drop(up);
}

#[test]
fn a_killed_client_goes_on_and_reads_each_result_once() {
    const TASKS: u64 = 50_000;
    let directory = tempfile::tempdir().unwrap();
    let up = Up::start(directory.path(), &[echo_functions(directory.path())]).unwrap();
    let (journal, output) = (directory.path().join("journal"), directory.path().join("output"));
    let mut kills = 0;
    loop {
        let mut client = Command::new(program("sheaf-e2e-client"));
        client.arg(up.url()).arg(up.token_file().unwrap()).arg(&journal).arg(&output).arg(TASKS.to_string());
        let mut client = client.spawn().unwrap();
        if kills < 8 {
            std::thread::sleep(Duration::from_millis(rand::random_range(50..250)));
            if client.try_wait().unwrap().is_none() {
                client.kill().unwrap();
                kills += 1;
            }
            client.wait().unwrap();
        } else {
            assert!(client.wait().unwrap().success());
            break;
        }
    }
    // A kill between reading a chunk and saying so gives that chunk again, whole; nothing else comes twice.
    let text = std::fs::read_to_string(&output).unwrap();
    let mut times: HashMap<u64, u32> = HashMap::new();
    for line in text.lines() {
        let (index, value) = line.split_once(' ').unwrap();
        assert_eq!(index, value);
        *times.entry(index.parse().unwrap()).or_default() += 1;
    }
    assert_eq!(times.len() as u64, TASKS);
    let twice = times.values().filter(|times| **times > 1).count();
    assert!(twice <= 200 * kills, "{twice} results came again after {kills} kills");
    println!("{TASKS} tasks, {kills} kills of the client, {twice} results read again");

    let list = sheaf_e2e::output(sheaf_e2e::sheaf(directory.path()).args(["job", "list", "--all", "-o", "json"]));
    let jobs: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    let rows = jobs.get("rows").and_then(|rows| rows.as_array()).or_else(|| jobs.as_array()).unwrap();
    assert_eq!(rows.len(), 1, "all runs of the client were one job");
}
