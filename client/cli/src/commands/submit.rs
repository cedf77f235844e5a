//! `sheaf submit`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::{Deserialize, Serialize};
use sheaf_api::{Api, Code, wire::CreateJob};
use sheaf_core::{Lane, Priority, limits};

use crate::{
    commands::wait,
    connect::{Need, Session},
    exit::Exit,
    feed,
    input::{Input, InputArgs},
    output::{Printer, facts},
    problem::{Outcome, Problem},
    settings::Settings,
    text,
    wait::interrupted,
};

/// Submit the tasks of a file or a range as a job, and print its id
#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// A job.toml that says all of this: the same names without the dashes, and a table [labels]
    file: Option<PathBuf>,
    #[command(flatten)]
    input: InputArgs,
    /// The function that runs the tasks: its name, or name@version
    #[arg(long)]
    function: Option<String>,
    #[command(flatten)]
    options: JobArgs,
    /// Wait for the job, and end with what became of it
    #[arg(long)]
    wait: bool,
    /// Only say what would be submitted
    #[arg(long)]
    dry_run: bool,
}

/// What is asked of a job.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct JobArgs {
    /// A name for people; need not be unique
    #[arg(long)]
    name: Option<String>,
    /// How urgent: high, normal or low
    #[arg(long)]
    priority: Option<Priority>,
    /// Where tasks may run on a grid with machines: lambda (by default), spot or on-demand
    #[arg(long)]
    lane: Option<Lane>,
    /// How often a task is tried if its function reports an error; 1 by default
    #[arg(long, value_name = "TIMES", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::TASK_ATTEMPTS_MAX)))]
    max_attempts: Option<u32>,
    /// No task starts later than this: a duration from now (2h) or a time (2026-01-31T18:00:00Z)
    #[arg(long, value_name = "WHEN")]
    deadline: Option<String>,
    /// Cancel the job once so many tasks have failed
    #[arg(long, value_name = "FAILURES", num_args = 0..=1, default_missing_value = "1")]
    fail_fast: Option<u64>,
    /// How long a task is expected to take: a hint, for the size of chunks and the number of machines
    #[arg(long, value_name = "DURATION")]
    expect: Option<String>,
    /// Tasks that travel together, instead of as many as suits how long they take
    #[arg(long, value_name = "TASKS", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::CHUNK_TASKS_MAX)))]
    chunk_tasks: Option<u32>,
    /// Something to find the job by; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,
    /// Those of a file.
    #[arg(skip)]
    labels: BTreeMap<String, String>,
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    pair.map(|(key, value)| (key.into(), value.into())).ok_or_else(|| format!("{text:?} is not KEY=VALUE"))
}

/// A job.toml.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JobFile {
    function: Option<String>,
    lines: Option<PathBuf>,
    ndjson: Option<PathBuf>,
    csv: Option<PathBuf>,
    array: Option<crate::input::Range>,
    name: Option<String>,
    priority: Option<Priority>,
    lane: Option<Lane>,
    max_attempts: Option<u32>,
    deadline: Option<String>,
    fail_fast: Option<u64>,
    expect: Option<String>,
    chunk_tasks: Option<u32>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// What `--dry-run` says.
#[derive(Debug, Serialize)]
struct DryRun {
    function: String,
    tasks: u64,
    payload_bytes: u64,
    work_us: Option<u64>,
    slots: u32,
}

impl JobArgs {
    /// The request, and how many tasks travel together.
    pub(crate) fn request(&self, function: String) -> Outcome<(CreateJob, Option<u32>)> {
        let deadline_ms = self.deadline.as_deref().map(text::parse_deadline).transpose();
        let in_ms = |text: &str| text::parse_duration(text).map(|task| (task.as_millis() as u64).max(1));
        let task_ms = self.expect.as_deref().map(in_ms).transpose();
        let mut labels = self.labels.clone();
        labels.extend(self.label.iter().cloned());
        let create = CreateJob {
            name: self.name.clone().unwrap_or_default(),
            priority: self.priority.unwrap_or_default(),
            lane: self.lane.unwrap_or_default(),
            max_attempts: self.max_attempts,
            deadline_ms: deadline_ms.map_err(Problem::usage)?,
            fail_fast: self.fail_fast,
            task_ms: task_ms.map_err(Problem::usage)?,
            labels,
            ..CreateJob::new(feed::job_id(), vec![function])
        };
        Ok((create, self.chunk_tasks))
    }
}

