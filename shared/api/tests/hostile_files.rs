//! Dropped files that mean harm, or were written by a broken tool: each is refused with its place, and the report on it
//! can be read by people, however large what it complains of is.

use sheaf_api::intake::{Compression, ErrorReport, Format, IntakeError, Scan, Shape, scan};

fn plain(shape: Shape) -> Format {
    Format { shape, compression: Compression::Plain }
}

fn read(file: &[u8], shape: Shape) -> Result<Scan, IntakeError> {
    scan(file, plain(shape), None)
}

fn told(file: &[u8], shape: Shape) -> String {
    read(file, shape).map_or_else(|error| ErrorReport::new("inbox/file", &error).message, |scan| format!("{scan:?}"))
}

#[test]
fn hostile_bytes_are_refused_where_they_stand() {
    let cases: [(&str, Shape, &[u8]); 28] = [
        ("a NUL between", Shape::CommandFile, b"{\"a\":\0{\"type\":\"f\"}}"),
        ("a NUL in an id", Shape::CommandFile, b"{\"a\0\":{\"type\":\"f\"}}"),
        ("a NUL in a payload", Shape::CommandFile, b"{\"a\":{\"type\":\"f\",\"arguments\":\"\0\"}}"),
        ("an escaped NUL in an id", Shape::CommandFile, br#"{"\u0000":{"type":"f"}}"#),
        ("NULs only", Shape::CommandFile, &[0; 64]),
        ("UTF-16", Shape::CommandFile, b"\xff\xfe{\0\"\0a\0"),
        ("invalid UTF-8 in an id", Shape::CommandFile, b"{\"\xc3\x28\":{\"type\":\"f\"}}"),
        ("overlong UTF-8", Shape::CommandFile, b"{\"\xc0\x80\":{\"type\":\"f\"}}"),
        ("a surrogate in UTF-8", Shape::CommandFile, b"{\"a\":{\"type\":\"f\",\"arguments\":\"\xed\xa0\x80\"}}"),
        ("half a pair in an id", Shape::CommandFile, br#"{"\udc00":{"type":"f"}}"#),
        ("half a pair in a type", Shape::CommandFile, br#"{"a":{"type":"\ud800f"}}"#),
        ("half a pair in a payload", Shape::CommandFile, br#"{"a":{"type":"f","arguments":"\ud800"}}"#),
        ("a number without an end", Shape::CommandFile, br#"{"a":{"type":"f","arguments":1e}}"#),
        ("a number no float holds", Shape::CommandFile, br#"{"a":{"type":"f","arguments":1e999999}}"#),
        ("NaN", Shape::CommandFile, br#"{"a":{"type":"f","arguments":NaN}}"#),
        ("a BOM in the middle", Shape::CommandFile, "{\u{feff}\"a\":{\"type\":\"f\"}}".as_bytes()),
        ("two BOMs", Shape::CommandFile, "\u{feff}\u{feff}{}".as_bytes()),
        ("a duplicate id", Shape::CommandFile, br#"{"a":{"type":"f"},"a":{"type":"f"}}"#),
        ("a duplicate payload", Shape::CommandFile, br#"{"a":{"arguments":1,"arguments":2,"type":"f"}}"#),
        ("a NUL on a line", Shape::Ndjson, b"{\"type\":\"f\"}\n\0\n"),
        ("invalid UTF-8 on a line", Shape::Ndjson, b"{\"type\":\"f\"}\n{\"type\":\"\xff\"}\n"),
        ("half a pair in an id", Shape::Ndjson, b"{\"type\":\"f\"}\n{\"id\":\"\\ud800\",\"type\":\"f\"}\n"),
        (
            "the number of a line as an id",
            Shape::Ndjson,
            b"{\"type\":\"f\"}\n{\"type\":\"f\"}\n{\"id\":1,\"type\":\"f\"}\n",
        ),
        ("an id that is a list", Shape::Ndjson, b"{\"id\":[1],\"type\":\"f\"}\n"),
        ("a BOM on the second line", Shape::Ndjson, "{\"type\":\"f\"}\n\u{feff}{\"type\":\"f\"}\n".as_bytes()),
        ("invalid UTF-8 in a cell", Shape::Csv, b"type,a\nf,\xff\n"),
        ("a duplicate id", Shape::Csv, b"id,type\n7,f\n7,f\n"),
        ("a quote within", Shape::Csv, b"type,a\nf,\"x\"y\n"),
    ];
    let told = cases.map(|(name, shape, file)| format!("{name:30} → {}", told(file, shape))).join("\n");
    insta::assert_snapshot!("refused_files", told);
}

/// What is quoted in a message is there to be found again, not to be given back whole.
#[test]
fn a_report_is_short_however_large_what_it_is_about() {
    let long = "x".repeat(1 << 20);
    let files: [(&str, Shape, String); 8] = [
        ("an unknown field", Shape::CommandFile, format!("{{\"a\":{{\"{long}\":1}}}}")),
        ("a type that is none", Shape::CommandFile, format!("{{\"a\":\"{long}\"}}")),
        ("a word that is none", Shape::CommandFile, format!("{{\"a\":{{\"type\":{long}}}}}")),
        ("a string for an object", Shape::Ndjson, format!("{{\"type\":[\"{long}\"]}}\n")),
        ("an unknown field", Shape::Ndjson, format!("{{\"type\":\"f\",\"{long}\":1}}\n")),
        ("an escaped field", Shape::Ndjson, format!("{{\"type\":\"f\",\"{}\":1}}\n", "\\u0001".repeat(1 << 17))),
        ("two columns of a name", Shape::Csv, format!("{long},{long}\n")),
        ("an id without a type", Shape::CommandFile, format!("{{\"{}\":{{}}}}", "\\u0001".repeat(1_024))),
    ];
    for (name, shape, file) in files {
        let error = read(file.as_bytes(), shape).expect_err(name);
        let report = ErrorReport::new("inbox/file", &error);
        assert!(report.message.len() < 10_000, "{name}: a message of {} bytes", report.message.len());
        assert!(report.line.is_some(), "{name}: {}", report.message);
    }
}
