//! The steps of an upload: submitted, collected, or refused.

use std::collections::HashMap;

use bytes::Bytes;
use sheaf_api::{Api, Code, WriteOutcome, intake::ErrorReport};
use sheaf_aws::{BODIES_PREFIX, Found, ObjectWriter, Replaces, StoredObject, Unfinished, Written};
use sheaf_core::{JobId, JobState};
use sheaf_files::{
    Collecting, Collection, FileError, FileSource, Resume, Submission, Submitted, collect_file, submit_file,
};

use super::{
    Continuation, Times, Trouble, Uploads,
    message::Writing,
    names::{self, InboxKey, Name},
    source::{Upload, UploadBytes},
};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const BINARY: &str = "application/octet-stream";

/// Results to be written.
#[derive(Default)]
struct Start {
    collecting: Collecting,
    /// What somebody has left of them.
    left: Option<Unfinished>,
}

/// An upload in hand.
struct InHand<'a> {
    upload: &'a Upload,
    key: &'a InboxKey,
    object: Option<StoredObject>,
    source: FileSource,
}

impl<'a> InHand<'a> {
    fn new(upload: &'a Upload, key: &'a InboxKey, object: Option<StoredObject>) -> Self {
        let source = FileSource::new(UploadBytes(object.clone()), key.path(), upload.url(), upload.job());
        Self { upload, key, object, source: source.with_labels(upload.labels()) }
    }

    /// Whether its bytes cannot be read any more.
    fn is_gone(&self) -> bool {
        self.object.as_ref().is_none_or(StoredObject::is_gone)
    }
}

