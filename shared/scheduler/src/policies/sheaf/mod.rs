//! Ours. Wide on spot while it is cheap, on-demand at the last responsible moment.
//!
//! 1. **Lanes.** Work that left the choice open goes to Lambda when that is cheaper or when its latency target is
//!    shorter than any machine boots (lanes.rs).
//! 2. **Width.** Running wide costs boots, running narrow costs exposure: a reclaim hits the more work the longer the
//!    work lies open. The width that loses least follows from the measured reclaim rate (width.rs).
//! 3. **Diversity.** That width is spread over the pools near the cheapest price (spread.rs).
//! 4. **Guard.** For each deadline, the on-demand capacity that could still do *all* uncommitted work, also what runs
//!    on spot now, is started when waiting any longer would cost too much or fail (guard.rs).
//! 5. **Checkpoints** at Young's interval, **hedges** on guarding machines that would idle, and idle workers that end:
//!    at once when nothing more can arrive or is expected to within one boot time, after one boot time at the latest.
//! 6. **Budgets.** A demand whose budget is spent is no demand. When there is no other, all machines end, and what they
//!    run is given twice the grace.

mod guard;
mod lanes;
mod spread;
mod width;

use sheaf_core::Lane;

use crate::policies::Held;
use crate::{
    Activity, Arrivals, Decision, Demand, Hedge, Machine, Memory, Policy, PolicyName, Settings, Snapshot, checkpoint,
};

/// The policy.
#[derive(Debug, Clone)]
pub struct Sheaf {
    /// What it was told.
    pub settings: Settings,
}

impl Policy for Sheaf {
    fn name(&self) -> PolicyName {
        PolicyName::Sheaf
    }

    fn decide(&self, snapshot: &Snapshot, memory: &mut Memory) -> Decision {
        let mut decision = Decision { policy: self.name().to_string(), ..Decision::default() };
        let mut held = Held::new(snapshot);
        let demands = self.on_machines(snapshot, &mut held, &mut decision);

        let arrived = demands.iter().map(|demand| demand.arrived_tasks).sum();
        let unheard = Arrivals { last_at_s: snapshot.now_s, at_s: snapshot.now_s, ..Arrivals::default() };
        let arrivals = memory.arrivals.get_or_insert(unheard);
        arrivals.note(snapshot.now_s, arrived);
        // Where there is no spot market at all, on-demand is the cheap one.
        let spot = snapshot.pools.iter().any(|pool| pool.market == Lane::Spot && pool.machines_max > 0);
        let lane_of =
            |demand: &Demand| if spot && demand.lane != Some(Lane::OnDemand) { Lane::Spot } else { Lane::OnDemand };
        for market in [Lane::Spot, Lane::OnDemand] {
            let of_market: Vec<&Demand> = demands.iter().copied().filter(|demand| lane_of(demand) == market).collect();
            let width = width::of(snapshot, market, &of_market, arrivals, &self.settings);
            spread::over(snapshot, market, &mut held, &width, &self.settings, &mut decision.reasons);
        }

        let guard = guard::of(snapshot, &demands, &held, &self.settings);
        guard.start(snapshot, &mut held, &mut decision.reasons);
        if demands.is_empty() && snapshot.demands.iter().any(is_spent) {
            self.end_all(snapshot, &mut held);
        } else {
            self.end_idle(snapshot, &demands, &guard, arrivals, &mut held, &mut decision);
        }

        decision.infeasible = guard.infeasible;
        decision.checkpoint_every_s = self.checkpoints(snapshot);
        (decision.wants, decision.drains) = held.answer();
        decision
    }
}

