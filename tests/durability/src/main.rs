//! The long campaign: `cargo run --release -p sheaf-durability -- --points 5000 --seed 1`.
//!
//! It records generations of workloads, each beginning on what a power cut left of the one before, and cuts the power in
//! each at its share of the points. Exits with 1 if the store lost anything, and says how to see that again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use sheaf_durability::{
    audit,
    campaign::{self, Figures, Plan},
    fact::Ledger,
    plant::Plant,
    recording::{self, Fault, Recording},
    scratch,
    workload::{self, Profile},
};

/// Generations that begin on what is left of the one before; then a new store is begun, or they would grow without end.
const GENERATIONS_IN_ROW: u64 = 3;

/// Cuts the power under the embedded store, thousands of times.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// How many power cuts in all.
    #[arg(long, default_value_t = 5_000)]
    points: u64,
    /// The seed of everything random but the timing of the workload's threads.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Workloads recorded one after the other, each on what a power cut left of the one before; every third begins anew.
    #[arg(long, default_value_t = 6)]
    generations: u64,
    /// Power cuts, of all, in a large recording: flushes, compactions, full journals and volumes. Each takes about a second.
    #[arg(long, default_value_t = 60)]
    large: u64,
    /// Runs in which a sync or a write fails.
    #[arg(long, default_value_t = 24)]
    faults: u32,
    /// Plants a bug: the campaign must fail.
    #[arg(long)]
    plant: Option<Plant>,
    /// Goes through a recording that was kept, rather than making new ones.
    #[arg(long)]
    replay: Option<PathBuf>,
    /// Only this point of the recording given with `--replay`.
    #[arg(long, requires = "replay")]
    point: Option<u64>,
    /// Where recordings and images of failed points are kept.
    #[arg(long, default_value = "target/durability")]
    keep: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Writes to a store; what the campaign runs under strace.
    #[command(hide = true)]
    Workload {
        store: PathBuf,
        facts: PathBuf,
        #[arg(long)]
        profile: Profile,
        #[arg(long)]
        seed: u64,
    },
    /// Opens the store of a data directory that no grid has open, and checks the invariants over all that is in it.
    Audit {
        /// The data directory.
        directory: PathBuf,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    match &args.command {
        Some(Command::Workload { store, facts, profile, seed }) => {
            workload::run(store, facts, *profile, *seed)?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Command::Audit { directory }) => return Ok(audit_directory(directory)),
        None => {}
    }
    if args.replay.is_none()
        && let Some(reason) = recording::unavailable()
    {
        eprintln!("SKIPPED: {reason}");
        return Ok(ExitCode::SUCCESS);
    }
    let started = Instant::now();
    let figures = match &args.replay {
        Some(kept) => replay(&args, kept)?,
        None => record_and_cut(&args)?,
    };
    println!("seed {}: {figures}; {:.0} s", args.seed, started.elapsed().as_secs_f64());
    Ok(if figures.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn audit_directory(directory: &Path) -> ExitCode {
    match audit::invariants(directory.to_owned()) {
        Ok((jobs, chunks)) => {
            println!("{jobs} jobs, {chunks} chunks, no invariant broken");
            ExitCode::SUCCESS
        }
        Err(problems) => {
            problems.iter().for_each(|problem| println!("{problem}"));
            ExitCode::FAILURE
        }
    }
}

/// A recording on disk: the trace, the store as it was before, and the facts from before.
struct Kept<'a> {
    directory: &'a Path,
}

impl Kept<'_> {
    fn store(&self) -> PathBuf {
        self.directory.join("store")
    }

    fn save(&self, recording: &Recording, ledger: &[String], from: usize) -> anyhow::Result<()> {
        for found in &recording.before {
            let path = self.directory.join("before").join(&found.path);
            match &found.content {
                None => fs::create_dir_all(path)?,
                Some(content) => fs::write(path, content)?,
            }
        }
        fs::create_dir_all(self.directory.join("before"))?;
        fs::write(self.directory.join("ledger"), ledger.concat())?;
        fs::write(self.directory.join("from"), from.to_string())?;
        fs::write(self.directory.join("path"), self.store().canonicalize()?.as_os_str().as_encoded_bytes())?;
        Ok(())
    }
}

/// Where to cut a recording with a fault: around it and behind it.
fn behind_fault(recording: &Recording) -> usize {
    campaign::stopped(recording).map_or(0, |stop| stop.saturating_sub(200))
}

fn ledger_of(lines: &[String]) -> anyhow::Result<Ledger> {
    let mut ledger = Ledger::default();
    for line in lines {
        ledger.add(&line.parse()?);
    }
    Ok(ledger)
}

fn replay(args: &Args, kept: &Path) -> anyhow::Result<Figures> {
    let store = PathBuf::from(fs::read_to_string(kept.join("path")).context("a recording that was kept")?);
    let facts = store.parent().context("a parent")?.join("facts");
    let lines: Vec<String> = fs::read_to_string(kept.join("ledger"))?.lines().map(|line| format!("{line}\n")).collect();
    let before = recording::found(&kept.join("before"))?;
    let mut recording = recording::read(&store, &facts, before, &fs::read(kept.join("trace"))?)?;
    if let Some(plant) = args.plant {
        recording = plant.plant(recording);
    }
    let from = fs::read_to_string(kept.join("from"))?.parse()?;
    let points = args.point.map_or_else(|| (0..args.points).collect(), |point| vec![point]);
    let plan = Plan { seed: args.seed, points, from, scratch: args.keep.join("images"), failures_max: 5 };
    let _ = fs::remove_dir_all(&plan.scratch);
    let figures = campaign::run(&recording, &ledger_of(&lines)?, &plan)?;
    figures.failed.iter().for_each(|failed| print!("{failed}"));
    Ok(figures)
}

