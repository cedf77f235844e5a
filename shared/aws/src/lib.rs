//! The ports on AWS: state in one DynamoDB table, hints in SQS, bytes in S3.
//!
//! The steps know nothing of it: they see [`AwsPorts`]. This is the only crate that names an `aws-sdk` crate, so that
//! nothing else is built with them, and [`schema`] is the only place that names the table's keys, attributes and indexes.
//!
//! # Retries
//! Conditional writes of DynamoDB are made without the SDK's own retries: one that is sent again after its answer was lost
//! finds its own effect and is refused, and only the steps can tell that refusal from another's. Everything else may be
//! repeated, and is. Errors are sorted by whether the request may have been carried out, never by their text; the steps ask
//! again.

mod blobs;
mod fault;
pub mod message;
mod ports;
mod queue;
pub mod schema;
mod state;

pub use blobs::AwsBlobs;
pub use ports::{AwsPorts, MissingVariable, Settings, SystemClock, ThreadRng};
pub use queue::AwsQueue;
pub use state::AwsState;
