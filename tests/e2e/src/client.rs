//! A client that is meant to be killed: maps `echo` over numbers with a journal, and appends what it reads to a file.
//!
//! `sheaf-e2e-client URL TOKEN_FILE JOURNAL OUTPUT TASKS`

use std::{fs::OpenOptions, io::Write, time::Duration};

use anyhow::Context;
use futures::{StreamExt, stream};
use sheaf::Function;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, token_file, journal, output, tasks] = args.as_slice() else { anyhow::bail!("five arguments are wanted") };
    let tasks: u64 = tasks.parse()?;
    let grid = sheaf::builder().grid(url).token_file(token_file.as_str()).connect().await?;
    let echo = Function::<u64, u64>::named("echo");
    // Paced, so that there is something left to do when it is killed.
    let items = stream::iter(0..tasks).then(|item| async move {
        if item % 500 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        item
    });
    let job = grid.job("e2e").journal(journal.as_str()).chunk_tasks(200);
    let mut results = job.map_stream(&echo, items).start().await?;
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
