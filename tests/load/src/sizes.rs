//! How the chunk size that the SDK chooses does beside fixed ones, on tasks of different lengths in several orders.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    curve::one_client,
    error::LoadError,
    live::Live,
    machine::Machine,
    report::SCHEMA,
    run,
    scenario::Scenario,
    target::Options,
    verify::Verdict,
    work::{Doing, Mix, RunTime},
};

/// Slots, unless a number is given: functions only sleep, so that there may be more of them than processors.
const SLOTS: u32 = 8;
/// The sizes beside the SDK's own choice.
const FIXED: [u32; 4] = [1, 8, 64, 512];
/// What the SDK's choice is called.
const ADAPTIVE: &str = "adaptive";

/// The SDK's choice of chunk size and fixed ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sizes {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of the software.
    pub version: String,
    /// What it was measured on.
    pub machine: Machine,
    /// How the results of all runs were.
    pub verdict: Verdict,
    /// In how many orders the tasks of each workload came.
    pub orders: u32,
    /// By workload and size.
    pub rows: Vec<Size>,
    /// By workload, how much longer the SDK's choice took than the best fixed size; below 0 for less long.
    pub behind_best: Vec<(String, f64)>,
}

/// How a workload went with one way to choose the chunk size: means over all orders.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Size {
    /// The tasks.
    pub workload: String,
    /// `adaptive`, or the tasks of every chunk.
    pub label: String,
    /// How long it took, by what no schedule can beat.
    pub seconds_per_ideal: f64,
    /// The same in the order that went worst.
    pub worst_seconds_per_ideal: f64,
    /// How long the last hundredth of the tasks took.
    pub last_percent_s: f64,
    /// How busy the slots were.
    pub busy_share: f64,
}

/// Measures all of them. `next` is told of each run before it begins, and gives the counters that it moves.
pub async fn sizes(
    orders: u32,
    slots: Option<u32>,
    options: &Options,
    mut next: impl FnMut(&Scenario) -> Arc<Live>,
) -> Result<Sizes, LoadError> {
    let (mut verdict, mut machine, mut rows) = (Verdict::default(), Machine::default(), Vec::new());
    for (workload, tasks, run_time) in workloads() {
        // One order with every size, then the next, so that nothing that comes and goes meets one size alone.
        let mut runs: Vec<(String, Vec<[f64; 3]>)> = Vec::new();
        for order in 0..orders {
            for (at, scenario) in scenarios((workload, tasks, run_time), slots, order).enumerate() {
                let (run, on) = run::run(&scenario, options, &next(&scenario)).await?;
                machine = on;
                if order == 0 {
                    runs.push((scenario.name, Vec::new()));
                }
                let figures = ["seconds_per_ideal", "last_percent_s", "busy_share"];
                runs[at].1.push(figures.map(|name| run.figures.get(name).copied().unwrap_or_default()));
                verdict.merge(run.verdict);
            }
        }
        rows.extend(runs.into_iter().map(|(label, runs)| size(workload, label, &runs)));
    }
    let behind_best = workloads().into_iter().map(|(name, ..)| (name.to_owned(), behind_best(name, &rows))).collect();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Ok(Sizes { schema: SCHEMA, version, machine, verdict, orders, rows, behind_best })
}

fn size(workload: &str, label: String, runs: &[[f64; 3]]) -> Size {
    let mean = |at: usize| runs.iter().map(|run| run[at]).sum::<f64>() / runs.len().max(1) as f64;
    Size {
        workload: workload.to_owned(),
        label,
        seconds_per_ideal: mean(0),
        worst_seconds_per_ideal: runs.iter().map(|run| run[0]).fold(0.0, f64::max),
        last_percent_s: mean(1),
        busy_share: mean(2),
    }
}

fn behind_best(workload: &str, rows: &[Size]) -> f64 {
    let (mut adaptive, mut best) = (f64::NAN, f64::INFINITY);
    for row in rows.iter().filter(|row| row.workload == workload) {
        if row.label == ADAPTIVE {
            adaptive = row.seconds_per_ideal;
        } else {
            best = best.min(row.seconds_per_ideal);
        }
    }
    adaptive / best - 1.0
}

/// What the tasks are: a few of which make up much of the work, a common spread, and short ones all alike.
const fn workloads() -> [(&'static str, u64, RunTime); 3] {
    [
        ("heavy-tailed", 3_000, RunTime::Pareto { min_us: 2_000, alpha: 1.2, max_us: 2_000_000 }),
        ("exponential", 2_000, RunTime::Exponential { mean_us: 20_000 }),
        ("short", 20_000, RunTime::Fixed { us: 1_000 }),
    ]
}

fn scenarios(
    (workload, tasks, run_time): (&'static str, u64, RunTime),
    slots: Option<u32>,
    order: u32,
) -> impl Iterator<Item = Scenario> {
    let sizes = std::iter::once(None).chain(FIXED.map(Some));
    sizes.map(move |chunk: Option<u32>| {
        let label = chunk.map_or_else(|| ADAPTIVE.to_owned(), |tasks| tasks.to_string());
        let mut scenario = one_client(label, slots.or(Some(SLOTS)), tasks, |clients| {
            clients.mix = Mix { doing: Doing::Sleep, run: Some(run_time), ..Mix::default() };
            clients.chunk_tasks = chunk;
        });
        workload.clone_into(&mut scenario.about);
        scenario.seed += u64::from(order);
        scenario
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_is_a_sound_scenario_and_orders_differ() {
        for workload in workloads() {
            let (first, second): (Vec<_>, Vec<_>) =
                scenarios(workload, None, 0).zip(scenarios(workload, None, 1)).unzip();
            assert_eq!(first.len(), 1 + FIXED.len());
            first.iter().for_each(|scenario| scenario.check().expect("sound"));
            assert!(first.iter().zip(&second).all(|(one, other)| one.seed != other.seed && one.name == other.name));
        }
    }

    #[test]
    fn the_choice_is_measured_against_the_best_of_its_workload() {
        let row = |workload: &str, label: &str, runs: &[[f64; 3]]| size(workload, label.to_owned(), runs);
        let rows = [
            row("a", ADAPTIVE, &[[1.0, 0.0, 0.0], [1.2, 0.0, 0.0]]),
            row("a", "1", &[[2.0, 0.0, 0.0]]),
            row("a", "8", &[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]),
            row("b", "1", &[[0.1, 0.0, 0.0]]),
        ];
        assert!((behind_best("a", &rows) - 0.1).abs() < 1e-9);
        assert!((rows[0].worst_seconds_per_ideal - 1.2).abs() < 1e-9);
    }
}
