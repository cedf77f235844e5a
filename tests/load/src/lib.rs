//! The load-test harness: a user of the SDK that measures, and checks every result.
//!
//! A [`Scenario`](scenario::Scenario) says where the grid is, what runs the tasks and what clients ask for; [`run::run`] runs
//! it once, and a [`Report`](report::Report) holds what some runs of it came to. `sheaf bench` is a thin layer over this.
//!
//! It knows the grid as any program does that uses it: through the SDK, and a process from outside. What cannot be told that
//! way is said to be so in the report, and not guessed.

pub mod arrivals;
pub mod clients;
pub mod compare;
pub mod curve;
mod disk;
mod error;
pub mod function;
pub mod histogram;
pub mod live;
pub mod machine;
pub mod page;
pub mod report;
pub mod resources;
pub mod run;
pub mod scenario;
pub mod sizes;
pub mod stages;
pub mod target;
pub mod trials;
pub mod verify;
pub mod work;

pub use error::LoadError;
