//! `sheaf worker start`: this process as a worker of a grid that another one serves.

use std::{
    future::pending,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use serde::Serialize;
use sheaf_api::{ApiError, Code};
use sheaf_core::{Lane, WorkerId};
use sheaf_local::{Address, SystemClock};
use sheaf_protocol::{Clock, WorkerOptions};
use sheaf_remote::{Place, RemotePorts};
use sheaf_worker::{Ended, Notice, Options, Signal, watch_signals};
use tokio::sync::mpsc;

use crate::{
    exit::Exit,
    output::{Printer, facts},
    problem::{Outcome, Problem},
    settings::Settings,
    text,
};

/// A lease, and the pause between renewals: shorter than on AWS, as a write of a local grid costs next to nothing, and a
/// worker that is killed should not keep its chunks for long.
const LEASE_MS: u64 = 15_000;
const HEARTBEAT_MS: u64 = 3_000;
/// Notices that wait to be heeded.
const NOTICES_MAX: usize = 16;
/// How long what runs may go on once nobody is there any more who started this worker.
const ORPHAN: Duration = Duration::from_secs(5);

/// Add this machine to a grid: a worker in a process of its own, until it is told to stop
///
/// It takes tasks of the grid that `sheaf up` serves in the data directory, or at --grid URL with SHEAF_TOKEN or
/// SHEAF_TOKEN_FILE, and runs them here. Any number of workers may join and leave at any time. From another machine, the
/// grid is reached through a tunnel: ssh -L 7433:127.0.0.1:7433 HOST, then --grid http://127.0.0.1:7433.
///
/// On SIGTERM or Ctrl-C it takes no more tasks, gives those that run some time to end, and gives back the rest, which costs
/// them no attempt. A second signal drops everything at once. A worker that is killed is found out when its leases have run
/// out, after 15 s. A grid that is started again is found again.
#[derive(Debug, Args)]
#[command(after_long_help = EXIT_CODES)]
pub(crate) struct Start {
    /// How many tasks run at once; as many as there are processors by default [env: SHEAF_SLOTS]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) slots: Option<u32>,
    /// Which tasks it takes: those of lane lambda (where tasks go by default), spot or on-demand; all by default. May be
    /// given several times
    #[arg(long, value_name = "LANE")]
    lane: Vec<Lane>,
    /// Stop when there was nothing to do for so long
    #[arg(long, value_name = "DURATION", value_parser = text::parse_duration)]
    idle: Option<Duration>,
    /// On SIGTERM, have given everything back within this time: what runs may go on for all but 30 s of it, or for half
    #[arg(long, value_name = "DURATION", value_parser = text::parse_duration, default_value = "20s")]
    stop: Duration,
    /// Where functions are unpacked and run; a directory of its own in the temporary one by default, removed at the end
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// What `sheaf worker list` says where it is; the name of this machine by default
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// The id it goes by.
    #[arg(long, hide = true)]
    id: Option<WorkerId>,
    /// Stand for a machine: read notices from stdin, as lines of JSON, whose end means that whoever started this worker is
    /// gone; and be in a session of its own, for whoever ends the machine to find everything of it, and for Ctrl-C not to.
    #[arg(long, hide = true)]
    notices: bool,
}

const EXIT_CODES: &str = "\
Exit codes:
  0         it was told to stop, and everything it had is committed or given back
  1         it could not start, or the grid would not have it
  3         time was up before everything was given back; the rest goes to others when its leases have run out
  130, 143  a second Ctrl-C or SIGTERM: it has dropped everything";

/// A worker that has joined.
#[derive(Debug, Serialize)]
struct Joined {
    worker: WorkerId,
    grid: String,
    host: String,
    pid: u32,
    slots: usize,
    lanes: Vec<Lane>,
}

impl Start {
    pub(super) async fn run(self, settings: &Settings) -> Outcome {
        if self.notices {
            rustix::process::setsid().map_err(std::io::Error::from)?;
            // A machine that is frozen would never notice that whoever drives it is gone.
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::CONT))
                .map_err(std::io::Error::from)?;
        }
        let find = find(settings)?;
        let place = find().ok_or_else(|| nothing_runs(settings))?;
        let (told, noticed) = mpsc::channel(NOTICES_MAX);
        let (notices, heard) = mpsc::channel(NOTICES_MAX);
        let signals = watch_signals(notices.clone())
            .map_err(|error| Problem::new(Code::Internal, "signals cannot be received").with_source(error))?;
        // It reads until the end of stdin, or of the process.
        let _reading = self.notices.then(|| tokio::task::spawn_blocking(|| read_notices(notices)));
        let ports = RemotePorts::join(move || find()).await?;
        let scratch = Scratch::new(self.scratch.clone())?;
        let options = self.options(settings, scratch.path.clone());
        let joined = Joined {
            worker: options.worker.id.clone(),
            grid: place.url,
            host: options.host.clone(),
            pid: std::process::id(),
            slots: options.slots,
            lanes: options.lanes.clone(),
        };
        Printer(settings.output).one(&joined, &joined.worker.to_string(), || describe(&joined))?;
        let telling = tokio::spawn(pass_on(heard, told, self.stop));
        let ended = Box::pin(sheaf_worker::run(ports, options, noticed, None, pending(), |_| ())).await;
        telling.abort();
        signals.abort();
        let ended = ended
            .map_err(|error| Problem::new(Code::Internal, "the worker cannot run functions").with_source(error))?;
        Ok(match ended {
            Ended::Drained => Exit::Succeeded,
            // The same number: not everything came to its end here.
            Ended::Late => Exit::TasksFailed,
            Ended::Dropped(Signal::Interrupt) => Exit::Interrupted,
            Ended::Dropped(Signal::Terminate) => Exit::Terminated,
        })
    }

    fn options(&self, settings: &Settings, scratch: PathBuf) -> Options {
        let id = self.id.clone().unwrap_or_else(|| WorkerId::remote_from_uuid(uuid::Uuid::now_v7()));
        let lanes =
            if self.lane.is_empty() { vec![Lane::Lambda, Lane::Spot, Lane::OnDemand] } else { self.lane.clone() };
        Options {
            worker: WorkerOptions { lease_ms: LEASE_MS, heartbeat_ms: HEARTBEAT_MS, ..WorkerOptions::new(id) },
            host: self.host.clone().unwrap_or_else(host_name),
            lanes,
            slots: settings.slots().max(1),
            scratch,
            stop: self.stop,
            idle: self.idle,
        }
    }
}

