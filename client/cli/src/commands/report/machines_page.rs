//! What machines did, and what the policy decided, as sections of the page.

use sheaf_charts::{Bar, Timeline, TimelineRow};
use sheaf_core::Lane;
use sheaf_machines::{Life, Phase, Why};

use super::{
    history::DRAWN_WORKERS_MAX,
    machines::{self, MachineFigures, MachineLine, Sums},
    page::{Figure, ROWS_MAX, Section, Table, percent, significant},
};
use crate::{problem::Outcome, text};

/// Decisions that are listed.
const DECISIONS_MAX: usize = 200;
/// How wide the end of a machine that was taken away is drawn, as a share of the time.
const MARK_SHARE: f64 = 0.005;
/// What stands at the axis.
const SINCE_BEGUN: &str = "seconds of the plan since the fleet began";

/// The names of the shades. The second and the last are ends, not phases.
const SHADES: [&str; 7] = ["busy", "taken away", "idle", "hibernated", "booting", "draining", "failed"];

const fn shade(phase: Phase) -> usize {
    match phase {
        Phase::Busy => 0,
        Phase::Idle => 2,
        Phase::Hibernated => 3,
        Phase::Booting => 4,
        Phase::Draining => 5,
    }
}

/// The shade of an end that is marked.
const fn end_shade(why: Why) -> Option<usize> {
    match why {
        Why::Reclaimed => Some(1),
        Why::Failed => Some(6),
        Why::Drained | Why::Over => None,
    }
}

/// Two sections: the machines, and the decisions.
pub(super) fn sections<'a>(figures: &MachineFigures) -> Outcome<[Section<'a>; 2]> {
    Ok([machines(figures)?, decisions(figures)])
}

fn machines<'a>(figures: &MachineFigures) -> Outcome<Section<'a>> {
    let all = &figures.all;
    let mut facts = vec![
        ("Machines", counted(all.requested, "machine")),
        ("Requests refused", text::count(all.refused as u64)),
        ("Taken away", text::count(all.reclaims as u64)),
        ("Cost", format!("${:.5}", all.cost)),
        ("Worker time", seconds(all.worker_s)),
        ("Utilisation", all.utilisation.map(percent).unwrap_or_default()),
        ("Wasted", format!("{}, of attempts and copies that did not end their tasks", seconds(figures.wasted_s))),
        ("Energy", format!("{} Wh, estimated", significant(figures.energy_wh))),
        ("Time scale", format!("{} s of the plan in a second", significant(figures.time_scale))),
    ];
    if let Some(spent) = &figures.lives.spent {
        let left = text::counted(spent.tasks_left as u64, "task");
        facts.insert(4, ("Budget", format!("${:.5}, spent with {left} left", spent.budget)));
    }
    if all.hibernations > 0 {
        let times = text::counted(all.hibernations.into(), "time");
        facts.insert(3, ("Hibernated", format!("{times}, {} in all, which cost nothing", seconds(all.frozen_s))));
    }
    if figures.lives.copies > 0 {
        let (asked, counted) = (figures.lives.copies as u64, figures.lives.copies_counted as u64);
        facts.push(("Second copies", format!("{} asked for, {} of use", text::count(asked), text::count(counted))));
    }
    let mut said = Vec::new();
    if figures.machines.len() > DRAWN_WORKERS_MAX {
        said.push(format!("Of {} machines the first {DRAWN_WORKERS_MAX} are drawn.", figures.machines.len()));
    }
    if figures.machines.len() > ROWS_MAX {
        said.push(format!("The first {ROWS_MAX} are listed; --csv writes all."));
    }
    said.push("Times are in seconds of the plan, from when the fleet began.".to_owned());
    Ok(Section {
        title: "Machines",
        text: said,
        facts,
        figures: timeline(figures)?.into_iter().collect(),
        tables: vec![markets(figures), stages(&figures.machines)],
    })
}

