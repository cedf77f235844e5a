//! What a checkpoint costs, and how often one pays.

use serde::{Deserialize, Serialize};

/// The cost of writing a checkpoint, and how much of a task's time may go into them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CheckpointCost {
    /// Seconds a dump takes at any size. Measured with CRIU by the authors of HADS: 12.99.
    pub dump_s: f64,
    /// Seconds more per megabyte of memory: 0.04, from the same source.
    pub dump_s_per_mb: f64,
    /// The share of a task's run time that checkpoints may take: 0.1.
    pub budget: f64,
}

impl Default for CheckpointCost {
    fn default() -> Self {
        Self { dump_s: 12.99, dump_s_per_mb: 0.04, budget: 0.1 }
    }
}

impl CheckpointCost {
    /// Seconds to dump a task of `memory_mb` megabytes.
    pub fn dump_s(&self, memory_mb: f64) -> f64 {
        self.dump_s + self.dump_s_per_mb * memory_mb
    }

    /// Checkpoints that fit in the budget of a task of `runtime_s`.
    pub fn affordable(&self, runtime_s: f64, memory_mb: f64) -> u32 {
        let dump_s = self.dump_s(memory_mb);
        if dump_s <= 0.0 { u32::MAX } else { (self.budget * runtime_s / dump_s).floor().max(0.0) as u32 }
    }

    /// Work seconds between the checkpoints of a task, spread evenly: as often as `wish_s` asks, no oftener than the
    /// budget pays for. None: no checkpoint at all. One at the very end would save nothing, so there is none.
    pub fn spacing_s(&self, runtime_s: f64, memory_mb: f64, wish_s: f64) -> Option<f64> {
        if wish_s.is_nan() || wish_s <= 0.0 || runtime_s <= 0.0 {
            return None;
        }
        let wished = (runtime_s / wish_s).ceil() as u32;
        let count = wished.saturating_sub(1).min(self.affordable(runtime_s, memory_mb));
        (count > 0).then(|| runtime_s / f64::from(count + 1))
    }
}

/// Young's interval: the work between two checkpoints that loses least in all, √(2 · dump · time between failures)
/// (J. W. Young, "A first order approximation to the optimum checkpoint interval", 1974). None when nothing fails.
pub fn young_s(dump_s: f64, reclaims_per_hour: f64) -> Option<f64> {
    (reclaims_per_hour > 0.0 && dump_s > 0.0).then(|| (2.0 * dump_s * 3600.0 / reclaims_per_hour).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn youngs_interval() {
        assert_eq!(young_s(13.0, 0.0), None);
        // A machine that lives 40 minutes on average: √(2 · 13 · 2400) = 249.8 s.
        assert!((young_s(13.0, 1.5).unwrap() - 249.8).abs() < 0.1);
    }

    #[test]
    fn the_budget_bounds_the_number_of_checkpoints() {
        let cost = CheckpointCost::default();
        assert_eq!(cost.affordable(100.0, 10.0), 0, "10 s of budget do not pay for a dump of 13.39 s");
        assert_eq!(cost.affordable(200.0, 10.0), 1);
        assert_eq!(cost.spacing_s(200.0, 10.0, 10.0), Some(100.0));
        assert_eq!(cost.spacing_s(300.0, 10.0, 10.0), Some(100.0));
        assert_eq!(cost.spacing_s(300.0, 10.0, 200.0), Some(150.0), "no oftener than asked");
        assert_eq!(cost.spacing_s(300.0, 10.0, 400.0), None);
    }
}