/// Where the grid is, whenever asked.
fn find(settings: &Settings) -> Outcome<Arc<sheaf_remote::Find>> {
    match &settings.client.place.value {
        sheaf::Place::Directory(directory) => {
            let directory = directory.clone();
            Ok(Arc::new(move || served(&directory)))
        }
        sheaf::Place::Url(url) => {
            let token = settings.client.token.value.read().map_err(sheaf::GridError::from)?;
            let place = Place { url: url.to_string(), token };
            Ok(Arc::new(move || Some(place.clone())))
        }
        place => Err(Problem::usage(format!("the grid is {place}, which other processes cannot join"))
            .with_hint("give --grid URL or --grid DIR; on AWS, workers are containers")),
    }
}

/// The grid that is served in a directory, if one is.
fn served(directory: &Path) -> Option<Place> {
    let address = Address::read(directory)?;
    let token = std::fs::read_to_string(&address.token_file).ok()?;
    Some(Place { url: address.url, token: token.trim().into() })
}

fn nothing_runs(settings: &Settings) -> Problem {
    let message = format!("no grid is running in {}", settings.client.place.value);
    Problem::from(ApiError::new(Code::Unavailable, message)).with_hint("`sheaf up` starts one; or give --grid URL")
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// Passes notices on, and says what they mean.
async fn pass_on(mut heard: mpsc::Receiver<Notice>, told: mpsc::Sender<Notice>, stop: Duration) {
    while let Some(notice) = heard.recv().await {
        match notice {
            Notice::Signal(_) => eprintln!(
                "stopping within {}: takes no more, gives back what does not end; a second signal drops everything",
                text::duration(stop)
            ),
            Notice::Reclaim { .. } | Notice::Rebalance => eprintln!("stopping: the machine is taken away"),
            Notice::Drain { .. } | Notice::Idle => eprintln!("stopping: it is wanted no longer"),
        }
        if told.send(notice).await.is_err() {
            return;
        }
    }
}

/// Notices from whoever started this process, until they are gone.
fn read_notices(notices: mpsc::Sender<Notice>) {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match serde_json::from_str(&line) {
            Ok(notice) => {
                if notices.blocking_send(notice).is_err() {
                    return;
                }
            }
            Err(error) => eprintln!("{line:?} is no notice: {error}"),
        }
    }
    let until_ms = SystemClock.now_ms() + ORPHAN.as_millis() as u64;
    // It may have ended itself.
    let _ = notices.blocking_send(Notice::Drain { until_ms });
}

/// Where functions run; removed at the end if it was made here.
struct Scratch {
    path: PathBuf,
    is_ours: bool,
}

impl Scratch {
    fn new(given: Option<PathBuf>) -> Outcome<Self> {
        let is_ours = given.is_none();
        let path = given.unwrap_or_else(|| std::env::temp_dir().join(format!("sheaf-worker-{}", std::process::id())));
        std::fs::create_dir_all(&path).map_err(|error| Problem::file("made", &path, error))?;
        Ok(Self { path, is_ours })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.is_ours {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn describe(joined: &Joined) -> String {
    let lanes: Vec<_> = joined.lanes.iter().map(ToString::to_string).collect();
    facts(&[
        ("worker", format!("{} ({})", joined.worker, text::counted(joined.slots as u64, "slot"))),
        ("grid", joined.grid.clone()),
        ("host", format!("{}, process {}", joined.host, joined.pid)),
        ("lanes", lanes.join(", ")),
    ])
}
