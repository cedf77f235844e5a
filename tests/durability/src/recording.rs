//! From a trace to the steps of a disk: what was written where, what was made durable, and what was said in between.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::process::CommandExt,
    path::{Component, Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;

use crate::{
    fact::Fact,
    strace::{self, Call, Line},
    workload::{self, Profile},
};

/// A file, whatever it is called at the time.
pub type Inode = usize;

/// A change of a file.
#[derive(Debug, Clone)]
pub enum Change {
    /// Bytes at an offset.
    Write {
        /// Where.
        offset: u64,
        /// What.
        bytes: Bytes,
    },
    /// A new size.
    Resize(u64),
}

/// A change of names. Paths are relative to the store's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Naming {
    /// A file is created.
    Create(PathBuf, Inode),
    /// A directory is created.
    Folder(PathBuf),
    /// A file or directory is called something else, replacing what was called so.
    Rename(PathBuf, PathBuf),
    /// A file or empty directory is removed.
    Remove(PathBuf),
}

/// What is made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A file's bytes and size.
    File(Inode),
    /// The names in a directory.
    Folder(PathBuf),
}

/// One step.
#[derive(Debug, Clone)]
pub enum Step {
    /// A file has changed in the system's memory.
    Change(Inode, Change),
    /// A name has changed in the system's memory.
    Naming(Naming),
    /// A sync begins: what came before is what it makes durable.
    SyncBegin {
        /// Which.
        id: usize,
        /// Of what.
        target: Target,
        /// Under which path it was opened.
        path: PathBuf,
    },
    /// A sync has succeeded.
    SyncEnd {
        /// Which.
        id: usize,
        /// Under which path it was opened.
        path: PathBuf,
    },
    /// The workload said something.
    Fact(Fact),
}

/// A file as a recording found it.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its path.
    pub path: PathBuf,
    /// Its content; `None` for a directory.
    pub content: Option<Vec<u8>>,
}

/// A recorded run.
#[derive(Debug, Clone)]
pub struct Recording {
    /// What was in the directory before, all of it durable.
    pub before: Vec<Found>,
    /// What happened.
    pub steps: Vec<Step>,
    /// Calls that a fault was injected into.
    pub injected: usize,
}

impl Recording {
    /// How many files of a kind were made.
    pub fn made(&self, is: impl Fn(&Path) -> bool) -> usize {
        let made = |step: &&Step| matches!(step, Step::Naming(Naming::Create(path, _)) if is(path));
        self.steps.iter().filter(made).count()
    }
}

/// A fault that strace injects: a call fails, the n-th that each thread makes.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The call.
    pub call: &'static str,
    /// How it fails.
    pub error: &'static str,
    /// Which of them.
    pub nth: u32,
    /// Whether all behind it fail too.
    pub for_good: bool,
}

/// Whether system calls can be recorded here; if not, why.
pub fn unavailable() -> Option<String> {
    let ran = Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "true"]).output();
    match ran {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("strace cannot trace here: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Some(format!("no strace (Debian package strace): {error}")),
    }
}

