//! What an EC2 machine is told of its end: version 2 of its metadata service.
//!
//! `spot/instance-action` is not there until the machine is to be taken away, then two minutes before; `rebalance` is there
//! when that has become more likely than it was. Both are looked for as often as AWS recommends. Elsewhere than on EC2, and in
//! containers that are kept from it, there is no such service: that is found out, said once, and not asked again.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Client, Method, StatusCode};
use serde::Deserialize;
use sheaf_worker::{LOOK_MS, Notice};
use tokio::sync::mpsc;

const TOKEN: &str = "latest/api/token";
const ACTION: &str = "latest/meta-data/spot/instance-action";
const REBALANCE: &str = "latest/meta-data/events/recommendations/rebalance";
/// How long a token is good for, in s. Source: the longest the service grants.
const TOKEN_S: &str = "21600";
/// The service is on the machine itself.
const ANSWER: Duration = Duration::from_secs(1);
/// So many looks without an answer, and never one before: there is no such service.
const ABSENT_LOOKS: u32 = 3;

/// Looks for notices until nobody wants them any more, or there is no metadata service at `endpoint`. A recommendation from
/// before `started_at_ms` is not told: whoever started a worker on such a machine did it nonetheless, and one that stopped
/// for it would be started there again.
pub async fn watch(endpoint: String, started_at_ms: u64, notices: mpsc::Sender<Notice>) {
    let mut metadata = match Metadata::new(endpoint) {
        Ok(metadata) => metadata,
        Err(error) => return tracing::error!(%error, "the metadata service cannot be asked"),
    };
    let (mut unanswered, mut answered) = (0, false);
    let mut told: Vec<Notice> = Vec::new();
    loop {
        match metadata.look(started_at_ms).await {
            Ok(found) => {
                (unanswered, answered) = (0, true);
                for notice in found {
                    if !told.contains(&notice) {
                        told.push(notice);
                        if notices.send(notice).await.is_err() {
                            return;
                        }
                    }
                }
            }
            Err(error) => {
                unanswered += 1;
                if unanswered == ABSENT_LOOKS {
                    if !answered {
                        tracing::info!(%error, "there is no metadata service here; this worker is stopped by signals");
                        return;
                    }
                    tracing::warn!(%error, "the metadata service no longer answers");
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(LOOK_MS)) => {}
            () = notices.closed() => return,
        }
    }
}

struct Metadata {
    client: Client,
    endpoint: String,
    token: Option<String>,
}

#[derive(Deserialize)]
struct Action {
    action: String,
    time: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Recommendation {
    notice_time: Timestamp,
}

impl Metadata {
    fn new(endpoint: String) -> reqwest::Result<Self> {
        // Never through a proxy: it would tell of its own machine.
        let client = Client::builder().no_proxy().timeout(ANSWER).build()?;
        Ok(Self { client, endpoint: endpoint.trim_end_matches('/').to_owned(), token: None })
    }

    async fn look(&mut self, started_at_ms: u64) -> reqwest::Result<Vec<Notice>> {
        let action = self.get(ACTION).await?.map(|body| reclaim(&body));
        let rebalance = self.get(REBALANCE).await?.filter(|body| is_news(body, started_at_ms));
        Ok(action.into_iter().chain(rebalance.map(|_| Notice::Rebalance)).collect())
    }

    /// What lies at a path, if there is something.
    async fn get(&mut self, path: &str) -> reqwest::Result<Option<String>> {
        for _ in 0..2 {
            let token = match self.token.clone() {
                Some(token) => token,
                None => self.token.insert(self.new_token().await?).clone(),
            };
            let get = self.client.get(format!("{}/{path}", self.endpoint)).header("x-aws-ec2-metadata-token", token);
            let answer = get.send().await?;
            match answer.status() {
                StatusCode::NOT_FOUND => return Ok(None),
                // The token has expired.
                StatusCode::UNAUTHORIZED => self.token = None,
                _ => return answer.error_for_status()?.text().await.map(Some),
            }
        }
        Ok(None)
    }

    async fn new_token(&self) -> reqwest::Result<String> {
        let put = self.client.request(Method::PUT, format!("{}/{TOKEN}", self.endpoint));
        let put = put.header("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_S);
        put.send().await?.error_for_status()?.text().await
    }
}

/// A notice that cannot be read is one nonetheless.
fn reclaim(body: &str) -> Notice {
    let action = serde_json::from_str::<Action>(body);
    let at_ms = match &action {
        Ok(Action { action, time }) => {
            tracing::warn!(action, time = time.map(tracing::field::display), "this machine is to be taken away");
            time.map(|time| time.as_millisecond().max(0) as u64)
        }
        Err(error) => {
            tracing::warn!(%error, body, "this machine is to be taken away, it seems");
            None
        }
    };
    Notice::Reclaim { at_ms }
}

fn is_news(body: &str, started_at_ms: u64) -> bool {
    match serde_json::from_str::<Recommendation>(body) {
        Ok(Recommendation { notice_time }) => notice_time.as_millisecond() >= started_at_ms as i64,
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_read() {
        let at_ms = Some(1_505_722_920_000);
        assert_eq!(reclaim(r#"{"action":"terminate","time":"2017-09-18T08:22:00Z"}"#), Notice::Reclaim { at_ms });
        for odd in [r#"{"action":"hibernate"}"#, "", "<html>", r#"{"action":"stop","time":"soon"}"#] {
            assert_eq!(reclaim(odd), Notice::Reclaim { at_ms: None }, "{odd}");
        }
    }

    #[test]
    fn a_recommendation_from_before_is_no_news() {
        let body = r#"{"noticeTime":"2017-09-18T08:22:00Z"}"#;
        assert!(is_news(body, 1_505_722_920_000) && is_news("?", 1_505_722_920_000));
        assert!(!is_news(body, 1_505_722_920_001));
    }
}
