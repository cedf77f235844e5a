//! How often containers are taken away: our own, measured.
//!
//! Nothing is kept for it. ECS tells of each container for an hour after its end, so that any process finds, at any time, the
//! reclaims and the container hours of the hour that is behind it. Containers are told apart by their ids: two scalers at once, or
//! one that looks again, count none twice. Only what a drained machine of EC2 has cost must be seen while it is fresh; a process
//! that has just begun may miss some of that.
//!
//! # Cost
//! Requests to ECS, which are free: once a minute for each pool on spot that has containers, what [`Services::containers`] costs,
//! so three for a hundred containers and less. None to the table.
//!
//! [`Services::containers`]: sheaf_aws::Services::containers

use std::collections::BTreeSet;

use sheaf_aws::{Container, EndCause, ServiceCounts};
use sheaf_core::Lane;
use sheaf_scheduler::policies::measured_rate;

use super::settings::ServicePool;

/// Reclaims and hours count for so long. Source: ECS tells of what has ended for an hour at least, says the API reference of
/// `DescribeTasks`.
const WINDOW_MS: u64 = 3_600_000;
/// From one look to the next.
const LOOK_MS: u64 = 60_000;
/// What the settings say weighs as much as what one container shows in a whole window.
const PRIOR_HOURS: f64 = 1.0;
/// A container that was stopped on a machine which is leaving was stopped for that, if it ended so lately. Source: a fleet gives
/// back machines that it does not need after a quarter of an hour without containers (managed scaling of ECS).
const DISPLACED_MS: u64 = 300_000;

/// What was seen of the pools, in their order.
#[derive(Debug, Default)]
pub(crate) struct Reclaims(Vec<OfPool>);

#[derive(Debug, Clone, Default)]
struct OfPool {
    looked_at_ms: Option<u64>,
    counted: Option<Counted>,
    /// Containers that ended because their machine was drained.
    displaced: BTreeSet<String>,
}

/// What became of a pool's containers within an hour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Counted {
    at_ms: u64,
    pub(crate) reclaims: u64,
    /// For which containers ran, taken together.
    pub(crate) hours: f64,
}

impl Reclaims {
    /// The pools to look at now: those on spot that have containers, once a minute. They are taken to be looked at.
    pub(crate) fn due(&mut self, pools: &[ServicePool], services: &[ServiceCounts], now_ms: u64) -> Vec<usize> {
        self.0.resize_with(pools.len(), OfPool::default);
        let mut due = Vec::new();
        for (number, ((pool, counts), of_pool)) in pools.iter().zip(services).zip(&mut self.0).enumerate() {
            let has_containers = counts.desired > 0 || counts.running > 0 || counts.pending > 0;
            let is_time = of_pool.looked_at_ms.is_none_or(|at_ms| at_ms.saturating_add(LOOK_MS) <= now_ms);
            if pool.lane == Lane::Spot && has_containers && is_time {
                of_pool.looked_at_ms = Some(now_ms);
                due.push(number);
            }
        }
        due
    }

    /// Takes in the containers of a pool. Repeating it changes nothing. What was counted, if there are more or fewer reclaims than
    /// at the last look.
    pub(crate) fn count(&mut self, number: usize, containers: &[Container], now_ms: u64) -> Option<Counted> {
        let of_pool = self.0.get_mut(number)?;
        of_pool.note_displaced(containers, now_ms);
        let counted = counted(containers, &of_pool.displaced, now_ms);
        let before = of_pool.counted.replace(counted).map_or(0, |before| before.reclaims);
        (counted.reclaims != before).then_some(counted)
    }

    /// Reclaims an hour and container of a pool: as measured within the hour, and as told where nothing was.
    pub(crate) fn per_hour(&self, number: usize, told: f64, now_ms: u64) -> f64 {
        let counted = self.0.get(number).and_then(|of_pool| of_pool.counted);
        match counted.filter(|counted| counted.at_ms.saturating_add(WINDOW_MS) > now_ms) {
            Some(Counted { reclaims, hours, .. }) => measured_rate(reclaims, hours, told, PRIOR_HOURS),
            None => told,
        }
    }
}

impl OfPool {
    /// Remembers which containers their machine's end has displaced: later, machines that nobody needed are gone as well.
    fn note_displaced(&mut self, containers: &[Container], now_ms: u64) {
        let mut displaced = BTreeSet::new();
        for container in containers {
            let Some(end) = container.end else { continue };
            let is_fresh = end.at_ms.saturating_add(DISPLACED_MS) >= now_ms;
            if end.cause == EndCause::Displaced && is_fresh || self.displaced.contains(&container.id) {
                displaced.insert(container.id.clone());
            }
        }
        self.displaced = displaced;
    }
}

/// Reclaims and container hours of the window that ends now.
fn counted(containers: &[Container], displaced: &BTreeSet<String>, now_ms: u64) -> Counted {
    let from_ms = now_ms.saturating_sub(WINDOW_MS);
    let (mut reclaims, mut held_ms) = (0, 0);
    for container in containers {
        let Some(began_at_ms) = container.began_at_ms else { continue };
        let until_ms = container.end.map_or(now_ms, |end| end.at_ms).min(now_ms);
        held_ms += until_ms.saturating_sub(began_at_ms.max(from_ms));
        let is_reclaim = |cause| cause == EndCause::Reclaimed || displaced.contains(&container.id);
        if container.end.is_some_and(|end| end.at_ms >= from_ms && is_reclaim(end.cause)) {
            reclaims += 1;
        }
    }
    Counted { at_ms: now_ms, reclaims, hours: held_ms as f64 / 3_600_000.0 }
}

