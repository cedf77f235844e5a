//! The wire: what travels between clients, the grid and its stores.
//!
//! [`pack`] holds the payloads of a chunk, [`segment`] the results of some of its tasks; both are read in place. [`Api`]
//! lists the calls, [`wire`] their requests and replies, [`stream`] how bulk ones are framed, [`error`] what can go wrong.
//! [`intake`] reads the files that people drop: command files, NDJSON, CSV. [`cost`] reckons what a job costs on AWS. Nothing
//! here does network or disk I/O.

mod calls;
pub mod checkpoint;
pub mod cost;
pub mod error;
pub mod frame;
pub mod intake;
pub mod invoke;
pub mod pack;
pub mod run;
pub mod segment;
pub mod stream;
pub mod wire;

pub use calls::{Answer, Api};
pub use error::{ApiError, Code, WriteOutcome};
pub use frame::FormatError;
pub use pack::{Pack, PackBuilder};
pub use segment::{Entry, Segment, SegmentBuilder};
