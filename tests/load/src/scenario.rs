//! What is measured: which grid, which clients, what they ask for. Read from TOML; the built-in ones are files too.

use std::{collections::BTreeMap, fmt, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    arrivals::Arrivals,
    error::LoadError,
    work::{Mix, TASKS_MAX},
};

/// Clients of one scenario, all groups together: each has a task and a few buffers of its own.
const CLIENTS_MAX: u64 = 10_000;

/// Where the grid is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In this process, on disk.
    #[default]
    Embedded,
    /// In this process, in memory.
    Memory,
    /// `sheaf up` in a process of its own, over HTTP.
    Up,
    /// One that runs already.
    Given,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Embedded => "embedded",
            Self::Memory => "memory",
            Self::Up => "up",
            Self::Given => "given",
        })
    }
}

/// What runs the tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A function linked into the grid's process; only where that is this process.
    #[default]
    Handler,
    /// A child process that takes many tasks in one invocation.
    Batch,
    /// A child process that takes one task at a time.
    Single,
}

/// What the clients of a group ask for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Load {
    /// All tasks as fast as they are taken, in jobs of many.
    Batch {
        /// Tasks of one client, over all its jobs.
        tasks: u64,
    },
    /// The next task when one has come back.
    Closed {
        /// Tasks of one client.
        tasks: u64,
        /// How many it has under way.
        at_once: u32,
    },
    /// Tasks when they are due, whatever has become of those before.
    Open {
        /// When they are.
        arrivals: Arrivals,
        /// For how long they come.
        seconds: f64,
    },
}

/// Some clients that are alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clients {
    /// What the report calls them.
    pub name: String,
    /// How many there are.
    #[serde(default = "one")]
    pub count: u32,
    /// Over how many jobs each spreads its tasks; only for a batch.
    #[serde(default = "one")]
    pub jobs: u32,
    /// Tasks of a chunk; what the SDK chooses unless given. Only for a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk_tasks: Option<u32>,
    /// What they ask for.
    pub load: Load,
    /// What their tasks are like.
    #[serde(default)]
    pub mix: Mix,
}

const fn one() -> u32 {
    1
}

impl Clients {
    /// Tasks of one of them.
    pub fn tasks_each(&self, seed: u64) -> u64 {
        match self.load {
            Load::Batch { tasks } | Load::Closed { tasks, .. } => tasks,
            Load::Open { arrivals, seconds } => {
                arrivals.schedule(Duration::from_secs_f64(seconds), seed).count() as u64
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        self.mix.check().map_err(|wrong| format!("mix: {wrong}"))?;
        if self.count == 0 || self.jobs == 0 {
            return Err("count and jobs must be at least 1".into());
        }
        let chunk_tasks_max = sheaf::core::limits::CHUNK_TASKS_MAX;
        if let Some(tasks) = self.chunk_tasks.filter(|tasks| !(1..=chunk_tasks_max).contains(tasks)) {
            return Err(format!("chunk_tasks is {tasks}, must be 1 to {chunk_tasks_max}"));
        }
        if !matches!(self.load, Load::Batch { .. }) && (self.jobs > 1 || self.chunk_tasks.is_some()) {
            return Err("jobs and chunk_tasks are only for load.kind = \"batch\"".into());
        }
        match self.load {
            Load::Batch { tasks: 0 } | Load::Closed { tasks: 0, .. } => Err("load.tasks is 0".into()),
            Load::Batch { tasks } if tasks < u64::from(self.jobs) => {
                Err(format!("{tasks} tasks do not make {} jobs: give at least one each", self.jobs))
            }
            Load::Closed { at_once: 0, .. } => Err("load.at_once is 0, must be at least 1".into()),
            Load::Open { seconds, .. } if !(seconds.is_finite() && seconds > 0.0) => {
                Err(format!("load.seconds is {seconds}, must be above 0"))
            }
            Load::Open { arrivals, .. } => arrivals.check().map_err(|wrong| format!("load.arrivals: {wrong}")),
            Load::Batch { .. } | Load::Closed { .. } => Ok(()),
        }
    }
}

/// A figure that is to be held.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goal {
    /// The metric is to be at least this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// The metric is to be at most this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
}

impl Goal {
    /// Whether a value holds it.
    pub fn holds(&self, value: f64) -> bool {
        self.at_least.is_none_or(|least| value >= least) && self.at_most.is_none_or(|most| value <= most)
    }
}

/// What is measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What it shows, in a sentence.
    #[serde(default)]
    pub about: String,
    /// Where the grid is.
    #[serde(default)]
    pub grid: Place,
    /// What runs the tasks.
    #[serde(default)]
    pub function: Kind,
    /// Whether an acknowledgement means that it would survive a power cut. A grid that runs already is as it is.
    #[serde(default = "yes")]
    pub durable: bool,
    /// How many tasks run at once; as many as there are processors unless given. A grid that runs already is as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// Where every choice at random starts.
    #[serde(default = "seed")]
    pub seed: u64,
    /// When it is given up.
    #[serde(default = "timeout_s")]
    pub timeout_s: u64,
    /// The clients.
    pub clients: Vec<Clients>,
    /// What is to be held, by the names of metrics.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub goals: BTreeMap<String, Goal>,
}

