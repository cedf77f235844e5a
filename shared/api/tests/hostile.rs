//! Whatever bytes arrive, reading them neither panics nor takes more memory than they are worth; and what is not exactly
//! a frame is refused. Changed frames get a checksum that fits, so that what is behind it is tried too.

mod frames;

use base64::Engine;
use bytes::Bytes;
use frames::{framed, golden, read_as_all, read_pack, read_segment, resealed};
use proptest::{collection::vec, prelude::*, sample::Index};
use sheaf_api::{
    ApiError, Code, FormatError, Pack, PackBuilder, Segment, SegmentBuilder,
    stream::{
        decode_chunk_set, decode_function, decode_results, decode_submission, encode_chunk_set, encode_submission,
    },
    wire::SubmitChunk,
};
use sheaf_core::{ChunkSet, Failure, FailureKind, Mark, limits};

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// A frame as builders make it: of either format, with and without every part, compressed and not.
fn frame() -> impl Strategy<Value = Bytes> {
    (vec(0..90u8, 1..30), any::<[bool; 4]>()).prop_map(|(sizes, [is_pack, functions, keys, compress])| {
        let (mut pack, mut segment) = (PackBuilder::new(), SegmentBuilder::new());
        for (task, size) in (0..).zip(sizes) {
            let bytes = vec![b'x'; size.into()];
            let (function, key) = (if functions { task as u16 } else { 0 }, if keys { "käy" } else { "" });
            pack.push_task(&bytes, function, key).expect("within limits");
            match task % 5 {
                4 => segment.failed(task, Mark::Failed, &Failure::new(FailureKind::Error, "no"), 7),
                _ => segment.succeeded(2 * task, &bytes, 7),
            }
            .expect("within limits");
        }
        if is_pack { pack.finish(compress).bytes().clone() } else { segment.finish(compress) }
    })
}

/// A change to bytes.
#[derive(Debug, Clone)]
enum Wound {
    Flip(Index, u8),
    Set(Index, u8),
    /// A 32-bit number, as offsets and sizes are.
    Number(Index, u32),
    Cut(Index),
    Insert(Index, Vec<u8>),
    Remove(Index),
}

