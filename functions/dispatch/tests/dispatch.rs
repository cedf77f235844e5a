//! The Lambda for tasks over real queues, tables and buckets of an AWS on loopback. Lambda itself is played by the tests: they
//! receive, hand over an event as Lambda does, and delete what is not reported.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use aws_lambda_events::event::sqs::SqsEvent;
use serde_json::json;
use sheaf_api::{
    Api, PackBuilder,
    invoke::{Invocation, Invoked, Invoker, Invoking},
    wire::{ChunkAnswer, CreateJob, GridView, PutFunction, SubmitChunk},
};
use sheaf_aws::{AwsPorts, Settings, SystemClock, loopback, message, schema::queue_name};
use sheaf_core::{
    Chunk, ChunkEvent, ChunkKey, FailureKind, FunctionKind, JobId, Lane, Manifest, Owner, Priority, ReleaseReason,
    Seal, TaskId, TenantId,
};
use sheaf_dispatch::{DispatchOptions, Dispatcher};
use sheaf_protocol::{ChunkQueue, Clock, Delivery, Ports, Service, StateStore, Write};

/// Time that an event has when a test is not about it.
const AMPLE_MS: u64 = 900_000;

/// Adds one to the number it is given.
struct AddOne;

impl Invoker for AddOne {
    fn invoke(&self, invocation: Invocation) -> Invoking<'_> {
        Box::pin(async move {
            let number: u64 = serde_json::from_slice(&invocation.event).expect("a number");
            Ok(Invoked { payload: (number + 1).to_string().into(), failed: false, log: "".into() })
        })
    }
}

struct Grid {
    ports: AwsPorts,
    settings: Settings,
    service: Service<AwsPorts>,
    dispatcher: Dispatcher,
    dir: tempfile::TempDir,
}

impl Grid {
    async fn new(has_containers: bool) -> Result<Self, &'static str> {
        let (config, settings) = loopback::fresh_account().await?;
        let ports = loopback::ports(&config, &settings).await;
        let view = GridView {
            version: String::new(),
            backend: "aws".into(),
            directory: None,
            slots: 2,
            durable: true,
            lanes: BTreeMap::new(),
            syncs: None,
        };
        let service = Service::new(ports.clone(), TenantId::default(), view);
        let dir = tempfile::tempdir().expect("a directory");
        let options = DispatchOptions {
            grid: "test".into(),
            scratch: dir.path().join("scratch"),
            slots: 2,
            has_containers,
            invoker: Arc::new(AddOne),
        };
        let dispatcher = Dispatcher::open(&ports, options).expect("a dispatcher");
        Ok(Self { ports, settings, service, dispatcher, dir })
    }

    /// Submits a job of one function with so many chunks of tasks; answers their keys.
    async fn submitted(&self, manifest: Manifest, chunks: u32, tasks: u32) -> Vec<ChunkKey> {
        let (id, name) = (JobId::from_uuid(uuid::Uuid::now_v7()), manifest.name.to_string());
        self.service.put_function(PutFunction { manifest, package: None }).await.expect("declared");
        self.service.create_job(CreateJob::new(id, vec![name])).await.expect("created");
        let chunk = |number: u32| {
            let mut pack = PackBuilder::new();
            (0..tasks).for_each(|task| pack.push((number * tasks + task).to_string().as_bytes()).expect("small"));
            SubmitChunk { number, task_first: u64::from(number * tasks), pack: pack.finish(false) }
        };
        let reply = self.service.submit(id, (0..chunks).map(chunk).collect()).await.expect("submitted");
        assert!(reply.answers.iter().all(|answer| *answer == ChunkAnswer::Accepted), "{:?}", reply.answers);
        self.service.seal(id, Seal { chunks, tasks: u64::from(chunks * tasks) }).await.expect("sealed");
        (0..chunks).map(|number| ChunkKey { job: id, number }).collect()
    }

    /// What waits in a lane, once there are so many.
    async fn received(&self, lane: Lane, count: usize) -> Vec<Delivery> {
        let mut all = Vec::new();
        for _ in 0..60 {
            if all.len() >= count {
                break;
            }
            all.extend(self.ports.queue().receive(&[lane], 10, 1_000).await.expect("received"));
        }
        assert_eq!(all.len(), count, "{all:?}");
        all
    }

    fn message(&self, id: usize, body: &str, receipt: &str) -> serde_json::Value {
        let queue = queue_name(&self.settings.queues, Lane::Lambda, Priority::Normal);
        json!({
            "messageId": id.to_string(), "receiptHandle": receipt, "body": body, "attributes": {},
            "messageAttributes": {}, "eventSource": "aws:sqs", "awsRegion": "us-east-1",
            "eventSourceARN": format!("arn:aws:sqs:us-east-1:000000000000:{queue}"),
        })
    }

    fn event(&self, deliveries: &[Delivery]) -> Vec<serde_json::Value> {
        let message = |(id, delivery): (usize, &Delivery)| {
            self.message(id, &message::encode(&delivery.hint, 0), &delivery.receipt)
        };
        deliveries.iter().enumerate().map(message).collect()
    }

    /// Hands over an event; answers which of its messages are to come again.
    async fn invoked(&self, messages: Vec<serde_json::Value>, left_ms: u64) -> Vec<usize> {
        let event: SqsEvent = serde_json::from_value(json!({ "Records": messages })).expect("an event");
        let answer = self.dispatcher.handle(event, SystemClock.now_ms() + left_ms).await;
        answer.batch_item_failures.iter().map(|failure| failure.item_identifier.parse().expect("our id")).collect()
    }

    /// Receives, hands over and deletes as Lambda does; answers how many messages are to come again.
    async fn round(&self, count: usize, left_ms: u64) -> usize {
        let deliveries = self.received(Lane::Lambda, count).await;
        let kept = self.invoked(self.event(&deliveries), left_ms).await;
        for (_, delivery) in deliveries.into_iter().enumerate().filter(|(id, _)| !kept.contains(id)) {
            self.ports.queue().delete(delivery).await;
        }
        kept.len()
    }

    async fn chunk(&self, key: ChunkKey) -> Chunk {
        self.ports.state().chunks(&[key]).await.expect("read").remove(0).expect("it is there")
    }

    async fn apply(&self, key: ChunkKey, event: ChunkEvent) -> Chunk {
        self.ports.state().apply(vec![Write { key, event }]).await.remove(0).expect("applied")
    }

    /// Claims a chunk as another worker does.
    async fn claimed(&self, key: ChunkKey) -> Chunk {
        let owner = Owner { worker: "wrk_another".parse().expect("an id"), nonce: 7 };
        let now_ms = SystemClock.now_ms();
        self.apply(key, ChunkEvent::Claim { owner, now_ms, until_ms: now_ms + 30_000 }).await
    }

    /// A function that writes its payload down, and then takes a while.
    fn slow(&self, seconds: &str) -> Manifest {
        let script = format!("echo \"$0\" >> {}; sleep {seconds}; echo \"done $0\"", self.log().display());
        command("slow", &["sh", "-c", &script, "{}"])
    }

    fn log(&self) -> Box<Path> {
        self.dir.path().join("log").into()
    }

    /// The payloads that were run, in the order of their numbers.
    fn ran(&self) -> Vec<u32> {
        let log = std::fs::read_to_string(self.log()).expect("something ran");
        let mut ran: Vec<u32> = log.lines().map(|line| line.parse().expect("a payload")).collect();
        ran.sort_unstable();
        ran
    }
}

