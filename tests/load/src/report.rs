//! What was measured, as it is kept: JSON whose keys are only ever added, and the figures in it by name.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    error::LoadError, histogram::Percentiles, machine::Machine, resources::Usage, scenario::Scenario, verify::Verdict,
};

/// The version of the JSON.
pub const SCHEMA: u32 = 1;

/// Some runs of one scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of the software.
    pub version: String,
    /// When the first run began (Unix, ms).
    pub started_at_ms: u64,
    /// What was measured.
    pub scenario: Scenario,
    /// What it was measured on.
    pub machine: Machine,
    /// The figures of all runs, by name: see [`Figure`].
    pub figures: BTreeMap<String, Figure>,
    /// The goals, by the names of figures, and whether the medians hold them.
    pub goals: BTreeMap<String, Held>,
    /// How the results of all runs were.
    pub verdict: Verdict,
    /// Each run.
    pub runs: Vec<Run>,
}

/// One figure over all runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The middle one.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Of how many runs.
    pub runs: usize,
}

impl Figure {
    /// The figure of some runs' values; none of no values.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let (below, above) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median: f64::midpoint(below, above), min, max, runs: values.len() })
    }
}

/// A goal, and whether it is held.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// At least this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// At most this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    /// Whether the median is.
    pub held: bool,
}

/// One run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// From the start of the clients to the end of the last.
    pub seconds: f64,
    /// Tasks that came back.
    pub tasks: u64,
    /// How the results were.
    pub verdict: Verdict,
    /// The clients, by group.
    pub groups: Vec<Group>,
    /// How many tasks had come back when.
    pub timeline: Vec<Point>,
    /// What processes used.
    pub usage: Vec<Usage>,
    /// Bytes of the grid's data afterwards, where that was made for the measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_bytes: Option<u64>,
    /// Requests over HTTP, repeated ones too, where there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Syncs that acknowledgements waited for, where the grid counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syncs: Option<u64>,
    /// What the disk itself needed for an fdatasync meanwhile, where that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fdatasync: Option<Percentiles>,
    /// What could not be told apart or was left out, in words.
    pub blurred: Vec<String>,
    /// The figures of this run, by name.
    pub figures: BTreeMap<String, f64>,
}

/// Some clients that are alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Their name.
    pub name: String,
    /// How many they are.
    pub clients: u32,
    /// Tasks that came back to them.
    pub tasks: u64,
    /// Times, by stage: see `docs/performance.md`.
    pub stages: BTreeMap<String, Percentiles>,
}

/// A moment of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Since the start.
    pub at_s: f64,
    /// Tasks that had come back.
    pub done: u64,
}

impl Report {
    /// The report of some runs.
    pub fn new(scenario: Scenario, machine: Machine, started_at_ms: u64, runs: Vec<Run>) -> Self {
        let mut values: BTreeMap<&String, Vec<f64>> = BTreeMap::new();
        for (name, value) in runs.iter().flat_map(|run| &run.figures) {
            values.entry(name).or_default().push(*value);
        }
        let figures: BTreeMap<String, Figure> =
            values.into_iter().filter_map(|(name, values)| Some((name.clone(), Figure::of(values)?))).collect();
        let goals = scenario.goals.iter().map(|(name, goal)| {
            let held = figures.get(name).is_some_and(|figure| goal.holds(figure.median));
            (name.clone(), Held { at_least: goal.at_least, at_most: goal.at_most, held })
        });
        let mut verdict = Verdict::default();
        runs.iter().for_each(|run| verdict.merge(run.verdict.clone()));
        let (goals, version) = (goals.collect(), env!("CARGO_PKG_VERSION").to_owned());
        Self { schema: SCHEMA, version, started_at_ms, scenario, machine, figures, goals, verdict, runs }
    }

    /// Reads one.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        read(path)
    }
}

/// Reads a report of this version.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, LoadError> {
    #[derive(Deserialize)]
    struct Versioned {
        schema: u32,
    }
    let text = std::fs::read(path).map_err(|source| LoadError::File { doing: "read", path: path.into(), source })?;
    let wrong = |wrong: String| LoadError::Report { path: path.into(), wrong };
    let Versioned { schema } = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    if schema != SCHEMA {
        return Err(wrong(format!("its schema is {schema}, and this version reads {SCHEMA}")));
    }
    serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))
}

/// Writes a report as JSON.
pub fn write<T: Serialize>(path: &Path, report: &T) -> Result<(), LoadError> {
    let failed = |source| LoadError::File { doing: "written", path: path.into(), source };
    let mut json = serde_json::to_vec_pretty(report).map_err(|error| failed(error.into()))?;
    json.push(b'\n');
    std::fs::write(path, json).map_err(failed)
}

/// Whether more of a figure is better. Of all others less is.
pub fn more_is_better(figure: &str) -> bool {
    figure.ends_with("tasks_per_s") || figure.ends_with("busy_share")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report with runs of these speeds.
    pub(crate) fn report(tasks_per_s: &[f64]) -> Report {
        let run = |value: f64| Run {
            seconds: 2.0,
            tasks: 10,
            verdict: Verdict { submitted: 10, right: 10, ..Verdict::default() },
            groups: Vec::new(),
            timeline: vec![Point { at_s: 0.0, done: 0 }, Point { at_s: 1.0, done: 4 }, Point { at_s: 2.0, done: 10 }],
            usage: vec![Usage { role: "grid".into(), cpu_s: 1.5, peak_bytes: 1 << 20, ..Usage::default() }],
            store_bytes: Some(100),
            requests: None,
            syncs: Some(3),
            fdatasync: None,
            blurred: vec!["what is <not> told".into()],
            figures: BTreeMap::from([("tasks_per_s".into(), value), ("cpu_s".into(), 1.0)]),
        };
        let scenario = Scenario::built_in("throughput").expect("there is one");
        Report::new(scenario, Machine::default(), 1_780_000_000_000, tasks_per_s.iter().copied().map(run).collect())
    }

    #[test]
    fn figures_are_medians_with_their_spread() {
        let report = report(&[3e6, 1e6, 2e6]);
        let expected = Figure { median: 2e6, min: 1e6, max: 3e6, runs: 3 };
        assert_eq!(report.figures["tasks_per_s"], expected);
        assert!(report.goals["tasks_per_s"].held && report.verdict.right == 30);
        assert!(!self::report(&[1e5]).goals["tasks_per_s"].held);
        assert_eq!(Figure::of(vec![1.0, 2.0]).map(|figure| figure.median), Some(1.5));
        assert_eq!(Figure::of(Vec::new()), None);
    }

    #[test]
    fn reports_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("report.json");
        let written = report(&[1e6, 1.5e6]);
        write(&path, &written).expect("written");
        assert_eq!(Report::read(&path).expect("read"), written);
    }

    #[test]
    fn other_files_are_no_reports() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("report.json");
        for (text, told) in [
            ("{}", "missing field `schema`"),
            ("{\"schema\": 7}", "its schema is 7, and this version reads 1"),
            ("x", "expected value"),
        ] {
            std::fs::write(&path, text).expect("written");
            let refused = Report::read(&path).expect_err(text).to_string();
            assert!(refused.contains(told) && refused.contains("report.json"), "{refused}");
        }
        let refused = Report::read(&folder.path().join("none")).expect_err("none").to_string();
        assert!(refused.ends_with("none cannot be read"), "{refused}");
    }
}
