//! The client on AWS without an API: the same promises as on a grid in this process, over an AWS on loopback.
#![cfg(feature = "loopback")]

mod promises;

use std::{collections::BTreeMap, sync::Arc};

use sheaf::{
    Code, Function, Grid, Lane, Manifest,
    api::{
        run::{Call, Report},
        wire::PutFunction,
    },
    aws::{Health, check},
};
use sheaf_aws::{AwsPorts, Settings, direct::Described, loopback};
use sheaf_core::FunctionKind;
use sheaf_protocol::{ChunkQueue, Drain, Ports, Runner, StateStore, Worker, WorkerOptions, summarise};
use tokio::task::JoinHandle;

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

/// A grid on loopback, and a loop that does what its Lambdas do.
struct Deployed {
    grid: Grid,
    working: JoinHandle<()>,
}

impl Deployed {
    async fn new() -> Result<Self, &'static str> {
        let (config, settings) = loopback::fresh_account().await?;
        let ports = loopback::ports(&config, &settings).await;
        let Settings { table, bucket, queues } = settings;
        let described = Described { version: 1, bucket, queues, api: None, slots: Some(4), lanes: BTreeMap::new() };
        described.write(&config, &table).await.expect("written");
        let grid = sheaf::builder().build().connect_aws(&config, &table).await.expect("connected");
        Ok(Self { grid, working: tokio::spawn(work(ports)) })
    }

    async fn function(&self, name: &str) -> Function<u64, u64> {
        let kind = FunctionKind::Handler { revision: String::new() };
        let manifest = Manifest::new(name.parse().expect("a name"), kind);
        self.grid.put_function(PutFunction { manifest, package: None }).await.expect("declared");
        Function::named(name)
    }

    async fn stopped(self) {
        self.grid.close().await;
        self.working.abort();
    }
}

/// Receives hints, runs their chunks, and tells the summaries of what has changed.
async fn work(ports: AwsPorts) {
    let options = WorkerOptions::new("wrk_test".parse().expect("a worker id"));
    let worker = Worker::new(ports.clone(), Arc::new(Echo), options, Arc::new(Drain::default()));
    loop {
        let deliveries = ports.queue().receive(&[Lane::default()], 10, 500).await.unwrap_or_default();
        let keys: Vec<_> = deliveries.iter().map(|delivery| delivery.hint.key).collect();
        futures::future::join_all(deliveries.into_iter().map(|delivery| worker.work(delivery))).await;
        let changed: Vec<_> = ports.state().chunks(&keys).await.expect("read").into_iter().flatten().collect();
        summarise::summarise(&ports, &changed).await.expect("summarised");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grid_by_name_keeps_the_promises() {
    let deployed = match Deployed::new().await {
        Ok(deployed) => deployed,
        Err(reason) => return loopback::skipped(reason),
    };
    let (grid, echo) = (&deployed.grid, deployed.function("echo").await);
    let info = grid.info().await.expect("works");
    assert_eq!((info.backend.as_str(), info.slots, grid.api().as_str()), ("aws", 4, "aws"));
    promises::many_tasks_come_back_once(grid, &echo, 2_000).await;
    promises::results_come_in_order(grid, &echo, 200).await;
    promises::tickets_resolve(grid, &echo, 50).await;
    promises::a_job_is_there_for_others(grid, &echo, 300).await;
    deployed.stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_told() {
    let (config, settings) = match loopback::fresh_account().await {
        Ok(account) => account,
        Err(reason) => return loopback::skipped(reason),
    };
    let connect = async || sheaf::builder().build().connect_aws(&config, &settings.table).await;
    let error = connect().await.expect_err("there is no table");
    assert_eq!(error.code(), Code::Invalid, "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("sheaf doctor --grid aws:")), "{error:?}");
    let found = check(&config, &settings.table).await;
    let failed = |found: &[sheaf::aws::Check]| -> Vec<&str> {
        found.iter().filter(|check| check.health == Health::Fail).map(|check| check.name).collect()
    };
    assert_eq!(failed(&found), ["table", "description"], "{found:#?}");

    loopback::ports(&config, &settings).await;
    assert_eq!(connect().await.expect_err("it is not described").code(), Code::NotFound);
    let Settings { table, bucket, queues } = settings.clone();
    let mut described = Described { version: 9, bucket, queues, api: None, slots: None, lanes: BTreeMap::new() };
    described.write(&config, &table).await.expect("written");
    assert_eq!(connect().await.expect_err("of the future").code(), Code::Invalid);
    described.version = 1;
    described.bucket = "nobody-has-this-one".to_owned();
    described.write(&config, &table).await.expect("written");
    assert_eq!(connect().await.expect("found").info().await.expect("works").slots, 100);
    let found = check(&config, &table).await;
    assert!(failed(&found).contains(&"bucket"), "{found:#?}");
    let health = |name: &str| found.iter().find(|check| check.name == name).map(|check| check.health);
    assert_eq!(
        (health("credentials"), health("clock"), health("table")),
        (Some(Health::Ok), Some(Health::Ok), Some(Health::Ok))
    );
}
