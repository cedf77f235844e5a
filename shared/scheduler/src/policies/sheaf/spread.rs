//! Over which pools of a market to spread the capacity.
//!
//! Machines are chosen one after another, so that more capacity is always the same machines and some more. Machines of
//! one type and zone vanish together; therefore none of the pools near the cheapest price gets more than its share
//! while another has room.

use sheaf_core::Lane;

use super::width::Width;
use crate::policies::Held;
use crate::policies::held::by_price;
use crate::{Activity, Pool, Settings, Snapshot};

/// How many pools near the cheapest price are weighed against each other at a time.
const NEAR_POOLS_MAX: usize = 16;

pub(super) fn over(
    snapshot: &Snapshot,
    market: Lane,
    held: &mut Held,
    width: &Width,
    settings: &Settings,
    reasons: &mut Vec<String>,
) {
    // A market that is closed to a type may have no price.
    let stable_price = by_price(snapshot, |pool| pool.market == Lane::OnDemand && pool.machines_max > 0)
        .first()
        .map_or(f64::INFINITY, |&pool| snapshot.pools[pool].price_per_work_s());
    let mut pools: Vec<(f64, usize)> = by_price(snapshot, |pool| pool.market == market)
        .into_iter()
        .map(|pool| (price_with_losses(&snapshot.pools[pool], settings), pool))
        .filter(|(_, pool)| market != Lane::Spot || snapshot.pools[*pool].price_per_work_s() < stable_price)
        .collect();
    pools.sort_by(|a, b| a.0.total_cmp(&b.0));
    let rate = |held: &Held, pool: usize| f64::from(held.wanted(pool)) * snapshot.pools[pool].rate();
    let mut total = held.rate(market);
    let before = total;
    let mut started = 0;
    let open = |held: &Held, pool: usize| held.room(pool) > 0;
    // Places in `pools` of the pools being weighed, cheapest first, and the next one to be.
    let mut near: Vec<usize> = Vec::new();
    let mut next = 0;
    // Sums of the same machines in another order differ in their last digits; that is no machine missing.
    let wanted = width.rate * (1.0 - 1e-9);
    while total < wanted {
        near.retain(|&at| open(held, pools[at].1));
        while near.len() < NEAR_POOLS_MAX && next < pools.len() {
            if open(held, pools[next].1) {
                near.push(next);
            }
            next += 1;
        }
        let Some(&first) = near.first() else { break };
        let price_max = pools[first].0 * (1.0 + settings.near_price);
        let candidates = || near.iter().map(|&at| pools[at]).take_while(|(price, _)| *price <= price_max);
        let within = |pool: usize| {
            let machine = snapshot.pools[pool].rate();
            rate(held, pool) + machine <= settings.one_pool_share * (total + machine)
        };
        let least = |a: &(f64, usize), b: &(f64, usize)| rate(held, a.1).total_cmp(&rate(held, b.1));
        let picked = candidates().find(|&(_, pool)| within(pool)).or_else(|| candidates().min_by(least));
        let Some((_, pool)) = picked else { break };
        held.add(pool, 1);
        total += snapshot.pools[pool].rate();
        started += 1;
    }
    if market == Lane::Spot {
        make_room(snapshot, held, width.rate - total);
    }
    if width.rate > 0.0 {
        reasons.push(format!("{market}: {}; {before:.1} are held, {started} machines more", width.because));
        if total < wanted {
            reasons.push(format!(
                "{market}: {:.1} find no pool with room: at their caps or backing off",
                width.rate - total
            ));
        }
    }
}

/// Dollars a work second, with what a reclaim loses: a boot, and half of the work between two checkpoints.
fn price_with_losses(pool: &Pool, settings: &Settings) -> f64 {
    let per_s = pool.reclaims_per_hour / 3600.0;
    let redone_s = crate::checkpoint::young_s(settings.dump_s, pool.reclaims_per_hour).unwrap_or(0.0) / 2.0;
    pool.price_per_work_s() * (1.0 + per_s * (pool.boot_p95_s + redone_s))
}

