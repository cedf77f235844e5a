//! How arguments become text: the Python functions beside these do the same, so a number looks as Python prints it.

use std::borrow::Cow;

/// What `typeB` answers without an argument.
pub(crate) const NOT_FILLED: &str = "Not filled !";

/// Whether this JSON is a number.
pub(crate) fn is_number(json: &str) -> bool {
    json.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

/// A JSON number as Python's `str` writes the `int` or `float` that it is there. Nothing for other JSON.
pub(crate) fn of_number(json: &str) -> Option<Cow<'_, str>> {
    if !is_number(json) {
        None
    } else if json.contains(['.', 'e', 'E']) {
        json.parse().ok().map(|value| Cow::Owned(of_float(value)))
    } else {
        Some(Cow::Borrowed(if json == "-0" { "0" } else { json }))
    }
}

/// The shortest digits that read back as the same value; with an exponent below 1e-4 and from 1e16.
fn of_float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let split = scientific.split_once('e').and_then(|(digits, exponent)| Some((digits, exponent.parse::<i32>().ok()?)));
    match split {
        Some((digits, exponent)) if !(-4..16).contains(&exponent) => format!("{digits}e{exponent:+03}"),
        Some(_) if value.fract() == 0.0 => format!("{value:.1}"),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_as_in_python() {
        for (json, python) in [
            ("0", "0"),
            ("-0", "0"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("1.0", "1.0"),
            ("-0.0", "-0.0"),
            ("2.50", "2.5"),
            ("0.1", "0.1"),
            ("1e3", "1000.0"),
            ("1E15", "1000000000000000.0"),
            ("1e16", "1e+16"),
            ("1.5e300", "1.5e+300"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("1e999", "inf"),
            ("-1e999", "-inf"),
        ] {
            assert_eq!(of_number(json).as_deref(), Some(python), "{json}");
        }
        assert_eq!(of_number("true"), None);
    }
}
