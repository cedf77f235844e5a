//! How long a task is expected to take, and who said so.

use serde::{Deserialize, Serialize};

/// Seconds assumed for a task of which nothing at all is known: half a minute, the most work a chunk is packed with.
pub const UNKNOWN_TASK_S: f64 = 30.0;

/// What is known of a function's task time. The submitter's hint counts first, then what was measured, then
/// [`UNKNOWN_TASK_S`]. All in seconds on a machine of speed 1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Estimate {
    /// What the submitter said one task takes.
    pub hint_s: Option<f64>,
    /// Moving mean of the function's tasks.
    pub mean_s: Option<f64>,
    /// 95th percentile of the function's tasks.
    pub p95_s: Option<f64>,
}

impl Estimate {
    /// The seconds a task is expected to take.
    pub fn typical_s(&self) -> f64 {
        known(self.hint_s).or(known(self.mean_s)).unwrap_or(UNKNOWN_TASK_S)
    }

    /// The seconds to allow for a task that must not be late: never less than the typical one, even where a hint is
    /// more hopeful than what was measured.
    pub fn longest_s(&self) -> f64 {
        self.typical_s().max(known(self.p95_s).unwrap_or(0.0))
    }

    /// The seconds of work in `tasks` tasks.
    pub fn work_s(&self, tasks: u64) -> f64 {
        self.typical_s() * tasks as f64
    }
}

/// A figure that can be used: finite and above zero. Anything else is treated as not known.
fn known(seconds: Option<f64>) -> Option<f64> {
    seconds.filter(|s| s.is_finite() && *s > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_submitters_hint_counts_first() {
        let estimate = Estimate { hint_s: Some(12.0), mean_s: Some(40.0), p95_s: Some(90.0) };
        assert_eq!(estimate.typical_s(), 12.0);
        assert_eq!(estimate.longest_s(), 90.0, "a hopeful hint does not hide a long tail");
        assert_eq!(Estimate { hint_s: None, ..estimate }.typical_s(), 40.0);
    }

    #[test]
    fn nonsense_is_not_known() {
        let estimate = Estimate { hint_s: Some(f64::NAN), mean_s: Some(-3.0), p95_s: None };
        assert_eq!(estimate.typical_s(), UNKNOWN_TASK_S);
        assert_eq!(Estimate::default().work_s(10), 300.0);
    }
}