/// Lets frozen machines go where their places under the cap are needed and the pool starts others: its next wish is
/// then one for a fresh machine. Where launches fail they are kept, since they come back booted.
fn make_room(snapshot: &Snapshot, held: &mut Held, mut missing: f64) {
    let frozen = snapshot.machines.iter().filter(|machine| matches!(machine.activity, Activity::Hibernated { .. }));
    for machine in frozen {
        let Some(pool) = snapshot.pools.get(machine.pool).filter(|pool| pool.market == Lane::Spot) else { continue };
        if missing > 0.0 && pool.failures == 0 && held.places(machine.pool) == 0 {
            held.drain(machine, 0.0);
            missing -= pool.rate();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Machine;

    fn pool(machine: &str, price_per_hour: f64, machines_max: u32) -> Pool {
        Pool { machine: machine.to_owned(), price_per_hour, machines_max, ..Pool::default() }
    }

    fn wants(snapshot: &Snapshot, rate: f64) -> Vec<u32> {
        let mut held = Held::new(snapshot);
        let width = Width { rate, because: String::new() };
        over(snapshot, Lane::Spot, &mut held, &width, &Settings::default(), &mut Vec::new());
        (0..snapshot.pools.len()).map(|pool| held.wanted(pool)).collect()
    }

    #[test]
    fn no_pool_gets_more_than_its_share_while_others_are_near() {
        let pools = vec![pool("a", 1.0, 50), pool("b", 1.1, 50), pool("far", 1.3, 50)];
        let mut snapshot = Snapshot { pools, ..Snapshot::default() };
        assert_eq!(wants(&snapshot, 10.0), [5, 5, 0]);
        snapshot.pools[1].machines_max = 2;
        assert_eq!(wants(&snapshot, 10.0), [8, 2, 0], "none near has room: the cheapest, not the far one");
        snapshot.pools[0].machines_max = 3;
        assert_eq!(wants(&snapshot, 10.0), [3, 2, 5]);
    }

    #[test]
    fn spot_dearer_than_on_demand_and_pools_without_capacity_are_left_out() {
        let mut snapshot = Snapshot { pools: vec![pool("a", 1.0, 50), pool("b", 1.1, 50)], ..Snapshot::default() };
        snapshot.pools.push(Pool { market: Lane::OnDemand, ..pool("c", 1.05, 50) });
        assert_eq!(wants(&snapshot, 4.0), [4, 0, 0]);
        (snapshot.pools[0].failures, snapshot.now_s) = (1, 10.0);
        assert_eq!(wants(&snapshot, 4.0), [0, 0, 0]);
    }

    #[test]
    fn a_market_that_is_closed_is_no_cheaper_one() {
        let mut snapshot = Snapshot { pools: vec![pool("a", 1.0, 50)], ..Snapshot::default() };
        snapshot.pools.push(Pool { market: Lane::OnDemand, ..pool("a", 0.0, 0) });
        assert_eq!(wants(&snapshot, 4.0), [4, 0]);
    }

    #[test]
    fn frozen_machines_make_room_only_where_others_start() {
        let machine = Machine { id: 7, pool: 0, activity: Activity::Hibernated { since_s: 0.0 } };
        let mut snapshot = Snapshot { pools: vec![pool("a", 1.0, 1)], machines: vec![machine], ..Snapshot::default() };
        let drains = |snapshot: &Snapshot| {
            let mut held = Held::new(snapshot);
            over(
                snapshot,
                Lane::Spot,
                &mut held,
                &Width { rate: 1.0, because: String::new() },
                &Settings::default(),
                &mut vec![],
            );
            held.answer().1.len()
        };
        assert_eq!(drains(&snapshot), 1);
        snapshot.pools[0].failures = 1;
        assert_eq!(drains(&snapshot), 0);
    }
}
