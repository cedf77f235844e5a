//! Functions that are invoked by their ARN, over an invoker that says what a test wants.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use sheaf_core::{FailureKind, FunctionKind, Manifest};
use sheaf_host::{Host, HostOptions, Invocation, Invoked, Invoker, Invoking, NotInvoked};
use support::{answers, call, call_bytes, entries, failure};

const ARN: &str = "arn:aws:lambda:us-east-1:000000000000:function:shout";

/// Answers in turn what it was given, then echoes.
#[derive(Default)]
struct Scripted {
    answers: Mutex<VecDeque<Result<Invoked, NotInvoked>>>,
    asked: Mutex<Vec<Invocation>>,
    hangs: bool,
}

impl Scripted {
    fn new(answers: impl IntoIterator<Item = Result<Invoked, NotInvoked>>) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(answers.into_iter().collect()), ..Self::default() })
    }

    fn events(&self) -> Vec<String> {
        let text = |asked: &Invocation| String::from_utf8(asked.event.to_vec()).expect("text");
        self.asked.lock().iter().map(text).collect()
    }
}

impl Invoker for Scripted {
    fn invoke(&self, invocation: Invocation) -> Invoking<'_> {
        Box::pin(async move {
            if self.hangs {
                std::future::pending::<()>().await;
            }
            let echo = Ok(Invoked { payload: invocation.event.clone(), failed: false, log: "".into() });
            self.asked.lock().push(invocation);
            self.answers.lock().pop_front().unwrap_or(echo)
        })
    }
}

fn answered(payload: &'static str) -> Result<Invoked, NotInvoked> {
    Ok(Invoked { payload: payload.into(), failed: false, log: "".into() })
}

fn failed(payload: &'static str) -> Result<Invoked, NotInvoked> {
    Ok(Invoked { payload: payload.into(), failed: true, log: "what it said".into() })
}

fn throttled() -> Result<Invoked, NotInvoked> {
    Err(NotInvoked::Throttled("Rate Exceeded.".to_owned()))
}

fn manifest() -> Manifest {
    Manifest::new("shout".parse().expect("a name"), FunctionKind::Lambda { arn: ARN.to_owned() })
}

fn host(invoker: Arc<Scripted>) -> (Host, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let options = HostOptions::builder().scratch(dir.path()).invoker(invoker as Arc<dyn Invoker>).build();
    (Host::open(options).expect("a host"), dir)
}

#[tokio::test]
async fn each_task_is_an_invocation() {
    let invoker = Scripted::new([answered("1"), answered("not JSON")]);
    let (host, _dir) = host(invoker.clone());
    let mut report = host.call(call_bytes(manifest(), &[b"{\"a\":1}", b"2", b"plain", b"\xff"])).await;
    assert_eq!(invoker.events(), ["{\"a\":1}", "2", "\"plain\""]);
    assert_eq!(answers(&mut report), [(0, "1".to_owned()), (2, "\"plain\"".to_owned())].into());
    assert_eq!(failure(&report, 1).kind, FailureKind::BadAnswer);
    assert_eq!(failure(&report, 3).kind, FailureKind::Error);
    let asked = invoker.asked.lock();
    let context: serde_json::Value = serde_json::from_str(&asked[1].context).expect("JSON");
    assert_eq!((&*asked[1].arn, &context["custom"]["epoch"]), (ARN, &"2".into()));
    assert!(context["custom"]["task"].as_str().is_some_and(|task| task.ends_with("/3/1")), "{context}");
}

