//! The page: sections of facts, charts and tables, in one HTML file that needs no other.

use askama::Template;
use sheaf_api::{Code, wire::JobView};
use sheaf_charts::{Axis, Lines, Series, Timeline, TimelineRow};

use super::{
    Figures,
    history::{BINS, DRAWN_WORKERS_MAX, History, How},
    machines_page,
    tasks::Spread,
};
use crate::{
    problem::{Outcome, Problem},
    text, wait,
};

/// Causes and workers that are listed.
pub(super) const ROWS_MAX: usize = 50;
/// What is to the right in each chart.
const SINCE_CREATED: &str = "seconds since the job was created";

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    title: String,
    summary: String,
    written: String,
    sections: Vec<Section<'a>>,
}

#[derive(Default)]
pub(super) struct Section<'a> {
    pub(super) title: &'a str,
    pub(super) text: Vec<String>,
    /// Those without a value are left out.
    pub(super) facts: Vec<(&'a str, String)>,
    pub(super) figures: Vec<Figure<'a>>,
    pub(super) tables: Vec<Table<'a>>,
}

pub(super) struct Figure<'a> {
    pub(super) caption: &'a str,
    pub(super) svg: String,
}

/// Columns that start with `>` are aligned to the right, as in [`crate::output`].
pub(super) struct Table<'a> {
    pub(super) columns: Vec<&'a str>,
    pub(super) rows: Vec<Vec<String>>,
}

/// The page of a job.
pub(super) fn render(view: &JobView, figures: &Figures, history: &History) -> Outcome<String> {
    let name = if figures.name.is_empty() { figures.job.to_string() } else { figures.name.clone() };
    let mut sections = vec![overview(view, figures), course(history)?, workers(figures, history)?];
    if let Some(machines) = &figures.machines {
        sections.extend(machines_page::sections(machines)?);
    }
    sections.extend([waiting(figures), failures(figures), lost(figures), cost(figures)]);
    sections.push(Section { title: "What is not known", text: figures.not_known.clone(), ..Section::default() });
    let page = Page {
        title: format!("Job {name}"),
        summary: format!("{} is {}. {}.", figures.job, figures.state, wait::summary(view)),
        written: text::time(text::now_ms()),
        sections,
    };
    page.render().map_err(|error| Problem::new(Code::Internal, "the report cannot be written").with_source(error))
}

fn overview<'a>(view: &JobView, figures: &Figures) -> Section<'a> {
    let late = figures.deadline_ms.map(|at_ms| match figures.ended_at_ms {
        Some(ended_ms) if ended_ms <= at_ms => format!("{}, kept", text::time(at_ms)),
        Some(_) => format!("{}, missed", text::time(at_ms)),
        None => text::time(at_ms),
    });
    let functions: Vec<_> = view.job.options.functions.iter().map(ToString::to_string).collect();
    let outcomes = sheaf_core::Outcome::ALL.into_iter().filter(|&outcome| figures.outcomes.of(outcome) > 0);
    let outcomes: Vec<_> =
        outcomes.map(|outcome| format!("{} {outcome}", text::count(figures.outcomes.of(outcome)))).collect();
    let facts = [
        ("Functions", functions.join(", ")),
        ("Created", text::time(figures.created_at_ms)),
        ("Ended", figures.ended_at_ms.map(text::time).unwrap_or_default()),
        ("Took", text::duration_ms(figures.took_ms)),
        ("Deadline", late.unwrap_or_default()),
        ("Size", format!("{} in {}", text::counted(figures.tasks, "task"), text::counted(figures.chunks, "chunk"))),
        ("Outcomes", outcomes.join(", ")),
        ("Throughput", text::rate(figures.tasks_per_second)),
        ("Attempts", text::count(figures.attempts)),
        ("Workers", text::count(figures.workers.len() as u64)),
    ];
    Section { title: "The job", facts: facts.into(), ..Section::default() }
}

