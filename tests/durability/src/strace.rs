//! Reading what strace has written: calls, in the order in which they began and ended.
//!
//! Strings come as hexadecimal escapes (`-xx`), so that commas, brackets and quotes are always strace's own.

use anyhow::{Context, bail};

/// The calls that are recorded: every one that can change a file or a name, or make a change durable, or that is needed to
/// know what a file descriptor is.
pub const CALLS: &str = "openat,open,openat2,creat,close,dup,dup2,dup3,fcntl,write,pwrite64,writev,pwritev,pwritev2,lseek,\
fsync,fdatasync,sync_file_range,sync,syncfs,msync,ftruncate,truncate,fallocate,rename,renameat,renameat2,unlink,unlinkat,\
rmdir,mkdir,mkdirat,link,linkat,symlink,symlinkat,copy_file_range,sendfile,splice,mmap,io_uring_setup";

/// A string argument; strace cuts long ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Its bytes, as far as strace gives them.
    pub bytes: Vec<u8>,
    /// Whether there were more.
    pub is_cut: bool,
}

/// A call.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Its arguments that are no strings, as strace writes them; strings are left empty.
    pub args: Vec<String>,
    /// Its strings.
    pub texts: Vec<Text>,
    /// What it answered; `None` while it has not ended, and when it never did.
    pub answer: Option<i64>,
}

/// Something in the trace.
#[derive(Debug, Clone)]
pub enum Line {
    /// A call begins; the number tells it from others.
    Begin(usize, Call),
    /// A call ends.
    End(usize, Call),
}

/// Reads a trace.
pub fn parse(trace: &[u8]) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    let mut open: Vec<(u32, usize, Vec<u8>)> = Vec::new();
    for (number, line) in trace.split(|byte| *byte == b'\n').enumerate() {
        let Some(space) = line.iter().position(|byte| *byte == b' ') else { continue };
        let parse = || -> anyhow::Result<Option<(u32, &[u8])>> {
            let pid = std::str::from_utf8(&line[..space])?.parse()?;
            Ok(Some((pid, line[space..].trim_ascii())))
        };
        let Some((pid, rest)) = parse().with_context(|| format!("line {}", number + 1))? else { continue };
        if rest.starts_with(b"+++") || rest.starts_with(b"---") {
            continue;
        }
        if let Some(rest) = rest.strip_prefix(b"<... ") {
            let resumed = find(rest, b" resumed>").context("a resumed call")?;
            let Some(at) = open.iter().position(|(other, ..)| *other == pid) else { continue };
            let (_, id, mut text) = open.remove(at);
            text.extend_from_slice(&rest[resumed + b" resumed>".len()..]);
            lines.push(Line::End(id, call(&text).with_context(|| format!("line {}", number + 1))?));
        } else if let Some(text) = rest.strip_suffix(b"<unfinished ...>") {
            lines.push(Line::Begin(number, call(text).with_context(|| format!("line {}", number + 1))?));
            open.push((pid, number, text.to_vec()));
        } else {
            let call = call(rest).with_context(|| format!("line {}", number + 1))?;
            lines.push(Line::Begin(number, Call { answer: None, ..call.clone() }));
            lines.push(Line::End(number, call));
        }
    }
    Ok(lines)
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// `name(args) = answer`, or the part of it before `<unfinished ...>`.
fn call(text: &[u8]) -> anyhow::Result<Call> {
    let open = text.iter().position(|byte| *byte == b'(').context("no call")?;
    let name = std::str::from_utf8(&text[..open])?.to_owned();
    let mut call = Call { name, args: vec![String::new()], texts: Vec::new(), answer: None };
    let mut at = open + 1;
    let mut depth = 0;
    while at < text.len() {
        match text[at] {
            b'"' => {
                let end = at + 1 + text[at + 1..].iter().position(|byte| *byte == b'"').context("an open string")?;
                let bytes = unescape(&text[at + 1..end])?;
                let is_cut = text[end + 1..].starts_with(b"...");
                call.texts.push(Text { bytes, is_cut });
                at = end;
            }
            b',' if depth == 0 => call.args.push(String::new()),
            b')' if depth == 0 => {
                call.answer = answer(&text[at + 1..])?;
                break;
            }
            byte => {
                match byte {
                    b'(' | b'[' | b'{' => depth += 1,
                    b')' | b']' | b'}' => depth -= 1,
                    _ => {}
                }
                call.args.last_mut().expect("there is always one").push(char::from(byte));
            }
        }
        at += 1;
    }
    call.args.iter_mut().for_each(|arg| *arg = arg.trim().to_owned());
    Ok(call)
}

fn unescape(text: &[u8]) -> anyhow::Result<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).context("a hexadecimal digit");
    text.chunks(4)
        .map(|escape| match escape {
            [b'\\', b'x', high, low] => Ok((digit(*high)? * 16 + digit(*low)?) as u8),
            _ => bail!("a string that is not in hexadecimal escapes"),
        })
        .collect()
}

/// ` = 12`, ` = -1 EIO (Input/output error) (INJECTED)`, ` = ?`, ` = 0x7f…`.
fn answer(text: &[u8]) -> anyhow::Result<Option<i64>> {
    let text = std::str::from_utf8(text)?.trim().trim_start_matches('=').trim();
    let word = text.split_whitespace().next().unwrap_or("?");
    if word == "?" {
        return Ok(None);
    }
    let number = word.strip_prefix("0x").map_or_else(|| word.parse(), |hex| i64::from_str_radix(hex, 16));
    Ok(number.ok())
}

impl Call {
    /// A number among the arguments.
    pub fn number(&self, index: usize) -> anyhow::Result<i64> {
        let arg = self.args.get(index).with_context(|| format!("{} has no argument {index}", self.name))?;
        arg.parse().with_context(|| format!("{}({index}) is {arg:?}", self.name))
    }

    /// A path among the strings.
    pub fn path(&self, index: usize) -> anyhow::Result<std::path::PathBuf> {
        use std::os::unix::ffi::OsStringExt;
        let text = self.texts.get(index).with_context(|| format!("{} has no path {index}", self.name))?;
        Ok(std::ffi::OsString::from_vec(text.bytes.clone()).into())
    }
}
