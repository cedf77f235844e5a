//! What tasks ask of AWS: jobs in chunks of 1, 100 and 1,000 go through all steps while every request is counted.
//!
//! ```text
//! cargo xtask cost
//! ```
//!
//! prints the bill. The state is kept by dynoxide, which says the units of each call as AWS would, indexes included; hints and
//! bytes by ministack. What Lambda does for its functions is done here in its place: it receives and deletes messages in
//! batches of ten, which SQS bills to the grid, invokes the functions, which is billed too, and reads the stream, which is
//! free. Calls of the HTTP API are counted by their bodies.
//!
//! These are counts, not times: the same on every machine.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, Message};
use futures::future::{Either, join_all, select};
use sheaf_api::{
    Api, PackBuilder,
    cost::{Item, JobShape, Prices, Report, Step, Usage, totals},
    run::{Call, Report as Ran},
    wire::{ChunkAnswer, CreateJob, PutFunction, ReadResults, SubmitChunk},
};
use sheaf_aws::{
    AwsBlobs, AwsPorts, AwsQueue, AwsState, Meter, SdkConfig, Settings, grid_view, loopback, message,
    meter::{Row, Snapshot},
    schema,
};
use sheaf_core::{ChunkKey, FunctionKind, JobId, Lane, Manifest, Priority, Seal, TenantId, limits};
use sheaf_protocol::{
    Delivery, Drain, Ports, Runner, Service, StateStore, Worker, WorkerOptions, summarise, work::Worked,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// Bytes of a payload and of a result.
const TASK_BYTES: usize = 100;
/// Bytes of packs in one call.
const CALL_BYTES: u64 = 8 << 20;
/// A chunk that is claimed later than this costs two write units more: the due time moves. A machine that needs so long for a
/// hundred of them cannot count those that are claimed at once.
const CLAIMED_EARLY: Duration = Duration::from_secs(20);

/// Answers every task with its own payload.
struct Echo;

impl Runner for Echo {
    fn slots(&self) -> usize {
        4
    }

    async fn run(&self, call: Call) -> Ran {
        let mut ran = Ran::default();
        for task in call.tasks {
            ran.answers.succeeded(task, call.pack.payload(task), 1).expect("an answer that fits");
        }
        ran
    }
}

/// A grid whose steps are metered, each with processes of its own.
struct Grid {
    meter: Meter,
    submit: Service<AwsPorts>,
    /// Of a Lambda that is given what was received.
    dispatch: AwsPorts,
    worker: Worker<AwsPorts, Echo>,
    /// What polls for Lambda.
    poller: aws_sdk_sqs::Client,
    queue_url: String,
    result: AwsPorts,
    /// What the stream knows, at no cost.
    stream: AwsPorts,
    read: Service<AwsPorts>,
}

impl Grid {
    async fn fresh() -> Result<Self, &'static str> {
        let (others, settings) = loopback::fresh_account().await?;
        loopback::ports(&others, &settings).await;
        let table = dynoxide(&settings).await;
        let meter = Meter::default();
        let ports = |step| {
            let (table, others) = (meter.attach(&table, step), meter.attach(&others, step));
            let (state, blobs) = (AwsState::new(&table, &settings.table), AwsBlobs::new(&others, &settings.bucket));
            AwsPorts::new(state, blobs, AwsQueue::new(&others, &settings.queues))
        };
        let service = |step| Service::new(ports(step), TenantId::default(), grid_view(4, BTreeMap::new()));
        let poller = aws_sdk_sqs::Client::new(&meter.attach(&others, Step::Dispatch));
        let name = schema::queue_name(&settings.queues, Lane::Lambda, Priority::Normal);
        let found = poller.get_queue_url().queue_name(name).send().await.expect("a queue");
        let dispatch = ports(Step::Dispatch).for_events();
        let options = WorkerOptions::new("wrk_accounting".parse().expect("a worker id"));
        let grid = Self {
            submit: service(Step::Submit),
            worker: Worker::new(dispatch.clone(), Arc::new(Echo), options, Arc::new(Drain::default())),
            dispatch,
            poller,
            queue_url: found.queue_url.expect("its address"),
            result: ports(Step::Result),
            stream: ports(Step::Other),
            read: service(Step::Read),
            meter,
        };
        let kind = FunctionKind::Handler { revision: String::new() };
        let manifest = Manifest::new("echo".parse().expect("a name"), kind);
        grid.submit.put_function(PutFunction { manifest, package: None }).await.expect("declared");
        // Processes are warm when they know where the queues are, and the function.
        grid.bill(100, 1).await;
        Ok(grid)
    }

    /// Runs a job through all steps.
    async fn bill(&self, chunks: u32, tasks: u32) -> Bill {
        self.meter.drain();
        let mut lambda = Usage::default();
        let id = JobId::from_uuid(uuid::Uuid::now_v7());
        self.submit.create_job(CreateJob::new(id, vec!["echo".to_owned()])).await.expect("created");
        let mut waves = waves((0..chunks).map(|number| chunk(number, tasks)).collect());
        let pack_bytes = waves.iter().map(|wave| bytes_of(wave)).sum();
        let mut slowest = Duration::ZERO;
        for wave in &mut waves {
            let begun = Instant::now();
            let numbers: Vec<u32> = wave.iter().map(|chunk| chunk.number).collect();
            lambda.calls(Step::Submit, 1.0, bytes_of(wave), 0);
            let reply = self.submit.submit(id, std::mem::take(wave)).await.expect("submitted");
            assert!(reply.answers.iter().all(|answer| matches!(answer, ChunkAnswer::Accepted)), "{:?}", reply.answers);
            self.tell(id, &numbers, &mut lambda).await;
            self.dispatch(numbers.len(), &mut lambda).await;
            slowest = slowest.max(begun.elapsed());
            self.tell(id, &numbers, &mut lambda).await;
        }
        self.submit.seal(id, Seal { chunks, tasks: u64::from(chunks * tasks) }).await.expect("sealed");
        lambda.calls(Step::Submit, 2.0, 0, 0);
        lambda.add(Step::Result, Item::Event, 1.0);
        let result_bytes = self.read(id, chunks, tasks, &mut lambda).await;

        let snapshot =
            Snapshot { rows: self.meter.drain().into_iter().filter(|row| row.step != Step::Other).collect() };
        let mut usage = snapshot.usage();
        usage.extend(&lambda);
        let shape = JobShape {
            chunks: chunks.into(),
            tasks: u64::from(chunks * tasks),
            pack_bytes,
            result_bytes,
            attempts: chunks.into(),
            run_s: 0.0,
            alive_s: 0.0,
            kept_s: 0.0,
            lane: Lane::Lambda,
        };
        Bill { shape, snapshot, usage, slowest }
    }

    /// The stream tells the result step of up to a hundred chunks at a time.
    async fn tell(&self, id: JobId, numbers: &[u32], lambda: &mut Usage) {
        let keys: Vec<ChunkKey> = numbers.iter().map(|&number| ChunkKey { job: id, number }).collect();
        let changed: Vec<_> = self.stream.state().chunks(&keys).await.expect("images").into_iter().flatten().collect();
        summarise::summarise(&self.result, &changed).await.expect("summarised");
        lambda.invocations(Step::Result, 1.0);
    }

    /// Lambda polls the queue, ten messages at a time, and the dispatch function works them off.
    async fn dispatch(&self, chunks: usize, lambda: &mut Usage) {
        let mut finished = 0;
        while finished < chunks {
            let receive = self.poller.receive_message().queue_url(&self.queue_url).max_number_of_messages(10);
            let messages = receive.wait_time_seconds(1).send().await.expect("received").messages.unwrap_or_default();
            assert!(!messages.is_empty(), "{finished} of {chunks} chunks were hinted at");
            lambda.invocations(Step::Dispatch, 1.0);
            let delivery = |message: &Message| {
                let body = message.body().expect("a body");
                let (hint, _) = message::decode(body, Lane::Lambda, Priority::Normal).expect("a hint");
                Delivery { hint, receipt: message.receipt_handle().expect("a receipt").to_owned() }
            };
            let deliveries: Vec<Delivery> = messages.iter().map(delivery).collect();
            deliveries.iter().for_each(|delivery| self.dispatch.queue().hold(delivery));
            let hiding = self.dispatch.queue().keep_hidden();
            let work = join_all(deliveries.into_iter().map(|delivery| self.worker.work(delivery)));
            // Polled first, so that its request is always made: the work of an emulated moment is never over sooner.
            let worked = match select(Box::pin(hiding), Box::pin(work)).await {
                Either::Left((never, _)) => match never {},
                Either::Right((worked, _)) => worked,
            };
            assert!(worked.iter().all(|worked| matches!(worked, Worked::Finished { .. })), "{worked:?}");
            finished += worked.len();
            let entry = |(at, message): (usize, &Message)| {
                let entry = DeleteMessageBatchRequestEntry::builder().id(at.to_string());
                entry.set_receipt_handle(message.receipt_handle.clone()).build().expect("id and receipt are set")
            };
            let entries = messages.iter().enumerate().map(entry).collect();
            let delete = self.poller.delete_message_batch().queue_url(&self.queue_url).set_entries(Some(entries));
            delete.send().await.expect("deleted");
        }
    }

    async fn read(&self, id: JobId, chunks: u32, tasks: u32, lambda: &mut Usage) -> u64 {
        let (mut read, mut all_bytes) = (ReadResults::default(), 0);
        loop {
            let page = self.read.results(id, read.clone()).await.expect("results");
            let segments = page.chunks.iter().flat_map(|chunk| &chunk.segments);
            let bytes: u64 = segments.map(|segment| segment.len() as u64).sum();
            lambda.calls(Step::Read, 1.0, 0, bytes);
            all_bytes += bytes;
            if page.chunks.is_empty() {
                assert_eq!(page.job.job.state.as_str(), "done");
                assert_eq!(page.job.summary.totals.succeeded, u64::from(chunks * tasks));
                return all_bytes;
            }
            read.have.extend(page.chunks.iter().map(|chunk| chunk.head.number));
        }
    }
}