/// Progress, throughput and what ran at once, over time.
fn course<'a>(history: &History) -> Outcome<Section<'a>> {
    let step_s = history.span_s() / BINS as f64;
    let (mut submitted, mut succeeded, mut failed) = (0, 0, 0);
    let (mut all, mut good, mut bad, mut rate, mut ran) =
        (vec![(0.0, 0.0)], vec![(0.0, 0.0)], vec![(0.0, 0.0)], vec![], vec![]);
    for (number, bin) in history.bins.iter().enumerate() {
        let until_s = (number + 1) as f64 * step_s;
        submitted += bin.submitted;
        succeeded += bin.succeeded;
        failed += bin.failed;
        all.push((until_s, submitted as f64));
        good.push((until_s, succeeded as f64));
        bad.push((until_s, failed as f64));
        rate.push((until_s - step_s / 2.0, (bin.succeeded + bin.failed) as f64 / step_s));
        ran.push((until_s - step_s / 2.0, bin.ran_s / step_s));
    }
    let series = |name: &str, points| Series { name: name.to_owned(), points };
    let mut progress = vec![series("submitted", all)];
    if failed > 0 {
        progress.push(series("failed", bad));
    }
    progress.insert(1, series("succeeded", good));
    let drawn = |y, series| Lines { x: Axis::from_zero(SINCE_CREATED), y: Axis::from_zero(y), series }.svg();
    Ok(Section {
        title: "Over time",
        figures: vec![
            Figure {
                caption: "Tasks submitted and ended. They count when their outcome is committed.",
                svg: drawn("tasks", progress)?,
            },
            Figure {
                caption: "Tasks with an outcome, each second.",
                svg: drawn("tasks/s", vec![series("tasks/s", rate)])?,
            },
            Figure {
                caption: "Chunks that ran at once, on average of each step.",
                svg: drawn("chunks", vec![series("chunks", ran)])?,
            },
        ],
        ..Section::default()
    })
}

fn workers<'a>(figures: &Figures, history: &History) -> Outcome<Section<'a>> {
    let rows: Vec<TimelineRow<'_>> = history
        .workers
        .iter()
        .take(DRAWN_WORKERS_MAX)
        .map(|worker| TimelineRow {
            name: machine_of(figures, worker.id.as_str()).unwrap_or_else(|| short(worker.id.as_str())),
            lanes: worker.bars.iter().map(Vec::as_slice).collect(),
        })
        .collect();
    let mut text = Vec::new();
    if history.workers.len() > DRAWN_WORKERS_MAX {
        text.push(format!("Of {} workers the first {DRAWN_WORKERS_MAX} are drawn.", history.workers.len()));
    }
    let mut most: Vec<_> = figures.workers.iter().collect();
    most.sort_by_key(|worker| std::cmp::Reverse(worker.tasks_ended));
    if most.len() > ROWS_MAX {
        text.push(format!("The {ROWS_MAX} that ended the most tasks are listed; --csv writes all."));
    }
    let cells = most.into_iter().take(ROWS_MAX).map(|worker| {
        vec![
            worker.worker.to_string(),
            worker.slots.map(|slots| slots.to_string()).unwrap_or_default(),
            text::count(worker.tasks_ended),
            text::count(worker.claimed),
            text::count(worker.lost),
            text::count(worker.released),
            text::duration_ms(worker.span_ms),
            worker.utilisation.map(percent).unwrap_or_default(),
        ]
    });
    let table = Table {
        columns: vec![
            "Worker",
            ">Slots",
            ">Tasks ended",
            ">Chunks claimed",
            ">Lost",
            ">Given back",
            ">From first to last",
            ">Utilisation",
        ],
        rows: cells.collect(),
    };
    let caption = "Each bar is a chunk that ran, for as long as its tasks did and until it was committed; a chunk that was \
                   not finished is drawn for as long as it was held. Bars less than a thousandth apart are one.";
    let timeline = Timeline { x_label: SINCE_CREATED, x: 0.0..history.span_s(), rows, legend: &How::SHADES };
    let figures = if timeline.rows.is_empty() { Vec::new() } else { vec![Figure { caption, svg: timeline.svg()? }] };
    Ok(Section { title: "Workers", text, figures, tables: vec![table], ..Section::default() })
}

/// The machine that a worker stood for, if that is known.
fn machine_of(figures: &Figures, worker: &str) -> Option<String> {
    let machines = &figures.machines.as_ref()?.machines;
    machines.iter().find(|line| line.worker.as_deref() == Some(worker)).map(|line| line.name.clone())
}

