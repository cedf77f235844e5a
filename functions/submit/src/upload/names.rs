//! What an upload's results are called, so that all Lambdas agree.
//!
//! `outbox/<folder>/<stem>.txt`, and `.error.json` if it is refused. Two keys of the same stem (`a.json` and `a.csv`) must not
//! write over each other's results: the first good file of a stem has it for ever, and the other goes under its whole name.

use bytes::Bytes;
use sheaf_api::intake::stem;
use sheaf_aws::Objects;
use sheaf_core::Digest;
use sheaf_files::is_ignored;
use sheaf_protocol::StoreError;

use super::trouble::Trouble;

const INBOX: &str = "inbox/";
const OUTBOX: &str = "outbox/";
/// Where it is noted whose a name is. Hidden: no upload has such a name.
const NAMES: &str = "outbox/.names/";
/// Hexadecimal digits of its key's digest that the name of a file gets if even its whole name is taken (by `a.json.json`).
const DIGEST_DIGITS: usize = 16;

/// The key of a file in the inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InboxKey {
    key: String,
    /// With a slash at its end, or empty.
    folder: String,
    file: String,
}

impl InboxKey {
    /// None if it is in no inbox, or is left alone: it stands for a folder, is hidden, in a hidden folder, or not whole yet.
    pub(super) fn of(key: &str) -> Option<Self> {
        let path = key.strip_prefix(INBOX)?;
        let (folder, file) = path.rfind('/').map_or(("", path), |slash| path.split_at(slash + 1));
        let hidden = folder.split('/').any(|folder| folder.starts_with('.'));
        if file.is_empty() || hidden || is_ignored(file) {
            return None;
        }
        Some(Self { key: key.to_owned(), folder: folder.to_owned(), file: file.to_owned() })
    }

    /// The name that its author knows.
    pub(super) fn path(&self) -> String {
        format!("{}{}", self.folder, self.file)
    }

    /// The names that it may have, the first that is free.
    fn candidates(&self) -> [Name; 3] {
        let mut digest = Digest::of(self.key.as_bytes()).to_string();
        digest.truncate(DIGEST_DIGITS);
        let name = |base: &str| Name { base: format!("{}{base}", self.folder) };
        [name(stem(&self.file)), name(&self.file), name(&format!("{}.{digest}", self.file))]
    }
}

/// What an upload's results are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    base: String,
}

impl Name {
    /// The key of the results.
    pub(super) fn results(&self) -> String {
        format!("{OUTBOX}{}.txt", self.base)
    }

    /// The key of the report on a refused file.
    pub(super) fn error(&self) -> String {
        format!("{OUTBOX}{}.error.json", self.base)
    }

    fn claim(&self) -> String {
        format!("{NAMES}{}", self.base)
    }
}

/// Takes a name for the results of a good file, for ever. One write, and a read if it is taken; repeating it gives the same.
pub(super) async fn claim(objects: &Objects, key: &InboxKey) -> Result<Name, Trouble> {
    for name in key.candidates() {
        let put = objects.put_if_absent(&name.claim(), Bytes::from(key.key.clone())).await?;
        if put == sheaf_protocol::Put::Created || owner(objects, &name).await?.is_none_or(|owner| owner == key.key) {
            return Ok(name);
        }
    }
    Err(Trouble::NoName { key: key.key.clone() })
}

/// The name that a file would get, for a report on it: a bad file has no claim.
pub(super) async fn look(objects: &Objects, key: &InboxKey) -> Result<Name, Trouble> {
    for name in key.candidates() {
        if owner(objects, &name).await?.is_none_or(|owner| owner == key.key) {
            return Ok(name);
        }
    }
    Err(Trouble::NoName { key: key.key.clone() })
}

/// The key that has a name.
async fn owner(objects: &Objects, name: &Name) -> Result<Option<String>, StoreError> {
    let found = objects.get(&name.claim()).await?;
    Ok(found.map(|key| String::from_utf8_lossy(&key).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_folders_and_stems() {
        for (key, path, results, whole) in [
            ("inbox/a.json", "a.json", "outbox/a.txt", "outbox/a.json.txt"),
            ("inbox/x/y z/a.ndjson.gz", "x/y z/a.ndjson.gz", "outbox/x/y z/a.txt", "outbox/x/y z/a.ndjson.gz.txt"),
            ("inbox/a.txt", "a.txt", "outbox/a.txt.txt", "outbox/a.txt.txt"),
            ("inbox/inbox/a.csv", "inbox/a.csv", "outbox/inbox/a.txt", "outbox/inbox/a.csv.txt"),
        ] {
            let key = InboxKey::of(key).expect("a file");
            let [first, second, third] = key.candidates();
            assert_eq!(
                (key.path().as_str(), first.results().as_str(), second.results().as_str()),
                (path, results, whole)
            );
            assert!(third.results() != second.results() && third.results() != first.results());
        }
        let [first, ..] = InboxKey::of("inbox/x/a.json").expect("a file").candidates();
        assert_eq!((first.error().as_str(), first.claim().as_str()), ("outbox/x/a.error.json", "outbox/.names/x/a"));
        // Whatever is left of a stem, two keys never have one claim but by their stems.
        let [_, whole, _] = InboxKey::of("inbox/a.json").expect("a file").candidates();
        let [stem, ..] = InboxKey::of("inbox/a.json.json").expect("a file").candidates();
        assert_eq!(whole, stem);
    }

    #[test]
    fn what_is_no_dropped_file_is_left_alone() {
        for key in [
            "outbox/a.json",
            "a.json",
            "inbox",
            "inbox/",
            "inbox/x/",
            "inbox/.a.json",
            "inbox/.names/a.json",
            "inbox/x/.hidden/a.json",
            "inbox/a.json.tmp",
            "inbox/x/a.json~",
        ] {
            assert_eq!(InboxKey::of(key), None, "{key}");
        }
    }
}
