//! A worker that is a process of its own, from its start to its end.

use std::{convert::Infallible, path::PathBuf, pin::pin, sync::Arc, time::Duration};

use sheaf_api::wire::WorkerView;
use sheaf_core::Lane;
use sheaf_host::{Handlers, Host, HostError, HostOptions, Invoker};
use sheaf_protocol::{Clock, Drain, Ports, StateStore, Worker, WorkerOptions};
use tokio::{
    sync::{Notify, mpsc},
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    Counts, Crew, CrewOptions, Gate, HostRunner, StoredPackages,
    notice::{Notice, Signal, Stop},
};

/// The longest that one receive waits. Source: SQS.
const RECEIVE_MS: u64 = 20_000;
/// Chunks taken beyond one a slot while they are short, so that claiming and committing one hides behind running another.
const SHORT_CHUNKS_AHEAD: usize = 4;
/// Chunks are short if they take less: then one that is taken ahead is not kept from others for long.
const SHORT: Duration = Duration::from_secs(2);
/// How often it asks itself whether it has been idle for too long.
const IDLE_LOOK: Duration = Duration::from_secs(1);
/// How often it tells what became of hints. Source: CloudWatch keeps a value a minute.
const TELLING: Duration = Duration::from_secs(60);
/// How long saying good-bye may take.
const GOOD_BYE: Duration = Duration::from_secs(3);

/// How a worker that is a process works.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its id, and how it leases. It says that it is alive as often as it renews.
    pub worker: WorkerOptions,
    /// Where it is, for people.
    pub host: String,
    /// Which chunks it takes.
    pub lanes: Vec<Lane>,
    /// How many tasks it runs at once; at least 1.
    pub slots: usize,
    /// Where functions are unpacked and run. One worker at a time may use it.
    pub scratch: PathBuf,
    /// Time from SIGTERM to SIGKILL.
    pub stop: Duration,
    /// It ends by itself when it has had nothing to do for so long.
    pub idle: Option<Duration>,
}

/// How a worker has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything it had is committed or given back.
    Drained,
    /// Time was up before everything was given back. What is left goes to others when its lease has run out.
    Late,
    /// It was told a second time, and has dropped everything.
    Dropped(Signal),
}

impl Ended {
    /// The exit code that says so.
    pub const fn exit_code(self) -> i32 {
        match self {
            Self::Drained => 0,
            Self::Late => 3,
            Self::Dropped(signal) => signal.exit_code(),
        }
    }
}

/// What a worker tells of itself.
#[derive(Debug)]
pub enum Heard<'a> {
    /// What became of hints: every minute, and at the end.
    Counts(Counts),
    /// How it stands: whenever it says that it is alive.
    Alive(&'a WorkerView),
}

type ProcessCrew<P> = Crew<P, Gate<HostRunner>>;

