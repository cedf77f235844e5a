//! Dropped files, by property: no bytes make a reader panic, how reads break makes no difference, and what is read is
//! what well-known parsers read.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Read;

use proptest::{collection::vec, prelude::*, sample::select};
use sheaf_api::intake::{Compression, Format, IntakeError, Shape, python_text, read, scan};

/// Gives a few bytes at a time, in a repeated pattern of sizes.
struct Crumbs<'a> {
    rest: &'a [u8],
    sizes: Vec<usize>,
    turn: usize,
}

impl Read for Crumbs<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.turn += 1;
        let size = self.sizes[self.turn % self.sizes.len()].min(into.len()).min(self.rest.len());
        into[..size].copy_from_slice(&self.rest[..size]);
        self.rest = &self.rest[size..];
        Ok(size)
    }
}

const SHAPES: [Shape; 3] = [Shape::CommandFile, Shape::Ndjson, Shape::Csv];
const COMPRESSIONS: [Compression; 3] = [Compression::Plain, Compression::Gzip, Compression::Zstd];

fn plain(shape: Shape) -> Format {
    Format { shape, compression: Compression::Plain }
}

type Commands = Vec<(String, String, Vec<u8>)>;

fn commands(source: impl Read, format: Format, function: Option<&str>) -> (Commands, Option<String>) {
    let mut commands = Vec::new();
    let result = read(source, format, function, None, |command| {
        commands.push((command.id.into_owned(), command.function.into(), command.payload.to_vec()));
        Ok::<_, IntakeError>(())
    });
    (commands, result.err().map(|error| error.to_string()))
}

/// Bytes that look like a file: pieces of each format's grammar, in any order.
fn file_like() -> impl Strategy<Value = Vec<u8>> {
    let pieces: &[&[u8]] = &[
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"",
        b":",
        b",",
        b"\\",
        b"\n",
        b"\r",
        b" ",
        b"\"a\"",
        b"\"id\"",
        b"\"type\"",
        b"\"f\"",
        b"\"arguments\"",
        b"{\"type\":\"f\"}",
        b"\"a\":{\"type\":\"f\",\"arguments\":",
        b"1",
        b"-1.5e3",
        b"null",
        b"\\u00e9",
        b"\\ud800",
        b"\xc3",
        b"\xa9",
        b"\x00",
        b"\xef\xbb\xbf",
        b"id,type,a\n",
        b"x,\"y\",z\n",
        b"\"\"",
    ];
    vec(select(pieces), 0..40).prop_map(|pieces| pieces.concat())
}

