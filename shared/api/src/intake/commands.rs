//! The command file: one JSON object of `id → {"type": …, "arguments": …}`, read one member at a time.
//!
//! The order of the file is the order of its commands, and nothing of an object is kept after its command is out. A JSON
//! library's own map would do neither: it holds the whole file, and drops all but the last of equal ids.

use std::{borrow::Cow, io::Read, ops::Range};

use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{
    IntakeError,
    json::{Framed, parse, place, value_end},
    limits,
    reader::{Found, Id},
    window::Window,
};

/// A key as written: every byte of an id may be an escape of six.
const KEY: Framed = Framed {
    bytes_max: 6 * limits::ID_BYTES_MAX + 2,
    what: "bytes of an id, as written,",
    diagnose: |bytes| parse::<IgnoredAny>(bytes).err(),
};
/// A command as written.
const COMMAND: Framed = Framed {
    bytes_max: limits::COMMAND_BYTES_MAX,
    what: "bytes of a command",
    diagnose: |bytes| parse::<Body<'_>>(bytes).err(),
};

/// What a missing `arguments` means.
pub(super) const NO_ARGUMENTS: &str = "{}";

/// How far a command file is read, and where its current command lies in the window.
#[derive(Debug, Default)]
pub(super) struct CommandFile {
    opened: bool,
    any: bool,
    key: Range<usize>,
    value: Range<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    #[serde(borrow, default, rename = "type", deserialize_with = "present")]
    function: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    arguments: Option<&'a RawValue>,
}

/// A string, borrowed if it holds no escapes. (serde borrows a `Cow` only where it stands alone.)
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// A field that is there is not none, even if it is `null`.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl CommandFile {
    /// Finds the next command; gives the offset of its end, or none after the last one.
    pub(super) fn advance<R: Read>(&mut self, window: &mut Window<R>) -> Result<Option<usize>, IntakeError> {
        if !self.opened {
            match window.skip_space()? {
                None => return Err(IntakeError::Empty),
                Some(b'{') => window.consume(1),
                Some(_) => return Err(expected(window, 0, &(0..0), "`{`: a command file is one JSON object")),
            }
            self.opened = true;
        }
        match window.skip_space()? {
            Some(b'}') => return self.close(window),
            Some(b',') if self.any => {
                window.consume(1);
                window.skip_space()?;
            }
            _ if self.any => return Err(expected(window, 0, &(0..0), "`,` or `}` after a command")),
            _ => {}
        }
        if window.byte(0)? != Some(b'"') {
            return Err(expected(window, 0, &(0..0), "an id (a string in double quotes)"));
        }
        self.any = true;
        self.command(window).map(Some)
    }

    fn command<R: Read>(&mut self, window: &mut Window<R>) -> Result<usize, IntakeError> {
        self.key = 0..value_end(window, 0, &KEY, &(0..0))?;
        let (colon, byte) = window.space_from(self.key.end)?;
        if byte != Some(b':') {
            return Err(expected(window, colon, &self.key, "`:` after the id"));
        }
        let (start, byte) = window.space_from(colon + 1)?;
        if byte != Some(b'{') {
            return Err(expected(window, start, &self.key, "a command: an object with `type` and `arguments`"));
        }
        self.value = start..value_end(window, start, &COMMAND, &self.key)?;
        Ok(self.value.end)
    }

    fn close<R: Read>(&mut self, window: &mut Window<R>) -> Result<Option<usize>, IntakeError> {
        window.consume(1);
        match window.skip_space()? {
            None => Ok(None),
            Some(_) => Err(expected(window, 0, &(0..0), "the end of the file after the closing `}`")),
        }
    }

    /// The command that [`advance`](Self::advance) found.
    pub(super) fn found<'a, R: Read>(&self, window: &'a Window<R>) -> Result<Found<'a>, IntakeError> {
        let (bytes, start) = (window.bytes(), self.value.start);
        let Text(id) = parse(&bytes[self.key.clone()]).map_err(|error| error.malformed(window, 0, &(0..0)))?;
        let body: Body<'a> =
            parse(&bytes[self.value.clone()]).map_err(|error| error.malformed(window, start, &self.key))?;
        Ok(Found {
            id: Id::Given(id),
            function: body.function.map(|Text(text)| text),
            payload: body.arguments.map_or(NO_ARGUMENTS, RawValue::get).as_bytes(),
            offset: 0,
        })
    }
}

/// Something else was expected at an offset, or anything at all.
fn expected<R: Read>(window: &Window<R>, offset: usize, key: &Range<usize>, what: &str) -> IntakeError {
    let (place, reason) = (place(window, offset, key), format!("expected {what}"));
    // Whoever expects a byte has looked for it.
    if offset < window.bytes().len() {
        IntakeError::Malformed { place, reason }
    } else {
        IntakeError::Truncated { place, reason }
    }
}
