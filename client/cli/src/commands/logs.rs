//! `sheaf logs`.

use std::{io::Write, time::Duration};

use clap::Args;
use sheaf_api::Api;
use sheaf_core::TaskId;

use crate::{
    commands::wait as wait_command,
    connect::{Need, Session},
    exit::Exit,
    problem::Outcome,
    select,
    settings::Settings,
    wait,
};

/// Between two looks at a task that is followed.
const LOOK: Duration = Duration::from_millis(500);

/// Print what a task wrote to stdout and stderr, as it is
///
/// It is kept when an attempt ends, so of a task that still runs there is nothing yet; -f waits for it.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The task: job, chunk and index, such as last/0/3
    task: String,
    /// Go on until the task has its outcome; on an embedded grid that nobody else has open, this also runs it
    #[arg(long, short)]
    follow: bool,
}

impl Logs {
    pub(crate) async fn run(self, settings: &Settings) -> Outcome {
        let session = Session::open(settings, if self.follow { Need::Run } else { Need::Look }).await?;
        let outcome = self.print(&session).await;
        wait_command::end(session, outcome).await
    }

    async fn print(&self, session: &Session) -> Outcome {
        let task = select::task(session.api(), &self.task).await?;
        let printing = async {
            let mut printed = 0;
            loop {
                let ended = session.api().task(task).await?.outcome.is_some();
                printed += rest(session, task, printed).await?;
                if !self.follow || ended {
                    return told(task, printed, ended);
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        wait::unless_stopped(session, None, printing).await
    }
}

/// Prints a log from a byte on; gives how many there were. Logs of later attempts follow those of earlier ones.
async fn rest(session: &Session, task: TaskId, from: usize) -> Outcome<usize> {
    let log = session.api().logs(task).await?;
    let rest = log.get(from..).unwrap_or_default();
    let mut out = std::io::stdout().lock();
    out.write_all(rest)?;
    out.flush()?;
    Ok(rest.len())
}

fn told(task: TaskId, printed: usize, ended: bool) -> Outcome {
    match (printed, ended) {
        (0, true) => eprintln!("{task} printed nothing that was kept"),
        (0, false) => eprintln!("{task} has no outcome yet, and so no log: `sheaf logs -f {task}` waits for it"),
        _ => {}
    }
    Ok(Exit::Succeeded)
}
