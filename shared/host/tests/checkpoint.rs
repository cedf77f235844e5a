//! Checkpoints of real processes: found, left, asked for, and kept from whoever declares none.

mod support;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use sheaf_api::checkpoint::Checkpoint;
use sheaf_core::{Digest, Manifest, limits};
use sheaf_host::{Call, Handler, Handlers, Report};
use support::{Bench, answers, call, command, eventually, failure, handler, has_python, zip};

/// Looked at once an hour: whatever is taken was asked for, or left at the end.
const EVERY_MS: u64 = 3_600_000;

fn saving(manifest: Manifest, checkpoint: &Arc<Checkpoint>) -> Call {
    let manifest = Manifest { checkpoint_every_ms: Some(EVERY_MS), ..manifest };
    Call { checkpoint: Some(Arc::clone(checkpoint)), ..call(manifest, &["{}"]) }
}

fn sh(script: &str) -> Manifest {
    command(&["sh", "-c", script, "sh", "{checkpoint}"])
}

fn taken(checkpoint: &Checkpoint) -> Option<Bytes> {
    checkpoint.take().map(|written| written.bytes)
}

fn restored(bytes: &'static [u8]) -> Arc<Checkpoint> {
    Arc::new(Checkpoint::new(Some(Bytes::from_static(bytes))))
}

