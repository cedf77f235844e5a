//! NDJSON: a command per line, or, for a file of one function, a payload per line.

use std::{
    io::{BufRead, Read},
    ops::Range,
};

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{
    IntakeError,
    commands::{NO_ARGUMENTS, Text, present},
    json::{first_too_deep, over, parse, too_deep},
    limits,
    reader::{Found, Id},
    window::{Window, is_space},
};

/// How far an NDJSON file is read, and where its current line lies in the window.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Of the current line, from 1.
    number: u64,
    value: Range<usize>,
    /// Whether no line break follows: the line may be half of one.
    open_ended: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "type", deserialize_with = "present")]
    function: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    arguments: Option<&'a RawValue>,
}

/// The fields that make an object a command.
#[derive(Deserialize)]
struct Marks {
    #[serde(default, rename = "type", deserialize_with = "present")]
    function: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    arguments: Option<IgnoredAny>,
}

impl Lines {
    /// Finds the next line that is not blank; gives the offset of the one after it, or none after the last.
    pub(super) fn advance<R: Read>(&mut self, window: &mut Window<R>) -> Result<Option<usize>, IntakeError> {
        loop {
            let Some(next) = line_end(window)? else { return Ok(None) };
            let line = &window.bytes()[..next];
            self.number += 1;
            self.open_ended = line.last() != Some(&b'\n');
            if let Some(start) = line.iter().position(|&byte| !is_space(byte)) {
                let end = line.iter().rposition(|&byte| !is_space(byte)).map_or(start, |last| last + 1);
                self.value = start..end;
                return Ok(Some(next));
            }
            window.consume(next);
        }
    }

    /// The command on the line that [`advance`](Self::advance) found. `payloads` says whether the file has a function, so
    /// that a line may be just a payload.
    pub(super) fn found<'a, R: Read>(&self, window: &'a Window<R>, payloads: bool) -> Result<Found<'a>, IntakeError> {
        let offset = self.value.start;
        let malformed = |reason: &str| IntakeError::Malformed { place: window.place(offset), reason: reason.into() };
        let value: &'a [u8] = &window.bytes()[self.value.clone()];
        if payloads && self.is_payload(window, value)? {
            check_depth(window, offset, value, limits::NESTING_MAX)?;
            return Ok(Found { id: Id::Numbered(self.number), function: None, payload: value, offset });
        }
        if value.first() != Some(&b'{') {
            return Err(malformed("expected a command: an object with `id`, `type` and `arguments`"));
        }
        check_depth(window, offset, value, limits::NESTING_MAX + 1)?;
        let line: Line<'a> = self.parse(window, value)?;
        let id = match line.id.map(RawValue::get) {
            None => Id::Numbered(self.number),
            Some(text) if text.starts_with('"') => Id::Given(self.parse::<_, Text<'_>>(window, text.as_bytes())?.0),
            Some(number) if number.starts_with(|first: char| first == '-' || first.is_ascii_digit()) => {
                Id::Given(number.into())
            }
            Some(_) => return Err(malformed("`id` must be a string or a number")),
        };
        let payload = line.arguments.map_or(NO_ARGUMENTS, RawValue::get).as_bytes();
        Ok(Found { id, function: line.function.map(|Text(text)| text), payload, offset })
    }

    fn is_payload<R: Read>(&self, window: &Window<R>, value: &[u8]) -> Result<bool, IntakeError> {
        if value.first() != Some(&b'{') {
            return self.parse::<_, IgnoredAny>(window, value).map(|_| true);
        }
        let marks: Marks = self.parse(window, value)?;
        Ok(marks.function.is_none() && marks.arguments.is_none())
    }

    fn parse<'a, R: Read, T: Deserialize<'a>>(&self, window: &Window<R>, value: &'a [u8]) -> Result<T, IntakeError> {
        parse(value).map_err(|error| match error.at_end && self.open_ended {
            true => error.truncated(window, self.value.start, &(0..0)),
            false => error.malformed(window, self.value.start, &(0..0)),
        })
    }
}

fn check_depth<R: Read>(window: &Window<R>, start: usize, value: &[u8], depth_max: u32) -> Result<(), IntakeError> {
    first_too_deep(value, depth_max).map_or(Ok(()), |at| Err(too_deep(window.place(start + at))))
}

/// The offset after the next line break, or the end of the file; none if nothing is left.
fn line_end<R: Read>(window: &mut Window<R>) -> Result<Option<usize>, IntakeError> {
    let mut end = 0;
    loop {
        // Of the ways to a fast byte search in std, this is one; on a slice it cannot fail.
        let mut rest = &window.bytes()[end..];
        end += rest.skip_until(b'\n').unwrap_or(rest.len());
        if end > limits::COMMAND_BYTES_MAX {
            return Err(over(window.place(0), "bytes of a line", limits::COMMAND_BYTES_MAX));
        }
        if end > 0 && window.bytes()[end - 1] == b'\n' {
            return Ok(Some(end));
        }
        if !window.more()? {
            return Ok((end > 0).then_some(end));
        }
    }
}
