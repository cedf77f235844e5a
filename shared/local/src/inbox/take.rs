//! One file, from the folder to its results.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use sheaf_api::{
    Api,
    intake::{ErrorReport, IntakeError},
};
use tokio::task::spawn_blocking;

use super::{
    InboxEvent,
    folder::{self, Moved, Opened, Stamp},
    names::{self, Name, Names},
    waiting::{Candidate, Verdict},
};
use sheaf_files::{self as files, FileError, FileOptions, FileSource, PartFile, sync_folder_of};

/// Where files are, and where they go.
#[derive(Debug, Clone)]
pub(super) struct Folders {
    pub(super) inbox: PathBuf,
    pub(super) outbox: PathBuf,
    pub(super) processed: PathBuf,
    pub(super) failed: PathBuf,
}

/// What every file needs.
pub(super) struct Desk<A> {
    pub(super) api: Arc<A>,
    pub(super) folders: Folders,
    pub(super) options: FileOptions,
    pub(super) names: Arc<Names>,
    pub(super) on_event: Box<dyn Fn(&InboxEvent) + Send + Sync>,
}

/// A verdict, with the reason for trouble.
pub(super) type Outcome = Result<Verdict, String>;

/// A file in hand.
#[derive(Debug, Clone)]
struct InHand {
    file: String,
    path: PathBuf,
    stamp: Stamp,
}

impl<A: Api> Desk<A> {
    /// Works on a file until there is nothing more to do with it now.
    pub(super) async fn take(self: Arc<Self>, candidate: Candidate) -> Outcome {
        let Candidate { name, stamp, last_chance } = candidate;
        let (file, path) = (name.to_string_lossy().into_owned(), self.folders.inbox.join(&name));
        let in_hand = InHand { file, path, stamp };
        let (outbox, processed) = (self.folders.outbox.clone(), self.folders.processed.clone());
        let (names, hand) = (self.names.clone(), in_hand.clone());
        let opening = blocking(move || {
            let Some(name) = names::claim(&names, &hand.file, &outbox, &processed) else { return Ok(None) };
            folder::open(&hand.path, &hand.stamp).map(|opened| Some((name, opened)))
        });
        let (name, opened) = match opening.await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(Verdict::NameInUse),
            Err(error) => return Err(format!("it cannot be opened: {error}")),
        };
        let file = match opened {
            Opened::Same(file) => file,
            Opened::Changed => return Ok(Verdict::Changed),
            Opened::Gone => return Ok(Verdict::Gone),
            Opened::Denied(error) => return self.refuse(in_hand, &name, &IntakeError::Io(error).into()).await,
        };
        let job = stamp.job(&in_hand.file);
        tracing::info!(%job, file = in_hand.file, "a dropped file is taken");
        (self.on_event)(&InboxEvent::Taken { file: in_hand.file.clone(), job });
        let results = self.folders.outbox.join(name.results());
        let source = FileSource::new(file, &in_hand.file, absolute(&in_hand.path), job);
        let ran = files::run_to(&*self.api, source, &self.options, &results, |progress| {
            let (file, progress) = (in_hand.file.clone(), *progress);
            (self.on_event)(&InboxEvent::Progress { file, progress });
        });
        match Box::pin(ran).await {
            Ok(report) => {
                tracing::info!(
                    %job, file = in_hand.file, commands = report.commands, failed = report.totals.failed,
                    not_handled = report.not_handled, seconds = report.seconds, "a dropped file has its results"
                );
                let error = self.folders.outbox.join(name.error());
                blocking(move || remove_stale(&error)).await;
                (self.on_event)(&InboxEvent::Finished { file: in_hand.file.clone(), results, report });
                self.put_away(in_hand, self.folders.processed.clone()).await
            }
            Err(error) => self.fail(in_hand, &name, &error, last_chance).await,
        }
    }

    async fn fail(&self, in_hand: InHand, name: &Name, error: &FileError, last_chance: bool) -> Outcome {
        let truncated = matches!(error, FileError::Intake(error) if error.is_truncated());
        let hand = in_hand.clone();
        let changed = || blocking(move || !folder::is_same(&hand.path, &hand.stamp));
        match error {
            // What looks wrong may only be half of something new.
            error if error.is_of_the_file() && changed().await => Ok(Verdict::Changed),
            FileError::Intake(IntakeError::Changed { .. }) => Ok(Verdict::Changed),
            _ if truncated && !last_chance => Ok(Verdict::CutShort),
            error if error.is_final() => self.refuse(in_hand, name, error).await,
            error => Err(with_sources(error)),
        }
    }

    /// Writes the report, then puts the file where it is not found again. One that stops in the middle stays: its writer may
    /// come back to it.
    async fn refuse(&self, in_hand: InHand, name: &Name, error: &FileError) -> Outcome {
        let report = error.error_report(&in_hand.file);
        let path = self.folders.outbox.join(name.error());
        tracing::warn!(file = in_hand.file, code = report.code, message = report.message, "a dropped file is refused");
        let token = in_hand.stamp.job(&in_hand.file).to_string();
        let written = {
            let (path, report) = (path.clone(), report.clone());
            blocking(move || write_report(&path, &token, &report)).await
        };
        if let Err(error) = written {
            return Err(format!("its error report cannot be written: {error}"));
        }
        (self.on_event)(&InboxEvent::Refused { file: in_hand.file.clone(), path, report });
        if matches!(error, FileError::Intake(error) if error.is_truncated()) {
            return Ok(Verdict::Parked);
        }
        self.put_away(in_hand, self.folders.failed.clone()).await
    }

    async fn put_away(&self, in_hand: InHand, folder: PathBuf) -> Outcome {
        let hand = in_hand.clone();
        match blocking(move || folder::move_to(&hand.path, &hand.stamp, &folder)).await {
            Ok(Moved::There) => Ok(Verdict::Gone),
            Ok(Moved::NotThere) => Ok(Verdict::Changed),
            Err(error) => {
                let reason = format!("it cannot be moved out of the inbox: {error}");
                tracing::warn!(file = in_hand.file, %error, "a dropped file is done and cannot be moved away");
                (self.on_event)(&InboxEvent::Postponed { file: in_hand.file, reason, again_in: None });
                Ok(Verdict::Parked)
            }
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(work).await.expect("looking after files does not panic")
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
}

fn with_sources(error: &FileError) -> String {
    let sources = std::iter::successors(std::error::Error::source(error), |source| source.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

/// The report on an earlier, bad file of the same name.
fn remove_stale(error: &Path) {
    match std::fs::remove_file(error).and_then(|()| sync_folder_of(error)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "an error report that is no longer true cannot be removed");
        }
        _ => {}
    }
}

/// Leaves a report alone that says the same already: a file that stays in the folder is looked at again by every grid.
fn write_report(path: &Path, token: &str, report: &ErrorReport) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(report)?;
    text.push(b'\n');
    if std::fs::read(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    let mut part = PartFile::create(path, token)?;
    part.write_all(&text)?;
    part.publish()
}
