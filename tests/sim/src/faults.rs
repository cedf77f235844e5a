//! What can go wrong, and how often; drawn anew for each seed.

/// Kinds of faults and their rates. A rate is the probability per port call, message, invocation or second, as named.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Per port call: refused because the store is busy; nothing happened.
    pub throttled: f64,
    /// Per write: it happened, and its answer is lost.
    pub answer_lost: f64,
    /// Per write: it did not happen, and nobody is told.
    pub request_lost: f64,
    /// Per write: the caller is told nothing, and it happens up to a minute later.
    pub late: f64,
    /// Per port call: it takes up to two seconds.
    pub slow: f64,
    /// Per port call of a process that can die: it dies, before or after the effect.
    pub crash: f64,
    /// Per port call of a process that can be paused: it is, for 1 to 90 s.
    pub pause: f64,
    /// Clocks differ from the true time by up to this much, in ms.
    pub skew_ms: u64,
    /// Per message sent: never arrives.
    pub message_lost: f64,
    /// Per message sent: arrives twice.
    pub message_twice: f64,
    /// Per message sent: arrives up to 15 minutes late.
    pub message_late: f64,
    /// Per deletion of a message: ignored.
    pub delete_ignored: f64,
    /// Per receive: nothing, since too many messages are in flight.
    pub receive_empty: f64,
    /// Per second: the queue is purged, as if its retention were over.
    pub purge: f64,
    /// The index of due chunks and the listing of jobs lag by up to this much, in ms.
    pub index_lag_ms: u64,
    /// Records of the stream come up to this much later, in ms.
    pub stream_lag_ms: u64,
    /// Per batch of the stream: delivered again.
    pub stream_twice: f64,
    /// Per call of a client: its answer is lost on the way.
    pub reply_lost: f64,
    /// Per invocation: run twice at once.
    pub invoked_twice: f64,
    /// Per minute of a spot worker: it is reclaimed, with one of the notices.
    pub reclaim: f64,
    /// Whether a reclaim may come with 3 s of notice, or none.
    pub short_notice: bool,
    /// Per second: the store is full for up to 20 s.
    pub full: f64,
    /// Per hint: its cached pack is of something else.
    pub wrong_pack: f64,
}

/// Which faults a seed may draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// None at all: everything must be exact.
    Calm,
    /// Those which no worker may be blamed for: lost answers, throttling, messages in any order, lost or twice.
    Gentle,
    /// All of them.
    Rough,
}

impl Faults {
    /// Draws kinds and rates.
    pub fn draw(weather: Weather, rng: &mut fastrand::Rng) -> Self {
        if weather == Weather::Calm {
            return Self::default();
        }
        // Each kind is off in half of the seeds, and its rate spans two orders of magnitude.
        let mut rate = |most: f64| if rng.bool() { most * 10f64.powf(-2.0 * rng.f64()) } else { 0.0 };
        // In gentle weather nine tries in a row must not fail, or a worker would be blamed for it after all.
        let (busy, lost) = if weather == Weather::Rough { (0.2, 0.1) } else { (0.05, 0.03) };
        let mut faults = Self {
            throttled: rate(busy),
            answer_lost: rate(lost),
            request_lost: rate(lost),
            slow: rate(0.2),
            message_lost: rate(0.5),
            message_twice: rate(0.5),
            message_late: rate(0.2),
            delete_ignored: rate(0.2),
            receive_empty: rate(0.5),
            purge: rate(0.02),
            stream_twice: rate(0.3),
            reply_lost: rate(0.2),
            reclaim: rate(0.5),
            wrong_pack: rate(0.2),
            ..Self::default()
        };
        if weather == Weather::Rough {
            faults.late = rate(0.05);
            faults.crash = rate(0.03);
            faults.pause = rate(0.01);
            faults.full = rate(0.02);
            faults.invoked_twice = rate(0.2);
            faults.skew_ms = rate(20_000.0) as u64;
            faults.short_notice = rate(1.0) > 0.0;
        }
        faults.index_lag_ms = rate(30_000.0) as u64;
        faults.stream_lag_ms = rate(30_000.0) as u64;
        faults
    }
}
