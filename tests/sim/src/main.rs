//! Runs the simulator: a gate, a long campaign, or one seed again.

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use sheaf_sim::{Bug, Campaign, Options, Size, Weather, run};

const LARGE: Size = Size::Large { tasks: 1_000_000 };
const TASKS: &str = " --tasks 1000000";

/// The protocol under faults.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The long campaign: everything below, one after the other, with a million small seeds and two hundred of a million tasks.
    Campaign {
        /// The first small seed.
        #[arg(long, default_value_t = 1_000_000)]
        first: u64,
        /// Small seeds.
        #[arg(long, default_value_t = 1_000_000)]
        small: u64,
        /// Seeds of a million tasks.
        #[arg(long, default_value_t = 200)]
        large: u64,
    },
    /// Runs many small seeds.
    Seeds {
        /// The first.
        #[arg(long, default_value_t = 0)]
        first: u64,
        /// How many.
        #[arg(long, default_value_t = 20_000)]
        count: u64,
        /// Stops after this many minutes.
        #[arg(long)]
        minutes: Option<f64>,
    },
    /// Runs seeds of a million tasks each.
    Large {
        /// The first.
        #[arg(long, default_value_t = 0)]
        first: u64,
        /// How many.
        #[arg(long, default_value_t = 200)]
        count: u64,
        /// Tasks in each.
        #[arg(long, default_value_t = 1_000_000)]
        tasks: u32,
        /// Stops after this many minutes.
        #[arg(long)]
        minutes: Option<f64>,
        /// Nothing goes wrong.
        #[arg(long)]
        calm: bool,
    },
    /// Runs seeds of pure backlog: a long queue, one worker, no faults.
    Backlog {
        /// How many.
        #[arg(long, default_value_t = 500)]
        count: u64,
    },
    /// Plants each bug and shows the first seed that notices.
    Planted {
        /// Seeds for each.
        #[arg(long, default_value_t = 5_000)]
        count: u64,
        /// Only this one.
        #[arg(long)]
        only: Option<String>,
    },
    /// Takes each layer away in turn: alone nothing may be lost, and with a vital guard gone too it must be noticed.
    Layers {
        /// Seeds for each.
        #[arg(long, default_value_t = 2_000)]
        count: u64,
    },
    /// Runs one small seed again and prints what happens.
    Replay {
        /// The seed.
        seed: u64,
        /// With these bugs planted.
        #[arg(long)]
        bug: Vec<String>,
        /// A run of so many tasks.
        #[arg(long)]
        tasks: Option<u32>,
        /// Only the end.
        #[arg(long)]
        quiet: bool,
    },
}

fn minutes(minutes: Option<f64>) -> Option<Duration> {
    minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0))
}

fn bug(name: &str) -> Option<Bug> {
    Bug::ALL.iter().copied().find(|bug| bug.name() == name)
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Campaign { first, small, large } => {
            let calm = Options { size: LARGE, weather: Some(Weather::Calm), ..Options::small() };
            let stages = [
                ("small seeds", told(&Campaign::of(first, small, None, &Options::small()), true, "")),
                ("pure backlog", backlog(500)),
                ("a million tasks, no faults", told(&Campaign::of(first, large / 10, None, &calm), false, TASKS)),
                ("a million tasks", {
                    let rough = Options { size: LARGE, ..Options::small() };
                    told(&Campaign::of(first, large, None, &rough), false, TASKS)
                }),
                ("planted bugs", planted(5_000, None)),
                ("layers", layers(2_000)),
            ];
            let failed: Vec<&str> =
                stages.iter().filter(|(_, code)| *code != ExitCode::SUCCESS).map(|stage| stage.0).collect();
            println!("{}", if failed.is_empty() { "nothing broken".to_owned() } else { format!("FAILED: {failed:?}") });
            ExitCode::from(u8::from(!failed.is_empty()))
        }
        Command::Seeds { first, count, minutes: limit } => {
            told(&Campaign::of(first, count, minutes(limit), &Options::small()), count > 1_000, "")
        }
        Command::Large { first, count, tasks, minutes: limit, calm } => {
            let weather = calm.then_some(Weather::Calm);
            let options = Options { size: Size::Large { tasks }, weather, ..Options::small() };
            told(&Campaign::of(first, count, minutes(limit), &options), false, &format!(" --tasks {tasks}"))
        }
        Command::Backlog { count } => backlog(count),
        Command::Planted { count, only } => planted(count, only.as_deref()),
        Command::Layers { count } => layers(count),
        Command::Replay { seed, bug: bugs, tasks, quiet } => {
            let bugs = bugs.iter().filter_map(|name| bug(name)).collect();
            let size = tasks.map_or(Size::Small, |tasks| Size::Large { tasks });
            let report = run(seed, &Options { size, bugs, print: !quiet, ..Options::small() });
            println!("{:#?}", report.counts.0);
            println!("trace {:016x}, quiet after {} ms", report.trace, report.quiet_ms);
            report.violations.iter().for_each(|violation| println!("BROKEN: {violation}"));
            ExitCode::from(u8::from(!report.violations.is_empty()))
        }
    }
}

