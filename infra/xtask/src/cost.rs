//! Prints what tasks cost on AWS, as counted by `shared/aws/tests/accounting.rs`, whose bounds it also checks.

use std::process::Command;

use crate::setup::{root, succeed};

pub(crate) fn run() -> anyhow::Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    // As all tests are built, so that nothing is built twice.
    cargo.args(["test", "--quiet", "--workspace", "--test", "accounting", "--locked"]);
    succeed(cargo.args(["tasks_cost_what_is_promised", "--", "--nocapture"]))
}
