//! The arrows between crates, as ARCHITECTURE.md draws them: left may use right, anything else is forbidden.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Which of the workspace's crates each crate may use. A crate that is not here may not be in the workspace.
const ARROWS: [(&str, &[&str]); 32] = [
    ("sheaf-core", &[]),
    ("sheaf-api", &["sheaf-core"]),
    ("sheaf-protocol", &["sheaf-api", "sheaf-core"]),
    ("sheaf-host", &["sheaf-api", "sheaf-core"]),
    ("sheaf-http", &["sheaf-protocol", "sheaf-api", "sheaf-core"]),
    ("sheaf-aws", &["sheaf-protocol", "sheaf-api", "sheaf-core"]),
    ("sheaf-files", &["sheaf-api", "sheaf-core"]),
    ("sheaf-worker", &["sheaf-protocol", "sheaf-host", "sheaf-api", "sheaf-core"]),
    ("sheaf-remote", &["sheaf-worker", "sheaf-http", "sheaf-protocol", "sheaf-api", "sheaf-core"]),
    ("sheaf-telemetry", &["sheaf-core"]),
    ("sheaf-scheduler", &["sheaf-core"]),
    ("sheaf-machines", &["sheaf-scheduler", "sheaf-worker", "sheaf-core"]),
    ("sheaf-lambda", &["sheaf-http", "sheaf-aws", "sheaf-telemetry", "sheaf-protocol", "sheaf-api", "sheaf-core"]),
    ("sheaf-submit", FUNCTION),
    ("sheaf-dispatch", FUNCTION),
    ("sheaf-result", FUNCTION),
    ("sheaf-sweep", FUNCTION),
    ("sheaf-worker-container", FUNCTION),
    ("sheaf-local", &["sheaf-worker", "sheaf-files", "sheaf-protocol", "sheaf-host", "sheaf-api", "sheaf-core"]),
    // AWS only behind a feature.
    ("sheaf-sdk", &["sheaf-local", "sheaf-aws", "sheaf-protocol", "sheaf-api", "sheaf-core"]),
    ("sheaf-charts", &[]),
    ("sheaf-load", &["sheaf-sdk", "sheaf-charts"]),
    (
        "sheaf-cli",
        &[
            "sheaf-load",
            "sheaf-sdk",
            "sheaf-charts",
            "sheaf-local",
            "sheaf-machines",
            "sheaf-remote",
            "sheaf-worker",
            "sheaf-http",
            "sheaf-scheduler",
            "sheaf-protocol",
            "sheaf-api",
            "sheaf-core",
        ],
    ),
    ("sheaf-conformance", &["sheaf-protocol", "sheaf-api", "sheaf-core"]),
    ("sheaf-durability", &["sheaf-local", "sheaf-protocol", "sheaf-api", "sheaf-core"]),
    ("sheaf-e2e", &["sheaf-sdk"]),
    ("sheaf-e2e-aws", &["sheaf-sdk", "sheaf-aws", "sheaf-protocol", "sheaf-api", "sheaf-core"]),
    ("sheaf-peers", &["sheaf-sdk"]),
    ("sheaf-sim", &["sheaf-protocol", "sheaf-api", "sheaf-core"]),
    ("sheaf-examples", &[]),
    ("xtask", &[]),
    ("sheaf-store-comparison", &[]),
];

/// What each of `functions/` may use: never another of them, nor anything of the embedded grid.
const FUNCTION: &[&str] = &[
    "sheaf-lambda",
    "sheaf-files",
    "sheaf-worker",
    "sheaf-http",
    "sheaf-host",
    "sheaf-aws",
    "sheaf-scheduler",
    "sheaf-telemetry",
    "sheaf-protocol",
    "sheaf-api",
    "sheaf-core",
];

/// What a crate must not reach, even through others, without optional features.
const NEVER: [(&str, &[&str]); 3] = [
    ("sheaf-core", &["tokio", "rand", "futures", "reqwest", "hyper"]),
    ("sheaf-api", &["tokio", "hyper", "reqwest"]),
    ("sheaf-protocol", &["tokio", "hyper", "reqwest", "rand"]),
];

