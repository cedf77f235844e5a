//! Metrics as lines of CloudWatch's embedded metric format.
//!
//! The crates that write it bring a recorder, a registry or macros of their own; a grid has twenty metrics, known when a
//! Lambda's invocation ends, so this is the format and nothing else. Source: the format's specification in the user guide of
//! CloudWatch.

use std::io::Write;

use serde_json::{Map, Value, json};

use crate::names::{GRID, Metric};

/// The namespace of all metrics.
pub const NAMESPACE: &str = "Sheaf";
/// Values of one metric in one line. Source: the specification.
const VALUES_MAX: usize = 100;

/// Metrics of one moment with the same dimensions.
#[derive(Debug, Clone)]
pub struct Metrics {
    at_ms: u64,
    dimensions: Vec<(&'static str, String)>,
    metrics: Vec<(Metric, Vec<f64>)>,
}

impl Metrics {
    /// None yet, of a grid, at a time (Unix, ms).
    pub fn new(grid: &str, at_ms: u64) -> Self {
        Self { at_ms, dimensions: vec![(GRID, grid.to_owned())], metrics: Vec::new() }
    }

    /// The same with a further dimension, one of [`crate::names`]; of at most 29.
    pub fn of(mut self, dimension: &'static str, value: impl Into<String>) -> Self {
        self.dimensions.push((dimension, value.into()));
        self
    }

    /// The same with a value more.
    pub fn with(self, metric: Metric, value: f64) -> Self {
        self.with_all(metric, [value])
    }

    /// The same with a count more.
    pub fn with_count(self, metric: Metric, count: u64) -> Self {
        self.with(metric, count as f64)
    }

    /// The same with some values more, of which CloudWatch makes a distribution.
    pub fn with_all(mut self, metric: Metric, values: impl IntoIterator<Item = f64>) -> Self {
        // JSON has no others.
        let values = values.into_iter().filter(|value| value.is_finite());
        match self.metrics.iter_mut().find(|(known, _)| *known == metric) {
            Some((_, known)) => known.extend(values),
            None => self.metrics.push((metric, values.collect())),
        }
        self
    }

    /// The lines: one, or more if a metric has more values than a line takes; none if there are no values.
    pub fn lines(&self) -> Vec<String> {
        let lines = self.metrics.iter().map(|(_, values)| values.len().div_ceil(VALUES_MAX)).max().unwrap_or_default();
        (0..lines).map(|line| self.line(line).to_string()).collect()
    }

    fn line(&self, number: usize) -> Value {
        let (mut metrics, mut line) = (Vec::new(), Map::new());
        for (metric, values) in &self.metrics {
            let Some(values) = values.chunks(VALUES_MAX).nth(number) else { continue };
            metrics.push(json!({"Name": metric.name, "Unit": metric.unit}));
            let values: Vec<Value> = values.iter().copied().map(json_number).collect();
            let value = if let [value] = values.as_slice() { value.clone() } else { Value::Array(values) };
            line.insert(metric.name.to_owned(), value);
        }
        let dimensions: Vec<&str> = self.dimensions.iter().map(|(name, _)| *name).collect();
        for (name, value) in &self.dimensions {
            line.insert((*name).to_owned(), json!(value));
        }
        let directive = json!({"Namespace": NAMESPACE, "Dimensions": [dimensions], "Metrics": metrics});
        line.insert("_aws".to_owned(), json!({"Timestamp": self.at_ms, "CloudWatchMetrics": [directive]}));
        Value::Object(line)
    }

    /// Prints the lines on stdout, each in one piece.
    pub fn print(&self) {
        let mut stdout = std::io::stdout().lock();
        for line in self.lines() {
            // Whoever cannot write his output cannot say so either.
            let _ = stdout.write_all(format!("{line}\n").as_bytes());
        }
        let _ = stdout.flush();
    }
}

/// Whole numbers without a fraction.
fn json_number(value: f64) -> Value {
    const EXACT_MAX: f64 = (1_u64 << 53) as f64;
    if value.fract() == 0.0 && value.abs() < EXACT_MAX { json!(value as i64) } else { json!(value) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names;

    #[test]
    fn a_line_is_as_cloudwatch_reads_it() {
        let metrics = Metrics::new("prod", 1_800_000_000_000)
            .of(names::OUTCOME, "succeeded")
            .with_count(names::TASKS, 1_000)
            .with_all(names::CHUNK_DURATION, [0.25, 12.0]);
        let golden = concat!(
            r#"{"_aws":{"CloudWatchMetrics":[{"Dimensions":[["grid","outcome"]],"#,
            r#""Metrics":[{"Name":"tasks_total","Unit":"Count"},{"Name":"chunk_duration_seconds","Unit":"Seconds"}],"#,
            r#""Namespace":"Sheaf"}],"Timestamp":1800000000000},"chunk_duration_seconds":[0.25,12],"grid":"prod","#,
            r#""outcome":"succeeded","tasks_total":1000}"#,
        );
        // As values: the order of the members is no part of the format.
        let [line] = &metrics.lines()[..] else { panic!("one line: {:?}", metrics.lines()) };
        let value = |text: &str| serde_json::from_str::<Value>(text).expect("a line is JSON");
        assert_eq!(value(line), value(golden));
        assert!(!line.contains('\n'));
    }

    #[test]
    fn a_line_holds_a_hundred_values_and_what_is_no_number_is_left_out() {
        let values = (0..250).map(f64::from).chain([f64::NAN, f64::INFINITY]);
        let metrics = Metrics::new("g", 1).with_count(names::BACKLOG, 7).with_all(names::QUEUE_DELAY, values);
        let lines: Vec<Value> =
            metrics.lines().iter().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
        let values = |line: &Value| line[names::QUEUE_DELAY.name].as_array().map_or(0, Vec::len);
        assert_eq!(lines.iter().map(values).collect::<Vec<_>>(), [100, 100, 50]);
        let named = |line: &Value| line["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().map_or(0, Vec::len);
        assert_eq!(lines.iter().map(named).collect::<Vec<_>>(), [2, 1, 1], "a count is told once");
    }

    #[test]
    fn of_nothing_nothing_is_said() {
        assert!(Metrics::new("g", 1).lines().is_empty());
        assert!(Metrics::new("g", 1).with_all(names::QUEUE_DELAY, []).lines().is_empty());
    }
}
