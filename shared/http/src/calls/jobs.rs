//! Jobs.

use axum::{extract::State, http::StatusCode};
use serde::Deserialize;
use sheaf_api::{
    Api,
    wire::{CreateJob, JobFilter, RetryJob, SealJob},
};
use sheaf_core::{JobId, JobState, limits};

use crate::{
    Grid,
    answer::{Reply, json, json_with},
    extract::{Id, JsonBody, Params},
    serve::Stopping,
};

pub(crate) async fn create<A: Api>(State(grid): State<Grid<A>>, JsonBody(request): JsonBody<CreateJob>) -> Reply {
    json(&grid.api.create_job(request).await?)
}

pub(crate) async fn list<A: Api>(State(grid): State<Grid<A>>, Params(filter): Params<JobFilter>) -> Reply {
    let limit = filter.limit.clamp(1, limits::PAGE_ROWS_MAX);
    json(&grid.api.jobs(JobFilter { limit, ..filter }).await?)
}

pub(crate) async fn show<A: Api>(State(grid): State<Grid<A>>, Id(job): Id<JobId>) -> Reply {
    json(&grid.api.progress(job, None, 0).await?)
}

pub(crate) async fn seal<A: Api>(
    State(grid): State<Grid<A>>,
    Id(job): Id<JobId>,
    JsonBody(seal): JsonBody<SealJob>,
) -> Reply {
    json(&grid.api.seal(job, seal).await?)
}

#[derive(Deserialize)]
pub(crate) struct ProgressQuery {
    seen: Option<u64>,
    #[serde(default)]
    wait_ms: u64,
}

pub(crate) async fn progress<A: Api>(
    State(grid): State<Grid<A>>,
    Id(job): Id<JobId>,
    Params(ProgressQuery { seen, wait_ms }): Params<ProgressQuery>,
    stopping: Stopping,
) -> Reply {
    let wait_ms = wait_ms.min(limits::LONG_POLL_MS_MAX);
    let waiting = grid.api.progress(job, seen, wait_ms);
    if wait_ms == 0 {
        return json(&waiting.await?);
    }
    json(&stopping.cut_short(waiting, || grid.api.progress(job, seen, 0)).await?)
}

pub(crate) async fn cancel<A: Api>(State(grid): State<Grid<A>>, Id(job): Id<JobId>) -> Reply {
    let view = grid.api.cancel(job).await?;
    let status = match view.job.state {
        JobState::Open | JobState::Sealed { .. } | JobState::Cancelling { .. } => StatusCode::ACCEPTED,
        JobState::Cancelled { .. } | JobState::Done { .. } => StatusCode::OK,
    };
    json_with(status, &view)
}

pub(crate) async fn retry<A: Api>(
    State(grid): State<Grid<A>>,
    Id(job): Id<JobId>,
    JsonBody(request): JsonBody<RetryJob>,
) -> Reply {
    json(&grid.api.retry(job, request).await?)
}

#[derive(Deserialize)]
pub(crate) struct EventsQuery {
    #[serde(default)]
    from: u64,
}

pub(crate) async fn events<A: Api>(
    State(grid): State<Grid<A>>,
    Id(job): Id<JobId>,
    Params(EventsQuery { from }): Params<EventsQuery>,
) -> Reply {
    json(&grid.api.events(job, from).await?)
}
