//! The part of a file that is in memory: enough for one command, wherever the reads happened to break.

use std::io::Read;

use super::{IntakeError, compression::Inflated, error::Place, limits};

const BOM: &[u8] = "\u{feff}".as_bytes();

/// Bytes of a file from the first one not yet consumed. Offsets in this module's methods count from there.
pub(super) struct Window<R: Read> {
    source: Inflated<R>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    at_end: bool,
    /// Line breaks before `buffer[0]`.
    lines: u64,
    /// Bytes between the last line break and `buffer[0]`.
    column: u64,
}

impl<R: Read> Window<R> {
    pub(super) fn new(source: Inflated<R>) -> Self {
        Self { source, buffer: Vec::new(), start: 0, end: 0, at_end: false, lines: 0, column: 0 }
    }

    /// The bytes in memory.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Bytes of the file read so far.
    pub(super) fn file_bytes(&self) -> u64 {
        self.source.inflated_bytes()
    }

    /// Whether the last byte of the file is in memory or consumed.
    pub(super) fn at_end(&self) -> bool {
        self.at_end
    }

    /// Drops bytes from the front.
    pub(super) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Reads more; false at the end of the file. Callers bound how much they let gather.
    pub(super) fn more(&mut self) -> Result<bool, IntakeError> {
        self.drop_consumed();
        if self.end == self.buffer.len() {
            self.buffer.resize((self.buffer.len() * 2).max(limits::WINDOW_BYTES), 0);
        }
        if !self.at_end {
            let read = self.source.read(&mut self.buffer[self.end..]).map_err(IntakeError::from_io)?;
            self.end += read;
            self.at_end = read == 0;
        }
        Ok(!self.at_end)
    }

    fn drop_consumed(&mut self) {
        if self.start == 0 {
            return;
        }
        (self.lines, self.column) = self.count(self.start);
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
    }

    /// Line breaks, and bytes since the last one, before `buffer[index]`.
    fn count(&self, index: usize) -> (u64, u64) {
        let before = &self.buffer[..index];
        let breaks = before.iter().filter(|&&byte| byte == b'\n').count() as u64;
        match before.iter().rposition(|&byte| byte == b'\n') {
            Some(last) => (self.lines + breaks, (index - last - 1) as u64),
            None => (self.lines, self.column + index as u64),
        }
    }

    /// The place of the byte at an offset (or of the end).
    pub(super) fn place(&self, offset: usize) -> Place {
        let (lines, column) = self.count((self.start + offset).min(self.end));
        Place { line: lines + 1, column: column + 1, id: None }
    }

    /// The byte at an offset, read if need be; none past the end.
    pub(super) fn byte(&mut self, offset: usize) -> Result<Option<u8>, IntakeError> {
        while self.end - self.start <= offset {
            if !self.more()? {
                return Ok(None);
            }
        }
        Ok(Some(self.buffer[self.start + offset]))
    }

    /// Skips a byte order mark. For the start of a file.
    ///
    /// # Errors
    /// [`IntakeError::Empty`] if there is nothing in the file, or nothing else.
    pub(super) fn open(&mut self) -> Result<(), IntakeError> {
        self.byte(BOM.len())?;
        if self.bytes().starts_with(BOM) {
            // Not consumed but taken out, as it has no width: columns are those that an editor shows.
            self.buffer.copy_within(BOM.len()..self.end, 0);
            self.end -= BOM.len();
        }
        if self.byte(0)?.is_none() { Err(IntakeError::Empty) } else { Ok(()) }
    }

    /// Drops JSON's whitespace from the front and gives the byte after it.
    pub(super) fn skip_space(&mut self) -> Result<Option<u8>, IntakeError> {
        loop {
            let space = self.bytes().iter().take_while(|byte| is_space(**byte)).count();
            self.consume(space);
            if self.start < self.end {
                return Ok(Some(self.buffer[self.start]));
            }
            if !self.more()? {
                return Ok(None);
            }
        }
    }

    /// The offset after whitespace at an offset, and the byte there.
    pub(super) fn space_from(&mut self, mut offset: usize) -> Result<(usize, Option<u8>), IntakeError> {
        loop {
            match self.byte(offset)? {
                Some(byte) if is_space(byte) && offset <= limits::COMMAND_BYTES_MAX => offset += 1,
                other => return Ok((offset, other)),
            }
        }
    }
}

/// JSON's whitespace.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}
