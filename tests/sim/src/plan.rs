//! What a seed makes the world do: jobs, who submits them and how, who disturbs them, and who runs them.

use sheaf_api::{
    PackBuilder,
    wire::{CreateJob, SubmitChunk},
};
use sheaf_core::{FunctionKind, FunctionName, FunctionRef, JobId, Lane, Manifest, Priority, Seal, TenantId, limits};

use crate::{
    executor::START_MS,
    faults::{Faults, Weather},
    runner::{Deed, Errand},
};

/// How large a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// A few jobs of a few chunks of a few tasks: a few milliseconds to run.
    Small,
    /// One job of this many tasks, a thousand in each chunk.
    Large {
        /// The tasks.
        tasks: u32,
    },
    /// A long queue and few workers, and nothing goes wrong.
    Backlog,
}

/// How a client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// It lives, and when it is killed it starts again with its journal.
    Faithful,
    /// It is gone for good after so many chunks.
    Mortal(u32),
    /// An upload of so many events: each starts another one. They come more than once, or all of them are lost.
    Upload(u32),
}

/// A job of the run.
#[derive(Debug, Clone)]
pub struct JobPlan {
    /// Its id.
    pub id: JobId,
    /// Whose.
    pub tenant: TenantId,
    /// What is asked.
    pub request: CreateJob,
    /// Its chunks.
    pub chunks: Vec<Vec<Errand>>,
    /// Who submits it.
    pub client: Client,
    /// When that starts, in ms.
    pub starts_ms: u64,
    /// When somebody cancels it, in ms after that.
    pub cancelled_ms: Option<u64>,
    /// Whether what fails is tried again as a new job.
    pub retried: bool,
    /// Whether somebody submits something else under its name.
    pub contested: bool,
    /// Whether a stranger tries to read and cancel it.
    pub pried: bool,
}

impl JobPlan {
    /// A chunk of it.
    pub fn chunk(&self, number: usize) -> SubmitChunk {
        let task_first = self.chunks[..number].iter().map(|chunk| chunk.len() as u64).sum();
        let mut builder = PackBuilder::new();
        for errand in &self.chunks[number] {
            builder.push(&errand.payload()).expect("a few bytes fit a pack");
        }
        SubmitChunk { number: number as u32, task_first, pack: builder.finish(false) }
    }

    /// Its size.
    pub fn seal(&self) -> Seal {
        Seal { chunks: self.chunks.len() as u32, tasks: self.chunks.iter().map(|chunk| chunk.len() as u64).sum() }
    }
}

/// A pool of workers.
#[derive(Debug, Clone, Copy)]
pub struct Pool {
    /// Whether its machines are reclaimed, rather than ended after 15 minutes.
    pub spot: bool,
    /// Chunks that one worker holds at once.
    pub chunks: usize,
    /// Calls that one worker runs at once.
    pub slots: usize,
    /// How long a new worker takes to start, in ms.
    pub boot_ms: u64,
}

/// Everything that a seed decides beforehand.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What can go wrong.
    pub weather: Weather,
    /// How often.
    pub faults: Faults,
    /// The jobs.
    pub jobs: Vec<JobPlan>,
    /// The workers.
    pub pools: Vec<Pool>,
    /// When faults stop, in ms from the start.
    pub storm_ms: u64,
    /// The functions that jobs name.
    pub functions: Vec<Manifest>,
}

/// Somebody who has no business with the others' jobs.
pub(crate) fn stranger() -> TenantId {
    "stranger".parse().expect("a tenant")
}

/// The function that writes checkpoints.
pub(crate) const SAVING: &str = "saving";

fn name(text: &str) -> FunctionName {
    text.parse().expect("a function's name")
}

