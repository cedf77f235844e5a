//! The client's batching, budget and tickets under thousands of schedules that [shuttle](https://docs.rs/shuttle) draws:
//! it decides at every lock, channel, semaphore and await who goes on, and tells a deadlock.
//!
//! What runs is the SDK as it is: its modules are compiled once more, into this program, where the names `tokio`,
//! `parking_lot` and `tokio_util` stand for shuttle's versions. Nothing in the SDK knows of it. Shuttle does not model
//! time: what sleeps is ready at once, what has a timeout never runs into it, so lingers here are none or for ever.
//!
//! A failing test prints its schedule and how to replay it. The program has a main of its own because the SDK's unit tests,
//! which want the real tokio, must not be among its tests.

#![allow(dead_code, unused_imports, reason = "a test of parts of the SDK, which is here as a whole")]
#![allow(unreachable_pub, missing_docs, reason = "what is public in the SDK is private here")]

extern crate self as tokio_util;
extern crate shuttle_parking_lot as parking_lot;
extern crate shuttle_tokio as tokio;

#[cfg(feature = "aws")]
#[path = "../../src/aws.rs"]
mod aws;
#[path = "../../src/batch.rs"]
mod batch;
#[path = "../../src/budget.rs"]
mod budget;
#[path = "../../src/chunk_results.rs"]
mod chunk_results;
#[path = "../../src/connect.rs"]
mod connect;
#[path = "../../src/error.rs"]
mod error;
#[path = "../../src/feed.rs"]
mod feed;
#[path = "../../src/function.rs"]
mod function;
#[path = "../../src/grid.rs"]
mod grid;
#[cfg(feature = "embedded")]
#[path = "../../src/handler.rs"]
mod handler;
#[path = "../../src/job.rs"]
mod job;
#[path = "../../src/journal/mod.rs"]
mod journal;
#[path = "../../src/limits.rs"]
mod limits;
#[path = "../../src/map.rs"]
mod map;
#[path = "../../src/progress.rs"]
mod progress;
#[path = "../../src/reader.rs"]
mod reader;
#[cfg(feature = "remote")]
#[path = "../../src/remote/mod.rs"]
mod remote;
#[path = "../../src/results.rs"]
mod results;
#[path = "../../src/retry.rs"]
mod retry;
#[path = "../../src/settings.rs"]
mod settings;
#[path = "../../src/sizing.rs"]
mod sizing;
#[path = "../../src/source.rs"]
mod source;
#[path = "../../src/submission.rs"]
mod submission;
#[path = "../../src/ticket.rs"]
mod ticket;
#[path = "../../src/ticket_job.rs"]
mod ticket_job;
#[path = "../../src/transport.rs"]
mod transport;

/// `tokio_util::sync`.
pub mod sync {
    pub use crate::shim::CancellationToken;
}

/// `tokio_util::task`.
pub mod task {
    pub use crate::shim::{AbortOnDropHandle, TaskTracker};
}

#[path = "../fake/mod.rs"]
mod fake;
mod properties;
#[path = "tokio_util.rs"]
mod shim;

use std::{panic, sync::atomic::Ordering, thread};

use libtest_mimic::{Arguments, Failed, Trial};
use shuttle::{
    Config, FailurePersistence, Runner,
    scheduler::{PctScheduler, RandomScheduler, Scheduler},
};

pub use crate::{
    error::{GridError, ItemError, JournalError, TaskError},
    function::Function,
    grid::Grid,
    job::Job,
};

/// Fixed, so that a failure in one run is one in the next.
const SEED: u64 = 7;

/// Runs a property under schedules of a scheduler.
fn explore(
    scheduler: impl Scheduler + Send + 'static,
    persistence: FailurePersistence,
    property: fn(),
) -> thread::Result<()> {
    let mut config = Config::new();
    // Futures of unoptimised builds are large.
    config.stack_size = 1 << 20;
    config.failure_persistence = persistence;
    // Shuttle keeps what it has scheduled in the thread.
    let schedules = move || {
        Runner::new(scheduler, config).run(property);
    };
    thread::spawn(schedules).join()
}

/// Holds under this many random schedules, and as many of those that are made to find bugs of few preemptions.
fn holds(name: &str, schedules: usize, property: fn()) -> Trial {
    Trial::test(name, move || {
        let random = RandomScheduler::new_from_seed(SEED, schedules);
        let few_preemptions = PctScheduler::new_from_seed(SEED, 3, schedules);
        let found = explore(random, FailurePersistence::Print, property)
            .and_then(|()| explore(few_preemptions, FailurePersistence::Print, property));
        found.map_err(|_| Failed::from("a schedule breaks it: see above"))
    })
}

/// Is found to be broken within this many schedules.
fn is_caught(name: &str, schedules: usize, property: fn()) -> Trial {
    Trial::test(name, move || {
        // What is meant to happen is not to be told.
        let hook = panic::take_hook();
        panic::set_hook(Box::new(|_| {}));
        let found = explore(RandomScheduler::new_from_seed(SEED, schedules), FailurePersistence::None, property);
        panic::set_hook(hook);
        if found.is_err() { Ok(()) } else { Err(Failed::from("no schedule finds the planted bug")) }
    })
}

fn main() {
    let mut arguments = Arguments::from_args();
    // One of the planted bugs is a switch for all, and comes last.
    arguments.test_threads = Some(1);
    let trials = vec![
        holds("the_budget_is_kept_and_given_back", 1_000, properties::budget::<budget::Budget>),
        is_caught("planted_a_budget_that_looks_before_it_takes", 1_000, properties::budget::<properties::Racy>),
        holds("every_ticket_is_settled_once", 800, properties::tickets),
        holds("no_ticket_waits_for_ever_on_a_closed_handle", 800, properties::closing),
        holds("every_item_of_a_job_is_submitted_once", 1_000, properties::feed),
        is_caught("planted_a_tracker_that_wakes_nobody", 1_000, || {
            shim::WAKE_UPS_ARE_LOST.store(true, Ordering::Relaxed);
            properties::closing();
        }),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}
