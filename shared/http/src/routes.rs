//! Every route in one table: the router is built from it, and the OpenAPI document is compared with it.

use axum::routing::MethodFilter;

/// The method of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Reads; may be repeated and changes nothing.
    Get,
    /// Acts; may be repeated, and happens once.
    Post,
    /// Stores; may be repeated, and happens once.
    Put,
}

impl Verb {
    /// The method's name, in upper case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
        }
    }

    pub(crate) const fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Put => MethodFilter::PUT,
        }
    }
}

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Says that the server answers.
    Health,
    /// This API as an OpenAPI document.
    OpenApi,
    /// [`sheaf_api::Api::grid`].
    Grid,
    /// [`sheaf_api::Api::workers`].
    Workers,
    /// [`sheaf_api::Api::create_job`].
    CreateJob,
    /// [`sheaf_api::Api::jobs`].
    Jobs,
    /// [`sheaf_api::Api::progress`], at once.
    Job,
    /// [`sheaf_api::Api::submit`], framed.
    Submit,
    /// [`sheaf_api::Api::submit`] of one chunk, given as lines.
    SubmitLines,
    /// [`sheaf_api::Api::seal`].
    Seal,
    /// [`sheaf_api::Api::progress`].
    Progress,
    /// [`sheaf_api::Api::results`], framed.
    Results,
    /// The same, with the chunks that the reader has in the body.
    ResultsBeyond,
    /// [`sheaf_api::Api::results`] to the end, as lines.
    ResultLines,
    /// [`sheaf_api::Api::cancel`].
    Cancel,
    /// [`sheaf_api::Api::retry`].
    Retry,
    /// [`sheaf_api::Api::events`].
    Events,
    /// [`sheaf_api::Api::task`].
    Task,
    /// [`sheaf_api::Api::logs`].
    Logs,
    /// [`sheaf_api::Api::put_function`], framed.
    PutFunction,
    /// [`sheaf_api::Api::functions`].
    Functions,
    /// [`sheaf_api::Api::function`].
    Function,
}

/// One route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// What it does.
    pub call: Call,
    /// Its method.
    pub verb: Verb,
    /// Its path, with parameters in braces.
    pub path: &'static str,
    /// Whether it answers without a token.
    pub is_open: bool,
}

const fn route(call: Call, verb: Verb, path: &'static str) -> Route {
    Route { call, verb, path, is_open: false }
}

/// All of them.
pub const ROUTES: &[Route] = &[
    Route { is_open: true, ..route(Call::Health, Verb::Get, "/healthz") },
    route(Call::OpenApi, Verb::Get, "/v1/openapi.yaml"),
    route(Call::Grid, Verb::Get, "/v1/grid"),
    route(Call::Workers, Verb::Get, "/v1/workers"),
    route(Call::CreateJob, Verb::Post, "/v1/jobs"),
    route(Call::Jobs, Verb::Get, "/v1/jobs"),
    route(Call::Job, Verb::Get, "/v1/jobs/{job}"),
    route(Call::Submit, Verb::Put, "/v1/jobs/{job}/chunks"),
    route(Call::SubmitLines, Verb::Post, "/v1/jobs/{job}/tasks"),
    route(Call::Seal, Verb::Post, "/v1/jobs/{job}/seal"),
    route(Call::Progress, Verb::Get, "/v1/jobs/{job}/progress"),
    route(Call::Results, Verb::Get, "/v1/jobs/{job}/results"),
    route(Call::ResultsBeyond, Verb::Post, "/v1/jobs/{job}/results"),
    route(Call::ResultLines, Verb::Get, "/v1/jobs/{job}/results.ndjson"),
    route(Call::Cancel, Verb::Post, "/v1/jobs/{job}/cancel"),
    route(Call::Retry, Verb::Post, "/v1/jobs/{job}/retry"),
    route(Call::Events, Verb::Get, "/v1/jobs/{job}/events"),
    route(Call::Task, Verb::Get, "/v1/tasks/{job}/{chunk}/{index}"),
    route(Call::Logs, Verb::Get, "/v1/tasks/{job}/{chunk}/{index}/logs"),
    route(Call::PutFunction, Verb::Put, "/v1/functions"),
    route(Call::Functions, Verb::Get, "/v1/functions"),
    route(Call::Function, Verb::Get, "/v1/functions/{name}"),
];
