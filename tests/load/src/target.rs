//! The grid that is measured: opened here, started in a process of its own, or there already.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::Deserialize;
use sheaf::{Function, Grid, Transport};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child as Process, Command},
    time::timeout,
};

use crate::{
    error::LoadError,
    function::{self, Child, TaskFunction},
    scenario::{Kind, Place, Scenario},
};

/// How long `sheaf up` may take to say where it is: recovering a large store is slow.
const START_S_MAX: u64 = 300;
/// How long it may take to end once asked to.
const STOP_S_MAX: u64 = 60;

/// How a measurement is run, apart from what is measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// The grid that runs already, as `SHEAF_GRID` names one: for scenarios whose grid is [`Place::Given`].
    pub given: Option<String>,
    /// The function of that grid that does what payloads say, if the tasks' function is not to be declared.
    pub function: Option<String>,
    /// Where grids keep their data: a directory below this one, removed afterwards. The system's own for such things unless
    /// given, which may be in memory and so no disk at all.
    pub directory: Option<PathBuf>,
    /// The `sheaf` program, for a grid in a process of its own.
    pub sheaf: PathBuf,
    /// How the tasks' function is started as a child process.
    pub child: Child,
}

/// What `sheaf up` says of itself.
#[derive(Debug, Deserialize)]
struct Said {
    url: String,
    token_file: PathBuf,
    pid: u32,
}

/// `sheaf up` in a process of its own; killed when dropped.
#[derive(Debug)]
pub struct Up {
    process: Process,
    said: Said,
}

impl Up {
    /// Starts it on a directory, and waits until it serves.
    pub async fn start(sheaf: &Path, directory: &Path, scenario: &Scenario) -> Result<Self, LoadError> {
        let failed = |wrong: String| LoadError::Process { program: sheaf.to_owned(), wrong };
        let mut command = Command::new(sheaf);
        command
            .args(["up", "--output", "ndjson", "--listen", "127.0.0.1:0", "--directory"])
            .arg(directory.join("grid"));
        if let Some(slots) = scenario.slots {
            command.args(["--slots", &slots.to_string()]);
        }
        // What the user set for their own grid is not meant for this one.
        for name in ["SHEAF_GRID", "SHEAF_DIR", "SHEAF_SLOTS", "SHEAF_LISTEN"] {
            command.env_remove(name);
        }
        let mut process = command
            .env("SHEAF_DURABLE", scenario.durable.to_string())
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let stdout = process.stdout.take().expect("its stdout is a pipe");
        let mut lines = BufReader::new(stdout).lines();
        let line = timeout(Duration::from_secs(START_S_MAX), lines.next_line()).await;
        let line = line.map_err(|_| failed(format!("it said nothing for {START_S_MAX} s")))?;
        let Some(line) = line.map_err(|error| failed(error.to_string()))? else {
            let output = process.wait_with_output().await.map_err(|error| failed(error.to_string()))?;
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        };
        let said = serde_json::from_str(&line).map_err(|error| failed(format!("it said {line:?}: {error}")))?;
        // Read to the end, or it would wait for us once the pipe is full.
        let mut stderr = process.stderr.take().expect("its stderr is a pipe");
        tokio::spawn(async move { tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await });
        Ok(Self { process, said })
    }

    /// Its process.
    pub const fn pid(&self) -> u32 {
        self.said.pid
    }

    /// Connects to it, as a client of its own.
    pub async fn connect(&self) -> Result<Grid, LoadError> {
        let options = sheaf::builder().grid(self.said.url.as_str()).token_file(self.said.token_file.clone());
        Ok(options.connect().await?)
    }

    /// Kills it, as a power cut would.
    pub async fn kill(mut self) {
        // It may have ended by itself; it is gone either way.
        let _ = self.process.kill().await;
    }

    /// Asks it to end, and waits for that.
    pub async fn stop(mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.said.pid.to_string()]).status().await;
        if asked.is_err() || timeout(Duration::from_secs(STOP_S_MAX), self.process.wait()).await.is_err() {
            self.kill().await;
        }
    }
}

/// A grid to measure, and the ways to it.
#[derive(Debug)]
pub struct Target {
    grid: Grid,
    up: Option<Up>,
    given: Option<String>,
    function: TaskFunction,
    directory: Option<TempDir>,
}

