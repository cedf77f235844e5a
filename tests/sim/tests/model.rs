//! The protocol, explored exhaustively within small bounds; and proof that the exploration finds mistakes.
//!
//! `cargo test -p sheaf-sim --test model -- --nocapture` prints what was explored; `--ignored` explores more, for minutes.

#[path = "model/mod.rs"]
mod protocol;

use std::{collections::BTreeSet, time::Instant};

use protocol::{Bounds, Bug, Protocol};
use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// One chunk of two tasks, two workers of which each may be slow, a sweeper; and nothing else that goes wrong.
const CALM: Bounds = Bounds {
    chunks: 1,
    workers: 2,
    epochs: 2,
    crashes: 0,
    anybody_crashes: false,
    duplicates: 0,
    lost: 0,
    gives_up: false,
    ghosts: 0,
    drains: 0,
    copies: 0,
    steps: 2,
    sweeps: 1,
    hints: 2,
    canceller: false,
    heartbeats: false,
    segments: false,
    deadline: None,
    poison: None,
    owner_gone: false,
    reduced: true,
};
/// The same without time and sweeper: everybody is quick.
const QUICK: Bounds = Bounds { steps: 0, sweeps: 0, ..CALM };

const DONE: &str = "a job is done";
const TAKEN_OVER: &str = "a chunk is taken over";
const LATE_REFUSED: &str = "a late write is refused";
const POSTPONED: &str = "a duplicate is postponed";
const RECOGNISED: &str = "a lost answer is recognised";
const CANCEL_WON: &str = "a cancel wins against a running worker";
const CANCELLED: &str = "a job is cancelled";
const EXPIRED: &str = "a task expires";
const QUARANTINED: &str = "a task is quarantined";
const OUTRUN: &str = "a living owner is outrun";

