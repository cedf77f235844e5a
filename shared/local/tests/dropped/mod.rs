//! A grid with a few functions, for the tests of dropped files.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use sheaf_api::{
    Api,
    wire::{JobFilter, JobView, PutFunction},
};
use sheaf_core::{
    ChunkKey, Failure, FailureKind, FunctionKind, JobId, Lane, Manifest, Priority, ResultForm, TenantId, invariant,
};
use sheaf_local::{Grid, GridOptions, Handler};
use sheaf_protocol::{ChunkQueue, Hint, Ports};

/// What ran: the keys of tasks in the order they ran, of every function that notes it.
pub(crate) type Ran = Arc<Mutex<Vec<String>>>;

pub(crate) fn job_id() -> JobId {
    JobId::from_uuid(uuid::Uuid::now_v7())
}

pub(crate) async fn declare(grid: &Grid, name: &str, handler: Handler, change: impl FnOnce(&mut Manifest)) {
    grid.handlers().insert(name.parse().unwrap(), "", handler);
    let mut manifest = Manifest::new(name.parse().unwrap(), FunctionKind::Handler { revision: String::new() });
    change(&mut manifest);
    grid.put_function(PutFunction { manifest, package: None }).await.unwrap();
}

/// Waits until everything that was submitted has ended, and shuts the grid down. A grid goes on with what is queued as soon as
/// it is opened, before handlers can be added to it; so nothing may be. A submission that was dropped halfway may have left
/// a chunk without a hint, for the sweeper to find after a minute: here it has one at once.
pub(crate) async fn shut_down_idle(grid: Grid) {
    loop {
        let jobs = grid.jobs(JobFilter::default()).await.unwrap().rows;
        let busy: Vec<_> =
            jobs.iter().filter(|view| view.summary.chunks_ended < view.summary.chunks_submitted).collect();
        if busy.is_empty() {
            break;
        }
        let hint = |job, number| Hint {
            key: ChunkKey { job, number },
            tenant: TenantId::default(),
            lane: Lane::default(),
            priority: Priority::default(),
            pack: None,
            hedge: false,
        };
        let chunks = |view: &&JobView| 0..view.summary.chunks_submitted as u32;
        let hints = busy.iter().flat_map(|view| chunks(view).map(|number| hint(view.job.id, number))).collect();
        grid.ports().queue().send(hints, 0).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    grid.shutdown().await;
}

fn constant(result: &'static [u8]) -> Handler {
    Handler::new(move |_, _, out| {
        out.extend_from_slice(result);
        Ok(())
    })
}

/// `echo` gives its arguments; `primes`, `nothing`, `words` (a JSON string of two lines), `poem` (text), `letters` and `blob`
/// (bytes) always the same; `note` and `line` (ordered) note that they ran; `slow` too, after 20 ms; `fail` and `fall` fail.
pub(crate) async fn open(directory: Option<&Path>, ran: &Ran) -> Grid {
    let options = GridOptions {
        directory: directory.map(Into::into),
        slots: 2,
        grace: Duration::from_millis(50),
        ..GridOptions::default()
    };
    let grid = Grid::open(options).await.expect("a grid opens");
    let echo = Handler::new(|_, payload, out| {
        out.extend_from_slice(payload);
        Ok(())
    });
    let noting = |pause: Duration| {
        let ran = ran.clone();
        Handler::new(move |context, _, out| {
            std::thread::sleep(pause);
            ran.lock().unwrap().push(context.key().to_owned());
            out.extend_from_slice(b"\"noted\"");
            Ok(())
        })
    };
    let fail = Handler::new(|_, _, _| Err(Failure::new(FailureKind::Error, "no such row").with_type("KeyError")));
    let fall = Handler::new(|_, _, _| panic!("over the edge"));
    declare(&grid, "echo", echo, |_| ()).await;
    declare(&grid, "primes", constant(b"[2,3,5]"), |_| ()).await;
    declare(&grid, "nothing", constant(b"null"), |_| ()).await;
    declare(&grid, "words", constant(br#""first\nsecond""#), |_| ()).await;
    declare(&grid, "poem", constant(b"roses\nviolets"), |manifest| manifest.result = ResultForm::Text).await;
    declare(&grid, "letters", constant("höher".as_bytes()), |manifest| manifest.result = ResultForm::Bytes).await;
    declare(&grid, "blob", constant(b"\xff\x00\x01"), |manifest| manifest.result = ResultForm::Bytes).await;
    declare(&grid, "note", noting(Duration::ZERO), |_| ()).await;
    declare(&grid, "slow", noting(Duration::from_millis(20)), |_| ()).await;
    declare(&grid, "line", noting(Duration::ZERO), |manifest| manifest.ordered = true).await;
    declare(&grid, "fail", fail, |_| ()).await;
    declare(&grid, "fall", fall, |_| ()).await;
    grid
}

/// A command file of `count` commands of a function, with ids from 0 on and arguments of their own.
pub(crate) fn commands(count: u64, function: &str) -> String {
    let commands: Vec<String> =
        (0..count).map(|i| format!(r#""{i}":{{"type":"{function}","arguments":{{"n":{i}}}}}"#)).collect();
    format!("{{{}}}", commands.join(",\n"))
}

/// 3,000 commands of a kilobyte each. Once it is known how long `slow` takes, most of them are unread when results come.
pub(crate) fn many_slow() -> String {
    let filler = "x".repeat(1_000);
    let lines: Vec<String> = (0..3_000).map(|i| format!(r#""{i}":{{"type":"slow","arguments":"{filler}"}}"#)).collect();
    format!("{{{}}}", lines.join(",\n"))
}

/// The lines of results, sorted.
pub(crate) fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// How often each key ran.
pub(crate) fn counts(ran: &Ran) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for key in ran.lock().unwrap().iter() {
        *counts.entry(key.clone()).or_default() += 1;
    }
    counts
}

pub(crate) fn check_world(grid: &Grid) {
    assert_eq!(invariant::check_world(&grid.ports().store().world().unwrap()), []);
}