fn backlog(count: u64) -> ExitCode {
    let campaign = Campaign::of(0, count, None, &Options { size: Size::Backlog, ..Options::small() });
    let (sent, chunks) = (campaign.counts.of("hints sent again"), campaign.counts.of("T1 submit"));
    println!("the sweeper sent {sent} hints again for {chunks} chunks that wait");
    told(&campaign, false, "")
}

fn told(campaign: &Campaign, is_broad: bool, flags: &str) -> ExitCode {
    println!("{}", campaign.figures());
    for (what, count) in &campaign.counts.0 {
        println!("  {count:>12}  {what}");
    }
    let never = if is_broad { campaign.never() } else { Vec::new() };
    never.iter().for_each(|what| println!("NEVER HAPPENED: {what}"));
    if let Some(broken) = &campaign.broken {
        broken.violations.iter().for_each(|violation| println!("BROKEN by seed {}: {violation}", broken.seed));
        println!("again: cargo run --release -p sheaf-sim -- replay {}{flags}", broken.seed);
    }
    ExitCode::from(u8::from(campaign.broken.is_some() || !never.is_empty()))
}

fn planted(count: u64, only: Option<&str>) -> ExitCode {
    let mut unnoticed = 0;
    for &bug in Bug::ALL.iter().filter(|bug| only.is_none_or(|only| bug.name() == only)) {
        let campaign = Campaign::of(0, count, None, &Options { bugs: vec![bug], ..Options::small() });
        match &campaign.broken {
            Some(broken) => {
                println!("{:<28} noticed after {:>5} seeds: {}", bug.name(), campaign.seeds, broken.violations[0])
            }
            None => {
                unnoticed += 1;
                println!("{:<28} NOT NOTICED in {count} seeds:{}", bug.name(), bug.what());
            }
        }
    }
    ExitCode::from(u8::from(unnoticed > 0))
}

fn layers(count: u64) -> ExitCode {
    let mut wrong = 0;
    for &layer in Bug::LAYERS {
        let without = |bugs: Vec<Bug>| Options { bugs, strict: false, ..Options::small() };
        let alone = Campaign::of(0, count, None, &without(vec![layer]));
        let unnoticed: Vec<&str> = Bug::VITAL
            .iter()
            .filter(|&&bug| Campaign::of(0, 5 * count, None, &without(vec![layer, bug])).broken.is_none())
            .map(|bug| bug.name())
            .collect();
        let lost =
            alone.broken.as_ref().map(|broken| format!("BROKEN by seed {}: {}", broken.seed, broken.violations[0]));
        wrong += usize::from(lost.is_some()) + unnoticed.len();
        println!(
            "without {:<22} {:>6} seeds: {}; bugs unnoticed: {unnoticed:?}",
            layer.name(),
            alone.seeds,
            lost.as_deref().unwrap_or("nothing lost")
        );
    }
    ExitCode::from(u8::from(wrong > 0))
}
