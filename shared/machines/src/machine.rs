//! One machine: a worker process, and what is known of it.

use std::io;

use sheaf_core::WorkerId;
use sheaf_scheduler::{Activity, Pool};
use sheaf_worker::Notice;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Child,
    task::JoinHandle,
};

use crate::{event::Why, faults::Fate, hedge::RunningCopy, session::Session};

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
    /// It is frozen, with all that it runs.
    Hibernated {
        since_s: f64,
        /// Infinite for one that does not come back.
        resumes_s: f64,
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
    pub(crate) fate: Fate,
    pub(crate) hibernations: u32,
    /// Seconds that it was frozen, and of those the ones since it was up, up to the last time that it woke.
    frozen_s: f64,
    frozen_up_s: f64,
    /// Leases it holds, as last seen.
    pub(crate) busy: u32,
    /// Second copies it runs, which hold none.
    pub(crate) copies: Vec<RunningCopy>,
    /// What it runs, taken together, as last told.
    pub(crate) runs: u32,
    /// Since when that is nothing.
    pub(crate) idle_since_s: f64,
    /// Slot seconds in which it ran something.
    pub(crate) busy_slot_s: f64,
    /// Seconds of second copies that were not needed.
    pub(crate) copies_lost_s: f64,
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    /// That which holds whatever the worker starts.
    session: Option<Session>,
    /// Ends once the worker has said that it has joined.
    joined: JoinHandle<bool>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.joined.abort();
    }
}

impl Machine {
    pub(crate) fn new(id: u64, pool: usize, now_s: f64, boot_s: f64, fate: Fate) -> Self {
        Self {
            id,
            pool,
            worker: WorkerId::remote_from_uuid(uuid::Uuid::now_v7()),
            state: State::Booting { ready_s: now_s + boot_s },
            requested_s: now_s,
            up_s: None,
            ended: None,
            fate,
            hibernations: 0,
            frozen_s: 0.0,
            frozen_up_s: 0.0,
            busy: 0,
            copies: Vec::new(),
            runs: 0,
            idle_since_s: now_s,
            busy_slot_s: 0.0,
            copies_lost_s: 0.0,
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
            State::Hibernated { since_s, .. } => Activity::Hibernated { since_s },
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
        self.process = Some(Process { session: child.id().and_then(Session::of), child, joined });
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
        let is_frozen = matches!(self.state, State::Hibernated { .. });
        let Some(process) = &mut self.process else { return Ok(()) };
        if let Some(session) = process.session.filter(|_| is_frozen) {
            session.kill_followers()?;
        }
        process.child.kill().await?;
        match process.session {
            Some(session) => session.kill().await,
            None => Ok(()),
        }
    }

    /// Freezes everything that it runs. One that still boots runs nothing.
    pub(crate) async fn freeze(&mut self) -> io::Result<()> {
        match self.process.as_ref().and_then(|process| process.session) {
            Some(session) => session.stop().await,
            None => Ok(()),
        }
    }

    /// Lets it go on where it was frozen; one that was booting boots anew. Answers for how many seconds it was frozen.
    pub(crate) fn thaw(&mut self, now_s: f64, boot_s: f64) -> io::Result<f64> {
        if let Some(session) = self.process.as_ref().and_then(|process| process.session) {
            session.go_on()?;
        }
        let frozen_s = self.frozen_since_s(now_s);
        self.frozen_s += frozen_s;
        self.idle_since_s = now_s;
        self.state = match (&self.process, self.up_s) {
            (None, _) => State::Booting { ready_s: now_s + boot_s },
            (Some(_), None) => State::Joining,
            (Some(_), Some(_)) => {
                self.frozen_up_s += frozen_s;
                State::Up
            }
        };
        Ok(frozen_s)
    }

    /// It is gone. What it was frozen for counts up to here.
    pub(crate) fn gone(&mut self, now_s: f64, why: Why) {
        (self.frozen_s, self.frozen_up_s) = (self.frozen_s(now_s), self.frozen_up_s(now_s));
        (self.state, self.busy, self.ended) = (State::Gone, 0, Some((now_s, why)));
    }

    /// Seconds since it was frozen, if it is.
    fn frozen_since_s(&self, now_s: f64) -> f64 {
        match self.state {
            State::Hibernated { since_s, .. } => now_s - since_s,
            _ => 0.0,
        }
    }

    /// Seconds that it was frozen so far.
    pub(crate) fn frozen_s(&self, now_s: f64) -> f64 {
        self.frozen_s + self.frozen_since_s(now_s)
    }

    /// Of those, the ones since it was up.
    pub(crate) fn frozen_up_s(&self, now_s: f64) -> f64 {
        self.frozen_up_s + self.up_s.map_or(0.0, |_| self.frozen_since_s(now_s))
    }

    /// Seconds that it was paid for so far: from the request on, but for those in which it was frozen.
    pub(crate) fn paid_s(&self, now_s: f64) -> f64 {
        self.ended.map_or(now_s, |(at_s, _)| at_s) - self.requested_s - self.frozen_s(now_s)
    }

    /// Dollars that it has cost so far.
    pub(crate) fn cost(&self, pool: &Pool, now_s: f64) -> f64 {
        self.paid_s(now_s) / 3600.0 * pool.price_per_hour
    }
}
