//! `sheaf job`.

use std::time::{Duration, Instant};

use clap::Subcommand;
use sheaf_api::{
    Api,
    wire::{JobFilter, JobView, RetryJob},
};
use sheaf_core::{JobState, Origin, limits};

use crate::{
    commands::{events, report, wait},
    connect::{Need, Session},
    exit::Exit,
    feed,
    output::{Printer, Row, facts},
    problem::{Outcome, Problem},
    select,
    settings::Settings,
    text,
};

/// How long a job is given to be cancelled to its last chunk, and how long a look at it is held.
const CANCEL_WAIT: Duration = Duration::from_secs(5);
const CANCEL_LOOK_MS: u64 = 200;

/// Jobs
#[derive(Debug, Subcommand)]
pub(crate) enum Job {
    /// List jobs, newest first: those that are not over, unless asked for all
    List {
        /// Those that are over as well
        #[arg(long)]
        all: bool,
        /// Only those with this name
        #[arg(long)]
        name: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show what was asked of a job and where it stands
    Info {
        /// The job
        job: String,
    },
    /// Cancel jobs: nothing of them starts any more, and what has succeeded stays
    Cancel {
        /// The jobs
        #[arg(required = true)]
        jobs: Vec<String>,
    },
    /// Run what failed in a job that is over again, as a new job, and print its id
    Retry {
        /// The job
        job: String,
        /// Its failed and quarantined tasks; there is no other choice yet, but one day there may be
        #[arg(long, required = true)]
        failed: bool,
        /// Wait for the new job
        #[arg(long)]
        wait: bool,
    },
    /// Print what happened to a job, oldest first
    Events {
        /// The job
        job: String,
        /// Go on until the job is over; on an embedded grid that nobody else has open, this also runs it
        #[arg(long, short)]
        follow: bool,
    },
    /// Write what became of a job as one HTML file: progress, workers, failures, cost and energy
    Report(report::Report),
    /// Close a job whose submission was cut short, so that it can end with what it has
    Seal {
        /// The job
        job: String,
    },
}

impl Row for JobView {
    const COLUMNS: &'static [&'static str] =
        &["JOB", "NAME", "STATE", "FUNCTION", ">TASKS", ">SUCCEEDED", ">FAILED", ">OPEN", "CREATED", "TOOK"];

    fn id(&self) -> String {
        self.job.id.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let (summary, totals) = (&self.summary, &self.summary.totals);
        let took = self.job.state.ended_at_ms().unwrap_or_else(text::now_ms).saturating_sub(self.job.created_at_ms);
        let functions = &self.job.options.functions;
        let first = functions.first().map(|function| function.name.to_string()).unwrap_or_default();
        let more = if functions.len() > 1 { format!(" +{}", functions.len() - 1) } else { String::new() };
        vec![
            self.job.id.to_string(),
            self.job.options.name.clone(),
            self.job.state.as_str().into(),
            first + &more,
            text::count(summary.tasks_submitted),
            text::count(totals.succeeded),
            text::count(totals.failed + totals.quarantined),
            text::count(summary.tasks_submitted.saturating_sub(totals.ended())),
            text::time(self.job.created_at_ms),
            text::duration_ms(took),
        ]
    }
}

impl Job {
    pub(crate) async fn run(self, settings: &Settings) -> Outcome {
        let runs = matches!(self, Self::Retry { wait: true, .. } | Self::Events { follow: true, .. });
        let need = if runs { Need::Run } else { Need::Look };
        let session = Session::open(settings, need).await?;
        let outcome = self.run_in(&session, settings).await;
        wait::end(session, outcome).await
    }

    async fn run_in(self, session: &Session, settings: &Settings) -> Outcome {
        let printer = Printer(settings.output);
        let api = session.api();
        let exit = match self {
            Self::List { all, name, limit } => list(session, printer, all, name, limit).await?,
            Self::Info { job } => {
                let view = api.progress(select::job(api, &job).await?, None, 0).await?;
                printer.one(&view, &view.id(), || describe(&view))?;
                Exit::Succeeded
            }
            Self::Cancel { jobs } => cancel(session, printer, &jobs).await?,
            Self::Retry { job, failed: _, wait } => {
                let old = select::job(api, &job).await?;
                let view = api.retry(old, RetryJob { id: feed::job_id() }).await?;
                // Counters lag behind; the size that it was sealed with does not.
                let tasks = view.job.state.seal().map_or(view.summary.tasks_submitted, |seal| seal.tasks);
                let tasks = text::counted(tasks, "failed task");
                eprintln!("{tasks} of {old} run again as {}", view.job.id);
                wait::then(session, settings, view, wait).await?
            }
            Self::Events { job, follow } => {
                let id = select::job(api, &job).await?;
                events::print(session, printer.0, id, follow).await?
            }
            Self::Report(report) => report.run(session, settings).await?,
            Self::Seal { job } => {
                let id = select::job(api, &job).await?;
                let view = api.seal(id, events::settled_size(api, id).await?).await?;
                printer.one(&view, &view.id(), || describe(&view))?;
                Exit::Succeeded
            }
        };
        Ok(exit)
    }
}

