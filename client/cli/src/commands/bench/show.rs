//! How measurements are shown to people.

use serde::Serialize;
use sheaf_load::{
    compare::{Change, Difference},
    curve::{Curve, Point},
    live::Standing,
    report::Report,
    sizes::{Size, Sizes},
    trials::{Idle, Recovery},
    verify::Verdict,
};

use crate::{
    output::{Row, facts, table},
    text,
};

/// How things stand, beside the bar.
pub(super) fn standing(standing: &Standing, what: &str) -> String {
    let mut parts = vec![format!("{} in flight", text::count(standing.submitted.saturating_sub(standing.done)))];
    if let Some((p50, p99)) = standing.latency_ms {
        parts.push(format!("p50 {p50:.2} ms, p99 {p99:.2} ms"));
    }
    if !what.is_empty() {
        parts.push(what.to_owned());
    }
    parts.join(", ")
}

/// A figure, as a line.
#[derive(Serialize)]
struct Line {
    figure: String,
    cells: [String; 4],
}

impl Row for Line {
    const COLUMNS: &'static [&'static str] = &["FIGURE", ">MEDIAN", ">LEAST", ">MOST", "GOAL"];

    fn id(&self) -> String {
        self.figure.clone()
    }

    fn cells(&self) -> Vec<String> {
        std::iter::once(self.figure.clone()).chain(self.cells.clone()).collect()
    }
}

/// The report of some runs.
pub(super) fn report(report: &Report) -> String {
    let machine = &report.machine;
    let mut shown = facts(&[
        ("scenario", format!("{}: {}", report.scenario.name, report.scenario.about)),
        ("machine", format!("{} × {}, {}", machine.processors, machine.processor, text::bytes(machine.memory_bytes))),
        ("load before", format!("{:.1} processes wanted to run", machine.load_1m)),
        ("results", verdict(&report.verdict)),
    ]);
    let lines: Vec<Line> = report
        .figures
        .iter()
        .map(|(name, figure)| {
            let goal = report.goals.get(name).map_or_else(String::new, |goal| {
                let bound = |word: &str, bound: Option<f64>| bound.map(|bound| format!("{word} {}", number(bound)));
                let bounds = [bound("at least", goal.at_least), bound("at most", goal.at_most)];
                let met = if goal.held { "held" } else { "MISSED" };
                format!("{}: {met}", bounds.into_iter().flatten().collect::<Vec<_>>().join(", "))
            });
            Line { figure: name.clone(), cells: [number(figure.median), number(figure.min), number(figure.max), goal] }
        })
        .collect();
    shown += &format!("\n{}\n", table(&lines));
    shown
}

impl Row for Difference {
    const COLUMNS: &'static [&'static str] = &["FIGURE", ">BEFORE", ">AFTER", ">RATIO", "CHANGE"];

    fn id(&self) -> String {
        self.figure.clone()
    }

    fn cells(&self) -> Vec<String> {
        let change = match self.verdict {
            Change::Better => "better",
            Change::Worse => "WORSE",
            Change::Within => "within the spread",
            Change::Unknown => "one run only: --repeat tells",
        };
        let ratio = self.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        vec![self.figure.clone(), number(self.before.median), number(self.after.median), ratio, change.to_owned()]
    }
}

impl Row for Point {
    const COLUMNS: &'static [&'static str] =
        &[">VALUE", ">TASKS", ">TASKS/S", ">PEAK MIB", ">STORE BYTES A TASK", ">WRITTEN BYTES A TASK"];

    fn id(&self) -> String {
        self.label.clone()
    }

    fn cells(&self) -> Vec<String> {
        let Self { label, tasks, tasks_per_s, peak_mib, store_bytes_per_task, written_bytes_per_task, .. } = self;
        let numbers = [*tasks_per_s, *peak_mib, *store_bytes_per_task, *written_bytes_per_task].map(number);
        [label.clone(), text::count(*tasks)].into_iter().chain(numbers).collect()
    }
}

