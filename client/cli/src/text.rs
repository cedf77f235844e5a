//! Numbers, times and sizes as people read and write them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

/// A count with its thousands apart: `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count and its noun: `1 task`, `2 tasks`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// A length of time, in two units at most: `480 µs`, `12 ms`, `2.3 s`, `4m 05s`, `3h 12m`, `2d 4h`.
pub(crate) fn duration(duration: Duration) -> String {
    let (seconds, us) = (duration.as_secs(), duration.as_micros());
    match seconds {
        0 if us < 1_000 => format!("{us} µs"),
        0 => format!("{} ms", us / 1_000),
        1..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// The same, of milliseconds.
pub(crate) fn duration_ms(ms: u64) -> String {
    duration(Duration::from_millis(ms))
}

/// The same, of microseconds.
pub(crate) fn duration_us(us: u64) -> String {
    duration(Duration::from_micros(us))
}

/// Tasks in a second: `4.2/s`, `1,234/s`.
pub(crate) fn rate(per_second: f64) -> String {
    if per_second < 10.0 { format!("{per_second:.1}/s") } else { format!("{}/s", count(per_second as u64)) }
}

/// A size: `12 B`, `3.4 KiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut shown = format!("{bytes} B");
    for unit in units {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        shown = format!("{size:.1} {unit}");
    }
    shown
}

/// An amount of dollars: `1,234.50`, and of less than one, three digits that count: `0.625`, `0.0000164`.
pub(crate) fn dollars(usd: f64) -> String {
    if usd >= 1.0 || usd <= 0.0 {
        let cents = (usd * 100.0).round() as u64;
        return format!("{}.{:02}", count(cents / 100), cents % 100);
    }
    // Nobody bills less than a billionth.
    let leading_zeros = (-usd.log10().floor()) as usize - 1;
    let digits = (leading_zeros + 3).min(12);
    let text = format!("{usd:.digits$}");
    let whole = text.trim_end_matches('0');
    format!("{:0<4}", whole)
}

/// A moment (Unix, ms) in local time, to the second.
pub(crate) fn time(at_ms: u64) -> String {
    let at = i64::try_from(at_ms).ok().and_then(|at_ms| Timestamp::from_millisecond(at_ms).ok());
    at.map_or_else(|| "?".to_owned(), |at| at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// How long ago a moment (Unix, ms) was.
pub(crate) fn ago(at_ms: u64) -> String {
    format!("{} ago", duration_ms(now_ms().saturating_sub(at_ms)))
}

/// Now (Unix, ms).
pub(crate) fn now_ms() -> u64 {
    Timestamp::now().as_millisecond().try_into().unwrap_or_default()
}

/// Reads a length of time: `90s`, `5m`, `1h30m`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("{text:?} is not a duration such as 90s, 5m or 1h30m");
    let parsed: SignedDuration = text.parse().map_err(|_| expected())?;
    parsed.try_into().map_err(|_| expected())
}

/// Reads a moment as Unix ms: a duration from now, or an RFC 3339 time.
pub(crate) fn parse_deadline(text: &str) -> Result<u64, String> {
    if let Ok(duration) = parse_duration(text) {
        return Ok(now_ms().saturating_add(duration.as_millis() as u64));
    }
    let expected = || format!("{text:?} is neither a duration such as 2h nor a time such as 2026-01-31T18:00:00Z");
    let at: Timestamp = text.parse().map_err(|_| expected())?;
    at.as_millisecond().try_into().map_err(|_| expected())
}

/// Reads a size: `512MiB`, `6MB`, `1GiB`, or plain bytes.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let expected = || format!("{text:?} is not a size such as 512MiB or 1GiB");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        _ => return Err(expected()),
    };
    let number: u64 = digits.trim_end().parse().map_err(|_| expected())?;
    number.checked_mul(unit).ok_or_else(expected)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!((counted(1, "task"), counted(0, "task")), ("1 task".into(), "0 tasks".into()));
        assert_eq!([4.25, 9_876.5].map(rate), ["4.2/s", "9,876/s"]);
        assert_eq!([12, 3_482, 5 << 20].map(bytes), ["12 B", "3.4 KiB", "5.0 MiB"]);
        let ms = [0, 12, 2_345, 245_000, 11_520_000, 187_200_000];
        assert_eq!(ms.map(duration_ms), ["0 µs", "12 ms", "2.3 s", "4m 05s", "3h 12m", "2d 4h"]);
    }

    #[test]
    fn dollars_keep_the_digits_that_count() {
        let usd = [0.0, 0.000_016_4, 0.000_123_456, 0.5, 0.625, 0.9999, 1.0, 14.308_9, 1_234_567.891];
        let shown = ["0.00", "0.0000164", "0.000123", "0.50", "0.625", "1.00", "1.00", "14.31", "1,234,567.89"];
        assert_eq!(usd.map(dollars), shown);
    }

    #[test]
    fn durations_sizes_and_deadlines_are_read() {
        assert_eq!(parse_duration("1h30m").unwrap(), Duration::from_secs(5_400));
        assert_eq!(parse_duration("1500ms").unwrap(), Duration::from_millis(1_500));
        assert!(parse_duration("-5m").is_err() && parse_duration("5").is_err());
        assert_eq!(parse_bytes("512MiB").unwrap(), 512 << 20);
        assert_eq!(parse_bytes("6 MB").unwrap(), 6_000_000);
        assert!(parse_bytes("12 parsecs").is_err() && parse_bytes("").is_err());
        assert_eq!(parse_deadline("1970-01-01T00:00:01Z").unwrap(), 1_000);
        assert!(parse_deadline("2h").unwrap() > now_ms() + 7_000_000);
        assert!(parse_deadline("tomorrow").is_err());
    }
}
