//! What Linux says of processes in `/proc`: who belongs to a child, when it started, what memory it holds.

use std::{
    collections::HashSet,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::limits;

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    /// Clock ticks from boot to its start: with the pid, its identity.
    pub(crate) started_ticks: u64,
    pub(crate) resident_pages: u64,
}

/// Reads one process; `None` when it is gone.
pub(crate) fn read(pid: i32) -> Option<Row> {
    parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads a line of `/proc/{pid}/stat`. The name in parentheses may hold anything, so fields are counted behind the last.
fn parse(pid: i32, stat: &str) -> Option<Row> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let started_ticks = fields.nth(16)?.parse().ok()?;
    let resident_pages = fields.nth(1)?.parse().ok()?;
    Some(Row { pid, parent, group, started_ticks, resident_pages })
}

/// Reads all processes.
pub(crate) fn scan() -> Vec<Row> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| read(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect()
}

/// The processes of a child: its group, and descendants that left the group.
pub(crate) fn members(rows: &[Row], leader: i32) -> Vec<Row> {
    let mut inside: HashSet<i32> = HashSet::from([leader]);
    loop {
        let before = inside.len();
        let joins = |row: &&Row| row.group == leader || inside.contains(&row.parent);
        let found: Vec<i32> = rows.iter().filter(joins).map(|row| row.pid).collect();
        inside.extend(found);
        if inside.len() == before {
            return rows.iter().filter(|row| inside.contains(&row.pid)).copied().collect();
        }
    }
}

/// A view of all processes, read at most once per [`limits::SAMPLE`] however many children are watched, and never for more
/// than a twentieth of the time.
#[derive(Default)]
pub(crate) struct ProcTable {
    view: Mutex<View>,
}

#[derive(Default)]
struct View {
    rows: Arc<[Row]>,
    fresh_until: Option<Instant>,
}

impl ProcTable {
    /// Resident bytes of a child and its descendants. Pages that several of them share are counted for each.
    pub(crate) fn resident_bytes(&self, leader: i32) -> u64 {
        let rows = {
            let mut view = self.view.lock();
            let now = Instant::now();
            if view.fresh_until.is_none_or(|until| now >= until) {
                view.rows = scan().into();
                view.fresh_until = Some(now + (20 * now.elapsed()).max(limits::SAMPLE - Duration::from_millis(10)));
            }
            Arc::clone(&view.rows)
        };
        let pages: u64 = members(&rows, leader).iter().map(|row| row.resident_pages).sum();
        pages * rustix::param::page_size() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_a_wild_name_is_read() {
        let line = "42 (a ) (b 7) S 1 40 40 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1000 77 18446744073709551615";
        let row = Row { pid: 42, parent: 1, group: 40, started_ticks: 12_345, resident_pages: 77 };
        assert_eq!(parse(42, line), Some(row));
        assert_eq!(parse(42, "42 (a) S"), None);
    }

    #[test]
    fn members_are_the_group_and_all_descendants() {
        let row = |pid, parent, group| Row { pid, parent, group, started_ticks: 0, resident_pages: 1 };
        let rows = [row(9, 8, 9), row(5, 1, 5), row(6, 5, 5), row(7, 1, 5), row(8, 6, 8), row(20, 1, 20)];
        let pids: Vec<i32> = members(&rows, 5).iter().map(|row| row.pid).collect();
        assert_eq!(pids, [9, 5, 6, 7, 8]);
    }

    #[test]
    fn this_process_has_memory() {
        let own = i32::try_from(std::process::id()).expect("pids are small");
        assert!(ProcTable::default().resident_bytes(own) > 100_000);
    }
}
