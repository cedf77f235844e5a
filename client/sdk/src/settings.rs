//! Which grid, and how: resolved once, and every value knows where it came from.
//!
//! What the program says goes before the environment, that before the project's `sheaf.toml` (the nearest one upwards from
//! the working directory), that before the user's `sheaf/config.toml`, that before the defaults.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use sheaf_core::limits;

use crate::connect::ConnectOptions;

/// The name of a project's file.
const PROJECT_FILE: &str = "sheaf.toml";

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// The program, or a flag of it.
    Program,
    /// A variable of the environment.
    Environment(&'static str),
    /// The project's or the user's file.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program => f.write_str("the command line or program"),
            Self::Environment(name) => write!(f, "${name}"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value with its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Who said so.
    pub origin: Origin,
}

/// Which grid.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// One in this process, in this data directory; or the one that has the directory open already.
    Directory(PathBuf),
    /// One in this process, in memory: nothing of it outlives the process.
    Memory,
    /// One behind a URL.
    Url(String),
    /// One on AWS, by its name, with the user's own rights and without its API.
    Aws(String),
}

/// What stands before the name of a grid on AWS.
const AWS: &str = "aws:";

impl Place {
    /// Reads what `SHEAF_GRID` may say: `embedded`, `memory`, `aws:` and a name, a URL or a directory.
    fn parse(text: &str, directory_default: impl FnOnce() -> PathBuf) -> Self {
        match text {
            "" | "embedded" => Self::Directory(directory_default()),
            "memory" => Self::Memory,
            aws if aws.starts_with(AWS) => Self::Aws(aws[AWS.len()..].into()),
            url if url.contains("://") => Self::Url(url.into()),
            path => Self::Directory(path.into()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Memory => f.write_str("memory"),
            Self::Url(url) => f.write_str(url),
            Self::Aws(name) => write!(f, "{AWS}{name}"),
        }
    }
}

/// Where the token of a remote grid is. Never shows it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Token {
    /// Nowhere.
    Absent,
    /// Here.
    Given(Arc<str>),
    /// In a file, of which it is the only content but for white space.
    File(PathBuf),
}

impl Token {
    /// Reads it; empty when there is none.
    pub fn read(&self) -> Result<Arc<str>, SettingsError> {
        match self {
            Self::Absent => Ok("".into()),
            Self::Given(token) => Ok(Arc::clone(token)),
            Self::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|source| unreadable(path, source))?;
                Ok(text.trim().into())
            }
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("none"),
            Self::Given(_) => f.write_str("given"),
            Self::File(path) => write!(f, "in {}", path.display()),
        }
    }
}

/// Settings that cannot be understood.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// A file says what it may not.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What, and where.
        reason: String,
    },
    /// A variable says what it may not.
    #[error("${name} is {value:?}, must be {expected}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
        /// What was expected.
        expected: &'static str,
    },
    /// The grid that was chosen needs a part that this program was built without.
    #[error("this program was built without the feature `{feature}`, which {place} needs")]
    Unbuilt {
        /// The feature.
        feature: &'static str,
        /// The grid.
        place: String,
    },
}

impl SettingsError {
    pub(crate) const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unreadable { .. } => None,
            Self::File { .. } | Self::Variable { .. } => {
                Some("`sheaf config` shows every setting and where it comes from")
            }
            Self::Unbuilt { .. } => {
                Some("build it with that feature of sheaf-sdk (`--features` of sheaf-cli), or choose another grid")
            }
        }
    }
}

/// All settings of a client, resolved.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// Which grid.
    pub place: Setting<Place>,
    /// The token of a remote grid.
    pub token: Setting<Token>,
    /// How many tasks an embedded grid runs at once; absent for as many as there are processors.
    pub slots: Setting<Option<u32>>,
    /// Whether an embedded grid's acknowledgement means that it would survive a power cut.
    pub durable: Setting<bool>,
    /// Bytes that may be submitted and not yet acknowledged.
    pub unacknowledged_bytes: Setting<usize>,
    /// How long a chunk waits for more tasks.
    pub linger: Setting<Duration>,
}

