//! What is checked.

use std::{
    fs::{self, File, TryLockError},
    io::Write,
    path::Path,
    process::Stdio,
    time::{Duration, Instant, SystemTime},
};

use sheaf_api::{Api, wire::JobFilter};
use sheaf_http::Token;
use sheaf_local::Address;

use super::{Finding, Health};
use crate::{settings::Settings, text};

/// Free space below which a grid soon stops, and below which it is time to think of it.
const FREE_BYTES_FAIL: u64 = 100 << 20;
const FREE_BYTES_WARN: u64 = 2 << 30;
/// Syncs that are measured, and what is written before each.
const SYNCS: usize = 21;
const SYNC_BYTES: usize = 4_096;
/// A disk whose sync takes longer makes every submission slow. Source: an SSD takes 0.1 to 5 ms, a hard disk about 10.
const SYNC_WARN: Duration = Duration::from_millis(20);
/// The file system's clock and ours may differ by this much: files are stamped with a coarse one.
const CLOCK_WARN: Duration = Duration::from_secs(2);
/// The clock of a grid elsewhere and ours may differ by this much, and by this much at the most. Source: AWS takes signatures of
/// five minutes before and after.
const SKEW_WARN: Duration = Duration::from_secs(30);
const SKEW_FAIL: Duration = Duration::from_secs(300);
/// How long a grid may take to answer.
const ANSWER_MS_MAX: u64 = 2_000;
/// No clock is right that says less: 2026-01-01.
const CLOCK_MIN_MS: u64 = 1_767_225_600_000;

/// Everything, in the order in which trouble explains trouble.
pub(super) async fn all(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    match settings.directory() {
        Ok(directory) => {
            let writable = writable(&directory);
            let usable = writable.health != Health::Fail;
            findings.push(writable);
            if usable {
                findings.push(free_space(&directory));
                findings.push(sync_time(&directory));
                findings.push(clock(&directory));
                findings.push(lock(&directory));
                findings.push(token(&directory));
                findings.push(served(&directory).await);
            }
        }
        Err(_) => findings.extend(elsewhere(settings).await),
    }
    findings.push(children());
    findings
}

fn writable(directory: &Path) -> Finding {
    let check = "data directory";
    let probe = directory.join(format!(".doctor-{}", std::process::id()));
    let tried =
        fs::create_dir_all(directory).and_then(|()| fs::write(&probe, b"x")).and_then(|()| fs::remove_file(&probe));
    match tried {
        Ok(()) => Finding::new(check, Health::Ok, format!("{} is writable", directory.display())),
        Err(error) => Finding::new(check, Health::Fail, format!("{} is not writable: {error}", directory.display()))
            .with_hint("make it yours, or name another one with SHEAF_DIR"),
    }
}

fn free_space(directory: &Path) -> Finding {
    let check = "free space";
    match rustix::fs::statvfs(directory) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let (health, hint) = match free {
                0..FREE_BYTES_FAIL => (Health::Fail, Some("make room: a grid stops when its disk is full")),
                FREE_BYTES_FAIL..FREE_BYTES_WARN => {
                    (Health::Warn, Some("make room soon: a grid stops when its disk is full"))
                }
                _ => (Health::Ok, None),
            };
            Finding { hint: hint.map(ToOwned::to_owned), ..Finding::new(check, health, text::bytes(free)) }
        }
        Err(error) => Finding::new(check, Health::Warn, format!("cannot be told: {error}")),
    }
}

fn sync_time(directory: &Path) -> Finding {
    let check = "disk sync";
    match measure_sync(directory) {
        Ok(p50) => {
            let found =
                format!("{} (p50 of {SYNCS} fdatasyncs of {})", text::duration(p50), text::bytes(SYNC_BYTES as u64));
            if p50 <= SYNC_WARN {
                Finding::new(check, Health::Ok, found)
            } else {
                Finding::new(check, Health::Warn, found)
                    .with_hint("every submission waits for it; use a faster disk, or SHEAF_DURABLE=false where a power cut may lose work")
            }
        }
        Err(error) => Finding::new(check, Health::Fail, format!("a file cannot be synced: {error}"))
            .with_hint("a grid needs a local file system; use another directory"),
    }
}