/// Runs the workload of `program` under strace on `store`, keeping the trace and facts in `keep`.
pub fn record(
    program: &Path,
    store: &Path,
    keep: &Path,
    profile: Profile,
    seed: u64,
    fault: Option<Fault>,
) -> anyhow::Result<Recording> {
    fs::create_dir_all(store)?;
    fs::create_dir_all(keep)?;
    let store = store.canonicalize()?;
    let before = found(&store)?;
    let (trace, facts) = (keep.canonicalize()?.join("trace"), keep.canonicalize()?.join("facts"));
    let mut command = Command::new("strace");
    command.args(["-f", "--seccomp-bpf", "-qq", "-xx", "-s"]).arg(workload::FULL_BYTES_MAX.to_string());
    command.arg("-o").arg(&trace).arg("-e").arg(format!("trace={}", strace::CALLS));
    if let Some(Fault { call, error, nth, for_good }) = fault {
        let more = if for_good { "+" } else { "" };
        command.arg("-e").arg(format!("inject={call}:error={error}:when={nth}{more}"));
    }
    command.arg(program).arg("workload").arg(&store).arg(&facts);
    command.arg("--profile").arg(if profile == Profile::Small { "small" } else { "large" });
    command.arg("--seed").arg(seed.to_string());
    command.process_group(0);
    let mut child = command.stderr(fs::File::create(keep.join("stderr"))?).spawn().context("strace")?;
    let until = Instant::now() + Duration::from_secs(if profile == Profile::Small { 60 } else { 600 });
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > until {
            // strace alone would leave the workload behind, running.
            let _ = Command::new("kill").arg("-KILL").arg("--").arg(format!("-{}", child.id())).status();
            let _ = child.wait();
            bail!("the workload hangs; its trace is in {}", keep.display());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let said = || fs::read_to_string(keep.join("stderr")).unwrap_or_default();
    ensure!(status.success(), "the workload ended with {status}: {}", said());
    read(&store, &facts, before, &fs::read(&trace)?)
}

/// What lies in a directory.
pub fn found(directory: &Path) -> anyhow::Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            let path = entry.path().strip_prefix(directory)?.to_owned();
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
                found.push(Found { path, content: None });
            } else {
                found.push(Found { path, content: Some(fs::read(entry.path())?) });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Reads a trace.
pub fn read(store: &Path, facts: &Path, before: Vec<Found>, trace: &[u8]) -> anyhow::Result<Recording> {
    let mut reader = Reader {
        store: store.to_owned(),
        facts: facts.to_owned(),
        names: BTreeMap::new(),
        sizes: Vec::new(),
        descriptors: HashMap::new(),
        steps: Vec::new(),
    };
    for found in &before {
        let inode = found.content.as_ref().map(|content| {
            reader.sizes.push(content.len() as u64);
            reader.sizes.len() - 1
        });
        reader.names.insert(found.path.clone(), inode);
    }
    for line in strace::parse(trace)? {
        let (Line::Begin(_, call) | Line::End(_, call)) = &line;
        let name = call.name.clone();
        match line {
            Line::Begin(id, call) => reader.begin(id, &call),
            Line::End(id, call) => reader.end(id, call),
        }
        .with_context(|| format!("a call of {name}"))?;
    }
    let injected = trace.windows(b"(INJECTED)".len()).filter(|window| window == b"(INJECTED)").count();
    Ok(Recording { before, steps: reader.steps, injected })
}

/// What a descriptor is open on.
#[derive(Debug, Clone)]
struct Descriptor {
    path: PathBuf,
    what: What,
    appends: bool,
    position: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    File(Inode),
    Folder,
    Facts,
    /// Something outside of the store.
    Other,
}

struct Reader {
    store: PathBuf,
    facts: PathBuf,
    /// What is called how at present; `None` for a directory.
    names: BTreeMap<PathBuf, Option<Inode>>,
    sizes: Vec<u64>,
    descriptors: HashMap<i64, Descriptor>,
    steps: Vec<Step>,
}

fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(clean.pop()),
            part => clean.push(part),
        }
    }
    clean
}

impl Reader {
    /// A path inside the store; `None` for one outside.
    fn inside(&self, path: &Path) -> Option<PathBuf> {
        clean(path).strip_prefix(&self.store).ok().map(Path::to_owned)
    }

    /// A path argument, with its directory argument if there is one.
    fn path(&self, call: &Call, text: usize, folder: Option<usize>) -> anyhow::Result<PathBuf> {
        let path = call.path(text)?;
        let Some(folder) = folder.filter(|folder| path.is_relative() && call.args[*folder] != "AT_FDCWD") else {
            return Ok(path);
        };
        let folder = self.descriptors.get(&call.number(folder)?).context("an unknown directory")?;
        Ok(folder.path.join(path))
    }

    fn descriptor(&self, call: &Call) -> anyhow::Result<Option<&Descriptor>> {
        Ok(self.descriptors.get(&call.number(0)?).filter(|descriptor| descriptor.what != What::Other))
    }

