//! `docs/openapi.yaml` and `docs/errors.md` say what the router does: no route, field or code more or less.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sheaf_api::{
    ApiError, Code, WriteOutcome,
    wire::{
        ChunkAnswer, ChunkHead, ChunkResult, CreateJob, EventView, FunctionView, GridView, JobView, LaneView, Page,
        ResultsPage, RetryJob, SubmitReply, TaskView, WorkerView,
    },
};
use sheaf_core::{
    ChunkTotals, Digest, EndReason, Event, FailureKind, FunctionKind, JobId, JobState, Lane, Manifest, Origin, Outcome,
    Priority, ReleaseReason, Seal, TaskId,
};
use sheaf_http::ROUTES;

use crate::{
    fake::{ESTIMATE, full_failure, task_view, worker_view},
    schema::Document,
};

const ERRORS: &str = include_str!("../../../../docs/errors.md");

fn document() -> Document {
    Document::read(include_str!("../../../../docs/openapi.yaml"))
}

fn object(value: &Value) -> &serde_json::Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("not an object: {value}"))
}

#[test]
fn every_route_is_documented_and_every_documented_path_routed() {
    let document = document();
    let mut documented = BTreeSet::new();
    for (path, item) in object(&document.value["paths"]) {
        let verbs = object(item).keys().filter(|key| *key != "parameters");
        documented.extend(verbs.map(|verb| (path.clone(), verb.to_uppercase())));
    }
    let routed = ROUTES.iter().map(|route| (route.path.to_owned(), route.verb.as_str().to_owned()));
    assert_eq!(routed.collect::<BTreeSet<_>>(), documented);
    assert_eq!(documented.len(), ROUTES.len(), "no route stands twice");
    for (index, route) in ROUTES.iter().enumerate() {
        assert!(ROUTES[..index].iter().all(|other| other.call != route.call), "{:?} stands twice", route.call);
    }
}

#[test]
fn operations_are_whole() {
    let document = document();
    document.check_references();
    let mut names = BTreeSet::new();
    for route in ROUTES {
        let item = &document.value["paths"][route.path];
        let operation = &item[route.verb.as_str().to_lowercase()];
        let name = operation["operationId"].as_str().unwrap();
        assert!(names.insert(name), "{name} stands twice");
        assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{name}");
        assert_eq!(operation["security"] == json!([]), route.is_open, "{name}");
        assert!(route.is_open || operation["responses"]["default"].is_object(), "{name}");
        let parameters = [&item["parameters"], &operation["parameters"]];
        let parameters = parameters.iter().filter_map(|list| list.as_array()).flatten();
        let parameters: Vec<_> = parameters.map(|parameter| document.resolve(parameter)).collect();
        let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
        let in_path: BTreeSet<_> = in_path.map(|parameter| parameter["name"].as_str().unwrap()).collect();
        let braces = route.path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap());
        assert_eq!(in_path, braces.collect(), "{name}");
    }
}

#[test]
fn limits_are_those_of_the_grid() {
    let document = document();
    let parameter = |path: &str, verb: &str, name: &str| {
        let item = &document.value["paths"][path];
        let lists = [&item["parameters"], &item[verb]["parameters"]];
        let all = lists.into_iter().filter_map(|list| list.as_array()).flatten();
        let found = all.map(|parameter| document.resolve(parameter)).find(|parameter| parameter["name"] == name);
        found.unwrap()["schema"]["maximum"].as_u64().unwrap()
    };
    use sheaf_core::limits;
    assert_eq!(parameter("/v1/jobs", "get", "limit"), limits::PAGE_ROWS_MAX as u64);
    assert_eq!(parameter("/v1/jobs/{job}/results", "get", "chunks_max"), limits::RESULT_PAGE_CHUNKS_MAX as u64);
    assert_eq!(parameter("/v1/jobs/{job}/progress", "get", "wait_ms"), limits::LONG_POLL_MS_MAX);
    let schemas = &document.value["components"]["schemas"];
    let create = &schemas["CreateJob"]["properties"];
    assert_eq!(create["functions"]["maxItems"], limits::JOB_FUNCTIONS_MAX);
    assert_eq!(create["max_attempts"]["maximum"], limits::TASK_ATTEMPTS_MAX);
    assert_eq!(create["retention_ms"]["default"], limits::RETENTION_MS_DEFAULT);
    let manifest = &schemas["Manifest"]["properties"];
    assert_eq!(manifest["timeout_ms"]["maximum"], limits::FUNCTION_TIMEOUT_MS_MAX);
    assert_eq!(manifest["timeout_ms"]["default"], limits::FUNCTION_TIMEOUT_MS_DEFAULT);
    assert_eq!(manifest["memory_bytes_max"]["default"], limits::FUNCTION_MEMORY_BYTES_DEFAULT);
    assert_eq!(manifest["output_bytes_max"]["maximum"], limits::TASK_BYTES_MAX);
}

