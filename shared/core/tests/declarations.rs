//! What users declare, jobs and functions: every bound has its message, and every form its JSON.

use std::collections::BTreeMap;

use sheaf_core::{Digest, Estimate, FunctionKind, JobOptions, Lane, Manifest, Priority, ResultForm, limits};

fn manifest(kind: FunctionKind) -> Manifest {
    Manifest::new("square".parse().expect("a function name"), kind)
}

fn command(argv: &[&str]) -> FunctionKind {
    FunctionKind::Command { argv: argv.iter().map(|arg| (*arg).to_owned()).collect() }
}

fn handler() -> FunctionKind {
    FunctionKind::Handler { revision: String::new() }
}

fn package(handler: &str) -> FunctionKind {
    FunctionKind::Package { digest: Digest::of(b"zip"), handler: handler.into() }
}

fn options() -> JobOptions {
    JobOptions::new(vec!["square@0123456789ab".parse().expect("a function version")])
}

#[test]
fn options_beyond_a_bound_are_refused() {
    assert_eq!(options().check(), Ok(()));
    type Break = fn(&mut JobOptions);
    let breaks: [(&str, Break); 8] = [
        ("no function", |options| options.functions.clear()),
        ("functions", |options| options.functions = vec![options.functions[0].clone(); limits::JOB_FUNCTIONS_MAX + 1]),
        ("no attempt", |options| options.max_attempts = 0),
        ("attempts", |options| options.max_attempts = limits::TASK_ATTEMPTS_MAX + 1),
        ("fail_fast", |options| options.fail_fast = Some(0)),
        ("task_ms", |options| options.task_ms = Some(0)),
        ("name", |options| options.name = "x".repeat(limits::JOB_NAME_BYTES_MAX + 1)),
        ("labels", |options| options.labels = [("x".repeat(4_000), "y".repeat(97))].into()),
    ];
    let told = breaks.map(|(name, broken)| {
        let mut options = options();
        broken(&mut options);
        format!("{name:12} → {}", options.check().expect_err(name))
    });
    let told = told.join("\n");
    insta::assert_snapshot!("options", told);
}

#[test]
fn an_ordered_job_may_have_one_large_chunk() {
    assert_eq!(options().chunk_tasks_max(), limits::CHUNK_TASKS_MAX);
    assert_eq!(JobOptions { ordered: true, ..options() }.chunk_tasks_max(), limits::ORDERED_TASKS_MAX);
}

#[test]
fn manifests_beyond_a_bound_are_refused() {
    let with = |kind: FunctionKind, change: fn(&mut Manifest)| {
        let mut manifest = manifest(kind);
        change(&mut manifest);
        manifest
    };
    let broken = [
        with(handler(), |manifest| manifest.timeout_ms = 0),
        with(handler(), |manifest| manifest.timeout_ms = limits::FUNCTION_TIMEOUT_MS_MAX + 1),
        with(handler(), |manifest| manifest.output_bytes_max = 0),
        with(handler(), |manifest| manifest.output_bytes_max = limits::TASK_BYTES_MAX as u64 + 1),
        with(handler(), |manifest| manifest.memory_bytes_max = 0),
        with(handler(), |manifest| (manifest.batch, manifest.ordered) = (true, true)),
        with(handler(), |manifest| manifest.checkpoint_every_ms = Some(limits::CHECKPOINT_EVERY_MS_MIN - 1)),
        with(handler(), |manifest| manifest.checkpoint_every_ms = Some(limits::FUNCTION_TIMEOUT_MS_MAX + 1)),
        with(package(""), |manifest| (manifest.batch, manifest.checkpoint_every_ms) = (true, Some(60_000))),
        with(FunctionKind::Lambda { arn: "arn:aws:lambda:x".into() }, |manifest| {
            manifest.checkpoint_every_ms = Some(60_000)
        }),
        with(handler(), |manifest| manifest.env = BTreeMap::from([("A=B".into(), String::new())])),
        with(handler(), |manifest| manifest.env = BTreeMap::from([("A".into(), "\0".into())])),
        manifest(command(&[])),
        manifest(command(&["", "x"])),
        manifest(command(&["echo", "\0"])),
        with(command(&["echo"]), |manifest| manifest.batch = true),
        manifest(package("a\0b")),
        manifest(FunctionKind::Lambda { arn: "square".into() }),
    ];
    let told = broken.map(|manifest| manifest.check().expect_err("a broken manifest").to_string()).join("\n");
    insta::assert_snapshot!("manifests", told);
    let sound =
        [handler(), command(&["echo", "{}"]), package(""), FunctionKind::Lambda { arn: "arn:aws:lambda:x".into() }];
    assert!(sound.into_iter().all(|kind| manifest(kind).check().is_ok()));
}

#[test]
fn a_manifest_is_json_with_defaults() {
    let least = r#"{"name":"square","kind":"handler"}"#;
    assert_eq!(serde_json::from_str::<Manifest>(least).expect("a manifest"), manifest(handler()));
    let kinds = [
        handler(),
        command(&["convert", "{input}"]),
        package("main.handle"),
        FunctionKind::Lambda { arn: "arn:aws:lambda:x".into() },
    ];
    let told = kinds.map(|kind| {
        let manifest = manifest(kind);
        let json = serde_json::to_string(&manifest).expect("JSON");
        assert_eq!(serde_json::from_str::<Manifest>(&json).expect("what was written"), manifest);
        format!("{} {json}", manifest.reference(json.as_bytes()))
    });
    let told = told.join("\n");
    insta::assert_snapshot!("manifest_json", told);
}

#[test]
fn words_are_read_as_they_are_written() {
    for priority in Priority::ALL {
        assert_eq!(priority.to_string().parse(), Ok(priority));
        assert_eq!(serde_json::to_string(&priority).expect("JSON"), format!("\"{priority}\""));
    }
    for lane in [Lane::Lambda, Lane::Spot, Lane::OnDemand] {
        assert_eq!(lane.to_string().parse(), Ok(lane));
        assert_eq!(serde_json::to_string(&lane).expect("JSON"), format!("\"{lane}\""));
    }
    for form in [ResultForm::Json, ResultForm::Text, ResultForm::Bytes] {
        assert_eq!(serde_json::to_string(&form).expect("JSON"), format!("\"{form}\""));
    }
}

#[test]
fn an_estimate_begins_with_what_it_sees_and_then_moves_towards_it() {
    let mut estimate = Estimate::default();
    estimate.observe(0, 99.0, 99.0);
    assert_eq!(estimate, Estimate::default());
    estimate.observe(10, 100.0, 200.0);
    assert_eq!(estimate, Estimate { tasks: 10, mean_us: 100.0, p95_us: 200.0 });
    estimate.observe(5, 200.0, 400.0);
    assert_eq!(estimate, Estimate { tasks: 15, mean_us: 120.0, p95_us: 300.0 });
    estimate.observe(u64::MAX, 120.0, 100.0);
    assert_eq!(estimate, Estimate { tasks: u64::MAX, mean_us: 120.0, p95_us: 290.0 });
}
