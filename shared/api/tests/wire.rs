//! Requests and replies as JSON: the form that other programs read, written down whole. A field that changes its name or
//! disappears is a change of the wire.

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};
use sheaf_api::{
    ApiError, Code, FormatError, WriteOutcome, stream,
    wire::{
        CheckpointView, ChunkAnswer, ChunkHead, ChunkResult, CreateJob, EventView, FunctionView, GridView, JobFilter,
        JobView, Page, ReadResults, ResultsPage, RetryJob, SealJob, SubmitReply, TaskView, WorkerView,
    },
};
use sheaf_core::{
    ChunkKey, Digest, EndReason, Estimate, Event, Failure, FailureKind, FunctionKind, FunctionName, FunctionRef, Job,
    JobId, JobState, Lane, Manifest, Origin, Outcome, PastAttempt, Priority, ReleaseReason, Seal, Summary, TaskId,
    TenantId, Totals, WorkerId,
};

const JOB: JobId = JobId::from_bytes([1; 16]);
const ESTIMATE: Estimate = Estimate { tasks: 8, mean_us: 120.5, p95_us: 300.0 };
const SEAL: Seal = Seal { chunks: 2, tasks: 8 };

fn parsed<T: std::str::FromStr<Err = sheaf_core::IdError>>(text: &str) -> T {
    text.parse().expect("a well-formed id")
}

/// The JSON of a value, which is read back as the same value; also with a field that this version does not know.
fn json<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) -> String {
    let text = serde_json::to_string_pretty(value).expect("plain structs become JSON");
    assert_eq!(serde_json::from_str::<T>(&text).as_ref().ok(), Some(value), "{text}");
    if let Some(rest) = text.strip_prefix('{') {
        let comma = if rest == "}" { "" } else { "," };
        let later = format!("{{\"a_later_field\": [1, {{}}]{comma}{rest}");
        assert_eq!(serde_json::from_str::<T>(&later).as_ref().ok(), Some(value), "{later}");
    }
    text
}

fn asked() -> CreateJob {
    CreateJob {
        name: "night run".into(),
        ordered: true,
        max_attempts: Some(3),
        deadline_ms: Some(1_700_000_000_000),
        fail_fast: Some(10),
        task_ms: Some(2_500),
        priority: Priority::High,
        lane: Lane::OnDemand,
        retention_ms: Some(60_000),
        labels: BTreeMap::from([("team".into(), "forecast".into())]),
        origin: Some(Origin::File { path: "inbox/night.json".into() }),
        ..CreateJob::new(JOB, vec!["square".into(), "cube@0123456789ab".into()])
    }
}

fn job(state: JobState) -> JobView {
    let functions: Vec<FunctionRef> = vec![parsed("square@0123456789ab"), parsed("cube@0123456789ab")];
    let job = Job {
        id: JOB,
        tenant: TenantId::default(),
        options: asked().options(functions, false),
        options_digest: Digest::of(b"options"),
        origin: Some(Origin::RetryOf { job: JobId::from_bytes([2; 16]) }),
        created_at_ms: 1_690_000_000_000,
        state,
    };
    let totals = Totals { succeeded: 4, failed: 1, cancelled: 0, expired: 2, quarantined: 1 };
    let summary = Summary { chunks_submitted: 2, tasks_submitted: 8, chunks_ended: 2, totals };
    JobView { job, summary, estimate: ESTIMATE, slots: 64, boot_ms: 0 }
}

