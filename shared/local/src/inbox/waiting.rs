//! Which files may be taken, and in which order. No I/O: it is told what was found and what came of it.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    time::Duration,
};

use tokio::time::Instant;

use super::folder::{Found, Stamp};

/// First and longest pause after trouble that is not the file's fault.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);
const TROUBLE_PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long a file waits whose results have a name that is being written.
const NAME_PAUSE: Duration = Duration::from_millis(200);

/// What came of taking a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is not in the folder any more.
    Gone,
    /// It stays in the folder and is not looked at again until it changes.
    Parked,
    /// It was written to meanwhile: from the beginning.
    Changed,
    /// It stops in the middle. Once more after the grace period, which there is one of.
    CutShort,
    /// Its results would have a name that is being written.
    NameInUse,
    /// It is worth trying again later.
    Trouble,
}

/// A file that may be taken now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) name: OsString,
    pub(super) stamp: Stamp,
    /// It had its grace period.
    pub(super) last_chance: bool,
}

#[derive(Debug)]
struct Entry {
    stamp: Stamp,
    arrival: u64,
    since: Instant,
    seen: Instant,
    not_before: Instant,
    parked: bool,
    last_chance: bool,
    tries: u32,
}

/// The files of the folder.
#[derive(Debug)]
pub(super) struct Waiting {
    entries: HashMap<OsString, Entry>,
    taken: HashMap<OsString, Stamp>,
    arrivals: u64,
    quiet: Duration,
    grace: Duration,
}

impl Waiting {
    pub(super) fn new(quiet: Duration, grace: Duration) -> Self {
        Self { entries: HashMap::new(), taken: HashMap::new(), arrivals: 0, quiet, grace }
    }

    /// Takes in what was found. A file that changed is quiet from now on, and keeps its place.
    pub(super) fn observe(&mut self, found: Vec<Found>, now: Instant) {
        let mut before = std::mem::take(&mut self.entries);
        for Found { name, stamp } in found {
            let entry = match before.remove(&name) {
                Some(entry) if entry.stamp == stamp => Entry { seen: now, ..entry },
                earlier => Entry {
                    stamp,
                    arrival: earlier.map_or_else(|| self.next_arrival(), |entry| entry.arrival),
                    since: now,
                    seen: now,
                    not_before: now,
                    parked: false,
                    last_chance: false,
                    tries: 0,
                },
            };
            self.entries.insert(name, entry);
        }
    }

    fn next_arrival(&mut self) -> u64 {
        self.arrivals += 1;
        self.arrivals
    }

    /// The files that may be taken, in the order of their arrival. One that is being worked on waits for its own end.
    pub(super) fn ready(&self, now: Instant) -> Vec<Candidate> {
        let mut ready: Vec<_> =
            self.waiting().filter(|(_, entry)| self.is_quiet(entry) && entry.not_before <= now).collect();
        ready.sort_by_key(|(_, entry)| entry.arrival);
        let candidate = |(name, entry): (&OsString, &Entry)| Candidate {
            name: name.clone(),
            stamp: entry.stamp,
            last_chance: entry.last_chance,
        };
        ready.into_iter().map(candidate).collect()
    }

    fn waiting(&self) -> impl Iterator<Item = (&OsString, &Entry)> {
        self.entries.iter().filter(|(name, entry)| !entry.parked && !self.taken.contains_key(*name))
    }

    fn is_quiet(&self, entry: &Entry) -> bool {
        entry.seen.duration_since(entry.since) >= self.quiet
    }

