//! The guard of deadlines: how much on-demand capacity, and from when.
//!
//! Whatever runs on spot can vanish this second, with its progress since the last checkpoint. So a deadline is safe
//! only as long as on-demand machines, started now, could do all uncommitted work in time. For work `W` with a longest
//! task `p`, `h` work seconds a second that are ready and `n` that boot for `b`, any order of the tasks is done by `R`
//! if `h·(R − p) + n·(R − p − b) ≥ W` (R. L. Graham's bound for list scheduling, 1966). The *last responsible moment* is
//! the last at which an `n` within reason solves it. Demands are added up in the order of their deadlines.

use sheaf_core::Lane;

use super::held_rate;
use crate::policies::Held;
use crate::policies::held::by_price;
use crate::{Demand, Infeasible, Settings, Snapshot};

/// The work that is due by a deadline, that of earlier deadlines included.
pub(super) struct DueBy<'a> {
    pub(super) demand: &'a Demand,
    pub(super) deadline_at_s: f64,
    pub(super) work_s: f64,
    pub(super) longest_s: f64,
}

/// Sums up `demands` by deadline, earliest first; those without one or without work are left out.
pub(super) fn by_deadline<'a>(demands: &[&'a Demand]) -> Vec<DueBy<'a>> {
    let due = demands.iter().filter(|demand| demand.uncommitted_s > 0.0);
    let mut due: Vec<(f64, &Demand)> = due.filter_map(|demand| Some((demand.deadline_at_s?, *demand))).collect();
    due.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut work_s, mut longest_s) = (0.0, 0.0f64);
    let sums = due.into_iter().map(|(deadline_at_s, demand)| {
        work_s += demand.uncommitted_s;
        longest_s = longest_s.max(demand.longest_s);
        DueBy { demand, deadline_at_s, work_s, longest_s }
    });
    sums.collect()
}

/// What guards the deadlines of a snapshot.
pub(super) struct Guard {
    /// True when on-demand machines are to be started now.
    pub(super) acts: bool,
    /// True when on-demand machines that idle would be started now if they were not there.
    pub(super) keeps: bool,
    /// Work seconds a second to start.
    needed: f64,
    because: String,
    /// Deadlines that are not guarded, and why.
    unguarded: Vec<String>,
    pub(super) infeasible: Vec<Infeasible>,
}

/// What the machines that stay can do.
struct Stable {
    ready: f64,
    booting: f64,
    /// All that may be added.
    addable: f64,
    boot_s: f64,
    /// Work seconds a second of the smallest machine: nothing less can be started.
    machine: f64,
    /// Work seconds a second of the slowest slot: what a long task may meet.
    speed: f64,
}

impl Stable {
    fn of(snapshot: &Snapshot) -> Self {
        let pools = || snapshot.pools.iter().filter(|pool| pool.market == Lane::OnDemand && pool.machines_max > 0);
        let ready = held_rate(snapshot, Lane::OnDemand, true);
        let held = held_rate(snapshot, Lane::OnDemand, false);
        let all: f64 = pools().map(|pool| pool.rate() * f64::from(pool.machines_max)).sum();
        Self {
            ready,
            booting: held - ready,
            addable: (all - held).max(0.0),
            boot_s: pools().map(|pool| pool.boot_p95_s).fold(0.0, f64::max),
            machine: pools().map(crate::Pool::rate).fold(f64::INFINITY, f64::min),
            speed: pools().map(|pool| pool.speed).fold(f64::INFINITY, f64::min),
        }
    }

    /// The work seconds a second to add so that `sum` is done when `left_s` are left; infinite when none would do.
    fn needed(&self, sum: &DueBy, left_s: f64, ready: f64) -> f64 {
        let ready_s = (left_s - sum.longest_s / self.speed).max(0.0);
        let booted_s = ready_s - self.boot_s;
        let missing = sum.work_s - ready * ready_s - self.booting * booted_s.max(0.0);
        if missing <= 0.0 {
            0.0
        } else if booted_s > 0.0 {
            missing / booted_s
        } else {
            f64::INFINITY
        }
    }
}