fn measure_sync(directory: &Path) -> std::io::Result<Duration> {
    let path = directory.join(format!(".doctor-sync-{}", std::process::id()));
    let mut file = File::create(&path)?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        file.write_all(&[0; SYNC_BYTES])?;
        let started = Instant::now();
        file.sync_data()?;
        times.push(started.elapsed());
    }
    drop(file);
    fs::remove_file(&path)?;
    times.sort_unstable();
    Ok(times[SYNCS / 2])
}

fn clock(directory: &Path) -> Finding {
    let check = "clock";
    let path = directory.join(format!(".doctor-clock-{}", std::process::id()));
    let stamped = fs::write(&path, b"x").and_then(|()| fs::metadata(&path)?.modified());
    let now = SystemTime::now();
    // It is of no use any more, and nothing depends on its going.
    let _ = fs::remove_file(&path);
    let shown = text::time(text::now_ms());
    if text::now_ms() < CLOCK_MIN_MS {
        return Finding::new(check, Health::Fail, format!("it is not {shown}"))
            .with_hint("set the clock: deadlines and ids depend on it");
    }
    match stamped {
        Ok(stamped) => {
            let apart = now.duration_since(stamped).unwrap_or_else(|error| error.duration());
            if apart <= CLOCK_WARN {
                return Finding::new(check, Health::Ok, format!("{shown}, and files are stamped alike"));
            }
            Finding::new(check, Health::Warn, format!("files are stamped {} apart from {shown}", text::duration(apart)))
                .with_hint("the directory lies on a machine with another clock; use a local one")
        }
        Err(error) => Finding::new(check, Health::Warn, format!("{shown}; files have no time: {error}")),
    }
}

fn lock(directory: &Path) -> Finding {
    let check = "lock";
    let path = directory.join("lock");
    let Ok(file) = File::open(&path) else {
        return Finding::new(check, Health::Ok, "free: no grid was here yet");
    };
    match file.try_lock() {
        Ok(()) => Finding::new(check, Health::Ok, "free: no grid runs here"),
        Err(TryLockError::WouldBlock) => {
            let holder = fs::read_to_string(&path).unwrap_or_default();
            Finding::new(check, Health::Ok, format!("held by process {}", holder.trim()))
        }
        Err(TryLockError::Error(error)) => Finding::new(check, Health::Fail, format!("cannot be tried: {error}"))
            .with_hint("a grid needs a file system with locks; use a local one"),
    }
}

fn token(directory: &Path) -> Finding {
    let check = "token";
    let path = directory.join("token");
    if !path.exists() {
        return Finding::new(check, Health::Ok, "none yet: the first grid that runs here writes one");
    }
    match Token::load(&path) {
        Ok(_) => Finding::new(check, Health::Ok, format!("{} is private", path.display())),
        Err(error) => Finding::new(check, Health::Fail, error.to_string())
            .with_hint("chmod 600 it if nobody else has read it; else delete it and start the grid again"),
    }
}

async fn served(directory: &Path) -> Finding {
    let check = "running grid";
    let Some(address) = Address::read(directory) else {
        let held = File::open(directory.join("lock"))
            .is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)));
        let found = if held {
            "one is starting, or a command has the directory open"
        } else {
            "none; commands open the directory themselves"
        };
        return Finding::new(check, Health::Ok, found);
    };
    let called = async {
        let token = Token::load(&address.token_file).map_err(|error| error.to_string())?;
        let remote = sheaf::Remote::new(&address.url, &token.expose()).map_err(|error| error.to_string())?;
        remote.with_retry_ms_max(ANSWER_MS_MAX).grid().await.map_err(|error| error.to_string())
    };
    answered(check, &address.url, called.await)
}

/// A grid that is not on this machine.
async fn elsewhere(settings: &Settings) -> Vec<Finding> {
    let mut findings = aws(settings).await;
    if findings.iter().any(|finding| finding.health == Health::Fail) {
        // It could only say the same again, and less clearly.
        return findings;
    }
    let place = settings.client.place.value.to_string();
    let grid = match settings.connect_options(None).connect().await {
        Ok(grid) => grid,
        Err(error) => {
            let hint = error.hint().unwrap_or("check the address in SHEAF_GRID").to_owned();
            findings.push(Finding::new("grid", Health::Fail, format!("{place}: {error}")).with_hint(hint));
            return findings;
        }
    };
    // The second goes all the way to what it stores in.
    let called = async {
        let view = grid.info().await?;
        grid.jobs(JobFilter { limit: 1, ..JobFilter::default() }).await.map(|_| view)
    };
    findings.push(answered("grid", &place, called.await.map_err(|error| error.to_string())));
    if let sheaf::Transport::Remote(remote) = grid.api() {
        let date = remote.clone().with_retry_ms_max(ANSWER_MS_MAX).date().await;
        findings.push(clock_of(date.ok().flatten().as_deref()));
    }
    findings
}

