//! The ports of a local grid over HTTP, for workers in other processes.
//!
//! [`router`] serves what a worker needs of a grid's ports, and nothing else: no call of it submits, seals, cancels or
//! deletes anything. [`RemotePorts`] is the other side: the same ports, so that the same steps run in the other process.
//!
//! Bodies are postcard behind a version byte, and of blobs the bytes themselves. Both sides are of one build: a worker that
//! joins says which it is, and is refused if the grid is of another.
//!
//! # What may go wrong on the way
//! A call that certainly did not arrive is sent again for some seconds, so that a grid may be restarted under its workers.
//! A call whose answer was lost is [`StoreError::Unknown`](sheaf_protocol::StoreError::Unknown): the steps ask again, and
//! recognise their own write by what the chunk shows. What the grid refuses comes through unchanged, with the chunk as it is.
//!
//! A hint that was handed out is handed out again when its chunk is not claimed soon, or when the lease has run out.

mod calls;
mod client;
mod ports;
mod server;

pub use calls::CALL_BYTES_MAX;
pub use client::{Find, Place};
pub use ports::{RemoteBlobs, RemoteClock, RemotePorts, RemoteQueue, RemoteState};
pub use server::router;
