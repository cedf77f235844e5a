//! The program of the container; see the library's page.

use std::{process::exit, sync::Arc, time::Duration};

use sheaf_api::cost::Step;
use sheaf_aws::{AwsPorts, LambdaInvoker, Meter, SystemClock, load_config};
use sheaf_protocol::{Clock, Ports};
use sheaf_telemetry::{Format, Metrics, names};
use sheaf_worker::{Counts, Ended, Heard, run, watch_signals};
use sheaf_worker_container::{Settings, hide_from_children, keep_protected, machine_name, watch_ec2};
use tokio::sync::{mpsc, watch};

/// Notices that wait to be heeded.
const NOTICES_MAX: usize = 16;
/// How long dropped work may take to stop.
const DROPPING: Duration = Duration::from_secs(1);
/// How often the requests made are logged.
const LOGGED_EVERY: Duration = Duration::from_secs(60);
/// It could not start.
const NOT_STARTED: i32 = 1;

fn main() {
    let settings = match Settings::from_env() {
        Ok(settings) => settings,
        Err(error) => {
            sheaf_telemetry::init(Format::Json, &[]);
            tracing::error!(%error, "cannot start");
            exit(NOT_STARTED);
        }
    };
    sheaf_telemetry::init(Format::Json, &[("grid", &settings.grid), ("function", "worker")]);
    hide_from_children();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            exit(NOT_STARTED);
        }
    };
    let code = runtime.block_on(work(settings));
    // What was dropped kills the functions it ran.
    runtime.shutdown_timeout(DROPPING);
    exit(code);
}

async fn work(settings: Settings) -> i32 {
    let started_at_ms = SystemClock.now_ms();
    let (notices, noticed) = mpsc::channel(NOTICES_MAX);
    let signals = match watch_signals(notices.clone()) {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "cannot start: signals would not be heard");
            return NOT_STARTED;
        }
    };
    let machine = settings.metadata.map(|endpoint| tokio::spawn(watch_ec2(endpoint, started_at_ms, notices)));
    let mut options = settings.options;
    options.host = machine_name(settings.ecs.as_deref()).await;
    let meter = Meter::default();
    let config = load_config().await;
    let ports = AwsPorts::over(&meter.attach_logged(&config, Step::Worker), &settings.aws);
    let invoker = Arc::new(LambdaInvoker::over(&meter.attach_logged(&config, Step::Run)));
    let logging = tokio::spawn(log(meter.clone()));
    let lanes: Vec<&str> = options.lanes.iter().map(|lane| lane.as_str()).collect();
    let (grid, lanes) = (settings.grid, lanes.join("+"));
    let (busy, is_busy) = watch::channel(false);
    let protection = settings.agent.map(|agent| tokio::spawn(keep_protected(agent, is_busy)));
    let hear = |heard: Heard<'_>| match heard {
        Heard::Counts(counts) => tell(&grid, &lanes, counts),
        Heard::Alive(view) => drop(busy.send_replace(!view.holding.is_empty())),
    };
    let ended = Box::pin(run(ports.clone(), options, noticed, Some(invoker), ports.queue().keep_hidden(), hear)).await;
    signals.abort();
    logging.abort();
    meter.log();
    for beside in machine.into_iter().chain(protection) {
        beside.abort();
    }
    match ended {
        Ok(ended) => ended.exit_code(),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot start");
            NOT_STARTED
        }
    }
}

/// Tells what became of hints, in metrics.
fn tell(grid: &str, lanes: &str, counts: Counts) {
    let Counts { finished, released, fenced, orphans } = counts;
    if counts == Counts::default() {
        return;
    }
    Metrics::new(grid, SystemClock.now_ms())
        .of(names::LANE, lanes)
        .with_count(names::CHUNKS_CLAIMED, finished + released + fenced)
        .with_count(names::CHUNKS_RELEASED, released)
        .with_count(names::CHUNKS_FENCED, fenced)
        .with_count(names::ORPHAN_HINTS, orphans)
        .print();
}

/// Logs every minute what was asked of AWS, if anybody wants to know.
async fn log(meter: Meter) {
    loop {
        tokio::time::sleep(LOGGED_EVERY).await;
        meter.log();
    }
}

const _: () = assert!(Ended::Drained.exit_code() == 0, "an orchestrator takes anything else for a failure");
