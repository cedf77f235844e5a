//! Tasks: submitting them, and asking after one.

use axum::{extract::State, http::header, response::IntoResponse};
use serde::Deserialize;
use sheaf_api::{
    Api, stream,
    wire::{ChunkAnswer, SubmitChunk},
};
use sheaf_core::JobId;

use crate::{
    Grid,
    answer::{Reply, json},
    body::Bulk,
    extract::{Id, Params, Task},
    lines,
};

pub(crate) async fn submit<A: Api>(State(grid): State<Grid<A>>, Id(job): Id<JobId>, body: Bulk) -> Reply {
    let (chunks, _share) = body.decode(stream::decode_submission).await?;
    json(&grid.api.submit(job, chunks).await?)
}

#[derive(Deserialize)]
pub(crate) struct ChunkQuery {
    #[serde(default)]
    chunk: u32,
    #[serde(default)]
    task_first: u64,
}

/// Packs the lines as one chunk. A refusal of that chunk is one of the request.
pub(crate) async fn submit_lines<A: Api>(
    State(grid): State<Grid<A>>,
    Id(job): Id<JobId>,
    Params(ChunkQuery { chunk, task_first }): Params<ChunkQuery>,
    body: Bulk,
) -> Reply {
    let (pack, _share) = body.decode(|body| lines::pack(&body)).await?;
    let mut reply = grid.api.submit(job, vec![SubmitChunk { number: chunk, task_first, pack }]).await?;
    if let Some(ChunkAnswer::Refused { .. }) = reply.answers.first()
        && let ChunkAnswer::Refused { error } = reply.answers.swap_remove(0)
    {
        return Err(error.into());
    }
    json(&reply)
}

pub(crate) async fn explain<A: Api>(State(grid): State<Grid<A>>, Task(task): Task) -> Reply {
    json(&grid.api.task(task).await?)
}

pub(crate) async fn logs<A: Api>(State(grid): State<Grid<A>>, Task(task): Task) -> Reply {
    let logs = grid.api.logs(task).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], logs).into_response())
}
