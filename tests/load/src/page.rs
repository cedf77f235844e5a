//! Reports as one file for people: no scripts, no network, readable in light and dark.

use std::fmt::Write;

use sheaf_charts::{Axis, Lines, Series};

use crate::{
    curve::Curve,
    error::LoadError,
    histogram::Percentiles,
    report::{Report, Run},
    sizes::Sizes,
    trials::{Idle, Recovery},
    verify::Verdict,
};

const STYLE: &str = "\
:root{color-scheme:light dark;font:15px/1.5 system-ui,sans-serif}\
body{max-width:60rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;margin:.5rem 0}th,td{padding:.15rem .8rem .15rem 0;text-align:left}\
td+td,th+th{text-align:right;font-variant-numeric:tabular-nums}th{font-weight:600;border-bottom:1px solid color-mix(in srgb,currentColor 30%,transparent)}\
.wide{overflow-x:auto}svg{width:100%;min-width:38rem;height:auto}svg text{font-family:inherit}.bad{color:#d32f2f;font-weight:600}";

/// The page of a report.
pub fn report(report: &Report) -> Result<String, LoadError> {
    let mut page = head(&format!("sheaf bench: {}", report.scenario.name), &report.scenario.about);
    let machine = &report.machine;
    let memory_gib = machine.memory_bytes as f64 / f64::from(1 << 30);
    page.text(
        "p",
        &format!(
            "sheaf {} on {} × {}, {memory_gib:.1} GiB, {}, data on {}; {:.1} processes wanted to run when it began.",
            report.version,
            machine.processors,
            machine.processor,
            machine.kernel,
            if machine.file_system.is_empty() { "no disk" } else { &machine.file_system },
            machine.load_1m
        ),
    );
    page.verdict(&report.verdict);
    page.text("h2", "Figures");
    page.table(
        &["figure", "median", "least", "most", "runs", "goal"],
        report.figures.iter().map(|(name, figure)| {
            let goal = report.goals.get(name).map_or("", |goal| if goal.held { "held" } else { "missed" });
            [
                name.clone(),
                number(figure.median),
                number(figure.min),
                number(figure.max),
                figure.runs.to_string(),
                goal.to_owned(),
            ]
        }),
    );
    let rates = report
        .runs
        .iter()
        .enumerate()
        .map(|(number, run)| Series { name: format!("run {}", number + 1), points: rate(run) });
    let throughput = Lines { x: Axis::from_zero("seconds"), y: Axis::from_zero("tasks/s"), series: rates.collect() };
    page.lines("Throughput", &throughput)?;
    for (number, run) in report.runs.iter().enumerate() {
        page.text("h2", &format!("Run {}", number + 1));
        page.run(run)?;
    }
    page.text("h2", "Scenario");
    let scenario = toml::to_string(&report.scenario).unwrap_or_default();
    page.wide("The scenario", |page| page.text("pre", &scenario));
    Ok(page.end())
}

/// The page of a curve.
pub fn curve(curve: &Curve) -> Result<String, LoadError> {
    let mut page = head("sheaf bench: how it scales", "Each axis on its own, all else as in the first table's middle.");
    page.verdict(&curve.verdict);
    for axis in &curve.axes {
        page.text("h2", &axis.name);
        page.table(
            &["value", "tasks", "tasks/s", "peak MiB", "store bytes a task", "written bytes a task"],
            axis.points.iter().map(|point| {
                [
                    point.label.clone(),
                    number(point.tasks as f64),
                    number(point.tasks_per_s),
                    number(point.peak_mib),
                    number(point.store_bytes_per_task),
                    number(point.written_bytes_per_task),
                ]
            }),
        );
        let by = |pick: fn(&crate::curve::Point) -> f64| {
            axis.points.iter().map(|point| (point.value, pick(point))).collect()
        };
        let x = Axis::logarithmic(&axis.name);
        let series = vec![Series { name: "tasks/s".into(), points: by(|point| point.tasks_per_s) }];
        page.lines("", &Lines { x, y: Axis::logarithmic("tasks/s"), series })?;
        let series = vec![Series { name: "MiB".into(), points: by(|point| point.peak_mib) }];
        page.lines("", &Lines { x, y: Axis::from_zero("peak MiB"), series })?;
    }
    Ok(page.end())
}