impl Default for Scenario {
    /// Without clients, which it takes to run.
    fn default() -> Self {
        let (name, about, grid, function, slots, clients, goals) = Default::default();
        let (durable, seed, timeout_s) = (yes(), seed(), timeout_s());
        Self { name, about, grid, function, durable, slots, seed, timeout_s, clients, goals }
    }
}

const fn yes() -> bool {
    true
}

const fn seed() -> u64 {
    1
}

const fn timeout_s() -> u64 {
    600
}

const BUILT_IN: [(&str, &str); 10] = [
    ("throughput", include_str!("../scenarios/throughput.toml")),
    ("http", include_str!("../scenarios/http.toml")),
    ("child-batch", include_str!("../scenarios/child-batch.toml")),
    ("child-single", include_str!("../scenarios/child-single.toml")),
    ("latency", include_str!("../scenarios/latency.toml")),
    ("latency-not-durable", include_str!("../scenarios/latency-not-durable.toml")),
    ("backlog", include_str!("../scenarios/backlog.toml")),
    ("fair", include_str!("../scenarios/fair.toml")),
    ("busy", include_str!("../scenarios/busy.toml")),
    ("mixed", include_str!("../scenarios/mixed.toml")),
];

impl Scenario {
    /// The names of the built-in ones.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// A built-in one.
    pub fn built_in(name: &str) -> Result<Self, LoadError> {
        let known = || Self::names().collect::<Vec<_>>().join(", ");
        let (_, text) = BUILT_IN
            .iter()
            .find(|(built_in, _)| *built_in == name)
            .ok_or_else(|| LoadError::NoScenario { name: name.to_owned(), known: known() })?;
        Self::parse(text, name)
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let place = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| LoadError::File {
            doing: "read",
            path: path.into(),
            source,
        })?;
        Self::parse(&text, &place)
    }

    /// Reads a text; `place` is what errors call it.
    pub fn parse(text: &str, place: &str) -> Result<Self, LoadError> {
        let scenario: Self = toml::from_str(text).map_err(|error| LoadError::Scenario {
            place: place.to_owned(),
            wrong: error.to_string().trim_end().to_owned(),
        })?;
        scenario.check().map_err(|wrong| LoadError::Scenario { place: place.to_owned(), wrong })?;
        Ok(scenario)
    }

    /// What is wrong with it, if anything.
    pub fn check(&self) -> Result<(), String> {
        if self.clients.is_empty() {
            return Err("there are no clients: give at least one [[clients]]".into());
        }
        for clients in &self.clients {
            clients.check().map_err(|wrong| format!("clients {:?}: {wrong}", clients.name))?;
        }
        for (at, clients) in self.clients.iter().enumerate() {
            if self.clients[..at].iter().any(|earlier| earlier.name == clients.name) {
                return Err(format!("clients {:?}: there are two of this name", clients.name));
            }
        }
        if self.clients.iter().map(|clients| u64::from(clients.count)).sum::<u64>() > CLIENTS_MAX {
            return Err(format!("there are more than {CLIENTS_MAX} clients"));
        }
        if self.slots == Some(0) {
            return Err("slots is 0: nothing would run".into());
        }
        if self.grid == Place::Up && self.function == Kind::Handler {
            let hint = "give function = \"batch\" or \"single\"";
            return Err(format!("a handler cannot run in another process, and grid is \"up\": {hint}"));
        }
        let tasks =
            self.clients.iter().map(|clients| clients.tasks_each(self.seed).saturating_mul(u64::from(clients.count)));
        if tasks.fold(0_u64, u64::saturating_add) > TASKS_MAX {
            return Err(format!("there are more than {TASKS_MAX} tasks"));
        }
        if let Some((name, _)) = self.goals.iter().find(|(_, goal)| goal.at_least.is_none() && goal.at_most.is_none()) {
            return Err(format!("goals.{name} says neither at_least nor at_most"));
        }
        Ok(())
    }

    /// Tasks of every client together, where all of them know how many they have: not in an open loop.
    pub fn tasks(&self) -> u64 {
        self.clients.iter().map(|clients| clients.tasks_each(self.seed) * u64::from(clients.count)).sum()
    }

    /// The same with so many tasks in each batch or closed loop. An open loop has as many as come in its time.
    pub fn with_tasks(mut self, given: u64) -> Self {
        for clients in &mut self.clients {
            match &mut clients.load {
                Load::Batch { tasks } | Load::Closed { tasks, .. } => *tasks = given,
                Load::Open { .. } => {}
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_ones_are_sound_and_have_their_names() {
        for name in Scenario::names() {
            let scenario = Scenario::built_in(name).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(scenario.name, name);
            assert!(!scenario.about.is_empty() && scenario.tasks() > 0, "{name}");
            let text = toml::to_string(&scenario).expect("it can be written");
            assert_eq!(Scenario::parse(&text, name).expect("it can be read again"), scenario);
        }
        let refused = Scenario::built_in("thruput").expect_err("there is none").to_string();
        assert!(refused.contains("thruput") && refused.contains("throughput, http"), "{refused}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        const CLIENTS: &str = "[[clients]]\nname = 'a'\nload = { kind = 'batch', tasks = 1 }\n";
        let of = |text: &str| Scenario::parse(text, "my.toml").expect_err(text).to_string();
        for (text, told) in [
            ("name = 'x'\nclients = []\n".to_owned(), "no clients"),
            (format!("name = 'x'\ndurible = true\n{CLIENTS}"), "durible"),
            (format!("name = 'x'\n{CLIENTS}tasks = 3\n"), "tasks"),
            (format!("name = 'x'\n{CLIENTS}{CLIENTS}"), "clients \"a\": there are two"),
            (format!("name = 'x'\nslots = 0\n{CLIENTS}"), "slots is 0"),
            (format!("name = 'x'\ngrid = 'up'\n{CLIENTS}"), "a handler cannot run in another process"),
            (format!("name = 'x'\ngrid = 'moon'\n{CLIENTS}"), "moon"),
            (format!("name = 'x'\n{CLIENTS}mix = {{ fail_share = 2.0 }}\n"), "clients \"a\": mix: fail_share is 2"),
            (format!("name = 'x'\n{CLIENTS}chunk_tasks = 2000\n"), "chunk_tasks is 2000, must be 1 to 1024"),
            (format!("name = 'x'\n{CLIENTS}[goals.tasks_per_s]\n"), "goals.tasks_per_s says neither"),
            (format!("name = 'x'\n{CLIENTS}jobs = 2\n"), "1 tasks do not make 2 jobs"),
            ("name = 'x'\n[[clients]]\nname = 'a'\nload = { kind = 'open', seconds = 1, arrivals = { kind = 'poisson', per_s = 0 } }\n".to_owned(), "load.arrivals: per_s is 0"),
            ("name = 'x'\n[[clients]]\nname = 'a'\nload = { kind = 'closed', tasks = 1, at_once = 1 }\njobs = 2\n".to_owned(), "only for load.kind = \"batch\""),
        ] {
            let refused = of(&text);
            assert!(refused.contains("my.toml") && refused.contains(told), "{refused}\n{told}");
        }
    }
}
