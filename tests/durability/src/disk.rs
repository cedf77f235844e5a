//! What a disk may hold after a power cut.
//!
//! The model is that of a journalling file system such as ext4 (`data=ordered` and weaker) or xfs, at its most unkind:
//!
//! * A file's bytes and size are durable up to what had been written when the last `fsync` or `fdatasync` of it *began*,
//!   once that has returned. Of what was written later, anything may be on the disk (see [`Mode`]): the size without the
//!   bytes, which then read as zeros; later bytes without earlier ones; a write torn in its middle; nothing at all.
//! * Files are independent of each other.
//! * Names (creating, renaming, removing) reach the disk in their order, since the journal of metadata keeps it: what is
//!   there is a prefix of them. It goes at least up to the last change in a directory whose `fsync` has returned. Syncing
//!   a *file* is not taken to make its name durable, though these file systems do so.
//! * What has not been synced by the process before counts as durable: recordings begin on a disk that is at rest.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rand::{RngExt, rngs::StdRng};

use crate::recording::{Change, Inode, Naming, Recording, Step, Target, rename};

/// How unkind the power cut is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Not at all: the process was killed, the system wrote everything.
    Kill,
    /// Everything that was not synced is lost.
    Lost,
    /// Of each file, what was written up to some moment is there, the last write torn.
    Torn,
    /// Each write is there, or not, or in part, whatever became of the others.
    Writes,
    /// Each sector or page of a file is as it was at some moment, whatever became of the others.
    Pages,
}

impl Mode {
    /// Draws one, the nastier ones more often.
    pub fn draw(rng: &mut StdRng) -> Self {
        match rng.random_range(0..20) {
            0..2 => Self::Kill,
            2..5 => Self::Lost,
            5..10 => Self::Torn,
            10..15 => Self::Writes,
            _ => Self::Pages,
        }
    }
}

/// What became of that which was not synced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Damage {
    /// Writes that were not durable.
    pub unsynced: u64,
    /// Of these, lost.
    pub lost: u64,
    /// Of these, there in part.
    pub torn: u64,
    /// Changes of names that were lost.
    pub names: u64,
}

impl std::ops::AddAssign for Damage {
    fn add_assign(&mut self, other: Self) {
        self.unsynced += other.unsynced;
        self.lost += other.lost;
        self.torn += other.torn;
        self.names += other.names;
    }
}

/// A file's bytes; what lies beyond them up to its size is zero.
#[derive(Debug, Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    size: u64,
}

impl Content {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { offset, bytes } => {
                let (from, to) = (*offset as usize, *offset as usize + bytes.len());
                if self.bytes.len() < to {
                    self.bytes.resize(to, 0);
                }
                self.bytes[from..to].copy_from_slice(bytes);
                self.size = self.size.max(to as u64);
            }
            Change::Resize(size) => {
                self.bytes.truncate(*size as usize);
                self.size = *size;
            }
        }
    }
}

#[derive(Debug, Default)]
struct FileBytes {
    durable: Content,
    pending: Vec<Change>,
    /// Changes that have become durable so far, to count from.
    settled: usize,
}

type Names = BTreeMap<PathBuf, Option<Inode>>;

fn apply(names: &mut Names, naming: &Naming) {
    match naming {
        Naming::Create(path, inode) => drop(names.insert(path.clone(), Some(*inode))),
        Naming::Folder(path) => drop(names.insert(path.clone(), None)),
        Naming::Rename(from, to) => rename(names, from, to),
        Naming::Remove(path) => drop(names.remove(path)),
    }
}

fn touches(naming: &Naming, folder: &Path) -> bool {
    let lies_in = |path: &Path| path.parent() == Some(folder);
    match naming {
        Naming::Create(path, _) | Naming::Folder(path) | Naming::Remove(path) => lies_in(path),
        Naming::Rename(from, to) => lies_in(from) || lies_in(to),
    }
}

enum Flight {
    File(Inode, usize),
    Folder(usize),
}

/// A disk at some moment.
#[derive(Default)]
pub struct Disk {
    files: Vec<FileBytes>,
    durable: Names,
    pending: Vec<Naming>,
    settled: usize,
    flights: HashMap<usize, Flight>,
}