/// A file of settings. Other tables than these belong to others.
#[derive(Debug, Default, Deserialize)]
struct SettingsFile {
    #[serde(default)]
    grid: GridTable,
    #[serde(default)]
    client: ClientTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct GridTable {
    url: Option<String>,
    directory: Option<PathBuf>,
    #[serde(default)]
    memory: bool,
    token_file: Option<PathBuf>,
    slots: Option<u32>,
    durable: Option<bool>,
}

impl GridTable {
    fn place(&self) -> Option<Place> {
        match self {
            Self { url: Some(url), .. } => match url.strip_prefix(AWS) {
                Some(name) => Some(Place::Aws(name.into())),
                None => Some(Place::Url(url.clone())),
            },
            Self { directory: Some(directory), .. } => Some(Place::Directory(directory.clone())),
            Self { memory: true, .. } => Some(Place::Memory),
            Self { .. } => None,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientTable {
    unacknowledged_bytes: Option<usize>,
    linger_ms: Option<u64>,
}

/// What settings are resolved from.
pub(crate) struct Surroundings<'a> {
    /// Reads a variable of the environment.
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
    /// Where to look for the project's file, upwards.
    pub(crate) working_directory: Option<PathBuf>,
}

impl Surroundings<'_> {
    fn var(&self, name: &str) -> Option<String> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    /// A directory of the user, after the XDG base directory specification.
    fn xdg(&self, name: &str, under_home: &str) -> Option<PathBuf> {
        let given = self.var(name).map(PathBuf::from).filter(|path| path.is_absolute());
        given.or_else(|| Some(Path::new(&self.var("HOME")?).join(under_home)))
    }

    fn directory_default(&self) -> PathBuf {
        if let Some(directory) = self.var("SHEAF_DIR") {
            return directory.into();
        }
        self.xdg("XDG_DATA_HOME", ".local/share").map_or_else(|| ".sheaf".into(), |data| data.join("sheaf"))
    }

    fn parsed<T: std::str::FromStr>(
        &self,
        name: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, SettingsError> {
        let Some(value) = self.var(name) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| SettingsError::Variable { name, value, expected })
    }

    /// The project's file and the user's, where they exist, nearest first.
    fn files(&self) -> Result<Vec<(PathBuf, SettingsFile)>, SettingsError> {
        let project = self.working_directory.iter().flat_map(|directory| directory.ancestors());
        let project = project.map(|directory| directory.join(PROJECT_FILE)).find(|path| path.is_file());
        let user = self.xdg("XDG_CONFIG_HOME", ".config").map(|config| config.join("sheaf/config.toml"));
        let user = user.filter(|path| path.is_file());
        project.into_iter().chain(user).map(|path| Ok((path.clone(), read_file(&path)?))).collect()
    }
}

fn unreadable(path: &Path, source: std::io::Error) -> SettingsError {
    SettingsError::Unreadable { path: path.into(), source: Arc::new(source) }
}

fn read_file(path: &Path) -> Result<SettingsFile, SettingsError> {
    let text = std::fs::read_to_string(path).map_err(|source| unreadable(path, source))?;
    parse_file(path, &text)
}

fn parse_file(path: &Path, text: &str) -> Result<SettingsFile, SettingsError> {
    let refuse = |reason: String| SettingsError::File { path: path.into(), reason };
    let mut file: SettingsFile = toml::from_str(text).map_err(|error| refuse(error.to_string()))?;
    let grid = &mut file.grid;
    let places = u8::from(grid.url.is_some()) + u8::from(grid.directory.is_some()) + u8::from(grid.memory);
    if places > 1 {
        return Err(refuse("[grid] names several grids: give one of url, directory and memory".into()));
    }
    // Paths in a file are meant from where the file is.
    let base = path.parent().unwrap_or(Path::new("."));
    for relative in [&mut grid.directory, &mut grid.token_file].into_iter().flatten() {
        *relative = base.join(&*relative);
    }
    Ok(file)
}

/// See [`crate::fuzzing`].
#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    use super::{Path, Place, SettingsError, parse_file};

