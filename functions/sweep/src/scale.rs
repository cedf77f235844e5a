//! The scaler: how many containers each service of the grid shall have.
//!
//! It looks at the open work, the workers that were heard of and the counts of ECS, asks a policy of `shared/scheduler`, and says
//! to ECS what is wanted: totals, never differences. So it may run twice at once, break off anywhere, or be left out for a while.
//! What it remembers between two rounds is lost with its process, and costs some tuning.
//!
//! It stops no container. It lowers a count, never below the number of containers that hold chunks, and ECS takes away one
//! that is not protected: workers protect themselves while they hold chunks.

mod hedge;
mod plan;
mod reclaims;
mod settings;
mod shortage;
mod snapshot;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use sheaf_aws::{Container, ServiceCounts, Services};
use sheaf_core::{ChunkKey, Lane};
use sheaf_protocol::{Clock, Ports, StateStore, StoreError, work};

use crate::work::OpenWork;
use plan::{Memory, Plan, Target};
use reclaims::Counted;
pub(crate) use settings::Capacity;
use snapshot::Seen;

/// What the scaler asks of ECS.
pub(crate) trait Ecs {
    /// How services stand, in the order of their names.
    async fn describe(&self, names: &[String]) -> Result<Vec<ServiceCounts>, StoreError>;
    /// Says how many containers a service shall have.
    async fn set_desired(&self, name: &str, desired: u32) -> Result<(), StoreError>;
    /// The containers of a service that run or have ended within the hour.
    async fn containers(&self, name: &str) -> Result<Vec<Container>, StoreError>;
}

impl Ecs for Services {
    async fn describe(&self, names: &[String]) -> Result<Vec<ServiceCounts>, StoreError> {
        self.describe(names).await
    }

    async fn set_desired(&self, name: &str, desired: u32) -> Result<(), StoreError> {
        self.set_desired(name, desired).await
    }

    async fn containers(&self, name: &str) -> Result<Vec<Container>, StoreError> {
        self.containers(name).await
    }
}

/// Containers of a lane, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Containers {
    /// So many the policy wants.
    pub(crate) wanted: u32,
    /// So many run.
    pub(crate) running: u32,
}

/// What a round came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Scaled {
    /// By lane.
    pub(crate) containers: BTreeMap<Lane, Containers>,
    /// Whether fewer containers are wanted than there shall be for now, since some hold chunks.
    pub(crate) is_held_back: bool,
}

/// The scaler of a grid.
#[derive(Debug)]
pub(crate) struct Scaler<E> {
    settings: Capacity,
    ecs: E,
    memory: Mutex<Memory>,
}

impl<E: Ecs> Scaler<E> {
    pub(crate) fn new(settings: Capacity, ecs: E) -> Self {
        Self { settings, ecs, memory: Mutex::default() }
    }

    /// One round, given the open work, and the hints that wait if they were counted just now. Costs a request to ECS, another
    /// for each service whose count changes, and a query for the workers; once a minute, while there are containers on spot, three
    /// more to ECS ([`reclaims`]); where second copies are wanted, a read of the chunks and a send.
    pub(crate) async fn round<P: Ports>(
        &self,
        ports: &P,
        work: &[OpenWork],
        hints: Option<&BTreeMap<Lane, u64>>,
    ) -> Result<Scaled, StoreError> {
        let names: Vec<String> = self.settings.pools.iter().map(|pool| pool.service.clone()).collect();
        let services = self.ecs.describe(&names).await?;
        let workers = ports.state().workers().await?;
        let now_ms = ports.clock().now_ms();
        self.count_reclaims(&services, now_ms).await;
        let seen = Seen { now_ms, work, hints, workers, services };
        let plan = plan::plan(&self.settings, &seen, &mut self.memory());
        let copied = self.memory().hedges(&plan.decision, &seen.workers);
        self.carry_out(&plan).await?;
        self.hedge(ports, copied).await?;
        self.memory().carried_out();
        Ok(Scaled::of(&plan))
    }

    /// Looks how many containers on spot were taken away, once a minute. Without an answer, what was known counts.
    async fn count_reclaims(&self, services: &[ServiceCounts], now_ms: u64) {
        let due = self.memory().reclaims().due(&self.settings.pools, services, now_ms);
        for number in due {
            let service = &self.settings.pools[number].service;
            let containers = match self.ecs.containers(service).await {
                Ok(containers) => containers,
                Err(error) => {
                    tracing::warn!(service, %error, "reclaims were not counted");
                    continue;
                }
            };
            let news = self.memory().reclaims().count(number, &containers, now_ms);
            if let Some(Counted { reclaims, hours, .. }) = news {
                tracing::info!(service, reclaims, hours, "reclaims within an hour");
            }
        }
    }

    /// Asks for second copies of chunks that containers on spot hold, where containers on demand have nothing to do.
    async fn hedge<P: Ports>(&self, ports: &P, copied: Vec<ChunkKey>) -> Result<(), StoreError> {
        if copied.is_empty() {
            return Ok(());
        }
        tracing::info!(?copied, "second copies are asked for");
        let chunks = ports.state().chunks(&copied).await?;
        work::hedge(ports, &chunks.into_iter().flatten().collect::<Vec<_>>()).await;
        Ok(())
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says to ECS what has changed. One service that cannot be scaled holds up no other.
    async fn carry_out(&self, plan: &Plan) -> Result<(), StoreError> {
        if plan.is_news || plan.targets.iter().any(Target::changes) {
            log(plan);
        }
        let mut failed = None;
        for target in plan.targets.iter().filter(|target| target.changes()) {
            if let Err(error) = self.ecs.set_desired(&target.service, target.target).await {
                tracing::warn!(service = target.service, target = target.target, %error, "the count was not set");
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// One line that says what was decided, and why.
fn log(plan: &Plan) {
    let counts = plan.targets.iter().map(|target| {
        let Target { service, desired, target, wanted, running, .. } = target;
        format!("{service}: {wanted} wanted, {running} run, {desired} asked for before, {target} now")
    });
    let infeasible: Vec<&str> = plan.decision.infeasible.iter().map(|late| late.job.as_str()).collect();
    tracing::info!(
        policy = plan.decision.policy,
        services = ?counts.collect::<Vec<_>>(),
        reasons = ?plan.decision.reasons,
        late_jobs = ?infeasible,
        "containers"
    );
}

impl Scaled {
    fn of(plan: &Plan) -> Self {
        let of_lane = |target: &Target| (target.lane, Containers { wanted: target.wanted, running: target.running });
        Self {
            containers: plan.targets.iter().map(of_lane).collect(),
            is_held_back: plan.targets.iter().any(|target| target.wanted < target.target),
        }
    }

    /// Whether there is nothing to tell of.
    pub(crate) fn is_zero(&self) -> bool {
        self.containers.values().all(|containers| containers.wanted == 0 && containers.running == 0)
    }
}

#[cfg(test)]
mod tests;
