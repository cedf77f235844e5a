//! `sheaf wait`, and what other commands do when they are told to wait.

use std::{io::Write, time::Duration};

use clap::Args;
use sheaf_api::{Api, wire::JobView};
use tokio::time::Instant;

use crate::{
    commands::failures,
    connect::{Need, Session},
    exit::Exit,
    output::{Format, Printer},
    problem::Outcome,
    progress::Bar,
    select,
    settings::Settings,
    text,
    wait::{self, Waited},
};

/// Wait until jobs are over, and end with what became of them
///
/// On an embedded grid that nobody else has open, this also runs them.
#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// The jobs
    #[arg(required = true)]
    jobs: Vec<String>,
    /// For so long at most, such as 5m or 1h30m
    #[arg(long, value_parser = text::parse_duration)]
    timeout: Option<Duration>,
}

impl Wait {
    pub(crate) async fn run(self, settings: &Settings) -> Outcome {
        let until = self.timeout.map(|timeout| Instant::now() + timeout);
        let session = Session::open(settings, Need::Run).await?;
        let outcome = self.all(&session, settings, until).await;
        end(session, outcome).await
    }

    async fn all(&self, session: &Session, settings: &Settings, until: Option<Instant>) -> Outcome {
        let mut views = Vec::new();
        let mut exit = Exit::Succeeded;
        let mut ids = Vec::new();
        for job in &self.jobs {
            ids.push(select::job(session.api(), job).await?);
        }
        for job in ids {
            let bar = Bar::new(settings);
            let waited = wait::until_over(session, job, until, &bar).await?;
            told(session, &waited).await?;
            exit = exit.and(waited.exit);
            views.push(waited.view);
            if waited.exit == Exit::Interrupted {
                break;
            }
        }
        if settings.output != Format::Table {
            Printer(settings.output).list(&views)?;
        }
        Ok(exit)
    }
}

/// Says on stderr what became of a job: how it ended, what failed, or how to come back to it.
pub(crate) async fn told(session: &Session, waited: &Waited) -> Outcome<()> {
    let Waited { view, exit } = waited;
    let job = view.job.id;
    match exit {
        Exit::TimedOut | Exit::Interrupted => {
            eprintln!("{}", wait::summary(view));
            eprintln!("{}", wait::how_to_come_back(session, job, Some(&view.job.state)));
        }
        Exit::Cancelled => eprintln!("{job} was cancelled; {}", wait::summary(view)),
        _ => {
            failures::print(session, view).await?;
            eprintln!("{}", wait::summary(view));
        }
    }
    Ok(())
}

/// What follows once a command has a job: its id on stdout, and if it is wanted the wait for it.
pub(crate) async fn then(session: &Session, settings: &Settings, view: JobView, wait: bool) -> Outcome {
    let job = view.job.id;
    if !wait {
        let printer = Printer(settings.output);
        printer.one(&view, &job.to_string(), || job.to_string())?;
        if session.runs_nowhere() {
            eprintln!("{}", wait::how_to_come_back(session, job, Some(&view.job.state)));
        }
        return Ok(Exit::Succeeded);
    }
    // The id first: whoever stops waiting needs it.
    if matches!(settings.output, Format::Table | Format::Id) {
        writeln!(std::io::stdout(), "{job}")?;
    }
    let bar = Bar::new(settings);
    let waited = wait::until_over(session, job, None, &bar).await?;
    told(session, &waited).await?;
    if matches!(settings.output, Format::Json | Format::Ndjson) {
        let view = session.api().progress(job, None, 0).await?;
        Printer(settings.output).one(&view, &job.to_string(), String::new)?;
    }
    Ok(waited.exit)
}

/// Closes the session, also after an error: no function is left running. Ctrl-C pressed while running tasks are given time ends
/// it at once.
pub(crate) async fn end(session: Session, outcome: Outcome) -> Outcome {
    tokio::select! {
        () = session.close() => outcome,
        () = wait::interrupted() => Ok(Exit::Interrupted),
    }
}
