//! What happens to machines, as it is told and written down, a line of JSON each; and how that is read again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sheaf_core::{ChunkKey, Lane, WorkerId};
use sheaf_scheduler::Decision;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, in seconds of the plan since the fleet began.
    pub at_s: f64,
    /// When (Unix, ms).
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum What {
    /// The policy answered something else than the last time.
    Decided {
        /// Its answer, with the reasons.
        decision: Decision,
        /// The pools that it speaks of by their places: type and market.
        #[serde(default)]
        pools: Vec<String>,
    },
    /// A machine was asked for, and boots.
    Requested {
        /// Its number.
        machine: u64,
        /// Its type.
        r#type: String,
        /// Its market.
        market: Lane,
        /// Tasks it runs at once.
        #[serde(default)]
        slots: u32,
        /// Dollars an hour.
        #[serde(default)]
        price_per_hour: f64,
    },
    /// There was no capacity; the pool is left alone for a while.
    Refused {
        /// The type.
        r#type: String,
        /// The market.
        market: Lane,
        /// Refusals in a row.
        failures: u32,
    },
    /// A machine has booted, and its worker has joined the grid.
    Up {
        /// Its number.
        machine: u64,
        /// Its worker.
        worker: WorkerId,
    },
    /// A machine holds leases, or runs second copies, again.
    Busy {
        /// Its number.
        machine: u64,
        /// Tasks it runs.
        tasks: u32,
    },
    /// A machine does neither any more.
    Idle {
        /// Its number.
        machine: u64,
    },
    /// The provider said that it takes a machine away.
    Noticed {
        /// Its number.
        machine: u64,
        /// When it is gone, in seconds of the plan.
        gone_at_s: f64,
    },
    /// A machine was frozen by its provider, with everything that it ran. It may come back.
    Hibernated {
        /// Its number.
        machine: u64,
        /// What it held, given back in its name.
        given_back: Vec<ChunkKey>,
    },
    /// A frozen machine goes on, and holds nothing.
    Resumed {
        /// Its number.
        machine: u64,
        /// For how long it was frozen, in seconds of the plan.
        frozen_s: f64,
    },
    /// Second copies were asked for, of tasks that run where they may be taken away.
    Hedged {
        /// The tasks, by their places in the job.
        tasks: Vec<usize>,
    },
    /// A second copy has ended on a machine.
    Copied {
        /// The machine's number.
        machine: u64,
        /// The task, by its place in the job.
        task: usize,
        /// For how long it ran, in seconds of the plan.
        ran_s: f64,
        /// Whether it was of use: it gave the outcome, or became the attempt that goes on. If not, its time is lost.
        counts: bool,
    },
    /// A machine was told to end, as it is wanted no longer.
    Draining {
        /// Its number.
        machine: u64,
        /// Until when what it runs may go on, in seconds of the plan.
        until_s: f64,
    },
    /// A machine is gone.
    Ended {
        /// Its number.
        machine: u64,
        /// Why.
        why: Why,
        /// What it still held, given back in its name.
        given_back: Vec<ChunkKey>,
        /// Slot seconds of the plan in which it ran something.
        #[serde(default)]
        busy_slot_s: Option<f64>,
    },
    /// The budget is spent with work left, and no machine is held any more.
    Spent {
        /// Dollars that the machines were allowed to cost.
        budget: f64,
        /// Dollars that they have cost.
        cost: f64,
        /// Tasks without an outcome.
        tasks_left: usize,
    },
}

impl What {
    /// What each is called where it is written down.
    const NAMES: [&'static str; 14] = [
        "decided",
        "requested",
        "refused",
        "up",
        "busy",
        "idle",
        "noticed",
        "hibernated",
        "resumed",
        "hedged",
        "copied",
        "draining",
        "ended",
        "spent",
    ];
}

/// Why a machine is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It was wanted no longer.
    Drained,
    /// Its provider took it away.
    Reclaimed,
    /// Its process ended by itself, which no machine's should.
    Failed,
    /// The work is over.
    Over,
}

impl Why {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Drained => "drained",
            Self::Reclaimed => "reclaimed",
            Self::Failed => "failed",
            Self::Over => "over",
        }
    }
}

/// What was written down of a fleet.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EventLog {
    /// In the order in which it was written.
    pub events: Vec<Event>,
    /// What a later version has written and this one does not know: how often each kind of it occurs.
    pub unknown: BTreeMap<String, u64>,
    /// The last line is not whole: whoever wrote it was cut short, or writes still.
    pub is_cut_short: bool,
}

/// A line that is no event.
#[derive(Debug, thiserror::Error)]
#[error("line {line} is no event of a machine: {source}")]
pub struct LineError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    #[source]
    pub source: serde_json::Error,
}

/// What a line of a later version is known to have.
#[derive(Deserialize)]
struct Later {
    event: String,
}

