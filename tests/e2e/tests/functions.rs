//! The example functions on the real grid, from dropped files and from `sheaf run`: the results, and how failures are told
//! apart.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Output,
    time::Instant,
};

use sheaf_e2e::{examples, output, python, root, sheaf, skip, text};

#[path = "../../../client/examples/functions/tests/postgres/mod.rs"]
mod postgres;

fn file(name: &str) -> PathBuf {
    root().join("client/examples").join(name)
}

/// A declaration of example functions that names the executable of this build.
fn functions(directory: &Path, name: &str) -> PathBuf {
    let declared = std::fs::read_to_string(file(name)).unwrap();
    let package = examples().display().to_string();
    let copy = directory.join(name);
    std::fs::write(&copy, declared.replace("../../target/release/bootstrap-examples", &package)).unwrap();
    copy
}

fn run(directory: &Path, functions: &Path, input: &Path) -> Output {
    output(sheaf(directory).arg("run").arg("--functions").arg(functions).arg(input))
}

/// The lines of an output, by the id that each begins with. Results that span lines are told by their first.
fn lines(output: &Output) -> BTreeMap<String, String> {
    let lines = text(&output.stdout);
    lines.lines().filter_map(|line| line.split_once(' ')).map(|(id, rest)| (id.to_owned(), rest.to_owned())).collect()
}

fn expected_of_first() -> BTreeMap<String, String> {
    [
        ("primes-30", "[2, 3, 5, 7, 11, 13, 17, 19, 23, 29]"),
        ("primes-none", "[]"),
        ("sum-of-primes", "142913828922"),
        ("factorial-30", "265252859812191058636308480000000"),
        ("factorial-0", "1"),
        ("factorial-minus", "undefined"),
        ("two-texts", "left_right"),
        ("three-texts", "1_2.5!"),
        ("filled", "filled"),
        ("not-filled", "Not filled !"),
        ("empty", "Not filled !"),
        ("greeting", "Hello world"),
        ("unknown", "no_such_function not handled"),
    ]
    .map(|(id, line)| (id.to_owned(), line.to_owned()))
    .into()
}

#[test]
fn a_command_file_becomes_a_file_of_results() {
    let directory = tempfile::tempdir().unwrap();
    let ran = run(directory.path(), &functions(directory.path(), "functions.toml"), &file("files/first.json"));
    let mut lines = lines(&ran);
    let missing = lines.remove("missing-argument").expect("a command that fails has its line");
    assert!(missing.starts_with("ERROR error: InvalidArgument"), "{missing}");
    assert_eq!(lines, expected_of_first(), "{}", text(&ran.stderr));
    assert_eq!(ran.status.code(), Some(3), "some tasks failed");
}

#[test]
fn the_same_functions_in_python_give_the_same() {
    let Some(python) = python() else { skip!("no Python with awslambdaric: cargo xtask setup makes one") };
    let directory = tempfile::tempdir().unwrap();
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", python.parent().unwrap().display());
    let ran = output(
        sheaf(directory.path())
            .env("PATH", path)
            .arg("run")
            .arg("--functions")
            .arg(file("functions-python.toml"))
            .arg(file("files/first.json")),
    );
    let mut lines = lines(&ran);
    let missing = lines.remove("missing-argument").expect("a command that fails has its line");
    assert!(missing.starts_with("ERROR error: InvalidArgument"), "{missing}");
    assert_eq!(lines, expected_of_first(), "{}", text(&ran.stderr));
}

#[test]
fn slow_commands_keep_all_cores_busy() {
    let directory = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let ran = run(directory.path(), &functions(directory.path(), "functions.toml"), &file("files/primes.json"));
    let seconds = started.elapsed().as_secs_f64();
    let lines = lines(&ran);
    let counts: Vec<(String, usize)> =
        lines.iter().map(|(id, line)| (id.clone(), line.matches(", ").count() + 1)).collect();
    let known = BTreeMap::from([
        ("primes-10", 4),
        ("primes-1000", 168),
        ("primes-5000", 669),
        ("primes-20000", 2_262),
        ("primes-50000", 5_133),
        ("primes-75000", 7_393),
        ("primes-100000", 9_592),
        ("primes-150000", 13_848),
        ("primes-250000", 22_044),
        ("primes-300000", 25_997),
        ("primes-400000", 33_860),
        ("primes-500000", 41_538),
    ]);
    assert_eq!(counts.iter().map(|(id, count)| (id.as_str(), *count)).collect::<BTreeMap<_, _>>(), known);
    println!("12 searches for primes: {seconds:.1} s");
}