/// The functions: one task at a time, a whole chunk at once, one whose tasks keep their order, and one that writes checkpoints.
fn functions() -> Vec<Manifest> {
    let handler = |text| Manifest {
        timeout_ms: 20_000,
        ..Manifest::new(name(text), FunctionKind::Handler { revision: String::new() })
    };
    vec![
        handler("single"),
        Manifest { batch: true, ..handler("batch") },
        Manifest { ordered: true, ..handler("ordered") },
        Manifest { checkpoint_every_ms: Some(limits::CHECKPOINT_EVERY_MS_MIN), ..handler(SAVING) },
    ]
}

/// The version of a function of the simulation.
pub(crate) fn reference(manifest: &Manifest) -> FunctionRef {
    manifest.reference(&sheaf_api::stream::manifest_json(manifest))
}

impl Plan {
    /// Draws a plan.
    pub fn draw(size: Size, weather: Option<Weather>, rng: &mut fastrand::Rng) -> Self {
        let drawn = match rng.u32(..20) {
            0..2 => Weather::Calm,
            2..7 => Weather::Gentle,
            _ => Weather::Rough,
        };
        match size {
            Size::Small => Self::small(weather.unwrap_or(drawn), rng),
            Size::Large { tasks } => Self::large(tasks, weather.unwrap_or(Weather::Rough), rng),
            Size::Backlog => Self::backlog(rng),
        }
    }

    fn small(weather: Weather, rng: &mut fastrand::Rng) -> Self {
        let faults = Faults::draw(weather, rng);
        let jobs = (0..rng.u32(1..=3)).map(|number| job(number, weather, rng)).collect();
        let pool = |rng: &mut fastrand::Rng| Pool {
            spot: rng.bool(),
            chunks: rng.usize(1..=4),
            slots: rng.usize(1..=3),
            boot_ms: rng.u64(100..=20_000),
        };
        let pools = (0..rng.usize(1..=3)).map(|_| pool(rng)).collect();
        let storm_ms = rng.u64(30_000..=300_000);
        Self { weather, faults, jobs, pools, storm_ms, functions: functions() }
    }

    fn large(tasks: u32, weather: Weather, rng: &mut fastrand::Rng) -> Self {
        let mut faults = Faults::draw(weather, rng);
        // What a bad night looks like; a small run draws worse, to meet more of it in less time.
        faults.crash = faults.crash.min(0.002);
        faults.pause = faults.pause.min(0.0005);
        faults.late = faults.late.min(0.005);
        faults.full = faults.full.min(0.0005);
        // From 0.1 to 20 ms a task, so 0.1 to 20 s a chunk.
        let us = 10f64.powf(2.0 + 2.3 * rng.f64()) as u32;
        let chunk = |number: u32| {
            let salt = |task| number * 1_000 + task;
            (0..1_000).map(|task| Errand { deed: Deed::Succeed, us, salt: salt(task) }).collect::<Vec<_>>()
        };
        let function = if rng.bool() { "single" } else { "batch" };
        let plan = JobPlan {
            chunks: (0..tasks.div_ceil(1_000)).map(chunk).collect(),
            ..plain(0, function, Client::Faithful, rng)
        };
        let pool = Pool { spot: rng.bool(), chunks: 4, slots: 4, boot_ms: 5_000 };
        Self { weather, faults, jobs: vec![plan], pools: vec![pool; 8], storm_ms: 600_000, functions: functions() }
    }

    fn backlog(rng: &mut fastrand::Rng) -> Self {
        let chunks = rng.u32(50..=200);
        let us = rng.u32(1_000_000..=5_000_000);
        let errand = |salt| vec![Errand { deed: Deed::Succeed, us, salt }];
        let plan = JobPlan { chunks: (0..chunks).map(errand).collect(), ..plain(0, "single", Client::Faithful, rng) };
        let pool = Pool { spot: true, chunks: 1, slots: 1, boot_ms: 1_000 };
        Self {
            weather: Weather::Calm,
            faults: Faults::default(),
            jobs: vec![plan],
            pools: vec![pool],
            storm_ms: 1_000,
            functions: functions(),
        }
    }
}

