//! The client of a Sheaf grid: connect, submit thousands to millions of tasks, and read exactly one outcome for each.
//!
#![cfg_attr(feature = "embedded", doc = "```")]
#![cfg_attr(not(feature = "embedded"), doc = "```ignore")]
//! # mod sheaf {
//! #     pub use ::sheaf::*;
//! #     pub async fn connect() -> Result<Grid, GridError> {
//! #         builder().memory(true).connect().await
//! #     }
//! # }
//! # use std::io::Error;
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Trade { notional: f64, rate: f64 }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Embedded by default; SHEAF_GRID or sheaf.toml picks another grid.
//! let grid = sheaf::connect().await?;
//! // A Rust function in the grid's own process; `Function::named("price")` is one that the grid has already.
//! let price = grid.handler("price", |trade: Trade| Ok::<f64, Error>(trade.notional * trade.rate)).await?;
//!
//! // Many tasks: any iterator or stream, batched, within a byte budget.
//! let trades = (0..1_000).map(|i| Trade { notional: f64::from(i), rate: 0.02 });
//! let mut out = grid.job("eod").map(&price, trades).start().await?;
//! let mut total = 0.0;
//! while let Some(result) = out.next().await {
//!     let result = result?; // a failure of the grid is an error
//!     match result.outcome {
//!         Ok(price) => total += price,
//!         Err(failure) => eprintln!("{} {failure}", result.id), // a failure of the task is an item
//!     }
//! }
//! # assert!((total - 9_990.0_f64).abs() < 1e-6, "{total}");
//!
//! // One task: accepted and durable once `submit` returns.
//! let ticket = grid.submit(&price, Trade { notional: 1e6, rate: 0.03 }).await?;
//! assert_eq!(ticket.await?.outcome, Ok(30_000.0));
//!
//! // From another process, later, after a crash.
//! let job = grid.attach(out.job_id()).await?;
//! assert_eq!(job.wait().await?.summary.totals.succeeded, 1_000);
//! grid.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What to know
//! - **Acknowledged is durable.** [`Progress`] counts what the grid has acknowledged: those tasks end in one outcome each,
//!   whatever crashes. [`Results::submitted`] waits for all of a job.
//! - **Dropping never cancels.** Not a [`Results`], a [`Ticket`], a [`Job`] or a [`Grid`]; [`Job::cancel`] does.
//! - **Back-pressure is a budget of bytes** that are sent and not acknowledged, 64 MiB for a handle unless said otherwise.
//!   While it is spent no further item is taken, and [`Counts::waiting`] says so. Results are not held in memory: they
//!   lie in the grid until they are read.
//! - **Tasks travel in chunks.** How many to a chunk follows from how long the function takes: ten seconds of work, less
//!   near the end of a job, one while nothing is known. [`JobBuilder::chunk_tasks`] overrides it.
//! - **Everything may be sent again.** Lost answers and short outages are retried without anything happening twice; a job
//!   with a [journal](JobBuilder::journal) outlives its client.
//!
//! # Features
//! - `embedded` (default): grids in this process.
//! - `remote` (default): those behind `http://`.
//! - `https`: those behind `https://`, with a token. Brings rustls with aws-lc-rs, the TLS stack of the AWS SDK.
//! - `aws`: those on AWS, by the URL of their API, which asks for signed requests, or as `aws:` and their name, without it.
//!   Credentials are found as the AWS command line finds them. Includes `https`.

#[cfg(feature = "aws")]
pub mod aws;
mod batch;
mod budget;
mod chunk_results;
mod connect;
mod error;
mod feed;
mod function;
mod grid;
#[cfg(feature = "embedded")]
mod handler;
mod job;
mod journal;
mod limits;
mod map;
mod progress;
mod reader;
#[cfg(feature = "remote")]
mod remote;
mod results;
mod retry;
mod settings;
mod sizing;
mod source;
mod submission;
mod ticket;
mod ticket_job;
mod transport;

/// What fuzz targets reach, and nobody else: `cargo fuzz` sets the flag.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::{
        journal::fuzzing::{MAGIC, Opened, read_journal, write_journal},
        settings::fuzzing::settings,
    };
}

pub use bytes::Bytes;
pub use chunk_results::{ChunkResults, TaskResult};
pub use connect::{Builder, ConnectOptions, builder, builder_state, connect};
pub use error::{GridError, ItemError, JournalError, TaskError};
pub use function::Function;
pub use grid::Grid;
pub use job::Job;
pub use map::{JobBuilder, Map};
pub use progress::{Counts, Progress, Waiting};
#[cfg(feature = "remote")]
pub use remote::{RETRY_MS_DEFAULT, Remote};
pub use results::Results;
pub use settings::{Origin, Place, Setting, Settings, SettingsError, Token};
/// The calls of a grid and what they take and give.
pub use sheaf_api as api;
pub use sheaf_api::{ApiError, Code, WriteOutcome, wire};
/// The words of a grid: ids, states, outcomes, limits.
pub use sheaf_core as core;
pub use sheaf_core::{
    Estimate, Failure, FailureKind, FunctionKind, JobId, JobState, Lane, Manifest, Outcome, Priority, TaskId, Totals,
};
#[cfg(feature = "embedded")]
pub use sheaf_local::{Handler, HandlerBatch, TaskContext};
pub use ticket::Ticket;
pub use transport::{Other, Transport};
