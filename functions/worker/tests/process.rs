//! The program itself against an AWS on loopback: stopped, killed, told that its machine goes, and asked for its secrets.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rustix::process::{Pid, kill_process};
use sheaf_api::{Api, Segment, wire::ReadResults};
use sheaf_aws::{AwsPorts, loopback};
use sheaf_core::{Chunk, ChunkKey, ChunkState, JobState, Mark, ReleaseReason, TenantId};
use sheaf_protocol::{Ports, Service, StateStore, summarise};
use support::{Machine, chunks, submit, wait_for};
use tokio::time::{sleep, timeout};

/// A grid on loopback, and the workers of it.
struct Grid {
    service: Service<AwsPorts>,
    environment: Vec<(&'static str, String)>,
    directory: tempfile::TempDir,
}

impl Grid {
    async fn fresh() -> Result<Self, &'static str> {
        let (endpoint, account) = (loopback::aws_on_loopback()?, loopback::account());
        let settings = loopback::settings(&format!("w{account}"));
        let ports = loopback::ports(&loopback::config(endpoint, &account).await, &settings).await;
        Ok(Self {
            service: Service::new(ports, TenantId::default(), sheaf_aws::grid_view(2, BTreeMap::new())),
            environment: loopback::environment(endpoint, &account, &settings),
            directory: tempfile::tempdir().expect("a directory"),
        })
    }

    fn ports(&self) -> &AwsPorts {
        self.service.ports()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A worker of two slots that asks no metadata service.
    fn worker(&self) -> Worker {
        self.worker_with(Command::new(env!("CARGO_BIN_EXE_sheaf-worker-container")), &[("SHEAF_METADATA", "")])
    }

    fn worker_with(&self, mut command: Command, more: &[(&str, &str)]) -> Worker {
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.environment.iter().cloned()).env("SHEAF_SCRATCH", self.path("scratch"));
        command.envs([("SHEAF_LANES", "spot"), ("SHEAF_WORKER_SLOTS", "2")]).envs(more.iter().copied());
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts");
        let (lines, said) =
            (BufReader::new(process.stdout.take().expect("it is piped")), Arc::<Mutex<String>>::default());
        let log = said.clone();
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let mut log = log.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Worker { process, said }
    }

    /// What each task answered, once the job is done. The result step, which is not here, is done in its place.
    async fn results(&self, keys: &[ChunkKey]) -> BTreeMap<(u32, u32), String> {
        let job = keys[0].job;
        let is_final = |chunks: &[Chunk]| chunks.iter().all(Chunk::is_final);
        let chunks = wait_for(self.ports(), keys, "all chunks end", is_final).await;
        summarise::summarise(self.ports(), &chunks).await.expect("summarised");
        let view = self.service.progress(job, None, 0).await.expect("it is known");
        assert!(matches!(view.job.state, JobState::Done { .. }), "{:?}", view.job.state);
        let mut read = ReadResults { chunks_max: 64, ..ReadResults::default() };
        let mut found = BTreeMap::new();
        while found.len() < view.summary.tasks_submitted as usize {
            let page = self.service.results(job, read.clone()).await.expect("they can be read");
            assert!(!page.chunks.is_empty(), "no more than {} results", found.len());
            for chunk in page.chunks {
                assert!(read.have.insert(chunk.head.number));
                for segment in chunk.segments.into_iter().map(|bytes| Segment::parse(bytes).expect("a segment")) {
                    for entry in segment.entries() {
                        assert_eq!(entry.mark, Mark::Succeeded, "{:?}", String::from_utf8_lossy(entry.answer));
                        let answer = String::from_utf8_lossy(entry.answer).into_owned();
                        let before = found.insert((chunk.head.number, entry.task), answer);
                        assert_eq!(before, None, "a task has two outcomes");
                    }
                }
            }
        }
        found
    }
}

/// A running worker; killed when it is dropped.
struct Worker {
    process: Child,
    said: Arc<Mutex<String>>,
}

impl Worker {
    fn signal(&self, signal: rustix::process::Signal) {
        let pid = Pid::from_raw(i32::try_from(self.process.id()).expect("a process id")).expect("a process id");
        kill_process(pid, signal).expect("it is there");
    }