    /// Which grid a file of this text names, if any.
    pub fn settings(path: &Path, text: &str) -> Result<Option<Place>, SettingsError> {
        parse_file(path, text).map(|file| file.grid.place())
    }
}

fn first<T>(candidates: impl IntoIterator<Item = (Option<T>, Origin)>, default: T) -> Setting<T> {
    let mut candidates = candidates.into_iter().filter_map(|(value, origin)| value.map(|value| (value, origin)));
    let (value, origin) = candidates.next().unwrap_or((default, Origin::Default));
    Setting { value, origin }
}

impl Settings {
    /// Resolves the settings of this process.
    pub fn resolve(options: &ConnectOptions) -> Result<Self, SettingsError> {
        let variable = |name: &str| std::env::var(name).ok();
        Self::resolve_in(
            options,
            &Surroundings { variable: &variable, working_directory: std::env::current_dir().ok() },
        )
    }

    pub(crate) fn resolve_in(options: &ConnectOptions, around: &Surroundings<'_>) -> Result<Self, SettingsError> {
        let files = around.files()?;
        let in_files = || files.iter().map(|(path, file)| (file, Origin::File(path.clone())));
        let place_of = |text: String| Place::parse(&text, || around.directory_default());
        let (env_grid, env_directory) = (around.var("SHEAF_GRID"), around.var("SHEAF_DIR"));
        let default = Place::Directory(around.directory_default());
        let place = first(
            [
                (options.place(&place_of), Origin::Program),
                (env_grid.map(place_of), Origin::Environment("SHEAF_GRID")),
                (env_directory.map(|path| Place::Directory(path.into())), Origin::Environment("SHEAF_DIR")),
            ]
            .into_iter()
            .chain(in_files().map(|(file, origin)| (file.grid.place(), origin))),
            default,
        );
        let token = first(
            [
                (options.token(), Origin::Program),
                (around.var("SHEAF_TOKEN").map(|token| Token::Given(token.into())), Origin::Environment("SHEAF_TOKEN")),
                (
                    around.var("SHEAF_TOKEN_FILE").map(|path| Token::File(path.into())),
                    Origin::Environment("SHEAF_TOKEN_FILE"),
                ),
            ]
            .into_iter()
            .chain(in_files().map(|(file, origin)| (file.grid.token_file.clone().map(Token::File), origin))),
            Token::Absent,
        );
        let slots = first(
            [
                (options.slots, Origin::Program),
                (around.parsed("SHEAF_SLOTS", "a number of tasks")?, Origin::Environment("SHEAF_SLOTS")),
            ]
            .into_iter()
            .chain(in_files().map(|(file, origin)| (file.grid.slots, origin)))
            .map(|(value, origin)| (value.map(Some), origin)),
            None,
        );
        let durable = first(
            [
                (options.durable, Origin::Program),
                (around.parsed("SHEAF_DURABLE", "true or false")?, Origin::Environment("SHEAF_DURABLE")),
            ]
            .into_iter()
            .chain(in_files().map(|(file, origin)| (file.grid.durable, origin))),
            true,
        );
        let unacknowledged_bytes = first(
            [(options.unacknowledged_bytes, Origin::Program)]
                .into_iter()
                .chain(in_files().map(|(file, origin)| (file.client.unacknowledged_bytes, origin))),
            limits::UNACKNOWLEDGED_BYTES_DEFAULT,
        );
        let linger = first(
            [(options.linger, Origin::Program)]
                .into_iter()
                .chain(in_files().map(|(file, origin)| (file.client.linger_ms.map(Duration::from_millis), origin))),
            Duration::from_millis(limits::LINGER_MS_DEFAULT),
        );
        Ok(Self { place, token, slots, durable, unacknowledged_bytes, linger })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(
        options: ConnectOptions,
        variables: &[(&str, &str)],
        directory: Option<&Path>,
    ) -> Result<Settings, SettingsError> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let around = Surroundings { variable: &variable, working_directory: directory.map(Path::to_owned) };
        Settings::resolve_in(&options, &around)
    }

    fn place(options: ConnectOptions, variables: &[(&str, &str)], directory: Option<&Path>) -> (String, Origin) {
        let Setting { value, origin } = resolve(options, variables, directory).expect("settings").place;
        (value.to_string(), origin)
    }