#[test]
fn products_in_file_order_on_postgresql() {
    let Some(server) = postgres::Postgres::start() else { skip!("no PostgreSQL programs (Debian package postgresql)") };
    server.sql(&std::fs::read_to_string(file("functions/products.sql")).unwrap());
    let directory = tempfile::tempdir().unwrap();
    let declared = functions(directory.path(), "functions-products.toml");
    let ran = output(
        sheaf(directory.path())
            .env("DATABASE_URL", server.url())
            .arg("run")
            .arg("--functions")
            .arg(declared)
            .arg(file("files/products.json")),
    );
    let results: Vec<String> = lines(&ran).into_values().collect();
    let deleted = |product| format!("Product {product} was successefully deleted");
    let expected = [
        "15005",
        "1000",
        "16506",
        "1000",
        "33011",
        "1000",
        "29008",
        &deleted(100),
        "0",
        "0",
        "0",
        "33011",
        &deleted(200),
        "15005",
    ];
    assert_eq!(results, expected, "{}", text(&ran.stderr));
    assert_eq!(ran.status.code(), Some(0));
    assert_eq!(server.sql("select count(*) from product_items").trim(), "3000");
}

#[test]
fn a_video_is_transcoded_by_a_command() {
    let directory = tempfile::tempdir().unwrap();
    let clip = directory.path().join("clip.mp4");
    let made = std::process::Command::new("sh").arg(file("transcode/make-clip.sh")).arg(&clip).output();
    if !made.is_ok_and(|made| made.status.success()) || !clip.exists() {
        skip!("no ffmpeg (Debian package ffmpeg)");
    }
    let input = directory.path().join("videos.json");
    let target = directory.path().join("small.mp4");
    let command = |input: &Path, output: &Path| serde_json::json!({"type": "transcode", "arguments": {"input": input, "output": output, "height": 120}});
    let missing = directory.path().join("missing.mp4");
    let commands =
        serde_json::json!({"small": command(&clip, &target), "none": command(&missing, &target.with_extension("mkv"))});
    std::fs::write(&input, commands.to_string()).unwrap();
    let ran = run(directory.path(), &file("transcode/functions.toml"), &input);
    assert!(std::fs::metadata(&target).unwrap().len() > 1_000, "{}", text(&ran.stderr));
    let none = &lines(&ran)["none"];
    assert!(none.starts_with("ERROR error: ExitCode: exit code") && none.contains("No such file"), "{none}");
}

/// Each way to fail has its own outcome, kind and words.
#[test]
fn failures_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("faulty.json");
    let faulty = ["fail", "crash", "hang", "leak", "shout", "huge", "leave"];
    let commands: serde_json::Map<String, serde_json::Value> =
        faulty.iter().map(|name| ((*name).to_owned(), serde_json::json!({"type": name, "arguments": {}}))).collect();
    std::fs::write(&input, serde_json::Value::Object(commands).to_string()).unwrap();
    let ran = run(directory.path(), &functions(directory.path(), "functions-faulty.toml"), &input);
    let lines = lines(&ran);
    let stderr = text(&ran.stderr);
    let starts = |id: &str, begin: &str| assert!(lines[id].starts_with(begin), "{id} {}\n{stderr}", lines[id]);
    starts("fail", "ERROR error: ");
    starts("crash", "ERROR killed: ");
    starts("hang", "ERROR timed_out: ");
    starts("leak", "ERROR out_of_memory: ");
    starts("shout", "1000000000");
    starts("huge", "ERROR output_too_large: ");
    starts("leave", "left");
    assert_eq!(ran.status.code(), Some(3));

    // The outcomes, and what explain says of them.
    let list = output(sheaf(directory.path()).args(["task", "list", "last", "-o", "json"]));
    let tasks: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    let rows = tasks.get("rows").unwrap_or(&tasks).as_array().unwrap();
    let outcomes: BTreeMap<&str, &str> =
        rows.iter().map(|row| (row["key"].as_str().unwrap(), row["outcome"].as_str().unwrap())).collect();
    let expected = [
        ("fail", "failed"),
        ("crash", "quarantined"),
        ("hang", "failed"),
        ("leak", "quarantined"),
        ("shout", "succeeded"),
        ("huge", "failed"),
        ("leave", "succeeded"),
    ];
    assert_eq!(outcomes, BTreeMap::from(expected));
    let why: BTreeMap<&str, String> = rows
        .iter()
        .map(|row| {
            let explained = output(sheaf(directory.path()).args(["explain", row["task"].as_str().unwrap()]));
            (row["key"].as_str().unwrap(), text(&explained.stdout))
        })
        .collect();
    for (key, word) in [
        ("fail", "failed after 1 attempt"),
        ("crash", "fatal 3 times"),
        ("hang", "timed_out"),
        ("leak", "out_of_memory"),
        ("huge", "output_too_large"),
        ("leave", "succeeded"),
    ] {
        assert!(why[key].contains(word), "{key}: {}", why[key]);
    }
}
