//! The grid under test, and the programs that users have.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use sheaf_aws::{AwsPorts, Settings, direct::Described};
use sheaf_core::JobId;
use sheaf_protocol::{BlobStore, Ports};
use tokio::process::{Child, Command};

/// What a scenario says that could not run here begins with this.
pub(crate) const SKIPPED: &str = "SKIPPED:";

/// The lanes of a worker that plays any container.
pub(crate) const LANES: &str = "spot,on-demand";

/// A deployed grid.
pub(crate) struct Deployed {
    /// Its name.
    pub(crate) name: String,
    /// The URL of its HTTP API.
    pub(crate) api: Option<String>,
    /// Its ports, for what users do with other tools: uploading, looking into the bucket.
    pub(crate) ports: AwsPorts,
    /// Where its things are.
    pub(crate) settings: Settings,
    /// A directory for files of the scenarios.
    pub(crate) directory: tempfile::TempDir,
    programs: PathBuf,
    /// The program of the containers as packaged.
    pub(crate) container: Option<PathBuf>,
}

impl Deployed {
    pub(crate) async fn find(
        name: String,
        api: Option<String>,
        programs: PathBuf,
        container: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let config = sheaf_aws::load_config().await;
        let found = Described::find(&config, &name).await.with_context(|| format!("grid {name}"))?;
        let settings = found.settings(&name);
        let ports = AwsPorts::over(&config, &settings);
        let programs = programs.canonicalize().with_context(|| programs.display().to_string())?;
        Ok(Self { name, api, ports, settings, directory: tempfile::tempdir()?, programs, container })
    }

    /// Where the SDK and the command find it with the user's own rights.
    pub(crate) fn place(&self) -> String {
        format!("aws:{}", self.name)
    }

    /// The SDK, connected directly.
    pub(crate) async fn connect(&self) -> anyhow::Result<sheaf::Grid> {
        Ok(sheaf::builder().grid(self.place()).connect().await?)
    }

    pub(crate) fn program(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.programs.join(name);
        ensure!(path.is_file(), "{} is not built", path.display());
        Ok(path)
    }

    /// The command, for the grid at a place.
    pub(crate) fn sheaf_at(&self, place: &str, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(self.program("sheaf")?);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SHEAF_")) {
            command.env_remove(name);
        }
        command.env("SHEAF_GRID", place).args(arguments).current_dir(self.directory.path());
        command.stdin(Stdio::null()).kill_on_drop(true);
        Ok(command)
    }

    /// Runs the command to its end, which must be success.
    pub(crate) async fn sheaf(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.sheaf_at(&self.place(), arguments)?.output().await?;
        succeeded(arguments, output)
    }

    /// What a job has come to, when it is over.
    pub(crate) async fn wait(&self, job: JobId, at_most: Duration) -> anyhow::Result<sheaf_core::Totals> {
        let grid = self.connect().await?;
        let waiting = async { anyhow::Ok(grid.attach(job).await?.wait().await?.summary.totals) };
        match tokio::time::timeout(at_most, waiting).await {
            Ok(totals) => totals,
            Err(_) => {
                let explained = self.sheaf(&["explain", &job.to_string()]).await.unwrap_or_default();
                bail!("{job} was not over after {} s:\n{explained}", at_most.as_secs())
            }
        }
    }

    /// Writes a file for the command to read.
    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    /// Puts an object, as `aws s3 cp` would.
    pub(crate) async fn upload(&self, key: &str, bytes: impl Into<Bytes>) -> anyhow::Result<()> {
        let put = self.ports.blobs().put(vec![(key.to_owned(), bytes.into())]).await.remove(0);
        ensure!(put? == sheaf_protocol::Put::Created, "{key} was there before");
        Ok(())
    }

    /// The text of an object, once it is there.
    pub(crate) async fn object(&self, key: &str, at_most: Duration) -> anyhow::Result<String> {
        let started = Instant::now();
        loop {
            let found = self.ports.blobs().get(&[key.to_owned()]).await.remove(0)?;
            if let Some(bytes) = found {
                return Ok(String::from_utf8(bytes.to_vec())?);
            }
            ensure!(started.elapsed() < at_most, "{key} was not there after {} s", at_most.as_secs());
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// A container of any lane, played by a process. `metadata` is where it finds the machine's metadata service.
    pub(crate) fn worker(&self, metadata: Option<&str>) -> anyhow::Result<Child> {
        self.worker_of(LANES, metadata)
    }

    /// A container of some lanes, played by a process.
    pub(crate) fn worker_of(&self, lanes: &str, metadata: Option<&str>) -> anyhow::Result<Child> {
        let program = self.container.clone().map_or_else(|| self.program("sheaf-worker-container"), Ok)?;
        let scratch = self.directory.path().join(format!("scratch-{}", unique()));
        let mut worker = Command::new(program);
        worker.env("SHEAF_SCRATCH", &scratch).env("SHEAF_METADATA", metadata.unwrap_or("http://127.0.0.1:9"));
        self.start_worker(worker, lanes, &scratch.with_extension("log"))
    }

    /// Starts a worker with what all of them are told; it writes its log to a file.
    pub(crate) fn start_worker(&self, mut worker: Command, lanes: &str, log: &Path) -> anyhow::Result<Child> {
        let Settings { table, bucket, queues } = &self.settings;
        worker.env("SHEAF_GRID", &self.name).env("SHEAF_TABLE", table).env("SHEAF_BUCKET", bucket);
        worker.env("SHEAF_QUEUES", queues).env("SHEAF_LANES", lanes).env("SHEAF_WORKER_SLOTS", "2");
        let log = std::fs::File::create(log)?;
        worker.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        Ok(worker.spawn()?)
    }
}

/// What a command printed, if it succeeded.
pub(crate) fn succeeded(what: &[&str], output: Output) -> anyhow::Result<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "sheaf {} ended with {}: {}", what.join(" "), output.status, text(&output.stderr));
    Ok(text(&output.stdout))
}

/// A number that no other call of this run gives.
pub(crate) fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    u64::from(std::process::id()) * 1_000 + NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Processes that a condition on their environment is true of.
pub(crate) fn processes(of: impl Fn(&str) -> bool) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_it = |pid: &i32| {
        let environment = std::fs::read(Path::new("/proc").join(pid.to_string()).join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| std::str::from_utf8(variable).is_ok_and(&of))
    };
    pids.filter(is_it).collect()
}
