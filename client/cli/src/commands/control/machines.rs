//! Machines for a bag: worker processes of this machine, as many as the policy wants.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process::Stdio,
};

use clap::Args;
use sheaf_api::{Code, wire::WorkerView};
use sheaf_core::{Chunk, ChunkKey, ChunkState, JobId, ReleaseReason, WorkerId, limits};
use sheaf_machines::{Event, Fleet, FleetSpec, Grid, Launch, MachineRecord, TaskNow};
use sheaf_protocol::{Ports, StateStore, work};
use sheaf_scheduler::{
    PolicyName, Settings as Told,
    formats::spot,
    sim::{
        bags::{BOOT_S, pools},
        faults::{FaultMode, Faults},
        fleet::PoolSpec,
    },
    simulate::Entry,
};
use tokio::process::{Child, Command};

use crate::{
    bags::{parse_dollars, parse_seconds, read},
    commands::simulate::{Fault, parse_scenario},
    problem::{Outcome, Problem},
};

/// From the notice to the end of a machine, unless said otherwise. Source: EC2.
const NOTICE_S: f64 = 120.0;

/// Machines that worker processes stand for.
#[derive(Debug, Args)]
pub(super) struct MachineArgs {
    /// Run the bag on worker processes that stand for the machine types of env.json, as many as the policy wants: booted,
    /// drained and taken away like machines
    #[arg(long)]
    pub(super) machines: bool,
    /// Seconds that a machine boots
    #[arg(long, value_name = "TIME", value_parser = parse_seconds, default_value_t = BOOT_S, requires = "machines")]
    boot: f64,
    /// Seconds of the plan that pass in a second here: with 60, a boot of a minute takes a second
    #[arg(long, value_name = "FACTOR", value_parser = parse_scale, default_value_t = 1.0, requires = "machines")]
    pub(super) time_scale: f64,
    /// Dollars that the machines may cost at most, under the policy sheaf. When they are spent, nothing more is started, what runs is
    /// given two minutes, and the rest of the job is cancelled
    #[arg(long, value_name = "DOLLARS", value_parser = parse_dollars, allow_hyphen_values = true, requires = "machines")]
    pub(super) budget: Option<f64>,
    /// Take spot machines away: so many expected until the deadline, and so many times that capacity returns, as in `sheaf
    /// simulate`
    #[arg(long, value_name = "KH,KR", value_parser = parse_scenario, requires = "machines")]
    scenario: Option<(f64, f64)>,
    /// A fault takes all spot machines of a type, not one at a time
    #[arg(long, requires = "scenario")]
    together: bool,
    /// Take spot machines away, and refuse new ones, as a file of lines type,down_s,up_s says
    #[arg(long, value_name = "FILE", requires = "machines", conflicts_with = "scenario")]
    spot_trace: Option<PathBuf>,
    /// The seed of the faults
    #[arg(long, value_name = "NUMBER", default_value_t = 1, requires = "machines")]
    seed: u64,
    /// What a fault does to a machine
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Fault::Terminate, requires = "machines")]
    fault: Fault,
    /// Seconds from the notice to the end of a machine that is taken away, 120 unless said otherwise; `none` for an end without
    /// notice. TYPE=TIME is for the machines of one type; may be given several times. A machine that hibernates gets no notice
    #[arg(long, value_name = "[TYPE=]TIME", value_parser = parse_notice, requires = "machines")]
    notice: Vec<(Option<String>, f64)>,
    /// Machines at most, for the rules for elastic workers; `fixed` holds as many
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..), requires = "machines")]
    workers_max: Option<u32>,
}

fn parse_scale(text: &str) -> Result<f64, String> {
    let factor = text.parse().ok().filter(|factor: &f64| (1e-3..=1e6).contains(factor));
    factor.ok_or_else(|| format!("{text:?} is not a factor from 0.001 to 1000000"))
}

fn parse_notice(text: &str) -> Result<(Option<String>, f64), String> {
    let (machine, time) = match text.split_once('=') {
        Some((machine, time)) => (Some(machine.to_owned()), time),
        None => (None, text),
    };
    let seconds = if time == "none" { Ok(0.0) } else { parse_seconds(time) };
    seconds.map(|seconds| (machine, seconds)).map_err(|error| format!("{error}; or none"))
}

impl MachineArgs {
    /// What the policy is told.
    pub(super) fn told(&self) -> Told {
        let default = Told::default();
        Told { workers_max: self.workers_max.unwrap_or(default.workers_max), ..default }
    }

    /// Whether there is a fleet for a bag, before anything is made for it.
    pub(super) fn check(&self, entry: &Entry, deadline_s: f64) -> Outcome<()> {
        if self.machines { self.spec(entry, &[], deadline_s).map(drop) } else { Ok(()) }
    }

