//! What a function of a deployed grid is told by its environment.

use std::collections::BTreeMap;

use sheaf_api::wire::{GridView, LaneView};
use sheaf_aws::SettingsError;
use sheaf_core::Lane;

/// How many tasks a grid runs at once unless `SHEAF_SLOTS` says otherwise.
pub const SLOTS_DEFAULT: u32 = sheaf_aws::SLOTS_DEFAULT;

/// What the environment of a deployed grid's functions and containers says; `infra/terraform` writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `SHEAF_GRID`: the grid's name, as in logs and metrics.
    pub grid: String,
    /// `SHEAF_TABLE`, `SHEAF_BUCKET` and `SHEAF_QUEUES`: where its state, bytes and hints are.
    pub aws: sheaf_aws::Settings,
    /// `SHEAF_SLOTS`: how many tasks it runs at once, as clients are told; [`SLOTS_DEFAULT`] unless set.
    pub slots: u32,
    /// `SHEAF_CONTAINERS`: how many tasks the containers of each lane that has some run at once at most, and how long one takes to
    /// come, as JSON; none unless set.
    pub lanes: BTreeMap<Lane, LaneView>,
    /// `SHEAF_EVENT_BUS`: where to tell of jobs that have ended; nowhere unless set.
    pub event_bus: Option<String>,
    /// `SHEAF_SPOT`: whether there are containers that serve the spot lane; not unless it is 1.
    pub spot: bool,
}

impl Settings {
    /// From the environment of this process.
    pub fn from_env() -> Result<Self, SettingsError> {
        Self::of(sheaf_aws::Settings::from_env()?, |name| std::env::var(name).ok())
    }

    fn of(aws: sheaf_aws::Settings, variable: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let slots = match set("SHEAF_SLOTS") {
            None => SLOTS_DEFAULT,
            Some(value) => match value.parse() {
                Ok(slots @ 1..) => slots,
                _ => {
                    let expected = "a number of tasks from 1 on";
                    return Err(SettingsError::Malformed { name: "SHEAF_SLOTS", value, expected });
                }
            },
        };
        let lanes = match set("SHEAF_CONTAINERS") {
            None => BTreeMap::new(),
            Some(value) => serde_json::from_str(&value).map_err(|_| {
                let expected = "a JSON object of lanes, each with slots and boot_ms";
                SettingsError::Malformed { name: "SHEAF_CONTAINERS", value, expected }
            })?,
        };
        let grid = set("SHEAF_GRID").ok_or(SettingsError::Missing { name: "SHEAF_GRID" })?;
        let spot = set("SHEAF_SPOT").is_some_and(|value| value == "1");
        Ok(Self { grid, aws, slots, lanes, event_bus: set("SHEAF_EVENT_BUS"), spot })
    }

    /// What the grid says of itself.
    pub fn grid_view(&self) -> GridView {
        sheaf_aws::grid_view(self.slots, self.lanes.clone())
    }
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
    fn what_is_missing_or_malformed_is_named() {
        let settings = of(&[("SHEAF_GRID", "night"), ("SHEAF_EVENT_BUS", "")]).expect("enough");
        assert_eq!((settings.slots, settings.event_bus, settings.spot), (SLOTS_DEFAULT, None, false));
        let settings =
            of(&[("SHEAF_GRID", "n"), ("SHEAF_SLOTS", "7"), ("SHEAF_SPOT", "1"), ("SHEAF_EVENT_BUS", "bus")]);
        let settings = settings.expect("all of it");
        assert_eq!((settings.slots, settings.event_bus.as_deref(), settings.spot), (7, Some("bus"), true));
        assert!(of(&[]).expect_err("no name").to_string().contains("SHEAF_GRID"));
        for slots in ["many", "0", "-1"] {
            let refused = of(&[("SHEAF_GRID", "n"), ("SHEAF_SLOTS", slots)]).expect_err("no number");
            assert!(refused.to_string().contains("SHEAF_SLOTS"), "{refused}");
        }
        let told = r#"{"spot":{"slots":12,"boot_ms":90000}}"#;
        let settings = of(&[("SHEAF_GRID", "n"), ("SHEAF_CONTAINERS", told)]).expect("containers");
        assert_eq!(settings.grid_view().lane(Lane::Spot), LaneView { slots: 12, boot_ms: 90_000 });
        assert_eq!(settings.grid_view().lane(Lane::Lambda), LaneView { slots: SLOTS_DEFAULT, boot_ms: 0 });
        let refused = of(&[("SHEAF_GRID", "n"), ("SHEAF_CONTAINERS", "12")]).expect_err("no object");
        assert!(refused.to_string().contains("SHEAF_CONTAINERS"), "{refused}");
    }
}
