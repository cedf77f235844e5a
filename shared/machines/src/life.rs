//! What became of each machine, told from what was written down of it: for reports of runs that are over, or go on still.

use std::collections::BTreeMap;

use sheaf_core::{Lane, WorkerId};
use sheaf_scheduler::Decision;

use crate::{
    event::{Event, EventLog, What, Why},
    fleet::Spent,
};

/// What a machine does for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// It was asked for, and its worker has not joined.
    Booting,
    /// It holds leases, or runs second copies.
    Busy,
    /// It does neither.
    Idle,
    /// It was told to end, or that it is taken away.
    Draining,
    /// It is frozen.
    Hibernated,
}

/// A while of a machine. Times are in seconds of the plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// From when.
    pub from_s: f64,
    /// Until when.
    pub until_s: f64,
    /// What it did.
    pub phase: Phase,
}

/// A machine's life. Times are in seconds of the plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Life {
    /// Its number.
    pub machine: u64,
    /// Its type.
    pub r#type: String,
    /// Its market.
    pub market: Lane,
    /// Tasks it can run at once; 0 where that was not written down.
    pub slots: u32,
    /// Dollars an hour.
    pub price_per_hour: f64,
    /// Its worker, once that had joined.
    pub worker: Option<WorkerId>,
    /// When it was asked for.
    pub requested_s: f64,
    /// When its worker had joined.
    pub up_s: Option<f64>,
    /// When it was busy first.
    pub first_busy_s: Option<f64>,
    /// When it was told to end, or that it is taken away.
    pub told_s: Option<f64>,
    /// When it was gone.
    pub ended_s: Option<f64>,
    /// Why.
    pub why: Option<Why>,
    /// How often it was frozen.
    pub hibernations: u32,
    /// Slot seconds in which it ran something; known once it is gone.
    pub busy_slot_s: Option<f64>,
    /// Seconds of second copies that were not needed.
    pub copies_lost_s: f64,
    /// Chunks that were given back in its name.
    pub given_back: usize,
    /// What it did, one after the other, up to its end or to that of what is written.
    pub spans: Vec<Span>,
}

impl Life {
    /// Seconds from the request to its end.
    pub fn held_s(&self) -> f64 {
        sum(self.spans.iter())
    }

    /// Seconds in a phase.
    pub fn in_phase_s(&self, phase: Phase) -> f64 {
        sum(self.spans.iter().filter(|span| span.phase == phase))
    }

    /// Seconds that it was paid for: those in which it was not frozen.
    pub fn paid_s(&self) -> f64 {
        self.held_s() - self.in_phase_s(Phase::Hibernated)
    }

    /// Seconds from when it was up to its end, those in which it was frozen left out.
    pub fn up_s(&self) -> f64 {
        let Some(up_s) = self.up_s else { return 0.0 };
        sum(self.spans.iter().filter(|span| span.from_s >= up_s && span.phase != Phase::Hibernated))
    }

    /// Dollars.
    pub fn cost(&self) -> f64 {
        self.paid_s() / 3600.0 * self.price_per_hour
    }

    fn phase(&self) -> Option<Phase> {
        self.spans.last().map(|span| span.phase)
    }

    /// Does something else from `at_s` on. What it does lasts for no time yet.
    fn begin(&mut self, at_s: f64, phase: Phase) {
        let from_s = self.last(at_s);
        self.spans.push(Span { from_s, until_s: from_s, phase });
    }

    /// Extends what it does now up to `at_s`, which is never before its beginning, and gives that.
    fn last(&mut self, at_s: f64) -> f64 {
        match self.spans.last_mut() {
            Some(span) => {
                span.until_s = at_s.max(span.from_s);
                span.until_s
            }
            None => at_s,
        }
    }
}

/// A machine that could not be had.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// When, in seconds of the plan.
    pub at_s: f64,
    /// Of which type.
    pub r#type: String,
    /// On which market.
    pub market: Lane,
}

