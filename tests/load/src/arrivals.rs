//! When the tasks of an open loop are due, whatever the grid makes of the earlier ones.
//!
//! Latency is counted from these times, not from when a task could be sent: a client that is held up by a slow grid would
//! otherwise leave out just the tasks that waited longest.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How arrivals follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Arrivals {
    /// At equal distances.
    Constant {
        /// Tasks a second.
        per_s: f64,
    },
    /// Each independent of all others.
    Poisson {
        /// Tasks a second, on average.
        per_s: f64,
    },
    /// At a rate that grows, or falls, evenly over the whole time.
    Ramp {
        /// Tasks a second at the start.
        from_per_s: f64,
        /// Tasks a second at the end.
        to_per_s: f64,
    },
    /// Many at once, then none for a while.
    Bursts {
        /// Tasks of a burst.
        tasks: u32,
        /// From the start of a burst to that of the next.
        every_ms: u64,
    },
}

impl Arrivals {
    /// What is wrong with it, if anything.
    pub fn check(&self) -> Result<(), String> {
        let positive = |what: &str, rate: f64| match rate.is_finite() && rate > 0.0 {
            true => Ok(()),
            false => Err(format!("{what} is {rate}, must be a number above 0")),
        };
        match *self {
            Self::Constant { per_s } | Self::Poisson { per_s } => positive("per_s", per_s),
            Self::Ramp { from_per_s, to_per_s } => {
                if !(from_per_s.is_finite() && from_per_s >= 0.0 && to_per_s.is_finite() && to_per_s >= 0.0) {
                    return Err("from_per_s and to_per_s must be numbers of at least 0".into());
                }
                positive("the larger of from_per_s and to_per_s", from_per_s.max(to_per_s))
            }
            Self::Bursts { tasks: 0, .. } => Err("tasks is 0, must be at least 1".into()),
            Self::Bursts { every_ms: 0, .. } => Err("every_ms is 0, must be at least 1".into()),
            Self::Bursts { .. } => Ok(()),
        }
    }

    /// When each task is due, from the start on, for so long. The same seed gives the same times.
    pub fn schedule(&self, lasting: Duration, seed: u64) -> Schedule {
        Schedule {
            arrivals: *self,
            end_s: lasting.as_secs_f64(),
            number: 0,
            at_s: 0.0,
            random: fastrand::Rng::with_seed(seed),
        }
    }
}

/// The times at which tasks are due, ascending.
#[derive(Debug, Clone)]
pub struct Schedule {
    arrivals: Arrivals,
    end_s: f64,
    number: u64,
    at_s: f64,
    random: fastrand::Rng,
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let number = self.number as f64;
        self.at_s = match self.arrivals {
            Arrivals::Constant { per_s } => number / per_s,
            // The gaps of a Poisson process are exponentially distributed.
            Arrivals::Poisson { per_s } => self.at_s - (1.0 - self.random.f64()).ln() / per_s,
            Arrivals::Ramp { from_per_s, to_per_s } => ramp(from_per_s, to_per_s, self.end_s, number),
            Arrivals::Bursts { tasks, every_ms } => (self.number / u64::from(tasks) * every_ms) as f64 / 1e3,
        };
        self.number += 1;
        // A ramp that has come down to nothing has no next arrival, which is no number.
        (self.at_s < self.end_s).then(|| Duration::from_secs_f64(self.at_s))
    }
}

/// When a rate that goes evenly from one value to another has brought so many tasks: where
/// `from·t + (to − from)·t² / 2·end` is that number.
fn ramp(from: f64, to: f64, end_s: f64, number: f64) -> f64 {
    let slope = (to - from) / end_s;
    if slope.abs() < 1e-9 {
        return number / from;
    }
    // This form of the root loses no digits where the slope is small, and has no sign to choose.
    2.0 * number / (from + (from * from + 2.0 * slope * number).sqrt()).max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(arrivals: Arrivals, seconds: u64) -> Vec<f64> {
        arrivals.schedule(Duration::from_secs(seconds), 7).map(|at| at.as_secs_f64()).collect()
    }

    #[test]
    fn constant_arrivals_are_evenly_apart() {
        assert_eq!(times(Arrivals::Constant { per_s: 4.0 }, 1), [0.0, 0.25, 0.5, 0.75]);
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread() {
        let times = times(Arrivals::Poisson { per_s: 1_000.0 }, 100);
        assert!((99_000..101_000).contains(&times.len()), "{}", times.len());
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!(gaps.iter().all(|gap| *gap >= 0.0));
        // An exponential distribution's deviation is its mean.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.03, "{}", variance.sqrt() / mean);
    }

    #[test]
    fn the_same_seed_gives_the_same_times() {
        let arrivals = Arrivals::Poisson { per_s: 100.0 };
        let of = |seed| arrivals.schedule(Duration::from_secs(1), seed).collect::<Vec<_>>();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn ramps_bring_as_many_as_the_area_under_them() {
        for (from_per_s, to_per_s) in [(0.0, 200.0), (200.0, 0.0), (100.0, 100.0), (50.0, 150.0)] {
            let times = times(Arrivals::Ramp { from_per_s, to_per_s }, 10);
            assert!((999..=1_001).contains(&times.len()), "{from_per_s} to {to_per_s}: {}", times.len());
            assert!(times.windows(2).all(|pair| pair[0] <= pair[1]));
            let half = times.iter().filter(|at| **at < 5.0).count() as f64;
            let expected = 5.0 * (3.0 * from_per_s + to_per_s) / 4.0;
            assert!((half - expected).abs() <= 2.0, "{from_per_s} to {to_per_s}: {half} in the first half");
        }
    }

    #[test]
    fn bursts_come_together() {
        assert_eq!(times(Arrivals::Bursts { tasks: 2, every_ms: 400 }, 1), [0.0, 0.0, 0.4, 0.4, 0.8, 0.8]);
    }

    #[test]
    fn senseless_rates_are_refused() {
        for (arrivals, told) in [
            (Arrivals::Constant { per_s: 0.0 }, "per_s is 0"),
            (Arrivals::Poisson { per_s: f64::NAN }, "per_s is NaN"),
            (Arrivals::Ramp { from_per_s: 0.0, to_per_s: 0.0 }, "larger of from_per_s and to_per_s"),
            (Arrivals::Ramp { from_per_s: -1.0, to_per_s: 2.0 }, "at least 0"),
            (Arrivals::Bursts { tasks: 0, every_ms: 1 }, "tasks is 0"),
            (Arrivals::Bursts { tasks: 1, every_ms: 0 }, "every_ms is 0"),
        ] {
            let refused = arrivals.check().expect_err("senseless");
            assert!(refused.contains(told), "{refused}");
        }
    }
}
