//! Several processes on one grid, and signals.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn sheaf(grid: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sheaf"));
    command
        .args(arguments)
        .current_dir(grid)
        .env("SHEAF_DIR", grid.join("grid"))
        .env("HOME", grid)
        .env("SHEAF_SLOTS", "2");
    for variable in ["SHEAF_GRID", "XDG_CONFIG_HOME", "SHEAF_TOKEN", "SHEAF_TOKEN_FILE", "SHEAF_OUTPUT", "SHEAF_LOG"] {
        command.env_remove(variable);
    }
    command
}

fn run(grid: &Path, arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = sheaf(grid, arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "it did not happen");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn up_serves_other_commands_and_its_inbox_until_it_is_told_to_stop() {
    let directory = tempfile::tempdir().unwrap();
    let grid = directory.path();
    std::fs::write(grid.join("f.toml"), "[functions.greet]\ncommand = [\"echo\", \"hello {name}\"]\n").unwrap();
    let mut up =
        sheaf(grid, &["up", "--functions", "f.toml"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut printed = BufReader::new(up.stdout.take().unwrap()).lines();
    assert!(printed.next().unwrap().unwrap().starts_with("grid       http://127.0.0.1:"));

    let (exit, out, _) = run(grid, &["run", "--array", "1-3", "--", "echo", "{}"]);
    assert_eq!((exit, out.as_str()), (0, "1\n2\n3\n"));
    let (exit, out, _) = run(grid, &["worker", "list", "-o", "id"]);
    assert!(exit == 0 && out.starts_with("wrk_"), "{out}");
    let (exit, _, error) = run(grid, &["up"]);
    assert!(exit == 1 && error.contains("sheaf::in_use") && error.contains("it serves http://"), "{error}");
    let (exit, out, _) = run(grid, &["doctor", "-o", "ndjson"]);
    assert!(exit == 0 && out.contains(r#""check":"running grid","health":"ok","found":"http://"#), "{out}");

    let command = r#"{"a": {"type": "greet", "arguments": {"name": "you"}}}"#;
    std::fs::write(grid.join("grid/inbox/a.json"), command).unwrap();
    let result = until(|| std::fs::read_to_string(grid.join("grid/outbox/a.txt")).ok());
    assert_eq!(result, "a hello you\n");

    signal(&up, Signal::TERM);
    assert_eq!(up.wait().unwrap().code(), Some(0));
    let (exit, out, _) = run(grid, &["job", "list", "--all", "-o", "id"]);
    assert_eq!((exit, out.lines().count()), (0, 2));
}

#[test]
fn a_run_that_is_interrupted_says_so_and_its_job_goes_on_later() {
    let directory = tempfile::tempdir().unwrap();
    let grid = directory.path();
    let job = ["run", "--array", "1-2", "--", "sh", "-c", "test -e $0/go || sleep 30; echo went"];
    let arguments: Vec<_> = job.into_iter().chain([grid.to_str().unwrap()]).collect();
    let mut child = sheaf(grid, &arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // Other commands see what runs meanwhile.
    until(|| {
        let (exit, out, _) = run(grid, &["job", "info", "last", "-o", "ndjson"]);
        (exit == 0 && out.contains(r#""state":"sealed""#)).then_some(())
    });
    signal(&child, Signal::INT);
    std::thread::sleep(Duration::from_millis(300));
    // The second one does not wait for the tasks that run.
    signal(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert!(said.contains("what was accepted is kept: `sheaf wait job_"), "{said}");

    std::fs::write(grid.join("go"), "").unwrap();
    let (exit, _, error) = run(grid, &["wait", "last"]);
    assert!(exit == 0 && error.starts_with("2 tasks: 2 succeeded"), "{error}");
    let (_, out, _) = run(grid, &["results", "last", "--ordered"]);
    assert_eq!(out, "0 went\n1 went\n");
}

#[test]
fn lines_are_run_as_they_come() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = sheaf(directory.path(), &["run", "--", "echo", "got {}"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in ["one", "two words"] {
        std::io::Write::write_all(&mut input, format!("{line}\n").as_bytes()).unwrap();
        assert_eq!(output.next().unwrap().unwrap(), format!("got {line}"));
    }
    drop(input);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
