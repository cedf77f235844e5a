//! The protocol under faults: the production steps over simulated ports.
//!
//! A *seed* decides everything: which jobs there are and who submits, cancels, contests and reads them; which faults happen
//! and how often; who goes next at every await. So a run can be repeated exactly, and a seed that breaks a promise is a test.
//! The steps, the transitions and the invariants are those of `shared/`; only the ports are simulated, and behave as
//! DynamoDB, SQS and S3 do on a bad day. Time is virtual: a run of ten minutes takes a few milliseconds.
//!
//! | module | |
//! |---|---|
//! | [`executor`] | virtual time, processes that die and stand still |
//! | [`plan`], [`faults`] | what a seed draws |
//! | [`cloud`] | what is stored and sent |
//! | `ports`, `store`, `queue`, `runner` | the simulated ports |
//! | `grid`, `client` | who acts |
//! | [`audit`] | what truly happened, and what it must amount to |
//! | [`bug`] | guards taken away on purpose, each of which must be noticed |
//! | [`run`](mod@run), [`campaign`] | one seed, and very many |

pub mod audit;
pub mod bug;
pub mod campaign;
mod client;
pub mod cloud;
pub mod executor;
pub mod faults;
mod grid;
pub mod plan;
mod ports;
mod queue;
pub mod run;
mod runner;
mod store;

pub use bug::Bug;
pub use campaign::Campaign;
pub use faults::Weather;
pub use plan::Size;
pub use run::{Options, Report, run};
