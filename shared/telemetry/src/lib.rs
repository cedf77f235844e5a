//! What a deployed grid says of itself: lines of JSON on stdout, some of them logs and some of them metrics.
//!
//! Lambda and ECS carry stdout to CloudWatch, which finds the metrics in it: nothing is called and nothing is buffered, so
//! that a process that dies has said what it knew, and one that is frozen holds up nothing. [`names`] is the only place that
//! names a metric. Nobody decides by metrics: they are for people and alarms.
//!
//! The commands of `client/cli` log to a terminal in their own way.

mod emf;
mod logs;
pub mod names;

pub use emf::{Metrics, NAMESPACE};
pub use logs::{Format, init};
pub use names::Metric;
