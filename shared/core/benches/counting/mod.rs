//! Counting the instructions of parts of a program, for tests that guard them. Times are noisy; valgrind counts the same on every
//! run, and nearly the same on every machine of one architecture.
//!
//! Each part is run twice under callgrind, a few times and many times: the difference is what repeating it costs, without
//! what starting a program does. The counts hold for the release profile on x86-64, with the toolchain that the workspace
//! is built with; without optimisation all tests here are ignored. The profiles stay in `target/tmp`; `callgrind_annotate` shows
//! where the instructions go.

use std::{env, io::Write, path::Path, process::Command};

use libtest_mimic::{Arguments, Failed, Trial};

/// A part of a program, to be run again and again.
pub(crate) type Part = Box<dyn FnMut()>;

/// How far a count may lie from what was measured: compilers, allocators and how a processor copies memory differ a little.
const ROOM_PERCENT: u64 = 15;

/// Before the name of a part and a number of repetitions: what this program does under valgrind.
const REPEAT: &str = "--repeat";

/// What is guarded.
pub(crate) struct Guarded<const N: usize> {
    /// Instructions that each part costs, as measured last. A count that is more than [`ROOM_PERCENT`] above fails; one that is as
    /// far below is said, and whoever makes a part cheaper writes the new count down, so that it stays so.
    pub(crate) measured: [(&'static str, u64); N],
    /// What a repetition is, for people.
    pub(crate) unit: &'static str,
    /// Repetitions in the short and in the long run.
    pub(crate) repetitions: [u64; 2],
    /// Where profiles stay.
    pub(crate) profiles: &'static str,
}

impl<const N: usize> Guarded<N> {
    /// The program: checks every part, or repeats one of them.
    pub(crate) fn main(&'static self, parts: impl FnOnce() -> Vec<(&'static str, Part)>) {
        let arguments: Vec<String> = env::args().collect();
        if let [_, flag, part, times] = arguments.as_slice()
            && flag == REPEAT
        {
            let mut case = parts().into_iter().find(|(name, _)| name == part).expect("one of the parts").1;
            (0..times.parse().expect("a number of repetitions")).for_each(|_: u64| case());
            return;
        }
        let trial = |(part, measured)| Trial::test(part, move || self.check(part, measured));
        let trials = self.measured.map(|of| trial(of).with_ignored_flag(cfg!(debug_assertions)));
        libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
    }

    fn check(&self, part: &str, measured: u64) -> Result<(), Failed> {
        if let Some(reason) = unavailable() {
            // Past the capture of test output.
            std::io::stderr().write_all(format!("\nSKIPPED: {reason}\n").as_bytes())?;
            return Ok(());
        }
        let ([few, many], unit) = (self.repetitions, self.unit);
        let found = (self.count(part, many)? - self.count(part, few)?) / (many - few);
        println!("{part}: {found} instructions for {unit}");
        let room = measured * ROOM_PERCENT / 100;
        if found + room < measured {
            println!("{part} takes less than the {measured} it did: write that down where it is guarded");
        }
        if found > measured + room {
            let seen =
                format!("{part} takes {found} instructions for {unit}, more than the {measured} + {room} expected");
            return Err(seen.into());
        }
        Ok(())
    }

    /// Instructions of a whole run of this program that repeats a part.
    fn count(&self, part: &str, times: u64) -> Result<u64, Failed> {
        let profile = Path::new(self.profiles).join(format!("callgrind.{}.{times}", part.replace(' ', "-")));
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
