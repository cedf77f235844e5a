//! `sheaf bench`, small: its files, its exit codes, and that it notices what is wrong.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

/// A grid in a process of its own, a batch that some tasks of fail in, and single tasks as they come.
const SCENARIO: &str = r#"
name = "small"
grid = "up"
function = "batch"
slots = 2
[[clients]]
name = "batch"
jobs = 2
load = { kind = "batch", tasks = 600 }
mix = { fail_share = 0.1 }
[[clients]]
name = "single"
count = 2
load = { kind = "open", arrivals = { kind = "poisson", per_s = 100 }, seconds = 0.5 }
[goals.tasks_per_s]
at_least = 1
"#;

fn sheaf(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sheaf"));
    command.args(arguments).current_dir(folder).env("SHEAF_DIR", folder.join("grid")).env("HOME", folder);
    for variable in ["SHEAF_GRID", "XDG_CONFIG_HOME", "SHEAF_TOKEN", "SHEAF_TOKEN_FILE", "SHEAF_OUTPUT", "SHEAF_LOG"] {
        command.env_remove(variable);
    }
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn a_scenario_is_run_checked_reported_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("small.toml"), SCENARIO).unwrap();
    let run = ["bench", "--scenario", "small.toml", "--repeat", "2", "--directory", ".", "-o", "json"];
    let (code, stdout, stderr) = sheaf(folder, &[&run[..], &["--json", "a.json", "--html", "a.html"]].concat());
    assert_eq!(code, 0, "{stdout}{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&report["schema"], &report["goals"]["tasks_per_s"]["held"]), (&1.into(), &true.into()));
    let (verdict, runs) = (&report["verdict"], report["runs"].as_array().unwrap());
    assert_eq!((runs.len(), &verdict["right"]), (2, &verdict["submitted"]), "{verdict}");
    assert!(verdict["failed_as_asked"].as_u64() > Some(0), "{verdict}");
    for run in runs {
        let stages = &run["groups"][1]["stages"];
        for stage in ["latency", "late", "submit", "queue", "held", "run", "read"] {
            assert!(stages[stage]["p99_ms"].is_number(), "{stage}: {stages}");
        }
        assert!(run["syncs"].as_u64() > Some(0) && run["requests"].as_u64() > Some(0), "{run}");
        let roles: Vec<_> =
            run["usage"].as_array().unwrap().iter().map(|usage| usage["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["client", "grid", "functions"]);
    }
    let kept: Value = serde_json::from_slice(&std::fs::read(folder.join("a.json")).unwrap()).unwrap();
    assert_eq!(kept, report);
    assert!(std::fs::read_to_string(folder.join("a.html")).unwrap().contains("<polyline"));
    let left: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with("sheaf-bench-")), "{left:?}");

    let (code, stdout, _) = sheaf(folder, &["bench", "compare", "a.json", "a.json"]);
    assert!(code == 0 && stdout.contains("tasks_per_s") && stdout.contains("within the spread"), "{stdout}");
}

/// A function that answers anything but what it has to.
#[test]
fn wrong_results_are_exit_code_3() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("f.toml"), "[functions.liar]\ncommand = [\"echo\", \"done\"]\n").unwrap();
    let (code, _, stderr) = sheaf(folder, &["function", "add", "f.toml"]);
    assert_eq!(code, 0, "{stderr}");
    let (code, stdout, stderr) = sheaf(folder, &["bench", "--grid", "grid", "--function", "liar", "--tasks", "5"]);
    assert_eq!(code, 3, "{stdout}{stderr}");
    assert!(stdout.contains("5 wrong") && stdout.contains("came back with \"done\""), "{stdout}");
}

#[test]
fn what_makes_no_sense_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("s.toml"), SCENARIO.replace("slots", "slot")).unwrap();
    let (code, _, stderr) = sheaf(folder.path(), &["bench", "--scenario", "s.toml"]);
    assert!(code == 2 && stderr.contains("s.toml") && stderr.contains("slot"), "{stderr}");
    let (code, _, stderr) = sheaf(folder.path(), &["bench", "thruput"]);
    assert!(code == 2 && stderr.contains("thruput") && stderr.contains("throughput"), "{stderr}");
    let (code, _, stderr) = sheaf(folder.path(), &["bench", "compare", "s.toml", "s.toml"]);
    assert!(code == 1 && stderr.contains("s.toml is not a report"), "{stderr}");
}
