//! What the environment says about containers.

use serde::Deserialize;
use sheaf_core::Lane;
use sheaf_scheduler::{PolicyName, Pool};

/// The variable's name.
const NAME: &str = "SHEAF_CAPACITY";

/// `SHEAF_CAPACITY`, as `infra/terraform` writes it: JSON with these fields.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Capacity {
    /// The cluster that the services are in.
    pub(crate) cluster: String,
    /// Who decides how many containers there are.
    #[serde(default = "ours")]
    pub(crate) policy: PolicyName,
    /// Seconds that an idle container stays, for the policies that have such a time; half of what a leased one is given.
    pub(crate) grace_s: f64,
    /// Seconds in which work without a deadline should be done, for the policy `sheaf`.
    pub(crate) drain_s: f64,
    /// The services, one for a lane.
    pub(crate) pools: Vec<ServicePool>,
}

/// A service of ECS as a place where machines come from.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServicePool {
    /// Its name.
    pub(crate) service: String,
    /// Its market: `spot`, whose containers take that lane; or `on-demand`, whose containers take both.
    pub(crate) lane: Lane,
    /// Tasks that a container runs at once.
    pub(crate) slots: u32,
    /// Dollars for a container and hour.
    pub(crate) price_per_hour: f64,
    /// Seconds from the wish to a container that takes chunks, 95th percentile.
    pub(crate) boot_p95_s: f64,
    /// Containers taken away, for each container and hour, as long as nothing else is measured.
    #[serde(default)]
    pub(crate) reclaims_per_hour: f64,
    /// Containers at most.
    pub(crate) machines_max: u32,
}

/// A variable that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the environment variable {NAME} {detail}; infra/terraform sets it")]
pub(crate) struct CapacityError {
    detail: String,
}

const fn ours() -> PolicyName {
    PolicyName::Sheaf
}

impl Capacity {
    /// From the environment of this process. None if nothing is said: then containers are nobody's business here.
    pub(crate) fn from_env() -> Result<Option<Self>, CapacityError> {
        let set = std::env::var(NAME).ok().filter(|value| !value.is_empty());
        set.map(|value| Self::parse(&value)).transpose()
    }

    pub(crate) fn parse(value: &str) -> Result<Self, CapacityError> {
        let read: Self = serde_json::from_str(value)
            .map_err(|error| CapacityError { detail: format!("cannot be read: {error}") })?;
        read.check().map_err(|detail| CapacityError { detail })?;
        Ok(read)
    }

    fn check(&self) -> Result<(), String> {
        let is_time = |seconds: f64| seconds.is_finite() && seconds >= 0.0;
        if self.cluster.is_empty() {
            return Err("names no cluster".to_owned());
        }
        if !is_time(self.grace_s) || !is_time(self.drain_s) {
            return Err("has a grace_s or drain_s that is no number of seconds".to_owned());
        }
        if self.pools.is_empty() {
            return Err("names no pools".to_owned());
        }
        for (at, pool) in self.pools.iter().enumerate() {
            let refuse = |why: &str| Err(format!("has a pool {} with {why}", pool.service));
            if pool.service.is_empty() {
                return Err("has a pool without a service".to_owned());
            }
            if pool.lane == Lane::Lambda {
                return refuse("the lane lambda, which has no containers");
            }
            if self.pools[..at].iter().any(|other| other.lane == pool.lane) {
                return refuse("a lane that another pool has");
            }
            if pool.slots == 0 || pool.machines_max == 0 {
                return refuse("no slots or no machines_max");
            }
            let numbers = [pool.price_per_hour, pool.boot_p95_s, pool.reclaims_per_hour];
            if !numbers.into_iter().all(is_time) || pool.price_per_hour == 0.0 {
                return refuse("a price, boot time or reclaim rate that is none");
            }
        }
        Ok(())
    }
}

impl ServicePool {
    /// The pool as a policy sees it, to which nothing has happened yet.
    pub(crate) fn pool(&self) -> Pool {
        Pool {
            machine: self.service.clone(),
            market: self.lane,
            slots: self.slots,
            price_per_hour: self.price_per_hour,
            boot_p95_s: self.boot_p95_s,
            reclaims_per_hour: self.reclaims_per_hour,
            machines_max: self.machines_max,
            ..Pool::default()
        }
    }

    /// Whether a worker of these lanes is one of its containers. Those on demand take both lanes, and are known by their own.
    pub(crate) fn has(&self, lanes: &[Lane]) -> bool {
        lanes.contains(&self.lane) && (self.lane == Lane::OnDemand || !lanes.contains(&Lane::OnDemand))
    }

    /// Whether its containers take chunks of a lane.
    pub(crate) fn takes(&self, lane: Lane) -> bool {
        lane == self.lane || self.lane == Lane::OnDemand && lane == Lane::Spot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"cluster":"night","policy":"grace-period","grace_s":60,"drain_s":300,"pools":[
        {"service":"night-spot","lane":"spot","slots":1,"price_per_hour":0.024,"boot_p95_s":90,"reclaims_per_hour":1,"machines_max":10},
        {"service":"night-on-demand","lane":"on-demand","slots":1,"price_per_hour":0.049,"boot_p95_s":90,"machines_max":2}]}"#;

    #[test]
    fn what_terraform_writes_is_read() {
        let read = Capacity::parse(GOOD).expect("good");
        assert_eq!((read.policy, read.pools.len()), (PolicyName::GracePeriod, 2));
        assert_eq!((read.pools[0].lane, read.pools[1].pool().market), (Lane::Spot, Lane::OnDemand));
        let without = Capacity::parse(&GOOD.replace(r#""policy":"grace-period","#, "")).expect("good");
        assert_eq!(without.policy, PolicyName::Sheaf);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (good, bad, said) in [
            ("{\"cluster\"", "[", "cannot be read"),
            ("grace-period", "greedy", "greedy"),
            ("\"night\"", "\"\"", "no cluster"),
            ("\"grace_s\":60", "\"grace_s\":-1", "grace_s"),
            ("\"grace_s\"", "\"mercy_s\"", "mercy_s"),
            ("\"lane\":\"on-demand\"", "\"lane\":\"spot\"", "night-on-demand with a lane that another"),
            ("\"lane\":\"spot\"", "\"lane\":\"lambda\"", "night-spot with the lane lambda"),
            ("\"machines_max\":2", "\"machines_max\":0", "night-on-demand with no slots"),
            ("0.024", "0", "night-spot with a price"),
        ] {
            let refused = Capacity::parse(&GOOD.replacen(good, bad, 1)).expect_err(bad).to_string();
            assert!(refused.contains(NAME) && refused.contains(said), "{refused}");
        }
    }

    #[test]
    fn containers_are_known_by_their_lanes() {
        let pools = Capacity::parse(GOOD).expect("good").pools;
        let of = |lanes: &[Lane]| pools.iter().map(|pool| pool.has(lanes)).collect::<Vec<_>>();
        assert_eq!(of(&[Lane::Spot]), [true, false]);
        assert_eq!(of(&[Lane::OnDemand, Lane::Spot]), [false, true]);
        assert_eq!(of(&[Lane::Lambda]), [false, false]);
        assert_eq!(pools.iter().map(|pool| pool.takes(Lane::Spot)).collect::<Vec<_>>(), [true, true]);
        assert_eq!(pools.iter().map(|pool| pool.takes(Lane::OnDemand)).collect::<Vec<_>>(), [false, true]);
    }
}