    fn begin(&mut self, id: usize, call: &Call) -> anyhow::Result<()> {
        match call.name.as_str() {
            // The number may be given out again before this call is seen to end.
            "close" => drop(self.descriptors.remove(&call.number(0)?)),
            "fsync" | "fdatasync" => {
                let Some(descriptor) = self.descriptor(call)? else { return Ok(()) };
                let path = self.inside(&descriptor.path).unwrap_or_default();
                let target = match descriptor.what {
                    What::File(inode) => Target::File(inode),
                    What::Folder => Target::Folder(path.clone()),
                    What::Facts | What::Other => return Ok(()),
                };
                self.steps.push(Step::SyncBegin { id, target, path });
            }
            "pwrite64" if self.descriptor(call)?.is_some_and(|descriptor| descriptor.what == What::Facts) => {
                let text = &call.texts.first().context("a fact")?.bytes;
                self.steps.push(Step::Fact(std::str::from_utf8(text)?.parse()?));
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, id: usize, call: Call) -> anyhow::Result<()> {
        let Some(answer) = call.answer.filter(|answer| *answer >= 0) else { return Ok(()) };
        match call.name.as_str() {
            "close" | "sync_file_range" => {}
            "openat" => {
                let path = self.path(&call, 0, Some(0))?;
                self.open(answer, path, &call.args[2])?;
            }
            "open" => self.open(answer, call.path(0)?, &call.args[1])?,
            "creat" => self.open(answer, call.path(0)?, "O_CREAT|O_WRONLY|O_TRUNC")?,
            "dup" | "dup2" | "dup3" => self.duplicate(&call, answer)?,
            "fcntl" if call.args[1].starts_with("F_DUPFD") => self.duplicate(&call, answer)?,
            "fcntl" => {}
            "lseek" => {
                if let Some(descriptor) = self.descriptors.get_mut(&call.number(0)?) {
                    descriptor.position = answer as u64;
                }
            }
            "write" => self.write(&call, None, answer as u64)?,
            "pwrite64" => {
                if self.descriptor(&call)?.is_some_and(|descriptor| matches!(descriptor.what, What::File(_))) {
                    let offset = call.number(3)? as u64;
                    self.write(&call, Some(offset), answer as u64)?;
                }
            }
            "fsync" | "fdatasync" => {
                if let Some(descriptor) = self.descriptor(&call)? {
                    let path = self.inside(&descriptor.path).unwrap_or_default();
                    self.steps.push(Step::SyncEnd { id, path });
                }
            }
            "ftruncate" => {
                if let Some(Descriptor { what: What::File(inode), .. }) = self.descriptor(&call)? {
                    let (inode, bytes) = (*inode, call.number(1)? as u64);
                    self.resize(inode, bytes);
                }
            }
            "rename" => self.rename(&call.path(0)?, &call.path(1)?)?,
            "renameat" | "renameat2" => {
                let (from, to) = (self.path(&call, 0, Some(0))?, self.path(&call, 1, Some(2))?);
                self.rename(&from, &to)?;
            }
            "unlink" | "rmdir" => self.remove(&call.path(0)?),
            "unlinkat" => {
                let path = self.path(&call, 0, Some(0))?;
                self.remove(&path);
            }
            "mkdir" => self.folder(&call.path(0)?),
            "mkdirat" => {
                let path = self.path(&call, 0, Some(0))?;
                self.folder(&path);
            }
            "mmap" => {
                let writes = call.args[2].contains("PROT_WRITE") && call.args[3].contains("MAP_SHARED");
                let ours = call.args[4].parse().ok().and_then(|number: i64| self.descriptors.get(&number));
                let ours = ours.is_some_and(|descriptor| descriptor.what != What::Other);
                ensure!(!(writes && ours), "the store writes through memory, which cannot be recorded");
            }
            other => {
                let by_path =
                    call.texts.iter().any(|text| text.bytes.starts_with(self.store.as_os_str().as_encoded_bytes()));
                let by_number = call.number(0).is_ok_and(|number| {
                    self.descriptors.get(&number).is_some_and(|descriptor| descriptor.what != What::Other)
                });
                ensure!(!(by_path || by_number), "{other} on the store is not understood");
            }
        }
        Ok(())
    }

    fn open(&mut self, number: i64, path: PathBuf, flags: &str) -> anyhow::Result<()> {
        let has = |flag: &str| flags.split('|').any(|other| other == flag);
        let mut descriptor =
            Descriptor { path: clean(&path), what: What::Other, appends: has("O_APPEND"), position: 0 };
        if descriptor.path == self.facts {
            descriptor.what = What::Facts;
        } else if let Some(inside) = self.inside(&path) {
            ensure!(!has("O_TMPFILE") && !has("O_DSYNC") && !has("O_SYNC"), "{flags} is not understood");
            descriptor.what = match self.names.get(&inside) {
                _ if inside.as_os_str().is_empty() => What::Folder,
                Some(None) => What::Folder,
                Some(Some(inode)) => {
                    let inode = *inode;
                    if has("O_TRUNC") && self.sizes[inode] > 0 {
                        self.resize(inode, 0);
                    }
                    What::File(inode)
                }
                None => {
                    ensure!(has("O_CREAT"), "{} was opened and is not there", inside.display());
                    let inode = self.sizes.len();
                    self.sizes.push(0);
                    self.names.insert(inside.clone(), Some(inode));
                    self.steps.push(Step::Naming(Naming::Create(inside, inode)));
                    What::File(inode)
                }
            };
        }
        self.descriptors.insert(number, descriptor);
        Ok(())
    }

    fn duplicate(&mut self, call: &Call, answer: i64) -> anyhow::Result<()> {
        if let Some(descriptor) = self.descriptors.get(&call.number(0)?).cloned() {
            self.descriptors.insert(answer, descriptor);
        }
        Ok(())
    }

    fn resize(&mut self, inode: Inode, bytes: u64) {
        self.sizes[inode] = bytes;
        self.steps.push(Step::Change(inode, Change::Resize(bytes)));
    }

    fn write(&mut self, call: &Call, offset: Option<u64>, written: u64) -> anyhow::Result<()> {
        let number = call.number(0)?;
        let Some(descriptor) = self.descriptors.get_mut(&number) else { return Ok(()) };
        let What::File(inode) = descriptor.what else { return Ok(()) };
        let path = descriptor.path.clone();
        let at = match offset {
            Some(offset) => offset,
            None if descriptor.appends => self.sizes[inode],
            None => descriptor.position,
        };
        if offset.is_none() {
            descriptor.position = at + written;
        }
        let text = call.texts.first().context("no bytes")?;
        let asked = call.number(2)? as usize;
        let bytes = if text.is_cut {
            workload::whole(&text.bytes, asked).with_context(|| {
                let begin = &text.bytes[..text.bytes.len().min(32)];
                format!("{asked} bytes at {at} of {} are no blob of the workload: {begin:02x?}", path.display())
            })?
        } else {
            text.bytes.clone().into()
        };
        self.sizes[inode] = self.sizes[inode].max(at + written);
        let change = Change::Write { offset: at, bytes: bytes.slice(..written as usize) };
        self.steps.push(Step::Change(inode, change));
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> anyhow::Result<()> {
        let (Some(from), Some(to)) = (self.inside(from), self.inside(to)) else { return Ok(()) };
        rename(&mut self.names, &from, &to);
        self.steps.push(Step::Naming(Naming::Rename(from, to)));
        Ok(())
    }

    fn remove(&mut self, path: &Path) {
        if let Some(path) = self.inside(path) {
            self.names.remove(&path);
            self.steps.push(Step::Naming(Naming::Remove(path)));
        }
    }

    fn folder(&mut self, path: &Path) {
        if let Some(path) = self.inside(path).filter(|path| !path.as_os_str().is_empty()) {
            self.names.insert(path.clone(), None);
            self.steps.push(Step::Naming(Naming::Folder(path)));
        }
    }
}

/// Calls something and all below it something else.
pub(crate) fn rename<T>(names: &mut BTreeMap<PathBuf, T>, from: &Path, to: &Path) {
    let moved: Vec<PathBuf> = names.keys().filter(|path| path.starts_with(from)).cloned().collect();
    for path in moved {
        if let (Some(node), Ok(rest)) = (names.remove(&path), path.strip_prefix(from)) {
            let new = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            names.insert(new, node);
        }
    }
}
