//! Files, run through the calls of a grid: every command has exactly one line.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod dropped;

use std::{
    io::Write,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dropped::{Ran, check_world, commands, counts, declare, job_id, many_slow, open, shut_down_idle, sorted};
use sheaf_api::{Api, wire::JobFilter};
use sheaf_core::{JobId, JobState, limits};
use sheaf_local::{
    Grid, Handler,
    files::{
        self, Collecting, Collection, FileError, FileOptions, FileReport, FileSource, Resume, Submission, Submitted,
    },
};

/// A sink whose contents can be looked at.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn run_as(
    grid: &Grid,
    name: &str,
    bytes: &[u8],
    options: &FileOptions,
    job: JobId,
) -> Result<(String, FileReport), FileError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let out = Shared::default();
    let source = FileSource::open(&path, job).unwrap();
    let report = files::run(grid, source, options, out.clone(), |_| ()).await?;
    let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
    Ok((text, report))
}

async fn run(grid: &Grid, name: &str, bytes: impl AsRef<[u8]>) -> Result<(String, FileReport), FileError> {
    run_as(grid, name, bytes.as_ref(), &FileOptions::default(), job_id()).await
}

async fn jobs(grid: &Grid) -> usize {
    grid.jobs(JobFilter::default()).await.unwrap().rows.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_has_its_line() {
    let ran = Ran::default();
    let grid = open(None, &ran).await;
    let file = r#"{
        "a": {"type": "primes", "arguments": {"n": 5}},
        "b": {"type": "poem"}, "c": {"type": "words"},
        "d": {"type": "nothing"}, "e": {"type": "juggle", "arguments": [1]},
        "f": {"type": "fail"}, "g": {"type": "fall"},
        "h": {"type": "echo", "arguments": {"n": 1e16, "s": "it's", "t": true, "big": 123456789012345678901234567890}},
        "i": {"type": "letters"}, "j": {"type": "blob"}, "k": {"type": "no such name!"}
    }"#;
    let (text, report) = run(&grid, "first.json", file).await.unwrap();
    let expected = [
        "a [2, 3, 5]",
        "b roses",
        "c first",
        "d None",
        "e juggle not handled",
        "f ERROR error: KeyError: no such row",
        "g ERROR panic: over the edge",
        r#"h {'n': 1e+16, 's': "it's", 't': True, 'big': 123456789012345678901234567890}"#,
        "i höher",
        "j base64:/wAB",
        "k no such name! not handled",
        "second",
        "violets",
    ];
    assert_eq!(sorted(&text), expected);
    assert!(text.contains("b roses\nviolets\n") && text.contains("c first\nsecond\n"), "{text}");
    assert_eq!((report.commands, report.not_handled), (11, 2));
    assert_eq!((report.totals.succeeded, report.totals.failed), (7, 2));
    let view = grid.progress(report.job.unwrap(), None, 1_000).await.unwrap();
    assert_eq!(view.job.options.name, "first");
    check_world(&grid);
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn formats_and_wrappings() {
    let ran = Ran::default();
    let grid = open(None, &ran).await;
    let gzip = |bytes: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(bytes.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |bytes: &str| zstd::encode_all(bytes.as_bytes(), 3).unwrap();
    let ndjson = "{\"id\":\"x\",\"type\":\"echo\",\"arguments\":[1]}\n{\"type\":\"primes\"}\n";
    let csv = "id,type,n\nx,echo,1\n,primes,2\n";
    let json = r#"{"x":{"type":"echo","arguments":[1]},"2":{"type":"primes"}}"#;
    for (name, bytes, x) in [
        ("a.ndjson", ndjson.into(), "[1]"),
        ("a.jsonl.gz", gzip(ndjson), "[1]"),
        ("a.csv", csv.into(), "{'n': '1'}"),
        ("a.csv.zst", zstd(csv), "{'n': '1'}"),
        ("a.json.gz", gzip(json), "[1]"),
        ("a.json.zst", zstd(json), "[1]"),
    ] {
        let (text, report) = run(&grid, name, bytes).await.unwrap();
        assert_eq!(sorted(&text), ["2 [2, 3, 5]".to_owned(), format!("x {x}")], "{name}");
        assert_eq!(report.totals.succeeded, 2);
    }
    let options = FileOptions { function: Some("echo".into()), ..FileOptions::default() };
    let (text, _) = run_as(&grid, "a.ndjson", b"5\n\"five\"\n", &options, job_id()).await.unwrap();
    assert_eq!(sorted(&text), ["1 5", "2 five"]);
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_to_run_is_no_job() {
    let ran = Ran::default();
    let grid = open(None, &ran).await;
    let (text, report) = run(&grid, "a.json", "{}").await.unwrap();
    assert_eq!((text.as_str(), report.job, report.commands), ("", None, 0));
    let (text, report) = run(&grid, "a.json", r#"{"a":{"type":"f"},"b":{"type":"g"}}"#).await.unwrap();
    assert_eq!(sorted(&text), ["a f not handled", "b g not handled"]);
    assert_eq!((report.job, report.not_handled), (None, 2));
    assert_eq!(jobs(&grid).await, 0);
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_bad_file_runs() {
    let ran = Ran::default();
    let grid = open(None, &ran).await;
    let good = "{\"a\":{\"type\":\"note\"},\n\"b\":{\"type\":\"note\"},\n";
    for (name, file, code, place, hint) in [
        ("a.json", format!("{good}\"c\":{{\"type\":5}}}}"), "malformed", Some((3, 13)), false),
        ("a.json", format!("{good}\"a\":{{\"type\":\"note\"}}}}"), "duplicate_id", Some((3, 1)), true),
        ("a.json", format!("{good}\"c\":{{"), "truncated", Some((3, 6)), true),
        ("a.json", String::new(), "empty", None, true),
        ("a.json.gz", commands(9, "note"), "corrupt", None, true),
        ("a.txt", "{}".into(), "unknown_format", None, true),
        ("a.pack", "{}".into(), "not_commands", None, false),
    ] {
        let error = run(&grid, name, file).await.unwrap_err();
        assert!(error.is_final() && error.is_of_the_file(), "{error}");
        let report = error.error_report(name);
        assert_eq!((report.file.as_str(), report.code.as_str()), (name, code));
        assert_eq!((report.line.zip(report.column), report.hint.is_some()), (place, hint), "{report:?}");
    }
    assert_eq!(jobs(&grid).await, 0);
    assert!(ran.lock().unwrap().is_empty());
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_whose_order_counts_keeps_it() {
    let ran = Ran::default();
    let grid = open(None, &ran).await;
    let mut file = commands(200, "line");
    file.insert_str(1, "\"x\":{\"type\":\"unknown\"},\"y\":{\"type\":\"note\"},");
    let (text, report) = run(&grid, "a.json", file).await.unwrap();
    assert_eq!((text.lines().count(), report.totals.succeeded, report.not_handled), (202, 201, 1));
    let expected: Vec<String> = std::iter::once("y".into()).chain((0..200).map(|i| i.to_string())).collect();
    assert_eq!(*ran.lock().unwrap(), expected);

    let commands_max = u64::from(limits::ORDERED_TASKS_MAX);
    let error = run(&grid, "a.json", commands(commands_max + 1, "line")).await.unwrap_err();
    assert_eq!(error.error_report("a.json").code, "over_limit");
    assert!(error.to_string().contains("65536"), "{error}");
    assert_eq!(jobs(&grid).await, 1);
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_commands() {
    let ran = Ran::default();
    let grid = open(None, &ran).await;
    let last = AtomicU64::new(0);
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("many.json"), folder.path().join("many.txt"));
    std::fs::write(&path, commands(100_000, "echo")).unwrap();
    let source = FileSource::open(&path, job_id()).unwrap();
    let options = FileOptions::default();
    let report = files::run_to(&grid, source, &options, &out, |progress| {
        assert!(progress.ended <= progress.submitted && progress.submitted <= progress.commands);
        assert!(progress.ended >= last.swap(progress.ended, Ordering::Relaxed));
    });
    let report = report.await.unwrap();
    assert_eq!((report.totals.succeeded, last.load(Ordering::Relaxed)), (100_000, 100_000));
    let text = std::fs::read_to_string(&out).unwrap();
    let mut lines: Vec<(u64, &str)> =
        text.lines().map(|line| line.split_once(' ').unwrap()).map(|(id, rest)| (id.parse().unwrap(), rest)).collect();
    lines.sort_unstable();
    assert_eq!(lines.len(), 100_000);
    assert!((0..).zip(&lines).all(|(i, (id, rest))| i == *id && *rest == format!("{{'n': {i}}}")));
    check_world(&grid);
    grid.shutdown().await;
}

/// Runs a file until it has come a bit of the way, then drops everything.
async fn run_a_bit(grid: &Grid, path: &Path, out: &Path, job: JobId) {
    let source = FileSource::open(path, job).unwrap();
    // So that most is not yet submitted.
    let options = FileOptions { backlog_ms: 1, ..FileOptions::default() };
    let (sender, mut begun) = tokio::sync::mpsc::unbounded_channel();
    tokio::select! {
        report = files::run_to(grid, source, &options, out, move |progress| _ = sender.send(progress.ended)) => {
            panic!("it is through already: {report:?}")
        }
        () = async { while begun.recv().await.unwrap() < 10 {} } => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_was_cut_short_goes_on_and_nothing_runs_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (store, path, out) = (folder.path().join("grid"), folder.path().join("a.json"), folder.path().join("a.txt"));
    let ran = Ran::default();
    let mut file = commands(60, "slow");
    file.insert_str(1, "\"x\":{\"type\":\"later\"},");
    std::fs::write(&path, file).unwrap();
    std::fs::write(&out, "old").unwrap();
    let job = job_id();

    let grid = open(Some(&store), &ran).await;
    run_a_bit(&grid, &path, &out, job).await;
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "old");
    shut_down_idle(grid).await;
    let before = counts(&ran).len();
    assert!(before < 60, "{before}");

    // What has become of functions and estimates since does not matter to the job.
    let grid = open(Some(&store), &ran).await;
    let stranger = Handler::new(|_, _, _| Ok(()));
    declare(&grid, "later", stranger, |_| ()).await;
    let source = FileSource::open(&path, job).unwrap();
    let report = files::run_to(&grid, source, &FileOptions::default(), &out, |_| ()).await.unwrap();
    let text = std::fs::read_to_string(&out).unwrap();
    assert_eq!((report.commands, report.not_handled, report.totals.succeeded), (61, 1, 60), "{text}");
    let mut expected: Vec<String> = (0..60).map(|i| format!("{i} noted")).collect();
    expected.push("x later not handled".into());
    expected.sort_unstable();
    assert_eq!(sorted(&text), expected);
    let counts = counts(&ran);
    assert!(counts.len() == 60 && counts.values().all(|count| *count == 1), "{counts:?}");

    // Once more: everything is there already.
    let again = folder.path().join("again.txt");
    let source = FileSource::open(&path, job).unwrap();
    let report = files::run_to(&grid, source, &FileOptions::default(), &again, |_| ()).await.unwrap();
    assert_eq!(report.totals.succeeded, 60);
    assert_eq!(sorted(&std::fs::read_to_string(&again).unwrap()), expected);
    assert_eq!(ran.lock().unwrap().len(), 60);
    let parts = std::fs::read_dir(folder.path()).unwrap().filter_map(Result::ok);
    assert!(parts.into_iter().all(|entry| !entry.file_name().to_string_lossy().ends_with(".part")));
    check_world(&grid);
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_a_cancelled_job_have_their_line() {
    let ran = Ran::default();
    let grid = open(None, &ran).await;
    let job = job_id();
    let file = commands(2_000, "slow");
    let options = FileOptions::default();
    let running = run_as(&grid, "a.json", file.as_bytes(), &options, job);
    let cancelling = async {
        while ran.lock().unwrap().len() < 5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        grid.cancel(job).await.unwrap();
    };
    let (ran_as, ()) = tokio::join!(running, cancelling);
    let (text, report) = ran_as.unwrap();
    assert_eq!(text.lines().count(), 2_000);
    assert_eq!(report.totals.cancelled + report.totals.succeeded, 2_000);
    assert!(report.totals.cancelled > 1_000);
    let cancelled = text.lines().filter(|line| line.contains(" ERROR cancelled: ")).count() as u64;
    assert_eq!(cancelled, report.totals.cancelled);
    check_world(&grid);
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_written_to_while_it_runs_is_given_up() {
    let ran = Ran::default();
    let grid = open(None, &ran).await;
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (folder.path().join("a.json"), folder.path().join("a.txt"));
    run(&grid, "warm.json", commands(2, "slow")).await.unwrap();
    std::fs::write(&path, many_slow()).unwrap();
    let job = job_id();
    let source = FileSource::open(&path, job).unwrap();
    let writing = path.clone();
    let changed = AtomicU64::new(0);
    let options = FileOptions::default();
    let error = files::run_to(&grid, source, &options, &out, |_| {
        if changed.fetch_add(1, Ordering::Relaxed) == 0 {
            std::fs::write(&writing, commands(10, "slow")).unwrap();
        }
    });
    let error = error.await.unwrap_err();
    assert!(!error.is_final() && error.is_of_the_file(), "{error}");
    assert!(!out.exists());
    let view = grid.progress(job, None, 0).await.unwrap();
    assert!(view.job.state.is_cancelled(), "{:?}", view.job.state);
    assert!(!matches!(view.job.state, JobState::Done { .. }));
    grid.shutdown().await;
}

/// Submits a file in many calls, each of which stops as soon as it may, and gives how many there were.
async fn submit_in_pieces(grid: &Grid, source: &FileSource, checked: files::Checked) -> (Submitted, usize) {
    let mut resume = Resume { chunk: 0, checked: Some(checked) };
    for calls in 1.. {
        let stop = std::future::ready(());
        match files::submit_file(grid, source, &FileOptions::default(), &resume, stop).await.unwrap() {
            Submission::Complete(submitted) => return (submitted, calls),
            Submission::Paused(next) => {
                assert!(next.chunk > resume.chunk, "{next:?} after {resume:?}");
                // As it travels between two processes.
                resume = serde_json::from_str(&serde_json::to_string(&next).unwrap()).unwrap();
            }
        }
    }
    unreachable!()
}

async fn collect(grid: &Grid, source: &FileSource) -> Result<(String, FileReport), FileError> {
    let (options, at_ease) = (FileOptions::default(), (Instant::now(), std::future::pending()));
    let (out, collection) =
        files::collect_file(grid, source, &options, Collecting::default(), at_ease, Vec::new()).await?;
    let Collection::Complete(report) = collection else { panic!("{collection:?}") };
    Ok((String::from_utf8(out).unwrap(), report))
}

/// Collects in many calls, each of which stops as soon as it may and is late, and gives how many there were.
async fn collect_in_pieces(grid: &Grid, source: &FileSource) -> (String, FileReport, usize) {
    let (mut out, mut from) = (Vec::new(), Collecting::default());
    for calls in 1.. {
        let hurried = (Instant::now().checked_sub(Duration::from_secs(120)).unwrap(), std::future::ready(()));
        let collected = files::collect_file(grid, source, &FileOptions::default(), from, hurried, out).await.unwrap();
        let lines = collected.0.iter().filter(|&&byte| byte == b'\n').count() as u64;
        match collected {
            (out, Collection::Complete(report)) => return (String::from_utf8(out).unwrap(), report, calls),
            (so_far, Collection::Paused(next)) => {
                assert_eq!(next.lines(), lines);
                // As it travels between two processes.
                (out, from) = (so_far, serde_json::from_str(&serde_json::to_string(&next).unwrap()).unwrap());
            }
        }
    }
    unreachable!()
}

async fn over(grid: &Grid, job: JobId) {
    let mut seen = None;
    loop {
        let view = grid.progress(job, seen, 1_000).await.unwrap();
        if view.job.state.ended_at_ms().is_some() {
            return;
        }
        seen = Some(view.summary.chunks_ended);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submitting_and_collecting_apart_is_the_same() {
    let ran = Ran::default();
    let grid = open(None, &ran).await;
    let mut file = commands(90, "note");
    file.insert_str(1, r#""x":{"type":"unknown"},"y":{"type":"fail"},"z":{"type":"other"},"#);
    let (whole, report) = run(&grid, "a.json", &file).await.unwrap();
    let sealed = grid.progress(report.job.unwrap(), None, 0).await.unwrap().job.state.seal();

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    std::fs::write(&path, &file).unwrap();
    let at_once = FileSource::open(&path, job_id()).unwrap();
    let (default, never) = (FileOptions::default(), std::future::pending());
    let submitted = files::submit_file(&grid, &at_once, &default, &Resume::default(), never).await.unwrap();
    let Submission::Complete(Submitted { job: Some(job), checked }) = submitted else { panic!("{submitted:?}") };
    assert_eq!((checked.commands, checked.functions.len()), (93, 4));
    over(&grid, job).await;
    let (text, collected) = collect(&grid, &at_once).await.unwrap();
    assert_eq!(sorted(&text), sorted(&whole));
    assert_eq!((collected.commands, collected.not_handled, collected.totals.failed), (93, 2, 1));

    let in_pieces = FileSource::open(&path, job_id()).unwrap();
    let (submitted, calls) = submit_in_pieces(&grid, &in_pieces, checked).await;
    assert!(calls > 3, "{calls} calls");
    let job = submitted.job.unwrap();
    over(&grid, job).await;
    assert_eq!(grid.progress(job, None, 0).await.unwrap().job.state.seal(), sealed);
    assert_eq!(sorted(&collect(&grid, &in_pieces).await.unwrap().0), sorted(&whole));
    // Once more: everything is there already.
    assert_eq!(submit_in_pieces(&grid, &in_pieces, submitted.checked).await.1, 1);
    let runs = counts(&ran);
    assert!(runs.len() == 90 && runs.values().all(|count| *count == 3), "{runs:?}");
    check_world(&grid);
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collecting_in_pieces_is_the_same() {
    let ran = Ran::default();
    let grid = open(None, &ran).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    // More chunks than a page of results has.
    let mut file = commands(80 * 1_024, "note");
    file.insert_str(1, r#""x":{"type":"unknown"},"y":{"type":"fail"},"#);
    std::fs::write(&path, &file).unwrap();
    let source = FileSource::open(&path, job_id()).unwrap();
    let (default, never) = (FileOptions::default(), std::future::pending());
    let submitted = files::submit_file(&grid, &source, &default, &Resume::default(), never).await.unwrap();
    let Submission::Complete(Submitted { job: Some(job), .. }) = submitted else { panic!("{submitted:?}") };
    over(&grid, job).await;
    let (whole, report) = collect(&grid, &source).await.unwrap();
    let (pieces, again, calls) = collect_in_pieces(&grid, &source).await;
    assert!(calls >= 4, "{calls} calls");
    assert_eq!((again.commands, again.not_handled, again.totals), (80 * 1_024 + 2, 1, report.totals));
    assert!(sorted(&pieces) == sorted(&whole), "other lines");
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_read_for_its_results_only_if_it_has_to_be() {
    let ran = Ran::default();
    let grid = open(None, &ran).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    for (file, needed) in [(commands(9, "note"), false), (commands(9, "unknown"), true)] {
        std::fs::write(&path, file).unwrap();
        let source = FileSource::open(&path, job_id()).unwrap();
        let (default, never) = (FileOptions::default(), std::future::pending());
        let submitted = files::submit_file(&grid, &source, &default, &Resume::default(), never).await.unwrap();
        let Submission::Complete(submitted) = submitted else { panic!("{submitted:?}") };
        assert_eq!(submitted.job.is_none(), needed);
        if let Some(job) = submitted.job {
            over(&grid, job).await;
        }
        std::fs::write(&path, "").unwrap();
        let collected = collect(&grid, &source).await;
        assert_eq!(collected.is_err(), needed, "{collected:?}");
    }
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collecting_waits_for_nobody_and_tells_of_a_cancelled_job() {
    let ran = Ran::default();
    let grid = open(None, &ran).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    let mut file = commands(200, "slow");
    file.insert_str(1, r#""x":{"type":"unknown"},"#);
    std::fs::write(&path, file).unwrap();
    let source = FileSource::open(&path, job_id()).unwrap();
    let (default, stop) = (FileOptions::default(), std::future::ready(()));
    let error = files::submit_file(&grid, &source, &default, &Resume::default(), stop).await.unwrap_err();
    assert!(matches!(error, FileError::TooLong) && error.is_final() && error.is_of_the_file(), "{error}");
    assert_eq!(jobs(&grid).await, 0);

    // A bit of it, by whoever knows that the file is good.
    let checked = files::Checked { commands: 201, functions: vec!["unknown".into(), "slow".into()], bytes: 0 };
    let bytes = std::fs::metadata(&path).unwrap().len();
    let resume = Resume { chunk: 0, checked: Some(files::Checked { bytes, ..checked }) };
    let submitted = files::submit_file(&grid, &source, &default, &resume, std::future::ready(())).await.unwrap();
    let Submission::Paused(resume) = submitted else { panic!("{submitted:?}") };
    let error = collect(&grid, &source).await.unwrap_err();
    assert!(matches!(error, FileError::NotOver { .. }) && !error.is_final(), "{error}");

    let jobs = grid.jobs(JobFilter::default()).await.unwrap().rows;
    let job = jobs[0].job.id;
    grid.cancel(job).await.unwrap();
    over(&grid, job).await;
    let submitted = files::submit_file(&grid, &source, &default, &resume, std::future::pending()).await.unwrap();
    assert!(matches!(submitted, Submission::Complete(_)), "{submitted:?}");
    let (text, report) = collect(&grid, &source).await.unwrap();
    assert_eq!((text.lines().count(), report.commands, report.not_handled), (201, 201, 1));
    assert_eq!(report.totals.cancelled + report.totals.succeeded, 200);
    assert!(report.totals.cancelled > 100);
    // Results, that there are no more, what nobody handles, what was cancelled: each in a call of its own.
    let (pieces, again, calls) = collect_in_pieces(&grid, &source).await;
    assert_eq!((sorted(&pieces), calls), (sorted(&text), 4));
    assert_eq!((again.totals, again.not_handled), (report.totals, report.not_handled));
    check_world(&grid);
    grid.shutdown().await;
}
