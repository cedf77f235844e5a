//! `sheaf task`.

use clap::Subcommand;
use sheaf_api::Api;
use sheaf_core::Outcome as Ended;

use crate::{
    answers::Answers,
    commands::explain,
    connect::{Need, Session},
    exit::Exit,
    output::Printer,
    problem::{Outcome, Problem},
    select,
    settings::Settings,
    text,
};

/// Tasks
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// List the tasks of a job that have an outcome
    List {
        /// The job
        job: String,
        /// Only those that ended so: succeeded, failed, cancelled, expired or quarantined
        #[arg(long, value_parser = parse_outcome)]
        outcome: Option<Ended>,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show one task, as `sheaf explain` does
    Info {
        /// The task: job, chunk and index, such as last/0/3
        task: String,
    },
}

fn parse_outcome(text: &str) -> Result<Ended, String> {
    let words = Ended::ALL.map(Ended::as_str);
    let found = Ended::ALL.into_iter().find(|outcome| outcome.as_str() == text);
    found.ok_or_else(|| format!("{text:?} is none of {}", words.join(", ")))
}

impl Task {
    pub(crate) async fn run(self, settings: &Settings) -> Outcome {
        let session = Session::open(settings, Need::Look).await?;
        match self {
            Self::List { job, outcome, limit } => list(&session, settings, &job, outcome, limit).await?,
            Self::Info { task } => {
                let id = select::task(session.api(), &task).await?;
                let view = session.api().task(id).await?;
                Printer(settings.output).one(&view, &id.to_string(), || explain::task(&view))?;
            }
        }
        session.close().await;
        Ok(Exit::Succeeded)
    }
}

async fn list(session: &Session, settings: &Settings, job: &str, outcome: Option<Ended>, limit: usize) -> Outcome<()> {
    if limit == 0 {
        return Err(Problem::usage("--limit is 0, must be at least 1"));
    }
    let api = session.api();
    let id = select::job(api, job).await?;
    let summary = api.progress(id, None, 0).await?.summary;
    let wanted = outcome.map_or(summary.totals.ended(), |outcome| summary.totals.of(outcome));
    let mut rows = Vec::new();
    let mut answers = Answers::of(api, id, true);
    while wanted > 0 && rows.len() < limit {
        let Some(chunk) = answers.next_chunk(0).await? else { break };
        rows.extend(chunk.into_iter().filter(|answer| outcome.is_none_or(|outcome| answer.outcome == outcome)));
    }
    rows.truncate(limit);
    let printer = Printer(settings.output);
    printer.list(&rows)?;
    let hidden = wanted.saturating_sub(rows.len() as u64);
    let open = summary.tasks_submitted.saturating_sub(summary.totals.ended());
    if hidden > 0 {
        eprintln!("{} more hidden; --limit {wanted} shows all", text::count(hidden));
    }
    if open > 0 && outcome.is_none() {
        eprintln!("{} without an outcome yet", text::counted(open, "task"));
    }
    if rows.is_empty() && printer.0.is_table() {
        let word = outcome.map_or("no task has an outcome".to_owned(), |outcome| format!("no task {}", word(outcome)));
        eprintln!("{word}");
    }
    Ok(())
}

const fn word(outcome: Ended) -> &'static str {
    match outcome {
        Ended::Succeeded => "succeeded",
        Ended::Failed => "failed",
        Ended::Cancelled => "was cancelled",
        Ended::Expired => "expired",
        Ended::Quarantined => "was quarantined",
    }
}

/// The failed tasks of a job, at most so many.
pub(crate) async fn failed(
    session: &Session,
    job: sheaf_core::JobId,
    limit: usize,
) -> Outcome<Vec<crate::answers::TaskAnswer>> {
    let mut answers = Answers::of(session.api(), job, true);
    let mut failed = Vec::new();
    while failed.len() < limit {
        let Some(chunk) = answers.next_chunk(0).await? else { break };
        failed.extend(chunk.into_iter().filter(crate::answers::TaskAnswer::is_failed));
    }
    failed.truncate(limit);
    Ok(failed)
}
