//! A bag on worker processes that stand for machines: booted, taken away, and what is written down of it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// Two types, two machines of two slots each, on both markets.
const ENV: &str = include_str!("cmd/control.in/env.json");

fn sheaf(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sheaf"));
    command.args(arguments).current_dir(folder).env("SHEAF_DIR", folder.join("grid")).env("HOME", folder);
    for variable in ["SHEAF_GRID", "XDG_CONFIG_HOME", "SHEAF_TOKEN", "SHEAF_TOKEN_FILE", "SHEAF_OUTPUT", "SHEAF_LOG"] {
        command.env_remove(variable);
    }
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A bag whose tasks take so many seconds here.
fn bag(folder: &Path, tasks: usize, seconds: f64, plan_s: f64) {
    let task = |number: usize| {
        let command = format!("sleep {seconds}; echo {number} >>ran; echo {number} by $PPID");
        let runtime = json!({"c3.large": plan_s, "c4.large": plan_s});
        (format!("t{number}"), json!({"memory": 5, "io": 0.0, "command": command, "runtime": runtime}))
    };
    let tasks: serde_json::Map<String, Value> = (0..tasks).map(task).collect();
    let job = json!({"job_id": 1, "job_name": "bag", "tasks": tasks});
    std::fs::write(folder.join("job.json"), job.to_string()).unwrap();
    std::fs::write(folder.join("env.json"), ENV).unwrap();
}

fn control(folder: &Path, arguments: &[&str]) -> Value {
    let bag = ["control", "--machines", "--job", "job.json", "--env", "env.json", "-o", "json"];
    let (code, stdout, stderr) = sheaf(folder, &[&bag[..], arguments].concat());
    assert_eq!(code, 0, "{stdout}{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

fn events(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("bag_0/events.ndjson")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The rows of a CSV by their first column, each by heading.
fn rows(path: &Path) -> BTreeMap<String, BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').map(ToOwned::to_owned).collect::<Vec<_>>());
    let heads = lines.next().unwrap();
    lines.map(|row| (row[0].clone(), heads.iter().cloned().zip(row).collect())).collect()
}

#[test]
fn a_bag_runs_on_machines_that_boot_and_end() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path();
    bag(folder, 6, 0.5, 30.0);
    let done = control(folder, &["--deadline", "40m", "--time-scale", "60"]);
    assert_eq!((&done["in_time"], &done["machines"]["reclaims"]), (&true.into(), &0.into()), "{done}");
    assert!(done["machines"]["cost"].as_f64().unwrap() > 0.0 && done["machines"]["watt_hours"].as_f64().unwrap() > 0.0);
    let tasks = rows(&folder.join("bag_0/tasks.csv"));
    assert_eq!(tasks.len(), 6);
    for (id, task) in &tasks {
        assert_eq!((task["outcome"].as_str(), task["attempts"].as_str()), ("succeeded", "1"), "{id}");
        // Nothing runs before the first machine has booted.
        assert!(task["waited_s"].parse::<f64>().unwrap() > 55.0, "{task:?}");
        let said = std::fs::read_to_string(folder.join("bag_0").join(id).join("data/stdout")).unwrap();
        assert!(said.starts_with(id.trim_start_matches('t')), "{said}");
    }
    let machines = rows(&folder.join("bag_0/workers.csv"));
    let ran: u32 = machines.values().map(|machine| machine["tasks"].parse::<u32>().unwrap()).sum();
    assert_eq!(ran, 6);
    let events = events(folder);
    let of = |what: &str| events.iter().filter(|event| event["event"] == what).count();
    assert_eq!((of("requested"), of("up"), of("ended")), (machines.len(), machines.len(), machines.len()));
    assert!(of("decided") > 0 && !events[0]["decision"]["reasons"].as_array().unwrap().is_empty(), "{events:?}");
    let workers: Value = serde_json::from_str(&sheaf(folder, &["worker", "list", "-o", "json"]).1).unwrap();
    assert_eq!(workers, json!([]), "nobody is left");
}

/// The spot machines of one type are taken away while they run tasks: these run again elsewhere, and are charged nothing.
fn reclaimed(notice: &str) {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path();
    bag(folder, 4, 16.0, 160.0);
    // Twelve seconds from now, of which the machines boot for one: ample for workers to join on a machine that is busy.
    std::fs::write(folder.join("trace.csv"), "type,down_s,up_s\nc3.large,120,\n").unwrap();
    let trace = ["--spot-trace", "trace.csv", "--notice", notice, "--time-scale", "10", "--boot", "10"];
    let done = control(folder, &[&["--deadline", "15m"][..], &trace].concat());
    assert!(done["in_time"] == true && done["machines"]["reclaims"].as_u64() > Some(0), "{done}");
    assert!(done["machines"]["wasted_s"].as_f64() > Some(0.0), "{done}");
    let events = events(folder);
    let of = |what: &str| events.iter().filter(|event| event["event"] == what).count();
    assert_eq!(of("noticed") > 0, notice != "none", "{events:?}");
    let gone: Vec<_> = events.iter().filter(|event| event["why"] == "reclaimed").collect();
    let given_back: usize = gone.iter().map(|event| event["given_back"].as_array().unwrap().len()).sum();
    // With a notice, the worker itself gives back; without, it is done in its name.
    assert_eq!(given_back > 0, notice == "none", "{gone:?}");
    let tasks = rows(&folder.join("bag_0/tasks.csv"));
    let again: Vec<_> = tasks.iter().filter(|(_, task)| task["reclaims"] != "0").collect();
    assert!(!again.is_empty() && tasks.values().all(|task| task["outcome"] == "succeeded"), "{tasks:?}");
    for (id, task) in again {
        assert!(!task["machine"].starts_with("c3.large spot"), "{task:?}");
        let data: Vec<_> = std::fs::read_dir(folder.join("bag_0").join(id)).unwrap().collect();
        assert_eq!(data.len(), 1, "what the first attempt left is gone");
        let said = std::fs::read_to_string(folder.join("bag_0").join(id).join("data/stdout")).unwrap();
        assert!(said.lines().count() == 1 && said.starts_with(id.trim_start_matches('t')), "{said}");
    }
    // Nothing of a machine outlives it: an attempt that was cut short has not come to its end behind everybody's back.
    assert_eq!(std::fs::read_to_string(folder.join("ran")).unwrap().lines().count(), 4);
    let listed: Value = serde_json::from_str(&sheaf(folder, &["task", "list", "last", "-o", "json"]).1).unwrap();
    let named = listed.as_array().unwrap().iter().filter_map(|task| {
        let id = task["task"].as_str()?;
        let told: Value = serde_json::from_str(&sheaf(folder, &["explain", id, "-o", "json"]).1).unwrap();
        assert_eq!((&told["crashes"], &told["strikes"]), (&0.into(), &0.into()), "{told}");
        told["past"].as_array()?.iter().any(|past| past["released"] == "reclaimed").then_some(id)
    });
    let named: Vec<_> = named.collect();
    assert!(!named.is_empty(), "{listed}");
    let (_, told, _) = sheaf(folder, &["explain", named[0]]);
    assert!(told.contains("its machine is being taken away"), "{told}");
}

#[test]
fn a_machine_that_is_killed_without_notice_costs_no_task() {
    reclaimed("none");
}

#[test]
fn a_machine_that_is_taken_away_after_a_notice_costs_no_task() {
    reclaimed("20");
}

/// What is not done by the deadline is given up, in the time of the plan.
#[test]
fn a_deadline_that_is_missed_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path();
    bag(folder, 2, 60.0, 60.0);
    let arguments = ["control", "--machines", "--job", "job.json", "--env", "env.json", "-o", "json"];
    let times = ["--deadline", "4m", "--time-scale", "60"];
    let (code, stdout, stderr) = sheaf(folder, &[&arguments[..], &times].concat());
    assert_eq!(code, 3, "{stdout}{stderr}");
    let done: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&done["in_time"], &done["deadline_s"]), (&false.into(), &240.0.into()), "{done}");
    let tasks = rows(&folder.join("bag_0/tasks.csv"));
    assert!(tasks.len() == 2 && tasks.values().all(|task| task["outcome"] == "expired"), "{tasks:?}");
}

