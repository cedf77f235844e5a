//! When spot machines freeze or vanish, and when they come back.

use serde::{Deserialize, Serialize};

use crate::formats::spot::Outage;
use crate::rng::Rng;

/// What a fault does to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// It freezes, costs nothing, and may come back, booted and empty.
    Hibernate,
    /// It is gone.
    Terminate,
}

/// Whom a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultMode {
    /// All machines of a type at once; until they come back, no other can be started.
    Together,
    /// Each machine on its own; others can be started.
    Each,
}

/// Poisson processes: faults at `faults / horizon_s`, returns at `resumes / horizon_s`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Poisson {
    /// k_h: faults expected in the horizon.
    pub faults: f64,
    /// k_r: returns expected in the horizon; 0 for machines that do not come back.
    pub resumes: f64,
    /// The horizon: for a bag, its deadline.
    pub horizon_s: f64,
    /// Whom a fault hits.
    pub mode: FaultMode,
}

/// Where faults come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Faults {
    /// Nowhere.
    None,
    /// Poisson processes.
    Poisson(Poisson),
    /// A spot trace: the outages of zones or machine types.
    Trace(Vec<Outage>),
}

/// Outages of one group drawn or read ahead: at most this many. No run lasts through them.
const OUTAGES_MAX: usize = 10_000;

impl Faults {
    /// Poisson processes with so many faults and returns expected within `horizon_s`; none for no faults.
    pub fn expected((faults, resumes): (f64, f64), horizon_s: f64, mode: FaultMode) -> Self {
        if faults > 0.0 { Self::Poisson(Poisson { faults, resumes, horizon_s, mode }) } else { Self::None }
    }

    /// The outages of the group of machines called `zone` or `machine`, number `group`, over `until_s`: from when to when there
    /// is none.
    pub fn outages(&self, seed: u64, group: usize, zone: &str, machine: &str, until_s: f64) -> Vec<(f64, f64)> {
        match self {
            Self::Poisson(poisson) if poisson.mode == FaultMode::Together => {
                let mut rng = Rng::stream(seed, "outages", group as u64);
                let mut outages = Vec::new();
                let mut at_s = 0.0;
                while outages.len() < OUTAGES_MAX {
                    let down_s = at_s + rng.exponential(poisson.faults / poisson.horizon_s);
                    let up_s = down_s + rng.exponential(poisson.resumes / poisson.horizon_s);
                    if down_s >= until_s {
                        break;
                    }
                    outages.push((down_s, up_s));
                    at_s = up_s;
                }
                outages
            }
            Self::Trace(outages) => {
                let ours = outages.iter().filter(|outage| outage.zone == zone || outage.zone == machine);
                ours.filter(|outage| outage.down_s < until_s).map(|outage| (outage.down_s, outage.up_s)).collect()
            }
            Self::None | Self::Poisson(_) => Vec::new(),
        }
    }

    /// The clock of one machine, the `ordinal`th of `pool`, if machines fail each on their own.
    pub fn clock(&self, seed: u64, pool: usize, ordinal: u64) -> Option<MachineClock> {
        match self {
            Self::Poisson(poisson) if poisson.mode == FaultMode::Each => {
                let rng = Rng::stream(seed, "machine", ((pool as u64) << 32) | ordinal);
                Some(MachineClock { rng, poisson: *poisson })
            }
            Self::None | Self::Trace(_) | Self::Poisson(_) => None,
        }
    }
}

/// When one machine fails and comes back.
#[derive(Debug, Clone)]
pub struct MachineClock {
    rng: Rng,
    poisson: Poisson,
}

impl MachineClock {
    /// Seconds until it fails.
    pub fn fails_after_s(&mut self) -> f64 {
        self.rng.exponential(self.poisson.faults / self.poisson.horizon_s)
    }

    /// Seconds until it comes back.
    pub fn resumes_after_s(&mut self) -> f64 {
        self.rng.exponential(self.poisson.resumes / self.poisson.horizon_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poisson(mode: FaultMode, resumes: f64) -> Faults {
        Faults::Poisson(Poisson { faults: 5.0, resumes, horizon_s: 1000.0, mode })
    }

    #[test]
    fn outages_have_their_rate_and_do_not_overlap() {
        let outages = poisson(FaultMode::Together, 5.0).outages(3, 0, "z", "m", 1e6);
        // Up 200 s and down 200 s on average: 2,500 in a million seconds.
        assert!((2300..2700).contains(&outages.len()), "{}", outages.len());
        assert!(outages.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        let forever = poisson(FaultMode::Together, 0.0).outages(3, 0, "z", "m", 1e6);
        assert_eq!((forever.len(), forever[0].1), (1, f64::INFINITY));
    }

    #[test]
    fn a_seed_decides_and_machines_have_clocks_of_their_own() {
        let faults = poisson(FaultMode::Each, 1.0);
        assert!(faults.outages(3, 0, "z", "m", 1e6).is_empty());
        let first = |pool, ordinal| faults.clock(3, pool, ordinal).unwrap().fails_after_s();
        assert_eq!(first(0, 0), first(0, 0));
        assert_ne!(first(0, 0), first(0, 1));
        assert_ne!(first(0, 0), first(1, 0));
        assert!(poisson(FaultMode::Together, 1.0).clock(3, 0, 0).is_none());
    }

    #[test]
    fn a_trace_is_found_by_zone_or_type() {
        let outage = Outage { zone: "us-east-1a".to_owned(), down_s: 5.0, up_s: 9.0 };
        let faults = Faults::Trace(vec![outage]);
        assert_eq!(faults.outages(1, 0, "us-east-1a", "m", 100.0), [(5.0, 9.0)]);
        assert!(faults.outages(1, 0, "us-east-1b", "m", 100.0).is_empty());
    }
}
