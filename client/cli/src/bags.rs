//! The bags that `plan`, `simulate` and `control` are about: job.json and env.json, or one made up after the published ones.

use std::path::{Path, PathBuf};

use clap::Args;
use sheaf_api::Code;
use sheaf_scheduler::{
    PolicyName,
    formats::{FormatError, env::Env, job::Job},
    hads::Bag,
    sim::published::{self, Published},
    simulate::Entry,
};

use crate::{
    problem::{Outcome, Problem},
    text,
};

/// Which bags.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct BagArgs {
    /// A job.json: tasks with their memory, command, and seconds on each machine type. NAME=FILE calls it NAME
    #[arg(long, value_name = "FILE", requires = "env")]
    pub(crate) job: Vec<String>,
    /// The env.json: machine types with prices and limits; one for all jobs, or one for each in their order
    #[arg(long, value_name = "FILE", requires = "job")]
    pub(crate) env: Vec<PathBuf>,
    /// In the place of both files, a bag made up with the published number of tasks and run times: J60, J80, J100 or ED200
    #[arg(long, value_name = "NAME", value_parser = parse_published)]
    pub(crate) bag: Vec<Published>,
    /// The seed that bags are made up from
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    bag_seed: u64,
}

impl BagArgs {
    /// Reads all of them.
    pub(crate) fn read(&self) -> Outcome<Vec<Entry>> {
        if self.env.len() > 1 && self.env.len() != self.job.len() {
            let message = format!("{} for {}", text::counted(self.env.len() as u64, "--env"), self.jobs_counted());
            return Err(
                Problem::usage(message).with_hint("give one --env for all jobs, or one for each in their order")
            );
        }
        let envs = self.env.iter().map(|path| Ok((path, read(path, Env::parse)?))).collect::<Outcome<Vec<_>>>()?;
        let mut entries = Vec::new();
        for (number, job) in self.job.iter().enumerate() {
            let Some((env_path, env)) = envs.get(number).or(envs.first()) else { continue };
            let (name, path) = named(job);
            let job = read(path, Job::parse)?;
            let bag = Bag::new(job, env.clone()).map_err(|error| {
                in_file(path, &error).with_hint(format!("the machine types are those of {}", env_path.display()))
            })?;
            entries.push(Entry { name: name.map_or_else(|| name_of(&bag.job, path), ToOwned::to_owned), bag });
        }
        for of in &self.bag {
            let bag = published::bag(of, self.bag_seed).map_err(|error| made_up(of, &error))?;
            entries.push(Entry { name: of.name.to_owned(), bag });
        }
        if let Some(twice) = entries.iter().enumerate().find(|(at, e)| entries[..*at].iter().any(|o| o.name == e.name))
        {
            return Err(Problem::usage(format!("two bags are called {}", twice.1.name))
                .with_hint("tell them apart: --job first=a/job.json --job second=b/job.json"));
        }
        Ok(entries)
    }

    /// Reads the only one.
    pub(crate) fn read_one(&self) -> Outcome<Entry> {
        let mut entries = self.read()?;
        match (entries.pop(), entries.is_empty()) {
            (Some(entry), true) => Ok(entry),
            (None, _) => Err(nothing_to_do()),
            (Some(_), false) => Err(Problem::usage("several bags were given, and this plans one")
                .with_hint("`sheaf simulate` takes several")),
        }
    }

    fn jobs_counted(&self) -> String {
        text::counted(self.job.len() as u64, "--job")
    }
}

/// No bag was given.
pub(crate) fn nothing_to_do() -> Problem {
    Problem::usage("there is no bag")
        .with_hint("give --job job.json --env env.json, or --bag J60 for one that is made up")
}

fn parse_published(text: &str) -> Result<Published, String> {
    let names = || published::BAGS.map(|bag| bag.name).join(", ");
    Published::find(text).copied().ok_or_else(|| format!("{text:?} is none of {}", names()))
}

fn made_up(of: &Published, error: &FormatError) -> Problem {
    Problem::new(Code::Internal, format!("the bag {}: {error}", of.name))
}

/// NAME=FILE, unless there is a file of that name.
fn named(argument: &str) -> (Option<&str>, &Path) {
    match argument.split_once('=') {
        Some((name, path)) if !name.is_empty() && !Path::new(argument).exists() => (Some(name), Path::new(path)),
        _ => (None, Path::new(argument)),
    }
}

