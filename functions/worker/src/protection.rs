//! Scale-in protection: while this container holds chunks, a service of ECS that shrinks stops others first.
//!
//! It is a help and no condition: a task that is stopped all the same is told by SIGTERM, and gives back what it has. Source:
//! "Amazon ECS task scale-in protection endpoint" in the developer guide; the agent answers on the machine itself.

use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};

/// Protection ends by itself after so long, should nobody end it; it is renewed in time.
const EXPIRES_MINUTES: u64 = 60;
const RENEWED: Duration = Duration::from_secs(EXPIRES_MINUTES * 60 / 2);
/// The pause after an answer that did not do it.
const AGAIN: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(5);

/// Keeps the task protected for as long as `busy` says, until that ends. `agent` is the value of `ECS_AGENT_URI`.
pub async fn keep(agent: String, mut busy: watch::Receiver<bool>) {
    let client = match Client::builder().no_proxy().timeout(ANSWER).build() {
        Ok(client) => client,
        Err(error) => return tracing::error!(%error, "the agent of ECS cannot be asked"),
    };
    let url = format!("{}/task-protection/v1/state", agent.trim_end_matches('/'));
    let mut is_on = false;
    loop {
        let wanted = *busy.borrow_and_update();
        // A task is not protected when it starts, and not again while nothing has changed.
        let pause = if wanted || is_on {
            match put(&client, &url, wanted).await {
                Ok(()) => {
                    tracing::debug!(wanted, "scale-in protection");
                    is_on = wanted;
                    if wanted { RENEWED } else { Duration::MAX }
                }
                Err(reason) => {
                    tracing::warn!(wanted, reason, "scale-in protection was not set");
                    AGAIN
                }
            }
        } else {
            Duration::MAX
        };
        if matches!(timeout(pause, busy.changed()).await, Ok(Err(_))) {
            return;
        }
    }
}

async fn put(client: &Client, url: &str, wanted: bool) -> Result<(), String> {
    let mut state = json!({"ProtectionEnabled": wanted});
    if wanted {
        state["ExpiresInMinutes"] = EXPIRES_MINUTES.into();
    }
    let answer = client.put(url).json(&state).send().await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let said: Value = answer.json().await.unwrap_or_default();
    // A task that no service has started cannot be protected; that comes with status 200.
    let refused = ["failure", "error"].iter().find_map(|name| said.get(name));
    match refused {
        None if status.is_success() => Ok(()),
        None => Err(status.to_string()),
        Some(reason) => Err(reason.to_string()),
    }
}
