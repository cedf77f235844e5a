//! An estimate of the energy of work, from core-seconds. The factors are in `energy.toml`.

use serde::{Deserialize, Serialize};

/// What cores are taken to draw.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Factors {
    /// Watts of an idle vCPU.
    pub idle_w: f64,
    /// Watts of a busy one.
    pub busy_w: f64,
    /// Watts at the data centre's meter for each watt of a machine.
    pub power_usage_effectiveness: f64,
}

impl Factors {
    /// Those of `energy.toml`.
    pub fn built_in() -> Self {
        toml::from_str(include_str!("energy.toml")).expect("energy.toml was read by a test")
    }

    /// Watt-hours of cores that were held for `held_core_s` and worked for `busy_core_s` of that. What is busy is held,
    /// also where less is said to have been held.
    pub fn watt_hours(&self, busy_core_s: f64, held_core_s: f64) -> f64 {
        let idle_core_s = (held_core_s - busy_core_s).max(0.0);
        (self.busy_w * busy_core_s + self.idle_w * idle_core_s) * self.power_usage_effectiveness / 3600.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_core_draws_more_than_an_idle_one() {
        let factors = Factors::built_in();
        assert!(factors.busy_w > factors.idle_w && factors.power_usage_effectiveness >= 1.0);
        let (busy, idle) = (factors.watt_hours(3600.0, 3600.0), factors.watt_hours(0.0, 3600.0));
        assert!((busy - 3.5 * 1.135).abs() < 1e-9 && (idle - 0.74 * 1.135).abs() < 1e-9);
        assert_eq!(factors.watt_hours(3600.0, 0.0), busy);
    }
}
