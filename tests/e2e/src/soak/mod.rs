//! The soak: who does what, and when it ends.

mod killer;
mod plain;
pub(crate) mod sdk;
mod tally;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use sheaf_e2e::{Up, examples};
use tokio::task::JoinSet;

pub(crate) use tally::Tally;

/// How long clients may take to end what they have begun once the kills are over.
const WIND_UP: Duration = Duration::from_secs(180);
/// How long a job is kept after its end; what is older is removed at the next start, so that the disk does not fill.
const RETENTION: Duration = Duration::from_secs(60);

/// What to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) length: Duration,
    pub(crate) every: Duration,
    pub(crate) plain: u32,
    pub(crate) sdk: u32,
    pub(crate) killed: u32,
    pub(crate) plant: bool,
}

/// Where the grid is, and until when new work is begun.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) token_file: PathBuf,
    pub(crate) until: Instant,
    pub(crate) tally: Arc<Tally>,
}

impl Place {
    /// Whether to begin something new.
    pub(crate) fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }
}

/// Runs a soak to its end, and prints its figures.
pub(crate) async fn run(plan: &Plan) -> anyhow::Result<Arc<Tally>> {
    let directory = tempfile::tempdir()?;
    let elsewhere = tempfile::tempdir()?;
    let functions = elsewhere.path().join("functions.toml");
    std::fs::write(&functions, format!("[functions.echo]\npackage = {:?}\nbatch = true\n", examples()))?;
    let up = Up::start(directory.path(), &[functions])?;
    let started = Instant::now();
    let tally = Arc::new(Tally::default());
    let place =
        Place { url: up.url(), token_file: up.token_file()?, until: started + plan.length, tally: tally.clone() };

    let killer = {
        let (place, every) = (place.clone(), plan.every);
        let rows = plan.plant.then(|| directory.path().join("rows"));
        tokio::task::spawn_blocking(move || killer::run(up, &place, every, rows.as_deref()))
    };
    let mut clients = JoinSet::new();
    for number in 0..plan.plain {
        clients.spawn(plain::run(place.clone(), number));
    }
    for number in 0..plan.sdk {
        clients.spawn(sdk::run(place.clone(), number));
    }
    for number in 0..plan.killed {
        clients.spawn(sdk::run_killed(place.clone(), elsewhere.path().join(format!("killed-{number}"))));
    }
    let deadline = tokio::time::Instant::from_std(place.until + WIND_UP);
    let mut ticks = tokio::time::interval(Duration::from_secs(10));
    ticks.tick().await;
    loop {
        tokio::select! {
            ended = clients.join_next() => match ended {
                None => break,
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => tally.gave_up(&format!("{error:#}")),
                Some(Err(error)) => tally.violation(&format!("a client panicked: {error}")),
            },
            _ = ticks.tick() => println!("{:>5.0} s  {tally}, {} MB on disk", started.elapsed().as_secs_f64(), megabytes(directory.path())),
            () = tokio::time::sleep_until(deadline) => {
                tally.violation(&format!("clients did not end within {} s", WIND_UP.as_secs()));
                clients.abort_all();
                break;
            }
        }
    }
    let mut up = killer.await??;
    match up.stop() {
        Ok(status) if status.success() => {}
        Ok(status) => tally.violation(&format!("sheaf up was asked to stop and ended with {status}")),
        Err(error) => tally.violation(&format!("sheaf up does not stop: {error:#}")),
    }
    let audit = audit(directory.path(), &tally);
    println!("{:.1} minutes: {tally}; {audit}", started.elapsed().as_secs_f64() / 60.0);
    println!("recovery: {}; gaps in the feed that were made up for: {}", tally.recovery(), gaps(directory.path()));
    if tally.has_failed() {
        let kept = directory.keep();
        println!("FAILED; the data directory is kept in {}", kept.display());
    }
    Ok(tally)
}

/// The invariants, over the whole store.
fn audit(directory: &Path, tally: &Tally) -> String {
    let here = std::env::current_exe().ok();
    let program =
        here.and_then(|here| here.ancestors().map(|path| path.join("sheaf-durability")).find(|path| path.is_file()));
    let Some(program) = program else {
        return "SKIPPED: the audit of the store: cargo build --release -p sheaf-durability".to_owned();
    };
    match Command::new(program).arg("audit").arg(directory).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            if !output.status.success() {
                tally.violation(&format!("the audit of the store: {said} {}", String::from_utf8_lossy(&output.stderr)));
            }
            format!("audit: {said}")
        }
        Err(error) => {
            tally.violation(&format!("the audit cannot be run: {error}"));
            String::new()
        }
    }
}

/// How often a grid found that its feed of changes had lost rows, and counted the chunks themselves.
fn gaps(directory: &Path) -> usize {
    let log = std::fs::read_to_string(directory.join("up.log")).unwrap_or_default();
    log.lines().filter(|line| line.contains("the feed has a gap")).count()
}

/// What a directory takes on disk, holes not counted.
fn megabytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut blocks = 0;
    let mut open = vec![directory.to_owned()];
    while let Some(path) = open.pop() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(entry_is) if entry_is.is_dir() => open.push(entry.path()),
                Ok(entry_is) => blocks += entry_is.blocks(),
                Err(_) => {}
            }
        }
    }
    blocks * 512 / 1_000_000
}
