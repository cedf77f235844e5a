//! When machines are taken away: the scheduler's fault model, as it is met by machines that are started one by one.

use sheaf_core::Lane;
use sheaf_scheduler::sim::{faults::Faults, fleet::PoolSpec};

/// The faults of a run.
#[derive(Debug)]
pub(crate) struct Fates {
    faults: Faults,
    seed: u64,
    /// Times without capacity, by pool: none for those that cannot be taken away.
    outages: Vec<Vec<(f64, f64)>>,
    launched: Vec<u64>,
}

impl Fates {
    pub(crate) fn new(faults: Faults, seed: u64, pools: &[PoolSpec], until_s: f64) -> Self {
        let mut types: Vec<&str> = Vec::new();
        let outages = pools.iter().map(|spec| {
            let pool = &spec.pool;
            // Pools of one type go down together, whatever their market; only spot machines notice.
            let group = types.iter().position(|of| *of == pool.machine).unwrap_or_else(|| {
                types.push(&pool.machine);
                types.len() - 1
            });
            if pool.market == Lane::Spot {
                faults.outages(seed, group, &pool.zone, &pool.machine, until_s)
            } else {
                Vec::new()
            }
        });
        let outages = outages.collect();
        Self { launched: vec![0; pools.len()], faults, seed, outages }
    }

    /// When a machine of a pool that is started now is taken away, infinite for never; none if there is no capacity now.
    pub(crate) fn launch(&mut self, pool: usize, market: Lane, now_s: f64) -> Option<f64> {
        let outages = &self.outages[pool];
        if outages.iter().any(|(down_s, up_s)| (*down_s..*up_s).contains(&now_s)) {
            return None;
        }
        let together_s = outages.iter().map(|(down_s, _)| *down_s).find(|down_s| *down_s >= now_s);
        let clock = self.faults.clock(self.seed, pool, self.launched[pool]).filter(|_| market == Lane::Spot);
        self.launched[pool] += 1;
        let alone_s = clock.map(|mut clock| now_s + clock.fails_after_s());
        Some(together_s.unwrap_or(f64::INFINITY).min(alone_s.unwrap_or(f64::INFINITY)))
    }
}

#[cfg(test)]
mod tests {
    use sheaf_scheduler::{Pool, formats::spot::Outage, sim::faults::FaultMode};

    use super::*;

    fn pools() -> Vec<PoolSpec> {
        let of = |market| PoolSpec {
            pool: Pool { machine: "m".to_owned(), market, ..Pool::default() },
            kind: 0,
            boot_s: 0.0,
            memory_mb: 0.0,
            burstable: None,
        };
        vec![of(Lane::Spot), of(Lane::OnDemand)]
    }

    #[test]
    fn an_outage_takes_spot_machines_and_refuses_new_ones() {
        let faults = Faults::Trace(vec![Outage { zone: "m".to_owned(), down_s: 10.0, up_s: 20.0 }]);
        let mut fates = Fates::new(faults, 1, &pools(), 100.0);
        assert_eq!(fates.launch(0, Lane::Spot, 0.0), Some(10.0));
        assert_eq!(fates.launch(0, Lane::Spot, 15.0), None);
        assert_eq!(fates.launch(0, Lane::Spot, 20.0), Some(f64::INFINITY));
        assert_eq!(fates.launch(1, Lane::OnDemand, 15.0), Some(f64::INFINITY));
    }

    #[test]
    fn each_machine_has_a_fate_of_its_own_and_the_seed_decides() {
        let fates = || Fates::new(Faults::expected((5.0, 0.0), 1_000.0, FaultMode::Each), 7, &pools(), 1_000.0);
        let (mut one, mut other) = (fates(), fates());
        let first = one.launch(0, Lane::Spot, 0.0).expect("there is capacity");
        assert_eq!(other.launch(0, Lane::Spot, 0.0), Some(first));
        assert!(first.is_finite() && one.launch(0, Lane::Spot, 0.0) != Some(first));
        assert_eq!(one.launch(1, Lane::OnDemand, 0.0), Some(f64::INFINITY));
    }
}
