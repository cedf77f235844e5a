//! The grid's own actors: workers that come and go, the sweeper, the result step, and the Lambdas that answer clients.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{
    channel::oneshot,
    future::{Either, select},
};
use sheaf_api::{Answer, ApiError, Code, wire::GridView};
use sheaf_core::{Chunk, Lane, ReleaseReason, TenantId, WorkerId, limits};
use sheaf_protocol::{ChunkQueue, Drain, Service, Worker, WorkerOptions, summarise, sweep, work};

use crate::{
    bug::Bug,
    cloud::SHARDS,
    executor::{ProcessId, Sim, WORLD},
    faults::Faults,
    plan::Pool,
    ports::{Role, SimPorts},
    runner::SimRunner,
};

/// How long a Lambda may run, in ms; a dispatching one gives back its chunks a minute before.
const LAMBDA_MS: u64 = 900_000;
/// How long an HTTP request may take, in ms.
const REQUEST_MS: u64 = 29_000;
/// Chunks of which second copies are asked for at once.
const HEDGED_MAX: usize = 3;
/// Records of the stream that one invocation takes.
const RECORDS_MAX: usize = 100;

/// The world, for those who act in it.
#[derive(Clone)]
pub(crate) struct Grid {
    pub(crate) sim: Sim,
    pub(crate) faults: Arc<Faults>,
}

impl Grid {
    /// Starts a process whose clock is off by as much as the seed allows.
    pub(crate) fn process(&self, name: &'static str, role: Role) -> (ProcessId, SimPorts) {
        let most = self.faults.skew_ms as i64;
        let skew_ms = if most == 0 { 0 } else { self.sim.draw(|rng| rng.i64(-most..=most)) };
        let process = self.sim.process(name, skew_ms);
        (process, SimPorts::new(&self.sim, process, &self.faults, role))
    }

    pub(crate) fn stormy(&self) -> bool {
        self.sim.cloud(|cloud| cloud.stormy)
    }

    pub(crate) fn strikes(&self, rate: f64) -> bool {
        rate > 0.0 && self.stormy() && self.sim.happens(rate)
    }

    pub(crate) fn count(&self, what: &'static str) {
        self.sim.cloud(|cloud| cloud.audit.counts.one(what));
    }

