//! How long `sheaf` takes to decide about 10,000 jobs and 1,000 pools: `cargo bench -p sheaf-scheduler`.

use std::time::Instant;

use sheaf_core::Lane;
use sheaf_scheduler::rng::Rng;
use sheaf_scheduler::{Activity, Demand, Machine, Memory, PolicyName, Pool, Settings, Snapshot};

fn main() {
    let snapshot = snapshot(10_000, 1_000, 5_000);
    let policy = Settings::default().policy(PolicyName::Sheaf);
    let mut times: Vec<f64> = (0..20)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(policy.decide(std::hint::black_box(&snapshot), &mut Memory::default()));
            start.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let decision = policy.decide(&snapshot, &mut Memory::default());
    let machines: u32 = decision.wants.iter().map(|want| want.machines).sum();
    println!(
        "10,000 jobs × 1,000 pools, 5,000 machines held, {machines} wanted: median {:.2} ms, most {:.2} ms",
        times[10], times[19]
    );
    decision.reasons.iter().for_each(|reason| println!("  {reason}"));
}

fn snapshot(jobs: u64, pools: usize, machines: u64) -> Snapshot {
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
