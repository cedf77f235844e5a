//! How many instructions a task costs in the hot parts. Times are noisy; valgrind counts the same on every run, and nearly
//! the same on every machine of one architecture.
//!
//! Each part is run twice under callgrind, a few times and many times: the difference is what repeating it costs, without
//! what starting a program does. The counts hold for the release profile on x86-64, with the toolchain that the workspace
//! is built with; without optimisation all tests here are ignored.
//!
//! ```text
//! cargo test --release -p sheaf-api --test instructions
//! ```
//! The profiles stay in `target/tmp`; `callgrind_annotate` shows where the instructions go.

#[path = "../benches/cases/mod.rs"]
mod cases;
#[path = "../../core/benches/cases/mod.rs"]
mod steps;

use std::{env, io::Write, path::Path, process::Command};

use libtest_mimic::{Arguments, Failed, Trial};

/// Instructions that each part costs for a chunk of 1,000 tasks, of 64 bytes each way, as measured last: a thousandth of it
/// is what a task costs. A count that is more than [`ROOM_PERCENT`] above fails; one that is as far below is said, and whoever
/// makes a part cheaper writes the new count here, so that it stays so.
const MEASURED: [(&str, u64); 7] = [
    // Copying the payloads and their offsets; then the frame with its checksum, and checking what was written.
    ("pack build", 329_765),
    // The checksum, the offsets, the limits of each task; then each payload looked up.
    ("pack parse", 155_291),
    // Copying the results, an entry for each; then the columns, and the frame with its checksum.
    ("segment build", 264_564),
    // The checksum, the offsets, outcomes, order and limits; then each entry looked up.
    ("segment parse", 222_342),
    // Copying the chunk, which has two bits for each task.
    ("claim", 693),
    // Copying the chunk, and merging the outcomes of half of its tasks into it.
    ("segment", 4_980),
    // The same with the other half; then looking whether a task is still open.
    ("finish", 7_348),
];
/// How far a count may lie from what was measured: compilers, allocators and how a processor copies memory differ a little.
const ROOM_PERCENT: u64 = 15;

/// Before the name of a part and a number of repetitions: what this program does under valgrind.
const REPEAT: &str = "--repeat";
/// Repetitions in the short and in the long run.
const REPETITIONS: [u64; 2] = [10, 110];

fn main() {
    let arguments: Vec<String> = env::args().collect();
    if let [_, flag, part, times] = arguments.as_slice()
        && flag == REPEAT
    {
        let mut case = parts().into_iter().find(|(name, _)| name == part).expect("one of the parts").1;
        (0..times.parse().expect("a number of repetitions")).for_each(|_: u64| case());
        return;
    }
    let trial = |(part, measured)| Trial::test(part, move || check(part, measured));
    let trials = MEASURED.map(|of| trial(of).with_ignored_flag(cfg!(debug_assertions)));
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

/// Everything that is measured here.
fn parts() -> Vec<(&'static str, cases::Case)> {
    cases::formats().into_iter().chain(steps::steps()).collect()
}

fn check(part: &str, measured: u64) -> Result<(), Failed> {
    if let Some(reason) = unavailable() {
        // Past the capture of test output.
        std::io::stderr().write_all(format!("\nSKIPPED: {reason}\n").as_bytes())?;
        return Ok(());
    }
    let [few, many] = REPETITIONS;
    let found = (count(part, many)? - count(part, few)?) / (many - few);
    println!("{part}: {found} instructions for 1,000 tasks");
    let room = measured * ROOM_PERCENT / 100;
    if found + room < measured {
        println!("{part} takes less than the {measured} it did: write that down in MEASURED");
    }
    if found > measured + room {
        let seen =
            format!("{part} takes {found} instructions for 1,000 tasks, more than the {measured} + {room} expected");
        return Err(seen.into());
    }
    Ok(())
}

/// Why nothing can be counted here, if so.
fn unavailable() -> Option<String> {
    if cfg!(not(target_arch = "x86_64")) {
        return Some("instructions were measured on x86-64 only".to_owned());
    }
    match Command::new("valgrind").arg("--version").output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("valgrind ends with {}", output.status)),
        Err(error) => Some(format!("no valgrind (Debian package valgrind): {error}")),
    }
}

/// Instructions of a whole run of this program that repeats a part.
fn count(part: &str, times: u64) -> Result<u64, Failed> {
    let profile = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("callgrind.{}.{times}", part.replace(' ', "-")));
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--quiet"]).arg(format!("--callgrind-out-file={}", profile.display()));
    let output = command.arg(env::current_exe()?).args([REPEAT, part, &times.to_string()]).output()?;
    if !output.status.success() {
        return Err(format!("{command:?} ended with {}: {}", output.status, output.stderr.escape_ascii()).into());
    }
    let written = std::fs::read_to_string(&profile)?;
    let total = written.lines().find_map(|line| line.strip_prefix("totals: ")).and_then(|total| total.parse().ok());
    total.ok_or_else(|| format!("{} has no total", profile.display()).into())
}
