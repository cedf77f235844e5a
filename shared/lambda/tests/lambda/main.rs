//! The HTTP API behind a Lambda: with events as an HTTP API sends them, and with the client of the SDK through something that
//! does what an HTTP API does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bodies;
mod events;
mod gateway;
mod store;