/// A table in this process.
async fn dynoxide(settings: &Settings) -> SdkConfig {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("its address"));
    let database = ::dynoxide::Database::memory().expect("a database");
    tokio::spawn(::dynoxide::server::serve_with_shutdown(listener, database, pending()));
    let config = loopback::config(&endpoint, "test").await;
    schema::create_table(&config, &settings.table).await.expect("a table");
    config
}

/// A chunk of tasks that do not compress.
fn chunk(number: u32, tasks: u32) -> SubmitChunk {
    let mut pack = PackBuilder::new();
    for _ in 0..tasks {
        let payload: Vec<u8> = (0..TASK_BYTES).map(|_| rand::random::<u8>()).collect();
        pack.push(&payload).expect("a payload that fits");
    }
    SubmitChunk { number, task_first: u64::from(number * tasks), pack: pack.finish(false) }
}

/// Chunks as the SDK and the command group them into calls.
fn waves(mut chunks: Vec<SubmitChunk>) -> Vec<Vec<SubmitChunk>> {
    let mut waves = Vec::new();
    while !chunks.is_empty() {
        let fits = |count: &usize| bytes_of(&chunks[..*count]) <= CALL_BYTES;
        let count = (1..=chunks.len().min(limits::WRITES_PER_CALL_MAX)).take_while(fits).last().unwrap_or(1);
        waves.push(chunks.drain(..count).collect());
    }
    waves
}

