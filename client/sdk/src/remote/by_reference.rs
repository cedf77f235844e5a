//! Bodies that do not fit through a Lambda: they go through the grid's bucket, by URLs that the grid gives.
//!
//! The URLs are secrets: no error and no log names them.

use bytes::Bytes;
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use sheaf_api::{Answer, ApiError, Code, wire::GridView};

use super::{Remote, Request};
use crate::retry::{self, Patience};

/// Requests with a larger body go by reference where the grid takes that. Source: a Lambda takes 6 MB, of which base64 leaves
/// three quarters.
pub(super) const INLINE_BYTES_MAX: usize = 4_500_000;

/// A body's name, and where to put it.
#[derive(Deserialize)]
struct Place {
    name: String,
    url: String,
}

impl Remote {
    /// Puts a request's body where the grid gets it, if it is too large to be sent to it; gives its name there.
    pub(super) async fn put_aside(&self, request: &Request) -> Answer<Option<String>> {
        if request.body.len() <= INLINE_BYTES_MAX || !self.takes_references().await? {
            return Ok(None);
        }
        // Nothing has been asked of the grid that could have happened.
        self.upload(request.body.clone()).await.map(Some).map_err(|error| match error.code {
            Code::Unknown => ApiError { code: Code::Unavailable, ..error },
            _ => error,
        })
    }

    /// Whether a grid is behind Lambdas; asked once.
    async fn takes_references(&self) -> Answer<bool> {
        let asked = self.takes_references.get_or_try_init(|| async {
            let grid = self.repeated(&self.get("grid", &["grid"]), None).await?;
            let grid: GridView = serde_json::from_slice(&grid).map_err(|error| super::unreadable("grid", error))?;
            Ok(grid.backend == "aws")
        });
        asked.await.copied()
    }

    async fn upload(&self, body: Bytes) -> Answer<String> {
        let place = self.repeated(&self.post("bodies", &["bodies"]), None).await?;
        let place: Place = serde_json::from_slice(&place).map_err(|error| super::unreadable("bodies", error))?;
        let url = parsed(&place.url)?;
        retry::call_with(Patience::of(self.retry()), || self.put(url.clone(), body.clone())).await?;
        Ok(place.name)
    }

    async fn put(&self, url: Url, body: Bytes) -> Answer<()> {
        let bytes = body.len();
        let answer = self.exchange("upload", self.client.put(url).body(body), bytes, 0).await?;
        said("the upload of a body", answer.status)
    }

    /// Gets the body of an answer.
    pub(super) async fn fetch(&self, url: &str) -> Answer<Bytes> {
        let request = self.client.get(parsed(url)?);
        let answer = self.exchange("download", request, 0, 0).await?;
        said("the download of an answer", answer.status)?;
        Ok(answer.body)
    }
}

fn parsed(url: &str) -> Answer<Url> {
    Url::parse(url).map_err(|_| super::unreadable("bodies", "it names no URL"))
}

/// What a bucket means by a status.
fn said(what: &str, status: StatusCode) -> Answer<()> {
    match status {
        status if status.is_success() => Ok(()),
        // It has expired meanwhile, or the bucket is busy: the whole of it is to be tried again.
        status => Err(ApiError::new(Code::Unknown, format!("{what} was answered with {status}"))),
    }
}
