//! The protocol: ports to the outside, and the steps over them.
//!
//! A **port** is what the steps need of a store, a queue, a clock ([`ports`]). A **step** is one piece of work that may be
//! started by anybody at any time, stopped at any await, and started again ([`Service`] for what clients ask, [`Worker`]
//! for running chunks, [`sweep`], [`summarise`]). Steps keep nothing in memory that matters: all that is true is in the
//! state store, moved by the transitions of `sheaf-core`.
//!
//! The same steps run inside Lambdas, inside the embedded grid and inside a simulator, so they never name a runtime, a
//! cloud, a clock or a source of randomness.

pub mod cancel;
pub mod error;
pub mod explain;
pub mod functions;
pub mod ports;
pub mod read;
pub mod retry;
mod service;
pub mod submit;
pub mod summarise;
pub mod sweep;
pub mod work;
mod write;

pub use error::{StoreError, WriteError};
pub use ports::{
    BlobStore, ChunkQueue, Clock, Delivery, Hint, JobListing, Ports, Put, Rng, Runner, StateStore, SummaryEntry, Write,
};
pub use service::Service;
pub use work::{Drain, Worker, WorkerOptions};
