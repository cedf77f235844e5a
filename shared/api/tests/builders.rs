//! Builders encode only what readers accept: what is beyond a limit is refused when it is added, and leaves no trace.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sheaf_api::{FormatError, Pack, PackBuilder, Segment, SegmentBuilder};
use sheaf_core::{Digest, Failure, FailureKind, Mark, limits};

fn is_limit(result: Result<(), FormatError>, of: &str) -> bool {
    matches!(result, Err(FormatError::Limit { what, .. }) if what == of)
}

#[test]
fn a_task_beyond_a_limit_is_not_added_to_a_pack() {
    let mut builder = PackBuilder::new();
    builder.push(&vec![0; limits::TASK_BYTES_MAX]).expect("as large as may be");
    builder.push_task(b"", 255, &"k".repeat(limits::TASK_KEY_BYTES_MAX)).expect("as large as may be");
    let bytes = builder.bytes();
    assert!(is_limit(builder.push(&vec![0; limits::TASK_BYTES_MAX + 1]), "payload bytes"));
    assert!(is_limit(builder.push_task(b"", 0, &"k".repeat(limits::TASK_KEY_BYTES_MAX + 1)), "key bytes"));
    assert!(is_limit(builder.push_task(b"", 256, ""), "function index"));
    assert_eq!((builder.tasks(), builder.bytes()), (2, bytes));
    assert_eq!(builder.finish(true).tasks(), 2);
}

#[test]
fn a_pack_holds_so_many_tasks() {
    let mut builder = PackBuilder::new();
    (0..limits::ORDERED_TASKS_MAX).for_each(|_| builder.push(b"").expect("one more"));
    assert!(is_limit(builder.push(b""), "tasks in a pack"));
    let pack = builder.finish(false);
    assert_eq!(Pack::parse(pack.bytes().clone()).map(|pack| pack.tasks()), Ok(limits::ORDERED_TASKS_MAX));
}

/// The first key of a pack gives every task before it an (empty) one: 4 bytes each that the pack must have room for.
#[test]
fn a_full_pack_has_no_room_for_a_first_key() {
    let mut builder = PackBuilder::new();
    let payload = vec![0; 4_080];
    (0..limits::ORDERED_TASKS_MAX - 1).for_each(|_| builder.push(&payload).expect("within limits"));
    let free = limits::PACK_BYTES_MAX - builder.bytes();
    assert!((100_000..2_000_000).contains(&free), "{free}");
    let rest = vec![0; free - 1_004];
    let bytes = builder.bytes();
    assert!(is_limit(builder.push(&vec![0; free - 3]), "pack bytes"));
    assert!(is_limit(builder.push_task(&rest, 1, ""), "pack bytes"));
    assert!(is_limit(builder.push_task(&rest, 0, "k"), "pack bytes"));
    assert_eq!(builder.bytes(), bytes);
    builder.push(&rest).expect("without a key it fits");
    assert_eq!(builder.bytes(), limits::PACK_BYTES_MAX - 1_000);
}

#[test]
fn what_does_not_compress_stays_as_it_is() {
    let noise: Vec<u8> = (0..100u8).flat_map(|i| *Digest::of(&[i]).as_bytes()).collect();
    let mut builder = PackBuilder::new();
    builder.push(&noise).expect("within limits");
    let pack = builder.clone().finish(true);
    assert_eq!(pack.bytes(), builder.finish(false).bytes());
}

#[test]
#[should_panic(expected = "task 1 of 1")]
fn a_pack_without_keys_has_no_key_beyond_its_tasks() {
    let mut builder = PackBuilder::new();
    builder.push(b"x").expect("within limits");
    let _ = builder.finish(false).key(1);
}

#[test]
fn a_result_beyond_a_limit_is_not_added_to_a_segment() {
    let mut builder = SegmentBuilder::new();
    builder.succeeded(0, b"first", 1).expect("within limits");
    let large = vec![0; limits::TASK_BYTES_MAX + 1];
    assert!(is_limit(builder.succeeded(1, &large, 1), "result bytes"));
    assert!(is_limit(builder.succeeded(limits::ORDERED_TASKS_MAX, b"", 1), "task index"));
    let failure = Failure { message: "x".repeat(limits::TASK_BYTES_MAX), ..Failure::new(FailureKind::Error, "") };
    assert!(is_limit(builder.failed(2, Mark::Failed, &failure, 1), "result bytes"));
    assert!(builder.failed(2, Mark::Succeeded, &Failure::new(FailureKind::Error, ""), 1).is_err());
    assert!(builder.failed(2, Mark::Open, &Failure::new(FailureKind::Error, ""), 1).is_err());
    check_holds(&mut builder, &[(0, b"first")]);
}

