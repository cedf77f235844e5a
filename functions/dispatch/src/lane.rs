//! Which chunks are too long for a Lambda.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use sheaf_core::{Chunk, Estimate, FunctionRef, JobId, ReleaseReason, limits};
use sheaf_protocol::{Delivery, Ports, StateStore};

/// Jobs and functions that are remembered; what is remembered of them never changes, so any may be read again.
const KNOWN_MAX: usize = 1_024;

/// What matters of a job.
#[derive(Debug, Clone)]
struct Known {
    /// Its function, if it has only one: else there is no telling what a chunk's tasks are of.
    function: Option<FunctionRef>,
    ordered: bool,
}

/// Looks whether chunks are too long.
#[derive(Debug, Default)]
pub(crate) struct Lengths {
    jobs: Mutex<BTreeMap<JobId, Known>>,
    timeouts: Mutex<BTreeMap<FunctionRef, u64>>,
}

/// What a function says of how long a chunk takes.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// Any chunk fits.
    Short,
    /// No chunk does.
    Long,
    /// It depends on the chunk.
    Open,
}

impl Lengths {
    /// Whether a hint's chunk is too long for a Lambda that may start tasks for `work_ms` in so many slots. Costs nothing for
    /// chunks of a job that is known and a function that is quick; else up to three reads, and one of the chunk. What cannot be
    /// read is not too long: its claim will tell.
    pub(crate) async fn is_too_long<P: Ports>(
        &self,
        ports: &P,
        delivery: &Delivery,
        work_ms: u64,
        slots: usize,
    ) -> bool {
        let key = delivery.hint.key;
        let Some(known) = self.job(ports, key.job).await else { return false };
        let width = if known.ordered { 1 } else { slots.max(1) };
        let tasks_max = if known.ordered { limits::ORDERED_TASKS_MAX } else { limits::CHUNK_TASKS_MAX };
        let mut estimate = Estimate::default();
        if let Some(function) = &known.function {
            estimate = ports.state().estimate(function).await;
            let timeout_ms = match estimate.tasks {
                0 => self.timeout_ms(ports, function).await,
                _ => None,
            };
            match said(&estimate, timeout_ms, work_ms, f64::from(tasks_max) / width as f64) {
                Said::Short => return false,
                Said::Long => return true,
                Said::Open => {}
            }
        }
        let Ok(chunks) = ports.state().chunks(&[key]).await else { return false };
        let Some(Some(chunk)) = chunks.first() else { return false };
        let open = chunk.work.marks.open_tasks().count() as f64;
        !chunk.is_final() && (was_too_long(chunk) || open / width as f64 * estimate.mean_us > work_ms as f64 * 1_000.0)
    }

    async fn job<P: Ports>(&self, ports: &P, id: JobId) -> Option<Known> {
        if let Some(known) = self.jobs.lock().get(&id) {
            return Some(known.clone());
        }
        let job = ports.state().job(id).await.ok()??;
        let function = match &job.options.functions[..] {
            [function] => Some(function.clone()),
            _ => None,
        };
        let known = Known { function, ordered: job.options.ordered };
        remember(&self.jobs, id, known.clone());
        Some(known)
    }

    async fn timeout_ms<P: Ports>(&self, ports: &P, function: &FunctionRef) -> Option<u64> {
        if let Some(timeout_ms) = self.timeouts.lock().get(function) {
            return Some(*timeout_ms);
        }
        let manifest = ports.state().function(function).await.ok()??;
        remember(&self.timeouts, function.clone(), manifest.timeout_ms);
        Some(manifest.timeout_ms)
    }
}

fn remember<K: Ord, V>(known: &Mutex<BTreeMap<K, V>>, key: K, value: V) {
    let mut known = known.lock();
    if known.len() >= KNOWN_MAX {
        known.clear();
    }
    known.insert(key, value);
}

/// What an estimate, or the timeout of a function that was never seen, says of chunks that put at most so many tasks one after
/// the other into a slot.
fn said(estimate: &Estimate, timeout_ms: Option<u64>, work_ms: u64, tasks_per_slot: f64) -> Said {
    let work_us = work_ms as f64 * 1_000.0;
    if estimate.tasks == 0 {
        return if timeout_ms.is_some_and(|timeout_ms| timeout_ms > work_ms) { Said::Long } else { Said::Open };
    }
    let task_us = estimate.p95_us.max(estimate.mean_us);
    match task_us {
        _ if task_us > work_us => Said::Long,
        _ if task_us * tasks_per_slot.max(1.0) <= work_us => Said::Short,
        _ => Said::Open,
    }
}

/// Whether a worker that was told to stop gave the chunk back before without having finished one task.
fn was_too_long(chunk: &Chunk) -> bool {
    let got_on = |epoch: u32| chunk.work.segments.iter().any(|segment| segment.epoch == epoch);
    chunk.work.past.iter().any(|past| past.released == Some(ReleaseReason::Drain) && !got_on(past.epoch))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(mean_ms: f64, p95_ms: f64) -> Estimate {
        Estimate { tasks: 10, mean_us: mean_ms * 1_000.0, p95_us: p95_ms * 1_000.0 }
    }

    #[test]
    fn quick_functions_are_never_looked_at_twice() {
        assert_eq!(said(&seen(1.0, 5.0), None, 885_000, 1_024.0), Said::Short);
        assert_eq!(said(&seen(1.0, 1_000.0), None, 885_000, 1_024.0), Said::Open);
        assert_eq!(said(&seen(600_000.0, 886_000.0), None, 885_000, 512.0), Said::Long);
        assert_eq!(said(&seen(600_000.0, 700_000.0), None, 885_000, 512.0), Said::Open);
    }

    #[test]
    fn of_an_unknown_function_its_timeout_is_believed() {
        let unknown = Estimate::default();
        assert_eq!(said(&unknown, Some(60_000), 885_000, 1_024.0), Said::Open);
        assert_eq!(said(&unknown, Some(7_200_000), 885_000, 1_024.0), Said::Long);
        assert_eq!(said(&unknown, None, 885_000, 1_024.0), Said::Open);
    }
}
