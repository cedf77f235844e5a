//! What failed in a job, in a few lines each.

use sheaf_api::{Api, wire::JobView};

use crate::{
    answers::{TaskAnswer, kind},
    commands::task,
    connect::Session,
    problem::Outcome,
    text,
};

/// Failures that are shown.
const SHOWN_MAX: usize = 5;
/// Lines of a log that are shown.
const LOG_LINES_MAX: usize = 10;

/// Prints the first failures of a job with the end of what they logged, and how to see the rest.
pub(crate) async fn print(session: &Session, view: &JobView) -> Outcome<()> {
    let totals = &view.summary.totals;
    let all = totals.failed + totals.quarantined;
    if all == 0 {
        return Ok(());
    }
    let failed = task::failed(session, view.job.id, SHOWN_MAX).await?;
    let more = all.saturating_sub(failed.len() as u64);
    for answer in failed {
        let log = session.api().logs(answer.task).await?;
        eprint!("{}", described(&answer, &String::from_utf8_lossy(&log)));
    }
    let job = view.job.id;
    if more > 0 {
        eprintln!("… and {} more: sheaf task list {job} --outcome failed", text::count(more));
    }
    Ok(())
}

fn described(answer: &TaskAnswer, log: &str) -> String {
    let Some(failure) = &answer.failure else { return String::new() };
    let name = if answer.key.is_empty() { format!("{}", answer.position) } else { answer.key.clone() };
    let mut shown = format!("✗ {name} {}: {}: {}\n", answer.outcome, kind(failure), failure.message.trim_end());
    let lines: Vec<_> = log.lines().collect();
    let hidden = lines.len().saturating_sub(LOG_LINES_MAX);
    // A command's message often ends with its log.
    if !failure.message.trim_end().ends_with(log.trim_end()) {
        if hidden > 0 {
            shown += &format!("  … {} above\n", text::counted(hidden as u64, "line"));
        }
        for line in &lines[hidden..] {
            shown += &format!("  {line}\n");
        }
    }
    shown + &format!("  sheaf explain {}\n", answer.task)
}