#[test]
fn when_a_job_ends_at_the_earliest() {
    const NOW_MS: u64 = 1_000;
    let mut view = job(JobState::Open);
    view.job.options.functions.truncate(1);
    view.job.options.ordered = false;
    view.estimate = Estimate { tasks: 3, mean_us: 10_000.0, p95_us: 20_000.0 };
    (view.slots, view.boot_ms) = (4, 500);
    assert_eq!(view.earliest_end_ms(NOW_MS), None, "all eight have ended");
    view.summary.tasks_submitted = 108;
    assert_eq!(view.earliest_end_ms(NOW_MS), Some(NOW_MS + 500 + 250), "a hundred tasks of 10 ms in four slots");
    view.job.options.deadline_ms = Some(NOW_MS + 750);
    assert_eq!(view.lateness(NOW_MS), None);
    assert_eq!(view.lateness(NOW_MS + 1), Some((NOW_MS + 750, NOW_MS + 751)));
    view.summary.tasks_submitted = 9;
    assert_eq!(view.earliest_end_ms(NOW_MS), Some(NOW_MS + 500 + 10), "no sooner than one task takes");
    view.summary.tasks_submitted = 18;
    view.job.options.ordered = true;
    assert_eq!(view.earliest_end_ms(NOW_MS), Some(NOW_MS + 500 + 100), "one after the other");
    type Change = fn(&mut JobView);
    let unknown: [(&str, Change); 4] = [
        ("no slots", |view| view.slots = 0),
        ("a function nobody has run", |view| view.estimate = Estimate::default()),
        ("two functions", |view| view.job.options.functions = job(JobState::Open).job.options.functions),
        ("it is over", |view| view.job.state = JobState::Cancelled { seal: None, at_ms: 1 }),
    ];
    for (why, change) in unknown {
        let mut view = view.clone();
        change(&mut view);
        assert_eq!(view.earliest_end_ms(NOW_MS), None, "{why}");
    }
}

#[test]
fn jobs() {
    let told = [
        format!("least of a job asked for\n{}", json(&CreateJob::new(JOB, vec!["square".into()]))),
        format!("all of a job asked for\n{}", json(&asked())),
        format!("a seal\n{}", json::<SealJob>(&SEAL)),
        format!("a job, done\n{}", json(&job(JobState::Done { seal: SEAL, at_ms: 1_690_000_009_000 }))),
        format!("a retry\n{}", json(&RetryJob { id: JOB })),
        format!(
            "a filter\n{}",
            json(&JobFilter { alive: true, name: Some("night run".into()), before: Some(JOB), limit: 7 })
        ),
        format!("a page\n{}", json(&Page { rows: vec![JOB], next: Some("2".into()) })),
        format!("the last page\n{}", json(&Page::<JobId> { rows: vec![], next: None })),
    ]
    .join("\n\n");
    insta::assert_snapshot!("jobs", told);
}

#[test]
fn states_of_a_job() {
    let states = [
        JobState::Open,
        JobState::Sealed { seal: SEAL },
        JobState::Cancelling { seal: None },
        JobState::Cancelling { seal: Some(SEAL) },
        JobState::Cancelled { seal: None, at_ms: 5 },
        JobState::Done { seal: SEAL, at_ms: 5 },
    ];
    let told = states.map(|state| {
        let view = job(state);
        json(&view);
        let value = serde_json::to_value(&view).expect("JSON");
        format!("{:10} {}", state.as_str(), value["state"])
    });
    let told = told.join("\n");
    insta::assert_snapshot!("states", told);
}

#[test]
fn chunks() {
    let error = ApiError::new(Code::Throttled, "tenant default has 64 MiB in flight")
        .with_hint("wait, or ask for a higher quota")
        .with_retry_after_ms(250);
    let answers = vec![ChunkAnswer::Accepted, ChunkAnswer::Exists, ChunkAnswer::Refused { error }];
    let head = |number, ended| ChunkHead { number, task_first: 1_024, tasks: 4, ended };
    let chunks = vec![
        ChunkResult { head: head(0, None), segments: vec!["abc".into(), "de".into()], pack: Some("f".into()) },
        ChunkResult { head: head(1, Some(EndReason::Expired)), segments: vec![], pack: None },
    ];
    let parts = stream::encode_results(&ResultsPage { job: job(JobState::Open), chunks });
    let page: serde_json::Value = serde_json::from_slice(&parts[1]).expect("the head of a page is JSON");
    let told = [
        format!("a reply to a submission\n{}", json(&SubmitReply { answers, estimate: ESTIMATE, slots: 64 })),
        format!("chunks of a page of results\n{:#}", page["chunks"]),
        format!("parts of it behind its head\n{:?}", &parts[2..]),
    ]
    .join("\n\n");
    insta::assert_snapshot!("chunks", told);
}

