//! What holds of a chunk whatever several owners, lost answers, duplicates and wrong clocks do to it.

mod fixture;

use std::collections::BTreeMap;

use fixture::{
    Path, S, attempt, checkpoint, claim, commit, end, finish, heartbeat, mark, owner, release, segment, spec, submit,
    take_over, touch, with_checkpoints, with_tallies,
};
use proptest::{collection::vec, option, prelude::*};
use sheaf_core::{
    Attempt, CheckpointRef, Chunk, ChunkEvent, ChunkState, Commit, EndReason, Evidence, Mark, Marks, Outcome, Owner,
    Tally, invariant,
};

const OWNERS: [&str; 3] = ["anna", "ben", "carl"];
const TASKS: u32 = 6;

/// Enough to reach every pair of transitions many times over, in about a second.
fn config() -> ProptestConfig {
    ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() }
}

/// What an owner does next, from what it has last seen.
#[derive(Debug, Clone)]
enum Act {
    Look,
    Claim,
    TakeOver {
        evidence: Evidence,
    },
    Heartbeat {
        lease_ms: u64,
    },
    Segment {
        picks: Option<Picks>,
        tallies: Vec<(u32, Tally)>,
        /// Tasks of which a checkpoint is stored.
        checkpoints: Vec<u32>,
    },
    Mark {
        task: u32,
    },
    Release {
        picks: Option<Picks>,
        pause_ms: u64,
        checkpoints: Vec<u32>,
    },
    Finish {
        picks: Option<Picks>,
    },
    End {
        reason: EndReason,
    },
    Touch {
        due_ms: u64,
    },
    /// The network delivers an event of the past once more.
    Replay {
        which: prop::sample::Index,
    },
}

/// Tasks to commit, each with its outcome; `honest` takes only those that were open when last seen.
#[derive(Debug, Clone)]
struct Picks {
    outcomes: Vec<(u32, Mark)>,
    all_open: bool,
    honest: bool,
}

#[derive(Debug, Clone)]
struct Step {
    who: usize,
    act: Act,
    /// How far the clock moves before it.
    tick_ms: u64,
    /// Whether the author learns what came of it.
    answered: bool,
}

fn picks() -> impl Strategy<Value = Picks> {
    let outcome = prop_oneof![Just(Mark::Succeeded), Just(Mark::Failed), Just(Mark::Quarantined)];
    (vec((0..TASKS, outcome), 0..4), any::<bool>(), prop::bool::weighted(0.8))
        .prop_map(|(outcomes, all_open, honest)| Picks { outcomes, all_open, honest })
}

