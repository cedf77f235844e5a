//! Results in Python's form: any bytes have one, of bounded size.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use sheaf_api::intake::{OutcomeText, python_text, write_line};

fuzz_target!(|input: &[u8]| {
    let mut out = b"before".to_vec();
    python_text(input, &mut out);
    let text = out.strip_prefix(b"before").expect("it appends");
    // The worst is a control character in a JSON string: six bytes that stay at most six, quotes around, a space after
    // each comma and colon; a float may grow to Python's shortest form.
    assert!(text.len() <= 8 * input.len() + 64, "{} bytes became {}", input.len(), text.len());
    // By its grammar: Python, too, reads half of a surrogate pair, and numbers that no float holds.
    if str::from_utf8(input).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok()) {
        str::from_utf8(text).expect("JSON becomes text");
    } else {
        assert_eq!(text, input, "what is not JSON stays as it is");
    }
    let text = String::from_utf8_lossy(input);
    let (mut line, outcome) = (Vec::new(), OutcomeText::Failed { kind: &text, message: &text });
    write_line(&mut line, &text, &outcome);
    assert_eq!(line.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count(), 1, "a line is one line");
});
