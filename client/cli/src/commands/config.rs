//! `sheaf config`.

use clap::Args;

use crate::{exit::Exit, output::Printer, problem::Outcome, settings::Settings};

/// Show every setting, its value and where it came from
///
/// A flag wins over the environment, that over ./sheaf.toml, that over the user's sheaf.toml, and that over the default.
#[derive(Debug, Args)]
pub(crate) struct Config {}

impl Config {
    pub(crate) fn run(self, settings: &Settings) -> Outcome {
        Printer(settings.output).list(&settings.all)?;
        Ok(Exit::Succeeded)
    }
}
