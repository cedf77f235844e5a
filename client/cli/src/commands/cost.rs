//! `sheaf cost`.

use clap::Args;
use serde::Serialize;
use sheaf_api::{
    Api, Segment,
    cost::{JobShape, Line, Prices, totals},
    wire::{JobView, ReadResults},
};
use sheaf_core::JobId;

use crate::{
    connect::{Need, Session},
    exit::Exit,
    output::{self, Printer, Row, facts},
    problem::Outcome,
    select,
    settings::Settings,
    text,
};

/// Say what a job costs on AWS, or would cost there
///
/// It is a model: from the size of the job and of its first results it follows what each step asks of AWS, and prices that
/// with a list of a certain date. Free tiers, discounts and what an idle grid costs are left out. The job may be of any grid.
#[derive(Debug, Args)]
pub(crate) struct Cost {
    /// The job
    job: String,
}

/// Chunks that are read to learn how large tasks and results are.
const CHUNKS_SAMPLED: usize = 4;
/// What a task is taken to send and to give as long as none has ended.
const BYTES_ASSUMED: f64 = 100.0;

/// What a job costs.
#[derive(Debug, Serialize)]
pub(super) struct JobCost {
    job: JobId,
    /// The date and the region of the prices.
    pub(super) as_of: String,
    region: String,
    /// What it follows from, and of how many chunks the sizes were read.
    shape: JobShape,
    chunks_sampled: u64,
    lines: Vec<Line>,
    pub(super) usd: f64,
    usd_per_million_tasks: f64,
    /// Of that, what is neither the tasks' time nor the keeping of their bytes.
    control_plane_usd: f64,
    control_plane_usd_per_million_tasks: f64,
}

impl Row for Line {
    const COLUMNS: &'static [&'static str] = &["FOR", "ITEM", ">COUNT", ">UNIT PRICE", ">DOLLARS"];

    fn id(&self) -> String {
        self.item.to_string()
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.step.to_string(),
            self.item.to_string(),
            amount(self.count),
            unit_price(self.unit_usd),
            text::dollars(self.usd),
        ]
    }
}

impl Cost {
    pub(crate) async fn run(self, settings: &Settings) -> Outcome {
        let session = Session::open(settings, Need::Look).await?;
        let id = select::job(session.api(), &self.job).await?;
        let view = session.api().progress(id, None, 0).await?;
        let cost = of(session.api(), &view).await?;
        Printer(settings.output).one(&cost, &id.to_string(), || describe(&cost))?;
        session.close().await;
        Ok(Exit::Succeeded)
    }
}

/// What the job of `view` costs.
pub(super) async fn of(api: &impl Api, view: &JobView) -> Outcome<JobCost> {
    Ok(reckon(view, &Sample::of(api, view).await?))
}

/// What the first chunks that have ended tell of all.
#[derive(Debug, Default)]
struct Sample {
    chunks: u64,
    tasks: u64,
    pack_bytes: u64,
    result_bytes: u64,
    run_us: u64,
}

impl Sample {
    async fn of(api: &impl Api, view: &JobView) -> Outcome<Self> {
        let read = ReadResults { chunks_max: CHUNKS_SAMPLED, with_packs: true, ..ReadResults::default() };
        let mut sample = Self::default();
        for chunk in api.results(view.job.id, read).await?.chunks {
            sample.chunks += 1;
            sample.tasks += u64::from(chunk.head.tasks);
            sample.pack_bytes += chunk.pack.map_or(0, |pack| pack.len() as u64);
            for segment in chunk.segments {
                sample.result_bytes += segment.len() as u64;
                let Ok(segment) = Segment::parse(segment) else { continue };
                sample.run_us += segment.entries().map(|entry| u64::from(entry.run_us)).sum::<u64>();
            }
        }
        Ok(sample)
    }

    /// Of all tasks together, if the others are like these.
    fn of_all(&self, of_these: u64, tasks: u64, assumed: f64) -> f64 {
        let per_task = if self.tasks == 0 { assumed } else { of_these as f64 / self.tasks as f64 };
        per_task * tasks as f64
    }
}

