//! The schedulers of the HADS papers, which place every task of a bag: `hads-cc` and `burst-hads`.
//!
//! L. Teylo, L. Arantes, P. Sens, L. Drummond: "A dynamic task scheduler tolerant to multiple hibernations in cloud
//! environments", Cluster Computing 24, 2021 (HADS), and "Scheduling Bag-of-Tasks in Clouds using Spot and Burstable
//! Virtual Machines", 2020 (Burst-HADS). Written anew after the papers and the behaviour of the authors' program, ties
//! broken as there, since they are ported to be compared with.
//!
//! - [`cc`]: the first plan of HADS. [`ils`]: that of Burst-HADS.
//! - [`control`]: what both do when machines idle, freeze, vanish or come back.
//! - [`Capacity`]: either as a [`crate::Policy`] that only says how many machines.

pub mod bag;
mod capacity;
pub mod cc;
pub mod control;
pub mod ils;
pub mod queue;
mod round_robin;

pub use bag::Bag;
pub use capacity::Capacity;
pub use cc::{NoPlan, spot_deadline_s};
pub use queue::Queue;

/// Dollars and makespan of a plan: every machine is paid until its own last task ends.
pub fn cost_and_makespan(bag: &Bag, queues: &[Queue]) -> (f64, f64) {
    let cost = queues.iter().map(|queue| queue.cost(bag)).sum();
    (cost, queues.iter().map(|queue| queue.makespan_s).fold(0.0, f64::max))
}