impl Sheaf {
    /// Chooses lanes; wants Lambda's share; gives the demands that machines are to do.
    fn on_machines<'a>(&self, snapshot: &'a Snapshot, held: &mut Held, decision: &mut Decision) -> Vec<&'a Demand> {
        let lanes = lanes::Lanes::new(snapshot);
        let mut demands = Vec::with_capacity(snapshot.demands.len());
        let mut on_lambda = 0;
        for demand in &snapshot.demands {
            let lane = demand.lane.unwrap_or_else(|| {
                let (lane, because) = lanes.choose(demand);
                if lane == Lane::Lambda {
                    decision.lanes.push(crate::LaneChoice { job: demand.job.clone(), lane, because });
                }
                lane
            });
            if is_spent(demand) {
                decision.reasons.push(format!("{}: its budget is spent, nothing more is started for it", demand.job));
            } else if lane == Lane::Lambda {
                on_lambda += demand.open_tasks();
            } else {
                demands.push(demand);
            }
        }
        if let Some(pool) = lanes.pool {
            let more = on_lambda.saturating_sub(u64::from(held.wanted(pool)));
            held.add(pool, u32::try_from(more).unwrap_or(u32::MAX));
        }
        demands
    }

    /// Ends all machines: workers take tasks for as long as they are let, and nobody pays for these.
    fn end_all(&self, snapshot: &Snapshot, held: &mut Held) {
        let ends = |machine: &&Machine| {
            let ends = machine.activity.counts() || matches!(machine.activity, Activity::Hibernated { .. });
            ends && machine.pool < snapshot.pools.len()
        };
        snapshot.machines.iter().filter(ends).for_each(|machine| held.drain(machine, self.settings.grace_s));
    }

    /// Ends idle machines, except guarding ones that would be started again right away: those run second copies. Where
    /// more can arrive, as many as arrivals are to be expected in a boot time stay for one.
    fn end_idle(
        &self,
        snapshot: &Snapshot,
        demands: &[&Demand],
        guard: &guard::Guard,
        arrivals: &Arrivals,
        held: &mut Held,
        decision: &mut Decision,
    ) {
        // Spot machines are no help to work that may only run on-demand, and do not wait for it.
        let waits_for = |market: Lane| {
            let takes = |demand: &&&Demand| market == Lane::OnDemand || demand.lane != Some(Lane::OnDemand);
            demands.iter().filter(takes).any(|demand| demand.waiting_tasks > 0)
        };
        let sealed = demands.iter().all(|demand| demand.sealed);
        let (mut copies, mut ended, mut kept) = (0, 0, 0.0);
        for (machine, idle_s) in held.idle().into_iter().rev() {
            let pool = &snapshot.pools[machine.pool];
            if waits_for(pool.market) {
                continue;
            }
            if pool.market == Lane::OnDemand && guard.keeps {
                copies += u64::from(pool.slots);
            } else if !sealed
                && idle_s < pool.boot_p95_s
                && kept + 0.5 < arrivals.expected(snapshot.now_s, pool.boot_p95_s)
            {
                kept += f64::from(pool.slots);
            } else {
                held.drain(machine, pool.boot_p95_s);
                ended += 1;
            }
        }
        if ended > 0 {
            let why = if sealed {
                "nothing more can arrive"
            } else {
                "no arrival is expected to need them within a boot time"
            };
            decision.reasons.push(format!("{ended} idle machines end: {why}"));
        }
        let running = demands.iter().filter(|demand| demand.running_tasks > 0 && demand.deadline_at_s.is_some());
        for demand in running {
            let job_copies = copies.min(demand.running_tasks);
            if job_copies == 0 {
                break;
            }
            decision.hedges.push(Hedge { job: demand.job.clone(), copies: job_copies });
            copies -= job_copies;
        }
    }

    /// Young's interval for every pool that loses machines.
    fn checkpoints(&self, snapshot: &Snapshot) -> Vec<Option<f64>> {
        let every = |pool: &crate::Pool| match pool.market {
            Lane::Spot => checkpoint::young_s(self.settings.dump_s, pool.reclaims_per_hour),
            Lane::OnDemand | Lane::Lambda => None,
        };
        snapshot.pools.iter().map(every).collect()
    }
}

/// True when nothing may be started for a demand any more.
fn is_spent(demand: &Demand) -> bool {
    demand.budget_left.is_some_and(|left| left <= 0.0)
}

