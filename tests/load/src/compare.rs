//! Two reports of the same scenario beside each other.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::report::{Figure, Report, more_is_better};

/// A figure in both reports.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Its name.
    pub figure: String,
    /// In the first report.
    pub before: Figure,
    /// In the second.
    pub after: Figure,
    /// The second's median by the first's; none where that is 0.
    pub ratio: Option<f64>,
    /// What that amounts to.
    pub verdict: Change,
}

/// What a difference amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Beyond the spread of both, and for the better.
    Better,
    /// Beyond the spread of both, and for the worse.
    Worse,
    /// Within the spread: as likely as not it is noise.
    Within,
    /// A single run has no spread that one could tell.
    Unknown,
}

/// Two reports, compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The figures that both have.
    pub differences: Vec<Difference>,
    /// Why they may not be comparable, in words.
    pub cautions: Vec<String>,
}

/// Compares two reports.
pub fn compare(before: &Report, after: &Report) -> Comparison {
    let differences = before.figures.iter().filter_map(|(name, old)| {
        let new = after.figures.get(name)?;
        let ratio = (old.median != 0.0).then(|| new.median / old.median);
        Some(Difference { figure: name.clone(), before: *old, after: *new, ratio, verdict: change(name, old, new) })
    });
    let mut cautions = BTreeSet::new();
    if before.scenario != after.scenario {
        cautions.insert("the scenarios differ".to_owned());
    }
    let hardware = |report: &Report| {
        (report.machine.processor.clone(), report.machine.processors, report.machine.file_system.clone())
    };
    if hardware(before) != hardware(after) {
        cautions.insert("the machines differ".to_owned());
    }
    for (which, report) in [("first", before), ("second", after)] {
        if !report.verdict.is_right() {
            cautions.insert(format!("results of the {which} were wrong"));
        }
    }
    Comparison { differences: differences.collect(), cautions: cautions.into_iter().collect() }
}

fn change(name: &str, before: &Figure, after: &Figure) -> Change {
    if before.runs < 2 || after.runs < 2 {
        return Change::Unknown;
    }
    let (above, below) = (after.min > before.max, after.max < before.min);
    match (above, below, more_is_better(name)) {
        (false, false, _) => Change::Within,
        (true, _, true) | (_, true, false) => Change::Better,
        _ => Change::Worse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    fn change_of(before: &[f64], after: &[f64]) -> (Change, Option<f64>) {
        let comparison = compare(&report(before), &report(after));
        let of =
            comparison.differences.iter().find(|difference| difference.figure == "tasks_per_s").expect("both have it");
        (of.verdict, of.ratio)
    }

    #[test]
    fn only_what_exceeds_the_spread_is_a_change() {
        assert_eq!(change_of(&[10.0, 12.0, 11.0], &[20.0, 22.0, 24.0]), (Change::Better, Some(2.0)));
        assert_eq!(change_of(&[20.0, 22.0, 24.0], &[10.0, 12.0, 11.0]), (Change::Worse, Some(0.5)));
        assert_eq!(change_of(&[10.0, 12.0, 20.0], &[15.0, 18.0, 24.0]).0, Change::Within);
        assert_eq!(change_of(&[10.0], &[20.0]).0, Change::Unknown);
    }

    #[test]
    fn less_of_a_cost_is_better() {
        let figure = |min: f64, max: f64| Figure { median: min, min, max, runs: 3 };
        assert_eq!(change("a.latency_p50_ms", &figure(2.0, 3.0), &figure(1.0, 1.5)), Change::Better);
        assert_eq!(change("grid_peak_mib", &figure(2.0, 3.0), &figure(4.0, 5.0)), Change::Worse);
    }

    #[test]
    fn unlike_reports_are_told() {
        let (before, mut after) = (report(&[1.0]), report(&[1.0]));
        assert!(compare(&before, &after).cautions.is_empty());
        after.scenario.durable = false;
        after.machine.processors = 64;
        after.verdict.wrong = 1;
        let cautions = compare(&before, &after).cautions;
        assert_eq!(cautions, ["results of the second were wrong", "the machines differ", "the scenarios differ"]);
    }
}
