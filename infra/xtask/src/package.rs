//! Builds what runs on AWS: a zip per Lambda, and the program of the containers.

use std::{
    env,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context;
use object::{
    Endianness,
    elf::PT_INTERP,
    read::elf::{ElfFile64, ProgramHeader},
};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::setup::{self, root};

/// The crates that are Lambdas. Their zips have these names.
pub(crate) const LAMBDAS: [&str; 4] = ["sheaf-submit", "sheaf-dispatch", "sheaf-result", "sheaf-sweep"];
/// The crate that runs in a container.
const CONTAINER: &str = "sheaf-worker-container";
/// The largest zip that Lambda takes as it is. Source: Lambda's quotas.
const ZIP_BYTES_MAX: u64 = 50 * 1024 * 1024;

/// What a package is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Architecture {
    Arm64,
    X86_64,
}

/// Which architecture; a fifth cheaper is the default.
#[derive(clap::Args)]
pub(crate) struct ArchitectureArgs {
    /// For Graviton, which is a fifth cheaper; the default.
    #[arg(long)]
    arm64: bool,
    /// For x86-64.
    #[arg(long, conflicts_with = "arm64")]
    x86_64: bool,
}

impl ArchitectureArgs {
    pub(crate) const fn x86_64() -> Self {
        Self { arm64: false, x86_64: true }
    }

    pub(crate) const fn get(&self) -> Architecture {
        if self.x86_64 { Architecture::X86_64 } else { Architecture::Arm64 }
    }
}

impl Architecture {
    /// As Lambda and ECS call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::X86_64 => "x86_64",
        }
    }

    /// The option of `package` and of cargo-lambda.
    const fn option(self) -> &'static str {
        match self {
            Self::Arm64 => "--arm64",
            Self::X86_64 => "--x86-64",
        }
    }

    /// What the Lambdas are built for.
    const fn target(self) -> &'static str {
        match self {
            Self::Arm64 => "aarch64-unknown-linux-gnu",
            Self::X86_64 => "x86_64-unknown-linux-gnu",
        }
    }

    /// What the containers' program is built for: it brings its own C library, and so runs in an image that has none.
    const fn target_of_containers(self) -> &'static str {
        match self {
            Self::Arm64 => "aarch64-unknown-linux-musl",
            Self::X86_64 => "x86_64-unknown-linux-musl",
        }
    }

    /// Whether this machine is of it, and links programs as Linux with glibc does.
    fn is_this_machine(self) -> bool {
        cfg!(all(target_os = "linux", target_env = "gnu")) && self.target().starts_with(env::consts::ARCH)
    }

    /// Where its packages lie.
    pub(crate) fn packages(self) -> PathBuf {
        root().join("target/lambda").join(self.name())
    }
}