fn task() -> TaskView {
    let past = PastAttempt {
        epoch: 1,
        worker: parsed("wrk_a"),
        since_ms: 1,
        until_ms: 2,
        released: Some(ReleaseReason::Reclaimed),
        checkpointed_at_ms: Some(2),
    };
    let mut failure = Failure::new(FailureKind::OutOfMemory, "it used 2 GiB").with_type("MemoryError");
    (failure.stack, failure.stderr, failure.attempts) = (vec!["main".into()], "boom".into(), 3);
    TaskView {
        id: TaskId { chunk: ChunkKey { job: JOB, number: 1 }, index: 3 },
        key: Some("row-7".into()),
        function: parsed("square@0123456789ab"),
        outcome: Some(Outcome::Quarantined),
        why: "its process died three times".into(),
        chunk_state: "done".into(),
        worker: Some(parsed("wrk_b")),
        submitted_at_ms: 1,
        ended_at_ms: Some(9),
        run_us: Some(70),
        attempts: 0,
        strikes: 3,
        crashes: 1,
        past: vec![past],
        checkpoint: Some(CheckpointView { epoch: 1, bytes: 30, at_ms: 2, run_ms: 1 }),
        lost_ms: Some(0),
        failure: Some(failure),
        result_bytes: Some(0),
        estimate: ESTIMATE,
    }
}

fn open_task() -> TaskView {
    let (key, outcome, worker, ended_at_ms, run_us, failure, result_bytes) = Default::default();
    let (past, checkpoint, lost_ms) = Default::default();
    TaskView { key, outcome, worker, ended_at_ms, run_us, failure, result_bytes, past, checkpoint, lost_ms, ..task() }
}

#[test]
fn tasks_and_what_they_run_on() {
    let name: FunctionName = parsed("square");
    let manifest = Manifest::new(name, FunctionKind::Command { argv: vec!["bc".into()] });
    let function = FunctionView { reference: parsed("square@0123456789ab"), manifest, estimate: ESTIMATE };
    let worker = WorkerView {
        id: parsed("wrk_a"),
        host: "host-1".into(),
        pid: Some(4711),
        lanes: vec![Lane::Lambda, Lane::Spot],
        slots: 8,
        holding: vec![ChunkKey { job: JOB, number: 1 }],
        copies: vec![ChunkKey { job: JOB, number: 1 }],
        draining: false,
        started_at_ms: 1,
        seen_at_ms: 2,
        tasks_ended: 3,
    };
    let memory = GridView {
        version: "0.1.0".into(),
        backend: "memory".into(),
        directory: None,
        slots: 2,
        durable: false,
        lanes: BTreeMap::new(),
        syncs: None,
    };
    let disk =
        GridView { backend: "disk".into(), directory: Some("/var/lib/sheaf".into()), durable: true, ..memory.clone() };
    let told = [
        format!("a task that ended\n{}", json(&task())),
        format!("a task that is open\n{}", json(&open_task())),
        format!("a function\n{}", json(&function)),
        format!("a worker\n{}", json(&worker)),
        format!("a grid in memory\n{}", json(&memory)),
        format!("a grid on disk\n{}", json(&disk)),
    ]
    .join("\n\n");
    insta::assert_snapshot!("tasks", told);
}

#[test]
fn history() {
    let (chunk, epoch, worker) = (1, 2, parsed::<WorkerId>("wrk_a"));
    let totals = sheaf_core::ChunkTotals { succeeded: 3, failed: 1, cancelled: 0, expired: 0, quarantined: 0 };
    let events = [
        Event::JobCreated,
        Event::JobSealed { seal: SEAL },
        Event::JobCancelling,
        Event::JobCancelled,
        Event::JobDone,
        Event::ChunkSubmitted { chunk, tasks: 4 },
        Event::ChunkClaimed { chunk, epoch, worker: worker.clone(), taken_over: true, resumed: 2 },
        Event::SegmentCommitted { chunk, epoch, totals },
        Event::CheckpointStored { chunk, task: 3, epoch, bytes: 30, run_ms: 60_000 },
        Event::TaskIsolated { chunk, task: 3 },
        Event::ChunkReleased { chunk, epoch, reason: ReleaseReason::BackOff, not_before_ms: 7 },
        Event::ChunkFinished { chunk, epoch, worker, since_ms: 5, totals },
        Event::ChunkEnded { chunk, reason: EndReason::Cancelled, totals },
    ];
    let told: Vec<String> = (0..)
        .zip(events)
        .map(|(number, event)| {
            let view = EventView { number, at_ms: 9, job: JOB, event };
            json(&view);
            serde_json::to_string(&view).expect("JSON")
        })
        .collect();
    let told = told.join("\n");
    insta::assert_snapshot!("events", told);
}

