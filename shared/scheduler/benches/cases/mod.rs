//! What a decision is timed and counted over.

use sheaf_core::Lane;
use sheaf_scheduler::{Activity, Demand, Machine, Pool, Snapshot, rng::Rng};

/// So many jobs, pools, and machines held.
pub(crate) fn snapshot(jobs: u64, pools: usize, machines: u64) -> Snapshot {
    let mut rng = Rng::new(1);
    let demand = |number| {
        let tasks = 1 + rng.below(500) as u64;
        let task_s = 5.0 + 300.0 * rng.unit();
        Demand {
            job: format!("job {number}"),
            waiting_tasks: tasks,
            running_tasks: tasks / 10,
            waiting_s: tasks as f64 * task_s,
            uncommitted_s: tasks as f64 * task_s * 1.1,
            longest_s: task_s * 2.0,
            deadline_at_s: (number % 2 == 0).then(|| 3600.0 + 36_000.0 * rng.unit()),
            sealed: true,
            ..Demand::default()
        }
    };
    let demands = (0..jobs).map(demand).collect();
    let mut rng = Rng::new(2);
    let pool = |number: usize| Pool {
        machine: format!("type {}", number / 6),
        zone: format!("zone {}", number % 3),
        market: if number.is_multiple_of(2) { Lane::Spot } else { Lane::OnDemand },
        slots: 2 << rng.below(4),
        speed: 0.8 + 0.4 * rng.unit(),
        price_per_hour: (0.05 + 0.4 * rng.unit()) * if number.is_multiple_of(2) { 1.0 } else { 3.0 },
        boot_p95_s: 40.0 + 40.0 * rng.unit(),
        reclaims_per_hour: rng.unit(),
        machines_max: 50,
        ..Pool::default()
    };
    let pools: Vec<Pool> = (0..pools).map(pool).collect();
    let machine = |id| Machine { id, pool: id as usize % pools.len(), activity: Activity::Leased { slots: 1 } };
    Snapshot { machines: (0..machines).map(machine).collect(), demands, pools, now_s: 0.0 }
}
