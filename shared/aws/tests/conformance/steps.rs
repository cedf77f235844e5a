//! The steps of the protocol over the ports on AWS: what is submitted is run, summarised, closed, read and removed.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use sheaf_api::{
    Api, PackBuilder, Segment,
    run::{Call, Report},
    wire::{ChunkAnswer, CreateJob, GridView, JobFilter, PutFunction, ReadResults, SubmitChunk},
};
use sheaf_aws::{AwsBlobs, AwsPorts, AwsQueue, AwsState, loopback};
use sheaf_core::{ChunkKey, FunctionKind, JobId, Lane, Manifest, Seal, TenantId};
use sheaf_protocol::{
    ChunkQueue, Drain, Ports, Runner, Service, StateStore, Worker, WorkerOptions, summarise, sweep, work::Worked,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Answers every task with its own payload.
struct Echo;

impl Runner for Echo {
    fn slots(&self) -> usize {
        4
    }

    async fn run(&self, call: Call) -> Report {
        let mut report = Report::default();
        for task in call.tasks {
            report.answers.succeeded(task, call.pack.payload(task), 1).expect("an answer that fits");
        }
        report
    }
}

fn service(ports: &AwsPorts) -> Service<AwsPorts> {
    let grid = GridView {
        version: String::new(),
        backend: "aws".into(),
        directory: None,
        slots: 4,
        durable: true,
        lanes: BTreeMap::new(),
        syncs: None,
    };
    Service::new(ports.clone(), TenantId::default(), grid)
}

async fn submitted(service: &Service<AwsPorts>, id: JobId, chunks: u32, tasks: u32) {
    let manifest = Manifest::new("echo".parse().expect("a name"), FunctionKind::Handler { revision: String::new() });
    service.put_function(PutFunction { manifest, package: None }).await.expect("declared");
    service.create_job(CreateJob::new(id, vec!["echo".to_owned()])).await.expect("created");
    let mut all = Vec::new();
    for number in 0..chunks {
        let mut pack = PackBuilder::new();
        for task in 0..tasks {
            pack.push(format!("{number}/{task}").as_bytes()).expect("a payload that fits");
        }
        all.push(SubmitChunk { number, task_first: u64::from(number * tasks), pack: pack.finish(false) });
    }
    for _ in 0..2 {
        let reply = service.submit(id, all.clone()).await.expect("submitted");
        let fine = |answer: &ChunkAnswer| matches!(answer, ChunkAnswer::Accepted | ChunkAnswer::Exists);
        assert!(reply.answers.len() == all.len() && reply.answers.iter().all(fine), "{:?}", reply.answers);
    }
    service.seal(id, Seal { chunks, tasks: u64::from(chunks * tasks) }).await.expect("sealed");
}

/// What the stream of the table tells the result step.
async fn told(ports: &AwsPorts, id: JobId, chunks: u32) {
    let keys: Vec<ChunkKey> = (0..chunks).map(|number| ChunkKey { job: id, number }).collect();
    let changed: Vec<_> = again(|| ports.state().chunks(&keys)).await.into_iter().flatten().collect();
    summarise::summarise(ports, &changed).await.expect("summarised");
}

async fn fresh() -> Result<AwsPorts, &'static str> {
    loopback::fresh().await
}

/// A way to a server on which every seventh answer or so gets lost, after the server has done what it was asked.
async fn lossy(endpoint: &str) -> (String, Arc<AtomicU32>) {
    let server = endpoint.strip_prefix("http://").expect("an endpoint on loopback").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let lost = Arc::new(AtomicU32::new(0));
    let count = lost.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&server).await.expect("the server");
            tokio::spawn(pass(client, server, count.clone()));
        }
    });
    (format!("http://{address}"), lost)
}

async fn pass(client: TcpStream, server: TcpStream, lost: Arc<AtomicU32>) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let requests = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut answer = vec![0; 1 << 20];
    while let Ok(bytes @ 1..) = from_server.read(&mut answer).await {
        if answer.starts_with(b"HTTP/") && rand::random::<u32>().is_multiple_of(7) {
            lost.fetch_add(1, Ordering::Relaxed);
            break;
        }
        if to_client.write_all(&answer[..bytes]).await.is_err() {
            break;
        }
    }
    requests.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_goes_through_all_steps() {
    match fresh().await {
        Ok(ports) => run_a_job(ports).await,
        Err(reason) => loopback::skipped(reason),
    }
}

