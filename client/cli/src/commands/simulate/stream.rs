//! A stream of requests on elastic workers: policies × parameters × caps.

use std::path::{Path, PathBuf};

use clap::Args;
use sheaf_charts::{Axis, Lines, Series};
use sheaf_scheduler::{
    Settings as Told,
    formats::arrivals::{self, ServiceModel},
    sim::elastic::StreamRun,
    simulate::{self, StreamRow, Sweep},
};

use super::{Cores, Simulate, write_csv};
use crate::{
    bags::{self as files, parse_seconds},
    exit::Exit,
    output::{Format, Printer, Row},
    problem::{Outcome, Problem},
    progress::Steps,
    settings::Settings,
};

/// What arrives, and what the policies are told.
#[derive(Debug, Args)]
#[command(next_help_heading = "A stream of requests")]
pub(super) struct StreamArgs {
    /// Arrivals from a file of lines delay,item,bitrate,speed and, where it was measured, service_s
    #[arg(long, value_name = "FILE")]
    pub(super) arrivals: Option<PathBuf>,
    /// Workers at most, in turn
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', requires = "arrivals", value_parser = clap::value_parser!(u32).range(1..))]
    workers_max: Vec<u32>,
    /// Seconds an idle worker stays, in turn: for grace-period, and where adaptive-grace starts
    #[arg(long, value_name = "SECONDS", value_delimiter = ',', requires = "arrivals", value_parser = parse_seconds)]
    grace: Vec<f64>,
    /// Waiting requests from which `queue` starts a worker, in turn
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', requires = "arrivals")]
    queue_threshold: Vec<u64>,
    /// Idle workers that `reserve` keeps, in turn
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', requires = "arrivals")]
    reserve: Vec<u32>,
    /// Latency targets of `sheaf`, in turn
    #[arg(long, value_name = "SECONDS", value_delimiter = ',', requires = "arrivals", value_parser = parse_seconds)]
    latency: Vec<f64>,
    /// Seconds a worker boots
    #[arg(long, value_name = "SECONDS", requires = "arrivals", value_parser = parse_seconds, default_value_t = StreamRun::default().boot_s)]
    boot: f64,
    /// Mean seconds of work in a request, where the file has no service_s
    #[arg(long, value_name = "SECONDS", requires = "arrivals", value_parser = parse_seconds, default_value_t = ServiceModel::default().mean_s)]
    service_mean: f64,
    /// Dollars an hour of a worker
    #[arg(long, value_name = "DOLLARS", requires = "arrivals", default_value_t = StreamRun::default().price_per_hour)]
    worker_price: f64,
    /// Draw the curve of waiting against worker time
    #[arg(long, value_name = "FILE", requires = "arrivals")]
    svg: Option<PathBuf>,
}

impl StreamArgs {
    fn sweep(&self, arguments: &Simulate) -> Sweep {
        fn or<T: Clone>(given: &[T], default: Vec<T>) -> Vec<T> {
            if given.is_empty() { default } else { given.to_vec() }
        }
        let default = Sweep::default();
        Sweep {
            policies: or(&arguments.policy, default.policies),
            workers_max: or(&self.workers_max, default.workers_max),
            grace_s: or(&self.grace, default.grace_s),
            queue_threshold: or(&self.queue_threshold, default.queue_threshold),
            reserve: or(&self.reserve, default.reserve),
            latency_s: or(&self.latency, default.latency_s),
        }
    }

    fn stream_run(&self) -> StreamRun {
        StreamRun {
            boot_s: self.boot,
            price_per_hour: self.worker_price,
            service: ServiceModel { mean_s: self.service_mean, ..ServiceModel::default() },
            settings: Told { period_s: 1.0, ..Told::default() },
            ..StreamRun::default()
        }
    }
}

