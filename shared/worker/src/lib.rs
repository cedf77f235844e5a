//! A process that claims chunks and runs functions: what the embedded grid, the dispatch Lambda and the container for long
//! tasks have in common.

mod runner;

pub use runner::{HostRunner, StoredPackages};
