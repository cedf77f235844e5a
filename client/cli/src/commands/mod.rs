//! The commands: a module per noun or verb.

pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod control;
pub(crate) mod cost;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod failures;
pub(crate) mod function;
pub(crate) mod job;
pub(crate) mod logs;
pub(crate) mod plan;
pub(crate) mod report;
pub(crate) mod results;
pub(crate) mod run;
pub(crate) mod run_command;
pub(crate) mod run_files;
pub(crate) mod simulate;
pub(crate) mod submit;
pub(crate) mod task;
pub(crate) mod up;
pub(crate) mod wait;
pub(crate) mod watch;
pub(crate) mod worker;
mod worker_start;
