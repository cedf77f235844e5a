//! The rules of DaCirco, a transcoding service with elastic workers: how many workers for a stream of requests.
//!
//! DaCirco runs them on events: a request arrives, a worker is free, a period is over. Here they are written over a
//! snapshot taken at such an event, with the number of arrivals since the one before. A worker is a machine; a free
//! one is given the oldest waiting request before the rule is asked.

use crate::policies::Held;
use crate::{Activity, Decision, Memory, Policy, PolicyName, Settings, Snapshot};

/// Share of busy workers from which `adaptive-grace` counts them as much used.
const BUSY_SHARE: f64 = 0.7;
/// Waiting requests a second from which the stream counts as dense, and below which as thin.
const DENSE_PER_S: f64 = 1.0;
const THIN_PER_S: f64 = 0.1;
/// Seconds by which the grace grows and shrinks.
const GRACE_STEP_S: f64 = 5.0;

/// One of the five rules.
#[derive(Debug, Clone)]
pub struct Elastic {
    /// Which: any of the five elastic names.
    pub rule: PolicyName,
    /// What it was told.
    pub settings: Settings,
}

/// The numbers the rules are about.
struct Load {
    waiting: u64,
    arrived: u64,
    busy: u64,
    idle: u64,
    /// Busy, idle and booting.
    workers: u64,
}

impl Load {
    fn of(snapshot: &Snapshot, workers: u32) -> Self {
        let count = |is: fn(&Activity) -> bool| snapshot.machines.iter().filter(|m| is(&m.activity)).count() as u64;
        Self {
            waiting: snapshot.demands.iter().map(|demand| demand.waiting_tasks).sum(),
            arrived: snapshot.demands.iter().map(|demand| demand.arrived_tasks).sum(),
            busy: count(|activity| matches!(activity, Activity::Leased { .. })),
            idle: count(|activity| matches!(activity, Activity::Idle { .. })),
            workers: u64::from(workers),
        }
    }
}

impl Policy for Elastic {
    fn name(&self) -> PolicyName {
        self.rule
    }

    fn decide(&self, snapshot: &Snapshot, memory: &mut Memory) -> Decision {
        let mut held = Held::new(snapshot);
        let load = Load::of(snapshot, held.workers());
        let grace_s = self.grace_s(snapshot, &load, memory);
        let wished = self.more(&load).min(u64::from(self.settings.workers_max).saturating_sub(load.workers));
        let added = held.add_workers(wished as u32);
        let keep = self.idle_to_keep(&load);
        let idle = held.idle();
        let spare = (idle.len() as u64).saturating_sub(keep) as usize;
        let ended = idle.into_iter().filter(|(_, idle_s)| *idle_s >= grace_s).take(spare).collect::<Vec<_>>();
        for (machine, _) in &ended {
            held.drain(machine, self.settings.grace_s);
        }
        let (wants, drains) = held.answer();
        let reasons = vec![format!(
            "{} requests wait, {} workers of at most {}: {added} more, {} end after {grace_s:.0} s idle",
            load.waiting,
            load.workers,
            self.settings.workers_max,
            ended.len()
        )];
        Decision { policy: self.rule.to_string(), wants, drains, reasons, ..Decision::default() }
    }
}

impl Elastic {
    /// Workers to start, before the cap.
    fn more(&self, load: &Load) -> u64 {
        let per_arrival = load.arrived.min(load.waiting).max(u64::from(load.workers == 0 && load.waiting > 0));
        match self.rule {
            PolicyName::Queue if load.waiting == 0 || load.idle > 0 => 0,
            PolicyName::Queue => u64::from(load.workers == 0 || load.waiting + 1 > self.settings.queue_threshold),
            PolicyName::Reserve => {
                (load.busy + load.waiting + u64::from(self.settings.reserve)).saturating_sub(load.workers)
            }
            // The published rule adds one more where requests come at more than one a second.
            PolicyName::AdaptiveGrace => {
                per_arrival.max(u64::from(load.waiting > load.workers && load.waiting as f64 > DENSE_PER_S))
            }
            _ => per_arrival,
        }
    }

    /// Idle workers that stay however long they have been idle.
    fn idle_to_keep(&self, load: &Load) -> u64 {
        match self.rule {
            PolicyName::Reserve => load.waiting + u64::from(self.settings.reserve),
            _ => load.waiting,
        }
    }