/// Prefixes of crates that only [`MAY_REACH_CLOUD`] may ever reach.
const CLOUD: [&str; 2] = ["aws-sdk-", "aws-config"];
/// `shared/aws`, and who uses it.
const MAY_REACH_CLOUD: [&str; 8] = [
    "sheaf-aws",
    "sheaf-lambda",
    "sheaf-submit",
    "sheaf-dispatch",
    "sheaf-result",
    "sheaf-sweep",
    "sheaf-worker-container",
    "sheaf-e2e-aws",
];

fn metadata() -> Metadata {
    MetadataCommand::new().other_options(vec!["--locked".to_owned()]).exec().expect("cargo metadata answers")
}

fn is_ours(name: &str) -> bool {
    name.starts_with("sheaf-") || name == "xtask"
}

#[test]
fn crates_use_only_what_the_arrows_allow() {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.into_iter().collect();
    let metadata = metadata();
    let mut broken = Vec::new();
    for package in metadata.workspace_packages() {
        let Some(allowed) = allowed.get(package.name.as_str()) else {
            broken.push(format!("{} is in no row of ARROWS", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            let tests_only = dependency.kind == DependencyKind::Development;
            if is_ours(&dependency.name) && !tests_only && !allowed.contains(&dependency.name.as_str()) {
                broken.push(format!("{} → {}", package.name, dependency.name));
            }
        }
    }
    assert!(broken.is_empty(), "forbidden arrows: {broken:#?}");
}

/// All crates that a crate reaches through ordinary dependencies.
fn reached<'a>(metadata: &'a Metadata, name: &str) -> BTreeSet<&'a str> {
    let resolve = metadata.resolve.as_ref().expect("cargo metadata resolves");
    let names: BTreeMap<_, _> = metadata.packages.iter().map(|package| (&package.id, package.name.as_str())).collect();
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let start = metadata.workspace_packages().into_iter().find(|package| package.name == name).expect("it is here");
    let mut found = BTreeSet::new();
    let mut open = vec![&start.id];
    while let Some(id) = open.pop() {
        for dependency in &nodes[id].deps {
            let ordinary = dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
            if ordinary && found.insert(names[&dependency.pkg]) {
                open.push(&dependency.pkg);
            }
        }
    }
    found
}

#[test]
fn pure_crates_reach_no_runtime_clock_or_randomness() {
    let metadata = metadata();
    for (name, never) in NEVER {
        let reached = reached(&metadata, name);
        let found: Vec<_> = never.iter().filter(|other| reached.contains(**other)).collect();
        assert!(found.is_empty(), "{name} reaches {found:?}");
    }
}

#[test]
fn no_cloud_code_outside_the_aws_crates() {
    let metadata = metadata();
    let packages = metadata.workspace_packages();
    for package in packages.into_iter().filter(|package| !MAY_REACH_CLOUD.contains(&package.name.as_str())) {
        let reached = reached(&metadata, &package.name);
        let found: Vec<_> = reached.iter().filter(|name| CLOUD.iter().any(|cloud| name.starts_with(cloud))).collect();
        assert!(found.is_empty(), "{} reaches {found:?}", package.name);
    }
}

/// Code for AWS is in one crate: others that may reach it go through its ports.
#[test]
fn one_crate_names_the_sdk() {
    for package in metadata().workspace_packages().into_iter().filter(|package| package.name != "sheaf-aws") {
        let mut named = package.dependencies.iter().map(|dependency| dependency.name.as_str());
        let found = named.find(|name| CLOUD.iter().any(|cloud| name.starts_with(cloud)));
        assert_eq!(found, None, "{} names it", package.name);
    }
}

/// `protocol` and `core` name no runtime, no spawned task, no clock.
#[test]
fn steps_name_no_clock_and_spawn_nothing() {
    let root = metadata().workspace_root;
    for folder in ["shared/core/src", "shared/protocol/src"] {
        let mut open = vec![root.join(folder).into_std_path_buf()];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(std::fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a source file");
            for word in [
                "tokio",
                "Instant::now",
                "SystemTime",
                "spawn(",
                "std::thread",
                "aws_sdk",
                "rand::",
                "now_v7",
                "new_v4",
            ] {
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                let line = code.into_iter().find(|line| line.contains(word));
                assert!(line.is_none(), "{} says {word}: {}", path.display(), line.unwrap_or_default());
            }
        }
    }
}
