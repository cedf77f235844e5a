//! Processes of this machine that stand for machines, driven by a capacity policy.
//!
//! A [`Fleet`] looks at what a grid has open and at the machines it holds, asks a [`Policy`](sheaf_scheduler::Policy), and
//! carries out what it says: a machine that is wanted is a worker process, started after its boot time; one that is not is
//! told to drain, and killed only when it has not ended long after. Spot machines are taken away as a
//! [fault model](sheaf_scheduler::sim::faults::Faults) says, with a notice and then `kill -9`, or without one. So policies
//! can be watched over real workers, real leases and real deaths, before there are machines that cost money.
//!
//! What a machine held that was taken away is given back in its name: its process has been seen to end, or to be frozen, and
//! what that writes later is refused. No task is charged for it, and none waits for a lease to run out.
//!
//! Time is counted in seconds of the plan: with a [time scale](FleetSpec::time_scale) of 60, a boot of a minute takes a
//! second here. Machines are as fast as this one, whatever their type. Where the policy says so, machines that stay run second
//! copies of what runs on those that may be taken away.

mod checkpoint;
mod event;
mod faults;
mod fleet;
mod freeze;
mod hedge;
mod life;
mod machine;
mod record;
mod session;

pub use event::{Event, EventLog, LineError, What, Why};
pub use fleet::{Fleet, FleetSpec, Grid, Launch, Spent, TaskNow};
pub use life::{Decided, Life, Lives, Phase, Refusal, Span};
pub use record::MachineRecord;