fn act() -> impl Strategy<Value = Act> {
    let evidence = prop_oneof![Just(Evidence::LeaseOver), Just(Evidence::OwnerGone), Just(Evidence::Outrun)];
    let tally = (0..5u32, 0..4u8).prop_map(|(attempts, strikes)| Tally { attempts, strikes });
    let reason = prop_oneof![Just(EndReason::Cancelled), Just(EndReason::Expired)];
    prop_oneof![
        2 => Just(Act::Look),
        4 => Just(Act::Claim),
        2 => evidence.prop_map(|evidence| Act::TakeOver { evidence }),
        2 => (0..40 * S).prop_map(|lease_ms| Act::Heartbeat { lease_ms }),
        4 => (option::weighted(0.7, picks()), vec((0..TASKS + 2, tally), 0..3), vec(0..TASKS + 2, 0..3))
            .prop_map(|(picks, tallies, checkpoints)| Act::Segment { picks, tallies, checkpoints }),
        1 => (0..TASKS + 1).prop_map(|task| Act::Mark { task }),
        2 => (option::of(picks()), 0..20 * S, vec(0..TASKS + 2, 0..3))
            .prop_map(|(picks, pause_ms, checkpoints)| Act::Release { picks, pause_ms, checkpoints }),
        2 => option::of(picks()).prop_map(|picks| Act::Finish { picks }),
        1 => reason.prop_map(|reason| Act::End { reason }),
        1 => (0..300 * S).prop_map(|due_ms| Act::Touch { due_ms }),
        2 => any::<prop::sample::Index>().prop_map(|which| Act::Replay { which }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..OWNERS.len(), act(), 0..15 * S, prop::bool::weighted(0.8))
        .prop_map(|(who, act, tick_ms, answered)| Step { who, act, tick_ms, answered });
    vec(step, 1..60)
}

/// An owner, with what it last knew.
struct Author {
    name: &'static str,
    seen: Chunk,
    mine: Attempt,
    segments: u32,
    claims: u64,
}

impl Author {
    fn learns(&mut self, chunk: &Chunk) {
        self.seen = chunk.clone();
        if let Some(lease) = chunk.lease()
            && lease.attempt.owner == self.owner()
        {
            self.mine = lease.attempt.clone();
        }
    }

    /// An owner with a nonce of its own, as for every claim.
    fn next_owner(&mut self) -> Owner {
        self.claims += 1;
        self.owner()
    }

    /// The owner of the latest claim.
    fn owner(&self) -> Owner {
        let Owner { worker, nonce } = owner(self.name);
        Owner { worker, nonce: nonce << 16 | self.claims }
    }

    fn commit(&mut self, picks: &Picks) -> Commit {
        let mut marks = Marks::open(TASKS);
        let was_open = |task| self.seen.work.marks.get(task) == Mark::Open;
        for &(task, outcome) in &picks.outcomes {
            if was_open(task) || !picks.honest {
                marks.set(task, outcome);
            }
        }
        let rest = self.seen.work.marks.open_tasks().filter(|_| picks.all_open);
        rest.for_each(|task| marks.set(task, Mark::Succeeded));
        self.segments += 1;
        commit(&self.mine, self.segments, marks)
    }

    /// New checkpoints of some tasks.
    fn stored(&mut self, tasks: &[u32], now_ms: u64) -> BTreeMap<u32, CheckpointRef> {
        let mut next = |_| {
            self.segments += 1;
            checkpoint(&self.mine, self.segments, now_ms)
        };
        tasks.iter().map(|&task| (task, next(task))).collect()
    }

    fn event(&mut self, act: &Act, now_ms: u64) -> Option<ChunkEvent> {
        let (mine, rv) = (self.mine.clone(), self.seen.rv);
        Some(match act {
            Act::Look | Act::Replay { .. } => return None,
            Act::Claim => ChunkEvent::Claim { owner: self.next_owner(), now_ms, until_ms: now_ms + 30 * S },
            Act::TakeOver { evidence } => {
                let (seen, seen_until_ms) = self.seen.lease().map(|lease| (lease.attempt.clone(), lease.until_ms))?;
                let (owner, evidence, until_ms) = (self.next_owner(), *evidence, now_ms + 30 * S);
                ChunkEvent::TakeOver { owner, seen, seen_until_ms, evidence, now_ms, until_ms }
            }
            Act::Heartbeat { lease_ms } => heartbeat(&mine, now_ms + lease_ms),
            Act::Segment { picks, tallies, checkpoints } => {
                let commit = picks.as_ref().map(|picks| self.commit(picks));
                let (tallies, checkpoints) = (tallies.clone(), self.stored(checkpoints, now_ms));
                ChunkEvent::Segment { attempt: mine, rv, commit, tallies, checkpoints, until_ms: now_ms + 30 * S }
            }
            Act::Mark { task } => mark(&mine, rv, *task),
            Act::Release { picks, pause_ms, checkpoints } => {
                let commit = picks.as_ref().map(|picks| self.commit(picks));
                let stored = Vec::from_iter(self.stored(checkpoints, now_ms));
                with_checkpoints(release(&mine, rv, commit, now_ms, now_ms + pause_ms), &stored)
            }
            Act::Finish { picks } => finish(&mine, rv, picks.as_ref().map(|picks| self.commit(picks)), now_ms),
            Act::End { reason } => end(*reason, now_ms),
            Act::Touch { due_ms } => touch(self.seen.due_ms, *due_ms),
        })
    }
}

/// The chunk, and what was ever true of it.
struct History {
    chunk: Chunk,
    outcomes: BTreeMap<u32, Outcome>,
    committers: BTreeMap<u32, Attempt>,
    sent: Vec<ChunkEvent>,
    applied: Vec<ChunkEvent>,
}

impl History {
    fn deliver(&mut self, event: &ChunkEvent) {
        let Ok(after) = Chunk::apply(Some(&self.chunk), event) else { return self.check_refused(event) };
        invariant::check_write(Some(&self.chunk), &after).expect("a write keeps what must hold");
        assert!(event.landed_in(&after), "{} cannot be seen in what it made", event.transition());
        if after.work.segments.len() > self.chunk.work.segments.len() {
            let holder = self.chunk.lease().expect("only the holder of a lease commits").attempt.clone();
            let first = self.committers.entry(self.chunk.epoch).or_insert_with(|| holder.clone());
            assert_eq!(*first, holder, "two attempts committed in one epoch");
        }
        self.check_repeated(event, &after);
        for task in 0..TASKS {
            let now = after.outcome(task);
            let before = self.outcomes.get(&task).copied();
            assert!(before.is_none() || before == now, "task {task} was {before:?} and became {now:?}");
            self.outcomes.extend(now.map(|outcome| (task, outcome)));
        }
        self.chunk = after;
        self.applied.push(event.clone());
    }

    /// A refused event that seems to have landed is one that was applied before: no results of it are lost.
    fn check_refused(&self, event: &ChunkEvent) {
        let same = |other: &ChunkEvent| match (event, other) {
            (ChunkEvent::End { reason, .. }, ChunkEvent::End { reason: other, .. }) => reason == other,
            (ChunkEvent::Touch { due_ms, .. }, _) => *due_ms == self.chunk.due_ms,
            (
                ChunkEvent::Finish { attempt, commit, .. },
                ChunkEvent::Finish { attempt: other, commit: results, .. },
            )
            | (
                ChunkEvent::Release { attempt, commit, .. },
                ChunkEvent::Release { attempt: other, commit: results, .. },
            ) => attempt == other && (commit.is_none() || commit == results),
            // It asks for nothing that the chunk does not show.
            (ChunkEvent::Segment { commit: None, .. }, _) => true,
            _ => event == other,
        };
        let landed = event.landed_in(&self.chunk);
        assert!(!landed || self.applied.iter().any(same), "{event:?} was never applied to {:?}", self.chunk);
    }

    /// The same event delivered twice in a row happens once, but for what is harmless: a lease or a due time.
    fn check_repeated(&self, event: &ChunkEvent, after: &Chunk) {
        let Ok(again) = Chunk::apply(Some(after), event) else { return };
        assert!(matches!(event, ChunkEvent::Heartbeat { .. } | ChunkEvent::Touch { .. }), "{}", event.transition());
        assert_eq!(&again, after);
    }
}

/// Whoever wants to can bring an open chunk to its end: nothing that happens to it can block it for ever.
fn check_can_end(chunk: &Chunk) {
    let claimed = match &chunk.state {
        ChunkState::Done { .. } | ChunkState::Ended { .. } => return,
        ChunkState::Queued { not_before_ms } => Chunk::apply(Some(chunk), &claim("zoe", *not_before_ms)),
        ChunkState::Leased(lease) => {
            Chunk::apply(Some(chunk), &take_over("zoe", &lease.attempt, lease.until_ms, Evidence::OwnerGone, 0))
        }
    };
    let claimed = claimed.expect("it has no deadline");
    let mine = attempt(claimed.epoch, "zoe");
    let mut rest = Marks::open(TASKS);
    claimed.work.marks.open_tasks().for_each(|task| rest.set(task, Mark::Failed));
    let done = Chunk::apply(Some(&claimed), &finish(&mine, claimed.rv, Some(commit(&mine, 0, rest)), 0));
    assert!(matches!(done.expect("its owner finishes it").state, ChunkState::Done { .. }));
}

fn play(deadline_ms: Option<u64>, steps: &[Step]) -> Chunk {
    let start = Path::submitted(spec(TASKS, deadline_ms)).0;
    let (outcomes, committers, sent, applied) = Default::default();
    let mut history = History { chunk: start.clone(), outcomes, committers, sent, applied };
    let mut authors =
        OWNERS.map(|name| Author { name, seen: start.clone(), mine: attempt(1, name), segments: 0, claims: 0 });
    let mut now_ms = 0;
    for Step { who, act, tick_ms, answered } in steps {
        now_ms += tick_ms;
        let author = &mut authors[*who];
        let event = match act {
            Act::Replay { which } if !history.sent.is_empty() => Some(which.get(&history.sent).clone()),
            other => author.event(other, now_ms),
        };
        if let Some(event) = event {
            history.deliver(&event);
            history.sent.push(event);
        }
        if *answered {
            author.learns(&history.chunk);
        }
    }
    history.chunk
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_several_owners_do_outcomes_stay_and_one_attempt_commits(steps in steps()) {
        check_can_end(&play(None, &steps));
    }

    #[test]
    fn no_claim_is_granted_after_the_deadline(steps in steps(), deadline_ms in 0..400 * S) {
        let chunk = play(Some(deadline_ms), &steps);
        let since = chunk.work.past.iter().map(|past| past.since_ms).chain(chunk.lease().map(|lease| lease.since_ms));
        prop_assert!(since.into_iter().all(|since_ms| since_ms < deadline_ms));
        if !chunk.is_final() {
            let expired = Chunk::apply(Some(&chunk), &end(EndReason::Expired, deadline_ms));
            prop_assert!(expired.is_ok_and(|expired| (0..TASKS).all(|task| expired.outcome(task).is_some())));
        }
    }

    #[test]
    fn no_event_panics_however_wild(events in vec(wild_event(), 1..30)) {
        let mut chunk: Option<Chunk> = None;
        for event in &events {
            if let Ok(after) = Chunk::apply(chunk.as_ref(), event) {
                prop_assert!(event.landed_in(&after));
                chunk = Some(after);
            }
            if let Some(chunk) = &chunk {
                let _ = (event.landed_in(chunk), chunk.totals());
            }
        }
    }
}

/// Numbers as a defect might send them.
fn wild() -> impl Strategy<Value = u64> {
    prop_oneof![0..4u64, Just(u64::MAX), Just(u64::MAX - 1), any::<u64>()]
}

fn wild_attempt() -> impl Strategy<Value = Attempt> {
    (prop_oneof![0..4u32, Just(u32::MAX)], 0..OWNERS.len()).prop_map(|(epoch, who)| attempt(epoch, OWNERS[who]))
}

fn wild_commit() -> impl Strategy<Value = Commit> {
    (wild_attempt(), any::<u32>(), 0..9u32, vec((0..9u32, Just(Mark::Failed)), 0..4)).prop_map(
        |(attempt, number, tasks, picks)| {
            let mut marks = Marks::open(tasks);
            picks.into_iter().filter(|(task, _)| *task < tasks).for_each(|(task, mark)| marks.set(task, mark));
            commit(&attempt, number, marks)
        },
    )
}

fn wild_checkpoints() -> impl Strategy<Value = Vec<(u32, CheckpointRef)>> {
    let one = (prop_oneof![0..9u32, any::<u32>()], wild_attempt(), any::<u32>(), wild());
    vec(one.prop_map(|(task, attempt, number, at_ms)| (task, checkpoint(&attempt, number, at_ms))), 0..3)
}

fn wild_event() -> impl Strategy<Value = ChunkEvent> {
    let who = || (0..OWNERS.len()).prop_map(|who| owner(OWNERS[who]));
    let evidence = prop_oneof![Just(Evidence::LeaseOver), Just(Evidence::OwnerGone), Just(Evidence::Outrun)];
    let tallies = vec((any::<u32>(), Just(Tally { attempts: u32::MAX, strikes: u8::MAX })), 0..2);
    prop_oneof![
        (0..9u32, option::of(wild()), wild()).prop_map(|(tasks, deadline_ms, submitted_at_ms)| {
            let mut spec = spec(tasks, deadline_ms);
            spec.submitted_at_ms = submitted_at_ms;
            submit(spec)
        }),
        (who(), wild(), wild()).prop_map(|(owner, now_ms, until_ms)| ChunkEvent::Claim { owner, now_ms, until_ms }),
        (who(), wild_attempt(), wild(), evidence, wild(), wild()).prop_map(
            |(owner, seen, seen_until_ms, evidence, now_ms, until_ms)| ChunkEvent::TakeOver {
                owner,
                seen,
                seen_until_ms,
                evidence,
                now_ms,
                until_ms
            }
        ),
        (wild_attempt(), wild()).prop_map(|(attempt, until_ms)| heartbeat(&attempt, until_ms)),
        (wild_attempt(), wild(), wild_commit(), tallies, wild_checkpoints(), wild()).prop_map(
            |(attempt, rv, commit, tallies, stored, until_ms)| {
                with_checkpoints(with_tallies(segment(&attempt, rv, commit, until_ms), &tallies), &stored)
            }
        ),
        (wild_attempt(), wild(), any::<u32>()).prop_map(|(attempt, rv, task)| mark(&attempt, rv, task)),
        (wild_attempt(), wild(), option::of(wild_commit()), wild_checkpoints(), wild(), wild()).prop_map(
            |(attempt, rv, commit, stored, now_ms, until_ms)| {
                with_checkpoints(release(&attempt, rv, commit, now_ms, until_ms), &stored)
            }
        ),
        (wild_attempt(), wild(), option::of(wild_commit()), wild())
            .prop_map(|(attempt, rv, commit, now_ms)| finish(&attempt, rv, commit, now_ms)),
        wild().prop_map(|now_ms| end(EndReason::Expired, now_ms)),
        (wild(), wild()).prop_map(|(seen_due_ms, due_ms)| touch(seen_due_ms, due_ms)),
    ]
}
