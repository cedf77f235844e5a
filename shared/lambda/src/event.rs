//! What a function is asked, told by the shape of the event: one binary may be invoked by several sources.

use serde_json::Value;

/// An event, as it came, by its source.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A request to an HTTP API (payload version 2.0) or a function URL, which have the same shape.
    Http(Value),
    /// Messages of an SQS queue.
    Sqs(Value),
    /// Changes of the table.
    Stream(Value),
    /// It is time.
    Schedule(Value),
    /// Anything else.
    Other(Value),
}

/// A function was invoked by a source that it does not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this function does not serve {kind}; its triggers are not those that infra/terraform gives it")]
pub struct Unexpected {
    /// The kind of event.
    pub kind: &'static str,
}

impl Event {
    /// Tells an event by its shape.
    pub fn of(event: Value) -> Self {
        let record = |name: &str| event.pointer(&format!("/Records/0/{name}")).and_then(Value::as_str);
        match record("eventSource") {
            Some("aws:sqs") => return Self::Sqs(event),
            Some("aws:dynamodb") => return Self::Stream(event),
            _ => {}
        }
        if event.pointer("/requestContext/http/method").is_some() {
            return Self::Http(event);
        }
        let source = event.get("source").and_then(Value::as_str);
        match source {
            Some("aws.events" | "aws.scheduler") => Self::Schedule(event),
            _ => Self::Other(event),
        }
    }

    /// The word for its kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Http(_) => "HTTP requests",
            Self::Sqs(_) => "messages of SQS",
            Self::Stream(_) => "changes of a table",
            Self::Schedule(_) => "schedules",
            Self::Other(_) => "events of this shape",
        }
    }

    /// The error for a source that the function does not serve.
    pub const fn unexpected(&self) -> Unexpected {
        Unexpected { kind: self.kind() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_shape_tells() {
        let http = json!({"version": "2.0", "rawPath": "/", "requestContext": {"http": {"method": "GET"}}});
        assert!(matches!(Event::of(http), Event::Http(_)));
        assert!(matches!(Event::of(json!({"Records": [{"eventSource": "aws:sqs"}]})), Event::Sqs(_)));
        assert!(matches!(Event::of(json!({"Records": [{"eventSource": "aws:dynamodb"}]})), Event::Stream(_)));
        let schedule = json!({"source": "aws.events", "detail-type": "Scheduled Event"});
        assert!(matches!(Event::of(schedule), Event::Schedule(_)));
        assert!(matches!(Event::of(json!({"source": "aws.scheduler"})), Event::Schedule(_)));
        for other in [json!({}), json!([]), json!(null), json!({"Records": []}), json!({"source": "mine"})] {
            let event = Event::of(other);
            assert!(matches!(event, Event::Other(_)));
            assert!(event.unexpected().to_string().contains("events of this shape"));
        }
    }
}