/// Work seconds a second of the machines in `activities` on pools of `market`.
fn held_rate(snapshot: &Snapshot, market: Lane, ready_only: bool) -> f64 {
    let works = |activity: &Activity| match activity {
        Activity::Idle { .. } | Activity::Leased { .. } => true,
        Activity::Booting { .. } => !ready_only,
        Activity::Draining { .. } | Activity::Hibernated { .. } => false,
    };
    let machines = snapshot.machines.iter().filter(|machine| works(&machine.activity));
    let pools = machines.filter_map(|machine| snapshot.pools.get(machine.pool));
    pools.filter(|pool| pool.market == market).map(crate::Pool::rate).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pool;

    /// One task of 100 s runs on spot, `left_s` before its deadline; an on-demand machine of two slots has nothing.
    fn last_task(left_s: f64) -> Snapshot {
        let stable = Pool {
            market: Lane::OnDemand,
            slots: 2,
            price_per_hour: 1.0,
            boot_p95_s: 50.0,
            machines_max: 5,
            ..Pool::default()
        };
        let spot = Pool { market: Lane::Spot, price_per_hour: 0.3, ..stable.clone() };
        let demand = Demand {
            job: "bag".to_owned(),
            running_tasks: 1,
            uncommitted_s: 100.0,
            longest_s: 100.0,
            deadline_at_s: Some(1000.0 + left_s),
            sealed: true,
            ..Demand::default()
        };
        let machines = vec![
            Machine { id: 0, pool: 0, activity: Activity::Idle { since_s: 1000.0 } },
            Machine { id: 1, pool: 1, activity: Activity::Leased { slots: 1 } },
        ];
        Snapshot { now_s: 1000.0, demands: vec![demand], pools: vec![stable, spot], machines }
    }

    fn decide(snapshot: &Snapshot) -> Decision {
        Sheaf { settings: Settings::default() }.decide(snapshot, &mut Memory::default())
    }

    #[test]
    fn an_idle_guard_runs_a_second_copy_when_it_would_be_started_now_and_ends_when_not() {
        let late = decide(&last_task(180.0));
        assert_eq!(late.hedges, [Hedge { job: "bag".to_owned(), copies: 1 }]);
        assert_eq!(late.drains, []);
        let early = decide(&last_task(2000.0));
        assert_eq!(early.hedges, []);
        assert_eq!(early.drains.iter().map(|drain| drain.machine).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn idle_spot_machines_do_not_wait_for_work_that_is_not_theirs() {
        let mut snapshot = last_task(2000.0);
        snapshot.machines[1].activity = Activity::Idle { since_s: 0.0 };
        let demand = &mut snapshot.demands[0];
        (demand.waiting_tasks, demand.running_tasks, demand.lane) = (1, 0, Some(Lane::OnDemand));
        let ended = |snapshot: &Snapshot| decide(snapshot).drains.iter().map(|drain| drain.machine).collect::<Vec<_>>();
        assert_eq!(ended(&snapshot), [1]);
        snapshot.demands[0].lane = Some(Lane::Spot);
        assert_eq!(ended(&snapshot), [0; 0], "either could take it");
    }

    #[test]
    fn when_the_budget_is_spent_nothing_starts_and_all_machines_end() {
        let mut snapshot = last_task(180.0);
        let machine = |id, activity| Machine { id, pool: 1, activity };
        snapshot.machines.extend([
            machine(2, Activity::Booting { since_s: 990.0 }),
            machine(3, Activity::Hibernated { since_s: 990.0 }),
            machine(4, Activity::Draining { slots: 1 }),
        ]);
        snapshot.demands[0].budget_left = Some(0.0);
        let decision = decide(&snapshot);
        let drains = |decision: &Decision| decision.drains.iter().map(|d| (d.machine, d.give_s)).collect::<Vec<_>>();
        assert_eq!(drains(&decision), [(0, 0.0), (1, 120.0), (2, 0.0), (3, 0.0)], "what runs is given twice the grace");
        assert_eq!((decision.wants, decision.hedges), (vec![], vec![]));
        assert_eq!(decision.reasons, ["bag: its budget is spent, nothing more is started for it"]);

        let other = Demand { job: "other".to_owned(), budget_left: None, ..snapshot.demands[0].clone() };
        snapshot.demands.push(other);
        assert_eq!(drains(&decide(&snapshot)), [], "machines stay for another job");
    }

    #[test]
    fn checkpoints_are_for_machines_that_can_vanish() {
        let mut snapshot = last_task(2000.0);
        snapshot.pools[1].reclaims_per_hour = 1.5;
        let every_s = decide(&snapshot).checkpoint_every_s;
        assert_eq!(every_s[0], None);
        assert!((every_s[1].unwrap() - (2.0f64 * 13.4 * 2400.0).sqrt()).abs() < 1e-9);
    }

    #[test]
    fn without_work_nothing_is_wanted() {
        let mut snapshot = last_task(2000.0);
        snapshot.demands.clear();
        snapshot.machines.remove(1);
        assert_eq!((decide(&snapshot).wants, decide(&snapshot).drains.len()), (vec![], 1), "scale to zero");
    }
}
