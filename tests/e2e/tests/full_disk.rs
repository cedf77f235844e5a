//! A disk that is full: the grid stops with a clear message and acknowledges nothing more; with room again, all that was
//! acknowledged is there and the client goes on.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use sheaf::Function;
use sheaf_e2e::{Up, examples, skip, text};

/// A small file system in memory, unmounted in the end.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(path: &'a Path, megabytes: u32) -> Option<Self> {
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output();
        mounted.is_ok_and(|mounted| mounted.status.success()).then_some(Self(path))
    }

    fn grow(&self, megabytes: u32) {
        let size = format!("remount,size={megabytes}m");
        assert!(Command::new("mount").args(["-o", &size]).arg(self.0).status().unwrap().success());
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_the_grid_and_loses_nothing() {
    const TASKS: u64 = 150_000;
    let directory = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(directory.path(), 130) else { skip!("a small file system cannot be mounted here") };
    let elsewhere = tempfile::tempdir().unwrap();
    let functions = elsewhere.path().join("functions.toml");
    std::fs::write(&functions, format!("[functions.echo]\npackage = {:?}\nbatch = true\n", examples())).unwrap();
    let journal = elsewhere.path().join("journal");
    let mut up = Up::start(directory.path(), &[functions]).unwrap();
    let echo = Function::<(u64, String), (u64, String)>::named("echo");
    let items = || (0..TASKS).map(|item| (item, "x".repeat(1_000)));
    let token = up.token_file().unwrap();

    // It fills the disk half-way.
    let grid = sheaf::builder().grid(up.url()).token_file(&token).connect().await.unwrap();
    let mut results = grid.job("full").journal(&journal).map(&echo, items()).start().await.unwrap();
    let until = Instant::now() + Duration::from_secs(150);
    let ended = loop {
        if let Some(status) = up.ended() {
            break status;
        }
        assert!(Instant::now() < until, "sheaf up goes on");
        match tokio::time::timeout(Duration::from_millis(100), results.next()).await {
            Ok(Some(Ok(result))) => assert_eq!(result.outcome.unwrap().0, result.index),
            Ok(Some(Err(error))) => println!("the client was told: {error}"),
            Ok(None) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert_eq!(ended.code(), Some(1));
    let log = text(&std::fs::read(directory.path().join("up.log")).unwrap_or_default());
    println!("sheaf up said: {}", log.lines().rev().take(6).collect::<Vec<_>>().join(" | "));
    drop((results, grid));

    // With room again, the same client goes on where it was.
    small.grow(2_000);
    up.restart().unwrap();
    let grid = sheaf::builder().grid(up.url()).token_file(&token).connect().await.unwrap();
    // What was dropped goes on submitting in the background, as it should, and has the journal until it is through.
    let mut results = loop {
        match grid.job("full").journal(&journal).give_again().map(&echo, items()).start().await {
            Ok(results) => break results,
            Err(error) => assert!(error.to_string().contains("journal") && Instant::now() < until, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let mut seen = vec![false; TASKS as usize];
    while let Some(result) = results.next().await {
        let result = result.unwrap();
        assert_eq!(result.outcome.unwrap().0, result.index);
        assert!(!std::mem::replace(&mut seen[result.index as usize], true));
    }
    assert!(seen.iter().all(|seen| *seen));
}
