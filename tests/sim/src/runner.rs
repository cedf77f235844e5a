//! Functions: what a task does is written in its payload.

use std::{sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes};
use sheaf_api::{
    checkpoint::{Checkpoint, Written},
    run::{Call, Failed, Report},
};
use sheaf_core::{Digest, Failure, FailureKind};
use sheaf_protocol::{Clock, Runner};

use crate::{audit::Start, ports::SimPorts};

/// Durations are slept in steps of at least this much, so that a million short tasks are not a million sleeps.
const NAP_US: u64 = 20_000;

/// What a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// It succeeds.
    Succeed,
    /// It reports an error each time.
    Fail,
    /// It reports an error so many times, then succeeds.
    Flaky(u8),
    /// It kills its worker each time.
    Poison,
    /// It kills its own process each time.
    Die,
    /// It kills its own process so many times, then succeeds.
    DieAtFirst(u8),
    /// It runs into its timeout.
    Hang,
}

/// A task of the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errand {
    /// What it does.
    pub deed: Deed,
    /// How long it takes, in µs.
    pub us: u32,
    /// Tells it from all others.
    pub salt: u32,
}

impl Errand {
    /// As a payload.
    pub fn payload(self) -> [u8; 10] {
        let (kind, times) = match self.deed {
            Deed::Succeed => (0, 0),
            Deed::Fail => (1, 0),
            Deed::Flaky(times) => (2, times),
            Deed::Poison => (3, 0),
            Deed::Die => (4, 0),
            Deed::DieAtFirst(times) => (5, times),
            Deed::Hang => (6, 0),
        };
        let mut payload = [0; 10];
        let mut rest = &mut payload[..];
        rest.put_u8(kind);
        rest.put_u8(times);
        rest.put_u32(self.us);
        rest.put_u32(self.salt);
        payload
    }

    /// From a payload.
    ///
    /// # Panics
    /// If it is not one: the protocol has changed what was submitted.
    pub fn parse(mut payload: &[u8]) -> Self {
        assert_eq!(payload.len(), 10, "a payload of the simulation");
        let (kind, times) = (payload.get_u8(), payload.get_u8());
        let deed = match kind {
            0 => Deed::Succeed,
            1 => Deed::Fail,
            2 => Deed::Flaky(times),
            3 => Deed::Poison,
            4 => Deed::Die,
            5 => Deed::DieAtFirst(times),
            _ => Deed::Hang,
        };
        Self { deed, us: payload.get_u32(), salt: payload.get_u32() }
    }

    /// Its result, if it has one.
    pub fn result(self) -> [u8; 4] {
        (self.salt ^ 0xa5a5_a5a5).to_be_bytes()
    }
}

/// What an errand of a function that saves leaves as its checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Whose it is.
    pub salt: u32,
    /// By which attempt.
    pub epoch: u32,
    /// How much of the errand is done, in µs.
    pub done_us: u32,
}

impl Progress {
    fn bytes(self) -> Bytes {
        [self.salt, self.epoch, self.done_us].into_iter().flat_map(u32::to_be_bytes).collect()
    }

    /// From a checkpoint.
    ///
    /// # Panics
    /// If it is not one: the protocol has changed what was stored.
    pub(crate) fn parse(mut bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), 12, "a checkpoint of the simulation");
        Self { salt: bytes.get_u32(), epoch: bytes.get_u32(), done_us: bytes.get_u32() }
    }
}

/// Runs errands in virtual time, in one process.
#[derive(Clone)]
pub(crate) struct SimRunner {
    ports: SimPorts,
    slots: usize,
}

impl SimRunner {
    /// A runner of the process whose ports these are.
    pub(crate) fn new(ports: SimPorts, slots: usize) -> Arc<Self> {
        Arc::new(Self { ports, slots })
    }

    fn start(&self, call: &Call, task: u32) {
        let sim = self.ports.sim();
        let start = Start { epoch: call.epoch, at_ms: sim.now_ms() };
        let paused_ms = sim.paused_ms(self.ports.process());
        let key = call.chunk;
        sim.cloud(|cloud| {
            let chunk = cloud.chunks.get(&key).cloned();
            cloud.audit.started(chunk.as_ref(), key, task, start, paused_ms);
        });
        sim.note(self.ports.process(), "starts", || format!("{}/{task} epoch {}", key.number, call.epoch));
    }

    /// How often a task has failed before, now one more.
    fn failures(&self, call: &Call, task: u32) -> u8 {
        self.ports.sim().cloud(|cloud| {
            let truth = cloud.audit.truth(call.chunk, call.pack.tasks());
            let failures = &mut truth.failures[task as usize];
            *failures = failures.saturating_add(1);
            *failures
        })
    }

    fn so_far(&self, call: &Call, task: u32) -> u8 {
        self.ports.sim().cloud(|cloud| cloud.audit.truth(call.chunk, call.pack.tasks()).failures[task as usize])
    }

