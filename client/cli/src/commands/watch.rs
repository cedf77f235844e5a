//! `sheaf watch`.

use clap::Args;
use sheaf_api::{Api, wire::JobView};
use sheaf_core::Event;

use crate::{
    commands::{events, wait as wait_command},
    connect::{Need, Session},
    exit::Exit,
    output::{Format, Printer},
    problem::Outcome,
    progress::Bar,
    select,
    settings::Settings,
    text, wait,
};

/// How long a look for news is held by the grid: 4 Hz.
const LOOK_MS: u64 = 250;

/// Watch a job live: what happens to it, and how far it is
///
/// Without a terminal, or with -o ndjson, a line is printed each time something has changed. On an embedded grid that nobody
/// else has open, this also runs the job.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// The job
    job: String,
}

impl Watch {
    pub(crate) async fn run(self, settings: &Settings) -> Outcome {
        let session = Session::open(settings, Need::Run).await?;
        let outcome = self.watch(&session, settings).await;
        wait_command::end(session, outcome).await
    }

    async fn watch(&self, session: &Session, settings: &Settings) -> Outcome {
        let job = select::job(session.api(), &self.job).await?;
        let bar = Bar::new(settings);
        let mut from = 0;
        let mut last: Option<JobView> = None;
        let watching = async {
            loop {
                let seen = last.as_ref().map(|view| view.summary.chunks_ended);
                let view = session.api().progress(job, seen, LOOK_MS).await?;
                if bar.is_shown() {
                    from = news(session, &bar, job, from).await?;
                    bar.show(&view);
                }
                let changed =
                    last.as_ref().is_none_or(|last| last.summary != view.summary || last.job.state != view.job.state);
                if changed && !bar.is_shown() {
                    line(settings.output, &view)?;
                }
                let over = view.job.state.ended_at_ms().is_some();
                let view = last.insert(view);
                if over {
                    return Ok(Exit::of(view));
                }
            }
        };
        let exit = wait::unless_stopped(session, None, watching).await;
        bar.finish();
        if let Some(view) = &last {
            eprintln!("{}", wait::summary(view));
            if exit.as_ref().is_ok_and(|exit| *exit == Exit::Interrupted) {
                eprintln!("{}", wait::how_to_come_back(session, job, Some(&view.job.state)));
            }
        }
        exit
    }
}

/// Prints what happened since, above the bar. What each chunk goes through is left out: there may be millions.
async fn news(session: &Session, bar: &Bar, job: sheaf_core::JobId, from: u64) -> Outcome<u64> {
    let page = session.api().events(job, from).await?;
    for event in &page.rows {
        let shown = match &event.event {
            Event::ChunkSubmitted { .. } | Event::SegmentCommitted { .. } => false,
            Event::ChunkClaimed { taken_over, .. } => *taken_over,
            Event::ChunkFinished { totals, .. } => totals.failed + totals.quarantined > 0,
            _ => true,
        };
        if shown {
            bar.say(&format!("{}  {}", text::time(event.at_ms), events::describe(&event.event)));
        }
    }
    Ok(page.rows.last().map_or(from, |event| event.number + 1))
}

fn line(format: Format, view: &JobView) -> Outcome<()> {
    let id = view.job.id.to_string();
    let format = if format == Format::Json { Format::Ndjson } else { format };
    Printer(format).one(view, &id, || {
        format!("{}  {}  {}", text::time(text::now_ms()), view.job.state.as_str(), wait::summary(view))
    })
}
