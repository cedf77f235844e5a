//! A deployed grid under everything that happens to one: `cargo xtask e2e-aws` packages the Lambdas, starts an AWS on loopback,
//! applies the real Terraform modules to it and then runs this.
//!
//! Each scenario works through the real `sheaf` command and the SDK. Containers are played by local worker processes. A scenario
//! that fails does not stop the others; all are named at the end, with how long each took.

mod deployed;
mod files;
mod jobs;
mod leftovers;
mod machines;
mod queues;
mod requests;
mod scaler;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Parser;
use futures::future::BoxFuture;

use deployed::Deployed;

/// Runs the scenarios against a deployed grid whose credentials and endpoint are in the environment, as the AWS CLI finds them.
#[derive(Parser)]
struct Arguments {
    /// The grid's name.
    #[arg(long)]
    grid: String,
    /// The URL of its HTTP API; without it, what goes through the API is skipped.
    #[arg(long)]
    api: Option<String>,
    /// The folder of the built programs.
    #[arg(long)]
    programs: PathBuf,
    /// The program of the containers as packaged; without it, the one in that folder.
    #[arg(long)]
    container: Option<PathBuf>,
    /// Only say what is left of a grid that was destroyed; fails if anything is.
    #[arg(long)]
    leftovers: bool,
    /// Only these scenarios.
    scenarios: Vec<String>,
}

type Scenario = for<'a> fn(&'a Deployed) -> BoxFuture<'a, anyhow::Result<String>>;

/// The scenarios in their order: first what the later ones need. Those of the scaler come before the others with work for containers:
/// these play fewer than it asks for, and a service that does not give what it is asked for is left alone for a while.
const SCENARIOS: [(&str, Scenario); 19] = [
    ("doctor", |grid| Box::pin(jobs::doctor(grid))),
    ("functions", |grid| Box::pin(jobs::functions(grid))),
    ("http", |grid| Box::pin(jobs::over_http(grid))),
    ("hundred-thousand", |grid| Box::pin(jobs::hundred_thousand(grid))),
    ("requests", |grid| Box::pin(requests::per_thousand_tasks(grid))),
    ("bench", |grid| Box::pin(jobs::bench(grid))),
    ("upload", |grid| Box::pin(files::upload(grid))),
    ("bad-upload", |grid| Box::pin(files::bad_upload(grid))),
    ("duplicate-events", |grid| Box::pin(files::duplicate_events(grid))),
    ("cancel", |grid| Box::pin(jobs::cancel(grid))),
    ("retry", |grid| Box::pin(jobs::retry(grid))),
    ("image", |grid| Box::pin(machines::image(grid))),
    ("scaler", |grid| Box::pin(scaler::follows_the_work(grid))),
    ("outrun", |grid| Box::pin(scaler::outruns_what_hangs(grid))),
    ("worker-killed", |grid| Box::pin(machines::worker_killed(grid))),
    ("worker-reclaimed", |grid| Box::pin(machines::worker_reclaimed(grid))),
    ("dispatch-killed", |grid| Box::pin(machines::dispatch_killed(grid))),
    ("queue-purged", |grid| Box::pin(queues::purged(grid))),
    ("million", |grid| Box::pin(jobs::million(grid))),
];

/// A scenario that takes longer has failed; and those that are not over when all of them have taken so long.
const SCENARIO_MAX: Duration = Duration::from_secs(420);
const ALL_MAX: Duration = Duration::from_secs(1_200);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if arguments.leftovers {
        return leftovers::check(&arguments.grid).await;
    }
    let grid = Deployed::find(arguments.grid, arguments.api, arguments.programs, arguments.container).await?;
    let wanted = |name: &str| arguments.scenarios.is_empty() || arguments.scenarios.iter().any(|wanted| wanted == name);
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(["SCENARIO", "SECONDS", "SEEN"]);
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let until = Instant::now() + ALL_MAX;
    for (name, scenario) in SCENARIOS.into_iter().filter(|(name, _)| wanted(name)) {
        println!("--- {name}");
        let started = Instant::now();
        let at_most = SCENARIO_MAX.min(until.saturating_duration_since(started));
        let ended = tokio::time::timeout(at_most, scenario(&grid)).await;
        let seconds = started.elapsed().as_secs_f64();
        let seen = match ended {
            Ok(Ok(seen)) if seen.starts_with(deployed::SKIPPED) => {
                skipped += 1;
                seen
            }
            Ok(Ok(seen)) => {
                passed += 1;
                seen
            }
            Ok(Err(error)) => {
                failed += 1;
                format!("FAILED: {error:#}")
            }
            Err(_) => {
                failed += 1;
                format!("FAILED: it was not over after {} s", at_most.as_secs())
            }
        };
        println!("    {seconds:.1} s: {seen}");
        table.add_row([name.to_owned(), format!("{seconds:.1}"), seen]);
    }
    println!("\n{table}\n");
    println!("scenarios on AWS: {passed} passed, {failed} failed, {skipped} skipped");
    anyhow::ensure!(failed == 0, "{failed} scenarios failed");
    Ok(())
}
