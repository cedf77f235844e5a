//! `sheaf up`.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use serde::Serialize;
use sheaf_api::Code;
use sheaf_local::{
    Grid, GridOptions,
    inbox::{Inbox, InboxError, InboxEvent, InboxOptions},
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    connect::{open_problem, store_failed},
    exit::Exit,
    functions_file::FunctionsFile,
    output::{Printer, facts},
    problem::{Outcome, Problem},
    serve::{Served, loopback},
    settings::{Flags, Settings},
    text,
};

/// Keep the local grid running: its workers, its API on loopback, and a watched folder
///
/// Every file of commands that is dropped into the inbox becomes a job, and its results appear in the outbox. Other sheaf
/// commands find this grid by themselves, and `sheaf worker start` adds workers to it. SIGINT or SIGTERM stop it gracefully, a second one at once; what was accepted goes
/// on when it is started again.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// The data directory [env: SHEAF_DIR]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Where to serve the API: an address of this machine only, port 0 for any [env: SHEAF_LISTEN]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// How many tasks run at once in this process; as many as there are processors by default, 0 to leave all to workers of
    /// `sheaf worker start` [env: SHEAF_SLOTS]
    #[arg(long)]
    slots: Option<u32>,
    /// The folder to watch; `inbox` in the data directory by default
    #[arg(long, value_name = "DIR")]
    inbox: Option<PathBuf>,
    /// Where results go; `outbox` beside the inbox by default
    #[arg(long, value_name = "DIR")]
    outbox: Option<PathBuf>,
    /// Runs the commands that name no function
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// Declare the functions of this file first
    #[arg(long, value_name = "FILE")]
    functions: Vec<PathBuf>,
}

/// Where a grid is.
#[derive(Debug, Serialize)]
struct Place {
    url: String,
    token_file: PathBuf,
    directory: PathBuf,
    inbox: PathBuf,
    outbox: PathBuf,
    slots: usize,
    pid: u32,
}

impl Up {
    pub(crate) fn flags(&self) -> Flags {
        Flags { directory: self.directory.clone(), slots: self.slots, listen: self.listen.clone() }
    }

    pub(crate) async fn run(self, settings: &Settings) -> Outcome {
        let listen = loopback(&settings.listen)?;
        let mut prepared = Vec::new();
        for file in &self.functions {
            prepared.extend(FunctionsFile::read(file)?.prepare(&[])?);
        }
        let directory = settings.directory()?;
        let mut stop = Stop::listen()?;
        let options = GridOptions {
            directory: Some(directory.clone()),
            slots: settings.slots(),
            durable: settings.client.durable.value,
            ..GridOptions::default()
        };
        let grid = Grid::open(options).await.map_err(open_problem)?;
        for function in prepared {
            function.declare(&grid).await?;
        }
        let folders = self.folders(&directory);
        let (inbox, outbox) = (folders.inbox.clone(), folders.outbox.clone());
        // The folders are there before anybody can find the grid.
        let watched = Inbox::open(Arc::new(grid.clone()), folders).await.map_err(inbox_problem)?;
        let served = Served::start(&grid, &directory, listen).await?;
        let place = Place {
            url: served.address.url.clone(),
            token_file: served.address.token_file.clone(),
            directory,
            inbox,
            outbox,
            slots: settings.slots(),
            pid: served.address.pid,
        };
        Printer(settings.output).one(&place, &place.url, || describe(&place))?;
        let outcome = watch(&grid, watched, &mut stop).await;
        eprintln!(
            "stopping; tasks that run are given {}, and a second signal stops at once",
            text::duration(GridOptions::default().grace)
        );
        let closing = async {
            served.stop().await;
            grid.shutdown().await;
        };
        tokio::select! {
            () = closing => outcome.map(|()| Exit::Succeeded),
            () = stop.next() => Ok(Exit::Interrupted),
        }
    }

    fn folders(&self, directory: &std::path::Path) -> InboxOptions {
        let inbox = self.inbox.clone().unwrap_or_else(|| directory.join("inbox"));
        let outbox = self.outbox.clone().unwrap_or_else(|| inbox.with_file_name("outbox"));
        let mut options = InboxOptions::new(inbox, outbox);
        options.file.function.clone_from(&self.function);
        options
    }
}

/// Watches the inbox until somebody says stop, or something breaks.
async fn watch(grid: &Grid, inbox: Inbox<Grid>, stop: &mut Stop) -> Outcome<()> {
    let stopping = CancellationToken::new();
    let inbox = inbox.on_event(|event| {
        if let Some(line) = told(event) {
            eprintln!("{}  {line}", text::time(text::now_ms()));
        }
    });
    let mut running = std::pin::pin!(inbox.run(stopping.clone()));
    let told_to = tokio::select! {
        () = &mut running => return Ok(()),
        detail = grid.failed() => Err(store_failed(&detail)),
        () = stop.next() => Ok(()),
    };
    stopping.cancel();
    running.await;
    told_to
}

fn inbox_problem(error: InboxError) -> Problem {
    Problem::new(Code::Invalid, error.to_string()).with_code("inbox").with_source(error)
}

/// Signals that mean stop.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn listen() -> Outcome<Self> {
        let cannot =
            |error: std::io::Error| Problem::new(Code::Internal, "signals cannot be received").with_source(error);
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(cannot)?,
            terminate: signal(SignalKind::terminate()).map_err(cannot)?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn describe(place: &Place) -> String {
    facts(&[
        ("grid", format!("{} ({})", place.url, text::counted(place.slots as u64, "slot"))),
        ("token", place.token_file.display().to_string()),
        ("directory", place.directory.display().to_string()),
        ("inbox", place.inbox.display().to_string()),
        ("outbox", place.outbox.display().to_string()),
    ])
}

/// What is worth a line.
fn told(event: &InboxEvent) -> Option<String> {
    Some(match event {
        InboxEvent::Taken { file, job } => format!("{file} taken as {job}"),
        InboxEvent::Progress { .. } => return None,
        InboxEvent::Finished { file, results, report } => {
            let failed = report.commands.saturating_sub(report.totals.succeeded);
            let failed = if failed > 0 { format!(", {} without success", text::count(failed)) } else { String::new() };
            let took = text::duration(std::time::Duration::from_secs_f64(report.seconds.max(0.0)));
            format!(
                "{file} done: {}{failed} in {took} → {}",
                text::counted(report.commands, "command"),
                results.display()
            )
        }
        InboxEvent::Refused { file, path, report } => {
            format!("{file} refused: {} → {}", report.message, path.display())
        }
        InboxEvent::Postponed { file, reason, again_in } => {
            let again = again_in.map(|pause| format!("; again in {}", text::duration(pause))).unwrap_or_default();
            format!("{file} postponed: {reason}{again}")
        }
        InboxEvent::Unwatched { reason } => format!("the inbox is looked at every second: {reason}"),
        InboxEvent::Unreadable { reason } => format!("the inbox cannot be read, and is tried again: {reason}"),
    })
}
