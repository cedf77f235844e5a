//! Workers in processes of their own: several on a grid, killed, drained, left without their grid, and refused.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn sheaf(grid: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sheaf"));
    command.args(arguments).current_dir(grid).env("SHEAF_DIR", grid.join("grid")).env("HOME", grid);
    for variable in ["SHEAF_GRID", "XDG_CONFIG_HOME", "SHEAF_TOKEN", "SHEAF_TOKEN_FILE", "SHEAF_OUTPUT", "SHEAF_LOG"] {
        command.env_remove(variable);
    }
    command
}

fn run(grid: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = sheaf(grid, arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn json(grid: &Path, arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = run(grid, &[arguments, &["-o", "json"]].concat());
    assert_eq!(code, 0, "{stdout}{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "it did not happen: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A process that is killed when the test ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Starts one, and waits for what it says first.
    fn start(grid: &Path, arguments: &[&str]) -> Self {
        let mut child = sheaf(grid, arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let mut process = Self(child);
        if line.is_empty() {
            let status = process.0.wait().unwrap();
            panic!("{arguments:?} ended with {status}: {}", process.stderr());
        }
        process
    }

    /// A grid without slots of its own.
    fn up(grid: &Path) -> Self {
        Self::start(grid, &["up", "--slots", "0", "-o", "id"])
    }

    fn worker(grid: &Path, arguments: &[&str]) -> Self {
        Self::start(grid, &[&["worker", "start", "-o", "id"], arguments].concat())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        until("the process ends", || self.0.try_wait().unwrap())
    }

    fn stderr(&mut self) -> String {
        let mut text = String::new();
        self.0.stderr.as_mut().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

/// Submits tasks that each run a script, which reads the number of its task.
fn submit(grid: &Path, array: &str, script: &str) {
    declare(grid, script);
    let (code, _, stderr) = run(grid, &["submit", "--function", "work", "--array", array]);
    assert_eq!(code, 0, "{stderr}");
}

fn declare(grid: &Path, script: &str) {
    let declaration = format!("[functions.work]\ncommand = ['/bin/sh', '-c', '{script}']\n");
    std::fs::write(grid.join("work.toml"), declaration).unwrap();
    let (code, _, stderr) = run(grid, &["function", "add", "work.toml"]);
    assert_eq!(code, 0, "{stderr}");
}

fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(ToOwned::to_owned).collect()
}

fn succeeded(grid: &Path) -> u64 {
    json(grid, &["job", "info", "last"])["summary"]["totals"]["succeeded"].as_u64().unwrap()
}

/// What one held when it was killed is done by the other, and no task is blamed for it.
#[test]
fn thousands_of_tasks_survive_the_death_of_one_of_two_workers() {
    let directory = tempfile::tempdir().unwrap();
    let grid = directory.path();
    let _up = Process::up(grid);
    let workers = [(); 2].map(|()| Process::worker(grid, &["--slots", "2"]));
    let started: BTreeMap<u64, u64> = workers.iter().map(|worker| (worker.0.id().into(), 2)).collect();
    until("both are listed", || {
        let rows = json(grid, &["worker", "list"]);
        let row = |row: &Value| Some((row["pid"].as_u64()?, row["slots"].as_u64()?));
        let listed: Option<BTreeMap<u64, u64>> = rows.as_array()?.iter().map(row).collect();
        (listed? == started).then_some(())
    });
    submit(grid, "1-4000", "read n; sleep 0.002; echo $n");
    until("some of it is done", || (succeeded(grid) > 100).then_some(()));
    workers[0].signal(Signal::KILL);
    let (code, _, stderr) = run(grid, &["wait", "last", "--timeout", "100s"]);
    assert_eq!(code, 0, "{stderr}");
    let (code, stdout, stderr) = run(grid, &["results", "last"]);
    assert_eq!(code, 0, "{stderr}");
    let mut results: Vec<u32> =
        stdout.lines().map(|line| line.rsplit(char::is_whitespace).next().unwrap().parse().unwrap()).collect();
    results.sort_unstable();
    assert!(results.into_iter().eq(1..=4000), "each once, each right");
    let totals = &json(grid, &["job", "info", "last"])["summary"]["totals"];
    assert_eq!((totals["succeeded"].as_u64(), totals["quarantined"].as_u64()), (Some(4000), Some(0)), "{totals}");
}

/// The grid has no slots but those of its workers.
#[test]
fn a_deadline_that_cannot_be_kept_is_said_when_a_job_is_submitted() {
    let directory = tempfile::tempdir().unwrap();
    let grid = directory.path();
    let _up = Process::up(grid);
    let _worker = Process::worker(grid, &["--slots", "2"]);
    declare(grid, "sleep 300");
    until("its slots count", || {
        let dry = json(grid, &["submit", "--function", "work", "--array", "1-10", "--dry-run"]);
        (dry["slots"] == 2).then_some(())
    });
    let submit = |deadline| {
        let job = ["submit", "--function", "work", "--array", "1-10", "--expect", "1h", "--deadline", deadline];
        let (code, _, stderr) = run(grid, &job);
        assert_eq!(code, 0, "{stderr}");
        stderr
    };
    assert_eq!(submit("6h"), "", "ten hours of work on two slots");
    let info = || run(grid, &["job", "info", "last"]).1;
    assert!(!info().contains("at the earliest"), "{}", info());
    let said = submit("4h");
    assert!(said.contains("cannot be kept: 10 tasks of about 1h 00m end at"), "{said}");
    assert!(info().contains("before all can end"), "{}", info());
}

#[test]
fn a_worker_that_is_told_to_stop_gives_back_what_runs_and_nobody_is_charged() {
    let directory = tempfile::tempdir().unwrap();
    let grid = directory.path();
    let _up = Process::up(grid);
    let mut worker = Process::worker(grid, &["--slots", "1", "--stop", "2s"]);
    let mark = grid.join("started");
    let script = format!("echo >>{}; sleep 300", mark.display());
    submit(grid, "1-1", &script);
    until("it runs", || mark.exists().then_some(()));
    worker.signal(Signal::TERM);
    assert_eq!(worker.ended().code(), Some(0));
    let task = json(grid, &["explain", "last/0/0"]);
    assert_eq!(
        (&task["past"][0]["released"], &task["attempts"], &task["crashes"]),
        (&"drain".into(), &0.into(), &0.into()),
        "{task}"
    );
    assert_eq!(json(grid, &["worker", "list"]), Value::Array(Vec::new()), "it has said good-bye");

    // Somebody else takes it at once; and a second signal ends that one without more ado.
    let mut worker = Process::worker(grid, &["--slots", "1", "--stop", "60s"]);
    until("it runs again", || (lines(&mark).len() == 2).then_some(()));
    worker.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(300));
    worker.signal(Signal::TERM);
    assert_eq!(worker.ended().code(), Some(143));
}

/// The grid is killed and started again, at another port: its worker goes on with what it runs, and finds it.
#[test]
fn a_grid_that_is_killed_is_found_again_by_its_worker() {
    let directory = tempfile::tempdir().unwrap();
    let grid = directory.path();
    let up = Process::up(grid);
    let mut worker = Process::worker(grid, &["--slots", "2"]);
    let ran = grid.join("ran");
    let script = format!("read n; echo $n >>{}; sleep 0.5", ran.display());
    submit(grid, "1-12", &script);
    until("some of it is done", || (lines(&ran).len() >= 3).then_some(()));
    drop(up);
    std::thread::sleep(Duration::from_millis(700));
    let _up = Process::up(grid);
    let (code, _, stderr) = run(grid, &["wait", "last", "--timeout", "100s"]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(succeeded(grid), 12);
    assert!(worker.0.try_wait().unwrap().is_none(), "the same worker");
    assert_eq!(lines(&ran).len(), 12, "what ran meanwhile did not run again");
}

#[test]
fn who_cannot_join_is_told_why() {
    let directory = tempfile::tempdir().unwrap();
    let grid = directory.path();
    let (code, _, stderr) = run(grid, &["worker", "start"]);
    assert!(code == 1 && stderr.contains("no grid is running in") && stderr.contains("sheaf up"), "{code} {stderr}");
    let mut up = sheaf(grid, &["up", "--slots", "0", "-o", "id"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut url = String::new();
    BufReader::new(up.stdout.as_mut().unwrap()).read_line(&mut url).unwrap();
    let _up = Process(up);
    let mut wrong = sheaf(grid, &["worker", "start", "--grid", url.trim()]);
    let output = wrong.env("SHEAF_TOKEN", "A".repeat(43)).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && stderr.contains("token is not that of this grid"), "{stderr}");
    let (code, _, stderr) = run(grid, &["worker", "start", "--lane", "fast"]);
    assert!(code == 2 && stderr.contains("fast") && stderr.contains("on-demand"), "{stderr}");
}

/// Idle workers leave by themselves, and each takes what is for its lanes.
#[test]
fn a_worker_that_has_nothing_to_do_ends() {
    let directory = tempfile::tempdir().unwrap();
    let grid = directory.path();
    let _up = Process::up(grid);
    submit(grid, "1-3", "cat");
    let mut spot = Process::worker(grid, &["--slots", "1", "--lane", "spot", "--idle", "1s"]);
    assert_eq!(spot.ended().code(), Some(0));
    assert_eq!(succeeded(grid), 0, "they are for the lane lambda");
    let mut every = Process::worker(grid, &["--slots", "1", "--idle", "1s"]);
    assert_eq!(every.ended().code(), Some(0));
    assert_eq!(succeeded(grid), 3);
}
