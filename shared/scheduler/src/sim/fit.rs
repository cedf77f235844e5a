//! More spot traces of the kind of one: up and down times per zone, and shocks that hit several zones together.
//!
//! From a trace, each zone's mean time up and down is taken. Outages that begin in at least half of the zones within
//! [`SHOCK_WINDOW_S`] of one another count as a common shock; the others are the zone's own. Times are drawn
//! exponentially, which a trace of a few days cannot contradict.

use serde::{Deserialize, Serialize};

use crate::formats::spot::Outage;
use crate::rng::Rng;

/// Outages that begin this close together are one shock.
pub const SHOCK_WINDOW_S: f64 = 60.0;

/// What a trace was fitted to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fitted {
    /// Each zone: its name, outages of its own per second, and mean seconds of an outage.
    pub zones: Vec<(String, f64, f64)>,
    /// Common shocks per second.
    pub shocks_per_s: f64,
    /// Share of the zones a shock hits.
    pub shock_share: f64,
}

impl Fitted {
    /// Fits `outages`, seen over `length_s`. None when there is nothing to fit.
    pub fn of(outages: &[Outage], length_s: f64) -> Option<Self> {
        let mut names: Vec<&str> = outages.iter().map(|outage| outage.zone.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() || length_s.is_nan() || length_s <= 0.0 {
            return None;
        }
        let shocks = shocks(outages, names.len());
        let own = |outage: &&Outage| !shocks.iter().any(|(at_s, _)| near(*at_s, outage));
        let zones = names.iter().map(|name| {
            let of_zone = || outages.iter().filter(|outage| outage.zone == *name);
            let down_s = |outage: &Outage| outage.up_s.min(length_s) - outage.down_s;
            let mean_s = of_zone().map(down_s).sum::<f64>() / of_zone().count().max(1) as f64;
            let up_s = length_s - of_zone().map(down_s).sum::<f64>();
            ((*name).to_owned(), of_zone().filter(own).count() as f64 / up_s.max(1.0), mean_s)
        });
        let hit: usize = shocks.iter().map(|(_, zones)| zones).sum();
        Some(Self {
            zones: zones.collect(),
            shocks_per_s: shocks.len() as f64 / length_s,
            shock_share: hit as f64 / (shocks.len() * names.len()).max(1) as f64,
        })
    }

    /// A trace of `length_s` from `seed`.
    pub fn generate(&self, seed: u64, length_s: f64) -> Vec<Outage> {
        let mut rng = Rng::stream(seed, "shocks", 0);
        let mut shocks = Vec::new();
        let mut at_s = rng.exponential(self.shocks_per_s);
        while at_s < length_s {
            shocks.push(at_s);
            at_s += rng.exponential(self.shocks_per_s);
        }
        let mut outages = Vec::new();
        for (number, (zone, per_s, down_s)) in self.zones.iter().enumerate() {
            let mut rng = Rng::stream(seed, "zone", number as u64);
            let hits: Vec<f64> = shocks.iter().copied().filter(|_| rng.unit() < self.shock_share).collect();
            let mut at_s = 0.0;
            loop {
                let own_s = at_s + rng.exponential(*per_s);
                let shock_s = hits.iter().copied().find(|shock| *shock > at_s).unwrap_or(f64::INFINITY);
                let begins_s = own_s.min(shock_s);
                if begins_s >= length_s {
                    break;
                }
                let up_s = begins_s + rng.exponential(1.0 / down_s.max(1.0)).max(1.0);
                outages.push(Outage { zone: zone.clone(), down_s: begins_s, up_s });
                at_s = up_s;
            }
        }
        outages
    }
}

fn near(at_s: f64, outage: &Outage) -> bool {
    (at_s..=at_s + SHOCK_WINDOW_S).contains(&outage.down_s)
}

/// When shocks began, and how many zones each hit.
fn shocks(outages: &[Outage], zones: usize) -> Vec<(f64, usize)> {
    let mut starts: Vec<f64> = outages.iter().map(|outage| outage.down_s).collect();
    starts.sort_by(f64::total_cmp);
    let mut shocks: Vec<(f64, usize)> = Vec::new();
    for at_s in starts {
        let later = shocks.last().is_none_or(|(before, _)| at_s > before + SHOCK_WINDOW_S);
        let mut hit: Vec<&str> = outages.iter().filter(|outage| near(at_s, outage)).map(|o| o.zone.as_str()).collect();
        hit.sort_unstable();
        hit.dedup();
        if later && zones > 1 && hit.len() * 2 >= zones && hit.len() > 1 {
            shocks.push((at_s, hit.len()));
        }
    }
    shocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_generated_fits_to_the_same() {
        let model = Fitted {
            zones: vec![("a".to_owned(), 1e-3, 100.0), ("b".to_owned(), 5e-4, 300.0)],
            shocks_per_s: 2e-4,
            shock_share: 1.0,
        };
        let trace = model.generate(5, 2e6);
        assert_eq!(trace, model.generate(5, 2e6));
        let fitted = Fitted::of(&trace, 2e6).unwrap();
        let close = |a: f64, b: f64| (a / b - 1.0).abs() < 0.3;
        assert!(close(fitted.zones[0].2, 100.0) && close(fitted.zones[1].2, 300.0), "{fitted:?}");
        assert!(close(fitted.zones[0].1, 1e-3) && close(fitted.shocks_per_s, 2e-4), "{fitted:?}");
        assert_eq!(Fitted::of(&[], 100.0), None);
    }
}
