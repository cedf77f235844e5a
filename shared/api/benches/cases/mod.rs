//! What happens to every task's bytes on their way, each as something that can be repeated: timed by `formats.rs`, its
//! instructions counted by `tests/instructions.rs`.

use std::hint::black_box;

use sheaf_api::{FormatError, Pack, PackBuilder, Segment, SegmentBuilder};

/// Tasks of the pack and the segment.
pub(crate) const TASKS: u32 = 1_000;
/// Bytes of each payload and each result.
pub(crate) const TASK_BYTES: usize = 64;

/// Something that can be repeated.
pub(crate) type Case = Box<dyn FnMut()>;

/// A pack and a segment, each written, and each read with all that is in it.
pub(crate) fn formats() -> [(&'static str, Case); 4] {
    let pack = build_pack(&mut PackBuilder::new()).bytes().clone();
    let segment = build_segment(&mut SegmentBuilder::new());
    let (mut packs, mut segments) = (PackBuilder::new(), SegmentBuilder::new());
    [
        ("pack build", Box::new(move || drop(black_box(build_pack(&mut packs))))),
        (
            "pack parse",
            Box::new(move || {
                let pack = Pack::parse(black_box(&pack).clone()).expect("a builder wrote it");
                for task in 0..pack.tasks() {
                    black_box(pack.payload(task));
                }
            }),
        ),
        ("segment build", Box::new(move || drop(black_box(build_segment(&mut segments))))),
        (
            "segment parse",
            Box::new(move || {
                let segment = Segment::parse(black_box(&segment).clone()).expect("a builder wrote it");
                for entry in segment.entries() {
                    black_box(entry);
                }
            }),
        ),
    ]
}

fn build_pack(builder: &mut PackBuilder) -> Pack {
    let payload = [7; TASK_BYTES];
    (0..TASKS).for_each(|_| builder.push(black_box(&payload)).expect("a small payload"));
    builder.finish(false)
}

fn build_segment(builder: &mut SegmentBuilder) -> bytes::Bytes {
    let result = [7; TASK_BYTES];
    for task in 0..TASKS {
        let write = |answers: &mut Vec<u8>| -> Result<(), FormatError> {
            answers.extend_from_slice(black_box(&result));
            Ok(())
        };
        builder.succeeded_with(task, || 1, write).expect("a small result");
    }
    builder.finish(false)
}
