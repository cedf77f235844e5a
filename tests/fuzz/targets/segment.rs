//! Segments: whatever is accepted can be read whole, and built again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sheaf_api::{Segment, SegmentBuilder};
use sheaf_core::Mark;

fuzz_target!(|input: &[u8]| {
    let Ok(segment) = Segment::parse(sheaf_fuzz::frames::sealed(b"SHSG", input)) else { return };
    let mut builder = SegmentBuilder::new();
    let mut readable = true;
    for (position, entry) in (0..).zip(segment.entries()) {
        assert_eq!((segment.entry(position), segment.find(entry.task)), (entry, Some(entry)));
        assert_eq!(entry.answer, &segment.answer_bytes(position)[..]);
        let added = match (entry.mark, entry.failure()) {
            (Mark::Succeeded, _) => builder.succeeded(entry.task, entry.answer, entry.run_us),
            (mark, Ok(failure)) => builder.failed(entry.task, mark, &failure, entry.run_us),
            // The JSON of failures is not checked when a segment is read; whoever asks for one is told.
            (_, Err(_)) => {
                readable = false;
                break;
            }
        };
        added.expect("a reader is not laxer");
    }
    if !readable {
        return;
    }
    for compress in [false, true] {
        let again = Segment::parse(builder.clone().finish(compress)).expect("a builder writes what a reader accepts");
        assert_eq!(again.tasks(), segment.tasks());
        for (was, is) in segment.entries().zip(again.entries()) {
            assert_eq!((was.task, was.mark, was.run_us), (is.task, is.mark, is.run_us));
            match was.mark {
                Mark::Succeeded => assert_eq!(was.answer, is.answer),
                _ => assert_eq!(was.failure(), is.failure()),
            }
        }
    }
});