    /// Runs work in a process of its own, at most so long; answers what it gave, if it lived to give it.
    pub(crate) async fn invoke<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        name: &'static str,
        role: Role,
        ms_max: u64,
        work: impl FnOnce(SimPorts) -> F,
    ) -> Option<T> {
        let (process, ports) = self.process(name, role);
        let (tell, told) = oneshot::channel();
        let work = work(ports);
        let sim = self.sim.clone();
        self.sim.spawn(process, async move {
            drop(tell.send(work.await));
            sim.after(0, move |sim| sim.kill(process));
        });
        self.sim.after(ms_max * 1_000, move |sim| sim.kill(process));
        told.await.ok()
    }

    /// A call of a client: answered by a Lambda that may die, run twice, or be unable to say what it did.
    pub(crate) async fn call<T, F>(
        &self,
        tenant: &TenantId,
        role: Role,
        call: impl Fn(Service<SimPorts>) -> F,
    ) -> Answer<T>
    where
        T: Send + 'static,
        F: Future<Output = Answer<T>> + Send + 'static,
    {
        let lost = || ApiError::new(Code::Unknown, "no answer came");
        let service = |ports| call(Service::new(ports, tenant.clone(), view()));
        if self.strikes(self.faults.invoked_twice) {
            self.count("invocations doubled");
            let (process, ports) = self.process("lambda", role);
            let work = service(ports);
            self.sim.spawn(process, async move { drop(work.await) });
            self.sim.after(REQUEST_MS * 1_000, move |sim| sim.kill(process));
        }
        let answer = self.invoke("lambda", role, REQUEST_MS, service).await;
        if self.strikes(self.faults.reply_lost) {
            self.count("replies lost");
            self.sim.sleep_ms(1_000).await;
            return Err(lost());
        }
        answer.unwrap_or_else(|| Err(lost()))
    }

    /// Keeps one worker of a pool alive: a new one starts when the old is gone.
    pub(crate) async fn pool(self, pool: Pool, number: usize) {
        for generation in 0_u64.. {
            let (process, ports) = self.process("worker", Role::Worker);
            let id = uuid::Uuid::from_u64_pair(number as u64, generation);
            let drain = Arc::<Drain>::default();
            let worker = Worker::new(
                ports.clone(),
                SimRunner::new(ports.clone(), pool.slots),
                WorkerOptions::new(WorkerId::from_uuid(id)),
                drain.clone(),
            );
            let exited = self.sim.exited(process);
            self.sim.spawn(process, live(ports.clone(), Arc::new(worker), drain.clone(), pool.chunks));
            self.sim.spawn(WORLD, self.clone().fate_of(pool, process, ports, drain));
            exited.await;
            self.sim.sleep_ms(pool.boot_ms).await;
        }
    }

    /// How a worker's machine ends: a Lambda after its time, a spot machine when it is reclaimed.
    async fn fate_of(self, pool: Pool, process: ProcessId, ports: SimPorts, drain: Arc<Drain>) {
        let (lives_ms, notice_ms) = if pool.spot {
            loop {
                let lived = self.sim.sleep_ms(self.sim.between(1_000, 60_000));
                if let Either::Left(_) = select(Box::pin(self.sim.exited(process)), lived).await {
                    return;
                }
                if self.strikes(self.faults.reclaim) {
                    break;
                }
            }
            let notices: &[u64] = if self.faults.short_notice { &[120_000, 3_000, 0] } else { &[120_000] };
            (0, notices[self.sim.draw(|rng| rng.usize(..notices.len()))])
        } else {
            (LAMBDA_MS - 120_000, 120_000)
        };
        self.sim.sleep_ms(lives_ms).await;
        if !self.sim.is_alive(process) {
            return;
        }
        self.sim.note(process, "is reclaimed", || format!("notice of {notice_ms} ms"));
        if pool.spot {
            self.count(if notice_ms == 0 { "machines gone without notice" } else { "machines reclaimed with notice" });
        }
        if notice_ms > 0 {
            let reason = if pool.spot { ReleaseReason::Reclaimed } else { ReleaseReason::Drain };
            drain.start(self.sim.clock_ms(ports.process()) + notice_ms * 3 / 4, reason);
            self.sim.sleep_ms(notice_ms).await;
        }
        self.sim.kill(process);
    }

    /// Runs the sweeper again and again, sometimes twice at once.
    pub(crate) async fn sweeper(self, tenants: Vec<TenantId>) {
        if self.sim.cloud(|cloud| cloud.has(Bug::NoSweeper)) {
            return;
        }
        loop {
            let times = if self.strikes(self.faults.invoked_twice) { 2 } else { 1 };
            for _ in 0..times {
                let (grid, tenants) = (self.clone(), tenants.clone());
                self.sim.spawn(WORLD, async move {
                    let swept = grid.invoke("sweep", Role::Step, 60_000, |ports| sweep_once(ports, tenants)).await;
                    let hints = swept.flatten().unwrap_or_default();
                    grid.sim.cloud(|cloud| cloud.audit.counts.add("hints sent again", hints));
                });
            }
            self.sim.sleep_ms(limits::SWEEP_MS).await;
        }
    }

    /// Feeds the result step with one shard of the stream: in order, at least once.
    pub(crate) async fn results(self, shard: usize) {
        loop {
            let now_ms = self.sim.now_ms();
            let records: Vec<Chunk> = self.sim.cloud(|cloud| {
                let ready = cloud.stream[shard % SHARDS].iter().take_while(|record| record.at_ms <= now_ms);
                ready.take(RECORDS_MAX).map(|record| record.chunk.clone()).collect()
            });
            if records.is_empty() {
                self.sim.sleep_ms(1_000).await;
                continue;
            }
            let taken = records.len();
            let done = self
                .invoke("result", Role::Step, 60_000, |ports| async move {
                    summarise::summarise(&ports, &records).await.is_ok()
                })
                .await;
            let is_lossy = self.sim.cloud(|cloud| cloud.has(Bug::StreamLossy));
            if done == Some(true) || is_lossy {
                if self.strikes(self.faults.stream_twice) {
                    self.count("stream records doubled");
                    continue;
                }
                self.sim.cloud(|cloud| drop(cloud.stream[shard % SHARDS].drain(..taken)));
            } else {
                self.count("stream records read again");
                self.sim.sleep_ms(1_000).await;
            }
        }
    }

    /// Asks for second copies of whatever is held, now and then, as a policy does where a deadline is near.
    pub(crate) async fn hedge(self) {
        while self.stormy() {
            self.sim.sleep_ms(self.sim.between(1_000, 20_000)).await;
            let held: Vec<Chunk> = self.sim.cloud(|cloud| {
                let held = cloud.chunks.values().filter(|chunk| chunk.lease().is_some());
                held.take(HEDGED_MAX).cloned().collect()
            });
            self.invoke("hedge", Role::Step, 60_000, |ports| async move { work::hedge(&ports, &held).await }).await;
        }
    }

    /// Empties the queue now and then, as a purge or its retention would.
    pub(crate) async fn purge(self) {
        while self.stormy() {
            self.sim.sleep_ms(1_000).await;
            if self.strikes(self.faults.purge) {
                self.count("queue purged");
                self.sim.cloud(|cloud| cloud.messages.clear());
            }
        }
    }
}

