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
    let command = |number| format!("sleep {seconds}; echo {number} >>ran; echo {number} by $PPID");
    bag_of(folder, tasks, plan_s, &["c3.large", "c4.large"], &command);
    std::fs::write(folder.join("env.json"), ENV).unwrap();
}

/// A bag of these commands, that take as long on each of these types.
fn bag_of(folder: &Path, tasks: usize, plan_s: f64, types: &[&str], command: &dyn Fn(usize) -> String) {
    let runtime: serde_json::Map<String, Value> = types.iter().map(|of| ((*of).to_owned(), json!(plan_s))).collect();
    let task = |number: usize| {
        let task = json!({"memory": 5, "io": 0.0, "command": command(number), "runtime": runtime});
        (format!("t{number}"), task)
    };
    let tasks: serde_json::Map<String, Value> = (0..tasks).map(task).collect();
    let job = json!({"job_id": 1, "job_name": "bag", "tasks": tasks});
    std::fs::write(folder.join("job.json"), job.to_string()).unwrap();
}

/// Machine types with one machine each, all of one market: name, processors, market, dollars an hour.
fn env_of(folder: &Path, types: &[(&str, u32, &str, f64)]) {
    let instance = |(name, cores, market, price): &(&str, u32, &str, f64)| {
        let of = |open: Value, closed: Value| {
            let each = ["on-demand", "preemptible"]
                .map(|of| (of.to_owned(), if of == *market { open.clone() } else { closed.clone() }));
            Value::Object(each.into_iter().collect())
        };
        let restrictions = json!({"limits": of(1.into(), 0.into()), "markets": of("yes".into(), "no".into()),
            "burstable": {"burstable": "no", "cpu_credit_rate": 0, "baseline": 0}});
        let instance = json!({"provider": "ec2", "vcpu": cores, "memory": 4.0, "gflops": 20.0,
            "prices": of((*price).into(), 0.0.into()), "restrictions": restrictions});
        ((*name).to_owned(), instance)
    };
    let instances: serde_json::Map<String, Value> = types.iter().map(instance).collect();
    let env = json!({"global_limits": {"ec2": {"on-demand": 4, "preemptible": 4}}, "instances": instances});
    std::fs::write(folder.join("env.json"), env.to_string()).unwrap();
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

/// Dollars, reckoned from what happened and what env.json says, without what the command says of either.
fn cost_of(folder: &Path, events: &[Value]) -> f64 {
    let env: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("env.json")).unwrap()).unwrap();
    let mut frozen_at_s: BTreeMap<u64, f64> = BTreeMap::new();
    let mut prices: BTreeMap<u64, f64> = BTreeMap::new();
    let mut cost = 0.0;
    for event in events {
        let (Some(machine), at_s) = (event["machine"].as_u64(), event["at_s"].as_f64().unwrap()) else { continue };
        let seconds = match event["event"].as_str().unwrap() {
            "requested" => {
                let market = if event["market"] == "spot" { "preemptible" } else { "on-demand" };
                let price = &env["instances"][event["type"].as_str().unwrap()]["prices"][market];
                prices.insert(machine, price.as_f64().unwrap());
                -at_s
            }
            "ended" => at_s - frozen_at_s.get(&machine).map_or(0.0, |since_s| at_s - since_s),
            "hibernated" => {
                frozen_at_s.insert(machine, at_s);
                0.0
            }
            "resumed" => frozen_at_s.remove(&machine).unwrap() - at_s,
            _ => 0.0,
        };
        cost += seconds / 3600.0 * prices[&machine];
    }
    cost
}

/// Every task of the last job: what `explain` says of it.
fn explained(folder: &Path) -> Vec<Value> {
    let listed: Value = serde_json::from_str(&sheaf(folder, &["task", "list", "last", "-o", "json"]).1).unwrap();
    let ids = listed.as_array().unwrap().iter().map(|task| task["task"].as_str().unwrap().to_owned());
    ids.map(|id| serde_json::from_str(&sheaf(folder, &["explain", &id, "-o", "json"]).1).unwrap()).collect()
}

