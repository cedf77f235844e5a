//! Packages: real processes that speak the Runtime API, and every way in which they fail.

mod support;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sheaf_core::{Digest, Failure, FailureKind, FunctionKind, Manifest, ResultForm};
use sheaf_host::{Call, Report};
use support::{Bench, answers, call, call_bytes, entries, failure, has_python, zip};

/// A call of one task that fails, and one after it that must not suffer from it.
async fn fails(bench: &Bench, manifest: Manifest, payload: &str) -> Failure {
    let mut report = bench.host.call(call(manifest, &[payload, r#"{"after":1}"#])).await;
    assert_eq!(answers(&mut report), BTreeMap::from([(1, r#"{"after": 1}"#.to_owned())]), "{report:?}");
    failure(&report, 0).clone()
}

async fn not_started(bench: &Bench, manifest: Manifest) -> Failure {
    let mut report = bench.host.call(call(manifest, &["{}", "{}"])).await;
    assert!(report.failures.is_empty() && answers(&mut report).is_empty());
    let failure = report.unanswered.expect("a reason");
    assert_eq!(failure.kind, FailureKind::NotStarted);
    failure
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_answered_by_one_warm_process() {
    if !has_python() {
        return;
    }
    let bench = Bench::new();
    let mut first = bench.run(&[r#"{"do":"pid"}"#, r#"{"do":"pid"}"#, r#"{"a":[1]}"#]).await;
    let first = answers(&mut first);
    assert_eq!(first[&0], first[&1]);
    assert_eq!(first[&2], r#"{"a": [1]}"#);
    let mut second = bench.run(&[r#"{"do":"pid"}"#]).await;
    assert_eq!(answers(&mut second)[&0], first[&0]);
    assert_eq!(bench.host.idle_children(), 1);
    assert_eq!(bench.zips.fetches.load(std::sync::atomic::Ordering::Relaxed), 1);
    bench.host.shutdown().await;
    assert_eq!(support::left_in(bench.dir.path()), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_sees_its_environment_and_nothing_else() {
    if !has_python() {
        return;
    }
    let bench = Bench::new();
    let mut manifest = bench.manifest("app.main");
    manifest.env = BTreeMap::from([("MODE".into(), "dry".into()), ("TZ".into(), "Asia/Tokyo".into())]);
    let mut report = bench.host.call(call(manifest, &[r#"{"do":"env"}"#])).await;
    let env: BTreeMap<String, String> = serde_json::from_str(&answers(&mut report)[&0]).expect("an object");
    let get = |name: &str| env.get(name).map(String::as_str);
    assert_eq!(get("_HANDLER"), Some("app.main"));
    assert_eq!((get("MODE"), get("TZ")), (Some("dry"), Some("Asia/Tokyo")));
    assert_eq!(get("AWS_LAMBDA_FUNCTION_NAME"), Some("test"));
    assert_eq!(get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"), Some("1024"));
    assert_eq!(get("cwd"), get("LAMBDA_TASK_ROOT"));
    assert_eq!(get("HOME"), get("TMPDIR"));
    // The test itself runs under cargo, which sets plenty.
    let inherited: Vec<&String> = env.keys().filter(|name| name.starts_with("CARGO") || name.contains("KEY")).collect();
    assert!(inherited.is_empty(), "{inherited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_context_names_the_task() {
    if !has_python() {
        return;
    }
    let bench = Bench::new();
    let mut pack = sheaf_api::PackBuilder::new();
    pack.push_task(br#"{"do":"context"}"#, 0, "clé \"7\"").expect("a task");
    let call = Call { pack: pack.finish(false), ..call(bench.manifest("main"), &["{}"]) };
    let task = format!("{}/0", call.chunk);
    let mut report = bench.host.call(call).await;
    let headers: BTreeMap<String, String> = serde_json::from_str(&answers(&mut report)[&0]).expect("an object");
    let context: serde_json::Value = serde_json::from_str(&headers["lambda-runtime-client-context"]).expect("JSON");
    assert_eq!(context["custom"]["task"], task);
    assert_eq!((&context["custom"]["epoch"], &context["custom"]["key"]), (&"2".into(), &"clé \"7\"".into()));
    let deadline_ms: u64 = headers["lambda-runtime-deadline-ms"].parse().expect("a number");
    let now_ms = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_millis() as u64;
    assert!((50_000..=60_000).contains(&(deadline_ms - now_ms)), "{deadline_ms} {now_ms}");
    assert!(headers["lambda-runtime-invoked-function-arn"].contains(":function:test:"));
    assert!(headers["lambda-runtime-trace-id"].starts_with("Root=1-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_told_in_the_functions_words() {
    if !has_python() {
        return;
    }
    let bench = Bench::new();
    let raised = fails(&bench, bench.manifest("main"), r#"{"do":"raise"}"#).await;
    assert_eq!((raised.kind, &*raised.error_type), (FailureKind::Error, "KeyError"));
    assert_eq!((&*raised.message, &raised.stack[..]), ("'no such thing'", &["  line 1".to_owned()][..]));
    let text = fails(&bench, bench.manifest("main"), r#"{"do":"text-error"}"#).await;
    assert_eq!((&*text.message, &*text.error_type), ("plain words", "Odd"));
    assert_eq!(bench.host.idle_children(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_costs_one_task() {
    if !has_python() {
        return;
    }
    let bench = Bench::new();
    let exited = fails(&bench, bench.manifest("main"), r#"{"do":"exit","code":3}"#).await;
    assert_eq!(exited.kind, FailureKind::Exited);
    assert!(exited.message.contains("exit code 3"), "{}", exited.message);
    assert_eq!(exited.stderr, "dying words\n");
    for (signal, name) in [("SIGSEGV", "SIGSEGV"), ("SIGKILL", "SIGKILL"), ("SIGABRT", "SIGABRT")] {
        let killed = fails(&bench, bench.manifest("main"), &format!(r#"{{"do":"signal","name":"{signal}"}}"#)).await;
        assert_eq!(killed.kind, FailureKind::Killed);
        assert!(killed.message.contains(name), "{}", killed.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_after_its_answer_costs_nothing() {
    if !has_python() {
        return;
    }
    let bench = Bench::new();
    let mut report = bench.run(&[r#"{"do":"answer-and-exit"}"#, r#"{"do":"post-and-exit"}"#, "{}"]).await;
    let expected = BTreeMap::from([(0, "\"last\"".into()), (1, "\"late\"".into()), (2, "{}".into())]);
    assert_eq!(answers(&mut report), expected, "{report:?}");
    assert!(report.failures.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_too_long_is_stopped() {
    if !has_python() {
        return;
    }
    let bench = Bench::new();
    let manifest = Manifest { timeout_ms: 300, ..bench.manifest("main") };
    let began = Instant::now();
    let late = fails(&bench, manifest, r#"{"do":"sleep","s":60}"#).await;
    assert_eq!((late.kind, &*late.message), (FailureKind::TimedOut, "stopped after 300 ms, its timeout"));
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_runs_beyond_the_deadline() {
    if !has_python() {
        return;
    }
    let bench = Bench::new();
    bench.run(&["{}"]).await;
    let now_ms = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_millis() as u64;
    let both = [r#"{"do":"sleep","s":60}"#, "{}"];
    let call = Call { deadline_ms: Some(now_ms + 400), ..call(bench.manifest("main"), &both) };
    let mut report = bench.host.call(call.clone()).await;
    let late = failure(&report, 0);
    assert_eq!(late.kind, FailureKind::TimedOut);
    assert!(late.message.contains("deadline"), "{}", late.message);
    assert!(answers(&mut report).is_empty(), "the second task must not start");
    let mut report = bench.host.call(call).await;
    assert!(report.failures.is_empty() && report.unanswered.is_none() && answers(&mut report).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_ends_a_call_between_tasks() {
    if !has_python() {
        return;
    }
    let bench = Bench::new();
    let sleep = r#"{"do":"sleep","s":0.15}"#;
    let call = Call { budget: Some(Duration::from_millis(200)), ..call(bench.manifest("main"), &[sleep; 10]) };
    let mut report = bench.host.call(call.clone()).await;
    let done = answers(&mut report).len();
    assert!((1..=2).contains(&done), "{done}");
    assert!(report.failures.is_empty() && report.unanswered.is_none());
    let mut report = bench.host.call(Call { budget: Some(Duration::ZERO), ..call }).await;
    assert_eq!(answers(&mut report).len(), 1, "a call always gets somewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_watched_with_descendants() {
    if !has_python() {
        return;
    }
    let bench = Bench::new();
    let manifest = Manifest { memory_bytes_max: 100 << 20, ..bench.manifest("main") };
    for payload in [r#"{"do":"memory","mib":300}"#, r#"{"do":"child-memory","mib":300}"#] {
        let failure = fails(&bench, manifest.clone(), payload).await;
        assert_eq!(failure.kind, FailureKind::OutOfMemory);
        assert!(failure.message.contains("its limit is 100.0 MiB"), "{}", failure.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_held_to_limit_and_form() {
    if !has_python() {
        return;
    }
    let bench = Bench::new();
    let manifest = Manifest { output_bytes_max: 1000, ..bench.manifest("main") };
    let pid = async || answers(&mut bench.host.call(call(manifest.clone(), &[r#"{"do":"pid"}"#])).await)[&0].clone();
    let before = pid().await;
    let failure = fails(&bench, manifest.clone(), r#"{"do":"large","bytes":100000}"#).await;
    assert_eq!(failure.kind, FailureKind::OutputTooLarge);
    assert!(failure.message.contains("100002 bytes"), "{}", failure.message);
    assert_eq!(pid().await, before, "what is cheap to read is read and dropped");
    let failure = fails(&bench, manifest.clone(), r#"{"do":"large","bytes":60000000}"#).await;
    assert_eq!(failure.kind, FailureKind::OutputTooLarge);
    assert_ne!(pid().await, before);
    let failure = fails(&bench, manifest.clone(), r#"{"do":"no-json"}"#).await;
    assert_eq!(failure.kind, FailureKind::BadAnswer);
    let bytes = Manifest { result: ResultForm::Bytes, ..manifest.clone() };
    let mut report = bench.host.call(call(bytes, &[r#"{"do":"no-json"}"#, r#"{"do":"empty"}"#])).await;
    assert_eq!(answers(&mut report), BTreeMap::from([(0, "{oops".into()), (1, String::new())]));
    let mut report = bench.host.call(call(manifest, &[r#"{"do":"empty"}"#])).await;
    assert_eq!(answers(&mut report)[&0], "null");
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_is_refused_as_lambda_does() {
    if !has_python() {
        return;
    }
    let bench = Bench::new();
    let mut report = bench.run(&[r#"{"do":"rubbish"}"#, "{}"]).await;
    let expected = BTreeMap::from([(0, "[400, 400, 404, 405]".into()), (1, "{}".into())]);
    assert_eq!(answers(&mut report), expected, "{report:?}");
    let skipped = fails(&bench, bench.manifest("main"), r#"{"do":"skip"}"#).await;
    assert_eq!(skipped.kind, FailureKind::BadAnswer);
    assert!(skipped.message.contains("without having answered"), "{}", skipped.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_come_and_go() {
    if !has_python() {
        return;
    }
    let bench = Bench::new();
    let mut report = bench.host.call(call(bench.manifest("reconnect"), &["{}"; 200])).await;
    assert_eq!(answers(&mut report).len(), 200);
    let mut report = bench.run(&[r#"{"do":"abandon"}"#]).await;
    assert_eq!(answers(&mut report)[&0], "\"answered\"");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    let mut report = bench.run(&[r#"{"still":"there"}"#]).await;
    assert_eq!(answers(&mut report)[&0], r#"{"still": "there"}"#);
    assert!(began.elapsed() < Duration::from_secs(5));
    let broken = fails(&bench, bench.manifest("main"), r#"{"do":"break-off"}"#).await;
    assert_eq!((broken.kind, &*broken.error_type), (FailureKind::Error, "Midway"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_cannot_start_says_why() {
    if !has_python() {
        return;
    }
    let bench = Bench::new();
    let exited = not_started(&bench, bench.manifest("exit")).await;
    assert!(exited.message.contains("exit code 7 before it asked for work"), "{}", exited.message);
    assert_eq!(exited.stderr, "no licence\n");
    let told = not_started(&bench, bench.manifest("init-error")).await;
    assert_eq!((&*told.message, &*told.error_type, told.stack.len()), ("no model", "InitError", 2));
    let began = Instant::now();
    let hung = not_started(&bench, bench.manifest("hang")).await;
    assert!(hung.message.contains("within 10 s"), "{}", hung.message);
    assert_eq!(hung.stderr, "thinking\n");
    assert!(began.elapsed() < Duration::from_secs(15));
    assert_eq!(bench.host.idle_children(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_is_no_good_says_why() {
    let mut bench = Bench::new();
    let zips = std::sync::Arc::get_mut(&mut bench.zips);
    assert!(zips.is_none(), "the host shares it; packages are made with it below");
    let fault = async |zip: bytes::Bytes, claimed: Option<Digest>| {
        let digest = claimed.unwrap_or(Digest::of(&zip));
        let dir = tempfile::tempdir().expect("a directory");
        let by_digest = BTreeMap::from([(digest, zip)]);
        let zips = support::Zips { by_digest, ..support::Zips::default() };
        let options = sheaf_host::HostOptions::builder().scratch(dir.path()).packages(std::sync::Arc::new(zips));
        let host = sheaf_host::Host::open(options.build()).expect("a host");
        let kind = FunctionKind::Package { digest, handler: String::new() };
        let report = host.call(call(Manifest::new("p".parse().expect("a name"), kind), &["1"])).await;
        let left = std::fs::read_dir(dir.path().join("packages")).expect("there").count();
        let failure = report.unanswered.expect("a reason");
        assert_eq!(failure.kind, FailureKind::NotStarted);
        (failure.message, left)
    };
    let (message, left) = fault(zip(&[("main", "", 0o755)]), None).await;
    assert!(message.contains("no bootstrap at the top of the zip") && left == 0, "{message}");
    let (message, left) = fault(zip(&[("../../escaped", "", 0o755)]), None).await;
    assert!(message.contains("leads outside") && left == 0, "{message}");
    let (message, _) = fault(zip(&[("bootstrap", "", 0o755)]), Some(Digest::of(b"other"))).await;
    assert!(message.contains("is damaged"), "{message}");
    let (message, _) = fault(zip(&[("bootstrap", "#!/no/such/interpreter\n", 0o755)]), None).await;
    assert!(message.contains("interpreter"), "{message}");
    let (message, _) = fault(zip(&[("bootstrap", "no program", 0o755)]), None).await;
    assert!(message.contains("#! line"), "{message}");
    let unknown = FunctionKind::Package { digest: Digest::of(b"unknown"), handler: String::new() };
    let failure = not_started(&bench, Manifest::new("p".parse().expect("a name"), unknown)).await;
    assert!(failure.message.contains("no such blob"), "{}", failure.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn output_belongs_to_the_task_that_printed_it() {
    if !has_python() {
        return;
    }
    let bench = Bench::new();
    let print = |text: &str| format!(r#"{{"do":"print","text":"{text}"}}"#);
    let (a, b) = (print("one"), print("two"));
    let fail = r#"{"do":"exit","code":1}"#;
    let mut report = bench.host.call(call(bench.manifest("greet"), &[&a, "{}", &b, fail])).await;
    let expected = BTreeMap::from([
        (0, "starting up\none\non stderr\n".to_owned()),
        (2, "two\non stderr\n".to_owned()),
        (3, "dying words\n".to_owned()),
    ]);
    assert_eq!(entries(&mut report.logs), expected);
    // What is printed after the last answer of a call is not the next one's, which may be another job's.
    bench.run(&[r#"{"do":"print-late"}"#]).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut report = bench.run(&["{}"]).await;
    assert_eq!((answers(&mut report).len(), entries(&mut report.logs)), (1, BTreeMap::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_of_output_costs_neither_time_nor_memory() {
    if !has_python() {
        return;
    }
    let bench = Bench::new();
    let own = || -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("linux");
        let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("a peak");
        line.split_ascii_whitespace().nth(1).expect("a number").parse().expect("a number")
    };
    bench.run(&["{}"]).await;
    let before = own();
    let mut report = bench.run(&[r#"{"do":"flood","mib":512}"#]).await;
    assert_eq!(answers(&mut report)[&0], "\"flooded\"");
    let grown_kb = own() - before;
    assert!(grown_kb < 64 * 1024, "{grown_kb} KiB for 1 GiB of output");
    let log = &entries(&mut report.logs)[&0];
    assert_eq!(log.len(), sheaf_core::limits::LOG_BYTES_MAX);
    assert!(log.ends_with("xxthe end\n"));
}

fn batch(bench: &Bench) -> Manifest {
    Manifest { batch: true, ..bench.manifest("main") }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_invocation() {
    if !has_python() {
        return;
    }
    let bench = Bench::new();
    let payloads: [&[u8]; 5] = [br#"{"n":1}"#, b"plain text", b"\xff\xfe", br#"{"do":"fail"}"#, b"[7]"];
    let mut report = bench.host.call(call_bytes(batch(&bench), &payloads)).await;
    let expected =
        BTreeMap::from([(0, r#"{"n": 1}"#.to_owned()), (1, "\"plain text\"".to_owned()), (4, "[7]".to_owned())]);
    assert_eq!(answers(&mut report), expected, "{report:?}");
    assert_eq!(failure(&report, 3).error_type, "Picky");
    assert!(failure(&report, 2).message.contains("neither JSON nor UTF-8"));
    assert_eq!(entries(&mut report.logs), BTreeMap::from([(0, "batch of 4\n".to_owned())]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_fails_as_a_whole_or_per_task() {
    if !has_python() {
        return;
    }
    let bench = Bench::new();
    let run = async |manifest: Manifest, payload: &str| -> Report {
        let mut report = bench.host.call(call(manifest, &["{}", payload, "{}"])).await;
        let _ = entries(&mut report.logs);
        report
    };
    let short = run(batch(&bench), r#"{"do":"short"}"#).await;
    assert_eq!(short.failures.len(), 3);
    assert!((0..3).all(|task| failure(&short, task).kind == FailureKind::BadAnswer));
    let mut large = run(Manifest { output_bytes_max: 100, ..batch(&bench) }, r#"{"do":"large-one"}"#).await;
    assert_eq!(failure(&large, 1).kind, FailureKind::OutputTooLarge);
    assert_eq!(answers(&mut large).len(), 2);
    for (payload, kind, words) in [
        (r#"{"do":"exit","code":9}"#, FailureKind::Exited, "exit code 9"),
        (r#"{"do":"raise"}"#, FailureKind::Error, "no such thing"),
        (r#"{"do":"sleep","s":60}"#, FailureKind::TimedOut, "after 300 ms"),
    ] {
        let mut report = run(Manifest { timeout_ms: 100, ..batch(&bench) }, payload).await;
        assert!(report.failures.is_empty() && answers(&mut report).is_empty(), "{payload}: {report:?}");
        let failure = report.unanswered.expect("nobody knows who it was");
        assert_eq!(failure.kind, kind);
        assert!(failure.message.contains(words), "{}", failure.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lambda_cannot_be_invoked() {
    let bench = Bench::new();
    let kind = FunctionKind::Lambda { arn: "arn:aws:lambda:x".into() };
    let failure = not_started(&bench, Manifest::new("l".parse().expect("a name"), kind)).await;
    assert_eq!(failure.message, "this grid cannot invoke Lambda functions");
}
