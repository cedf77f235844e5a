//! Workers that hold chunks while others drain, kill and supersede them, under thousands of schedules that
//! [shuttle](https://docs.rs/shuttle) draws: it decides at every lock and await who goes on.
//!
//! What runs is the crate as it is: its modules are compiled once more, into this program, where the name `parking_lot`
//! stands for shuttle's version. Time is virtual, and goes on whenever the schedule says so: a worker may sleep through its
//! whole lease at any await.

#![allow(dead_code, unused_imports, reason = "a test of parts of the crate, which is here as a whole")]
#![allow(unreachable_pub, reason = "what is public in the crate is private here")]

extern crate shuttle_parking_lot as parking_lot;

#[path = "../../src/cancel.rs"]
mod cancel;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/explain.rs"]
mod explain;
#[path = "../../src/functions.rs"]
mod functions;
#[path = "../../src/ports.rs"]
mod ports;
#[path = "../../src/read.rs"]
mod read;
#[path = "../../src/retry.rs"]
mod retry;
#[path = "../../src/service.rs"]
mod service;
#[path = "../../src/submit.rs"]
mod submit;
#[path = "../../src/summarise.rs"]
mod summarise;
#[path = "../../src/sweep.rs"]
mod sweep;
#[path = "../../src/work/mod.rs"]
mod work;
#[path = "../../src/write.rs"]
mod write;

mod machine;

pub use crate::{
    error::{StoreError, WriteError},
    ports::{
        BlobStore, ChunkQueue, Clock, Delivery, Hint, JobListing, Ports, Put, Rng, Runner, StateStore, SummaryEntry,
        Write,
    },
    service::Service,
    work::{Drain, Worker, WorkerOptions},
};

use std::sync::{Arc, atomic::Ordering};

use futures::future::{Either, select};
use machine::{Machine, RunnerOf, choose, idle};
use sheaf_core::{ChunkState, ReleaseReason, WorkerId};
use shuttle::{
    Config, MaxSteps, Runner as Schedules,
    future::{block_on, spawn},
    scheduler::{PctScheduler, RandomScheduler, Scheduler},
};

/// Fixed, so that a failure in one run is one in the next.
const SEED: u64 = 7;
const SCHEDULES: usize = 3_000;

fn explore(scheduler: impl Scheduler + Send + 'static, schedules: fn()) {
    let mut config = Config::new();
    // Futures of unoptimised builds are large.
    config.stack_size = 1 << 20;
    // Time never stands still: what waits for ever is told by the steps it takes.
    config.max_steps = MaxSteps::FailAfter(200_000);
    Schedules::new(scheduler, config).run(schedules);
}

fn holds(property: fn()) {
    explore(RandomScheduler::new_from_seed(SEED, SCHEDULES), property);
    explore(PctScheduler::new_from_seed(SEED, 3, SCHEDULES), property);
}

fn worker(machine: &Machine, name: &str, drain: &Arc<Drain>, hangs: bool) -> Arc<Worker<Machine, RunnerOf>> {
    let id: WorkerId = format!("wrk_{name}").parse().expect("an id");
    let runner = Arc::new(RunnerOf { machine: machine.clone(), hangs });
    Arc::new(Worker::new(machine.clone(), runner, WorkerOptions::new(id), Arc::clone(drain)))
}

/// Takes hints until all chunks are final, or it is told to drain.
async fn work(machine: Machine, worker: Arc<Worker<Machine, RunnerOf>>, drain: Arc<Drain>) {
    while drain.until_ms().is_none()
        && let Some(delivery) = machine.receive().await
    {
        worker.work(delivery).await;
    }
}

/// What holds when all is over, whoever went first: every task has its one outcome, and nobody holds or runs anything.
fn assert_over(machine: &Machine, workers: &[&Worker<Machine, RunnerOf>]) {
    for chunk in machine.chunks() {
        assert!(matches!(chunk.state, ChunkState::Done { .. }), "{:?}", chunk.state);
        assert_eq!(chunk.work.segments.iter().map(|segment| segment.tasks).sum::<u32>(), chunk.spec.tasks);
    }
    assert!(workers.iter().all(|worker| worker.holding().is_empty()));
    assert_eq!(machine.running(), 0, "a function runs on that nobody waits for");
}

/// A worker whose function never ends is told to drain, at any moment: it sees that, gives back what it holds for the
/// reason that it was given, and another brings all of it to its end.
fn a_drain(seen: bool) {
    block_on(async {
        let machine = Machine::new();
        let told = Arc::new(Drain::default());
        // The planted bug: what is told to drain is not what the worker looks at.
        let looked_at = if seen { Arc::clone(&told) } else { Arc::default() };
        let (leaving, staying) =
            (worker(&machine, "leaving", &looked_at, true), worker(&machine, "staying", &Arc::default(), false));
        // Slow enough for a lease to be renewed in time: only the drain ends what never ends.
        let clock = spawn(machine.clone().tick(400));
        let leaves = spawn(work(machine.clone(), Arc::clone(&leaving), looked_at));
        let drains = {
            let machine = machine.clone();
            spawn(async move {
                idle(60).await;
                told.start(machine.now_ms() + choose(2_000) as u64, ReleaseReason::Reclaimed);
            })
        };
        let stays = spawn(work(machine.clone(), Arc::clone(&staying), Arc::default()));
        drains.await.expect("it does not panic");
        leaves.await.expect("it does not panic");
        assert!(leaving.holding().is_empty());
        stays.await.expect("it does not panic");
        machine.stop();
        clock.await.expect("it does not panic");
        assert_over(&machine, &[&leaving, &staying]);
        for past in machine.chunks().iter().flat_map(|chunk| &chunk.work.past) {
            if &past.worker == leaving.id() {
                let reason = past.released.filter(|reason| *reason != ReleaseReason::Unavailable);
                assert!(reason.is_none_or(|reason| reason == ReleaseReason::Reclaimed), "given back as {reason:?}");
            }
        }
    });
}

#[test]
fn a_drain_is_seen_whenever_it_starts() {
    holds(|| a_drain(true));
}

#[test]
#[should_panic(expected = "exceeded max_steps")]
fn planted_a_drain_that_nobody_looks_at() {
    explore(RandomScheduler::new_from_seed(SEED, SCHEDULES), || a_drain(false));
}

/// A worker is killed at any await: it holds nothing from then on, and another takes over what it held.
#[test]
fn what_a_killed_worker_held_is_brought_to_its_end() {
    holds(|| {
        block_on(async {
            let machine = Machine::new();
            let (killed, other) = (
                worker(&machine, "killed", &Arc::default(), choose(2) == 0),
                worker(&machine, "other", &Arc::default(), false),
            );
            // Fast enough for a lease to lapse under a worker that lives.
            let clock = spawn(machine.clone().tick(4_000));
            let dies = {
                let (machine, killed) = (machine.clone(), Arc::clone(&killed));
                spawn(async move {
                    let lives = Box::pin(work(machine.clone(), Arc::clone(&killed), Arc::default()));
                    if let Either::Right(((), lives)) = select(lives, Box::pin(idle(80))).await {
                        drop(lives);
                        assert!(killed.holding().is_empty());
                        machine.deliver_all_again();
                    }
                })
            };
            let lives = spawn(work(machine.clone(), Arc::clone(&other), Arc::default()));
            dies.await.expect("it does not panic");
            lives.await.expect("it does not panic");
            machine.stop();
            clock.await.expect("it does not panic");
            assert_over(&machine, &[&killed, &other]);
        });
    });
}
