//! Files dropped into the inbox of a running grid: good ones, and every kind of bad one.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::{
    fs,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use sheaf_e2e::{Up, examples};

fn start(directory: &Path) -> Up {
    let file = directory.join("functions.toml");
    let package = examples();
    let declare = |name: &str| format!("[functions.{name}]\npackage = {package:?}\n");
    fs::write(&file, ["greet", "prime_numbers", "typeB"].map(declare).concat() + &declare("echo") + "batch = true\n")
        .unwrap();
    Up::start(directory, &[file]).unwrap()
}

fn wait_for(path: &Path, seconds: u64) -> String {
    let until = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Ok(text) = fs::read_to_string(path) {
            return text;
        }
        assert!(Instant::now() < until, "{} does not appear", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn files_are_taken_in_whatever_state_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let up = start(directory.path());
    let (inbox, outbox) = (up.inbox(), up.outbox());

    // A writer that pauses half-way: the file is not taken before it is whole.
    let mut slow = fs::File::create(inbox.join("slow.json")).unwrap();
    slow.write_all(br#"{"a":{"type":"greet","arguments":{"arg1":"Hello","#).unwrap();
    slow.sync_all().unwrap();

    fs::write(inbox.join("malformed.json"), "{\"1\": {\"type\": \"greet\",\n \"arguments\": oops}}").unwrap();
    fs::write(inbox.join("empty.json"), "").unwrap();
    fs::write(inbox.join("half.json"), r#"{"1":{"type":"greet","arguments":{"arg1":"#).unwrap();
    fs::write(inbox.join("nothing.json"), "{}").unwrap();
    fs::write(
        inbox.join("good.json"),
        r#"{"1":{"type":"prime_numbers","arguments":{"n":30}},"b":{"type":"greet","arguments":{"arg1":"Hello","arg2":"world"}},"c":{"type":"nobody"}}"#,
    )
    .unwrap();

    let good = wait_for(&outbox.join("good.txt"), 20);
    let mut lines: Vec<&str> = good.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["1 [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]", "b Hello world", "c nobody not handled"]);

    let report = |name: &str| serde_json::from_str::<serde_json::Value>(&wait_for(&outbox.join(name), 20)).unwrap();
    let malformed = report("malformed.error.json");
    assert_eq!((malformed["line"].as_u64(), malformed["column"].is_u64()), (Some(2), true), "{malformed}");
    assert!(report("empty.error.json")["message"].as_str().unwrap().contains("empty"));
    assert!(report("half.error.json")["message"].is_string());
    assert_eq!(wait_for(&outbox.join("nothing.txt"), 20), "");

    assert!(!outbox.join("slow.txt").exists() && !outbox.join("slow.error.json").exists(), "it is not whole yet");
    slow.write_all(br#""arg2":"again"}}}"#).unwrap();
    drop(slow);
    assert_eq!(wait_for(&outbox.join("slow.txt"), 20), "a Hello again\n");
}

#[test]
fn a_name_dropped_again_replaces_the_result() {
    let directory = tempfile::tempdir().unwrap();
    let up = start(directory.path());
    let result = up.outbox().join("again.txt");
    for name in ["first", "second"] {
        let command = format!(r#"{{"1":{{"type":"typeB","arguments":{{"arg1":"{name}"}}}}}}"#);
        fs::write(up.inbox().join("again.json"), command).unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while fs::read_to_string(&result).unwrap_or_default() != format!("1 {name}\n") {
            assert!(Instant::now() < until, "{name} does not appear");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A million commands, by a batch function; a small file dropped behind it does not wait for it.
#[test]
fn a_huge_file_is_worked_off() {
    let directory = tempfile::tempdir().unwrap();
    let up = start(directory.path());
    let part = directory.path().join("huge.part");
    let mut file = std::io::BufWriter::new(fs::File::create(&part).unwrap());
    let commands = 1_000_000;
    file.write_all(b"{").unwrap();
    for i in 0..commands {
        let comma = if i == 0 { "" } else { "," };
        write!(file, "{comma}\n\"{i}\":{{\"type\":\"echo\",\"arguments\":{{\"n\":{i}}}}}").unwrap();
    }
    file.write_all(b"}\n").unwrap();
    file.into_inner().unwrap().sync_all().unwrap();
    let started = Instant::now();
    fs::rename(&part, up.inbox().join("huge.json")).unwrap();
    fs::write(up.inbox().join("small.json"), r#"{"1":{"type":"greet","arguments":{"arg1":"Hello","arg2":"you"}}}"#)
        .unwrap();
    assert_eq!(wait_for(&up.outbox().join("small.txt"), 120), "1 Hello you\n");
    let small_seconds = started.elapsed().as_secs_f64();
    let result = wait_for(&up.outbox().join("huge.txt"), 600);
    println!(
        "a million commands: {:.1} s; a small file beside it: {small_seconds:.1} s",
        started.elapsed().as_secs_f64()
    );
    let mut seen = vec![false; commands];
    for line in result.lines() {
        let (id, rest) = line.split_once(' ').unwrap();
        assert_eq!(rest, format!("{{'n': {id}}}"));
        assert!(!std::mem::replace(&mut seen[id.parse::<usize>().unwrap()], true), "{id} twice");
    }
    assert!(seen.iter().all(|seen| *seen));
}
