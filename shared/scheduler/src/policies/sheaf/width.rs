//! How wide to run on spot; on on-demand machines for work that may only run there.
//!
//! `m` slots finish the work `W` in `W/m`. Each boots for `b` at the spot price. While the work lies open, reclaims come
//! at the rate `λ`, and one throws what is left of the work, half of it on average, back to on-demand, which costs `Δ`
//! spot prices more. In spot prices that is `m·b + λ·(W/m)·Δ·W/2`, least at `m = W·√(λΔ/2b)`. A deadline and the time
//! open work may take set a floor; the number of open tasks sets a ceiling.

use sheaf_core::Lane;

use super::{guard, held_rate};
use crate::policies::held::by_price;
use crate::{Arrivals, Demand, Settings, Snapshot};

/// How much more than just enough to be in time without on-demand machines: reclaims take their share.
const HEADROOM: f64 = 1.2;

/// The spot capacity wanted.
pub(super) struct Width {
    /// Work seconds a second, in all.
    pub(super) rate: f64,
    /// Why.
    pub(super) because: String,
}

pub(super) fn of(
    snapshot: &Snapshot,
    market: Lane,
    demands: &[&Demand],
    arrivals: &Arrivals,
    settings: &Settings,
) -> Width {
    let pools = by_price(snapshot, |pool| pool.market == market && pool.machines_max > 0);
    let work_s: f64 = demands.iter().map(|demand| demand.uncommitted_s).sum();
    let waiting_s: f64 = demands.iter().map(|demand| demand.waiting_s).sum();
    let Some(&cheapest) = pools.first().filter(|_| work_s > 0.0) else {
        return Width { rate: 0.0, because: "no work".to_owned() };
    };
    let cheapest = &snapshot.pools[cheapest];
    let have = held_rate(snapshot, market, false);
    // Tasks that may not wait for a boot need slots that are booted before they arrive.
    let hasty = demands.iter().any(|demand| demand.latency_s.is_some_and(|latency_s| latency_s < cheapest.boot_p95_s));
    let expected = if hasty { arrivals.expected(snapshot.now_s, cheapest.boot_p95_s) } else { 0.0 };
    if have > 0.0 && expected < 0.5 && (waiting_s <= 0.0 || work_s / have <= cheapest.boot_p95_s) {
        let because = format!("what is held does the {work_s:.0} s of open work before another machine boots");
        return Width { rate: have, because };
    }
    let tasks: u64 = demands.iter().map(|demand| demand.open_tasks()).sum();
    let ceiling = (tasks as f64 + expected.round()) * cheapest.speed;
    let cheap = least_loss(snapshot, &pools, work_s);
    let due = in_time(snapshot, demands, settings, cheapest.boot_p95_s);
    let rate = cheap.max(due).min(ceiling);
    let because = format!(
        "{work_s:.0} s of open work: {cheap:.1} work seconds a second lose least to boots and reclaims, {due:.1} are \
         needed in time, {ceiling:.0} find a task"
    );
    Width { rate, because }
}

/// The rate at which boots and reclaims together cost least.
fn least_loss(snapshot: &Snapshot, pools: &[usize], work_s: f64) -> f64 {
    let of = || pools.iter().map(|&pool| &snapshot.pools[pool]);
    let per_s = of().map(|pool| pool.reclaims_per_hour).sum::<f64>() / pools.len() as f64 / 3600.0;
    let boot_s = of().map(|pool| pool.boot_p95_s).sum::<f64>() / pools.len() as f64;
    let stable = by_price(snapshot, |pool| pool.market == Lane::OnDemand && pool.machines_max > 0);
    let Some(&stable) = stable.first() else { return 0.0 };
    let cheap_price = snapshot.pools[pools[0]].price_per_work_s();
    let dearer = (snapshot.pools[stable].price_per_work_s() / cheap_price - 1.0).max(0.0);
    if boot_s > 0.0 && dearer.is_finite() { work_s * (per_s * dearer / (2.0 * boot_s)).sqrt() } else { work_s }
}

/// The rate that does every demand in its time: by its deadline with headroom, or within its latency target.
fn in_time(snapshot: &Snapshot, demands: &[&Demand], settings: &Settings, boot_s: f64) -> f64 {
    let (open, due): (Vec<&Demand>, Vec<&Demand>) = demands.iter().partition(|demand| demand.deadline_at_s.is_none());
    let open = open.iter().map(|demand| demand.uncommitted_s / demand.latency_s.unwrap_or(settings.drain_s).max(1.0));
    let due = guard::by_deadline(&due).into_iter().map(|sum| {
        let left_s = sum.deadline_at_s - settings.margin_s - snapshot.now_s - boot_s - sum.longest_s;
        // Too late to be in time on spot alone: what the tasks allow, which is as good as it gets.
        if left_s > 0.0 { HEADROOM * sum.work_s / left_s } else { sum.work_s }
    });
    open.sum::<f64>() + due.fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pool;

    fn snapshot(reclaims_per_hour: f64) -> Snapshot {
        let spot =
            Pool { price_per_hour: 1.0, boot_p95_s: 60.0, machines_max: 50, reclaims_per_hour, ..Pool::default() };
        let stable = Pool { market: Lane::OnDemand, price_per_hour: 3.0, ..spot.clone() };
        Snapshot { pools: vec![spot, stable], ..Snapshot::default() }
    }

    fn rate(reclaims_per_hour: f64, demand: &Demand) -> f64 {
        of(&snapshot(reclaims_per_hour), Lane::Spot, &[demand], &Arrivals::default(), &Settings::default()).rate
    }

    #[test]
    fn the_width_follows_the_reclaims() {
        let demand = Demand {
            waiting_tasks: 100,
            waiting_s: 12_000.0,
            uncommitted_s: 12_000.0,
            longest_s: 100.0,
            deadline_at_s: Some(1e9),
            ..Demand::default()
        };
        // 12000 · √(λ · 2 / 120): with one reclaim an hour, λ = 1/3600, that is 25.8.
        assert!((rate(1.0, &demand) - 25.82).abs() < 0.01);
        assert!((rate(4.0, &demand) - 51.64).abs() < 0.01);
        assert!(rate(0.0, &demand) < 0.001, "without reclaims or a near deadline there is no hurry");
        assert_eq!(rate(1e6, &demand), 100.0, "no more slots than tasks");
    }

    #[test]
    fn a_deadline_and_a_latency_target_set_the_floor() {
        let work =
            Demand { waiting_tasks: 100, waiting_s: 1e4, uncommitted_s: 1e4, longest_s: 100.0, ..Demand::default() };
        // 1175 s are left, 15 of them margin, 60 boot and 100 for the longest task: 1.2 · 10000 / 1000.
        assert!((rate(0.0, &Demand { deadline_at_s: Some(1175.0), ..work.clone() }) - 12.0).abs() < 1e-9);
        assert!((rate(0.0, &Demand { latency_s: Some(500.0), ..work.clone() }) - 20.0).abs() < 1e-9);
        assert!((rate(0.0, &work) - 1e4 / 300.0).abs() < 1e-9);
    }
}
