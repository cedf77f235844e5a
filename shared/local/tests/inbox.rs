//! A watched folder: what is dropped into it is taken once, whole, and answered.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod dropped;

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use dropped::{Ran, check_world, commands, counts, many_slow, open, shut_down_idle, sorted};
use sheaf_api::{Api, intake::ErrorReport, wire::JobFilter};
use sheaf_local::{
    Grid,
    inbox::{Inbox, InboxError, InboxEvent, InboxOptions},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Desk {
    folder: PathBuf,
    events: Arc<Mutex<Vec<InboxEvent>>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Desk {
    async fn start(grid: &Grid, folder: &Path) -> Self {
        Self::start_with(grid, folder, |_| ()).await.unwrap()
    }

    async fn start_with(
        grid: &Grid,
        folder: &Path,
        change: impl FnOnce(&mut InboxOptions),
    ) -> Result<Self, InboxError> {
        let mut options = InboxOptions::new(folder.join("inbox"), folder.join("outbox"));
        (options.quiet, options.grace) = (Duration::from_millis(200), Duration::from_millis(400));
        change(&mut options);
        std::fs::create_dir_all(&options.inbox).unwrap();
        let (events, stop) = (Arc::<Mutex<Vec<_>>>::default(), CancellationToken::new());
        let inbox = Inbox::open(Arc::new(grid.clone()), options).await?.on_event({
            let events = events.clone();
            move |event| events.lock().unwrap().push(event.clone())
        });
        let task = tokio::spawn(inbox.run(stop.clone()));
        Ok(Self { folder: folder.into(), events, stop, task })
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn drop_file(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path("inbox").join(name), text).unwrap();
    }

    /// Reads a file once it is there.
    async fn read(&self, name: &str) -> String {
        let path = self.path(name);
        self.until(name, || path.exists()).await;
        std::fs::read_to_string(path).unwrap()
    }

    async fn until(&self, what: &str, mut is: impl FnMut() -> bool) {
        for _ in 0..1_000 {
            if is() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no {what} after 20 s: {:?}", self.events.lock().unwrap());
    }

    fn count(&self, is: impl Fn(&InboxEvent) -> bool) -> usize {
        self.events.lock().unwrap().iter().filter(|event| is(event)).count()
    }

    fn finished(&self, name: &str) -> usize {
        self.count(|event| matches!(event, InboxEvent::Finished { file, .. } if file == name))
    }

    fn taken(&self, name: &str) -> usize {
        self.count(|event| matches!(event, InboxEvent::Taken { file, .. } if file == name))
    }

    fn refused(&self, name: &str) -> usize {
        self.count(|event| matches!(event, InboxEvent::Refused { file, .. } if file == name))
    }
}

async fn jobs(grid: &Grid) -> usize {
    grid.jobs(JobFilter::default()).await.unwrap().rows.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_and_bad_files_are_answered() {
    let (folder, ran) = (tempfile::tempdir().unwrap(), Ran::default());
    let grid = open(None, &ran).await;
    let desk = Desk::start(&grid, folder.path()).await;
    for ignored in [".hidden.json", "a.json.tmp", "b.part", "c.json~"] {
        desk.drop_file(ignored, "{");
    }
    std::fs::create_dir(desk.path("inbox/folder.json")).unwrap();
    std::fs::write(desk.path("elsewhere.json"), commands(1, "echo")).unwrap();
    std::os::unix::fs::symlink(desk.path("elsewhere.json"), desk.path("inbox/link.json")).unwrap();
    desk.drop_file("bad.json", "{\"a\":{\"type\":\"note\"},\n\"b\":[]}");
    desk.drop_file("good.json", r#"{"a":{"type":"primes"},"b":{"type":"nothing"},"c":{"type":"juggle"}}"#);
    desk.drop_file("empty.json", "{}");
    desk.drop_file("read.me", "hello");
    desk.drop_file("rows.csv", "type,n\necho,1\n");

    assert_eq!(sorted(&desk.read("outbox/good.txt").await), ["a [2, 3, 5]", "b None", "c juggle not handled"]);
    assert_eq!(desk.read("outbox/empty.txt").await, "");
    assert_eq!(desk.read("outbox/rows.txt").await, "1 {'n': '1'}\n");
    let report: ErrorReport = serde_json::from_str(&desk.read("outbox/bad.error.json").await).unwrap();
    assert_eq!((report.file.as_str(), report.code.as_str()), ("bad.json", "malformed"));
    assert_eq!((report.line, report.column), (Some(2), Some(5)));
    let report: ErrorReport = serde_json::from_str(&desk.read("outbox/read.me.error.json").await).unwrap();
    assert_eq!(report.code, "unknown_format");
    for name in ["processed/good.json", "processed/empty.json", "processed/rows.csv"] {
        desk.read(name).await;
    }
    for name in ["processed/failed/bad.json", "processed/failed/read.me"] {
        desk.read(name).await;
    }
    assert!(ran.lock().unwrap().is_empty());

    // Mended: the report goes.
    desk.drop_file("bad.json", commands(2, "note"));
    assert_eq!(sorted(&desk.read("outbox/bad.txt").await), ["0 noted", "1 noted"]);
    desk.until("end of the stale report", || !desk.path("outbox/bad.error.json").exists()).await;
    desk.read("processed/bad.json").await;
    let mut left: Vec<_> =
        std::fs::read_dir(desk.path("inbox")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort_unstable();
    assert_eq!(left, [".hidden.json", "a.json.tmp", "b.part", "c.json~", "folder.json", "link.json"]);
    check_world(&grid);
    desk.stop().await;
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_taken_when_it_is_complete() {
    let (folder, ran) = (tempfile::tempdir().unwrap(), Ran::default());
    let grid = open(None, &ran).await;
    let desk = Desk::start(&grid, folder.path()).await;
    let text = commands(20, "note");
    // Both halves are well-formed: only the open file tells that there is more to come.
    let lines = (0..20).map(|i| format!("{{\"id\":{i},\"type\":\"note\"}}\n")).collect::<Vec<_>>();
    let mut open_file = File::create(desk.path("inbox/open.ndjson")).unwrap();
    open_file.write_all(lines[..10].concat().as_bytes()).unwrap();
    // Nobody has this one open, but it stops in the middle: there is the grace period.
    desk.drop_file("halves.json", &text[..200]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    OpenOptions::new()
        .append(true)
        .open(desk.path("inbox/halves.json"))
        .and_then(|mut file| file.write_all(&text.as_bytes()[200..]))
        .unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(desk.taken("open.ndjson"), 0);
    open_file.write_all(lines[10..].concat().as_bytes()).unwrap();
    drop(open_file);
    assert_eq!(desk.read("outbox/open.txt").await.lines().count(), 20);
    assert_eq!(desk.read("outbox/halves.txt").await.lines().count(), 20);
    desk.until("second end", || desk.finished("open.ndjson") + desk.finished("halves.json") == 2).await;
    assert_eq!((desk.taken("open.ndjson"), desk.refused("halves.json")), (1, 0));
    assert!(counts(&ran).values().all(|count| *count == 2));
    desk.stop().await;
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_stops_in_the_middle_is_refused_until_it_changes() {
    let (folder, ran) = (tempfile::tempdir().unwrap(), Ran::default());
    let grid = open(None, &ran).await;
    let text = commands(5, "note");
    let mut desk = Desk::start(&grid, folder.path()).await;
    desk.drop_file("cut.json", &text[..60]);
    for _ in 0..2 {
        let report: ErrorReport = serde_json::from_str(&desk.read("outbox/cut.error.json").await).unwrap();
        assert_eq!(report.code, "truncated");
        assert!(report.line.is_some() && report.hint.is_some());
        desk.until("refusal", || desk.refused("cut.json") == 1).await;
        tokio::time::sleep(Duration::from_millis(800)).await;
        assert_eq!((desk.refused("cut.json"), desk.taken("cut.json")), (1, 2));
        // The next grid says the same.
        desk.stop().await;
        desk = Desk::start(&grid, folder.path()).await;
    }
    desk.drop_file("cut.json", &text);
    assert_eq!(desk.read("outbox/cut.txt").await.lines().count(), 5);
    desk.until("end of the stale report", || !desk.path("outbox/cut.error.json").exists()).await;
    assert_eq!(ran.lock().unwrap().len(), 5);
    desk.stop().await;
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_dropped_again_keeps_the_old_results_until_the_new_ones_are_complete() {
    let (folder, ran) = (tempfile::tempdir().unwrap(), Ran::default());
    let grid = open(None, &ran).await;
    let desk = Desk::start(&grid, folder.path()).await;
    desk.drop_file("a.json", commands(3, "note"));
    assert_eq!(desk.read("outbox/a.txt").await.lines().count(), 3);
    desk.until("processed file", || desk.path("processed/a.json").exists()).await;
    desk.drop_file("a.json", commands(100, "slow"));
    desk.until("second taking", || desk.taken("a.json") == 2 && ran.lock().unwrap().len() > 10).await;
    assert_eq!(desk.read("outbox/a.txt").await.lines().count(), 3);
    desk.until("second end", || desk.finished("a.json") == 2).await;
    assert_eq!(desk.read("outbox/a.txt").await.lines().count(), 100);
    desk.until("second processed file", || desk.path("processed/a.json.1").exists()).await;

    // Bytes of before are a new job all the same; a file that is moved back is not.
    let notes = || ran.lock().unwrap().len();
    assert_eq!(notes(), 103);
    std::fs::rename(desk.path("processed/a.json.1"), desk.path("inbox/a.json")).unwrap();
    desk.until("third end", || desk.finished("a.json") == 3).await;
    assert_eq!((notes(), jobs(&grid).await), (103, 2));
    desk.until("third move", || desk.path("processed/a.json.1").exists()).await;
    desk.drop_file("a.json", commands(3, "note"));
    desk.until("fourth end", || desk.finished("a.json") == 4).await;
    assert_eq!((notes(), jobs(&grid).await), (106, 3));
    desk.stop().await;
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_replaced_while_it_runs_is_followed_by_its_successor() {
    let (folder, ran) = (tempfile::tempdir().unwrap(), Ran::default());
    let grid = open(None, &ran).await;
    let desk = Desk::start(&grid, folder.path()).await;
    desk.drop_file("warm.json", commands(2, "slow"));
    desk.read("outbox/warm.txt").await;
    desk.drop_file("a.json", commands(60, "slow"));
    desk.drop_file("b.json", many_slow());
    desk.until("first results", || ran.lock().unwrap().len() > 5).await;
    // One is replaced in one step, the other is written over in place.
    desk.drop_file("a.json.tmp", commands(4, "note"));
    std::fs::rename(desk.path("inbox/a.json.tmp"), desk.path("inbox/a.json")).unwrap();
    let under_way = |event: &InboxEvent| matches!(event, InboxEvent::Progress { file, .. } if file == "b.json");
    desk.until("second file under way", || desk.count(under_way) > 0).await;
    desk.drop_file("b.json", commands(7, "note"));
    desk.until("ends", || desk.finished("a.json") == 2 && desk.finished("b.json") == 1).await;
    assert_eq!(desk.read("outbox/a.txt").await.lines().count(), 4);
    assert_eq!(desk.read("outbox/b.txt").await.lines().count(), 7);
    let first = desk.events.lock().unwrap().iter().find_map(|event| match event {
        InboxEvent::Finished { file, report, .. } if file == "a.json" => Some(report.commands),
        _ => None,
    });
    assert_eq!(first, Some(60));
    desk.until("empty inbox", || std::fs::read_dir(desk.path("inbox")).unwrap().next().is_none()).await;
    desk.stop().await;
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_one_stem_do_not_write_over_each_other() {
    let (folder, ran) = (tempfile::tempdir().unwrap(), Ran::default());
    let grid = open(None, &ran).await;
    let desk = Desk::start(&grid, folder.path()).await;
    desk.drop_file("a.json", commands(3, "echo"));
    desk.until("first end", || desk.finished("a.json") == 1 && desk.path("processed/a.json").exists()).await;
    desk.drop_file("a.csv", "type\necho\n");
    desk.drop_file("a.ndjson", "{");
    assert_eq!(desk.read("outbox/a.csv.txt").await, "1 {}\n");
    desk.read("outbox/a.ndjson.error.json").await;
    assert_eq!(desk.read("outbox/a.txt").await.lines().count(), 3);
    desk.stop().await;
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_file_does_not_hold_up_a_small_one() {
    let (folder, ran) = (tempfile::tempdir().unwrap(), Ran::default());
    let grid = open(None, &ran).await;
    let desk = Desk::start(&grid, folder.path()).await;
    desk.drop_file("warm.json", commands(2, "slow"));
    desk.read("outbox/warm.txt").await;
    desk.drop_file("huge.json", commands(4_000, "slow"));
    desk.until("huge file under way", || ran.lock().unwrap().len() > 5).await;
    for i in 0..6 {
        desk.drop_file(&format!("small{i}.json"), commands(2, "echo"));
    }
    for i in 0..6 {
        assert_eq!(desk.read(&format!("outbox/small{i}.txt")).await.lines().count(), 2);
    }
    assert_eq!(desk.finished("huge.json"), 0);
    desk.stop().await;
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grid_that_is_killed_goes_on_with_its_files() {
    let (folder, ran) = (tempfile::tempdir().unwrap(), Ran::default());
    let store = folder.path().join("grid");
    let grid = open(Some(&store), &ran).await;
    // So that most is not yet submitted when it stops.
    let desk = Desk::start_with(&grid, folder.path(), |options| options.file.backlog_ms = 1).await.unwrap();
    desk.drop_file("a.json", commands(80, "slow"));
    desk.drop_file("b.json", commands(40, "slow"));
    desk.until("a few results", || ran.lock().unwrap().len() > 10).await;
    desk.stop().await;
    shut_down_idle(grid).await;
    assert!(ran.lock().unwrap().len() < 120);
    assert!(!folder.path().join("outbox/a.txt").exists());

    let grid = open(Some(&store), &ran).await;
    let desk = Desk::start(&grid, folder.path()).await;
    for (name, lines) in [("a", 80), ("b", 40)] {
        let text = desk.read(&format!("outbox/{name}.txt")).await;
        let mut ids: Vec<u32> =
            text.lines().map(|line| line.strip_suffix(" noted").unwrap().parse().unwrap()).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..lines).collect::<Vec<_>>());
    }
    let counts = counts(&ran);
    let expected = |id: u32| if id < 40 { 2 } else { 1 };
    assert!((0..80).all(|id| counts[&id.to_string()] == expected(id)), "{counts:?}");
    assert_eq!(jobs(&grid).await, 2);
    check_world(&grid);
    desk.stop().await;
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_inbox_is_no_place_for_results() {
    let (folder, ran) = (tempfile::tempdir().unwrap(), Ran::default());
    let grid = open(None, &ran).await;
    let refused = Desk::start_with(&grid, folder.path(), |options| options.outbox = options.inbox.clone()).await;
    assert!(matches!(refused, Err(InboxError::Same { .. })));
    grid.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_may_not_be_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, ran) = (tempfile::tempdir().unwrap(), Ran::default());
    let grid = open(None, &ran).await;
    let path = folder.path().join("inbox/a.json");
    std::fs::create_dir(folder.path().join("inbox")).unwrap();
    std::fs::write(&path, commands(1, "note")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    let may_read_all = File::open(&path).is_ok();
    let desk = Desk::start(&grid, folder.path()).await;
    if may_read_all {
        // Root reads it all the same.
        desk.read("outbox/a.txt").await;
    } else {
        let report: ErrorReport = serde_json::from_str(&desk.read("outbox/a.error.json").await).unwrap();
        assert_eq!(report.code, "unreadable");
        desk.until("move", || folder.path().join("processed/failed/a.json").exists()).await;
    }
    desk.stop().await;
    grid.shutdown().await;
}
