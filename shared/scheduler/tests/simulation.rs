//! The simulator and the policies in it: nothing is lost or done twice, a seed decides, deadlines hold, and the figures
//! that were measured or published elsewhere come out.

use sheaf_core::Lane;
use sheaf_scheduler::formats::{
    arrivals,
    env::{Env, Instance},
    job::{Job, Task},
    spot,
    spot::Outage,
};
use sheaf_scheduler::hads::{Bag, cc, cost_and_makespan};
use sheaf_scheduler::sim::bags::{BagOutcome, BagRun, Player};
use sheaf_scheduler::sim::elastic::{self, StreamRun};
use sheaf_scheduler::sim::faults::{FaultKind, FaultMode, Faults, Poisson};
use sheaf_scheduler::sim::fleet::Fleet;
use sheaf_scheduler::sim::published::{self, BAGS, DEADLINE_S};
use sheaf_scheduler::{PolicyName, Settings, plan, simulate};

fn j60() -> Bag {
    published::bag(&BAGS[0], 1).expect("the made-up bags are valid")
}

fn run(bag: &Bag, policy: PolicyName, run: &BagRun) -> (BagOutcome, Fleet) {
    Player::new(bag, Some(policy), run.deadline_s).expect("the bag fits its deadline").run(run)
}

fn faulty(scenario: (f64, f64), mode: FaultMode, kind: FaultKind, seed: u64) -> BagRun {
    BagRun { faults: Faults::expected(scenario, DEADLINE_S, mode), kind, seed, ..BagRun::calm(DEADLINE_S) }
}

/// Each task has one outcome, from a run that was the only one to end it, and no core ran two tasks at once.
fn nothing_is_lost_or_done_twice(fleet: &Fleet) {
    assert_eq!(fleet.open_tasks(), 0);
    assert!(fleet.runs.iter().all(|run| !run.alive));
    let mut ended = vec![0; fleet.tasks.len()];
    for run in &fleet.runs {
        let done_s = fleet.tasks[run.task].done_at_s.expect("every task has its outcome");
        assert!(run.started_s <= done_s, "nothing starts after its outcome");
        ended[run.task] += u32::from(run.ends_s == done_s);
    }
    assert!(ended.iter().all(|runs| *runs >= 1), "every outcome is from a run that ended then");
    let paid: f64 = fleet.machine_s(|_| true);
    let most = fleet.machines.iter().map(|machine| fleet.now_s - machine.launched_s).sum::<f64>();
    assert!(paid <= most + 1e-6, "no machine is paid for longer than it was there");
}

#[test]
fn under_every_policy_and_fault_every_task_ends_once() {
    let bag = j60();
    for policy in [PolicyName::Sheaf, PolicyName::HadsCc] {
        for mode in [FaultMode::Together, FaultMode::Each] {
            for kind in [FaultKind::Hibernate, FaultKind::Terminate] {
                for seed in 1..4 {
                    let (_, fleet) = run(&bag, policy, &faulty((5.0, 2.5), mode, kind, seed));
                    nothing_is_lost_or_done_twice(&fleet);
                }
            }
        }
    }
}