/// Claims chunks and runs them until a notice says to stop; then gives back what it cannot finish. `invoker` is who
/// invokes functions by their ARN, if somebody can. `beside` is polled for as long as it works: what the ports need while
/// chunks are held. `hear` is told how it goes.
pub async fn run<P: Ports>(
    ports: P,
    options: Options,
    mut notices: mpsc::Receiver<Notice>,
    invoker: Option<Arc<dyn Invoker>>,
    beside: impl Future<Output = Infallible>,
    hear: impl Fn(Heard<'_>),
) -> Result<Ended, HostError> {
    let id = options.worker.id.clone();
    let slots = options.slots.max(1);
    let handlers = Handlers::new();
    let host = Host::open(
        HostOptions::builder()
            .scratch(options.scratch.clone())
            .slots(slots)
            .handlers(handlers.clone())
            .packages(Arc::new(StoredPackages(ports.clone())))
            .maybe_invoker(invoker)
            .build(),
    )?;
    let drain = Arc::new(Drain::default());
    let gate = Arc::new(Gate::new(HostRunner { host: host.clone(), handlers }));
    let worker = Worker::new(ports.clone(), gate.clone(), options.worker.clone(), drain.clone());
    let crew_options = CrewOptions {
        lanes: options.lanes.clone(),
        held_max: slots,
        held_short_max: slots + SHORT_CHUNKS_AHEAD,
        short: SHORT,
        wait_ms: RECEIVE_MS,
    };
    let crew = Arc::new(Crew::new(ports.clone(), worker, drain.clone(), crew_options));
    tracing::info!(worker = %id, host = options.host, lanes = ?options.lanes, slots, "takes chunks");

    let stopping = Notify::new();
    let ended = {
        let mut work = pin!(async {
            crew.receive(|| std::future::ready(())).await;
            crew.ended().await;
        });
        let mut alive = pin!(say_alive(&ports, &crew, &options, &stopping, &hear));
        let mut beside = pin!(beside);
        let mut telling = interval(TELLING);
        let mut looks = interval(IDLE_LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop: Option<Stop> = None;
        let mut signalled = false;
        loop {
            let over_ms = stop.map_or(u64::MAX, Stop::over_ms);
            let notice = tokio::select! {
                () = &mut work => break Ended::Drained,
                Some(notice) = notices.recv() => notice,
                _ = looks.tick(), if stop.is_none() => match options.idle {
                    Some(idle) if crew.idle() >= idle => Notice::Idle,
                    _ => continue,
                },
                _ = telling.tick() => {
                    hear(Heard::Counts(crew.take_counts()));
                    continue;
                }
                () = until(&ports, over_ms) => break Ended::Late,
                never = &mut alive => match never {},
                never = &mut beside => match never {},
            };
            if let Notice::Signal(signal) = notice {
                if signalled {
                    tracing::warn!(?signal, holding = crew.worker().holding().len(), "told again: drops everything");
                    return Ok(Ended::Dropped(signal));
                }
                signalled = true;
            }
            let now_ms = ports.clock().now_ms();
            let asked = Stop::of(notice, now_ms, options.stop);
            let asked = stop.map_or(asked, |stop| stop.and(asked));
            let left_s = asked.until_ms.checked_sub(now_ms).filter(|_| asked.until_ms < u64::MAX).map(|ms| ms / 1_000);
            tracing::info!(?notice, left_s, reason = ?asked.reason, holding = crew.worker().holding().len(), "stops");
            stop = Some(asked);
            crew.stop();
            drain.start(asked.until_ms, asked.reason);
            gate.close();
            stopping.notify_one();
        }
    };
    hear(Heard::Counts(crew.take_counts()));
    if ended == Ended::Late {
        tracing::error!(chunks = ?crew.worker().holding(), "could not give back all chunks in time");
    }
    if timeout(GOOD_BYE, ports.state().remove_worker(&id)).await.is_err() {
        tracing::warn!("could not say good-bye; it is forgotten by itself");
    }
    if timeout(GOOD_BYE, host.shutdown()).await.is_err() {
        tracing::warn!("functions are left running");
    }
    tracing::info!(?ended, tasks_ended = crew.worker().tasks_ended(), "ends");
    Ok(ended)
}

/// Waits until a time (Unix, ms), for ever for the end of time.
async fn until<P: Ports>(ports: &P, at_ms: u64) {
    if at_ms == u64::MAX {
        std::future::pending::<()>().await;
    }
    let clock = ports.clock();
    clock.sleep_ms(at_ms.saturating_sub(clock.now_ms())).await;
}

/// Says every now and then that it is alive, and at once when it begins to stop or a second copy begins or ends.
async fn say_alive<P: Ports>(
    ports: &P,
    crew: &ProcessCrew<P>,
    options: &Options,
    stopping: &Notify,
    hear: &impl Fn(Heard<'_>),
) -> Infallible {
    let started_at_ms = ports.clock().now_ms();
    loop {
        let view = WorkerView {
            id: crew.worker().id().clone(),
            host: options.host.clone(),
            pid: Some(std::process::id()),
            lanes: options.lanes.clone(),
            slots: options.slots as u32,
            holding: crew.worker().holding(),
            copies: crew.worker().copies(),
            draining: crew.drain().until_ms().is_some(),
            started_at_ms,
            seen_at_ms: ports.clock().now_ms(),
            tasks_ended: crew.worker().tasks_ended(),
        };
        hear(Heard::Alive(&view));
        ports.state().put_worker(view).await;
        let _ = timeout(Duration::from_millis(options.worker.heartbeat_ms), async {
            tokio::select! {
                () = stopping.notified() => {}
                () = crew.worker().copies_changed() => {}
            }
        })
        .await;
    }
}
