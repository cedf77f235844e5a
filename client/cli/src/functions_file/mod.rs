//! `functions.toml`: functions as people declare them.
//!
//! ```toml
//! [functions.price]
//! package = "target/release/price"      # or command = ["./price", "{}"], or lambda = "arn:aws:lambda:…"
//! handler = "price"                     # what a package sees as _HANDLER; the name by default
//! timeout = "60s"
//! memory = "512MiB"
//! output_max = "6MiB"
//! ordered = false
//! batch = false
//! checkpoint = false                    # whether it writes checkpoints, to SHEAF_CHECKPOINT
//! checkpoint_every = "60s"              # how often a new one is looked for
//! result = "json"                       # or text, or bytes
//! env = { DATABASE_URL = "${DATABASE_URL}", LEVEL = "${LEVEL:-info}" }
//! ```
//!
//! Paths are relative to the file. A package is a directory or a zip with an executable `bootstrap`, or an executable that
//! becomes one. Functions are given no environment but `env`, whose values may take variables of whoever reads the file.

mod archive;
mod declaration;
mod environment;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use sheaf_api::{
    Api, Code,
    wire::{FunctionView, PutFunction},
};
use sheaf_core::{FunctionKind, Manifest};
use toml::Spanned;

use crate::problem::{Outcome, Problem};

pub(crate) use archive::Archive;
use archive::Archives;
use declaration::Declaration;
pub(crate) use declaration::beside;

/// The name under which files of functions are looked for.
pub(crate) const NAME: &str = "functions.toml";

/// A file of functions, read but not yet prepared.
#[derive(Debug)]
pub(crate) struct FunctionsFile {
    path: PathBuf,
    text: String,
    functions: BTreeMap<String, Spanned<Declaration>>,
}

/// What a file may hold.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    #[serde(default)]
    functions: BTreeMap<String, Spanned<Declaration>>,
}

/// A function that is ready to be declared.
#[derive(Debug)]
pub(crate) struct Prepared {
    manifest: Manifest,
    archive: Option<Archive>,
}

impl FunctionsFile {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| Problem::file("read", path, error))?;
        let contents: Contents = toml::from_str(&text).map_err(|error| {
            let problem = Problem::new(Code::Invalid, format!("{} does not declare functions", path.display()));
            let problem = problem.with_code("functions_file");
            problem.at(path, &text, error.span().unwrap_or_default(), error.message())
        })?;
        Ok(Self { path: path.to_owned(), text, functions: contents.functions })
    }

    /// Makes manifests and packages of the functions with these names; of all, if none is given.
    pub(crate) fn prepare(&self, names: &[String]) -> Outcome<Vec<Prepared>> {
        if let Some(missing) = names.iter().find(|name| !self.functions.contains_key(*name)) {
            let known: Vec<_> = self.functions.keys().map(String::as_str).collect();
            let message = format!("{} declares no function {missing}", self.path.display());
            return Err(Problem::new(Code::NotFound, message).with_hint(format!("it declares {}", known.join(", "))));
        }
        let mut archives = Archives::default();
        let wanted = self.functions.iter().filter(|(name, _)| names.is_empty() || names.contains(name));
        wanted.map(|(name, declaration)| self.prepare_one(name, declaration, &mut archives)).collect()
    }

    fn prepare_one(&self, name: &str, declared: &Spanned<Declaration>, archives: &mut Archives) -> Outcome<Prepared> {
        let refuse = |message: String, span: std::ops::Range<usize>| {
            Problem::new(Code::Invalid, format!("function {name}: {message}"))
                .with_code("functions_file")
                .at(&self.path, &self.text, span, "here")
        };
        let folder = self.path.parent().unwrap_or_else(|| Path::new(""));
        let (mut manifest, package) = declared.get_ref().manifest(name, folder, declared.span()).map_err(|wrong| {
            let problem = refuse(wrong.message, wrong.span);
            match wrong.hint {
                Some(hint) => problem.with_hint(hint),
                None => problem,
            }
        })?;
        let archive = match package {
            None => None,
            Some(package) => {
                let path = folder.join(package.get_ref());
                let made = archives.of(&path).map_err(|wrong| {
                    let problem = refuse(wrong.message, package.span())
                        .with_hint("a package is a directory or zip with an executable `bootstrap`, or one executable");
                    match wrong.source {
                        Some(source) => problem.with_source(source),
                        None => problem,
                    }
                })?;
                Some(made)
            }
        };
        if let (FunctionKind::Package { digest, .. }, Some(archive)) = (&mut manifest.kind, &archive) {
            *digest = archive.digest;
        }
        manifest.check().map_err(|error| {
            Problem::new(Code::Invalid, error.to_string()).with_code("functions_file").at(
                &self.path,
                &self.text,
                declared.span(),
                "here",
            )
        })?;
        Ok(Prepared { manifest, archive })
    }
}