    /// The fleet for a bag, whose tasks are submitted in this order.
    pub(super) fn spec(&self, entry: &Entry, tasks: &[&str], deadline_s: f64) -> Outcome<FleetSpec> {
        let (bag, env) = (&entry.bag, &entry.bag.env);
        let mut pools = pools(bag, self.boot, false);
        // They are all processes of this machine.
        pools.iter_mut().for_each(|spec| spec.pool.speed = 1.0);
        if pools.iter().all(|spec| spec.pool.machines_max == 0) {
            return Err(Problem::usage("env.json has no machine type that may be started")
                .with_hint("open a market of a type that is not burstable, and give it a limit above 0"));
        }
        let work_s = |id: &&str| {
            let task = bag.job.tasks.iter().position(|task| task.id == **id)?;
            (0..env.instances.len()).find_map(|kind| bag.runtime_s(task, kind))
        };
        let faults = self.faults(deadline_s)?;
        let notice_s = self.notice_s(&pools)?;
        Ok(FleetSpec {
            pools,
            spot_max: env.spot_max,
            on_demand_max: env.on_demand_max,
            faults,
            seed: self.seed,
            fault: self.fault.kind(),
            notice_s,
            time_scale: self.time_scale,
            settings: self.told(),
            job: entry.name.clone(),
            tasks_s: tasks.iter().map(|id| work_s(id).unwrap_or_default()).collect(),
            deadline_s,
            budget: self.budget,
        })
    }

    fn faults(&self, deadline_s: f64) -> Outcome<Faults> {
        let hibernates = self.fault == Fault::Hibernate;
        match (&self.spot_trace, self.scenario) {
            (Some(path), _) => {
                let outages = read(path, spot::parse)?;
                if hibernates && !outages.iter().any(|outage| outage.up_s.is_finite()) {
                    let message =
                        format!("no outage of {} ends, so that what hibernates never comes back", path.display());
                    return Err(
                        Problem::usage(message).with_hint("give its lines an up_s, or leave out --fault hibernate")
                    );
                }
                Ok(Faults::Trace(outages))
            }
            (None, Some(expected)) => {
                let mode = if self.together { FaultMode::Together } else { FaultMode::Each };
                Ok(Faults::expected(expected, deadline_s, mode))
            }
            (None, None) if hibernates => Err(Problem::usage("--fault hibernate, but nothing takes machines away")
                .with_hint("give --scenario KH,KR or --spot-trace FILE")),
            (None, None) => Ok(Faults::None),
        }
    }

    /// By pool. What is said of a type counts before what is said of all, and of both the last.
    fn notice_s(&self, pools: &[PoolSpec]) -> Outcome<Vec<f64>> {
        if self.fault == Fault::Hibernate && !self.notice.is_empty() {
            return Err(Problem::usage(
                "--notice is of machines that end: hibernation begins at the moment it is told",
            )
            .with_hint("leave out --notice, or give --fault terminate"));
        }
        let of =
            |machine: Option<&str>| self.notice.iter().rev().find(|(of, _)| of.as_deref() == machine).map(|of| of.1);
        let known = |machine: &String| pools.iter().any(|spec| spec.pool.machine == *machine);
        if let Some(machine) = self.notice.iter().filter_map(|(machine, _)| machine.as_ref()).find(|of| !known(of)) {
            let types: Vec<_> = pools.iter().map(|spec| spec.pool.machine.as_str()).step_by(2).collect();
            return Err(Problem::usage(format!("--notice is of {machine}, which is no machine type of env.json"))
                .with_hint(format!("it has {}", types.join(", "))));
        }
        let all_s = of(None).unwrap_or(NOTICE_S);
        Ok(pools.iter().map(|spec| of(Some(&spec.pool.machine)).unwrap_or(all_s)).collect())
    }
}

/// The grid of this process, and how workers of it are started.
#[derive(Debug)]
pub(super) struct Local<'a> {
    grid: &'a sheaf_local::Grid,
    job: JobId,
    tasks: usize,
    program: PathBuf,
    directory: PathBuf,
    scratch: PathBuf,
    /// Where workers say what they have to say.
    log: File,
}

impl<'a> Local<'a> {
    pub(super) fn new(
        grid: &'a sheaf_local::Grid,
        directory: PathBuf,
        folder: &Path,
        job: JobId,
        tasks: usize,
    ) -> Outcome<Self> {
        let program = std::env::current_exe().map_err(|error| {
            Problem::new(Code::Internal, "the program of the workers, which is this one, cannot be found")
                .with_source(error)
        })?;
        let path = folder.join("machines.log");
        let log = File::create(&path).map_err(|error| Problem::file("made", &path, error))?;
        let scratch = directory.join("scratch").join("machines");
        Ok(Self { grid, job, tasks, program, directory, scratch, log })
    }

    /// The chunks of the job, a task each, in the order of their submission; those that are not there yet are left out at
    /// the end.
    pub(super) async fn chunks(&self) -> Option<Vec<Chunk>> {
        let mut chunks: Vec<Chunk> = Vec::with_capacity(self.tasks);
        loop {
            let from = chunks.len() as u32;
            let page = self.grid.ports().state().chunks_from(self.job, from, limits::PAGE_ROWS_MAX).await;
            let page =
                page.inspect_err(|error| tracing::warn!(%error, "the grid does not say how tasks stand")).ok()?;
            if page.is_empty() {
                return Some(chunks);
            }
            chunks.extend(page);
        }
    }
}