/// What the policy answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Decided {
    /// When, in seconds of the plan.
    pub at_s: f64,
    /// Its answer.
    pub decision: Decision,
    /// The pools that it speaks of by their places.
    pub pools: Vec<String>,
}

/// What is told of a fleet.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Lives {
    /// The machines, in the order in which they were asked for.
    pub machines: Vec<Life>,
    /// Those that could not be had.
    pub refusals: Vec<Refusal>,
    /// What the policy answered, whenever it was something else than before.
    pub decisions: Vec<Decided>,
    /// Second copies that were asked for.
    pub copies: usize,
    /// Those of use: they gave the outcome, or became the attempt that went on.
    pub copies_counted: usize,
    /// The budget, where it was spent with work left.
    pub spent: Option<Spent>,
    /// When the last thing happened, in seconds of the plan.
    pub until_s: f64,
    /// Seconds of the plan that pass in a second; 1 where too little has happened to tell.
    pub time_scale: f64,
    /// Events of machines of which the request is not written.
    pub strays: u64,
}

/// Shorter logs do not tell how fast time passed in them, whose events are written to the millisecond.
const SCALE_MS_MIN: u64 = 500;

impl Lives {
    /// Puts together what is written down.
    pub fn of(log: &EventLog) -> Self {
        let mut lives = Self { time_scale: time_scale(&log.events), ..Self::default() };
        let mut places = BTreeMap::new();
        for event in &log.events {
            lives.take(event, &mut places);
        }
        let until_s = lives.until_s;
        for life in lives.machines.iter_mut().filter(|life| life.ended_s.is_none()) {
            life.last(until_s);
        }
        lives
    }

