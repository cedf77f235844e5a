//! The containers of a service: since when they run, and what ended those that do not.
//!
//! ECS tells of a container for an hour after its end, and of the machine that it was on for as long. What a container was
//! stopped for it says in codes; of a machine that is to be taken away it says only that it is drained, and stops the containers
//! on it as if fewer were wanted.

use std::collections::BTreeSet;

use aws_sdk_ecs::{
    primitives::DateTime,
    types::{DesiredStatus, Task, TaskStopCode},
};
use sheaf_protocol::StoreError;

use crate::{capacity::Services, fault::store_error};

/// Containers, and machines, that one request lists or describes. Source: the API references of `ListTasks`, `DescribeTasks` and
/// `DescribeContainerInstances`.
const PER_REQUEST: usize = 100;
/// Pages read of the containers that run, and of those that have ended. Source: `infra/terraform` allows a service 1,000.
const PAGES_MAX: usize = 10;
/// The state of a machine that takes containers; the others are drained or gone.
const ACTIVE: &str = "ACTIVE";

/// A container that runs, or has ended within the hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// What ECS knows it by.
    pub id: String,
    /// Since when it ran (Unix, ms). None if it never did.
    pub began_at_ms: Option<u64>,
    /// How it ended, if it has.
    pub end: Option<End>,
}

/// The end of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// When (Unix, ms).
    pub at_ms: u64,
    /// Why.
    pub cause: EndCause,
}

/// What a container ended by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndCause {
    /// Its capacity was taken back, or the machine under it vanished.
    Reclaimed,
    /// The service stopped it, on a machine of EC2 that by now is drained or gone: because of that, if it has only just ended.
    Displaced,
    /// Fewer were wanted, a deployment, a person, or itself.
    Other,
}

impl Services {
    /// The containers of a service that run or have ended within the hour, 1,000 of each at most. Costs requests, which are free:
    /// two for each hundred containers that run or have ended, three at least while there are any, and on EC2 one for each
    /// hundred machines on which the service has stopped some.
    pub async fn containers(&self, service: &str) -> Result<Vec<Container>, StoreError> {
        let mut ids = BTreeSet::new();
        // One that ends meanwhile may be in both lists.
        for status in [DesiredStatus::Running, DesiredStatus::Stopped] {
            ids.extend(self.list(service, status).await?);
        }
        let ids: Vec<String> = ids.into_iter().collect();
        let mut tasks = Vec::with_capacity(ids.len());
        for ids in ids.chunks(PER_REQUEST) {
            let ask = self.client.describe_tasks().cluster(&self.cluster).set_tasks(Some(ids.to_vec()));
            tasks.extend(ask.send().await.map_err(store_error)?.tasks.unwrap_or_default());
        }
        let leaving = self.leaving(&tasks).await?;
        Ok(tasks.iter().filter_map(|task| container(task, &leaving)).collect())
    }

    async fn list(&self, service: &str, status: DesiredStatus) -> Result<Vec<String>, StoreError> {
        let (mut ids, mut next) = (Vec::new(), None);
        for _ in 0..PAGES_MAX {
            let ask =
                self.client.list_tasks().cluster(&self.cluster).service_name(service).desired_status(status.clone());
            let page = ask.set_next_token(next).send().await.map_err(store_error)?;
            ids.extend(page.task_arns.unwrap_or_default());
            next = page.next_token;
            if next.is_none() {
                break;
            }
        }
        Ok(ids)
    }

    /// Of the machines on which the service has stopped containers, those that are drained or gone.
    async fn leaving(&self, tasks: &[Task]) -> Result<BTreeSet<String>, StoreError> {
        let stopped = tasks.iter().filter(|task| task.stop_code() == Some(&TaskStopCode::ServiceSchedulerInitiated));
        let mut machines: BTreeSet<String> =
            stopped.filter_map(|task| task.container_instance_arn().map(str::to_owned)).collect();
        let ids: Vec<String> = machines.iter().cloned().collect();
        for ids in ids.chunks(PER_REQUEST) {
            let ask = self.client.describe_container_instances().cluster(&self.cluster);
            let answer = ask.set_container_instances(Some(ids.to_vec())).send().await.map_err(store_error)?;
            // One that ECS has forgotten is in no answer, and gone.
            for machine in answer.container_instances().iter().filter(|machine| machine.status() == Some(ACTIVE)) {
                machine.container_instance_arn().map(|id| machines.remove(id));
            }
        }
        Ok(machines)
    }
}

