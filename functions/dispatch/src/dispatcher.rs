//! What a process keeps between events, and the handling of one.

use std::{future::pending, path::PathBuf, sync::Arc, time::Duration};

use aws_lambda_events::event::sqs::{SqsBatchResponse, SqsEvent};
use futures::future::join_all;
use sheaf_aws::{AwsPorts, SystemClock};
use sheaf_core::{Lane, ReleaseReason, WorkerId};
use sheaf_host::{Handlers, Host, HostError, HostOptions, Invoker};
use sheaf_protocol::{ChunkQueue, Clock, Delivery, Drain, Hint, Ports, Worker, WorkerOptions, work::Worked};
use sheaf_telemetry::{Metrics, names};
use sheaf_worker::{HostRunner, StoredPackages};

use crate::{
    event::{self, Record},
    lane::Lengths,
    slice::{Slice, SliceRunner},
};

/// How long a warm child is kept without a call: longer than Lambda keeps the process.
pub const IDLE: Duration = Duration::from_secs(24 * 3_600);

/// How a dispatcher is opened.
pub struct DispatchOptions {
    /// The grid's name, for metrics.
    pub grid: String,
    /// Where packages and the scratch directories of children are.
    pub scratch: PathBuf,
    /// How many calls run at once.
    pub slots: usize,
    /// Whether there are containers that serve the spot lane.
    pub has_containers: bool,
    /// Who invokes functions by their ARN.
    pub invoker: Arc<dyn Invoker>,
}

impl std::fmt::Debug for DispatchOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { grid, scratch, slots, has_containers, invoker: _ } = self;
        let mut debug = f.debug_struct("DispatchOptions");
        debug
            .field("grid", grid)
            .field("scratch", scratch)
            .field("slots", slots)
            .field("has_containers", has_containers);
        debug.finish_non_exhaustive()
    }
}

/// What a process keeps between events.
#[derive(Debug)]
pub struct Dispatcher {
    grid: String,
    ports: AwsPorts,
    runner: Arc<HostRunner>,
    id: WorkerId,
    has_containers: bool,
    lengths: Lengths,
}

/// What became of a message.
#[derive(Debug, Clone, Copy)]
enum Handled {
    Worked(Worked),
    /// It went on to the containers.
    PassedOn,
    Poison,
    Foreign,
}

impl Handled {
    const fn is_done(self) -> bool {
        match self {
            Self::Worked(worked) => event::is_done(worked),
            Self::PassedOn | Self::Poison => true,
            Self::Foreign => false,
        }
    }
}

impl Dispatcher {
    /// Opens a dispatcher over a grid's ports.
    pub fn open(ports: &AwsPorts, options: DispatchOptions) -> Result<Self, HostError> {
        let ports = ports.for_events();
        let DispatchOptions { grid, scratch, slots, has_containers, invoker } = options;
        let handlers = Handlers::new();
        let host = Host::open(
            HostOptions::builder()
                .scratch(scratch)
                .slots(slots)
                .handlers(handlers.clone())
                .packages(Arc::new(StoredPackages(ports.clone())))
                .invoker(invoker)
                .idle(IDLE)
                .build(),
        )?;
        let runner = Arc::new(HostRunner { host, handlers });
        let id = WorkerId::from_uuid(uuid::Uuid::now_v7());
        Ok(Self { grid, ports, runner, id, has_containers, lengths: Lengths::default() })
    }

