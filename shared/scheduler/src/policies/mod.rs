//! The policies that only say how many machines: `fixed`, the elastic-worker rules, and `sheaf`.
//!
//! The bag schedulers, which also say which task goes where, are in [`crate::hads`].

mod elastic;
mod fixed;
mod held;
pub mod sheaf;

pub use elastic::Elastic;
pub use fixed::Fixed;
pub use held::{Held, backing_off};
pub use sheaf::Sheaf;

use crate::{Policy, PolicyName, Settings, hads};

/// The policy called `name`, told `settings`.
pub fn named(name: PolicyName, settings: &Settings) -> Box<dyn Policy + Send + Sync> {
    let settings = settings.clone();
    match name {
        PolicyName::Fixed => Box::new(Fixed { settings }),
        PolicyName::MinimizeWorkers
        | PolicyName::GracePeriod
        | PolicyName::Queue
        | PolicyName::Reserve
        | PolicyName::AdaptiveGrace => Box::new(Elastic { rule: name, settings }),
        PolicyName::HadsCc | PolicyName::BurstHads => Box::new(hads::Capacity { name, settings }),
        PolicyName::Sheaf => Box::new(Sheaf { settings }),
    }
}

/// Reclaims an hour and machine, from our own machines: `reclaims` in `machine_hours`, and a prior that stands for
/// `prior_hours` of machine time at `prior_per_hour`. The mean of the gamma posterior, so that a pool that was hardly
/// used is neither trusted nor feared, and one that is used much is judged by what it did.
pub fn measured_rate(reclaims: u64, machine_hours: f64, prior_per_hour: f64, prior_hours: f64) -> f64 {
    let hours = machine_hours + prior_hours;
    if hours > 0.0 { (reclaims as f64 + prior_per_hour * prior_hours) / hours } else { prior_per_hour }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_starts_at_the_prior_and_follows_what_happens() {
        assert_eq!(measured_rate(0, 0.0, 1.0, 0.5), 1.0);
        assert_eq!(measured_rate(3, 1.5, 1.0, 0.5), 1.75);
        assert!(measured_rate(0, 100.0, 1.0, 0.5) < 0.01);
    }

    #[test]
    fn every_name_has_its_policy() {
        for &name in PolicyName::ALL {
            assert_eq!(Settings::default().policy(name).name(), name);
            assert_eq!(name.as_str().parse(), Ok(name));
        }
        let unknown = "greedy".parse::<PolicyName>().unwrap_err().to_string();
        assert!(unknown.contains("`greedy`") && unknown.contains("burst-hads"), "{unknown}");
    }
}
