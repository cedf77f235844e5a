//! The files people bring: HADS's job.json and env.json (and its map.json, which we write), arrival traces, and spot
//! traces. Parsing needs no I/O: text goes in, and an error names the field that is wrong.

pub mod arrivals;
pub mod env;
pub mod job;
pub mod map;
mod ordered;
pub mod spot;

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}{}{problem}", if place.is_empty() { "" } else { ": " })]
pub struct FormatError {
    /// Where: a path of fields like `tasks.12.memory`, or a line like `line 3`; empty for the whole file.
    pub place: String,
    /// What was expected there, or found instead.
    pub problem: String,
}

impl FormatError {
    pub(crate) fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: place.into(), problem: problem.into() }
    }

    /// The same error, one level up.
    pub(crate) fn under(self, parent: &str) -> Self {
        let place = if self.place.is_empty() { parent.to_owned() } else { format!("{parent}.{}", self.place) };
        Self { place, ..self }
    }
}

/// `value` if it is finite and not below `min`.
pub(crate) fn at_least(place: &str, value: f64, min: f64) -> Result<f64, FormatError> {
    if value.is_finite() && value >= min {
        Ok(value)
    } else {
        Err(FormatError::new(place, format!("expected a number of at least {min}, found {value}")))
    }
}

/// `value` if it is finite and above zero.
pub(crate) fn above_zero(place: &str, value: f64) -> Result<f64, FormatError> {
    if value.is_finite() && value > 0.0 {
        Ok(value)
    } else {
        Err(FormatError::new(place, format!("expected a number above 0, found {value}")))
    }
}
