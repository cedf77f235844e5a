//! Results as Python prints them.
//!
//! The files that people drop are mostly written and read by Python scripts, whose authors expect the line that
//! `print(id, result)` would have given, not JSON.

use super::{
    limits,
    python_scalar::{decode, plain, write_number, write_repr, write_text},
    window::is_space,
};

/// Appends a JSON text in the form of Python's `str(json.loads(text))`: a string as its bare text (which may span lines),
/// anything else as `[2, 3]`, `{'a': 1}`, `True`, `None`, `1e+16`. Of equal keys in an object the last value stands at the
/// first one's place.
///
/// Bytes that are not one JSON value in UTF-8, and values that nest deeper than [`limits::PYTHON_NESTING_MAX`], are
/// appended as they are. Differences from Python: lone surrogates at the top, which it cannot print, are written as
/// escapes; `NaN` and the like are not JSON and stay; which characters count as printable is of Unicode as this program's
/// compiler knows it; integers over 4,300 digits print.
///
/// Cost: one pass, plus a sort of each object's keys; memory is 32 bytes per key of the objects that are open.
///
/// ```
/// let mut out = Vec::new();
/// sheaf_api::intake::python_text(br#"{"primes": [2, 3], "name": "it's", "done": true}"#, &mut out);
/// assert_eq!(out, br#"{'primes': [2, 3], 'name': "it's", 'done': True}"#);
/// ```
pub fn python_text(json: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let printed = str::from_utf8(json).is_ok_and(|text| Printer::new(text, out).print().is_some());
    if !printed {
        out.truncate(start);
        out.extend_from_slice(json);
    }
}

/// Walks a text once. What is open is on a stack of its own, so that no text can exhaust the thread's.
struct Printer<'a> {
    rest: &'a str,
    out: &'a mut Vec<u8>,
    open: Vec<Open>,
    members: Vec<Member>,
    points: Vec<u32>,
    order: Vec<usize>,
}

enum Open {
    Array,
    /// Its start in the output, and its first member.
    Object {
        start: usize,
        first: usize,
    },
}

/// Where a member of an open object lies in the output.
struct Member {
    key_start: usize,
    key_end: usize,
    value_end: usize,
}

/// What comes next in the text.
enum Next {
    Value,
    /// What follows a value.
    After,
}

/// Between a key and its value.
const COLON: &[u8] = b": ";

impl<'a> Printer<'a> {
    fn new(text: &'a str, out: &'a mut Vec<u8>) -> Self {
        let (open, members, points, order) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { rest: text, out, open, members, points, order }
    }

    /// None if the text is no JSON value, or nests too deep; the output is then in any state.
    fn print(mut self) -> Option<()> {
        let mut next = Next::Value;
        loop {
            next = match (next, self.peek()) {
                (Next::Value, byte) => self.value(byte?)?,
                (Next::After, None) if self.open.is_empty() => return Some(()),
                (Next::After, byte) => self.after(byte?)?,
            };
        }
    }

    fn value(&mut self, byte: u8) -> Option<Next> {
        match byte {
            b'{' => {
                self.skip(1);
                if self.peek()? == b'}' {
                    return Some(self.close(b"{}"));
                }
                self.enter(Open::Object { start: self.out.len(), first: self.members.len() }, b'{')?;
                return self.key();
            }
            b'[' => {
                self.skip(1);
                if self.peek()? == b']' {
                    return Some(self.close(b"[]"));
                }
                self.enter(Open::Array, b'[')?;
                return Some(Next::Value);
            }
            b'"' => self.string(!self.open.is_empty())?,
            b't' => self.word("true", b"True")?,
            b'f' => self.word("false", b"False")?,
            b'n' => self.word("null", b"None")?,
            _ => {
                let taken = write_number(self.rest, self.out)?;
                self.skip(taken);
            }
        }
        Some(Next::After)
    }