/// The page of chunk sizes.
pub fn sizes(sizes: &Sizes) -> String {
    let about = format!("The SDK's choice and fixed ones: means over {} orders of the tasks.", sizes.orders);
    let mut page = head("sheaf bench: chunk sizes", &about);
    page.verdict(&sizes.verdict);
    page.table(
        &["tasks", "chunk", "seconds by the ideal", "in the worst order", "last 1 %, s", "busy share"],
        sizes.rows.iter().map(|size| {
            let figures = [size.seconds_per_ideal, size.worst_seconds_per_ideal, size.last_percent_s, size.busy_share];
            let [mean, worst, last, busy] = figures.map(number);
            [size.workload.clone(), size.label.clone(), mean, worst, last, busy]
        }),
    );
    page.text("h2", "The SDK's choice, behind the best fixed size");
    page.table(
        &["tasks", "%"],
        sizes.behind_best.iter().map(|(workload, share)| [workload.clone(), number(share * 100.0)]),
    );
    page.end()
}

/// The page of a recovery.
pub fn recovery(recovery: &Recovery) -> String {
    let mut page = head("sheaf bench: recovery", "A grid was killed while it held tasks, and started again.");
    page.verdict(&recovery.verdict);
    let rows = [
        ("tasks held", recovery.tasks as f64),
        ("submitting them, s", recovery.submit_s),
        ("serving with the right counts, s after its start", recovery.answers_s),
        ("first result, s", recovery.first_result_s),
        ("all results, s", recovery.all_results_s),
        ("peak memory, MiB", recovery.grid_peak_mib),
    ];
    page.table(&["what", "value"], rows.iter().map(|(name, value)| [(*name).to_owned(), number(*value)]));
    page.end()
}

/// The page of an idle grid.
pub fn idle(idle: &Idle) -> String {
    let mut page = head("sheaf bench: idle", "A grid that had nothing to do.");
    let rows = [
        ("watched for, s", idle.seconds),
        ("context switches a second", idle.context_switches_per_s),
        ("processor, s an hour", idle.cpu_s_per_hour),
        ("peak memory, MiB", idle.peak_mib),
    ];
    page.table(&["what", "value"], rows.iter().map(|(name, value)| [(*name).to_owned(), number(*value)]));
    page.end()
}

struct Page(String);

fn head(title: &str, about: &str) -> Page {
    let mut page = Page(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{}</title><style>{STYLE}</style></head><body>\n",
        escaped(title)
    ));
    page.text("h1", title);
    page.text("p", about);
    page
}

impl Page {
    fn text(&mut self, element: &str, text: &str) {
        self.0 += &format!("<{element}>{}</{element}>\n", escaped(text));
    }

    fn verdict(&mut self, verdict: &Verdict) {
        let Verdict { right, wrong, doubled, unknown, missing, miscounted, .. } = verdict;
        if verdict.is_right() {
            self.text("p", &format!("All {right} results were right, and each task had exactly one outcome."));
        } else {
            self.0 += &format!(
                "<p class=\"bad\">{wrong} results were wrong, {doubled} doubled, {unknown} unknown, {missing} missing, {miscounted} jobs miscounted.</p>\n"
            );
            verdict.examples.iter().for_each(|example| self.text("p", example));
        }
    }

    fn table<const N: usize>(&mut self, columns: &[&str; N], rows: impl Iterator<Item = [String; N]>) {
        self.wide(&format!("Table by {}", columns[0]), |page| {
            page.0 += "<table><tr>";
            columns.iter().for_each(|column| page.0 += &format!("<th scope=\"col\">{}</th>", escaped(column)));
            for row in rows {
                page.0 += "</tr>\n<tr>";
                row.iter().for_each(|cell| page.0 += &format!("<td>{}</td>", escaped(cell)));
            }
            page.0 += "</tr></table>\n";
        });
    }

    /// What may be wider than a small screen: it is scrolled by itself, also with the keyboard.
    fn wide(&mut self, name: &str, body: impl FnOnce(&mut Self)) {
        self.0 += &format!("<div class=\"wide\" role=\"region\" tabindex=\"0\" aria-label=\"{}\">", escaped(name));
        body(self);
        self.0 += "</div>\n";
    }

    /// Without a point to show there is nothing.
    fn lines(&mut self, title: &str, lines: &Lines<'_>) -> Result<(), LoadError> {
        if lines.is_empty() {
            return Ok(());
        }
        if !title.is_empty() {
            self.text("h2", title);
        }
        let svg = lines.svg()?;
        self.wide(&format!("Chart of {} by {}", lines.y.label, lines.x.label), |page| page.0 += &svg);
        Ok(())
    }

