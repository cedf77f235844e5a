//! What a deployed grid asks of AWS for its tasks, as its own meters counted it.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use sheaf::Function;
use sheaf_api::cost::{Prices, Report, Step, Usage};
use sheaf_aws::{
    AwsPorts, Meter, Signer, direct, load_config,
    meter::{LOGGED, Row, Snapshot},
};
use sheaf_core::TenantId;
use sheaf_protocol::Service;

use crate::deployed::{Deployed, SKIPPED};

/// Tasks in a chunk, and chunks of a job.
const CASES: [(u32, u32); 3] = [(1_000, 200), (100, 100), (1, 100)];
/// Lambdas that have answered are given so long for their logs to be found, and for what follows a job's end.
const LOGS: Duration = Duration::from_secs(5);
/// Requests per 1,000 tasks at chunk 1,000: that many more than promised, since an emulator's batches are smaller than Lambda's.
const REQUESTS_MAX: f64 = 20.0;
/// The grid's Lambdas, and the step that an invocation of each counts for.
const FUNCTIONS: [(&str, Step); 5] = [
    ("submit", Step::Submit),
    ("upload", Step::Submit),
    ("dispatch", Step::Dispatch),
    ("result", Step::Result),
    ("read", Step::Read),
];

/// Counts what jobs in chunks of several sizes ask for: submitted and read with the user's own rights, run by the Lambdas.
pub(crate) async fn per_thousand_tasks(grid: &Deployed) -> anyhow::Result<String> {
    let mut seen = Vec::new();
    for (chunk_tasks, chunks) in CASES {
        let tasks = u64::from(chunk_tasks * chunks);
        let Some(usage) = job(grid, tasks, chunk_tasks).await? else {
            return Ok(format!("{SKIPPED} the Lambdas do not log their requests: deploy with log_filter"));
        };
        let report = Report::new(&usage.0, &usage.1, &Prices::built_in(), tasks);
        println!("chunks of {chunk_tasks}, {tasks} tasks; what Lambda asks to poll the queues is not in it:\n{report}");
        let total = report.total;
        ensure!(chunk_tasks < 1_000 || total.requests_per_1000 <= REQUESTS_MAX, "{total:?}");
        seen.push(format!("{:.1} at chunk {chunk_tasks}", total.requests_per_1000));
    }
    Ok(format!("requests per 1,000 tasks: {}", seen.join(", ")))
}

type Counted = (Usage, Vec<(Step, u64, u64)>);

/// Runs a job, and says what all that took part asked for; nothing if the grid does not say.
async fn job(grid: &Deployed, tasks: u64, chunk_tasks: u32) -> anyhow::Result<Option<Counted>> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
    let (meter, config) = (Meter::default(), load_config().await);
    let client = |step| {
        let ports = AwsPorts::over(&meter.attach(&config, step), &grid.settings);
        sheaf::Grid::over(Service::new(ports, TenantId::default(), direct::grid_view(4, BTreeMap::new())))
    };
    let (writer, reader) = (client(Step::Submit), client(Step::Read));
    let echo = Function::<u64, u64>::named("echo");
    let submission = writer.job("requests").chunk_tasks(chunk_tasks).map(&echo, 0..tasks).start().await?;
    let job = submission.job().id();
    submission.submitted().await?;
    drop(submission);
    grid.wait(job, Duration::from_secs(240)).await?;
    let mut results = reader.attach(job).await?.results::<u64>();
    let mut read = 0;
    while let Some(chunk) = results.next_chunk().await {
        read += chunk?.len() as u64;
    }
    ensure!(read == tasks, "{read} results of {tasks}");
    tokio::time::sleep(LOGS).await;

    let mut usage = Usage::default();
    let mut rows = meter.drain();
    let mut logged = 0;
    for (function, step) in FUNCTIONS {
        for invocation in invocations(&format!("/aws/lambda/{}-{function}", grid.name), since).await? {
            logged += 1;
            usage.invocations(step, 1.0);
            rows.extend(invocation);
        }
    }
    let counted = Snapshot { rows };
    usage.extend(&counted.usage());
    Ok((logged > 0).then(|| (usage, counted.bytes())))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    #[serde(default)]
    events: Vec<Event>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
struct Event {
    message: String,
}

/// What each invocation that was logged since then asked for. A group that is not there has logged nothing.
async fn invocations(group: &str, since_ms: u64) -> anyhow::Result<Vec<Vec<Row>>> {
    let (config, mut token, mut found) = (load_config().await, None, Vec::new());
    let region = config.region().context("a region")?.clone();
    let endpoint = match std::env::var("AWS_ENDPOINT_URL") {
        Ok(endpoint) => format!("{endpoint}/"),
        Err(_) => format!("https://logs.{region}.amazonaws.com/"),
    };
    let signer = Signer::of_host("").with_config(config).for_service("logs");
    loop {
        let body = json!({ "logGroupName": group, "startTime": since_ms, "nextToken": token }).to_string();
        let headers =
            [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", "Logs_20140328.FilterLogEvents")];
        let signature = signer.sign("POST", &endpoint, &headers, body.as_bytes()).await?;
        let mut request = reqwest::Client::new().post(&endpoint).body(body);
        for (name, value) in
            headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().chain(signature)
        {
            request = request.header(name, value);
        }
        let answer = request.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if text.contains("ResourceNotFoundException") {
            return Ok(found);
        }
        ensure!(status.is_success(), "{group}: {status}: {text}");
        let page: Page = serde_json::from_str(&text).with_context(|| group.to_owned())?;
        found.extend(page.events.iter().flat_map(|event| event.message.lines()).filter_map(rows));
        match page.next_token {
            next @ Some(_) if next != token => token = next,
            _ => return Ok(found),
        }
    }
}

/// The requests that a line of a log tells of.
fn rows(line: &str) -> Option<Vec<Row>> {
    let line: Value = serde_json::from_str(line).ok()?;
    let rows = line.get("rows").filter(|_| line["message"] == LOGGED)?;
    serde_json::from_str(rows.as_str()?).ok()
}
