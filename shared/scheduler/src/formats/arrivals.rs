//! Arrival traces of a stream of requests: `delay,item,bitrate,speed`, a line each.
//!
//! `delay` is the seconds since the request before. The format says nothing about how long a request is worked on; that
//! may follow as a fifth column, or come from [`ServiceModel`].

use serde::{Deserialize, Serialize};

use super::{FormatError, above_zero, at_least};

/// A request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arrival {
    /// Seconds since the request before.
    pub delay_s: f64,
    /// What is to be transcoded.
    pub item: String,
    /// To how many kilobits a second.
    pub bitrate: f64,
    /// At which preset, like `fast`.
    pub speed: String,
    /// Seconds of work, where they are known.
    pub service_s: Option<f64>,
}

/// Reads a trace. Empty lines, lines that start with `#`, and a heading are passed over.
pub fn parse(text: &str) -> Result<Vec<Arrival>, FormatError> {
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#') && !line.starts_with("delay,"));
    lines.map(|(number, line)| read(line).map_err(|error| error.under(&format!("line {number}")))).collect()
}

fn read(line: &str) -> Result<Arrival, FormatError> {
    let columns: Vec<&str> = line.split(',').map(str::trim).collect();
    let ([delay, item, bitrate, speed] | [delay, item, bitrate, speed, _]) = columns[..] else {
        let found = columns.len();
        return Err(FormatError::new(
            "",
            format!("expected delay,item,bitrate,speed[,service_s], found {found} columns"),
        ));
    };
    let number = |place: &str, text: &str| {
        text.parse().map_err(|_| FormatError::new(place, format!("expected a number, found {text:?}")))
    };
    let service_s = columns.get(4).map(|text| number("service_s", text).and_then(|s| above_zero("service_s", s)));
    Ok(Arrival {
        delay_s: at_least("delay", number("delay", delay)?, 0.0)?,
        item: item.to_owned(),
        bitrate: above_zero("bitrate", number("bitrate", bitrate)?)?,
        speed: speed.to_owned(),
        service_s: service_s.transpose()?,
    })
}

/// How long requests take when the trace does not say: a base time, more for a higher bitrate, and more for the slower
/// preset. Coarse on purpose; with measured seconds in the fifth column it is not used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceModel {
    /// Seconds at the mean bitrate.
    pub mean_s: f64,
    /// The mean bitrate.
    pub mean_bitrate: f64,
    /// The part of the seconds that grows with the bitrate.
    pub bitrate_share: f64,
    /// How many times as long any preset but `ultrafast` takes.
    pub slow_factor: f64,
}

impl Default for ServiceModel {
    fn default() -> Self {
        Self { mean_s: 60.0, mean_bitrate: 4250.0, bitrate_share: 0.3, slow_factor: 1.6 }
    }
}

impl ServiceModel {
    /// Seconds of work in `arrival`.
    pub fn service_s(&self, arrival: &Arrival) -> f64 {
        arrival.service_s.unwrap_or_else(|| {
            let of_bitrate = 1.0 + self.bitrate_share * (arrival.bitrate / self.mean_bitrate - 1.0);
            self.mean_s * of_bitrate.max(0.1) * if arrival.speed == "ultrafast" { 1.0 } else { self.slow_factor }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_trace_with_and_without_service_times() {
        let trace =
            parse("delay,item,bitrate,speed\n0,vid-27.mp4,7629,fast\n\n5.07,vid-19.mp4,4649,ultrafast,12.5\n").unwrap();
        assert_eq!(trace.len(), 2);
        assert_eq!((trace[1].delay_s, trace[1].service_s), (5.07, Some(12.5)));
        assert_eq!(ServiceModel::default().service_s(&trace[1]), 12.5);
        assert!(ServiceModel::default().service_s(&trace[0]) > 100.0);
    }

    #[test]
    fn errors_name_line_and_column() {
        let said = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(said("0,a,1,fast\nsoon,b,1,fast"), "line 2.delay: expected a number, found \"soon\"");
        assert_eq!(said("0,a,0,fast"), "line 1.bitrate: expected a number above 0, found 0");
        assert_eq!(said("0,a"), "line 1: expected delay,item,bitrate,speed[,service_s], found 2 columns");
        assert_eq!(said("-1,a,1,fast"), "line 1.delay: expected a number of at least 0, found -1");
    }
}