fn bytes_of(chunks: &[SubmitChunk]) -> u64 {
    chunks.iter().map(|chunk| chunk.pack.bytes().len() as u64).sum()
}

/// A job and all that its way cost.
struct Bill {
    shape: JobShape,
    snapshot: Snapshot,
    usage: Usage,
    /// The longest that a call's chunks took from their submission to their end.
    slowest: Duration,
}

impl Bill {
    fn report(&self) -> Report {
        Report::new(&self.usage, &self.snapshot.bytes(), &Prices::built_in(), self.shape.tasks)
    }
}

/// What a job of chunks of a size may come to at most, and what it must not exceed whatever changes.
struct Case {
    /// Tasks in a chunk.
    tasks: u32,
    chunks: u32,
    /// The pack does not ride in the message.
    fetched: bool,
    /// Dollars per million tasks, as they are. Lower it when it gets cheaper.
    usd_max: f64,
    /// Dollars per million tasks, as the design promises them.
    usd_promised: f64,
}

const CASES: [Case; 3] = [
    Case { tasks: 1_000, chunks: 200, fetched: true, usd_max: 0.0152, usd_promised: 0.02 },
    Case { tasks: 100, chunks: 200, fetched: false, usd_max: 0.147, usd_promised: 0.20 },
    Case { tasks: 1, chunks: 300, fetched: false, usd_max: 14.4, usd_promised: 15.0 },
];

/// Requests per 1,000 tasks in chunks of 1,000 that the design promises.
const REQUESTS_PROMISED: f64 = 10.0;
/// Requests that a job makes in each step whatever its chunks: its creation, seal, summary, pages and calls.
const REQUESTS_PER_JOB_MAX: u64 = 60;
/// What a grid that keeps, sends and stores each task by itself costs, for comparison: HTC-Grid's design at the same prices.
const HTC_GRID: &str = "HTC-Grid, by its design        9,100        13 a task             20 to 32";

