//! Kills the grid and starts it again.

use std::{
    fs::OpenOptions,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use sheaf_e2e::Up;

use super::Place;

/// A grid that is not back after so long is a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// The kill at which a planted bug loses what was acknowledged.
const PLANTED_AT: u32 = 5;

/// Kills the grid until the soak is over; gives it back running. Empties the newest journal in `planted` once.
pub(crate) fn run(mut up: Up, place: &Place, every: Duration, planted: Option<&Path>) -> anyhow::Result<Up> {
    for kill in 1.. {
        // A life may also be very short: while the store is being opened, or the backlog taken up.
        let life = if rand::random_range(0..8) == 0 { 0.0..0.3 } else { 0.5..1.5 };
        std::thread::sleep(every.mul_f64(rand::random_range(life)));
        if !place.goes_on() {
            return Ok(up);
        }
        ensure!(up.ended().is_none(), "sheaf up ended by itself");
        let killed_at = Instant::now();
        up.kill();
        place.tally.grid_kills.fetch_add(1, Relaxed);
        if let Some(rows) = planted.filter(|_| kill == PLANTED_AT) {
            empty_newest_journal(rows)?;
        }
        up.restart()?;
        while !answers(&place.url) {
            ensure!(killed_at.elapsed() < PATIENCE, "the grid is not back after {} s", PATIENCE.as_secs());
            std::thread::sleep(Duration::from_millis(2));
        }
        place.tally.recovered(killed_at.elapsed());
    }
    Ok(up)
}

fn empty_newest_journal(rows: &Path) -> anyhow::Result<()> {
    let paths = std::fs::read_dir(rows)?.map(|entry| entry.map(|entry| entry.path()));
    let journals = paths.filter(|path| path.as_ref().is_ok_and(|path| path.extension().is_some_and(|it| it == "jnl")));
    let newest = journals.collect::<Result<Vec<_>, _>>()?.into_iter().max();
    OpenOptions::new().write(true).open(newest.context("a journal")?)?.set_len(0)?;
    Ok(())
}

/// Whether a request is answered.
fn answers(url: &str) -> bool {
    let address = url.trim_start_matches("http://");
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        write!(stream, "GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(answer.ends_with(b"200"))
    };
    ask().unwrap_or(false)
}
