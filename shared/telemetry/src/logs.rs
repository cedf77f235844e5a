//! Logs: one line per event on stdout, for CloudWatch.

use std::fmt::{self, Write};

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::{
        FmtContext, FormatEvent, FormatFields, MakeWriter,
        format::{self, JsonFields, Writer},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

/// What is logged, in the words of `tracing_subscriber`'s filters.
const VARIABLE: &str = "SHEAF_LOG";
const FILTER_DEFAULT: &str = "info";
/// The span that carries the id of a Lambda's request is of this level, and is wanted whatever else is.
const REQUEST_SPAN: &str = "lambda_runtime=info";

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON on stdout, for machines.
    Json,
    /// Words on stderr, for a person who runs the program by hand.
    Text,
}

/// Sets up logging for the whole process: what `SHEAF_LOG` says, `info` and above if it says nothing. Lines of JSON carry
/// the labels given (the grid, and the function or worker that speaks), and their spans, of which a Lambda's outermost has
/// the request's id.
///
/// A filter that cannot be read is said and taken for the default. If the process has set up logging already, it stays.
pub fn init(format: Format, labels: &[(&str, &str)]) {
    let wanted = std::env::var(VARIABLE).unwrap_or_default();
    let (filter, refused) = filter(&wanted);
    let set_up = match format {
        Format::Json => tracing_subscriber::registry().with(json(std::io::stdout, labels, filter)).try_init(),
        Format::Text => {
            let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(filter);
            tracing_subscriber::registry().with(layer).try_init()
        }
    };
    if let (Ok(()), Some(refused)) = (set_up, refused) {
        tracing::warn!(%refused, "{VARIABLE} is not a filter, and is not regarded");
    }
}

/// The filter, and what is wrong with the one that was wanted.
fn filter(wanted: &str) -> (EnvFilter, Option<String>) {
    let (filter, refused) = match EnvFilter::try_new(if wanted.is_empty() { FILTER_DEFAULT } else { wanted }) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(FILTER_DEFAULT), Some(error.to_string())),
    };
    (filter.add_directive(REQUEST_SPAN.parse().expect("a directive")), refused)
}

fn json<S, W>(writer: W, labels: &[(&str, &str)], filter: EnvFilter) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let mut head = String::from("{");
    for (name, value) in labels {
        // Writing to a String cannot fail.
        let _ = write!(head, "{}:{},", serde_json::json!(name), serde_json::json!(value));
    }
    let plain = format::format().json().flatten_event(true).with_current_span(false).with_span_list(true);
    let layer = tracing_subscriber::fmt::layer().fmt_fields(JsonFields::new());
    layer.event_format(Labelled { plain, head }).with_writer(writer).with_filter(filter)
}

/// Events as JSON with the same fields before each. Spans would not do: what is spawned is in none.
struct Labelled {
    plain: format::Format<format::Json>,
    head: String,
}

impl<S, N> FormatEvent<S, N> for Labelled
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.plain.format_event(context, Writer::new(&mut line), event)?;
        match line.strip_prefix('{') {
            Some(rest) => write!(writer, "{}{rest}", self.head),
            None => writer.write_str(&line),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use serde_json::Value;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter_text: &str, say: impl FnOnce()) -> Vec<Value> {
        let lines = Lines::default();
        let writer = lines.clone();
        let labels = [("grid", "pr\"od"), ("function", "sweep")];
        let layer = json(move || writer.clone(), &labels, filter(filter_text).0);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), say);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn every_line_says_who_speaks_and_for_which_request() {
        let lines = logged("", || {
            tracing::info_span!(target: "lambda_runtime::layers::trace", "invoke", requestId = "r-1")
                .in_scope(|| tracing::info!(chunks = 3, "swept"));
            tracing::debug!("too fine");
            tracing::warn!("outside");
        });
        let [inside, outside] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!((&inside["grid"], &inside["function"]), (&"pr\"od".into(), &"sweep".into()));
        assert_eq!(
            (&inside["message"], &inside["chunks"], &inside["level"]),
            (&"swept".into(), &3.into(), &"INFO".into())
        );
        assert_eq!(inside["spans"][0]["requestId"], "r-1");
        assert_eq!((&outside["grid"], &outside["level"]), (&"pr\"od".into(), &"WARN".into()));
    }

    #[test]
    fn the_request_is_named_however_little_is_logged() {
        let lines = logged("error", || {
            let span = tracing::info_span!(target: "lambda_runtime::layers::trace", "invoke", requestId = "r-2");
            span.in_scope(|| {
                tracing::info!("not wanted");
                tracing::error!("wanted");
            });
        });
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!((&line["message"], &line["spans"][0]["requestId"]), (&"wanted".into(), &"r-2".into()));
    }

    #[test]
    fn a_filter_that_is_none_is_said() {
        assert!(filter("info,=,").1.is_some());
        assert!(filter("sheaf_aws=debug,info").1.is_none() && filter("").1.is_none());
    }
}
