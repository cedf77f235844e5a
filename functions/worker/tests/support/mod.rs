//! Jobs of commands, and a machine whose end can be announced.

#![allow(dead_code, reason = "each test program uses its part")]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use sheaf_api::{
    Api, PackBuilder,
    wire::{CreateJob, PutFunction, SubmitChunk},
};
use sheaf_core::{Chunk, ChunkKey, FunctionKind, JobId, Lane, Manifest, Seal};
use sheaf_protocol::{Ports, Service, StateStore};

/// Submits a job whose tasks are scripts of a shell: one list of them for each chunk.
pub(crate) async fn submit<P: Ports>(service: &Service<P>, chunks: &[Vec<String>]) -> Vec<ChunkKey> {
    // The whole payload as one argument.
    let argv = ["sh", "-c", "{}"].map(str::to_owned).to_vec();
    let mut manifest = Manifest::new("script".parse().expect("a name"), FunctionKind::Command { argv });
    manifest.timeout_ms = 600_000;
    service.put_function(PutFunction { manifest, package: None }).await.expect("declared");
    let id = JobId::from_uuid(uuid::Uuid::now_v7());
    let request = CreateJob { lane: Lane::Spot, ..CreateJob::new(id, vec!["script".to_owned()]) };
    service.create_job(request).await.expect("created");
    let mut tasks = 0;
    for (number, scripts) in (0..).zip(chunks) {
        let mut pack = PackBuilder::new();
        scripts.iter().for_each(|script| pack.push(script.as_bytes()).expect("a payload that fits"));
        let chunk = SubmitChunk { number, task_first: tasks, pack: pack.finish(false) };
        service.submit(id, vec![chunk]).await.expect("submitted");
        tasks += scripts.len() as u64;
    }
    let count = chunks.len() as u32;
    service.seal(id, Seal { chunks: count, tasks }).await.expect("sealed");
    (0..count).map(|number| ChunkKey { job: id, number }).collect()
}

/// Chunks as they are.
pub(crate) async fn chunks<P: Ports>(ports: &P, keys: &[ChunkKey]) -> Vec<Chunk> {
    let found = ports.state().chunks(keys).await.expect("they can be read");
    found.into_iter().map(|chunk| chunk.expect("it is there")).collect()
}

/// Waits until something is true of the chunks; not for ever.
pub(crate) async fn wait_for<P: Ports>(
    ports: &P,
    keys: &[ChunkKey],
    what: &str,
    is: impl Fn(&[Chunk]) -> bool,
) -> Vec<Chunk> {
    let looking = async {
        loop {
            let found = chunks(ports, keys).await;
            if is(&found) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(120), looking).await {
        Ok(found) => found,
        Err(_) => panic!("waited in vain: {what}: {:?}", chunks(ports, keys).await),
    }
}

/// The metadata service of a machine.
pub(crate) struct Machine {
    pub(crate) url: String,
    process: Child,
    client: reqwest::Client,
}

impl Machine {
    pub(crate) fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sheaf-metadata-standin"));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a stand-in");
        let mut url = String::new();
        BufReader::new(process.stdout.take().expect("it is piped")).read_line(&mut url).expect("its URL");
        Self { url: url.trim().to_owned(), process, client: reqwest::Client::new() }
    }

    pub(crate) async fn put(&self, path: &str, body: &'static str) {
        let put = self.client.put(format!("{}/{path}", self.url)).header("content-type", "application/json").body(body);
        put.send().await.and_then(reqwest::Response::error_for_status).expect("it is told");
    }

    pub(crate) async fn looks(&self) -> u64 {
        let answer = self.client.get(format!("{}/looks", self.url)).send().await.expect("it answers");
        answer.text().await.expect("a number").parse().expect("a number")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
