//! `sheaf bench`: the load-test harness from the command line.

mod show;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use sheaf_api::Code;
use sheaf_load::{
    LoadError, compare,
    curve::{self, Range},
    function::{self, Child},
    live::Live,
    machine::Machine,
    page,
    report::{self, Report, Run},
    run,
    scenario::{Kind, Place, Scenario},
    sizes,
    target::Options,
    trials,
};

use crate::{
    exit::Exit,
    output::{Printer, Row},
    problem::{Outcome, Problem},
    progress::{Bar, Shown},
    settings::Settings,
    text,
};

/// The pause between two looks at how things stand.
const LOOK: Duration = Duration::from_millis(250);

/// Measure a grid under load, and check every result
///
/// Each run has a grid of its own, in a directory that is removed afterwards, or uses the one that --grid or SHEAF_GRID
/// names. The exit code is 3 when a result was wrong, missing or there twice. `sheaf bench list` shows the scenarios there
/// are; docs/performance.md says how to read the figures.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Bench {
    /// What to do instead of running a scenario
    #[command(subcommand)]
    other: Option<Other>,
    /// A scenario that is built in; `throughput` unless told otherwise
    #[arg(value_name = "NAME", conflicts_with = "scenario")]
    name: Option<String>,
    /// A scenario of one's own, as TOML
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    #[command(flatten)]
    how: How,
    /// Runs; the figures are then medians with their spread
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    repeat: u32,
    /// Tasks of each client in a batch or a closed loop, instead of the scenario's
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    tasks: Option<u64>,
    /// What runs the tasks, instead of the scenario's
    #[arg(long, value_enum)]
    kind: Option<KindName>,
    /// Acknowledge before it would survive a power cut
    #[arg(long)]
    not_durable: bool,
    /// Give up a run after so long, such as 10m
    #[arg(long, value_name = "DURATION", value_parser = text::parse_duration)]
    timeout: Option<Duration>,
}

/// Where and how all of them measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct How {
    /// How many tasks run at once in a grid of its own
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    slots: Option<u32>,
    /// Where grids of its own keep their data: a disk to be measured; the system's directory for temporary files by default
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// A function of the grid that does what payloads say, instead of one that is declared for it
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// Write the report to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report to this file, as a page with plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// What else `sheaf bench` does.
#[derive(Debug, Subcommand)]
enum Other {
    /// List the scenarios that are built in
    List,
    /// Compare two reports, written with --json: what changed by more than the runs' spread
    Compare {
        /// The earlier one
        before: PathBuf,
        /// The later one
        after: PathBuf,
    },
    /// Measure how throughput, memory and disk scale: with tasks, payloads, jobs and chunk sizes
    Curve {
        #[command(flatten)]
        how: How,
        /// The most tasks of one point
        #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
        tasks_max: u64,
    },
    /// Measure how the chunk size that the SDK chooses does beside fixed ones, on tasks of different lengths
    Sizes {
        #[command(flatten)]
        how: How,
        /// In how many orders the tasks come
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
        orders: u32,
    },
    /// Kill a grid that holds many tasks, start it again, and measure how soon it is back
    Recovery {
        #[command(flatten)]
        how: How,
        /// How many tasks it holds
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
        tasks: u64,
    },
    /// Watch a grid that has nothing to do, and measure what it costs
    Idle {
        #[command(flatten)]
        how: How,
        /// For how long
        #[arg(long = "for", value_name = "DURATION", default_value = "20s", value_parser = text::parse_duration)]
        lasting: Duration,
    },
    /// Serve as the child process of the tasks' function
    #[command(hide = true)]
    Function,
}

/// What runs the tasks.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum KindName {
    /// A function linked into the grid's process
    Handler,
    /// A child process that takes many tasks in one invocation
    Batch,
    /// A child process that takes one task at a time
    Single,
}

impl From<KindName> for Kind {
    fn from(name: KindName) -> Self {
        match name {
            KindName::Handler => Self::Handler,
            KindName::Batch => Self::Batch,
            KindName::Single => Self::Single,
        }
    }
}

impl Row for Scenario {
    const COLUMNS: &'static [&'static str] = &["SCENARIO", "GRID", ">TASKS", "WHAT IT SHOWS"];

    fn id(&self) -> String {
        self.name.clone()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), self.grid.to_string(), text::count(self.tasks()), self.about.clone()]
    }
}

