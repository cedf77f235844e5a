//! Summaries: what has become of a job's chunks, countable without reading them.
//!
//! The chunks of a job are counted in items of 64 by number. Such an item holds two sets of short byte strings: `sub`, a
//! string per chunk that was submitted (its place in the item and its tasks), and `end`, one per chunk that has ended (its
//! place, its tasks and their outcomes). Both are written with `ADD` alone: adding an element that is there changes nothing,
//! so that records of the table's stream may come twice, late and in any order, and there is no counter that could drift.
//! Counts are made when the sets are read.
//!
//! A full item is about 1 KB: one write unit per item and call. The result step, which is told of a hundred chunks at once,
//! writes two or three such items for them: 0.03 write units a chunk.
//!
//! An item whose 64 chunks have all ended never changes again. Each process remembers the sum over the complete items at a
//! job's beginning, and reads only those behind: a job of a million chunks has 15,625 items, of which the last few change.

use std::collections::HashMap;

use aws_sdk_dynamodb::{primitives::Blob, types::AttributeValue};
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use sheaf_core::{ChunkSet, ChunkTotals, JobId, Summary};
use sheaf_protocol::{StoreError, SummaryEntry};

use super::{
    AwsState,
    chunks::key_only,
    item::{Item, Reader, key},
    table::NotWritten,
    update::Update,
};
use crate::schema::{self, SK, SUM_CHUNKS, SUM_SK_END, sum as at};

/// Jobs whose complete beginnings are remembered.
const JOBS_MAX: usize = 256;
/// Items of one call that are written at once.
const CONCURRENT_MAX: usize = 16;

/// One job's summary, with which chunks it counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) summary: Summary,
    submitted: ChunkSet,
    pub(super) ended: ChunkSet,
}

impl Tally {
    fn add(&mut self, number: u32, tasks: u32, ended: Option<ChunkTotals>) {
        if self.submitted.insert(number) {
            self.summary.chunks_submitted += 1;
            self.summary.tasks_submitted += u64::from(tasks);
        }
        if let Some(totals) = ended
            && self.ended.insert(number)
        {
            self.summary.chunks_ended += 1;
            self.summary.totals += totals.into();
        }
    }
}

/// The complete items at the beginning of a job.
#[derive(Debug, Clone, Default)]
struct Beginning {
    groups: u32,
    tally: Tally,
}

/// The beginnings of the jobs that this process reads.
#[derive(Debug, Default)]
pub(super) struct Beginnings {
    jobs: Mutex<HashMap<JobId, Beginning>>,
}

impl Beginnings {
    fn get(&self, job: JobId) -> Beginning {
        self.jobs.lock().get(&job).cloned().unwrap_or_default()
    }

    fn keep(&self, job: JobId, beginning: Beginning) {
        let mut jobs = self.jobs.lock();
        if jobs.len() >= JOBS_MAX && !jobs.contains_key(&job) {
            jobs.clear();
        }
        jobs.insert(job, beginning);
    }

    fn forget(&self, job: JobId) {
        self.jobs.lock().remove(&job);
    }
}

/// An element of `sub`.
fn submitted(place: u8, tasks: u32) -> Blob {
    Blob::new(postcard::to_stdvec(&(place, tasks)).expect("numbers become postcard"))
}

/// An element of `end`.
fn ended(place: u8, tasks: u32, totals: ChunkTotals) -> Blob {
    Blob::new(postcard::to_stdvec(&(place, tasks, totals)).expect("numbers become postcard"))
}

