//! Why a dropped file cannot be taken in, said so that its author can mend it.

use std::{fmt, io};

use super::{Compression, format::KNOWN_ENDINGS, limits};

/// Where in a file something was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The line, from 1.
    pub line: u64,
    /// The byte in that line, from 1.
    pub column: u64,
    /// The id of the command being read, if it was known by then.
    pub id: Option<Box<str>>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)?;
        self.id.as_ref().map_or(Ok(()), |id| write!(f, " (command {id:?})"))
    }
}

/// A file that cannot be taken in. Columns count bytes. No command after the one at fault was read.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The name ends in nothing known.
    #[error("{file:?} is of no known format; known endings are {KNOWN_ENDINGS}")]
    UnknownFormat {
        /// The name as given.
        file: String,
    },
    /// A pack was given to a reader of commands.
    #[error("a pack holds packed tasks, not commands")]
    Pack,
    /// There is nothing in the file. (`{}`, a CSV header alone, or blank lines are something: no commands.)
    #[error("the file is empty")]
    Empty,
    /// The file stops before it should: it is half-written, or was cut off.
    #[error("the file ends early, at {place}: {reason}")]
    Truncated {
        /// Its last place.
        place: Place,
        /// What was still expected.
        reason: String,
    },
    /// The compressed stream stops before it should.
    #[error("the {compression} stream ends early")]
    CompressionTruncated {
        /// The wrapping.
        compression: Compression,
    },
    /// The file is not what its format says.
    #[error("{place}: {reason}")]
    Malformed {
        /// Where.
        place: Place,
        /// What was found, or expected.
        reason: String,
    },
    /// An id stands twice in the file.
    #[error("{place}: an earlier command has the same id")]
    DuplicateId {
        /// Where the second one is; it holds the id.
        place: Place,
    },
    /// A command names no function and the caller named none for the file.
    #[error("{place}: no `type`, and no function was named for the whole file")]
    NoFunction {
        /// Where.
        place: Place,
    },
    /// Something in the file is over a limit.
    #[error("{place}: {what} over the limit of {max}")]
    OverLimit {
        /// Where.
        place: Place,
        /// What is too large, with its unit.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// The file unfolds to more bytes than any file may have.
    #[error("the file is over the limit of {max} bytes (decompressed)")]
    FileTooLarge {
        /// The limit.
        max: u64,
    },
    /// The compressed file unfolds to so much that it is taken for a bomb.
    #[error("{compressed_bytes} bytes of {compression} unfold to over {bytes} bytes, more than {ratio_max} to 1")]
    Inflated {
        /// The wrapping.
        compression: Compression,
        /// Bytes in, so far.
        compressed_bytes: u64,
        /// Bytes out, so far.
        bytes: u64,
        /// The limit.
        ratio_max: u64,
    },
    /// The compressed stream is not one, or is damaged.
    #[error("not a valid {compression} stream")]
    Corrupt {
        /// The wrapping.
        compression: Compression,
        /// The decoder's reason.
        #[source]
        source: io::Error,
    },
    /// The second pass over a file did not find what the first one had.
    #[error("the file changed between two passes: {was} became {is}")]
    Changed {
        /// Commands and bytes of the first pass.
        was: String,
        /// Those of the second.
        is: String,
    },
    /// The bytes could not be read. The only error that is not the file's fault, and the one to repeat.
    #[error("the file could not be read")]
    Io(#[source] io::Error),
}

/// A reason that quotes the file, without the middle of it if it is long.
pub(super) fn clipped(mut reason: String) -> String {
    if reason.len() > limits::REASON_BYTES_MAX {
        let head = reason.floor_char_boundary(limits::REASON_BYTES_MAX / 2);
        let tail = reason.ceil_char_boundary(reason.len() - limits::REASON_BYTES_MAX / 2);
        reason.replace_range(head..tail, " … ");
    }
    reason
}

impl IntakeError {
    /// Whether the file may only be unfinished: it ends (or is empty) where more was expected. A watcher of a folder waits
    /// for such a file to stop changing before it gives up.
    pub fn is_truncated(&self) -> bool {
        matches!(self, Self::Empty | Self::Truncated { .. } | Self::CompressionTruncated { .. })
    }

    /// A stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownFormat { .. } => "unknown_format",
            Self::Pack => "not_commands",
            Self::Empty => "empty",
            Self::Truncated { .. } | Self::CompressionTruncated { .. } => "truncated",
            Self::Malformed { .. } => "malformed",
            Self::DuplicateId { .. } => "duplicate_id",
            Self::NoFunction { .. } => "no_function",
            Self::OverLimit { .. } | Self::FileTooLarge { .. } => "over_limit",
            Self::Inflated { .. } => "inflated",
            Self::Corrupt { .. } => "corrupt",
            Self::Changed { .. } => "changed",
            Self::Io(_) => "unreadable",
        }
    }

    /// Where in the file, if at one place.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Truncated { place, .. }
            | Self::Malformed { place, .. }
            | Self::DuplicateId { place }
            | Self::NoFunction { place }
            | Self::OverLimit { place, .. } => Some(place),
            Self::UnknownFormat { .. }
            | Self::Pack
            | Self::Empty
            | Self::CompressionTruncated { .. }
            | Self::FileTooLarge { .. }
            | Self::Inflated { .. }
            | Self::Corrupt { .. }
            | Self::Changed { .. }
            | Self::Io(_) => None,
        }
    }

    /// What the author of the file can do, if that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::UnknownFormat { .. } => Some("rename the file so that its ending says what it holds"),
            Self::Empty | Self::Truncated { .. } | Self::CompressionTruncated { .. } | Self::Changed { .. } => {
                Some("write the file under another name and rename it when it is whole")
            }
            Self::DuplicateId { .. } => Some("give each command of a file its own id"),
            Self::NoFunction { .. } => Some("add a `type` to the command, or name a function for the whole file"),
            Self::OverLimit { .. } | Self::FileTooLarge { .. } => {
                Some("split the file, or pass large inputs by reference")
            }
            Self::Inflated { .. } => Some("upload the file less compressed, or in parts"),
            Self::Corrupt { .. } => Some("compress the file again, or rename it if it is not compressed"),
            Self::Pack | Self::Malformed { .. } | Self::Io(_) => None,
        }
    }

    /// Puts the error into an [`io::Error`], out of which [`IntakeError::from_io`] takes it again.
    pub(super) fn into_io(self) -> io::Error {
        let kind = if self.is_truncated() { io::ErrorKind::UnexpectedEof } else { io::ErrorKind::InvalidData };
        match self {
            Self::Io(error) => error,
            other => io::Error::new(kind, other),
        }
    }

    pub(super) fn from_io(error: io::Error) -> Self {
        error.downcast().unwrap_or_else(Self::Io)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Plain => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}
