//! The handlers: each turns a request into a call and its answer into a reply.

mod functions;
mod grid;
mod jobs;
mod results;
mod tasks;

use axum::{
    http::{Method, StatusCode},
    routing::{MethodRouter, on},
};
use sheaf_api::{Api, ApiError, Code};

use crate::{Call, Grid, Route, answer::Refusal};

/// The handler of a route.
pub(crate) fn handler<A: Api>(route: &Route) -> MethodRouter<Grid<A>> {
    let verb = route.verb.filter();
    match route.call {
        Call::Health => on(verb, grid::health),
        Call::OpenApi => on(verb, grid::openapi),
        Call::Grid => on(verb, grid::show::<A>),
        Call::Workers => on(verb, grid::workers::<A>),
        Call::CreateJob => on(verb, jobs::create::<A>),
        Call::Jobs => on(verb, jobs::list::<A>),
        Call::Job => on(verb, jobs::show::<A>),
        Call::Submit => on(verb, tasks::submit::<A>),
        Call::SubmitLines => on(verb, tasks::submit_lines::<A>),
        Call::Seal => on(verb, jobs::seal::<A>),
        Call::Progress => on(verb, jobs::progress::<A>),
        Call::Results => on(verb, results::read::<A>),
        Call::ResultsBeyond => on(verb, results::read_beyond::<A>),
        Call::ResultLines => on(verb, results::lines::<A>),
        Call::Cancel => on(verb, jobs::cancel::<A>),
        Call::Retry => on(verb, jobs::retry::<A>),
        Call::Events => on(verb, jobs::events::<A>),
        Call::Task => on(verb, tasks::explain::<A>),
        Call::Logs => on(verb, tasks::logs::<A>),
        Call::PutFunction => on(verb, functions::put::<A>),
        Call::Functions => on(verb, functions::list::<A>),
        Call::Function => on(verb, functions::show::<A>),
    }
}

pub(crate) async fn unknown_route() -> Refusal {
    let hint = "the routes are listed by GET /v1/openapi.yaml";
    ApiError::new(Code::NotFound, "there is no such route").with_hint(hint).into()
}

pub(crate) async fn wrong_method(method: Method) -> Refusal {
    let error = ApiError::invalid(format!("this route does not take {method}"));
    Refusal::from(error.with_hint("the header Allow names what it takes")).with_status(StatusCode::METHOD_NOT_ALLOWED)
}