fn plain(number: u32, function: &str, client: Client, rng: &mut fastrand::Rng) -> JobPlan {
    let mut id = [0; 16];
    rng.fill(&mut id);
    let id = JobId::from_bytes(id);
    let tenant = format!("tenant-{}", number % 2).parse().expect("a tenant");
    JobPlan {
        id,
        tenant,
        request: CreateJob::new(id, vec![function.to_owned()]),
        chunks: Vec::new(),
        client,
        starts_ms: 0,
        cancelled_ms: None,
        retried: false,
        contested: false,
        pried: false,
    }
}

fn job(number: u32, weather: Weather, rng: &mut fastrand::Rng) -> JobPlan {
    let function = ["single", "single", "batch", "ordered"][rng.usize(..4)];
    let chunks = if function == "ordered" { 1 } else { rng.u32(0..=6) };
    let client = match rng.u32(..10) {
        0 => Client::Mortal(rng.u32(0..=chunks)),
        // A few of them are never heard of.
        1..3 => Client::Upload(rng.u32(..16).div_ceil(5)),
        _ => Client::Faithful,
    };
    let mut plan = plain(number, function, client, rng);
    // Tasks of one job are of one length; some jobs are long, so that leases are renewed and run out.
    let us = 10f64.powf(rng.f64() * if rng.u32(..5) == 0 { 7.5 } else { 6.0 }) as u32;
    let guilty = rng.u32(..4) == 0;
    let salt = rng.u32(..) & 0xffff_0000;
    let saves = function == "single" && salt >> 16 & 3 == 1;
    // Long enough to be interrupted, some so long that they outlast the longest notice.
    let us = match saves {
        true if salt >> 18 & 1 == 1 => 150_000_000,
        true => us.saturating_mul(30).clamp(2_000_000, 30_000_000),
        false => us,
    };
    if saves {
        plan.request.functions = vec![SAVING.to_owned()];
    }
    let mut next = 0;
    let mut errand = |rng: &mut fastrand::Rng| {
        next += 1;
        let deed = if guilty && rng.u32(..3) == 0 { deed(rng) } else { Deed::Succeed };
        Errand { deed, us, salt: salt + next }
    };
    let sizes = (0..chunks).map(|_| if rng.u32(..8) == 0 { rng.usize(5..=20) } else { rng.usize(1..=4) });
    let sizes: Vec<usize> = sizes.collect();
    plan.chunks = sizes.into_iter().map(|tasks| (0..tasks).map(|_| errand(rng)).collect()).collect();
    plan.starts_ms = rng.u64(0..=20_000);
    let chance = |rng: &mut fastrand::Rng, of: u32| rng.u32(..of) == 0;
    plan.cancelled_ms = chance(rng, 5).then(|| rng.u64(0..=60_000));
    plan.retried = chance(rng, 3);
    plan.contested = chance(rng, 8);
    plan.pried = chance(rng, 6);
    let request = &mut plan.request;
    request.max_attempts = Some(rng.u32(1..=3));
    request.deadline_ms = chance(rng, 8).then(|| START_MS + rng.u64(10_000..=200_000));
    request.fail_fast = chance(rng, 10).then(|| rng.u64(1..=3));
    request.priority = Priority::ALL[rng.usize(..3)];
    request.lane = [Lane::Lambda, Lane::Spot, Lane::OnDemand][rng.usize(..3)];
    request.retention_ms = Some(limits::HINT_AGE_MS);
    if weather == Weather::Calm {
        plan.client = Client::Faithful;
    }
    plan
}

fn deed(rng: &mut fastrand::Rng) -> Deed {
    match rng.u32(..8) {
        0 | 1 => Deed::Fail,
        2 | 3 => Deed::Flaky(rng.u8(1..=3)),
        4 => Deed::Poison,
        5 => Deed::Die,
        6 => Deed::DieAtFirst(rng.u8(1..=2)),
        _ => Deed::Hang,
    }
}
