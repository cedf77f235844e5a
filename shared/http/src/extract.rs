//! Reading what a request says: ids in its path, its query, its JSON. What cannot be read is refused in words that name
//! what was expected.

use std::str::FromStr;

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::request::Parts,
};
use serde::de::DeserializeOwned;
use sheaf_api::ApiError;
use sheaf_core::{IdError, TaskId};

use crate::{
    answer::Refusal,
    body::{self, JSON_BYTES_MAX},
};

/// The one parameter of a path.
pub(crate) struct Id<T>(pub(crate) T);

impl<S: Send + Sync, T: FromStr<Err = IdError>> FromRequestParts<S> for Id<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Name(text) = Name::from_request_parts(parts, state).await?;
        Ok(Self(text.parse().map_err(|error: IdError| ApiError::invalid(error.to_string()))?))
    }
}

/// The one parameter of a path, as it is.
pub(crate) struct Name(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) = path.map_err(|rejection| ApiError::invalid(rejection.body_text()))?;
        Ok(Self(text))
    }
}

/// The task that a path names in three segments.
pub(crate) struct Task(pub(crate) TaskId);

impl<S: Send + Sync> FromRequestParts<S> for Task {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let path = Path::<(String, String, String)>::from_request_parts(parts, state).await;
        let Path((job, chunk, index)) = path.map_err(|rejection| ApiError::invalid(rejection.body_text()))?;
        let id = format!("{job}/{chunk}/{index}").parse();
        Ok(Self(id.map_err(|error: IdError| ApiError::invalid(error.to_string()))?))
    }
}

/// The query.
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        let Query(query) = query.map_err(|rejection| ApiError::invalid(rejection.body_text()))?;
        Ok(Self(query))
    }
}

/// A JSON body of at most [`JSON_BYTES_MAX`] bytes, whatever its declared type.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let body = body::read(request.into_body(), JSON_BYTES_MAX).await?;
        let value = serde_json::from_slice(&body);
        // The message of serde_json ends with the line and column.
        Ok(Self(value.map_err(|error| ApiError::invalid(format!("the body is not the JSON wanted here: {error}")))?))
    }
}
