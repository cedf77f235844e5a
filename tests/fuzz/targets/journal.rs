//! The client's journal: what stands before the first record that makes no sense is read, as often as one likes, and can
//! be continued.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sheaf::fuzzing::{MAGIC, Opened, read_journal, write_journal};

const HEAD_BYTES: usize = 5;

/// The records with checksums that fit, as a fuzzer does not guess them.
fn sealed(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    let mut at = MAGIC.len();
    while let Some(head) = bytes.get(at..at + HEAD_BYTES) {
        let body_bytes = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let Some(end) = (at + HEAD_BYTES).checked_add(body_bytes).filter(|end| end + 4 <= bytes.len()) else { break };
        let crc = crc32fast::hash(&bytes[at..end]);
        bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
        at = end + 4;
    }
    bytes
}

fuzz_target!(|input: &[u8]| {
    for bytes in [input.to_vec(), sealed(input)] {
        let Ok(Some(Opened { job, resume, end })) = read_journal(&bytes) else { continue };
        assert!(end as usize <= bytes.len());
        // It is cut there, and is the same then.
        let cut = &bytes[..end as usize];
        let again = read_journal(cut).expect("a journal").expect("with a job");
        assert_eq!((&again.job, &again.resume, again.end), (&job, &resume, end));
        // What is written behind it is read.
        let number = resume.chunks.len() as u32;
        let longer = [cut, &write_journal::chunk(number, 7)].concat();
        let longer = read_journal(&longer).expect("a journal").expect("with a job");
        assert_eq!(longer.resume.chunks.len(), resume.chunks.len() + 1);
        // And it can be written anew.
        let anew = write_journal::whole(&job, &resume);
        let anew = read_journal(&anew).expect("a journal").expect("with a job");
        assert_eq!((anew.job, anew.resume), (job, resume));
    }
});
