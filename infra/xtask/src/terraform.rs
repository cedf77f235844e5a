//! Terraform, in a folder of its own under the target folder, so that neither its caches nor anybody's settings land in the
//! tree.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context;

use crate::setup::{root, succeed};

/// Where a plugin folder may be named.
const PLUGINS: &str = "SHEAF_TERRAFORM_PLUGINS";
/// The provider in a plugin folder; below it is a folder per version.
const PROVIDER: &str = "registry.terraform.io/hashicorp/aws";
/// The versions of it that infra/terraform takes: this or a later one of the same first number.
const PROVIDER_VERSION_MIN: (u64, u64) = (5, 100);
/// What the configuration reads of the tree, beside the packages.
const READS: [&str; 2] = ["infra/terraform", "shared/aws/stream-filter.json"];
/// The configuration in a copy.
const CONFIGURATION: &str = "infra/terraform";

/// A copy of the configuration, laid out as in the tree.
pub(crate) struct Workspace {
    folder: PathBuf,
    plugins: Option<PathBuf>,
}

impl Workspace {
    /// A fresh copy under a name; what Terraform has put beside an earlier one is kept.
    pub(crate) fn new(name: &str) -> anyhow::Result<Self> {
        let folder = root().join("target/terraform").join(name);
        for read in READS {
            clear(&folder.join(read))?;
            copy(&root().join(read), &folder.join(read))?;
        }
        Ok(Self { folder, plugins: plugins() })
    }

    /// Where the configuration is.
    pub(crate) fn configuration(&self) -> PathBuf {
        self.folder.join(CONFIGURATION)
    }

    /// Where packages of an architecture belong, as the configuration looks for them.
    pub(crate) fn packages(&self, architecture: &str) -> PathBuf {
        self.folder.join("target/lambda").join(architecture)
    }

    /// Puts a file beside the configuration's.
    pub(crate) fn put(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let file = self.configuration().join(name);
        fs::write(&file, text).with_context(|| file.display().to_string())
    }

    /// A command of Terraform on it.
    pub(crate) fn terraform(&self, verb: &str) -> Command {
        let mut command = Command::new("terraform");
        command.arg(verb).current_dir(self.configuration()).env("CHECKPOINT_DISABLE", "1").env_remove("TF_DATA_DIR");
        if self.plugins.is_some() {
            // A plugin folder makes whatever the user's settings say of providers moot.
            command.env("TF_CLI_CONFIG_FILE", "/dev/null");
        }
        command
    }

    /// Whether the provider lies in a plugin folder, so that nothing is downloaded.
    pub(crate) const fn has_plugins(&self) -> bool {
        self.plugins.is_some()
    }

    /// Gets the provider, from a plugin folder if there is one; else Terraform downloads it.
    pub(crate) fn init(&self, options: &[&str]) -> anyhow::Result<()> {
        let mut init = self.terraform("init");
        init.args(["-input=false", "-no-color"]).args(options).stdin(Stdio::null()).stdout(Stdio::null());
        if let Some(plugins) = &self.plugins {
            let mut option = std::ffi::OsString::from("-plugin-dir=");
            option.push(plugins);
            init.arg(option);
        }
        succeed(&mut init)
    }
}

/// Whether there is a Terraform.
pub(crate) fn is_installed() -> bool {
    let version = Command::new("terraform").arg("version").env("CHECKPOINT_DISABLE", "1").output();
    version.is_ok_and(|output| output.status.success())
}

/// Whether the provider is on this machine, so that it need not be downloaded.
pub(crate) fn has_provider() -> bool {
    plugins().is_some()
}

/// A folder that has the provider: the one that is named, or one where such folders are commonly kept.
fn plugins() -> Option<PathBuf> {
    let named = [PLUGINS, "TF_PLUGIN_CACHE_DIR"].into_iter().filter_map(|name| env::var_os(name).map(PathBuf::from));
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".terraform.d/plugins"));
    let shared = ["/usr/local/share/terraform/plugins", "/usr/share/terraform/plugins"].map(PathBuf::from);
    let opt = fs::read_dir("/opt").into_iter().flatten().flatten().map(|entry| entry.path());
    named.chain(home).chain(shared).chain(opt).find(|folder| is_of_provider(folder))
}