fn reckon(view: &JobView, sample: &Sample) -> JobCost {
    // Counters lag behind; the size that it was sealed with does not.
    let (chunks, tasks) = match view.job.state.seal() {
        Some(seal) => (u64::from(seal.chunks), seal.tasks),
        None => (view.summary.chunks_submitted, view.summary.tasks_submitted),
    };
    let alive_ms = view.job.state.ended_at_ms().unwrap_or_else(text::now_ms).saturating_sub(view.job.created_at_ms);
    let shape = JobShape {
        chunks,
        tasks,
        pack_bytes: sample.of_all(sample.pack_bytes, tasks, BYTES_ASSUMED) as u64,
        result_bytes: sample.of_all(sample.result_bytes, tasks, BYTES_ASSUMED) as u64,
        attempts: chunks,
        run_s: sample.of_all(sample.run_us, tasks, view.estimate.mean_us) / 1e6,
        alive_s: alive_ms as f64 / 1e3,
        kept_s: view.job.options.retention_ms as f64 / 1e3,
        lane: view.job.options.lane,
    };
    let prices = Prices::built_in();
    let lines = prices.price(&shape.estimate());
    let (usd, control_plane_usd) = totals(&lines);
    let per_million = |usd: f64| if tasks == 0 { 0.0 } else { usd / tasks as f64 * 1e6 };
    JobCost {
        job: view.job.id,
        as_of: prices.as_of,
        region: prices.region,
        shape,
        chunks_sampled: sample.chunks,
        lines,
        usd,
        usd_per_million_tasks: per_million(usd),
        control_plane_usd,
        control_plane_usd_per_million_tasks: per_million(control_plane_usd),
    }
}

fn describe(cost: &JobCost) -> String {
    let shape = &cost.shape;
    let per_task = |bytes: u64| text::bytes(bytes / shape.tasks.max(1));
    let basis = match cost.chunks_sampled {
        0 => "assumed, since nothing has ended".to_owned(),
        chunks => format!("as in {}", text::counted(chunks, "chunk")),
    };
    let per_million = |usd: f64| format!("${} per million tasks", text::dollars(usd));
    let mut shown = facts(&[
        ("job", cost.job.to_string()),
        ("size", format!("{} in {}", text::counted(shape.tasks, "task"), text::counted(shape.chunks, "chunk"))),
        (
            "a task",
            format!(
                "{} in, {} out, {} ({basis})",
                per_task(shape.pack_bytes),
                per_task(shape.result_bytes),
                text::duration_us((shape.run_s * 1e6 / shape.tasks.max(1) as f64) as u64)
            ),
        ),
        ("prices", format!("a model, at list prices of AWS in {} as of {}", cost.region, cost.as_of)),
        ("total", format!("${}, {}", text::dollars(cost.usd), per_million(cost.usd_per_million_tasks))),
        (
            "the grid's",
            format!(
                "${}, {}; the rest is the tasks' time and the keeping of their bytes",
                text::dollars(cost.control_plane_usd),
                per_million(cost.control_plane_usd_per_million_tasks)
            ),
        ),
    ]);
    let priced: Vec<Line> = cost.lines.iter().copied().filter(|line| line.usd > 0.0).collect();
    shown += &format!("\n{}\n", output::table(&priced));
    shown
}

/// A count, with a fraction where it is small.
fn amount(count: f64) -> String {
    match count {
        count if count >= 100.0 || count.fract() == 0.0 => text::count(count.round() as u64),
        count if count >= 0.01 => format!("{count:.2}"),
        count => format!("{count:.1e}"),
    }
}

/// A price: of a million, where one costs next to nothing.
fn unit_price(usd: f64) -> String {
    if usd < 1e-3 { format!("{} a million", text::dollars(usd * 1e6)) } else { text::dollars(usd) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_prices_are_readable() {
        assert_eq!([0.0, 3.0, 2.5, 1_234.4, 0.000_25].map(amount), ["0", "3", "2.50", "1,234", "2.5e-4"]);
        assert_eq!([6.25e-7, 0.023].map(unit_price), ["0.625 a million", "0.023"]);
    }

    #[test]
    fn a_few_chunks_stand_for_all() {
        let sample = Sample { chunks: 2, tasks: 20, pack_bytes: 1_000, ..Sample::default() };
        assert_eq!(sample.of_all(sample.pack_bytes, 100, 7.0), 5_000.0);
        assert_eq!(Sample::default().of_all(0, 100, 7.0), 700.0);
    }
}
