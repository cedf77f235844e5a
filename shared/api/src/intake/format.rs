//! What a dropped file is, told by its name alone, before a byte of it is read.

use super::IntakeError;

/// How a file's bytes say what to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// `.json`: one object of `id → {"type": …, "arguments": …}`.
    CommandFile,
    /// `.ndjson` or `.jsonl`: a command, or a bare payload, per line.
    Ndjson,
    /// `.csv`: a header, then a command per row.
    Csv,
    /// `.pack`: tasks already packed. Only [`inflate`](super::inflate) applies here; its reader is elsewhere.
    Pack,
}

/// What a file is wrapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Nothing.
    #[default]
    Plain,
    /// `.gz`: gzip, of any number of members.
    Gzip,
    /// `.zst`: zstd, of any number of frames.
    Zstd,
}

/// A file's shape and wrapping.
///
/// ```
/// # use sheaf_api::intake::{Compression, Format, Shape, stem};
/// let format = Format::of("inbox/night/primes.ndjson.gz").unwrap();
/// assert_eq!(format, Format { shape: Shape::Ndjson, compression: Compression::Gzip });
/// assert_eq!(stem("inbox/night/primes.ndjson.gz"), "primes");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Format {
    /// The shape.
    pub shape: Shape,
    /// The wrapping.
    pub compression: Compression,
}

/// The endings that [`Format::of`] knows, for messages.
pub(super) const KNOWN_ENDINGS: &str = ".json, .ndjson, .jsonl, .csv, .pack, each also with .gz or .zst";

const SHAPES: [(&str, Shape); 5] = [
    (".json", Shape::CommandFile),
    (".ndjson", Shape::Ndjson),
    (".jsonl", Shape::Ndjson),
    (".csv", Shape::Csv),
    (".pack", Shape::Pack),
];
const COMPRESSIONS: [(&str, Compression); 2] = [(".gz", Compression::Gzip), (".zst", Compression::Zstd)];

impl Format {
    /// The format of the file with this name or path (folders end in `/`). Endings count in any case.
    ///
    /// # Errors
    /// [`IntakeError::UnknownFormat`] if the ending is none of the known ones, or nothing stands before it.
    pub fn of(file: &str) -> Result<Self, IntakeError> {
        split(file).map(|(_, format)| format).ok_or_else(|| IntakeError::UnknownFormat { file: file.into() })
    }
}

/// The name that a file's results go under: without folders and known endings. A name of no known format stays whole, so
/// that the error report of `a.txt` is not taken for that of `a.json`.
pub fn stem(file: &str) -> &str {
    split(file).map_or_else(|| base(file), |(stem, _)| stem)
}

fn base(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}

fn split(file: &str) -> Option<(&str, Format)> {
    let name = base(file);
    let (name, compression) = strip(name, &COMPRESSIONS).unwrap_or((name, Compression::Plain));
    let (stem, shape) = strip(name, &SHAPES)?;
    (!stem.is_empty()).then_some((stem, Format { shape, compression }))
}

fn strip<'a, T: Copy>(name: &'a str, endings: &[(&str, T)]) -> Option<(&'a str, T)> {
    endings.iter().find_map(|&(ending, meaning)| {
        let (rest, tail) = name.split_at_checked(name.len().checked_sub(ending.len())?)?;
        tail.eq_ignore_ascii_case(ending).then_some((rest, meaning))
    })
}