/// A write whose answer is lost is recognised as one's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_change_nothing() {
    let endpoint = match loopback::aws_on_loopback() {
        Ok(endpoint) => endpoint,
        Err(reason) => return loopback::skipped(reason),
    };
    let account = loopback::account();
    let (config, settings) = (loopback::config(endpoint, &account).await, loopback::settings(&format!("s{account}")));
    loopback::ports(&config, &settings).await;
    let (endpoint, lost) = lossy(endpoint).await;
    let state = AwsState::new(&loopback::config(&endpoint, &account).await, &settings.table);
    let (blobs, queue) = (AwsBlobs::new(&config, &settings.bucket), AwsQueue::new(&config, &settings.queues));
    run_a_job(AwsPorts::new(state, blobs, queue)).await;
    assert!(lost.load(Ordering::Relaxed) > 20, "{lost:?} answers were lost");
}

/// Calls again what the steps leave to their callers.
async fn again<T, E: std::fmt::Debug, F: Future<Output = Result<T, E>>>(mut call: impl FnMut() -> F) -> T {
    let mut tries = 0;
    loop {
        tries += 1;
        match call().await {
            Ok(answer) => return answer,
            Err(error) => assert!(tries < 10, "{error:?}"),
        }
    }
}

async fn run_a_job(ports: AwsPorts) {
    const CHUNKS: u32 = 70;
    const TASKS: u32 = 10;
    let (service, id) = (service(&ports), JobId::from_uuid(uuid::Uuid::now_v7()));
    submitted(&service, id, CHUNKS, TASKS).await;
    told(&ports, id, CHUNKS).await;

    let options = WorkerOptions::new("wrk_steps".parse().expect("a worker id"));
    let worker = Worker::new(ports.clone(), Arc::new(Echo), options, Arc::new(Drain::default()));
    let (mut finished, mut idle) = (0, 0);
    while finished < CHUNKS && idle < 5 {
        let deliveries = ports.queue().receive(&[Lane::default()], 10, 1_000).await.expect("received");
        idle = if deliveries.is_empty() { idle + 1 } else { 0 };
        // Whatever is hinted at twice is run once.
        let worked = futures::future::join_all(deliveries.into_iter().map(|delivery| worker.work(delivery))).await;
        finished += worked.iter().filter(|worked| matches!(worked, Worked::Finished { .. })).count() as u32;
    }
    assert_eq!(finished, CHUNKS);
    told(&ports, id, CHUNKS).await;

    let mut read = ReadResults::default();
    let mut answers = BTreeMap::new();
    loop {
        let page = service.results(id, read.clone()).await.expect("results");
        if page.chunks.is_empty() {
            assert_eq!(page.job.job.state.as_str(), "done");
            assert_eq!(page.job.summary.totals.succeeded, u64::from(CHUNKS * TASKS));
            break;
        }
        for chunk in page.chunks {
            read.have.insert(chunk.head.number);
            for segment in chunk.segments {
                let segment = Segment::parse(segment).expect("a segment");
                answers.extend(segment.entries().map(|entry| ((chunk.head.number, entry.task), entry.answer.to_vec())));
            }
        }
    }
    assert_eq!(answers.len(), (CHUNKS * TASKS) as usize);
    assert!(answers.iter().all(|((chunk, task), answer)| *answer == format!("{chunk}/{task}").into_bytes()));
    assert_eq!(service.events(id, 0).await.expect("history").rows.len(), 3 + 3 * CHUNKS as usize);
    assert_eq!(again(|| ports.state().due(None, u64::MAX, 10)).await, []);

    let job = again(|| ports.state().job(id)).await.expect("it is there");
    sweep::remove(&ports, &job).await.expect("removed");
    assert!(service.jobs(JobFilter::default()).await.expect("listed").rows.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_job_ends_all_of_its_chunks() {
    const CHUNKS: u32 = 20;
    let ports = match fresh().await {
        Ok(ports) => ports,
        Err(reason) => return loopback::skipped(reason),
    };
    let (service, id) = (service(&ports), JobId::from_uuid(uuid::Uuid::now_v7()));
    submitted(&service, id, CHUNKS, 3).await;
    told(&ports, id, CHUNKS).await;
    let asked = service.cancel(id).await.expect("cancelled");
    assert_eq!(asked.job.state.as_str(), "cancelling");
    told(&ports, id, CHUNKS).await;
    let over = service.progress(id, None, 0).await.expect("progress");
    assert_eq!((over.job.state.as_str(), over.summary.totals.cancelled), ("cancelled", u64::from(3 * CHUNKS)));
}
