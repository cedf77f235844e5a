//! What goes to stdout: the same rows as a table for people, as JSON for programs, or as ids for the next command.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::problem::{Outcome, Problem};

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people; may change from version to version.
    #[default]
    Table,
    /// One JSON value: an array for lists, an object for one thing. Keys are only ever added.
    Json,
    /// One JSON object a line, as soon as it is known.
    Ndjson,
    /// Ids only, a line each.
    Id,
}

impl Format {
    /// Whether people are the readers.
    pub(crate) const fn is_table(self) -> bool {
        matches!(self, Self::Table)
    }
}

/// How a kind of row is shown.
pub(crate) trait Row: Serialize {
    /// The columns of its table. Those that start with `>` are aligned to the right.
    const COLUMNS: &'static [&'static str];

    /// What `-o id` prints.
    fn id(&self) -> String;

    /// The cells, one per column.
    fn cells(&self) -> Vec<String>;
}

/// Prints rows as they are asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer(pub(crate) Format);

impl Printer {
    /// Prints a list.
    pub(crate) fn list<R: Row>(self, rows: &[R]) -> Outcome<()> {
        let mut out = io::stdout().lock();
        match self.0 {
            Format::Table if rows.is_empty() => {}
            Format::Table => writeln!(out, "{}", table(rows))?,
            Format::Json => writeln!(out, "{}", json(&rows, true)?)?,
            Format::Ndjson => {
                rows.iter().try_for_each(|row| Ok::<_, Problem>(writeln!(out, "{}", json(row, false)?)?))?
            }
            Format::Id => rows.iter().try_for_each(|row| writeln!(out, "{}", row.id()))?,
        }
        Ok(out.flush()?)
    }

    /// Prints one thing: as the text that `text` makes, for people.
    pub(crate) fn one<T: Serialize>(self, value: &T, id: &str, text: impl FnOnce() -> String) -> Outcome<()> {
        let mut out = io::stdout().lock();
        match self.0 {
            Format::Table => writeln!(out, "{}", text().trim_end())?,
            Format::Json => writeln!(out, "{}", json(value, true)?)?,
            Format::Ndjson => writeln!(out, "{}", json(value, false)?)?,
            Format::Id => writeln!(out, "{id}")?,
        }
        Ok(out.flush()?)
    }
}

fn json<T: Serialize>(value: &T, pretty: bool) -> Outcome<String> {
    let text = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    Ok(text.map_err(io::Error::from)?)
}

/// Rows as a table.
pub(crate) fn table<R: Row>(rows: &[R]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(R::COLUMNS.iter().map(|column| column.trim_start_matches('>')));
    for row in rows {
        table.add_row(row.cells());
    }
    for (column, name) in table.column_iter_mut().zip(R::COLUMNS) {
        column.set_padding((0, 2));
        if name.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// A block of `name  value` lines, names padded to the same width. Lines without a value are left out.
pub(crate) fn facts(lines: &[(&str, String)]) -> String {
    let lines = lines.iter().filter(|(_, value)| !value.is_empty());
    let width = lines.clone().map(|(name, _)| name.len()).max().unwrap_or_default();
    lines.map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}
