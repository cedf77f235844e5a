//! What can be set, and where each value came from: flag > environment > project file > user file > default.
//!
//! Which grid and how is the SDK's business ([`sheaf::Settings`]), so that programs and the command agree; the rest is the
//! table `[cli]` of the same files.

mod layers;

use std::path::PathBuf;

use serde::Serialize;

use crate::{
    args::Global,
    output::{Format, Row},
    problem::{Outcome, Problem},
};

use layers::{Key, Layers};

const LISTEN: Key = Key { name: "listen", env: "SHEAF_LISTEN", about: "where `sheaf up` serves the API" };
const OUTPUT: Key = Key { name: "output", env: "SHEAF_OUTPUT", about: "how stdout is formatted" };
const PROGRESS: Key = Key { name: "progress", env: "SHEAF_PROGRESS", about: "whether a terminal shows progress" };
const LOG: Key =
    Key { name: "log", env: "SHEAF_LOG", about: "what is logged to stderr, such as info or sheaf_local=debug" };

/// The keys of `[cli]`.
const KEYS: [Key; 4] = [LISTEN, OUTPUT, PROGRESS, LOG];

/// What a command's own flags set.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    /// `--directory`
    pub(crate) directory: Option<PathBuf>,
    /// `--slots`
    pub(crate) slots: Option<u32>,
    /// `--listen`
    pub(crate) listen: Option<String>,
}

/// All settings, resolved once.
#[derive(Debug)]
pub(crate) struct Settings {
    grid: Option<String>,
    flags: Flags,
    /// Which grid and how.
    pub(crate) client: sheaf::Settings,
    /// Where `sheaf up` listens.
    pub(crate) listen: String,
    /// How stdout is formatted.
    pub(crate) output: Format,
    /// Whether a terminal shows progress.
    pub(crate) progress: bool,
    /// What is logged.
    pub(crate) log: Option<String>,
    /// Each of them, with where it came from.
    pub(crate) all: Vec<Setting>,
}

/// A setting as it is shown.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Setting {
    /// Its name: what files call it.
    pub(crate) name: &'static str,
    /// Its value; none if it has none. Secrets are not shown.
    pub(crate) value: Option<String>,
    /// Where that came from.
    pub(crate) origin: String,
    /// What it is for.
    pub(crate) about: &'static str,
}

impl Row for Setting {
    const COLUMNS: &'static [&'static str] = &["SETTING", "VALUE", "FROM", "WHAT IT IS"];

    fn id(&self) -> String {
        self.name.to_owned()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.name.into(), self.value.clone().unwrap_or("-".into()), self.origin.clone(), self.about.into()]
    }
}

impl Settings {
    /// Resolves all of them.
    pub(crate) fn load(global: &Global, flags: Flags) -> Outcome<Self> {
        let given = connect_options(&global.grid, &flags, None);
        let client = sheaf::Settings::resolve(&given).map_err(sheaf::GridError::from)?;
        let layers = Layers::read()?;
        let listen = layers.setting(&LISTEN, flags.listen.clone(), Some("127.0.0.1:0"))?;
        let output = layers.setting(&OUTPUT, global.output.clone(), Some("table"))?;
        let progress = layers.setting(&PROGRESS, global.no_progress.then(|| "false".to_owned()), Some("true"))?;
        let log = layers.setting(&LOG, None, None)?;
        Ok(Self {
            grid: global.grid.clone(),
            flags,
            output: parsed(&output, "one of table, json, ndjson and id", |text| {
                clap::ValueEnum::from_str(text, true).ok()
            })?,
            progress: parsed(&progress, "true or false", |text| text.parse().ok())?,
            listen: listen.value.clone().unwrap_or_default(),
            log: log.value.clone(),
            all: shown(&client).into_iter().chain([listen, output, progress, log]).collect(),
            client,
        })
    }

    /// What the SDK is asked for. `slots` wins over what was set.
    pub(crate) fn connect_options(&self, slots: Option<u32>) -> sheaf::ConnectOptions {
        connect_options(&self.grid, &self.flags, slots)
    }

    /// How many tasks an embedded grid runs at once.
    pub(crate) fn slots(&self) -> usize {
        self.client.slots.value.map_or_else(slots_default, |slots| slots as usize)
    }

    /// The data directory of the grid, if it is an embedded one.
    pub(crate) fn directory(&self) -> Outcome<PathBuf> {
        match &self.client.place.value {
            sheaf::Place::Directory(directory) => Ok(directory.clone()),
            place => Err(Problem::usage(format!("the grid is {place}, which has no data directory here"))
                .with_hint("give --grid DIR, or unset SHEAF_GRID")),
        }
    }
}

fn connect_options(grid: &Option<String>, flags: &Flags, slots: Option<u32>) -> sheaf::ConnectOptions {
    sheaf::builder()
        .maybe_grid(grid.clone())
        .maybe_directory(flags.directory.clone())
        .maybe_slots(slots.or(flags.slots))
        .build()
}

fn slots_default() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn parsed<T>(setting: &Setting, expected: &str, parse: impl FnOnce(&str) -> Option<T>) -> Outcome<T> {
    let value = setting.value.as_deref().unwrap_or_default();
    parse(value).ok_or_else(|| {
        Problem::usage(format!("{} is {value:?} ({}), must be {expected}", setting.name, setting.origin))
            .with_hint("`sheaf config` shows every setting and where it comes from")
    })
}

/// The SDK's settings as they are shown.
fn shown(client: &sheaf::Settings) -> Vec<Setting> {
    fn row<T>(name: &'static str, about: &'static str, setting: &sheaf::Setting<T>, value: Option<String>) -> Setting {
        Setting { name, value, origin: setting.origin.to_string(), about }
    }
    let token = match &client.token.value {
        sheaf::Token::Absent => None,
        sheaf::Token::Given(_) => Some("***".to_owned()),
        token => Some(token.to_string()),
    };
    let slots = client.slots.value.map_or_else(slots_default, |slots| slots as usize);
    vec![
        row("grid", "which grid to use", &client.place, Some(client.place.value.to_string())),
        row("token", "proves that we may use a grid behind a URL", &client.token, token),
        row("slots", "tasks that an embedded grid runs at once", &client.slots, Some(slots.to_string())),
        row(
            "durable",
            "whether what it accepts survives a power cut",
            &client.durable,
            Some(client.durable.value.to_string()),
        ),
    ]
}