impl Submit {
    pub(crate) async fn run(mut self, settings: &Settings) -> Outcome {
        if let Some(file) = self.file.take() {
            self.merge(&file)?;
        }
        let function = self.function.clone().ok_or_else(|| {
            Problem::usage("no function is named")
                .with_hint("give --function NAME; `sheaf function list` shows those there are")
        })?;
        let input = self.input.open(&function)?.ok_or_else(|| {
            Problem::usage("no tasks are named")
                .with_hint("give --lines FILE, --ndjson FILE, --csv FILE or --array 1-1000")
        })?;
        let (create, chunk_tasks) = self.options.request(function.clone())?;
        if self.dry_run {
            return self.say(settings, &function, input).await;
        }
        self.check()?;
        let session = Session::open(settings, if self.wait { Need::Run } else { Need::Look }).await?;
        let submitted = async {
            let view = session.api().create_job(create).await?;
            let job = view.job.id;
            tokio::select! {
                fed = session.while_well(feed::feed(session.api(), &view, input, chunk_tasks)) => {
                    wait::then(&session, settings, fed?, self.wait).await
                }
                () = interrupted() => {
                    eprintln!(
                        "{job} is open with the tasks that were accepted: `sheaf job seal {job}` lets it end with those, \
                         `sheaf job cancel {job}` without"
                    );
                    Ok(Exit::Interrupted)
                }
            }
        };
        let outcome = submitted.await;
        wait::end(session, outcome).await
    }

    /// Takes from a file what was not given as a flag.
    fn merge(&mut self, path: &Path) -> Outcome<()> {
        let text = std::fs::read_to_string(path).map_err(|error| Problem::file("read", path, error))?;
        let file: JobFile = toml::from_str(&text).map_err(|error| {
            let problem =
                Problem::new(Code::Invalid, format!("{} is not a job.toml", path.display())).with_code("job_file");
            problem.at(path, &text, error.span().unwrap_or_default(), error.message())
        })?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        let beside = |path: Option<PathBuf>| path.map(|path| folder.join(path));
        if self.input.is_empty() {
            let (lines, ndjson, csv) = (beside(file.lines), beside(file.ndjson), beside(file.csv));
            self.input = InputArgs { lines, ndjson, csv, array: file.array };
        }
        self.function = self.function.take().or(file.function);
        let options = &mut self.options;
        options.name = options.name.take().or(file.name);
        options.priority = options.priority.or(file.priority);
        options.lane = options.lane.or(file.lane);
        options.max_attempts = options.max_attempts.or(file.max_attempts);
        options.deadline = options.deadline.take().or(file.deadline);
        options.fail_fast = options.fail_fast.or(file.fail_fast);
        options.expect = options.expect.take().or(file.expect);
        options.chunk_tasks = options.chunk_tasks.or(file.chunk_tasks);
        options.labels = file.labels;
        Ok(())
    }

    /// Reads a file to its end before any of it is submitted, so that nothing of a malformed one runs.
    fn check(&self) -> Outcome<()> {
        let checked = self.input.ndjson.is_some() || self.input.csv.is_some();
        if !checked || !self.input.can_be_read_twice() {
            return Ok(());
        }
        let function = self.function.as_deref().unwrap_or_default();
        let Some(mut input) = self.input.open(function)? else { return Ok(()) };
        while input.next_task()?.is_some() {}
        Ok(())
    }

    async fn say(&self, settings: &Settings, function: &str, mut input: Input) -> Outcome {
        let (mut tasks, mut payload_bytes) = (0, 0);
        while let Some(task) = input.next_task()? {
            tasks += 1;
            payload_bytes += task.payload.len() as u64;
        }
        let session = Session::open(settings, Need::Look).await?;
        let view = session.api().function(function).await?;
        let slots = match session.runs_nowhere() {
            true => settings.slots() as u32,
            false => session.api().grid().await?.slots,
        };
        let work_us = (view.estimate.tasks > 0).then_some((view.estimate.mean_us * tasks as f64) as u64);
        let dry = DryRun { function: view.reference.to_string(), tasks, payload_bytes, work_us, slots };
        let takes = match work_us {
            Some(us) => format!(
                "about {} on {}",
                text::duration_us(us / u64::from(slots.max(1))),
                text::counted(slots.into(), "slot")
            ),
            None => "not known: the function has not run here yet".to_owned(),
        };
        Printer(settings.output).one(&dry, &dry.function, || {
            facts(&[
                ("function", dry.function.clone()),
                ("tasks", text::count(tasks)),
                ("payloads", text::bytes(payload_bytes)),
                ("takes", takes),
            ])
        })?;
        eprintln!("nothing was submitted (--dry-run)");
        session.close().await;
        Ok(Exit::Succeeded)
    }
}