    fn after(&mut self, byte: u8) -> Option<Next> {
        let open = self.open.last()?;
        if let (Open::Object { .. }, Some(member)) = (open, self.members.last_mut()) {
            member.value_end = self.out.len();
        }
        match (byte, open) {
            (b',', open) => {
                let is_object = matches!(open, Open::Object { .. });
                self.skip(1);
                self.out.extend_from_slice(b", ");
                if is_object { self.key() } else { Some(Next::Value) }
            }
            (b']', Open::Array) => {
                self.open.pop();
                Some(self.close(b"]"))
            }
            (b'}', &Open::Object { start, first }) => {
                self.open.pop();
                let next = self.close(b"}");
                self.last_value_wins(start, first);
                self.members.truncate(first);
                Some(next)
            }
            _ => None,
        }
    }

    fn enter(&mut self, open: Open, bracket: u8) -> Option<()> {
        (self.open.len() < limits::PYTHON_NESTING_MAX).then_some(())?;
        self.open.push(open);
        self.out.push(bracket);
        Some(())
    }

    fn close(&mut self, written: &[u8]) -> Next {
        self.out.extend_from_slice(written);
        self.skip(1);
        Next::After
    }

    fn key(&mut self) -> Option<Next> {
        self.peek()?;
        let key_start = self.out.len();
        self.string(true)?;
        let key_end = self.out.len();
        self.members.push(Member { key_start, key_end, value_end: key_end });
        (self.peek()? == b':').then_some(())?;
        self.skip(1);
        self.out.extend_from_slice(COLON);
        Some(Next::Value)
    }

    fn string(&mut self, repr: bool) -> Option<()> {
        let taken = match plain(self.rest) {
            Some(text) => {
                let quote: &[u8] = if repr { b"'" } else { b"" };
                [quote, text, quote].iter().for_each(|part| self.out.extend_from_slice(part));
                text.len() + 2
            }
            None => {
                let taken = decode(self.rest, &mut self.points)?;
                let write = if repr { write_repr } else { write_text };
                write(&self.points, self.out);
                taken
            }
        };
        self.skip(taken);
        Some(())
    }

    fn word(&mut self, json: &str, python: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(json)?;
        self.out.extend_from_slice(python);
        Some(())
    }

    /// The next byte that is not space.
    fn peek(&mut self) -> Option<u8> {
        let space = self.rest.bytes().take_while(|&byte| is_space(byte)).count();
        self.skip(space);
        self.rest.bytes().next()
    }

    fn skip(&mut self, count: usize) {
        self.rest = &self.rest[count..];
    }

    /// Writes the object that was just closed anew if it holds a key twice. Equal keys have equal forms, and only they.
    fn last_value_wins(&mut self, start: usize, first: usize) {
        let (out, members) = (&mut *self.out, &self.members[first..]);
        let key = |index: usize| &out[members[index].key_start..members[index].key_end];
        self.order.clear();
        self.order.extend(0..members.len());
        self.order.sort_unstable_by(|&a, &b| key(a).cmp(key(b)).then(a.cmp(&b)));
        if self.order.windows(2).all(|pair| key(pair[0]) != key(pair[1])) {
            return;
        }
        // First and last member of each key, by the first.
        let mut kept: Vec<(usize, usize)> =
            self.order.chunk_by(|&a, &b| key(a) == key(b)).map(|same| (same[0], same[same.len() - 1])).collect();
        kept.sort_unstable();
        let mut object = vec![b'{'];
        for (index, &(named, valued)) in kept.iter().enumerate() {
            if index > 0 {
                object.extend_from_slice(b", ");
            }
            let value = &members[valued];
            object.extend_from_slice(key(named));
            object.extend_from_slice(COLON);
            object.extend_from_slice(&out[value.key_end + COLON.len()..value.value_end]);
        }
        object.push(b'}');
        out.truncate(start);
        out.extend_from_slice(&object);
    }
}
