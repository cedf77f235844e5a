//! The layers that the command's own settings come from, as texts.

use std::{
    env,
    path::{Path, PathBuf},
};

use sheaf_api::Code;

use super::{KEYS, Setting};
use crate::problem::{Outcome, Problem};

/// Something that can be set.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) env: &'static str,
    pub(super) about: &'static str,
}

/// The files' layers, nearest first.
#[derive(Debug)]
pub(super) struct Layers {
    files: Vec<File>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    values: toml::Table,
}

impl Layers {
    /// Reads `[cli]` of the nearest `sheaf.toml` upwards and of the user's `sheaf/config.toml`.
    pub(super) fn read() -> Outcome<Self> {
        let here = env::current_dir().unwrap_or_default();
        let project = here.ancestors().map(|folder| folder.join("sheaf.toml")).find(|path| path.is_file());
        let configured = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let configured = configured.or_else(|| Some(env::home_dir()?.join(".config")));
        let user = configured.map(|folder| folder.join("sheaf/config.toml")).filter(|path| path.is_file());
        let files = project.into_iter().chain(user).map(|path| File::read(&path)).collect::<Outcome<_>>()?;
        Ok(Self { files })
    }

    pub(super) fn setting(&self, key: &Key, flag: Option<String>, default: Option<&str>) -> Outcome<Setting> {
        let found = |value, origin| Ok(Setting { name: key.name, value, origin, about: key.about });
        if flag.is_some() {
            return found(flag, sheaf::Origin::Program.to_string());
        }
        if let Some(value) = env::var(key.env).ok().filter(|value| !value.is_empty()) {
            return found(Some(value), sheaf::Origin::Environment(key.env).to_string());
        }
        for file in &self.files {
            if let Some(value) = file.get(key.name)? {
                return found(Some(value), sheaf::Origin::File(file.path.clone()).to_string());
            }
        }
        found(default.map(ToOwned::to_owned), sheaf::Origin::Default.to_string())
    }
}

impl File {
    fn read(path: &Path) -> Outcome<Self> {
        let refuse = |message: String| Problem::new(Code::Invalid, message).with_code("config");
        let text = std::fs::read_to_string(path).map_err(|error| Problem::file("read", path, error))?;
        let mut values: toml::Table = toml::from_str(&text).map_err(|error| {
            let problem = refuse(format!("{} is not TOML", path.display()));
            match error.span() {
                Some(span) => problem.at(path, &text, span, error.message()),
                None => problem.with_source(error),
            }
        })?;
        let values = match values.remove("cli") {
            None => toml::Table::new(),
            Some(toml::Value::Table(values)) => values,
            Some(_) => return Err(refuse(format!("{}: cli is not a table", path.display()))),
        };
        let known = KEYS.map(|key| key.name);
        if let Some(unknown) = values.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(refuse(format!("{}: [cli] sets {unknown:?}, which is no setting", path.display()))
                .with_hint(format!("there are {}", known.join(", "))));
        }
        Ok(Self { path: path.to_owned(), values })
    }

    fn get(&self, name: &str) -> Outcome<Option<String>> {
        match self.values.get(name) {
            None => Ok(None),
            Some(toml::Value::String(text)) => Ok(Some(text.clone())),
            Some(toml::Value::Boolean(yes)) => Ok(Some(yes.to_string())),
            Some(_) => {
                let message = format!("{}: [cli] {name} is neither text nor true or false", self.path.display());
                Err(Problem::new(Code::Invalid, message).with_code("config"))
            }
        }
    }
}
