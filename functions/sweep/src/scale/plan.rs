//! What is wanted, and what is said to ECS about it. Pure.

use sheaf_api::wire::WorkerView;
use sheaf_core::{ChunkKey, Lane};
use sheaf_scheduler::{Decision, PolicyName, Settings, Snapshot};

use super::{
    hedge::Copied,
    reclaims::Reclaims,
    settings::Capacity,
    snapshot::{Seen, Standing, Traces, snapshot},
};

/// What is remembered between two rounds. May be lost.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    policy: sheaf_scheduler::Memory,
    /// Of the policy asked about work that runs on demand only.
    on_demand: sheaf_scheduler::Memory,
    traces: Traces,
    copied: Copied,
    /// What was wanted of each pool, if this process has said so already.
    said: Option<Vec<u32>>,
}

impl Memory {
    /// The chunks of which second copies are to be asked for.
    pub(crate) fn hedges(&mut self, decision: &Decision, workers: &[WorkerView]) -> Vec<ChunkKey> {
        self.copied.next(decision, workers)
    }

    /// What was seen of containers that were taken away.
    pub(crate) fn reclaims(&mut self) -> &mut Reclaims {
        &mut self.traces.reclaims
    }

    /// The round that was planned last has been carried out. One that was not is planned again as if it had not been.
    pub(crate) fn carried_out(&mut self) {
        self.traces.carried_out();
    }
}

/// What a round has come to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub(crate) decision: Decision,
    /// In the order of the pools.
    pub(crate) targets: Vec<Target>,
    /// Whether something else is wanted than in the round before.
    pub(crate) is_news: bool,
}

/// How many containers a service shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) lane: Lane,
    pub(crate) service: String,
    pub(crate) running: u32,
    /// So many it shall have as yet.
    pub(crate) desired: u32,
    /// So many the policy wants.
    pub(crate) wanted: u32,
    /// So many it shall have from now on.
    pub(crate) target: u32,
}

impl Target {
    pub(crate) fn changes(&self) -> bool {
        self.target != self.desired
    }
}

/// Plans a round. Repeated at the same instant, with what it left in `memory`, it plans the same.
pub(crate) fn plan(settings: &Capacity, seen: &Seen<'_>, memory: &mut Memory) -> Plan {
    let (shown, standings) = snapshot(settings, seen, &mut memory.traces);
    let decision = decide(settings, &shown, memory);
    let targets: Vec<Target> = standings
        .iter()
        .enumerate()
        .map(|(number, standing)| target(settings, seen, number, standing, &decision))
        .collect();
    let wanted: Vec<u32> = targets.iter().map(|target| target.wanted).collect();
    let is_news = memory.said.as_ref().map_or(wanted.iter().any(|wanted| *wanted > 0), |said| *said != wanted);
    memory.said = Some(wanted);
    Plan { decision, targets, is_news }
}

fn target(settings: &Capacity, seen: &Seen<'_>, number: usize, standing: &Standing, decision: &Decision) -> Target {
    let (pool, counts) = (&settings.pools[number], &seen.services[number]);
    let wanted = decision.wanted(number);
    // What is being started late may come all the same. Nothing that holds chunks is taken away, whoever wants fewer.
    let most = (wanted + standing.late).min(pool.machines_max);
    let target = most.max(standing.holding.min(counts.desired));
    Target {
        lane: pool.lane,
        service: pool.service.clone(),
        running: counts.running,
        desired: counts.desired,
        wanted,
        target,
    }
}

/// Asks the policy. All but `sheaf` know nothing of lanes: work that runs on demand only is then asked about by itself, and of
/// each pool the larger answer counts.
fn decide(settings: &Capacity, shown: &Snapshot, memory: &mut Memory) -> Decision {
    let on_demand_only = |demand: &sheaf_scheduler::Demand| demand.lane == Some(Lane::OnDemand);
    if settings.policy == PolicyName::Sheaf || !shown.demands.iter().any(on_demand_only) {
        return ask(settings, shown, &mut memory.policy);
    }
    let (mut anywhere, mut stable) = (shown.clone(), shown.clone());
    anywhere.demands.retain(|demand| !on_demand_only(demand));
    stable.demands.retain(on_demand_only);
    stable.machines.retain(|machine| shown.pools[machine.pool].market == Lane::OnDemand);
    stable.pools.iter_mut().filter(|pool| pool.market != Lane::OnDemand).for_each(|pool| pool.machines_max = 0);
    let mut decision = ask(settings, &anywhere, &mut memory.policy);
    let other = ask(settings, &stable, &mut memory.on_demand);
    for want in other.wants {
        match decision.wants.iter_mut().find(|known| known.pool == want.pool) {
            Some(known) => known.machines = known.machines.max(want.machines),
            None => decision.wants.push(want),
        }
    }
    decision.reasons.extend(other.reasons);
    decision.infeasible.extend(other.infeasible);
    decision
}

fn ask(settings: &Capacity, shown: &Snapshot, memory: &mut sheaf_scheduler::Memory) -> Decision {
    let told = Settings {
        grace_s: settings.grace_s,
        drain_s: settings.drain_s,
        workers_max: shown.pools.iter().map(|pool| pool.machines_max).fold(0, u32::saturating_add),
        ..Settings::default()
    };
    told.policy(settings.policy).decide(shown, memory)
}