/// What ECS says of a container, given the machines that are drained or gone.
fn container(task: &Task, leaving: &BTreeSet<String>) -> Option<Container> {
    let at_ms = |time: Option<&DateTime>| time.and_then(|time| time.to_millis().ok()?.try_into().ok());
    let cause = match task.stop_code() {
        Some(TaskStopCode::SpotInterruption | TaskStopCode::TerminationNotice) => EndCause::Reclaimed,
        Some(TaskStopCode::ServiceSchedulerInitiated)
            if task.container_instance_arn().is_some_and(|machine| leaving.contains(machine)) =>
        {
            EndCause::Displaced
        }
        _ => EndCause::Other,
    };
    let ended_at_ms = at_ms(task.stopped_at()).or_else(|| at_ms(task.stopping_at()));
    // When a machine has vanished, ECS does not always know any more when its containers began.
    let asked_for_at_ms = || at_ms(task.created_at()).filter(|_| cause == EndCause::Reclaimed);
    Some(Container {
        id: task.task_arn()?.to_owned(),
        began_at_ms: at_ms(task.started_at()).or_else(asked_for_at_ms),
        end: ended_at_ms.map(|at_ms| End { at_ms, cause }),
    })
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::types::builders::TaskBuilder;

    use super::*;

    const MACHINE: &str = "arn:aws:ecs:eu-west-1:123456789012:container-instance/night/1";

    fn task() -> TaskBuilder {
        Task::builder().task_arn("task-1").created_at(DateTime::from_secs(10)).started_at(DateTime::from_secs(40))
    }

    fn read(task: TaskBuilder) -> Container {
        container(&task.build(), &[MACHINE.to_owned()].into()).expect("it has an id")
    }

    #[test]
    fn the_code_says_what_a_container_ended_by() {
        assert_eq!(read(task()), Container { id: "task-1".to_owned(), began_at_ms: Some(40_000), end: None });
        for (code, cause) in [
            (TaskStopCode::SpotInterruption, EndCause::Reclaimed),
            (TaskStopCode::TerminationNotice, EndCause::Reclaimed),
            (TaskStopCode::ServiceSchedulerInitiated, EndCause::Other),
            (TaskStopCode::EssentialContainerExited, EndCause::Other),
            (TaskStopCode::UserInitiated, EndCause::Other),
            (TaskStopCode::from("SomethingNew"), EndCause::Other),
        ] {
            let ended = read(task().stop_code(code.clone()).stopped_at(DateTime::from_secs(90)));
            assert_eq!(ended.end, Some(End { at_ms: 90_000, cause }), "{code}");
        }
    }

    #[test]
    fn the_service_stops_what_is_on_a_machine_that_leaves() {
        let cause = |code: TaskStopCode, machine: &str| {
            let task = task().stop_code(code).container_instance_arn(machine).stopped_at(DateTime::from_secs(90));
            read(task).end.expect("it has ended").cause
        };
        assert_eq!(cause(TaskStopCode::ServiceSchedulerInitiated, MACHINE), EndCause::Displaced);
        assert_eq!(cause(TaskStopCode::ServiceSchedulerInitiated, "another"), EndCause::Other, "it stays");
        assert_eq!(cause(TaskStopCode::EssentialContainerExited, MACHINE), EndCause::Other, "it ended by itself");
        assert_eq!(cause(TaskStopCode::TerminationNotice, MACHINE), EndCause::Reclaimed);
    }

    #[test]
    fn one_that_is_being_stopped_has_ended() {
        let stopping = task().stop_code(TaskStopCode::SpotInterruption).stopping_at(DateTime::from_secs(70));
        assert_eq!(read(stopping).end, Some(End { at_ms: 70_000, cause: EndCause::Reclaimed }));
    }

    #[test]
    fn one_that_never_ran_has_no_beginning_unless_its_machine_vanished() {
        let began =
            |code| read(task().set_started_at(None).stop_code(code).stopped_at(DateTime::from_secs(90))).began_at_ms;
        assert_eq!(began(TaskStopCode::TaskFailedToStart), None);
        assert_eq!(began(TaskStopCode::TerminationNotice), Some(10_000));
    }
}