#[test]
fn a_seed_decides() {
    let bag = j60();
    let run = |seed| run(&bag, PolicyName::Sheaf, &faulty((5.0, 5.0), FaultMode::Each, FaultKind::Hibernate, seed)).0;
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn ours_misses_no_deadline_and_costs_little_more_than_half_at_the_worst_of_faults() {
    let bag = j60();
    let (on_demand, _) = Player::new(&bag, None, DEADLINE_S).unwrap().run(&BagRun::calm(DEADLINE_S));
    assert_eq!(on_demand.late_tasks, 0);
    for mode in [FaultMode::Together, FaultMode::Each] {
        let mut cost = 0.0;
        for seed in 1..=10 {
            for kind in [FaultKind::Hibernate, FaultKind::Terminate] {
                let (outcome, _) = run(&bag, PolicyName::Sheaf, &faulty((5.0, 0.0), mode, kind, seed));
                assert_eq!(outcome.late_tasks, 0, "{mode:?} {kind:?} {seed}");
                cost += outcome.cost / 20.0;
            }
        }
        assert!(cost < 0.65 * on_demand.cost, "{mode:?}: {cost} against {}", on_demand.cost);
    }
}

#[test]
fn even_without_any_spot_machine_the_deadline_is_kept() {
    let bag = j60();
    let outages = spot::parse("c3.large,0,\nc4.large,0,\nc3.xlarge,0,").unwrap();
    let never = BagRun { faults: Faults::Trace(outages), ..BagRun::calm(DEADLINE_S) };
    let (outcome, fleet) = run(&bag, PolicyName::Sheaf, &never);
    assert_eq!((outcome.late_tasks, outcome.machines.0), (0, 0));
    let (on_demand, _) = Player::new(&bag, None, DEADLINE_S).unwrap().run(&BagRun::calm(DEADLINE_S));
    assert!(outcome.cost < 1.02 * on_demand.cost, "waiting for spot costs next to nothing: {outcome:?}");
    nothing_is_lost_or_done_twice(&fleet);
}

#[test]
fn an_outage_at_the_worst_moment_is_survived() {
    let bag = j60();
    for at_s in (100..2700).step_by(100) {
        let all = ["c3.large", "c4.large", "c3.xlarge"].map(|machine| format!("{machine},{at_s},"));
        let outages = spot::parse(&all.join("\n")).unwrap();
        // One slot's worth of spot machines is slow enough to be caught at every moment.
        let mut narrow = bag.clone();
        narrow.env.spot_max = 4;
        let (outcome, _) =
            run(&narrow, PolicyName::Sheaf, &BagRun { faults: Faults::Trace(outages), ..BagRun::calm(DEADLINE_S) });
        assert_eq!(outcome.late_tasks, 0, "outage at {at_s} s");
    }
}

#[test]
fn a_large_bag_under_reclaims_is_in_time_and_each_task_ends_once() {
    // 22,600 tasks of a sequence comparison on 600 machines for an hour and a half, each reclaimed every 25 minutes.
    let of = published::Published { name: "large", tasks: 22_600, runtime_s: (20.0, 60.0, 240.0), ..BAGS[0] };
    let mut bag = published::bag(&of, 1).unwrap();
    (bag.env.spot_max, bag.env.on_demand_max) = (600, 600);
    for instance in &mut bag.env.instances {
        (instance.spot_max, instance.on_demand_max) = (200, 200);
    }
    let deadline_s = 3600.0;
    let faults = Faults::Poisson(Poisson { faults: 1.0, resumes: 1.0, horizon_s: 1500.0, mode: FaultMode::Each });
    let large = BagRun { faults, kind: FaultKind::Terminate, seed: 5, ..BagRun::calm(deadline_s) };
    let (outcome, fleet) = run(&bag, PolicyName::Sheaf, &large);
    assert!(outcome.reclaims > 100, "{outcome:?}");
    assert_eq!(outcome.late_tasks, 0, "{outcome:?}");
    nothing_is_lost_or_done_twice(&fleet);
}

#[test]
fn elastic_workers_wait_for_their_boot_or_for_each_other() {
    // 25 requests in a quarter of an hour, each of one to ten minutes.
    let rows = (0..25).map(|i| format!("{}.0,vid-{i}.mp4,4000,fast,{}.0\n", 5 + i % 7 * 10, 60 + i * 97 % 541));
    let text: String = std::iter::once("delay,item,bitrate,speed,service_s\n".to_owned()).chain(rows).collect();
    let trace = arrivals::parse(&text).unwrap();
    let run = |policy, workers_max| {
        let settings = Settings { workers_max, ..StreamRun::default().settings };
        elastic::run(&trace, policy, &StreamRun { settings, ..StreamRun::default() })
    };
    let (few, any) = (run(PolicyName::MinimizeWorkers, 5), run(PolicyName::MinimizeWorkers, 25));
    assert_eq!((few.requests, any.requests), (25, 25));
    // With as many workers as requests nobody waits longer than a boot; with few, for those before.
    assert!(any.wait_p95_s <= 17.9 + 1e-6 && few.wait_mean_s > any.wait_mean_s, "{any:?} {few:?}");
    assert!(few.worker_s <= any.worker_s, "{any:?} {few:?}");
}

#[test]
fn hads_plans_the_bags_as_its_papers_do() {
    for published in &BAGS {
        let bag = published::bag(published, 1).unwrap();
        let queues = cc::plan(&bag, DEADLINE_S, true).unwrap();
        let (cost, makespan_s) = cost_and_makespan(&bag, &queues);
        assert!(queues.iter().all(|queue| queue.market == Lane::Spot), "{}", published.name);
        assert!(makespan_s < cc::spot_deadline_s(&bag, DEADLINE_S).unwrap());
        // Between the price of the bare work and what was published, which includes boots and waiting.
        assert!(cost < published.hads.0 && cost > 0.5 * published.hads.0, "{}: {cost}", published.name);
        let mut tasks: Vec<usize> = queues.iter().flat_map(|queue| queue.tasks.iter().copied()).collect();
        tasks.sort_unstable();
        assert_eq!(tasks, (0..bag.len()).collect::<Vec<_>>());
    }
}

/// The machine types that the published plan of ED200 was made with, three of each and market.
fn env_of_plan() -> Env {
    let kind = |machine: &str, vcpu, memory_gb: f64, gflops, on_demand_price, spot_price| Instance {
        machine: machine.to_owned(),
        vcpu,
        memory_mb: memory_gb * 1024.0,
        gflops,
        on_demand_price,
        spot_price,
        on_demand_max: 3,
        spot_max: 3,
        baseline: None,
        credits_per_hour: 0.0,
    };
    let instances = vec![
        kind("c3.large", 2, 3.75, 22.09, 0.105, 0.0296),
        kind("c3.xlarge", 4, 7.5, 40.73, 0.21, 0.0768),
        kind("c4.large", 2, 3.75, 44.46, 0.1, 0.031),
        Instance {
            baseline: Some(0.3),
            credits_per_hour: 96.0,
            spot_max: 0,
            ..kind("t3.large", 4, 16.0, 38.0, 0.0832, 0.0)
        },
    ];
    Env { instances, on_demand_max: 10, spot_max: 10 }
}

/// The bag called ED200 is 200 equal tasks. Its published plan has 2040 s and $0.27037: all spot machines that the limits allow but
/// one of the dearest type, and one on-demand machine for what they cannot do before the spot deadline.
#[test]
fn hads_finds_the_published_plan_of_equal_tasks() {
    let task = |number: usize| Task {
        id: number.to_string(),
        memory_mb: 167.808_53,
        io: 0.0,
        command: "sh exec.sh".to_owned(),
        runtime_s: [("c3.xlarge", 204.0), ("c3.large", 210.0), ("c4.large", 195.0), ("t3.large", 190.0)]
            .map(|(machine, seconds)| (machine.to_owned(), seconds))
            .to_vec(),
    };
    let job = Job { job_id: "101".to_owned(), job_name: "ED200".to_owned(), tasks: (0..200).map(task).collect() };
    let bag = Bag::new(job, env_of_plan()).unwrap();
    let (table, _) = plan::plan(&bag, DEADLINE_S, None, PolicyName::HadsCc, &Settings::default()).unwrap();
    assert_eq!((table.makespan_s, (table.cost * 1e6).round()), (2040.0, 270_372.0), "{table:?}");
    let fleet: Vec<_> =
        table.fleet.iter().map(|line| (line.count, line.machine.as_str(), line.market.as_str())).collect();
    let one = (1, "c3.xlarge", "on-demand");
    assert_eq!(
        fleet,
        [(3, "c4.large", "preemptible"), (2, "c3.xlarge", "preemptible"), (3, "c3.large", "preemptible"), one]
    );
}

#[test]
fn a_plan_says_fleet_makespan_cost_and_slack() {
    let bag = j60();
    for policy in [PolicyName::HadsCc, PolicyName::BurstHads, PolicyName::Sheaf] {
        let (table, map) = plan::plan(&bag, DEADLINE_S, None, policy, &Settings::default()).unwrap();
        assert!(table.feasible && table.slack_s > 0.0 && !table.fleet.is_empty(), "{table:?}");
        let planned: usize = map.machines.iter().flat_map(|machine| &machine.cores).map(Vec::len).sum();
        assert_eq!(planned, bag.len(), "{policy}");
        let json = map.to_json();
        assert_eq!(json["scheduler"], policy.as_str());
        assert_eq!(json["instances"].as_object().unwrap().len(), map.machines.len());
    }
    let (late, _) = plan::plan(&bag, 400.0, None, PolicyName::Sheaf, &Settings::default()).unwrap();
    assert!(!late.feasible && late.reasons[0].contains("the earliest finish that can is"), "{:?}", late.reasons);
    assert!(plan::plan(&bag, 200.0, None, PolicyName::HadsCc, &Settings::default()).is_err());
}

#[test]
fn an_infeasible_deadline_has_an_earliest_finish_that_can_be_planned() {
    let mut bag = j60();
    let settings = Settings::default();
    for policy in [PolicyName::HadsCc, PolicyName::BurstHads] {
        assert!(plan::plan(&bag, 200.0, None, policy, &settings).is_err());
        let earliest_s = plan::earliest_finish_s(&bag, 200.0, policy, &settings).unwrap();
        assert!(plan::plan(&bag, earliest_s, None, policy, &settings).is_ok(), "{policy}: {earliest_s}");
        assert!(plan::plan(&bag, earliest_s - 2.0, None, policy, &settings).is_err(), "{policy}: {earliest_s}");
    }
    bag.env.instances.iter_mut().for_each(|instance| (instance.spot_max, instance.on_demand_max) = (0, 0));
    assert_eq!(plan::earliest_finish_s(&bag, 200.0, PolicyName::HadsCc, &settings), None);
}

#[test]
fn a_budget_that_is_spent_ends_the_run() {
    let bag = j60();
    let whole = run(&bag, PolicyName::Sheaf, &BagRun::calm(DEADLINE_S)).0;
    let with = |budget: f64| run(&bag, PolicyName::Sheaf, &BagRun { budget: Some(budget), ..BagRun::calm(DEADLINE_S) });
    assert_eq!(with(1e9).0, whole, "one that pays for everything changes nothing");
    let (half, fleet) = with(whole.cost / 2.0);
    assert!(half.open_tasks > 0 && half.late_tasks == half.open_tasks && half.open_tasks < 60, "{half:?}");
    // The policy is asked every 15 s, and gives what runs two minutes.
    let per_s: f64 = fleet.machines.iter().map(|of| fleet.pools[of.pool].pool.price_per_hour / 3600.0).sum();
    let over = half.cost - whole.cost / 2.0;
    assert!((0.0..=per_s * 135.0).contains(&over), "{over} of {per_s} a second");
    assert!(fleet.now_s < DEADLINE_S, "it ends when it can: {}", fleet.now_s);
    let (least, fleet) = with(1e-9);
    assert!(least.open_tasks == 60 && fleet.now_s <= 15.0 && fleet.live().is_empty(), "{least:?}");
    for seed in 1..6 {
        let faults = faulty((5.0, 2.5), FaultMode::Together, FaultKind::Hibernate, seed);
        let (outcome, fleet) = run(&bag, PolicyName::Sheaf, &BagRun { budget: Some(0.03), ..faults.clone() });
        assert!(fleet.live().is_empty() && outcome.late_tasks >= outcome.open_tasks, "{seed}: {outcome:?}");
        let ignored = run(&bag, PolicyName::HadsCc, &BagRun { budget: Some(0.03), ..faults.clone() }).0;
        assert_eq!(ignored, run(&bag, PolicyName::HadsCc, &faults).0);
    }
}

/// All spot is gone for ever before anything of it has ended.
#[test]
fn a_budget_that_does_not_pay_on_demand_leaves_the_deadline_unguarded() {
    let bag = j60();
    let outage = |of: &Instance| Outage { zone: of.machine.clone(), down_s: 70.0, up_s: f64::INFINITY };
    let outages = bag.env.instances.iter().map(outage).collect();
    let lost = BagRun { faults: Faults::Trace(outages), kind: FaultKind::Terminate, ..BagRun::calm(DEADLINE_S) };
    let (guarded, _) = run(&bag, PolicyName::Sheaf, &lost);
    assert_eq!((guarded.late_tasks, guarded.machines.1 > 0), (0, true), "{guarded:?}");
    let (poor, _) = run(&bag, PolicyName::Sheaf, &BagRun { budget: Some(guarded.cost / 2.0), ..lost.clone() });
    assert_eq!((poor.open_tasks, poor.machines.1), (60, 0), "{poor:?}");
    let (rich, _) = run(&bag, PolicyName::Sheaf, &BagRun { budget: Some(guarded.cost * 2.0), ..lost });
    assert_eq!(rich, guarded);
}

#[test]
fn a_plan_says_whether_the_budget_pays() {
    let bag = j60();
    let plan = |budget| plan::plan(&bag, DEADLINE_S, budget, PolicyName::Sheaf, &Settings::default()).unwrap();
    let (whole, _) = plan(None);
    let (enough, map) = plan(Some(whole.cost * 1.01));
    assert!(enough.feasible && !enough.over_budget && enough.cost == whole.cost, "{enough:?}");
    assert_eq!(map, plan(None).1);
    let unguarded = |reason: &String| reason.ends_with("its deadline is not guarded");
    assert!(enough.reasons.iter().any(unguarded), "on-demand is dearer: {:?}", enough.reasons);
    let (poor, map) = plan(Some(whole.cost / 2.0));
    assert!(!poor.feasible && poor.over_budget && poor.tasks_left > 0, "{poor:?}");
    assert!(poor.reasons[0].contains("are spent with") && poor.reasons[0].contains("of 60 tasks left"), "{poor:?}");
    let planned: usize = map.machines.iter().flat_map(|machine| &machine.cores).map(Vec::len).sum();
    assert_eq!(planned as u64, 60 - poor.tasks_left, "what is cut short is not planned");
    let (ignored, _) = plan::plan(&bag, DEADLINE_S, Some(1e-9), PolicyName::Fixed, &Settings::default()).unwrap();
    assert!(ignored.budget.is_none() && !ignored.over_budget);
}

fn entry(bag: Bag) -> simulate::Entry {
    simulate::Entry { name: "J60".to_owned(), bag }
}

#[test]
fn the_table_has_a_row_for_every_cell() {
    let trace = spot::parse("c3.large,100,500\nc3.large,900,\n").unwrap();
    let mut scenarios = simulate::Scenario::grid(&published::SCENARIOS, &[FaultMode::Together, FaultMode::Each]);
    scenarios.push(simulate::Scenario::Trace { name: "night".to_owned(), outages: trace });
    let simulation = simulate::BagSimulation {
        scenarios,
        seeds: 2,
        policies: vec![PolicyName::HadsCc, PolicyName::Sheaf],
        ..simulate::BagSimulation::default()
    };
    let table = simulate::bags(&[entry(j60())], &simulation, &simulate::InTurn);
    let rows = &table.rows;
    assert!(table.refused.is_empty(), "{:?}", table.refused);
    assert_eq!(rows.len(), 1 + 2 * (1 + 2 * 5 + 1));
    assert!(rows.iter().all(|row| row.misses == 0 && row.cost > 0.0 && row.of_on_demand.is_some()));
    let published = |row: &&simulate::BagRow| row.published.is_some();
    assert_eq!(rows.iter().filter(published).count(), 2, "on-demand and HADS without faults: {rows:?}");
    let json = serde_json::to_string(&table).unwrap();
    let again: simulate::BagTable = serde_json::from_str(&json).unwrap();
    assert_eq!(again.rows.len(), rows.len());

    let means = simulate::means(rows);
    let hads: Vec<_> = means.iter().filter(|mean| mean.policy == PolicyName::HadsCc).collect();
    assert_eq!(hads.iter().map(|mean| mean.cells).collect::<Vec<_>>(), [5, 5, 1]);
    assert_eq!((hads[0].published, hads[2].published), (Some(0.606), None));
    let ours: Vec<_> = rows.iter().map(|row| simulate::BagRow { job: "night".to_owned(), ..row.clone() }).collect();
    assert!(simulate::means(&ours).iter().all(|mean| mean.published.is_none()), "of other bags nothing was published");
    let together: Vec<f64> = rows
        .iter()
        .filter(|row| row.policy == Some(PolicyName::HadsCc) && row.mode == Some(FaultMode::Together))
        .filter_map(|row| row.of_on_demand)
        .collect();
    assert!((hads[0].of_on_demand - together.iter().sum::<f64>() / 5.0).abs() < 1e-9);
}

#[test]
fn a_policy_that_cannot_plan_a_bag_is_named_and_stops_no_other() {
    let simulation = simulate::BagSimulation {
        deadline_s: 350.0,
        scenarios: vec![simulate::Scenario::Calm],
        policies: vec![PolicyName::HadsCc, PolicyName::Sheaf],
        ..simulate::BagSimulation::default()
    };
    let table = simulate::bags(&[entry(j60())], &simulation, &simulate::InTurn);
    let refused: Vec<_> = table.refused.iter().map(|refusal| refusal.policy).collect();
    assert_eq!(refused, [None, Some(PolicyName::HadsCc)], "{table:?}");
    assert_eq!(table.rows.iter().map(|row| row.policy).collect::<Vec<_>>(), [Some(PolicyName::Sheaf)]);
    assert!(table.rows[0].of_on_demand.is_none() && table.rows[0].misses == 1);
}

#[test]
fn a_run_whose_budget_is_spent_is_a_miss() {
    let simulation = simulate::BagSimulation {
        budget: Some(0.03),
        scenarios: simulate::Scenario::grid(&[(3.0, 2.5)], &[FaultMode::Each]),
        seeds: 3,
        policies: vec![PolicyName::HadsCc, PolicyName::Sheaf],
        ..simulate::BagSimulation::default()
    };
    let table = simulate::bags(&[entry(j60())], &simulation, &simulate::InTurn);
    let misses = |row: &simulate::BagRow| if row.policy == Some(PolicyName::Sheaf) { row.runs } else { 0 };
    assert!(table.rows.iter().all(|row| row.misses == misses(row)), "{:?}", table.rows);
}

#[test]
fn the_frontier_of_a_stream_is_what_nothing_beats() {
    let rows = (0..12).map(|i| format!("{}.0,vid-{i}.mp4,4000,fast,{}.0\n", 5 + i % 7 * 10, 60 + i * 97 % 541));
    let trace = arrivals::parse(&rows.collect::<String>()).unwrap();
    let sweep = simulate::Sweep {
        policies: vec![PolicyName::MinimizeWorkers, PolicyName::GracePeriod, PolicyName::Sheaf],
        workers_max: vec![1, 4],
        grace_s: vec![30.0, 300.0],
        latency_s: vec![10.0],
        ..simulate::Sweep::default()
    };
    let rows = simulate::stream(&trace, &sweep, &StreamRun::default(), &simulate::InTurn);
    assert_eq!(rows.len(), 2 + 4 + 2);
    assert_eq!(rows[2].parameter.as_ref().map(|of| (of.name.as_str(), of.value)), Some(("grace_s", 30.0)));
    let beats = |a: &simulate::StreamRow, b: &simulate::StreamRow| {
        let (a, b) = (&a.outcome, &b.outcome);
        a.wait_mean_s <= b.wait_mean_s
            && a.worker_s <= b.worker_s
            && (a.wait_mean_s < b.wait_mean_s || a.worker_s < b.worker_s)
    };
    assert!(rows.iter().any(|row| row.on_frontier) && rows.iter().any(|row| !row.on_frontier));
    for row in &rows {
        assert_eq!(row.on_frontier, !rows.iter().any(|other| beats(other, row)), "{row:?}");
    }
}