    /// Handles an event, by the Lambda's deadline (Unix, ms). The answer names the messages that are to come again.
    pub async fn handle(&self, event: SqsEvent, deadline_ms: u64) -> SqsBatchResponse {
        let queue = self.ports.queue();
        let slice = Slice::new(SystemClock.now_ms(), deadline_ms);
        let drain = Arc::new(Drain::default());
        let runner =
            SliceRunner { inner: self.runner.clone(), clock: SystemClock, slice, is_last_resort: !self.has_containers };
        // Of the event's own: a drain cannot be undone.
        let options = WorkerOptions::new(self.id.clone());
        let worker = Worker::new(self.ports.clone(), Arc::new(runner), options, drain.clone());
        let records = event::records(queue, event);
        for (_, record) in &records {
            if let Record::Hint(delivery) = record {
                queue.hold(delivery);
            }
        }
        let handle = |(id, record)| {
            let (worker, slice) = (&worker, &slice);
            Box::pin(async move { (id, self.handle_one(worker, record, slice).await) })
        };
        let handled = tokio::select! {
            handled = join_all(records.into_iter().map(handle)) => handled,
            never = queue.keep_hidden() => match never {},
            () = drain_in_time(&drain, &slice) => unreachable!("it waits for the others"),
        };
        self.log(&handled, worker.tasks_ended(), slice.began_at_ms);
        event::keep(handled.into_iter().filter(|(_, handled)| !handled.is_done()).map(|(id, _)| id))
    }

    async fn handle_one<R: sheaf_protocol::Runner>(
        &self,
        worker: &Worker<AwsPorts, R>,
        record: Record,
        slice: &Slice,
    ) -> Handled {
        let delivery = match record {
            Record::Hint(delivery) => delivery,
            Record::Poison => return Handled::Poison,
            Record::Foreign => return Handled::Foreign,
        };
        if self.has_containers && self.is_too_long(&delivery, slice).await {
            self.pass_on(delivery).await;
            return Handled::PassedOn;
        }
        Handled::Worked(worker.work(delivery).await)
    }

    async fn is_too_long(&self, delivery: &Delivery, slice: &Slice) -> bool {
        let slots = self.runner.host.slots();
        self.lengths.is_too_long(&self.ports, delivery, slice.work_ms(), slots).await
    }

    /// A line and the metrics of an event.
    fn log(&self, handled: &[(String, Handled)], tasks: u64, began_at_ms: u64) {
        let now_ms = SystemClock.now_ms();
        let count = |is: fn(Handled) -> bool| handled.iter().filter(|(_, handled)| is(*handled)).count() as u64;
        let finished = count(|handled| matches!(handled, Handled::Worked(Worked::Finished { .. })));
        let released = count(|handled| matches!(handled, Handled::Worked(Worked::Released)));
        let fenced = count(|handled| matches!(handled, Handled::Worked(Worked::Fenced)));
        let over = count(|handled| matches!(handled, Handled::Worked(Worked::Over)));
        let postponed = count(|handled| matches!(handled, Handled::Worked(Worked::Postponed)));
        tracing::info!(
            messages = handled.len(),
            finished,
            released,
            fenced,
            over,
            postponed,
            passed_on = count(|handled| matches!(handled, Handled::PassedOn)),
            poison = count(|handled| matches!(handled, Handled::Poison)),
            foreign = count(|handled| matches!(handled, Handled::Foreign)),
            failures = count(|handled| !handled.is_done()),
            tasks,
            ms = now_ms.saturating_sub(began_at_ms),
            "handled an event"
        );
        let metrics = Metrics::new(&self.grid, now_ms).of(names::LANE, Lane::Lambda.as_str());
        let metrics = metrics.with_count(names::CHUNKS_CLAIMED, finished + released + fenced);
        let metrics = metrics.with_count(names::CHUNKS_RELEASED, released).with_count(names::CHUNKS_FENCED, fenced);
        metrics.with_count(names::ORPHAN_HINTS, over + postponed).print();
    }

    /// Hints at the chunk in the spot lane. If that is lost the sweeper hints at it again, here.
    async fn pass_on(&self, delivery: Delivery) {
        let queue = self.ports.queue();
        queue.send(vec![Hint { lane: Lane::Spot, ..delivery.hint.clone() }], 0).await;
        queue.delete(delivery).await;
    }
}

/// Starts the drain when the slice says so.
async fn drain_in_time(drain: &Drain, slice: &Slice) {
    tokio::time::sleep(Duration::from_millis(slice.work_ms())).await;
    drain.start(slice.cut_at_ms, ReleaseReason::Drain);
    pending().await
}