pub(super) fn of(snapshot: &Snapshot, demands: &[&Demand], held: &Held, settings: &Settings) -> Guard {
    let (because, unguarded, infeasible) = Default::default();
    let mut guard = Guard { acts: false, keeps: false, needed: 0.0, because, unguarded, infeasible };
    let stable = Stable::of(snapshot);
    // What is to be started there now counts: nothing is lost as long as it comes.
    let spot = held.rate(Lane::Spot);
    let mut affordable = Vec::with_capacity(demands.len());
    for &demand in demands {
        match unpaid(snapshot, demand) {
            None => affordable.push(demand),
            Some(why) if demand.deadline_at_s.is_some() => guard.unguarded.push(why),
            Some(_) => {}
        }
    }
    for sum in by_deadline(&affordable) {
        let left_s = sum.deadline_at_s - settings.margin_s - snapshot.now_s;
        let now = stable.needed(&sum, left_s, stable.ready);
        if now > stable.addable * (1.0 + 1e-9) {
            guard.infeasible.push(earliest(snapshot, &sum, &stable, settings));
        }
        let later = stable.needed(&sum, left_s - settings.period_s, stable.ready);
        // Each slot costs a boot, and at its end half of a task for which others still run.
        let lost_s = (stable.boot_s + sum.longest_s / stable.speed / 2.0).max(1.0);
        let reasonable = (settings.guard_loss_share * sum.work_s / lost_s).max(stable.machine);
        // While spot would still be in time, only what is impossible a period later makes us start.
        let on_spot_s = if spot > 0.0 { sum.work_s / spot + sum.longest_s + stable.boot_s } else { f64::INFINITY };
        let reach = |needed: f64, all: f64| {
            needed > 0.0 && (needed > all || (on_spot_s > left_s && needed > reasonable.min(all)))
        };
        if reach(later, stable.addable) {
            guard.acts = true;
            if now >= guard.needed {
                guard.needed = now;
                guard.because = format!(
                    "{}: {:.0} s of uncommitted work, longest {:.0} s, {left_s:.0} s left: that needs, started now, {}; \
                     a period later, {}",
                    sum.demand.job,
                    sum.work_s,
                    sum.longest_s,
                    rate(now),
                    rate(later)
                );
            }
        }
        let without = stable.needed(&sum, left_s - settings.period_s, 0.0);
        guard.keeps |= reach(without, stable.addable + stable.ready);
    }
    guard
}

/// A rate in words.
fn rate(rate: f64) -> String {
    if rate.is_finite() { format!("{rate:.1} work seconds a second") } else { "more than there can be".to_owned() }
}

/// Says so when the demand's budget does not pay for doing what is left of it on-demand.
fn unpaid(snapshot: &Snapshot, demand: &Demand) -> Option<String> {
    let left = demand.budget_left?;
    let stable = by_price(snapshot, |pool| pool.market == Lane::OnDemand && pool.machines_max > 0);
    let price = stable.first().map_or(0.0, |&pool| snapshot.pools[pool].price_per_work_s());
    let (job, work_s) = (&demand.job, demand.uncommitted_s);
    let cost = work_s * price;
    (cost > left).then(|| {
        format!(
            "{job}: {work_s:.0} s of uncommitted work cost ${cost:.5} on-demand, and ${left:.5} are left: its deadline \
             is not guarded"
        )
    })
}

fn earliest(snapshot: &Snapshot, sum: &DueBy, stable: &Stable, settings: &Settings) -> Infeasible {
    let all = stable.ready + stable.booting + stable.addable;
    let busy_s = if all > 0.0 { sum.work_s / all + sum.longest_s / stable.speed } else { f64::INFINITY };
    let earliest_finish_at_s = snapshot.now_s + settings.margin_s + stable.boot_s + busy_s;
    Infeasible { job: sum.demand.job.clone(), earliest_finish_at_s }
}

impl Guard {
    /// Wants the machines the guard needs, cheapest work first.
    pub(super) fn start(&self, snapshot: &Snapshot, held: &mut Held, reasons: &mut Vec<String>) {
        reasons.extend(self.unguarded.iter().cloned());
        if !self.acts {
            return;
        }
        let mut missing = self.needed;
        let mut started = 0;
        for pool in by_price(snapshot, |pool| pool.market == Lane::OnDemand) {
            let rate = snapshot.pools[pool].rate();
            let count = (missing / rate).ceil().clamp(0.0, f64::from(u32::MAX)) as u32;
            let added = held.add(pool, count);
            missing -= f64::from(added) * rate;
            started += added;
            if missing <= 0.0 {
                break;
            }
        }
        reasons.insert(0, format!("guard: {}; {started} on-demand machines start", self.because));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Activity, Machine, Pool};