/// Processes whose command line names a folder.
fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let lines = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let line = std::fs::read(entry.unwrap().path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(folder)).collect()
}

/// Whoever drives the machines is killed: they notice, and nothing of them is left.
#[test]
fn machines_end_when_nobody_drives_them_any_more() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path();
    bag(folder, 2, 300.0, 300.0);
    let mut command = Command::new(env!("CARGO_BIN_EXE_sheaf"));
    command
        .args([
            "control",
            "--machines",
            "--job",
            "job.json",
            "--env",
            "env.json",
            "--deadline",
            "1h",
            "--time-scale",
            "60",
        ])
        .current_dir(folder)
        .env("SHEAF_DIR", folder.join("grid"))
        .env("HOME", folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut control = command.spawn().unwrap();
    let started = Instant::now();
    let wait_for = |what: &str, look: &dyn Fn() -> bool| {
        while !look() {
            assert!(started.elapsed() < Duration::from_secs(120), "{what}: {:?}", processes_of(folder));
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let path = folder.join("bag_0/events.ndjson");
    wait_for("a machine is busy", &|| std::fs::read_to_string(&path).unwrap_or_default().contains("\"busy\""));
    assert!(processes_of(folder).iter().any(|line| line.contains("worker start")));
    control.kill().unwrap();
    control.wait().unwrap();
    wait_for("all of them end", &|| processes_of(folder).is_empty());
}

#[test]
fn what_makes_no_sense_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path();
    bag(folder, 1, 0.0, 1.0);
    let bag = ["control", "--job", "job.json", "--env", "env.json", "--deadline", "5m"];
    for (wrong, said) in [
        (&["--boot", "5"][..], "--machines"),
        (&["--machines", "--time-scale", "0"], "factor"),
        (&["--machines", "--notice", "soon"], "none"),
        (&["--machines", "--together"], "--scenario"),
        (&["--machines", "--spot-trace", "nowhere.csv"], "nowhere.csv"),
    ] {
        let (code, _, stderr) = sheaf(folder, &[&bag[..], wrong].concat());
        assert!(matches!(code, 1 | 2) && stderr.contains(said), "{wrong:?}: {code} {stderr}");
    }
    let (code, _, stderr) = sheaf(folder, &[&bag[..], &["--machines", "--grid", "memory"]].concat());
    assert!(code == 2 && stderr.contains("directory"), "{stderr}");
}
