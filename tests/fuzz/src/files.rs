//! What holds of every dropped file, whatever is in it.

use std::{collections::HashSet, io::Read};

use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use sheaf_api::intake::{Compression, ErrorReport, Format, IntakeError, Scan, Shape, limits, read, scan};

/// Gives a few bytes at a time.
struct Crumbs<'a> {
    rest: &'a [u8],
    bytes_max: usize,
}

impl Read for Crumbs<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let (some, rest) = self.rest.split_at(self.bytes_max.min(into.len()).min(self.rest.len()));
        into[..some.len()].copy_from_slice(some);
        self.rest = rest;
        Ok(some.len())
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Read1 {
    id: String,
    function: String,
    payload: Vec<u8>,
}

type Outcome = Result<Scan, String>;

fn commands(source: impl Read, format: Format, function: Option<&str>, first: Option<&Scan>) -> (Vec<Read1>, Outcome) {
    let mut all = Vec::new();
    let result = read(source, format, function, first, |command| {
        let (id, function) = (command.id.into_owned(), command.function.to_owned());
        all.push(Read1 { id, function, payload: command.payload.to_vec() });
        Ok::<_, IntakeError>(())
    });
    (all, result.map_err(|error| error.to_string()))
}

/// A file as it is compressed.
pub fn compress(bytes: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::Plain => bytes.to_vec(),
        Compression::Gzip => {
            let mut packed = Vec::new();
            let mut encoder = flate2::read::GzEncoder::new(bytes, flate2::Compression::fast());
            encoder.read_to_end(&mut packed).expect("memory can be read");
            packed
        }
        Compression::Zstd => zstd::stream::encode_all(bytes, 1).expect("memory can be read"),
    }
}

/// Checks a file of a shape. The first byte of the input says how it is read, the rest is the file.
pub fn check(shape: Shape, input: &[u8]) {
    let Some((&how, file)) = input.split_first() else { return };
    let function = (how & 1 != 0).then_some("f");
    let compression = [Compression::Plain, Compression::Gzip, Compression::Zstd][usize::from(how >> 1) % 3];
    let bytes_max = usize::from(how >> 3) + 1;
    let plain = Format { shape, compression: Compression::Plain };

    let (all, outcome) = commands(file, plain, function, None);
    let scanned = scan(file, plain, function);
    match (&scanned, &outcome) {
        (Ok(scan), Ok(read)) => assert_eq!(scan, read, "the two passes differ"),
        (Err(error), Err(told)) => check_error(error, told, file),
        _ => panic!("one pass succeeds and the other fails: {scanned:?} {outcome:?}"),
    }

    // How reads break, and what the file is wrapped in, changes nothing.
    let crumbs = commands(Crumbs { rest: file, bytes_max }, plain, function, None);
    assert_eq!(crumbs, (all.clone(), outcome.clone()), "read {bytes_max} bytes at a time");
    if compression != Compression::Plain {
        let wrapped = compress(file, compression);
        let read = commands(Crumbs { rest: &wrapped, bytes_max }, Format { shape, compression }, function, None);
        assert_eq!(read, (all.clone(), outcome.clone()), "as {compression}");
    }

    let mut ids = HashSet::new();
    for command in &all {
        assert!(ids.insert(&command.id), "{:?} was given twice", command.id);
        assert!(command.id.len() <= limits::ID_BYTES_MAX && command.function.len() <= limits::FUNCTION_BYTES_MAX);
        // By its grammar: a number that no float holds and half of a surrogate pair are for the function to judge.
        serde_json::from_slice::<IgnoredAny>(&command.payload).expect("a payload is JSON");
    }
    if let Ok(scan) = &outcome {
        assert_eq!((scan.commands, scan.bytes), (all.len() as u64, file.len() as u64));
        let second = commands(file, plain, function, Some(scan));
        assert_eq!(second, (all.clone(), outcome.clone()), "the second pass");
        check_again(&all, scan);
    }
}

/// What was read is the same when it is written as a command file and read again.
fn check_again(all: &[Read1], scan: &Scan) {
    let text = |text: &str| serde_json::to_string(text).expect("a string");
    let member = |command: &Read1| {
        let payload = str::from_utf8(&command.payload).expect("JSON is UTF-8");
        let payload = RawValue::from_string(payload.to_owned()).expect("a payload is JSON");
        format!("{}:{{\"type\":{},\"arguments\":{payload}}}", text(&command.id), text(&command.function))
    };
    let file = format!("{{{}}}", all.iter().map(member).collect::<Vec<_>>().join(","));
    let format = Format { shape: Shape::CommandFile, compression: Compression::Plain };
    let (again, outcome) = commands(file.as_bytes(), format, None, None);
    let outcome = outcome.expect("a command file of what was read");
    assert_eq!((again, outcome.functions), (all.to_vec(), scan.functions.clone()));
}

fn check_error(error: &IntakeError, told: &str, file: &[u8]) {
    assert_eq!(error.to_string(), told);
    // Both a file of one page and one of ten million lines get a report that people can read.
    let report = ErrorReport::new("inbox/file", error);
    let bytes_max = 2_048 + 10 * file.len().min(1_024);
    assert!(report.message.len() <= bytes_max, "a message of {} bytes", report.message.len());
    if let Some(place) = error.place() {
        let lines = file.iter().filter(|&&byte| byte == b'\n').count() as u64 + 1;
        assert!((1..=lines).contains(&place.line), "line {} of {lines}", place.line);
        assert!((1..=file.len() as u64 + 1).contains(&place.column), "column {}", place.column);
    }
}