impl<A: Api> Uploads<A> {
    /// Checks an upload and submits it from a chunk on, as far as time allows.
    pub(super) async fn submit(&self, upload: &Upload, resume: &Resume, times: Times) -> Result<(), Trouble> {
        let Some(key) = self.inbox_key(upload)? else { return Ok(()) };
        let job = upload.job();
        let object = match self.objects.find(&upload.key, &upload.object_version()).await? {
            Found::Same(object) => object,
            Found::Replaced | Found::Gone => return self.abandon(upload).await,
        };
        tracing::info!(%job, key = upload.key, bytes = object.bytes(), chunk = resume.chunk, "an upload is taken");
        let hand = InHand::new(upload, &key, Some(object));
        let submitted = submit_file(&self.api, &hand.source, &self.options, resume, times.stop());
        match Box::pin(submitted).await {
            Ok(Submission::Paused(resume)) => {
                tracing::info!(%job, chunk = resume.chunk, "its submission goes on in the next invocation");
                let continuation = Continuation { upload: upload.clone(), resume };
                Ok(self.objects.send_to_uploads(continuation.into_message()).await?)
            }
            Ok(Submission::Complete(Submitted { job: Some(job), checked })) => {
                // So that the first of two files of a stem has it, whichever ends first.
                names::claim(&self.objects, &key).await?;
                tracing::info!(%job, commands = checked.commands, "an upload is submitted");
                Ok(())
            }
            Ok(Submission::Complete(Submitted { job: None, checked })) => {
                self.publish(&hand, Start { collecting: checked.into(), left: None }, times).await
            }
            Err(_) if hand.is_gone() => self.abandon(upload).await,
            Err(error) if error.is_final() => {
                let name = names::look(&self.objects, &key).await?;
                self.refuse(&hand, &name, error.error_report(&key.path())).await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the results of a job that is over, if it came from an upload.
    pub(super) async fn collect(&self, job: JobId, times: Times) -> Result<(), Trouble> {
        let view = match self.api.progress(job, None, 0).await {
            Err(error) if error.code == Code::NotFound => {
                tracing::info!(%job, "there is no such job any more");
                return Ok(());
            }
            view => view?,
        };
        let Some(upload) = Upload::of_job(&view.job) else {
            tracing::info!(%job, "it did not come from an upload");
            return Ok(());
        };
        self.write_from(&upload, Start::default(), times).await
    }

    /// Goes on with results where an invocation has left them.
    pub(super) async fn write_on(&self, Writing { upload, left }: &Writing, times: Times) -> Result<(), Trouble> {
        let state = match left {
            Some(key) => self.objects.get(key).await?,
            None => None,
        };
        // What is not there any more, or was left by another version of this, is done again.
        let start = state.and_then(|state| postcard::from_bytes::<(Collecting, Unfinished)>(&state).ok());
        let start = start.map(|(collecting, unfinished)| Start { collecting, left: Some(unfinished) });
        self.write_from(upload, start.unwrap_or_default(), times).await
    }

    async fn write_from(&self, upload: &Upload, start: Start, times: Times) -> Result<(), Trouble> {
        let Some(key) = self.inbox_key(upload)? else { return Ok(()) };
        let object = match self.objects.find(&upload.key, &upload.object_version()).await? {
            Found::Same(object) => Some(object),
            Found::Replaced | Found::Gone => None,
        };
        self.publish(&InHand::new(upload, &key, object), start, times).await
    }

    fn inbox_key(&self, upload: &Upload) -> Result<Option<InboxKey>, Trouble> {
        if upload.bucket != self.objects.bucket() {
            return Err(Trouble::Bucket { url: upload.url() });
        }
        let key = InboxKey::of(&upload.key);
        if key.is_none() {
            tracing::debug!(key = upload.key, "it is left alone");
        }
        Ok(key)
    }

    /// For an upload that is deleted or replaced: nobody can submit the rest of it. A job that has all of it goes on.
    async fn abandon(&self, upload: &Upload) -> Result<(), Trouble> {
        let job = upload.job();
        tracing::info!(%job, key = upload.key, "an upload was deleted or replaced before it was submitted");
        match self.api.progress(job, None, 0).await {
            Err(error) if error.code == Code::NotFound => Ok(()),
            Err(error) => Err(error.into()),
            Ok(view) if view.job.state == JobState::Open => Ok(self.api.cancel(job).await.map(drop)?),
            Ok(_) => Ok(()),
        }
    }

    /// Writes the lines of a file, and makes them the results in one step; or leaves them, when time is up, to the next message.
    async fn publish(&self, hand: &InHand<'_>, start: Start, times: Times) -> Result<(), Trouble> {
        let (upload, job) = (hand.upload, hand.upload.job());
        let name = names::claim(&self.objects, hand.key).await?;
        let key = name.results();
        let replaces = match self.objects.head(&key).await? {
            None => Replaces::Nothing,
            Some(there) if upload.is_older_than(&there.metadata) => {
                tracing::info!(%job, key, "the results of a later upload are there");
                return Ok(());
            }
            Some(there) if upload.wrote(&there.metadata) => return self.remove_stale(hand, &name).await,
            Some(there) => Replaces::Etag(there.etag),
        };
        let Start { collecting, left } = start;
        let goes_on = left.is_some();
        let writer = match left {
            None => self.objects.write(&key, TEXT, upload.metadata()),
            Some(unfinished) => self.objects.go_on(&key, TEXT, upload.metadata(), unfinished),
        };
        let time = (times.begun.into_std(), times.stop());
        let collecting = collect_file(&self.api, &hand.source, &self.options, collecting, time, writer);
        let (writer, report) = match Box::pin(collecting).await {
            Err(error) => return self.not_collected(hand, &name, error).await,
            Ok((writer, Collection::Paused(collecting))) => return self.leave(hand, writer, collecting).await,
            Ok((writer, Collection::Complete(report))) => (writer, report),
        };
        match writer.complete(&replaces).await {
            Ok(Written::Done { .. }) => {}
            Ok(Written::Refused) if !goes_on => return Err(Trouble::Raced { key }),
            Err(error) if !goes_on || error.outcome() != WriteOutcome::Final => return Err(error.into()),
            // Others have gone on with the same parts, or they are no more.
            Ok(Written::Refused) | Err(_) => {
                tracing::warn!(%job, key, "what was left of the results cannot be completed; they are written anew");
                let anew = Writing { upload: upload.clone(), left: None };
                return Ok(self.objects.send_to_uploads(anew.into_message()).await?);
            }
        }
        tracing::info!(
            %job, key, commands = report.commands, failed = report.totals.failed, not_handled = report.not_handled,
            seconds = report.seconds, "an upload has its results"
        );
        self.remove_stale(hand, &name).await
    }

    /// Has the next message go on. What says where is kept as long as the parts are, which is a day, whatever becomes of the
    /// messages.
    async fn leave(&self, hand: &InHand<'_>, writer: ObjectWriter, collecting: Collecting) -> Result<(), Trouble> {
        let (upload, job, lines) = (hand.upload, hand.upload.job(), collecting.lines());
        let unfinished = writer.leave().await?;
        let left = format!("{BODIES_PREFIX}collect/{job}/{}/{lines}", unfinished.upload());
        let state = postcard::to_stdvec(&(collecting, unfinished)).expect("plain structs become bytes");
        self.objects.put(&left, state.into(), BINARY, HashMap::new()).await?;
        tracing::info!(%job, lines, "writing its results goes on in the next invocation");
        let writing = Writing { upload: upload.clone(), left: Some(left) };
        Ok(self.objects.send_to_uploads(writing.into_message()).await?)
    }

    async fn not_collected(&self, hand: &InHand<'_>, name: &Name, error: FileError) -> Result<(), Trouble> {
        let upload = hand.upload;
        if matches!(error, FileError::Intake(_)) && hand.is_gone() {
            return match self.objects.find(&upload.key, &upload.object_version()).await? {
                Found::Same(_) => Err(error.into()),
                Found::Replaced => {
                    tracing::info!(job = %upload.job(), key = upload.key, "an upload was replaced; the new one counts");
                    Ok(())
                }
                Found::Gone => self.refuse(hand, name, gone(hand)).await,
            };
        }
        if error.is_final() {
            return self.refuse(hand, name, error.error_report(&hand.key.path())).await;
        }
        Err(error.into())
    }

    /// Writes the report on a bad file, unless a later upload of its key has been answered.
    async fn refuse(&self, hand: &InHand<'_>, name: &Name, report: ErrorReport) -> Result<(), Trouble> {
        for key in [name.results(), name.error()] {
            if self.objects.head(&key).await?.is_some_and(|there| hand.upload.is_older_than(&there.metadata)) {
                return Ok(());
            }
        }
        tracing::warn!(key = hand.upload.key, code = report.code, message = report.message, "an upload is refused");
        let mut text = serde_json::to_vec_pretty(&report).expect("plain structs become JSON");
        text.push(b'\n');
        Ok(self.objects.put(&name.error(), Bytes::from(text), JSON, hand.upload.metadata()).await?)
    }

    /// Removes the report on an earlier, bad file of the same name.
    async fn remove_stale(&self, hand: &InHand<'_>, name: &Name) -> Result<(), Trouble> {
        let key = name.error();
        match self.objects.head(&key).await? {
            Some(there) if !hand.upload.is_older_than(&there.metadata) => Ok(self.objects.delete(&key).await?),
            _ => Ok(()),
        }
    }
}

/// The report on an upload that was deleted while lines of it were still to be written.
fn gone(hand: &InHand<'_>) -> ErrorReport {
    let job = hand.upload.job();
    ErrorReport {
        file: hand.key.path(),
        code: "gone".to_owned(),
        message: "the upload was deleted before its results were written, and some of its commands are in no result"
            .to_owned(),
        line: None,
        column: None,
        hint: Some(format!("`sheaf results {job}` gives the results that there are; upload the file again for all")),
    }
}