#[test]
fn a_segment_holds_so_many_tasks() {
    let all = || {
        let mut builder = SegmentBuilder::new();
        (0..limits::ORDERED_TASKS_MAX).for_each(|task| builder.succeeded(task, b"", 0).expect("one more"));
        builder
    };
    let (mut full, mut other) = (all(), SegmentBuilder::new());
    assert!(is_limit(full.succeeded(0, b"", 0), "tasks in a segment"));
    other.succeeded(0, b"", 0).expect("within limits");
    assert!(is_limit(full.append(&mut other), "tasks in a segment"));
    assert_eq!((full.tasks(), other.tasks()), (limits::ORDERED_TASKS_MAX, 1));
    assert_eq!(Segment::parse(full.finish(false)).map(|segment| segment.tasks()), Ok(limits::ORDERED_TASKS_MAX));
}

#[test]
fn a_segment_holds_so_many_bytes() {
    let mut builder = SegmentBuilder::new();
    let large = vec![0; limits::TASK_BYTES_MAX];
    let fit = (limits::PACK_BYTES_MAX / (limits::TASK_BYTES_MAX + 13)) as u32;
    (0..fit).for_each(|task| builder.succeeded(task, &large, 0).expect("within limits"));
    assert!(is_limit(builder.succeeded(fit, &large, 0), "segment bytes"));
    let mut other = SegmentBuilder::new();
    other.succeeded(fit, &large, 0).expect("within limits");
    assert!(is_limit(builder.append(&mut other), "segment bytes"));
    let free = limits::PACK_BYTES_MAX - builder.bytes() - 13;
    builder.succeeded(fit, &large[..free], 0).expect("it just fits");
    assert_eq!((builder.bytes(), other.tasks()), (limits::PACK_BYTES_MAX, 1));
}

/// What a linked-in function has written before it failed or panicked is in no answer.
#[test]
fn a_writer_that_fails_or_panics_leaves_nothing() {
    let fail = |builder: &mut SegmentBuilder, task: u32| {
        let failed = builder.succeeded_with(
            task,
            || 1,
            |buffer| {
                buffer.extend_from_slice(b"garbage");
                Err(FormatError::Malformed { format: "test", reason: "it fails" })
            },
        );
        assert!(failed.is_err());
    };
    let panic = |builder: &mut SegmentBuilder, task: u32| {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            builder.succeeded_with::<FormatError>(
                task,
                || 1,
                |buffer| {
                    buffer.extend_from_slice(b"garbage");
                    std::panic::resume_unwind(Box::new("it panics"))
                },
            )
        }));
        assert!(panicked.is_err());
    };
    type Broken = dyn Fn(&mut SegmentBuilder, u32);
    for broken in [&fail as &Broken, &panic] {
        let mut builder = SegmentBuilder::new();
        broken(&mut builder, 0);
        assert_eq!((builder.is_empty(), builder.bytes()), (true, 0));
        builder.succeeded(1, b"one", 1).expect("within limits");
        broken(&mut builder, 2);
        builder
            .succeeded_with(
                3,
                || 1,
                |buffer| {
                    buffer.extend_from_slice(b"three");
                    Ok::<_, FormatError>(())
                },
            )
            .expect("within limits");
        broken(&mut builder, 4);
        let mut other = SegmentBuilder::new();
        broken(&mut other, 5);
        other.succeeded(6, b"six", 1).expect("within limits");
        broken(&mut other, 7);
        builder.append(&mut other).expect("within limits");
        broken(&mut builder, 8);
        check_holds(&mut builder, &[(1, b"one"), (3, b"three"), (6, b"six")]);
        broken(&mut builder, 9);
        check_holds(&mut builder, &[]);
    }
}

fn check_holds(builder: &mut SegmentBuilder, wanted: &[(u32, &[u8])]) {
    let segment = Segment::parse(builder.finish(false)).expect("a builder encodes what a reader accepts");
    let found: Vec<(u32, &[u8])> = segment.entries().map(|entry| (entry.task, entry.answer)).collect();
    assert_eq!(found, wanted);
}

#[test]
fn run_times_are_summed_up() {
    let mut builder = SegmentBuilder::new();
    assert_eq!(builder.run_us(), (0.0, 0.0));
    [3, 4, 11].iter().zip(0..).for_each(|(run_us, task)| builder.succeeded(task, b"", *run_us).expect("within limits"));
    assert_eq!(builder.run_us(), (6.0, 11.0));
}