    /// Works on an errand from its checkpoint on, leaving others; false when it was asked for a last one and has ended.
    async fn save(&self, call: &Call, task: u32, errand: Errand, checkpoint: &Checkpoint) -> bool {
        let sim = self.ports.sim();
        let from_us = self.restored(call, task, errand, checkpoint);
        let step_us = u64::from(errand.us / 16).clamp(NAP_US, 1_000_000) as u32;
        let mut done_us = from_us;
        while done_us < errand.us {
            let nap_us = step_us.min(errand.us - done_us);
            sim.sleep(nap_us.into()).await;
            done_us += nap_us;
            let bytes = Progress { salt: errand.salt, epoch: call.epoch, done_us }.bytes();
            checkpoint.lay(Written { bytes, run_ms: u64::from(done_us - from_us) / 1_000 });
            if checkpoint.is_asked() {
                sim.cloud(|cloud| cloud.audit.counts.one("checkpoints asked for"));
                return false;
            }
        }
        true
    }

    /// What is done already, after a look whether that is what it must be: the last that was committed of this very task.
    fn restored(&self, call: &Call, task: u32, errand: Errand, checkpoint: &Checkpoint) -> u32 {
        let (key, sim) = (call.chunk, self.ports.sim());
        let found = checkpoint.restored.as_ref().map(|bytes| (Progress::parse(bytes), Digest::of(bytes)));
        sim.cloud(|cloud| {
            // Whoever was fenced off, or whose job was cancelled meanwhile, restores what was the last one when it claimed.
            let chunk = cloud.chunks.get(&key).filter(|chunk| chunk.epoch == call.epoch && !chunk.is_final());
            let named = chunk.map(|chunk| chunk.work.checkpoints.get(&task).map(|named| named.digest));
            if let Some((_, digest)) = found {
                cloud.audit.counts.one("tasks resumed");
                if named.is_some_and(|named| named != Some(digest)) {
                    cloud.audit.violated(format!("{key}/{task} goes on from what is not its last checkpoint"));
                }
            } else if named.flatten().is_some() && !cloud.audit.may_crash {
                cloud.audit.unkept(format!("{key}/{task} starts anew, and has a checkpoint"));
            }
            if found.is_some_and(|(progress, _)| progress.salt != errand.salt) {
                cloud.audit.violated(format!("{key}/{task} goes on from the checkpoint of another task"));
            }
        });
        found.map_or(0, |(progress, _)| progress.done_us)
    }

    /// Kills the worker, which is then not there to see it.
    async fn kill(&self, call: &Call, task: u32) {
        let (sim, process) = (self.ports.sim(), self.ports.process());
        sim.cloud(|cloud| {
            *cloud.audit.truth(call.chunk, call.pack.tasks()).killed.entry(task).or_default() += 1;
            cloud.audit.counts.one("workers killed by their task");
        });
        sim.note(process, "is killed", || format!("by {}/{task}", call.chunk.number));
        sim.after(0, move |sim| sim.kill(process));
        std::future::pending().await
    }
}

impl Runner for SimRunner {
    fn slots(&self) -> usize {
        self.slots
    }

    async fn run(&self, call: Call) -> Report {
        let sim = self.ports.sim();
        let mut report = Report::default();
        let (mut owed_us, mut spent) = (0, Duration::ZERO);
        for &task in &call.tasks {
            let is_late = call.deadline_ms.is_some_and(|deadline_ms| self.ports.now_ms() >= deadline_ms);
            if is_late || call.budget.is_some_and(|budget| spent >= budget) {
                break;
            }
            let errand = Errand::parse(call.pack.payload(task));
            self.start(&call, task);
            match &call.checkpoint {
                Some(checkpoint) if !self.save(&call, task, errand, checkpoint).await => break,
                Some(_) => {}
                None => {
                    spent += Duration::from_micros(errand.us.into());
                    owed_us += u64::from(errand.us);
                }
            }
            if owed_us >= NAP_US || errand.deed != Deed::Succeed {
                sim.sleep(std::mem::take(&mut owed_us)).await;
            }
            let fail = |kind, message: &str| Failed { task, failure: Failure::new(kind, message), run_us: errand.us };
            let failed = match errand.deed {
                Deed::Succeed => None,
                Deed::Fail => {
                    self.failures(&call, task);
                    Some(fail(FailureKind::Error, "as it should"))
                }
                Deed::Flaky(times) | Deed::DieAtFirst(times) if self.so_far(&call, task) >= times => None,
                Deed::Flaky(_) => {
                    self.failures(&call, task);
                    Some(fail(FailureKind::Error, "not yet"))
                }
                Deed::Die | Deed::DieAtFirst(_) => {
                    self.failures(&call, task);
                    Some(fail(FailureKind::Exited, "it died"))
                }
                Deed::Hang => {
                    sim.sleep_ms(call.manifest.timeout_ms).await;
                    self.failures(&call, task);
                    Some(fail(FailureKind::TimedOut, "it hung"))
                }
                Deed::Poison => {
                    self.kill(&call, task).await;
                    None
                }
            };
            match failed {
                Some(failed) => {
                    report.failures.push(failed);
                    if call.stop_on_failure {
                        break;
                    }
                }
                None => report
                    .answers
                    .succeeded(task, &errand.result(), errand.us)
                    .expect("the results of one chunk fit a segment"),
            }
        }
        if owed_us > 0 {
            sim.sleep(owed_us).await;
        }
        report
    }
}