    #[test]
    fn the_nearest_word_counts() {
        let project = tempfile::tempdir().expect("a directory");
        let below = project.path().join("a/b");
        std::fs::create_dir_all(&below).expect("made");
        let file = project.path().join("sheaf.toml");
        std::fs::write(&file, "[grid]\ndirectory = 'data'\nslots = 3\n[function.price]\nx = 1\n").expect("written");
        let home = ("HOME", "/home/u");
        let none = || ConnectOptions::builder().build();

        assert_eq!(place(none(), &[home], None), ("/home/u/.local/share/sheaf".into(), Origin::Default));
        let xdg = [home, ("XDG_DATA_HOME", "/data")];
        assert_eq!(place(none(), &xdg, None), ("/data/sheaf".into(), Origin::Default));
        let found = project.path().join("data").display().to_string();
        assert_eq!(place(none(), &xdg, Some(&below)), (found, Origin::File(file.clone())));
        let env = [home, ("SHEAF_GRID", "http://grid:7433")];
        assert_eq!(place(none(), &env, Some(&below)), ("http://grid:7433".into(), Origin::Environment("SHEAF_GRID")));
        let program = ConnectOptions::builder().memory(true).build();
        assert_eq!(place(program, &env, Some(&below)), ("memory".into(), Origin::Program));
        let aws = [home, ("SHEAF_GRID", "aws:night")];
        assert_eq!(place(none(), &aws, Some(&below)), ("aws:night".into(), Origin::Environment("SHEAF_GRID")));
        let embedded = [home, ("SHEAF_GRID", "embedded"), ("SHEAF_DIR", "/var/sheaf")];
        assert_eq!(place(none(), &embedded, Some(&below)), ("/var/sheaf".into(), Origin::Environment("SHEAF_GRID")));

        let settings = resolve(none(), &[home, ("SHEAF_DURABLE", "false")], Some(&below)).expect("settings");
        assert_eq!(settings.slots, Setting { value: Some(3), origin: Origin::File(file) });
        assert_eq!(settings.durable, Setting { value: false, origin: Origin::Environment("SHEAF_DURABLE") });
    }

    #[test]
    fn a_file_may_name_a_grid_on_aws() {
        let project = tempfile::tempdir().expect("a directory");
        let file = project.path().join("sheaf.toml");
        for (url, expected) in
            [("aws:night", Place::Aws("night".into())), ("https://g", Place::Url("https://g".into()))]
        {
            std::fs::write(&file, format!("[grid]\nurl = '{url}'\n")).expect("written");
            let settings = resolve(ConnectOptions::builder().build(), &[], Some(project.path())).expect("settings");
            assert_eq!((&settings.place.value, settings.place.value.to_string()), (&expected, url.to_owned()));
        }
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        let project = tempfile::tempdir().expect("a directory");
        let file = project.path().join("sheaf.toml");
        let none = || ConnectOptions::builder().build();
        std::fs::write(&file, "[grid]\nurl = 'http://a'\nmemory = true\n").expect("written");
        let refused = resolve(none(), &[], Some(project.path())).expect_err("two grids");
        assert!(refused.to_string().contains("several grids"), "{refused}");
        std::fs::write(&file, "[grid]\nulr = 'http://a'\n").expect("written");
        let refused = resolve(none(), &[], Some(project.path())).expect_err("a misspelt key");
        assert!(refused.to_string().contains("ulr"), "{refused}");
        let refused = resolve(none(), &[("SHEAF_SLOTS", "many")], None).expect_err("not a number");
        assert_eq!(refused.to_string(), "$SHEAF_SLOTS is \"many\", must be a number of tasks");
    }

    #[test]
    fn a_token_is_never_shown() {
        let options = ConnectOptions::builder().token("s3cret").build();
        let settings = resolve(options.clone(), &[], None).expect("settings");
        assert!(!format!("{settings:?} {options:?}").contains("s3cret"));
        assert_eq!(&*settings.token.value.read().expect("given"), "s3cret");
    }
}
