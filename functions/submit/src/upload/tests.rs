//! Uploads on an AWS on loopback: from the event to the results.

use std::{collections::BTreeMap, collections::HashMap, io::Write, path::Path, sync::Arc};

use bytes::Bytes;
use serde_json::{Value, json};
use sheaf_api::{
    Api,
    intake::ErrorReport,
    run::{Call, Failed, Report},
    wire::{GridView, JobFilter, PutFunction},
};
use sheaf_aws::{AwsPorts, Objects, loopback};
use sheaf_core::{Failure, FailureKind, FunctionKind, Job, JobId, Lane, Manifest, TenantId};
use sheaf_files::{Checked, FileOptions, FileSource, Resume};
use sheaf_local::{Grid, GridOptions, Handler};
use sheaf_protocol::{ChunkQueue, Drain, Ports, Runner, Service, StateStore, Worker, WorkerOptions, summarise};

use super::{Continuation, Uploads, message::Message, source::Upload};

const MINUTE_MS: u64 = 60_000;
const SLOTS: u32 = 2;

/// `echo` gives its arguments, `fail` fails: here as on the embedded grid.
fn answer(function: &str, payload: &[u8]) -> Result<Vec<u8>, Failure> {
    match function {
        "echo" => Ok(payload.to_vec()),
        _ => Err(Failure::new(FailureKind::Error, "no such row").with_type("KeyError")),
    }
}

const FUNCTIONS: [&str; 2] = ["echo", "fail"];

fn manifest(name: &str) -> Manifest {
    Manifest::new(name.parse().expect("a name"), FunctionKind::Handler { revision: String::new() })
}

struct Functions;

impl Runner for Functions {
    fn slots(&self) -> usize {
        SLOTS as usize
    }

    async fn run(&self, call: Call) -> Report {
        let mut report = Report::default();
        for task in call.tasks {
            match answer(call.function.name.as_str(), call.pack.payload(task)) {
                Ok(result) => report.answers.succeeded(task, &result, 1).expect("an answer that fits"),
                Err(failure) => report.failures.push(Failed { task, failure, run_us: 1 }),
            }
        }
        report
    }
}

/// A grid in an account of its own.
struct World {
    ports: AwsPorts,
    objects: Objects,
    uploads: Uploads<Service<AwsPorts>>,
}

impl World {
    async fn fresh() -> Result<Self, &'static str> {
        let (config, settings) = loopback::fresh_account().await?;
        let ports = loopback::ports(&config, &settings).await;
        let objects = Objects::over(&config, &settings);
        objects.make_uploads_queue().await;
        let uploads = Uploads::new(service(&ports), objects.clone());
        for name in FUNCTIONS {
            let request = PutFunction { manifest: manifest(name), package: None };
            uploads.api.put_function(request).await.expect("declared");
        }
        Ok(Self { ports, objects, uploads })
    }

    async fn put(&self, key: &str, bytes: &[u8]) {
        self.objects.put(key, Bytes::copy_from_slice(bytes), "", HashMap::new()).await.expect("put");
    }

    /// Puts a file, and gives the event that S3 sends.
    async fn upload(&self, key: &str, bytes: &[u8]) -> String {
        self.put(key, bytes).await;
        loop {
            let told = self.objects.take_from_uploads(10).await;
            if let Some(event) = told.into_iter().find(|message| message.contains("ObjectCreated")) {
                return event;
            }
        }
    }

    async fn answer_in(&self, message: &str, remaining_ms: u64) -> Vec<String> {
        let record = json!({"messageId": "m1", "eventSource": "aws:sqs", "body": message});
        let answer = self.uploads.answer(&json!({"Records": [record]}), remaining_ms).await;
        let failures = answer["batchItemFailures"].as_array().expect("a list of failures").iter();
        failures.map(|failure| failure["itemIdentifier"].as_str().expect("an id").to_owned()).collect()
    }

    /// Works on a message that nothing is wrong with.
    async fn work(&self, message: &str) {
        assert_eq!(self.answer_in(message, MINUTE_MS).await, [""; 0], "{message}");
    }

    async fn collect(&self, job: JobId) {
        self.work(&json!({"collect": job}).to_string()).await;
    }

    async fn jobs(&self) -> Vec<Job> {
        let rows = self.uploads.api.jobs(JobFilter::default()).await.expect("a list").rows;
        rows.into_iter().map(|view| view.job).collect()
    }

    async fn job(&self, id: JobId) -> Job {
        self.uploads.api.progress(id, None, 0).await.expect("a job").job
    }

    /// What the stream of the table tells the result step. Gives whether there is more to run.
    async fn tell(&self, job: JobId) -> bool {
        let chunks = self.ports.state().chunks_from(job, 0, 1_000).await.expect("chunks");
        for some in chunks.chunks(50) {
            summarise::summarise(&self.ports, some).await.expect("summarised");
        }
        chunks.iter().any(|chunk| !chunk.is_final())
    }

    /// Runs all chunks that are there; the job is over then, if it is sealed.
    async fn run(&self, job: JobId) {
        let options = WorkerOptions::new("wrk_uploads".parse().expect("a worker id"));
        let worker = Worker::new(self.ports.clone(), Arc::new(Functions), options, Arc::new(Drain::default()));
        while self.tell(job).await {
            let deliveries = self.ports.queue().receive(&[Lane::default()], 10, 1_000).await.expect("received");
            for delivery in deliveries {
                worker.work(delivery).await;
            }
        }
    }

    async fn text(&self, key: &str) -> Option<String> {
        let found = self.objects.get(key).await.expect("got");
        found.map(|bytes| String::from_utf8(bytes.to_vec()).expect("text"))
    }

    async fn lines(&self, key: &str) -> Vec<String> {
        sorted(&self.text(key).await.unwrap_or_else(|| panic!("{key} is not there")))
    }

    async fn report(&self, key: &str) -> ErrorReport {
        serde_json::from_str(&self.text(key).await.unwrap_or_else(|| panic!("{key} is not there"))).expect("a report")
    }
}

