//! A JSON object read field by field, in the order of the file: HADS breaks ties by it.

use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::FormatError;

/// An object with its fields as raw text, in order.
pub(super) struct Fields(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl Fields {
    /// The fields of `text`, which must be an object.
    pub(super) fn parse(text: &str) -> Result<Self, FormatError> {
        serde_json::from_str(text).map_err(|error| FormatError::new("", error.to_string()))
    }

    /// The fields, in the order of the file.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), &**value))
    }

    fn find(&self, name: &str) -> Option<&RawValue> {
        // As in Python's json, the last of several fields of one name counts.
        self.0.iter().rev().find(|(field, _)| field == name).map(|(_, value)| &**value)
    }

    /// The field `name` as a `T`; none where it is missing or null.
    pub(super) fn optional<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, FormatError> {
        let Some(value) = self.find(name) else { return Ok(None) };
        serde_json::from_str(value.get()).map_err(|error| FormatError::new(name, cause(&error)))
    }

    /// The field `name` as a `T`.
    pub(super) fn required<T: DeserializeOwned>(&self, name: &str) -> Result<T, FormatError> {
        self.optional(name)?.ok_or_else(|| FormatError::new(name, "it is missing"))
    }

    /// The object in the field `name`.
    pub(super) fn object(&self, name: &str) -> Result<Fields, FormatError> {
        let value = self.find(name).ok_or_else(|| FormatError::new(name, "it is missing"))?;
        Fields::parse(value.get()).map_err(|error| error.under(name))
    }

    /// The object in the field `name`; an empty one where it is missing.
    pub(super) fn object_or_empty(&self, name: &str) -> Result<Fields, FormatError> {
        if self.find(name).is_none() { Ok(Fields(Vec::new())) } else { self.object(name) }
    }

    /// The number in the field `name`, also written as text: price lists come in both ways.
    pub(super) fn number(&self, name: &str) -> Result<f64, FormatError> {
        self.number_or_none(name)?.ok_or_else(|| FormatError::new(name, "it is missing"))
    }

    /// The number in the field `name`, if it is there.
    pub(super) fn number_or_none(&self, name: &str) -> Result<Option<f64>, FormatError> {
        match self.optional::<serde_json::Value>(name)? {
            None => Ok(None),
            Some(value) => number(&value).map(Some).map_err(|error| error.under(name)),
        }
    }

    /// The `"yes"` or `"no"` in the field `name`, or a truth value.
    pub(super) fn yes(&self, name: &str, default: bool) -> Result<bool, FormatError> {
        match self.optional::<serde_json::Value>(name)? {
            None => Ok(default),
            Some(serde_json::Value::Bool(yes)) => Ok(yes),
            Some(serde_json::Value::String(text)) if text.eq_ignore_ascii_case("yes") => Ok(true),
            Some(serde_json::Value::String(text)) if text.eq_ignore_ascii_case("no") => Ok(false),
            Some(other) => Err(FormatError::new(name, format!("expected \"yes\" or \"no\", found {other}"))),
        }
    }
}

/// `value` as a number.
pub(super) fn number(value: &serde_json::Value) -> Result<f64, FormatError> {
    let parsed = match value {
        serde_json::Value::String(text) => text.trim().parse().ok(),
        other => other.as_f64(),
    };
    parsed.ok_or_else(|| FormatError::new("", format!("expected a number, found {value}")))
}

/// What serde_json says, without the place inside the field, which the path says better.
fn cause(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}