/// Runs a call that does not end by itself, and asks for its checkpoint once `ready` appears in the host's directory.
async fn asked(bench: &Bench, call: Call, checkpoint: &Checkpoint, ready: &str) -> Report {
    let running = tokio::spawn({
        let host = bench.host.clone();
        async move { host.call(call).await }
    });
    let is_ready = || {
        let runs = std::fs::read_dir(bench.dir.path().join("run")).into_iter().flatten().flatten();
        runs.into_iter().any(|run| run.path().join(ready).exists())
    };
    eventually("the function is ready", is_ready).await;
    checkpoint.ask();
    tokio::time::timeout(Duration::from_secs(60), running).await.expect("it ends").expect("no panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_goes_on_from_what_it_finds() {
    let bench = Bench::new();
    let checkpoint = restored(b"seven");
    let script = r#"[ "$1" = "$SHEAF_CHECKPOINT" ] && cat "$1" && cat"#;
    let mut report = bench.host.call(saving(sh(script), &checkpoint)).await;
    assert_eq!(answers(&mut report)[&0], "seven{}", "the payload still comes on stdin");
    assert_eq!(taken(&checkpoint), None, "what was not touched is not new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_fails_leaves_its_last() {
    let bench = Bench::new();
    let checkpoint = Arc::new(Checkpoint::default());
    let report = bench.host.call(saving(sh(r#"[ -e "$1" ] || echo 5 > "$1"; exit 3"#), &checkpoint)).await;
    assert_eq!(failure(&report, 0).error_type, "ExitCode");
    assert_eq!(taken(&checkpoint).as_deref(), Some(&b"5\n"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_asked_leaves_its_last_and_is_ended() {
    let bench = Bench::new();
    let checkpoint = Arc::new(Checkpoint::default());
    let script = r#"trap 'echo last > "$1.new"; mv "$1.new" "$1"' USR1; touch ready; while :; do sleep 0.02; done"#;
    let report = asked(&bench, saving(sh(script), &checkpoint), &checkpoint, "ready").await;
    assert!(report.failures.is_empty() && report.answers.is_empty() && report.unanswered.is_none(), "{report:?}");
    assert_eq!(taken(&checkpoint).as_deref(), Some(&b"last\n"[..]));
    support::eventually("nothing left", || support::left_in(bench.dir.path()).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_asked_before_the_start_is_not_started() {
    let bench = Bench::new();
    let checkpoint = Arc::new(Checkpoint::default());
    checkpoint.ask();
    let report = bench.host.call(saving(sh("echo started"), &checkpoint)).await;
    assert!(report.failures.is_empty() && report.answers.is_empty() && report.unanswered.is_none(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_beyond_its_limit_is_told_in_the_log() {
    let bench = Bench::new();
    let checkpoint = Arc::new(Checkpoint::default());
    let bytes = limits::CHECKPOINT_BYTES_MAX + 1;
    let report = bench.host.call(saving(sh(&format!(r#"truncate -s {bytes} "$1"; exit 1"#)), &checkpoint)).await;
    assert!(failure(&report, 0).stderr.contains("is not kept: it may have 67108864"), "{report:?}");
    assert_eq!(taken(&checkpoint), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn others_know_nothing_of_checkpoints() {
    let bench = Bench::new();
    let mut report =
        bench.host.call(call(command(&["sh", "-c", "printenv SHEAF_CHECKPOINT || echo none"]), &[""])).await;
    assert_eq!(answers(&mut report)[&0], "none");
}

const BOOTSTRAP: &str = r#"#!/usr/bin/env python3
import json, os, signal, time, urllib.request

api = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"] + "/2018-06-01/runtime/invocation/"
path = os.environ["SHEAF_CHECKPOINT"]

def save(*_):
    with open(path + ".new", "w") as file:
        file.write("last")
    os.rename(path + ".new", path)

signal.signal(signal.SIGUSR1, save)
while True:
    with urllib.request.urlopen(api + "next") as next:
        task = next.headers["Lambda-Runtime-Aws-Request-Id"]
        context = json.loads(next.headers["Lambda-Runtime-Client-Context"])["custom"]
    found = open(path).read() if os.path.exists(path) else None
    if found == "wait":
        open(os.path.join(os.environ["HOME"], "ready"), "w").close()
        while True:
            time.sleep(0.02)
    answer = json.dumps({"found": found, "same": context.get("checkpoint") == path}).encode()
    save()
    urllib.request.urlopen(api + task + "/response", data=answer).close()
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_package_is_told_in_its_context_and_a_warm_child_keeps_nothing() {
    if !has_python() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let zip = zip(&[("bootstrap", BOOTSTRAP, 0o755)]);
    let digest = Digest::of(&zip);
    let zips = support::Zips { by_digest: [(digest, zip)].into(), ..Default::default() };
    let options = sheaf_host::HostOptions::builder().scratch(dir.path()).packages(Arc::new(zips));
    let bench = Bench { host: sheaf_host::Host::open(options.build()).expect("a host"), dir, digest, ..Bench::new() };
    for (checkpoint, found) in [(restored(b"seven"), r#""seven""#), (Arc::default(), "null")] {
        let mut report = bench.host.call(saving(bench.manifest("main"), &checkpoint)).await;
        assert_eq!(answers(&mut report)[&0], format!(r#"{{"found": {found}, "same": true}}"#));
    }
    assert_eq!(bench.host.idle_children(), 1, "both ran in one child");
    let checkpoint = restored(b"wait");
    let report = asked(&bench, saving(bench.manifest("main"), &checkpoint), &checkpoint, "ready").await;
    assert!(report.failures.is_empty() && report.answers.is_empty() && report.unanswered.is_none(), "{report:?}");
    assert_eq!(taken(&checkpoint).as_deref(), Some(&b"last"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_leaves_bytes() {
    let save = Handler::new(|context, _, result| {
        let before = context.restored().map_or(0, Bytes::len);
        let kept = context.save(Bytes::from(vec![0; before + 1]));
        let large = context.save(Bytes::from(vec![0; limits::CHECKPOINT_BYTES_MAX + 1]));
        result.extend(format!("{before} {kept} {large} {}", context.is_asked()).bytes());
        Ok(())
    });
    let bench = Bench::with(|with| support::HostOptionsWith {
        handlers: Handlers::new().with("save".parse().expect("a name"), save),
        ..with
    });
    let checkpoint = restored(b"seven");
    let mut report = bench.host.call(saving(handler("save"), &checkpoint)).await;
    assert_eq!(answers(&mut report)[&0], "5 true false false");
    assert_eq!(taken(&checkpoint).map(|bytes| bytes.len()), Some(6));
    let mut report = bench.host.call(call(handler("save"), &["{}"])).await;
    assert_eq!(answers(&mut report)[&0], "0 false false false", "nobody else may save");
}