/// A machine freezes with what it runs and wakes again. What it held runs elsewhere and is charged nothing; it finds out that it
/// is fenced off, stops, and takes other tasks.
#[test]
fn a_machine_hibernates_wakes_and_goes_on_taking_tasks() {
    const TASKS: usize = 12;
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path();
    // Eight seconds in steps that are written down, each attempt's for itself: a frozen one has most of them before it yet.
    let command = |number: usize| {
        format!(
            "n=0; while [ $n -lt 80 ]; do sleep 0.1; n=$((n+1)); echo $n >>ticks.t{number}.$SHEAF_EPOCH; done; \
             echo {number} >>ran; echo {number}"
        )
    };
    bag_of(folder, TASKS, 80.0, &["c3.large", "c4.large"], &command);
    env_of(folder, &[("c3.large", 2, "preemptible", 0.03), ("c4.large", 2, "preemptible", 0.04)]);
    // Twelve seconds from now, for six.
    std::fs::write(folder.join("trace.csv"), "type,down_s,up_s\nc3.large,120,180\n").unwrap();
    let trace = ["--spot-trace", "trace.csv", "--fault", "hibernate", "--time-scale", "10", "--boot", "10"];
    let fixed = ["--policy", "fixed", "--workers-max", "2", "--deadline", "1h"];
    let done = control(folder, &[&fixed[..], &trace].concat());
    let machines = &done["machines"];
    assert_eq!((&machines["hibernations"], &machines["reclaims"]), (&1.into(), &0.into()), "{done}");
    let events = events(folder);
    let the =
        |what: &str| events.iter().find(|event| event["event"] == what).unwrap_or_else(|| panic!("{what}: {events:?}"));
    let (frozen, resumed) = (the("hibernated"), the("resumed"));
    let given_back = frozen["given_back"].as_array().unwrap().len();
    assert!(given_back > 0 && !events.iter().any(|event| event["event"] == "noticed"), "{frozen}");

    let rows_of_machines = rows(&folder.join("bag_0/workers.csv"));
    let machine = rows_of_machines.values().find(|machine| machine["type"] == "c3.large").unwrap();
    let frozen_s = machine["frozen_s"].parse::<f64>().unwrap();
    assert!(machine["hibernations"] == "1" && (55.0..200.0).contains(&frozen_s), "{machine:?}");
    let reckoned = cost_of(folder, &events);
    assert!((machines["cost"].as_f64().unwrap() / reckoned - 1.0).abs() < 0.03, "{reckoned}: {machines}");

    // One outcome and one result each, whatever the frozen attempts did when they woke.
    let tasks = rows(&folder.join("bag_0/tasks.csv"));
    assert!(tasks.len() == TASKS && tasks.values().all(|task| task["outcome"] == "succeeded"), "{tasks:?}");
    let (_, results, _) = sheaf(folder, &["results", "last", "-o", "ndjson"]);
    assert_eq!(results.lines().count(), TASKS, "{results}");
    for id in tasks.keys() {
        let data = folder.join("bag_0").join(id).join("data");
        let said = std::fs::read_to_string(data.join("stdout")).unwrap();
        assert_eq!(
            (said.trim(), tasks[id]["attempts"].as_str()),
            (id.trim_start_matches('t'), &*format!("{}", 1 + tasks[id]["reclaims"].parse::<u32>().unwrap()))
        );
        assert_eq!(std::fs::read_to_string(data.join("attempt")).unwrap().trim(), tasks[id]["attempts"], "{id}");
    }
    let again: Vec<_> = tasks.iter().filter(|(_, task)| task["reclaims"] != "0").map(|(id, _)| id).collect();
    assert_eq!(again.len(), given_back, "{tasks:?}");
    let ran = std::fs::read_to_string(folder.join("ran")).unwrap().lines().count();
    assert!((TASKS..=TASKS + given_back).contains(&ran), "{ran}");
    // The frozen attempts were stopped as soon as their worker found that it is fenced off.
    let resumed_at = std::time::UNIX_EPOCH + Duration::from_millis(resumed["at_ms"].as_u64().unwrap());
    for id in again {
        let last = std::fs::metadata(folder.join(format!("ticks.{id}.1"))).unwrap().modified().unwrap();
        assert!(last < resumed_at + Duration::from_secs(5), "{id}: {last:?} {resumed_at:?}");
    }
    // And it goes on taking tasks.
    let after = |task: &&BTreeMap<String, String>| {
        task["machine"].starts_with("c3.large")
            && task["started_s"].parse::<f64>().unwrap() > resumed["at_s"].as_f64().unwrap() - 1.0
    };
    assert!(tasks.values().any(|task| after(&task)), "{tasks:?} {resumed}");
    for told in explained(folder) {
        assert_eq!((&told["crashes"], &told["strikes"]), (&0.into(), &0.into()), "{told}");
    }
    assert_eq!(processes_of(folder), [] as [String; 0], "nobody is left");
}

