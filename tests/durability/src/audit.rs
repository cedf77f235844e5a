//! Opening what is left, and comparing it with what was acknowledged.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use sheaf_core::{ChunkKey, invariant};
use sheaf_local::{LocalStore, SystemClock};
use sheaf_protocol::{Clock, StateStore};

use crate::{
    fact::{Ledger, stage},
    workload,
};

/// Opening and reading a store takes a fraction of this.
const PATIENCE: Duration = Duration::from_secs(120);
/// Problems listed of one image.
const LISTED_MAX: usize = 8;

/// What was looked at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Audited {
    /// Acknowledged facts that were checked.
    pub facts: u64,
    /// Times the store was opened.
    pub opens: u64,
}

/// Opens a store and checks it against a ledger; then writes to it, opens it again and checks that too. Answers what is
/// wrong, or what was looked at. A panic or an opening that hangs is wrong too.
pub fn audit(directory: &Path, ledger: &Ledger) -> Result<Audited, Vec<String>> {
    let (directory, mut ledger) = (directory.to_owned(), ledger.clone());
    patiently(move || {
        let mut audited = Audited::default();
        let store = open(&directory, &mut audited)?;
        check(&store, &ledger, &mut audited)?;
        let more = workload::one_more(&store).map_err(|error| vec![format!("it takes no new write: {error:#}")])?;
        more.iter().for_each(|fact| ledger.add(fact));
        drop(store);
        let store = open(&directory, &mut audited)?;
        check(&store, &ledger, &mut audited).map_err(|problems| {
            problems.into_iter().map(|problem| format!("opened a second time: {problem}")).collect::<Vec<_>>()
        })?;
        Ok(audited)
    })
}

/// Opens a store and checks the invariants, knowing nothing of what was acknowledged; answers its jobs and chunks. Jobs
/// past their retention are left out: their removal may have been cut short.
pub fn invariants(directory: PathBuf) -> Result<(usize, usize), Vec<String>> {
    patiently(move || {
        let store = open(&directory, &mut Audited::default())?;
        let mut world = store.world().map_err(|error| vec![format!("it cannot be read: {error}")])?;
        let now_ms = SystemClock.now_ms();
        world.jobs.retain(|_, job| {
            let ended_at_ms = job.state.ended_at_ms();
            ended_at_ms.is_none_or(|at_ms| now_ms < at_ms.saturating_add(job.options.retention_ms))
        });
        world.chunks.retain(|key, _| world.jobs.contains_key(&key.job));
        let broken = invariant::check_world(&world);
        if broken.is_empty() {
            Ok((world.jobs.len(), world.chunks.len()))
        } else {
            Err(broken.iter().take(LISTED_MAX).map(ToString::to_string).collect())
        }
    })
}

fn patiently<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Vec<String>> + Send + 'static,
) -> Result<T, Vec<String>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let done = catch_unwind(AssertUnwindSafe(work));
        let _ = sender.send(done.unwrap_or_else(|panic| {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
            Err(vec![format!("a panic: {}", said.unwrap_or_default())])
        }));
    });
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| Err(vec!["it hangs".to_owned()]))
}

fn open(directory: &Path, audited: &mut Audited) -> Result<LocalStore, Vec<String>> {
    audited.opens += 1;
    LocalStore::disk(directory, true).map_err(|error| vec![format!("it does not open: {error}")])
}

fn check(store: &LocalStore, ledger: &Ledger, audited: &mut Audited) -> Result<(), Vec<String>> {
    let unreadable = |error: &dyn std::fmt::Display| vec![format!("it cannot be read: {error}")];
    let mut world = store.world().map_err(|error| unreadable(&error))?;
    let mut problems = ledger.broken.clone();

    // What was acknowledged is there.
    for (id, facts) in &ledger.jobs {
        let found = world.jobs.get(id);
        if facts.removed {
            audited.facts += 1;
            let chunks = ChunkKey { job: *id, number: 0 }..=ChunkKey { job: *id, number: u32::MAX };
            if found.is_some() || world.chunks.range(chunks).next().is_some() {
                problems.push(format!("{id} was removed and is there"));
            }
        } else if let Some(acknowledged) = facts.stage.filter(|_| !facts.removing) {
            audited.facts += 1;
            match found {
                None => problems.push(format!("{id} was acknowledged and is not there")),
                Some(job) if stage(&job.state) < acknowledged => {
                    problems.push(format!("{id} was at stage {acknowledged} and is {}", job.state.as_str()));
                }
                Some(_) => {}
            }
        }
    }
    for (key, facts) in ledger.chunks.iter().filter(|(key, facts)| facts.rv > 0 && !ledger.is_removing(key.job)) {
        audited.facts += 1;
        match world.chunks.get(key) {
            None => problems.push(format!("{key} was acknowledged and is not there")),
            Some(chunk) if chunk.rv < facts.rv => {
                problems.push(format!("{key} was acknowledged at rv {} and is at {}", facts.rv, chunk.rv));
            }
            Some(_) => {}
        }
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| unreadable(&error))?;
    for function in &ledger.functions {
        audited.facts += 1;
        if !matches!(runtime.block_on(store.function(function)), Ok(Some(_))) {
            problems.push(format!("function {function} was acknowledged and is not there"));
        }
    }

    // What is there was asked for.
    for id in world.jobs.keys().filter(|id| !ledger.jobs.contains_key(id)) {
        problems.push(format!("{id} is there and was never created"));
    }
    for (key, chunk) in &world.chunks {
        if ledger.chunks.get(key).is_none_or(|facts| facts.digest != chunk.spec.digest) {
            problems.push(format!("{key} is there and was never submitted so"));
        }
        for segment in &chunk.work.segments {
            let blob = segment.key(&chunk.spec);
            if ledger.segments.get(&blob) != Some(&segment.digest) {
                problems.push(format!("{blob} is named and was never written so"));
            }
        }
    }

    // What is left of a removal that was cut short is removed by the next one; until then it need not fit together.
    world.chunks.retain(|key, _| !ledger.is_removing(key.job));
    world.jobs.retain(|id, _| !ledger.is_removing(*id));
    problems.extend(invariant::check_world(&world).iter().map(ToString::to_string));

    // Every open chunk is found by the sweeper and after a restart: that is how it is ever run.
    let due = runtime.block_on(due(store)).map_err(|error| unreadable(&error))?;
    for (key, _) in world.chunks.iter().filter(|(key, chunk)| !chunk.is_final() && !due.contains(key)) {
        problems.push(format!("{key} is open and not in the index of what is due"));
    }
    problems.truncate(LISTED_MAX);
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

async fn due(store: &LocalStore) -> Result<BTreeSet<ChunkKey>, sheaf_protocol::StoreError> {
    const PAGE: usize = 1_000;
    let mut found = BTreeSet::new();
    let mut after = None;
    loop {
        let page = store.due(after, u64::MAX - 1, PAGE).await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = Some(*last);
        found.extend(page.iter().map(|(_, key)| *key));
    }
}