    /// Ten on-demand slots that boot in 50 s, and 1000 s of work in tasks of at most 100 s.
    fn snapshot(now_s: f64, machines: Vec<Machine>) -> Snapshot {
        let stable =
            Pool { market: Lane::OnDemand, price_per_hour: 1.0, boot_p95_s: 50.0, machines_max: 10, ..Pool::default() };
        let spot = Pool { market: Lane::Spot, price_per_hour: 0.3, machines_max: 10, ..stable.clone() };
        Snapshot { now_s, pools: vec![stable, spot], machines, ..Snapshot::default() }
    }

    fn work(deadline_at_s: f64) -> Demand {
        Demand {
            job: "bag".to_owned(),
            waiting_tasks: 10,
            uncommitted_s: 1000.0,
            longest_s: 100.0,
            deadline_at_s: Some(deadline_at_s),
            ..Demand::default()
        }
    }

    fn guard(snapshot: &Snapshot, demand: &Demand) -> Guard {
        let settings = Settings { margin_s: 0.0, period_s: 10.0, guard_loss_share: 0.3, ..Settings::default() };
        of(snapshot, &[demand], &Held::new(snapshot), &settings)
    }

    #[test]
    fn waits_for_the_last_responsible_moment() {
        // Without spot, 0.3 · 1000 / (50 + 100 / 2) = 3 slots are within reason: 1000 / (left − 150) > 3 from left = 483 on.
        assert!(!guard(&snapshot(500.0, vec![]), &work(1000.0)).acts);
        let late = guard(&snapshot(510.0, vec![]), &work(1000.0));
        assert!(late.acts && late.infeasible.is_empty());
        assert!((late.needed - 1000.0 / 340.0).abs() < 1e-9);
    }

    #[test]
    fn while_spot_would_be_in_time_it_waits_until_all_there_is_is_needed() {
        let spot = |id| Machine { id, pool: 1, activity: Activity::Leased { slots: 1 } };
        let machines: Vec<Machine> = (0..10).map(spot).collect();
        // All ten slots are needed from left = 250 on.
        assert!(!guard(&snapshot(735.0, machines.clone()), &work(1000.0)).acts);
        assert!(guard(&snapshot(741.0, machines), &work(1000.0)).acts);
    }

    #[test]
    fn spot_that_is_about_to_start_counts() {
        // 1000 / (400 − 150) slots are needed: more than within reason, and fewer than there are.
        let (empty, demand) = (snapshot(600.0, vec![]), work(1000.0));
        let settings = Settings { margin_s: 0.0, period_s: 10.0, guard_loss_share: 0.3, ..Settings::default() };
        let mut held = Held::new(&empty);
        assert!(of(&empty, &[&demand], &held, &settings).acts);
        held.add(1, 10);
        assert!(!of(&empty, &[&demand], &held, &settings).acts);
    }

    #[test]
    fn what_is_held_counts() {
        let stable = |id| Machine { id, pool: 0, activity: Activity::Leased { slots: 1 } };
        let machines: Vec<Machine> = (0..4).map(stable).collect();
        let guard = guard(&snapshot(640.0, machines), &work(1000.0));
        assert!(!guard.acts, "4 · (350 − 100) is just enough");
        assert!(guard.keeps);
    }

    #[test]
    fn an_infeasible_deadline_is_said_with_the_earliest_finish() {
        let guard = guard(&snapshot(0.0, vec![]), &work(200.0));
        assert_eq!(guard.infeasible, [Infeasible { job: "bag".to_owned(), earliest_finish_at_s: 250.0 }]);
    }

    #[test]
    fn a_budget_that_does_not_pay_on_demand_is_not_guarded() {
        let poor = Demand { budget_left: Some(0.2), ..work(300.0) };
        let left_alone = guard(&snapshot(0.0, vec![]), &poor);
        assert!(!left_alone.acts);
        let said = "bag: 1000 s of uncommitted work cost $0.27778 on-demand, and $0.20000 are left: its deadline is not \
                    guarded";
        assert_eq!(left_alone.unguarded, [said]);
        let rich = guard(&snapshot(0.0, vec![]), &Demand { budget_left: Some(0.3), ..poor });
        assert!(rich.acts && rich.unguarded.is_empty());
    }

    #[test]
    fn earlier_deadlines_come_first() {
        let (first, second) = (work(1000.0), work(2000.0));
        let sums = by_deadline(&[&second, &first]);
        assert_eq!(
            sums.iter().map(|sum| (sum.deadline_at_s, sum.work_s)).collect::<Vec<_>>(),
            [(1000.0, 1000.0), (2000.0, 2000.0)]
        );
    }
}
