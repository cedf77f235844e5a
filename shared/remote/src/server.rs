//! The grid's side.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::header,
    response::{IntoResponse, Response},
    routing::post,
};
use parking_lot::Mutex;
use serde::Serialize;
use sheaf_api::{ApiError, Code, wire::WorkerView};
use sheaf_core::{Chunk, ChunkEvent, ChunkKey, ChunkState, Evidence, WorkerId, limits};
use sheaf_http::{Bodies, Stopping, refusal};
use sheaf_protocol::{BlobStore, ChunkQueue, Clock, Delivery, Hint, Ports, Put, StateStore, Write, WriteError};

use crate::calls::{Applied, Call, Handed, Joined, Json, MEDIA_TYPE, Receiving, decode, encode};

/// How long a hint that was handed out may stay without its chunk being claimed. Answers take milliseconds.
const UNCLAIMED_MAX: Duration = Duration::from_secs(5);
/// How often hints are looked for that nobody acts on any more.
const LOOK: Duration = Duration::from_secs(1);
/// Hints handed out that are remembered; the sweeper finds those beyond.
const HANDED_MAX: usize = 65_536;
/// Bytes of packs that go with the hints of one answer; workers read the others.
const PACK_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What a worker puts: results, logs, checkpoints.
const PUT_PREFIXES: [&str; 3] = ["r/", "l/", "k/"];
/// What it reads: payloads, packages, checkpoints.
const GET_PREFIXES: [&str; 3] = ["p/", "f/", "k/"];

/// The calls over a grid's ports, for [`sheaf_http::router_with`], which lets in none without the token; and what is to be
/// polled as long as they are served: it hands out again what nobody acts on. `before_receive` is waited for before hints are
/// received.
///
/// Requests are bounded by [`CALL_BYTES_MAX`](crate::CALL_BYTES_MAX), those with blobs by
/// [`REQUEST_BYTES_MAX`](limits::REQUEST_BYTES_MAX), and all under way together by
/// [`BODY_BYTES_IN_FLIGHT_MAX`](sheaf_http::BODY_BYTES_IN_FLIGHT_MAX).
pub fn router<P, B, F>(ports: P, before_receive: B) -> (Router, impl Future<Output = Infallible> + Send + use<P, B, F>)
where
    P: Ports,
    B: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let grid = Arc::new(Grid {
        ports,
        before_receive,
        bodies: Bodies::new(),
        handed: Mutex::default(),
        out: tokio::sync::Notify::new(),
    });
    let router = Router::new().route(Call::PATH, post(serve::<P, B, F>)).with_state(grid.clone());
    let again = async move {
        loop {
            // A grid without such workers does not wake for them.
            if grid.handed.lock().is_empty() {
                grid.out.notified().await;
            }
            tokio::time::sleep(LOOK).await;
            grid.hand_out_again().await;
        }
    };
    (router, again)
}

/// What the calls share.
struct Grid<P, B> {
    ports: P,
    before_receive: B,
    bodies: Bodies,
    /// Hints handed out whose chunks are not known to be over or given back, each with when it is handed out again: soon
    /// unless its chunk is claimed, then once the lease is over, as a queue does that hides what it delivers.
    handed: Mutex<HashMap<ChunkKey, (Hint, Instant)>>,
    /// Told of hints that are handed out.
    out: tokio::sync::Notify,
}

async fn serve<P, B, F>(
    State(grid): State<Arc<Grid<P, B>>>,
    Path(word): Path<String>,
    stopping: Stopping,
    body: Body,
) -> Response
where
    P: Ports,
    B: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let answered = async {
        let call = Call::named(&word);
        let call = call.ok_or_else(|| ApiError::new(Code::NotFound, format!("workers have no call {word:?}")))?;
        // The share of the room is kept until the call is answered.
        let (body, _share) = grid.bodies.read(body, call.bytes_max()).await?;
        grid.answer(call, &body, stopping).await
    };
    match answered.await {
        Ok(told) => ([(header::CONTENT_TYPE, MEDIA_TYPE)], told).into_response(),
        Err(error) => refusal(error),
    }
}

fn told(value: &impl Serialize) -> Result<Bytes, ApiError> {
    Ok(encode(value).into())
}

fn delivery(handed: Handed) -> Delivery {
    Delivery { hint: handed.into(), receipt: String::new() }
}

fn check(holds: bool, message: &str) -> Result<(), ApiError> {
    if holds { Ok(()) } else { Err(ApiError::invalid(message)) }
}