fn wound() -> impl Strategy<Value = Wound> {
    let at = any::<Index>;
    let number = prop_oneof![0..40u32, Just(u32::MAX), Just(1 << 28), any::<u32>()];
    prop_oneof![
        (at(), 0..8u8).prop_map(|(at, bit)| Wound::Flip(at, bit)),
        (at(), any::<u8>()).prop_map(|(at, byte)| Wound::Set(at, byte)),
        (at(), number).prop_map(|(at, number)| Wound::Number(at, number)),
        at().prop_map(Wound::Cut),
        (at(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Wound::Insert(at, bytes)),
        at().prop_map(Wound::Remove),
    ]
}

fn wounded(whole: &[u8], wounds: &[Wound]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for wound in wounds {
        let length = bytes.len();
        if length < 4 {
            return bytes;
        }
        match wound {
            Wound::Flip(at, bit) => bytes[at.index(length)] ^= 1 << bit,
            Wound::Set(at, byte) => bytes[at.index(length)] = *byte,
            Wound::Number(at, number) => {
                let at = at.index(length - 3) / 4 * 4;
                bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
            }
            Wound::Cut(at) => bytes.truncate(at.index(length)),
            Wound::Insert(at, new) => drop(bytes.splice(at.index(length)..at.index(length), new.iter().copied())),
            Wound::Remove(at) => drop(bytes.remove(at.index(length))),
        }
    }
    bytes
}

proptest! {
    #![proptest_config(config(1_000))]

    #[test]
    fn random_bytes_are_read_as_nothing_without_a_panic(bytes in vec(any::<u8>(), 0..200), magic in 0..3usize, flags in 0..8u8) {
        read_as_all(&bytes.clone().into());
        if bytes.len() >= 20 {
            let mut frame = bytes;
            frame[..4].copy_from_slice([b"SHPK", b"SHSG", b"none"][magic]);
            frame[4..8].copy_from_slice(&[1, flags, 0, 0]);
            (frame[9], frame[10], frame[11], frame[13], frame[14], frame[15]) = (0, 0, 0, 0, 0, 0);
            read_as_all(&resealed(&frame));
        }
    }

    #[test]
    fn a_changed_frame_is_refused(frame in frame(), wounds in vec(wound(), 1..4)) {
        let changed: Bytes = wounded(&frame, &wounds).into();
        if changed != frame {
            prop_assert!(Pack::parse(changed.clone()).is_err());
            prop_assert!(Segment::parse(changed).is_err());
        }
    }

    #[test]
    fn a_changed_frame_with_a_fitting_checksum_is_refused_or_read(frame in frame(), wounds in vec(wound(), 1..4)) {
        read_as_all(&resealed(&wounded(&frame, &wounds)));
    }

    #[test]
    fn a_changed_body_in_a_sound_frame_is_refused_or_read(frame in frame(), wounds in vec(wound(), 1..4), zip in any::<bool>()) {
        // Only plain frames have their body in the open.
        let (entries, flags) = (u32::from(frame[8]), frame[5]);
        if flags & 1 == 0 {
            let body = wounded(&frame[16..frame.len() - 4], &wounds);
            let magic = if frame.starts_with(b"SHPK") { b"SHPK" } else { b"SHSG" };
            let zipped = zstd::bulk::compress(&body, 1).expect("it compresses");
            let (stored, flags) = if zip { (&zipped, flags | 1) } else { (&body, flags) };
            read_as_all(&framed(magic, flags, entries, body.len() as u32, stored));
        }
    }

    #[test]
    fn a_changed_submission_is_refused_or_read(frames in vec(frame(), 1..3), wounds in vec(wound(), 0..3)) {
        let packs = frames.into_iter().filter_map(|frame| Pack::parse(frame).ok());
        let chunks: Vec<SubmitChunk> = packs.map(|pack| SubmitChunk { number: 0, task_first: 0, pack }).collect();
        read_as_all(&wounded(&encode_submission(&chunks), &wounds).into());
    }

    #[test]
    fn no_text_is_a_set_of_chunks_by_accident(text in "[A-Za-z0-9_-]{0,80}", bytes in vec(any::<u8>(), 0..60), runs in any::<bool>()) {
        let _ = decode_chunk_set(&text).map(|set| set.len());
        let cookie: &[u8] = if runs { &[0x3b, 0x30, 1, 0, 3] } else { &[0x3a, 0x30, 0, 0, 2, 0, 0, 0] };
        let _ = decode_chunk_set(&base64url(&[cookie, &bytes].concat())).map(|set| (set.len(), set.max(), set == ChunkSet::new()));
    }

    #[test]
    fn a_changed_set_of_chunks_is_refused_or_read(numbers in vec(0..200_000u32, 1..40), wounds in vec(wound(), 1..3)) {
        let mut set: ChunkSet = numbers.into_iter().collect();
        set.insert_range(70_000..140_000);
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encode_chunk_set(&set)).expect("base64url");
        if let Ok(read) = decode_chunk_set(&base64url(&wounded(&bytes, &wounds))) {
            prop_assert!(read.max().is_none_or(|number| number < limits::JOB_CHUNKS_MAX));
            let _ = (read.contains(5), read.len(), &read | &set, &set - &read, encode_chunk_set(&read));
        }
    }
}

fn base64url(bytes: &[u8]) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

fn malformed(reason: &'static str) -> FormatError {
    FormatError::Malformed { format: "pack", reason }
}

#[test]
fn a_compressed_body_is_exactly_as_long_as_declared() {
    let zeros = |count: usize| zstd::bulk::compress(&vec![0; count], 1).expect("it compresses");
    let pack = |declared: u32, stored: &[u8]| {
        Pack::parse(framed(b"SHPK", 1, 1, declared, stored)).map(|pack| read_pack(&pack))
    };
    assert_eq!(pack(4, &zeros(4)), Ok(0));
    let unreadable = malformed("its zstd frame cannot be read");
    let bomb = zeros(64 << 20);
    assert!(bomb.len() < 10_000);
    assert_eq!(pack(1_000, &bomb), Err(unreadable.clone()));
    assert_eq!(pack(4, &zeros(5)), Err(unreadable.clone()));
    assert_eq!(pack(0, &zeros(4)), Err(unreadable));
    assert_eq!(pack(5, &zeros(4)), Err(malformed("the body is not as long as declared")));
    // A body in two frames, with bytes behind its frame, cut short, or not of zstd at all.
    let one_frame = malformed("the body is not one zstd frame");
    assert_eq!(pack(4, &[zeros(2), zeros(2)].concat()), Err(one_frame.clone()));
    assert_eq!(pack(4, &[&zeros(4)[..], b"x"].concat()), Err(one_frame.clone()));
    assert_eq!(pack(4, &zeros(4)[..8]), Err(one_frame.clone()));
    assert_eq!(pack(4, b"none of zstd"), Err(one_frame.clone()));
    assert_eq!(pack(0, b""), Err(one_frame));
}