impl Target {
    /// Opens or starts it, and declares the tasks' function.
    pub async fn open(scenario: &Scenario, options: &Options) -> Result<Self, LoadError> {
        let directory = match scenario.grid {
            Place::Embedded | Place::Up => Some(scratch(options)?),
            Place::Memory | Place::Given => None,
        };
        let mut up = None;
        let grid = match (scenario.grid, &directory) {
            (Place::Up, Some(directory)) => {
                let started = Up::start(&options.sheaf, directory.path(), scenario).await?;
                let grid = started.connect().await?;
                up = Some(started);
                grid
            }
            (Place::Given, _) => sheaf::builder().maybe_grid(options.given.clone()).connect().await?,
            (_, directory) => embedded(scenario, directory.as_ref().map(TempDir::path)).await?,
        };
        let given = options.given.clone().filter(|_| scenario.grid == Place::Given);
        let function = match &options.function {
            Some(name) => Function::raw(name.as_str()),
            None => {
                if !is_here(&grid, given.as_deref()) {
                    return Err(LoadError::NoFunction { place: given.unwrap_or_default() });
                }
                if scenario.function == Kind::Handler && !matches!(grid.api(), Transport::Embedded(_)) {
                    let wrong =
                        "a handler cannot run in another process, where the grid is: give --kind batch".to_owned();
                    return Err(LoadError::Scenario { place: scenario.name.clone(), wrong });
                }
                function::declare(&grid, scenario.function, &options.child).await?
            }
        };
        Ok(Self { grid, up, given, function, directory })
    }

    /// A handle on it.
    pub const fn grid(&self) -> &Grid {
        &self.grid
    }

    /// A client of its own where that makes a difference: with connections and a byte budget of its own.
    pub async fn client(&self) -> Result<Grid, LoadError> {
        match (&self.up, &self.given, self.grid.api()) {
            (_, _, Transport::Embedded(_)) => Ok(self.grid.clone()),
            (Some(up), _, _) => up.connect().await,
            (None, given, _) => Ok(sheaf::builder().maybe_grid(given.clone()).connect().await?),
        }
    }

    /// The tasks' function.
    pub const fn function(&self) -> &TaskFunction {
        &self.function
    }

    /// The grid's process, if it is another one on this machine that we know.
    pub fn pid(&self) -> Option<u32> {
        self.up.as_ref().map(Up::pid)
    }

    /// Whether the grid is in this process.
    pub fn is_embedded(&self) -> bool {
        matches!(self.grid.api(), Transport::Embedded(_))
    }

    /// Whether its clock is this machine's, so that times of both can be compared.
    pub fn shares_clock(&self) -> bool {
        self.up.is_some() || is_here(&self.grid, self.given.as_deref())
    }

    /// Where it keeps its data, if that was made for this measurement.
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_ref().map(TempDir::path)
    }

    /// Ends it, and removes its data.
    pub async fn close(self) {
        self.grid.close().await;
        if let Some(up) = self.up {
            up.stop().await;
        }
        drop(self.directory);
    }
}

/// A directory for a grid's data.
pub fn scratch(options: &Options) -> Result<TempDir, LoadError> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("sheaf-bench-");
    let made = match &options.directory {
        Some(directory) => builder.tempdir_in(directory),
        None => builder.tempdir(),
    };
    let path = || options.directory.clone().unwrap_or_else(std::env::temp_dir);
    made.map_err(|source| LoadError::File { doing: "written to", path: path(), source })
}

async fn embedded(scenario: &Scenario, directory: Option<&Path>) -> Result<Grid, LoadError> {
    let options = sheaf::builder()
        .memory(directory.is_none())
        .maybe_directory(directory.map(|directory| directory.join("grid")))
        .durable(scenario.durable)
        .maybe_slots(scenario.slots);
    Ok(options.connect().await?)
}

/// Whether a grid is on this machine, so that it can start our program.
fn is_here(grid: &Grid, given: Option<&str>) -> bool {
    match (grid.api(), given) {
        (Transport::Embedded(_), _) | (_, None) => true,
        (_, Some(url)) => {
            let host = url.split("://").nth(1).unwrap_or_default();
            ["127.0.0.1", "localhost", "[::1]"].iter().any(|here| host.starts_with(here))
        }
    }
}
