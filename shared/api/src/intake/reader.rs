//! Commands out of a file of any format, one at a time.

use std::{borrow::Cow, io::Read, mem};

use super::{
    Format, IntakeError, Shape, commands::CommandFile, compression::inflate, csv::Rows, duplicates::Seen, json::over,
    limits, ndjson::Lines, window::Window,
};

/// One thing to run. Borrows from the reader that gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command<'a> {
    /// What the file calls it: unique in the file, at most [`limits::ID_BYTES_MAX`] bytes, of any characters, maybe empty.
    pub id: Cow<'a, str>,
    /// The function to run, as the file or the caller names it. Nobody has looked whether there is one.
    pub function: &'a str,
    /// The function's position in [`Scan::functions`].
    pub function_index: usize,
    /// The arguments: a JSON text as the file has it, of at most [`limits::COMMAND_BYTES_MAX`] bytes.
    pub payload: &'a [u8],
}

/// What the first pass over a file learnt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scan {
    /// Commands.
    pub commands: u64,
    /// Names of functions, in order of first use; at most [`limits::FUNCTIONS_MAX`].
    pub functions: Vec<String>,
    /// Bytes, decompressed.
    pub bytes: u64,
}

/// What a format's own reader found; `offset` is where in the window it starts.
pub(super) struct Found<'a> {
    pub(super) id: Id<'a>,
    pub(super) function: Option<Cow<'a, str>>,
    pub(super) payload: &'a [u8],
    pub(super) offset: usize,
}

/// An id from the file, or the number of a row or line.
pub(super) enum Id<'a> {
    Given(Cow<'a, str>),
    Numbered(u64),
}

enum Reading {
    CommandFile(CommandFile),
    Ndjson(Lines),
    Csv(Rows),
}

/// Reads the commands of a file in their order.
///
/// Memory is bounded whatever the file holds: a window of [`limits::WINDOW_BYTES`], which one large command makes grow to
/// at most twice [`limits::COMMAND_BYTES_MAX`]; the decoder's own window; and 19 to 39 bytes per id the file gives (none
/// in a [second pass](Self::second_pass)).
pub struct CommandReader<R: Read> {
    window: Window<R>,
    reading: Reading,
    default_function: Option<String>,
    functions: Vec<String>,
    seen: Option<Seen>,
    expected: Option<Scan>,
    commands: u64,
    commands_max: u64,
    /// Bytes of the window that the last command took.
    taken: usize,
    opened: bool,
    ended: bool,
}

impl<R: Read> CommandReader<R> {
    /// Starts a file. `default_function` runs the commands that name none; in NDJSON it also makes lines mere payloads.
    ///
    /// # Errors
    /// [`IntakeError::Pack`] for packs, and [`IntakeError::Io`] if a decoder cannot be made. Nothing is said of the
    /// contents yet.
    pub fn new(source: R, format: Format, default_function: Option<&str>) -> Result<Self, IntakeError> {
        let reading = match format.shape {
            Shape::CommandFile => Reading::CommandFile(CommandFile::default()),
            Shape::Ndjson => Reading::Ndjson(Lines::default()),
            Shape::Csv => Reading::Csv(Rows::default()),
            Shape::Pack => return Err(IntakeError::Pack),
        };
        Ok(Self {
            window: Window::new(inflate(source, format.compression)?),
            reading,
            default_function: default_function.map(Into::into),
            functions: Vec::new(),
            seen: Some(Seen::new()),
            expected: None,
            commands: 0,
            commands_max: limits::COMMANDS_MAX,
            taken: 0,
            opened: false,
            ended: false,
        })
    }

    /// For the second pass over a file: does not look for duplicates again, but demands that the file is what it was, and
    /// fails with [`IntakeError::Changed`] at its end (or at a function that is new) if not.
    pub fn second_pass(mut self, scan: &Scan) -> Self {
        self.seen = None;
        self.expected = Some(scan.clone());
        self
    }

    /// What was learnt so far; of the whole file once [`next_command`](Self::next_command) has answered none.
    pub fn scanned(&self) -> Scan {
        Scan { commands: self.commands, functions: self.functions.clone(), bytes: self.window.file_bytes() }
    }

