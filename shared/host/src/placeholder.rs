//! Placeholders in a command's arguments.
//!
//! `{name}` is the member `name` of a payload that is a JSON object: the text of a string, the JSON of anything else. `{}`
//! is the whole payload. `{checkpoint}` is the path of the task's checkpoint, for a function that writes them. `{{` and `}}` are braces. A value stays one argument whatever it holds, as no shell reads it.

use std::{
    borrow::Cow,
    collections::HashMap,
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
};

use serde_json::value::RawValue;
use sheaf_core::{Failure, FailureKind};

/// The placeholder of a checkpoint's path.
const CHECKPOINT: &str = "checkpoint";

/// A command's arguments, read once per call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Template {
    arguments: Vec<Vec<Part>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Payload,
    Member(String),
    Checkpoint,
}

impl Template {
    /// Reads arguments; `{checkpoint}` is a member of the payload to a function that writes none.
    pub(crate) fn parse(argv: &[String], has_checkpoint: bool) -> Result<Self, Failure> {
        let mut arguments = argv.iter().map(|argument| parts(argument)).collect::<Result<Vec<_>, _>>()?;
        let is_checkpoint =
            |part: &&mut Part| has_checkpoint && matches!(part, Part::Member(name) if name == CHECKPOINT);
        arguments.iter_mut().flatten().filter(is_checkpoint).for_each(|part| *part = Part::Checkpoint);
        Ok(Self { arguments })
    }

    /// Whether the payload goes to stdin, as no argument takes anything from it.
    pub(crate) fn is_plain(&self) -> bool {
        self.arguments.iter().flatten().all(|part| matches!(part, Part::Text(_) | Part::Checkpoint))
    }

    fn has_members(&self) -> bool {
        self.arguments.iter().flatten().any(|part| matches!(part, Part::Member(_)))
    }

    /// The arguments for a payload, of a task whose checkpoint lies there, if its function writes them.
    pub(crate) fn fill(&self, payload: &[u8], checkpoint: Option<&Path>) -> Result<Vec<OsString>, Failure> {
        let members = if self.has_members() { members(payload)? } else { HashMap::new() };
        self.arguments.iter().map(|parts| argument(parts, payload, &members, checkpoint)).collect()
    }
}

type Members<'a> = HashMap<Cow<'a, str>, &'a RawValue>;

fn members(payload: &[u8]) -> Result<Members<'_>, Failure> {
    serde_json::from_slice(payload).map_err(|error| {
        failure(format!("the arguments name members of the payload, which is not a JSON object: {error}"))
    })
}

fn argument(
    parts: &[Part],
    payload: &[u8],
    members: &Members<'_>,
    checkpoint: Option<&Path>,
) -> Result<OsString, Failure> {
    let mut argument = Vec::new();
    for part in parts {
        let name = match part {
            Part::Text(text) => {
                argument.extend_from_slice(text.as_bytes());
                continue;
            }
            Part::Checkpoint => {
                argument.extend_from_slice(checkpoint.unwrap_or(Path::new("")).as_os_str().as_bytes());
                CHECKPOINT
            }
            Part::Payload => {
                argument.extend_from_slice(payload);
                ""
            }
            Part::Member(name) => {
                let value = members
                    .get(name.as_str())
                    .ok_or_else(|| failure(format!("argument {{{name}}}: no such member in the payload")))?;
                match serde_json::from_str::<Cow<'_, str>>(value.get()) {
                    Ok(text) => argument.extend_from_slice(text.as_bytes()),
                    Err(_) => argument.extend_from_slice(value.get().as_bytes()),
                }
                name
            }
        };
        if argument.contains(&0) {
            return Err(failure(format!("argument {{{name}}}: no argument can hold a NUL byte")));
        }
    }
    Ok(OsString::from_vec(argument))
}

