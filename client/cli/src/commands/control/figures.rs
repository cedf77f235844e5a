//! What machines did for a bag: a CSV of tasks, one of workers, and the sums.

use std::{collections::HashMap, path::Path};

use csv::Writer;
use serde::Serialize;
use sheaf_core::{Chunk, ChunkState, Lane, Mark, PastAttempt, ReleaseReason, WorkerId};
use sheaf_machines::{MachineRecord, Why};
use sheaf_scheduler::{PolicyName, energy::Factors};

use super::machines::Ran;
use crate::problem::{Outcome, Problem};

/// The sums. Seconds are those of the plan.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    policy: PolicyName,
    time_scale: f64,
    /// Machines that were asked for.
    pub(super) spot: usize,
    pub(super) on_demand: usize,
    /// Of those, machines that were taken away.
    pub(super) reclaims: usize,
    /// How often machines were frozen, and for how long all together.
    pub(super) hibernations: u32,
    pub(super) frozen_s: f64,
    /// Dollars, from each request to each end, but for the time a machine was frozen.
    pub(super) cost: f64,
    /// Dollars that they were allowed to.
    pub(super) budget: Option<f64>,
    /// Seconds that machines were held, but for those in which they were frozen.
    pub(super) worker_s: f64,
    /// The share of slot time, from when machines were up, in which they ran something.
    pub(super) utilisation: f64,
    /// Seconds of attempts that did not end their tasks, second copies that were not needed included.
    pub(super) wasted_s: f64,
    /// An estimate.
    pub(super) watt_hours: f64,
}

impl Figures {
    pub(super) fn of(ran: &Ran, policy: PolicyName, budget: Option<f64>, time_scale: f64) -> Self {
        let machines = &ran.machines;
        let of = |market: Lane| machines.iter().filter(|machine| machine.market == market).count();
        let sum = |figure: fn(&MachineRecord) -> f64| machines.iter().map(figure).sum::<f64>();
        let busy_s = sum(|machine| machine.busy_slot_s);
        let up_s = sum(|machine| machine.up_slot_s);
        let lost_s = ran.chunks.iter().fold(0.0, |sum_s, chunk| sum_s + lost_s(chunk, time_scale));
        let held_core_s = sum(|machine| machine.paid_s() * f64::from(machine.slots));
        Self {
            policy,
            time_scale,
            spot: of(Lane::Spot),
            on_demand: of(Lane::OnDemand),
            reclaims: machines.iter().filter(|machine| machine.why == Some(Why::Reclaimed)).count(),
            hibernations: machines.iter().map(|machine| machine.hibernations).sum(),
            frozen_s: sum(|machine| machine.frozen_s),
            cost: sum(|machine| machine.cost),
            budget,
            worker_s: sum(MachineRecord::paid_s),
            utilisation: if up_s > 0.0 { (busy_s / up_s).min(1.0) } else { 0.0 },
            wasted_s: lost_s + sum(|machine| machine.copies_lost_s),
            watt_hours: Factors::built_in().watt_hours(busy_s, held_core_s),
        }
    }
}

/// Seconds of attempts at a chunk that did not end it.
fn lost_s(chunk: &Chunk, time_scale: f64) -> f64 {
    let held_ms = |past: &PastAttempt| past.until_ms.saturating_sub(past.since_ms);
    chunk.work.past.iter().map(held_ms).sum::<u64>() as f64 / 1e3 * time_scale
}

