//! Functions that fail, each in its own way, so that one can see how the grid tells the ways apart.
//!
//! | function | arguments | what happens | who notices |
//! |---|---|---|---|
//! | `fail` | `type`, `message` | an error is answered | the task fails with that type and message |
//! | `fail_times` | `n`, `file` | an error for the first `n` calls with this `file`, then a count | retries |
//! | `flaky` | `p` = 0.5 | an error with probability `p`, else `"ok"` | retries |
//! | `crash` | | the process aborts | the death of the process |
//! | `hang` | | no answer, ever | the timeout |
//! | `leak` | | takes and touches memory without end | the memory limit |
//! | `shout` | `bytes` = 1 GB | so many on stdout and on stderr, then `bytes` | only the log, which keeps the end |
//! | `huge` | `bytes` = 8 MiB | an answer of that size | the output limit |
//! | `leave` | `after_ms` = 20 | answers `"left"`, then the process exits | the next task, if sent within that time |

use std::{
    borrow::Cow,
    fs::OpenOptions,
    future,
    hint::black_box,
    io::{self, Write as _},
    path::Path,
    process, thread,
    time::Duration,
};

use crate::Failure;

/// What `shout` writes to each of its two streams unless told otherwise.
pub const SHOUT_BYTES: u64 = 1_000_000_000;
/// The size of the answer of `huge` unless told otherwise: over the 6 MiB that Lambda allows.
pub const HUGE_BYTES: u64 = 8 * 1024 * 1024;
/// How long `leave` stays after its answer unless told otherwise: long enough for the answer to be sent.
pub const LEAVE_AFTER_MS: u64 = 20;

/// Dies by SIGABRT.
pub fn crash() -> ! {
    eprintln!("crash: aborting, as asked");
    process::abort()
}

/// Never answers, and uses no core.
pub async fn hang() -> ! {
    eprintln!("hang: waiting for ever, as asked");
    future::pending().await
}

/// Takes 16 MiB after 16 MiB, and writes to every page of it. Only for a process with a memory limit.
pub fn leak() -> ! {
    let mut held = Vec::new();
    loop {
        held.push(vec![1_u8; 16 * 1024 * 1024]);
        black_box(&held);
        eprintln!("leak: {} MiB", held.len() * 16);
    }
}

/// Writes so many bytes to stdout, and as many to stderr.
pub fn shout(bytes: u64) -> Result<u64, Failure> {
    let failed = |source| Failure::Io { action: "write to stdout and stderr".into(), source };
    let block = "All work and no play makes this function a noisy one, line after line.\n".repeat(1_000);
    let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left).map_or(block.len(), |left| left.min(block.len()));
        stdout.write_all(&block.as_bytes()[..part]).map_err(failed)?;
        stderr.write_all(&block.as_bytes()[..part]).map_err(failed)?;
        left -= part as u64;
    }
    stdout.flush().map_err(failed)?;
    Ok(bytes)
}

/// A string whose JSON has so many bytes.
pub fn huge(bytes: u64) -> String {
    "x".repeat(usize::try_from(bytes.saturating_sub(2)).unwrap_or(usize::MAX))
}

/// Answers, and exits soon after.
pub fn leave(after_ms: u64) -> &'static str {
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(after_ms));
        process::exit(0);
    });
    "left"
}

/// The error that was asked for.
pub fn fail(kind: Option<Cow<'_, str>>, message: Option<Cow<'_, str>>) -> Failure {
    Failure::Asked {
        kind: kind.map_or_else(|| "ExampleFailure".into(), Cow::into_owned),
        message: message.map_or_else(|| "failed as asked".into(), Cow::into_owned),
    }
}

/// Fails for the first `n` calls that share `file`. Each call adds a byte to it, so its size tells how often the task
/// was run, whichever process ran it.
pub fn fail_times(n: i64, file: &Path) -> Result<u64, Failure> {
    let failed = |source| Failure::Io { action: format!("count calls in {}", file.display()), source };
    let mut counter = OpenOptions::new().create(true).append(true).open(file).map_err(failed)?;
    counter.write_all(b".").map_err(failed)?;
    let calls = counter.metadata().map_err(failed)?.len();
    if i64::try_from(calls).is_ok_and(|calls| calls <= n) {
        return Err(Failure::Asked { kind: "NotYet".into(), message: format!("call {calls} of {n} that fail") });
    }
    Ok(calls)
}

/// Fails with probability `p`, taken as between 0 and 1.
pub fn flaky(p: f64) -> Result<&'static str, Failure> {
    if rand::random_bool(p.clamp(0.0, 1.0)) {
        return Err(Failure::Asked { kind: "Unlucky".into(), message: format!("failed with probability {p}") });
    }
    Ok("ok")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fails_so_often_and_then_no_more() {
        let file = std::env::temp_dir().join(format!("fail-times-{}", process::id()));
        let kinds: Vec<_> = (0..4).map(|_| fail_times(2, &file).map_err(|failure| failure.kind().to_owned())).collect();
        std::fs::remove_file(&file).expect("written above");
        assert_eq!(kinds, [Err("NotYet".into()), Err("NotYet".into()), Ok(3), Ok(4)]);
    }

    #[test]
    fn luck_has_bounds() {
        assert!(flaky(0.0).is_ok() && flaky(-1.0).is_ok());
        assert!(flaky(1.0).is_err() && flaky(7.0).is_err());
    }

    #[test]
    fn huge_counts_its_quotes() {
        assert_eq!(serde_json::to_string(&huge(100)).expect("a string").len(), 100);
    }
}
