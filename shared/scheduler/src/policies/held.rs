//! What is held of each pool, and how a policy adds to it and takes from it without breaking the contract.

use sheaf_core::Lane;

use crate::{Activity, Drain, Machine, Pool, Snapshot, Want};

/// The first wait after a failed launch, doubled by each one after it.
const BACK_OFF_S: f64 = 15.0;
/// The longest wait after failed launches.
const BACK_OFF_S_MAX: f64 = 600.0;

/// True while a pool without capacity should be left alone: 15 s after the first failed launch, twice as long after
/// each further one, ten minutes at most.
pub fn backing_off(pool: &Pool, now_s: f64) -> bool {
    let wait_s = BACK_OFF_S * 2f64.powi(pool.failures.saturating_sub(1).min(16) as i32);
    pool.failures > 0 && now_s < pool.failed_at_s + wait_s.min(BACK_OFF_S_MAX)
}

/// The machines of a snapshot counted by pool, and the wants that grow from them.
#[derive(Debug, Clone)]
pub struct Held<'a> {
    snapshot: &'a Snapshot,
    /// Machines wanted per pool: at first those that count.
    wants: Vec<u32>,
    /// Machines per pool that hold a place under the cap without counting.
    others: Vec<u32>,
    drains: Vec<Drain>,
}

impl<'a> Held<'a> {
    /// Counts the machines of `snapshot`. A machine of a pool that is not listed is left alone.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let mut wants = vec![0; snapshot.pools.len()];
        let mut others = wants.clone();
        for machine in &snapshot.machines {
            let counts = if machine.activity.counts() { &mut wants } else { &mut others };
            if let Some(count) = counts.get_mut(machine.pool) {
                *count += 1;
            }
        }
        Self { snapshot, wants, others, drains: Vec::new() }
    }

    /// Machines wanted of `pool` so far.
    pub fn wanted(&self, pool: usize) -> u32 {
        self.wants[pool]
    }

    /// Work seconds a second of the machines wanted of a market so far.
    pub fn rate(&self, market: Lane) -> f64 {
        let pools = self.snapshot.pools.iter().zip(&self.wants).filter(|(pool, _)| pool.market == market);
        pools.map(|(pool, &count)| f64::from(count) * pool.rate()).sum()
    }

    /// Machines wanted so far, Lambda apart.
    pub fn workers(&self) -> u32 {
        let pools = self.snapshot.pools.iter().zip(&self.wants);
        pools.filter(|(pool, _)| pool.market != Lane::Lambda).map(|(_, count)| count).sum()
    }

    /// Machines that can be added to `pool`: none while it is backing off.
    pub fn room(&self, pool: usize) -> u32 {
        if backing_off(&self.snapshot.pools[pool], self.snapshot.now_s) { 0 } else { self.places(pool) }
    }

    /// Places left under the cap of `pool`.
    pub fn places(&self, pool: usize) -> u32 {
        self.snapshot.pools[pool].machines_max.saturating_sub(self.wants[pool] + self.others[pool])
    }

    /// Wants `count` machines more of `pool`, no more than there is room for. How many it were.
    pub fn add(&mut self, pool: usize, count: u32) -> u32 {
        let added = count.min(self.room(pool));
        self.wants[pool] += added;
        added
    }

    /// Wants `count` workers more, from the cheapest pools with room. How many it were.
    pub fn add_workers(&mut self, count: u32) -> u32 {
        let mut left = count;
        for pool in by_price(self.snapshot, |pool| pool.market != Lane::Lambda) {
            left -= self.add(pool, left);
            if left == 0 {
                break;
            }
        }
        count - left
    }

    /// The idle machines, longest idle first.
    pub fn idle(&self) -> Vec<(&'a Machine, f64)> {
        let mut idle: Vec<_> = self
            .snapshot
            .machines
            .iter()
            .filter_map(|machine| match machine.activity {
                Activity::Idle { since_s } if machine.pool < self.wants.len() => {
                    Some((machine, self.snapshot.now_s - since_s))
                }
                _ => None,
            })
            .collect();
        idle.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.id.cmp(&b.0.id)));
        idle
    }

    /// Ends `machine`; one that holds leases is given twice `grace_s` for them.
    pub fn drain(&mut self, machine: &Machine, grace_s: f64) {
        let give_s = match machine.activity {
            Activity::Leased { .. } | Activity::Draining { .. } => 2.0 * grace_s,
            Activity::Booting { .. } | Activity::Idle { .. } | Activity::Hibernated { .. } => 0.0,
        };
        if machine.activity.counts() {
            self.wants[machine.pool] = self.wants[machine.pool].saturating_sub(1);
            self.others[machine.pool] += 1;
        }
        self.drains.push(Drain { machine: machine.id, give_s });
    }

    /// The wants, pools that want nothing left out and none above its cap, and the drains.
    pub fn answer(self) -> (Vec<Want>, Vec<Drain>) {
        let wants = self.wants.iter().zip(&self.snapshot.pools).enumerate();
        let wants = wants.map(|(pool, (count, of))| Want { pool, machines: (*count).min(of.machines_max) });
        (wants.filter(|want| want.machines > 0).collect(), self.drains)
    }
}

/// The pools that `take` picks, cheapest work first; ties in the order they are listed.
pub(crate) fn by_price(snapshot: &Snapshot, take: impl Fn(&Pool) -> bool) -> Vec<usize> {
    let usable = |pool: &Pool| pool.rate() > 0.0 && take(pool);
    let mut pools: Vec<usize> = (0..snapshot.pools.len()).filter(|&i| usable(&snapshot.pools[i])).collect();
    pools.sort_by(|&a, &b| snapshot.pools[a].price_per_work_s().total_cmp(&snapshot.pools[b].price_per_work_s()));
    pools
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_without_capacity_is_left_alone_for_longer_and_longer() {
        let mut pool = Pool { failures: 1, failed_at_s: 100.0, ..Pool::default() };
        assert!(backing_off(&pool, 114.0) && !backing_off(&pool, 115.0));
        pool.failures = 3;
        assert!(backing_off(&pool, 159.0) && !backing_off(&pool, 160.0));
        pool.failures = 60;
        assert!(backing_off(&pool, 699.0) && !backing_off(&pool, 700.0));
        pool.failures = 0;
        assert!(!backing_off(&pool, 100.0));
    }

    #[test]
    fn frozen_and_ending_machines_hold_their_place_under_the_cap() {
        let pools = vec![Pool { machines_max: 4, ..Pool::default() }];
        let machine = |id, activity| Machine { id, pool: 0, activity };
        let machines = vec![
            machine(1, Activity::Hibernated { since_s: 0.0 }),
            machine(2, Activity::Draining { slots: 1 }),
            machine(3, Activity::Leased { slots: 1 }),
        ];
        let snapshot = Snapshot { pools, machines, ..Snapshot::default() };
        let mut held = Held::new(&snapshot);
        assert_eq!(held.add_workers(10), 1);
        assert_eq!(held.answer().0, [Want { pool: 0, machines: 2 }]);
    }
}