fn parts(argument: &str) -> Result<Vec<Part>, Failure> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = argument;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        text.push_str(before);
        if let Some(behind) = brace.strip_prefix("{{").or_else(|| brace.strip_prefix("}}")) {
            text.push_str(&brace[..1]);
            rest = behind;
        } else if let Some(open) = brace.strip_prefix('{') {
            let (name, behind) = open.split_once('}').ok_or_else(|| {
                failure(format!("argument {argument:?} has a {{ without its }}; a brace itself is {{{{"))
            })?;
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            parts.push(if name.is_empty() { Part::Payload } else { Part::Member(name.to_owned()) });
            rest = behind;
        } else {
            return Err(failure(format!("argument {argument:?} has a }} without its {{; a brace itself is }}}}")));
        }
    }
    text.push_str(rest);
    if !text.is_empty() || parts.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

fn failure(message: String) -> Failure {
    Failure::new(FailureKind::Error, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(argument: &str, payload: &[u8]) -> Result<String, String> {
        let template = Template::parse(&[argument.to_owned()], false).map_err(|failure| failure.message)?;
        let filled = template.fill(payload, None).map_err(|failure| failure.message)?;
        Ok(filled.into_iter().map(|argument| argument.into_string().expect("UTF-8")).collect())
    }

    #[test]
    fn placeholders_are_filled() {
        let payload = br#"{"n": 7, "s": "a \"b\" \u00e9", "o": {"x": [1, 2]}, "e": ""}"#;
        for (argument, expected) in [
            ("plain", "plain"),
            ("", ""),
            ("{n}", "7"),
            ("--n={n},{n}", "--n=7,7"),
            ("{s}", "a \"b\" é"),
            ("{o}", r#"{"x": [1, 2]}"#),
            ("[{e}]", "[]"),
            ("{{n}}", "{n}"),
            ("{{{n}}}", "{7}"),
            ("$(rm -rf {s}); `x`", "$(rm -rf a \"b\" é); `x`"),
        ] {
            assert_eq!(fill(argument, payload).as_deref(), Ok(expected), "{argument}");
        }
        assert_eq!(fill("<{}>", b"any text").as_deref(), Ok("<any text>"));
    }

    #[test]
    fn what_cannot_be_filled_is_named() {
        for (argument, payload, expected) in [
            ("{m}", "{}", "argument {m}: no such member in the payload"),
            ("{m}", "[1]", "not a JSON object"),
            ("{m}", "", "not a JSON object"),
            ("{m}", r#"{"m":"\u0000"}"#, "argument {m}: no argument can hold a NUL byte"),
            ("{}", "a\0b", "argument {}: no argument can hold a NUL byte"),
            ("{m", "{}", "has a { without its }"),
            ("m}", "{}", "has a } without its {"),
        ] {
            let message = fill(argument, payload.as_bytes()).expect_err(argument);
            assert!(message.contains(expected), "{argument}: {message}");
        }
    }

    #[test]
    fn only_arguments_without_placeholders_leave_the_payload_to_stdin() {
        let plain = |argument: &str| Template::parse(&[argument.to_owned()], false).expect("valid").is_plain();
        assert!(plain("a") && plain("{{}}") && plain(""));
        assert!(!plain("{}") && !plain("{a}"));
    }

    /// It takes nothing from the payload, which still goes to stdin.
    #[test]
    fn a_checkpoint_is_a_path() {
        let parse =
            |has_checkpoint| Template::parse(&["--resume={checkpoint}".to_owned()], has_checkpoint).expect("valid");
        let filled = parse(true).fill(b"any", Some(Path::new("/run/7/c"))).expect("a path");
        assert_eq!((filled, parse(true).is_plain()), (vec![OsString::from("--resume=/run/7/c")], true));
        let filled = parse(false).fill(br#"{"checkpoint": 5}"#, None).expect("a member");
        assert_eq!((filled, parse(false).is_plain()), (vec![OsString::from("--resume=5")], false));
    }

    #[test]
    fn arguments_need_not_be_text() {
        let template = Template::parse(&["{}".to_owned()], false).expect("valid");
        assert_eq!(template.fill(b"\xff", None).expect("bytes")[0].as_encoded_bytes(), b"\xff");
    }
}
