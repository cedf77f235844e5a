//! The bags of the HADS papers, made from what is published of them, and what was published about them.
//!
//! The bags' files are the authors'. What is public is the number of tasks and the least, mean and greatest run time;
//! bags with just these are drawn from a seed. Machine types, prices and the deadline are the papers'; the limits of
//! five machines a type and market, the gigaflops, and c4.large being a tenth faster per core are ours.

use serde::Serialize;

use crate::PolicyName;
use crate::formats::FormatError;
use crate::formats::env::{Env, Instance};
use crate::formats::job::{Job, Task};
use crate::hads::Bag;
use crate::rng::Rng;

/// The deadline of all of them.
pub const DEADLINE_S: f64 = 2700.0;

/// A published bag and its published figures: dollars and makespan without hibernation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Published {
    /// Its name.
    pub name: &'static str,
    /// Tasks.
    pub tasks: usize,
    /// Run time: least, mean, greatest.
    pub runtime_s: (f64, f64, f64),
    /// HADS: dollars and makespan.
    pub hads: (f64, f64),
    /// Burst-HADS.
    pub burst_hads: (f64, f64),
    /// On-demand machines only.
    pub on_demand: (f64, f64),
}

impl Published {
    /// The bag called `name`, in any case.
    pub fn find(name: &str) -> Option<&'static Self> {
        BAGS.iter().find(|bag| bag.name.eq_ignore_ascii_case(name))
    }

    /// Dollars and makespan published for `policy` without hibernation; none for on-demand machines only.
    pub const fn of(&self, policy: Option<PolicyName>) -> Option<(f64, f64)> {
        match policy {
            None => Some(self.on_demand),
            Some(PolicyName::HadsCc) => Some(self.hads),
            Some(PolicyName::BurstHads) => Some(self.burst_hads),
            Some(_) => None,
        }
    }
}

/// Published: the mean cost over the 20 cells with hibernations, as a share of on-demand.
pub const fn published_share(policy: PolicyName) -> Option<f64> {
    match policy {
        PolicyName::HadsCc => Some(0.606),
        PolicyName::BurstHads => Some(0.588),
        _ => None,
    }
}

/// The four bags.
pub const BAGS: [Published; 4] = [
    Published {
        name: "J60",
        tasks: 60,
        runtime_s: (102.0, 198.0, 323.0),
        hads: (0.067, 2290.0),
        burst_hads: (0.112, 1274.0),
        on_demand: (0.271, 1112.0),
    },
    Published {
        name: "J80",
        tasks: 80,
        runtime_s: (103.0, 199.0, 322.0),
        hads: (0.104, 2295.0),
        burst_hads: (0.151, 1329.0),
        on_demand: (0.312, 1190.0),
    },
    Published {
        name: "J100",
        tasks: 100,
        runtime_s: (107.0, 190.0, 330.0),
        hads: (0.112, 2332.0),
        burst_hads: (0.176, 1660.0),
        on_demand: (0.371, 1462.0),
    },
    Published {
        name: "ED200",
        tasks: 200,
        runtime_s: (161.0, 211.0, 354.0),
        hads: (0.267, 2580.0),
        burst_hads: (0.357, 2275.0),
        on_demand: (0.698, 1887.0),
    },
];

/// The scenarios (k_h, k_r): faults and returns expected until the deadline.
pub const SCENARIOS: [(f64, f64); 5] = [(1.0, 0.0), (5.0, 0.0), (1.0, 5.0), (5.0, 5.0), (3.0, 2.5)];

/// The machine types of the papers.
pub fn env() -> Env {
    let kind = |machine: &str, vcpu: u32, memory_gb: f64, gflops: f64, on_demand: f64, spot: f64| Instance {
        machine: machine.to_owned(),
        vcpu,
        memory_mb: memory_gb * 1024.0,
        gflops,
        on_demand_price: on_demand,
        spot_price: spot,
        on_demand_max: 5,
        spot_max: 5,
        baseline: None,
        credits_per_hour: 0.0,
    };
    let t3 = Instance {
        baseline: Some(0.2),
        credits_per_hour: 36.0,
        spot_max: 0,
        ..kind("t3.large", 2, 8.0, 22.0, 0.0832, 0.025)
    };
    let instances = vec![
        kind("c3.large", 2, 3.75, 22.0, 0.105, 0.0299),
        kind("c4.large", 2, 3.75, 24.4, 0.100, 0.0366),
        kind("c3.xlarge", 4, 7.5, 44.0, 0.199, 0.0634),
        t3,
    ];
    Env { instances, on_demand_max: 20, spot_max: 20 }
}

/// A bag of the size and run times of `published`, from `seed`.
pub fn bag(published: &Published, seed: u64) -> Result<Bag, FormatError> {
    let mut rng = Rng::stream(seed, published.name, 0);
    let tasks = runtimes(published, &mut rng).into_iter().enumerate().map(|(number, seconds)| {
        let on = |machine: &str, factor: f64| (machine.to_owned(), (seconds * factor * 100.0).round() / 100.0);
        Task {
            id: number.to_string(),
            memory_mb: (3.0 + 10.0 * rng.unit() * 100.0).round() / 100.0,
            io: 0.0,
            command: String::new(),
            runtime_s: vec![on("c3.large", 1.0), on("c4.large", 0.9), on("c3.xlarge", 1.0), on("t3.large", 1.0)],
        }
    });
    let job = Job { job_id: published.name.to_owned(), job_name: published.name.to_owned(), tasks: tasks.collect() };
    Bag::new(job, env())
}

/// Run times with the least, mean and greatest of `published`: the two ends, and between them draws bent by a power
/// until their mean is right.
fn runtimes(published: &Published, rng: &mut Rng) -> Vec<f64> {
    let (least, mean, greatest) = published.runtime_s;
    let draws: Vec<f64> = (0..published.tasks - 2).map(|_| rng.unit()).collect();
    let runtimes = |power: f64| -> Vec<f64> {
        let between = draws.iter().map(|draw| least + (greatest - least) * draw.powf(power));
        [greatest, least].into_iter().chain(between).collect()
    };
    let (mut low, mut high) = (0.05, 20.0);
    for _ in 0..60 {
        let power = f64::midpoint(low, high);
        if runtimes(power).iter().sum::<f64>() / published.tasks as f64 > mean { low = power } else { high = power }
    }
    runtimes(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bags_have_the_published_sizes_and_run_times() {
        for published in &BAGS {
            let bag = bag(published, 4).unwrap();
            let seconds: Vec<f64> = (0..bag.len()).map(|task| bag.runtime_s(task, 0).unwrap()).collect();
            let mean = seconds.iter().sum::<f64>() / seconds.len() as f64;
            let (least, wanted, greatest) = published.runtime_s;
            assert_eq!(bag.len(), published.tasks);
            assert!((mean - wanted).abs() < 0.05, "{mean}");
            assert_eq!(seconds.iter().copied().fold(f64::INFINITY, f64::min), least);
            assert_eq!(seconds.iter().copied().fold(0.0, f64::max), greatest);
        }
    }
}
