//! Commands: a process per task.

mod support;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sheaf_core::{Failure, FailureKind, Manifest, ResultForm};
use support::{Bench, answers, call, call_bytes, command, entries, failure};

async fn run(manifest: Manifest, payloads: &[&str]) -> (BTreeMap<u32, String>, sheaf_host::Report) {
    let bench = Bench::new();
    let mut report = bench.host.call(call(manifest, payloads)).await;
    support::eventually("nothing left", || support::left_in(bench.dir.path()).is_empty()).await;
    (answers(&mut report), report)
}

async fn fails(manifest: Manifest, payload: &str) -> Failure {
    let (_, report) = run(manifest, &[payload]).await;
    failure(&report, 0).clone()
}

fn sh(script: &str) -> Manifest {
    command(&["sh", "-c", script])
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_arrive_as_arguments_or_on_stdin() {
    let (answers, _) =
        run(command(&["echo", "{a}", "{b}!"]), &[r#"{"a":"x  y","b":[1, 2]}"#, r#"{"a":"$HOME;ls","b":""}"#]).await;
    assert_eq!(answers, BTreeMap::from([(0, "x  y [1, 2]!".into()), (1, "$HOME;ls !".into())]));
    let (answers, _) = run(command(&["printf", "%s", "{}"]), &["any text\n"]).await;
    assert_eq!(answers[&0], "any text\n".trim_end());
    let (answers, _) = run(command(&["tr", "a-z", "A-Z"]), &["loud", ""]).await;
    assert_eq!(answers, BTreeMap::from([(0, "LOUD".into()), (1, String::new())]));
    let large = "x".repeat(3_000_000);
    let (answers, _) = run(command(&["cat"]), &[&large]).await;
    assert_eq!(answers[&0].len(), large.len());
    // Nobody reads it.
    let (answers, _) = run(command(&["echo", "done"]), &[&large]).await;
    assert_eq!(answers[&0], "done");
    let (_, report) = run(command(&["echo", "{a}"]), &["{}", r#"{"a":1}"#]).await;
    assert_eq!(failure(&report, 0).message, "argument {a}: no such member in the payload");
    assert_eq!(fails(command(&["echo", "{a"]), "{}").await.kind, FailureKind::Error);
}

#[tokio::test(flavor = "multi_thread")]
async fn stdout_is_the_result_in_its_form() {
    let print = |form: ResultForm| Manifest { result: form, ..command(&["printf", r"a\n\n"]) };
    assert_eq!(run(print(ResultForm::Text), &[""]).await.0[&0], "a\n");
    assert_eq!(run(print(ResultForm::Bytes), &[""]).await.0[&0], "a\n\n");
    assert_eq!(fails(print(ResultForm::Json), "").await.kind, FailureKind::BadAnswer);
    let bytes = command(&["printf", r"\377"]);
    assert!(fails(bytes.clone(), "").await.message.contains("not UTF-8"));
    let bench = Bench::new();
    let call = call_bytes(Manifest { result: ResultForm::Bytes, ..command(&["cat"]) }, &[b"\0\xff\n"]);
    let mut report = bench.host.call(call).await;
    let segment = sheaf_api::Segment::parse(report.answers.finish(false)).expect("a segment");
    assert_eq!(segment.entry(0).answer, b"\0\xff\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_code_is_an_error_with_the_last_words() {
    let failure = fails(sh("echo half; echo one >&2; echo 'two ' >&2; echo >&2; exit 3"), "").await;
    assert_eq!((failure.kind, &*failure.error_type), (FailureKind::Error, "ExitCode"));
    assert_eq!((&*failure.message, &*failure.stderr), ("exit code 3: two", "one\ntwo \n\n"));
    assert_eq!(fails(command(&["false"]), "").await.message, "exit code 1");
    let (answers, mut report) = run(sh("echo note >&2; echo ok"), &[""]).await;
    assert_eq!(answers[&0], "ok");
    assert_eq!(entries(&mut report.logs), BTreeMap::from([(0, "note\n".to_owned())]));
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_that_are_nobodys_choice_are_told() {
    let killed = fails(sh("kill -SEGV $$"), "").await;
    assert_eq!(killed.kind, FailureKind::Killed);
    assert!(killed.message.contains("SIGSEGV"), "{}", killed.message);
    let began = Instant::now();
    let late = fails(Manifest { timeout_ms: 200, ..sh("echo thinking >&2; sleep 60") }, "").await;
    assert_eq!((late.kind, &*late.message), (FailureKind::TimedOut, "stopped after 200 ms, its timeout"));
    assert_eq!(late.stderr, "thinking\n");
    assert!(began.elapsed() < Duration::from_secs(5));
    let hungry =
        Manifest { memory_bytes_max: 20 << 20, ..sh("head -c 200000000 /dev/zero | tail -c 200000000; sleep 60") };
    assert_eq!(fails(Manifest { result: ResultForm::Bytes, ..hungry }, "").await.kind, FailureKind::OutOfMemory);
    let large = Manifest { output_bytes_max: 1000, ..command(&["yes"]) };
    assert_eq!(fails(large, "").await.kind, FailureKind::OutputTooLarge);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_started_is_named() {
    let missing = fails(command(&["no-such-program"]), "").await;
    assert_eq!(missing.kind, FailureKind::NotStarted);
    assert_eq!(missing.message, "program \"no-such-program\" is not in PATH (/usr/local/bin:/usr/bin:/bin)");
    let missing = fails(command(&["/no/such/program"]), "").await;
    assert_eq!(missing.kind, FailureKind::NotStarted);
    assert!(missing.message.contains("/no/such/program"), "{}", missing.message);
    let mut elsewhere = command(&["true"]);
    elsewhere.env.insert("PATH".into(), "/nowhere".into());
    assert!(fails(elsewhere, "").await.message.contains("(/nowhere)"));
    let directory = fails(command(&["/tmp"]), "").await;
    assert_eq!(directory.kind, FailureKind::NotStarted);
    let long = "x".repeat(500_000);
    assert_eq!(fails(command(&["echo", "{}"]), &long).await.kind, FailureKind::Error);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_task_has_a_fresh_directory_and_only_its_environment() {
    let script = "test -z \"$(ls -A)\" || exit 9; touch left; mkdir -p deep/er; pwd; env | grep -c CARGO; \
                  test \"$HOME\" = \"$(pwd)\" && test \"$TMPDIR\" = \"$HOME\" && echo $SHEAF_EPOCH $SHEAF_TASK $MODE";
    let mut manifest = sh(script);
    manifest.env.insert("MODE".into(), "dry".into());
    let bench = Bench::new();
    let mut report = bench.host.call(call(manifest, &["", ""])).await;
    let answers = answers(&mut report);
    let lines = |task: u32| answers[&task].lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!((lines(0).len(), &*lines(0)[1]), (3, "0"));
    assert!(lines(1)[2].starts_with("2 job_") && lines(1)[2].ends_with("/3/1 dry"), "{:?}", lines(1));
    support::eventually("no directories left", || support::left_in(bench.dir.path()).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_leaves_running_is_ended() {
    let began = Instant::now();
    let (answers, _) = run(sh("sleep 300 & echo $!"), &[""]).await;
    let pid: i32 = answers[&0].parse().expect("a process id");
    support::eventually("the end of it", || !support::is_alive(pid)).await;
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn output_without_end_is_bounded() {
    let flood = sh("head -c 300000000 /dev/zero >&2; echo fine");
    let (answers, mut report) = run(flood, &[""]).await;
    assert_eq!(answers[&0], "fine");
    assert_eq!(entries(&mut report.logs)[&0].len(), sheaf_core::limits::LOG_BYTES_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn ordered_tasks_wait_for_one_that_failed() {
    let bench = Bench::new();
    let call = sheaf_host::Call { stop_on_failure: true, ..call(sh("exit {}"), &["0", "1", "0"]) };
    let mut report = bench.host.call(call).await;
    assert_eq!(answers(&mut report).len(), 1);
    assert_eq!((report.failures.len(), report.failures[0].task), (1, 1));
}
