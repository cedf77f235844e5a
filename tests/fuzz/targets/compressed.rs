//! Compressed streams, whole and damaged: what comes out is the same however it is read, and bounded.
#![no_main]

use std::io::{self, Read};

use libfuzzer_sys::fuzz_target;
use sheaf_api::intake::{Compression, IntakeError, inflate, limits};

fn unfold(packed: &[u8], compression: Compression, piece_bytes: usize) -> (u64, u32, Option<String>) {
    let mut inflated = inflate(packed, compression).expect("a decoder");
    let (mut piece, mut hash) = (vec![0; piece_bytes], crc32fast::Hasher::new());
    loop {
        match inflated.read(&mut piece) {
            Ok(0) => return (inflated.inflated_bytes(), hash.finalize(), None),
            Ok(bytes) => hash.update(&piece[..bytes]),
            Err(error) => {
                let error = error.downcast::<IntakeError>().unwrap_or_else(|error| panic!("not told: {error}"));
                assert!(!matches!(error, IntakeError::Io(_)), "memory can be read: {error}");
                return (inflated.inflated_bytes(), hash.finalize(), Some(error.to_string()));
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&how, packed)) = input.split_first() else { return };
    let compression = if how & 1 == 0 { Compression::Gzip } else { Compression::Zstd };
    let (bytes, hash, error) = unfold(packed, compression, 64 * 1024);
    let bytes_max = limits::INFLATION_FLOOR_BYTES.max(packed.len() as u64 * (limits::INFLATION_RATIO_MAX + 1));
    assert!(bytes <= bytes_max + 64 * 1024, "{} bytes unfolded to {bytes}", packed.len());
    // How much is asked for at once changes nothing. (Reading megabytes in crumbs only takes time.)
    if bytes < 1 << 20 {
        let again = unfold(packed, compression, usize::from(how >> 1) + 1);
        if error.is_none() {
            assert_eq!(again, (bytes, hash, error));
        } else {
            // A decoder may give what stands before the fault, or not: only the verdict is promised.
            assert_eq!(again.2.is_some(), error.is_some());
        }
    }
    if error_free(packed, compression) {
        let mut plain = Vec::new();
        io::copy(&mut inflate(packed, compression).expect("a decoder"), &mut plain).expect("it was read before");
        let packed = sheaf_fuzz::files::compress(&plain, compression);
        if !plain.is_empty() {
            let (bytes, hash, error) = unfold(&packed, compression, 1_024);
            assert_eq!((bytes, hash, error), (plain.len() as u64, crc32fast::hash(&plain), None));
        }
    }
});

/// Whether a stream is whole, and small enough to be unfolded once more in memory.
fn error_free(packed: &[u8], compression: Compression) -> bool {
    let (bytes, _, error) = unfold(packed, compression, 64 * 1024);
    error.is_none() && bytes < 1 << 20
}
