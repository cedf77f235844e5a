//! The embedded grid: the ports in memory and on disk, and a whole grid in one process over them.
//!
//! [`Grid`] is what most people want: it opens a data directory (or memory), runs workers, sweeper and result step on the
//! caller's Tokio runtime, and answers the calls of [`sheaf_api::Api`]. The protocol is that of `sheaf-protocol`, unchanged;
//! this crate adds a store with group commit, a queue in memory, and the loops that call the steps.

mod directory;
mod engine;
mod give_back;
mod grid;
pub mod inbox;
mod keys;
mod ports;
mod queue;
mod store;
mod summaries;
mod writer;

/// Running files of commands.
pub use sheaf_files as files;

pub use directory::{Address, OpenError};
pub use grid::{Grid, GridOptions};
pub use ports::LocalPorts;
pub use queue::LocalQueue;
pub use sheaf_host::{Handler, HandlerBatch, Handlers, TaskContext};
pub use sheaf_worker::{SystemClock, ThreadRng};
pub use store::LocalStore;
