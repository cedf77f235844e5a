//! Everything that a machine runs: the processes of one session, found wherever they are.

use std::{io, time::Duration};

use procfs::process::{Stat, all_processes};
use rustix::process::{Pid, Signal, kill_process};

/// How often, and with which pause, it is looked whether all of a session have come to what they were told.
const LOOKS_MAX: usize = 500;
const LOOK: Duration = Duration::from_millis(5);

/// The session that a process leads, or is about to: it may not have made it yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session {
    leader: i32,
}

impl Session {
    /// That of a process with this id.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        i32::try_from(pid).ok().map(|leader| Self { leader })
    }

    /// Kills all that its leader, which has ended, has left behind, and waits for their end.
    pub(crate) async fn kill(self) -> io::Result<()> {
        self.until("end", Signal::KILL, false, |_| false).await
    }

    /// Kills all but its leader, which is frozen: were that killed first, those that it leaves behind stopped would be woken.
    pub(crate) fn kill_followers(self) -> io::Result<()> {
        for process in self.processes(false)?.iter().filter(|process| process.pid != self.leader) {
            signal(process.pid, Signal::KILL);
        }
        Ok(())
    }

    /// Stops all of it, and waits until nothing of it runs. The leader is first, so that it starts nothing more.
    pub(crate) async fn stop(self) -> io::Result<()> {
        signal(self.leader, Signal::STOP);
        self.until("stop", Signal::STOP, true, |process| matches!(process.state, 'T' | 't')).await
    }

    /// Lets all of it go on, the leader first.
    pub(crate) fn go_on(self) -> io::Result<()> {
        signal(self.leader, Signal::CONT);
        self.processes(true)?.iter().for_each(|process| signal(process.pid, Signal::CONT));
        Ok(())
    }

    /// Sends a signal to all that are not what they should be, until none is left.
    async fn until(self, what: &str, told: Signal, leads: bool, is_done: fn(&Stat) -> bool) -> io::Result<()> {
        for _ in 0..LOOKS_MAX {
            let mut left = self.processes(leads)?;
            left.retain(|process| !is_done(process));
            if left.is_empty() {
                return Ok(());
            }
            left.iter().for_each(|process| signal(process.pid, told));
            tokio::time::sleep(LOOK).await;
        }
        Err(io::Error::other(format!("processes of session {} do not {what}", self.leader)))
    }

    /// Those of it that have not ended; and its leader, if that is known to be there: once it has ended, its id may be another's.
    fn processes(self, leads: bool) -> io::Result<Vec<Stat>> {
        let all = all_processes().map_err(io::Error::other)?;
        // One that cannot be looked at has just ended, or is somebody else's.
        let all = all.filter_map(|process| process.and_then(|process| process.stat()).ok());
        let ours = |stat: &Stat| stat.session == self.leader || (leads && stat.pid == self.leader);
        Ok(all.filter(|stat| ours(stat) && !matches!(stat.state, 'Z' | 'X')).collect())
    }
}

/// One that has just ended hears nothing.
fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}
