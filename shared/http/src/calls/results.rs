//! Results: as they are, and as lines.

use std::{collections::VecDeque, sync::Arc};

use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, header},
    response::IntoResponse,
};
use bytes::{Bytes, BytesMut};
use futures::{Stream, stream as streams};
use serde::Deserialize;
use sheaf_api::{
    Answer, Api, ApiError, Code, stream,
    wire::{ReadResults, ResultsPage},
};
use sheaf_core::{ChunkSet, JobId, limits};
use tokio::time::Instant;

use crate::{
    Buffered, Grid, HAVE_HEADER,
    answer::{NDJSON, Reply, parts},
    body::{self, JSON_BYTES_MAX},
    extract::{Id, Params},
    lines::ChunkLines,
    serve::Stopping,
};

/// The longest set of chunks that is given as a header. Source: API Gateway takes 10 KB of them.
const HAVE_BYTES_MAX: usize = 6 * 1024;

#[derive(Deserialize)]
pub(crate) struct ResultsQuery {
    #[serde(default)]
    have: String,
    #[serde(default)]
    wait_ms: u64,
    chunks_max: Option<usize>,
    #[serde(default)]
    with_packs: bool,
}

impl ResultsQuery {
    fn read(&self, have: ChunkSet) -> ReadResults {
        ReadResults {
            have,
            wait_ms: self.wait_ms.min(limits::LONG_POLL_MS_MAX),
            chunks_max: self.chunks_max.unwrap_or(usize::MAX).clamp(1, limits::RESULT_PAGE_CHUNKS_MAX),
            with_packs: self.with_packs,
        }
    }
}

pub(crate) async fn read<A: Api>(
    State(grid): State<Grid<A>>,
    Id(job): Id<JobId>,
    Params(query): Params<ResultsQuery>,
    stopping: Stopping,
) -> Reply {
    let read = query.read(stream::decode_chunk_set(&query.have)?);
    reply(&page(&*grid.api, job, read, stopping).await?)
}

/// The same for a set too long for a URL: in the portable roaring format, as it is.
pub(crate) async fn read_beyond<A: Api>(
    State(grid): State<Grid<A>>,
    Id(job): Id<JobId>,
    Params(query): Params<ResultsQuery>,
    stopping: Stopping,
    request: Request,
) -> Reply {
    let body = body::read(request.into_body(), JSON_BYTES_MAX).await?;
    let have = match body.is_empty() {
        true => ChunkSet::new(),
        false => ChunkSet::deserialize_from(&body[..])
            .map_err(|_| ApiError::invalid("the body is not a set of chunks in the portable roaring format"))?,
    };
    reply(&page(&*grid.api, job, query.read(have), stopping).await?)
}

async fn page<A: Api>(api: &A, job: JobId, read: ReadResults, stopping: Stopping) -> Answer<ResultsPage> {
    if read.wait_ms == 0 {
        return api.results(job, read).await;
    }
    let now = ReadResults { wait_ms: 0, ..read.clone() };
    stopping.cut_short(api.results(job, read), || api.results(job, now)).await
}

fn reply(page: &ResultsPage) -> Reply {
    Ok(parts(stream::MEDIA_TYPE, stream::encode_results(page)))
}

#[derive(Deserialize)]
pub(crate) struct LinesQuery {
    #[serde(default)]
    have: String,
    #[serde(default)]
    follow: bool,
    #[serde(default)]
    with_keys: bool,
}