/// Three machines: one is taken away after a notice, one without, and what ran on them goes on from its checkpoints on the
/// third.
#[test]
fn of_three_machines_two_are_taken_away_and_their_tasks_go_on_from_checkpoints() {
    const STEPS: u32 = 200;
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path();
    let command = |number: usize| {
        format!(
            r#"at=$SHEAF_CHECKPOINT; n=0; [ -s "$at" ] && n=$(cat "$at"); echo $n >>starts.t{number}
            while [ $n -lt {STEPS} ]; do sleep 0.1; n=$((n+1)); echo $n >"$at.new"; mv "$at.new" "$at"; done
            echo {number} >>ran; echo {number}"#
        )
    };
    let types = ["told", "killed", "stays"];
    bag_of(folder, 5, 200.0, &types, &command);
    let spot = |name| (name, 1, "preemptible", 0.03);
    env_of(folder, &[spot(types[0]), spot(types[1]), (types[2], 3, "on-demand", 0.2)]);
    std::fs::write(folder.join("trace.csv"), "type,down_s,up_s\ntold,120,\nkilled,130,\n").unwrap();
    let trace = ["--spot-trace", "trace.csv", "--notice", "20", "--notice", "killed=none", "--time-scale", "10"];
    let fixed = ["--policy", "fixed", "--workers-max", "3", "--deadline", "1h", "--boot", "10", "--checkpoint=10"];
    let done = control(folder, &[&fixed[..], &trace].concat());
    let machines = &done["machines"];
    assert_eq!([&machines["spot"], &machines["on_demand"], &machines["reclaims"]], [2, 1, 2], "{done}");
    let events = events(folder);
    let of = |what: &str| events.iter().filter(|event| event["event"] == what).count();
    assert_eq!((of("requested"), of("noticed")), (3, 1), "{events:?}");
    let tasks = rows(&folder.join("bag_0/tasks.csv"));
    assert!(tasks.len() == 5 && tasks.values().all(|task| task["outcome"] == "succeeded"), "{tasks:?}");
    assert!(tasks.values().all(|task| task["machine"].starts_with("stays on-demand")), "{tasks:?}");
    let reclaims = tasks.values().filter(|task| task["reclaims"] == "1" && task["attempts"] == "2").count();
    assert_eq!(reclaims, 2, "{tasks:?}");
    for (id, task) in &tasks {
        let starts = std::fs::read_to_string(folder.join(format!("starts.{id}"))).unwrap();
        let starts: Vec<u32> = starts.lines().map(|line| line.parse().unwrap()).collect();
        assert!(starts[0] == 0 && starts.len().to_string() == task["attempts"], "{id}: {starts:?}");
        assert!(starts[1..].iter().all(|from| (5..STEPS).contains(from)), "from its checkpoint: {id}: {starts:?}");
    }
    assert_eq!(std::fs::read_to_string(folder.join("ran")).unwrap().lines().count(), 5, "all tasks once");
    let reckoned = cost_of(folder, &events);
    assert!((machines["cost"].as_f64().unwrap() / reckoned - 1.0).abs() < 0.03, "{reckoned}: {machines}");
    for told in explained(folder) {
        assert_eq!((&told["crashes"], &told["strikes"]), (&0.into(), &0.into()), "{told}");
    }
    reported(folder, reckoned);
}

