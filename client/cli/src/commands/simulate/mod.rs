//! `sheaf simulate`.

mod bags;
mod stream;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use sheaf_scheduler::{
    PolicyName,
    formats::{env::Env, spot},
    sim::{
        faults::{FaultKind, FaultMode},
        fit::Fitted,
        published,
    },
    simulate::{BagSimulation, Executor, Scenario},
};

use crate::{
    bags::{self as files, BagArgs, parse_dollars, parse_policy, parse_seconds},
    problem::{Outcome, Problem},
    progress::Steps,
    settings::Settings,
};

/// Simulate policies of capacity: what they cost, and whom they keep waiting
///
/// Bags with a deadline (--job, --bag) are run under each policy in each scenario over many seeds. A stream of requests
/// (--arrivals) is run under each policy with each of its parameters: the curve of waiting against worker time.
#[derive(Debug, Args)]
pub(crate) struct Simulate {
    #[command(flatten)]
    bag: BagArgs,
    /// Seconds a bag has, or a time such as 45m
    #[arg(long, value_name = "TIME", value_parser = parse_seconds, default_value_t = published::DEADLINE_S)]
    deadline: f64,
    /// Dollars that a bag may cost at most, under the policy sheaf. When they are spent, nothing more is started, and what runs is
    /// given two minutes
    #[arg(long, value_name = "DOLLARS", value_parser = parse_dollars, allow_hyphen_values = true)]
    budget: Option<f64>,
    /// A policy; may be given several times. For bags hads-cc, burst-hads and sheaf, for a stream the rules for elastic
    /// workers and sheaf, unless said otherwise
    #[arg(long, value_name = "NAME", value_parser = parse_policy)]
    policy: Vec<PolicyName>,
    #[command(flatten)]
    faults: FaultArgs,
    #[command(flatten)]
    stream: stream::StreamArgs,
    /// Write the rows as CSV, too
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

/// What goes wrong with spot machines.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Faults")]
pub(crate) struct FaultArgs {
    /// Faults and returns of machines expected until the deadline, such as 3,2.5; may be given several times. Returns of 0:
    /// what is gone does not come back
    #[arg(long, value_name = "KH,KR", value_parser = parse_scenario)]
    scenario: Vec<(f64, f64)>,
    /// Only faults that take all machines of a type; both ways unless one is given
    #[arg(long)]
    together: bool,
    /// Only faults that take one machine each
    #[arg(long)]
    each: bool,
    /// Outages from a file of lines type,down_s,up_s, as they were
    #[arg(long, value_name = "FILE")]
    spot_trace: Vec<PathBuf>,
    /// Beside each spot trace, as many of its kind as there are seeds
    #[arg(long, requires = "spot_trace")]
    resample: bool,
    /// What a fault does to a machine
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    fault: Fault,
    /// Runs of each scenario, each with faults of its own
    #[arg(long, value_name = "NUMBER", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seeds: u64,
}

/// What a fault does to a machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// It freezes, costs nothing, and may come back
    #[default]
    Hibernate,
    /// It is gone
    Terminate,
}

impl Fault {
    pub(crate) const fn kind(self) -> FaultKind {
        match self {
            Self::Hibernate => FaultKind::Hibernate,
            Self::Terminate => FaultKind::Terminate,
        }
    }
}

pub(crate) fn parse_scenario(text: &str) -> Result<(f64, f64), String> {
    let number = |text: &str| text.trim().parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    let pair = text.split_once(',').and_then(|(faults, returns)| Some((number(faults)?, number(returns)?)));
    pair.filter(|pair| pair.0 > 0.0)
        .ok_or_else(|| format!("{text:?} is not a pair of numbers such as 3,2.5, the first of them above 0"))
}