impl EventLog {
    /// Reads lines of JSON. Empty ones are passed over.
    ///
    /// # Errors
    /// The first line that is no event, unless it is one that a later version may have written or the last one, cut short.
    pub fn parse(text: &str) -> Result<Self, LineError> {
        let mut log = Self::default();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let error = match serde_json::from_str(line) {
                Ok(event) => {
                    log.events.push(event);
                    continue;
                }
                Err(error) => error,
            };
            match serde_json::from_str::<Later>(line) {
                Ok(later) if !What::NAMES.contains(&later.event.as_str()) => {
                    *log.unknown.entry(later.event).or_default() += 1;
                }
                _ if error.is_eof() && text.ends_with(line) => log.is_cut_short = true,
                _ => return Err(LineError { line: number + 1, source: error }),
            }
        }
        Ok(log)
    }
}

#[cfg(test)]
mod tests {
    use sheaf_core::JobId;
    use sheaf_scheduler::Infeasible;

    use super::*;

    /// One of each kind.
    fn all() -> Vec<What> {
        let worker: WorkerId = WorkerId::remote_from_uuid(uuid::Uuid::from_u128(7));
        let given_back = vec![ChunkKey { job: JobId::from_bytes([1; 16]), number: 3 }];
        let (machine, market, gone_at_s, until_s, frozen_s) = (1, Lane::Spot, 40.5, 60.0, 8.25);
        let never = Infeasible { job: "job".to_owned(), earliest_finish_at_s: f64::INFINITY };
        vec![
            What::Decided {
                decision: Decision { reasons: vec!["why".to_owned()], infeasible: vec![never], ..Decision::default() },
                pools: vec!["m spot".to_owned()],
            },
            What::Requested { machine, r#type: "m".to_owned(), market, slots: 2, price_per_hour: 0.25 },
            What::Refused { r#type: "m".to_owned(), market: Lane::OnDemand, failures: 2 },
            What::Up { machine, worker },
            What::Busy { machine, tasks: 2 },
            What::Idle { machine },
            What::Noticed { machine, gone_at_s },
            What::Hibernated { machine, given_back: given_back.clone() },
            What::Resumed { machine, frozen_s },
            What::Hedged { tasks: vec![3] },
            What::Copied { machine, task: 3, ran_s: 12.5, counts: true },
            What::Draining { machine, until_s },
            What::Ended { machine, why: Why::Reclaimed, given_back, busy_slot_s: Some(70.5) },
            What::Spent { budget: 0.5, cost: 0.75, tasks_left: 3 },
        ]
    }

    fn line(what: What) -> String {
        serde_json::to_string(&Event { at_s: 1.5, at_ms: 1_800_000_000_000, what }).expect("an event becomes JSON")
    }

    #[test]
    fn what_is_written_is_read_again_and_every_name_is_known() {
        let text: String = all().into_iter().map(|what| line(what) + "\n").collect();
        let log = EventLog::parse(&text).expect("it was written here");
        assert_eq!(log.events.iter().map(|event| event.what.clone()).collect::<Vec<_>>(), all());
        assert!(log.unknown.is_empty() && !log.is_cut_short);
        let name = |line: &str| serde_json::from_str::<Later>(line).expect("it has a name").event;
        assert_eq!(text.lines().map(name).collect::<Vec<_>>(), What::NAMES);
    }

    #[test]
    fn what_a_later_version_writes_is_counted_and_what_is_no_event_is_named() {
        let idle = line(What::Idle { machine: 1 });
        let later = r#"{"at_s": 2, "at_ms": 3, "event": "teleported", "machine": 1}"#;
        let log = EventLog::parse(&format!("{idle}\n\n{later}\n{later}\n")).expect("it may be read");
        assert_eq!((log.events.len(), log.unknown.get("teleported")), (1, Some(&2)));
        let said = |text: String| EventLog::parse(&text).expect_err("it is damaged").to_string();
        assert!(said(format!("{idle}\n{{\"event\": 1}}\n{idle}\n")).starts_with("line 2 is no event"));
        assert!(said(format!("nonsense\n{idle}\n")).starts_with("line 1 is no event"));
        // One of ours without what it must have is damaged, not new.
        assert!(said(r#"{"at_s": 2, "at_ms": 3, "event": "idle"}"#.to_owned()).contains("machine"));
    }

    #[test]
    fn a_log_may_be_cut_short_anywhere() {
        let text: String = all().into_iter().map(|what| line(what) + "\n").collect();
        for bytes in 0..text.len() {
            let log = EventLog::parse(&text[..bytes]).expect("its whole lines are good");
            let whole = text[..bytes].matches('\n').count();
            assert!([whole, whole + 1].contains(&log.events.len()), "{bytes}: {log:?}");
        }
    }
}
