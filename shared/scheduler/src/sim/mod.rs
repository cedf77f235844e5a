//! A seeded discrete-event simulator of fleets: judge a policy before trusting money and deadlines to it.
//!
//! - [`fleet`]: machines that boot, run tasks, freeze, vanish and come back, and what they cost.
//! - [`faults`]: when they do, as Poisson processes or from a spot trace; [`fit`] makes more of the kind of a trace.
//! - [`pulling`]: any [`crate::Policy`] driving a fleet whose workers take the next task, as the grid's do.
//! - [`bags`]: bags with a deadline. [`elastic`]: streams of requests. [`published`]: the bags of the HADS papers.
//!
//! Cost is uptime by the second, from launch until it ends or freezes, boot included, without a minimum: what a frozen
//! machine's disk costs is left out, as are network and storage. A seed decides everything, and faults are drawn from
//! streams of their own, so that all policies meet the same ones.

pub mod bags;
pub mod elastic;
pub mod faults;
pub mod fit;
pub mod fleet;
mod machines;
pub mod published;
pub mod pulling;
mod queue;
mod tasks;
