//! A client without the SDK: the routes of `docs/openapi.yaml`, JSON lines, and its own retries.

use std::{
    collections::HashMap,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use super::{Place, RETENTION};

/// An outage of the grid is over within this, or it is a failure.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// Runs jobs until the soak is over.
pub(crate) async fn run(place: Place, number: u32) -> anyhow::Result<()> {
    let token = std::fs::read_to_string(&place.token_file)?.trim().to_owned();
    let http = Client::builder().timeout(Duration::from_secs(40)).connect_timeout(Duration::from_secs(5)).build()?;
    let plain = Plain { place, http, token };
    let mut count = 0;
    while plain.place.goes_on() {
        plain.job(&format!("plain-{number}-{count}")).await.with_context(|| format!("plain-{number}-{count}"))?;
        count += 1;
    }
    Ok(())
}

struct Plain {
    place: Place,
    http: Client,
    token: String,
}

/// What was read of a job: the line of each task, by its position.
type Lines = HashMap<u64, Value>;

impl Plain {
    /// Sends a request until it is answered: 2xx, or another answer that sending it again cannot change.
    async fn call(&self, method: Method, path: &str, body: Option<String>) -> anyhow::Result<(StatusCode, String)> {
        let begun = Instant::now();
        loop {
            let mut request =
                self.http.request(method.clone(), format!("{}{path}", self.place.url)).bearer_auth(&self.token);
            if let Some(body) = &body {
                let kind = if path.contains("/tasks") { "application/x-ndjson" } else { "application/json" };
                request = request.header("content-type", kind).body(body.clone());
            }
            let answer = async {
                let answer = request.send().await?;
                Ok::<_, reqwest::Error>((answer.status(), answer.text().await?))
            };
            let again = match answer.await {
                Ok((status, text)) if status.is_success() => return Ok((status, text)),
                Ok((status, text)) if matches!(status.as_u16(), 429 | 502 | 503) => format!("{status}: {text}"),
                Ok((status, text)) => return Ok((status, text)),
                Err(error) => error.to_string(),
            };
            if begun.elapsed() > PATIENCE {
                bail!("{method} {path}: no answer for {} s: {again}", PATIENCE.as_secs());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn succeed(&self, method: Method, path: &str, body: Option<String>) -> anyhow::Result<Value> {
        let (status, text) = self.call(method.clone(), path, body).await?;
        if !status.is_success() {
            bail!("{method} {path}: {status}: {text}");
        }
        serde_json::from_str(&text).with_context(|| format!("{method} {path}: {text}"))
    }

    async fn job(&self, name: &str) -> anyhow::Result<()> {
        let tally = &self.place.tally;
        let id = format!("job_{:032x}", uuid_v7());
        let options =
            json!({"id": id, "functions": ["echo"], "name": name, "retention_ms": RETENTION.as_millis() as u64});
        self.succeed(Method::POST, "/v1/jobs", Some(options.to_string())).await?;

        let chunks: u64 = rand::random_range(1..30);
        let cancels = rand::random_range(0..5) == 0;
        let padding = "x".repeat([0, 0, 30, 400][rand::random_range(0..4)]);
        let payload = |index: u64| json!({"job": id, "index": index, "padding": padding});
        let mut tasks = 0;
        let mut seen = Lines::new();
        for chunk in 0..chunks {
            let count: u64 = rand::random_range(1..400);
            let lines: String = (tasks..tasks + count).map(|index| format!("{}\n", payload(index))).collect();
            let path = format!("/v1/jobs/{id}/tasks?chunk={chunk}&task_first={tasks}");
            let reply = self.succeed(Method::POST, &path, Some(lines.clone())).await?;
            if !matches!(reply["answers"][0]["answer"].as_str(), Some("accepted" | "exists")) {
                bail!("{path}: {reply}");
            }
            tasks += count;
            tally.tasks.fetch_add(count, Relaxed);
            if rand::random_range(0..10) == 0 {
                // The same again is the same chunk.
                let again = self.succeed(Method::POST, &path, Some(lines)).await?;
                if again["answers"][0]["answer"] != "exists" {
                    tally.loss(&format!("{name} {id}: chunk {chunk} was acknowledged, and sent again is {again}"));
                }
            }
            if rand::random_range(0..6) == 0 {
                self.read(name, &id, false, &mut seen, &payload).await?;
            }
            tokio::time::sleep(Duration::from_millis(rand::random_range(0..60))).await;
        }
        self.seal_or_cancel(name, &id, chunks, tasks, cancels).await?;
        self.read(name, &id, true, &mut seen, &payload).await?;
        self.check_all(name, &id, tasks, cancels, &seen);
        tally.jobs.fetch_add(1, Relaxed);

        // Read again, twice, at any later time: nothing may have changed.
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(rand::random_range(0..1_500))).await;
            let before = seen.len();
            self.read(name, &id, true, &mut seen, &payload).await?;
            if seen.len() != before {
                tally.violation(&format!("{name} {id}: {before} outcomes when it was over, then {}", seen.len()));
            }
        }
        Ok(())
    }

    async fn seal_or_cancel(&self, name: &str, id: &str, chunks: u64, tasks: u64, cancels: bool) -> anyhow::Result<()> {
        if !cancels {
            let seal = json!({"chunks": chunks, "tasks": tasks}).to_string();
            self.succeed(Method::POST, &format!("/v1/jobs/{id}/seal"), Some(seal)).await?;
            return Ok(());
        }
        let begun = Instant::now();
        loop {
            let (status, text) = self.call(Method::POST, &format!("/v1/jobs/{id}/cancel"), None).await?;
            match status.as_u16() {
                200 => break,
                202 if begun.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
                _ => bail!("{name} {id}: cancel: {status}: {text}"),
            }
        }
        self.place.tally.cancelled.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Reads results, all that are there or until the job is over, and compares them with what is right and with what was
    /// read before.
    async fn read(
        &self,
        name: &str,
        id: &str,
        follow: bool,
        seen: &mut Lines,
        payload: &impl Fn(u64) -> Value,
    ) -> anyhow::Result<()> {
        let path = format!("/v1/jobs/{id}/results.ndjson?follow={follow}");
        let begun = Instant::now();
        loop {
            let request = self.http.get(format!("{}{path}", self.place.url)).bearer_auth(&self.token);
            let mut text = Vec::new();
            let whole = stream(request, &mut text).await;
            if let Ok(Some(status)) = &whole
                && !matches!(status.as_u16(), 429 | 502 | 503)
            {
                bail!("{path}: {status}: {}", String::from_utf8_lossy(&text));
            }
            // What came before the transfer broke off counts too.
            if !matches!(whole, Ok(Some(_))) {
                self.compare(name, id, &text, seen, payload)?;
            }
            if matches!(whole, Ok(None)) {
                return Ok(());
            }
            if begun.elapsed() > 2 * PATIENCE {
                bail!("{path}: not read whole within {} s", 2 * PATIENCE.as_secs());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn compare(
        &self,
        name: &str,
        id: &str,
        text: &[u8],
        seen: &mut Lines,
        payload: &impl Fn(u64) -> Value,
    ) -> anyhow::Result<()> {
        let tally = &self.place.tally;
        let mut here: HashMap<u64, ()> = HashMap::new();
        let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for line in text[..end].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line: Value = serde_json::from_slice(line).context("a line of results")?;
            let index = line["index"].as_u64().context("an index")?;
            if here.insert(index, ()).is_some() {
                tally.duplicate(&format!("{name} {id}: task {index} comes twice in one reading"));
            }
            match line["outcome"].as_str() {
                Some("succeeded") if line["result"] == payload(index) => {}
                Some("cancelled") => {}
                Some("quarantined") => {
                    if !seen.contains_key(&index) {
                        tally.quarantined.fetch_add(1, Relaxed);
                    }
                }
                _ => tally.loss(&format!("{name} {id}: task {index} is {line}")),
            }
            tally.results.fetch_add(1, Relaxed);
            match seen.get(&index) {
                Some(before) if *before != line => {
                    tally.violation(&format!("{name} {id}: task {index} was {before} and is {line}"));
                }
                Some(_) => {}
                None => drop(seen.insert(index, line)),
            }
        }
        Ok(())
    }

    fn check_all(&self, name: &str, id: &str, tasks: u64, cancels: bool, seen: &Lines) {
        let tally = &self.place.tally;
        for index in (0..tasks).filter(|index| !seen.contains_key(index)) {
            tally.loss(&format!("{name} {id}: task {index} of {tasks} was acknowledged and has no outcome"));
        }
        if let Some(index) = seen.keys().find(|index| **index >= tasks) {
            tally.violation(&format!("{name} {id}: task {index} was never submitted"));
        }
        if !cancels && seen.values().any(|line| line["outcome"] == "cancelled") {
            tally.loss(&format!("{name} {id}: tasks are cancelled and nobody asked for that"));
        }
    }
}

/// Reads an answer as far as it comes: whole (`None`), an error's status, or broken off.
async fn stream(request: reqwest::RequestBuilder, text: &mut Vec<u8>) -> Result<Option<StatusCode>, reqwest::Error> {
    let mut answer = request.send().await?;
    let status = answer.status();
    while let Some(part) = answer.chunk().await? {
        text.extend_from_slice(&part);
    }
    Ok((!status.is_success()).then_some(status))
}

/// A UUIDv7: the time in ms, and random bits.
fn uuid_v7() -> u128 {
    let ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
    let random: u128 = rand::random();
    (ms & 0xffff_ffff_ffff) << 80
        | 0x7 << 76
        | (random >> 116 & 0xfff) << 64
        | 0b10 << 62
        | random & 0x3fff_ffff_ffff_ffff
}