#[test]
fn words_are_those_of_the_grid() {
    let document = document();
    let words = |schema: &str| document.value["components"]["schemas"][schema]["enum"].clone();
    assert_eq!(words("Code"), json!(Code::ALL));
    assert_eq!(words("Outcome"), json!(Outcome::ALL));
    assert_eq!(words("Priority"), json!(Priority::ALL));
    assert_eq!(words("Lane"), json!([Lane::Lambda, Lane::Spot, Lane::OnDemand]));
    let kinds = document.value["components"]["schemas"]["Failure"]["properties"]["kind"]["enum"].clone();
    let kinds: Vec<FailureKind> = serde_json::from_value(kinds).unwrap();
    assert_eq!(kinds.len(), FailureKind::WorkerDied as usize + 1);
}

/// Examples are what the types read, and what the schemas allow.
#[test]
fn examples_are_true() {
    fn check<T: Serialize + DeserializeOwned>(document: &Document, schema: &str) {
        let examples = document.value["components"]["schemas"][schema]["examples"].as_array().unwrap();
        for example in examples {
            document.check(schema, example);
            let value: T = serde_json::from_value(example.clone()).unwrap_or_else(|error| panic!("{schema}: {error}"));
            document.check(schema, &serde_json::to_value(&value).unwrap());
        }
    }
    let document = document();
    check::<ApiError>(&document, "ApiError");
    check::<ChunkHead>(&document, "ChunkHead");
    check::<CreateJob>(&document, "CreateJob");
    check::<EventView>(&document, "EventView");
    check::<FunctionView>(&document, "FunctionView");
    check::<GridView>(&document, "GridView");
    check::<JobView>(&document, "JobView");
    check::<LaneView>(&document, "LaneView");
    check::<Manifest>(&document, "Manifest");
    check::<RetryJob>(&document, "RetryJob");
    check::<Seal>(&document, "Seal");
    check::<SubmitReply>(&document, "SubmitReply");
    check::<TaskView>(&document, "TaskView");
    check::<WorkerView>(&document, "WorkerView");
    document.check("ResultLine", &document.value["components"]["schemas"]["ResultLine"]["examples"][0]);
    for (name, response) in object(&document.value["components"]["responses"]) {
        if let Some(example) = response["content"]["application/json"].get("example") {
            let error: ApiError = serde_json::from_value(example.clone()).unwrap();
            assert!(response["description"].as_str().unwrap().contains(error.code.as_str()), "{name}");
        }
    }
}

fn events() -> Vec<Event> {
    let (chunk, tasks, epoch, task, not_before_ms, since_ms) = (1, 2, 3, 4, 5, 6);
    let (worker, totals) = ("wrk_1".parse::<sheaf_core::WorkerId>().unwrap(), ChunkTotals::default());
    vec![
        Event::JobCreated,
        Event::JobSealed { seal: Seal { chunks: 1, tasks: 2 } },
        Event::JobCancelling,
        Event::JobCancelled,
        Event::JobDone,
        Event::ChunkSubmitted { chunk, tasks },
        Event::ChunkClaimed { chunk, epoch, worker: worker.clone(), taken_over: true, resumed: 2 },
        Event::SegmentCommitted { chunk, epoch, totals },
        Event::CheckpointStored { chunk, task, epoch, bytes: 5, run_ms: 6 },
        Event::TaskIsolated { chunk, task },
        Event::ChunkReleased { chunk, epoch, reason: ReleaseReason::BackOff, not_before_ms },
        Event::ChunkFinished { chunk, epoch, worker, since_ms, totals },
        Event::ChunkEnded { chunk, reason: EndReason::Cancelled, totals },
    ]
}

fn manifests() -> Vec<Manifest> {
    let kinds = [
        FunctionKind::Package { digest: Digest::of(b""), handler: "h".into() },
        FunctionKind::Command { argv: vec!["a".into()] },
        FunctionKind::Lambda { arn: "arn:x".into() },
        FunctionKind::Handler { revision: "1".into() },
    ];
    let env = BTreeMap::from([("A".to_owned(), "b".to_owned())]);
    let checkpoint_every_ms = Some(60_000);
    let manifest = |kind| Manifest::new("f".parse().unwrap(), kind);
    kinds.map(|kind| Manifest { env: env.clone(), checkpoint_every_ms, ..manifest(kind) }).to_vec()
}

