//! The machine around a worker.

use std::time::Duration;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// ECS answers from the machine itself.
const ANSWER: Duration = Duration::from_secs(2);

/// What people know it by: the id of its task in ECS, if that is where it runs, else the host's name. `ecs` is the value of
/// `ECS_CONTAINER_METADATA_URI_V4`.
pub async fn name(ecs: Option<&str>) -> String {
    if let Some(uri) = ecs
        && let Some(task) = task(uri).await
    {
        return task;
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

async fn task(uri: &str) -> Option<String> {
    let client = reqwest::Client::builder().no_proxy().timeout(ANSWER).build().ok()?;
    let answer = client.get(format!("{uri}/task")).send().await.ok()?.error_for_status().ok()?;
    let task: serde_json::Value = answer.json().await.ok()?;
    // arn:…:task/cluster/id; the account in it is nobody's business.
    let id = task.get("TaskARN")?.as_str()?.rsplit_once('/')?.1;
    Some(match task.get("AvailabilityZone").and_then(serde_json::Value::as_str) {
        Some(zone) => format!("{id} in {zone}"),
        None => id.to_owned(),
    })
}

/// Keeps processes of the same user, which functions are, from reading this one's environment and memory: there are credentials
/// in it, or where to get them. To be called before the first function runs.
pub fn hide_from_children() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "functions can read this process's environment");
    }
}