fn is_remote(worker: &WorkerId) -> Result<(), ApiError> {
    check(worker.is_remote(), "the id of a worker in another process begins with wrk_remote-")
}

impl<P, B, F> Grid<P, B>
where
    P: Ports,
    B: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    async fn answer(&self, call: Call, body: &[u8], stopping: Stopping) -> Result<Bytes, ApiError> {
        let (state, queue) = (self.ports.state(), self.ports.queue());
        match call {
            Call::Join => told(&self.join(decode::<String>(call, body)?)?),
            Call::Apply => told(&self.apply(decode::<Vec<(ChunkKey, ChunkEvent)>>(call, body)?).await?),
            Call::Chunks => {
                let keys: Vec<ChunkKey> = decode(call, body)?;
                check(keys.len() <= limits::PAGE_ROWS_MAX, "too many chunks in one call")?;
                told(&state.chunks(&keys).await?)
            }
            Call::Job => told(&state.job(decode(call, body)?).await?.map(Json)),
            Call::Function => told(&state.function(&decode(call, body)?).await?.map(Json)),
            Call::Estimate => told(&Json(state.estimate(&decode(call, body)?).await)),
            Call::Alive => {
                let Json(view): Json<WorkerView> = decode(call, body)?;
                is_remote(&view.id)?;
                told(&state.put_worker(view).await)
            }
            Call::Leave => {
                let worker: WorkerId = decode(call, body)?;
                is_remote(&worker)?;
                told(&state.remove_worker(&worker).await)
            }
            Call::Receive => told(&self.receive(decode(call, body)?, stopping).await?),
            Call::Delete => {
                let handed: Handed = decode(call, body)?;
                self.came_back(&handed);
                told(&queue.delete(delivery(handed)).await)
            }
            Call::Postpone => {
                let (handed, delay_ms): (Handed, u64) = decode(call, body)?;
                self.came_back(&handed);
                told(&queue.postpone(delivery(handed), delay_ms).await)
            }
            Call::Put => told(&self.put(decode(call, body)?).await?),
            Call::Get => self.get(decode(call, body)?).await,
        }
    }

    fn join(&self, version: String) -> Result<Joined, ApiError> {
        let ours = env!("CARGO_PKG_VERSION");
        if version == ours {
            return Ok(Joined { now_ms: self.ports.clock().now_ms() });
        }
        let message = format!("the worker is sheaf {version:?}, the grid is {ours}");
        Err(ApiError::new(Code::Conflict, message).with_hint("start the worker with the same sheaf as the grid"))
    }

    /// Applies what workers may: all but submitting and the sweeper's touch.
    async fn apply(&self, writes: Vec<(ChunkKey, ChunkEvent)>) -> Result<Vec<Applied>, ApiError> {
        check(writes.len() <= limits::WRITES_PER_CALL_MAX, "too many writes in one call")?;
        for (_, event) in &writes {
            match event {
                ChunkEvent::Submit { .. } | ChunkEvent::Touch { .. } => {
                    return Err(ApiError::new(Code::Forbidden, format!("{} is no worker's", event.transition())));
                }
                // What it knows of others it has from here, and others may have told it.
                ChunkEvent::TakeOver { seen, evidence: Evidence::OwnerGone, .. }
                    if !self.ports.state().owner_is_gone(&seen.owner) =>
                {
                    let message = format!("nobody knows that {} is gone", seen.owner.worker);
                    return Err(ApiError::new(Code::Forbidden, message));
                }
                _ => {}
            }
        }
        let writes = writes.into_iter().map(|(key, event)| Write { key, event }).collect();
        let answers = self.ports.state().apply(writes).await;
        self.note_leases(answers.iter().flatten());
        let applied = answers.into_iter().map(|answer| match answer {
            Ok(chunk) => Ok(Applied::Yes(Box::new(chunk))),
            Err(WriteError::Refused { reason, current }) => {
                let owner_is_gone = current.as_deref().is_some_and(|chunk| self.owner_is_gone(chunk));
                Ok(Applied::Refused { reason, current, owner_is_gone })
            }
            Err(WriteError::Store(error)) => Err(error.into()),
        });
        applied.collect()
    }

    /// Hides the hints of chunks that are leased for as long as they are, and forgets those of others.
    fn note_leases<'a>(&self, chunks: impl Iterator<Item = &'a Chunk>) {
        let now_ms = self.ports.clock().now_ms();
        let mut handed = self.handed.lock();
        for chunk in chunks {
            match chunk.lease() {
                None => drop(handed.remove(&chunk.spec.key)),
                Some(lease) => {
                    let over_ms = (lease.until_ms + limits::CLOCK_MARGIN_MS + 1).saturating_sub(now_ms);
                    if let Some((_, again_at)) = handed.get_mut(&chunk.spec.key) {
                        *again_at = Instant::now() + Duration::from_millis(over_ms);
                    }
                }
            }
        }
    }

    fn owner_is_gone(&self, chunk: &Chunk) -> bool {
        match &chunk.state {
            ChunkState::Leased(lease) => self.ports.state().owner_is_gone(&lease.attempt.owner),
            ChunkState::Queued { .. } | ChunkState::Done { .. } | ChunkState::Ended { .. } => false,
        }
    }

    async fn receive(&self, asked: Receiving, stopping: Stopping) -> Result<Vec<Handed>, ApiError> {
        let Receiving { lanes, max, wait_ms } = asked;
        check(!lanes.is_empty(), "a worker takes the chunks of one lane at least")?;
        let (max, wait_ms) = ((max as usize).min(limits::QUEUE_BATCH_MAX), wait_ms.min(limits::LONG_POLL_MS_MAX));
        (self.before_receive)().await;
        let queue = self.ports.queue();
        let received = stopping.cut_short(queue.receive(&lanes, max, wait_ms), || async { Ok(Vec::new()) }).await?;
        Ok(self.handed(received))
    }

    /// Remembers hints, and gives them as they travel.
    fn handed(&self, received: Vec<Delivery>) -> Vec<Handed> {
        let mut handed = self.handed.lock();
        let (mut room, again_at) = (PACK_BYTES_MAX, Instant::now() + UNCLAIMED_MAX);
        let travelling = received.into_iter().map(|Delivery { mut hint, .. }| {
            if handed.len() < HANDED_MAX && !hint.hedge {
                handed.insert(hint.key, (Hint { pack: None, ..hint.clone() }, again_at));
            }
            hint.pack = hint.pack.take().filter(|pack| pack.len() <= room);
            room -= hint.pack.as_ref().map_or(0, Bytes::len);
            hint.into()
        });
        let travelling: Vec<Handed> = travelling.collect();
        if !travelling.is_empty() {
            self.out.notify_one();
        }
        travelling
    }

    /// Forgets a hint that was handed out. One for a second copy comes besides the chunk's own, and is not remembered.
    fn came_back(&self, hint: &Handed) {
        if !hint.hedge {
            self.handed.lock().remove(&hint.key);
        }
    }

    /// Sends hints again whose chunks were not claimed in time, or whose leases have run out: an answer was lost, or the
    /// worker is.
    async fn hand_out_again(&self) {
        let now = Instant::now();
        let lost: Vec<Hint> = {
            let mut handed = self.handed.lock();
            handed.extract_if(|_, (_, again_at)| *again_at <= now).map(|(_, (hint, _))| hint).collect()
        };
        self.ports.queue().send(lost, 0).await;
    }

    async fn put(&self, blobs: Vec<(String, Bytes)>) -> Result<Vec<bool>, ApiError> {
        for (key, _) in &blobs {
            check_prefix(key, &PUT_PREFIXES)?;
        }
        let put = self.ports.blobs().put(blobs).await;
        let created = put.into_iter().map(|put| Ok(matches!(put?, Put::Created)));
        created.collect()
    }

    async fn get(&self, key: String) -> Result<Bytes, ApiError> {
        check_prefix(&key, &GET_PREFIXES)?;
        let found = self.ports.blobs().get(std::slice::from_ref(&key)).await.pop().expect("one answer per key")?;
        found.ok_or_else(|| ApiError::new(Code::NotFound, format!("there is no blob {key}")))
    }
}

fn check_prefix(key: &str, prefixes: &[&str]) -> Result<(), ApiError> {
    if prefixes.iter().any(|prefix| key.starts_with(prefix)) {
        return Ok(());
    }
    Err(ApiError::new(Code::Forbidden, format!("the blob {key:?} is no business of a worker")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_reads_and_writes_what_is_its_own() {
        assert!(check_prefix("r/default/job/0/1-a-0", &PUT_PREFIXES).is_ok());
        for key in ["p/default/job/0", "f/digest", "", "x/r/"] {
            assert_eq!(check_prefix(key, &PUT_PREFIXES).map_err(|error| error.code), Err(Code::Forbidden), "{key}");
        }
        assert!(check_prefix("f/digest", &GET_PREFIXES).is_ok());
        assert!(check_prefix("r/default/job/0/1-a-0", &GET_PREFIXES).is_err());
    }
}