    fn run(&mut self, run: &Run) -> Result<(), LoadError> {
        for group in &run.groups {
            self.text("h3", &format!("{}: {} clients, {} tasks", group.name, group.clients, group.tasks));
            self.table(
                &["stage, ms", "count", "mean", "p50", "p90", "p99", "p99.9", "max"],
                group.stages.iter().map(|(name, times)| {
                    let Percentiles { count, mean_ms, p50_ms, p90_ms, p99_ms, p999_ms, max_ms, .. } = times;
                    [
                        name.clone(),
                        count.to_string(),
                        number(*mean_ms),
                        number(*p50_ms),
                        number(*p90_ms),
                        number(*p99_ms),
                        number(*p999_ms),
                        number(*max_ms),
                    ]
                }),
            );
            // How rare it is that a task takes longer: 1 in 10, 1 in 100, … to the right.
            let rarity = |percentile: f64| 1.0 / (1.0 - percentile / 100.0);
            let series = group.stages.iter().map(|(name, times)| Series {
                name: name.clone(),
                points: times
                    .curve
                    .iter()
                    .filter(|(percentile, _)| *percentile < 100.0)
                    .map(|(percentile, ms)| (rarity(*percentile), *ms))
                    .collect(),
            });
            let x = Axis::logarithmic("one task in so many takes longer");
            self.lines("", &Lines { x, y: Axis::logarithmic("ms"), series: series.collect() })?;
        }
        self.table(
            &["process", "CPU s", "peak MiB", "written MiB", "read MiB", "context switches"],
            run.usage.iter().map(|usage| {
                let mib = |bytes: u64| number(bytes as f64 / f64::from(1 << 20));
                [
                    usage.role.clone(),
                    number(usage.cpu_s),
                    mib(usage.peak_bytes),
                    mib(usage.written_bytes),
                    mib(usage.read_bytes),
                    usage.context_switches.to_string(),
                ]
            }),
        );
        for blurred in &run.blurred {
            self.text("p", &format!("Not told apart: {blurred}."));
        }
        Ok(())
    }

    fn end(mut self) -> String {
        self.0 += "</body></html>\n";
        self.0
    }
}

/// Tasks a second between the points of a timeline.
fn rate(run: &Run) -> Vec<(f64, f64)> {
    let pairs = run.timeline.windows(2).filter(|pair| pair[1].at_s > pair[0].at_s);
    pairs
        .map(|pair| (pair[1].at_s, pair[1].done.saturating_sub(pair[0].done) as f64 / (pair[1].at_s - pair[0].at_s)))
        .collect()
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value == 0.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        // Writing to a string does not fail.
        let _ = match character {
            '&' => escaped.write_str("&amp;"),
            '<' => escaped.write_str("&lt;"),
            '>' => escaped.write_str("&gt;"),
            '"' => escaped.write_str("&quot;"),
            other => escaped.write_char(other),
        };
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_stands_alone() {
        let page = report(&crate::report::tests::report(&[1e6, 2e6])).expect("drawn");
        assert!(
            page.contains("<polyline") && page.contains("tasks_per_s") && page.contains("what is &lt;not&gt; told"),
            "{page}"
        );
        for foreign in ["<script", "http://", "https://", "src=", "@import"] {
            let found = page.replace("http://www.w3.org/2000/svg", "").contains(foreign);
            assert!(!found, "it needs {foreign}");
        }
        assert!(page.contains("color-scheme:light dark") && !page.contains("class=\"bad\""));
    }

    #[test]
    fn a_chart_without_points_is_not_there() {
        let mut page = Page(String::new());
        let mut lines = Lines {
            x: Axis::logarithmic("x"),
            y: Axis::logarithmic("y"),
            series: vec![Series { name: "none".into(), points: vec![(0.0, 1.0)] }],
        };
        page.lines("A title", &lines).expect("nothing to draw");
        assert_eq!(page.0, "");
        lines.series[0].points.push((1.0, 1.0));
        page.lines("A title", &lines).expect("drawn");
        assert!(page.0.contains("<h2>A title</h2>") && page.0.contains("<polyline"), "{}", page.0);
    }

    #[test]
    fn wrong_results_are_shown() {
        let mut wrong = crate::report::tests::report(&[1e6]);
        wrong.verdict.missing = 2;
        wrong.verdict.examples = vec!["task 7 never came back".into()];
        let page = report(&wrong).expect("drawn");
        assert!(
            page.contains("2 missing") && page.contains("task 7 never came back") && page.contains("class=\"bad\"")
        );
    }
}
