//! One function of a file, and the manifest it amounts to.

use std::{collections::BTreeMap, ops::Range, path::Path};

use serde::Deserialize;
use sheaf_core::{Digest, FunctionKind, Manifest, ResultForm, limits};
use toml::Spanned;

use super::environment;
use crate::text;

/// What stands under `[functions.NAME]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Declaration {
    package: Option<Spanned<String>>,
    command: Option<Spanned<Vec<String>>>,
    lambda: Option<Spanned<String>>,
    handler: Option<Spanned<String>>,
    timeout: Option<Spanned<String>>,
    memory: Option<Spanned<String>>,
    output_max: Option<Spanned<String>>,
    #[serde(default)]
    ordered: bool,
    #[serde(default)]
    batch: bool,
    #[serde(default)]
    checkpoint: bool,
    checkpoint_every: Option<Spanned<String>>,
    result: Option<ResultForm>,
    #[serde(default)]
    env: BTreeMap<String, Spanned<String>>,
}

/// What is wrong with a declaration, and where.
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) span: Range<usize>,
    pub(super) hint: Option<String>,
}

fn wrong(message: impl Into<String>, span: Range<usize>) -> Wrong {
    Wrong { message: message.into(), span, hint: None }
}

impl Declaration {
    /// The manifest, and the path of the package if it has one (whose digest is still to be filled in).
    pub(super) fn manifest(
        &self,
        name: &str,
        folder: &Path,
        span: Range<usize>,
    ) -> Result<(Manifest, Option<&Spanned<String>>), Wrong> {
        let parsed_name = name.parse().map_err(|error| wrong(format!("{error}"), span.clone()))?;
        let kind = self.kind(name, folder, span)?;
        let mut manifest = Manifest::new(parsed_name, kind);
        if let Some(timeout) = &self.timeout {
            let parsed = text::parse_duration(timeout.get_ref()).map_err(|error| wrong(error, timeout.span()))?;
            manifest.timeout_ms = parsed.as_millis() as u64;
        }
        if let Some(memory) = &self.memory {
            manifest.memory_bytes_max =
                text::parse_bytes(memory.get_ref()).map_err(|error| wrong(error, memory.span()))?;
        }
        if let Some(most) = &self.output_max {
            manifest.output_bytes_max = text::parse_bytes(most.get_ref()).map_err(|error| wrong(error, most.span()))?;
        }
        manifest.ordered = self.ordered;
        manifest.batch = self.batch;
        manifest.checkpoint_every_ms = self.checkpoint_every_ms()?;
        manifest.result = self.result.unwrap_or(manifest.result);
        for (variable, value) in &self.env {
            let filled = environment::fill(value.get_ref(), |name| std::env::var(name).ok());
            let filled = filled.map_err(|missing| Wrong {
                message: format!("env {variable}: {missing}"),
                span: value.span(),
                hint: missing.hint(),
            })?;
            manifest.env.insert(variable.clone(), filled);
        }
        Ok((manifest, self.package.as_ref()))
    }

    fn checkpoint_every_ms(&self) -> Result<Option<u64>, Wrong> {
        let Some(every) = &self.checkpoint_every else {
            return Ok(self.checkpoint.then_some(limits::CHECKPOINT_EVERY_MS_DEFAULT));
        };
        if !self.checkpoint {
            let hint = Some("add `checkpoint = true`".to_owned());
            return Err(Wrong {
                message: "only a function with checkpoints has checkpoint_every".into(),
                span: every.span(),
                hint,
            });
        }
        let parsed = text::parse_duration(every.get_ref()).map_err(|error| wrong(error, every.span()))?;
        Ok(Some(parsed.as_millis() as u64))
    }

    fn kind(&self, name: &str, folder: &Path, span: Range<usize>) -> Result<FunctionKind, Wrong> {
        let only_of_packages = self.handler.as_ref().filter(|_| self.package.is_none());
        if let Some(handler) = only_of_packages {
            return Err(wrong("only a package has a handler", handler.span()));
        }
        match (&self.package, &self.command, &self.lambda) {
            (Some(_), None, None) => {
                let handler = self.handler.as_ref().map_or(name, |handler| handler.get_ref()).to_owned();
                Ok(FunctionKind::Package { digest: Digest::from_bytes([0; 32]), handler })
            }
            (None, Some(command), None) => {
                let argv = beside(command.get_ref(), folder).map_err(|error| wrong(error, command.span()))?;
                Ok(FunctionKind::Command { argv })
            }
            (None, None, Some(arn)) => Ok(FunctionKind::Lambda { arn: arn.get_ref().clone() }),
            (None, None, None) => Err(wrong("none of package, command and lambda is given", span)),
            _ => Err(wrong("more than one of package, command and lambda is given", span)),
        }
    }
}

/// The words of a command whose program, if it is a relative path, is meant from a folder. A bare name is left to PATH.
pub(crate) fn beside(argv: &[String], folder: &Path) -> Result<Vec<String>, String> {
    let mut argv = argv.to_vec();
    if let Some(program) = argv.first_mut().filter(|program| program.contains('/') && !program.contains('{')) {
        let path = std::path::absolute(folder.join(&*program)).map_err(|error| format!("{program}: {error}"))?;
        if !path.is_file() {
            return Err(format!("there is no program {}", path.display()));
        }
        *program = path.to_str().ok_or_else(|| format!("{program} lies under a path that is not UTF-8"))?.to_owned();
    }
    Ok(argv)
}
