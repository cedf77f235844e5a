//! The bar: what a job's counters say, with rate and time left.

use std::{
    io::IsTerminal,
    sync::Mutex,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sheaf_api::wire::JobView;

use crate::{settings::Settings, text};

/// Weight of the newest rate in the moving mean.
const RATE_WEIGHT: f64 = 0.2;

/// Progress on stderr; nothing where that is not a terminal, or nobody wants it.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
    pace: Mutex<Pace>,
}

/// How fast it goes.
#[derive(Debug, Default)]
struct Pace {
    last: Option<(Instant, u64)>,
    per_second: f64,
}

/// What is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    /// Tasks with an outcome.
    pub(crate) ended: u64,
    /// Tasks that failed or were quarantined.
    pub(crate) failed: u64,
    /// Tasks so far.
    pub(crate) tasks: u64,
    /// Whether there will be no more.
    pub(crate) all: bool,
}

impl Bar {
    /// A bar, if there is a terminal to show it.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self::shown_if(settings.progress && std::io::stderr().is_terminal())
    }

    /// A bar for a command that prints results meanwhile: on a terminal those are progress enough.
    pub(crate) fn beside_results(settings: &Settings) -> Self {
        let terminals = (std::io::stderr().is_terminal(), std::io::stdout().is_terminal());
        Self::shown_if(settings.progress && terminals == (true, false))
    }

    fn shown_if(shown: bool) -> Self {
        let target = if shown { ProgressDrawTarget::stderr_with_hz(4) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(style(false));
        Self { bar, pace: Mutex::default() }
    }

    /// Whether anything is shown.
    pub(crate) fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Shows where a job stands.
    pub(crate) fn show(&self, view: &JobView) {
        let totals = &view.summary.totals;
        self.show_counts(Shown {
            ended: totals.ended(),
            failed: totals.failed + totals.quarantined,
            tasks: view.summary.tasks_submitted,
            all: view.job.state.seal().is_some(),
        });
    }

    /// Shows counts.
    pub(crate) fn show_counts(&self, shown: Shown) {
        self.show_with(shown, "");
    }

    /// Shows counts, and something more.
    pub(crate) fn show_with(&self, shown: Shown, more: &str) {
        if !self.is_shown() {
            return;
        }
        let Shown { ended, failed, tasks, all } = shown;
        let per_second = self.rate(ended);
        let mut message = if per_second > 0.0 { text::rate(per_second) } else { String::new() };
        if per_second > 0.0 && all && ended < tasks {
            let left = Duration::from_secs_f64(((tasks - ended) as f64 / per_second).min(1e9));
            message += &format!(", {} left", text::duration(left));
        }
        if failed > 0 {
            message += &format!(", {} failed", text::count(failed));
        }
        if !more.is_empty() {
            message += &format!(", {more}");
        }
        self.bar.set_style(style(tasks > 0));
        self.bar.set_length(tasks);
        self.bar.set_position(ended);
        self.bar.set_message(message);
    }

    /// Prints a line above the bar.
    pub(crate) fn say(&self, line: &str) {
        if self.is_shown() { self.bar.println(line) } else { eprintln!("{line}") }
    }

    /// Takes it away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Tasks in a second, as a moving mean.
    fn rate(&self, ended: u64) -> f64 {
        let now = Instant::now();
        let mut pace = self.pace.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((at, before)) = pace.last {
            let rate = ended.saturating_sub(before) as f64 / (now - at).as_secs_f64().max(1e-3);
            let mean = pace.per_second;
            pace.per_second = if mean == 0.0 { rate } else { mean + RATE_WEIGHT * (rate - mean) };
        }
        pace.last = Some((now, ended));
        pace.per_second
    }
}

/// Progress through work in this process, of which the number of steps is known.
#[derive(Debug)]
pub(crate) struct Steps(ProgressBar);

impl Steps {
    /// A bar, if there is a terminal to show it.
    pub(crate) fn new(settings: &Settings) -> Self {
        let shown = settings.progress && std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr_with_hz(4) } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} {eta} left");
        Self(ProgressBar::with_draw_target(Some(0), target).with_style(style.expect("the template is the one above")))
    }

    /// So many more steps are to be done.
    pub(crate) fn expect(&self, steps: usize) {
        self.0.inc_length(steps as u64);
    }

    /// One step is done.
    pub(crate) fn done(&self) {
        self.0.inc(1);
    }

    /// Takes it away.
    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

fn style(with_tasks: bool) -> ProgressStyle {
    let template =
        if with_tasks { "{wide_bar} {human_pos}/{human_len} {msg}" } else { "{spinner} waiting for tasks {msg}" };
    ProgressStyle::with_template(template).expect("the template is one of the two above")
}