#[tokio::test]
async fn errors_are_read_as_lambda_writes_them() {
    let invoker = Scripted::new([
        failed(r#"{"errorType":"ValueError","errorMessage":"no","stackTrace":["  a\n","  b\n"]}"#),
        failed(r#"{"errorType":"Sandbox.Timedout","errorMessage":"Task timed out after 3.00 seconds"}"#),
        failed(r#"{"errorType":"Runtime.ExitError","errorMessage":"exit status 1"}"#),
        failed(r#"{"errorType":"Function.ResponseSizeTooLarge","errorMessage":"too large"}"#),
        Err(NotInvoked::Lost("the connection broke".to_owned())),
    ]);
    let (host, _dir) = host(invoker);
    let mut report = host.call(call(manifest(), &["1", "2", "3", "4", "5"])).await;
    let raised = failure(&report, 0);
    assert_eq!((raised.kind, &*raised.error_type, &*raised.message), (FailureKind::Error, "ValueError", "no"));
    assert_eq!((raised.stack.len(), &*raised.stderr), (2, "what it said"));
    let kinds = [1, 2, 3, 4].map(|task| failure(&report, task).kind);
    let expected = [FailureKind::TimedOut, FailureKind::Exited, FailureKind::OutputTooLarge, FailureKind::BadAnswer];
    assert_eq!(kinds, expected);
    assert_eq!(entries(&mut report.logs)[&0], "what it said");
}

#[tokio::test]
async fn a_throttled_invocation_is_tried_again_and_costs_nothing() {
    let invoker = Scripted::new([throttled(), throttled(), answered("1")]);
    let (host, _dir) = host(invoker.clone());
    let mut report = host.call(call(manifest(), &["1"])).await;
    assert_eq!(answers(&mut report), [(0, "1".to_owned())].into());
    assert_eq!((invoker.asked.lock().len(), report.failures.len()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn what_stays_throttled_counts_as_not_started() {
    let invoker = Scripted::new((0..1_000).map(|_| throttled()));
    let (host, _dir) = host(invoker.clone());
    let report = host.call(call(manifest(), &["1", "2"])).await;
    assert!(report.failures.is_empty() && report.unanswered.is_none() && report.answers.is_empty(), "{report:?}");
    let tries = invoker.asked.lock().len();
    assert!((3..100).contains(&tries), "{tries} tries");
    assert!(invoker.events().iter().all(|event| event == "1"), "the second is not tried where the first is throttled");
}

#[tokio::test]
async fn a_refused_invocation_starts_nothing() {
    let invoker = Scripted::new([answered("1"), Err(NotInvoked::Refused("no such function".to_owned()))]);
    let (host, _dir) = host(invoker.clone());
    let report = host.call(call(manifest(), &["1", "2", "3"])).await;
    let unanswered = report.unanswered.expect("told for all that is left");
    assert_eq!((unanswered.kind, &*unanswered.message), (FailureKind::NotStarted, "no such function"));
    assert_eq!((report.answers.tasks(), invoker.asked.lock().len()), (1, 2));
}

#[tokio::test]
async fn a_slow_function_is_given_up_at_its_timeout_and_at_the_deadline() {
    let (host, _dir) = host(Arc::new(Scripted { hangs: true, ..Scripted::default() }));
    let report = host.call(call(Manifest { timeout_ms: 20, ..manifest() }, &["1"])).await;
    assert_eq!(failure(&report, 0).kind, FailureKind::TimedOut);
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("a clock") + Duration::from_millis(20);
    let mut late = call(manifest(), &["1", "2"]);
    late.deadline_ms = Some(now.as_millis() as u64);
    let report = host.call(late).await;
    assert!(failure(&report, 0).message.contains("deadline"), "{report:?}");
}

#[tokio::test]
async fn a_batch_is_one_invocation() {
    let invoker = Scripted::new([
        answered(r#"[10,{"errorMessage":"no","errorType":"E"}]"#),
        failed(r#"{"errorMessage":"all"}"#),
        answered("[1]"),
    ]);
    let (host, _dir) = host(invoker.clone());
    let manifest = Manifest { batch: true, ..manifest() };
    let mut report = host.call(call(manifest.clone(), &["1", "x"])).await;
    assert_eq!(invoker.events(), ["[1,\"x\"]"]);
    assert_eq!(answers(&mut report), [(0, "10".to_owned())].into());
    assert_eq!(&*failure(&report, 1).error_type, "E");
    let whole = host.call(call(manifest.clone(), &["1", "2"])).await;
    assert_eq!(whole.unanswered.expect("nobody knows which is guilty").message, "all");
    let short = host.call(call(manifest, &["1", "2"])).await;
    assert_eq!(failure(&short, 1).kind, FailureKind::BadAnswer);
}

#[tokio::test]
async fn a_key_that_is_too_long_is_left_out() {
    let invoker = Scripted::new([]);
    let (host, _dir) = host(invoker.clone());
    for (key, kept) in [("short".to_owned(), true), ("\u{1}".repeat(1_000), false)] {
        let mut pack = sheaf_api::PackBuilder::new();
        pack.push_task(b"1", 0, &key).expect("a payload");
        let pack = pack.finish(false);
        host.call(sheaf_host::Call { pack, ..call(manifest(), &["1"]) }).await;
        let context = invoker.asked.lock().pop().expect("asked").context;
        assert_eq!(context.contains(r#""key""#), kept, "{context}");
        assert!(context.len() <= sheaf_host::limits::CONTEXT_BYTES_MAX);
    }
}