/// The report tells the same of the machines, from their events alone.
fn reported(folder: &Path, reckoned: f64) {
    let report =
        ["job", "report", "last", "--machines", "bag_0", "--csv", "csv", "--file", "report.html", "-o", "json"];
    let (code, stdout, stderr) = sheaf(folder, &report);
    assert_eq!(code, 0, "{stderr}");
    let told: Value = serde_json::from_str(&stdout).unwrap();
    let (all, markets) = (&told["machines"]["all"], told["machines"]["markets"].as_array().unwrap());
    assert_eq!([&all["requested"], &all["reclaims"]], [3, 2], "{told}");
    assert!((all["cost"].as_f64().unwrap() / reckoned - 1.0).abs() < 0.001, "{reckoned}: {all}");
    let costs: f64 = markets.iter().map(|market| market["cost"].as_f64().unwrap()).sum();
    assert!(markets.len() == 2 && (costs / reckoned - 1.0).abs() < 0.001, "{markets:?}");
    let scale = told["machines"]["time_scale"].as_f64().unwrap();
    assert!((scale / 10.0 - 1.0).abs() < 0.02, "{scale}");
    assert!(told["workers"].as_array().unwrap().iter().all(|worker| worker["slots"].is_number()), "{told}");
    let machines = rows(&folder.join("csv/machines.csv"));
    let why: Vec<_> = machines.values().map(|machine| (machine["type"].as_str(), machine["why"].as_str())).collect();
    assert_eq!(why.iter().filter(|(_, why)| *why == "reclaimed").count(), 2, "{why:?}");
    let workers = rows(&folder.join("csv/workers.csv"));
    assert!(machines.values().all(|machine| workers.contains_key(&machine["worker"])), "they are joined by the worker");
    let page = std::fs::read_to_string(folder.join("report.html")).unwrap();
    for said in ["Machines", "What the policy decided", "stays on-demand", "taken away", "3 machines are set"] {
        assert!(page.contains(said), "{said}");
    }
    let text = std::fs::read_to_string(folder.join("bag_0/events.ndjson")).unwrap();
    std::fs::write(folder.join("bag_0/events.ndjson"), format!("{text}nonsense\n{text}")).unwrap();
    let (code, _, stderr) = sheaf(folder, &report);
    let line = format!("line {}", text.lines().count() + 1);
    assert!(code == 2 && stderr.contains("events.ndjson") && stderr.contains(&line), "{code} {stderr}");
}

/// A task that hangs on a spot machine is run once more, on a machine that stays, when the deadline leaves no time to wait for it:
/// the copy gives the outcome, and nobody is charged.
#[test]
fn what_hangs_on_spot_is_outrun_by_a_second_copy() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path();
    let hangs = r#"[ "$SHEAF_EPOCH" -eq 0 ] || sleep 300; sleep 1; echo copy $SHEAF_EPOCH"#;
    bag_of(folder, 1, 100.0, &["gone", "stays"], &|_| hangs.to_owned());
    env_of(folder, &[("gone", 1, "preemptible", 0.03), ("stays", 1, "on-demand", 0.1)]);
    // 40 s here, of which the guard waits for 24.
    let done = control(folder, &["--deadline", "320", "--time-scale", "8", "--boot", "10"]);
    assert_eq!((&done["in_time"], &done["machines"]["reclaims"]), (&true.into(), &0.into()), "{done}");
    let events = events(folder);
    let hedged: Vec<_> = events.iter().filter(|event| event["event"] == "hedged").collect();
    assert!(hedged.len() == 1 && hedged[0]["tasks"] == json!([0]), "{events:?}");
    let [copied] = copied(&events);
    assert_eq!((&copied["task"], &copied["counts"]), (&0.into(), &true.into()), "{copied}");
    let busy = |event: &Value| event["event"] == "busy" && event["machine"] == copied["machine"];
    assert!(events.iter().any(busy), "a machine that runs a copy is busy: {events:?}");
    let tasks = rows(&folder.join("bag_0/tasks.csv"));
    assert!(
        tasks["t0"]["outcome"] == "succeeded" && tasks["t0"]["machine"].starts_with("stays on-demand"),
        "{tasks:?}"
    );
    let (wasted_s, held_s) = (done["machines"]["wasted_s"].as_f64().unwrap(), tasks["t0"]["wasted_s"].parse::<f64>());
    assert!((wasted_s - held_s.unwrap()).abs() < 0.01, "the first attempt is lost, and the copy is not: {done}");
    let data: Vec<_> = std::fs::read_dir(folder.join("bag_0/t0")).unwrap().collect();
    assert_eq!(data.len(), 1, "what the slower attempt left is gone");
    assert_eq!(std::fs::read_to_string(folder.join("bag_0/t0/data/stdout")).unwrap(), "copy 0\n");
    for told in explained(folder) {
        assert_eq!((&told["crashes"], &told["strikes"]), (&0.into(), &0.into()), "{told}");
        assert_eq!(told["past"][0]["released"], "outrun", "{told}");
    }
}

