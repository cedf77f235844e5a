//! Starting and ending processes: groups, environments, and how an end is told.

use std::{
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::ExitStatus,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use sheaf_api::run::Call;
use sheaf_core::{Failure, FailureKind};
use tokio::process::Command;

use crate::{
    limits,
    proc_table::{self, Row},
};

/// The process group of a child, named by its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    leader: i32,
}

impl Group {
    /// The group that this process leads.
    pub(crate) const fn new(leader: i32) -> Self {
        Self { leader }
    }

    /// The leader's process id.
    pub(crate) const fn leader(self) -> i32 {
        self.leader
    }

    /// Sends a signal to the group; whether there was anybody to get it.
    pub(crate) fn signal(self, signal: Signal) -> bool {
        // Group 0 would be our own and 1 everybody's; neither is ever a child's.
        let pid = Pid::from_raw(self.leader).filter(|_| self.leader > 1);
        pid.is_some_and(|pid| kill_process_group(pid, signal).is_ok())
    }

    /// Sends a signal to the leader alone: nobody else was started to understand it. Whether it was there to get it.
    pub(crate) fn tell(self, signal: Signal) -> bool {
        let pid = Pid::from_raw(self.leader).filter(|_| self.leader > 1);
        pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    /// Kills the group, and its leader's descendants that left it, as far as `rows` still knows them.
    pub(crate) fn kill_all(self, rows: &[Row]) {
        let members = proc_table::members(rows, self.leader);
        self.signal(Signal::KILL);
        for row in members.iter().filter(|row| row.group != self.leader && row.pid > 1) {
            // Looked at again: a row is as old as the scan.
            let same = proc_table::read(row.pid).is_some_and(|now| now.started_ticks == row.started_ticks);
            if let Some(pid) = Pid::from_raw(row.pid).filter(|_| same) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// Kills a group when dropped, unless told that it is over.
#[derive(Debug)]
pub(crate) struct KillOnDrop {
    group: Group,
    over: bool,
}

impl KillOnDrop {
    /// Guards a group.
    pub(crate) const fn new(group: Group) -> Self {
        Self { group, over: false }
    }

    /// The leader has been reaped: kills what is left of the group now, and never again, as its id may be reused. Gives
    /// whether nobody was left.
    pub(crate) fn reaped(&mut self) -> bool {
        self.over = true;
        !self.group.signal(Signal::KILL)
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if !self.over {
            self.group.kill_all(&proc_table::scan());
        }
    }
}

/// A command in its own process group with the environment that every child has, and that of its manifest on top.
pub(crate) fn command(program: &Path, call: &Call, home: &Path, cwd: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().current_dir(cwd).process_group(0).kill_on_drop(true);
    command.env("PATH", limits::PATH).env("HOME", home).env("TMPDIR", home).env("LANG", "C.UTF-8").env("TZ", "UTC");
    command.env("AWS_REGION", "local").env("AWS_DEFAULT_REGION", "local");
    command.env("AWS_LAMBDA_FUNCTION_NAME", call.function.name.as_str());
    command.env("AWS_LAMBDA_FUNCTION_VERSION", &*call.function.version);
    let memory_mb = (call.manifest.memory_bytes_max >> 20).clamp(1, i32::MAX as u64);
    command.env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", memory_mb.to_string());
    command
}

/// Where a program lies: itself if it has a slash, else the first executable of that name in `path`.
pub(crate) fn find(program: &str, path: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    if program.contains('/') {
        return Some(program.into());
    }
    let executable =
        |path: &PathBuf| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    path.split(':').filter(|dir| dir.starts_with('/')).map(|dir| Path::new(dir).join(program)).find(executable)
}

/// How a process ended that we did not end, as a failure of the task it ran.
pub(crate) fn ended(status: ExitStatus, whose: &str) -> Failure {
    match (status.signal(), status.code()) {
        (Some(signal), _) => {
            let dumped = if status.core_dumped() { ", and dumped core" } else { "" };
            let hint = if signal == Signal::KILL.as_raw() {
                ", by somebody else or the system's own memory limit"
            } else {
                ""
            };
            Failure::new(FailureKind::Killed, format!("{whose} was ended by {}{hint}{dumped}", signal_name(signal)))
        }
        (None, Some(code)) => {
            Failure::new(FailureKind::Exited, format!("{whose} ended with exit code {code} and without an answer"))
        }
        (None, None) => Failure::new(FailureKind::Exited, format!("{whose} ended without an answer")),
    }
}

/// The name of a signal, whose number is the system's.
pub(crate) fn signal_name(signal: i32) -> String {
    let named = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::XFSZ, "SIGXFSZ"),
        (Signal::SYS, "SIGSYS"),
    ];
    let name = named.iter().find(|(known, _)| known.as_raw() == signal).map(|(_, name)| (*name).to_owned());
    name.unwrap_or_else(|| format!("signal {signal}"))
}

/// The message of a task that was stopped because it took more memory than it may.
pub(crate) fn out_of_memory(resident_bytes: u64, limit_bytes: u64) -> Failure {
    let mb = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let message = format!("used {:.1} MiB of memory, its limit is {:.1} MiB", mb(resident_bytes), mb(limit_bytes));
    Failure::new(FailureKind::OutOfMemory, message)
}
