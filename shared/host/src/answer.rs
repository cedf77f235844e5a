//! What counts as an answer: results in the form a manifest declares, errors in the shape Lambda functions report them.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;
use sheaf_api::SegmentBuilder;
use sheaf_core::{Failure, FailureKind, Manifest, ResultForm};

/// Adds a result to a report, or says why it is none: too large, or not of its form. An empty result of a JSON function
/// is kept as `null`, as functions without a result answer.
pub(crate) fn keep(
    manifest: &Manifest,
    answers: &mut SegmentBuilder,
    task: u32,
    result: &[u8],
    run_us: u32,
) -> Result<(), Failure> {
    let result = if result.is_empty() && manifest.result == ResultForm::Json { b"null" } else { result };
    if result.len() as u64 > manifest.output_bytes_max {
        return Err(too_large(Some(result.len() as u64), manifest.output_bytes_max));
    }
    check_form(manifest.result, result)?;
    answers
        .succeeded(task, result, run_us)
        .map_err(|error| Failure::new(FailureKind::OutputTooLarge, error.to_string()))
}

fn check_form(form: ResultForm, result: &[u8]) -> Result<(), Failure> {
    let bad = |reason: String| Failure::new(FailureKind::BadAnswer, reason);
    match form {
        ResultForm::Json => serde_json::from_slice::<IgnoredAny>(result)
            .map(|_| ())
            .map_err(|error| bad(format!("the answer is not JSON, as its manifest declares: {error}"))),
        ResultForm::Text => std::str::from_utf8(result)
            .map(|_| ())
            .map_err(|error| bad(format!("the answer is not UTF-8 text, as its manifest declares: {error}"))),
        ResultForm::Bytes => Ok(()),
    }
}

/// The failure of a result beyond its limit.
pub(crate) fn too_large(bytes: Option<u64>, limit: u64) -> Failure {
    let message = match bytes {
        Some(bytes) => format!("the answer is {bytes} bytes, its limit is {limit}"),
        None => format!("the answer is larger than its limit of {limit} bytes"),
    };
    Failure::new(FailureKind::OutputTooLarge, message)
}

/// An error as the runtimes of all languages write it.
#[derive(Deserialize)]
struct ErrorBody<'a> {
    #[serde(borrow, rename = "errorMessage")]
    message: Option<&'a RawValue>,
    #[serde(borrow, rename = "errorType")]
    error_type: Option<&'a RawValue>,
    #[serde(borrow, rename = "stackTrace", alias = "trace")]
    stack: Option<&'a RawValue>,
}

/// Reads an error report: the body, or what of it can be understood, and the type from the header where the body has none.
pub(crate) fn error(kind: FailureKind, body: &[u8], type_header: Option<&str>) -> Failure {
    let parsed: Option<ErrorBody<'_>> = serde_json::from_slice(body).ok();
    let mut failure = match parsed {
        Some(body) if body.message.is_some() || body.error_type.is_some() => from_parts(kind, &body),
        _ => Failure::new(kind, String::from_utf8_lossy(body).trim()),
    };
    if failure.error_type.is_empty() {
        failure.error_type = type_header.unwrap_or_default().to_owned();
    }
    if failure.message.is_empty() {
        failure.message = "the function reported an error without a message".into();
    }
    failure.capped()
}

/// The failure in one answer of a batch, if it is one: an object with a member `errorMessage`.
pub(crate) fn error_in(answer: &RawValue) -> Option<Failure> {
    let text = answer.get();
    if !text.starts_with('{') || !text.contains("\"errorMessage\"") {
        return None;
    }
    let body: ErrorBody<'_> = serde_json::from_str(text).ok()?;
    body.message.is_some().then(|| from_parts(FailureKind::Error, &body))
}