async fn list(session: &Session, printer: Printer, all: bool, name: Option<String>, limit: usize) -> Outcome {
    if limit == 0 {
        return Err(Problem::usage("--limit is 0, must be at least 1"));
    }
    let filter = JobFilter { alive: !all, name, before: None, limit: limits::PAGE_ROWS_MAX };
    let (rows, more) = pages(session, filter.clone(), limit).await?;
    printer.list(&rows)?;
    if more {
        eprintln!("older jobs hidden; --limit {} shows more", limit.saturating_mul(10));
    }
    if all && rows.is_empty() {
        eprintln!("no jobs");
    }
    if !all {
        let (ended, more) = pages(session, JobFilter { alive: false, ..filter }, limits::PAGE_ROWS_MAX).await?;
        let ended = ended.iter().filter(|view| view.job.state.ended_at_ms().is_some()).count();
        if ended > 0 {
            let at_least = if more { "at least " } else { "" };
            eprintln!("{at_least}{} hidden; --all shows them", text::counted(ended as u64, "ended job"));
        } else if rows.is_empty() {
            eprintln!("no jobs; `sheaf submit` and `sheaf run` make some");
        }
    }
    Ok(Exit::Succeeded)
}

/// Jobs, until there are enough; and whether there are more.
async fn pages(session: &Session, mut filter: JobFilter, enough: usize) -> Outcome<(Vec<JobView>, bool)> {
    let mut rows = Vec::new();
    loop {
        filter.limit = (enough + 1 - rows.len()).min(limits::PAGE_ROWS_MAX);
        let page = session.api().jobs(filter.clone()).await?;
        let last = page.next.is_none();
        rows.extend(page.rows);
        if rows.len() > enough || last {
            let more = rows.len() > enough;
            rows.truncate(enough);
            return Ok((rows, more));
        }
        filter.before = rows.last().map(|view| view.job.id);
    }
}

async fn cancel(session: &Session, printer: Printer, jobs: &[String]) -> Outcome {
    let mut views = Vec::new();
    for job in jobs {
        let id = select::job(session.api(), job).await?;
        let mut view = session.api().cancel(id).await?;
        let until = Instant::now() + CANCEL_WAIT;
        while view.job.state.ended_at_ms().is_none() && Instant::now() < until {
            view = session.api().progress(id, Some(view.summary.chunks_ended), CANCEL_LOOK_MS).await?;
        }
        if matches!(view.job.state, JobState::Done { .. }) {
            eprintln!("{id} was over before it could be cancelled");
        }
        views.push(view);
    }
    printer.list(&views)?;
    Ok(Exit::Succeeded)
}

/// A job, in full.
pub(crate) fn describe(view: &JobView) -> String {
    let (options, totals) = (&view.job.options, &view.summary.totals);
    let functions: Vec<_> = options.functions.iter().map(ToString::to_string).collect();
    let labels: Vec<_> = options.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let outcomes = sheaf_core::Outcome::ALL.into_iter().filter(|&outcome| totals.of(outcome) > 0);
    let outcomes: Vec<_> = outcomes.map(|outcome| format!("{} {outcome}", text::count(totals.of(outcome)))).collect();
    let origin = match &view.job.origin {
        Some(Origin::File { path }) => format!("file {path}"),
        Some(Origin::RetryOf { job }) => format!("what failed in {job}"),
        None => String::new(),
    };
    let or_none = |number: Option<String>| number.unwrap_or_default();
    let deadline = |at_ms| match view.lateness(text::now_ms()) {
        Some((_, end_ms)) => {
            format!("{}, before all can end: {} at the earliest", text::time(at_ms), text::time(end_ms))
        }
        None => text::time(at_ms),
    };
    facts(&[
        ("job", view.job.id.to_string()),
        ("name", options.name.clone()),
        ("state", view.job.state.as_str().into()),
        ("functions", functions.join(", ")),
        (
            "tasks",
            format!(
                "{} in {}",
                text::count(view.summary.tasks_submitted),
                text::counted(view.summary.chunks_submitted, "chunk")
            ),
        ),
        ("outcomes", outcomes.join(", ")),
        ("from", origin),
        ("created", text::time(view.job.created_at_ms)),
        ("ended", or_none(view.job.state.ended_at_ms().map(text::time))),
        (
            "took",
            or_none(
                view.job
                    .state
                    .ended_at_ms()
                    .map(|at_ms| text::duration_ms(at_ms.saturating_sub(view.job.created_at_ms))),
            ),
        ),
        ("ordered", if options.ordered { "yes".into() } else { String::new() }),
        ("attempts", format!("{} at most", options.max_attempts)),
        ("deadline", or_none(options.deadline_ms.map(deadline))),
        (
            "fail fast",
            or_none(options.fail_fast.map(|failures| format!("after {}", text::counted(failures, "failure")))),
        ),
        ("expected", or_none(options.task_ms.map(|task_ms| format!("{} a task", text::duration_ms(task_ms))))),
        ("priority", options.priority.to_string()),
        ("labels", labels.join(", ")),
    ])
}