#[cfg(test)]
mod tests {
    use sheaf_aws::End;

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;
    const MINUTE_MS: u64 = 60_000;

    fn container(id: &str, began_ago_min: u64, ended: Option<(u64, EndCause)>) -> Container {
        let at_ms = |ago_min: u64| NOW_MS - ago_min * MINUTE_MS;
        Container {
            id: id.to_owned(),
            began_at_ms: Some(at_ms(began_ago_min)),
            end: ended.map(|(ago_min, cause)| End { at_ms: at_ms(ago_min), cause }),
        }
    }

    fn of(containers: &[Container]) -> (u64, f64) {
        let Counted { reclaims, hours, .. } = counted(containers, &BTreeSet::new(), NOW_MS);
        (reclaims, hours)
    }

    /// Of one pool.
    fn reclaims() -> Reclaims {
        Reclaims(vec![OfPool::default()])
    }

    #[test]
    fn hours_and_reclaims_are_those_of_the_hour_behind() {
        assert_eq!(of(&[]), (0, 0.0));
        assert_eq!(of(&[container("a", 30, None), container("b", 600, None)]), (0, 1.5), "no more than the hour");
        let reclaimed = |ago_min| container("c", 90, Some((ago_min, EndCause::Reclaimed)));
        assert_eq!(of(&[reclaimed(45)]), (1, 0.25));
        assert_eq!(of(&[reclaimed(61)]), (0, 0.0), "it counts no longer");
        assert_eq!(of(&[container("d", 45, Some((15, EndCause::Other)))]), (0, 0.5));
        let never_ran = Container { began_at_ms: None, ..container("e", 0, Some((0, EndCause::Other))) };
        assert_eq!(of(&[never_ran]), (0, 0.0));
        // Clocks differ: one has begun in a moment, another ends in one.
        let mut early = container("f", 0, None);
        early.began_at_ms = Some(NOW_MS + 5_000);
        let mut late = container("g", 30, Some((0, EndCause::Reclaimed)));
        late.end = late.end.map(|end| End { at_ms: NOW_MS + 5_000, ..end });
        assert_eq!(of(&[early, late]), (1, 0.5));
    }

    #[test]
    fn the_rate_begins_as_told_and_follows_what_happens() {
        let mut seen = reclaims();
        assert_eq!(seen.per_hour(0, 1.0, NOW_MS), 1.0);
        seen.count(0, &[], NOW_MS);
        assert_eq!(seen.per_hour(0, 1.0, NOW_MS), 1.0, "no container has shown anything");
        let calm: Vec<Container> = (0..9).map(|id| container(&id.to_string(), 90, None)).collect();
        seen.count(0, &calm, NOW_MS);
        assert_eq!(seen.per_hour(0, 1.0, NOW_MS), 0.1);
        let rough: Vec<Container> =
            (0..4).map(|id| container(&id.to_string(), 75, Some((15, EndCause::Reclaimed)))).collect();
        seen.count(0, &rough, NOW_MS);
        assert_eq!(seen.per_hour(0, 1.0, NOW_MS), 1.25);
        assert_eq!(seen.per_hour(1, 0.5, NOW_MS), 0.5, "another pool");
    }

    #[test]
    fn nothing_counts_twice_whoever_looks_and_how_often() {
        let containers = [container("a", 30, Some((10, EndCause::Reclaimed))), container("b", 30, None)];
        let (mut one, mut other) = (reclaims(), reclaims());
        let looks = (0..3).map(|_| one.count(0, &containers, NOW_MS).map(|counted| counted.reclaims));
        assert_eq!(looks.collect::<Vec<_>>(), [Some(1), None, None], "news are told once");
        other.count(0, &containers, NOW_MS);
        let rates = [&one, &other].map(|seen| seen.per_hour(0, 0.0, NOW_MS));
        assert_eq!(rates, [1.0 / (1.0 + 50.0 / 60.0); 2]);
    }

    #[test]
    fn what_was_seen_an_hour_ago_is_forgotten() {
        let mut seen = reclaims();
        seen.count(0, &[container("a", 30, Some((10, EndCause::Reclaimed)))], NOW_MS);
        let rate = seen.per_hour(0, 0.0, NOW_MS + WINDOW_MS - 1);
        assert!(rate > 0.0, "{rate}");
        assert_eq!(seen.per_hour(0, 0.0, NOW_MS + WINDOW_MS), 0.0);
    }

    #[test]
    fn a_container_of_a_drained_machine_counts_if_that_is_why_it_ended() {
        let rate = |seen: &Reclaims| seen.per_hour(0, 0.0, NOW_MS) > 0.0;
        let displaced = |ago_min| [container("a", 50, Some((ago_min, EndCause::Displaced)))];
        let mut seen = reclaims();
        seen.count(0, &displaced(20), NOW_MS);
        assert!(!rate(&seen), "its machine was given back when nobody needed it");
        seen.count(0, &displaced(2), NOW_MS);
        assert!(rate(&seen));
        // It goes on to count when it is not fresh any more.
        seen.count(0, &displaced(2), NOW_MS + 20 * MINUTE_MS);
        assert!(rate(&seen));
        seen.count(0, &[], NOW_MS);
        assert!(seen.0[0].displaced.is_empty(), "nothing is remembered of what ECS has forgotten");
    }
}
