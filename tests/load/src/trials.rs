//! What no load shows: how long a grid that was killed takes to be back, and what one costs that has nothing to do.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use sheaf::{Function, Grid};

use crate::{
    error::LoadError,
    function,
    live::Live,
    machine::Machine,
    report::SCHEMA,
    resources::{Watched, switches_in},
    scenario::{Kind, Scenario},
    target::{Options, Up, scratch},
    verify::{Answer, Verdict, Verifier},
    work::{Doing, Mix, Work},
};

/// How long a grid is left alone before it is watched idling: what starting left to do is then done.
const SETTLE_S: u64 = 5;
/// How long a task runs that keeps a slot for the whole of a trial.
const HOLD_US: u32 = 600_000_000;
/// How long that task may take to begin.
const BEGIN_S_MAX: u64 = 60;

/// A grid that was killed, and started again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What it was measured on.
    pub machine: Machine,
    /// Tasks that were acknowledged and had not been run when it was killed.
    pub tasks: u64,
    /// How long submitting them took.
    pub submit_s: f64,
    /// From its start to when it served and answered with the job's right counts.
    pub answers_s: f64,
    /// From its start to the first result.
    pub first_result_s: f64,
    /// From its start to the last.
    pub all_results_s: f64,
    /// The most memory that it had from its second start on.
    pub grid_peak_mib: f64,
    /// How the results were.
    pub verdict: Verdict,
}

/// A grid that has nothing to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Idle {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What it was measured on.
    pub machine: Machine,
    /// For how long it was watched.
    pub seconds: f64,
    /// How often its threads were switched to or from in a second.
    pub context_switches_per_s: f64,
    /// Processor time in an hour, at this rate.
    pub cpu_s_per_hour: f64,
    /// Memory that it had at most.
    pub peak_mib: f64,
}

/// Watches a grid that does nothing.
pub async fn idle(seconds: Duration, options: &Options) -> Result<Idle, LoadError> {
    let directory = scratch(options)?;
    let up = Up::start(&options.sheaf, directory.path(), &Scenario::default()).await?;
    tokio::time::sleep(Duration::from_secs(SETTLE_S)).await;
    let watched = Watched::start("grid", up.pid())?;
    let switches = switches_in(up.pid(), seconds).await?;
    let used = watched.used()?;
    let machine = Machine::this(Some(directory.path()));
    up.stop().await;
    Ok(Idle {
        schema: SCHEMA,
        machine,
        seconds: seconds.as_secs_f64(),
        context_switches_per_s: switches as f64 / seconds.as_secs_f64(),
        cpu_s_per_hour: used.cpu_s * 3_600.0 / seconds.as_secs_f64(),
        peak_mib: used.peak_bytes as f64 / f64::from(1 << 20),
    })
}

/// Kills a grid that has accepted so many tasks and not run them, starts it again, and reads all results.
///
/// One task that sleeps keeps the grid's only slot meanwhile, so that the others wait.
pub async fn recovery(tasks: u64, options: &Options, live: &Arc<Live>) -> Result<Recovery, LoadError> {
    let directory = scratch(options)?;
    let scenario = Scenario { slots: Some(1), ..Scenario::default() };
    let up = Up::start(&options.sheaf, directory.path(), &scenario).await?;
    let grid = up.connect().await?;
    let holder = function::declare(&grid, Kind::Single, &options.child).await?;
    let function = function::declare(&grid, Kind::Batch, &options.child).await?;
    let hold = Work { doing: Doing::Sleep, run_us: HOLD_US, fails: false, payload_bytes: 64, result_bytes: 64 };
    let held = grid.job("bench recovery: holds the slot").map(&holder, [hold.payload(0)]).start().await?;
    held.submitted().await?;
    wait_until_running(&grid).await?;

    let (mix, began) = (Mix::default(), Instant::now());
    let (of_tasks, counted) = (mix.clone(), Arc::clone(live));
    let payloads = (0..tasks).map(move |number| {
        counted.submitted(1);
        of_tasks.task(1, number).payload(number)
    });
    // Without an estimate the SDK would wait for the first results, which do not come.
    let job = grid.job("bench recovery").chunk_tasks(sheaf::core::limits::CHUNK_TASKS_MAX);
    let results = job.map(&function, payloads).start().await?;
    results.submitted().await?;
    let (submit_s, job, holding) = (began.elapsed().as_secs_f64(), results.job_id(), held.job_id());
    drop((results, held));
    up.kill().await;

    let began = Instant::now();
    let up = Up::start(&options.sheaf, directory.path(), &scenario).await?;
    let watched = Watched::start("grid", up.pid())?;
    let grid = up.connect().await?;
    let attached = grid.attach(job).await?;
    let mut verdict = Verdict::default();
    let summary = attached.info().await?.summary;
    let answers_s = began.elapsed().as_secs_f64();
    if summary.tasks_submitted != tasks {
        verdict.miscounted += 1;
        verdict.note(|| format!("{tasks} tasks were acknowledged, and {} are counted", summary.tasks_submitted));
    }
    grid.attach(holding).await?.cancel().await?;
    let mut verifier = Verifier::new(mix, 1, 0);
    verifier.submitted(tasks);
    let (mut results, mut first_result_s) = (attached.results_of(&Function::<Vec<u8>, sheaf::Bytes>::raw("any")), None);
    while let Some(chunk) = results.next_chunk().await {
        let chunk = chunk?;
        first_result_s.get_or_insert_with(|| began.elapsed().as_secs_f64());
        let wrong = chunk.raw().filter(|(index, outcome)| match outcome {
            Ok(result) => !verifier.take(*index, Answer::Result(result)),
            Err(error) => !verifier.take(*index, Answer::Other(&error.to_string())),
        });
        live.done(chunk.len() as u64, wrong.count() as u64);
    }
    let all_results_s = began.elapsed().as_secs_f64();
    verdict.merge(verifier.finish());
    let grid_peak_mib = watched.used()?.peak_bytes as f64 / f64::from(1 << 20);
    let machine = Machine::this(Some(directory.path()));
    grid.close().await;
    up.stop().await;
    let first_result_s = first_result_s.unwrap_or(all_results_s);
    Ok(Recovery {
        schema: SCHEMA,
        machine,
        tasks,
        submit_s,
        answers_s,
        first_result_s,
        all_results_s,
        grid_peak_mib,
        verdict,
    })
}

/// Waits until the only task there is runs.
async fn wait_until_running(grid: &Grid) -> Result<(), LoadError> {
    let until = Instant::now() + Duration::from_secs(BEGIN_S_MAX);
    while grid.workers().await?.rows.iter().all(|worker| worker.holding.is_empty()) {
        if Instant::now() >= until {
            let wrong = format!("nothing ran within {BEGIN_S_MAX} s of its submission");
            return Err(LoadError::Scenario { place: "recovery".to_owned(), wrong });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
