//! `sheaf job report`: what became of a job, as one file that can be sent.
//!
//! Everything is from the calls that any client may make: the job, its events, its results, and the workers heard of lately.

mod files;
mod history;
mod machines;
mod machines_page;
mod page;
mod tasks;

use std::{collections::HashMap, io::Write, path::PathBuf};

use clap::Args;
use serde::Serialize;
use sheaf_api::{Api, wire::JobView};
use sheaf_core::{JobId, WorkerId, summary::Totals};
use sheaf_scheduler::energy::Factors;

use self::{
    files::Files,
    history::{History, How},
    machines::MachineFigures,
    tasks::{Cause, Lengths, Spread, Tasks},
};
use crate::{
    answers::Answers,
    commands::cost,
    connect::Session,
    exit::Exit,
    output::Printer,
    problem::{Outcome, Problem},
    select,
    settings::Settings,
    text,
};

/// Which report, and where to.
#[derive(Debug, Args)]
pub(crate) struct Report {
    /// The job
    job: String,
    /// Where to write it; `-` for stdout, and nothing else there. JOB.html unless said otherwise
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Also write tasks.csv, attempts.csv and workers.csv into this folder; with --machines also machines.csv, requests.csv and
    /// decisions.csv
    #[arg(long, value_name = "DIR")]
    csv: Option<PathBuf>,
    /// The folder JOB_N of `sheaf control --machines`: also say what its machines did, and what the policy decided
    #[arg(long, value_name = "FOLDER")]
    machines: Option<PathBuf>,
}

/// What became of a job, in figures.
#[derive(Debug, Serialize)]
struct Figures {
    job: JobId,
    name: String,
    state: &'static str,
    created_at_ms: u64,
    ended_at_ms: Option<u64>,
    deadline_ms: Option<u64>,
    took_ms: u64,
    tasks: u64,
    chunks: u64,
    outcomes: Totals,
    tasks_per_second: f64,
    attempts: u64,
    tasks_isolated: u64,
    /// From a task's submission to the first claim of its chunk, and to the end of its chunk.
    wait_ms: Spread,
    latency_ms: Spread,
    run_us: Spread,
    busy_core_s: f64,
    /// Slots of the workers whose slots are known, times how long they were at it.
    held_core_s: f64,
    utilisation: Option<f64>,
    energy_wh: f64,
    energy_factors: Factors,
    /// What it would cost on AWS at list prices of a date: `sheaf cost` has the rest of it.
    aws_usd: f64,
    aws_prices_as_of: String,
    losses: Vec<LossLine>,
    failures: Vec<Cause>,
    failures_of_other_causes: u64,
    workers: Vec<WorkerLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    machines: Option<MachineFigures>,
    /// What the history does not tell.
    not_known: Vec<String>,
    /// What was written.
    files: Vec<PathBuf>,
}

/// Attempts that were not finished, by how they ended.
#[derive(Debug, Serialize)]
struct LossLine {
    how: &'static str,
    because: &'static str,
    attempts: u64,
    held_ms: u64,
    /// Of that, since the last commit: what was done again, at most.
    uncommitted_ms: u64,
}

/// What a worker did for the job.
#[derive(Debug, Serialize)]
struct WorkerLine {
    worker: WorkerId,
    /// Tasks that it runs at once; not known of a worker that was not heard of lately.
    slots: Option<u32>,
    first_claimed_at_ms: u64,
    last_ended_at_ms: u64,
    span_ms: u64,
    held_ms: u64,
    busy_us: u64,
    utilisation: Option<f64>,
    claimed: u64,
    finished: u64,
    released: u64,
    lost: u64,
    tasks_ended: u64,
}

