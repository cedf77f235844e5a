//! Waiting for a job, with progress, a time limit and Ctrl-C.

use std::time::Duration;

use sheaf_api::{Api, wire::JobView};
use sheaf_core::{JobId, JobState};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};

use crate::{connect::Session, exit::Exit, problem::Outcome, progress::Bar, text};

/// Between two looks at a job's counters while progress is shown: 4 Hz.
const SHOWN_MS: u64 = 250;
/// The same when nobody looks. The call itself returns as soon as something has changed.
const UNSHOWN_MS: u64 = 10_000;

/// How waiting ended.
#[derive(Debug)]
pub(crate) struct Waited {
    /// The job, as last seen.
    pub(crate) view: JobView,
    /// What that amounts to.
    pub(crate) exit: Exit,
}

/// Waits until a job is over, the time is, or somebody presses Ctrl-C.
pub(crate) async fn until_over(session: &Session, job: JobId, until: Option<Instant>, bar: &Bar) -> Outcome<Waited> {
    let mut view = session.api().progress(job, None, 0).await?;
    let watch = async {
        loop {
            bar.show(&view);
            if view.job.state.ended_at_ms().is_some() {
                return Ok(Exit::of(&view));
            }
            let looked_at = Instant::now();
            let wait_ms = if bar.is_shown() { SHOWN_MS } else { UNSHOWN_MS };
            view = session.api().progress(job, Some(view.summary.chunks_ended), wait_ms).await?;
            if bar.is_shown() && view.job.state.ended_at_ms().is_none() {
                tokio::time::sleep_until(looked_at + Duration::from_millis(SHOWN_MS)).await;
            }
        }
    };
    let exit = unless_stopped(session, until, watch).await;
    bar.finish();
    let exit = exit?;
    // What was seen last may be old where nothing happened for long.
    if matches!(exit, Exit::TimedOut | Exit::Interrupted)
        && let Ok(now) = session.api().progress(job, None, 0).await
    {
        view = now;
    }
    Ok(Waited { view, exit })
}

/// Does something to its end, unless the grid's store fails, the time is over, or somebody presses Ctrl-C first.
pub(crate) async fn unless_stopped(
    session: &Session,
    until: Option<Instant>,
    work: impl Future<Output = Outcome>,
) -> Outcome {
    tokio::select! {
        exit = session.while_well(work) => exit,
        () = at(until) => Ok(Exit::TimedOut),
        () = interrupted() => Ok(Exit::Interrupted),
    }
}

async fn at(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Waits for Ctrl-C, or for whoever else wants this process to end.
pub(crate) async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// What to say when a command ends before its job.
pub(crate) fn how_to_come_back(session: &Session, job: JobId, state: Option<&JobState>) -> String {
    if matches!(state, Some(JobState::Open)) {
        format!(
            "{job} is open, and not over before it is sealed: `sheaf job seal {job}` does that if its submitter is gone"
        )
    } else if session.runs_here() {
        format!(
            "what was accepted is kept: `sheaf wait {job}` goes on with it, as does the next `sheaf run` or `sheaf up`"
        )
    } else if session.runs_nowhere() {
        format!("no grid runs: `sheaf wait {job}` runs it here, and `sheaf up` keeps a grid running")
    } else {
        format!("{job} goes on; `sheaf wait {job}` comes back to it")
    }
}

/// One line on what became of a job: tasks, outcomes, and once it is over how long it took, from its creation to its end.
pub(crate) fn summary(view: &JobView) -> String {
    let totals = &view.summary.totals;
    let outcomes: Vec<String> = sheaf_core::Outcome::ALL
        .into_iter()
        .filter(|&outcome| totals.of(outcome) > 0)
        .map(|outcome| format!("{} {outcome}", text::count(totals.of(outcome))))
        .collect();
    let mut line = text::counted(view.summary.tasks_submitted, "task");
    let open = view.summary.tasks_submitted.saturating_sub(totals.ended());
    let open = (open > 0).then(|| format!("{} not over", text::count(open)));
    let outcomes: Vec<String> = outcomes.into_iter().chain(open).collect();
    if !outcomes.is_empty() {
        line += &format!(": {}", outcomes.join(", "));
    }
    if let Some(ended_at_ms) = view.job.state.ended_at_ms().filter(|_| totals.ended() > 0) {
        let elapsed = Duration::from_millis(ended_at_ms.saturating_sub(view.job.created_at_ms).max(1));
        let per_second = totals.ended() as f64 / elapsed.as_secs_f64();
        line += &format!(" in {} ({})", text::duration(elapsed), text::rate(per_second));
    }
    line
}