fn command_file() -> impl Strategy<Value = (String, usize)> {
    let member = (
        r#"[a-zé😀"\\ \n]{0,8}"#,
        r#"[a-z"]{1,4}"#,
        proptest::option::of("[a-z,\"{}\\[\\]\\\\]{0,20}"),
        "[ \n\t]{0,2}",
    );
    vec(member, 0..12).prop_map(|members| {
        let mut file = String::from("{");
        for (index, (id, function, argument, space)) in members.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let id = serde_json::to_string(&format!("{index}{id}")).unwrap();
            let function = serde_json::to_string(function).unwrap();
            let arguments = argument.as_ref().map_or(String::new(), |argument| {
                format!(",{space}\"arguments\":{space}{{\"x\":{}}}", serde_json::to_string(argument).unwrap())
            });
            file += &format!("{comma}{space}{id}{space}:{space}{{\"type\":{function}{arguments}{space}}}{space}");
        }
        file.push('}');
        (file, members.len())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic_any_reader(
        bytes in prop_oneof![vec(any::<u8>(), 0..300), file_like()],
        function in proptest::option::of(Just("f")),
    ) {
        for shape in SHAPES {
            for compression in COMPRESSIONS {
                let _ = scan(bytes.as_slice(), Format { shape, compression }, function);
            }
        }
        python_text(&bytes, &mut Vec::new());
    }

    #[test]
    fn no_damage_to_a_compressed_file_panics_a_reader(
        (file, _) in command_file(), at in any::<prop::sample::Index>(), byte in any::<u8>(), keep in any::<prop::sample::Index>(),
    ) {
        let gzip = {
            let mut packed = Vec::new();
            flate2::read::GzEncoder::new(file.as_bytes(), flate2::Compression::fast()).read_to_end(&mut packed).unwrap();
            packed
        };
        let zstd = zstd::stream::encode_all(file.as_bytes(), 1).unwrap();
        for (compression, mut bytes) in [(Compression::Gzip, gzip), (Compression::Zstd, zstd)] {
            let format = Format { shape: Shape::CommandFile, compression };
            let cut = scan(&bytes[..keep.index(bytes.len())], format, None).unwrap_err();
            prop_assert!(cut.is_truncated(), "{cut}");
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = scan(bytes.as_slice(), format, None);
        }
    }

    #[test]
    fn how_reads_break_makes_no_difference(
        bytes in prop_oneof![file_like(), command_file().prop_map(|(file, _)| file.into_bytes())],
        sizes in vec(1usize..9, 1..5),
        function in proptest::option::of(Just("f")),
    ) {
        for shape in SHAPES {
            let whole = commands(bytes.as_slice(), plain(shape), function);
            let crumbs = commands(Crumbs { rest: &bytes, sizes: sizes.clone(), turn: 0 }, plain(shape), function);
            prop_assert_eq!(whole, crumbs);
        }
    }

    #[test]
    fn a_command_file_reads_as_its_json(
        (file, count) in command_file(), sizes in vec(1usize..9, 1..5),
    ) {
        let (commands, error) = commands(Crumbs { rest: file.as_bytes(), sizes, turn: 0 }, plain(Shape::CommandFile), None);
        prop_assert_eq!(error, None);
        prop_assert_eq!(commands.len(), count);
        let json: serde_json::Value = serde_json::from_str(&file).unwrap();
        for (id, function, payload) in commands {
            let command = &json[&id];
            prop_assert_eq!(&command["type"], &serde_json::Value::from(function));
            let arguments = command.get("arguments").cloned().unwrap_or(serde_json::json!({}));
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&payload).unwrap(), arguments);
        }
    }

    #[test]
    fn a_command_file_cut_anywhere_is_known_to_be_cut((file, _) in command_file(), at in any::<prop::sample::Index>()) {
        let cut = scan(&file.as_bytes()[..at.index(file.len())], plain(Shape::CommandFile), None).unwrap_err();
        prop_assert!(cut.is_truncated(), "{cut}");
    }

    #[test]
    fn csv_cells_are_those_of_the_csv_crate(
        rows in vec(vec("[a-cé,\"\r\n ]{0,6}", 3), 0..8), crlf in any::<bool>(), sizes in vec(1usize..9, 1..5),
    ) {
        let terminator = if crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
        let mut writer = csv::WriterBuilder::new().terminator(terminator).from_writer(Vec::new());
        writer.write_record(["x", "y\"", "é,"]).unwrap();
        rows.iter().for_each(|row| writer.write_record(row).unwrap());
        let file = writer.into_inner().unwrap();
        let (commands, error) = commands(Crumbs { rest: &file, sizes, turn: 0 }, plain(Shape::Csv), Some("f"));
        prop_assert_eq!(error, None);
        let expected: Vec<_> =
            rows.iter().map(|row| serde_json::json!({"x": row[0], "y\"": row[1], "é,": row[2]})).collect();
        let found: Vec<serde_json::Value> =
            commands.iter().map(|(_, _, payload)| serde_json::from_slice(payload).unwrap()).collect();
        prop_assert_eq!(&found, &expected);
    }

    #[test]
    fn csv_as_others_write_it_reads_as_the_csv_crate_reads_it(
        cells in vec(vec(select(&["a", "", "\"a\"", "\"\"", "\"\"\"\"", "a\"b", "a\"\"", " \"a\"", "\"x\r\ny\"", "\"x,\"", "é"][..]), 2), 1..8),
        breaks in vec(select(&["\n", "\r\n", "\r", "\n\n", "\r\n\r\n"][..]), 8),
    ) {
        let rows = cells.iter().zip(breaks).map(|(row, end)| row.join(",") + end);
        let text = ["x,y\n".to_owned()].into_iter().chain(rows).collect::<String>();
        let (commands, error) = commands(text.as_bytes(), plain(Shape::Csv), Some("f"));
        prop_assert_eq!(error, None);
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
        let rows: Vec<_> = reader.records().map(|row| row.unwrap()).collect();
        prop_assert_eq!(commands.len(), rows.len() - 1);
        for (row, (_, _, payload)) in rows[1..].iter().zip(commands) {
            let payload: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&payload).unwrap();
            for (name, cell) in rows[0].iter().zip(row) {
                prop_assert_eq!(&payload[name], cell);
            }
        }
    }

    #[test]
    fn ids_are_new_or_refused(ids in vec(proptest::option::of("[0-9]|0[1-9]|[a-c]|1[0-9]"), 0..20)) {
        let mut file = String::new();
        let mut known = std::collections::HashSet::new();
        let mut first_known = None;
        for (index, id) in ids.iter().enumerate() {
            let field = id.as_ref().map_or(String::new(), |id| format!("\"id\":\"{id}\","));
            file += &format!("{{{field}\"type\":\"f\"}}\n");
            let id = id.clone().unwrap_or((index + 1).to_string());
            if !known.insert(id) {
                first_known.get_or_insert(index);
            }
        }
        prop_assume!(!file.is_empty());
        let (commands, error) = commands(file.as_bytes(), plain(Shape::Ndjson), None);
        prop_assert_eq!(commands.len(), first_known.unwrap_or(ids.len()));
        prop_assert_eq!(error.is_some(), first_known.is_some());
    }
}
