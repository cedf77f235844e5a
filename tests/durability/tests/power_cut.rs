//! A few hundred power cuts, a few failing disks, and the proof that bugs would be noticed. The long campaign is the
//! crate's program.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::{io::Write, path::Path};

use sheaf_durability::{
    campaign::{self, Figures, Plan},
    fact::{Fact, Ledger},
    plant::Plant,
    recording::{self, Fault, Recording, Step},
    scratch,
    workload::{self, Profile},
};

const SEED: u64 = 7;

macro_rules! skip_without_strace {
    () => {
        if let Some(reason) = recording::unavailable() {
            // Past the capture of test output.
            let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
            return;
        }
    };
}

fn record(scratch: &Path, name: &str, seed: u64, fault: Option<Fault>) -> Recording {
    let program = Path::new(env!("CARGO_BIN_EXE_sheaf-durability"));
    let kept = scratch.join(name);
    recording::record(program, &kept.join("store"), &kept, Profile::Small, seed, fault).unwrap()
}

fn cut(recording: &Recording, before: &Ledger, scratch: &Path, points: u64, from: usize) -> Figures {
    let scratch = scratch.join("images");
    let plan = Plan { seed: SEED, points: (0..points).collect(), from, scratch, failures_max: 1 };
    campaign::run(recording, before, &plan).unwrap()
}

fn assert_held(figures: &Figures) {
    assert!(figures.failed.is_empty(), "{}", figures.failed[0]);
}

#[test]
fn what_was_acknowledged_survives_power_cuts_and_bugs_would_be_noticed() {
    skip_without_strace!();
    let scratch = scratch().unwrap();
    let first = record(scratch.path(), "first", 1, None);
    let nothing = Ledger::default();
    let figures = cut(&first, &nothing, scratch.path(), 120, 0);
    println!("first: {figures}");
    assert_held(&figures);
    assert!(figures.damage.lost > 0 && figures.damage.torn > 0 && figures.damage.names > 0, "{figures}");

    // A second store begins on what a power cut has left of the first.
    let point = u64::MAX;
    let ledger = campaign::image(&first, &nothing, SEED, point, &scratch.path().join("second/store")).unwrap();
    let second = record(scratch.path(), "second", 2, None);
    let figures = cut(&second, &ledger, scratch.path(), 50, 0);
    println!("second: {figures}");
    assert_held(&figures);

    for plant in Plant::ALL {
        // Behind the making of the store, in which little is acknowledged.
        let figures = cut(&plant.plant(first.clone()), &nothing, scratch.path(), 100, campaign::FIRST_STEPS);
        assert!(!figures.failed.is_empty(), "{plant:?} goes unnoticed: {figures}");
        println!("{plant:?} is noticed by the {}. power cut: {}", figures.points, figures.failed[0].problems[0]);
        let _ = std::fs::remove_dir_all(scratch.path().join("images"));
    }
}

/// A store whose disk fails or is full stops, acknowledges nothing from then on, and has what it acknowledged before.
#[test]
fn a_failing_disk_stops_the_store() {
    skip_without_strace!();
    let scratch = scratch().unwrap();
    let fault = |call, error, nth, for_good| Fault { call, error, nth, for_good };
    let faults = [
        (true, fault("fdatasync", "EIO", 42, false)),
        (true, fault("write", "EIO", 90, false)),
        (true, fault("write", "ENOSPC", 140, true)),
        (false, fault("fsync", "EIO", 6, false)),
    ];
    for (number, (is_made, fault)) in faults.into_iter().enumerate() {
        let name = format!("fault-{number}");
        if is_made {
            workload::make(&scratch.path().join(&name).join("store")).unwrap();
        }
        let recording = record(scratch.path(), &name, number as u64, Some(fault));
        assert!(recording.injected > 0, "{fault:?} hits nothing");
        let stopped = campaign::stopped(&recording).unwrap_or_else(|| panic!("the store goes on after {fault:?}"));
        let acknowledged = |step: &&Step| matches!(step, Step::Fact(fact) if fact.is_acknowledged());
        let before = recording.steps[..stopped].iter().filter(acknowledged).count();
        assert!(before > 10 || !is_made, "{before} facts were acknowledged before {fault:?}: it proves little");
        let broken = recording.steps.iter().find(|step| matches!(step, Step::Fact(Fact::Broken(_))));
        assert!(broken.is_none(), "{fault:?}: {broken:?}");
        let figures = cut(&recording, &Ledger::default(), scratch.path(), 6, stopped.saturating_sub(100));
        println!("{fault:?} after {before} facts: {figures}");
        assert_held(&figures);
    }
}
