//! CSV: a header, then a command per row, each cell a string in its payload.
//!
//! The rows are split here and not by a CSV library for what a dropped file needs and libraries leave open: a row of
//! bounded size, its exact line, and a quote that is never closed told as a file cut short. What is accepted is RFC 4180,
//! with rows ended by CRLF, LF or CR, blank lines skipped, and quotes inside an unquoted cell taken as they are.

use std::{collections::HashSet, io::Read, mem};

use super::{
    IntakeError,
    error::clipped,
    json::over,
    limits,
    reader::{Found, Id},
    window::Window,
};

/// How far a CSV file is read, and its current command. Buffers are kept from row to row.
#[derive(Debug, Default)]
pub(super) struct Rows {
    columns: Vec<Column>,
    cells: Vec<Cell>,
    /// Of the current row, from 1; the header does not count.
    number: u64,
    /// Empty if the row has none.
    id: String,
    /// Empty if the row has none.
    function: String,
    payload: Vec<u8>,
}

#[derive(Debug)]
enum Column {
    Id,
    Function,
    /// In the payload, under this JSON text.
    Argument(Vec<u8>),
}

/// Where a cell lies in the window, without its quotes.
#[derive(Debug, Clone, Copy)]
struct Cell {
    start: usize,
    end: usize,
    /// Whether it holds doubled quotes.
    doubled: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Within {
    Start,
    Bare,
    Quoted,
    Closed,
}

impl Rows {
    /// Reads the next row; gives the offset of its end, or none after the last.
    pub(super) fn advance<R: Read>(&mut self, window: &mut Window<R>) -> Result<Option<usize>, IntakeError> {
        if self.columns.is_empty() {
            let Some(end) = self.row(window)? else { return Err(IntakeError::Empty) };
            self.columns = self.header(window, end)?;
            window.consume(end);
        }
        let Some(end) = self.row(window)? else { return Ok(None) };
        self.number += 1;
        let (cells, columns) = (self.cells.len(), self.columns.len());
        if cells != columns {
            let (place, reason) = (window.place(0), format!("the row has {cells} cells and the header {columns}"));
            let cut = cells < columns && window.at_end() && end == window.bytes().len();
            return Err(if cut {
                IntakeError::Truncated { place, reason }
            } else {
                IntakeError::Malformed { place, reason }
            });
        }
        self.fill(text(window, end)?);
        if self.payload.len() > limits::COMMAND_BYTES_MAX {
            return Err(over(window.place(0), "bytes of a payload", limits::COMMAND_BYTES_MAX));
        }
        Ok(Some(end))
    }

    /// The command that [`advance`](Self::advance) read.
    pub(super) fn found(&self) -> Found<'_> {
        let id = if self.id.is_empty() { Id::Numbered(self.number) } else { Id::Given(self.id.as_str().into()) };
        let function = (!self.function.is_empty()).then_some(self.function.as_str().into());
        Found { id, function, payload: &self.payload, offset: 0 }
    }

    fn header<R: Read>(&self, window: &Window<R>, end: usize) -> Result<Vec<Column>, IntakeError> {
        let row = text(window, end)?;
        let mut seen = HashSet::new();
        let column = |cell: &Cell| {
            let name = cell.text(row);
            if !seen.insert(name.clone()) {
                let reason = clipped(format!("two columns are named {name:?}"));
                return Err(IntakeError::Malformed { place: window.place(cell.start), reason });
            }
            Ok(match name.as_str() {
                "id" => Column::Id,
                "type" => Column::Function,
                _ => {
                    let mut key = Vec::new();
                    write_string(&mut key, &name);
                    key.push(b':');
                    Column::Argument(key)
                }
            })
        };
        self.cells.iter().map(column).collect()
    }

