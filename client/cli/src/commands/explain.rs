//! `sheaf explain`.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;
use sheaf_api::{
    Api,
    wire::{CheckpointView, JobView, TaskView},
};
use sheaf_core::{FailureKind, JobState, TaskId, chunk::PastAttempt};

use crate::{
    answers::{Answers, kind},
    commands::events,
    connect::{Need, Session},
    exit::Exit,
    output::{Printer, facts},
    problem::Outcome,
    select::{self, Object},
    settings::Settings,
    text,
};

/// Say why a job or task is where it is: since when, what was tried, what it waits for, and what to do
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// A job, or a task such as last/0/3
    id: String,
}

/// Failed tasks that are read to group them.
const GROUPED_TASKS_MAX: usize = 10_000;
/// Lines of a failure's stderr that are shown.
const STDERR_LINES_MAX: usize = 15;

/// Why a job is where it is.
#[derive(Debug, Serialize)]
struct JobExplanation {
    #[serde(flatten)]
    job: JobView,
    why: String,
    failures: Vec<Group>,
}

/// Failures that look alike.
#[derive(Debug, Serialize)]
struct Group {
    kind: FailureKind,
    error: String,
    tasks: u64,
    example: TaskId,
}

impl Explain {
    pub(crate) async fn run(self, settings: &Settings) -> Outcome {
        let session = Session::open(settings, Need::Look).await?;
        let printer = Printer(settings.output);
        match select::object(session.api(), &self.id).await? {
            Object::Task(id) => {
                let view = session.api().task(id).await?;
                printer.one(&view, &id.to_string(), || task(&view))?;
            }
            Object::Job(id) => {
                let view = session.api().progress(id, None, 0).await?;
                let why = why(&session, &view).await?;
                let failures = groups(&session, &view).await?;
                let explanation = JobExplanation { job: view, why, failures };
                printer.one(&explanation, &id.to_string(), || job(&explanation))?;
            }
        }
        session.close().await;
        Ok(Exit::Succeeded)
    }
}

/// In a sentence or two: why a job is where it is.
async fn why(session: &Session, view: &JobView) -> Outcome<String> {
    let (summary, totals) = (&view.summary, &view.summary.totals);
    let open = summary.tasks_submitted.saturating_sub(totals.ended());
    let failed = totals.failed + totals.quarantined + totals.expired;
    Ok(match view.job.state {
        JobState::Done { .. } if failed == 0 => "it is over, and every task succeeded".into(),
        JobState::Done { .. } => format!("it is over; {} did not succeed", text::counted(failed, "task")),
        JobState::Cancelled { .. } => {
            let limit = view.job.options.fail_fast.filter(|&most| totals.failed + totals.quarantined >= most);
            match limit {
                Some(most) => format!("it was cancelled because {} failed (fail fast)", text::counted(most, "task")),
                None => "it was cancelled, because somebody asked for that".into(),
            }
        }
        JobState::Cancelling { .. } => "it is being cancelled; what runs is stopped within seconds".into(),
        JobState::Open | JobState::Sealed { .. } => {
            let unsealed = matches!(view.job.state, JobState::Open);
            let waiting = if unsealed { "; it also waits for its submitter to seal it" } else { "" };
            format!("{}{waiting}", capacity(session, view, open).await?)
        }
    })
}

/// What a job that is not over waits for.
async fn capacity(session: &Session, view: &JobView, open: u64) -> Outcome<String> {
    if open == 0 {
        return Ok("every task that was submitted is over".into());
    }
    let tasks = text::counted(open, "task");
    if session.runs_nowhere() {
        return Ok(format!(
            "{tasks} wait for a worker, and none runs: start `sheaf up`, or `sheaf wait {}`",
            view.job.id
        ));
    }
    let workers = session.api().workers().await?.rows;
    let slots: u64 = workers.iter().filter(|worker| !worker.draining).map(|worker| u64::from(worker.slots)).sum();
    if slots == 0 {
        return Ok(format!("{tasks} wait for a worker, and none takes any"));
    }
    let left = match view.estimate.tasks {
        0 => String::new(),
        _ => {
            let us = view.estimate.mean_us * open as f64 / slots as f64;
            format!(", about {} of work", text::duration_us(us as u64))
        }
    };
    Ok(format!("{tasks} to go on {}{left}", text::counted(slots, "slot")))
}

/// Failures that look alike, most frequent first.
async fn groups(session: &Session, view: &JobView) -> Outcome<Vec<Group>> {
    let totals = &view.summary.totals;
    let mut groups: BTreeMap<(FailureKind, String), Group> = BTreeMap::new();
    let mut answers = Answers::of(session.api(), view.job.id, true);
    let mut left = (totals.failed + totals.quarantined).min(GROUPED_TASKS_MAX as u64);
    while left > 0 {
        let Some(chunk) = answers.next_chunk(0).await? else { break };
        for answer in chunk {
            let Some(failure) = &answer.failure else { continue };
            left = left.saturating_sub(1);
            let line = failure.message.lines().next().unwrap_or_default();
            let error =
                if failure.error_type.is_empty() { line.to_owned() } else { format!("{}: {line}", kind(failure)) };
            let group = Group { kind: failure.kind, error: error.clone(), tasks: 0, example: answer.task };
            groups.entry((failure.kind, error)).or_insert(group).tasks += 1;
        }
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.tasks));
    Ok(groups)
}

