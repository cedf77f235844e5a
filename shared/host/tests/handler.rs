//! Handlers linked in, in their three forms.

mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use sheaf_core::{Failure, FailureKind, FunctionKind, Manifest};
use sheaf_host::{Call, Handler, HandlerBatch, Handlers, TaskContext};
use support::{Bench, HostOptionsWith, answers, call, failure, handler};

fn bench(handler: Handler) -> Bench {
    let handlers = Handlers::new().with("f".parse().expect("a name"), handler);
    Bench::with(|with| HostOptionsWith { handlers, ..with })
}

fn error(message: &str) -> Failure {
    Failure::new(FailureKind::Error, message)
}

/// One behaviour, for the forms that see one task at a time.
fn behave(payload: &[u8]) -> Result<Vec<u8>, Failure> {
    match payload {
        b"fail" => Err(error("as told").with_type("Told")),
        b"panic" => panic!("at task {}", 1),
        b"large" => Ok(vec![0; 101]),
        other => Ok(other.to_ascii_uppercase()),
    }
}

fn forms() -> [Handler; 2] {
    [
        Handler::new(|_: &TaskContext, payload: &[u8], result: &mut Vec<u8>| {
            result.extend_from_slice(b"half-written");
            let answer = behave(payload)?;
            result.clear();
            result.extend_from_slice(&answer);
            Ok(())
        }),
        Handler::new_async(|_: TaskContext, payload: Bytes| async move {
            tokio::task::yield_now().await;
            behave(&payload).map(Bytes::from)
        }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_task_is_answered_or_fails_for_itself() {
    for handler_form in forms() {
        let bench = bench(handler_form);
        let manifest = Manifest { output_bytes_max: 100, ..handler("f") };
        let mut report = bench.host.call(call(manifest, &["a", "fail", "panic", "large", "b"])).await;
        assert_eq!(answers(&mut report), BTreeMap::from([(0, "A".into()), (4, "B".into())]));
        assert_eq!((failure(&report, 1).kind, &*failure(&report, 1).error_type), (FailureKind::Error, "Told"));
        assert_eq!((failure(&report, 2).kind, &*failure(&report, 2).message), (FailureKind::Panic, "at task 1"));
        assert_eq!(failure(&report, 3).kind, FailureKind::OutputTooLarge);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordered_call_stops_at_a_failure() {
    for handler_form in forms() {
        let bench = bench(handler_form);
        let call = Call { stop_on_failure: true, ..call(handler("f"), &["a", "fail", "b"]) };
        let mut report = bench.host.call(call).await;
        assert_eq!((answers(&mut report).len(), report.failures.len()), (1, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_runs_too_long_is_left_to_itself() {
    let returned = Arc::new(AtomicBool::new(false));
    let bench = bench(Handler::new({
        let returned = Arc::clone(&returned);
        move |context, payload, result| {
            if payload == b"long" {
                while !context.is_stopped() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                returned.store(true, Ordering::Relaxed);
            }
            result.extend_from_slice(payload);
            Ok(())
        }
    }));
    let manifest = Manifest { timeout_ms: 200, ..handler("f") };
    let mut report = bench.host.call(call(manifest, &["a", "long", "b"])).await;
    assert_eq!(answers(&mut report), BTreeMap::from([(0, "a".into())]), "what follows is for another call");
    assert_eq!(
        (failure(&report, 1).kind, &*failure(&report, 1).message),
        (FailureKind::TimedOut, "stopped after 200 ms, its timeout")
    );
    support::eventually("the handler's end", || returned.load(Ordering::Relaxed)).await;
    let mut after = bench.host.call(call(handler("f"), &["b"])).await;
    assert_eq!(answers(&mut after).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_that_never_return_are_counted() {
    let released = Arc::new(AtomicBool::new(false));
    let bench = bench(Handler::new({
        let released = Arc::clone(&released);
        move |_, _, _| {
            while !released.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        }
    }));
    let manifest = Manifest { timeout_ms: 1, ..handler("f") };
    for _ in 0..sheaf_host::limits::THREADS_LEFT_MAX {
        let report = bench.host.call(call(manifest.clone(), &[""])).await;
        assert_eq!(failure(&report, 0).kind, FailureKind::TimedOut);
    }
    let refused = bench.host.call(call(manifest.clone(), &[""])).await.unanswered.expect("refused");
    assert_eq!(refused.kind, FailureKind::NotStarted);
    assert!(refused.message.contains("64 handler threads"), "{}", refused.message);
    released.store(true, Ordering::Relaxed);
    let until = Instant::now() + Duration::from_secs(10);
    while bench.host.call(call(handler("f"), &[""])).await.answers.is_empty() {
        assert!(Instant::now() < until, "the threads have ended, and calls are still refused");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_call_stops_its_handler_between_tasks() {
    let ran = Arc::new(AtomicUsize::new(0));
    let bench = bench(Handler::new({
        let ran = Arc::clone(&ran);
        move |_, _, _| {
            ran.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(50));
            Ok(())
        }
    }));
    let call = call(handler("f"), &[""; 100]);
    let dropped = tokio::time::timeout(Duration::from_millis(120), bench.host.call(call)).await;
    assert!(dropped.is_err());
    let at_drop = ran.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(ran.load(Ordering::Relaxed) <= at_drop + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_async_handler_is_dropped_at_its_timeout() {
    struct Flag(Arc<AtomicBool>);
    impl Drop for Flag {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let bench = bench(Handler::new_async({
        let dropped = Arc::clone(&dropped);
        move |_, payload: Bytes| {
            let flag = Flag(Arc::clone(&dropped));
            async move {
                let _flag = flag;
                if payload.is_empty() {
                    std::future::pending::<()>().await;
                }
                Ok(payload)
            }
        }
    }));
    let manifest = Manifest { timeout_ms: 100, ..handler("f") };
    let mut report = bench.host.call(call(manifest, &["", "next"])).await;
    assert_eq!(failure(&report, 0).kind, FailureKind::TimedOut);
    assert_eq!(answers(&mut report), BTreeMap::from([(1, "next".into())]));
    assert!(dropped.load(Ordering::Relaxed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_handler_answers_what_it_wants() {
    let bench = bench(Handler::new_batch(|batch: &mut HandlerBatch<'_>| {
        for (task, payload) in batch.tasks() {
            match payload {
                b"fail" => batch.fail(task, error("no")),
                b"skip" => {}
                b"stop" => return Err(error("all the rest")),
                b"panic" => panic!("in a batch"),
                b"twice" => {
                    batch.succeed(task, b"1");
                    batch.succeed(task, b"2");
                    batch.fail(task, error("3"));
                    batch.succeed(999, b"nobody's");
                }
                other => batch.succeed(task, other),
            }
        }
        Ok(())
    }));
    let mut report = bench.host.call(call(handler("f"), &["a", "fail", "twice", "skip", "b"])).await;
    assert_eq!(answers(&mut report), BTreeMap::from([(0, "a".into()), (2, "1".into()), (4, "b".into())]));
    assert_eq!(failure(&report, 1).message, "no");
    assert_eq!(failure(&report, 3).kind, FailureKind::BadAnswer);
    let mut report = bench.host.call(call(handler("f"), &["a", "stop", "b"])).await;
    assert_eq!((answers(&mut report).len(), report.failures.len()), (1, 2));
    assert_eq!(failure(&report, 2).message, "all the rest");
    let mut report = bench.host.call(call(handler("f"), &["a", "panic", "b"])).await;
    assert_eq!(answers(&mut report).len(), 1);
    let panic = report.unanswered.expect("nobody knows who it was");
    assert_eq!((panic.kind, &*panic.message), (FailureKind::Panic, "in a batch"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_context_names_the_task_and_only_those_of_the_call_run() {
    let bench = bench(Handler::new(|context, _, result| {
        result.extend_from_slice(format!("{} {} {}", context.task.index, context.epoch, context.key()).as_bytes());
        Ok(())
    }));
    let mut pack = sheaf_api::PackBuilder::new();
    for key in ["x", "y", "z"] {
        pack.push_task(b"", 0, key).expect("a task");
    }
    let some = Call { pack: pack.finish(false), tasks: vec![2, 0], ..call(handler("f"), &[]) };
    let mut report = bench.host.call(some.clone()).await;
    assert_eq!(answers(&mut report), BTreeMap::from([(0, "0 2 x".into()), (2, "2 2 z".into())]));
    let outside = bench.host.call(Call { tasks: vec![3], ..some }).await;
    assert_eq!(outside.unanswered.map(|failure| failure.kind), Some(FailureKind::NotStarted));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_is_not_linked_in_is_named() {
    let [form, _] = forms();
    let bench = bench(form);
    let missing = bench.host.call(call(handler("g"), &[""])).await.unanswered.expect("a reason");
    assert_eq!((missing.kind, &*missing.message), (FailureKind::NotStarted, "no handler g is linked into this grid"));
    let kind = FunctionKind::Handler { revision: "r2".into() };
    let newer = Manifest::new("f".parse().expect("a name"), kind);
    let missing = bench.host.call(call(newer, &[""])).await.unanswered.expect("a reason");
    assert!(missing.message.contains("revision \"r2\""), "{}", missing.message);
}