fn timeline<'a>(figures: &MachineFigures) -> Outcome<Option<Figure<'a>>> {
    let drawn: Vec<&Life> = figures.lives.machines.iter().take(DRAWN_WORKERS_MAX).collect();
    if drawn.is_empty() {
        return Ok(None);
    }
    let until_s = figures.lives.until_s;
    let bars: Vec<Vec<Bar>> = drawn.iter().map(|life| bars(life, until_s * MARK_SHARE)).collect();
    let rows = drawn
        .iter()
        .zip(&bars)
        .map(|(life, bars)| TimelineRow { name: machines::name(life), lanes: vec![bars.as_slice()] });
    let timeline = Timeline { x_label: SINCE_BEGUN, x: 0.0..until_s, rows: rows.collect(), legend: &SHADES };
    let caption = "Each row is a machine, from its request to its end. One that runs something is busy; one that was told to \
                   end, or that it is taken away, drains. The end of a machine that was taken away, or failed, is marked.";
    Ok(Some(Figure { caption, svg: timeline.svg()? }))
}

fn bars(life: &Life, mark_s: f64) -> Vec<Bar> {
    let phases = life.spans.iter().filter(|span| span.until_s > span.from_s);
    let mut bars: Vec<Bar> =
        phases.map(|span| Bar { from: span.from_s, until: span.until_s, shade: shade(span.phase) }).collect();
    if let (Some(ended_s), Some(shade)) = (life.ended_s, life.why.and_then(end_shade)) {
        bars.push(Bar { from: (ended_s - mark_s).max(life.requested_s), until: ended_s, shade });
    }
    bars
}

fn markets<'a>(figures: &MachineFigures) -> Table<'a> {
    let row = |sums: &Sums| {
        vec![
            sums.market.map_or("all", Lane::as_str).to_owned(),
            text::count(sums.requested as u64),
            text::count(sums.refused as u64),
            text::count(sums.reclaims as u64),
            text::count(sums.hibernations.into()),
            seconds(sums.frozen_s),
            seconds(sums.worker_s),
            sums.utilisation.map(percent).unwrap_or_default(),
            format!("${:.5}", sums.cost),
        ]
    };
    let columns = vec![
        "Market",
        ">Machines",
        ">Refused",
        ">Taken away",
        ">Hibernations",
        ">Frozen",
        ">Paid",
        ">Utilisation",
        ">Cost",
    ];
    Table { columns, rows: figures.markets.iter().chain([&figures.all]).map(row).collect() }
}

fn stages<'a>(machines: &[MachineLine]) -> Table<'a> {
    let shown = |at_s: Option<f64>| at_s.map(|at_s| format!("{at_s:.1}")).unwrap_or_default();
    let row = |line: &MachineLine| {
        vec![
            line.name.clone(),
            shown(Some(line.requested_s)),
            shown(line.boot_s),
            shown(line.waited_s),
            shown(Some(line.busy_s)),
            shown(Some(line.idle_s)),
            shown(Some(line.draining_s)),
            shown(Some(line.frozen_s)),
            shown(line.ended_s),
            line.why.unwrap_or("still there").to_owned(),
            line.utilisation.map(percent).unwrap_or_default(),
            text::count(line.given_back as u64),
            format!("${:.5}", line.cost),
        ]
    };
    let columns = vec![
        "Machine",
        ">Requested at",
        ">Boot",
        ">To the first task",
        ">Busy",
        ">Idle",
        ">Draining",
        ">Frozen",
        ">Gone at",
        "Because",
        ">Utilisation",
        ">Given back",
        ">Cost",
    ];
    Table { columns, rows: machines.iter().take(ROWS_MAX).map(row).collect() }
}

fn decisions<'a>(figures: &MachineFigures) -> Section<'a> {
    let mut section = Section { title: "What the policy decided", ..Section::default() };
    if figures.decisions.is_empty() {
        section.text.push("It was not asked.".to_owned());
        return section;
    }
    let all = figures.decisions.len();
    if all > DECISIONS_MAX {
        section.text.push(format!("Of {all} decisions the first {DECISIONS_MAX} are listed; --csv writes all."));
    }
    section.text.push("It is listed whenever its answer was another than before.".to_owned());
    let rows = figures.decisions.iter().take(DECISIONS_MAX).map(|line| {
        vec![format!("{:.1}", line.at_s), line.wants.clone(), line.drains.clone(), line.reasons.join("; ")]
    });
    section.tables.push(Table { columns: vec![">At, s", "Wants", "Ends", "Because"], rows: rows.collect() });
    section
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.0} s")
}

fn counted(count: usize, noun: &str) -> String {
    text::counted(count as u64, noun)
}
