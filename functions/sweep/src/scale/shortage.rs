//! Pools that do not give what they are asked for.

use sheaf_aws::ServiceCounts;
use sheaf_core::limits;
use sheaf_scheduler::Pool;

/// After so long a failure says nothing any more.
const FORGIVEN_MS: u64 = 3_600_000;

/// What was seen of a pool that had fewer containers than it should. Losing it costs a boot time: the events of ECS tell most of
/// it again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shortage {
    /// Since when fewer have joined than should.
    since_ms: Option<u64>,
    /// How many had at the last look.
    joined: u32,
    /// How often in a row none came within a boot time.
    failures: u32,
    failed_at_ms: u64,
}

impl Shortage {
    /// Takes in how many containers a service shall have, and how many have joined. Told twice at one instant, it hears the first.
    pub(crate) fn note(&mut self, desired: u32, joined: u32, boot_p95_s: f64, now_ms: u64) {
        let is_forgiven = self.failures > 0 && self.failed_at_ms.saturating_add(FORGIVEN_MS) < now_ms;
        if joined > self.joined || is_forgiven {
            *self = Self::default();
        }
        self.joined = joined;
        if joined >= desired {
            self.since_ms = None;
            return;
        }
        let since_ms = *self.since_ms.get_or_insert(now_ms);
        if now_ms.saturating_sub(since_ms) as f64 / 1e3 > boot_p95_s {
            (self.failures, self.failed_at_ms, self.since_ms) = (self.failures + 1, now_ms, Some(now_ms));
        }
    }

    /// Tells the pool what has failed: by this, or by what ECS says.
    pub(crate) fn tell(&self, counts: &ServiceCounts, pool: &mut Pool, now_ms: u64) {
        let recent = |at_ms: &u64| at_ms.saturating_add(FORGIVEN_MS) >= now_ms;
        let (mut refused, mut earlier_ms) = (0, u64::MAX);
        for at_ms in counts.refused_at_ms.iter().copied().filter(recent) {
            // One attempt may be refused several times.
            if at_ms.saturating_add(limits::SWEEP_MS) <= earlier_ms {
                (refused, earlier_ms) = (refused + 1, at_ms);
            }
        }
        let refused_at_ms = counts.refused_at_ms.first().copied().filter(recent).unwrap_or_default();
        pool.failures = self.failures.max(refused);
        pool.failed_at_s = self.failed_at_ms.max(refused_at_ms) as f64 / 1e3;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn counts(desired: u32) -> ServiceCounts {
        ServiceCounts { desired, ..ServiceCounts::default() }
    }

    fn failures(shortage: &Shortage, counts: &ServiceCounts, now_ms: u64) -> (u32, f64) {
        let mut pool = Pool::default();
        shortage.tell(counts, &mut pool, now_ms);
        (pool.failures, pool.failed_at_s)
    }

    #[test]
    fn what_has_not_come_within_a_boot_has_failed() {
        let mut shortage = Shortage::default();
        for (at_s, failed) in [(0, 0), (60, 0), (61, 1), (61, 1), (76, 1), (122, 2)] {
            let now_ms = NOW_MS + at_s * 1_000;
            shortage.note(3, 1, 60.0, now_ms);
            assert_eq!(failures(&shortage, &counts(3), now_ms).0, failed, "{at_s} s");
        }
        shortage.note(3, 2, 60.0, NOW_MS + 130_000);
        assert_eq!(failures(&shortage, &counts(3), NOW_MS + 130_000).0, 0, "one came");
    }

    #[test]
    fn what_is_not_asked_for_does_not_fail() {
        let mut shortage = Shortage::default();
        for at_s in [0, 50, 100, 150] {
            let desired = if at_s % 100 == 0 { 1 } else { 0 };
            shortage.note(desired, 0, 60.0, NOW_MS + at_s * 1_000);
        }
        assert_eq!(failures(&shortage, &counts(0), NOW_MS).0, 0);
    }

    #[test]
    fn refusals_of_ecs_count_for_an_hour_and_once_for_each_attempt() {
        let at = |seconds: u64| NOW_MS - seconds * 1_000;
        let refused = ServiceCounts { refused_at_ms: vec![at(5), at(9), at(40), at(7_200)], ..counts(1) };
        let shortage = Shortage::default();
        assert_eq!(failures(&shortage, &refused, NOW_MS), (2, at(5) as f64 / 1e3));
        assert_eq!(failures(&shortage, &refused, NOW_MS + 2 * FORGIVEN_MS), (0, 0.0));
    }
}
