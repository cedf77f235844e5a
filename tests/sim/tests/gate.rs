//! The gate: tens of thousands of seeds in about a minute, none of which may break a promise, and planted bugs, each of which
//! must be noticed. `cargo run --release -p sheaf-sim -- --help` tells of longer campaigns.

use std::io::Write;

use sheaf_sim::{Bug, Campaign, Options, Size, Weather, run};

/// Small seeds of the gate.
const SEEDS: u64 = 20_000;
/// Seeds within which each planted bug must be noticed.
const BUDGET: u64 = 5_000;

/// Prints past the capture of test output: the figures are worth having in every log.
fn told(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn expect_unbroken(campaign: &Campaign) {
    if let Some(broken) = &campaign.broken {
        panic!(
            "seed {}: {:#?}\nagain: cargo run --release -p sheaf-sim -- replay {}",
            broken.seed, broken.violations, broken.seed
        );
    }
}

/// First of all: a seed is worth nothing if it cannot be run again.
#[test]
fn a_seed_decides_everything() {
    for seed in 0..50 {
        let (one, other) = (run(seed, &Options::small()), run(seed, &Options::small()));
        assert_eq!((one.trace, &one.counts), (other.trace, &other.counts), "seed {seed}");
    }
    assert_ne!(run(1, &Options::small()).trace, run(2, &Options::small()).trace);
}

#[test]
fn no_seed_breaks_a_promise() {
    let campaign = Campaign::of(0, SEEDS, None, &Options::small());
    told(&format!("simulator: {}", campaign.figures()));
    expect_unbroken(&campaign);
    assert_eq!(campaign.seeds, SEEDS);
    assert_eq!(campaign.never(), Vec::<&str>::new(), "a gate in which this never happens shows nothing of it");
    assert!(campaign.executions_per_task() <= 1.10, "{}", campaign.executions_per_task());
}

/// Where nothing goes wrong every task runs once, and a long queue is not made longer by the sweeper.
#[test]
fn fair_weather_is_exact() {
    let calm = Options { weather: Some(Weather::Calm), ..Options::small() };
    let campaign = Campaign::of(1_000_000, 1_000, None, &calm);
    expect_unbroken(&campaign);
    let backlog = Campaign::of(0, 50, None, &Options { size: Size::Backlog, ..Options::small() });
    expect_unbroken(&backlog);
    let (sent, chunks) = (backlog.counts.of("hints sent again"), backlog.counts.of("T1 submit"));
    told(&format!(
        "simulator, fair weather: {:.3} executions per task; {sent} hints sent again for {chunks} chunks that wait",
        campaign.executions_per_task()
    ));
    assert!(campaign.executions_per_task() <= 1.01 && sent * 2 <= chunks);
}

/// A job of a hundred thousand tasks on a bad night.
#[test]
fn a_large_job_weathers_it_too() {
    let options = Options { size: Size::Large { tasks: 100_000 }, ..Options::small() };
    let campaign = Campaign::of(0, 4, None, &options);
    told(&format!("simulator, large: {}", campaign.figures()));
    expect_unbroken(&campaign);
    assert!(campaign.counts.of("tasks") >= 400_000);
}

/// Each guard of the protocol is there for a reason: without it, a seed breaks a promise.
#[test]
fn every_planted_bug_is_noticed() {
    let mut unnoticed = Vec::new();
    for &bug in Bug::ALL {
        let campaign = Campaign::of(0, BUDGET, None, &Options { bugs: vec![bug], ..Options::small() });
        match campaign.broken {
            Some(_) => told(&format!("planted bug {:<24} noticed within {:>4} seeds", bug.name(), campaign.seeds)),
            None => unnoticed.push(bug),
        }
    }
    assert!(unnoticed.is_empty(), "not noticed within {BUDGET} seeds: {unnoticed:?}");
}

/// Safety layers hide each other's bugs: with one layer away nothing may be lost, and a vital guard must still be missed.
#[test]
fn layers_do_not_hide_bugs() {
    for &layer in Bug::LAYERS {
        let without = |bugs: Vec<Bug>| Options { bugs, strict: false, ..Options::small() };
        expect_unbroken(&Campaign::of(0, 300, None, &without(vec![layer])));
    }
    // All pairs are in the long campaign (`layers`); here, the layers that hide the most.
    for &layer in &[Bug::OwnWriteUnrecognised, Bug::NoSweeper] {
        for &bug in Bug::VITAL {
            let without = Options { bugs: vec![layer, bug], strict: false, ..Options::small() };
            let campaign = Campaign::of(0, BUDGET, None, &without);
            assert!(campaign.broken.is_some(), "{} hides {}", layer.name(), bug.name());
        }
    }
}