/// A second copy that the first attempt has beaten is lost time, on a machine that was busy with it.
#[test]
fn a_second_copy_that_was_not_needed_is_lost_time() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path();
    let slow = r#"if [ "$SHEAF_EPOCH" -eq 0 ]; then sleep 300; else sleep 30; fi"#;
    bag_of(folder, 1, 100.0, &["gone", "stays"], &|_| slow.to_owned());
    env_of(folder, &[("gone", 1, "preemptible", 0.03), ("stays", 1, "on-demand", 0.1)]);
    let done = control(folder, &["--deadline", "320", "--time-scale", "8", "--boot", "10"]);
    assert_eq!(&done["in_time"], &true, "{done}");
    let [copied] = copied(&events(folder));
    assert_eq!((&copied["task"], &copied["counts"]), (&0.into(), &false.into()), "{copied}");
    let (ran_s, machines) = (copied["ran_s"].as_f64().unwrap(), rows(&folder.join("bag_0/workers.csv")));
    assert!(ran_s > 1.0, "{copied}");
    let figure = |column: &str| {
        let stays = machines.values().find(|machine| machine["market"] == "on-demand").unwrap();
        stays[column].parse::<f64>().unwrap()
    };
    assert!((figure("copies_lost_s") - ran_s).abs() < 0.01, "{machines:?}");
    assert!((figure("busy_slot_s") - ran_s).abs() < 2.0, "{machines:?}");
    assert!((done["machines"]["wasted_s"].as_f64().unwrap() - ran_s).abs() < 0.01, "nothing else is: {done}");
    let tasks = rows(&folder.join("bag_0/tasks.csv"));
    assert!(tasks["t0"]["machine"].starts_with("gone spot"), "{tasks:?}");
}

