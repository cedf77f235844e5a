//! Rust functions linked into an embedded grid.

use std::{any::type_name, error::Error};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use sheaf_api::wire::PutFunction;
use sheaf_core::{Failure, FailureKind, FunctionKind, FunctionName, Manifest, ResultForm};
use sheaf_local::{Handler, HandlerBatch, TaskContext};

use crate::{error::GridError, function::Function, grid::Grid, transport::Transport};

/// Any error of a user's function.
type BoxError = Box<dyn Error + Send + Sync>;

impl Grid {
    /// Registers a Rust closure as a function of this grid, and declares it. It takes and gives JSON, runs on a thread that
    /// may block, and may be called from several at once. A panic in it fails its task.
    ///
    /// Only for a grid in this process; elsewhere [`GridError::HandlerElsewhere`]. Registering the same name again puts the
    /// new closure in place of the old one.
    ///
    /// Tasks that an earlier process left behind wait until their function is registered again, so register first thing
    /// after connecting.
    pub async fn handler<I, O, E>(
        &self,
        name: &str,
        run: impl Fn(I) -> Result<O, E> + Send + Sync + 'static,
    ) -> Result<Function<I, O>, GridError>
    where
        I: Serialize + DeserializeOwned,
        O: Serialize + DeserializeOwned,
        E: Into<BoxError>,
    {
        let handler = Handler::new(move |_, payload, out| {
            let item = serde_json::from_slice(payload).map_err(|error| bad_payload(&error))?;
            let result = run(item).map_err(failure)?;
            serde_json::to_writer(out, &result).map_err(|error| bad_answer(&error))
        });
        Ok(Function::named(self.link(manifest(name)?, handler).await?))
    }

    /// As [`Grid::handler`], for functions that wait rather than compute: a future per task, on the runtime, dropped at the
    /// function's timeout.
    pub async fn handler_async<I, O, E, F>(
        &self,
        name: &str,
        run: impl Fn(I) -> F + Send + Sync + 'static,
    ) -> Result<Function<I, O>, GridError>
    where
        I: Serialize + DeserializeOwned,
        O: Serialize + DeserializeOwned,
        E: Into<BoxError>,
        F: Future<Output = Result<O, E>> + Send + 'static,
    {
        let handler = Handler::new_async(move |_, payload| {
            let started = serde_json::from_slice(&payload).map(&run);
            async move {
                let result = started.map_err(|error| bad_payload(&error))?.await.map_err(failure)?;
                serde_json::to_vec(&result).map(Bytes::from).map_err(|error| bad_answer(&error))
            }
        });
        Ok(Function::named(self.link(manifest(name)?, handler).await?))
    }

    /// Registers the fastest form: a payload in, the result appended to a buffer, nothing decoded or allocated in between.
    pub async fn handler_raw<I: AsRef<[u8]>>(
        &self,
        name: &str,
        run: impl Fn(&[u8], &mut Vec<u8>) -> Result<(), Failure> + Send + Sync + 'static,
    ) -> Result<Function<I, Bytes>, GridError> {
        self.handler_in_context(name, move |_, payload, out| run(payload, out)).await
    }

    /// As [`Grid::handler_raw`], with the context of the task: its id, its attempt, and whether anybody still waits for it.
    pub async fn handler_in_context<I: AsRef<[u8]>>(
        &self,
        name: &str,
        run: impl Fn(&TaskContext, &[u8], &mut Vec<u8>) -> Result<(), Failure> + Send + Sync + 'static,
    ) -> Result<Function<I, Bytes>, GridError> {
        let manifest = Manifest { result: ResultForm::Bytes, ..manifest(name)? };
        Ok(Function::raw(self.link(manifest, Handler::new(run)).await?))
    }

    /// Registers a closure that is given all tasks of a call at once and answers each.
    pub async fn handler_batch<I: AsRef<[u8]>>(
        &self,
        name: &str,
        run: impl Fn(&mut HandlerBatch<'_>) -> Result<(), Failure> + Send + Sync + 'static,
    ) -> Result<Function<I, Bytes>, GridError> {
        let manifest = Manifest { result: ResultForm::Bytes, batch: true, ..manifest(name)? };
        Ok(Function::raw(self.link(manifest, Handler::new_batch(run)).await?))
    }

    /// Registers a handler under a manifest of its own, for timeouts and limits other than the usual ones; gives its name
    /// with its version. The manifest's kind must be a handler.
    pub async fn link(&self, manifest: Manifest, handler: Handler) -> Result<String, GridError> {
        let Transport::Embedded(grid) = self.api() else {
            return Err(GridError::HandlerElsewhere { function: manifest.name.to_string() });
        };
        let FunctionKind::Handler { revision } = &manifest.kind else {
            let message = format!("{} is declared as a {}, not a handler", manifest.name, manifest.kind.as_str());
            return Err(sheaf_api::ApiError::invalid(message).into());
        };
        grid.handlers().insert(manifest.name.clone(), revision.clone(), handler);
        let view = self.put_function(PutFunction { manifest, package: None }).await?;
        Ok(view.reference.to_string())
    }
}

fn manifest(name: &str) -> Result<Manifest, GridError> {
    let name: FunctionName = name.parse().map_err(|error| sheaf_api::ApiError::invalid(format!("{error}")))?;
    Ok(Manifest::new(name, FunctionKind::Handler { revision: String::new() }))
}

/// What the user's error says, with its causes, and its type where that has a name worth showing.
fn failure<E: Into<BoxError>>(error: E) -> Failure {
    let error = error.into();
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message.push_str(&format!(": {error}"));
        cause = error.source();
    }
    Failure::new(FailureKind::Error, message).with_type(type_label(type_name::<E>()))
}

/// The last part of a type's path; nothing for texts and boxes, which say nothing of the error.
fn type_label(path: &'static str) -> &'static str {
    let plain = path.split('<').next().unwrap_or(path);
    match plain.rsplit("::").next().unwrap_or(plain) {
        "String" | "&str" | "Box" => "",
        label => label,
    }
}

fn bad_payload(error: &serde_json::Error) -> Failure {
    Failure::new(FailureKind::Error, format!("the payload is not what the function takes: {error}"))
        .with_type("BadPayload")
}

fn bad_answer(error: &serde_json::Error) -> Failure {
    Failure::new(FailureKind::BadAnswer, format!("the result cannot be written as JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_carry_causes_and_types() {
        #[derive(Debug, thiserror::Error)]
        #[error("no price for {0}")]
        struct NoPrice(String, #[source] std::num::ParseIntError);
        let cause = "x".parse::<i32>().expect_err("not a number");
        let failure_of = failure(NoPrice("IBM".into(), cause));
        assert_eq!(failure_of.message, "no price for IBM: invalid digit found in string");
        assert_eq!(failure_of.error_type, "NoPrice");
        assert_eq!(failure("plain").error_type, "");
        assert_eq!(failure(String::from("plain")).error_type, "");
    }
}
