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

mod backlog;
mod blobs;
mod capacity;
mod containers;
pub mod direct;
mod fault;
mod invoke;
#[cfg(feature = "loopback")]
pub mod loopback;
pub mod message;
pub mod meter;
pub mod notify;
mod objects;
#[cfg(feature = "loopback")]
pub mod operate;
mod parts;
mod ports;
mod presign;
mod queue;
pub mod schema;
mod sign;
mod state;
pub mod stream;

pub use aws_config::SdkConfig;
pub use backlog::Backlog;
pub use blobs::AwsBlobs;
pub use capacity::{ServiceCounts, Services};
pub use containers::{Container, End, EndCause};
pub use direct::{SLOTS_DEFAULT, grid_view};
pub use invoke::LambdaInvoker;
pub use meter::Meter;
pub use notify::Notifier;
pub use objects::{Found, ObjectHead, ObjectReader, ObjectVersion, ObjectWriter, Objects, StoredObject, Unfinished};
pub use parts::{Replaces, Written};
pub use ports::{AwsPorts, Settings, SettingsError, SystemClock, ThreadRng, load_config};
pub use presign::{AwsBodies, BODIES_PREFIX, Taken, URL_MS_MAX};
pub use queue::AwsQueue;
pub use sign::{SignError, SignatureHeaders, Signer};
pub use state::AwsState;
