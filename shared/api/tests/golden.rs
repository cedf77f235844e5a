//! The formats, byte by byte: what this version writes is what it wrote when the format was made, and is read back.

mod frames;

use bytes::Bytes;
use frames::{framed, golden, read_pack, read_segment, resealed};
use sheaf_api::{
    FormatError, Pack, PackBuilder, Segment, SegmentBuilder,
    stream::{decode_chunk_set, decode_submission, encode_chunk_set, encode_submission},
    wire::SubmitChunk,
};
use sheaf_core::{ChunkSet, Failure, FailureKind, Mark};

#[test]
fn a_pack_is_these_bytes() {
    let mut builder = PackBuilder::new();
    for payload in [&b""[..], b"a", br#"{"n":1}"#] {
        builder.push(payload).expect("within limits");
    }
    assert_eq!(builder.bytes(), golden("pack").len() - 20);
    assert_eq!(builder.finish(true).bytes(), &golden("pack"));

    let pack = Pack::parse(golden("pack")).expect("a pack");
    assert_eq!(
        (pack.tasks(), pack.payload(0), pack.payload(1), pack.payload(2)),
        (3, &b""[..], &b"a"[..], &br#"{"n":1}"#[..])
    );
    assert!((0..3).all(|task| pack.function(task) == 0 && pack.key(task).is_empty()));
}

#[test]
fn a_pack_with_functions_and_keys_is_these_bytes() {
    let mut builder = PackBuilder::new();
    builder.push(b"x").expect("within limits");
    builder.push_task(b"yz", 255, "k1").expect("within limits");
    builder.push_task(b"", 1, "ä").expect("within limits");
    assert_eq!(builder.bytes(), golden("pack_functions_keys").len() - 20);
    assert_eq!(builder.finish(true).bytes(), &golden("pack_functions_keys"));

    let pack = Pack::parse(golden("pack_functions_keys")).expect("a pack");
    let tasks: Vec<_> = (0..3).map(|task| (pack.payload(task), pack.function(task), pack.key(task))).collect();
    assert_eq!(tasks, [(&b"x"[..], 0, ""), (b"yz", 255, "k1"), (b"", 1, "ä")]);
}

#[test]
fn a_compressed_pack_is_read() {
    let pack = Pack::parse(golden("pack_zstd")).expect("a pack");
    assert_eq!(pack.tasks(), 20);
    assert!((0..20).all(|task| pack.payload(task) == br#"{"type":"echo","arguments":[1]}"#));
}

fn failure() -> Failure {
    let mut failure = Failure::new(FailureKind::Error, "no such file").with_type("OSError");
    (failure.stack, failure.stderr, failure.attempts) = (vec!["run".into()], "boom".into(), 2);
    failure
}

#[test]
fn a_segment_is_these_bytes_in_whatever_order_it_was_filled() {
    let mut builder = SegmentBuilder::new();
    let gone = Failure::new(FailureKind::WorkerDied, "gone");
    builder.failed(2, Mark::Failed, &failure(), 70_000).expect("within limits");
    builder.succeeded(0, b"ok", 5).expect("within limits");
    builder.failed(1_023, Mark::Quarantined, &gone, u32::MAX).expect("within limits");
    builder.succeeded(1, b"", 0).expect("within limits");
    assert_eq!(builder.bytes(), golden("segment").len() - 20);
    assert_eq!(builder.finish(false), golden("segment"));

    let segment = Segment::parse(golden("segment")).expect("a segment");
    let entries: Vec<_> = segment.entries().map(|entry| (entry.task, entry.mark, entry.run_us)).collect();
    let wanted = [
        (0, Mark::Succeeded, 5),
        (1, Mark::Succeeded, 0),
        (2, Mark::Failed, 70_000),
        (1_023, Mark::Quarantined, u32::MAX),
    ];
    assert_eq!(entries, wanted);
    assert_eq!((segment.entry(0).answer, segment.entry(1).answer), (&b"ok"[..], &b""[..]));
    assert_eq!((segment.entry(2).failure(), segment.entry(3).failure()), (Ok(failure()), Ok(gone)));
    assert_eq!(segment.find(3), None);
}

#[test]
fn a_submission_is_these_bytes() {
    let mut builder = PackBuilder::new();
    builder.push(b"a").expect("within limits");
    let chunk = SubmitChunk { number: 3, task_first: (1 << 32) + 96, pack: builder.finish(false) };
    assert_eq!(encode_submission(&[chunk]), golden("submission"));

    let chunks = decode_submission(golden("submission")).expect("a submission");
    assert_eq!((chunks.len(), chunks[0].number, chunks[0].task_first), (1, 3, (1 << 32) + 96));
    assert_eq!(chunks[0].pack.payload(0), b"a");
}

#[test]
fn a_set_of_chunks_is_this_text() {
    let sets: [(ChunkSet, &str); 3] = [
        (ChunkSet::new(), ""),
        ([0, 1, 2, 3, 4, 9].into_iter().collect(), "OzAAAAEAAAUAAgAAAAQACQAAAA"),
        ((0..100_000).collect(), "OzABAAMAAP__AQCfhgEAAAD__wEAAACfhg"),
    ];
    for (set, text) in sets {
        assert_eq!(encode_chunk_set(&set), text);
        assert_eq!(decode_chunk_set(text), Ok(set));
    }
}

/// A golden frame with one byte replaced and a checksum that fits.
fn with(name: &str, at: usize, byte: u8) -> Bytes {
    let mut frame = golden(name).to_vec();
    frame[at] = byte;
    resealed(&frame)
}

#[test]
fn what_a_reader_does_not_know_it_refuses_and_says_so() {
    let cases: [(&str, Bytes); 17] = [
        ("empty", Bytes::new()),
        ("shorter than a frame", golden("pack").slice(..19)),
        ("a segment for a pack", golden("segment")),
        ("version 2", with("pack", 4, 2)),
        ("version 0", with("pack", 4, 0)),
        ("an unknown flag", with("pack", 5, 8)),
        ("reserved bytes", with("pack", 7, 1)),
        ("a changed payload", Bytes::from([&golden("pack")[..33], b"x", &golden("pack")[34..]].concat())),
        ("too many entries", with("pack", 10, 2)),
        ("too long a body", with("pack", 15, 17)),
        ("a body shorter than declared", with("pack", 12, 21)),
        ("an offset outside", with("pack", 24, 9)),
        ("offsets that descend", with("pack", 16, 2)),
        ("functions that are not there", with("pack", 5, 2)),
        ("a key that is no UTF-8", with("pack_functions_keys", 51, 0xff)),
        ("a key that ends within a character", with("pack_functions_keys", 41, 3)),
        ("a function beyond the job's", with("pack_functions_keys", 34, 1)),
    ];
    let told = cases.map(|(name, frame)| {
        let error = Pack::parse(frame).expect_err(name);
        format!("{name:34} → {error}")
    });
    let told = told.join("\n");
    insta::assert_snapshot!("refused_packs", told);
}

#[test]
fn what_is_wrong_with_a_segment_is_said() {
    let at =
        |text: &str| golden("segment").windows(text.len()).position(|window| window == text.as_bytes()).expect("in it");
    let columns = at("\"gone\",\"attempts\":0}") + 20;
    let longer = [&golden("segment")[16..231], b"x"].concat();
    let cases: [(&str, Bytes); 10] = [
        ("a pack for a segment", golden("pack")),
        ("bytes behind the last part", framed(b"SHSG", 0, 4, 216, &longer)),
        ("a flag of packs", with("segment", 5, 2)),
        ("an offset outside", with("segment", 28, 0xff)),
        ("an outcome that is open", with("segment", columns, 0)),
        ("an outcome that there is not", with("segment", columns, 4)),
        ("tasks that descend", with("segment", columns + 4, 2)),
        ("a task twice", with("segment", columns + 4, 1)),
        ("a task that no chunk has", with("segment", columns + 18, 1)),
        ("entries that are not there", with("segment", 8, 5)),
    ];
    let told = cases.map(|(name, frame)| {
        let error = Segment::parse(frame).expect_err(name);
        format!("{name:32} → {error}")
    });
    let told = told.join("\n");
    insta::assert_snapshot!("refused_segments", told);

    // The JSON of a failure is the one thing that is looked at only when somebody asks for it.
    let broken = Segment::parse(with("segment", at("{\"kind\":\"error\""), b'[')).expect("a segment");
    assert!(matches!(broken.entry(2).failure(), Err(FormatError::Malformed { .. })));
    assert!(broken.entry(3).failure().is_ok());
}

#[test]
fn golden_files_are_read_whole() {
    let packs = ["pack", "pack_functions_keys", "pack_zstd"];
    assert_eq!(packs.map(|name| read_pack(&Pack::parse(golden(name)).expect("a pack"))), [8, 263, 620]);
    assert_eq!(read_segment(&Segment::parse(golden("segment")).expect("a segment")), 163);
}
