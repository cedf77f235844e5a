//! Transcripts of sessions, which are also what shows how the command is used.
//!
//! Each file is a session of its own, on a grid in a directory of its own, in the folder of files beside it. Set `TRYCMD=overwrite` to
//! take over what the command prints now; ids and times are then to be replaced by `[..]` again.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

fn session(name: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let cases = trycmd::TestCases::new();
    cases.insert_var("[DIR]", path("grid")).unwrap();
    cases
        .env("SHEAF_DIR", path("grid"))
        .env("HOME", path("home"))
        .env("XDG_CONFIG_HOME", path("config"))
        .env("XDG_DATA_HOME", path("data"))
        .env("SHEAF_SLOTS", "2")
        .env("TZ", "UTC")
        .env("SECRET", "s3cret")
        .timeout(Duration::from_secs(60))
        .case(format!("tests/cmd/{name}.md"));
    cases.run();
}

macro_rules! sessions {
    ($($name:ident),+) => {
        $(#[test]
        fn $name() {
            session(stringify!($name));
        })+
    };
}

sessions!(help, run, command, failures, errors, jobs, submit, config, cost, doctor, capacity, report, control);

#[test]
#[cfg(not(feature = "aws"))]
fn without_aws() {
    session("without_aws");
}
