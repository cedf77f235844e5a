//! The grid itself, its workers, and this API.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use sheaf_api::Api;

use crate::{
    Grid,
    answer::{Reply, json},
};

pub(crate) async fn health() -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], "ok\n").into_response()
}

pub(crate) async fn openapi() -> Response {
    let document = include_str!("../../../../docs/openapi.yaml");
    ([(header::CONTENT_TYPE, "application/yaml")], document).into_response()
}

pub(crate) async fn show<A: Api>(State(grid): State<Grid<A>>) -> Reply {
    json(&grid.api.grid().await?)
}

pub(crate) async fn workers<A: Api>(State(grid): State<Grid<A>>) -> Reply {
    json(&grid.api.workers().await?)
}
