//! A fixed number of machines: the yardstick, and what a person sets by hand.

use crate::policies::Held;
use crate::{Activity, Decision, Memory, Policy, PolicyName, Settings, Snapshot};

/// Wants `workers_max` machines of the cheapest pools, whatever there is to do.
#[derive(Debug, Clone)]
pub struct Fixed {
    /// What it was told.
    pub settings: Settings,
}

impl Policy for Fixed {
    fn name(&self) -> PolicyName {
        PolicyName::Fixed
    }

    fn decide(&self, snapshot: &Snapshot, _memory: &mut Memory) -> Decision {
        let mut held = Held::new(snapshot);
        let (have, wanted) = (held.workers(), self.settings.workers_max);
        held.add_workers(wanted.saturating_sub(have));
        for machine in surplus(snapshot, have.saturating_sub(wanted)) {
            held.drain(machine, self.settings.grace_s);
        }
        let (wants, drains) = held.answer();
        let reasons = vec![format!("{wanted} machines are set; {have} are held")];
        Decision { policy: self.name().to_string(), wants, drains, reasons, ..Decision::default() }
    }
}

/// `count` machines to do without: those that lose least first.
fn surplus(snapshot: &Snapshot, count: u32) -> impl Iterator<Item = &crate::Machine> {
    let rank = |activity: &Activity| match activity {
        Activity::Idle { .. } => 0,
        Activity::Booting { .. } => 1,
        Activity::Leased { slots } => 2 + *slots,
        Activity::Draining { .. } | Activity::Hibernated { .. } => u32::MAX,
    };
    let mut machines: Vec<_> = snapshot.machines.iter().filter(|machine| machine.activity.counts()).collect();
    machines.sort_by_key(|machine| (rank(&machine.activity), machine.id));
    machines.into_iter().take(count as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Drain, Machine, Pool, Want};

    #[test]
    fn holds_its_number_and_gives_leased_machines_time() {
        let pool = |price| Pool { price_per_hour: price, machines_max: 2, ..Pool::default() };
        let mut snapshot = Snapshot { pools: vec![pool(3.0), pool(1.0)], ..Snapshot::default() };
        let fixed = |count| Fixed { settings: Settings { workers_max: count, ..Settings::default() } };
        let decision = fixed(3).decide(&snapshot, &mut Memory::default());
        assert_eq!(decision.wants, [Want { pool: 0, machines: 1 }, Want { pool: 1, machines: 2 }], "cheapest first");

        snapshot.machines = vec![
            Machine { id: 1, pool: 1, activity: Activity::Leased { slots: 1 } },
            Machine { id: 2, pool: 1, activity: Activity::Idle { since_s: 0.0 } },
        ];
        let decision = fixed(0).decide(&snapshot, &mut Memory::default());
        assert_eq!(decision.drains, [Drain { machine: 2, give_s: 0.0 }, Drain { machine: 1, give_s: 120.0 }]);
        assert_eq!(decision.wants, []);
    }
}