impl Report {
    pub(crate) async fn run(&self, session: &Session, settings: &Settings) -> Outcome {
        let api = session.api();
        let view = api.progress(select::job(api, &self.job).await?, None, 0).await?;
        let mut files = self.csv.as_deref().map(Files::create).transpose()?;
        let mut history = read_events(api, &view, &mut files).await?;
        let tasks = read_results(api, &view, &mut history, &mut files).await?;
        let machines =
            self.machines.as_deref().map(|folder| machines::read(folder, view.job.id, &history)).transpose()?;
        let mut figures = figures(api, &view, &history, &tasks, machines).await?;
        if let Some(files) = files {
            figures.files = files.finish(&figures.workers)?;
        }
        if let (Some(machines), Some(folder)) = (&figures.machines, &self.csv) {
            figures.files.extend(machines::write(machines, folder)?);
        }
        let page = page::render(&view, &figures, &history)?;
        if self.file.as_deref().is_some_and(|file| file.as_os_str() == "-") {
            std::io::stdout().write_all(page.as_bytes())?;
            return Ok(Exit::Succeeded);
        }
        let file = self.file.clone().unwrap_or_else(|| format!("{}.html", view.job.id).into());
        std::fs::write(&file, page).map_err(|error| Problem::file("written", &file, error))?;
        figures.files.insert(0, file);
        let listed = || figures.files.iter().map(|file| format!("{}\n", file.display())).collect();
        Printer(settings.output).one(&figures, &view.job.id.to_string(), listed)?;
        Ok(Exit::Succeeded)
    }
}

/// Reads all events, page by page.
async fn read_events(api: &impl Api, view: &JobView, files: &mut Option<Files>) -> Outcome<History> {
    let until_ms = view.job.state.ended_at_ms().unwrap_or_else(text::now_ms);
    let mut history = History::new(view.job.created_at_ms, until_ms);
    let mut from = 0;
    loop {
        let page = api.events(view.job.id, from).await?;
        for event in &page.rows {
            if let (Some(attempt), Some(files)) = (history.take(event), files.as_mut()) {
                files.attempt(&attempt, &history)?;
            }
        }
        match page.rows.last() {
            Some(last) if page.next.is_some() => from = last.number + 1,
            _ => break,
        }
    }
    for attempt in history.close() {
        if let Some(files) = files {
            files.attempt(&attempt, &history)?;
        }
    }
    Ok(history)
}

/// Reads all results there are, chunk by chunk. Keys are read only for a CSV.
async fn read_results(
    api: &impl Api,
    view: &JobView,
    history: &mut History,
    files: &mut Option<Files>,
) -> Outcome<Tasks> {
    let mut tasks = Tasks::default();
    let mut answers = Answers::of(api, view.job.id, false);
    if files.is_none() {
        answers = answers.without_keys();
    }
    while let Some(chunk) = answers.next_chunk(0).await? {
        for answer in chunk {
            tasks.take(&answer, history);
            if let Some(files) = files {
                files.task(&answer, history)?;
            }
        }
    }
    history.draw();
    Ok(tasks)
}