/// The additions to items that entries amount to, by item.
fn additions(entries: &[SummaryEntry]) -> Vec<(u32, Update)> {
    let mut groups: std::collections::BTreeMap<u32, [Vec<Blob>; 2]> = std::collections::BTreeMap::new();
    for entry in entries {
        let place = (entry.number % SUM_CHUNKS) as u8;
        let [subs, ends] = groups.entry(entry.number / SUM_CHUNKS).or_default();
        match entry.ended {
            None => subs.push(submitted(place, entry.tasks)),
            Some(totals) => ends.push(ended(place, entry.tasks, totals)),
        }
    }
    let additions = groups.into_iter().map(|(group, sets)| {
        let mut update = Update::default();
        for (name, mut elements) in [at::SUBMITTED, at::ENDED].into_iter().zip(sets) {
            // DynamoDB refuses a set that names an element twice, and an empty one.
            elements.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
            elements.dedup();
            if !elements.is_empty() {
                update.add(name, AttributeValue::Bs(elements));
            }
        }
        (group, update)
    });
    additions.collect()
}

/// Whether all chunks of an item have ended.
fn is_complete(item: &Item) -> bool {
    let elements = item.get(at::ENDED).and_then(|value| value.as_bs().ok());
    let places = elements.into_iter().flatten().filter_map(|element| element.as_ref().first());
    places.fold(0_u64, |places, place| places | 1_u64.checked_shl((*place).into()).unwrap_or_default()) == u64::MAX
}

/// Takes an item's chunks into a tally.
fn take(item: &Item, group: u32, tally: &mut Tally) -> Result<(), StoreError> {
    let read = Reader { item, object: "summary" };
    let set = |name| {
        let elements = item.get(name).and_then(|value| value.as_bs().ok());
        let mut elements: Vec<&[u8]> = elements.into_iter().flatten().map(Blob::as_ref).collect();
        // If a chunk were told with two ends, everybody should count the same one.
        elements.sort_unstable();
        elements
    };
    let number = |place: u8| {
        let number = group.checked_mul(SUM_CHUNKS).and_then(|first| first.checked_add(place.into()));
        number.filter(|_| u32::from(place) < SUM_CHUNKS).ok_or_else(|| read.bad(SK))
    };
    for element in set(at::ENDED) {
        let (place, tasks, totals): (u8, u32, ChunkTotals) =
            postcard::from_bytes(element).map_err(|_| read.bad(at::ENDED))?;
        tally.add(number(place)?, tasks, Some(totals));
    }
    for element in set(at::SUBMITTED) {
        let (place, tasks): (u8, u32) = postcard::from_bytes(element).map_err(|_| read.bad(at::SUBMITTED))?;
        tally.add(number(place)?, tasks, None);
    }
    Ok(())
}

fn group_of(item: &Item) -> Result<u32, StoreError> {
    let read = Reader { item, object: "summary" };
    let group = read.text(SK)?.strip_prefix("SUM#").and_then(|text| text.parse().ok());
    group.ok_or_else(|| read.bad(SK))
}

impl AwsState {
    pub(super) async fn add_to_sums(&self, job: JobId, entries: &[SummaryEntry]) -> Result<Tally, StoreError> {
        let pk = &schema::job_pk(job);
        let mut writes = stream::iter(additions(entries))
            .map(|(group, update)| self.table.update(key(pk.as_str(), schema::sum_sk(group)), update))
            .buffer_unordered(CONCURRENT_MAX);
        while let Some(written) = writes.next().await {
            match written {
                Ok(_) => {}
                Err(NotWritten::Failed(error)) => return Err(error),
                Err(NotWritten::Refused(_)) => unreachable!("the update has no condition"),
            }
        }
        self.tally(job).await
    }

    pub(super) async fn tally(&self, job: JobId) -> Result<Tally, StoreError> {
        let mut beginning = self.beginnings.get(job);
        let known = beginning.groups;
        let items = self.table.query_all(&schema::job_pk(job), (&schema::sum_sk(known), SUM_SK_END)).await?;
        let mut items = items.iter().peekable();
        let mut next =
            |group| items.next_if(|item| group_of(item).is_ok_and(|found| found == group) && is_complete(item));
        while let Some(item) = next(beginning.groups) {
            take(item, beginning.groups, &mut beginning.tally)?;
            beginning.groups += 1;
        }
        let mut tally = beginning.tally.clone();
        if beginning.groups > known {
            self.beginnings.keep(job, beginning);
        }
        for item in items {
            take(item, group_of(item)?, &mut tally)?;
        }
        Ok(tally)
    }