    /// Makes the id, function and payload of a row.
    fn fill(&mut self, row: &str) {
        self.id.clear();
        self.function.clear();
        self.payload.clear();
        self.payload.push(b'{');
        for (column, cell) in self.columns.iter().zip(&self.cells) {
            match column {
                Column::Id => self.id.push_str(&cell.text(row)),
                Column::Function => self.function.push_str(&cell.text(row)),
                Column::Argument(key) => {
                    if self.payload.len() > 1 {
                        self.payload.push(b',');
                    }
                    self.payload.extend_from_slice(key);
                    match cell.doubled {
                        true => write_string(&mut self.payload, &cell.text(row)),
                        false => write_string(&mut self.payload, &row[cell.start..cell.end]),
                    }
                }
            }
        }
        self.payload.push(b'}');
    }

    /// Skips line breaks and splits the row after them into cells; gives the offset of its end, before its line break.
    fn row<R: Read>(&mut self, window: &mut Window<R>) -> Result<Option<usize>, IntakeError> {
        while let Some(b'\r' | b'\n') = window.byte(0)? {
            window.consume(1);
        }
        if window.byte(0)?.is_none() {
            return Ok(None);
        }
        self.cells.clear();
        let (mut within, mut start, mut doubled, mut at) = (Within::Start, 0, false, 0);
        loop {
            while let Some(&byte) = window.bytes().get(at) {
                within = match (within, byte) {
                    (Within::Quoted, b'"') => Within::Closed,
                    (Within::Quoted, _) => Within::Quoted,
                    (Within::Start, b'"') => Within::Quoted,
                    (Within::Closed, b'"') => {
                        doubled = true;
                        Within::Quoted
                    }
                    (_, b',' | b'\r' | b'\n') => {
                        let cell = Cell::new(start, at, within, mem::take(&mut doubled));
                        self.push(cell, window)?;
                        if byte != b',' {
                            return self.end(at, window);
                        }
                        start = at + 1;
                        Within::Start
                    }
                    (Within::Closed, _) => {
                        let reason = "expected `,` or the end of the row after a closing quote".into();
                        return Err(IntakeError::Malformed { place: window.place(at), reason });
                    }
                    (Within::Start | Within::Bare, _) => Within::Bare,
                };
                at += 1;
            }
            self.end(at, window)?;
            if !window.more()? {
                break;
            }
        }
        if within == Within::Quoted {
            let reason = "expected a closing quote for this cell".into();
            return Err(IntakeError::Truncated { place: window.place(start), reason });
        }
        self.push(Cell::new(start, at, within, doubled), window)?;
        self.end(at, window)
    }

    fn push<R: Read>(&mut self, cell: Cell, window: &Window<R>) -> Result<(), IntakeError> {
        if self.cells.len() == limits::COLUMNS_MAX {
            return Err(over(window.place(0), "columns", limits::COLUMNS_MAX));
        }
        self.cells.push(cell);
        Ok(())
    }

    fn end<R: Read>(&self, end: usize, window: &Window<R>) -> Result<Option<usize>, IntakeError> {
        match end > limits::COMMAND_BYTES_MAX {
            true => Err(over(window.place(0), "bytes of a row", limits::COMMAND_BYTES_MAX)),
            false => Ok(Some(end)),
        }
    }
}

impl Cell {
    fn new(start: usize, end: usize, within: Within, doubled: bool) -> Self {
        let quote = usize::from(within == Within::Closed);
        Self { start: start + quote, end: end - quote, doubled }
    }

    fn text(&self, row: &str) -> String {
        let cell = &row[self.start..self.end];
        if self.doubled { cell.replace("\"\"", "\"") } else { cell.into() }
    }
}

fn text<R: Read>(window: &Window<R>, end: usize) -> Result<&str, IntakeError> {
    str::from_utf8(&window.bytes()[..end]).map_err(|error| IntakeError::Malformed {
        place: window.place(error.valid_up_to()),
        reason: "not UTF-8".into(),
    })
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("memory takes any string");
}
