//! The services of ECS that a grid's containers run in: how many there are, and how many there shall be.
//!
//! What a service could not start, ECS says in events that are made of text and nothing else; the words looked for are those of
//! "Amazon ECS service event messages" in its developer guide. Should they change, a service that gets nothing is still seen to
//! get nothing, only later.

use aws_config::SdkConfig;
use aws_sdk_ecs::types::{Service, ServiceEvent};
use sheaf_protocol::StoreError;

use crate::fault::store_error;

/// Services that one request describes. Source: the API reference of `DescribeServices`.
const DESCRIBED_MAX: usize = 10;
/// The state of a service that can be scaled; others are being deleted, or were.
const ACTIVE: &str = "ACTIVE";
/// What an event says when a container could not be started.
const REFUSED: [&str; 2] = ["unable to place a task", "unable to consistently start tasks"];
/// What an event says when one was.
const STARTED: &str = "has started";

/// How a service stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceCounts {
    /// Its name.
    pub name: String,
    /// Containers that it shall have.
    pub desired: u32,
    /// Containers that run.
    pub running: u32,
    /// Containers that have a place and are being started.
    pub pending: u32,
    /// When containers could not be started (Unix, ms), newest first, since one was.
    pub refused_at_ms: Vec<u64>,
}

/// The services of one cluster.
#[derive(Debug, Clone)]
pub struct Services {
    pub(crate) client: aws_sdk_ecs::Client,
    pub(crate) cluster: String,
}

impl Services {
    /// The services of a cluster. Nothing is called yet.
    pub fn over(config: &SdkConfig, cluster: &str) -> Self {
        Self { client: aws_sdk_ecs::Client::new(config), cluster: cluster.to_owned() }
    }

    /// How services stand, in the order of their names. Costs a request, which is free, per ten of them. One that is not there
    /// is an error that names it.
    pub async fn describe(&self, names: &[String]) -> Result<Vec<ServiceCounts>, StoreError> {
        let mut found = Vec::with_capacity(names.len());
        for names in names.chunks(DESCRIBED_MAX) {
            let ask = self.client.describe_services().cluster(&self.cluster).set_services(Some(names.to_vec()));
            let answer = ask.send().await.map_err(store_error)?;
            for name in names {
                let is_it = |service: &&Service| {
                    service.service_name() == Some(name) && service.status().is_none_or(|status| status == ACTIVE)
                };
                let service = answer.services().iter().find(is_it).ok_or_else(|| self.missing(name))?;
                found.push(counts(name, service));
            }
        }
        Ok(found)
    }

    /// Says how many containers a service shall have. Repeating it changes nothing. Costs a request, which is free.
    pub async fn set_desired(&self, name: &str, desired: u32) -> Result<(), StoreError> {
        let desired = i32::try_from(desired).unwrap_or(i32::MAX);
        let update = self.client.update_service().cluster(&self.cluster).service(name).desired_count(desired);
        update.send().await.map(drop).map_err(store_error)
    }

    fn missing(&self, name: &str) -> StoreError {
        let cluster = &self.cluster;
        StoreError::Stopped {
            detail: format!("the cluster {cluster} has no active service {name}: deploy the grid again"),
        }
    }
}

fn counts(name: &str, service: &Service) -> ServiceCounts {
    let count = |number: i32| u32::try_from(number).unwrap_or_default();
    ServiceCounts {
        name: name.to_owned(),
        desired: count(service.desired_count()),
        running: count(service.running_count()),
        pending: count(service.pending_count()),
        refused_at_ms: refused_at_ms(service.events()),
    }
}

/// The times of refusals since a container was started. Events come newest first.
fn refused_at_ms(events: &[ServiceEvent]) -> Vec<u64> {
    let says = |event: &&ServiceEvent, words: &str| event.message().is_some_and(|message| message.contains(words));
    let since = events.iter().take_while(|event| !says(event, STARTED));
    let refused = since.filter(|event| REFUSED.iter().any(|words| says(event, words)));
    refused.filter_map(|event| event.created_at()?.to_millis().ok()?.try_into().ok()).collect()
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::primitives::DateTime;

    use super::*;

    #[test]
    fn refusals_count_since_a_container_was_started() {
        let event = |at_s: i64, message: &str| {
            let message = format!("(service night-spot) {message}");
            ServiceEvent::builder().created_at(DateTime::from_secs(at_s)).message(message).build()
        };
        let mut events = vec![
            event(9, "has reached a steady state."),
            event(8, "was unable to place a task. Reason: Capacity is unavailable at this time."),
            event(7, "has stopped 1 running tasks: (task 1)."),
            event(6, "is unable to consistently start tasks successfully."),
            event(5, "has started 1 tasks: (task 1)."),
            event(4, "was unable to place a task because no container instance met all of its requirements."),
        ];
        assert_eq!(refused_at_ms(&events), [8_000, 6_000]);
        events.insert(0, event(10, "has started 2 tasks: (task 2) (task 3)."));
        assert_eq!(refused_at_ms(&events), [0u64; 0]);
    }
}