impl Grid for Local<'_> {
    fn start(&self, launch: &Launch) -> io::Result<Child> {
        let scratch = self.scratch.join(launch.worker.to_string());
        let mut command = Command::new(&self.program);
        command
            .args(["worker", "start", "--notices", "--output", "id", "--host", &launch.host])
            .args(["--id", &launch.worker.to_string(), "--slots", &launch.slots.to_string()])
            .args(launch.lanes.iter().flat_map(|lane| ["--lane", lane.as_str()]))
            .arg("--grid")
            .arg(&self.directory)
            .arg("--scratch")
            .arg(scratch)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(self.log.try_clone()?)
            .kill_on_drop(true);
        command.spawn()
    }

    async fn look(&self) -> Option<Vec<TaskNow>> {
        let mut tasks: Vec<TaskNow> = self.chunks().await?.iter().map(now).collect();
        tasks.resize(self.tasks.max(tasks.len()), TaskNow::Waiting);
        Some(tasks)
    }

    async fn give_back(&self, worker: &WorkerId, reason: ReleaseReason) -> Vec<ChunkKey> {
        self.grid.give_back(worker, reason).await.unwrap_or_else(|error| {
            tracing::warn!(%worker, %error, "what a machine held waits for its lease to run out");
            Vec::new()
        })
    }

    async fn hedge(&self, tasks: &[usize]) {
        let numbers = tasks.iter().filter_map(|&task| u32::try_from(task).ok());
        let keys: Vec<ChunkKey> = numbers.map(|number| ChunkKey { job: self.job, number }).collect();
        match self.grid.ports().state().chunks(&keys).await {
            Ok(chunks) => work::hedge(self.grid.ports(), &chunks.into_iter().flatten().collect::<Vec<_>>()).await,
            Err(error) => tracing::warn!(%error, "second copies are not made"),
        }
    }

    async fn copies(&self) -> Option<Vec<(WorkerId, usize)>> {
        let workers = self.grid.ports().state().workers().await;
        let workers =
            workers.inspect_err(|error| tracing::warn!(%error, "the grid does not say what is copied")).ok()?;
        let ours = |key: &&ChunkKey| key.job == self.job;
        let of = |worker: &WorkerView| -> Vec<(WorkerId, usize)> {
            worker.copies.iter().filter(ours).map(|key| (worker.id.clone(), key.number as usize)).collect()
        };
        Some(workers.iter().flat_map(of).collect())
    }

    async fn owner(&self, task: usize) -> Option<WorkerId> {
        let key = ChunkKey { job: self.job, number: u32::try_from(task).ok()? };
        let chunk = self.grid.ports().state().chunks(&[key]).await.ok()?.pop().flatten()?;
        match chunk.state {
            ChunkState::Leased(lease) => Some(lease.attempt.owner.worker),
            ChunkState::Done { attempt, .. } => Some(attempt.owner.worker),
            ChunkState::Queued { .. } | ChunkState::Ended { .. } => None,
        }
    }

    fn ended(&self, worker: &WorkerId) {
        let _ = std::fs::remove_dir_all(self.scratch.join(worker.to_string()));
    }
}

fn now(chunk: &Chunk) -> TaskNow {
    match &chunk.state {
        ChunkState::Queued { .. } => TaskNow::Waiting,
        ChunkState::Leased(lease) => {
            TaskNow::Running { worker: lease.attempt.owner.worker.clone(), since_ms: lease.since_ms }
        }
        ChunkState::Done { .. } | ChunkState::Ended { .. } => TaskNow::Over,
    }
}

/// The file of everything that happened to machines, a line of JSON each.
#[derive(Debug)]
pub(super) struct EventFile {
    path: PathBuf,
    file: BufWriter<File>,
    failed: Option<io::Error>,
}

impl EventFile {
    pub(super) fn create(folder: &Path) -> Outcome<Self> {
        let path = folder.join("events.ndjson");
        let file = File::create(&path).map_err(|error| Problem::file("made", &path, error))?;
        Ok(Self { path, file: BufWriter::new(file), failed: None })
    }

    pub(super) fn write(&mut self, event: &Event) {
        let line = serde_json::to_string(event).expect("an event becomes JSON");
        // Each at once: whoever looks meanwhile sees it.
        if let Err(error) = writeln!(self.file, "{line}").and_then(|()| self.file.flush()) {
            self.failed.get_or_insert(error);
        }
    }

    /// Whether all of it is there.
    pub(super) fn close(self) -> Outcome<()> {
        match self.failed {
            None => Ok(()),
            Some(error) => Err(Problem::file("written", &self.path, error)),
        }
    }
}

/// A fleet under a policy.
pub(super) fn fleet<'a>(spec: FleetSpec, policy: PolicyName, events: &'a mut EventFile) -> Fleet<'a> {
    let policy = spec.settings.policy(policy);
    Fleet::new(spec, policy, |event| events.write(event))
}

/// What became of the machines, and of the chunks that they ran.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) machines: Vec<MachineRecord>,
    pub(super) chunks: Vec<Chunk>,
}