/// What a job is called in a table: as a published bag, if anything about it says that it is one.
fn name_of(job: &Job, path: &Path) -> String {
    let of_path =
        |path: Option<&Path>| path.and_then(Path::file_stem).and_then(|stem| stem.to_str()).map(ToOwned::to_owned);
    let said = [Some(job.job_name.clone()), Some(job.job_id.clone()), of_path(Some(path)), of_path(path.parent())];
    let said: Vec<String> = said.into_iter().flatten().filter(|name| !name.is_empty()).collect();
    let published = said.iter().find_map(|name| Published::find(name));
    published.map_or_else(|| said.first().cloned().unwrap_or_default(), |published| published.name.to_owned())
}

/// Reads a file and parses its text; the error names the file and the place in it.
pub(crate) fn read<T>(path: &Path, parse: impl FnOnce(&str) -> Result<T, FormatError>) -> Outcome<T> {
    let text = std::fs::read_to_string(path).map_err(|error| Problem::file("read", path, error))?;
    // Written by an editor on Windows, a file may begin with a mark of its byte order.
    parse(text.trim_start_matches('\u{feff}')).map_err(|error| in_file(path, &error))
}

fn in_file(path: &Path, error: &FormatError) -> Problem {
    Problem::new(Code::Invalid, format!("{}: {error}", path.display())).with_code("capacity_file")
}

/// Reads a number of seconds above 0: `2700`, `2700s` or `45m`.
pub(crate) fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().or_else(|_| text::parse_duration(text).map(|duration| duration.as_secs_f64()));
    let expected = || format!("{text:?} is not a time above 0, such as 2700 (seconds) or 45m");
    seconds.ok().filter(|seconds: &f64| seconds.is_finite() && *seconds > 0.0).ok_or_else(expected)
}

/// Reads a number of dollars above 0.
pub(crate) fn parse_dollars(text: &str) -> Result<f64, String> {
    let dollars = text.strip_prefix('$').unwrap_or(text).parse().ok();
    let expected = || format!("{text:?} is not an amount above 0, such as 2.50 (dollars)");
    dollars.filter(|dollars: &f64| dollars.is_finite() && *dollars > 0.0).ok_or_else(expected)
}

/// A budget is for a policy that keeps it.
pub(crate) fn check_budget(budget: Option<f64>, policies: &[PolicyName]) -> Outcome<()> {
    let ignored: Vec<_> = policies.iter().filter(|policy| !policy.keeps_budgets()).map(|of| of.as_str()).collect();
    if budget.is_none() || ignored.is_empty() {
        return Ok(());
    }
    let ignored = ignored.join(", ");
    if policies.iter().any(|policy| policy.keeps_budgets()) {
        eprintln!("--budget is for the policy sheaf; without one: {ignored}");
        return Ok(());
    }
    Err(Problem::usage(format!("--budget is for the policy sheaf, and this is {ignored}"))
        .with_hint("leave out --budget, or take --policy sheaf"))
}

/// Reads the name of a policy.
pub(crate) fn parse_policy(text: &str) -> Result<PolicyName, String> {
    text.parse().map_err(|error: sheaf_scheduler::UnknownPolicy| error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read_with_and_without_a_unit() {
        assert_eq!(
            ["2700", "45m", "2700s", "0.5"].map(|text| parse_seconds(text).unwrap()),
            [2700.0, 2700.0, 2700.0, 0.5]
        );
        assert!(["0", "-5", "inf", "nan", "soon"].iter().all(|text| parse_seconds(text).is_err()));
    }

    #[test]
    fn dollars_are_above_0() {
        assert_eq!(["2.50", "$2.5", "1e-3"].map(|text| parse_dollars(text).unwrap()), [2.5, 2.5, 0.001]);
        assert!(["0", "-1", "inf", "nan", "much", "", "$", "2,50"].iter().all(|text| parse_dollars(text).is_err()));
    }

    #[test]
    fn a_job_is_called_after_the_published_bag_that_it_is() {
        let job = |id: &str, name: &str| Job { job_id: id.into(), job_name: name.into(), tasks: Vec::new() };
        assert_eq!(name_of(&job("12", "Checkpoint Test"), Path::new("a/job.json")), "Checkpoint Test");
        assert_eq!(name_of(&job("1", "a bag"), Path::new("in/j80/job.json")), "J80");
        assert_eq!(name_of(&job("1", ""), Path::new("ED200.json")), "ED200");
        assert_eq!(name_of(&job("7", ""), Path::new("job.json")), "7");
        assert_eq!(named("night=a/b.json"), (Some("night"), Path::new("a/b.json")));
        assert_eq!(named("a/b.json"), (None, Path::new("a/b.json")));
    }
}