    /// The next command, or none at the end of the file. After an error there is no more to read: none from then on.
    ///
    /// # Errors
    /// Everything that can be wrong with a file; see [`IntakeError`].
    pub fn next_command(&mut self) -> Result<Option<Command<'_>>, IntakeError> {
        // Until this command is whole, so that an error is the end.
        if mem::replace(&mut self.ended, true) {
            return Ok(None);
        }
        if !mem::replace(&mut self.opened, true) {
            self.window.open()?;
        }
        self.window.consume(mem::take(&mut self.taken));
        let taken = match &mut self.reading {
            Reading::CommandFile(file) => file.advance(&mut self.window)?,
            Reading::Ndjson(lines) => lines.advance(&mut self.window)?,
            Reading::Csv(rows) => rows.advance(&mut self.window)?,
        };
        let Some(taken) = taken else {
            return self.check_unchanged().map(|()| None);
        };
        self.taken = taken;
        let window = &self.window;
        let Found { id, function, payload, offset } = match &self.reading {
            Reading::CommandFile(file) => file.found(window)?,
            Reading::Ndjson(lines) => lines.found(window, self.default_function.is_some())?,
            Reading::Csv(rows) => rows.found(),
        };
        let refuse = |what, max| Err(over(window.place(offset), what, max));
        let is_new = self.seen.as_mut().is_none_or(|seen| seen.insert(&id));
        let id = match id {
            Id::Given(id) if id.len() > limits::ID_BYTES_MAX => return refuse("bytes of an id", limits::ID_BYTES_MAX),
            Id::Given(id) => id,
            Id::Numbered(number) => number.to_string().into(),
        };
        let place = || {
            let mut place = window.place(offset);
            place.id = Some(id.as_ref().into());
            place
        };
        if !is_new {
            return Err(IntakeError::DuplicateId { place: place() });
        }
        let Some(function) = function.as_deref().or(self.default_function.as_deref()) else {
            return Err(IntakeError::NoFunction { place: place() });
        };
        if function.len() > limits::FUNCTION_BYTES_MAX {
            return refuse("bytes of a function's name", limits::FUNCTION_BYTES_MAX);
        }
        if self.commands == self.commands_max {
            return refuse("commands in one file", self.commands_max as usize);
        }
        let function_index = match self.functions.iter().position(|known| known == function) {
            Some(index) => index,
            None if self.functions.len() == limits::FUNCTIONS_MAX => {
                return refuse("functions named by one file", limits::FUNCTIONS_MAX);
            }
            None => {
                let known = self.expected.as_ref().map(|scan| scan.functions.get(self.functions.len()));
                if known.is_some_and(|known| known.is_none_or(|known| known != function)) {
                    return self.check_unchanged().map(|()| None);
                }
                self.functions.push(function.into());
                self.functions.len() - 1
            }
        };
        self.commands += 1;
        self.ended = false;
        Ok(Some(Command { id, function: &self.functions[function_index], function_index, payload }))
    }

    fn check_unchanged(&self) -> Result<(), IntakeError> {
        let Some(was) = &self.expected else { return Ok(()) };
        let is = self.scanned();
        if *was == is {
            return Ok(());
        }
        let counts = |scan: &Scan| format!("{} commands in {} bytes", scan.commands, scan.bytes);
        Err(IntakeError::Changed { was: counts(was), is: counts(&is) })
    }
}

/// First pass: checks a whole file, gives no commands, and tells how many there are and of which functions.
///
/// # Errors
/// Everything that can be wrong with a file; see [`IntakeError`].
pub fn scan(source: impl Read, format: Format, default_function: Option<&str>) -> Result<Scan, IntakeError> {
    let mut reader = CommandReader::new(source, format, default_function)?;
    while reader.next_command()?.is_some() {}
    Ok(reader.scanned())
}

/// Feeds a file's commands, in their order, to a sink, and gives what a scan would have. With the scan of a first pass as
/// `scanned` this is the [second pass](CommandReader::second_pass).
///
/// # Errors
/// Those of [`scan`], [`IntakeError::Changed`], and the sink's own, at the first of which it stops. Commands before the
/// one at fault were given to the sink.
pub fn read<E: From<IntakeError>>(
    source: impl Read,
    format: Format,
    default_function: Option<&str>,
    scanned: Option<&Scan>,
    mut sink: impl FnMut(Command<'_>) -> Result<(), E>,
) -> Result<Scan, E> {
    let mut reader = CommandReader::new(source, format, default_function)?;
    if let Some(scan) = scanned {
        reader = reader.second_pass(scan);
    }
    while let Some(command) = reader.next_command()? {
        sink(command)?;
    }
    Ok(reader.scanned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::{super::Compression, *};

    #[test]
    fn a_file_of_too_many_commands_is_refused() {
        let format = Format { shape: Shape::Ndjson, compression: Compression::Plain };
        let mut reader = CommandReader::new(&b"1\n2\n3\n"[..], format, Some("f")).unwrap();
        reader.commands_max = 2;
        assert!(reader.next_command().unwrap().is_some());
        assert!(reader.next_command().unwrap().is_some());
        let error = reader.next_command().unwrap_err();
        assert_eq!(error.to_string(), "line 3, column 1: commands in one file over the limit of 2");
        assert!(reader.next_command().unwrap().is_none());
    }
}