fn job(explanation: &JobExplanation) -> String {
    let view = &explanation.job;
    let since_ms = view.job.state.ended_at_ms().unwrap_or(view.job.created_at_ms);
    let mut shown = facts(&[
        ("job", view.job.id.to_string()),
        ("state", format!("{} since {}", view.job.state.as_str(), text::time(since_ms))),
        ("why", explanation.why.clone()),
        ("counts", crate::wait::summary(view)),
    ]);
    if !explanation.failures.is_empty() {
        shown += "\nwhat failed, by cause\n";
    }
    for group in &explanation.failures {
        shown += &format!("  {} × {}: {}\n", text::count(group.tasks), group.kind, group.error);
        shown += &format!("    sheaf explain {}\n", group.example);
        if let Some(advice) = advice(group.kind) {
            shown += &format!("    {advice}\n");
        }
    }
    let over = matches!(view.job.state, JobState::Done { .. } | JobState::Cancelled { .. });
    if over && !explanation.failures.is_empty() {
        shown += &format!("\nsheaf job retry --failed {} runs them again, as a new job\n", view.job.id);
    }
    shown
}

/// A task, in full.
pub(crate) fn task(view: &TaskView) -> String {
    let or_none = |value: Option<String>| value.unwrap_or_default();
    let count = |count: u32| if count == 0 { String::new() } else { count.to_string() };
    let past: Vec<_> = view.past.iter().map(earlier).collect();
    let mut shown = facts(&[
        ("task", view.id.to_string()),
        ("key", or_none(view.key.clone())),
        ("function", view.function.to_string()),
        ("outcome", view.outcome.map_or("none yet", sheaf_core::Outcome::as_str).into()),
        ("why", view.why.clone()),
        ("submitted", text::time(view.submitted_at_ms)),
        ("ended", or_none(view.ended_at_ms.map(text::time))),
        ("ran", or_none(view.run_us.map(|us| text::duration_us(us.into())))),
        ("attempts", count(view.attempts)),
        ("strikes", count(view.strikes.into())),
        ("workers lost", count(view.crashes.into())),
        ("worker", or_none(view.worker.as_ref().map(ToString::to_string))),
        ("earlier", past.join("; ")),
        ("checkpoint", or_none(view.checkpoint.as_ref().map(checkpoint))),
        ("lost work", or_none(view.lost_ms.map(text::duration_ms))),
    ]);
    let Some(failure) = &view.failure else { return shown };
    if failure.message.lines().count() > 1 {
        shown += &format!("\nmessage\n{}", indented(failure.message.lines()));
    }
    if !failure.stack.is_empty() {
        shown += &format!("\nstack\n{}", indented(failure.stack.iter().map(String::as_str)));
    }
    if !failure.message.trim_end().ends_with(failure.stderr.trim_end()) {
        let lines: Vec<_> = failure.stderr.lines().collect();
        let from = lines.len().saturating_sub(STDERR_LINES_MAX);
        shown += &format!("\nlast words\n{}", indented(lines[from..].iter().copied()));
    }
    if let Some(advice) = advice(failure.kind) {
        shown += &format!("\n{advice}\n");
    }
    shown
}

/// From where the task goes on.
fn checkpoint(of: &CheckpointView) -> String {
    let (bytes, ran) = (text::bytes(of.bytes.into()), text::duration_ms(of.run_ms));
    format!("{bytes}, stored by attempt {} after a run of {ran}, {}", of.epoch, text::time(of.at_ms))
}

/// An attempt that did not finish the task's chunk.
fn earlier(past: &PastAttempt) -> String {
    let ran = text::duration_ms(past.until_ms.saturating_sub(past.since_ms));
    let end = match past.released {
        Some(reason) => events::released(reason),
        None => "it did not come back, or the chunk was ended under it",
    };
    let kept = match past.checkpointed_at_ms {
        Some(_) => format!("; its last checkpoint was {} before that", text::duration_ms(past.lost_ms())),
        None => String::new(),
    };
    format!("attempt {} on {} for {ran}: {end}{kept}", past.epoch, past.worker)
}

fn indented<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines.map(|line| format!("  {line}\n")).collect()
}

/// What to do about a kind of failure, where that is not plain from the failure itself.
const fn advice(kind: FailureKind) -> Option<&'static str> {
    match kind {
        FailureKind::Error | FailureKind::Panic => None,
        FailureKind::Exited => Some("the process ended by itself: its log, `sheaf logs TASK`, may say why"),
        FailureKind::Killed => Some("a signal ended the process: a crash in native code, or somebody killed it"),
        FailureKind::TimedOut => Some("give the function more time (timeout in functions.toml), or the task less work"),
        FailureKind::OutOfMemory => {
            Some("give the function more memory (memory in functions.toml), or the task less work")
        }
        FailureKind::OutputTooLarge => {
            Some("store large results elsewhere and answer where they are, or raise output_max")
        }
        FailureKind::BadAnswer => {
            Some("the function answered, but not in the form that it declares (result in functions.toml)")
        }
        FailureKind::NotStarted => {
            Some("check that the program exists, is executable, and finds what it needs through its env")
        }
        FailureKind::UnknownFunction => Some("declare it with `sheaf function add`, and retry"),
        FailureKind::WorkerDied => Some("running it took its worker down with it: try it alone, with less memory"),
    }
}