/// Such frames do not say themselves how long their content is.
#[test]
fn a_bomb_that_hides_its_size_is_refused_too() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).expect("an encoder");
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 8 << 20), &mut encoder).expect("writing to memory");
    let bomb = encoder.finish().expect("writing to memory");
    let refused = Pack::parse(framed(b"SHPK", 1, 1, 1_000, &bomb)).map(|pack| pack.tasks());
    assert_eq!(refused, Err(malformed("its zstd frame cannot be read")));
    // With the true size it is a body like any other: one entry whose end is at 0, and then too many bytes.
    let refused = Pack::parse(framed(b"SHPK", 1, 1, 8 << 20, &bomb)).map(|pack| pack.tasks());
    assert_eq!(refused, Err(malformed("the body does not end with its last part")));
}

#[test]
fn sizes_beyond_the_limits_are_refused_by_the_header_alone() {
    let limit = |frame: Bytes, of: &str| {
        let of_pack = matches!(Pack::parse(frame.clone()), Err(FormatError::Limit { what, .. }) if what == of);
        let of_segment = resealed(&[b"SHSG", &frame[4..]].concat());
        of_pack && matches!(Segment::parse(of_segment), Err(FormatError::Limit { what, .. }) if what == of)
    };
    for flags in [0, 1] {
        assert!(limit(framed(b"SHPK", flags, 1, limits::PACK_BYTES_MAX as u32 + 1, b"tiny"), "body bytes"));
        assert!(limit(framed(b"SHPK", flags, 1, u32::MAX, b"tiny"), "body bytes"));
        assert!(limit(framed(b"SHPK", flags, limits::ORDERED_TASKS_MAX + 1, 4, b"tiny"), "entries"));
        assert!(limit(framed(b"SHPK", flags, u32::MAX, 4, b"tiny"), "entries"));
    }
    // A header comes first: of a frame with a wrong checksum too, its sizes are not believed.
    let mut torn = framed(b"SHPK", 0, 1, u32::MAX, b"tiny").to_vec();
    torn.push(0);
    assert!(matches!(Pack::parse(torn.into()), Err(FormatError::Limit { .. })));
}

#[test]
fn payloads_beyond_the_limits_are_refused_however_they_came() {
    let large = limits::TASK_BYTES_MAX + 1;
    let body = [&(large as u32).to_le_bytes()[..], &vec![0; large]].concat();
    let frame = |flags, stored: &[u8]| Pack::parse(framed(b"SHPK", flags, 1, body.len() as u32, stored)).map(|_| ());
    let refused =
        Err(FormatError::Limit { what: "payload bytes", found: large as u64, limit: limits::TASK_BYTES_MAX as u64 });
    assert_eq!(frame(0, &body), refused);
    assert_eq!(frame(1, &zstd::bulk::compress(&body, 1).expect("it compresses")), refused);
    let key = [&[0; 4][..], &1_025u32.to_le_bytes(), &[b'k'; 1_025]].concat();
    let refused = Pack::parse(framed(b"SHPK", 4, 1, key.len() as u32, &key)).expect_err("its key is too long");
    assert_eq!(refused.to_string(), "key bytes: 1025, the limit is 1024");
}

fn limit_of<T>(result: Result<T, FormatError>) -> &'static str {
    match result {
        Err(FormatError::Limit { what, .. }) => what,
        Err(_) => "another error",
        Ok(_) => "no error",
    }
}