fn service(ports: &AwsPorts) -> Service<AwsPorts> {
    let grid = GridView {
        version: String::new(),
        backend: "aws".into(),
        directory: None,
        slots: SLOTS,
        durable: true,
        lanes: BTreeMap::new(),
        syncs: None,
    };
    Service::new(ports.clone(), TenantId::default(), grid)
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

/// The job of an event.
fn job_of(event: &str) -> JobId {
    upload_of(event).job()
}

fn upload_of(event: &str) -> Upload {
    match Message::parse(event) {
        Ok(Message::Uploaded(uploads)) => uploads.into_iter().next().expect("an upload"),
        other => panic!("{other:?}"),
    }
}

/// A command file of `count` commands of `echo`, some that fail, and some that nobody handles.
fn commands(count: u64) -> String {
    let function = |i| match i % 10 {
        3 => "fail",
        7 => "unknown",
        _ => "echo",
    };
    let one = |i| format!(r#""{i}":{{"type":"{}","arguments":{{"n":{i}}}}}"#, function(i));
    format!("{{{}}}", (0..count).map(one).collect::<Vec<_>>().join(",\n"))
}

/// The lines of the same file on the embedded grid.
async fn local_lines(name: &str, bytes: &[u8]) -> Vec<String> {
    let grid = Grid::open(GridOptions { slots: SLOTS as usize, ..GridOptions::default() }).await.expect("a grid");
    for name in FUNCTIONS {
        let handler = Handler::new(move |_, payload, out| answer(name, payload).map(|result| out.extend(result)));
        grid.handlers().insert(name.parse().expect("a name"), "", handler);
        grid.put_function(PutFunction { manifest: manifest(name), package: None }).await.expect("declared");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (path, out) = (folder.path().join(name), folder.path().join("out"));
    std::fs::write(&path, bytes).expect("written");
    let source = FileSource::open(&path, JobId::from_uuid(uuid::Uuid::now_v7())).expect("a file");
    let options = FileOptions::default();
    Box::pin(sheaf_files::run_to(&grid, source, &options, Path::new(&out), |_| ())).await.expect("run");
    grid.shutdown().await;
    sorted(&std::fs::read_to_string(&out).expect("results"))
}

macro_rules! world {
    () => {
        match World::fresh().await {
            Ok(world) => world,
            Err(reason) => return loopback::skipped(reason),
        }
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_has_the_results_of_a_local_run() {
    let world = world!();
    let file = commands(200);
    let ndjson: String = (0..50).map(|i| format!("{{\"type\":\"echo\",\"arguments\":[{i}]}}\n")).collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    gzip.write_all(ndjson.as_bytes()).expect("packed");
    let gzip = gzip.finish().expect("packed");
    for (key, bytes, results, chunks, tasks) in [
        ("inbox/a b+c.json", file.as_bytes(), "outbox/a b+c.txt", 14, 180),
        ("inbox/night/x.ndjson.gz", &gzip, "outbox/night/x.txt", 13, 50),
    ] {
        let event = world.upload(key, bytes).await;
        world.work(&event).await;
        let job = job_of(&event);
        let seal = world.job(job).await.state.seal().expect("it is sealed");
        assert_eq!((seal.chunks, seal.tasks), (chunks, tasks), "{key}");
        // Nothing is written before it is over.
        assert_eq!(world.answer_in(&json!({"collect": job}).to_string(), MINUTE_MS).await, ["m1"]);
        assert_eq!(world.text(results).await, None);
        world.run(job).await;
        world.collect(job).await;
        let name = key.rsplit('/').next().expect("a name");
        assert_eq!(world.lines(results).await, local_lines(name, bytes).await, "{key}");
        let made = world.job(job).await;
        assert_eq!(Upload::of_job(&made), Some(upload_of(&event)));
        assert_eq!(made.options.name, sheaf_api::intake::stem(name));
    }
    assert_eq!(world.objects.uploads_open().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_come_twice_or_late_make_one_job() {
    let world = world!();
    let first = world.upload("inbox/a.json", commands(40).as_bytes()).await;
    // At the same time, in two Lambdas.
    let other = Uploads::new(service(&world.ports), world.objects.clone());
    let event = json!({"Records": [{"messageId": "m2", "body": first}]});
    let ((), answer) = tokio::join!(world.work(&first), Box::pin(other.answer(&event, MINUTE_MS)));
    assert_eq!(answer, json!({"batchItemFailures": []}));
    let job = job_of(&first);
    world.run(job).await;
    world.work(&first).await;
    world.collect(job).await;
    let results = world.lines("outbox/a.txt").await;
    assert_eq!(results.len(), 40);
    world.work(&first).await;
    world.collect(job).await;
    assert_eq!(world.jobs().await.len(), 1);

    // The same bytes again are a new job; events of the old one, come late, change nothing.
    let second = world.upload("inbox/a.json", commands(40).as_bytes()).await;
    let third = world.upload("inbox/a.json", commands(5).as_bytes()).await;
    assert_ne!(job_of(&second), job);
    world.work(&third).await;
    world.work(&first).await;
    world.run(job_of(&third)).await;
    world.collect(job_of(&third)).await;
    assert_eq!(world.lines("outbox/a.txt").await.len(), 5);
    world.collect(job).await;
    world.work(&second).await;
    assert_eq!(world.lines("outbox/a.txt").await.len(), 5);
    // The second was replaced before anybody read it.
    assert_eq!(world.jobs().await.len(), 2);
}

/// Works on continuations, each in no time, until there are none; gives how many there were.
async fn go_on(world: &World, upload: &Upload, resume: Resume) -> usize {
    let mut messages = vec![Continuation { upload: upload.clone(), resume }.into_message()];
    let mut count = 0;
    while let Some(message) = messages.pop() {
        count += 1;
        assert_eq!(world.answer_in(&message, 0).await, [""; 0]);
        let sent = world.objects.take_from_uploads(0).await;
        messages.extend(sent.into_iter().filter(|message| message.contains("continue")));
        assert!(messages.len() <= 1);
    }
    count
}

fn checked(bytes: &[u8], commands: u64) -> Checked {
    Checked { commands, functions: ["echo", "fail", "unknown"].map(str::to_owned).into(), bytes: bytes.len() as u64 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_that_is_paused_makes_the_same_job() {
    let world = world!();
    let file = commands(200);
    let (whole, pieces) = (
        world.upload("inbox/whole.json", file.as_bytes()).await,
        world.upload("inbox/pieces.json", file.as_bytes()).await,
    );
    world.work(&whole).await;
    let upload = upload_of(&pieces);
    let resume = Resume { chunk: 0, checked: Some(checked(file.as_bytes(), 200)) };
    let invocations = go_on(&world, &upload, resume).await;
    assert!(invocations > 3, "{invocations} invocations");
    let (whole, pieces) = (job_of(&whole), upload.job());
    assert_eq!(world.job(pieces).await.state.seal(), world.job(whole).await.state.seal());
    for job in [whole, pieces] {
        world.run(job).await;
        world.collect(job).await;
    }
    assert_eq!(world.lines("outbox/pieces.txt").await, world.lines("outbox/whole.txt").await);
    assert_eq!(world.lines("outbox/pieces.txt").await.len(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_are_written_in_several_invocations() {
    let world = world!();
    // More chunks than a page of results has.
    let file = commands(40 * 1_024);
    let event = world.upload("inbox/a.json", file.as_bytes()).await;
    let job = job_of(&event);
    world.work(&event).await;
    world.run(job).await;
    let collect = json!({"collect": job}).to_string();
    let next = async || {
        let sent = world.objects.take_from_uploads(5).await;
        let sent: Vec<String> = sent.into_iter().filter(|message| message.contains("write")).collect();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.into_iter().next().expect("one message")
    };
    assert_eq!(world.answer_in(&collect, 0).await, [""; 0]);
    assert_eq!(world.text("outbox/a.txt").await, None);
    let goes_on = next().await;
    let expected = local_lines("a.json", file.as_bytes()).await;
    // The message comes twice.
    for _ in 0..2 {
        world.work(&goes_on).await;
        assert!(world.lines("outbox/a.txt").await == expected, "other lines");
    }

    // The parts that were left are no more.
    world.objects.delete("outbox/a.txt").await.expect("deleted");
    world.work(&goes_on).await;
    assert_eq!(world.text("outbox/a.txt").await, None);
    world.work(&next().await).await;
    assert!(world.lines("outbox/a.txt").await == expected, "other lines");

    // Nobody knows any more where to go on.
    world.objects.delete("outbox/a.txt").await.expect("deleted");
    let Ok(Message::Write(writing)) = Message::parse(&goes_on) else { panic!("{goes_on}") };
    world.objects.delete(&writing.left.expect("a key")).await.expect("deleted");
    world.work(&goes_on).await;
    assert!(world.lines("outbox/a.txt").await == expected, "other lines");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_has_its_report_and_a_good_one_removes_it() {
    let world = world!();
    let bad = world.upload("inbox/x/a.json", b"{\"a\":{\"type\":\"echo\"},\n\"b\":5}").await;
    world.work(&bad).await;
    let report = world.report("outbox/x/a.error.json").await;
    assert_eq!((report.file.as_str(), report.code.as_str(), report.line), ("x/a.json", "malformed", Some(2)));
    let unknown = world.upload("inbox/x/a.doc", b"{}").await;
    world.work(&unknown).await;
    assert_eq!(world.report("outbox/x/a.doc.error.json").await.code, "unknown_format");
    assert!(world.jobs().await.is_empty());

    let good = world.upload("inbox/x/a.json", commands(5).as_bytes()).await;
    world.work(&good).await;
    world.run(job_of(&good)).await;
    assert!(world.text("outbox/x/a.error.json").await.is_some());
    world.collect(job_of(&good)).await;
    assert_eq!(world.lines("outbox/x/a.txt").await.len(), 5);
    assert_eq!(world.text("outbox/x/a.error.json").await, None);
    world.work(&bad).await;
    assert_eq!(world.text("outbox/x/a.error.json").await, None);

    // Whoever is late does not remove the report on a later file.
    let worse = world.upload("inbox/x/a.json", b"").await;
    world.work(&worse).await;
    world.collect(job_of(&good)).await;
    assert_eq!(world.report("outbox/x/a.error.json").await.code, "empty");
    assert_eq!(world.lines("outbox/x/a.txt").await.len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_nobody_handles_is_answered_at_once() {
    let world = world!();
    let file = br#"{"a":{"type":"f"},"b":{"type":"g"}}"#;
    for (key, bytes, results, lines) in
        [("inbox/a.json", &file[..], "outbox/a.txt", 2), ("inbox/b.json", b"{}", "outbox/b.txt", 0)]
    {
        let event = world.upload(key, bytes).await;
        world.work(&event).await;
        assert_eq!(world.lines(results).await.len(), lines);
    }
    assert_eq!(world.lines("outbox/a.txt").await, ["a f not handled", "b g not handled"]);
    assert!(world.jobs().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_files_of_a_stem_keep_their_names() {
    let world = world!();
    let csv = b"id,type,n\nc,echo,1\n";
    for round in 0..2 {
        let json = world.upload("inbox/a.json", commands(5).as_bytes()).await;
        let other = world.upload("inbox/a.csv", csv).await;
        world.work(&json).await;
        world.work(&other).await;
        world.run(job_of(&other)).await;
        world.run(job_of(&json)).await;
        // The second is over first.
        world.collect(job_of(&other)).await;
        world.collect(job_of(&json)).await;
        assert_eq!(world.lines("outbox/a.csv.txt").await, ["c {'n': '1'}"], "{round}");
        assert_eq!(world.lines("outbox/a.txt").await.len(), 5, "{round}");
    }
    let twice = world.upload("inbox/a.csv.json", commands(3).as_bytes()).await;
    world.work(&twice).await;
    world.run(job_of(&twice)).await;
    world.collect(job_of(&twice)).await;
    assert_eq!(world.lines("outbox/a.csv.txt").await, ["c {'n': '1'}"]);
    assert_eq!(world.lines("outbox/a.csv.json.txt").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_a_cancelled_job_have_their_line() {
    let world = world!();
    let file = commands(200);
    let event = world.upload("inbox/a.json", file.as_bytes()).await;
    let upload = upload_of(&event);
    let start = Resume { chunk: 0, checked: Some(checked(file.as_bytes(), 200)) };
    let first = Continuation { upload: upload.clone(), resume: start }.into_message();
    assert_eq!(world.answer_in(&first, 0).await, [""; 0]);
    let next = world.objects.take_from_uploads(5).await;
    world.run(upload.job()).await;
    world.uploads.api.cancel(upload.job()).await.expect("cancelled");
    world.tell(upload.job()).await;
    assert_eq!(world.job(upload.job()).await.state.as_str(), "cancelled");
    world.work(&next[0]).await;
    world.collect(upload.job()).await;
    let lines = world.lines("outbox/a.txt").await;
    let count = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    assert_eq!((lines.len(), count(" not handled")), (200, 20));
    let (cancelled, ran) = (count(" ERROR cancelled: "), count("{'n': ") + count("KeyError"));
    assert!(cancelled > 0 && ran > 0 && cancelled + ran == 180, "{cancelled} cancelled, {ran} ran");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_uploads_are_done_with() {
    let world = world!();
    let unread = world.upload("inbox/a.json", commands(5).as_bytes()).await;
    world.objects.delete("inbox/a.json").await.expect("deleted");
    world.work(&unread).await;
    assert!(world.jobs().await.is_empty());

    // Deleted afterwards, it has its results, unless they are in it.
    let handled = world.upload("inbox/handled.json", commands(3).as_bytes()).await;
    let others = world.upload("inbox/others.json", commands(10).as_bytes()).await;
    for event in [&handled, &others] {
        world.work(event).await;
        world.objects.delete(&upload_of(event).key).await.expect("deleted");
        world.work(event).await;
        world.run(job_of(event)).await;
        world.collect(job_of(event)).await;
    }
    assert_eq!(world.lines("outbox/handled.txt").await.len(), 3);
    assert_eq!(world.text("outbox/others.txt").await, None);
    assert_eq!(world.report("outbox/others.error.json").await.code, "gone");
    assert_eq!(world.job(job_of(&others)).await.state.as_str(), "done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_deleted_between_two_invocations_is_cancelled() {
    let world = world!();
    let file = commands(200);
    let event = world.upload("inbox/c.json", file.as_bytes()).await;
    let upload = upload_of(&event);
    let start = Resume { chunk: 0, checked: Some(checked(file.as_bytes(), 200)) };
    assert_eq!(
        world.answer_in(&Continuation { upload: upload.clone(), resume: start }.into_message(), 0).await,
        [""; 0]
    );
    let next = world.objects.take_from_uploads(5).await;
    assert_eq!(world.job(upload.job()).await.state.as_str(), "open");
    world.objects.delete("inbox/c.json").await.expect("deleted");
    world.work(&next[0]).await;
    assert!(world.job(upload.job()).await.state.is_cancelled());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_brings_a_message_again() {
    let world = world!();
    let event = world.upload("inbox/a.json", commands(5).as_bytes()).await;
    let elsewhere = event.replace(world.objects.bucket(), "elsewhere");
    for message in [elsewhere.as_str(), "{}", "no JSON"] {
        assert_eq!(world.answer_in(message, MINUTE_MS).await, ["m1"], "{message}");
    }
    // Of a batch, only those that failed; what is left alone is done.
    let hidden = event.replace("inbox/a.json", "inbox/.a.json");
    let never = json!({"collect": JobId::from_bytes([1; 16])}).to_string();
    let bodies = [hidden, elsewhere, r#"{"Event":"s3:TestEvent"}"#.to_owned(), never];
    let records: Vec<Value> =
        bodies.iter().zip(0..).map(|(body, id)| json!({"messageId": format!("m{id}"), "body": body})).collect();
    let answer = world.uploads.answer(&json!({"Records": records}), MINUTE_MS).await;
    assert_eq!(answer, json!({"batchItemFailures": [{"itemIdentifier": "m1"}]}));
    assert!(world.jobs().await.is_empty());

    // A job that was made by hand writes over nobody's results.
    let mut request = sheaf_api::wire::CreateJob::new(JobId::from_uuid(uuid::Uuid::now_v7()), vec!["echo".into()]);
    let upload = upload_of(&event);
    request.labels = upload.labels().into_iter().collect();
    request.origin = Some(sheaf_core::Origin::File { path: upload.url() });
    let job = world.uploads.api.create_job(request).await.expect("created").job;
    assert_eq!(Upload::of_job(&job), None);
    world.collect(job.id).await;
    assert_eq!(world.text("outbox/a.txt").await, None);
}
