//! Which lane for work that may run anywhere.

use sheaf_core::Lane;

use crate::policies::held::by_price;
use crate::{Demand, Pool, Snapshot};

/// The longest a Lambda invocation may run: AWS's limit of 15 minutes.
const LAMBDA_TASK_S_MAX: f64 = 900.0;

/// What the choice needs to know, looked up once per decision.
pub(super) struct Lanes {
    /// The cheapest Lambda pool.
    pub(super) pool: Option<usize>,
    lambda: Option<(f64, f64)>,
    machines: Option<Cheapest>,
}

struct Cheapest {
    price_per_work_s: f64,
    /// Dollars to boot one machine of it; none where machines are held already.
    boot_price: f64,
    /// The shortest boot of any pool.
    boot_s: f64,
}

impl Lanes {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        let of = |market| move |pool: &Pool| pool.market == market && pool.machines_max > 0;
        let pool = by_price(snapshot, of(Lane::Lambda)).first().copied();
        let lambda = pool.map(|pool| &snapshot.pools[pool]).map(|pool| (pool.price_per_work_s(), pool.speed));
        let held = snapshot.machines.iter().any(|machine| machine.activity.counts());
        let machine_pools = by_price(snapshot, |pool| pool.market != Lane::Lambda && pool.machines_max > 0);
        let boots = machine_pools.iter().map(|&pool| snapshot.pools[pool].boot_p95_s);
        let boot_s = boots.fold(f64::INFINITY, f64::min);
        let machines = machine_pools.first().map(|&pool| &snapshot.pools[pool]).map(|pool| Cheapest {
            price_per_work_s: pool.price_per_work_s(),
            boot_price: if held { 0.0 } else { pool.boot_p95_s * pool.price_per_hour / 3600.0 },
            boot_s,
        });
        Self { pool, lambda, machines }
    }

    /// The lane for `demand`, and why.
    pub(super) fn choose(&self, demand: &Demand) -> (Lane, String) {
        let Some((lambda_price, speed)) = self.lambda else {
            return (Lane::Spot, "there is no Lambda pool".to_owned());
        };
        let longest_s = demand.longest_s / speed;
        if longest_s > LAMBDA_TASK_S_MAX {
            return (Lane::Spot, format!("its longest task of {longest_s:.0} s is beyond Lambda's 900 s"));
        }
        let Some(machines) = &self.machines else {
            return (Lane::Lambda, "there is no machine pool".to_owned());
        };
        if let Some(latency_s) = demand.latency_s.filter(|latency_s| *latency_s < machines.boot_s) {
            let boot_s = machines.boot_s;
            return (Lane::Lambda, format!("tasks may wait {latency_s:.1} s, a machine boots in {boot_s:.0} s"));
        }
        let on_lambda = demand.uncommitted_s * lambda_price;
        let on_machines = demand.uncommitted_s * machines.price_per_work_s + machines.boot_price;
        if on_lambda < on_machines {
            return (Lane::Lambda, format!("${on_lambda:.6} on Lambda, ${on_machines:.6} with a boot on machines"));
        }
        (Lane::Spot, format!("${on_machines:.6} on machines, ${on_lambda:.6} on Lambda"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes() -> Lanes {
        let spot = Pool { price_per_hour: 0.036, boot_p95_s: 60.0, machines_max: 5, slots: 2, ..Pool::default() };
        // One invocation at a time with 1,769 MB: one vCPU at $0.0000166667 a GB-second.
        let price_per_hour = 1.769 / 1.024 * 0.000_016_666_7 * 3600.0;
        let lambda = Pool { market: Lane::Lambda, price_per_hour, machines_max: 1000, ..Pool::default() };
        Lanes::new(&Snapshot { pools: vec![spot, lambda], ..Snapshot::default() })
    }

    fn demand(work_s: f64, longest_s: f64) -> Demand {
        Demand { uncommitted_s: work_s, longest_s, ..Demand::default() }
    }

    #[test]
    fn a_little_work_is_cheaper_without_a_boot() {
        // A boot costs 60 s × $0.00001; Lambda costs $0.0000288 a second, spot $0.000005: even at 25.2 s.
        assert_eq!(lanes().choose(&demand(25.0, 1.0)).0, Lane::Lambda);
        assert_eq!(lanes().choose(&demand(26.0, 1.0)).0, Lane::Spot);
    }

    #[test]
    fn a_short_wait_needs_lambda_and_a_long_task_cannot_have_it() {
        let hasty = Demand { latency_s: Some(5.0), ..demand(1e6, 10.0) };
        assert_eq!(lanes().choose(&hasty).0, Lane::Lambda);
        assert_eq!(lanes().choose(&Demand { longest_s: 901.0, ..hasty }).0, Lane::Spot);
    }
}