/// The only second copy that ended.
fn copied(events: &[Value]) -> [Value; 1] {
    let copied: Vec<_> = events.iter().filter(|event| event["event"] == "copied").cloned().collect();
    copied.try_into().unwrap_or_else(|copied: Vec<_>| panic!("{} second copies have ended: {events:?}", copied.len()))
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

/// When the budget is spent, nothing more starts: what runs comes to its end, the rest is cancelled, and that is said.
#[test]
fn a_budget_that_is_spent_ends_the_job() {
    const TASKS: usize = 40;
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path();
    bag(folder, TASKS, 1.0, 10.0);
    // A machine boots for a second here, and then runs a task a second: a cent for each ten seconds of the plan.
    env_of(folder, &[("c3.large", 1, "preemptible", 3.6)]);
    let arguments = ["control", "--machines", "--job", "job.json", "--env", "env.json", "-o", "json"];
    let told = ["--deadline", "1h", "--time-scale", "10", "--boot", "10", "--budget", "0.08"];
    let (code, stdout, stderr) = sheaf(folder, &[&arguments[..], &told].concat());
    assert_eq!(code, 4, "{stdout}{stderr}");
    let done: Value = serde_json::from_str(&stdout).unwrap();
    let tasks = rows(&folder.join("bag_0/tasks.csv"));
    let of = |outcome: &str| tasks.values().filter(|task| task["outcome"] == outcome).count();
    let left = of("cancelled");
    assert!(left > 0 && of("succeeded") + left == TASKS, "{tasks:?}");
    assert!(stderr.contains("the budget of $0.08000 is spent ($0."), "{stderr}");
    assert!(stderr.contains(&format!("with {left} tasks left, which are cancelled")), "{stderr}");
    let machines = &done["machines"];
    assert_eq!(
        (&done["in_time"], &done["cancelled"], &machines["budget"]),
        (&false.into(), &left.into(), &0.08.into())
    );
    // A period of 15 s, and two minutes for what runs.
    let cost = machines["cost"].as_f64().unwrap();
    assert!((0.08..0.08 + 0.135).contains(&cost), "{machines}");
    let events = events(folder);
    assert!((cost / cost_of(folder, &events) - 1.0).abs() < 0.03, "{machines}");
    let last = events.last().unwrap();
    assert_eq!((&last["event"], &last["tasks_left"]), (&"spent".into(), &left.into()), "{last}");
    let report = ["job", "report", "last", "--machines", "bag_0", "--file", "report.html"];
    let (code, _, stderr) = sheaf(folder, &report);
    assert_eq!(code, 0, "{stderr}");
    let page = std::fs::read_to_string(folder.join("report.html")).unwrap();
    assert!(page.contains(&format!("spent with {left} tasks left")), "{page}");
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
    orphaned("busy", &[]);
}

/// What is frozen is woken by that.
#[test]
fn frozen_machines_end_when_nobody_drives_them_any_more() {
    orphaned("hibernated", &["--spot-trace", "trace.csv", "--fault", "hibernate"]);
}

fn orphaned(when: &str, arguments: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path();
    bag(folder, 2, 300.0, 300.0);
    std::fs::write(folder.join("trace.csv"), "c3.large,600,100000\nc4.large,600,100000\n").unwrap();
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
        .args(arguments)
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
    let when = format!("\"event\":\"{when}\"");
    wait_for(&when, &|| std::fs::read_to_string(&path).unwrap_or_default().contains(&when));
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
    std::fs::write(folder.join("for-ever.csv"), "c3.large,10,\n").unwrap();
    let bag = ["control", "--job", "job.json", "--env", "env.json", "--deadline", "5m"];
    for (wrong, said) in [
        (&["--boot", "5"][..], "--machines"),
        (&["--budget", "5"], "--machines"),
        (&["--machines", "--budget", "0"], "not an amount above 0"),
        (&["--machines", "--budget", "5", "--policy", "hads-cc"], "for the policy sheaf"),
        (&["--machines", "--time-scale", "0"], "factor"),
        (&["--machines", "--notice", "soon"], "none"),
        (&["--machines", "--together"], "--scenario"),
        (&["--machines", "--fault", "hibernate"], "--scenario"),
        (&["--machines", "--fault", "hibernate", "--spot-trace", "for-ever.csv"], "for-ever.csv"),
        (&["--machines", "--fault", "hibernate", "--scenario", "1,1", "--notice", "5"], "begins at the moment"),
        (&["--machines", "--notice", "c5.large=5"], "c5.large"),
        (&["--machines", "--spot-trace", "nowhere.csv"], "nowhere.csv"),
    ] {
        let (code, _, stderr) = sheaf(folder, &[&bag[..], wrong].concat());
        assert!(matches!(code, 1 | 2) && stderr.contains(said), "{wrong:?}: {code} {stderr}");
    }
    let (code, _, stderr) = sheaf(folder, &[&bag[..], &["--machines", "--grid", "memory"]].concat());
    assert!(code == 2 && stderr.contains("directory"), "{stderr}");
}