/// Whether Rust's standard library is there for a target.
fn has_library(target: &str) -> anyhow::Result<bool> {
    let output = Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output()?;
    Ok(output.status.success() && Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
}

/// What was packaged.
pub(crate) struct Packages {
    /// The folder of the zips.
    pub(crate) zips: PathBuf,
    /// The program of the containers.
    pub(crate) container: Option<PathBuf>,
}

/// Builds all packages for an architecture.
pub(crate) fn run(architecture: Architecture, profile: &str) -> anyhow::Result<Packages> {
    let packages = architecture.packages();
    lambdas(architecture, profile, &packages)?;
    let program = container(architecture, profile)?;
    anyhow::ensure!(!is_linked(&program)?, "{} needs libraries of the image that it runs in", program.display());
    let container = packages.join(CONTAINER);
    fs::copy(program, &container)?;
    println!("{CONTAINER:28} {:>12} {:>12}", fs::metadata(&container)?.len(), "-");
    println!("in {}", packages.display());
    Ok(Packages { zips: packages, container: Some(container) })
}

/// The Lambdas alone, not optimised, for this machine's tests: built in two minutes, where all takes ten.
pub(crate) fn quick() -> anyhow::Result<Packages> {
    let zips = root().join("target/lambda/quick");
    lambdas(Architecture::X86_64, "dev", &zips)?;
    Ok(Packages { zips, container: None })
}

/// Builds the Lambdas' zips into a folder.
fn lambdas(architecture: Architecture, profile: &str, packages: &Path) -> anyhow::Result<()> {
    let target = architecture.target();
    anyhow::ensure!(has_library(target)?, "the Rust target {target} is not installed: rustup target add {target}");
    let built = packages.join("built");
    cargo_lambda(&[architecture.option(), "--profile", profile], &LAMBDAS, &built)?;
    println!("{:28} {:>12} {:>12}", "PACKAGE", "PROGRAM", "ZIP");
    for name in LAMBDAS {
        let (program, archive) = (built.join(name).join("bootstrap"), packages.join(name).with_extension("zip"));
        pack(&program, &archive)?;
        let (bytes, packed) = (fs::metadata(&program)?.len(), fs::metadata(&archive)?.len());
        println!("{name:28} {bytes:>12} {packed:>12}");
        anyhow::ensure!(packed <= ZIP_BYTES_MAX, "Lambda takes zips of up to {ZIP_BYTES_MAX} bytes");
    }
    Ok(())
}

/// Builds the containers' program, statically linked; gives where it is.
fn container(architecture: Architecture, profile: &str) -> anyhow::Result<PathBuf> {
    let target = architecture.target_of_containers();
    let built = architecture.packages().join("built");
    let program = built.join(CONTAINER).join("bootstrap");
    if has_library(target)? {
        cargo_lambda(&["--target", target, "--profile", profile], &[CONTAINER], &built)?;
        return Ok(program);
    }
    anyhow::ensure!(
        architecture.is_this_machine(),
        "the Rust target {target} is not installed: rustup target add {target}"
    );
    println!(
        "the Rust target {target} is not installed: the containers' program is linked with this machine's own libc.a"
    );
    let target = architecture.target();
    let flags = format!("target.{target}.rustflags=['-Ctarget-feature=+crt-static']");
    let how = ["--target", target, "--compiler", "cargo", "--config", &flags, "--profile", profile];
    cargo_lambda(&how, &[CONTAINER], &built)?;
    Ok(program)
}

/// Has cargo-lambda build some programs.
fn cargo_lambda(how: &[&str], packages: &[&str], into: &Path) -> anyhow::Result<()> {
    let programs = setup::infra().context("cargo-lambda cannot be had")?;
    let mut build = Command::new(programs.join("cargo-lambda"));
    // A system of its own to link against: what this machine has may be newer than what Lambda has.
    build.args(["lambda", "build", "--locked", "--output-format", "binary", "--lambda-dir"]).arg(into).args(how);
    for package in packages {
        // Some have further programs, for their tests.
        build.args(["--package", package, "--bin", package]);
    }
    // It finds the linker that came with it through the Python beside it.
    let path = env::var_os("PATH").unwrap_or_default();
    build.env("PATH", env::join_paths([programs].into_iter().chain(env::split_paths(&path)))?);
    setup::succeed(build.current_dir(root()).stdin(Stdio::null()))
}

/// Whether a program asks for libraries of the system that it runs on.
fn is_linked(program: &Path) -> anyhow::Result<bool> {
    let bytes = fs::read(program).with_context(|| program.display().to_string())?;
    let file = ElfFile64::<Endianness>::parse(&*bytes).with_context(|| program.display().to_string())?;
    let endian = file.endian();
    Ok(file.elf_program_headers().iter().any(|header| header.p_type(endian) == PT_INTERP))
}

/// Zips a program as `bootstrap`. The same program gives the same bytes, so that what has not changed is not deployed again.
pub(crate) fn pack(program: &Path, archive: &Path) -> anyhow::Result<()> {
    let bytes = fs::read(program).with_context(|| program.display().to_string())?;
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated).unix_permissions(0o755);
    let mut zip = ZipWriter::new(File::create(archive).with_context(|| archive.display().to_string())?);
    zip.start_file("bootstrap", options)?;
    zip.write_all(&bytes)?;
    zip.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn the_same_program_is_the_same_zip() {
        let folder = tempfile::tempdir().expect("a folder");
        let (program, archives) =
            (folder.path().join("program"), ["a.zip", "b.zip"].map(|name| folder.path().join(name)));
        fs::write(&program, b"\x7fELF and more").expect("a program");
        pack(&program, &archives[0]).expect("a zip");
        let later = SystemTime::now() + Duration::from_secs(86_400);
        File::options().write(true).open(&program).and_then(|file| file.set_modified(later)).expect("another time");
        pack(&program, &archives[1]).expect("a zip");
        assert_eq!(fs::read(&archives[0]).expect("bytes"), fs::read(&archives[1]).expect("bytes"));
        let mut zip = zip::ZipArchive::new(File::open(&archives[0]).expect("a zip")).expect("a zip");
        let entry = zip.by_name("bootstrap").expect("its name is what Lambda looks for");
        assert_eq!(entry.unix_mode().map(|mode| mode & 0o777), Some(0o755));
    }

    #[test]
    fn what_needs_libraries_is_told() {
        let this = env::current_exe().expect("this program");
        assert_eq!(is_linked(&this).expect("a program"), cfg!(not(target_feature = "crt-static")));
        let text = root().join("Cargo.toml");
        assert!(is_linked(&text).expect_err("no program").to_string().contains("Cargo.toml"));
    }

    #[test]
    fn packages_are_those_that_terraform_looks_for() {
        let functions =
            fs::read_to_string(root().join("infra/terraform/modules/functions/main.tf")).expect("functions");
        for name in LAMBDAS {
            assert!(functions.contains(&format!("package = \"{name}\"")), "{name} is deployed nowhere");
        }
        let variables = fs::read_to_string(root().join("infra/terraform/variables.tf")).expect("variables");
        let names = [Architecture::Arm64, Architecture::X86_64].map(|one| format!("\"{}\"", one.name())).join(", ");
        assert!(variables.contains(&format!("contains([{names}], var.architecture)")));
    }
}
