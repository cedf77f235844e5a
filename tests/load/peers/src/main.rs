//! Sheaf as one of the systems that `tests/load/peers` compares: a client that answers the driver's commands, a JSON object
//! per line, and the grid it is a client of.

mod conversation;
mod grid;

use std::{io::BufRead, path::PathBuf};

use clap::{Parser, ValueEnum};

use crate::{
    conversation::{Answer, Command},
    grid::Peer,
};

/// The arguments that every runner is called with.
#[derive(Parser)]
struct Arguments {
    /// How tasks are run.
    variant: Variant,
    /// A directory of its own.
    directory: PathBuf,
}

/// How tasks are run, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Variant {
    /// A Rust handler in this process.
    Embedded,
    /// Over HTTP, in `sheaf up`: a Rust child that takes a batch per invocation.
    HttpBatch,
    /// Over HTTP: a Rust child, an invocation per task.
    HttpOne,
    /// Over HTTP: a Python child that takes a batch per invocation.
    PythonBatch,
    /// Over HTTP: a Python child, an invocation per task.
    PythonOne,
    /// Over HTTP: a process per task.
    Command,
}

impl Variant {
    /// The function's name; in Python, which of function.py.
    const fn function(self) -> &'static str {
        match self {
            Self::PythonBatch => "batch",
            Self::PythonOne => "one",
            Self::Embedded | Self::HttpBatch | Self::HttpOne | Self::Command => "echo",
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let peer = Peer::start(arguments.variant, &arguments.directory).await?;
    Answer::Ready { version: format!("sheaf {}", env!("CARGO_PKG_VERSION")), roles: peer.roles() }.say()?;
    // The driver says one thing at a time, so nothing waits while this blocks.
    for line in std::io::stdin().lock().lines() {
        match serde_json::from_str(&line?)? {
            Command::Run(run) => Answer::Ran { seconds: peer.run(&run).await? }.say()?,
            Command::Resume(run) => Answer::Ran { seconds: peer.resume(&run).await? }.say()?,
            Command::Latency { tasks, seconds } => Answer::Latency { us: peer.latency(tasks, seconds).await? }.say()?,
        }
    }
    peer.stop().await;
    Ok(())
}
