//! A grid, embedded or served by `sheaf up`, and what the driver asks of it.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::Write,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use sheaf::{Bytes, Function, Grid, Results as Outcomes};
use tokio::process::Child;

use crate::{
    Variant,
    conversation::{Results, Role, Run, payload, unquoted},
};

/// Set where a kill is tried: the file in which every execution leaves its task's number.
const TRACE: &str = "PEERS_TRACE";
/// How long a task takes then.
const TASK_SECONDS: &str = "PEERS_TASK_SECONDS";
/// How long `sheaf up` may take to answer.
const START: Duration = Duration::from_secs(30);

/// A grid with its client.
pub(crate) struct Peer {
    variant: Variant,
    grid: Grid,
    echo: Function<Vec<u8>, Bytes>,
    directory: PathBuf,
    /// `sheaf up`, unless the grid is in this process.
    served: Option<Served>,
}

/// A `sheaf up`.
struct Served {
    command: Vec<String>,
    child: Child,
    /// What the command line of whoever runs tasks contains, where that is a process that lives on.
    worker: Option<&'static str>,
}

impl Peer {
    pub(crate) async fn start(variant: Variant, directory: &Path) -> anyhow::Result<Self> {
        let (grid, echo, served) = if variant == Variant::Embedded {
            let grid = sheaf::builder().directory(directory.join("grid")).connect().await?;
            let trace = Trace::from_environment()?;
            let run = move |payload: &[u8], result: &mut Vec<u8>| {
                trace.iter().for_each(|trace| trace.leave(payload));
                result.extend_from_slice(payload);
                Ok(())
            };
            let echo = grid.handler_raw(variant.function(), run).await?;
            (grid, echo, None)
        } else {
            let (served, port) = Served::start(variant, directory).await?;
            let token = directory.join("grid/token");
            let url = format!("http://127.0.0.1:{port}");
            (
                sheaf::builder().grid(url).token_file(token).connect().await?,
                Function::raw(variant.function()),
                Some(served),
            )
        };
        Ok(Self { variant, grid, echo, directory: directory.to_owned(), served })
    }

    pub(crate) fn roles(&self) -> BTreeMap<&'static str, Role> {
        let Some(served) = &self.served else {
            return BTreeMap::from([("server", Role { pattern: "", restart: Vec::new() })]);
        };
        let worker = served.worker.map(|pattern| ("worker", Role { pattern, restart: Vec::new() }));
        let server = ("server", Role { pattern: "sheaf up", restart: vec![served.command.clone()] });
        worker.into_iter().chain([server]).collect()
    }

    pub(crate) async fn run(&self, run: &Run) -> anyhow::Result<f64> {
        let started = Instant::now();
        let variant = self.variant;
        let payloads = (0..run.tasks).map(move |index| sent(variant, index));
        let outcomes = self.grid.job("peers").map(&self.echo, payloads).start().await?;
        // For this process when it comes back.
        std::fs::write(self.directory.join("job"), outcomes.job_id().to_string())?;
        read(outcomes, run).await?;
        Ok(started.elapsed().as_secs_f64())
    }

    pub(crate) async fn resume(&self, run: &Run) -> anyhow::Result<f64> {
        let started = Instant::now();
        let id = std::fs::read_to_string(self.directory.join("job")).context("no job was begun")?;
        let job = self.grid.attach(id.parse()?).await?;
        read(job.results_raw(), run).await?;
        Ok(started.elapsed().as_secs_f64())
    }

    pub(crate) async fn latency(&self, tasks: u64, seconds: f64) -> anyhow::Result<Vec<f64>> {
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        let mut us = Vec::new();
        for index in 0..tasks {
            let started = Instant::now();
            if started > until {
                break;
            }
            let result = self.grid.submit(&self.echo, sent(self.variant, index)).await?.await?.outcome;
            us.push(started.elapsed().as_secs_f64() * 1e6);
            let result = result?;
            ensure!(unquoted(&result) == payload(index), "the result of task {index} is {result:?}");
        }
        Ok(us)
    }

    pub(crate) async fn stop(self) {
        self.grid.close().await;
        if let Some(mut served) = self.served {
            // It has nothing left to finish; an error would mean that it has ended.
            let _ = served.child.kill().await;
        }
    }
}

/// A task as it is submitted: functions in packages take JSON.
fn sent(variant: Variant, index: u64) -> Vec<u8> {
    let payload = payload(index);
    match variant {
        Variant::Embedded | Variant::Command => payload,
        Variant::HttpBatch | Variant::HttpOne | Variant::PythonBatch | Variant::PythonOne => {
            [b"\"", payload.as_slice(), b"\""].concat()
        }
    }
}