async fn figures(
    api: &impl Api,
    view: &JobView,
    history: &History,
    tasks: &Tasks,
    machines: Option<MachineFigures>,
) -> Outcome<Figures> {
    let known = api.workers().await?.rows.into_iter().map(|worker| (worker.id, worker.slots));
    let of_machines = machines.iter().flat_map(MachineFigures::slots);
    let slots: HashMap<WorkerId, u32> = known.chain(of_machines).filter(|(_, slots)| *slots > 0).collect();
    let workers: Vec<WorkerLine> = history.workers.iter().map(|worker| worker_line(worker, &slots)).collect();
    let cost = cost::of(api, view).await?;
    let (wait_ms, latency_ms) = waits(history);
    let busy_core_s = tasks.busy_us as f64 / 1e6;
    let known = || workers.iter().filter_map(|worker| Some((worker, worker.slots?)));
    let held_core_s = known().map(|(worker, slots)| u64::from(slots) * worker.span_ms).sum::<u64>() as f64 / 1e3;
    let busy_of_known_s = known().map(|(worker, _)| worker.busy_us).sum::<u64>() as f64 / 1e6;
    // Nobody knows how long the slots of the others waited: they are taken to have been held while they worked.
    let held_s = held_core_s + (busy_core_s - busy_of_known_s).max(0.0);
    let energy_factors = Factors::built_in();
    let summary = &view.summary;
    let ended_at_ms = view.job.state.ended_at_ms();
    let took_ms = ended_at_ms.unwrap_or_else(text::now_ms).saturating_sub(view.job.created_at_ms);
    let (failures, failures_of_other_causes) = tasks.causes();
    Ok(Figures {
        job: view.job.id,
        name: view.job.options.name.clone(),
        state: view.job.state.as_str(),
        created_at_ms: view.job.created_at_ms,
        ended_at_ms,
        deadline_ms: view.job.options.deadline_ms,
        took_ms,
        tasks: view.job.state.seal().map_or(summary.tasks_submitted, |seal| seal.tasks),
        chunks: view.job.state.seal().map_or(summary.chunks_submitted, |seal| u64::from(seal.chunks)),
        outcomes: summary.totals,
        tasks_per_second: summary.totals.ended() as f64 / (took_ms.max(1) as f64 / 1e3),
        attempts: history.attempts,
        tasks_isolated: history.isolated,
        wait_ms,
        latency_ms,
        run_us: tasks.run_us.spread(),
        busy_core_s,
        held_core_s,
        utilisation: share(busy_of_known_s, held_core_s),
        energy_wh: energy_factors.watt_hours(busy_core_s, held_s),
        energy_factors,
        aws_usd: cost.usd,
        aws_prices_as_of: cost.as_of,
        losses: losses(history),
        failures,
        failures_of_other_causes,
        not_known: not_known(
            view,
            history,
            tasks,
            workers.iter().any(|worker| worker.slots.is_none()),
            machines.as_ref(),
        ),
        workers,
        machines,
        files: Vec::new(),
    })
}

fn share(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| (part / whole).min(1.0))
}

fn worker_line(worker: &history::Worker, slots: &HashMap<WorkerId, u32>) -> WorkerLine {
    let slots = slots.get(&worker.id).copied();
    let span_ms = worker.span_ms();
    WorkerLine {
        worker: worker.id.clone(),
        slots,
        first_claimed_at_ms: worker.first_ms,
        last_ended_at_ms: worker.last_ms,
        span_ms,
        held_ms: worker.held_ms,
        busy_us: worker.busy_us,
        utilisation: share(worker.busy_us as f64 / 1e3, f64::from(slots.unwrap_or(0)) * span_ms as f64),
        claimed: worker.claimed,
        finished: worker.finished,
        released: worker.released,
        lost: worker.lost,
        tasks_ended: worker.tasks_ended,
    }
}

/// How long tasks waited for the first claim, and for the end, of their chunks.
fn waits(history: &History) -> (Spread, Spread) {
    let (mut wait_ms, mut latency_ms) = (Lengths::default(), Lengths::default());
    for (number, tasks) in history.chunks() {
        let stages = history.stages(number);
        let Some(submitted_ms) = stages.submitted_ms else { continue };
        let add = |lengths: &mut Lengths, until_ms: Option<u64>| {
            if let Some(until_ms) = until_ms {
                lengths.add(until_ms.saturating_sub(submitted_ms), u64::from(tasks));
            }
        };
        add(&mut wait_ms, stages.first_claimed_ms);
        add(&mut latency_ms, stages.ended_ms);
    }
    (wait_ms.spread(), latency_ms.spread())
}

fn losses(history: &History) -> Vec<LossLine> {
    let line = |(how, loss): &(How, history::Loss)| LossLine {
        how: how.as_str(),
        because: how.describe(),
        attempts: loss.attempts,
        held_ms: loss.held_ms,
        uncommitted_ms: loss.uncommitted_ms,
    };
    let mut lines: Vec<LossLine> = history.losses.iter().map(line).collect();
    lines.sort_by_key(|line| std::cmp::Reverse(line.uncommitted_ms));
    lines
}

