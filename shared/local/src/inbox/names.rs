//! What a file's results are called.
//!
//! `<stem>.txt`, and `<stem>.error.json` if it is refused. Two files of the same stem (`a.json` and `a.csv`) must not write
//! over each other's results: the one that comes second goes under its whole name, `a.csv.txt` and `a.csv.error.json`, and
//! keeps it. Second is a file whose stem another one has that is being worked on, or that lies in `processed` while this one
//! does not.

use std::{collections::HashMap, path::Path, sync::Arc};

use parking_lot::Mutex;
use sheaf_api::intake::stem;

/// Endings that share a stem.
const SHAPES: [&str; 4] = [".json", ".ndjson", ".jsonl", ".csv"];
const COMPRESSIONS: [&str; 3] = ["", ".gz", ".zst"];

/// The names being written, with the file that each is for.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<HashMap<String, String>>);

/// A name that nobody else writes until this is dropped.
#[derive(Debug)]
pub(super) struct Name {
    names: Arc<Names>,
    base: String,
}

impl Name {
    /// The name of the results.
    pub(super) fn results(&self) -> String {
        format!("{}.txt", self.base)
    }

    /// The name of the report on a refused file.
    pub(super) fn error(&self) -> String {
        format!("{}.error.json", self.base)
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        self.names.0.lock().remove(&self.base);
    }
}

/// The name for a file's results; none while it is in use. Looks into the folders.
pub(super) fn claim(names: &Arc<Names>, file: &str, outbox: &Path, processed: &Path) -> Option<Name> {
    let mut busy = names.0.lock();
    let stem = stem(file);
    let here_before = processed.join(file).exists();
    let second = if here_before {
        outbox.join(format!("{file}.txt")).exists()
    } else {
        siblings(file, stem).any(|sibling| processed.join(sibling).exists())
    };
    let second = second || busy.get(stem).is_some_and(|other| other != file);
    let base = if second { file } else { stem };
    if busy.contains_key(base) {
        return None;
    }
    busy.insert(base.to_owned(), file.to_owned());
    Some(Name { names: names.clone(), base: base.to_owned() })
}

/// The other names that share a stem, with endings in small letters and in capitals.
fn siblings(file: &str, stem: &str) -> impl Iterator<Item = String> {
    let endings = SHAPES.iter().flat_map(|shape| COMPRESSIONS.iter().map(move |wrap| format!("{shape}{wrap}")));
    let names = endings.flat_map(move |ending| [format!("{stem}{ending}"), format!("{stem}{}", ending.to_uppercase())]);
    names.filter(move |sibling| sibling != file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_have_the_stem() {
        let names: Vec<String> = siblings("a.json", "a").collect();
        assert_eq!(names.len(), 23);
        assert!(names.iter().all(|name| stem(name) == "a"));
    }

    #[test]
    fn the_second_file_of_a_stem_keeps_its_whole_name() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let names = Arc::new(Names::default());
        let results = |file| claim(&names, file, folder.path(), folder.path()).map(|name| name.results());
        let done = |file: &str, results: &str| {
            std::fs::write(folder.path().join(file), "").and_then(|()| std::fs::write(folder.path().join(results), ""))
        };
        assert_eq!(results("a.json").as_deref(), Some("a.txt"));
        let first = claim(&names, "a.json", folder.path(), folder.path());
        assert_eq!(results("a.csv").as_deref(), Some("a.csv.txt"));
        assert_eq!(results("a.json"), None);
        drop(first);
        assert_eq!(results("a.csv").as_deref(), Some("a.txt"));
        done("a.json", "a.txt")?;
        assert_eq!(results("a.csv").as_deref(), Some("a.csv.txt"));
        done("a.csv", "a.csv.txt")?;
        assert_eq!(results("a.json").as_deref(), Some("a.txt"));
        assert_eq!(results("a.csv").as_deref(), Some("a.csv.txt"));
        assert_eq!(results("a.txt").as_deref(), Some("a.txt.txt"));
        Ok(())
    }
}