    /// How long an idle worker stays.
    fn grace_s(&self, snapshot: &Snapshot, load: &Load, memory: &mut Memory) -> f64 {
        let set_s = self.settings.grace_s;
        match self.rule {
            PolicyName::GracePeriod => set_s,
            PolicyName::AdaptiveGrace => {
                let elapsed_s = snapshot.now_s - memory.adapted_at_s.unwrap_or(f64::NEG_INFINITY);
                let grace_s = memory.grace_s.unwrap_or(set_s);
                if elapsed_s <= 1.0 {
                    return grace_s;
                }
                memory.adapted_at_s = Some(snapshot.now_s);
                let used = load.busy as f64 / load.workers.max(1) as f64;
                let per_s = load.waiting as f64 / elapsed_s;
                let grown_s = if used > BUSY_SHARE || per_s > DENSE_PER_S {
                    (grace_s + GRACE_STEP_S).min(2.0 * set_s)
                } else if used < BUSY_SHARE && per_s < THIN_PER_S {
                    (grace_s - GRACE_STEP_S).max(set_s / 2.0)
                } else {
                    grace_s
                };
                *memory.grace_s.insert(grown_s)
            }
            _ => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Demand, Machine, Pool};

    fn snapshot(waiting: u64, arrived: u64, machines: &[Activity]) -> Snapshot {
        Snapshot {
            now_s: 100.0,
            demands: vec![Demand { waiting_tasks: waiting, arrived_tasks: arrived, ..Demand::default() }],
            pools: vec![Pool { machines_max: 100, ..Pool::default() }],
            machines: (0..).zip(machines).map(|(id, &activity)| Machine { id, pool: 0, activity }).collect(),
        }
    }

    fn decide(rule: PolicyName, snapshot: &Snapshot) -> (u32, usize) {
        let decision = Elastic { rule, settings: Settings::default() }.decide(snapshot, &mut Memory::default());
        (decision.wanted(0), decision.drains.len())
    }

    const BUSY: Activity = Activity::Leased { slots: 1 };
    const FRESH: Activity = Activity::Idle { since_s: 90.0 };
    const STALE: Activity = Activity::Idle { since_s: 20.0 };
    const BOOTING: Activity = Activity::Booting { since_s: 95.0 };

    #[test]
    fn minimize_workers() {
        use PolicyName::MinimizeWorkers as Rule;
        assert_eq!(decide(Rule, &snapshot(1, 1, &[])), (1, 0));
        assert_eq!(decide(Rule, &snapshot(2, 1, &[BUSY, BOOTING])), (3, 0), "one more per arrival");
        assert_eq!(decide(Rule, &snapshot(9, 1, &[BUSY; 5])), (5, 0), "up to the cap");
        assert_eq!(decide(Rule, &snapshot(0, 0, &[BUSY, FRESH])), (1, 1), "an idle one ends at once");
    }

    #[test]
    fn grace_period() {
        use PolicyName::GracePeriod as Rule;
        assert_eq!(decide(Rule, &snapshot(0, 0, &[FRESH, STALE])), (1, 1), "only the one idle for 60 s");
    }

    #[test]
    fn queue() {
        use PolicyName::Queue as Rule;
        assert_eq!(decide(Rule, &snapshot(1, 1, &[])), (1, 0), "somebody has to do it");
        assert_eq!(decide(Rule, &snapshot(8, 1, &[BUSY])), (1, 0));
        assert_eq!(decide(Rule, &snapshot(9, 1, &[BUSY])), (2, 0), "nine waiting and one in mind exceed nine");
        assert_eq!(decide(Rule, &snapshot(0, 0, &[FRESH, BUSY])), (1, 1));
    }

    #[test]
    fn reserve() {
        use PolicyName::Reserve as Rule;
        assert_eq!(decide(Rule, &snapshot(0, 0, &[])), (1, 0));
        assert_eq!(decide(Rule, &snapshot(1, 1, &[])), (2, 0));
        assert_eq!(decide(Rule, &snapshot(0, 0, &[BUSY, FRESH, STALE])), (2, 1), "one idle stays");
    }

    #[test]
    fn adaptive_grace() {
        use PolicyName::AdaptiveGrace as Rule;
        let rule = Elastic { rule: Rule, settings: Settings::default() };
        let mut memory = Memory::default();
        rule.decide(&snapshot(0, 0, &[BUSY]), &mut memory);
        assert_eq!(memory.grace_s, Some(65.0), "busy workers are worth keeping");
        rule.decide(&snapshot(0, 0, &[FRESH]), &mut memory);
        assert_eq!(memory.grace_s, Some(65.0), "asked again at the same instant, it stays");
        memory.adapted_at_s = Some(0.0);
        memory.grace_s = Some(30.0);
        rule.decide(&snapshot(0, 0, &[FRESH]), &mut memory);
        assert_eq!(memory.grace_s, Some(30.0), "never below half of what was set");
    }
}
