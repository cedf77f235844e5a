//! `kill -9` of a grid under a task that writes checkpoints: the next one goes on from the last that was stored.

use std::{
    path::Path,
    process::Output,
    time::{Duration, Instant},
};

use sheaf_e2e::{Up, output, root, sheaf, text};

/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn command(directory: &Path, arguments: &[&str]) -> Output {
    output(sheaf(directory).args(arguments))
}

fn succeeds(directory: &Path, arguments: &[&str]) -> String {
    let done = command(directory, arguments);
    assert!(done.status.success(), "{arguments:?}: {}{}", text(&done.stdout), text(&done.stderr));
    text(&done.stdout)
}

#[test]
fn a_killed_grid_goes_on_from_the_last_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    // The example, looked at every second.
    let example = root().join("client/examples/checkpoint");
    let declared = std::fs::read_to_string(example.join("functions.toml")).unwrap();
    let functions = here.join("functions.toml");
    std::fs::write(&functions, declared.replace(r#"checkpoint_every = "5s""#, r#"checkpoint_every = "1s""#)).unwrap();
    std::fs::copy(example.join("count.sh"), here.join("count.sh")).unwrap();

    let mut up = Up::start(here, &[functions]).unwrap();
    // Eight seconds of work and more, of which at least one stored checkpoint survives.
    std::fs::write(here.join("tasks.ndjson"), "{\"to\": 400, \"pause\": 0.02}\n").unwrap();
    succeeds(here, &["submit", "--function", "count", "--ndjson", "tasks.ndjson"]);
    let until = Instant::now() + PATIENCE;
    while !succeeds(here, &["job", "events", "last"]).contains("checkpoint of task 0 of chunk 0 stored") {
        assert!(Instant::now() < until, "no checkpoint is stored: {}", succeeds(here, &["explain", "last/0/0"]));
        std::thread::sleep(Duration::from_millis(50));
    }
    up.kill();
    up.restart().unwrap();

    succeeds(here, &["wait", "last"]);
    let result = succeeds(here, &["results", "last"]);
    assert!(result.contains(" to 400") && !result.contains("from 0 to"), "it has not gone on: {result}");
    let events = succeeds(here, &["job", "events", "last"]);
    assert!(events.contains("with 1 checkpoint to go on from"), "{events}");
    let explained = succeeds(here, &["explain", "last/0/0"]);
    assert!(explained.contains("its last checkpoint was") && explained.contains("lost work"), "{explained}");
    assert_eq!(up.stop().unwrap().code(), Some(0));
}