fn command(name: &str, argv: &[&str]) -> Manifest {
    let argv = argv.iter().map(|&argument| argument.to_owned()).collect();
    Manifest::new(name.parse().expect("a name"), FunctionKind::Command { argv })
}

/// A grid, or the end of the test, loudly, where there can be none.
macro_rules! grid {
    ($has_containers:expr) => {
        match Grid::new($has_containers).await {
            Ok(grid) => grid,
            Err(reason) => return loopback::skipped(reason),
        }
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_of_commands_is_run() {
    let grid = grid!(false);
    let keys = grid.submitted(command("shout", &["echo", "hi", "{}"]), 3, 5).await;
    let deliveries = grid.received(Lane::Lambda, 3).await;
    assert!(grid.invoked(grid.event(&deliveries), AMPLE_MS).await.is_empty());
    for key in &keys {
        let totals = grid.chunk(*key).await.totals();
        assert_eq!(totals.succeeded, 5, "{totals:?}");
    }
    // Lambda deletes, not the function: what it does not get round to deleting comes again, and is over.
    for delivery in deliveries {
        grid.ports.queue().postpone(delivery, 0).await;
    }
    assert_eq!(grid.round(3, AMPLE_MS).await, 0);
    assert!(grid.ports.queue().receive(&[Lane::Lambda], 10, 0).await.expect("received").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_may_be_a_lambda_of_its_own() {
    let grid = grid!(false);
    let arn = "arn:aws:lambda:us-east-1:000000000000:function:add-one".to_owned();
    let manifest = Manifest::new("add-one".parse().expect("a name"), FunctionKind::Lambda { arn });
    let keys = grid.submitted(manifest, 1, 3).await;
    assert_eq!(grid.round(1, AMPLE_MS).await, 0);
    assert_eq!(grid.chunk(keys[0]).await.totals().succeeded, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poison_body_blocks_nothing() {
    let grid = grid!(false);
    let keys = grid.submitted(command("shout", &["echo", "{}"]), 1, 1).await;
    let deliveries = grid.received(Lane::Lambda, 1).await;
    let mut messages = grid.event(&deliveries);
    for (at, body) in ["no hint", "{\"v\":200}", "\u{0}"].into_iter().enumerate() {
        messages.push(grid.message(10 + at, body, "a receipt of no message"));
    }
    assert!(grid.invoked(messages, AMPLE_MS).await.is_empty());
    assert_eq!(grid.chunk(keys[0]).await.totals().succeeded, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_chunk_comes_again() {
    let grid = grid!(false);
    let keys = grid.submitted(command("shout", &["echo", "{}"]), 2, 1).await;
    grid.claimed(keys[0]).await;
    let deliveries = grid.received(Lane::Lambda, 2).await;
    let held = deliveries.iter().position(|delivery| delivery.hint.key == keys[0]).expect("it was received");
    assert_eq!(grid.invoked(grid.event(&deliveries), AMPLE_MS).await, [held]);
    assert_eq!(grid.chunk(keys[1]).await.totals().succeeded, 1);
    assert_eq!(grid.chunk(keys[0]).await.totals().succeeded, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_outlasts_the_lambda_goes_on_in_the_next() {
    const TASKS: u32 = 24;
    let grid = grid!(false);
    let key = grid.submitted(grid.slow("0.6"), 1, TASKS).await[0];
    assert_eq!(grid.round(1, 10_000).await, 1, "it is given back");
    let chunk = grid.chunk(key).await;
    let succeeded = chunk.totals().succeeded;
    assert!((1..TASKS as usize).contains(&(succeeded as usize)), "some are committed: {:?}", chunk.totals());
    assert_eq!(chunk.work.past.last().and_then(|past| past.released), Some(ReleaseReason::Drain));
    assert_eq!(grid.round(1, AMPLE_MS).await, 0, "its hint comes at once, and it is finished");
    assert_eq!(grid.chunk(key).await.totals().succeeded, TASKS);
    assert_eq!(grid.ran(), (0..TASKS).collect::<Vec<_>>(), "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_too_long_fails_and_says_why() {
    let grid = grid!(false);
    let manifest = Manifest { timeout_ms: 3_600_000, ..grid.slow("300") };
    let key = grid.submitted(manifest, 1, 1).await[0];
    for _ in 0..4 {
        if grid.round(1, 8_000).await == 0 {
            break;
        }
    }
    let task = grid.service.task(TaskId { chunk: key, index: 0 }).await.expect("explained");
    let failure = task.failure.expect("it failed");
    assert_eq!(failure.kind, FailureKind::TimedOut);
    assert!(failure.message.contains("containers for long tasks"), "{}", failure.message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_tasks_go_to_the_containers() {
    let grid = grid!(true);
    let long = Manifest { timeout_ms: 3_600_000, ..command("long", &["echo", "{}"]) };
    let keys = grid.submitted(long, 1, 1).await;
    assert_eq!(grid.round(1, AMPLE_MS).await, 0, "passed on is done");
    let passed_on = grid.received(Lane::Spot, 1).await;
    assert_eq!(passed_on[0].hint.key, keys[0]);
    assert!(passed_on[0].hint.pack.is_some(), "with its pack");
    assert_eq!(grid.chunk(keys[0]).await.epoch, 0, "nobody has claimed it");

    // Of a function that may be short, only what got nowhere before is passed on.
    let keys = grid.submitted(command("short", &["echo", "{}"]), 2, 1).await;
    let chunk = grid.claimed(keys[0]).await;
    let (attempt, rv) = (chunk.lease().expect("claimed").attempt.clone(), chunk.rv);
    let (now_ms, reason) = (SystemClock.now_ms(), ReleaseReason::Drain);
    let (commit, tallies, checkpoints) = Default::default();
    let not_before_ms = 0;
    let release = ChunkEvent::Release { attempt, rv, commit, tallies, checkpoints, now_ms, not_before_ms, reason };
    grid.apply(keys[0], release).await;
    assert_eq!(grid.round(2, AMPLE_MS).await, 0);
    assert_eq!(grid.received(Lane::Spot, 1).await[0].hint.key, keys[0]);
    assert_eq!(grid.chunk(keys[1]).await.totals().succeeded, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_that_are_known_to_be_long_go_to_the_containers() {
    let grid = grid!(true);
    let manifest = command("minutes", &["echo", "{}"]);
    let many = grid.submitted(manifest.clone(), 1, 20).await[0];
    let function = grid.ports.state().newest(&manifest.name).await.expect("read").expect("declared");
    let five_minutes_us = 300_000_000.0;
    grid.ports.state().observe(&function, 100, five_minutes_us, five_minutes_us).await;
    assert_eq!(grid.round(1, AMPLE_MS).await, 0);
    assert_eq!(grid.received(Lane::Spot, 1).await[0].hint.key, many);
    let few = grid.submitted(manifest, 1, 2).await[0];
    assert_eq!(grid.round(1, AMPLE_MS).await, 0);
    assert_eq!(grid.chunk(few).await.totals().succeeded, 2, "they fit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_stays_hidden_while_its_chunk_runs() {
    let grid = grid!(false);
    grid.submitted(grid.slow("7"), 1, 1).await;
    let deliveries = grid.received(Lane::Lambda, 1).await;
    // As a queue's own timeout would have it, were it shorter than the task.
    grid.ports.queue().postpone(deliveries[0].clone(), 4_000).await;
    let seen = async { grid.ports.queue().receive(&[Lane::Lambda], 10, 6_000).await.expect("received").len() };
    let (kept, seen) = tokio::join!(grid.invoked(grid.event(&deliveries), AMPLE_MS), seen);
    assert_eq!((kept.len(), seen), (0, 0));
}
