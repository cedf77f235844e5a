//! The trait every policy has, their names, and what they can be told.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Decision, Snapshot, policies};

/// Decides how much capacity to want.
///
/// # Contract
/// Same snapshot and memory, same answer: no clock, no randomness, no hidden state. A want never exceeds its pool's
/// cap. A drain of a machine that holds leases gives it at least twice the grace. More open work, all else equal, never
/// wants less, except from the HADS ports, which plan anew and refuse what they cannot plan.
pub trait Policy {
    /// Its name, as in the settings and on the command line.
    fn name(&self) -> PolicyName;

    /// The answer to `snapshot`. `memory` is what this policy noted last time; keep it and hand it in again.
    /// Repeating a call with what it left there gives the same wants.
    fn decide(&self, snapshot: &Snapshot, memory: &mut Memory) -> Decision;
}

/// All a policy may remember between two decisions. Losing it costs a policy some of its tuning, nothing else.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// The grace `adaptive-grace` has come to.
    pub grace_s: Option<f64>,
    /// When it last changed its mind.
    pub adapted_at_s: Option<f64>,
    /// How often tasks arrived of late, for `sheaf`.
    pub arrivals: Option<Arrivals>,
}

/// How often tasks arrive: a count and a time that both fade, their quotient being the rate.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Arrivals {
    /// Tasks, old ones faded.
    pub tasks: f64,
    /// Seconds, old ones faded.
    pub seconds: f64,
    /// When it was last brought up to date.
    pub at_s: f64,
    /// When a task last arrived.
    pub last_at_s: f64,
}

impl Arrivals {
    /// Seconds in which what was seen fades to a third.
    const FADE_S: f64 = 60.0;

    /// Adds that `tasks` arrived by `now_s`. Told twice at one instant, it hears the first.
    pub fn note(&mut self, now_s: f64, tasks: u64) {
        let elapsed_s = now_s - self.at_s;
        if elapsed_s <= 0.0 {
            return;
        }
        let kept = (-elapsed_s / Self::FADE_S).exp();
        self.tasks = self.tasks * kept + tasks as f64;
        self.seconds = self.seconds * kept + elapsed_s;
        self.at_s = now_s;
        if tasks > 0 {
            self.last_at_s = now_s;
        }
    }

    /// Tasks to expect within `span_s` of `now_s`: no denser than the silence since the last one allows.
    pub fn expected(&self, now_s: f64, span_s: f64) -> f64 {
        let rate = if self.seconds > 0.0 { self.tasks / self.seconds } else { 0.0 };
        rate.min(1.0 / (now_s - self.last_at_s).max(f64::MIN_POSITIVE)) * span_s
    }
}

macro_rules! policies {
    ($($variant:ident => $word:literal, $doc:literal;)+) => {
        /// Which policy.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum PolicyName { $(#[doc = $doc] $variant,)+ }

        impl PolicyName {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word for it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
    };
}

impl PolicyName {
    /// Whether it looks at [`Demand::budget_left`](crate::Demand::budget_left).
    pub const fn keeps_budgets(self) -> bool {
        matches!(self, Self::Sheaf)
    }
}

policies! {
    Fixed => "fixed", "A fixed number of machines.";
    MinimizeWorkers => "minimize-workers", "One worker more per arrival up to a cap; an idle one ends at once.";
    GracePeriod => "grace-period", "The same, but an idle worker stays for a while.";
    Queue => "queue", "One worker more only when the queue is long.";
    Reserve => "reserve", "Always one idle worker in reserve.";
    AdaptiveGrace => "adaptive-grace", "The grace follows how busy the workers are.";
    HadsCc => "hads-cc", "HADS as published in Cluster Computing 2021: spot first, slack for running again on-demand.";
    BurstHads => "burst-hads", "Burst-HADS: iterated local search and burstable machines.";
    Sheaf => "sheaf", "Ours: wide on spot while it is cheap, on-demand at the last responsible moment.";
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A name that is no policy's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no policy is called `{0}`; there are: {list}", list = PolicyName::ALL.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", "))]
pub struct UnknownPolicy(String);

impl FromStr for PolicyName {
    type Err = UnknownPolicy;
    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        Self::ALL.iter().copied().find(|name| name.as_str() == text).ok_or_else(|| UnknownPolicy(text.to_owned()))
    }
}

/// What policies can be told. Each reads its own part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Seconds between two decisions. 15: how often the scaler runs.
    pub period_s: f64,
    /// Workers at most, all pools together, for the elastic rules; `fixed` holds this many. 5.
    pub workers_max: u32,
    /// Seconds an idle worker stays, for `grace-period` and `adaptive-grace`, and half of what a leased worker is given
    /// when it is drained. 60.
    pub grace_s: f64,
    /// Waiting tasks from which `queue` wants one worker more. 9, as in DaCirco.
    pub queue_threshold: u64,
    /// Idle workers `reserve` keeps. 1.
    pub reserve: u32,
    /// `sheaf`: seconds in which open work without a deadline or latency target should be done. 300.
    pub drain_s: f64,
    /// `sheaf`: share of the on-demand work that may be lost to booting for it, and to slots that have ended while others still
    /// run their last task; decides how early it is started. 0.1.
    pub guard_loss_share: f64,
    /// `sheaf`: seconds kept free before a deadline, on top of boot and longest task. 15.
    pub margin_s: f64,
    /// `sheaf`: the most of the spot capacity in one machine type and zone while there are others near its price. 0.5.
    pub one_pool_share: f64,
    /// `sheaf`: how much dearer a pool may be than the cheapest to be taken for diversity's sake. 0.25.
    pub near_price: f64,
    /// `sheaf`: the cost of a dump, for Young's interval. 13.4 s: CRIU at 10 MB.
    pub dump_s: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            period_s: 15.0,
            workers_max: 5,
            grace_s: 60.0,
            queue_threshold: 9,
            reserve: 1,
            drain_s: 300.0,
            guard_loss_share: 0.1,
            margin_s: 15.0,
            one_pool_share: 0.5,
            near_price: 0.25,
            dump_s: 13.4,
        }
    }
}

impl Settings {
    /// The policy called `name`, told these settings.
    pub fn policy(&self, name: PolicyName) -> Box<dyn Policy + Send + Sync> {
        policies::named(name, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_expected_as_often_as_of_late() {
        let mut arrivals = Arrivals::default();
        (1..=100).for_each(|n| arrivals.note(f64::from(n) * 6.0, 1));
        assert!((arrivals.expected(600.0, 18.0) - 3.0).abs() < 0.2);
        assert!((arrivals.expected(660.0, 18.0) - 0.3).abs() < 0.01, "a minute of silence is believed");
        let before = arrivals;
        arrivals.note(600.0, 5);
        assert_eq!(arrivals, before, "told twice at one instant");
    }
}