/// What can be told of a grid on AWS besides whether it answers.
#[cfg(feature = "aws")]
async fn aws(settings: &Settings) -> Vec<Finding> {
    use sheaf::{
        Place,
        aws::{check, check_credentials, load_config},
    };
    let checks = match &settings.client.place.value {
        Place::Aws(name) => check(&load_config().await, name).await,
        // Without a token, requests are signed.
        Place::Url(url) if url.starts_with("https:") && settings.client.token.value == sheaf::Token::Absent => {
            vec![check_credentials(&load_config().await).await]
        }
        _ => Vec::new(),
    };
    checks.into_iter().map(Finding::from).collect()
}

#[cfg(not(feature = "aws"))]
#[expect(clippy::unused_async, reason = "with the feature it calls AWS")]
async fn aws(_: &Settings) -> Vec<Finding> {
    Vec::new()
}

#[cfg(feature = "aws")]
impl From<sheaf::aws::Check> for Finding {
    fn from(check: sheaf::aws::Check) -> Self {
        let health = match check.health {
            sheaf::aws::Health::Ok => Health::Ok,
            sheaf::aws::Health::Warn => Health::Warn,
            sheaf::aws::Health::Fail => Health::Fail,
        };
        Self { check: check.name, health, found: check.found, hint: check.hint }
    }
}

/// Our clock against that of a server, by the date of an answer.
fn clock_of(date: Option<&str>) -> Finding {
    let check = "clock";
    let parsed = date.and_then(|date| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok());
    let Some(theirs) = parsed else {
        return Finding::new(check, Health::Warn, "cannot be told: the answer has no date");
    };
    let apart_ms = theirs.as_millisecond().abs_diff(jiff::Timestamp::now().as_millisecond());
    let found = format!("{} from the grid's", text::duration(Duration::from_millis(apart_ms)));
    match Duration::from_millis(apart_ms) {
        // Dates have whole seconds.
        apart if apart <= SKEW_WARN => Finding::new(check, Health::Ok, "as the grid's"),
        apart if apart <= SKEW_FAIL => Finding::new(check, Health::Warn, found)
            .with_hint("set the clock: AWS refuses what is signed 5 minutes off, and deadlines depend on it"),
        _ => Finding::new(check, Health::Fail, found)
            .with_hint("set the clock: AWS refuses what is signed 5 minutes off, and deadlines depend on it"),
    }
}

fn answered(check: &'static str, place: &str, answer: Result<sheaf_api::wire::GridView, String>) -> Finding {
    match answer {
        Ok(view) => {
            let slots = text::counted(view.slots.into(), "slot");
            let found = format!("{place} answers: version {}, {}, {slots}", view.version, view.backend);
            let ours = env!("CARGO_PKG_VERSION");
            if view.version == ours {
                return Finding::new(check, Health::Ok, found);
            }
            Finding::new(check, Health::Warn, found)
                .with_hint(format!("this command is of version {ours}; use the same on both sides"))
        }
        Err(error) => Finding::new(check, Health::Fail, format!("{place} does not answer: {error}"))
            .with_hint("start it again with `sheaf up`, or check the address in SHEAF_GRID"),
    }
}

fn children() -> Finding {
    let check = "child processes";
    let started = Instant::now();
    let ran =
        std::process::Command::new("true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match ran {
        Ok(status) if status.success() => {
            Finding::new(check, Health::Ok, format!("can be started, in {}", text::duration(started.elapsed())))
        }
        Ok(status) => Finding::new(check, Health::Warn, format!("`true` ended with {status}")),
        Err(error) => Finding::new(check, Health::Fail, format!("cannot be started: {error}"))
            .with_hint("functions are child processes: raise the limit on processes (ulimit -u), and check PATH"),
    }
}