impl Disk {
    /// The disk on which a recording begins.
    pub fn new(recording: &Recording) -> Self {
        let mut disk = Self::default();
        for found in &recording.before {
            let inode = found.content.as_ref().map(|content| {
                let durable = Content { bytes: content.clone(), size: content.len() as u64 };
                disk.files.push(FileBytes { durable, ..FileBytes::default() });
                disk.files.len() - 1
            });
            disk.durable.insert(found.path.clone(), inode);
        }
        disk
    }

    /// Goes on by one step.
    pub fn take(&mut self, step: &Step) {
        match step {
            Step::Change(inode, change) => self.files[*inode].pending.push(change.clone()),
            Step::Naming(naming) => {
                if let Naming::Create(_, inode) = naming {
                    self.files.resize_with(self.files.len().max(inode + 1), FileBytes::default);
                }
                self.pending.push(naming.clone());
            }
            Step::SyncBegin { id, target: Target::File(inode), .. } => {
                let file = &self.files[*inode];
                self.flights.insert(*id, Flight::File(*inode, file.settled + file.pending.len()));
            }
            Step::SyncBegin { id, target: Target::Folder(folder), .. } => {
                let last = self.pending.iter().rposition(|naming| touches(naming, folder));
                self.flights.insert(*id, Flight::Folder(self.settled + last.map_or(0, |last| last + 1)));
            }
            Step::SyncEnd { id, .. } => match self.flights.remove(id) {
                Some(Flight::File(inode, until)) => {
                    let file = &mut self.files[inode];
                    let count = until.saturating_sub(file.settled);
                    for change in file.pending.drain(..count) {
                        file.durable.apply(&change);
                    }
                    file.settled += count;
                }
                Some(Flight::Folder(until)) => {
                    let count = until.saturating_sub(self.settled);
                    for naming in self.pending.drain(..count) {
                        apply(&mut self.durable, &naming);
                    }
                    self.settled += count;
                }
                None => {}
            },
            Step::Fact(_) => {}
        }
    }

    /// Writes to `directory` what the disk may hold if the power is cut now.
    pub fn crash(&self, directory: &Path, mode: Mode, rng: &mut StdRng) -> io::Result<Damage> {
        let mut damage = Damage::default();
        let kept = match mode {
            Mode::Kill => self.pending.len(),
            Mode::Lost => 0,
            Mode::Torn | Mode::Writes | Mode::Pages => rng.random_range(0..=self.pending.len()),
        };
        damage.names = (self.pending.len() - kept) as u64;
        let mut names = self.durable.clone();
        self.pending[..kept].iter().for_each(|naming| apply(&mut names, naming));
        fs::create_dir_all(directory)?;
        for (path, inode) in &names {
            let path = directory.join(path);
            match inode {
                None => fs::create_dir_all(path)?,
                Some(inode) => {
                    let file = File::create(path)?;
                    self.files[*inode].write(&file, mode, rng, &mut damage)?;
                }
            }
        }
        Ok(damage)
    }
}

const PAGE: usize = 4_096;
const SECTOR: usize = 512;
/// Written at once, unless all of it is zero.
const BLOCK: usize = 64 * 1_024;

impl FileBytes {
    fn write(&self, file: &File, mode: Mode, rng: &mut StdRng, damage: &mut Damage) -> io::Result<()> {
        for (at, block) in self.durable.bytes.chunks(BLOCK).enumerate() {
            if block.iter().any(|byte| *byte != 0) {
                file.write_all_at(block, (at * BLOCK) as u64)?;
            }
        }
        let mut image = Image { file, size: self.durable.size };
        let writes = self.pending.iter().filter(|change| matches!(change, Change::Write { .. })).count() as u64;
        damage.unsynced += writes;
        let resizes = writes < self.pending.len() as u64;
        match mode {
            Mode::Kill => self.pending.iter().try_for_each(|change| image.apply(change))?,
            Mode::Lost => damage.lost += writes,
            Mode::Torn => self.torn(&mut image, rng, damage)?,
            Mode::Writes => self.some(&mut image, rng, damage)?,
            // Pages of a file that shrinks and grows again are not told apart by moment.
            Mode::Pages if resizes => self.torn(&mut image, rng, damage)?,
            Mode::Pages => self.pages(&mut image, rng, damage)?,
        }
        file.set_len(image.size)
    }

