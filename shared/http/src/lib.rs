//! The HTTP API over the steps.
//!
//! [`router`] serves any [`Api`]: the steps of a grid in this process, or a client of another one. Every route stands in
//! [`ROUTES`], and with its requests and replies in `docs/openapi.yaml`. [`serve`] runs a router on a socket until it is
//! told to stop. [`Access`] says who may call.
//!
//! Every answer that is no success is an [`ApiError`](sheaf_api::ApiError) as JSON under the status of its code, also where
//! a request never reached a call. Nothing here decides anything about jobs: that is the business of the steps.

mod access;
mod answer;
mod body;
mod buffered;
mod calls;
mod drain;
mod extract;
mod guard;
mod lines;
mod routes;
mod serve;
mod token;

use std::sync::Arc;

use axum::{
    Router, middleware,
    response::{IntoResponse, Response},
};
use sheaf_api::{Api, ApiError};

pub use access::Access;
pub use body::{BODY_BYTES_IN_FLIGHT_MAX, Bodies, JSON_BYTES_MAX};
pub use buffered::{Buffered, HAVE_HEADER};
pub use routes::{Call, ROUTES, Route, Verb};
pub use serve::{CONNECTIONS_MAX, SHUTDOWN_MS_MAX, Stopping, serve};
pub use token::{Token, TokenError};

/// What the handlers share.
pub(crate) struct Grid<A> {
    pub(crate) api: Arc<A>,
    pub(crate) bodies: body::Bodies,
}

impl<A> Clone for Grid<A> {
    fn clone(&self) -> Self {
        Self { api: Arc::clone(&self.api), bodies: self.bodies.clone() }
    }
}

/// The routes of [`ROUTES`] over an API, for callers that `access` lets in.
///
/// Requests and replies are bounded: JSON bodies by [`JSON_BYTES_MAX`], bulk ones by
/// [`REQUEST_BYTES_MAX`](sheaf_core::limits::REQUEST_BYTES_MAX), and all bulk bodies under way together by
/// [`BODY_BYTES_IN_FLIGHT_MAX`]. Packs and segments are passed on as slices of what came in.
///
/// Each request is one tracing span with method, route, status and duration; never a token, payload or query.
pub fn router<A: Api>(api: Arc<A>, access: Access) -> Router {
    router_with(api, access, Router::new())
}

/// [`router`] with routes of another family beside it, for the same callers: what is wrong with a caller is told before they
/// see a request. They bound what they read and answer themselves.
pub fn router_with<A: Api>(api: Arc<A>, access: Access, beside: Router) -> Router {
    let grid = Grid { api, bodies: body::Bodies::new() };
    ROUTES
        .iter()
        .fold(Router::new(), |router, route| router.route(route.path, calls::handler::<A>(route)))
        .with_state(grid)
        .merge(beside)
        .fallback(calls::unknown_route)
        .method_not_allowed_fallback(calls::wrong_method)
        .layer(middleware::from_fn_with_state(Arc::new(access), guard::guard))
}

/// An error as every route answers it: JSON under the status of its code. For those who answer a request before it reaches the
/// router.
pub fn refusal(error: ApiError) -> Response {
    answer::Refusal::from(error).into_response()
}
