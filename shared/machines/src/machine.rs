//! One machine: a worker process, and what is known of it.

use std::{io, time::Duration};

use procfs::process::all_processes;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use sheaf_core::{Lane, WorkerId};
use sheaf_scheduler::Activity;
use sheaf_worker::Notice;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Child,
    task::JoinHandle,
};

use crate::event::Why;

/// How often, and with which pause, it is looked whether everything of a machine is gone.
const LOOKS_MAX: usize = 500;
const LOOK: Duration = Duration::from_millis(5);

/// What a machine is doing. Times are in seconds of the plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum State {
    /// It was asked for.
    Booting {
        ready_s: f64,
    },
    /// Its worker is started, and has not joined yet.
    Joining,
    /// It takes tasks.
    Up,
    /// It is about to be taken away.
    Noticed {
        gone_s: f64,
    },
    /// It was told to end. It is killed only if it does not by the later time.
    Draining {
        kill_s: f64,
    },
    Gone,
}

/// A machine that is held, or was.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) id: u64,
    pub(crate) pool: usize,
    pub(crate) worker: WorkerId,
    pub(crate) state: State,
    pub(crate) requested_s: f64,
    pub(crate) up_s: Option<f64>,
    pub(crate) ended: Option<(f64, Why)>,
    /// When it is taken away.
    pub(crate) fails_s: f64,
    /// Tasks it runs, as last seen, and since when there were none.
    pub(crate) busy: u32,
    pub(crate) idle_since_s: f64,
    /// Slot seconds in which it ran something.
    pub(crate) busy_slot_s: f64,
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    /// The leader of the session that holds whatever the worker starts.
    pid: Option<u32>,
    /// Ends once the worker has said that it has joined.
    joined: JoinHandle<bool>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.joined.abort();
    }
}

impl Machine {
    pub(crate) fn new(id: u64, pool: usize, now_s: f64, boot_s: f64, fails_s: f64) -> Self {
        Self {
            id,
            pool,
            worker: WorkerId::remote_from_uuid(uuid::Uuid::now_v7()),
            state: State::Booting { ready_s: now_s + boot_s },
            requested_s: now_s,
            up_s: None,
            ended: None,
            fails_s,
            busy: 0,
            idle_since_s: now_s,
            busy_slot_s: 0.0,
            process: None,
        }
    }

    /// As a policy sees it; none once it is gone.
    pub(crate) fn activity(&self) -> Option<Activity> {
        Some(match self.state {
            State::Booting { .. } | State::Joining => Activity::Booting { since_s: self.requested_s },
            State::Up if self.busy > 0 => Activity::Leased { slots: self.busy },
            State::Up => Activity::Idle { since_s: self.idle_since_s },
            State::Noticed { .. } | State::Draining { .. } => Activity::Draining { slots: self.busy },
            State::Gone => return None,
        })
    }

    /// Whether it works, or will by itself.
    pub(crate) fn counts(&self) -> bool {
        self.activity().is_some_and(|activity| activity.counts())
    }

    /// Takes the process that stands for it.
    pub(crate) fn boot(&mut self, mut child: Child) {
        let stdout = child.stdout.take();
        let joined = tokio::spawn(async move {
            let Some(stdout) = stdout else { return false };
            let line = BufReader::new(stdout).lines().next_line().await;
            matches!(line, Ok(Some(_)))
        });
        self.process = Some(Process { pid: child.id(), child, joined });
        self.state = State::Joining;
    }

    /// Whether its worker has joined by now.
    pub(crate) fn has_joined(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.joined.is_finished())
    }

    /// Whether its process has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        match &mut self.process {
            Some(process) => !matches!(process.child.try_wait(), Ok(None)),
            None => false,
        }
    }

    pub(crate) const fn has_process(&self) -> bool {
        self.process.is_some()
    }

    /// Tells its worker something. One that does not hear is ending already.
    pub(crate) async fn tell(&mut self, notice: Notice) {
        let Some(stdin) = self.process.as_mut().and_then(|process| process.child.stdin.as_mut()) else { return };
        let mut line = serde_json::to_vec(&notice).expect("a notice becomes JSON");
        line.push(b'\n');
        let told = async {
            stdin.write_all(&line).await?;
            stdin.flush().await
        };
        if let Err(error) = told.await {
            tracing::debug!(machine = self.id, %error, "a machine does not hear any more");
        }
    }

    /// Kills its process, if it still runs, with everything that it has started, and waits for their end: on a machine that
    /// is gone nothing runs any more.
    pub(crate) async fn kill(&mut self) -> io::Result<()> {
        let Some(process) = &mut self.process else { return Ok(()) };
        process.child.kill().await?;
        let Some(leader) = process.pid.and_then(|pid| i32::try_from(pid).ok()) else { return Ok(()) };
        for _ in 0..LOOKS_MAX {
            if !kill_session(leader)? {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(io::Error::other(format!("processes of session {leader} do not end")))
    }
}

/// Kills every process of a session; whether there were any.
fn kill_session(leader: i32) -> io::Result<bool> {
    let mut any = false;
    for process in all_processes().map_err(io::Error::other)? {
        // One that cannot be looked at has just ended, or is somebody else's.
        let Ok(stat) = process.and_then(|process| process.stat()) else { continue };
        if stat.session == leader && stat.state != 'Z' {
            any = true;
            if let Some(pid) = Pid::from_raw(stat.pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
    Ok(any)
}

/// What became of a machine, for reports. Times are in seconds of the plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MachineRecord {
    /// Its number.
    pub machine: u64,
    /// Its worker.
    pub worker: WorkerId,
    /// Its type.
    pub r#type: String,
    /// Its market.
    pub market: Lane,
    /// Tasks it could run at once.
    pub slots: u32,
    /// When it was asked for.
    pub requested_s: f64,
    /// When its worker had joined.
    pub up_s: Option<f64>,
    /// When it was gone.
    pub ended_s: Option<f64>,
    /// Why.
    pub why: Option<Why>,
    /// Seconds it was paid for: from the request to its end, boots included.
    pub held_s: f64,
    /// Slot seconds in which it ran something.
    pub busy_slot_s: f64,
    /// The share of its slots' time, from when it was up, in which they ran something.
    pub utilisation: f64,
    /// Dollars.
    pub cost: f64,
}
