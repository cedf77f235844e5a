//! One file per promise.

mod attach;
mod back_pressure;
mod batching;
mod journal;
mod outages;
mod reading;
mod tickets;

use std::{collections::BTreeMap, future::Future};

use sheaf::{Function, GridError, Results, TaskError};

/// The function that answers what it is given.
fn echo() -> Function<u64, u64> {
    Function::named("echo")
}

/// Reads everything, checking that no task comes twice.
async fn read_all<O: std::fmt::Debug>(
    results: &mut Results<O>,
) -> Result<BTreeMap<u64, Result<O, TaskError>>, GridError> {
    let mut all = BTreeMap::new();
    while let Some(result) = results.next().await {
        let result = result?;
        let twice = all.insert(result.index, result.outcome);
        assert!(twice.is_none(), "task {} came twice", result.index);
    }
    Ok(all)
}

/// Checks that every task of `0..tasks` came back with what it was given.
fn assert_echoed(results: &BTreeMap<u64, Result<u64, TaskError>>, tasks: u64) {
    assert_eq!(results.len() as u64, tasks);
    for (expected, (index, outcome)) in results.iter().enumerate() {
        assert_eq!((*index, outcome), (expected as u64, &Ok(expected as u64)));
    }
}

/// Runs a future on a runtime whose clock jumps ahead when nothing else is to do.
fn paused<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime")
        .block_on(future)
}
