//! How much capacity to want, and a simulator to judge the answer by.
//!
//! The library is pure: a [`Snapshot`] of open work, pools and machines goes in, a [`Decision`] comes out, with the
//! sentences that say why. There is no clock, no I/O and no thread here; time is a number in the snapshot, and the
//! randomness of the simulator comes from a seed. So the same policies answer on AWS every 15 seconds, on a laptop's
//! pool of worker processes, and in a simulation of a thousand nights.
//!
//! - [`snapshot`], [`decision`], [`policy`]: what goes in, what comes out, and who decides.
//! - [`policies`]: `fixed`, the five elastic-worker rules, and ours, `sheaf`.
//! - [`hads`]: the published bag schedulers `hads-cc` and `burst-hads`, which also place every task.
//! - [`formats`]: job.json, env.json, map.json, arrival traces, spot traces.
//! - [`sim`]: a seeded discrete-event simulator of fleets, for bags with a deadline and for streams of requests.
//! - [`energy`]: an estimate of watt-hours, from core-seconds.
//! - [`plan`] and [`simulate`]: what `sheaf plan` and `sheaf simulate` print, as tables that serialise.
//!
//! What it does not do: start a machine, lease a chunk, or remember anything between two decisions but [`Memory`],
//! which the caller keeps.

pub mod checkpoint;
pub mod decision;
pub mod energy;
pub mod estimate;
pub mod formats;
pub mod hads;
pub mod plan;
pub mod policies;
pub mod policy;
pub mod rng;
pub mod sim;
pub mod simulate;
pub mod snapshot;

pub use decision::{Decision, Drain, Hedge, Infeasible, LaneChoice, Want};
pub use estimate::Estimate;
pub use policy::{Arrivals, Memory, Policy, PolicyName, Settings, UnknownPolicy};
pub use snapshot::{Activity, Demand, Machine, Pool, Snapshot};
