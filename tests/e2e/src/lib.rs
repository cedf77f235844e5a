//! Starting the real `sheaf` and its functions, and killing them.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

/// Says loudly that a test cannot run here; it then counts as skipped.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {{
        use std::io::Write;
        // Past the capture of test output, and in one piece.
        let _ = std::io::stderr().write_all(format!("\nSKIPPED: {}\n", format!($($reason)+)).as_bytes());
        return;
    }};
}

/// The workspace's root.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("the crate lies two folders below the root").to_owned()
}

/// A program of this workspace, built in the profile of this test.
///
/// # Panics
/// If it has not been built.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test.ancestors().find(|path| path.join(name).is_file());
    folder.unwrap_or_else(|| panic!("{name} is not built: cargo build --workspace --bins")).join(name)
}

/// The example functions in Rust: built in the release profile where that exists, since some are slow on purpose.
pub fn examples() -> PathBuf {
    let release = root().join("target/release/bootstrap-examples");
    if release.is_file() { release } else { program("bootstrap-examples") }
}

/// A Python with the packages of the examples, where the set-up made one.
pub fn python() -> Option<PathBuf> {
    let venv = root().join("target/venv/bin/python3");
    std::env::var_os("SHEAF_TEST_PYTHON").map(PathBuf::from).or_else(|| venv.exists().then_some(venv))
}

/// A `sheaf` command with a data directory and nothing of the caller's settings.
pub fn sheaf(directory: &Path) -> Command {
    let mut command = Command::new(program("sheaf"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SHEAF_")) {
        command.env_remove(name);
    }
    command.env("SHEAF_DIR", directory).current_dir(directory).stdin(Stdio::null());
    command
}

/// Runs a command to its end.
///
/// # Panics
/// If it cannot be started.
pub fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// What a command printed, as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A `sheaf up` that can be killed and started again at the same address.
pub struct Up {
    directory: PathBuf,
    port: u16,
    functions: Vec<PathBuf>,
    child: Option<Child>,
}

impl Up {
    /// Starts a grid and waits until it answers.
    pub fn start(directory: &Path, functions: &[PathBuf]) -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut up = Self { directory: directory.to_owned(), port, functions: functions.to_vec(), child: None };
        up.restart()?;
        Ok(up)
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The file with its token.
    pub fn token_file(&self) -> anyhow::Result<PathBuf> {
        let address = std::fs::read(self.directory.join("grid.json"))?;
        let text = String::from_utf8(address)?;
        let (_, rest) = text.split_once("\"token_file\":\"").context("grid.json names the token file")?;
        Ok(rest.split('"').next().unwrap_or_default().into())
    }

    /// Its folder of dropped files.
    pub fn inbox(&self) -> PathBuf {
        self.directory.join("inbox")
    }

    /// Its folder of results.
    pub fn outbox(&self) -> PathBuf {
        self.directory.join("outbox")
    }

    /// Starts it again.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        let mut command = sheaf(&self.directory);
        command.arg("up").arg("--listen").arg(format!("127.0.0.1:{}", self.port));
        for file in &self.functions {
            command.arg("--functions").arg(file);
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.directory.join("up.log"))?;
        command.env("SHEAF_LOG", "warn").stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().context("sheaf up")?);
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            if self.directory.join("grid.json").exists()
                && std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
            {
                return Ok(());
            }
            let ended = self.ended();
            let log = || std::fs::read_to_string(self.directory.join("up.log")).unwrap_or_default();
            ensure!(ended.is_none(), "sheaf up ended with {ended:?}: {}", log());
            ensure!(Instant::now() < until, "sheaf up does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_file(self.directory.join("grid.json"));
    }

    /// How it ended, if it did by itself.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        let mut child = self.child.take().context("it runs")?;
        let pid = child.id().to_string();
        ensure!(Command::new("kill").args(["-TERM", &pid]).status()?.success(), "kill -TERM {pid}");
        Ok(child.wait()?)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.kill();
    }
}
