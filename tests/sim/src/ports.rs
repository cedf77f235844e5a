//! The ports of one process: every call takes virtual time, may fail in each way that a cloud's may, and may be the
//! process's last.

use std::sync::Arc;

use futures::channel::oneshot;
use sheaf_protocol::{Clock, Ports, Rng, StoreError};

use crate::{
    cloud::Cloud,
    executor::{ProcessId, Sim},
    faults::Faults,
};

/// How a port call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// As it should.
    Done,
    /// It happens, and the caller is not told.
    AnswerLost,
    /// It does not happen, and the caller is not told.
    RequestLost,
    /// The caller is not told, and it happens later.
    Late,
    /// It is refused.
    Throttled,
    /// It is refused, since the store is full.
    Full,
}

/// How long a caller waits for an answer that does not come, in µs.
const ANSWER_TIMEOUT_US: u64 = 3_000_000;
/// How late a write may happen at the most, in µs.
const LATE_US_MAX: u64 = 60_000_000;

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// One of the world's own loops: it neither dies nor stands still.
    World,
    /// Answers one call of a client.
    Service,
    /// Answers a call of somebody who has no business here.
    Stranger,
    /// Runs chunks.
    Worker,
    /// A step of the grid's own: sweep, summarise.
    Step,
}

struct Inner {
    sim: Sim,
    process: ProcessId,
    faults: Arc<Faults>,
    role: Role,
}

/// All ports, as one process has them.
#[derive(Clone)]
pub(crate) struct SimPorts(Arc<Inner>);

impl SimPorts {
    /// The ports of a process.
    pub(crate) fn new(sim: &Sim, process: ProcessId, faults: &Arc<Faults>, role: Role) -> Self {
        Self(Arc::new(Inner { sim: sim.clone(), process, faults: faults.clone(), role }))
    }

    pub(crate) fn sim(&self) -> &Sim {
        &self.0.sim
    }

    pub(crate) fn process(&self) -> ProcessId {
        self.0.process
    }

    pub(crate) fn role(&self) -> Role {
        self.0.role
    }

    pub(crate) fn faults(&self) -> &Faults {
        &self.0.faults
    }

    /// Whether faults are on.
    pub(crate) fn stormy(&self) -> bool {
        self.sim().cloud(|cloud| cloud.stormy)
    }

    /// Draws whether a fault of some rate happens now.
    pub(crate) fn strikes(&self, rate: f64) -> bool {
        rate > 0.0 && self.stormy() && self.sim().happens(rate)
    }

    /// What may befall a process at each yield: it dies, or it stands still.
    fn befall(&self, latency_us: u64) {
        if self.0.role == Role::World || !self.stormy() {
            return;
        }
        let (sim, process) = (self.sim(), self.process());
        if sim.happens(self.faults().crash) {
            let within_us = sim.between(0, 2 * latency_us);
            sim.after(within_us, move |sim| {
                if sim.is_alive(process) {
                    sim.note(process, "dies", String::new);
                    sim.cloud(|cloud| cloud.audit.counts.one("processes killed"));
                    sim.kill(process);
                }
            });
        } else if sim.happens(self.faults().pause) {
            let us = sim.between(1_000_000, 90_000_000);
            sim.note(process, "stands still", || format!("for {} ms", us / 1_000));
            sim.cloud(|cloud| cloud.audit.counts.one("processes paused"));
            sim.pause(process, us);
        }
    }

    /// How the next write goes.
    pub(crate) fn fate(&self) -> Fate {
        if !self.stormy() {
            return Fate::Done;
        }
        let (sim, faults) = (self.sim(), self.faults());
        let now_ms = sim.now_ms();
        if sim.happens(faults.full / 20.0) {
            let until_ms = now_ms + sim.between(1_000, 20_000);
            sim.cloud(|cloud| {
                cloud.full_until_ms = until_ms;
                cloud.audit.counts.one("store full");
            });
        }
        if sim.cloud(|cloud| now_ms < cloud.full_until_ms) {
            return Fate::Full;
        }
        let mut dice = sim.draw(fastrand::Rng::f64);
        let mut is = |rate: f64| {
            let is = dice < rate;
            dice -= rate;
            is
        };
        if is(faults.throttled) {
            Fate::Throttled
        } else if is(faults.answer_lost) {
            Fate::AnswerLost
        } else if is(faults.request_lost) {
            Fate::RequestLost
        } else if is(faults.late) {
            Fate::Late
        } else {
            Fate::Done
        }
    }

