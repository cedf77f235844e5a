//! `sheaf worker`.

use clap::Subcommand;
use sheaf_api::{Api, Code, wire::WorkerView};

use crate::{
    commands::worker_start::Start,
    connect::{Need, Session},
    exit::Exit,
    output::{Printer, Row, facts},
    problem::{Outcome, Problem},
    settings::{Flags, Settings},
    text,
};

/// Workers
#[derive(Debug, Subcommand)]
pub(crate) enum Worker {
    Start(Box<Start>),
    /// List the workers heard of lately
    List,
    /// Show one worker
    Info {
        /// Its id, or the beginning of it
        worker: String,
    },
}

impl Row for WorkerView {
    const COLUMNS: &'static [&'static str] =
        &["WORKER", "HOST", ">PID", "STATE", "LANES", ">SLOTS", ">CHUNKS HELD", ">TASKS ENDED", "HEARD OF"];

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.host.clone(),
            self.pid.map(|pid| pid.to_string()).unwrap_or_default(),
            state(self).to_owned(),
            lanes(self),
            self.slots.to_string(),
            self.holding.len().to_string(),
            text::count(self.tasks_ended),
            text::ago(self.seen_at_ms),
        ]
    }
}

const fn state(worker: &WorkerView) -> &'static str {
    if worker.draining {
        "draining"
    } else if worker.slots == 0 {
        "looking on"
    } else if worker.holding.is_empty() {
        "idle"
    } else {
        "busy"
    }
}

fn lanes(worker: &WorkerView) -> String {
    let lanes: Vec<_> = worker.lanes.iter().map(ToString::to_string).collect();
    lanes.join(", ")
}

impl Worker {
    pub(crate) fn flags(&self) -> Flags {
        match self {
            Self::Start(start) => Flags { slots: start.slots, ..Flags::default() },
            Self::List | Self::Info { .. } => Flags::default(),
        }
    }

    pub(crate) async fn run(self, settings: &Settings) -> Outcome {
        match self {
            Self::Start(start) => start.run(settings).await,
            Self::List => list(settings, None).await,
            Self::Info { worker } => list(settings, Some(&worker)).await,
        }
    }
}

/// Lists the workers, or shows the one that is asked for.
async fn list(settings: &Settings, asked: Option<&str>) -> Outcome {
    let session = Session::open(settings, Need::Look).await?;
    let rows = session.api().workers().await?.rows;
    let printer = Printer(settings.output);
    match asked {
        // A process that only looks is no worker.
        None => {
            let rows: Vec<_> = rows.into_iter().filter(|worker| worker.slots > 0).collect();
            printer.list(&rows)?;
            if rows.is_empty() && printer.0.is_table() {
                eprintln!("no worker runs; `sheaf up` and `sheaf worker start` start one");
            }
        }
        Some(worker) => {
            let view = named(&rows, worker)?;
            printer.one(view, &view.id(), || describe(view))?;
        }
    }
    session.close().await;
    Ok(Exit::Succeeded)
}

/// The worker whose id begins so.
fn named<'a>(rows: &'a [WorkerView], id: &str) -> Outcome<&'a WorkerView> {
    let mut found = rows.iter().filter(|row| row.id.to_string().starts_with(id));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(first), Some(second)) => {
            let message = format!("{id:?} may be {} or {}", first.id, second.id);
            Err(Problem::usage(message).with_hint("give more digits"))
        }
        (None, _) => Err(Problem::new(Code::NotFound, format!("no worker {id} was heard of lately"))
            .with_hint("`sheaf worker list` shows those there are")),
    }
}

fn describe(worker: &WorkerView) -> String {
    let mut text = facts(&[
        ("worker", worker.id.to_string()),
        ("host", worker.host.clone()),
        ("process", worker.pid.map(|pid| pid.to_string()).unwrap_or_default()),
        ("state", state(worker).to_owned()),
        ("slots", worker.slots.to_string()),
        ("lanes", lanes(worker)),
        ("running since", text::time(worker.started_at_ms)),
        ("heard of", text::ago(worker.seen_at_ms)),
        ("tasks ended", text::count(worker.tasks_ended)),
    ]);
    for chunk in &worker.holding {
        text += &format!("holds {chunk}\n");
    }
    text
}
