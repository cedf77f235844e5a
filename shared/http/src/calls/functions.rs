//! Functions.

use axum::extract::State;
use sheaf_api::{Api, stream};

use crate::{
    Grid,
    answer::{Reply, json},
    body::Bulk,
    extract::Name,
};

pub(crate) async fn put<A: Api>(State(grid): State<Grid<A>>, body: Bulk) -> Reply {
    let (request, _share) = body.decode(stream::decode_function).await?;
    json(&grid.api.put_function(request).await?)
}

pub(crate) async fn list<A: Api>(State(grid): State<Grid<A>>) -> Reply {
    json(&grid.api.functions().await?)
}

pub(crate) async fn show<A: Api>(State(grid): State<Grid<A>>, Name(name): Name) -> Reply {
    json(&grid.api.function(&name).await?)
}
