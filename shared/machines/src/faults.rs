//! When machines are taken away: the scheduler's fault model, as it is met by machines that are started one by one.

use sheaf_core::Lane;
use sheaf_scheduler::sim::{
    faults::{Faults, MachineClock},
    fleet::PoolSpec,
};

/// The faults of a run.
#[derive(Debug)]
pub(crate) struct Fates {
    faults: Faults,
    seed: u64,
    /// Times without capacity, by pool: none for those that cannot be taken away.
    outages: Vec<Vec<(f64, f64)>>,
    launched: Vec<u64>,
}

/// What becomes of one machine.
#[derive(Debug, Clone)]
pub(crate) struct Fate {
    /// When it is taken away next; infinite for never.
    pub(crate) fails_s: f64,
    /// If it has one of its own.
    clock: Option<MachineClock>,
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

    /// What becomes of a machine of a pool that is started now; none if there is no capacity now.
    pub(crate) fn launch(&mut self, pool: usize, market: Lane, now_s: f64) -> Option<Fate> {
        if self.outages[pool].iter().any(|(down_s, up_s)| (*down_s..*up_s).contains(&now_s)) {
            return None;
        }
        let clock = self.faults.clock(self.seed, pool, self.launched[pool]).filter(|_| market == Lane::Spot);
        self.launched[pool] += 1;
        let mut fate = Fate { fails_s: f64::INFINITY, clock };
        self.again(pool, &mut fate, now_s);
        Some(fate)
    }

    /// When a machine that has failed now comes back, infinite for never.
    pub(crate) fn resumes_s(&self, pool: usize, fate: &mut Fate, now_s: f64) -> f64 {
        match &mut fate.clock {
            Some(clock) => now_s + clock.resumes_after_s(),
            None => {
                let of_fate = self.outages[pool].iter().find(|(down_s, _)| *down_s == fate.fails_s);
                of_fate.map_or(f64::INFINITY, |(_, up_s)| *up_s)
            }
        }
    }

    /// A machine is there from now on: its fate begins anew.
    pub(crate) fn again(&self, pool: usize, fate: &mut Fate, now_s: f64) {
        let together_s = self.outages[pool].iter().map(|(down_s, _)| *down_s).find(|down_s| *down_s >= now_s);
        let alone_s = fate.clock.as_mut().map(|clock| now_s + clock.fails_after_s());
        fate.fails_s = together_s.unwrap_or(f64::INFINITY).min(alone_s.unwrap_or(f64::INFINITY));
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
        let mut fails_s = |pool, market, now_s| fates.launch(pool, market, now_s).map(|fate| fate.fails_s);
        assert_eq!(fails_s(0, Lane::Spot, 0.0), Some(10.0));
        assert_eq!(fails_s(0, Lane::Spot, 15.0), None);
        assert_eq!(fails_s(0, Lane::Spot, 20.0), Some(f64::INFINITY));
        assert_eq!(fails_s(1, Lane::OnDemand, 15.0), Some(f64::INFINITY));
    }

    #[test]
    fn a_frozen_machine_comes_back_when_its_outage_ends_and_meets_the_next() {
        let outage = |down_s, up_s| Outage { zone: "m".to_owned(), down_s, up_s };
        let faults = Faults::Trace(vec![outage(10.0, 20.0), outage(30.0, f64::INFINITY)]);
        let mut fates = Fates::new(faults, 1, &pools(), 100.0);
        let mut fate = fates.launch(0, Lane::Spot, 0.0).expect("there is capacity");
        // It is found out a little late.
        assert_eq!(fates.resumes_s(0, &mut fate, 10.5), 20.0);
        fates.again(0, &mut fate, 20.5);
        assert_eq!((fate.fails_s, fates.resumes_s(0, &mut fate, 30.1)), (30.0, f64::INFINITY));
    }

    #[test]
    fn a_machine_with_a_clock_of_its_own_comes_back_by_it() {
        let each = |resumes| Faults::expected((5.0, resumes), 1_000.0, FaultMode::Each);
        let mut fates = Fates::new(each(5.0), 7, &pools(), 1_000.0);
        let mut fate = fates.launch(0, Lane::Spot, 0.0).expect("there is capacity");
        let (failed_s, resumes_s) = (fate.fails_s, fates.resumes_s(0, &mut fate.clone(), 100.0));
        assert!(resumes_s > 100.0 && resumes_s.is_finite());
        assert_eq!(fates.resumes_s(0, &mut fate, 100.0), resumes_s);
        fates.again(0, &mut fate, resumes_s);
        assert!(fate.fails_s > resumes_s && fate.fails_s != failed_s);
        let mut fates = Fates::new(each(0.0), 7, &pools(), 1_000.0);
        let mut fate = fates.launch(0, Lane::Spot, 0.0).expect("there is capacity");
        assert_eq!(fates.resumes_s(0, &mut fate, 100.0), f64::INFINITY);
    }

    #[test]
    fn each_machine_has_a_fate_of_its_own_and_the_seed_decides() {
        let fates = || Fates::new(Faults::expected((5.0, 0.0), 1_000.0, FaultMode::Each), 7, &pools(), 1_000.0);
        let (mut one, mut other) = (fates(), fates());
        let fails_s = |fates: &mut Fates, pool, market| fates.launch(pool, market, 0.0).map(|fate| fate.fails_s);
        let first = fails_s(&mut one, 0, Lane::Spot).expect("there is capacity");
        assert_eq!(fails_s(&mut other, 0, Lane::Spot), Some(first));
        assert!(first.is_finite() && fails_s(&mut one, 0, Lane::Spot) != Some(first));
        assert_eq!(fails_s(&mut one, 1, Lane::OnDemand), Some(f64::INFINITY));
    }
}
