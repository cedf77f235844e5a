//! The router and the HTTP client of the SDK, together over real sockets, with a grid of a few maps behind them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod buffered;
mod documents;
mod fake;
mod limits;
mod lines;
mod refusals;
mod round_trips;
mod schema;
mod server;
mod stopping;
#[cfg(unix)]
mod token;