    /// The time from here to the store, in µs.
    pub(crate) fn latency_us(&self) -> u64 {
        let sim = self.sim();
        if self.strikes(self.faults().slow) { sim.between(100_000, 1_000_000) } else { sim.between(200, 5_000) }
    }

    /// Sends something to the world that has an effect there and an answer; gives the answer, or why there is none.
    pub(crate) async fn send<T: Send + 'static>(
        &self,
        what: &'static str,
        fate: Fate,
        effect: impl FnOnce(&Sim, &mut Cloud) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sim, process) = (self.sim().clone(), self.process());
        let latency_us = self.latency_us();
        self.befall(latency_us);
        let unknown = || StoreError::Unknown { detail: "the connection was closed".to_owned() };
        let count = |sim: &Sim, what| sim.cloud(|cloud| cloud.audit.counts.one(what));
        sim.note(process, what, || format!("{fate:?}"));
        match fate {
            Fate::Done | Fate::AnswerLost => {
                let (tell, told) = oneshot::channel();
                sim.after(latency_us, move |sim| {
                    let answer = sim.cloud(|cloud| effect(sim, cloud));
                    drop(tell.send(answer));
                });
                let answer = told.await.map_err(|_| unknown());
                sim.sleep(latency_us).await;
                if fate == Fate::AnswerLost {
                    count(&sim, "answers lost");
                    sim.sleep(ANSWER_TIMEOUT_US).await;
                    return Err(unknown());
                }
                answer
            }
            Fate::RequestLost | Fate::Late => {
                if fate == Fate::Late {
                    count(&sim, "writes late");
                    let later_us = sim.between(latency_us, LATE_US_MAX);
                    sim.after(later_us, move |sim| {
                        sim.cloud(|cloud| effect(sim, cloud));
                    });
                } else {
                    count(&sim, "requests lost");
                }
                sim.sleep(ANSWER_TIMEOUT_US).await;
                Err(unknown())
            }
            Fate::Throttled => {
                count(&sim, "throttled");
                sim.sleep(latency_us).await;
                Err(StoreError::Throttled { retry_after_ms: sim.between(0, 200) })
            }
            Fate::Full => {
                sim.sleep(latency_us).await;
                Err(StoreError::Stopped { detail: "no space left on device".to_owned() })
            }
        }
    }

    /// A write that is done wholly or not at all.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        what: &'static str,
        effect: impl FnOnce(&Sim, &mut Cloud) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let fate = self.fate();
        self.send(what, fate, effect).await
    }

    /// A read: it can be refused, or its answer be lost.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        what: &'static str,
        effect: impl FnOnce(&Sim, &mut Cloud) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let fate = match self.fate() {
            Fate::Late | Fate::Full => Fate::Done,
            fate => fate,
        };
        self.send(what, fate, effect).await
    }

    /// When the lagging index and the stream show a write that happens now (true time, ms).
    pub(crate) fn lags(sim: &Sim, faults: &Faults) -> (u64, u64) {
        let now_ms = sim.now_ms();
        let lag = |most| if most == 0 { 0 } else { sim.between(0, most) };
        (now_ms + lag(faults.index_lag_ms), now_ms + lag(faults.stream_lag_ms))
    }

    pub(crate) fn shared_faults(&self) -> Arc<Faults> {
        self.0.faults.clone()
    }
}

impl Clock for SimPorts {
    fn now_ms(&self) -> u64 {
        self.sim().clock_ms(self.process())
    }

    async fn sleep_ms(&self, ms: u64) {
        self.sim().sleep_ms(ms).await;
    }
}

impl Rng for SimPorts {
    fn next_u64(&self) -> u64 {
        self.sim().draw(|rng| rng.u64(..))
    }
}

impl Ports for SimPorts {
    type State = Self;
    type Blobs = Self;
    type Queue = Self;
    type Clock = Self;
    type Rng = Self;

    fn state(&self) -> &Self {
        self
    }

    fn blobs(&self) -> &Self {
        self
    }

    fn queue(&self) -> &Self {
        self
    }

    fn clock(&self) -> &Self {
        self
    }

    fn rng(&self) -> &Self {
        self
    }
}
