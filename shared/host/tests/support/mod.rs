//! What the tests share: packages made on the spot, calls, and readable reports.
#![allow(dead_code, reason = "each test binary uses some of it")]
#![allow(unreachable_pub, reason = "a module of test binaries")]

use std::{
    collections::BTreeMap,
    io::{Cursor, Write},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use sheaf_api::{PackBuilder, Segment, SegmentBuilder};
use sheaf_core::{ChunkKey, Digest, Failure, FunctionKind, JobId, Manifest};
use sheaf_host::{Call, Host, HostOptions, PackageSource, Report};
use tempfile::TempDir;
use zip::{ZipWriter, write::SimpleFileOptions};

pub const BOOTSTRAP: &str = include_str!("bootstrap.py");

/// Whether tests that need Python can run; says so loudly when not.
pub fn has_python() -> bool {
    let there = Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        use std::io::Write;
        // Past the capture of test output.
        let _ = std::io::stderr().write_all(b"\nSKIPPED: python3 is not installed, so this test checked nothing\n");
    }
    there
}

/// Packages in memory.
#[derive(Default)]
pub struct Zips {
    pub by_digest: BTreeMap<Digest, Bytes>,
    pub fetches: AtomicUsize,
}

impl PackageSource for Zips {
    fn fetch(&self, digest: Digest) -> BoxFuture<'_, Result<Bytes, String>> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let zip = self.by_digest.get(&digest).cloned();
        Box::pin(async move { zip.ok_or_else(|| "no such blob".to_owned()) })
    }
}

pub fn zip(files: &[(&str, &str, u32)]) -> Bytes {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content, mode) in files {
        writer.start_file(*name, SimpleFileOptions::default().unix_permissions(*mode)).expect("a name");
        writer.write_all(content.as_bytes()).expect("memory");
    }
    writer.finish().expect("memory").into_inner().into()
}

/// A host in a directory of its own, with the Python function as its only package.
pub struct Bench {
    pub dir: TempDir,
    pub host: Host,
    pub digest: Digest,
    pub zips: Arc<Zips>,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(|options| options)
    }

    pub fn with(change: impl FnOnce(HostOptionsWith) -> HostOptionsWith) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let zip = zip(&[("bootstrap", BOOTSTRAP, 0o755), ("asset.txt", "here", 0o644)]);
        let digest = Digest::of(&zip);
        let zips = Arc::new(Zips { by_digest: BTreeMap::from([(digest, zip)]), ..Zips::default() });
        let with = change(HostOptionsWith::default());
        let options =
            HostOptions::builder().scratch(dir.path()).slots(with.slots).idle(with.idle).handlers(with.handlers);
        let host = Host::open(options.packages(Arc::clone(&zips) as Arc<dyn PackageSource>).build()).expect("a host");
        Self { dir, host, digest, zips }
    }

    pub fn manifest(&self, start: &str) -> Manifest {
        let kind = FunctionKind::Package { digest: self.digest, handler: start.into() };
        Manifest::new("test".parse().expect("a name"), kind)
    }

    /// Runs payloads as one call of the Python function.
    pub async fn run(&self, payloads: &[&str]) -> Report {
        self.host.call(call(self.manifest("main"), payloads)).await
    }
}

pub struct HostOptionsWith {
    pub slots: usize,
    pub idle: Duration,
    pub handlers: sheaf_host::Handlers,
}

impl Default for HostOptionsWith {
    fn default() -> Self {
        Self { slots: 2, idle: Duration::from_secs(60), handlers: sheaf_host::Handlers::new() }
    }
}

pub fn command(argv: &[&str]) -> Manifest {
    let argv = argv.iter().map(|&argument| argument.to_owned()).collect();
    Manifest::new("command".parse().expect("a name"), FunctionKind::Command { argv })
}

pub fn handler(name: &str) -> Manifest {
    Manifest::new(name.parse().expect("a name"), FunctionKind::Handler { revision: String::new() })
}

/// A call of all payloads.
pub fn call(manifest: Manifest, payloads: &[&str]) -> Call {
    let payloads: Vec<&[u8]> = payloads.iter().map(|payload| payload.as_bytes()).collect();
    call_bytes(manifest, &payloads)
}

pub fn call_bytes(manifest: Manifest, payloads: &[&[u8]]) -> Call {
    let mut pack = PackBuilder::new();
    payloads.iter().for_each(|payload| pack.push(payload).expect("a payload"));
    let canonical = serde_json::to_vec(&manifest).expect("JSON");
    Call {
        tenant: sheaf_core::TenantId::default(),
        function: manifest.reference(&canonical),
        manifest: Arc::new(manifest),
        chunk: ChunkKey { job: JobId::from_bytes([7; 16]), number: 3 },
        epoch: 2,
        pack: pack.finish(false),
        tasks: (0..payloads.len() as u32).collect(),
        deadline_ms: None,
        budget: None,
        stop_on_failure: false,
        checkpoint: None,
    }
}

/// The entries of a segment under construction, as text.
pub fn entries(builder: &mut SegmentBuilder) -> BTreeMap<u32, String> {
    if builder.is_empty() {
        return BTreeMap::new();
    }
    let segment = Segment::parse(builder.finish(false)).expect("what a builder encodes");
    segment.entries().map(|entry| (entry.task, String::from_utf8_lossy(entry.answer).into_owned())).collect()
}

/// The answers as text.
pub fn answers(report: &mut Report) -> BTreeMap<u32, String> {
    entries(&mut report.answers)
}

/// The only failure, which is of this task.
pub fn failure(report: &Report, task: u32) -> &Failure {
    assert!(report.unanswered.is_none(), "{report:?}");
    let of_task: Vec<_> = report.failures.iter().filter(|failed| failed.task == task).collect();
    assert_eq!(of_task.len(), 1, "{report:?}");
    &of_task[0].failure
}

pub fn is_alive(pid: i32) -> bool {
    // A zombie has ended; only its parent has not looked yet.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z")))
}

/// Waits until something holds; panics after 10 s.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < until, "{what} did not come true");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The process ids that a file holds, once it is written.
pub async fn pids(file: &Path) -> Vec<i32> {
    let read = || -> Option<Vec<i32>> {
        let text = std::fs::read_to_string(file).ok()?;
        let pids: Vec<i32> = text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        (pids.len() == 2).then_some(pids)
    };
    eventually("a file with two process ids", || read().is_some()).await;
    read().expect("just seen")
}

/// What children left in the host's directory; empty directories, kept for the next ones, are nothing.
pub fn left_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("run")).expect("a host was here");
    let dirs = entries.map(|entry| entry.expect("readable").path()).filter(|path| path.is_dir());
    let files = dirs.filter_map(|dir| std::fs::read_dir(dir).ok()).flatten();
    files.map(|file| file.expect("readable").path().display().to_string()).collect()
}
