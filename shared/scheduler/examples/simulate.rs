//! The published bags under the schedulers of the papers and ours, and a stream of requests on elastic workers.
//!
//! `cargo run --release -p sheaf-scheduler --example simulate -- bags [seeds [bag-seed [terminate]]]`
//! `cargo run --release -p sheaf-scheduler --example simulate -- stream trace.csv`

use sheaf_scheduler::PolicyName;
use sheaf_scheduler::formats::arrivals;
use sheaf_scheduler::hads::Bag;
use sheaf_scheduler::sim::elastic::StreamRun;
use sheaf_scheduler::sim::faults::FaultKind;
use sheaf_scheduler::sim::published::{self, BAGS, PUBLISHED_SHARES};
use sheaf_scheduler::simulate::{self, BagRow, BagSimulation};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("stream") => match arguments.get(1) {
            Some(path) => stream(&std::fs::read_to_string(path)?),
            None => Err("which trace? delay,item,bitrate,speed and, where it was measured, service_s".into()),
        },
        _ => {
            let number = |at: usize, default: u64| arguments.get(at).map_or(Ok(default), |text| text.parse());
            let kind = arguments.get(3).map_or(FaultKind::Hibernate, |_| FaultKind::Terminate);
            bags(number(1, 30)?, number(2, 1)?, kind)
        }
    }
}

fn bags(seeds: u64, bag_seed: u64, kind: FaultKind) -> Result<(), Box<dyn std::error::Error>> {
    let bags = BAGS.iter().map(|of| published::bag(of, bag_seed)).collect::<Result<Vec<Bag>, _>>()?;
    let simulation = BagSimulation { seeds, kind, ..BagSimulation::default() };
    let rows = simulate::bags(&bags, &simulation)?;
    println!(
        "job    mode      (kh,kr)    policy       cost $  of o-d  makespan     max  reclaims  wasted s  spot   o-d  misses"
    );
    for row in &rows {
        let policy = row.policy.map_or("on-demand", PolicyName::as_str);
        println!(
            "{:6} {:9} ({},{}){:4} {policy:11} {:7.4} {:6.1}% {:8.0} {:8.0} {:8.1} {:9.0} {:6.1} {:5.1} {:6}",
            row.job,
            format!("{:?}", row.mode),
            row.scenario.0,
            row.scenario.1,
            "",
            row.cost,
            100.0 * row.of_on_demand,
            row.makespan_s,
            row.makespan_max_s,
            row.reclaims,
            row.wasted_s,
            row.machines.0,
            row.machines.1,
            row.misses
        );
    }
    summary(&rows, &simulation);
    Ok(())
}

fn summary(rows: &[BagRow], simulation: &BagSimulation) {
    println!("\nmeans over cells (of on-demand, all 24 | the 20 with faults), misses:");
    for mode in &simulation.modes {
        for policy in &simulation.policies {
            let cells: Vec<&BagRow> = rows.iter().filter(|r| r.policy == Some(*policy) && r.mode == *mode).collect();
            let mean = |of: &dyn Fn(&&&BagRow) -> bool| {
                let shares: Vec<f64> = cells.iter().filter(of).map(|row| row.of_on_demand).collect();
                100.0 * shares.iter().sum::<f64>() / shares.len().max(1) as f64
            };
            let misses: u64 = cells.iter().map(|row| row.misses).sum();
            println!(
                "  {:9} {:11} {:5.1} % | {:5.1} %  misses {misses}",
                format!("{mode:?}"),
                policy.as_str(),
                mean(&|_| true),
                mean(&|row| row.scenario.0 > 0.0)
            );
        }
    }
    println!("  published: HADS {:.1} %, Burst-HADS {:.1} %", 100.0 * PUBLISHED_SHARES.0, 100.0 * PUBLISHED_SHARES.1);
    println!("\nwithout hibernation, published ($/s) | here:");
    for of in &BAGS {
        let here = |policy: Option<PolicyName>| {
            let row = rows.iter().find(|r| r.job == of.name && r.policy == policy && r.scenario == (0.0, 0.0));
            row.map_or(String::new(), |row| format!("{:.3}/{:.0}", row.cost, row.makespan_s))
        };
        println!(
            "  {:6} HADS {:.3}/{:.0} | {}   Burst {:.3}/{:.0} | {}   on-demand {:.3}/{:.0} | {}   sheaf {}",
            of.name,
            of.hads.0,
            of.hads.1,
            here(Some(PolicyName::HadsCc)),
            of.burst_hads.0,
            of.burst_hads.1,
            here(Some(PolicyName::BurstHads)),
            of.on_demand.0,
            of.on_demand.1,
            here(None),
            here(Some(PolicyName::Sheaf))
        );
    }
    println!("\ncells where sheaf is dearer than hads-cc by more than 5 %:");
    for row in rows.iter().filter(|row| row.policy == Some(PolicyName::Sheaf)) {
        let same = |other: &&BagRow| {
            other.policy == Some(PolicyName::HadsCc)
                && (&other.job, other.mode, other.scenario) == (&row.job, row.mode, row.scenario)
        };
        if let Some(hads) = rows.iter().find(same).filter(|hads| row.cost > 1.05 * hads.cost) {
            println!(
                "  {} {:?} {:?}: {:.4} against {:.4}, {:+.1} %",
                row.job,
                row.mode,
                row.scenario,
                row.cost,
                hads.cost,
                100.0 * (row.cost / hads.cost - 1.0)
            );
        }
    }
}

fn stream(text: &str) -> Result<(), Box<dyn std::error::Error>> {
    let trace = arrivals::parse(text)?;
    let caps = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 25];
    let policies = [
        PolicyName::MinimizeWorkers,
        PolicyName::GracePeriod,
        PolicyName::Queue,
        PolicyName::Reserve,
        PolicyName::AdaptiveGrace,
    ];
    println!("policy            cap  wait mean   p95    max  worker-s  util  workers");
    let mut rows = simulate::stream(&trace, &policies, &caps, &StreamRun::default());
    for latency_s in [1.0, 20.0, 120.0, 240.0] {
        let run = StreamRun { latency_s: Some(latency_s), ..StreamRun::default() };
        rows.extend(simulate::stream(&trace, &[PolicyName::Sheaf], &caps, &run));
    }
    for row in rows {
        let out = row.outcome;
        println!(
            "{:16} {:4} {:9.1} {:6.1} {:6.1} {:9.0} {:5.2} {:6}   {}",
            row.policy.as_str(),
            row.workers_max,
            out.wait_mean_s,
            out.wait_p95_s,
            out.wait_max_s,
            out.worker_s,
            out.utilisation,
            out.workers,
            row.latency_s.map_or(String::new(), |target_s| format!("latency target {target_s} s"))
        );
    }
    Ok(())
}
