//! Spot traces: when a zone had no capacity. `zone,down_s,up_s`, a line each; the seconds count from the trace's start,
//! and an empty `up_s` means that the capacity did not come back. `zone` is a pool's zone, or its machine type.

use serde::{Deserialize, Serialize};

use super::{FormatError, at_least};

/// A time without capacity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outage {
    /// Of which zone or machine type.
    pub zone: String,
    /// From when.
    pub down_s: f64,
    /// Until when; infinite where it does not end.
    pub up_s: f64,
}

/// Reads a spot trace. Empty lines, lines that start with `#`, and a heading are passed over. Outages of a zone must
/// follow one another.
pub fn parse(text: &str) -> Result<Vec<Outage>, FormatError> {
    let mut outages: Vec<Outage> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let is_heading = line.ends_with(",down_s,up_s");
        if line.is_empty() || line.starts_with('#') || is_heading {
            continue;
        }
        let outage = read(line).map_err(|error| error.under(&format!("line {}", number + 1)))?;
        let before = outages.iter().rev().find(|before| before.zone == outage.zone);
        if before.is_some_and(|before| outage.down_s < before.up_s) {
            let problem = format!("{} is still down from the line before", outage.zone);
            return Err(FormatError::new(format!("line {}.down_s", number + 1), problem));
        }
        outages.push(outage);
    }
    Ok(outages)
}

fn read(line: &str) -> Result<Outage, FormatError> {
    let columns: Vec<&str> = line.split(',').map(str::trim).collect();
    let [zone, down, up] = columns[..] else {
        return Err(FormatError::new("", format!("expected zone,down_s,up_s, found {} columns", columns.len())));
    };
    let number = |place: &str, text: &str| -> Result<f64, FormatError> {
        let number = text.parse().map_err(|_| FormatError::new(place, format!("expected a number, found {text:?}")))?;
        at_least(place, number, 0.0)
    };
    let down_s = number("down_s", down)?;
    let up_s = if up.is_empty() { f64::INFINITY } else { number("up_s", up)? };
    if up_s <= down_s {
        return Err(FormatError::new("up_s", format!("expected more than down_s, {down_s}, found {up_s}")));
    }
    Ok(Outage { zone: zone.to_owned(), down_s, up_s })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_outages() {
        let outages = parse("zone,down_s,up_s\na,10,20\nb,5,\na,20,30").unwrap();
        assert_eq!(parse("type,down_s,up_s\na,10,20\nb,5,\na,20,30").unwrap(), outages);
        assert_eq!(outages.len(), 3);
        assert_eq!(outages[1], Outage { zone: "b".to_owned(), down_s: 5.0, up_s: f64::INFINITY });
    }

    #[test]
    fn errors_name_line_and_column() {
        let said = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(said("a,10,9"), "line 1.up_s: expected more than down_s, 10, found 9");
        assert_eq!(said("a,10,20\na,15,30"), "line 2.down_s: a is still down from the line before");
        assert_eq!(said("a,x,20"), "line 1.down_s: expected a number, found \"x\"");
    }
}
