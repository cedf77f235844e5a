//! Many power cuts in one recording.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    audit::audit,
    disk::{Damage, Disk, Mode},
    fact::{Fact, Ledger},
    recording::{Fault, Recording, Step},
};

/// Making a store takes about so many steps.
pub const FIRST_STEPS: usize = 400;

/// Where to cut, and how.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed of everything random.
    pub seed: u64,
    /// Which points, of as many as one likes: a point is the same whatever the others are.
    pub points: Vec<u64>,
    /// Only at or behind this step.
    pub from: usize,
    /// Where images are built; each is removed unless it fails.
    pub scratch: PathBuf,
    /// How many failures end the campaign.
    pub failures_max: usize,
}

/// A power cut that the store did not survive.
#[derive(Debug, Clone)]
pub struct Failed {
    /// The point.
    pub point: u64,
    /// How unkind it was.
    pub mode: Mode,
    /// The steps before it.
    pub steps: usize,
    /// What is wrong.
    pub problems: Vec<String>,
    /// What the disk held; opening it has changed it since.
    pub image: PathBuf,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { point, mode, steps, problems, image } = self;
        writeln!(f, "point {point} ({mode:?}, after {steps} steps), image in {}", image.display())?;
        problems.iter().try_for_each(|problem| writeln!(f, "  {problem}"))
    }
}

/// What a campaign did.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Power cuts.
    pub points: u64,
    /// Acknowledged facts checked.
    pub facts: u64,
    /// Times a store was opened.
    pub opens: u64,
    /// What was lost and torn.
    pub damage: Damage,
    /// What failed.
    pub failed: Vec<Failed>,
}

impl std::ops::AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.points += other.points;
        self.facts += other.facts;
        self.opens += other.opens;
        self.damage += other.damage;
        self.failed.extend(other.failed);
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { unsynced, lost, torn, names } = self.damage;
        write!(
            f,
            "{} points, {} facts checked, {} opens; of {unsynced} unsynced writes {lost} lost and {torn} torn, {names} \
             changes of names lost; {} failed",
            self.points,
            self.facts,
            self.opens,
            self.failed.len()
        )
    }
}

/// A power cut, placed.
#[derive(Debug)]
struct Point {
    number: u64,
    /// After so many steps.
    steps: usize,
    /// How unkind.
    mode: Mode,
    rng: StdRng,
}

impl Point {
    /// A tenth of the points lie in the first moments of the store, the rest half anywhere and half within a sync or
    /// between it and the one before, so that busy times do not get them all.
    fn place(recording: &Recording, seed: u64, number: u64, from: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let all = recording.steps.len();
        let mode = Mode::draw(&mut rng);
        let ends = |step: &Step| matches!(step, Step::SyncEnd { .. });
        let steps = if rng.random_range(0..10) == 0 {
            rng.random_range(from..=all.min(from + FIRST_STEPS))
        } else if rng.random() {
            let syncs: Vec<usize> = (from..all).filter(|&at| ends(&recording.steps[at])).collect();
            match syncs.len() {
                0 => rng.random_range(from..=all),
                count => {
                    let last = rng.random_range(0..count);
                    let before = if last == 0 { from } else { syncs[last - 1] };
                    // Just before it returns, most is not durable.
                    if rng.random() { syncs[last] } else { rng.random_range(before..=syncs[last]) }
                }
            }
        } else {
            rng.random_range(from..=all)
        };
        Self { number, steps, mode, rng }
    }
}

/// Cuts the power at every point of a plan.
pub fn run(recording: &Recording, before: &Ledger, plan: &Plan) -> anyhow::Result<Figures> {
    let place = |&number: &u64| Point::place(recording, plan.seed, number, plan.from);
    let mut points: Vec<Point> = plan.points.iter().map(place).collect();
    points.sort_by_key(|point| point.steps);
    let mut figures = Figures::default();
    let (mut disk, mut ledger, mut at) = (Disk::new(recording), before.clone(), 0);
    for mut point in points {
        advance(recording, &mut disk, &mut ledger, &mut at, point.steps);
        let image = plan.scratch.join(format!("image-{}", point.number));
        figures.damage += disk.crash(&image, point.mode, &mut point.rng)?;
        figures.points += 1;
        match audit(&image, &ledger) {
            Ok(audited) => {
                figures.facts += audited.facts;
                figures.opens += audited.opens;
                fs::remove_dir_all(&image)?;
            }
            Err(problems) => {
                let Point { number, steps, mode, .. } = point;
                figures.failed.push(Failed { point: number, mode, steps, problems, image });
                if figures.failed.len() >= plan.failures_max {
                    break;
                }
            }
        }
    }
    Ok(figures)
}

/// Builds what the disk may hold at a point, for a recording to go on from; answers the facts so far.
pub fn image(recording: &Recording, before: &Ledger, seed: u64, number: u64, to: &Path) -> anyhow::Result<Ledger> {
    let mut point = Point::place(recording, seed, number, recording.steps.len() * 2 / 3);
    let (mut disk, mut ledger, mut at) = (Disk::new(recording), before.clone(), 0);
    advance(recording, &mut disk, &mut ledger, &mut at, point.steps);
    disk.crash(to, point.mode, &mut point.rng)?;
    Ok(ledger)
}

fn advance(recording: &Recording, disk: &mut Disk, ledger: &mut Ledger, at: &mut usize, to: usize) {
    for step in &recording.steps[*at..to] {
        disk.take(step);
        if let Step::Fact(fact) = step {
            ledger.add(fact);
        }
    }
    *at = to;
}

/// The facts up to the point at which [`image`] cuts.
pub fn facts_until(recording: &Recording, seed: u64, number: u64) -> impl Iterator<Item = &Fact> {
    let point = Point::place(recording, seed, number, recording.steps.len() * 2 / 3);
    recording.steps[..point.steps].iter().filter_map(|step| match step {
        Step::Fact(fact) => Some(fact),
        _ => None,
    })
}

/// The step at which the workload was first told that the store had stopped.
pub fn stopped(recording: &Recording) -> Option<usize> {
    recording.steps.iter().position(|step| matches!(step, Step::Fact(Fact::Stopped)))
}

/// One of many faults: a sync that fails once, or a disk that is full for good, at different moments. The moments are
/// counted by each thread; on a store that is there already nearly all hit its writer, else most hit the making of it.
pub fn fault(seed: u64, number: u32) -> Fault {
    let mut rng = StdRng::seed_from_u64(seed ^ (u64::from(number) << 32));
    let (call, error, most, for_good) = match number % 4 {
        0 => ("fdatasync", "EIO", 100, false),
        1 => ("write", "ENOSPC", 300, true),
        2 => ("fsync", "EIO", 30, false),
        _ => ("write", "EIO", 300, false),
    };
    Fault { call, error, nth: rng.random_range(1..=most), for_good }
}