    fn take(&mut self, event: &Event, places: &mut BTreeMap<u64, usize>) {
        let at_s = event.at_s;
        self.until_s = self.until_s.max(at_s);
        let machine = match &event.what {
            What::Decided { decision, pools } => {
                let (decision, pools) = (decision.clone(), pools.clone());
                return self.decisions.push(Decided { at_s, decision, pools });
            }
            What::Hedged { tasks } => return self.copies += tasks.len(),
            What::Spent { budget, cost, tasks_left } => {
                return self.spent = Some(Spent { budget: *budget, cost: *cost, tasks_left: *tasks_left });
            }
            What::Refused { r#type, market, .. } => {
                return self.refusals.push(Refusal { at_s, r#type: r#type.clone(), market: *market });
            }
            What::Requested { machine, r#type, market, slots, price_per_hour } => {
                places.insert(*machine, self.machines.len());
                let (slots, price_per_hour) = (*slots, *price_per_hour);
                return self.machines.push(requested(*machine, r#type, *market, slots, price_per_hour, at_s));
            }
            What::Up { machine, .. }
            | What::Busy { machine, .. }
            | What::Idle { machine }
            | What::Noticed { machine, .. }
            | What::Hibernated { machine, .. }
            | What::Resumed { machine, .. }
            | What::Copied { machine, .. }
            | What::Draining { machine, .. }
            | What::Ended { machine, .. } => machine,
        };
        match places.get(machine).and_then(|at| self.machines.get_mut(*at)) {
            Some(life) if life.ended_s.is_none() => life.take(&event.what, at_s),
            _ => return self.strays += 1,
        }
        if let What::Copied { counts: true, .. } = event.what {
            self.copies_counted += 1;
        }
    }
}

impl Life {
    fn take(&mut self, what: &What, at_s: f64) {
        match what {
            What::Decided { .. }
            | What::Refused { .. }
            | What::Requested { .. }
            | What::Hedged { .. }
            | What::Spent { .. } => {}
            What::Up { worker, .. } => {
                (self.worker, self.up_s) = (Some(worker.clone()), Some(at_s));
                self.begin(at_s, Phase::Idle);
            }
            What::Busy { .. } => {
                self.first_busy_s.get_or_insert(at_s);
                // One that drains goes on draining, whatever it holds.
                if self.phase() == Some(Phase::Idle) {
                    self.begin(at_s, Phase::Busy);
                }
            }
            What::Idle { .. } => {
                if self.phase() == Some(Phase::Busy) {
                    self.begin(at_s, Phase::Idle);
                }
            }
            What::Copied { ran_s, counts, .. } => self.copies_lost_s += if *counts { 0.0 } else { ran_s.max(0.0) },
            What::Noticed { .. } | What::Draining { .. } => {
                self.told_s.get_or_insert(at_s);
                self.begin(at_s, Phase::Draining);
            }
            What::Hibernated { given_back, .. } => {
                (self.hibernations, self.given_back) = (self.hibernations + 1, self.given_back + given_back.len());
                self.begin(at_s, Phase::Hibernated);
            }
            What::Resumed { .. } => {
                self.begin(at_s, if self.up_s.is_some() { Phase::Idle } else { Phase::Booting });
            }
            What::Ended { why, given_back, busy_slot_s, .. } => {
                self.ended_s = Some(self.last(at_s));
                self.why = Some(*why);
                self.given_back += given_back.len();
                self.busy_slot_s = *busy_slot_s;
            }
        }
    }
}

/// Of none, 0 and not -0, which is what an empty sum is.
fn sum<'a>(spans: impl Iterator<Item = &'a Span>) -> f64 {
    spans.fold(0.0, |sum_s, span| sum_s + span.until_s - span.from_s)
}

fn requested(machine: u64, r#type: &str, market: Lane, slots: u32, price_per_hour: f64, at_s: f64) -> Life {
    let (worker, up_s, first_busy_s, told_s, ended_s, why, busy_slot_s) = Default::default();
    Life {
        machine,
        r#type: r#type.to_owned(),
        market,
        slots,
        price_per_hour,
        worker,
        requested_s: at_s,
        up_s,
        first_busy_s,
        told_s,
        ended_s,
        why,
        hibernations: 0,
        busy_slot_s,
        copies_lost_s: 0.0,
        given_back: 0,
        spans: vec![Span { from_s: at_s, until_s: at_s, phase: Phase::Booting }],
    }
}

fn time_scale(events: &[Event]) -> f64 {
    let (Some(first), Some(last)) = (events.first(), events.last()) else { return 1.0 };
    let (plan_s, here_ms) = (last.at_s - first.at_s, last.at_ms.saturating_sub(first.at_ms));
    if here_ms < SCALE_MS_MIN || plan_s <= 0.0 { 1.0 } else { plan_s * 1e3 / here_ms as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: u64 = 4;

    fn log(events: Vec<(f64, What)>) -> EventLog {
        // Ten seconds of the plan in one here.
        let at_ms = |at_s: f64| 1_800_000_000_000_u64.saturating_add((at_s * 100.0) as u64);
        let event = |(at_s, what)| Event { at_s, at_ms: at_ms(at_s), what };
        EventLog { events: events.into_iter().map(event).collect(), ..EventLog::default() }
    }

    fn asked_for() -> What {
        What::Requested { machine: MACHINE, r#type: "m".to_owned(), market: Lane::Spot, slots: 2, price_per_hour: 36.0 }
    }

    fn up() -> What {
        What::Up { machine: MACHINE, worker: WorkerId::remote_from_uuid(uuid::Uuid::from_u128(7)) }
    }

    fn ended(why: Why) -> What {
        What::Ended { machine: MACHINE, why, given_back: Vec::new(), busy_slot_s: Some(30.0) }
    }

    fn phases(life: &Life) -> Vec<(Phase, f64)> {
        life.spans.iter().map(|span| (span.phase, span.until_s - span.from_s)).collect()
    }

    #[test]
    fn a_life_is_told_from_its_request_to_its_end() {
        let lives = Lives::of(&log(vec![
            (0.0, What::Decided { decision: Decision::default(), pools: Vec::new() }),
            (0.0, asked_for()),
            (10.0, up()),
            (12.0, What::Busy { machine: MACHINE, tasks: 1 }),
            (30.0, What::Hibernated { machine: MACHINE, given_back: Vec::new() }),
            (50.0, What::Resumed { machine: MACHINE, frozen_s: 20.0 }),
            (51.0, What::Busy { machine: MACHINE, tasks: 2 }),
            (60.0, What::Noticed { machine: MACHINE, gone_at_s: 80.0 }),
            (61.0, What::Idle { machine: MACHINE }),
            (80.0, ended(Why::Reclaimed)),
            (90.0, What::Refused { r#type: "m".to_owned(), market: Lane::Spot, failures: 1 }),
            (90.0, What::Spent { budget: 0.5, cost: 0.6, tasks_left: 3 }),
        ]));
        let life = &lives.machines[0];
        use Phase::*;
        let expected = [(Booting, 10.0), (Idle, 2.0), (Busy, 18.0), (Hibernated, 20.0), (Idle, 1.0), (Busy, 9.0)];
        assert_eq!(phases(life), [&expected[..], &[(Draining, 20.0)]].concat());
        assert_eq!((life.held_s(), life.paid_s(), life.up_s()), (80.0, 60.0, 50.0));
        assert!((life.cost() - 0.6).abs() < 1e-9, "a cent a second");
        assert_eq!((life.first_busy_s, life.told_s, life.ended_s), (Some(12.0), Some(60.0), Some(80.0)));
        assert_eq!((lives.refusals.len(), lives.decisions.len(), lives.until_s), (1, 1, 90.0));
        assert_eq!(lives.spent, Some(Spent { budget: 0.5, cost: 0.6, tasks_left: 3 }));
        assert!((lives.time_scale - 10.0).abs() < 1e-9);
    }

    #[test]
    fn copies_that_were_not_needed_are_lost_time() {
        let copied = |at_s, task, counts| (at_s, What::Copied { machine: MACHINE, task, ran_s: 12.5, counts });
        let events = vec![
            (0.0, asked_for()),
            (10.0, up()),
            (20.0, What::Hedged { tasks: vec![1, 2, 3] }),
            (21.0, What::Busy { machine: MACHINE, tasks: 1 }),
            copied(33.5, 1, true),
            copied(34.0, 2, false),
            (34.0, What::Idle { machine: MACHINE }),
            (50.0, ended(Why::Over)),
            copied(60.0, 3, true),
        ];
        let lives = Lives::of(&log(events));
        assert_eq!((lives.copies, lives.copies_counted, lives.strays), (3, 1, 1));
        assert_eq!((lives.machines[0].copies_lost_s, lives.machines[0].in_phase_s(Phase::Busy)), (12.5, 13.0));
    }

    #[test]
    fn what_goes_on_still_lasts_to_the_end_of_what_is_written() {
        let lives = Lives::of(&log(vec![(5.0, asked_for()), (10.0, up()), (30.0, What::Idle { machine: 99 })]));
        assert_eq!(phases(&lives.machines[0]), [(Phase::Booting, 5.0), (Phase::Idle, 20.0)]);
        assert_eq!((lives.machines[0].ended_s, lives.strays), (None, 1));
    }

    #[test]
    fn what_is_in_no_order_gives_no_times_below_0() {
        let lives = Lives::of(&log(vec![
            (50.0, asked_for()),
            (10.0, up()),
            (-3.0, What::Busy { machine: MACHINE, tasks: 1 }),
            (20.0, ended(Why::Over)),
            (90.0, up()),
            (f64::MAX, ended(Why::Over)),
        ]));
        let life = &lives.machines[0];
        assert!(life.spans.iter().all(|span| span.until_s >= span.from_s), "{life:?}");
        assert_eq!((life.ended_s, lives.strays), (Some(50.0), 2), "what is over stays over");
        assert_eq!(Lives::of(&EventLog::default()).time_scale, 1.0);
    }
}
