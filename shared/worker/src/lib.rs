//! A process that claims chunks and runs functions: what the embedded grid, the dispatch Lambda and processes that are
//! nothing but workers have in common; and such a process itself, from its start to its end ([`run`]).
//!
//! # When a worker process stops
//! | notice | what is running |
//! |---|---|
//! | [the machine is taken away](Notice::Reclaim) | may go on for 75 s, but not to within 15 s of the announced time |
//! | [the machine may be taken away](Notice::Rebalance) | may end, unless a notice with a time follows |
//! | [it is wanted no longer](Notice::Drain) | may go on until the time given |
//! | [SIGTERM, SIGINT](Notice::Signal) | may go on for the time until SIGKILL, less a margin |
//! | [nothing to do](Notice::Idle) | nothing is |
//!
//! With any of them it takes no more chunks, and gives back at once what has not begun. What does not end in its time is stopped
//! and given back; what has ended by then is committed first. That costs no task an attempt or a strike; `explain` says whether
//! the machine was wanted back or the worker only stopped. A notice that follows another can only make it faster.

mod crew;
mod gate;
mod notice;
mod process;
mod runner;
mod signals;
mod system;

pub use crew::{Counts, Crew, CrewOptions};
pub use gate::Gate;
pub use notice::{LOOK_MS, Notice, Signal, Stop};
pub use process::{Ended, Heard, Options, run};
pub use runner::{HostRunner, StoredPackages};
pub use signals::watch as watch_signals;
pub use system::{SystemClock, ThreadRng};