impl Case {
    /// Each chunk asks for this and for nothing else. What is asked per call, page or batch is counted there.
    fn asked_per_chunk(&self) -> Vec<(Step, &'static str, u64)> {
        let mut asked = vec![
            (Step::Submit, "PutObject", 1),    // the pack
            (Step::Submit, "PutItem", 1),      // T1
            (Step::Dispatch, "UpdateItem", 2), // T2 and T8
            (Step::Dispatch, "GetItem", 1),    // the job
            (Step::Dispatch, "PutObject", 1),  // the results
            (Step::Read, "GetObject", 1),      // the results
        ];
        asked.extend(self.fetched.then_some((Step::Dispatch, "GetObject", 1))); // the pack
        asked
    }

    /// What of a bill is not as it should be.
    fn faults(&self, bill: &Bill) -> Vec<String> {
        let chunks = u64::from(self.chunks);
        let asked = self.asked_per_chunk();
        let mut faults = Vec::new();
        let mut expect = |fine: bool, otherwise: String| faults.extend((!fine).then_some(otherwise));
        let mut beside: BTreeMap<Step, u64> = BTreeMap::new();
        for Row { step, operation, counts, .. } in &bill.snapshot.rows {
            let is_it = |(of, name, _): &&(Step, &str, u64)| of == step && name == operation;
            let wanted = asked.iter().find(is_it).map_or(0, |(.., count)| count * chunks);
            let more = counts.attempts.saturating_sub(wanted);
            *beside.entry(*step).or_default() += more;
            expect(more < chunks / 2, format!("{step} {operation}: {} instead of {wanted}", counts.attempts));
            expect(counts.attempts == counts.succeeded, format!("{step} {operation}, twice or in vain: {counts:?}"));
        }
        for (step, operation, count) in asked {
            let rows = bill.snapshot.rows.iter().filter(|row| row.step == step && row.operation == operation);
            let counted: u64 = rows.map(|row| row.counts.attempts).sum();
            expect(counted >= count * chunks, format!("{step} {operation}: only {counted}"));
        }
        // Sending, receiving, hiding and deleting take a request per ten chunks each.
        let batches = chunks.div_ceil(10);
        for (step, count) in beside {
            let in_batches = match step {
                Step::Submit => batches,
                Step::Dispatch => 3 * batches,
                _ => 0,
            };
            expect(
                count <= REQUESTS_PER_JOB_MAX + in_batches,
                format!("{step}: {count} requests beside those of chunks"),
            );
        }

        // T1: the item and its place among those that are due. T2 leaves that place alone; T8 clears it.
        let writes = |step| bill.usage.of(step, Item::DynamodbWriteUnit);
        // And the job: three to create, one to seal, two to close.
        let (submit, dispatch) = (2.0 * chunks as f64 + 6.0, 3.0 * chunks as f64);
        expect(writes(Step::Submit) == submit, format!("{} write units to submit, not {submit}", writes(Step::Submit)));
        expect(writes(Step::Dispatch) == dispatch, format!("{} to work, not {dispatch}", writes(Step::Dispatch)));
        expect(writes(Step::Result) <= 0.06 * chunks as f64 + 10.0, format!("{} to count", writes(Step::Result)));

        let total = bill.report().total;
        expect(total.usd_per_million <= self.usd_max.min(self.usd_promised), format!("${}", total.usd_per_million));
        let few = self.tasks < 1_000 || total.requests_per_1000 <= REQUESTS_PROMISED;
        expect(few, format!("{} requests per 1,000 tasks", total.requests_per_1000));
        faults
    }
}

/// Prints a bill, if anybody reads it.
fn show(tasks: u32, bill: &Bill) {
    println!("\nchunks of {tasks}: {} tasks, {TASK_BYTES} B in and out\n{}", bill.shape.tasks, bill.report());
    for Row { step, service, operation, counts } in &bill.snapshot.rows {
        let per_chunk = |count: f64| count / bill.shape.chunks as f64;
        println!(
            "  {step:<9} {service:<9} {operation:<30} {:>6} = {:>6.2} a chunk, {:>5.2} write and {:>5.2} read units",
            counts.attempts,
            per_chunk(counts.attempts as f64),
            per_chunk(counts.write_units),
            per_chunk(counts.read_units),
        );
    }
}

