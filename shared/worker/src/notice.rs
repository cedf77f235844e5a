//! Why a worker is asked to stop, and by when.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sheaf_core::ReleaseReason;

/// From a notice to the last write it causes. Source: two minutes are given; the rest is for what is slow that day.
const RECLAIM_MS: u64 = 90_000;
/// A notice may be this old when it is seen: whoever looks for notices does so as often.
pub const LOOK_MS: u64 = 5_000;
/// What committing and giving back may take, once tasks were stopped.
pub(crate) const GIVE_BACK_MS: u64 = 10_000;
/// How long before the machine goes everything must be over.
const BEFORE_MS: u64 = 5_000;
/// What is kept, of the time from SIGTERM to SIGKILL, for giving back, ending functions and saying good-bye.
const SIGNAL_MARGIN_MS: u64 = 30_000;

/// A signal that asks a process to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
}

impl Signal {
    /// The exit code of a process that this signal has ended, as shells have it.
    pub const fn exit_code(self) -> i32 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// Why a worker is asked to stop. As JSON it is what a process that starts workers
/// tells them, a line each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// The provider takes the machine away.
    Reclaim {
        /// When (Unix, ms), if it says so.
        at_ms: Option<u64>,
    },
    /// The provider may take the machine away sooner than others.
    Rebalance,
    /// Whoever started it wants it no longer.
    Drain {
        /// When what runs must have ended (Unix, ms).
        until_ms: u64,
    },
    /// A signal.
    Signal(Signal),
    /// It has had nothing to do for as long as it may.
    Idle,
}

/// What a worker that is stopping has to keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// When the last task must have stopped (Unix, ms); `u64::MAX` if what runs may end.
    pub until_ms: u64,
    /// What is said of chunks that are given back.
    pub reason: ReleaseReason,
}

impl Stop {
    /// What a notice seen now asks for, where a signal leaves so much time.
    pub fn of(notice: Notice, now_ms: u64, stop: Duration) -> Self {
        let (until_ms, reason) = match notice {
            Notice::Reclaim { at_ms } => {
                let soon_ms = now_ms + RECLAIM_MS - LOOK_MS - GIVE_BACK_MS;
                let at_ms = at_ms.map_or(u64::MAX, |at_ms| at_ms.saturating_sub(BEFORE_MS + GIVE_BACK_MS));
                // If it is too late for that, what can be given back is, as long as there is a machine.
                (soon_ms.min(at_ms).max(now_ms), ReleaseReason::Reclaimed)
            }
            Notice::Rebalance => (u64::MAX, ReleaseReason::Reclaimed),
            Notice::Drain { until_ms } => (until_ms.max(now_ms), ReleaseReason::Drain),
            Notice::Signal(_) => {
                let stop_ms = stop.as_millis() as u64;
                (now_ms + stop_ms - SIGNAL_MARGIN_MS.min(stop_ms / 2), ReleaseReason::Drain)
            }
            Notice::Idle => (u64::MAX, ReleaseReason::Drain),
        };
        Self { until_ms, reason }
    }

    /// Both: the earlier time; and if the machine is wanted back, that is why, whatever else was said.
    pub fn and(self, other: Self) -> Self {
        let reclaimed = [self.reason, other.reason].contains(&ReleaseReason::Reclaimed);
        let reason = if reclaimed { ReleaseReason::Reclaimed } else { self.reason };
        Self { until_ms: self.until_ms.min(other.until_ms), reason }
    }

    /// When everything must have been given back (Unix, ms).
    pub(crate) const fn over_ms(self) -> u64 {
        self.until_ms.saturating_add(GIVE_BACK_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;
    const TERM: Notice = Notice::Signal(Signal::Terminate);

    fn left_ms(notice: Notice, stop_s: u64) -> u64 {
        Stop::of(notice, NOW_MS, Duration::from_secs(stop_s)).until_ms.saturating_sub(NOW_MS)
    }

    #[test]
    fn all_is_over_within_90_s_of_a_notice_and_before_its_time() {
        for in_ms in [120_000, 100_000, 60_000, 20_000, 16_000] {
            let stop = Stop::of(Notice::Reclaim { at_ms: Some(NOW_MS + in_ms) }, NOW_MS, Duration::from_secs(110));
            assert!(stop.over_ms() + LOOK_MS <= NOW_MS + RECLAIM_MS, "{in_ms}: {stop:?}");
            assert!(stop.over_ms() < NOW_MS + in_ms, "{in_ms}: {stop:?}");
        }
        assert_eq!(left_ms(Notice::Reclaim { at_ms: None }, 110), 75_000);
        // Hibernation does not wait, and a clock may be wrong.
        for at_ms in [NOW_MS - 60_000, NOW_MS, NOW_MS + 10_000] {
            let stop = Stop::of(Notice::Reclaim { at_ms: Some(at_ms) }, NOW_MS, Duration::from_secs(110));
            assert_eq!(stop.until_ms, NOW_MS, "tasks stop at once");
            assert_eq!(stop.over_ms(), NOW_MS + GIVE_BACK_MS, "and there is time to give them back");
        }
    }

    #[test]
    fn a_signal_leaves_a_margin_however_short_its_time() {
        assert_eq!([110, 60, 10, 0].map(|stop_s| left_ms(TERM, stop_s)), [80_000, 30_000, 5_000, 0]);
    }

    #[test]
    fn a_further_notice_only_makes_it_faster_and_says_why() {
        let of = |notice| Stop::of(notice, NOW_MS, Duration::from_secs(110));
        let reclaim = of(Notice::Reclaim { at_ms: None });
        for (first, then) in [(of(TERM), reclaim), (reclaim, of(TERM)), (of(Notice::Rebalance), reclaim)] {
            assert_eq!(first.and(then), reclaim);
        }
        assert_eq!(of(TERM).and(of(Notice::Rebalance)).until_ms, of(TERM).until_ms);
        assert_eq!(of(Notice::Idle).and(of(TERM)), of(TERM));
        assert_eq!(of(Notice::Rebalance).over_ms(), u64::MAX, "what runs may end");
    }
}