#[test]
fn what_is_left_out_has_its_default() {
    let text = format!(r#"{{"id":"{JOB}","functions":["square"]}}"#);
    assert_eq!(serde_json::from_str::<CreateJob>(&text).expect("a job"), CreateJob::new(JOB, vec!["square".into()]));
    assert_eq!(serde_json::from_str::<JobFilter>("{}").expect("a filter"), JobFilter::default());
    assert_eq!(JobFilter::default().limit, 100);
    assert_eq!(ReadResults::default().chunks_max, sheaf_core::limits::RESULT_PAGE_CHUNKS_MAX);
    assert_eq!(
        serde_json::from_str::<Page<u8>>(r#"{"rows":[1]}"#).expect("a page"),
        Page { rows: vec![1], next: None }
    );
    let error = serde_json::from_str::<ApiError>(r#"{"code":"over","message":"m"}"#).expect("an error");
    assert_eq!(error, ApiError::new(Code::Over, "m"));
}

#[test]
fn a_job_that_asks_for_nothing_gets_the_usual_options() {
    let functions: Vec<FunctionRef> = vec![parsed("square@0123456789ab")];
    let least = CreateJob::new(JOB, vec!["square".into()]);
    assert_eq!(least.options(functions.clone(), false), sheaf_core::JobOptions::new(functions.clone()));
    // Ordered because its function is, though nobody asked.
    assert!(least.options(functions.clone(), true).ordered && asked().options(functions, false).ordered);
}

#[test]
fn codes() {
    let line = |code: Code| {
        assert_eq!(json(&code), format!("\"{}\"", code.as_str()));
        let outcome = ApiError::new(code, "").outcome();
        format!("{:12} {} {outcome:?}", code.as_str(), code.status())
    };
    let told = Code::ALL.map(line).join("\n");
    insta::assert_snapshot!("codes", told);
    // No wildcard: a new code does not compile until it is counted here, and then wants its place in `Code::ALL`.
    let position = |code: Code| match code {
        Code::Invalid => 0,
        Code::TooLarge => 1,
        Code::NotFound => 2,
        Code::Conflict => 3,
        Code::Over => 4,
        Code::Unauthorized => 5,
        Code::Forbidden => 6,
        Code::Throttled => 7,
        Code::Unavailable => 8,
        Code::Unknown => 9,
        Code::Stopped => 10,
        Code::Internal => 11,
    };
    assert!(Code::ALL.iter().enumerate().all(|(at, code)| position(*code) == at));
}

#[test]
fn an_error_tells_people_and_programs_what_to_do() {
    let error = ApiError::not_found("job_1").with_hint("`sheaf job list` shows what there is").with_retry_after_ms(5);
    assert_eq!(error.to_string(), "no such thing here: job_1");
    assert_eq!((error.code, error.outcome()), (Code::NotFound, WriteOutcome::Final));
    let told = [json(&error), json(&ApiError::invalid("a pack without tasks"))].join("\n");
    insta::assert_snapshot!("errors", told);

    let limit = FormatError::Limit { what: "entries", found: 9, limit: 8 };
    let malformed = FormatError::Malformed { format: "pack", reason: "it is torn" };
    assert_eq!(ApiError::from(limit).code, Code::TooLarge);
    assert_eq!(ApiError::from(malformed), ApiError::invalid("pack is malformed: it is torn"));
}
