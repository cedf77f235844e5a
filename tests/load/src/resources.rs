//! What processes use: processor, memory, disk. From Linux's /proc; elsewhere there is no such report.

use std::{collections::BTreeMap, time::Duration};

use procfs::{
    WithCurrentSystemInfo as _,
    process::{Process, all_processes},
};
use serde::{Deserialize, Serialize};

use crate::error::LoadError;

/// Makes `VmHWM`, the most memory that a process had, start anew (see `man 5 proc_pid_clear_refs`).
const RESET_PEAK: &str = "5";

/// What a process used.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Which it is: `client and grid`, `client`, `grid`, or `functions` for the grid's child processes together.
    pub role: String,
    /// Processor time, user and system.
    pub cpu_s: f64,
    /// The most memory that was resident.
    pub peak_bytes: u64,
    /// Bytes that it caused to be written to disk; not told of `functions`.
    pub written_bytes: u64,
    /// Bytes that it caused to be read from disk; not told of `functions`.
    pub read_bytes: u64,
    /// How often its threads were switched to and from; not told of `functions`.
    pub context_switches: u64,
}

/// A process whose use is measured.
#[derive(Debug)]
pub struct Watched {
    role: &'static str,
    process: Process,
    before: Counters,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    cpu_s: f64,
    peak_bytes: u64,
    written_bytes: u64,
    read_bytes: u64,
    context_switches: u64,
}

impl Watched {
    /// From now on. Its peak starts anew where the system allows it, which it does for our own processes.
    pub fn start(role: &'static str, pid: u32) -> Result<Self, LoadError> {
        let seen = unseen(pid);
        let process = Process::new(pid as i32).map_err(&seen)?;
        // Without it the peak is that of the process's whole life, which is what a process that was just started has anyway.
        let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), RESET_PEAK);
        let before = Counters::of(&process).map_err(&seen)?;
        Ok(Self { role, process, before })
    }

    /// What it used since.
    pub fn used(&self) -> Result<Usage, LoadError> {
        let now = Counters::of(&self.process).map_err(unseen(self.process.pid as u32))?;
        Ok(Usage {
            role: self.role.to_owned(),
            cpu_s: now.cpu_s - self.before.cpu_s,
            peak_bytes: now.peak_bytes,
            written_bytes: now.written_bytes - self.before.written_bytes,
            read_bytes: now.read_bytes - self.before.read_bytes,
            context_switches: now.context_switches.saturating_sub(self.before.context_switches),
        })
    }
}

fn unseen(pid: u32) -> impl Fn(procfs::ProcError) -> LoadError {
    move |error| LoadError::Unseen { pid, wrong: error.to_string() }
}

fn cpu_s(ticks: u64) -> f64 {
    ticks as f64 / procfs::ticks_per_second() as f64
}

impl Counters {
    fn of(process: &Process) -> procfs::ProcResult<Self> {
        let (stat, io) = (process.stat()?, process.io()?);
        Ok(Self {
            cpu_s: cpu_s(stat.utime + stat.stime),
            peak_bytes: process.status()?.vmhwm.unwrap_or_default() * 1024,
            written_bytes: io.write_bytes,
            read_bytes: io.read_bytes,
            context_switches: switches(process)?,
        })
    }
}

/// Context switches of all threads there are. Those of threads that have ended are lost.
fn switches(process: &Process) -> procfs::ProcResult<u64> {
    let mut switches = 0;
    for thread in process.tasks()?.flatten() {
        // A thread may end while one looks.
        let Ok(status) = thread.status() else { continue };
        switches += status.voluntary_ctxt_switches.unwrap_or_default();
        switches += status.nonvoluntary_ctxt_switches.unwrap_or_default();
    }
    Ok(switches)
}

/// How often a process's threads were switched to and from in so long.
pub async fn switches_in(pid: u32, time: Duration) -> Result<u64, LoadError> {
    let process = Process::new(pid as i32).map_err(unseen(pid))?;
    let before = switches(&process).map_err(unseen(pid))?;
    tokio::time::sleep(time).await;
    Ok(switches(&process).map_err(unseen(pid))?.saturating_sub(before))
}

/// The processes below one, which come and go: what was last seen of each counts.
#[derive(Debug, Default)]
pub struct Below {
    cpu_s: BTreeMap<i32, f64>,
    peak_bytes: u64,
}

impl Below {
    /// Looks at them.
    pub fn look(&mut self, pid: u32) {
        let Ok(processes) = all_processes() else { return };
        let stats: Vec<_> = processes.flatten().filter_map(|process| process.stat().ok()).collect();
        let (mut family, mut resident) = (vec![pid as i32], 0);
        while let Some(parent) = family.pop() {
            for stat in stats.iter().filter(|stat| stat.ppid == parent) {
                family.push(stat.pid);
                self.cpu_s.insert(stat.pid, cpu_s(stat.utime + stat.stime));
                resident += stat.rss_bytes().get();
            }
        }
        self.peak_bytes = self.peak_bytes.max(resident);
    }

    /// What they used, if there were any.
    pub fn used(&self) -> Option<Usage> {
        let cpu_s = self.cpu_s.values().sum();
        let usage = Usage { role: "functions".to_owned(), cpu_s, peak_bytes: self.peak_bytes, ..Usage::default() };
        (!self.cpu_s.is_empty()).then_some(usage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_memory_of_a_process_are_seen() {
        let watched = Watched::start("client", std::process::id()).expect("seen");
        let held = std::hint::black_box(vec![1_u8; 64 << 20]);
        let started = std::time::Instant::now();
        while started.elapsed() < Duration::from_millis(60) {
            std::hint::spin_loop();
        }
        let used = watched.used().expect("seen");
        assert!(used.peak_bytes > held.len() as u64 && used.cpu_s > 0.0, "{used:?}");
    }

    #[test]
    fn processes_below_are_found() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("started");
        let mut below = Below::default();
        below.look(std::process::id());
        child.kill().and_then(|()| child.wait()).expect("ended");
        assert_eq!(below.used().expect("one").role, "functions");
    }
}
