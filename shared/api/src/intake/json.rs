//! Finding where a JSON value ends before it is parsed, and saying where in the file a parse went wrong.
//!
//! A value is framed first, then parsed out of one slice of the window: commands borrow from it, no buffer grows past
//! one command, and every error can tell the id.

use std::{io::Read, ops::Range};

use serde::Deserialize;

use super::{
    IntakeError,
    error::{Place, clipped},
    limits,
    window::Window,
};

/// Looks for the end of an array, object or string; can stop anywhere and go on with more bytes.
struct Frame {
    at: usize,
    depth: u32,
    depth_max: u32,
    in_string: bool,
    escaped: bool,
}

enum Found {
    /// The value ends before this offset.
    End(usize),
    /// No value goes on like this; parsing up to here will say why.
    Broken(usize),
    /// Here it nests too deep.
    TooDeep(usize),
    /// Not yet.
    More,
}

impl Frame {
    fn new(at: usize, depth_max: u32) -> Self {
        Self { at, depth: 0, depth_max, in_string: false, escaped: false }
    }

    fn advance(&mut self, bytes: &[u8]) -> Found {
        for (index, &byte) in bytes.iter().enumerate().skip(self.at) {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' if self.depth == 0 => return Found::End(index + 1),
                    b'"' => self.in_string = false,
                    0..0x20 => return Found::Broken(index + 1),
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' if self.depth == self.depth_max => return Found::TooDeep(index),
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' if self.depth <= 1 => return Found::End(index + 1),
                b'}' | b']' => self.depth -= 1,
                _ => {}
            }
        }
        self.at = bytes.len();
        Found::More
    }
}

/// What is being framed.
pub(super) struct Framed {
    /// Its cap, and that cap's name and unit.
    pub(super) bytes_max: usize,
    /// See `bytes_max`.
    pub(super) what: &'static str,
    /// What is wrong with some first bytes of it.
    pub(super) diagnose: fn(&[u8]) -> Option<JsonError>,
}

/// The end of the array, object or string that starts at an offset of the window. `key` is where in the window the
/// command's id lies, for errors, or empty.
///
/// # Errors
/// What is wrong first: the value itself, its size, or the file's end.
pub(super) fn value_end<R: Read>(
    window: &mut Window<R>,
    start: usize,
    framed: &Framed,
    key: &Range<usize>,
) -> Result<usize, IntakeError> {
    // One level above the payload's is the command itself.
    let mut frame = Frame::new(start, limits::NESTING_MAX + 1);
    loop {
        let end = match frame.advance(window.bytes()) {
            Found::End(end) if end - start <= framed.bytes_max => return Ok(end),
            Found::TooDeep(at) => return Err(too_deep(place(window, at, key))),
            Found::Broken(end) => end,
            _ if window.bytes().len() - start > framed.bytes_max => start + framed.bytes_max,
            _ if window.more()? => continue,
            _ => window.bytes().len(),
        };
        let at_file_end = window.at_end() && end == window.bytes().len();
        return Err(match (framed.diagnose)(&window.bytes()[start..end]) {
            Some(error) if !error.at_end => error.malformed(window, start, key),
            Some(error) if at_file_end => error.truncated(window, start, key),
            _ => over(place(window, start, key), framed.what, framed.bytes_max),
        });
    }
}

/// Where a value nests more than `depth_max` levels, if it does.
pub(super) fn first_too_deep(value: &[u8], depth_max: u32) -> Option<usize> {
    // Few values hold that many brackets at all, and counting them is fast.
    let brackets = value.iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
    match Frame::new(0, depth_max).advance(if brackets > depth_max as usize { value } else { &[] }) {
        Found::TooDeep(at) => Some(at),
        _ => None,
    }
}

pub(super) fn over(place: Place, what: &'static str, max: usize) -> IntakeError {
    IntakeError::OverLimit { place, what, max: max as u64 }
}

pub(super) fn too_deep(place: Place) -> IntakeError {
    over(place, "levels of nesting", limits::NESTING_MAX as usize)
}

/// The place of an offset, with the id whose JSON lies at `key`.
pub(super) fn place<R: Read>(window: &Window<R>, offset: usize, key: &Range<usize>) -> Place {
    let mut place = window.place(offset);
    place.id = parse::<Box<str>>(&window.bytes()[key.clone()]).ok();
    place
}

/// Why some bytes are not the JSON that was expected.
#[derive(Debug)]
pub(super) struct JsonError {
    offset: usize,
    reason: String,
    /// Whether more bytes could mend it.
    pub(super) at_end: bool,
}

impl JsonError {
    /// As an error of the file, for a slice that starts at an offset of the window.
    pub(super) fn malformed<R: Read>(self, window: &Window<R>, start: usize, key: &Range<usize>) -> IntakeError {
        IntakeError::Malformed { place: place(window, start + self.offset, key), reason: self.reason }
    }

    /// The same where the slice ends with the file.
    pub(super) fn truncated<R: Read>(self, window: &Window<R>, start: usize, key: &Range<usize>) -> IntakeError {
        IntakeError::Truncated { place: place(window, start + self.offset, key), reason: self.reason }
    }
}

/// Parses a whole slice, borrowing from it.
pub(super) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, JsonError> {
    match str::from_utf8(bytes) {
        Ok(text) => serde_json::from_str(text).map_err(|error| read_error(bytes, &error)),
        Err(error) => {
            let (sound, _) = bytes.split_at(error.valid_up_to());
            // What is wrong before the bad bytes is said first.
            match parse::<T>(sound) {
                Err(before) if !before.at_end => Err(before),
                _ => Err(JsonError {
                    offset: sound.len(),
                    reason: "not UTF-8".into(),
                    at_end: error.error_len().is_none(),
                }),
            }
        }
    }
}

/// `serde_json` counts lines and columns from the start of the slice; here they become an offset, and the text loses them.
fn read_error(bytes: &[u8], error: &serde_json::Error) -> JsonError {
    let (line, column) = (error.line(), error.column());
    let line_start: usize =
        bytes.split_inclusive(|&byte| byte == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    let mut reason = error.to_string();
    if let Some(cut) = reason.rfind(&format!(" at line {line} column {column}")) {
        reason.truncate(cut);
    }
    let at_end = error.is_eof();
    let offset = if at_end { bytes.len() } else { (line_start + column.saturating_sub(1)).min(bytes.len()) };
    JsonError { offset, reason: clipped(reason), at_end }
}