fn job_views() -> Vec<JobView> {
    let example = document().value["components"]["schemas"]["JobView"]["examples"][0].clone();
    let view: JobView = serde_json::from_value(example).unwrap();
    let (seal, at_ms) = (Seal { chunks: 1, tasks: 2 }, 3);
    let states = [
        JobState::Open,
        JobState::Sealed { seal },
        JobState::Cancelling { seal: None },
        JobState::Cancelled { seal: Some(seal), at_ms },
        JobState::Done { seal, at_ms },
    ];
    let origins = [Origin::File { path: "p".into() }, Origin::RetryOf { job: view.job.id }];
    let views = states.into_iter().zip(origins.into_iter().cycle()).map(|(state, origin)| {
        let mut view = view.clone();
        (view.job.state, view.job.origin) = (state, Some(origin));
        view
    });
    views.collect()
}

/// What the types write has exactly the fields that their schemas have, in whatever variant.
#[test]
fn replies_match_their_schemas() {
    let document = document();
    let job = JobId::from_bytes([1; 16]);
    let error = ApiError::new(Code::Throttled, "m").with_hint("h").with_retry_after_ms(1);
    let refused = ChunkAnswer::Refused { error: error.clone() };
    let answers = vec![ChunkAnswer::Accepted, ChunkAnswer::Exists, refused];
    let functions = manifests().into_iter().map(|manifest| {
        let reference = manifest.reference(b"");
        FunctionView { reference, manifest, estimate: ESTIMATE }
    });
    let events = events().into_iter().map(|event| EventView { number: 1, at_ms: 2, job, event });
    let head = ChunkHead { number: 1, task_first: 2, tasks: 3, ended: Some(EndReason::Expired) };
    let task = TaskId { chunk: sheaf_core::ChunkKey { job, number: 1 }, index: 2 };
    let grid = GridView {
        version: "1".into(),
        backend: "disk".into(),
        directory: Some("/d".into()),
        slots: 1,
        lanes: BTreeMap::from([(Lane::Spot, LaneView { slots: 2, boot_ms: 3 })]),
        durable: true,
        syncs: Some(1),
    };
    document.check_all("JobView", &job_views());
    document.check_all("SubmitReply", &[SubmitReply { answers, estimate: ESTIMATE, slots: 1 }]);
    document.check_all("TaskView", &[task_view(task)]);
    document.check_all("FunctionView", &functions.collect::<Vec<_>>());
    document.check_all("WorkerView", &[worker_view()]);
    document.check_all("EventView", &events.collect::<Vec<_>>());
    document.check_all("GridView", &[grid]);
    document.check_all("ApiError", &[error]);
    document.check_all("Failure", &[full_failure()]);
    document.check_all("ChunkHead", std::slice::from_ref(&head));
    document.check_all("Page", &[Page { rows: vec![1], next: Some("2".into()) }]);
    let (segments, pack) = (vec![Bytes::from_static(b"segment")], Some(Bytes::from_static(b"pack")));
    let chunks = vec![ChunkResult { head, segments, pack }];
    let parts = sheaf_api::stream::encode_results(&ResultsPage { job: job_views().remove(0), chunks });
    document.check("PageHead", &serde_json::from_slice(&parts[1]).unwrap());
}

#[test]
fn every_code_has_a_section() {
    let sections: BTreeMap<_, _> =
        ERRORS.split("\n## `").skip(1).map(|section| section.split_once('`').unwrap()).collect();
    for code in Code::ALL {
        let word = code.as_str();
        let section = sections.get(word).unwrap_or_else(|| panic!("{word} has no section"));
        for part in ["**Meaning.**", "**When.**", "**What to do.**"] {
            assert!(section.contains(part), "{word} does not say {part}");
        }
        let outcome = match ApiError::new(code, "").outcome() {
            WriteOutcome::NotApplied => "not applied",
            WriteOutcome::Unknown => "unknown",
            WriteOutcome::Final => "final",
        };
        let row = ERRORS.lines().find(|line| line.starts_with(&format!("| [`{word}`](#{word}) |")));
        let row = row.unwrap_or_else(|| panic!("{word} is not in the table"));
        assert!(row.contains(&code.status().to_string()) && row.ends_with(&format!("| {outcome} |")), "{row}");
    }
    assert_eq!(sections.len(), Code::ALL.len());
}

#[tokio::test]
async fn the_document_is_served() {
    let server = crate::server::Server::start().await;
    let answer = server.request(reqwest::Method::GET, "/v1/openapi.yaml").send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/yaml");
    let served = Document::read(&answer.text().await.unwrap());
    assert_eq!(served.value["info"]["title"], "Sheaf");
    server.stopped().await;
}
