//! Reading request bodies, each within its bound, and all bulk ones together within one more.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequest, Request},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use sheaf_api::{Api, ApiError, Code};
use sheaf_core::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Grid, answer::Refusal};

/// Bytes of a JSON body, and of a set of chunks: enough for a set of eight million chunks in the worst order.
pub const JSON_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of all bulk bodies that are being read or worked on: two of the largest, or thousands of usual ones.
pub const BODY_BYTES_IN_FLIGHT_MAX: usize = 2 * limits::REQUEST_BYTES_MAX;
/// How long a request waits for its share of [`BODY_BYTES_IN_FLIGHT_MAX`].
const SHARE_MS_MAX: u64 = 5_000;
/// The longest pause between two pieces of a body.
const PAUSE_MS_MAX: u64 = 30_000;
/// Bodies above this are decoded outside of the runtime's threads: checking and decompressing one takes milliseconds.
const INLINE_BYTES_MAX: usize = 1024 * 1024;

/// The room for bulk bodies of a router.
#[derive(Debug, Clone)]
pub struct Bodies {
    room: Arc<Semaphore>,
}

impl Default for Bodies {
    fn default() -> Self {
        Self::new()
    }
}

impl Bodies {
    /// Room for [`BODY_BYTES_IN_FLIGHT_MAX`].
    pub fn new() -> Self {
        Self { room: Arc::new(Semaphore::new(BODY_BYTES_IN_FLIGHT_MAX)) }
    }

    /// A whole body of at most so many bytes, once there is room for it, and its share of the room, to be kept until the
    /// body is dealt with.
    ///
    /// # Errors
    /// [`Code::TooLarge`] beyond the limit, [`Code::Throttled`] when there is no room for some seconds, and others when the
    /// body does not arrive.
    pub async fn read(&self, body: Body, bytes_max: usize) -> Result<(Bytes, OwnedSemaphorePermit), ApiError> {
        // A body of unannounced length is given the room of the largest.
        let bytes = body.size_hint().exact().map_or(bytes_max, |bytes| bytes as usize);
        check(bytes, bytes_max)?;
        let share = self.share(bytes).await?;
        Ok((read(body, bytes_max).await?, share))
    }

    async fn share(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let crowded = || {
            ApiError::new(Code::Throttled, "too many bytes are being received at once")
                .with_retry_after_ms(1_000)
                .with_hint("send fewer or smaller requests at a time")
        };
        let permits = u32::try_from(bytes).map_err(|_| crowded())?;
        let share = Arc::clone(&self.room).acquire_many_owned(permits);
        let share = tokio::time::timeout(Duration::from_millis(SHARE_MS_MAX), share).await;
        share.ok().and_then(Result::ok).ok_or_else(crowded)
    }
}

/// A whole body of at most [`limits::REQUEST_BYTES_MAX`] bytes, which keeps its share of the room until it is dropped.
pub(crate) struct Bulk {
    bytes: Bytes,
    share: OwnedSemaphorePermit,
}

impl<A: Api> FromRequest<Grid<A>> for Bulk {
    type Rejection = Refusal;

    async fn from_request(request: Request, grid: &Grid<A>) -> Result<Self, Refusal> {
        let (bytes, share) = grid.bodies.read(request.into_body(), limits::REQUEST_BYTES_MAX).await?;
        Ok(Self { bytes, share })
    }
}

impl Bulk {
    /// What `decode` makes of the body, and the share to keep until it is dealt with.
    pub(crate) async fn decode<T, E>(
        self,
        decode: impl FnOnce(Bytes) -> Result<T, E> + Send + 'static,
    ) -> Result<(T, OwnedSemaphorePermit), ApiError>
    where
        T: Send + 'static,
        E: Into<ApiError> + Send + 'static,
    {
        let bytes = self.bytes;
        Ok((aside(bytes.len(), move || decode(bytes)).await?.map_err(Into::into)?, self.share))
    }
}

/// Runs work on so many bytes: at once where that is quick, else on a thread of its own.
pub(crate) async fn aside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    if bytes <= INLINE_BYTES_MAX {
        return Ok(work());
    }
    let work = tokio::task::spawn_blocking(work);
    work.await.map_err(|error| ApiError::new(Code::Internal, format!("the body could not be worked on: {error}")))
}

fn check(bytes: usize, bytes_max: usize) -> Result<(), ApiError> {
    if bytes <= bytes_max {
        return Ok(());
    }
    Err(ApiError::new(Code::TooLarge, format!("the body is larger than {bytes_max} bytes, the limit here")))
}

/// Reads a body. One that arrives in one piece is not copied, others once.
pub(crate) async fn read(mut body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    let announced = body.size_hint().lower() as usize;
    check(announced, bytes_max)?;
    let Some(first) = next(&mut body).await? else { return Ok(Bytes::new()) };
    check(first.len(), bytes_max)?;
    if body.is_end_stream() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(announced.max(first.len()));
    whole.extend_from_slice(&first);
    while let Some(piece) = next(&mut body).await? {
        check(whole.len() + piece.len(), bytes_max)?;
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

async fn next(body: &mut Body) -> Result<Option<Bytes>, ApiError> {
    loop {
        let frame = tokio::time::timeout(Duration::from_millis(PAUSE_MS_MAX), body.frame()).await.map_err(|_| {
            let message = format!("the body stopped arriving for {PAUSE_MS_MAX} ms");
            ApiError::new(Code::Unavailable, message).with_retry_after_ms(1_000)
        })?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(ApiError::invalid(format!("the body ended early: {error}"))),
            Some(Ok(frame)) => {
                if let Ok(piece) = frame.into_data() {
                    return Ok(Some(piece));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_finds_no_room_is_throttled() {
        let bodies = Bodies::new();
        let first = bodies.share(limits::REQUEST_BYTES_MAX).await;
        let second = bodies.share(limits::REQUEST_BYTES_MAX).await;
        let third = bodies.share(1).await.expect_err("there is no room left");
        assert_eq!((third.code, third.retry_after_ms), (Code::Throttled, Some(1_000)));
        drop((first, second));
        assert!(bodies.share(limits::REQUEST_BYTES_MAX).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_arriving_is_given_up() {
        let pieces = stream::iter([Ok::<_, std::io::Error>("a")]).chain(stream::pending());
        let error = read(Body::from_stream(pieces), 10).await.expect_err("it never ends");
        assert_eq!(error.code, Code::Unavailable);
    }

    #[tokio::test]
    async fn a_body_in_one_piece_is_not_copied() {
        let body = Bytes::from(vec![7; 100_000]);
        let read = read(Body::from(body.clone()), 100_000).await.expect("it fits");
        assert_eq!(read.as_ptr(), body.as_ptr());
    }
}