impl FaultArgs {
    /// What the flags ask for; nothing if they ask for nothing.
    pub(crate) fn scenarios(&self, env: &Env) -> Outcome<Vec<Scenario>> {
        let mut scenarios = Scenario::grid(&self.scenario, &self.modes()).split_off(1);
        for path in &self.spot_trace {
            let outages = files::read(path, spot::parse)?;
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            if !outages.iter().any(|outage| env.find(&outage.zone).is_some()) {
                let zones: Vec<_> = outages.iter().map(|outage| outage.zone.as_str()).take(3).collect();
                let message = format!("{} names no machine type of env.json: {}", path.display(), zones.join(", "));
                return Err(
                    Problem::usage(message).with_hint("its first column must be a machine type such as c4.large")
                );
            }
            let ends = outages.iter().flat_map(|outage| [outage.down_s, outage.up_s]).filter(|at_s| at_s.is_finite());
            let fitted = Fitted::of(&outages, ends.fold(0.0, f64::max));
            scenarios.push(Scenario::Trace { name: name.clone(), outages });
            if let Some(fitted) = fitted.filter(|_| self.resample) {
                scenarios.push(Scenario::Like { name, fitted });
            }
        }
        Ok(scenarios)
    }

    fn modes(&self) -> Vec<FaultMode> {
        let all = self.together == self.each;
        let wanted = [(FaultMode::Together, self.together), (FaultMode::Each, self.each)];
        wanted.into_iter().filter(|(_, wanted)| all || *wanted).map(|(mode, _)| mode).collect()
    }

    /// The published scenarios in the modes that are asked for, and none.
    fn published(&self) -> Vec<Scenario> {
        Scenario::grid(&published::SCENARIOS, &self.modes())
    }

    /// The rest of what the flags say.
    pub(crate) fn simulation(&self) -> BagSimulation {
        BagSimulation { kind: self.fault.kind(), seeds: self.seeds, ..BagSimulation::default() }
    }
}

/// All cores of this machine, with progress.
#[derive(Debug)]
pub(crate) struct Cores<'a>(pub(crate) &'a Steps);

impl Executor for Cores<'_> {
    fn map<T: Sync, R: Send>(&self, items: &[T], work: impl Fn(&T) -> R + Sync + Send) -> Vec<R> {
        self.0.expect(items.len());
        let done = |item| {
            let result = work(item);
            self.0.done();
            result
        };
        items.par_iter().map(done).collect()
    }
}

impl Simulate {
    pub(crate) fn run(&self, settings: &Settings) -> Outcome {
        match &self.stream.arrivals {
            Some(_) if !self.bag.job.is_empty() || !self.bag.bag.is_empty() => {
                Err(Problem::usage("--arrivals is a stream, --job and --bag are bags")
                    .with_hint("simulate one of them at a time"))
            }
            Some(_) if self.budget.is_some() => Err(Problem::usage("--arrivals is a stream, and --budget is of a bag")
                .with_hint("leave out --budget, or give --job or --bag")),
            Some(path) => stream::run(self, path, settings),
            None => bags::run(self, settings),
        }
    }
}

/// Writes rows as CSV: a heading, then a line for each.
fn write_csv(path: &std::path::Path, heading: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Outcome<()> {
    let failed = |error: csv::Error| Problem::file("written", path, std::io::Error::other(error));
    let mut writer = csv::Writer::from_path(path).map_err(failed)?;
    writer.write_record(heading).map_err(failed)?;
    for row in rows {
        writer.write_record(row).map_err(failed)?;
    }
    writer.flush().map_err(|error| Problem::file("written", path, error))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn scenarios_are_pairs() {
        assert_eq!(parse_scenario("3,2.5"), Ok((3.0, 2.5)));
        assert_eq!(parse_scenario("1, 0"), Ok((1.0, 0.0)));
        assert!(["0,1", "3", "3,-1", "a,b", "inf,1", ""].iter().all(|text| parse_scenario(text).is_err()));
    }

    #[test]
    fn both_modes_unless_one_is_given() {
        let count = |together, each| FaultArgs { together, each, ..FaultArgs::default() }.modes().len();
        assert_eq!([count(false, false), count(true, true), count(true, false), count(false, true)], [2, 2, 1, 1]);
        assert_eq!(FaultArgs::default().published().len(), 11);
        let env = published::env();
        assert!(FaultArgs::default().scenarios(&env).unwrap().is_empty());
    }
}
