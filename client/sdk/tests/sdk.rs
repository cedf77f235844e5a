//! The client against a grid that misbehaves on demand.

mod cases;
mod fake;