impl Row for Size {
    const COLUMNS: &'static [&'static str] =
        &["TASKS", "CHUNK", ">SECONDS BY THE IDEAL", ">IN THE WORST ORDER", ">LAST 1 %, S", ">BUSY SHARE"];

    fn id(&self) -> String {
        format!("{} {}", self.workload, self.label)
    }

    fn cells(&self) -> Vec<String> {
        let Self { workload, label, seconds_per_ideal, worst_seconds_per_ideal, last_percent_s, busy_share } = self;
        let numbers = [*seconds_per_ideal, *worst_seconds_per_ideal, *last_percent_s, *busy_share].map(number);
        [workload.clone(), label.clone()].into_iter().chain(numbers).collect()
    }
}

/// The SDK's choice of chunk size beside fixed ones.
pub(super) fn sizes(sizes: &Sizes) -> String {
    let behind = sizes.behind_best.iter().map(|(workload, share)| format!("{workload} {:+.1} %", share * 100.0));
    let behind = behind.collect::<Vec<_>>().join(", ");
    let facts = facts(&[
        ("results", verdict(&sizes.verdict)),
        ("orders", sizes.orders.to_string()),
        ("adaptive behind the best", behind),
    ]);
    format!("{facts}\n{}\n", table(&sizes.rows))
}

/// How it scales.
pub(super) fn curve(curve: &Curve) -> String {
    let mut shown = facts(&[("results", verdict(&curve.verdict))]);
    for axis in &curve.axes {
        shown += &format!("\nby {}\n{}\n", axis.name, table(&axis.points));
    }
    shown
}

/// How a grid came back.
pub(super) fn recovery(recovery: &Recovery) -> String {
    let seconds = |value: f64| format!("{value:.2} s");
    facts(&[
        ("held", format!("{}, submitted in {}", text::counted(recovery.tasks, "task"), seconds(recovery.submit_s))),
        ("answers after", seconds(recovery.answers_s)),
        ("first result", seconds(recovery.first_result_s)),
        ("all results", seconds(recovery.all_results_s)),
        ("peak memory", format!("{:.0} MiB", recovery.grid_peak_mib)),
        ("results", verdict(&recovery.verdict)),
    ])
}

/// What an idle grid costs.
pub(super) fn idle(idle: &Idle) -> String {
    facts(&[
        ("watched for", format!("{:.0} s", idle.seconds)),
        ("context switches", format!("{} a second", number(idle.context_switches_per_s))),
        ("processor", format!("{:.2} s an hour", idle.cpu_s_per_hour)),
        ("memory", format!("{:.0} MiB", idle.peak_mib)),
    ])
}

/// How results were, in words.
pub(super) fn verdict(verdict: &Verdict) -> String {
    let mut said = match verdict.is_right() {
        true => format!("all {} right, each once", text::count(verdict.right)),
        false => {
            let Verdict { wrong, doubled, unknown, missing, miscounted, .. } = verdict;
            format!(
                "WRONG: {wrong} wrong, {doubled} doubled, {unknown} unknown, {missing} missing, {miscounted} jobs miscounted"
            )
        }
    };
    if verdict.failed_as_asked > 0 {
        said += &format!(" ({} failed, as asked)", text::count(verdict.failed_as_asked));
    }
    verdict.examples.iter().for_each(|example| said += &format!("\n  {example}"));
    said
}

/// A value with the digits that count.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1_000.0 => text::count(value.round() as u64),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        size if size >= 0.001 => format!("{value:.4}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_the_digits_that_count() {
        let values = [0.0, 1_234_567.8, 123.4, 2.345, 0.012_34, 0.000_012];
        assert_eq!(values.map(number), ["0", "1,234,568", "123", "2.35", "0.0123", "1.2e-5"]);
    }

    #[test]
    fn what_was_wrong_is_said() {
        let mut wrong = Verdict { right: 9, missing: 1, ..Verdict::default() };
        wrong.note(|| "task 3 never came back".to_owned());
        assert!(verdict(&wrong).contains("1 missing") && verdict(&wrong).contains("task 3"), "{}", verdict(&wrong));
        let right = Verdict { right: 10, failed_as_asked: 2, ..Verdict::default() };
        assert_eq!(verdict(&right), "all 10 right, each once (2 failed, as asked)");
    }
}