fn from_parts(kind: FailureKind, body: &ErrorBody<'_>) -> Failure {
    let text = |part: Option<&RawValue>| part.map(plain).unwrap_or_default();
    let mut failure = Failure::new(kind, text(body.message)).with_type(text(body.error_type));
    failure.stack = body.stack.map(frames).unwrap_or_default();
    failure.capped()
}

/// A JSON string's text; any other value as it is written, and null as nothing.
fn plain(value: &RawValue) -> String {
    match serde_json::from_str::<Option<Cow<'_, str>>>(value.get()) {
        Ok(text) => text.unwrap_or_default().into_owned(),
        Err(_) => value.get().to_owned(),
    }
}

/// Frames: strings, or arrays and objects of their parts; a lone string is split into its lines.
fn frames(stack: &RawValue) -> Vec<String> {
    let Ok(frames) = serde_json::from_str::<Vec<&RawValue>>(stack.get()) else {
        return plain(stack).lines().map(str::to_owned).collect();
    };
    let frame = |frame: &RawValue| match serde_json::from_str::<Vec<&RawValue>>(frame.get()) {
        Ok(parts) => parts.into_iter().map(plain).collect::<Vec<_>>().join(" "),
        Err(_) => plain(frame).trim_end().to_owned(),
    };
    frames.into_iter().map(frame).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_all_shapes_are_read() {
        let body = br#"{"errorMessage":"no \"x\"","errorType":"KeyError","requestId":"","stackTrace":["  a\n",["f.py",3,"g"]]}"#;
        let failure = error(FailureKind::Error, body, Some("Unhandled"));
        assert_eq!((&*failure.message, &*failure.error_type), ("no \"x\"", "KeyError"));
        assert_eq!(failure.stack, ["  a", "f.py 3 g"]);
        let failure = error(FailureKind::Error, b"boom\n", Some("Unhandled"));
        assert_eq!((&*failure.message, &*failure.error_type), ("boom", "Unhandled"));
        let failure = error(FailureKind::Error, br#"{"errorMessage":{"a":1},"stackTrace":"x\ny"}"#, None);
        assert_eq!((&*failure.message, failure.stack.len()), (r#"{"a":1}"#, 2));
        assert_eq!(error(FailureKind::Error, br#"{"errorMessage":null}"#, None).error_type, "");
        assert_eq!(error(FailureKind::Error, b"[1]", None).message, "[1]");
        assert!(!error(FailureKind::Error, b"", None).message.is_empty());
    }

    #[test]
    fn only_a_member_error_message_makes_an_answer_an_error() {
        let check = |text: &str| error_in(serde_json::from_str::<&RawValue>(text).expect("JSON")).is_some();
        assert!(check(r#"{"errorType":"E","errorMessage":"m"}"#));
        assert!(!check(r#"{"result":{"errorMessage":"m"}}"#));
        assert!(!check(r#""\"errorMessage\"""#));
        assert!(!check(r#"[{"errorMessage":"m"}]"#));
    }

    #[test]
    fn results_are_held_to_their_form_and_limit() {
        let name = "f".parse().expect("a name");
        let mut manifest = Manifest::new(name, sheaf_core::FunctionKind::Handler { revision: String::new() });
        let mut answers = SegmentBuilder::new();
        let mut kind =
            |manifest: &Manifest, result: &[u8]| keep(manifest, &mut answers, 0, result, 0).err().map(|f| f.kind);
        assert_eq!(kind(&manifest, b"{}"), None);
        assert_eq!(kind(&manifest, b""), None);
        assert_eq!(kind(&manifest, b"{} {}"), Some(FailureKind::BadAnswer));
        manifest.result = ResultForm::Text;
        assert_eq!(kind(&manifest, b"\xff"), Some(FailureKind::BadAnswer));
        manifest.result = ResultForm::Bytes;
        assert_eq!(kind(&manifest, b"\xff"), None);
        manifest.output_bytes_max = 3;
        assert_eq!(kind(&manifest, b"abcd"), Some(FailureKind::OutputTooLarge));
    }
}