fn record_and_cut(args: &Args) -> anyhow::Result<Figures> {
    let mut all = Figures::default();
    let scratch = scratch()?;
    let mut run = Run { args, program: std::env::current_exe()?, scratch: scratch.path().to_owned() };
    let small = args.points.saturating_sub(args.large).max(1);
    let mut lines: Vec<String> = Vec::new();
    for generation in 0..args.generations {
        let kept = run.scratch.join(format!("generation-{generation}"));
        if generation % GENERATIONS_IN_ROW == 0 {
            let _ = fs::remove_dir_all(&kept);
            fs::create_dir_all(kept.join("store"))?;
            lines.clear();
        }
        let recording = run.record(&kept, Profile::Small, generation, None, &lines)?;
        let share = small / args.generations + u64::from(generation < small % args.generations);
        let figures = run.cut(&kept, &recording, &lines, (0..share).collect(), 0)?;
        println!("generation {generation}: {} steps; {figures}", recording.steps.len());
        all += figures;
        if !all.failed.is_empty() {
            return Ok(all);
        }
        let next = run.scratch.join(format!("generation-{}", generation + 1));
        let ledger = ledger_of(&lines)?;
        campaign::image(&recording, &ledger, args.seed, u64::MAX - generation, &next.join("store"))?;
        lines = facts_until(&recording, &lines, args.seed, u64::MAX - generation);
        fs::remove_dir_all(kept)?;
    }
    all += run.faults()?;
    if args.large > 0 && all.failed.is_empty() {
        let kept = run.scratch.join("large");
        fs::create_dir_all(kept.join("store"))?;
        let recording = run.record(&kept, Profile::Large, 0, None, &[])?;
        let figures = run.cut(&kept, &recording, &[], (0..args.large).collect(), 0)?;
        let made = |part: &str| recording.made(|path| path.to_string_lossy().contains(part));
        println!(
            "large: {} steps, {} journals, {} tables, {} volumes; {figures}",
            recording.steps.len(),
            made(".jnl"),
            made("/tables/"),
            made(".vol")
        );
        all += figures;
    }
    Ok(all)
}

/// The lines of the facts up to the point that the next generation begins at.
fn facts_until(recording: &Recording, before: &[String], seed: u64, point: u64) -> Vec<String> {
    let facts = campaign::facts_until(recording, seed, point);
    before.iter().cloned().chain(facts.map(|fact| fact.to_string())).collect()
}

struct Run<'a> {
    args: &'a Args,
    program: PathBuf,
    scratch: PathBuf,
}

impl Run<'_> {
    fn record(
        &self,
        kept: &Path,
        profile: Profile,
        generation: u64,
        fault: Option<Fault>,
        lines: &[String],
    ) -> anyhow::Result<Recording> {
        let seed = self.args.seed.wrapping_mul(1_000).wrapping_add(generation);
        let directory = Kept { directory: kept };
        let recording = recording::record(&self.program, &directory.store(), kept, profile, seed, fault)?;
        let from = behind_fault(&recording);
        directory.save(&recording, lines, from)?;
        fs::remove_dir_all(directory.store())?;
        Ok(match self.args.plant {
            Some(plant) => plant.plant(recording),
            None => recording,
        })
    }

    /// Cuts the power, and keeps the recording if that fails.
    fn cut(
        &mut self,
        kept: &Path,
        recording: &Recording,
        lines: &[String],
        points: Vec<u64>,
        from: usize,
    ) -> anyhow::Result<Figures> {
        let images = self.scratch.join("images");
        let plan = Plan { seed: self.args.seed, points, from, scratch: images.clone(), failures_max: 3 };
        let mut figures = campaign::run(recording, &ledger_of(lines)?, &plan)?;
        if !figures.failed.is_empty() {
            let name = kept.file_name().context("a name")?;
            let keep = self.args.keep.join(name);
            let _ = fs::remove_dir_all(&keep);
            copy(kept, &keep)?;
            copy(&images, &keep.join("images"))?;
            for failed in &mut figures.failed {
                failed.image = keep.join("images").join(format!("image-{}", failed.point));
                print!("{failed}");
                println!(
                    "  again: cargo run --release -p sheaf-durability -- --replay {} --seed {} --point {}",
                    keep.display(),
                    self.args.seed,
                    failed.point
                );
            }
        }
        Ok(figures)
    }

    /// Runs in which a call fails, on the thread that commits or on fjall's own.
    fn faults(&mut self) -> anyhow::Result<Figures> {
        let mut all = Figures::default();
        let (mut hit, mut stopped) = (0, 0);
        for number in 0..self.args.faults {
            let fault = campaign::fault(self.args.seed, number);
            let kept = self.scratch.join(format!("fault-{number}"));
            fs::create_dir_all(kept.join("store"))?;
            if number % 8 < 6 {
                workload::make(&kept.join("store"))?;
            }
            let recording = self.record(&kept, Profile::Small, 1_000 + u64::from(number), Some(fault), &[])?;
            if recording.injected > 0 && campaign::stopped(&recording).is_none() {
                println!("the store goes on after {fault:?}");
            }
            hit += u32::from(recording.injected > 0);
            stopped += u32::from(campaign::stopped(&recording).is_some());
            all += self.cut(&kept, &recording, &[], (0..12).collect(), behind_fault(&recording))?;
            fs::remove_dir_all(kept)?;
            if !all.failed.is_empty() {
                break;
            }
        }
        println!("faults: {} runs, {hit} hit, {stopped} stopped the store; {all}", self.args.faults);
        Ok(all)
    }
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