impl Bench {
    pub(crate) async fn run(self, settings: &Settings) -> Outcome {
        match self.other {
            Some(Other::List) => list(settings),
            Some(Other::Compare { before, after }) => compare(&before, &after, settings),
            Some(Other::Curve { how, tasks_max }) => Box::pin(scale(&how, tasks_max, settings)).await,
            Some(Other::Sizes { how, orders }) => Box::pin(chunk_sizes(&how, orders, settings)).await,
            Some(Other::Recovery { how, tasks }) => Box::pin(recover(&how, tasks, settings)).await,
            Some(Other::Idle { how, lasting }) => idle(&how, lasting, settings).await,
            Some(Other::Function) => {
                let serving = tokio::task::spawn_blocking(function::serve).await;
                serving.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
                Ok(Exit::Succeeded)
            }
            None => Box::pin(self.measure(settings)).await,
        }
    }

    async fn measure(self, settings: &Settings) -> Outcome {
        let scenario = self.scenario(settings)?;
        let options = self.how.options(settings)?;
        let Some(report) = or_interrupted(Box::pin(repeat(&scenario, &options, self.repeat, settings))).await? else {
            return Ok(Exit::Interrupted);
        };
        self.how.keep(&report, || page::report(&report))?;
        Printer(settings.output).one(&report, &report.scenario.name, || show::report(&report))?;
        Ok(exit(report.verdict.is_right()))
    }

    fn scenario(&self, settings: &Settings) -> Outcome<Scenario> {
        let mut scenario = match &self.scenario {
            Some(path) => Scenario::read(path)?,
            None => Scenario::built_in(self.name.as_deref().unwrap_or("throughput"))?,
        };
        if given(settings).is_some() {
            scenario.grid = Place::Given;
        }
        if let Some(kind) = self.kind {
            scenario.function = kind.into();
        }
        if let Some(tasks) = self.tasks {
            scenario = scenario.with_tasks(tasks);
        }
        if let Some(timeout) = self.timeout {
            scenario.timeout_s = timeout.as_secs().max(1);
        }
        scenario.slots = self.how.slots.or(scenario.slots);
        scenario.durable &= !self.not_durable;
        let place = self.scenario.as_deref().map_or_else(|| scenario.name.clone(), |path| path.display().to_string());
        scenario.check().map_err(|wrong| LoadError::Scenario { place, wrong })?;
        Ok(scenario)
    }
}

impl How {
    /// Writes the files that were asked for.
    fn keep<T: Serialize>(&self, report: &T, page: impl FnOnce() -> Result<String, LoadError>) -> Outcome<()> {
        if let Some(path) = &self.json {
            report::write(path, report)?;
        }
        if let Some(path) = &self.html {
            std::fs::write(path, page()?).map_err(|error| Problem::file("written", path, error))?;
        }
        Ok(())
    }

    fn options(&self, settings: &Settings) -> Outcome<Options> {
        let program = std::env::current_exe().map_err(|error| Problem::file("found", Path::new("sheaf"), error))?;
        Ok(Options {
            given: given(settings),
            function: self.function.clone(),
            directory: self.directory.clone(),
            child: Child { program: program.clone(), arguments: vec!["bench".to_owned(), "function".to_owned()] },
            sheaf: program,
        })
    }
}

/// The grid that somebody named for this command. One out of a file is that of everyday work, and no place for a load test.
fn given(settings: &Settings) -> Option<String> {
    let named =
        matches!(settings.client.place.origin, sheaf::Origin::Program | sheaf::Origin::Environment("SHEAF_GRID"));
    named.then(|| settings.client.place.value.to_string())
}

const fn exit(right: bool) -> Exit {
    if right { Exit::Succeeded } else { Exit::TasksFailed }
}

fn list(settings: &Settings) -> Outcome {
    let scenarios = Scenario::names().map(Scenario::built_in).collect::<Result<Vec<_>, _>>()?;
    Printer(settings.output).list(&scenarios)?;
    Ok(Exit::Succeeded)
}

fn compare(before: &Path, after: &Path, settings: &Settings) -> Outcome {
    let comparison = compare::compare(&Report::read(before)?, &Report::read(after)?);
    if settings.output.is_table() {
        comparison.cautions.iter().for_each(|caution| eprintln!("mind that {caution}"));
        Printer(settings.output).list(&comparison.differences)?;
    } else {
        Printer(settings.output).one(&comparison, "", String::new)?;
    }
    Ok(Exit::Succeeded)
}

async fn scale(how: &How, tasks_max: u64, settings: &Settings) -> Outcome {
    let (options, bar) = (how.options(settings)?, Bar::new(settings));
    let next = |scenario: &Scenario| {
        bar.say(&format!("{} {}: {}", scenario.about, scenario.name, text::counted(scenario.tasks(), "task")));
        Arc::new(Live::default())
    };
    let range = Range { tasks_max, slots: how.slots };
    let work = async { Ok(curve::curve(range, &options, next).await?) };
    let Some(curve) = or_interrupted(work).await? else { return Ok(Exit::Interrupted) };
    bar.finish();
    how.keep(&curve, || page::curve(&curve))?;
    Printer(settings.output).one(&curve, "curve", || show::curve(&curve))?;
    Ok(exit(curve.verdict.is_right()))
}