impl Prepared {
    /// Declares it to a grid, unless that knows it as it is. Costs one call then, else one more with the package.
    pub(crate) async fn declare(self, api: &impl Api) -> Outcome<FunctionView> {
        if let Ok(view) = api.function(self.manifest.name.as_str()).await
            && view.manifest == self.manifest
        {
            return Ok(view);
        }
        let package = self.archive.map(|archive| archive.bytes);
        Ok(api.put_function(PutFunction { manifest: self.manifest, package }).await?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use miette::Diagnostic;

    use super::*;

    /// What a file of these bytes is refused with, and the text that the message points at.
    fn refusal(bytes: &[u8]) -> (String, Option<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        std::fs::write(&path, bytes).unwrap();
        let problem = FunctionsFile::read(&path).and_then(|file| file.prepare(&[])).unwrap_err();
        let span = problem.labels().and_then(|mut labels| labels.next());
        let pointed = span.map(|span| {
            let text = std::str::from_utf8(bytes).unwrap();
            text[span.offset()..span.offset() + span.len()].chars().take(40).collect()
        });
        (problem.to_string().replace(&folder.path().display().to_string(), "…"), pointed)
    }

    #[test]
    fn hostile_files_are_refused_where_they_are_wrong() {
        let function = |line: &str| format!("[functions.f]\ncommand = [\"true\"]\n{line}\n");
        for (bytes, message, pointed) in [
            (b"\xff\xfe".to_vec(), "…/functions.toml cannot be read", None),
            (vec![0; 16], "…/functions.toml does not declare functions", None),
            (function("timeout = 5").into(), "…/functions.toml does not declare functions", Some("5")),
            (function("tiemout = \"5s\"").into(), "…/functions.toml does not declare functions", Some("tiemout")),
            (function("[functions.f]").into(), "…/functions.toml does not declare functions", Some("f")),
            (
                function("timeout = \"5 parsecs\"").into(),
                "function f: \"5 parsecs\" is not a duration",
                Some("\"5 parsecs\""),
            ),
            (function("timeout = \"-5s\"").into(), "function f: \"-5s\" is not a duration", Some("\"-5s\"")),
            (function("timeout = \"0s\"").into(), "function f: timeout_ms is 0", Some("[functions.f]")),
            (
                function("timeout = \"9999999h\"").into(),
                "function f: timeout_ms is 35999996400000",
                Some("[functions.f]"),
            ),
            (function("memory = \"0\"").into(), "function f: memory_bytes_max is 0", Some("[functions.f]")),
            (
                function("memory = \"99999999999999999999GiB\"").into(),
                "function f: \"99999999999999999999GiB\" is not a size",
                Some("\"99999999999999999999GiB\""),
            ),
            (
                function("checkpoint_every = \"5s\"").into(),
                "function f: only a function with checkpoints has checkpoint_every",
                Some("\"5s\""),
            ),
            (
                function("checkpoint = true\ncheckpoint_every = \"5ms\"").into(),
                "function f: checkpoint_every_ms is 5, must be 1000",
                Some("[functions.f]"),
            ),
            (function("env = { A = \"\\u0000\" }").into(), "function f: env holds", Some("[functions.f]")),
            (function("env = { A = \"${\" }").into(), "function f: env A: \"${\" is not", Some("\"${\"")),
            (
                b"[functions.f]\ncommand = [\"a\\u0000b\"]\n".to_vec(),
                "function f: argv holds a NUL",
                Some("[functions.f]"),
            ),
            (b"[functions.f]\ncommand = []\n".to_vec(), "function f: argv is empty", Some("[functions.f]")),
            (
                b"[functions.\"a/b\"]\ncommand = [\"true\"]\n".to_vec(),
                "function a/b: \"a/b\" is not a function name",
                None,
            ),
            (b"[functions.f]\nlambda = \"\\uD800\"\n".to_vec(), "…/functions.toml does not declare functions", None),
            (
                format!("x = {}{}", "[".repeat(100_000), "]".repeat(100_000)).into_bytes(),
                "…/functions.toml does not declare functions",
                None,
            ),
        ] {
            let (told, span) = refusal(&bytes);
            assert!(told.contains(message), "{told}\n{message}");
            if let Some(pointed) = pointed {
                assert!(span.as_ref().is_some_and(|span| span.contains(pointed)), "{told}: points at {span:?}");
            }
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        std::fs::write(&path, "\u{feff}[functions.f]\ncommand = [\"true\"]\n").unwrap();
        assert_eq!(FunctionsFile::read(&path).unwrap().prepare(&[]).unwrap().len(), 1);
    }
}