fn is_of_provider(folder: &Path) -> bool {
    let versions = fs::read_dir(folder.join(PROVIDER)).into_iter().flatten().flatten();
    versions.filter_map(|version| parse_version(version.file_name().to_str()?)).any(is_taken)
}

fn parse_version(text: &str) -> Option<(u64, u64)> {
    let (major, rest) = text.split_once('.')?;
    Some((major.parse().ok()?, rest.split('.').next()?.parse().ok()?))
}

fn is_taken(version: (u64, u64)) -> bool {
    version.0 == PROVIDER_VERSION_MIN.0 && version >= PROVIDER_VERSION_MIN
}

/// Removes what an earlier copy brought, but not what Terraform keeps in dot files.
fn clear(copy: &Path) -> anyhow::Result<()> {
    if copy.is_file() {
        fs::remove_file(copy)?;
    }
    for entry in fs::read_dir(copy).into_iter().flatten() {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            _ if is_hidden(&entry.path()) => {}
            true => fs::remove_dir_all(entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// Copies a file, or a folder without its hidden files.
pub(crate) fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if from.is_file() {
        fs::create_dir_all(to.parent().expect("a file is in a folder"))?;
        return fs::copy(from, to).map(drop).with_context(|| from.display().to_string());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let path = entry?.path();
        // A state or settings that somebody keeps in the tree are not the configuration.
        let is_of_somebody = path.extension().is_some_and(|extension| extension == "tfstate" || extension == "tfvars");
        if !is_hidden(&path) && !is_of_somebody {
            copy(&path, &to.join(path.file_name().expect("entries have names")))?;
        }
    }
    Ok(())
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with('.'))
}

/// The types of all resources and data sources of the configuration, without the provider's prefix.
#[cfg(test)]
pub(crate) fn kinds() -> Vec<String> {
    let (mut kinds, mut folders) = (Vec::new(), vec![root().join(CONFIGURATION)]);
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "tf") {
                let text = fs::read_to_string(&path).expect("text");
                let blocks = text.lines().filter_map(|line| {
                    let rest = line.strip_prefix("resource \"aws_").or(line.strip_prefix("data \"aws_"))?;
                    rest.split('"').next().map(str::to_owned)
                });
                kinds.extend(blocks);
            }
        }
    }
    assert!(kinds.len() > 40, "{kinds:?}");
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_that_the_configuration_takes_are_found() {
        let taken = ["5.100.0", "5.101.1", "5.99.9", "6.0.0", "4.100.0", "latest"];
        let taken: Vec<&str> = taken.into_iter().filter(|text| parse_version(text).is_some_and(is_taken)).collect();
        assert_eq!(taken, ["5.100.0", "5.101.1"]);
        let versions = fs::read_to_string(root().join("infra/terraform/versions.tf")).expect("versions");
        let (major, minor) = PROVIDER_VERSION_MIN;
        assert!(versions.contains(&format!("version = \"~> {major}.{minor}\"")), "another version is wanted");
    }

    #[test]
    fn nothing_in_it_costs_by_the_hour() {
        let by_the_hour =
            ["nat_", "eip", "instance", "lb", "vpc_endpoint", "db_", "rds_", "elasticache_", "kinesis_", "kms_key"];
        let provisioned = ["lambda_provisioned", "cloudfront", "transit", "vpn", "secretsmanager", "mq_", "msk_"];
        for kind in kinds() {
            let dear = by_the_hour.iter().chain(&provisioned).find(|dear| kind.starts_with(**dear));
            assert!(dear.is_none(), "aws_{kind} costs whether or not there is work");
        }
    }

    #[test]
    fn everything_has_the_grids_tag() {
        let versions = fs::read_to_string(root().join("infra/terraform/versions.tf")).expect("versions");
        assert!(versions.contains("default_tags") && versions.contains("{ \"sheaf:grid\" = var.grid }"));
    }
}