    pub(super) async fn delete_sums(&self, job: JobId) -> Result<(), StoreError> {
        let items = self.table.query_all(&schema::job_pk(job), (&schema::sum_sk(0), SUM_SK_END)).await?;
        self.table.delete_all(items.into_iter().map(key_only).collect()).await?;
        self.beginnings.forget(job);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::schema::PK;

    /// What DynamoDB makes of additions.
    fn add(item: &mut HashMap<&'static str, std::collections::BTreeSet<Vec<u8>>>, entries: &[SummaryEntry]) {
        for entry in entries {
            let place = (entry.number % SUM_CHUNKS) as u8;
            let (name, element) = match entry.ended {
                None => (at::SUBMITTED, submitted(place, entry.tasks)),
                Some(totals) => (at::ENDED, ended(place, entry.tasks, totals)),
            };
            item.entry(name).or_default().insert(element.into_inner());
        }
    }

    fn entry(number: u32, is_ended: bool) -> SummaryEntry {
        let tasks = number % 5 + 1;
        let totals = ChunkTotals { succeeded: tasks, ..ChunkTotals::default() };
        SummaryEntry { number, tasks, ended: is_ended.then_some(totals) }
    }

    proptest! {
        #[test]
        fn entries_may_come_twice_and_in_any_order(told in prop::collection::vec((0..SUM_CHUNKS, any::<bool>()), 0..300)) {
            let entries: Vec<SummaryEntry> = told.iter().map(|(number, is_ended)| entry(*number, *is_ended)).collect();
            let mut sets = HashMap::new();
            add(&mut sets, &entries);
            let item: Item = sets
                .into_iter()
                .map(|(name, set)| (name.to_owned(), AttributeValue::Bs(set.into_iter().map(Blob::new).collect())))
                .chain([(PK.to_owned(), AttributeValue::S("S".to_owned()))])
                .collect();
            let mut tally = Tally::default();
            take(&item, 0, &mut tally).unwrap();
            let numbers: std::collections::BTreeSet<u32> = told.iter().map(|(number, _)| *number).collect();
            let ended: std::collections::BTreeSet<u32> =
                told.iter().filter(|(_, is_ended)| *is_ended).map(|(number, _)| *number).collect();
            prop_assert_eq!(tally.summary.chunks_submitted, numbers.len() as u64);
            prop_assert_eq!(tally.summary.tasks_submitted, numbers.iter().map(|n| u64::from(n % 5 + 1)).sum::<u64>());
            prop_assert_eq!(tally.summary.totals.ended(), ended.iter().map(|n| u64::from(n % 5 + 1)).sum::<u64>());
            prop_assert_eq!(tally.ended.iter().collect::<std::collections::BTreeSet<_>>(), ended);
            prop_assert_eq!(is_complete(&item), tally.summary.chunks_ended == u64::from(SUM_CHUNKS));
        }
    }

    #[test]
    fn a_full_item_is_one_write_unit() {
        let totals = ChunkTotals { succeeded: 1_000, failed: 24, ..ChunkTotals::default() };
        let bytes: usize = (0..SUM_CHUNKS as u8)
            .map(|at| submitted(at, 1_024).as_ref().len() + ended(at, 1_024, totals).as_ref().len())
            .sum();
        assert!(bytes < 1_024 - 100, "{bytes} bytes, keys and names beside it");
    }

    #[test]
    fn a_call_writes_each_item_once() {
        let entries: Vec<SummaryEntry> =
            (0..100).flat_map(|i| [entry(i, true), entry(i, false), entry(i, true)]).collect();
        let groups: Vec<u32> = additions(&entries).iter().map(|(group, _)| *group).collect();
        assert_eq!(groups, [0, 1]);
    }
}
