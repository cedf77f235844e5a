//! Clients with the SDK: in this process, and in processes of their own that are killed and go on from their journals.

use std::{
    collections::HashMap,
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures::{Stream, StreamExt, stream};
use sheaf::Function;

use super::{Place, RETENTION};

/// Tasks of one run of a killed client.
const KILLED_TASKS: u64 = 40_000;
/// Tasks to a chunk of it: what it may be given again after a kill.
const KILLED_CHUNK_TASKS: u64 = 200;
/// Longer, and a run counts as stuck.
const RUN: Duration = Duration::from_secs(150);

/// Maps numbers to themselves until the soak is over; each result must come once and be right.
pub(crate) async fn run(place: Place, number: u32) -> anyhow::Result<()> {
    let tally = &place.tally;
    let echo = Function::<u64, u64>::named("echo");
    let begun = Instant::now();
    let grid = loop {
        match sheaf::builder().grid(&place.url).token_file(&place.token_file).connect().await {
            Ok(grid) => break grid,
            Err(error) => ensure!(begun.elapsed() < RUN, "it cannot connect: {error}"),
        }
    };
    let mut count = 0;
    while place.goes_on() {
        let tasks: u64 = rand::random_range(1..20_000);
        let items = paced(tasks);
        let job = grid.job(format!("sdk-{number}-{count}")).retention(RETENTION);
        let mut results = job.map_stream(&echo, items).start().await.context("a job")?;
        let id = results.job_id();
        let mut seen = vec![false; tasks as usize];
        while let Some(result) = tokio::time::timeout(RUN, results.next()).await.context("a result")? {
            let result = result.with_context(|| format!("results of {id}"))?;
            match result.outcome {
                Ok(value) if value == result.index => {}
                Err(error) if error.to_string().contains("quarantine") => drop(tally.quarantined.fetch_add(1, Relaxed)),
                other => tally.loss(&format!("{id}: task {} is {other:?}", result.index)),
            }
            tally.results.fetch_add(1, Relaxed);
            match seen.get_mut(result.index as usize).map(|seen| std::mem::replace(seen, true)) {
                None => tally.violation(&format!("{id}: task {} was never submitted", result.index)),
                Some(true) => tally.duplicate(&format!("{id}: task {} comes twice", result.index)),
                Some(false) => {}
            }
        }
        tally.tasks.fetch_add(tasks, Relaxed);
        for index in seen.iter().enumerate().filter(|(_, seen)| !**seen).map(|(index, _)| index) {
            tally.loss(&format!("{id}: task {index} of {tasks} has no result"));
        }
        tally.jobs.fetch_add(1, Relaxed);
        count += 1;
    }
    grid.close().await;
    Ok(())
}

/// Numbers, spread over time so that there is something left to do when somebody is killed.
fn paced(tasks: u64) -> impl Stream<Item = u64> + Send {
    stream::iter(0..tasks).then(|item| async move {
        if item % 500 == 0 {
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        item
    })
}

/// What a client that is killed does: maps numbers to themselves with a journal, and appends what it reads to a file.
pub(crate) async fn client(url: &str, token_file: &Path, journal: &Path, output: &Path) -> anyhow::Result<()> {
    let grid = sheaf::builder().grid(url).token_file(token_file).connect().await?;
    let echo = Function::<u64, u64>::named("echo");
    let job = grid.job("killed").journal(journal).chunk_tasks(KILLED_CHUNK_TASKS as u32).retention(RETENTION);
    let mut results = job.map_stream(&echo, paced(KILLED_TASKS)).start().await?;
    let mut file = OpenOptions::new().create(true).append(true).open(output)?;
    while let Some(chunk) = results.next_chunk().await {
        let chunk = chunk?;
        let mut lines = String::new();
        for result in chunk.iter() {
            let value = result.outcome.as_ref().map_err(|error| anyhow::anyhow!("{}: {error}", result.index))?;
            lines.push_str(&format!("{} {value}\n", result.index));
        }
        file.write_all(lines.as_bytes()).context("the output")?;
        results.delivered().await?;
    }
    grid.close().await;
    Ok(())
}

/// Runs such a client in a process of its own again and again, killing it at random moments until it is through.
pub(crate) async fn run_killed(place: Place, folder: PathBuf) -> anyhow::Result<()> {
    let mut count = 0;
    while place.goes_on() {
        let (place, folder) = (place.clone(), folder.join(count.to_string()));
        tokio::task::spawn_blocking(move || one_killed(&place, &folder)).await??;
        count += 1;
    }
    Ok(())
}

fn one_killed(place: &Place, folder: &Path) -> anyhow::Result<()> {
    let tally = &place.tally;
    std::fs::create_dir_all(folder)?;
    let (journal, output) = (folder.join("journal"), folder.join("output"));
    let (begun, mut kills) = (Instant::now(), 0_u64);
    loop {
        let mut client = Command::new(std::env::current_exe()?);
        client.arg("client").arg(&place.url).arg(&place.token_file).arg(&journal).arg(&output);
        let log = OpenOptions::new().create(true).append(true).open(folder.join("log"))?;
        let mut client = client.stderr(log.try_clone()?).stdout(log).spawn()?;
        let dies_at = Instant::now() + Duration::from_millis(rand::random_range(100..2_000));
        let status = loop {
            if let Some(status) = client.try_wait()? {
                break Some(status);
            }
            if kills < 6 && Instant::now() > dies_at {
                client.kill()?;
                client.wait()?;
                kills += 1;
                tally.client_kills.fetch_add(1, Relaxed);
                break None;
            }
            if begun.elapsed() > RUN {
                client.kill()?;
                client.wait()?;
                tally.violation(&format!("a client with a journal is not through after {} s", RUN.as_secs()));
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        match status {
            Some(status) if status.success() => break,
            // It may fail to connect while the grid is away; it goes on from its journal as if it had been killed.
            Some(_) => kills += 1,
            None => {}
        }
        ensure!(begun.elapsed() < RUN, "{}", std::fs::read_to_string(folder.join("log")).unwrap_or_default());
    }
    check_output(place, &std::fs::read_to_string(&output)?, kills);
    tally.jobs.fetch_add(1, Relaxed);
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

/// Every task is there and right. A kill between reading a chunk and saying so gives that chunk again; nothing else comes
/// twice.
fn check_output(place: &Place, text: &str, kills: u64) {
    let tally = &place.tally;
    let mut times: HashMap<u64, u64> = HashMap::new();
    for line in text.lines() {
        tally.results.fetch_add(1, Relaxed);
        match line.split_once(' ').map(|(index, value)| (index.parse(), value.parse())) {
            Some((Ok(index), Ok::<u64, _>(value))) if index == value => *times.entry(index).or_default() += 1,
            _ => tally.loss(&format!("a client with a journal read {line:?}")),
        }
    }
    tally.tasks.fetch_add(KILLED_TASKS, Relaxed);
    for index in (0..KILLED_TASKS).filter(|index| !times.contains_key(index)) {
        tally.loss(&format!("a client with a journal has no result of task {index}"));
    }
    let again: u64 = times.values().map(|times| times - 1).sum();
    tally.given_again.fetch_add(again, Relaxed);
    if again > kills * KILLED_CHUNK_TASKS {
        tally.duplicate(&format!("a client with a journal was given {again} results again after {kills} kills"));
    }
}
