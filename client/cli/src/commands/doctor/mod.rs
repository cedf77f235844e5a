//! `sheaf doctor`.

mod checks;

use clap::Args;
use serde::Serialize;

use crate::{
    exit::Exit,
    output::{Format, Printer, Row},
    problem::Outcome,
    settings::Settings,
};

/// Check what a grid needs of this machine, and say what to do about what is wrong
///
/// Of a grid behind a URL it checks whether it answers, and the clock; of one on AWS (aws:NAME) also credentials, table, stream,
/// bucket, queues and functions, as far as the rights of the user allow.
#[derive(Debug, Args)]
pub(crate) struct Doctor {}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Health {
    Ok,
    Warn,
    Fail,
}

impl Health {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What a check found.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    health: Health,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Finding {
    fn new(check: &'static str, health: Health, found: impl Into<String>) -> Self {
        Self { check, health, found: found.into(), hint: None }
    }

    fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Row for Finding {
    const COLUMNS: &'static [&'static str] = &["", "CHECK", "FOUND"];

    fn id(&self) -> String {
        self.check.to_owned()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.health.as_str().into(), self.check.into(), self.found.clone()]
    }
}

impl Doctor {
    pub(crate) async fn run(self, settings: &Settings) -> Outcome {
        let findings = checks::all(settings).await;
        Printer(settings.output).list(&findings)?;
        if settings.output == Format::Table {
            for finding in &findings {
                if let Some(hint) = &finding.hint {
                    eprintln!("{} {}: {hint}", finding.health.as_str(), finding.check);
                }
            }
        }
        let failed = findings.iter().any(|finding| finding.health == Health::Fail);
        Ok(if failed { Exit::Failed } else { Exit::Succeeded })
    }
}
