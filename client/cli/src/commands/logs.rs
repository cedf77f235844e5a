//! `sheaf logs`.

use std::io::Write;

use clap::Args;
use sheaf_api::Api;

use crate::{
    connect::{Need, Session},
    exit::Exit,
    problem::Outcome,
    select,
    settings::Settings,
};

/// Print what a task wrote to stdout and stderr, as it is
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The task: job, chunk and index, such as last/0/3
    task: String,
}

impl Logs {
    pub(crate) async fn run(self, settings: &Settings) -> Outcome {
        let session = Session::open(settings, Need::Look).await?;
        let task = select::task(session.api(), &self.task).await?;
        let log = session.api().logs(task).await?;
        let mut out = std::io::stdout().lock();
        out.write_all(&log)?;
        out.flush()?;
        drop(out);
        if log.is_empty() {
            eprintln!("{task} printed nothing that was kept");
        }
        session.close().await;
        Ok(Exit::Succeeded)
    }
}
