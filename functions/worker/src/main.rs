//! The program of the container; see the library's page.

use std::{process::exit, sync::Arc, time::Duration};

use sheaf_api::cost::Step;
use sheaf_aws::{AwsPorts, LambdaInvoker, Meter, SystemClock, load_config};
use sheaf_protocol::{Clock, Ports};
use sheaf_telemetry::Format;
use sheaf_worker_container::{Ended, Settings, hide_from_children, machine_name, run, watch_ec2, watch_signals};
use tokio::sync::mpsc;

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
    sheaf_telemetry::init(Format::Json, &[("grid", &settings.options.grid), ("function", "worker")]);
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
    let ended = Box::pin(run(ports.clone(), options, noticed, Some(invoker), ports.queue().keep_hidden())).await;
    signals.abort();
    logging.abort();
    meter.log();
    if let Some(machine) = machine {
        machine.abort();
    }
    match ended {
        Ok(ended) => ended.exit_code(),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot start");
            NOT_STARTED
        }
    }
}

/// Logs every minute what was asked of AWS, if anybody wants to know.
async fn log(meter: Meter) {
    loop {
        tokio::time::sleep(LOGGED_EVERY).await;
        meter.log();
    }
}

const _: () = assert!(Ended::Drained.exit_code() == 0, "an orchestrator takes anything else for a failure");
