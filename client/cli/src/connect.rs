//! The way to the grid: opened in this process, or the server that has it open.

use sheaf_api::Code;
use sheaf_local::OpenError;

use crate::{
    problem::{Outcome, Problem},
    serve::{ANY_PORT, Served},
    settings::Settings,
};

/// What a command wants of the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// To look, or to write something down.
    Look,
    /// To have tasks run: an embedded grid runs them here.
    Run,
}

/// An open way to a grid.
#[derive(Debug)]
pub(crate) struct Session {
    grid: sheaf::Grid,
    embedded: Option<sheaf_local::Grid>,
    served: Option<Served>,
    need: Need,
}

impl Session {
    /// Opens the way that the settings choose. A grid that runs tasks here is served too, so that other commands can look
    /// at it meanwhile.
    pub(crate) async fn open(settings: &Settings, need: Need) -> Outcome<Self> {
        Self::open_with_slots(settings, need, None).await
    }

    /// The same, with so many slots if the grid runs tasks here; as many as are set otherwise.
    pub(crate) async fn open_with_slots(settings: &Settings, need: Need, slots: Option<u32>) -> Outcome<Self> {
        let slots = if need == Need::Look { Some(0) } else { slots };
        let grid = settings.connect_options(slots).connect().await?;
        let embedded = match grid.api() {
            sheaf::Transport::Embedded(grid) => Some(grid.clone()),
            _ => None,
        };
        let served = match (&embedded, &settings.client.place.value) {
            (Some(grid), sheaf::Place::Directory(directory)) if need == Need::Run => {
                Some(Served::start(grid, directory, ANY_PORT).await?)
            }
            _ => None,
        };
        Ok(Self { grid, embedded, served, need })
    }

    /// The calls.
    pub(crate) fn api(&self) -> &sheaf::Transport {
        self.grid.api()
    }

    /// The grid of this process, if that is what it is.
    pub(crate) const fn embedded(&self) -> Option<&sheaf_local::Grid> {
        self.embedded.as_ref()
    }

    /// Whether tasks run in this process, and so stop with it.
    pub(crate) fn runs_here(&self) -> bool {
        self.embedded.is_some() && self.need == Need::Run
    }

    /// Whether nobody runs the tasks that are submitted: the grid is embedded, and opened only to look.
    pub(crate) fn runs_nowhere(&self) -> bool {
        self.embedded.is_some() && self.need == Need::Look
    }

    /// Does something, unless the grid's store fails first.
    pub(crate) async fn while_well<T>(&self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        let Some(grid) = &self.embedded else { return work.await };
        tokio::select! {
            done = work => done,
            detail = grid.failed() => Err(store_failed(&detail)),
        }
    }

    /// Ends it: running tasks of an embedded grid get a few seconds, and what is left waits for the next process.
    pub(crate) async fn close(self) {
        if let Some(served) = self.served {
            served.stop().await;
        }
        self.grid.close().await;
    }
}

/// Why a grid could not be opened, and what to do.
pub(crate) fn open_problem(error: OpenError) -> Problem {
    let (code, message) = (Code::Unavailable, error.to_string());
    match &error {
        OpenError::InUse { address, .. } => {
            let hint = match address {
                Some(address) => format!("it serves {}; other commands find it by themselves", address.url),
                None => "wait for it to end; `sheaf up` serves several commands at once".to_owned(),
            };
            Problem::new(code, message).with_code("in_use").with_hint(hint)
        }
        OpenError::Format { .. } => Problem::new(Code::Invalid, message)
            .with_code("format")
            .with_hint("use the version of sheaf that wrote it, or another directory (SHEAF_DIR)"),
        OpenError::Directory { .. } | OpenError::Store { .. } | OpenError::Host(_) => Problem::new(code, message)
            .with_code("open")
            .with_hint("`sheaf doctor` looks at the directory and says what is wrong"),
    }
}

/// The grid's store has failed: nothing more can be accepted.
pub(crate) fn store_failed(detail: &str) -> Problem {
    Problem::new(Code::Stopped, format!("the grid has stopped: its store failed: {detail}"))
        .with_hint("make room or mend the disk and start again: everything acknowledged is safe")
}