    /// When the folder should be looked at again because a file may have been quiet for long enough.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.waiting().filter(|(_, entry)| !self.is_quiet(entry)).map(|(_, entry)| entry.since + self.quiet).min()
    }

    /// When the next file is ready without another look.
    pub(super) fn ready_at(&self, now: Instant) -> Option<Instant> {
        let later = self.waiting().filter(|(_, entry)| self.is_quiet(entry) && entry.not_before > now);
        later.map(|(_, entry)| entry.not_before).min()
    }

    /// Somebody has the file open for writing: not now.
    pub(super) fn put_off(&mut self, name: &OsStr, now: Instant) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.not_before = now + self.quiet;
        }
    }

    /// The file is being worked on.
    pub(super) fn take(&mut self, candidate: &Candidate) {
        self.taken.insert(candidate.name.clone(), candidate.stamp);
    }

    /// The file is not being worked on any more. Gives the pause until it is tried again after trouble.
    pub(super) fn finish(&mut self, name: &OsStr, verdict: Verdict, now: Instant) -> Option<Duration> {
        let stamp = self.taken.remove(name)?;
        let entry = self.entries.get_mut(name).filter(|entry| entry.stamp == stamp)?;
        match verdict {
            Verdict::Gone => {
                self.entries.remove(name);
            }
            Verdict::Parked => entry.parked = true,
            Verdict::Changed => (entry.since, entry.seen) = (now, now),
            Verdict::CutShort => (entry.last_chance, entry.not_before) = (true, now + self.grace),
            Verdict::NameInUse => entry.not_before = now + NAME_PAUSE,
            Verdict::Trouble => {
                let pause = (TROUBLE_PAUSE * (1 << entry.tries.min(6))).min(TROUBLE_PAUSE_MAX);
                (entry.tries, entry.not_before) = (entry.tries + 1, now + pause);
                return Some(pause);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A folder with a file per name, of so many bytes.
    fn look(waiting: &mut Waiting, now: Instant, files: &[(&str, u64)]) {
        let found = |&(name, bytes): &(&str, u64)| Found { name: name.into(), stamp: Stamp::of_bytes(bytes) };
        waiting.observe(files.iter().map(found).collect(), now);
    }

    fn ready(waiting: &Waiting, now: Instant) -> Vec<String> {
        waiting.ready(now).into_iter().map(|candidate| candidate.name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn files_are_taken_when_quiet_and_in_order() {
        let (mut waiting, start) = (Waiting::new(500 * MS, 2_000 * MS), Instant::now());
        look(&mut waiting, start, &[("b", 1), ("a", 1)]);
        assert_eq!(waiting.look_at(), Some(start + 500 * MS));
        look(&mut waiting, start + 499 * MS, &[("a", 2), ("b", 1), ("c", 1)]);
        assert!(ready(&waiting, start + 600 * MS).is_empty());
        look(&mut waiting, start + 500 * MS, &[("a", 2), ("b", 1), ("c", 1)]);
        assert_eq!(ready(&waiting, start + 500 * MS), ["b"]);
        look(&mut waiting, start + 1_000 * MS, &[("a", 2), ("b", 1), ("c", 1)]);
        assert_eq!(ready(&waiting, start + 1_000 * MS), ["b", "a", "c"]);
        waiting.put_off(OsStr::new("b"), start + 1_000 * MS);
        assert_eq!(ready(&waiting, start + 1_000 * MS), ["a", "c"]);
        assert_eq!(waiting.ready_at(start + 1_000 * MS), Some(start + 1_500 * MS));
    }

    #[test]
    fn a_verdict_says_when_a_file_is_next() {
        let (mut waiting, start) = (Waiting::new(Duration::ZERO, 2_000 * MS), Instant::now());
        let finish = |waiting: &mut Waiting, verdict, now| {
            let candidate = waiting.ready(now).pop().expect("one is ready");
            waiting.take(&candidate);
            assert!(waiting.ready(now).is_empty());
            (candidate.last_chance, waiting.finish(&candidate.name, verdict, now))
        };
        look(&mut waiting, start, &[("a", 1)]);
        assert_eq!(finish(&mut waiting, Verdict::Trouble, start), (false, Some(1_000 * MS)));
        let now = start + 1_000 * MS;
        assert_eq!(finish(&mut waiting, Verdict::Trouble, now), (false, Some(2_000 * MS)));
        let now = now + 2_000 * MS;
        assert_eq!(finish(&mut waiting, Verdict::CutShort, now), (false, None));
        assert_eq!(waiting.ready_at(now), Some(now + 2_000 * MS));
        let now = now + 2_000 * MS;
        assert_eq!(finish(&mut waiting, Verdict::Parked, now), (true, None));
        assert!(waiting.ready(now + 60_000 * MS).is_empty());
        look(&mut waiting, now, &[("a", 2)]);
        // Replaced while it is worked on: the verdict is on what it was.
        let candidate = waiting.ready(now).pop().expect("one is ready");
        waiting.take(&candidate);
        look(&mut waiting, now, &[("a", 3)]);
        assert!(waiting.ready(now).is_empty());
        waiting.finish(&candidate.name, Verdict::Parked, now);
        assert_eq!(ready(&waiting, now), ["a"]);
    }
}