fn waiting<'a>(figures: &Figures) -> Section<'a> {
    let row = |name: &str, of: &Spread, shown: fn(u64) -> String| {
        let mean = shown(of.mean as u64);
        vec![name.to_owned(), text::count(of.count), mean, shown(of.p50), shown(of.p95), shown(of.p99), shown(of.max)]
    };
    let rows = vec![
        row("from submission to a worker", &figures.wait_ms, text::duration_ms),
        row("from submission to the end of its chunk", &figures.latency_ms, text::duration_ms),
        row("running", &figures.run_us, text::duration_us),
    ];
    let columns = vec!["A task's time", ">Tasks", ">Mean", ">Median", ">95 %", ">99 %", ">Longest"];
    Section { title: "Waiting and running", tables: vec![Table { columns, rows }], ..Section::default() }
}

fn failures<'a>(figures: &Figures) -> Section<'a> {
    let mut section = Section { title: "Failures by cause", ..Section::default() };
    if figures.failures.is_empty() {
        section.text.push("No task failed.".to_owned());
        return section;
    }
    let hidden: u64 = figures.failures.iter().skip(ROWS_MAX).map(|cause| cause.tasks).sum();
    let hidden = hidden + figures.failures_of_other_causes;
    if hidden > 0 {
        section.text.push(format!("{} more of rarer causes.", text::counted(hidden, "failure")));
    }
    let rows = figures.failures.iter().take(ROWS_MAX).map(|cause| {
        let examples: Vec<_> = cause.examples.iter().map(ToString::to_string).collect();
        vec![cause.kind.clone(), cause.message.clone(), text::count(cause.tasks), examples.join(" ")]
    });
    section.tables.push(Table { columns: vec!["Kind", "Message", ">Tasks", "Such as"], rows: rows.collect() });
    section.text.push("`sheaf explain TASK` and `sheaf logs TASK` say more of one.".to_owned());
    section
}

fn lost<'a>(figures: &Figures) -> Section<'a> {
    let mut section = Section { title: "Reclaims and work done again", ..Section::default() };
    if figures.losses.is_empty() {
        section.text.push("Every attempt was finished by the worker that began it.".to_owned());
    } else {
        let rows = figures.losses.iter().map(|line| {
            vec![
                line.because.to_owned(),
                text::count(line.attempts),
                text::duration_ms(line.held_ms),
                text::duration_ms(line.uncommitted_ms),
            ]
        });
        let columns = vec!["Attempts that ended because", ">Attempts", ">Held", ">Not committed, at most"];
        section.tables.push(Table { columns, rows: rows.collect() });
    }
    if figures.tasks_isolated > 0 {
        let tasks = text::counted(figures.tasks_isolated, "time");
        section.text.push(format!("A task ran alone, as what might have killed its worker, {tasks}."));
    }
    section
}

fn cost<'a>(figures: &Figures) -> Section<'a> {
    let factors = &figures.energy_factors;
    let core_s = |seconds: f64| format!("{seconds:.1} core-seconds");
    Section {
        title: "Cost and energy",
        facts: vec![
            ("Tasks ran", core_s(figures.busy_core_s)),
            (
                "Slots were held",
                figures
                    .utilisation
                    .map(|share| format!("{}, of which {} worked", core_s(figures.held_core_s), percent(share)))
                    .unwrap_or_default(),
            ),
            ("Energy", format!("{} Wh, estimated", significant(figures.energy_wh))),
            (
                "Cost on AWS",
                format!(
                    "${}, a model at list prices as of {}",
                    text::dollars(figures.aws_usd),
                    figures.aws_prices_as_of
                ),
            ),
        ],
        text: vec![format!(
            "Energy: {} W for a core at work, {} W for one that waits, times {} for the data centre. `sheaf cost JOB` has the cost in full.",
            factors.busy_w, factors.idle_w, factors.power_usage_effectiveness
        )],
        ..Section::default()
    }
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// Three digits that count.
pub(super) fn significant(number: f64) -> String {
    if number <= 0.0 {
        return "0".to_owned();
    }
    let digits = (2 - number.log10().floor() as i32).clamp(0, 9) as usize;
    format!("{number:.digits$}")
}

/// The end of a long id, as in a chart: those that were made one soon after the other begin alike.
fn short(id: &str) -> String {
    let letters = id.chars().count();
    if letters <= 21 { id.to_owned() } else { ['…'].into_iter().chain(id.chars().skip(letters - 12)).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_begin_alike_are_told_apart_in_a_chart() {
        let ids = ["wrk_remote-01a22f41a24d713388a55e055ef13a188", "wrk_remote-01a22f41a24d713388a55e063f552123"];
        assert_eq!(ids.map(short), ["…e055ef13a188", "…5e063f552123"]);
        assert_eq!(short("wrk_1"), "wrk_1");
    }
}
