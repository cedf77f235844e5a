//! The contract of [`Policy`], over arbitrary snapshots.

use proptest::prelude::*;
use sheaf_core::Lane;
use sheaf_scheduler::policies::backing_off;
use sheaf_scheduler::{Activity, Demand, Machine, Memory, PolicyName, Pool, Settings, Snapshot};

fn pool() -> impl Strategy<Value = Pool> {
    let market = prop_oneof![4 => Just(Lane::Spot), 3 => Just(Lane::OnDemand), 1 => Just(Lane::Lambda)];
    let numbers = (1u32..5, 0.5..2.0f64, 0.01..1.0f64, 0.0..120.0f64, 0.0..10.0f64);
    (market, numbers, 0u32..3, 0u32..8).prop_map(|(market, (slots, speed, price, boot, reclaims), failures, max)| {
        Pool {
            market,
            slots,
            speed,
            price_per_hour: price,
            boot_p95_s: boot,
            reclaims_per_hour: reclaims,
            failures,
            failed_at_s: 900.0,
            machines_max: max,
            ..Pool::default()
        }
    })
}

fn demand() -> impl Strategy<Value = Demand> {
    let deadline = prop_oneof![Just(None), (900.0..6000.0f64).prop_map(Some)];
    let latency = prop_oneof![3 => Just(None), 1 => (1.0..200.0f64).prop_map(Some)];
    let budget = prop_oneof![3 => Just(None), 1 => (-1.0..1.0f64).prop_map(Some)];
    (0u64..60, 0u64..20, 0u64..5, 1.0..300.0f64, deadline, latency, budget, any::<bool>()).prop_map(
        |(waiting, running, arrived, task_s, deadline_at_s, latency_s, budget_left, sealed)| Demand {
            waiting_tasks: waiting,
            running_tasks: running,
            arrived_tasks: arrived.min(waiting),
            waiting_s: waiting as f64 * task_s,
            uncommitted_s: (waiting + running) as f64 * task_s,
            longest_s: if waiting + running > 0 { task_s } else { 0.0 },
            deadline_at_s,
            latency_s,
            budget_left,
            sealed,
            ..Demand::default()
        },
    )
}

fn activity() -> impl Strategy<Value = Activity> {
    prop_oneof![
        (800.0..1000.0f64).prop_map(|since_s| Activity::Booting { since_s }),
        (800.0..1000.0f64).prop_map(|since_s| Activity::Idle { since_s }),
        (1u32..4).prop_map(|slots| Activity::Leased { slots }),
        (1u32..4).prop_map(|slots| Activity::Draining { slots }),
        (800.0..1000.0f64).prop_map(|since_s| Activity::Hibernated { since_s }),
    ]
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let parts = (prop::collection::vec(demand(), 0..4), prop::collection::vec(pool(), 1..6));
    (parts, prop::collection::vec((0usize..6, activity()), 0..12)).prop_map(|((demands, pools), machines)| {
        let machines = machines.into_iter().zip(0..);
        let machine = |((pool, activity), id)| Machine { id, pool: pool % pools.len(), activity };
        Snapshot { now_s: 1000.0, demands, machines: machines.map(machine).collect(), pools }
    })
}

fn held(snapshot: &Snapshot, pool: usize, counts: bool) -> u32 {
    snapshot.machines.iter().filter(|m| m.pool == pool && m.activity.counts() == counts).count() as u32
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn never_more_than_a_pool_may_hold_nor_from_one_that_backs_off(snapshot in snapshot()) {
        for &name in PolicyName::ALL {
            let decision = Settings::default().policy(name).decide(&snapshot, &mut Memory::default());
            for want in &decision.wants {
                let pool = &snapshot.pools[want.pool];
                prop_assert!(want.machines <= pool.machines_max, "{name}");
                if want.machines > held(&snapshot, want.pool, true) {
                    prop_assert!(want.machines + held(&snapshot, want.pool, false) <= pool.machines_max, "{name}");
                    prop_assert!(!backing_off(pool, snapshot.now_s), "{name}");
                }
            }
        }
    }

    #[test]
    fn a_leased_machine_is_given_twice_the_grace(snapshot in snapshot(), workers_max in 0u32..6) {
        let settings = Settings { workers_max, ..Settings::default() };
        for &name in PolicyName::ALL {
            let decision = settings.policy(name).decide(&snapshot, &mut Memory::default());
            for drain in &decision.drains {
                let machine = &snapshot.machines[drain.machine as usize];
                prop_assert_eq!(machine.id, drain.machine);
                if matches!(machine.activity, Activity::Leased { .. } | Activity::Draining { .. }) {
                    prop_assert!(drain.give_s >= 2.0 * settings.grace_s, "{name}");
                }
            }
        }
    }

    #[test]
    fn the_same_question_has_the_same_answer_however_often(snapshot in snapshot()) {
        for &name in PolicyName::ALL {
            let policy = Settings::default().policy(name);
            let mut memory = Memory::default();
            let first = policy.decide(&snapshot, &mut memory);
            prop_assert_eq!(&first, &policy.decide(&snapshot, &mut Memory::default()));
            prop_assert_eq!(first.wants, policy.decide(&snapshot, &mut memory).wants, "{}", name);
        }
    }

    #[test]
    fn more_work_never_wants_less(snapshot in snapshot(), more in 1u64..100, which in 0usize..4) {
        // Lambda's place is taken by machines when there is more to do.
        let mut less = snapshot;
        // More work may cost more than a budget has left, and then is not guarded.
        less.demands.iter_mut().for_each(|demand| demand.budget_left = demand.budget_left.filter(|left| *left <= 0.0));
        less.pools.iter_mut().filter(|pool| pool.market == Lane::Lambda).for_each(|pool| pool.machines_max = 0);
        if less.demands.is_empty() {
            return Ok(());
        }
        let mut snapshot = less.clone();
        let which = which % snapshot.demands.len();
        let demand = &mut snapshot.demands[which];
        let task_s = if demand.longest_s > 0.0 { demand.longest_s } else { 10.0 };
        demand.waiting_tasks += more;
        demand.arrived_tasks += more;
        demand.waiting_s += more as f64 * task_s;
        demand.uncommitted_s += more as f64 * task_s;
        demand.longest_s = task_s;
        for &name in PolicyName::ALL {
            if matches!(name, PolicyName::HadsCc | PolicyName::BurstHads) {
                continue;
            }
            let rate = |of: &Snapshot| -> f64 {
                let wants = Settings::default().policy(name).decide(of, &mut Memory::default()).wants;
                wants.iter().map(|want| f64::from(want.machines) * of.pools[want.pool].rate()).sum()
            };
            prop_assert!(rate(&snapshot) >= rate(&less) - 1e-9, "{name}: {} then {}", rate(&less), rate(&snapshot));
        }
    }
}