impl Row for StreamRow {
    const COLUMNS: &'static [&'static str] = &[
        "POLICY",
        "TOLD",
        ">WORKERS MAX",
        ">WAIT MEAN S",
        ">WAIT P95 S",
        ">WAIT MAX S",
        ">WORKER S",
        ">UTILISATION",
        ">STARTED",
        ">COST $",
        "FRONTIER",
    ];

    fn id(&self) -> String {
        self.policy.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let out = &self.outcome;
        vec![
            self.policy.to_string(),
            told(self),
            self.workers_max.to_string(),
            format!("{:.1}", out.wait_mean_s),
            format!("{:.1}", out.wait_p95_s),
            format!("{:.1}", out.wait_max_s),
            format!("{:.0}", out.worker_s),
            format!("{:.1} %", 100.0 * out.utilisation),
            out.workers.to_string(),
            format!("{:.4}", out.cost),
            if self.on_frontier { "◆".to_owned() } else { String::new() },
        ]
    }
}

fn told(row: &StreamRow) -> String {
    row.parameter.as_ref().map(|of| format!("{} {}", of.name, of.value)).unwrap_or_default()
}

pub(super) fn run(arguments: &Simulate, path: &Path, settings: &Settings) -> Outcome {
    let trace = files::read(path, arrivals::parse)?;
    if trace.is_empty() {
        return Err(Problem::usage(format!("{} has no arrivals", path.display()))
            .with_hint("give a line delay,item,bitrate,speed for each request"));
    }
    let of = &arguments.stream;
    let steps = Steps::new(settings);
    let rows = simulate::stream(&trace, &of.sweep(arguments), &of.stream_run(), &Cores(&steps));
    steps.finish();
    if let Some(path) = &arguments.csv {
        write_csv(path, &HEADING, rows.iter().map(csv_row))?;
    }
    if let Some(path) = &of.svg {
        std::fs::write(path, curve(&rows)?).map_err(|error| Problem::file("written", path, error))?;
    }
    let printer = Printer(settings.output);
    printer.list(&rows)?;
    if printer.0 == Format::Table {
        println!("\nThe frontier, which nothing beats in both mean wait and worker seconds:");
        let mut best: Vec<&StreamRow> = rows.iter().filter(|row| row.on_frontier).collect();
        best.sort_by(|a, b| a.outcome.worker_s.total_cmp(&b.outcome.worker_s));
        best.dedup_by(|a, b| a.outcome == b.outcome);
        for row in best {
            let out = &row.outcome;
            let name = [row.policy.to_string(), told(row)].join(" ");
            let (wait_s, worker_s) = (out.wait_mean_s, out.worker_s);
            println!("{worker_s:>8.0} worker s {wait_s:>8.1} s wait  {}, at most {}", name.trim_end(), row.workers_max);
        }
    }
    Ok(Exit::Succeeded)
}

/// A line for each policy and parameter, from cap to cap.
fn curve(rows: &[StreamRow]) -> Outcome<String> {
    let mut series: Vec<Series> = Vec::new();
    for row in rows {
        let name = format!("{} {}", row.policy, told(row)).trim_end().to_owned();
        let point = (row.outcome.worker_s, row.outcome.wait_mean_s);
        match series.iter_mut().find(|series| series.name == name) {
            Some(series) => series.points.push(point),
            None => series.push(Series { name, points: vec![point] }),
        }
    }
    let lines = Lines { x: Axis::fitted("worker seconds"), y: Axis::from_zero("mean wait, s"), series };
    Ok(sheaf_charts::as_file(&lines.svg()?))
}

const HEADING: [&str; 13] = [
    "policy",
    "parameter",
    "value",
    "workers_max",
    "requests",
    "wait_mean_s",
    "wait_p95_s",
    "wait_max_s",
    "worker_s",
    "utilisation",
    "workers",
    "cost_usd",
    "on_frontier",
];

fn csv_row(row: &StreamRow) -> Vec<String> {
    let out = &row.outcome;
    let (name, value) = match &row.parameter {
        Some(parameter) => (parameter.name.clone(), parameter.value.to_string()),
        None => Default::default(),
    };
    vec![
        row.policy.to_string(),
        name,
        value,
        row.workers_max.to_string(),
        out.requests.to_string(),
        out.wait_mean_s.to_string(),
        out.wait_p95_s.to_string(),
        out.wait_max_s.to_string(),
        out.worker_s.to_string(),
        out.utilisation.to_string(),
        out.workers.to_string(),
        out.cost.to_string(),
        row.on_frontier.to_string(),
    ]
}
