//! Installs the systems that Sheaf is compared with, builds Sheaf, and runs the comparison of tests/load/peers.

use std::{path::Path, process::Command};

use crate::setup::{self, Venv, root, succeed};

/// Peers in Python: a venv each, so that one that cannot be had takes no other with it.
const PYTHON: [Venv; 4] = [
    Venv { folder: "target/peers-venv/ray", requirements: "tests/load/peers/requirements/ray.txt" },
    Venv { folder: "target/peers-venv/dask", requirements: "tests/load/peers/requirements/dask.txt" },
    Venv { folder: "target/peers-venv/celery", requirements: "tests/load/peers/requirements/celery.txt" },
    Venv { folder: "target/peers-venv/hyperqueue", requirements: "tests/load/peers/requirements/hyperqueue.txt" },
];
/// Where packages of Node.js go, with the files that name them.
const NODE: &str = "target/peers-node";
/// The comparison.
const COMPARISON: &str = "tests/load/peers";

/// Installs, builds, and runs the driver with these arguments.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let python = setup::examples().inspect_err(|error| missing("awslambdaric", error)).ok();
    for venv in &PYTHON {
        let _ = venv.make().inspect_err(|error| missing(venv.folder, error));
    }
    let _ = setup::program("redis-server", "redis-server").inspect_err(|error| missing("redis-server", error));
    let _ = node(&root().join(NODE)).inspect_err(|error| missing(NODE, error));
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.current_dir(root()).args(["build", "--release", "--locked", "--bins"]);
    succeed(build.args(["-p", "sheaf-cli", "-p", "sheaf-examples", "-p", "sheaf-peers"]))?;
    let programs = target().join("release");
    // Standard library only: any Python will do.
    let mut driver = Command::new("python3");
    driver.arg(root().join(COMPARISON).join("driver.py")).arg("--programs").arg(programs);
    driver.arg("--venvs").arg(root().join("target/peers-venv")).arg("--node").arg(root().join(NODE));
    driver.arg("--out").arg(root().join("target/peers"));
    if let Some(python) = python {
        driver.arg("--python").arg(python);
    }
    succeed(driver.args(arguments))
}

/// The folder cargo builds into.
fn target() -> std::path::PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into)
}

/// The driver skips who needs it, and says so again.
fn missing(what: &str, error: &anyhow::Error) {
    eprintln!("MISSING: {what}: {error:#}; who needs it is skipped");
}

/// Installs the packages as the lock file has them, unless they are there already.
fn node(folder: &Path) -> anyhow::Result<()> {
    const FILES: [&str; 2] = ["package.json", "package-lock.json"];
    let stamp = folder.join("installed");
    let wanted = std::fs::read_to_string(root().join(COMPARISON).join(FILES[1]))?;
    if std::fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    std::fs::create_dir_all(folder)?;
    for file in FILES {
        std::fs::copy(root().join(COMPARISON).join(file), folder.join(file))?;
    }
    // Not `npm ci`: it insists on the optional packages of all platforms, which some mirrors do not have.
    succeed(Command::new("npm").current_dir(folder).args(["install", "--no-audit", "--no-fund", "--loglevel=error"]))?;
    Ok(std::fs::write(stamp, wanted)?)
}