async fn chunk_sizes(how: &How, orders: u32, settings: &Settings) -> Outcome {
    let (options, bar) = (how.options(settings)?, Bar::new(settings));
    let next = |scenario: &Scenario| {
        bar.say(&format!("{} tasks in chunks of {}", scenario.about, scenario.name));
        Arc::new(Live::default())
    };
    let work = async { Ok(sizes::sizes(orders, how.slots, &options, next).await?) };
    let Some(sizes) = or_interrupted(work).await? else { return Ok(Exit::Interrupted) };
    bar.finish();
    how.keep(&sizes, || Ok(page::sizes(&sizes)))?;
    Printer(settings.output).one(&sizes, "sizes", || show::sizes(&sizes))?;
    Ok(exit(sizes.verdict.is_right()))
}

async fn recover(how: &How, tasks: u64, settings: &Settings) -> Outcome {
    let (options, live, bar) = (how.options(settings)?, Arc::new(Live::default()), Bar::new(settings));
    let work = watched(Box::pin(trials::recovery(tasks, &options, &live)), &live, &bar, tasks, "");
    let Some(recovery) = or_interrupted(work).await? else { return Ok(Exit::Interrupted) };
    how.keep(&recovery, || Ok(page::recovery(&recovery)))?;
    Printer(settings.output).one(&recovery, "recovery", || show::recovery(&recovery))?;
    Ok(exit(recovery.verdict.is_right()))
}

async fn idle(how: &How, lasting: Duration, settings: &Settings) -> Outcome {
    let options = how.options(settings)?;
    let work = async { Ok(trials::idle(lasting, &options).await?) };
    let Some(idle) = or_interrupted(work).await? else { return Ok(Exit::Interrupted) };
    how.keep(&idle, || Ok(page::idle(&idle)))?;
    Printer(settings.output).one(&idle, "idle", || show::idle(&idle))?;
    Ok(Exit::Succeeded)
}

/// Does something until Ctrl-C; `None` then. What it has started and made is ended and removed.
async fn or_interrupted<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<Option<T>> {
    tokio::select! {
        done = work => done.map(Some),
        _ = tokio::signal::ctrl_c() => Ok(None),
    }
}

/// Runs a scenario so often.
async fn repeat(scenario: &Scenario, options: &Options, times: u32, settings: &Settings) -> Outcome<Report> {
    let (started_at_ms, mut runs, mut machine) = (text::now_ms(), Vec::new(), Machine::default());
    for time in 1..=times {
        let what = if times > 1 { format!("run {time} of {times}") } else { String::new() };
        let (run, on) = run_once(scenario, options, &what, settings).await?;
        runs.push(run);
        machine = on;
    }
    Ok(Report::new(scenario.clone(), machine, started_at_ms, runs))
}

/// Runs a scenario, and shows how it goes.
async fn run_once(scenario: &Scenario, options: &Options, what: &str, settings: &Settings) -> Outcome<(Run, Machine)> {
    let (live, bar) = (Arc::new(Live::default()), Bar::new(settings));
    watched(Box::pin(run::run(scenario, options, &live)), &live, &bar, scenario.tasks(), what).await
}

/// Does something, and shows how it goes.
async fn watched<T>(
    work: impl Future<Output = Result<T, LoadError>>,
    live: &Live,
    bar: &Bar,
    tasks: u64,
    what: &str,
) -> Outcome<T> {
    let (mut work, mut clock) = (std::pin::pin!(work), tokio::time::interval(LOOK));
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            _ = clock.tick() => {
                let standing = live.standing();
                let shown = Shown { ended: standing.done, failed: standing.failed, tasks, all: true };
                bar.show_with(shown, &show::standing(&standing, what));
            }
        }
    };
    bar.finish();
    Ok(done?)
}

impl From<LoadError> for Problem {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Grid(error) => error.into(),
            LoadError::Scenario { .. } | LoadError::NoScenario { .. } | LoadError::NoFunction { .. } => Self::usage(
                error.to_string(),
            )
            .with_hint("`sheaf bench list` shows the scenarios there are; docs/performance.md says what one may hold"),
            LoadError::TimedOut { .. } => Self::new(Code::Unavailable, error.to_string())
                .with_hint("give it longer with --timeout, or fewer --tasks"),
            error => Self::new(Code::Internal, error.to_string()).with_code("bench").with_source(error),
        }
    }
}
