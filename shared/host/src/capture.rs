//! What a child prints: read as fast as it comes, kept only at its end, cut at the end of each task.
//!
//! A child must never block on a full pipe, and printing a gigabyte must not cost a gigabyte. One reader per child empties
//! the pipe into a [`Tail`]; whoever closes a task first reads what is still in the pipe, because what a child printed
//! before it answered is there already by then.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    process::Stdio,
    sync::Arc,
};

use parking_lot::Mutex;
use sheaf_core::limits::LOG_BYTES_MAX;
use tokio::net::unix::pipe::Receiver;
use tokio_util::task::AbortOnDropHandle;

use crate::limits;

const READ_BYTES: usize = 64 * 1024;

/// The last [`LOG_BYTES_MAX`] of what was added; holds at most twice that.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    bytes: Vec<u8>,
}

impl Tail {
    /// Adds bytes, forgetting old ones.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(LOG_BYTES_MAX)..];
        if self.bytes.len() + bytes.len() > 2 * LOG_BYTES_MAX {
            let keep = LOG_BYTES_MAX - bytes.len();
            self.bytes.drain(..self.bytes.len().saturating_sub(keep));
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The last line that is not blank, of what is kept.
    pub(crate) fn last_line(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.bytes);
        text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
    }

    /// Gives what is kept and starts anew.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.drain(..bytes.len().saturating_sub(LOG_BYTES_MAX));
        bytes
    }
}

/// Stdout and stderr of a child, in one pipe so that their order stays.
pub(crate) struct LogPipe {
    pipe: Receiver,
    state: Mutex<ReadState>,
}

struct ReadState {
    tail: Tail,
    buffer: Box<[u8]>,
}

impl LogPipe {
    /// A pipe: the reading end, and the writing end twice, for a child's stdout and stderr.
    pub(crate) fn new() -> io::Result<(Arc<Self>, Stdio, Stdio)> {
        let (reader, writer) = io::pipe()?;
        let stdout = writer.try_clone()?;
        let pipe = Receiver::from_owned_fd(OwnedFd::from(reader))?;
        let state = Mutex::new(ReadState { tail: Tail::default(), buffer: vec![0; READ_BYTES].into() });
        Ok((Arc::new(Self { pipe, state }), stdout.into(), writer.into()))
    }

    /// Empties the pipe until its writers are gone, or the handle is dropped.
    pub(crate) fn spawn_reader(self: &Arc<Self>) -> AbortOnDropHandle<()> {
        let this = Arc::clone(self);
        AbortOnDropHandle::new(tokio::spawn(async move {
            while this.pipe.readable().await.is_ok() {
                if this.read_ready() {
                    return;
                }
                // Between two reads others may cut the log, and other children have their turn.
                tokio::task::yield_now().await;
            }
        }))
    }

    /// Reads once; true at the end of the pipe.
    fn read_ready(&self) -> bool {
        let ReadState { tail, buffer } = &mut *self.state.lock();
        match self.pipe.try_read(buffer) {
            Ok(0) => true,
            Ok(bytes) => {
                tail.push(&buffer[..bytes]);
                false
            }
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        }
    }

    /// What was printed since the last cut, including what is still in the pipe. Costs one system call when there is
    /// nothing.
    pub(crate) fn cut(&self) -> Vec<u8> {
        let ReadState { tail, buffer } = &mut *self.state.lock();
        let mut left = limits::LOG_CUT_BYTES_MAX;
        // Past tokio's readiness, which may not yet have heard of bytes that are there.
        while let Ok(bytes @ 1..) = rustix::io::read(self.pipe.as_fd(), &mut buffer[..]) {
            tail.push(&buffer[..bytes]);
            left = left.saturating_sub(bytes);
            if left == 0 {
                break;
            }
        }
        tail.take()
    }
}

/// The text of a log, for a failure.
pub(crate) fn text(log: &[u8]) -> String {
    String::from_utf8_lossy(log).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_keeps_the_last_bytes_and_bounds_its_memory() {
        let mut tail = Tail::default();
        let mut all = Vec::new();
        for round in 0..1_000_u32 {
            let bytes = vec![round as u8; 1 + (round as usize * 37) % 5_000];
            tail.push(&bytes);
            all.extend_from_slice(&bytes);
            assert!(tail.bytes.len() <= 2 * LOG_BYTES_MAX);
        }
        assert_eq!(tail.take(), all[all.len() - LOG_BYTES_MAX..]);
        tail.push(&vec![7; 3 * LOG_BYTES_MAX]);
        assert_eq!(tail.take(), vec![7; LOG_BYTES_MAX]);
        tail.push(b"short");
        assert_eq!(tail.take(), b"short");
        assert_eq!(tail.take(), b"");
    }
}