#[test]
fn a_submission_of_bombs_is_refused_before_they_go_off() {
    // Each of them is a sound pack of 40 MiB in a few KB; ten of them would take 400 MiB.
    let body = vec![0; 40 << 20];
    let mut ends = body;
    let tasks = 8u32;
    let payloads = (ends.len() - 4 * tasks as usize) as u32;
    for task in 0..tasks {
        let end = payloads / tasks * (task + 1);
        ends[4 * task as usize..][..4].copy_from_slice(&end.to_le_bytes());
    }
    let zipped = zstd::bulk::compress(&ends, 1).expect("it compresses");
    let bomb = framed(b"SHPK", 1, tasks, ends.len() as u32, &zipped);
    let part = [&12u32.to_le_bytes()[..], &[0; 12], &(bomb.len() as u32).to_le_bytes(), &bomb].concat();
    assert!(part.len() < 20_000);
    let sent = |count: usize| decode_submission(part.repeat(count).into()).map(|chunks| chunks.len());
    assert_eq!(sent(2), Ok(2));
    assert_eq!(limit_of(sent(10)), "decompressed bytes of one submission");
}

#[test]
fn a_submission_holds_so_many_chunks() {
    let one = golden("submission");
    let sent = |count: usize| decode_submission(one.repeat(count).into()).map(|chunks| chunks.len());
    assert_eq!(sent(0), Ok(0));
    assert_eq!(sent(limits::WRITES_PER_CALL_MAX), Ok(limits::WRITES_PER_CALL_MAX));
    assert_eq!(limit_of(sent(limits::WRITES_PER_CALL_MAX + 1)), "chunks in one submission");
}

#[test]
fn parts_that_lie_about_their_length_are_refused() {
    let body = |parts: &[&[u8]]| Bytes::from(parts.concat());
    let cases = [
        ("a length cut short", decode_submission(body(&[&[12, 0, 0]])).map(|_| ())),
        ("a part cut short", decode_submission(golden("submission").slice(..40)).map(|_| ())),
        ("a chunk without a pack", decode_submission(golden("submission").slice(..16)).map(|_| ())),
        ("a head of 11 bytes", decode_submission(body(&[&[11, 0, 0, 0], &[0; 11]])).map(|_| ())),
        ("a length of 4 GiB", decode_submission(body(&[&[255; 4], &[0; 12]])).map(|_| ())),
        ("results without a head", decode_results(Bytes::new()).map(|_| ())),
        ("results with a head of no JSON", decode_results(body(&[&[2, 0, 0, 0], b"{]"])).map(|_| ())),
    ];
    let told = cases.map(|(name, result)| format!("{name:32} → {}", result.expect_err(name))).join("\n");
    insta::assert_snapshot!("refused_parts", told);
}

#[test]
fn a_function_beyond_a_limit_is_refused() {
    let code = |parts: &[&[u8]]| -> (Code, String) {
        let ApiError { code, message, .. } = decode_function(parts.concat().into()).expect_err("no function");
        (code, message)
    };
    let manifest = br#"{"name":"square","kind":"handler"}"#;
    let long = vec![b' '; limits::MANIFEST_BYTES_MAX + 1];
    let told = [
        code(&[&(long.len() as u32).to_le_bytes(), &long]),
        code(&[&[2, 0, 0, 0], b"{}"]),
        code(&[&(manifest.len() as u32).to_le_bytes(), manifest, &[9, 0, 0, 0]]),
        code(&[&(manifest.len() as u32).to_le_bytes(), manifest, &[0, 0, 0, 0], b"more"]),
    ];
    let told = told.map(|(code, message)| format!("{:10} {message}", code.as_str())).join("\n");
    insta::assert_snapshot!("refused_functions", told);
}

#[test]
fn a_set_of_chunks_ends_below_the_most_chunks_of_a_job() {
    let set = |number: u32| decode_chunk_set(&encode_chunk_set(&ChunkSet::from([number])));
    assert_eq!(set(limits::JOB_CHUNKS_MAX - 1).map(|set| set.len()), Ok(1));
    assert_eq!(limit_of(set(limits::JOB_CHUNKS_MAX)), "chunk number");
    assert_eq!(limit_of(set(u32::MAX)), "chunk number");
    let text = encode_chunk_set(&ChunkSet::from([1]));
    assert!(["=", "A", "AAAA", " ", "ä", "+"].iter().all(|wound| decode_chunk_set(&format!("{text}{wound}")).is_err()));
}

#[test]
fn a_segment_or_pack_of_nothing_is_one() {
    assert_eq!(Segment::parse(SegmentBuilder::new().finish(true)).map(|segment| read_segment(&segment)), Ok(0));
    assert_eq!(Pack::parse(PackBuilder::new().finish(true).bytes().clone()).map(|pack| pack.tasks()), Ok(0));
}
