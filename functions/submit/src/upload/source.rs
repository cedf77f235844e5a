//! An uploaded object: which job it is, how the job tells of it, and its bytes.

use std::{
    cmp::Ordering,
    collections::HashMap,
    io::{self, Read},
};

use serde::{Deserialize, Serialize};
use sheaf_aws::{ObjectVersion, StoredObject};
use sheaf_core::{Job, JobId, Origin};
use sheaf_files::Reopen;

/// Labels of its job.
const ETAG: &str = "upload_etag";
const VERSION: &str = "upload_version";
const SEQUENCER: &str = "upload_sequencer";
/// Metadata of what is written for it.
const META_JOB: &str = "sheaf-job";
const META_SEQUENCER: &str = "sheaf-sequencer";

/// One version of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Upload {
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) etag: String,
    /// Its id, in a bucket that keeps versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<String>,
    /// Grows with each upload of the key; hexadecimal.
    pub(super) sequencer: String,
}

impl Upload {
    /// The job that it becomes.
    pub(super) fn job(&self) -> JobId {
        match &self.version {
            Some(version) => JobId::of_upload(&self.bucket, &self.key, version),
            None => JobId::of_upload(&self.bucket, &self.key, &format!("{}-{}", self.etag, self.sequencer)),
        }
    }

    /// Where people find it.
    pub(super) fn url(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }

    /// What its job says of it.
    pub(super) fn labels(&self) -> Vec<(String, String)> {
        let version = self.version.as_ref().map(|version| (VERSION, version));
        let labels = [(ETAG, &self.etag), (SEQUENCER, &self.sequencer)].into_iter().chain(version);
        labels.map(|(name, value)| (name.to_owned(), value.clone())).collect()
    }

    /// The upload that a job came from, if it did.
    pub(super) fn of_job(job: &Job) -> Option<Self> {
        let Some(Origin::File { path }) = &job.origin else { return None };
        let (bucket, key) = path.strip_prefix("s3://")?.split_once('/')?;
        let label = |name: &str| job.options.labels.get(name).cloned();
        let (etag, sequencer, version) = (label(ETAG)?, label(SEQUENCER)?, label(VERSION));
        let upload = Self { bucket: bucket.to_owned(), key: key.to_owned(), etag, version, sequencer };
        // Whoever makes a job with labels like these may not have others' results overwritten.
        (upload.job() == job.id).then_some(upload)
    }

    /// Which bytes its key stands for.
    pub(super) fn object_version(&self) -> ObjectVersion {
        ObjectVersion { etag: self.etag.clone(), id: self.version.clone() }
    }

    /// What is noted with what is written for it.
    pub(super) fn metadata(&self) -> HashMap<String, String> {
        let sequencer = (META_SEQUENCER.to_owned(), self.sequencer.clone());
        HashMap::from([(META_JOB.to_owned(), self.job().to_string()), sequencer])
    }

    /// Whether something was written for it.
    pub(super) fn wrote(&self, metadata: &HashMap<String, String>) -> bool {
        metadata.get(META_JOB).is_some_and(|job| *job == self.job().to_string())
    }

    /// Whether something was written for a later upload of its key.
    pub(super) fn is_older_than(&self, metadata: &HashMap<String, String>) -> bool {
        metadata.get(META_SEQUENCER).is_some_and(|other| in_order(&self.sequencer, other) == Ordering::Less)
    }
}

/// Compares the sequencers of two uploads of one key. Source: the S3 user guide has the shorter one padded with zeros on its
/// right, and both compared as texts.
fn in_order(one: &str, other: &str) -> Ordering {
    let digits = one.len().max(other.len());
    let padded = |text: &str| format!("{text:0<digits$}").to_ascii_uppercase();
    padded(one).cmp(&padded(other))
}

/// The bytes of an upload, if it is there: whoever has its job may not need them.
#[derive(Debug)]
pub(super) struct UploadBytes(pub(super) Option<StoredObject>);

impl Reopen for UploadBytes {
    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        match &self.0 {
            Some(object) => Ok(Box::new(object.reader())),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "the upload was deleted or replaced")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_uploads_have_larger_sequencers() {
        for (one, other, expected) in [
            ("0055AED6DCD90281E5", "0055AED6DCD90281E6", Ordering::Less),
            ("0055AED6DCD90281E5", "0055AED6DCD90281E5", Ordering::Equal),
            ("0055aed6dcd90281e6", "0055AED6DCD90281E5", Ordering::Greater),
            ("0055", "005501", Ordering::Less),
            ("0056", "005501", Ordering::Greater),
            ("0055", "005500", Ordering::Equal),
        ] {
            assert_eq!(in_order(one, other), expected, "{one} {other}");
        }
        let upload = |sequencer: &str| {
            let (bucket, key, etag) = ("b".to_owned(), "inbox/x".to_owned(), "e".to_owned());
            Upload { bucket, key, etag, version: None, sequencer: sequencer.to_owned() }
        };
        assert!(upload("01").is_older_than(&upload("02").metadata()));
        assert!(!upload("02").is_older_than(&upload("01").metadata()));
        assert!(!upload("02").is_older_than(&HashMap::new()));
        assert!(upload("02").wrote(&upload("02").metadata()) && !upload("02").wrote(&upload("01").metadata()));
    }
}
