//! Of which chunks second copies are asked for.

use std::collections::BTreeSet;

use sheaf_api::wire::WorkerView;
use sheaf_core::{ChunkKey, Lane, limits};
use sheaf_scheduler::Decision;

/// Chunks of which second copies were asked for while a container on spot held them. Forgetting one costs another copy.
#[derive(Debug, Default)]
pub(super) struct Copied(BTreeSet<ChunkKey>);

impl Copied {
    /// The chunks to copy now: of each job as many as the policy wants and are not copied already.
    pub(super) fn next(&mut self, decision: &Decision, workers: &[WorkerView]) -> Vec<ChunkKey> {
        let on_spot = workers.iter().filter(|worker| worker.lanes == [Lane::Spot]);
        let held: BTreeSet<ChunkKey> = on_spot.flat_map(|worker| worker.holding.iter().copied()).collect();
        self.0.retain(|key| held.contains(key));
        let mut next = Vec::new();
        for hedge in &decision.hedges {
            let of_job = |key: &&ChunkKey| key.job.to_string() == hedge.job;
            let copied = self.0.iter().filter(of_job).count();
            let fresh = held.iter().filter(of_job).filter(|key| !self.0.contains(key));
            next.extend(fresh.take((hedge.copies as usize).saturating_sub(copied)));
        }
        next.truncate(limits::PAGE_ROWS_MAX);
        self.0.extend(&next);
        next
    }
}

#[cfg(test)]
mod tests {
    use sheaf_core::JobId;
    use sheaf_scheduler::Hedge;

    use super::*;

    fn key(job: u8, number: u32) -> ChunkKey {
        ChunkKey { job: JobId::from_bytes([job; 16]), number }
    }

    fn worker(lanes: &[Lane], holding: &[ChunkKey]) -> WorkerView {
        WorkerView {
            id: format!("wrk_{}", holding.len()).parse().expect("a worker id"),
            host: String::new(),
            pid: None,
            lanes: lanes.to_vec(),
            slots: 8,
            holding: holding.to_vec(),
            copies: Vec::new(),
            draining: false,
            started_at_ms: 0,
            seen_at_ms: 0,
            tasks_ended: 0,
        }
    }

    fn wanted(job: u8, copies: u64) -> Decision {
        Decision { hedges: vec![Hedge { job: key(job, 0).job.to_string(), copies }], ..Decision::default() }
    }

    #[test]
    fn as_many_are_copied_as_wanted_and_each_once() {
        let mut copied = Copied::default();
        let spot = worker(&[Lane::Spot], &[key(1, 0), key(1, 1), key(1, 2), key(2, 0)]);
        let stays = worker(&[Lane::OnDemand, Lane::Spot], &[key(1, 3)]);
        let workers = [spot, stays];
        assert_eq!(copied.next(&wanted(1, 2), &workers), [key(1, 0), key(1, 1)]);
        assert_eq!(copied.next(&wanted(1, 2), &workers), []);
        assert_eq!(copied.next(&wanted(1, 9), &workers), [key(1, 2)], "what stays needs no copy");
        let gone = [worker(&[Lane::Spot], &[key(1, 1)])];
        assert_eq!(copied.next(&Decision::default(), &gone), []);
        assert_eq!(copied.next(&wanted(1, 3), &workers), [key(1, 0), key(1, 2)], "held anew");
    }
}
