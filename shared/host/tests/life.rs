//! The life of children: warm, in the way, given up, left behind.

mod support;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use sheaf_core::{FailureKind, Manifest};
use sheaf_host::{Host, HostError, HostOptions};
use support::{Bench, answers, call, command, eventually, has_python, is_alive, left_in, pids};

async fn pid_of(bench: &Bench, manifest: &Manifest) -> i32 {
    let mut report = bench.host.call(call(manifest.clone(), &[r#"{"do":"pid"}"#])).await;
    answers(&mut report)[&0].parse().expect("a process id")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_call_ends_its_process_and_what_that_started() {
    if !has_python() {
        return;
    }
    let bench = Bench::new();
    let file = bench.dir.path().join("pids");
    let payload = format!(r#"{{"do":"orphan","file":{:?}}}"#, file.display().to_string());
    let running = tokio::spawn({
        let (host, call) = (bench.host.clone(), call(bench.manifest("main"), &[&payload]));
        async move { host.call(call).await }
    });
    let both = pids(&file).await;
    assert!(both.iter().all(|&pid| is_alive(pid)));
    running.abort();
    eventually("the end of both processes", || !both.iter().any(|&pid| is_alive(pid))).await;
    eventually("an empty directory", || left_in(bench.dir.path()).is_empty()).await;
    assert_eq!(bench.host.idle_children(), 0);
    let mut after = bench.run(&["{}"]).await;
    assert_eq!(answers(&mut after).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_command_ends_its_process_and_what_that_started() {
    let bench = Bench::new();
    let file = bench.dir.path().join("pids");
    let script = format!("sleep 300 & echo $$ $! > {}; wait", file.display());
    let running = tokio::spawn({
        let (host, call) = (bench.host.clone(), call(command(&["sh", "-c", &script]), &[""]));
        async move { host.call(call).await }
    });
    let both = pids(&file).await;
    running.abort();
    eventually("the end of both processes", || !both.iter().any(|&pid| is_alive(pid))).await;
    eventually("an empty directory", || left_in(bench.dir.path()).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_does_not_come_back_is_replaced() {
    if !has_python() {
        return;
    }
    let bench = Bench::new();
    let mut report = bench.run(&[r#"{"do":"never-back"}"#, "{}"]).await;
    let expected = BTreeMap::from([(0, "\"bye\"".into()), (1, "{}".into())]);
    assert_eq!(answers(&mut report), expected, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_children_go_when_others_need_the_slot_or_their_time_is_up() {
    if !has_python() {
        return;
    }
    let bench = Bench::with(|with| support::HostOptionsWith { slots: 2, idle: Duration::from_millis(500), ..with });
    let (a, b, c) = (bench.manifest("a"), bench.manifest("b"), bench.manifest("c"));
    let first = pid_of(&bench, &a).await;
    let second = pid_of(&bench, &b).await;
    assert_eq!(pid_of(&bench, &a).await, first);
    pid_of(&bench, &c).await;
    eventually("the end of the one longest idle", || !is_alive(second)).await;
    assert!(is_alive(first));
    eventually("the end of all that are idle", || bench.host.idle_children() == 0 && !is_alive(first)).await;
    eventually("an empty directory", || left_in(bench.dir.path()).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_beyond_the_slots_wait() {
    let bench = Bench::new();
    let began = Instant::now();
    let calls = (0..4).map(|_| bench.host.call(call(command(&["sleep", "0.3"]), &[""])));
    let reports = futures::future::join_all(calls).await;
    assert!(reports.iter().all(|report| report.answers.tasks() == 1));
    assert!(began.elapsed() >= Duration::from_millis(600), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_keeps_what_is_answered_and_ends_the_rest() {
    if !has_python() {
        return;
    }
    let bench = Bench::new();
    let pid = pid_of(&bench, &bench.manifest("other")).await;
    let running = tokio::spawn({
        let (host, call) = (bench.host.clone(), call(bench.manifest("main"), &["{}", r#"{"do":"sleep","s":60}"#]));
        async move { host.call(call).await }
    });
    tokio::time::sleep(Duration::from_millis(700)).await;
    let began = Instant::now();
    bench.host.shutdown().await;
    assert!(began.elapsed() < Duration::from_secs(5));
    let mut report = running.await.expect("no panic");
    assert_eq!(answers(&mut report), BTreeMap::from([(0, "{}".to_owned())]));
    assert!(report.failures.is_empty() && report.unanswered.is_none(), "{report:?}");
    assert!(!is_alive(pid));
    assert!(left_in(bench.dir.path()).is_empty());
    let mut late = bench.run(&["{}"]).await;
    assert!(answers(&mut late).is_empty() && late.failures.is_empty() && late.unanswered.is_none());
}

/// Starts a process that leads its own group, with a child in it, and gives both ids.
fn group(dir: &std::path::Path, leader_stays: bool) -> Vec<i32> {
    let file = dir.join("group");
    let wait = if leader_stays { "wait" } else { "exit" };
    let script = format!("sleep 300 & echo $$ $! > {}; {wait}", file.display());
    let mut sh = Command::new("sh");
    sh.args(["-c", &script]).env("TMPDIR", dir.join("run/5")).process_group(0);
    let mut process = sh.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("sh");
    // Reaped when it is killed.
    std::thread::spawn(move || process.wait());
    loop {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let pids: Vec<i32> = text.split_ascii_whitespace().map(|pid| pid.parse().expect("a number")).collect();
        if pids.len() == 2 {
            return pids;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn started_ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("alive");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_ascii_whitespace().collect();
    fields[19].parse().expect("a number")
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("linux").trim().to_owned()
}

/// Leaves a directory as a killed host would, with a record of these processes; opens a host on it.
fn open_after(dir: &std::path::Path, record: &str) -> Host {
    let run = dir.join("run");
    fs::create_dir_all(run.join("5/deep")).expect("a directory");
    fs::create_dir_all(dir.join("packages/temp-1")).expect("a directory");
    fs::write(run.join("5.pid"), record).expect("a file");
    let host = Host::open(HostOptions::builder().scratch(dir).build()).expect("a host");
    assert!(!dir.join("run/5").exists() && !dir.join("run/5.pid").exists());
    assert!(!dir.join("packages/temp-1").exists());
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_host_left_is_ended() {
    for leader_stays in [true, false] {
        let dir = tempfile::tempdir().expect("a directory");
        let both = group(dir.path(), leader_stays);
        let ticks = if leader_stays { started_ticks(both[0]) } else { 1 };
        if !leader_stays {
            eventually("the end of the leader", || !fs::exists(format!("/proc/{}", both[0])).expect("linux")).await;
        }
        let _host = open_after(dir.path(), &format!("{} {} {ticks}", boot(), both[0]));
        eventually("the end of both", || !both.iter().any(|&pid| is_alive(pid))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_only_has_the_same_id_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let both = group(dir.path(), true);
    let ticks = started_ticks(both[0]);
    for record in [
        format!("{} {} {}", boot(), both[0], ticks + 1),
        format!("another-boot {} {ticks}", both[0]),
        format!("{} 0 {ticks}", boot()),
        "rubbish".to_owned(),
        String::new(),
    ] {
        drop(open_after(dir.path(), &record));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(both.iter().all(|&pid| is_alive(pid)), "{record}");
    }
    let _host = open_after(dir.path(), &format!("{} {} {ticks}", boot(), both[0]));
    eventually("the end of both", || !both.iter().any(|&pid| is_alive(pid))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_has_one_host_at_a_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = || HostOptions::builder().scratch(dir.path()).build();
    let host = Host::open(options()).expect("the first");
    assert!(matches!(Host::open(options()), Err(HostError::InUse { .. })));
    host.shutdown().await;
    drop(host);
    eventually("the next host", || Host::open(options()).is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_outlive_their_host() {
    if !has_python() {
        return;
    }
    let bench = Bench::new();
    bench.run(&["{}"]).await;
    bench.host.shutdown().await;
    let Bench { dir, host, digest, zips } = bench;
    drop(host);
    drop(zips);
    // No source of packages this time.
    let mut host = Err(HostError::InUse { path: dir.path().into() });
    eventually("a host", || {
        host = Host::open(HostOptions::builder().scratch(dir.path()).build());
        host.is_ok()
    })
    .await;
    let again = Bench { host: host.expect("just opened"), dir, digest, zips: Default::default() };
    let mut report = again.run(&["{}"]).await;
    assert_eq!(answers(&mut report).len(), 1, "{report:?}");
    assert!(report.unanswered.is_none_or(|failure| failure.kind != FailureKind::NotStarted));
}