/// What a reader might look for and cannot find.
fn not_known(
    view: &JobView,
    history: &History,
    tasks: &Tasks,
    slots_unknown: bool,
    machines: Option<&MachineFigures>,
) -> Vec<String> {
    let mut said = vec![
        "When a task began and ended inside its chunk: a task's times are those of its chunk, its run time is its own."
            .to_owned(),
        "What workers did besides this job: a worker counts from its first claim to the end of its last attempt here."
            .to_owned(),
        "Energy of memory, disks and network, and of attempts that were lost. A slot is taken for a core.".to_owned(),
    ];
    if slots_unknown {
        let text = "How many slots the workers had that were not heard of lately, and so how long these waited: energy counts \
                    only their work.";
        said.push(text.to_owned());
    }
    if view.job.state.ended_at_ms().is_none() {
        said.push("How it ends: the job is not over, and everything here is as of now.".to_owned());
    }
    let ended = view.summary.totals.ended();
    if tasks.with_outcome < ended {
        let missing = text::counted(ended - tasks.with_outcome, "task");
        said.push(format!("Run times of {missing}: their results were not readable yet."));
    }
    if history.attempts == 0 && ended > 0 {
        said.push("Who ran it and when: its history has no attempts.".to_owned());
    }
    said.extend(machines.iter().flat_map(|machines| machines.not_known.iter().cloned()));
    said
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    /// Of a job of 20 tasks, of which each fifth fails with a message that means something to a browser.
    async fn reported(folder: &std::path::Path) -> (Figures, String) {
        let grid = sheaf::builder().memory(true).slots(2).connect().await.unwrap();
        let fifth = |n: u64| match n % 5 {
            0 => Err(std::io::Error::other(format!("<script>alert({n})</script>"))),
            _ => Ok(n),
        };
        let fifth = grid.handler("fifth", fifth).await.unwrap();
        let mut results = grid.job("<b>night</b>").chunk_tasks(4).map(&fifth, 0..20u64).start().await.unwrap();
        while results.next().await.is_some() {}
        let api = grid.api();
        let view = api.progress(results.job_id(), None, 0).await.unwrap();
        let mut files = Some(Files::create(folder).unwrap());
        let mut history = read_events(api, &view, &mut files).await.unwrap();
        let tasks = read_results(api, &view, &mut history, &mut files).await.unwrap();
        let figures = figures(api, &view, &history, &tasks, None).await.unwrap();
        files.unwrap().finish(&figures.workers).unwrap();
        let page = page::render(&view, &figures, &history).unwrap();
        grid.close().await;
        (figures, page)
    }

    #[tokio::test]
    async fn a_report_says_what_happened_and_needs_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let (figures, page) = reported(folder.path()).await;
        assert_eq!((figures.outcomes.succeeded, figures.outcomes.failed), (16, 4));
        assert_eq!((figures.chunks, figures.attempts, figures.workers.len()), (5, 5, 1));
        let worker = &figures.workers[0];
        assert_eq!((worker.slots, worker.finished, worker.tasks_ended), (Some(2), 5, 20));
        assert_eq!((figures.run_us.count, figures.wait_ms.count, figures.latency_ms.count), (20, 20, 20));
        assert_eq!((figures.failures.len(), figures.failures[0].tasks), (1, 4));
        assert!(figures.energy_wh > 0.0 && figures.losses.is_empty());

        for other in ["<script", "<b>", "<link", "<img", "src=", "href=", "url(", "@import"] {
            assert!(!page.contains(other), "{other}");
        }
        let addresses = page.matches("://").count();
        assert_eq!(addresses, page.matches("http://www.w3.org/2000/svg").count(), "only the name of SVG");
        assert_eq!(page.matches("<figure").count(), 4);

        let rows = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap().lines().count();
        assert_eq!(["tasks.csv", "attempts.csv", "workers.csv"].map(rows), [21, 6, 2]);
    }
}
