//! What the environment says.

use std::{num::NonZero, path::PathBuf, time::Duration};

use sheaf_aws::SettingsError;
use sheaf_core::{Lane, WorkerId};
use sheaf_protocol::WorkerOptions;
use sheaf_worker::Options;
use uuid::Uuid;

/// Where a container has its volume.
const SCRATCH: &str = "/scratch";
const METADATA: &str = "http://169.254.169.254";
/// Source: ten seconds less than Fargate gives at most, which is what `infra/terraform` asks for.
const STOP_S: u64 = 110;
/// The most slots that make sense in one process.
const SLOTS_MAX: usize = 1_024;

/// All that a container is told by its environment; see the [crate's page](crate).
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where its state, bytes and hints are.
    pub aws: sheaf_aws::Settings,
    /// The grid's name, in logs and metrics.
    pub grid: String,
    /// How it works.
    pub options: Options,
    /// URL of the EC2 metadata service; `None` to ask none.
    pub metadata: Option<String>,
    /// URL of the metadata service of ECS, where it runs there.
    pub ecs: Option<String>,
    /// URL of the agent of ECS, where it runs there.
    pub agent: Option<String>,
}

impl Settings {
    /// From the environment of this process.
    pub fn from_env() -> Result<Self, SettingsError> {
        Self::of(sheaf_aws::Settings::from_env()?, |name| std::env::var(name).ok())
    }

    fn of(aws: sheaf_aws::Settings, variable: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let seconds = |name, default_s| match set(name).map(|value| (value.parse::<u32>(), value)) {
            None => Ok(Duration::from_secs(default_s)),
            Some((Ok(seconds), _)) => Ok(Duration::from_secs(seconds.into())),
            Some((Err(_), value)) => Err(SettingsError::Malformed { name, value, expected: "a number of seconds" }),
        };
        let slots = match set("SHEAF_WORKER_SLOTS").map(|value| (value.parse(), value)) {
            None => std::thread::available_parallelism().map_or(1, NonZero::get),
            Some((Ok(slots @ 1..=SLOTS_MAX), _)) => slots,
            Some((_, value)) => {
                let (name, expected) = ("SHEAF_WORKER_SLOTS", "a number of tasks from 1 to 1024");
                return Err(SettingsError::Malformed { name, value, expected });
            }
        };
        let lanes = set("SHEAF_LANES").map_or(Ok(vec![Lane::Spot]), |value| {
            let lanes: Result<Vec<Lane>, _> = value.split(',').map(|lane| lane.trim().parse()).collect();
            let expected = "spot, on-demand or lambda, or several of them with commas between";
            lanes.map_err(|_| SettingsError::Malformed { name: "SHEAF_LANES", value, expected })
        })?;
        let idle = seconds("SHEAF_IDLE_S", 0)?;
        let options = Options {
            worker: WorkerOptions::new(WorkerId::from_uuid(Uuid::now_v7())),
            host: String::new(),
            lanes,
            slots,
            scratch: set("SHEAF_SCRATCH").map_or_else(scratch, PathBuf::from),
            stop: seconds("SHEAF_STOP_S", STOP_S)?,
            idle: (!idle.is_zero()).then_some(idle),
        };
        let metadata = variable("SHEAF_METADATA").unwrap_or_else(|| METADATA.to_owned());
        Ok(Self {
            grid: set("SHEAF_GRID").unwrap_or_else(|| aws.table.clone()),
            aws,
            options,
            metadata: Some(metadata).filter(|url| !url.is_empty()),
            ecs: set("ECS_CONTAINER_METADATA_URI_V4"),
            agent: set("ECS_AGENT_URI"),
        })
    }
}

/// The volume of a container if there is one; else a directory that no other worker on the machine has.
fn scratch() -> PathBuf {
    let volume = PathBuf::from(SCRATCH);
    if volume.is_dir() {
        return volume;
    }
    std::env::temp_dir().join(format!("sheaf-worker-{}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let aws = sheaf_aws::Settings { table: "t".into(), bucket: "b".into(), queues: "q".into() };
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Settings::of(aws, find)
    }

    #[test]
    fn what_is_not_set_has_a_default() {
        let settings = of(&[("SHEAF_LANES", ""), ("SHEAF_IDLE_S", "0")]).expect("enough");
        let Options { lanes, slots, stop, idle, .. } = settings.options;
        assert_eq!((lanes, stop, idle), (vec![Lane::Spot], Duration::from_secs(110), None));
        assert!(slots > 0);
        assert_eq!((settings.grid.as_str(), settings.metadata.as_deref(), settings.ecs), ("t", Some(METADATA), None));
        assert_eq!(of(&[("SHEAF_METADATA", "")]).expect("enough").metadata, None);
    }

    #[test]
    fn what_is_set_counts() {
        let settings = of(&[
            ("SHEAF_GRID", "night"),
            ("SHEAF_LANES", "spot, on-demand"),
            ("SHEAF_WORKER_SLOTS", "3"),
            ("SHEAF_SCRATCH", "/disk"),
            ("SHEAF_STOP_S", "20"),
            ("SHEAF_IDLE_S", "600"),
        ]);
        let Settings { grid, options, .. } = settings.expect("all of it");
        assert_eq!((grid.as_str(), options.slots), ("night", 3));
        assert_eq!(options.lanes, [Lane::Spot, Lane::OnDemand]);
        assert_eq!(options.scratch, PathBuf::from("/disk"));
        assert_eq!((options.stop.as_secs(), options.idle), (20, Some(Duration::from_secs(600))));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (name, value) in [
            ("SHEAF_LANES", "fast"),
            ("SHEAF_LANES", "spot,"),
            ("SHEAF_WORKER_SLOTS", "0"),
            ("SHEAF_WORKER_SLOTS", "many"),
            ("SHEAF_STOP_S", "-1"),
            ("SHEAF_IDLE_S", "1h"),
        ] {
            let refused = of(&[(name, value)]).expect_err(value).to_string();
            assert!(refused.contains(name) && refused.contains(value), "{refused}");
        }
    }
}
