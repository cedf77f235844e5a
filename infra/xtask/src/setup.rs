//! Installs what the tests need beside a Rust toolchain. What cannot be had is named; tests that need it skip themselves.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context;

/// A program the tests need, and the Debian package that has it.
const PROGRAMS: [(&str, &str); 4] =
    [("ffmpeg", "ffmpeg"), ("initdb", "postgresql"), ("strace", "strace"), ("valgrind", "valgrind")];
/// What installing them takes.
const NEEDS_ROOT: &str = "apt-get as root or with passwordless sudo is needed";
/// What the examples in Python need.
const EXAMPLES: Venv = Venv { folder: "target/venv", requirements: "client/examples/python/requirements.txt" };
/// An AWS on loopback, for the tests of the ports on AWS.
const AWS: Venv = Venv { folder: "target/aws-venv", requirements: "shared/aws/tests/requirements.txt" };
/// What builds Lambdas, and what checks the infrastructure.
const INFRA: Venv = Venv { folder: "target/infra-venv", requirements: "infra/requirements.txt" };

/// A Python venv of this workspace.
pub(crate) struct Venv {
    pub(crate) folder: &'static str,
    pub(crate) requirements: &'static str,
}

/// What the set-up has found.
pub(crate) struct Machine {
    /// The Python of the venv, if it could be made.
    pub(crate) python: Option<PathBuf>,
    /// What could not be had.
    pub(crate) missing: Vec<String>,
}

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("the crate lies two folders below the root").to_owned()
}

pub(crate) fn run() -> anyhow::Result<Machine> {
    let mut missing = Vec::new();
    let wanted: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    if !wanted.is_empty() && !install(&wanted) {
        eprintln!("could not install {} ({NEEDS_ROOT})", wanted.join(", "));
    }
    for (program, package) in PROGRAMS {
        if find(program).is_none() {
            missing.push(format!("{program} (Debian package {package})"));
        }
    }
    let mut make = |venv: &Venv| {
        let made = venv.make().inspect_err(|error| eprintln!("no {}: {error:#}", venv.folder)).ok();
        if made.is_none() {
            missing.push(format!("a Python venv with {}", venv.requirements));
        }
        made
    };
    let python = make(&EXAMPLES);
    make(&AWS);
    make(&INFRA);
    for thing in &missing {
        println!("MISSING: {thing}; tests that need it are skipped");
    }
    Ok(Machine { python, missing })
}

/// The folder of programs for building Lambdas and checking the infrastructure, made if it is not there.
pub(crate) fn infra() -> anyhow::Result<PathBuf> {
    INFRA.make().map(|python| python.parent().expect("it is in a folder").to_owned())
}

/// A Python with what the examples need, made if it is not there.
pub(crate) fn examples() -> anyhow::Result<PathBuf> {
    EXAMPLES.make()
}

/// A program, installed if it is not there.
pub(crate) fn program(name: &str, package: &str) -> anyhow::Result<PathBuf> {
    if find(name).is_none() && !install(&[package]) {
        anyhow::bail!("could not install {package} ({NEEDS_ROOT})");
    }
    find(name).with_context(|| format!("the Debian package {package} has no {name}"))
}

/// The AWS on loopback, made if it is not there; none if it cannot be had.
pub(crate) fn ministack() -> Option<PathBuf> {
    let python = AWS.make().inspect_err(|error| eprintln!("no {}: {error:#}", AWS.folder)).ok()?;
    Some(python.with_file_name("ministack")).filter(|program| program.is_file())
}

/// Finds a program on the PATH or where Debian keeps PostgreSQL's.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(program));
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = versions.map(|version| version.path().join("bin").join(program));
    on_path.chain(debian).find(|file| file.is_file())
}

fn install(packages: &[&str]) -> bool {
    let apt = |args: &[&str]| {
        let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.starts_with(b"0\n"));
        let mut command = if is_root { Command::new("apt-get") } else { Command::new("sudo") };
        if !is_root {
            command.args(["-n", "apt-get"]);
        }
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    println!("installing {}", packages.join(", "));
    apt(&["update", "-q"]) && apt(&[&["install", "-q", "-y", "--no-install-recommends"], packages].concat())
}

impl Venv {
    /// Makes or reuses it; it is remade when the requirements change.
    pub(crate) fn make(&self) -> anyhow::Result<PathBuf> {
        let (venv, requirements) = (root().join(self.folder), root().join(self.requirements));
        let (python, stamp) = (venv.join("bin/python3"), venv.join("requirements.txt"));
        let wanted = std::fs::read_to_string(&requirements).context(self.requirements)?;
        if python.exists() && std::fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
            return Ok(python);
        }
        succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
        succeed(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(&requirements))?;
        std::fs::write(stamp, wanted)?;
        Ok(python)
    }
}

/// Runs a command to its successful end.
pub(crate) fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    anyhow::ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
