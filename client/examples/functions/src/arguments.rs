//! A payload's arguments, read so that a refusal names the function, the argument and what was there instead.

use std::{borrow::Cow, collections::BTreeMap, ops::RangeInclusive};

use serde_json::value::RawValue;

use crate::{Failure, text};

/// The members of a JSON object, as they were written: a number keeps every digit. `null` counts as missing.
pub struct Arguments<'a> {
    function: &'a str,
    members: BTreeMap<String, &'a RawValue>,
}

impl<'a> Arguments<'a> {
    /// Reads the object that is a payload.
    pub fn parse(function: &'a str, payload: &'a RawValue) -> Result<Self, Failure> {
        let members =
            serde_json::from_str(payload.get()).map_err(|_| Failure::InvalidPayload { function: function.into() })?;
        Ok(Self { function, members })
    }

    /// An argument's JSON.
    pub fn json(&self, name: &str) -> Result<&'a RawValue, Failure> {
        self.optional_json(name).ok_or_else(|| self.refuse(name, "is missing".into()))
    }

    /// An integer of 64 bits.
    pub fn integer(&self, name: &str) -> Result<i64, Failure> {
        let json = self.json(name)?.get();
        json.parse().map_err(|_| self.mismatch(name, "an integer", json))
    }

    /// An integer within bounds, in the type that holds them.
    pub fn integer_in<T: TryFrom<i64>>(&self, name: &str, bounds: RangeInclusive<i64>) -> Result<T, Failure> {
        let value = self.integer(name)?;
        let bound = if value < *bounds.start() {
            format!("at least {}", bounds.start())
        } else {
            format!("at most {}", bounds.end())
        };
        let fits = if bounds.contains(&value) { T::try_from(value).ok() } else { None };
        fits.ok_or_else(|| self.mismatch(name, &bound, &value.to_string()))
    }

    /// A count, if there is one.
    pub fn optional_integer(&self, name: &str) -> Result<Option<u64>, Failure> {
        self.optional_json(name).map(|_| self.integer_in(name, 0..=i64::MAX)).transpose()
    }

    /// A JSON number as it was written.
    pub fn number(&self, name: &str) -> Result<&'a str, Failure> {
        let json = self.json(name)?.get();
        if text::is_number(json) { Ok(json) } else { Err(self.mismatch(name, "a number", json)) }
    }

    /// A JSON number as floating point, if there is one.
    pub fn optional_float(&self, name: &str) -> Result<Option<f64>, Failure> {
        let parse = |json: &str| json.parse().map_err(|_| self.mismatch(name, "a number", json));
        self.optional_json(name).map(|_| self.number(name).and_then(parse)).transpose()
    }

    /// A string, or a number as Python's `str` writes it.
    pub fn text(&self, name: &str) -> Result<Cow<'a, str>, Failure> {
        let json = self.json(name)?.get();
        if json.starts_with('"') {
            serde_json::from_str::<String>(json).map(Cow::Owned).map_err(|_| self.mismatch(name, "a string", json))
        } else {
            text::of_number(json).ok_or_else(|| self.mismatch(name, "a string or a number", json))
        }
    }

    /// As [`Self::text`], if there is one.
    pub fn optional_text(&self, name: &str) -> Result<Option<Cow<'a, str>>, Failure> {
        self.optional_json(name).map(|_| self.text(name)).transpose()
    }

    fn optional_json(&self, name: &str) -> Option<&'a RawValue> {
        self.members.get(name).copied().filter(|json| json.get() != "null")
    }

    fn mismatch(&self, argument: &str, expected: &str, found: &str) -> Failure {
        /// A refusal is read by people: enough of the value to recognise it.
        const FOUND_CHARS_MAX: usize = 60;
        let shown: String = found.chars().take(FOUND_CHARS_MAX).collect();
        let ellipsis = if shown.len() < found.len() { "…" } else { "" };
        self.refuse(argument, format!("must be {expected}, but is {shown}{ellipsis}"))
    }

    fn refuse(&self, argument: &str, problem: String) -> Failure {
        Failure::InvalidArgument { function: self.function.into(), argument: argument.into(), problem }
    }
}
