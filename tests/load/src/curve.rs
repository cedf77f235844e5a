//! How throughput, memory and disk change with the size of things: each axis on its own, all else at a middle value.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    error::LoadError,
    live::Live,
    machine::Machine,
    report::{Run, SCHEMA},
    run,
    scenario::{Clients, Load, Scenario},
    target::Options,
    verify::Verdict,
    work::Mix,
};

/// Bytes of all payloads of one point, at most: larger payloads go with fewer tasks.
const BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Tasks of a point unless its axis is their number.
const TASKS: u64 = 100_000;
/// Jobs of one client that make a point of many.
const JOBS: [u32; 5] = [1, 10, 100, 1_000, 10_000];
const PAYLOADS: [u32; 6] = [16, 64, 1_024, 16 * 1_024, 128 * 1_024, 1_024 * 1_024];
const CHUNKS: [u32; 6] = [1, 4, 16, 64, 256, 1_024];

/// What is measured of it.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// The most tasks of one point; from a thousand on, times ten.
    pub tasks_max: u64,
    /// How many tasks run at once; as many as there are processors unless given.
    pub slots: Option<u32>,
}

/// A curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of the software.
    pub version: String,
    /// What it was measured on.
    pub machine: Machine,
    /// How the results of all points were.
    pub verdict: Verdict,
    /// By tasks, payload, jobs and chunk size.
    pub axes: Vec<Axis>,
}

/// What is varied, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Axis {
    /// What is varied.
    pub name: String,
    /// The points, ascending.
    pub points: Vec<Point>,
}

/// A point of an axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Where it is on its axis.
    pub value: f64,
    /// The same, in words.
    pub label: String,
    /// Tasks that came back.
    pub tasks: u64,
    /// Tasks a second.
    pub tasks_per_s: f64,
    /// The most memory that the process had: client and grid together.
    pub peak_mib: f64,
    /// Size of the grid's data afterwards.
    pub store_bytes_per_task: f64,
    /// What was written to disk on the way.
    pub written_bytes_per_task: f64,
}

/// Measures all points. `next` is told of each before it begins, and gives the counters that it moves.
pub async fn curve(
    range: Range,
    options: &Options,
    mut next: impl FnMut(&Scenario) -> Arc<Live>,
) -> Result<Curve, LoadError> {
    let (mut verdict, mut machine, mut axes) = (Verdict::default(), Machine::default(), Vec::new());
    for (name, scenarios) in axes_of(range) {
        let mut points = Vec::new();
        for (value, mut scenario) in scenarios {
            name.clone_into(&mut scenario.about);
            let (run, on) = run::run(&scenario, options, &next(&scenario)).await?;
            machine = on;
            points.push(point(value, &scenario, &run));
            verdict.merge(run.verdict);
        }
        axes.push(Axis { name: name.to_owned(), points });
    }
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Ok(Curve { schema: SCHEMA, version, machine, verdict, axes })
}

fn point(value: f64, scenario: &Scenario, run: &Run) -> Point {
    let figure = |name: &str| run.figures.get(name).copied().unwrap_or_default();
    Point {
        value,
        label: scenario.name.clone(),
        tasks: run.tasks,
        tasks_per_s: figure("tasks_per_s"),
        peak_mib: figure("client_and_grid_peak_mib"),
        store_bytes_per_task: figure("store_bytes_per_task"),
        written_bytes_per_task: figure("written_bytes_per_task"),
    }
}

pub(crate) fn one_client(label: String, slots: Option<u32>, tasks: u64, change: impl FnOnce(&mut Clients)) -> Scenario {
    let mut clients = Clients {
        name: "client".to_owned(),
        count: 1,
        jobs: 1,
        chunk_tasks: None,
        load: Load::Batch { tasks },
        mix: Mix::default(),
    };
    change(&mut clients);
    Scenario { name: label, slots, clients: vec![clients], timeout_s: 3_600, ..Scenario::default() }
}

fn axes_of(range: Range) -> Vec<(&'static str, Vec<(f64, Scenario)>)> {
    let Range { tasks_max, slots } = range;
    let tasks = std::iter::successors(Some(1_000), |tasks| Some(tasks * 10)).take_while(|tasks| *tasks <= tasks_max);
    let most = |tasks: u64| tasks.min(tasks_max);
    vec![
        ("tasks", tasks.map(|tasks| (tasks as f64, one_client(tasks.to_string(), slots, tasks, |_| ()))).collect()),
        (
            "payload bytes",
            PAYLOADS
                .map(|bytes| {
                    let tasks = most(TASKS.min(BYTES_MAX / u64::from(bytes)));
                    (
                        f64::from(bytes),
                        one_client(bytes.to_string(), slots, tasks, |clients| clients.mix.payload_bytes = bytes),
                    )
                })
                .into(),
        ),
        (
            "jobs",
            JOBS.map(|jobs| {
                let tasks = most(TASKS).max(u64::from(jobs));
                (f64::from(jobs), one_client(jobs.to_string(), slots, tasks, |clients| clients.jobs = jobs))
            })
            .into(),
        ),
        (
            "tasks of a chunk",
            CHUNKS
                .map(|chunk| {
                    // A chunk of one costs a write of its own: fewer say as much.
                    let tasks = most(TASKS.min(20_000 * u64::from(chunk)));
                    (
                        f64::from(chunk),
                        one_client(chunk.to_string(), slots, tasks, |clients| clients.chunk_tasks = Some(chunk)),
                    )
                })
                .into(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_a_sound_scenario_within_its_bounds() {
        let range = Range { tasks_max: 1_000_000, slots: None };
        let axes = axes_of(range);
        assert_eq!(axes.iter().map(|(_, points)| points.len()).collect::<Vec<_>>(), [4, 6, 5, 6]);
        for (name, points) in axes {
            assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0), "{name} ascends");
            for (_, scenario) in points {
                scenario.check().unwrap_or_else(|wrong| panic!("{name} {}: {wrong}", scenario.name));
                let bytes = scenario.tasks() * u64::from(scenario.clients[0].mix.payload_bytes);
                assert!(bytes <= BYTES_MAX && scenario.tasks() <= 1_000_000, "{name} {}", scenario.name);
            }
        }
    }
}