/// Reads every result. A task that failed has none.
async fn read(mut outcomes: Outcomes<Bytes>, run: &Run) -> anyhow::Result<()> {
    let mut results = Results::create(run)?;
    while let Some(chunk) = outcomes.next_chunk().await {
        for (index, outcome) in chunk?.raw() {
            match outcome {
                Ok(result) => results.take(index, result)?,
                Err(error) => eprintln!("task {index}: {error}"),
            }
        }
    }
    Ok(results.finish()?)
}

impl Served {
    async fn start(variant: Variant, directory: &Path) -> anyhow::Result<(Self, u16)> {
        let functions = directory.join("functions.toml");
        std::fs::write(&functions, declaration(variant)?)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let data = directory.join("grid");
        let (listen, data_text) = (format!("127.0.0.1:{port}"), data.to_string_lossy().into_owned());
        let sheaf = beside("sheaf")?;
        let functions = functions.to_string_lossy().into_owned();
        let command = [&sheaf, "up", "--directory", &data_text, "--listen", &listen, "--functions", &functions];
        let command: Vec<String> = command.map(str::to_owned).into();
        let log = OpenOptions::new().create(true).append(true).open(directory.join("servers.log"))?;
        let mut up = tokio::process::Command::new(&command[0]);
        up.args(&command[1..]).stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = up.spawn().with_context(|| format!("starting {sheaf}"))?;
        let until = Instant::now() + START;
        while !data.join("grid.json").exists() || TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(Instant::now() < until, "sheaf up does not answer; see {}/servers.log", directory.display());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let worker = match variant {
            Variant::PythonBatch | Variant::PythonOne => Some("awslambdaric"),
            Variant::HttpBatch | Variant::HttpOne => Some("bootstrap"),
            Variant::Embedded | Variant::Command => None,
        };
        Ok((Self { command, child, worker }, port))
    }
}

/// The function, as a file of functions declares it.
fn declaration(variant: Variant) -> anyhow::Result<String> {
    let batch = matches!(variant, Variant::HttpBatch | Variant::PythonBatch);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kind = match variant {
        Variant::HttpBatch | Variant::HttpOne => format!("package = {:?}", beside("bootstrap-examples")?),
        Variant::PythonBatch | Variant::PythonOne => format!("package = {:?}", here.join("function")),
        // What function.py does, in a shell; `cat` where no kill is tried.
        Variant::Command if std::env::var_os(TRACE).is_some() => {
            let script = format!(
                "payload=$(cat); printf '%.16s\\n' \"$payload\" >> \"${TRACE}\"; sleep \"${TASK_SECONDS}\"; printf %s \"$payload\""
            );
            format!("command = [\"sh\", \"-c\", {script:?}]\nresult = \"text\"")
        }
        Variant::Command | Variant::Embedded => "command = [\"cat\"]\nresult = \"text\"".to_owned(),
    };
    let environment: String = ["PATH", TRACE, TASK_SECONDS]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok().map(|value| format!("{name} = {value:?}\n")))
        .collect();
    let name = variant.function();
    Ok(format!("[functions.{name}]\n{kind}\nbatch = {batch}\n\n[functions.{name}.env]\n{environment}"))
}

/// A program that was built beside this one.
fn beside(name: &str) -> anyhow::Result<String> {
    let program = std::env::current_exe()?.with_file_name(name);
    ensure!(
        program.is_file(),
        "{} is not built: cargo build --release -p sheaf-cli -p sheaf-examples",
        program.display()
    );
    Ok(program.to_string_lossy().into_owned())
}

/// What a task does besides echoing when a kill is tried.
struct Trace {
    file: std::fs::File,
    takes: Duration,
}

impl Trace {
    fn from_environment() -> anyhow::Result<Option<Self>> {
        let Some(path) = std::env::var_os(TRACE) else { return Ok(None) };
        let takes = std::env::var(TASK_SECONDS).context(TASK_SECONDS)?.parse().context(TASK_SECONDS)?;
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Some(Self { file, takes: Duration::from_secs_f64(takes) }))
    }

    fn leave(&self, payload: &[u8]) {
        let line = [&payload[..payload.len().min(16)], b"\n"].concat();
        // Without the trace the experiment counts too little; it says so.
        if let Err(error) = (&self.file).write_all(&line) {
            eprintln!("no trace of a task: {error}");
        }
        std::thread::sleep(self.takes);
    }
}
