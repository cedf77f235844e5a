//! What a measurement was made on: without it a figure says little.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

/// A machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Its processor.
    pub processor: String,
    /// How many of them this process may use.
    pub processors: usize,
    /// Its memory.
    pub memory_bytes: u64,
    /// Its operating system.
    pub kernel: String,
    /// The file system of the grid's data; empty where that was not made for the measurement.
    pub file_system: String,
    /// Processes that wanted to run when the measurement began, on average over a minute: above 1, others were at work.
    pub load_1m: f64,
}

impl Machine {
    /// This one, with data in a directory.
    pub fn this(directory: Option<&Path>) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let memory = value(&read("/proc/meminfo"), "MemTotal");
        let memory_kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
        Self {
            processor: value(&read("/proc/cpuinfo"), "model name"),
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_bytes: memory_kib * 1024,
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
            file_system: directory.map(|directory| file_system(directory, &read("/proc/mounts"))).unwrap_or_default(),
            load_1m: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default(),
        }
    }
}

/// The type of the file system that a directory is on: that of the deepest mount point above it.
fn file_system(directory: &Path, mounts: &str) -> String {
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    let above = mounts.filter(|(point, _)| directory.starts_with(point));
    above.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind.to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_processors_and_memory() {
        let machine = Machine::this(Some(Path::new("/")));
        assert!(
            machine.processors > 0 && machine.memory_bytes > 1 << 20 && !machine.file_system.is_empty(),
            "{machine:?}"
        );
    }

    #[test]
    fn the_deepest_mount_counts() {
        let mounts = "a / ext4 rw\nb /no/such tmpfs rw\nc /no/such/deeper xfs rw\n";
        assert_eq!(file_system(Path::new("/no/such/deeper/still"), mounts), "xfs");
        assert_eq!(file_system(Path::new("/no/other"), mounts), "ext4");
    }
}
