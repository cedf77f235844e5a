//! Dropped files, by example: what each format takes in, what it says of what it refuses, and what goes back.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read, Write};

use sheaf_api::intake::{
    Command, CommandReader, Compression, ErrorReport, Format, IntakeError, OutcomeText, Scan, Shape, inflate, limits,
    python_text, read, scan, stem, write_line,
};

const JSON: Format = plain(Shape::CommandFile);
const NDJSON: Format = plain(Shape::Ndjson);
const CSV: Format = plain(Shape::Csv);

const fn plain(shape: Shape) -> Format {
    Format { shape, compression: Compression::Plain }
}

/// Each command as `id|function|payload`.
fn commands(file: impl AsRef<[u8]>, format: Format, function: Option<&str>) -> Result<Vec<String>, IntakeError> {
    let mut lines = Vec::new();
    read(file.as_ref(), format, function, None, |Command { id, function, payload, .. }| {
        lines.push(format!("{id}|{function}|{}", str::from_utf8(payload).unwrap()));
        Ok::<_, IntakeError>(())
    })?;
    Ok(lines)
}

fn refusal(file: impl AsRef<[u8]>, format: Format, function: Option<&str>) -> String {
    let error = scan(file.as_ref(), format, function).unwrap_err();
    format!("{}{error}", if error.is_truncated() { "[cut] " } else { "" })
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn formats_are_told_by_names() {
    for (name, shape, compression, stem_expected) in [
        ("a.json", Shape::CommandFile, Compression::Plain, "a"),
        ("a/b.ndjson.gz", Shape::Ndjson, Compression::Gzip, "b"),
        ("inbox/x y.jsonl.zst", Shape::Ndjson, Compression::Zstd, "x y"),
        ("A.B.CSV", Shape::Csv, Compression::Plain, "A.B"),
        ("é.pack.ZST", Shape::Pack, Compression::Zstd, "é"),
        (".json.json", Shape::CommandFile, Compression::Plain, ".json"),
    ] {
        assert_eq!(Format::of(name).unwrap(), Format { shape, compression }, "{name}");
        assert_eq!(stem(name), stem_expected);
    }
    for name in ["a.txt", "a", "", "a.gz", "a/.json", ".csv.gz", "json", "a.json.bz2", "a.json/", "é"] {
        assert_eq!(Format::of(name).unwrap_err().code(), "unknown_format", "{name}");
    }
    assert_eq!(
        Format::of("in/a.txt").unwrap_err().to_string(),
        "\"in/a.txt\" is of no known format; known endings are .json, .ndjson, .jsonl, .csv, .pack, each also with .gz or .zst"
    );
    assert_eq!(ErrorReport::name("in/a.txt"), "a.txt.error.json");
    assert_eq!(ErrorReport::name("in/a.json.gz"), "a.error.json");
}

#[test]
fn a_command_file_is_read_in_order() {
    let file = r#"{"1":{"type":"prime_numbers","arguments":{"n":30}},
        "b":{"type":"greet","arguments":{"arg1":"Hello","arg2":"world"}},
        "":{"arguments":[1, 1e999 ,123456789012345678901234567890],"type":"gr\u0065et"},
        "naïve id\n\"x\"":{"type":"idle"},
        "0" : { "type" : "idle" , "arguments" : null } }
    "#;
    let expected = [
        r#"1|prime_numbers|{"n":30}"#,
        r#"b|greet|{"arg1":"Hello","arg2":"world"}"#,
        r"|greet|[1, 1e999 ,123456789012345678901234567890]",
        "naïve id\n\"x\"|idle|{}",
        "0|idle|null",
    ];
    assert_eq!(commands(file, JSON, None).unwrap(), expected);
    assert_eq!(commands(format!("\u{feff}{file}"), JSON, None).unwrap(), expected);
    assert_eq!(commands(r#"{"a":{}}"#, JSON, Some("idle")).unwrap(), ["a|idle|{}"]);
    let functions = ["prime_numbers", "greet", "idle"].map(String::from).to_vec();
    let scanned = scan(file.as_bytes(), JSON, None).unwrap();
    assert_eq!(scanned, Scan { commands: 5, functions, bytes: file.len() as u64 });
}

#[test]
fn no_commands_is_not_nothing() {
    for (file, format) in
        [("{}", JSON), (" \n{ } ", JSON), ("\n", NDJSON), (" \r\n\n", NDJSON), ("id,a\n", CSV), ("a", CSV)]
    {
        assert_eq!(commands(file, format, None).unwrap(), [""; 0], "{file:?}");
    }
    for format in [JSON, NDJSON, CSV] {
        assert_eq!(refusal("", format, None), "[cut] the file is empty");
        assert_eq!(refusal("\u{feff}", format, None), "[cut] the file is empty");
    }
    assert_eq!(refusal(" \n", JSON, None), "[cut] the file is empty");
    assert_eq!(refusal("\n\n", CSV, None), "[cut] the file is empty");
}

#[test]
fn a_bad_command_file_is_told_where_and_what() {
    let long_id = format!(r#"{{"{}":{{"type":"f"}}}}"#, "é".repeat(513));
    let longer_id = format!(r#"{{"{}":{{"type":"f"}}}}"#, "i".repeat(7_000));
    let long_name = format!(r#"{{"a":{{"type":"{}"}}}}"#, "f".repeat(1_025));
    for (file, expected) in [
        ("[]", "line 1, column 1: expected `{`: a command file is one JSON object"),
        ("\u{feff}[]", "line 1, column 1: expected `{`: a command file is one JSON object"),
        (r#"{"a":{"type":"f"},}"#, "line 1, column 19: expected an id (a string in double quotes)"),
        (r#"{,"a":{"type":"f"}}"#, "line 1, column 2: expected an id (a string in double quotes)"),
        (r#"{1:{"type":"f"}}"#, "line 1, column 2: expected an id (a string in double quotes)"),
        (r#"{"a":{"type":"f"} "b":{"type":"f"}}"#, "line 1, column 19: expected `,` or `}` after a command"),
        (r#"{"a" {"type":"f"}}"#, "line 1, column 6 (command \"a\"): expected `:` after the id"),
        (
            "{\"a\":\n  5}",
            "line 2, column 3 (command \"a\"): expected a command: an object with `type` and `arguments`",
        ),
        (
            "{\"a\":{\"type\":\"f\"},\n\n\"b\":{\"type\":\"f\",\"priority\":1}}",
            "line 3, column 26 (command \"b\"): unknown field `priority`, expected `type` or `arguments`",
        ),
        ("{\"a\":{\n\"type\":\n5}}", "line 3, column 1 (command \"a\"): invalid type: integer `5`, expected a string"),
        (r#"{"a":{"type":"f","type":"f"}}"#, "line 1, column 23 (command \"a\"): duplicate field `type`"),
        (
            r#"{"a":{"arguments":{}}}"#,
            "line 1, column 2 (command \"a\"): no `type`, and no function was named for the whole file",
        ),
        (r#"{"a":{"type":"f","arguments":{"n":01}}}"#, "line 1, column 36 (command \"a\"): invalid number"),
        (r#"{"a":{"type":"f","arguments":{"n":1]}}"#, "line 1, column 36 (command \"a\"): expected `,` or `}`"),
        (
            "{\"a\":{\"type\":\"f\",\"arguments\":\"x\ny\"}}",
            "line 1, column 31 (command \"a\"): control character (\\u0000-\\u001F) found while parsing a string",
        ),
        (
            r#"{"a":{"type":"f"},"a":{"type":"g"}}"#,
            "line 1, column 19 (command \"a\"): an earlier command has the same id",
        ),
        (
            r#"{"a":{"type":"f"},"\u0061":{"type":"g"}}"#,
            "line 1, column 19 (command \"a\"): an earlier command has the same id",
        ),
        (r#"{"a":{"type":"f"}} {}"#, "line 1, column 20: expected the end of the file after the closing `}`"),
        (r#"{"\ud800":{"type":"f"}}"#, "line 1, column 9: unexpected end of hex escape"),
        // A missing brace is not taken for a file cut short.
        (
            r#"{"a":{"type":"f","arguments":{"n":1},"b":{"type":"f"}}"#,
            "line 1, column 40 (command \"a\"): unknown field `b`, expected `type` or `arguments`",
        ),
        (&long_id, "line 1, column 2: bytes of an id over the limit of 1024"),
        (&longer_id, "line 1, column 2: bytes of an id, as written, over the limit of 6146"),
        (&long_name, "line 1, column 2: bytes of a function's name over the limit of 1024"),
        ("{", "[cut] the file ends early, at line 1, column 2: expected an id (a string in double quotes)"),
        ("{\"a", "[cut] the file ends early, at line 1, column 4: EOF while parsing a string"),
        (r#"{"a""#, "[cut] the file ends early, at line 1, column 5 (command \"a\"): expected `:` after the id"),
        (
            r#"{"a":"#,
            "[cut] the file ends early, at line 1, column 6 (command \"a\"): expected a command: an object with `type` and `arguments`",
        ),
        (
            "{\"a\":{\"type\":\"f\",\n\"arguments\":[",
            "[cut] the file ends early, at line 2, column 14 (command \"a\"): EOF while parsing a list",
        ),
        (
            r#"{"a":{"type":"f"}"#,
            "[cut] the file ends early, at line 1, column 18: expected `,` or `}` after a command",
        ),
    ] {
        let told = refusal(file, JSON, None);
        assert!(told.contains(expected), "{:?}\n {told}\n {expected}", &file[..file.len().min(80)]);
    }
    assert_eq!(refusal(b"{\"a\":{\"type\":\"f\xff\"}}", JSON, None), "line 1, column 16 (command \"a\"): not UTF-8");
}

#[test]
fn ndjson_lines_are_commands_or_payloads() {
    let file = "{\"id\":\"x\",\"type\":\"f\",\"arguments\":[1]}\r\n\n{\"type\":\"g\"}\n {\"id\":-1.50,\"type\":\"f\"} \n\t\n{\"type\":\"f\"}";
    assert_eq!(commands(file, NDJSON, None).unwrap(), ["x|f|[1]", "3|g|{}", "-1.50|f|{}", "6|f|{}"]);
    let file =
        "5\n\n\"text\"\n{\"n\":1,\"id\":\"kept\"}\nnull\n{\"arguments\":7}\n{\"type\":\"g\",\"id\":\"a\"}\n[ 1 ]";
    assert_eq!(
        commands(file, NDJSON, Some("f")).unwrap(),
        ["1|f|5", "3|f|\"text\"", "4|f|{\"n\":1,\"id\":\"kept\"}", "5|f|null", "6|f|7", "a|g|{}", "8|f|[ 1 ]"]
    );
    for (file, function, expected) in [
        ("5\n", None, "line 1, column 1: expected a command: an object with `id`, `type` and `arguments`"),
        (
            "[\"a\",\"f\",1]\n",
            None,
            "line 1, column 1: expected a command: an object with `id`, `type` and `arguments`",
        ),
        (
            "{\"type\":\"f\"}\n{\"n\":1}",
            None,
            "line 2, column 4: unknown field `n`, expected one of `id`, `type`, `arguments`",
        ),
        ("{\"type\":\"f\",\"n\":1}", Some("g"), "unknown field `n`, expected one of `id`, `type`, `arguments`"),
        ("{\"type\":null}", None, "invalid type: null, expected a string"),
        ("{\"id\":[],\"type\":\"f\"}", None, "line 1, column 1: `id` must be a string or a number"),
        ("{\"id\":null,\"type\":\"f\"}", None, "line 1, column 1: `id` must be a string or a number"),
        (
            "{\"id\":1}",
            None,
            "line 1, column 1 (command \"1\"): no `type`, and no function was named for the whole file",
        ),
        ("1 2\n", Some("f"), "line 1, column 3: trailing characters"),
        ("{\"a\":\n1}", Some("f"), "line 1, column 6: EOF while parsing a value"),
        ("1\n[1,", Some("f"), "[cut] the file ends early, at line 2, column 4: EOF while parsing a value"),
        (
            "{\"type\":\"f\"}\n{\"id\":\"1\",\"type\":\"f\"}",
            None,
            "line 2, column 1 (command \"1\"): an earlier command has the same id",
        ),
        (
            "{\"id\":2,\"type\":\"f\"}\n{\"type\":\"f\"}",
            None,
            "line 2, column 1 (command \"2\"): an earlier command has the same id",
        ),
    ] {
        let told = refusal(file, NDJSON, function);
        assert!(told.contains(expected), "{file:?}\n {told}\n {expected}");
    }
    // `01` is another id than line 1.
    let file = "{\"type\":\"f\"}\n{\"id\":\"01\",\"type\":\"f\"}\n{\"id\":\"+1\",\"type\":\"f\"}";
    assert_eq!(commands(file, NDJSON, None).unwrap().len(), 3);
}

#[test]
fn csv_rows_are_objects_of_strings() {
    let file = "id,type,n,\"a \"\"b\"\"\"\r\nx,f,1,\"two\nlines, \"\"quoted\"\"\"\r\n\r\n,,\"\",é\ty\r\n";
    assert_eq!(
        commands(file, CSV, Some("g")).unwrap(),
        [r#"x|f|{"n":"1","a \"b\"":"two\nlines, \"quoted\""}"#, r#"2|g|{"n":"","a \"b\"":"é\ty"}"#]
    );
    assert_eq!(commands("n\r1\r2", CSV, Some("g")).unwrap(), [r#"1|g|{"n":"1"}"#, r#"2|g|{"n":"2"}"#]);
    assert_eq!(commands("id\na\n", CSV, Some("g")).unwrap(), ["a|g|{}"]);
    assert_eq!(commands("a,b\nx\"y,\"\"\n", CSV, Some("g")).unwrap(), [r#"1|g|{"a":"x\"y","b":""}"#]);
    for (file, expected) in [
        ("a,a\n", "line 1, column 3: two columns are named \"a\""),
        ("a,b\n1,2\r\n\r\n1,2,3\r\n", "line 4, column 1: the row has 3 cells and the header 2"),
        ("a,b\n1,\"2\n\"\n1\n", "line 4, column 1: the row has 1 cells and the header 2"),
        ("a,b\n1", "[cut] the file ends early, at line 2, column 1: the row has 1 cells and the header 2"),
        ("a,b\n1,\"2\n3,4\n", "[cut] the file ends early, at line 2, column 3: expected a closing quote for this cell"),
        ("a\n\"1\" 2\n", "line 2, column 4: expected `,` or the end of the row after a closing quote"),
        ("id\na\na\n", "line 3, column 1 (command \"a\"): an earlier command has the same id"),
        ("id\n\n1\n2\n", "fine"),
        ("id,n\n,1\n1,2\n", "line 3, column 1 (command \"1\"): an earlier command has the same id"),
    ] {
        match commands(file, CSV, Some("g")) {
            Ok(_) => assert_eq!(expected, "fine", "{file:?}"),
            Err(_) => assert_eq!(refusal(file, CSV, Some("g")), expected, "{file:?}"),
        }
    }
    assert_eq!(refusal(b"a\nok\n\xff\n", CSV, Some("g")), "line 3, column 1: not UTF-8");
    assert!(refusal("a\n1\n", CSV, None).ends_with("no `type`, and no function was named for the whole file"));
    let wide = ",".repeat(limits::COLUMNS_MAX);
    assert_eq!(refusal(wide, CSV, Some("g")), "line 1, column 1: columns over the limit of 16384");
}

#[test]
fn one_command_is_bounded_and_may_be_as_large_as_the_bound() {
    let max = limits::COMMAND_BYTES_MAX;
    let json = |bytes: usize| format!(r#"{{"a":{{"type":"f","arguments":"{}"}}}}"#, "x".repeat(bytes - 27));
    assert_eq!(scan(json(max).as_bytes(), JSON, None).unwrap().commands, 1);
    let over = format!("line 1, column 6 (command \"a\"): bytes of a command over the limit of {max}");
    assert_eq!(refusal(json(max + 1), JSON, None), over);
    assert_eq!(refusal(format!(r#"{{"a":{{"type":"f","arguments":[{}"#, "1,".repeat(max)), JSON, None), over);
    // What is wrong sooner is said.
    let unclosed = format!(r#"{{"a":{{"type":"f","arguments":{{}},"b":"{}"#, "x".repeat(2 * max));
    assert!(refusal(unclosed, JSON, None).contains("unknown field `b`"));

    assert_eq!(scan(format!("\"{}\"", "x".repeat(max - 2)).as_bytes(), NDJSON, Some("f")).unwrap().commands, 1);
    assert_eq!(
        refusal("x".repeat(max + 1), NDJSON, Some("f")),
        format!("line 1, column 1: bytes of a line over the limit of {max}")
    );
    assert_eq!(
        refusal("x".repeat(3 * max), NDJSON, Some("f")),
        format!("line 1, column 1: bytes of a line over the limit of {max}")
    );

    assert_eq!(scan(format!("a\n{}\n", "x".repeat(max - 8)).as_bytes(), CSV, Some("f")).unwrap().commands, 1);
    let over = format!("line 2, column 1: bytes of a payload over the limit of {max}");
    assert_eq!(refusal(format!("a\n{}\n", "x".repeat(max - 7)), CSV, Some("f")), over);
    assert_eq!(refusal(format!("a\n{}\n", "\u{1}".repeat(max / 5)), CSV, Some("f")), over);
    let over = format!("line 2, column 1: bytes of a row over the limit of {max}");
    assert_eq!(refusal(format!("a\n{}\n", "x".repeat(max + 1)), CSV, Some("f")), over);
    assert_eq!(refusal(format!("a\n\"{}", "x".repeat(3 * max)), CSV, Some("f")), over);
}

#[test]
fn payloads_nest_as_deep_as_json_readers_go_and_no_deeper() {
    let nested = |depth: u32| "[".repeat(depth as usize) + &"]".repeat(depth as usize);
    let (good, bad) = (nested(limits::NESTING_MAX), nested(limits::NESTING_MAX + 1));
    assert!(serde_json::from_str::<serde_json::Value>(&good).is_ok());
    assert!(serde_json::from_str::<serde_json::Value>(&bad).is_err());
    for (before, after, format) in [
        (r#"{"a":{"type":"f","arguments":"#, "}}", JSON),
        (r#"{"type":"f","arguments":"#, "}", NDJSON),
        ("", "", NDJSON),
    ] {
        let file = |payload: &str| format!("{before}{payload}{after}");
        assert_eq!(scan(file(&good).as_bytes(), format, Some("f")).unwrap().commands, 1);
        let told = refusal(file(&bad), format, Some("f"));
        assert!(told.ends_with("levels of nesting over the limit of 127"), "{told}");
        let hostile = refusal(file(&nested(1_000_000)), format, Some("f"));
        assert!(hostile.ends_with("levels of nesting over the limit of 127"), "{hostile}");
    }
}

#[test]
fn one_file_names_a_bounded_number_of_functions() {
    let file = |count: usize| (0..count).map(|index| format!("{{\"type\":\"f{index}\"}}\n")).collect::<String>();
    assert_eq!(
        scan(file(limits::FUNCTIONS_MAX).as_bytes(), NDJSON, None).unwrap().functions.len(),
        limits::FUNCTIONS_MAX
    );
    assert_eq!(
        refusal(file(limits::FUNCTIONS_MAX + 1), NDJSON, None),
        "line 257, column 1: functions named by one file over the limit of 256"
    );
}

#[test]
fn compressed_files_read_as_what_they_hold() {
    let (first, second) = (b"{\"type\":\"f\"}\n".as_slice(), b"{\"type\":\"g\"}\n".as_slice());
    for (compression, pack) in [(Compression::Gzip, gzip as fn(&[u8]) -> Vec<u8>), (Compression::Zstd, zstd)] {
        let format = Format { shape: Shape::Ndjson, compression };
        let file = [pack(first), pack(b""), pack(second)].concat();
        assert_eq!(commands(&file, format, None).unwrap(), ["1|f|{}", "2|g|{}"]);
        assert_eq!(
            refusal(&file[..file.len() - 3], format, None),
            format!("[cut] the {compression} stream ends early")
        );
        assert_eq!(refusal(b"", format, None), "[cut] the file is empty");
        assert_eq!(refusal(pack(b""), format, None), "[cut] the file is empty");
        assert_eq!(refusal(first, format, None), format!("not a valid {compression} stream"));
        let bomb = pack(&vec![b'\n'; 16 << 20]).repeat(17);
        let told =
            std::io::copy(&mut inflate(bomb.as_slice(), compression).unwrap(), &mut std::io::sink()).unwrap_err();
        let told = told.downcast::<IntakeError>().unwrap();
        assert!(matches!(told, IntakeError::Inflated { ratio_max: limits::INFLATION_RATIO_MAX, .. }), "{told}");
    }
}

#[test]
fn trouble_of_the_source_is_not_the_files_fault() {
    struct Failing(u8, usize);
    impl Read for Failing {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            self.1 += 1;
            match self.1 {
                1 => Err(std::io::ErrorKind::Interrupted.into()),
                2 => {
                    into[0] = self.0;
                    Ok(1)
                }
                _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
    for (compression, magic) in [(Compression::Plain, b' '), (Compression::Gzip, 0x1f), (Compression::Zstd, 0x28)] {
        let error = scan(Failing(magic, 0), Format { shape: Shape::Ndjson, compression }, None).unwrap_err();
        assert!(matches!(error, IntakeError::Io(_)), "{error:?}");
        assert!(!error.is_truncated());
    }
}

#[test]
fn a_second_pass_gives_the_same_or_says_that_the_file_changed() {
    let file = "{\"id\":\"a\",\"type\":\"f\"}\n{\"id\":\"b\",\"type\":\"g\"}\n";
    let scanned = scan(file.as_bytes(), NDJSON, None).unwrap();
    let again = |file: &str| {
        let mut indexes = Vec::new();
        read(file.as_bytes(), NDJSON, None, Some(&scanned), |command| {
            assert_eq!(scanned.functions[command.function_index], command.function);
            indexes.push(command.function_index);
            Ok::<_, IntakeError>(())
        })
        .map(|_| indexes)
    };
    assert_eq!(again(file).unwrap(), [0, 1]);
    let shorter = "{\"id\":\"a\",\"type\":\"f\"}\n";
    let other = file.replace("\"g\"", "\"h\"");
    let longer = file.to_owned() + "{\"type\":\"f\"}\n";
    for changed in [shorter, &other, &longer] {
        assert_eq!(again(changed).unwrap_err().code(), "changed", "{changed}");
    }
    assert_eq!(
        again(shorter).unwrap_err().to_string(),
        "the file changed between two passes: 2 commands in 44 bytes became 1 commands in 22 bytes"
    );
}

#[test]
fn a_sink_stops_the_reading_with_its_own_error() {
    #[derive(Debug, PartialEq)]
    enum Stop {
        Here(u32),
        Intake(String),
    }
    impl From<IntakeError> for Stop {
        fn from(error: IntakeError) -> Self {
            Self::Intake(error.code().into())
        }
    }
    let mut fed = 0;
    let stopped = read(&b"1\n2\n3\n"[..], NDJSON, Some("f"), None, |_| {
        fed += 1;
        if fed == 2 { Err(Stop::Here(fed)) } else { Ok(()) }
    });
    assert_eq!(stopped, Err(Stop::Here(2)));
    assert_eq!(read(&b""[..], NDJSON, None, None, |_| Ok(())), Err(Stop::Intake("empty".into())));
    assert_eq!(
        CommandReader::new(&b""[..], plain(Shape::Pack), None).err().map(|error| error.code()),
        Some("not_commands")
    );
}

#[test]
fn lines_of_results() {
    let line = |id: &str, outcome: OutcomeText<'_>| {
        let mut out = Vec::new();
        write_line(&mut out, id, &outcome);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        line("1", OutcomeText::Json(b"[2,3,5,7,11,13,17,19,23,29]")),
        "1 [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]\n"
    );
    assert_eq!(line("b", OutcomeText::Json(br#""Hello world""#)), "b Hello world\n");
    assert_eq!(line("", OutcomeText::Json(br#""two\nlines""#)), " two\nlines\n");
    assert_eq!(line("c", OutcomeText::Text(br#""as" it is"#)), "c \"as\" it is\n");
    assert_eq!(line("d", OutcomeText::NotHandled { function: "gr\neet" }), "d gr\\neet not handled\n");
    let failed = OutcomeText::Failed { kind: "ValueError", message: "bad n:\r\n  \\ -1" };
    assert_eq!(line("e\nf", failed), "e\\nf ERROR ValueError: bad n:\\r\\n  \\ -1\n");
}

#[test]
fn a_bad_file_gets_a_report() {
    let report = |file: &str, bytes: &[u8]| {
        let error = Format::of(file).and_then(|format| scan(bytes, format, None)).unwrap_err();
        serde_json::to_string_pretty(&ErrorReport::new(file, &error)).unwrap()
    };
    insta::assert_snapshot!(report("inbox/night.json", b"{\n \"a\": {\"type\": \"f\", \"arg\": {}}\n}"), @r#"
    {
      "file": "inbox/night.json",
      "code": "malformed",
      "message": "line 2, column 25 (command \"a\"): unknown field `arg`, expected `type` or `arguments`",
      "line": 2,
      "column": 25
    }
    "#);
    insta::assert_snapshot!(report("night.csv.gz", b"name,number\n1,2\n"), @r#"
    {
      "file": "night.csv.gz",
      "code": "corrupt",
      "message": "not a valid gzip stream: invalid gzip header",
      "hint": "compress the file again, or rename it if it is not compressed"
    }
    "#);
    let text = report("a.json", b"{");
    let back: ErrorReport = serde_json::from_str(&text).unwrap();
    assert_eq!((back.line, back.code.as_str()), (Some(1), "truncated"));
    assert!(back.hint.is_some());
}

#[test]
fn values_print_as_python_prints_them() {
    for (json, expected) in [
        (r#""it's \"so\"\n""#, "it's \"so\"\n"),
        (r#"[2,3,5]"#, "[2, 3, 5]"),
        (" [ ] ", "[]"),
        ("{ }", "{}"),
        (r#"[[],{},[{}],[[1]]]"#, "[[], {}, [{}], [[1]]]"),
        (r#"{"a":1,"b":[true,false,null]}"#, "{'a': 1, 'b': [True, False, None]}"),
        ("true", "True"),
        ("null", "None"),
        ("-0", "0"),
        (
            "[-0.0,-0e5,0E-0,1E5,100.0,0.1,1e16,1e15,123456789012345680.0,1e-5,0.0001,1e22,1.5e300,5e-324]",
            "[-0.0, -0.0, 0.0, 100000.0, 100.0, 0.1, 1e+16, 1000000000000000.0, 1.2345678901234568e+17, 1e-05, 0.0001, 1e+22, 1.5e+300, 5e-324]",
        ),
        ("[1e999,-1e999]", "[inf, -inf]"),
        // As near to the one as to the other: Python takes the even digit.
        ("[70552552459239.625]", "[70552552459239.62]"),
        ("[123456789012345678901234567890,-7]", "[123456789012345678901234567890, -7]"),
        (
            r#"["it's","\"so\"","it's \"so\"","\\ \t\r\n\b\u007f/\/"]"#,
            r#"["it's", '"so"', 'it\'s "so"', '\\ \t\r\n\x08\x7f//']"#,
        ),
        (
            r#"["é","\u00a0","\u00ad","\u200b","\u2028","\ud83d\ude00","\ud800","\udc00\ud800\ud83d\ude00","\ue000","\ufffe"]"#,
            r"['é', '\xa0', '\xad', '\u200b', '\u2028', '😀', '\ud800', '\udc00\ud800😀', '\ue000', '\ufffe']",
        ),
        ("[\"a\u{301}\u{3000}\u{10ffff}\"]", "['a\u{301}\\u3000\\U0010ffff']"),
        (r#""\ud800""#, r"\ud800"),
        (r#"{"a":1,"b":{"c":1,"c":[2]},"\u0061":3}"#, "{'a': 3, 'b': {'c': [2]}}"),
        (r#"{"a":{"x":1,"y":2,"x":3},"a":{"y":{"z":[{}],"z":"'"}},"b":0,"a":[]}"#, "{'a': [], 'b': 0}"),
    ] {
        let mut out = b"1 ".to_vec();
        python_text(json.as_bytes(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("1 {expected}"), "{json}");
    }
}

#[test]
fn what_is_not_json_prints_as_it_is() {
    let deep = "[".repeat(limits::PYTHON_NESTING_MAX + 1) + "1" + &"]".repeat(limits::PYTHON_NESTING_MAX + 1);
    for text in [
        "",
        " ",
        "hello world",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "[1",
        "{\"a\":1",
        "]",
        "{]",
        "[}",
        "[1}",
        "{\"a\":1]",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "1e+",
        "+1",
        "0x1",
        "NaN",
        "Infinity",
        "-Infinity",
        "True",
        "nul",
        "nulll",
        "\"",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\u+123\"",
        "\"a\nb\"",
        "\"a\" 1",
        "1 1",
        "\u{feff}1",
        "[\u{a0}]",
        "1\u{b}",
        &deep,
    ] {
        let mut out = Vec::new();
        python_text(text.as_bytes(), &mut out);
        assert_eq!(out, text.as_bytes(), "{text}");
        assert!(serde_json::from_str::<serde_json::Value>(text).is_err(), "{text}");
    }
    let mut out = Vec::new();
    python_text(b"\"\xff\"", &mut out);
    assert_eq!(out, b"\"\xff\"");
}