/// All results, page after page, a line per task; with `follow` until the job is over.
pub(crate) async fn lines<A: Api>(
    State(grid): State<Grid<A>>,
    Id(job): Id<JobId>,
    Params(query): Params<LinesQuery>,
    stopping: Stopping,
    buffered: Option<Extension<Buffered>>,
) -> Reply {
    if buffered.is_some() && query.follow {
        return Err(ApiError::invalid(
            "a job cannot be followed through this address: an answer is passed on only as a whole",
        )
        .with_hint("ask without follow, and again with have=, the header x-sheaf-have of the answer before")
        .into());
    }
    let mut reader = Reader {
        api: Arc::clone(&grid.api),
        job,
        have: stream::decode_chunk_set(&query.have)?,
        wait_ms: 0,
        with_packs: query.with_keys,
        stopping,
        ready: VecDeque::new(),
        is_at_end: false,
    };
    // The first page decides whether there is anything to stream at all.
    reader.turn().await?;
    reader.wait_ms = if query.follow { limits::LONG_POLL_MS_MAX } else { 0 };
    reader.is_at_end &= !query.follow;
    if let Some(Extension(buffered)) = buffered {
        return reader.into_page(buffered).await;
    }
    Ok(([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(reader.into_lines())).into_response())
}

/// Reads a job's results page by page; holds one page at a time.
struct Reader<A> {
    api: Arc<A>,
    job: JobId,
    have: ChunkSet,
    wait_ms: u64,
    with_packs: bool,
    stopping: Stopping,
    ready: VecDeque<ChunkLines>,
    is_at_end: bool,
}

impl<A: Api> Reader<A> {
    /// Reads the next page.
    async fn turn(&mut self) -> Answer<()> {
        let read = ReadResults {
            have: self.have.clone(),
            wait_ms: self.wait_ms,
            chunks_max: limits::RESULT_PAGE_CHUNKS_MAX,
            with_packs: self.with_packs,
        };
        let page = page(&*self.api, self.job, read, self.stopping.clone()).await?;
        let is_over = page.job.job.state.ended_at_ms().is_some();
        self.is_at_end = page.chunks.is_empty() && (is_over || self.wait_ms == 0 || self.stopping.is_stopped());
        for chunk in page.chunks {
            self.have.insert(chunk.head.number);
            let bytes = chunk.segments.iter().chain(&chunk.pack).map(Bytes::len).sum();
            let job = self.job;
            self.ready.push_back(body::aside(bytes, move || ChunkLines::new(job, chunk)).await??);
        }
        Ok(())
    }

    /// Whole chunks as lines, until there are no more or enough.
    async fn into_page(mut self, buffered: Buffered) -> Reply {
        let mut lines = BytesMut::new();
        let more = |bytes| bytes < buffered.lines_bytes_max && Instant::now() < buffered.answer_by;
        // At least one chunk, so that whoever asks on gets on.
        while lines.is_empty() || more(lines.len()) {
            match self.ready.pop_front() {
                Some(mut chunk) => {
                    while let Some(more) = chunk.next()? {
                        lines.extend_from_slice(&more);
                    }
                }
                None if self.is_at_end => return Ok(([(header::CONTENT_TYPE, NDJSON)], lines.freeze()).into_response()),
                None => self.turn().await?,
            }
        }
        for chunk in &self.ready {
            self.have.remove(chunk.number());
        }
        let have = HeaderValue::try_from(stream::encode_chunk_set(&self.have)).expect("base64 is plain text");
        if have.len() > HAVE_BYTES_MAX {
            let message = "the chunks of this job ended in an order that is too long to say how to read on";
            return Err(ApiError::new(Code::TooLarge, message)
                .with_hint("read the results with the SDK or `sheaf results`")
                .into());
        }
        let more = HeaderName::from_static(HAVE_HEADER);
        Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON)), (more, have)], lines.freeze()).into_response())
    }

    fn into_lines(self) -> impl Stream<Item = Answer<Bytes>> {
        streams::try_unfold(self, |mut reader| async move {
            loop {
                let next = match reader.ready.front_mut() {
                    Some(chunk) => chunk.next(),
                    None if reader.is_at_end => return Ok(None),
                    None => {
                        reader.turn().await.inspect_err(log_cut)?;
                        continue;
                    }
                };
                match next.inspect_err(log_cut)? {
                    Some(lines) => return Ok(Some((lines, reader))),
                    None => drop(reader.ready.pop_front()),
                }
            }
        })
    }
}

/// The status went out before: all that is left is to break the transfer off, which the reader notices.
fn log_cut(error: &ApiError) {
    tracing::warn!(%error, code = error.code.as_str(), "a stream of results was cut off");
}
