//! A PostgreSQL server of a test's own: a fresh data directory, reachable by a socket file only, gone at the end.
//!
//! It needs nothing but the standard library and PostgreSQL's own programs, so another test can take this file in with
//! `#[path = "…/postgres/mod.rs"] mod postgres;`. A shell stands between the test and the server and waits for its
//! stdin to close: however the test ends, by return, panic or `kill -9`, the server stops and its files are removed.

use std::{
    env, fs,
    io::{self, Write as _},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio, id},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Starting takes about a second; a busy machine may need many.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Makes and runs a server in the directory that is $0, with the programs in $1, until stdin closes; then removes it.
const KEEPER: &str = r#"
    cd "$0" || exit
    (
        "$1/initdb" --no-sync --auth=trust --username=postgres --encoding=UTF8 --locale=C -D data &&
            "$1/postgres" -F -D data -k "$0" -c listen_addresses= -c max_connections=32
        : >ended
    ) </dev/null >log 2>&1 &
    read -r _
    until [ -e ended ]; do
        "$1/pg_ctl" stop --silent --mode=fast -D data >/dev/null 2>&1 || sleep 0.1
    done
    cd / && rm -rf "$0"
"#;

/// A running server with an empty database. Dropping it stops it.
pub(crate) struct Postgres {
    keeper: Child,
    bin: PathBuf,
    dir: PathBuf,
}

impl Postgres {
    /// Starts a server. Without PostgreSQL's programs on this machine there is none: that is said on stderr, past the
    /// capture of test output, and the caller should return.
    ///
    /// The programs are looked for in `PG_BIN`, in `PATH`, and where Linux distributions and Homebrew put them.
    ///
    /// # Panics
    /// If the programs are there and do not work.
    pub(crate) fn start() -> Option<Self> {
        let Some(bin) = bin_dir() else {
            let said = "\nSKIPPED: no PostgreSQL programs (initdb, postgres) here; set PG_BIN to their directory\n";
            io::stderr().write_all(said.as_bytes()).expect("stderr is open");
            return None;
        };
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let dir = env::temp_dir().join(format!("pg-{}-{}", id(), STARTED.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&dir).expect("a new directory");
        let mut keeper = Command::new("/bin/sh");
        if let Some((uid, gid)) = unprivileged(&dir) {
            keeper.uid(uid).gid(gid);
        }
        keeper.arg("-c").arg(KEEPER).arg(&dir).arg(&bin).stdin(Stdio::piped());
        // A group of its own: an interrupt from the keyboard ends the test, and the test's end ends this.
        let keeper = keeper.process_group(0).spawn().expect("a shell");
        let server = Self { keeper, bin, dir };
        server.wait_until_ready();
        Some(server)
    }

    /// Where clients find it.
    pub(crate) fn url(&self) -> String {
        format!("postgresql://postgres@/postgres?host={}", self.dir.display())
    }

    /// Runs SQL with `psql` and answers its output: rows by line, columns by `|`.
    ///
    /// # Panics
    /// If a statement fails.
    pub(crate) fn sql(&self, statements: &str) -> String {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "-v", "ON_ERROR_STOP=1"]);
        let ran = psql.arg("-c").arg(statements).arg(self.url()).stdin(Stdio::null()).output().expect("psql starts");
        assert!(ran.status.success(), "psql: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8_lossy(&ran.stdout).trim_end().to_owned()
    }

    fn wait_until_ready(&self) {
        let started = Instant::now();
        loop {
            let mut ready = Command::new(self.bin.join("pg_isready"));
            if ready.arg("-q").arg("-d").arg(self.url()).status().expect("pg_isready starts").success() {
                return;
            }
            if self.dir.join("ended").exists() || started.elapsed() > START_TIMEOUT {
                panic!("PostgreSQL did not start: {}", fs::read_to_string(self.dir.join("log")).unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // Nothing to do about a failure here; the shell stops the server all the same.
        let _ = self.keeper.wait();
    }
}

/// The directory of PostgreSQL's programs, of the newest version if there are several.
fn bin_dir() -> Option<PathBuf> {
    let told = env::var_os("PG_BIN").map(PathBuf::from);
    let on_path: Vec<_> = env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    let mut installed: Vec<(u32, PathBuf)> = [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql@"),
        ("/usr/local/opt", "postgresql@"),
    ]
    .into_iter()
    .flat_map(|(parent, prefix)| {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        entries.filter_map(move |entry| {
            let version = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
    })
    .collect();
    installed.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    let mut candidates = told.into_iter().chain(on_path).chain(installed.into_iter().map(|(_, dir)| dir));
    candidates
        .find(|dir| ["initdb", "postgres", "pg_ctl", "pg_isready", "psql"].iter().all(|name| dir.join(name).is_file()))
}

/// The server refuses to run as root. If that is who runs the test, it gets the directory handed to another user.
fn unprivileged(dir: &Path) -> Option<(u32, u32)> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("our own directory");
    if fs::metadata(dir).expect("our own directory").uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("a list of users");
    let ids = |name: &str| {
        let mut fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let found = fields.find(|user| user.len() > 3 && user[0] == name)?;
        Some((found[2].parse().ok()?, found[3].parse().ok()?))
    };
    let (uid, gid) = ids("postgres").or_else(|| ids("nobody")).expect("a user postgres or nobody");
    chown(dir, Some(uid), Some(gid)).expect("root may");
    Some((uid, gid))
}