/// The model foretells what was counted.
fn compare(bill: &Bill) {
    let (estimate, prices) = (bill.shape.estimate(), Prices::built_in());
    for item in Item::ALL {
        let (counted, foretold) = (bill.usage.control_plane(item), estimate.control_plane(item));
        let is_near = (counted - foretold).abs() <= (0.03 * counted).max(3.0);
        assert!(is_near, "{item}: {foretold} foretold, {counted} counted");
    }
    let (counted, foretold) = (totals(&prices.price(&bill.usage)).1, totals(&prices.price(&estimate)).1);
    assert!((counted - foretold).abs() <= 0.02 * counted, "${foretold} foretold, ${counted} counted");
}

/// Prints the bill, which `cargo xtask cost` shows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_cost_what_is_promised() {
    let grid = match Grid::fresh().await {
        Ok(grid) => grid,
        Err(reason) => return loopback::skipped(reason),
    };
    let mut bills = Vec::new();
    for case in &CASES {
        let bill = grid.bill(case.chunks, case.tasks).await;
        if bill.slowest > CLAIMED_EARLY {
            return loopback::skipped("this machine is too busy to claim a hundred chunks within 20 s");
        }
        show(case.tasks, &bill);
        bills.push((case, bill));
    }
    println!("\n{:<24}{:>12}{:>17}{:>21}", "chunks of", "requests/1,000", "write units", "$/million tasks");
    for (case, bill) in &bills {
        let (total, chunks) = (bill.report().total, f64::from(case.chunks));
        let writes = bill.usage.control_plane(Item::DynamodbWriteUnit) / chunks;
        println!(
            "{:<24}{:>12.1}{writes:>9.2} a chunk{:>21.4}",
            case.tasks, total.requests_per_1000, total.usd_per_million
        );
    }
    println!("{HTC_GRID}");
    for (case, bill) in &bills {
        assert_eq!(case.faults(bill), [] as [&str; 0], "in chunks of {}", case.tasks);
        compare(bill);
    }
    // The counts would tell of a request or a write unit more for each chunk.
    for (case, mut bill) in bills {
        bill.usage.add(Step::Dispatch, Item::DynamodbWriteUnit, f64::from(case.chunks));
        let row = bill.snapshot.rows.iter_mut().find(|row| row.step == Step::Dispatch && row.operation == "GetItem");
        let counts = &mut row.expect("the job is read").counts;
        counts.attempts += u64::from(case.chunks);
        counts.succeeded += u64::from(case.chunks);
        assert!(case.faults(&bill).len() >= 2, "{:?}", case.faults(&bill));
    }
}

/// Answers requests with these statuses, one each, and never the next one.
async fn answering(statuses: &'static [&'static str]) -> SdkConfig {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("its address"));
    tokio::spawn(async move {
        let mut statuses = statuses.iter();
        while let Ok((mut client, _)) = listener.accept().await {
            let mut request = vec![0; 64 * 1024];
            let _ = client.read(&mut request).await;
            let Some(status) = statuses.next() else { return pending().await };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}");
            let _ = client.write_all(answer.as_bytes()).await;
        }
    });
    loopback::config(&endpoint, "test").await
}

/// AWS bills each try, those too that the SDK makes by itself or that nobody waits for any more.
#[tokio::test]
async fn each_try_counts() {
    let meter = Meter::default();
    let config = answering(&["500 Oops", "503 Slow Down", "200 OK"]).await;
    let ports = AwsPorts::metered(&config, &loopback::settings("sheaf"), &meter, Step::Submit);
    assert_eq!(ports.state().job(JobId::from_bytes([1; 16])).await, Ok(None));
    let given_up = ports.state().job(JobId::from_bytes([1; 16]));
    assert!(tokio::time::timeout(Duration::from_millis(200), given_up).await.is_err());

    let rows = meter.drain();
    let [Row { step, service, operation, counts }] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((*step, service.as_str(), operation.as_str()), (Step::Submit, "dynamodb", "GetItem"));
    assert_eq!((counts.attempts, counts.failed, counts.throttled, counts.succeeded), (4, 1, 1, 1));
    assert_eq!((counts.read_units, counts.write_units, counts.response_bytes), (1.0, 0.0, 6));
    assert!(counts.request_bytes > 100, "{counts:?}");
    let json = serde_json::to_value(&rows).expect("rows become JSON");
    assert_eq!((&json[0]["step"], &json[0]["attempts"]), (&"submit".into(), &4.into()));
    assert_eq!(meter.snapshot(), Snapshot::default(), "drained");
}
