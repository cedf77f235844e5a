//! What people repeat: setting up a machine, checking the tree, deploying a grid.

mod checked;
mod conformance;
mod cost;
mod deploy;
mod e2e_aws;
mod fuzz;
mod infra;
mod package;
mod peers;
mod setup;
mod terraform;
mod test;

use std::{path::PathBuf, time::Duration};

use clap::Parser;

/// Tasks of the project.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Install what the tests need: PostgreSQL, ffmpeg, strace, valgrind, and Python packages in venvs of their own.
    Setup,
    /// Set up, then run every check and test; counts what had to be skipped.
    Test {
        /// Only the tests: neither the format nor the lints are checked.
        #[arg(long)]
        no_lints: bool,
        /// Seconds of fuzzing, all targets together; 0 for none.
        #[arg(long, default_value_t = 60)]
        fuzz_seconds: u64,
    },
    /// Run the fuzz targets of tests/fuzz, and say what each of them did; fails when one has crashed.
    Fuzz {
        /// Seconds, all targets together.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Only these targets.
        targets: Vec<String>,
    },
    /// Run jobs through all steps while every request to AWS is counted, and print what they cost; nothing leaves this machine.
    Cost,
    /// Check infra/terraform and the Dockerfile, without an account: format, validity, plans and policies.
    Infra,
    /// Run the suite of the ports over every backend, and print a table of promises and backends.
    Conformance,
    /// Install Ray, Dask, Celery, BullMQ and HyperQueue, and measure Sheaf beside them. See tests/load/peers/README.md.
    Peers {
        /// For the driver: --quick, --rounds, --only, --no-kills; `-- --help` shows all.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Package the Lambdas, deploy a grid to an AWS on this machine, put it through its scenarios, and destroy it.
    E2eAws {
        #[command(flatten)]
        options: e2e_aws::Options,
    },
    /// Build the Lambdas' zips and the program of the containers into target/lambda.
    Package {
        #[command(flatten)]
        architecture: package::ArchitectureArgs,
        /// Cargo's profile.
        #[arg(long, default_value = "lambda")]
        profile: String,
    },
    /// Bring a grid to AWS, or change it, with Terraform. See docs/aws.md.
    Deploy {
        #[command(flatten)]
        grid: deploy::GridArgs,
        /// The folder of the zips; without it, where `package` puts them.
        #[arg(long)]
        packages: Option<PathBuf>,
        /// Only say what would be done.
        #[arg(long)]
        plan: bool,
    },
    /// Remove a grid from AWS, with all that it holds.
    Destroy {
        #[command(flatten)]
        grid: deploy::GridArgs,
    },
}

fn main() -> anyhow::Result<()> {
    match Task::parse() {
        Task::Setup => setup::run().map(|_| ()),
        Task::Test { no_lints, fuzz_seconds } => test::run(!no_lints, Duration::from_secs(fuzz_seconds)),
        Task::Fuzz { seconds, targets } => fuzz::run(Duration::from_secs(seconds), &targets)?.conclude(),
        Task::Cost => cost::run(),
        Task::Peers { arguments } => peers::run(&arguments),
        Task::Conformance => conformance::run(),
        Task::E2eAws { options } => e2e_aws::run(&options)?.conclude(),
        Task::Infra => infra::run()?.conclude(),
        Task::Package { architecture, profile } => package::run(architecture.get(), &profile).map(|_| ()),
        Task::Deploy { grid, packages, plan } => deploy::deploy(&grid, packages.as_deref(), plan),
        Task::Destroy { grid } => deploy::destroy(&grid),
    }
}