/// What every Lambda says of the grid.
fn view() -> GridView {
    GridView {
        version: String::new(),
        backend: "simulated".to_owned(),
        directory: None,
        slots: 8,
        durable: true,
        lanes: BTreeMap::new(),
        syncs: None,
    }
}

async fn sweep_once(ports: SimPorts, tenants: Vec<TenantId>) -> Option<u64> {
    let swept = sweep::chunks(&ports, 1_000_000).await.ok()?;
    for tenant in &tenants {
        sweep::jobs(&ports, tenant).await.ok()?;
    }
    Some(swept.hints)
}

/// A worker's life: receives hints and works them off until it drains.
async fn live(ports: SimPorts, worker: Arc<Worker<SimPorts, SimRunner>>, drain: Arc<Drain>, chunks_max: usize) {
    const LANES: [Lane; 3] = [Lane::Lambda, Lane::Spot, Lane::OnDemand];
    let (sim, process) = (ports.sim().clone(), ports.process());
    let held = Arc::<AtomicUsize>::default();
    while drain.until_ms().is_none() {
        let room = chunks_max.saturating_sub(held.load(Ordering::Relaxed));
        if room == 0 {
            sim.sleep_ms(200).await;
            continue;
        }
        let received = ports.receive(&LANES, room.min(limits::QUEUE_BATCH_MAX), 10_000).await;
        for delivery in received.unwrap_or_default() {
            let (worker, held, sim_) = (worker.clone(), held.clone(), sim.clone());
            held.fetch_add(1, Ordering::Relaxed);
            sim.spawn(process, async move {
                let worked = worker.work(delivery).await;
                sim_.cloud(|cloud| cloud.audit.counts.one(word(worked)));
                held.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }
    while held.load(Ordering::Relaxed) > 0 {
        sim.sleep_ms(500).await;
    }
    sim.after(0, move |sim| sim.kill(process));
}

const fn word(worked: sheaf_protocol::work::Worked) -> &'static str {
    use sheaf_protocol::work::Worked;
    match worked {
        Worked::Finished { .. } => "chunks finished",
        Worked::Over => "hints of final chunks",
        Worked::Postponed => "duplicates postponed",
        Worked::Released => "chunks given back",
        Worked::Fenced => "attempts fenced off",
    }
}
