//! Times, counted so that any percentile of any number of them takes little memory.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest time told apart: a day.
const US_MAX: u64 = 24 * 3_600 * 1_000_000;
/// Times are told apart to a thousandth.
const DIGITS: u8 = 3;
/// The percentiles of a curve.
const CURVE: [f64; 14] = [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.9, 99.95, 99.99, 100.0];

/// Some times.
#[derive(Debug, Clone)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, US_MAX, DIGITS).expect("the bounds are constants, and in order"))
    }
}

impl Times {
    /// Adds one.
    pub fn add(&mut self, time: Duration) {
        self.add_us(time.as_micros() as u64);
    }

    /// Adds one, in µs.
    pub fn add_us(&mut self, us: u64) {
        self.0.saturating_record(us);
    }

    /// Adds all of others.
    pub fn merge(&mut self, others: &Self) {
        self.0.add(&others.0).expect("all histograms have the same bounds");
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// A percentile, in ms.
    pub fn percentile_ms(&self, percentile: f64) -> f64 {
        self.0.value_at_percentile(percentile) as f64 / 1e3
    }

    /// All that is reported of them; nothing if there are none.
    pub fn percentiles(&self) -> Option<Percentiles> {
        (self.count() > 0).then(|| Percentiles {
            count: self.count(),
            mean_ms: self.0.mean() / 1e3,
            p50_ms: self.percentile_ms(50.0),
            p90_ms: self.percentile_ms(90.0),
            p99_ms: self.percentile_ms(99.0),
            p999_ms: self.percentile_ms(99.9),
            max_ms: self.0.max() as f64 / 1e3,
            curve: CURVE.map(|percentile| (percentile, self.percentile_ms(percentile))).to_vec(),
        })
    }
}

/// What is reported of some times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many there were.
    pub count: u64,
    /// Their mean.
    pub mean_ms: f64,
    /// Half were shorter.
    pub p50_ms: f64,
    /// Nine of ten were shorter.
    pub p90_ms: f64,
    /// 99 of 100 were shorter.
    pub p99_ms: f64,
    /// 999 of 1,000 were shorter.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// More of them: percentile and time.
    pub curve: Vec<(f64, f64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_all_parts() {
        let (mut times, mut others) = (Times::default(), Times::default());
        (1..=500).for_each(|us| times.add_us(us));
        (501..=1_000).for_each(|us| others.add_us(us));
        times.merge(&others);
        let found = times.percentiles().expect("some");
        assert_eq!((found.count, found.p50_ms, found.p99_ms, found.max_ms), (1_000, 0.5, 0.99, 1.0));
        assert!((found.mean_ms - 0.5005).abs() < 0.001);
        assert_eq!(Times::default().percentiles(), None);
    }
}
