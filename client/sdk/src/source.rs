//! Where the items of a job come from: an iterator or a stream.

use std::{future::Future, pin::Pin, time::Duration};

use futures::{Stream, StreamExt};
use tokio::time::Instant;

use crate::{batch::Batch, error::GridError};

/// Why filling a chunk stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    /// The chunk is full, or has waited long enough.
    Chunk,
    /// There are no more items; the chunk may hold some.
    End,
}

/// Items, one after the other.
pub(crate) trait Source<I>: Send + 'static {
    /// Moves items into the chunk until it is to be closed or there are no more. Dropping it loses nothing: what was
    /// taken is in the chunk.
    fn fill(&mut self, batch: &mut Batch<I>) -> impl Future<Output = Result<Filled, GridError>> + Send;

    /// Takes up to `count` items and throws them away; gives how many there were.
    fn skip(&mut self, count: u32) -> impl Future<Output = u32> + Send;

    /// How many items are left, where that is certain.
    fn remaining(&self) -> Option<u64>;
}

fn exact((least, most): (usize, Option<usize>)) -> Option<u64> {
    (most == Some(least)).then_some(least as u64)
}

/// An iterator. Runs without a pause until a chunk is full; the clock is read every few items only, more often when they
/// come slowly.
pub(crate) struct FromIterator<T> {
    items: T,
    stride: u32,
}

/// Items between two looks at the clock.
const STRIDE_MAX: u32 = 64;
/// A look at the clock costs some 30 ns; one per so much time is nothing.
const LOOK_EVERY: Duration = Duration::from_micros(200);

impl<T> FromIterator<T> {
    pub(crate) const fn new(items: T) -> Self {
        Self { items, stride: 1 }
    }
}

impl<I: Send + 'static, T: Iterator<Item = I> + Send + 'static> Source<I> for FromIterator<T> {
    async fn fill(&mut self, batch: &mut Batch<I>) -> Result<Filled, GridError> {
        let mut looked_at = Instant::now();
        let mut until_look = self.stride;
        loop {
            let Some(item) = self.items.next() else { return Ok(Filled::End) };
            batch.push(&item)?;
            if batch.is_full() {
                return Ok(Filled::Chunk);
            }
            until_look -= 1;
            if until_look == 0 {
                let now = Instant::now();
                if batch.due().is_some_and(|due| due <= now) {
                    return Ok(Filled::Chunk);
                }
                let quick = now - looked_at < LOOK_EVERY;
                self.stride = if quick { (self.stride * 2).min(STRIDE_MAX) } else { (self.stride / 2).max(1) };
                (looked_at, until_look) = (now, self.stride);
            }
        }
    }

    async fn skip(&mut self, count: u32) -> u32 {
        let mut skipped = 0;
        while skipped < count && self.items.next().is_some() {
            skipped += 1;
        }
        skipped
    }

    fn remaining(&self) -> Option<u64> {
        exact(self.items.size_hint())
    }
}

/// A stream.
pub(crate) struct FromStream<S>(pub(crate) Pin<Box<S>>);

impl<I: Send + 'static, S: Stream<Item = I> + Send + 'static> Source<I> for FromStream<S> {
    async fn fill(&mut self, batch: &mut Batch<I>) -> Result<Filled, GridError> {
        loop {
            let item = match batch.due() {
                None => self.0.next().await,
                Some(due) => match tokio::time::timeout_at(due, self.0.next()).await {
                    Ok(item) => item,
                    Err(_) => return Ok(Filled::Chunk),
                },
            };
            let Some(item) = item else { return Ok(Filled::End) };
            batch.push(&item)?;
            if batch.is_full() {
                return Ok(Filled::Chunk);
            }
        }
    }

    async fn skip(&mut self, count: u32) -> u32 {
        let mut skipped = 0;
        while skipped < count && self.0.next().await.is_some() {
            skipped += 1;
        }
        skipped
    }

    fn remaining(&self) -> Option<u64> {
        exact(self.0.size_hint())
    }
}