/// Writes `workers.csv` and `tasks.csv`. Times are in seconds of the plan, counted from the job's creation for tasks and from
/// the fleet's beginning, which is the same to a few milliseconds, for workers.
pub(super) fn write(folder: &Path, ids: &[&str], ran: &Ran, created_at_ms: u64, time_scale: f64) -> Outcome<()> {
    let names: HashMap<&WorkerId, String> =
        ran.machines.iter().map(|machine| (&machine.worker, name(machine))).collect();
    csv(&folder.join("workers.csv"), |csv| {
        csv.write_record([
            "machine",
            "type",
            "market",
            "slots",
            "worker",
            "requested_s",
            "up_s",
            "ended_s",
            "why",
            "boot_s",
            "held_s",
            "hibernations",
            "frozen_s",
            "busy_slot_s",
            "copies_lost_s",
            "utilisation",
            "tasks",
            "cost",
        ])?;
        for machine in &ran.machines {
            let tasks = ran.chunks.iter().filter(|chunk| ended_by(chunk) == Some(&machine.worker)).count();
            csv.write_record([
                machine.machine.to_string(),
                machine.r#type.clone(),
                machine.market.to_string(),
                machine.slots.to_string(),
                machine.worker.to_string(),
                seconds(machine.requested_s),
                machine.up_s.map(seconds).unwrap_or_default(),
                machine.ended_s.map(seconds).unwrap_or_default(),
                machine.why.map(Why::as_str).unwrap_or_default().to_owned(),
                machine.up_s.map(|up_s| seconds(up_s - machine.requested_s)).unwrap_or_default(),
                seconds(machine.held_s),
                machine.hibernations.to_string(),
                seconds(machine.frozen_s),
                seconds(machine.busy_slot_s),
                seconds(machine.copies_lost_s),
                format!("{:.3}", machine.utilisation),
                tasks.to_string(),
                format!("{:.6}", machine.cost),
            ])?;
        }
        Ok(())
    })?;
    let at_s = |at_ms: u64| at_ms.saturating_sub(created_at_ms) as f64 / 1e3 * time_scale;
    csv(&folder.join("tasks.csv"), |csv| {
        csv.write_record([
            "task",
            "outcome",
            "submitted_s",
            "first_started_s",
            "started_s",
            "ended_s",
            "waited_s",
            "held_s",
            "attempts",
            "reclaims",
            "wasted_s",
            "machine",
        ])?;
        for (id, chunk) in ids.iter().zip(&ran.chunks) {
            let past = &chunk.work.past;
            let submitted_s = at_s(chunk.spec.submitted_at_ms);
            let (started_s, ended_s) = match &chunk.state {
                ChunkState::Done { since_ms, at_ms, .. } => (Some(at_s(*since_ms)), Some(at_s(*at_ms))),
                ChunkState::Ended { at_ms, .. } => (None, Some(at_s(*at_ms))),
                ChunkState::Leased(lease) => (Some(at_s(lease.since_ms)), None),
                ChunkState::Queued { .. } => (None, None),
            };
            let first_s = past.first().map(|past| at_s(past.since_ms)).or(started_s);
            let reclaims = past.iter().filter(|past| past.released == Some(ReleaseReason::Reclaimed)).count();
            csv.write_record([
                (*id).to_owned(),
                outcome(chunk).to_owned(),
                seconds(submitted_s),
                first_s.map(seconds).unwrap_or_default(),
                started_s.map(seconds).unwrap_or_default(),
                ended_s.map(seconds).unwrap_or_default(),
                first_s.map(|first_s| seconds(first_s - submitted_s)).unwrap_or_default(),
                started_s.zip(ended_s).map(|(from_s, to_s)| seconds(to_s - from_s)).unwrap_or_default(),
                chunk.epoch.to_string(),
                reclaims.to_string(),
                seconds(lost_s(chunk, time_scale)),
                ended_by(chunk).and_then(|worker| names.get(worker)).cloned().unwrap_or_default(),
            ])?;
        }
        Ok(())
    })
}

fn name(machine: &MachineRecord) -> String {
    format!("{} {} {}", machine.r#type, machine.market, machine.machine)
}

const fn ended_by(chunk: &Chunk) -> Option<&WorkerId> {
    match &chunk.state {
        ChunkState::Done { attempt, .. } => Some(&attempt.owner.worker),
        ChunkState::Queued { .. } | ChunkState::Leased(_) | ChunkState::Ended { .. } => None,
    }
}

fn outcome(chunk: &Chunk) -> &'static str {
    match (chunk.work.marks.get(0), &chunk.state) {
        (Mark::Succeeded, _) => "succeeded",
        (Mark::Failed, _) => "failed",
        (Mark::Quarantined, _) => "quarantined",
        (Mark::Open, ChunkState::Ended { reason, .. }) => match reason {
            sheaf_core::EndReason::Cancelled => "cancelled",
            sheaf_core::EndReason::Expired => "expired",
        },
        (Mark::Open, _) => "open",
    }
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.3}")
}

fn csv(path: &Path, write: impl FnOnce(&mut Writer<std::fs::File>) -> csv::Result<()>) -> Outcome<()> {
    let written = Writer::from_path(path).and_then(|mut csv| {
        write(&mut csv)?;
        Ok(csv.flush()?)
    });
    written.map_err(|error| Problem::file("written", path, std::io::Error::other(error)))
}