    /// The size of the file in the system's memory.
    fn size(&self) -> u64 {
        self.pending.iter().fold(self.durable.size, |size, change| match change {
            Change::Write { offset, bytes } => size.max(offset + bytes.len() as u64),
            Change::Resize(size) => *size,
        })
    }

    fn torn(&self, image: &mut Image<'_>, rng: &mut StdRng, damage: &mut Damage) -> io::Result<()> {
        let kept = rng.random_range(0..=self.pending.len());
        self.pending[..kept].iter().try_for_each(|change| image.apply(change))?;
        let mut rest = self.pending[kept..].iter().filter(|change| matches!(change, Change::Write { .. }));
        if let Some(Change::Write { offset, bytes }) = rest.next() {
            let part = cut(*offset, bytes.len(), rng);
            image.write(*offset, &bytes[..part])?;
            if part > 0 {
                damage.torn += 1;
            } else {
                damage.lost += 1;
            }
            if rng.random() {
                image.size = image.size.max(offset + bytes.len() as u64);
            }
        }
        damage.lost += rest.count() as u64;
        Ok(())
    }

    fn some(&self, image: &mut Image<'_>, rng: &mut StdRng, damage: &mut Damage) -> io::Result<()> {
        let percent = [10, 50, 90][rng.random_range(0..3)];
        for change in &self.pending {
            let kept = rng.random_range(0..100) < percent;
            match change {
                Change::Resize(_) if kept => image.apply(change)?,
                Change::Resize(_) => {}
                Change::Write { offset, bytes } if rng.random_range(0..8) == 0 => {
                    let part = cut(*offset, bytes.len(), rng);
                    // The beginning, or the end.
                    let (at, part) = if rng.random() { (0, &bytes[..part]) } else { (part, &bytes[part..]) };
                    image.write(offset + at as u64, part)?;
                    damage.torn += 1;
                }
                Change::Write { .. } if kept => image.apply(change)?,
                Change::Write { .. } => damage.lost += 1,
            }
        }
        if rng.random() {
            image.size = image.size.max(self.size());
        }
        Ok(())
    }

    fn pages(&self, image: &mut Image<'_>, rng: &mut StdRng, damage: &mut Damage) -> io::Result<()> {
        let page = if rng.random() { PAGE } else { SECTOR };
        let percent = [20, 50, 95][rng.random_range(0..3)];
        // For each page, how many of the changes had happened when it was written; most often all or none.
        let mut moments: HashMap<usize, usize> = HashMap::new();
        let all = self.pending.len();
        for (number, change) in self.pending.iter().enumerate() {
            let Change::Write { offset, bytes } = change else { continue };
            let (mut at, end) = (*offset as usize, *offset as usize + bytes.len());
            let (mut kept, begin) = (0, at);
            while at < end {
                let next = end.min((at / page + 1) * page);
                let moment = *moments.entry(at / page).or_insert_with(|| match rng.random_range(0..100) {
                    0..10 => rng.random_range(0..=all),
                    draw if draw < percent => all,
                    _ => 0,
                });
                if number < moment {
                    image.write(at as u64, &bytes[at - begin..next - begin])?;
                    kept += next - at;
                }
                at = next;
            }
            match kept {
                0 => damage.lost += 1,
                kept if kept < bytes.len() => damage.torn += 1,
                _ => {}
            }
        }
        if rng.random() {
            image.size = image.size.max(self.size());
        }
        Ok(())
    }
}

/// Where a write is torn: at a byte, a sector or a page.
fn cut(offset: u64, bytes: usize, rng: &mut StdRng) -> usize {
    let at = rng.random_range(0..=bytes);
    let unit = [1, SECTOR, PAGE][rng.random_range(0..3)];
    let end = offset as usize + at;
    (end - end % unit).saturating_sub(offset as usize)
}

struct Image<'a> {
    file: &'a File,
    size: u64,
}

impl Image<'_> {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        if !bytes.is_empty() {
            self.size = self.size.max(offset + bytes.len() as u64);
        }
        Ok(())
    }

    fn apply(&mut self, change: &Change) -> io::Result<()> {
        match change {
            Change::Write { offset, bytes } => self.write(*offset, bytes),
            Change::Resize(size) => {
                // Bytes cut off must read as zeros if the file grows again.
                self.file.set_len(*size)?;
                self.size = *size;
                Ok(())
            }
        }
    }
}