    async fn says(&self, words: &str) {
        let looking = async {
            while !self.said.lock().unwrap().contains(words) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let found = timeout(Duration::from_secs(60), looking).await;
        assert!(found.is_ok(), "it never says {words:?}: {}", self.said.lock().unwrap());
    }

    async fn ended(&mut self) -> ExitStatus {
        for _ in 0..1_800 {
            if let Some(status) = self.process.try_wait().expect("it can be waited for") {
                return status;
            }
            sleep(Duration::from_millis(50)).await;
        }
        panic!("it does not end: {}", self.said.lock().unwrap());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Chunks of two tasks; each notes that it runs, works for a while and answers its name.
fn job(notes: &Path, chunks: u32) -> Vec<Vec<String>> {
    let script = |name: String| format!("echo {name} >>{}; sleep 1; echo ran {name}", notes.display());
    (0..chunks).map(|chunk| (0..2).map(|task| script(format!("{chunk}.{task}"))).collect()).collect()
}

fn notes(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

async fn noted(path: &Path, count: usize) {
    let looking = async {
        while notes(path).len() < count {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), looking).await.expect("tasks start");
}

fn check(results: &BTreeMap<(u32, u32), String>, chunks: u32) {
    assert_eq!(results.len(), 2 * chunks as usize);
    for ((chunk, task), answer) in results {
        assert_eq!(*answer, format!("ran {chunk}.{task}"));
    }
}

/// Told to stop in the middle of a job, it ends what runs and gives back the rest: no task is run twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_hands_a_job_over_to_another_worker() {
    let grid = match Grid::fresh().await {
        Ok(grid) => grid,
        Err(reason) => return loopback::skipped(reason),
    };
    let file = grid.path("notes");
    let keys = submit(&grid.service, &job(&file, 6)).await;
    let mut first = grid.worker();
    noted(&file, 4).await;
    let workers = grid.ports().state().workers().await.expect("they can be listed");
    assert_eq!(workers.len(), 1, "{workers:?}");
    first.signal(rustix::process::Signal::TERM);
    assert_eq!(first.ended().await.code(), Some(0), "{}", first.said.lock().unwrap());
    assert_eq!(grid.ports().state().workers().await.expect("they can be listed"), []);
    let mut claimed = 0;
    for line in first.said.lock().unwrap().lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        claimed += line["chunks_claimed_total"].as_u64().unwrap_or_default();
        assert!(line["function"] == "worker" || line["lane"] == "spot", "{line}");
    }
    assert!(claimed >= 2, "metrics tell of what it claimed: {claimed}");
    let left = chunks(grid.ports(), &keys).await;
    assert!(left.iter().all(|chunk| !matches!(chunk.state, ChunkState::Leased(_))), "{left:?}");
    assert!(left.iter().any(|chunk| !chunk.is_final()), "there is something left for the second");

    let mut second = grid.worker();
    check(&grid.results(&keys).await, 6);
    let ran = notes(&file);
    let different: BTreeSet<&String> = ran.iter().collect();
    assert_eq!((ran.len(), different.len()), (12, 12), "each was run once: {ran:?}");
    for chunk in chunks(grid.ports(), &keys).await {
        let released: Vec<_> = chunk.work.past.iter().map(|past| past.released).collect();
        assert!(chunk.work.crashes == 0 && released.iter().all(|why| *why == Some(ReleaseReason::Drain)), "{chunk:?}");
    }
    second.signal(rustix::process::Signal::INT);
    assert_eq!(second.ended().await.code(), Some(0), "{}", second.said.lock().unwrap());
}

/// What it held when it was killed is taken over once its lease has run out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_worker_finishes_what_a_killed_one_held() {
    let grid = match Grid::fresh().await {
        Ok(grid) => grid,
        Err(reason) => return loopback::skipped(reason),
    };
    let file = grid.path("notes");
    let keys = submit(&grid.service, &job(&file, 4)).await;
    let mut first = grid.worker();
    noted(&file, 4).await;
    first.signal(rustix::process::Signal::KILL);
    assert_eq!(first.ended().await.signal(), Some(9));
    // In the same scratch directory, whose lock and functions the first has left behind.
    let mut second = grid.worker();
    check(&grid.results(&keys).await, 4);
    let found = chunks(grid.ports(), &keys).await;
    let crashes: u8 = found.iter().map(|chunk| chunk.work.crashes).sum();
    assert!((1..=4).contains(&crashes), "{found:?}");
    let ran = notes(&file);
    assert!(ran.len() <= 8 + 4, "only what was held is run again: {ran:?}");
    second.signal(rustix::process::Signal::TERM);
    assert_eq!(second.ended().await.code(), Some(0), "{}", second.said.lock().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_of_its_machine_reaches_it_and_a_second_signal_ends_it() {
    let (grid, machine) = match Grid::fresh().await {
        Ok(grid) => (grid, Machine::start()),
        Err(reason) => return loopback::skipped(reason),
    };
    let file = grid.path("notes");
    let long = |name: &str| format!("echo {name} >>{}; exec sleep 300", file.display());
    let keys = submit(&grid.service, &[vec![long("long")]]).await;
    let program = || Command::new(env!("CARGO_BIN_EXE_sheaf-worker-container"));
    let mut first = grid.worker_with(program(), &[("SHEAF_METADATA", &machine.url)]);
    noted(&file, 1).await;
    let told = Instant::now();
    machine.put("notice", r#"{"action":"terminate","in_s":30}"#).await;
    assert_eq!(first.ended().await.code(), Some(0), "{}", first.said.lock().unwrap());
    assert!(told.elapsed() < Duration::from_secs(30), "{:?}", told.elapsed());
    let found = chunks(grid.ports(), &keys).await;
    assert!(matches!(found[0].state, ChunkState::Queued { .. }), "{:?}", found[0]);
    assert_eq!(found[0].work.past.last().and_then(|past| past.released), Some(ReleaseReason::Reclaimed));
    assert_eq!(found[0].work.crashes, 0);

    // Its hint is there at once for whoever comes next.
    let mut second = grid.worker();
    noted(&file, 2).await;
    second.signal(rustix::process::Signal::TERM);
    second.says("\"stops\"").await;
    assert!(second.process.try_wait().expect("it can be waited for").is_none(), "what runs is given time");
    second.signal(rustix::process::Signal::TERM);
    assert_eq!(second.ended().await.code(), Some(143), "{}", second.said.lock().unwrap());
}

/// Functions are given none of its variables, and find none in its process, even with its user's rights.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_cannot_read_its_environment() {
    let grid = match Grid::fresh().await {
        Ok(grid) => grid,
        Err(reason) => return loopback::skipped(reason),
    };
    let scripts = ["env", "cat /proc/$PPID/environ 2>&1 | tr '\\0' '\\n'; echo; ls -l /proc/$PPID/fd 2>&1; echo end"];
    let keys = submit(&grid.service, &[scripts.map(str::to_owned).to_vec()]).await;
    // Root may read anything, so that it has to be a root without rights.
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs"]);
    command.arg(env!("CARGO_BIN_EXE_sheaf-worker-container"));
    let command = if rustix::process::geteuid().is_root() {
        command
    } else {
        Command::new(env!("CARGO_BIN_EXE_sheaf-worker-container"))
    };
    let secrets = [
        ("SHEAF_METADATA", ""),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/secret"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "secret"),
        ("ECS_CONTAINER_METADATA_URI_V4", "http://127.0.0.1:1/secret"),
        ("ECS_CONTAINER_METADATA_URI", "http://127.0.0.1:1/secret"),
        ("AWS_SESSION_TOKEN", "secret"),
    ];
    let worker = grid.worker_with(command, &secrets);
    let answers = grid.results(&keys).await;
    let of_env = &answers[&(0, 0)];
    assert!(of_env.contains("SHEAF_TASK="), "{of_env}");
    let of_process = &answers[&(0, 1)];
    assert!(of_process.contains("Permission denied") && of_process.ends_with("end"), "{of_process}");
    for answer in answers.values() {
        for word in
            ["secret", "AWS_ACCESS_KEY_ID", "AWS_SECRET", "AWS_CONTAINER", "ECS_", "SHEAF_TABLE", "AWS_ENDPOINT"]
        {
            assert!(!answer.contains(word), "{word}: {answer}");
        }
    }
    drop(worker);
}

#[test]
fn it_says_what_it_cannot_start_with() {
    let start = |variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sheaf-worker-container"));
        let output = command.env_clear().envs(variables.iter().copied()).output().expect("it starts");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = start(&[]);
    assert!(code == Some(1) && said.contains("SHEAF_TABLE"), "{code:?}: {said}");
    let grid = [("SHEAF_TABLE", "t"), ("SHEAF_BUCKET", "b"), ("SHEAF_QUEUES", "q")];
    let (code, said) = start(&[&grid[..], &[("SHEAF_LANES", "fast")]].concat());
    assert!(code == Some(1) && said.contains("SHEAF_LANES") && said.contains("fast"), "{code:?}: {said}");
    let (code, said) = start(&[&grid[..], &[("SHEAF_SCRATCH", "/proc/nowhere"), ("SHEAF_METADATA", "")]].concat());
    assert!(code == Some(1) && said.contains("/proc/nowhere"), "{code:?}: {said}");
}
