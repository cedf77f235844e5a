//! What is encoded is decoded again, whatever it is; and nothing is copied that need not be.

mod frames;

use std::collections::BTreeMap;

use bytes::Bytes;
use frames::{lies_in, read_segment};
use proptest::{collection::vec, prelude::*, sample::Index};
use sheaf_api::{
    Pack, PackBuilder, Segment, SegmentBuilder,
    stream::{self, decode_chunk_set, encode_chunk_set},
    wire::{ChunkHead, ChunkResult, JobView, PutFunction, ResultsPage, SubmitChunk},
};
use sheaf_core::{
    ChunkSet, Digest, EndReason, Estimate, Failure, FailureKind, FunctionKind, Job, JobId, JobOptions, JobState,
    Manifest, Mark, Summary, TenantId, limits,
};

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Bytes that compress well or not at all.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..60), (any::<u8>(), 0..300usize).prop_map(|(byte, count)| vec![byte; count])]
}

type Task = (Vec<u8>, u16, String);

fn tasks() -> impl Strategy<Value = Vec<Task>> {
    let function = prop_oneof![3 => Just(0u16), 1 => 0..limits::JOB_FUNCTIONS_MAX as u16];
    let key = prop_oneof![2 => Just(String::new()), 1 => "[a-zäö€𝄞]{0,12}"];
    vec((payload(), function, key), 0..60)
}

fn built(tasks: &[Task]) -> PackBuilder {
    let mut builder = PackBuilder::new();
    tasks
        .iter()
        .for_each(|(payload, function, key)| builder.push_task(payload, *function, key).expect("within limits"));
    builder
}

fn read(pack: &Pack) -> Vec<Task> {
    (0..pack.tasks()).map(|i| (pack.payload(i).to_vec(), pack.function(i), pack.key(i).to_owned())).collect()
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn packs(tasks in tasks(), compress in any::<bool>()) {
        let mut builder = built(&tasks);
        let body_bytes = builder.bytes();
        let pack = builder.finish(compress);
        prop_assert_eq!(read(&pack), &tasks[..]);
        prop_assert_eq!(pack.bytes().len() == body_bytes + 20, pack.bytes()[5] & 1 == 0, "plain exactly when not compressed");
        prop_assert!(pack.bytes().len() <= body_bytes + 20);
        let again = Pack::parse(pack.bytes().clone()).expect("it was encoded");
        prop_assert_eq!(read(&again), &tasks[..]);
        prop_assert_eq!(pack.digest(), Digest::of(again.bytes()));

        // The builder begins anew, with nothing left of the tasks before.
        prop_assert!(builder.is_empty() && builder.bytes() == 0);
        builder.push(b"x").expect("within limits");
        prop_assert_eq!(read(&builder.finish(compress)), vec![(b"x".to_vec(), 0, String::new())]);
    }

    #[test]
    fn payloads_of_plain_packs_lie_in_them(tasks in tasks()) {
        let pack = built(&tasks).finish(false);
        for task in (0..pack.tasks()).filter(|&task| !pack.payload(task).is_empty()) {
            prop_assert!(lies_in(pack.payload(task), pack.bytes()) && lies_in(&pack.payload_bytes(task), pack.bytes()));
        }
        let submission = stream::encode_submission(&[SubmitChunk { number: 0, task_first: 0, pack }]);
        let chunks = stream::decode_submission(submission.clone()).expect("a submission");
        prop_assert!(lies_in(chunks[0].pack.bytes(), &submission));
    }

    #[test]
    fn segments(answers in answers(), split in any::<Index>(), compress in any::<bool>()) {
        let mut whole = filled(&answers);
        let (first, second) = answers.split_at(split.index(answers.len() + 1));
        let (mut joined, mut rest) = (filled(first), filled(second));
        joined.append(&mut rest).expect("within limits");
        prop_assert!(rest.is_empty() && rest.bytes() == 0);
        prop_assert_eq!((joined.tasks(), joined.bytes()), (whole.tasks(), whole.bytes()));

        // Of a task that stands twice, the last answer counts; the marks of such a segment are refused.
        let last: BTreeMap<u32, &Answer> = answers.iter().map(|answer| (answer.task, answer)).collect();
        let marks = whole.marks(TASKS);
        prop_assert_eq!(marks.is_some(), last.len() == answers.len());
        if let Some(marks) = marks {
            prop_assert!((0..TASKS).all(|task| marks.get(task) == last.get(&task).map_or(Mark::Open, |one| one.mark())));
        }
        prop_assert!(answers.is_empty() || whole.marks(answers[0].task).is_none());

        let bytes = whole.finish(compress);
        prop_assert_eq!(&joined.finish(compress), &bytes);
        prop_assert!(whole.is_empty() && whole.bytes() == 0);
        let segment = Segment::parse(bytes.clone()).expect("it was encoded");
        prop_assert_eq!(segment.tasks() as usize, last.len());
        for (entry, answer) in segment.entries().zip(last.values()) {
            prop_assert_eq!((entry.task, entry.mark, entry.run_us), (answer.task, answer.mark(), answer.run_us));
            match &answer.failure {
                None => prop_assert_eq!(entry.answer, &answer.result[..]),
                Some((_, failure)) => prop_assert_eq!(&entry.failure().expect("a failure"), failure),
            }
        }
        prop_assert!((0..TASKS).all(|task| segment.find(task).is_some() == last.contains_key(&task)));
        let mut parts = (0..segment.tasks()).map(|i| segment.answer_bytes(i)).filter(|part| !part.is_empty());
        prop_assert!(compress || parts.all(|part| lies_in(&part, &bytes)));
        read_segment(&segment);
    }

    #[test]
    fn submissions(packs in vec((tasks(), any::<u32>(), any::<u64>(), any::<bool>()), 0..4)) {
        let chunk = |(tasks, number, task_first, compress): &(Vec<Task>, u32, u64, bool)| {
            SubmitChunk { number: *number, task_first: *task_first, pack: built(tasks).finish(*compress) }
        };
        let chunks: Vec<SubmitChunk> = packs.iter().map(chunk).collect();
        let again = stream::decode_submission(stream::encode_submission(&chunks)).expect("a submission");
        prop_assert_eq!(again.len(), chunks.len());
        for (again, chunk) in again.iter().zip(&chunks) {
            prop_assert_eq!((again.number, again.task_first, again.pack.bytes()), (chunk.number, chunk.task_first, chunk.pack.bytes()));
        }
    }

    #[test]
    fn pages_of_results(chunks in vec((any::<u32>(), vec(payload(), 0..3), proptest::option::of(payload())), 0..5)) {
        let result = |(number, segments, pack): &(u32, Vec<Vec<u8>>, Option<Vec<u8>>)| ChunkResult {
            head: ChunkHead { number: *number, task_first: u64::from(*number), tasks: 1, ended: number.is_multiple_of(2).then_some(EndReason::Expired) },
            segments: segments.iter().map(|segment| segment.clone().into()).collect(),
            pack: pack.clone().map(Bytes::from),
        };
        let page = ResultsPage { job: job_view(), chunks: chunks.iter().map(result).collect() };
        let body: Bytes = stream::encode_results(&page).concat().into();
        let again = stream::decode_results(body.clone()).expect("a page");
        prop_assert_eq!(again.job, page.job);
        prop_assert_eq!(again.chunks.len(), page.chunks.len());
        for (again, chunk) in again.chunks.iter().zip(&page.chunks) {
            prop_assert_eq!((&again.head, &again.segments, &again.pack), (&chunk.head, &chunk.segments, &chunk.pack));
            prop_assert!(again.segments.iter().all(|segment| segment.is_empty() || lies_in(segment, &body)));
        }
        // A page that goes on behind its last part, or ends within it, is none.
        prop_assert!(stream::decode_results([&body[..], b"x"].concat().into()).is_err());
        prop_assert!(stream::decode_results(body.slice(..body.len() - 1)).is_err());
    }

    #[test]
    fn functions(package in proptest::option::of(payload())) {
        let kind = FunctionKind::Package { digest: Digest::of(b"zip"), handler: "main".into() };
        let manifest = Manifest::new("square".parse().expect("a function name"), kind);
        let request = PutFunction { manifest, package: package.map(Bytes::from) };
        let body = stream::encode_function(&request);
        let again = stream::decode_function(body.clone()).expect("a function");
        prop_assert_eq!((&again.manifest, &again.package), (&request.manifest, &request.package));
        prop_assert!(request.package.is_none() || stream::decode_function([&body[..], b"x"].concat().into()).is_err());
    }

    #[test]
    fn sets_of_chunks(runs in vec((0..limits::JOB_CHUNKS_MAX - 5_000, 0..5_000u32), 0..8), single in vec(0..limits::JOB_CHUNKS_MAX, 0..50)) {
        let mut set: ChunkSet = single.into_iter().collect();
        runs.into_iter().for_each(|(start, length)| { set.insert_range(start..start + length); });
        let text = encode_chunk_set(&set);
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
        prop_assert_eq!(decode_chunk_set(&text), Ok(set));
    }
}