/// Explores all of it; every promise must hold, and what is named must be seen to happen.
fn explore(name: &str, bounds: Bounds, seen: &[&'static str]) {
    let began = Instant::now();
    let checker = Protocol::new(bounds, None).checker().spawn_bfs().join();
    println!(
        "{name}: {} states, {} unique, depth {}, {:.1?}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        began.elapsed()
    );
    let found = checker.discoveries();
    for property in checker.model().properties() {
        let path = found.get(property.name);
        match property.expectation {
            Expectation::Always | Expectation::Eventually => {
                let trace = path.map(protocol::trace);
                assert!(
                    trace.is_none(),
                    "{name}: it does not hold that {}:\n{}",
                    property.name,
                    trace.unwrap_or_default()
                );
            }
            Expectation::Sometimes if seen.contains(&property.name) => {
                assert!(path.is_some(), "{name}: it was never seen that {}", property.name);
            }
            Expectation::Sometimes => {}
        }
    }
}

/// A worker crashes, a hint is delivered twice, an answer is lost, and each worker may be slow: the bounds of the gate.
#[test]
fn one_fault_of_each_kind() {
    let bounds = Bounds { crashes: 1, duplicates: 1, lost: 1, ..CALM };
    explore("one fault of each kind", bounds, &[DONE, TAKEN_OVER, LATE_REFUSED, POSTPONED, RECOGNISED]);
}

#[test]
fn a_cancel_at_any_time() {
    let bounds = Bounds { canceller: true, ..CALM };
    explore("a cancel at any time", bounds, &[DONE, CANCELLED, CANCEL_WON, TAKEN_OVER]);
    let bounds = Bounds { canceller: true, crashes: 1, lost: 1, steps: 1, sweeps: 0, ..CALM };
    explore("a cancel, a crash and a lost answer", bounds, &[DONE, CANCELLED, CANCEL_WON, RECOGNISED]);
}

#[test]
fn other_faults() {
    let bounds = Bounds { crashes: 1, anybody_crashes: true, ..CALM };
    explore("anybody crashes", bounds, &[DONE, TAKEN_OVER]);
    let bounds = Bounds { crashes: 1, owner_gone: true, ..CALM };
    explore("a crash that the store knows of", bounds, &[DONE, TAKEN_OVER]);
    let bounds = Bounds { lost: 1, gives_up: true, ..CALM };
    explore("an author that gives up", bounds, &[DONE, RECOGNISED]);
    let bounds = Bounds { drains: 1, ghosts: 1, ..CALM };
    explore("a drain, and a write that arrives twice", bounds, &[DONE, TAKEN_OVER, LATE_REFUSED]);
    let bounds =
        Bounds { segments: true, heartbeats: true, crashes: 1, duplicates: 1, lost: 1, steps: 1, sweeps: 0, ..CALM };
    explore("segments and heartbeats", bounds, &[DONE, TAKEN_OVER, LATE_REFUSED, POSTPONED, RECOGNISED]);
    let bounds = Bounds { deadline: Some(2), crashes: 1, ..CALM };
    explore("a deadline", bounds, &[DONE, EXPIRED, TAKEN_OVER]);
    let bounds = Bounds { chunks: 2, hints: 3, crashes: 1, steps: 1, sweeps: 0, ..CALM };
    explore("two chunks", bounds, &[DONE, TAKEN_OVER]);
    explore("a poison task", POISON, &[DONE, TAKEN_OVER, QUARANTINED]);
}

/// Of a chunk whose first task is committed, the second is run by two workers at once.
#[test]
fn a_second_copy() {
    explore("a second copy", COPY, &[DONE, OUTRUN, TAKEN_OVER, LATE_REFUSED]);
    let bounds = Bounds { crashes: 1, steps: 1, sweeps: 0, ..COPY };
    explore("a second copy and a crash", bounds, &[DONE, OUTRUN, TAKEN_OVER, LATE_REFUSED]);
    let bounds = Bounds { lost: 1, steps: 0, sweeps: 0, ..COPY };
    explore("a second copy and a lost answer", bounds, &[DONE, OUTRUN, LATE_REFUSED, RECOGNISED]);
    let bounds = Bounds { canceller: true, steps: 0, sweeps: 0, ..COPY };
    explore("a second copy and a cancel", bounds, &[DONE, OUTRUN, LATE_REFUSED, CANCEL_WON]);
}

const COPY: Bounds = Bounds { copies: 1, segments: true, epochs: 3, ..CALM };

/// A task that kills five workers, and would kill a sixth.
const POISON: Bounds = Bounds { epochs: 6, steps: 6, sweeps: 0, poison: Some((0, 1)), ..CALM };

/// Minutes each: run nightly, with `--ignored`.
mod nightly {
    use super::*;

    #[test]
    #[ignore = "explores for minutes"]
    fn two_chunks_three_workers_two_crashes() {
        let bounds = Bounds {
            chunks: 2,
            workers: 3,
            hints: 3,
            epochs: 3,
            crashes: 2,
            duplicates: 1,
            steps: 1,
            sweeps: 0,
            ..CALM
        };
        explore("two chunks, three workers, two crashes", bounds, &[DONE, TAKEN_OVER, LATE_REFUSED, POSTPONED]);
    }

    #[test]
    #[ignore = "explores for minutes"]
    fn poison_segments_and_two_crashes() {
        let bounds = Bounds { epochs: 7, segments: true, crashes: 2, ..POISON };
        explore("a poison task, segments, two crashes", bounds, &[DONE, TAKEN_OVER, QUARANTINED]);
    }

    #[test]
    #[ignore = "explores for minutes"]
    fn poison_and_a_duplicate() {
        let bounds = Bounds { duplicates: 1, ..POISON };
        explore("a poison task that two workers run", bounds, &[DONE, TAKEN_OVER, POSTPONED, QUARANTINED]);
    }

    #[test]
    #[ignore = "explores for minutes"]
    fn a_cancel_among_faults() {
        let bounds = Bounds { canceller: true, crashes: 1, lost: 1, duplicates: 1, steps: 1, sweeps: 0, ..CALM };
        explore("a cancel among faults", bounds, &[DONE, CANCELLED, CANCEL_WON, LATE_REFUSED, POSTPONED, RECOGNISED]);
    }

    #[test]
    #[ignore = "explores for minutes"]
    fn two_chunks_and_a_cancel() {
        let bounds = Bounds { chunks: 2, hints: 3, canceller: true, steps: 1, sweeps: 0, ..CALM };
        explore("two chunks and a cancel", bounds, &[DONE, CANCELLED, CANCEL_WON]);
    }

    #[test]
    #[ignore = "explores for minutes"]
    fn without_the_reduction() {
        let bounds = Bounds { crashes: 1, duplicates: 1, reduced: false, ..CALM };
        explore("without the reduction", bounds, &[DONE, TAKEN_OVER, LATE_REFUSED, POSTPONED]);
    }
}

/// A test that cannot fail is a defect: each planted bug breaks a promise, within bounds in which the protocol keeps all.
#[test]
fn every_planted_bug_is_found() {
    const WRITE: &str = "every write keeps the invariants";
    const STATE: &str = "every state keeps the invariants";
    const OUTCOME: &str = "an outcome once visible never changes";
    const ONE: &str = "at most one attempt can commit";
    const THERE: &str = "what was acknowledged is there";
    const VISIBLE: &str = "nothing becomes visible after a final cancel";
    const CANCEL: &str = "a final cancel leaves no chunk open that it found";
    const OWN: &str = "nobody gives up what is his";
    const HINT: &str = "no hint is deleted while its chunk is open";
    const POISONED: &str = "a poison task costs at most five workers";
    const ENDS: &str = "when faults stop, every task ends";
    let cancel = Bounds { canceller: true, ..QUICK };
    let anybody = Bounds { crashes: 1, anybody_crashes: true, ..QUICK };
    let planted = [
        (Bug::CommitWithoutFence, CALM, WRITE),
        (Bug::TakeOverUnfenced, CALM, ONE),
        (Bug::CommitWithoutBlob, QUICK, STATE),
        (Bug::PackAfterSubmit, QUICK, STATE),
        (Bug::AcknowledgedBeforeSubmit, QUICK, THERE),
        (Bug::SealDoesNotLook, QUICK, ENDS),
        (Bug::OwnWriteNotRecognised, Bounds { lost: 1, ..QUICK }, OWN),
        (Bug::SubmitWithoutCondition, anybody, WRITE),
        (Bug::SubmitWithoutCondition, anybody, OUTCOME),
        (Bug::SummaryIsCounter, anybody, STATE),
        (Bug::DoneUncounted, Bounds { chunks: 2, hints: 3, ..QUICK }, STATE),
        (Bug::HintDeletedWhenReceived, Bounds { crashes: 1, ..QUICK }, ENDS),
        (Bug::DuplicateDeleted, Bounds { duplicates: 1, ..QUICK }, HINT),
        (Bug::SweeperSendsNothing, Bounds { crashes: 1, ..CALM }, ENDS),
        (Bug::NoIsolation, POISON, POISONED),
        (Bug::CopyCommitsAsOwner, Bounds { copies: 1, segments: true, ..QUICK }, ONE),
        (Bug::EndOverwrites, cancel, WRITE),
        (Bug::CancelCompleteEarly, cancel, CANCEL),
        (Bug::JobNotRead, cancel, VISIBLE),
        (Bug::HintDeletedUnsure, Bounds { lost: 1, gives_up: true, sweeps: 1, workers: 1, ..cancel }, HINT),
        (Bug::WishForgotten, Bounds { canceller: true, sweeps: 1, workers: 1, ..anybody }, ENDS),
    ];
    let mut explored = None;
    for (bug, bounds, promise) in planted {
        let until = HasDiscoveries::AnyOf(BTreeSet::from([promise]));
        let checker = Protocol::new(bounds, Some(bug)).checker().finish_when(until).spawn_bfs().join();
        println!("{bug:?}: {} states", checker.state_count());
        let broken = checker.discoveries();
        assert!(broken.contains_key(promise), "{bug:?} leaves it so that {promise}; seen: {:?}", broken.keys());
        if explored.replace(bounds) != Some(bounds) {
            explore(&format!("without {bug:?}"), bounds, &[DONE]);
        }
    }
}
