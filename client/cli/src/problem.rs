//! What went wrong, as it is shown: a code, what happened to which object, and what to type next.

use std::{error::Error, fmt, io, path::Path};

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use sheaf_api::{ApiError, Code, FormatError};

use crate::exit::Exit;

/// What commands give.
pub(crate) type Outcome<T = Exit> = Result<T, Problem>;

type Source = Box<dyn Error + Send + Sync>;

/// Why a command could not do what was asked.
#[derive(Debug)]
pub(crate) struct Problem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    code: &'static str,
    message: String,
    hint: Option<String>,
    source: Option<Source>,
    place: Option<(NamedSource<String>, LabeledSpan)>,
    exit: Exit,
}

impl Problem {
    /// With a code of `docs/errors.md`.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        let (hint, source, place) = Default::default();
        Self(Box::new(Inner { code: code.as_str(), message: message.into(), hint, source, place, exit: Exit::Failed }))
    }

    /// The arguments make no sense together.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        let mut problem = Self::new(Code::Invalid, message);
        problem.0.code = "usage";
        problem.0.exit = Exit::Usage;
        problem
    }

    /// A file that the user gave cannot be read or written.
    pub(crate) fn file(doing: &str, path: &Path, source: io::Error) -> Self {
        let mut problem = Self::new(Code::Invalid, format!("{} cannot be {doing}", path.display()));
        problem.0.code = "file";
        problem.with_source(source)
    }

    /// The same, with a code of the CLI's own.
    pub(crate) fn with_code(mut self, code: &'static str) -> Self {
        self.0.code = code;
        self
    }

    /// The same, with what to do next.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The same, with what lies behind it.
    pub(crate) fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same, with what lies behind an error whose own message this has.
    fn with_cause_of(self, error: sheaf::GridError) -> Self {
        match error.source() {
            Some(source) => {
                let source = source.to_string();
                self.with_source(source)
            }
            None => self,
        }
    }

    /// The same, pointing at a place in a file.
    pub(crate) fn at(mut self, file: &Path, text: &str, span: std::ops::Range<usize>, label: &str) -> Self {
        let label = LabeledSpan::new_primary_with_span(Some(label.to_owned()), span);
        self.0.place = Some((NamedSource::new(file.display().to_string(), text.to_owned()), label));
        self
    }

    /// How the command ends with it.
    pub(crate) const fn exit(&self) -> Exit {
        self.0.exit
    }

    /// Whether nobody reads our stdout any more, which is no failure: `sheaf job list | head`.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        let source = self.0.source.as_ref().and_then(|source| source.downcast_ref::<io::Error>());
        source.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Prints it to stderr.
    pub(crate) fn report(&self, colour: bool, debug: bool) {
        let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_links(false).with_width(120).with_context_lines(1);
        let mut text = String::new();
        if handler.render_report(&mut text, self).is_err() {
            text = format!("{self}\n");
        }
        eprintln!("{}", text.trim_end());
        if debug {
            let mut source = self.source();
            while let Some(error) = source {
                eprintln!("  {error:?}");
                source = error.source();
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl Error for Problem {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl Diagnostic for Problem {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(format!("sheaf::{}", self.0.code)))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.0.hint.as_ref().map(|hint| Box::new(hint) as _)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.0.place.as_ref().map(|(source, _)| source as _)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let (_, label) = self.0.place.as_ref()?;
        Some(Box::new(std::iter::once(label.clone())))
    }
}

/// What to type next, where a grid can only say what a program should send.
const fn hint(code: Code) -> Option<&'static str> {
    match code {
        Code::Unauthorized => Some(
            "set SHEAF_TOKEN_FILE to the token file that `sheaf up` named when it started, or SHEAF_TOKEN to its text",
        ),
        _ => None,
    }
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        let mut problem = Self::new(error.code, error.message);
        problem.0.hint = hint(error.code).map(ToOwned::to_owned).or(error.hint);
        problem
    }
}

impl From<sheaf::GridError> for Problem {
    fn from(error: sheaf::GridError) -> Self {
        let mut problem = Self::new(error.code(), error.to_string());
        problem.0.hint = hint(error.code()).or(error.hint()).map(ToOwned::to_owned);
        match &error {
            sheaf::GridError::Call(_) => problem,
            sheaf::GridError::Open { in_use: true, .. } => {
                problem.with_code("in_use").with_hint("wait for it to end; `sheaf up` serves several commands at once")
            }
            sheaf::GridError::Settings(_) => {
                problem.0.exit = Exit::Usage;
                problem.with_code("config").with_cause_of(error)
            }
            _ => problem.with_cause_of(error),
        }
    }
}

impl From<FormatError> for Problem {
    fn from(error: FormatError) -> Self {
        ApiError::from(error).into()
    }
}

impl From<sheaf_charts::ChartError> for Problem {
    fn from(error: sheaf_charts::ChartError) -> Self {
        Self::new(Code::Internal, error.to_string()).with_source(error.source)
    }
}

/// What could not be written to stdout or stderr.
impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::new(Code::Internal, "the output cannot be written").with_code("output").with_source(error)
    }
}
