//! The form of results against Python itself. Passes, and says so, where there is no `python3`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    io::Write,
    process::{Command, Stdio},
};

use proptest::{collection::vec, prelude::*, sample::select, strategy::ValueTree, test_runner::TestRunner};
use sheaf_api::intake::python_text;

/// Runs a script on some input; none without Python.
fn python(script: &str, input: &str) -> Option<String> {
    let python =
        Command::new("python3").args(["-X", "utf8", "-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = python else {
        use std::io::Write;
        // Past the capture of test output.
        let _ = std::io::stderr().write_all(b"\nSKIPPED: no python3 here, so nothing was compared with it\n");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input.as_bytes()).unwrap());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        Some(String::from_utf8(output.stdout).unwrap())
    })
}

fn ours(json: &str) -> String {
    let mut out = Vec::new();
    python_text(json.as_bytes(), &mut out);
    String::from_utf8(out).unwrap()
}

/// A JSON number as text, near every edge of Python's forms.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        "-?(0|[1-9][0-9]{0,60})",
        "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?",
        any::<f64>()
            .prop_filter_map("JSON has no such number", |float| float.is_finite().then(|| format!("{float:e}"))),
        any::<f64>()
            .prop_filter_map("JSON has no such number", |float| float.is_finite().then(|| format!("{float:?}"))),
        (-330i32..310, 1u64..10).prop_map(|(exponent, digit)| format!("{digit}e{exponent}")),
        (0u64..1 << 53, -20i32..20).prop_map(|(digits, exponent)| format!("{digits}E{exponent:+}")),
    ]
}

/// A JSON string as text: characters and escapes of every kind that Python treats on its own. Only of blocks that have
/// been full for long, since which characters are assigned depends on the version of Unicode.
fn string() -> impl Strategy<Value = String> {
    let char = |from: u32, to: u32| {
        (from..=to).prop_filter_map("no character", char::from_u32).prop_map(|char| match char {
            '"' | '\\' => format!("\\{char}"),
            '\0'..' ' => format!("\\u{:04X}", char as u32),
            _ => char.to_string(),
        })
    };
    let piece = prop_oneof![
        8 => char(0x20, 0x7f),
        2 => char(0, 0x24f),
        1 => char(0x300, 0x36f),
        1 => char(0x2000, 0x2063),
        1 => char(0x3000, 0x303f),
        1 => char(0xe000, 0xe010),
        1 => char(0x1f600, 0x1f64f),
        1 => char(0xe0001, 0xe0001),
        1 => char(0x10fff0, 0x10ffff),
        2 => select(vec!["'", "\\\"", "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r", "\\t"]).prop_map(String::from),
        2 => (0u32..0x250).prop_map(|unit| format!("\\u{unit:04x}")),
        // Surrogates that make no other pairs than faces, and the code points on either side of all surrogates.
        3 => prop_oneof![Just(0xd83du32), 0xde00u32..0xde50, 0xd7f0u32..0xd800, 0xe000u32..0xe010]
            .prop_map(|unit| format!("\\u{unit:04X}")),
        1 => Just("\\ud83d\\uDE00".to_owned()),
    ];
    vec(piece, 0..12).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn json() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        number(),
        string(),
        select(vec!["true", "false", "null", "[]", "{}", " [ ] ", "{\n}"]).prop_map(String::from),
    ];
    scalar.prop_recursive(5, 64, 8, |value| {
        // Few keys, so that many are equal; and both ways to write one.
        let key = prop_oneof![
            4 => select(vec!["\"a\"", "\"b\"", "\"\\u0061\"", "\"it's\"", "\"\""]).prop_map(String::from),
            1 => string(),
        ];
        let space = select(vec!["", "", " ", "\r\n\t"]);
        prop_oneof![
            (vec(value.clone(), 0..8), space.clone())
                .prop_map(|(items, space)| format!("{space}[{}]", items.join(&format!("{space},{space}")))),
            (vec((key, value), 0..8), space).prop_map(|(members, space)| {
                let members: Vec<_> =
                    members.iter().map(|(key, value)| format!("{space}{key}{space}:{space}{value}")).collect();
                format!("{{{}}}{space}", members.join(","))
            }),
        ]
    })
}

#[test]
fn random_values_print_as_python_prints_them() {
    const SCRIPT: &str = "
import sys, json
for line in sys.stdin:
    value = str(json.loads(bytes.fromhex(line)))
    print(value.encode('utf-8', 'backslashreplace').hex())
";
    let mut runner = TestRunner::deterministic();
    let cases: Vec<String> = (0..5_000).map(|_| json().new_tree(&mut runner).unwrap().current()).collect();
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let input: String = cases.iter().map(|case| hex(case) + "\n").collect();
    let Some(output) = python(SCRIPT, &input) else { return };
    assert_eq!(output.lines().count(), cases.len());
    for (case, theirs) in cases.iter().zip(output.lines()) {
        assert_eq!(hex(&ours(case)), theirs, "\n{case}\n{}", ours(case));
    }
}

/// Every character there is; they may differ only where Python's version of Unicode has none yet.
#[test]
fn every_character_is_printable_where_python_says_so() {
    const SCRIPT: &str = "
import unicodedata
for point in range(0x110000):
    char = chr(point)
    if not 0xd800 <= point < 0xe000 and unicodedata.category(char) != 'Cn':
        print(format(point, 'x'), repr(char))
";
    let Some(output) = python(SCRIPT, "") else { return };
    assert!(output.lines().count() > 140_000);
    for line in output.lines() {
        let (point, theirs) = line.split_once(' ').unwrap();
        let char = char::from_u32(u32::from_str_radix(point, 16).unwrap()).unwrap();
        assert_eq!(ours(&serde_json::to_string(&[char]).unwrap()), format!("[{theirs}]"), "U+{point}");
    }
}
