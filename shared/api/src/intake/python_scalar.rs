//! Strings and numbers as Python's `repr` writes them.

use std::io::Write;

const QUOTE: u32 = '\'' as u32;
const DOUBLE_QUOTE: u32 = '"' as u32;
const HIGH_SURROGATES: std::ops::RangeInclusive<u32> = 0xD800..=0xDBFF;
const LOW_SURROGATES: std::ops::RangeInclusive<u32> = 0xDC00..=0xDFFF;

/// The bytes of the JSON string at the start of a text, if they are the same in every form: printable ASCII without quotes
/// and escapes.
pub(super) fn plain(text: &str) -> Option<&[u8]> {
    let text = text.as_bytes().strip_prefix(b"\"")?;
    let end = text.iter().position(|&byte| !matches!(byte, b' '..=b'~') || matches!(byte, b'"' | b'\'' | b'\\'))?;
    (text[end] == b'"').then_some(&text[..end])
}

/// Decodes the JSON string whose opening quote is at the start of a text into code points, lone surrogates among them, as
/// Python's strings hold them. Gives the bytes it took; none if it is not a valid string.
pub(super) fn decode(text: &str, points: &mut Vec<u32>) -> Option<usize> {
    points.clear();
    let mut chars = text.char_indices();
    chars.next().filter(|&(_, quote)| quote == '"')?;
    while let Some((at, char)) = chars.next() {
        let point = match char {
            '"' => return Some(at + 1),
            '\\' => match chars.next()?.1 {
                escaped @ ('"' | '\\' | '/') => escaped as u32,
                'b' => 0x08,
                'f' => 0x0C,
                'n' => 0x0A,
                'r' => 0x0D,
                't' => 0x09,
                'u' => {
                    let unit = (0..4).try_fold(0, |unit, _| Some(unit << 4 | chars.next()?.1.to_digit(16)?))?;
                    push_unit(points, unit);
                    continue;
                }
                _ => return None,
            },
            control if control < ' ' => return None,
            other => other as u32,
        };
        points.push(point);
    }
    None
}

/// A low surrogate joins a high one before it. (The one before it is an escape too: text itself holds no surrogates.)
fn push_unit(points: &mut Vec<u32>, unit: u32) {
    match points.last_mut() {
        Some(high) if LOW_SURROGATES.contains(&unit) && HIGH_SURROGATES.contains(high) => {
            *high = 0x10000 + ((*high - 0xD800) << 10) + (unit - 0xDC00);
        }
        _ => points.push(unit),
    }
}

/// Writes code points as text. A lone surrogate, which UTF-8 cannot hold, is written as its escape.
pub(super) fn write_text(points: &[u32], out: &mut Vec<u8>) {
    for &point in points {
        match char::from_u32(point) {
            Some(char) => push_char(char, out),
            None => write_escape(point, out),
        }
    }
}

/// Writes code points as `repr` does: in single quotes unless only single quotes are in it, with what is not printable
/// escaped.
pub(super) fn write_repr(points: &[u32], out: &mut Vec<u8>) {
    let quote = if points.contains(&QUOTE) && !points.contains(&DOUBLE_QUOTE) { DOUBLE_QUOTE } else { QUOTE };
    let delimiter = if quote == QUOTE { b'\'' } else { b'"' };
    out.push(delimiter);
    for &point in points {
        match char::from_u32(point) {
            Some('\n') => out.extend_from_slice(b"\\n"),
            Some('\r') => out.extend_from_slice(b"\\r"),
            Some('\t') => out.extend_from_slice(b"\\t"),
            Some('\\') => out.extend_from_slice(b"\\\\"),
            Some(_) if point == quote => out.extend_from_slice(&[b'\\', delimiter]),
            Some(char) if is_printable(char) => push_char(char, out),
            _ => write_escape(point, out),
        }
    }
    out.push(delimiter);
}

fn push_char(char: char, out: &mut Vec<u8>) {
    out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
}

fn write_escape(point: u32, out: &mut Vec<u8>) {
    let written = match point {
        0..=0xFF => write!(out, "\\x{point:02x}"),
        0x100..=0xFFFF => write!(out, "\\u{point:04x}"),
        _ => write!(out, "\\U{point:08x}"),
    };
    written.expect("memory takes any bytes");
}

/// Python's `str.isprintable`: no control, format, private, unassigned or separator characters but the space. Rust escapes
/// these same classes in a string's debug form, after the first character, and of its own Unicode version: a character
/// assigned after the reader's Python was made is kept here and escaped there.
fn is_printable(char: char) -> bool {
    if char.is_ascii() {
        return (' '..='~').contains(&char);
    }
    let mut text = [b'a'; 5];
    let end = 1 + char.encode_utf8(&mut text[1..]).len();
    str::from_utf8(&text[..end]).is_ok_and(|text| text.escape_debug().nth(1) != Some('\\'))
}

/// Writes the JSON number at the start of a text as Python does: an integer of any size digit by digit, a float in the
/// fewest digits that give it back. Gives the bytes it took; none if it is not a valid number.
pub(super) fn write_number(text: &str, out: &mut Vec<u8>) -> Option<usize> {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = usize::from(bytes.first() == Some(&b'-'));
    let mut end = whole + digits(whole);
    if end == whole || (bytes[whole] == b'0' && end > whole + 1) {
        return None;
    }
    let integer_end = end;
    if bytes.get(end) == Some(&b'.') {
        end += 1 + Some(digits(end + 1)).filter(|&count| count > 0)?;
    }
    if let Some(b'e' | b'E') = bytes.get(end) {
        end += 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        end += Some(digits(end)).filter(|&count| count > 0)?;
    }
    match &text[..end] {
        "-0" => out.push(b'0'),
        integer if end == integer_end => out.extend_from_slice(integer.as_bytes()),
        float => write_float(float.parse().ok()?, out),
    }
    Some(end)
}

/// Python's form of a float: scientific below 1e-4 and from 1e16 on, else with a point.
fn write_float(value: f64, out: &mut Vec<u8>) {
    let magnitude = value.abs();
    let sign = if value.is_sign_negative() { "-" } else { "" };
    let shortest = shortest(magnitude);
    let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let written = if magnitude.is_infinite() {
        write!(out, "{sign}inf")
    } else if magnitude == 0.0 || (1e-4..1e16).contains(&magnitude) {
        let (digits, exponent) = (digits.replace('.', ""), exponent.parse::<isize>().unwrap_or(0));
        match usize::try_from(exponent) {
            Ok(exponent) => {
                let padded = format!("{digits:0<width$}", width = exponent + 2);
                let (whole, fraction) = padded.split_at(exponent + 1);
                write!(out, "{sign}{whole}.{fraction}")
            }
            Err(_) => write!(out, "{sign}0.{:0>1$}{digits}", "", exponent.unsigned_abs() - 1),
        }
    } else {
        let (direction, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
        write!(out, "{sign}{digits}e{direction}{exponent:0>2}")
    };
    written.expect("memory takes any bytes");
}

/// The fewest digits that give a float back, as `d.dde-5`. Where two such numbers are as near, Rust takes the upper one and
/// Python the one that ends even, as Rust does when the count of digits is given. That takes a float whose own digits are
/// one more, hence at least 16: any 15 digits are told apart.
fn shortest(magnitude: f64) -> String {
    let shortest = format!("{magnitude:e}");
    let digits = shortest.bytes().take_while(|&byte| byte != b'e').filter(u8::is_ascii_digit).count();
    if digits < 15 {
        return shortest;
    }
    let even = format!("{magnitude:.*e}", digits - 1);
    if even.parse() == Ok(magnitude) { even } else { shortest }
}
