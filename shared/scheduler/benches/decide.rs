//! How long `sheaf` takes to decide about 10,000 jobs and 1,000 pools: `cargo bench -p sheaf-scheduler`.

mod cases;

use std::time::Instant;

use sheaf_scheduler::{Memory, PolicyName, Settings};

fn main() {
    let snapshot = cases::snapshot(10_000, 1_000, 5_000);
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
