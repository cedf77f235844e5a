//! A process that claims chunks and runs functions: what the embedded grid, the dispatch Lambda and the container for long
//! tasks have in common.

mod crew;
mod gate;
mod runner;

pub use crew::{Counts, Crew, CrewOptions};
pub use gate::Gate;
pub use runner::{HostRunner, StoredPackages};