const TASKS: u32 = 40;

#[derive(Debug, Clone)]
struct Answer {
    task: u32,
    run_us: u32,
    result: Vec<u8>,
    failure: Option<(Mark, Failure)>,
}

impl Answer {
    fn mark(&self) -> Mark {
        self.failure.as_ref().map_or(Mark::Succeeded, |(mark, _)| *mark)
    }
}

fn answers() -> impl Strategy<Value = Vec<Answer>> {
    let mark = prop_oneof![Just(Mark::Failed), Just(Mark::Quarantined)];
    let failure = (mark, ".{0,30}").prop_map(|(mark, message)| (mark, Failure::new(FailureKind::Panic, message)));
    let answer = (0..TASKS, any::<u32>(), payload(), proptest::option::weighted(0.3, failure))
        .prop_map(|(task, run_us, result, failure)| Answer { task, run_us, result, failure });
    vec(answer, 0..30)
}

/// A builder with these answers, filled in each of the ways there are.
fn filled(answers: &[Answer]) -> SegmentBuilder {
    let mut builder = SegmentBuilder::new();
    for (at, Answer { task, run_us, result, failure }) in answers.iter().enumerate() {
        let added = match failure {
            Some((mark, failure)) => builder.failed(*task, *mark, failure, *run_us),
            None if at % 2 == 0 => builder.succeeded(*task, result, *run_us),
            None => builder.succeeded_with(
                *task,
                || *run_us,
                |buffer| {
                    buffer.extend_from_slice(result);
                    Ok(())
                },
            ),
        };
        added.expect("within limits");
    }
    builder
}

fn job_view() -> JobView {
    let function = "square@0123456789ab".parse().expect("a function version");
    let job = Job {
        id: JobId::from_bytes([1; 16]),
        tenant: TenantId::default(),
        options: JobOptions::new(vec![function]),
        options_digest: Digest::of(b""),
        origin: None,
        created_at_ms: 1,
        state: JobState::Open,
    };
    JobView { job, summary: Summary::default(), estimate: Estimate::default(), slots: 2, boot_ms: 0 }
}
