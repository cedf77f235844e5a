//! Sets of chunks, as they stand in a URL.
#![no_main]

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use sheaf_api::stream::{decode_chunk_set, encode_chunk_set};
use sheaf_core::limits;

fn check(text: &str) {
    let Ok(set) = decode_chunk_set(text) else { return };
    assert!(set.max().is_none_or(|number| number < limits::JOB_CHUNKS_MAX));
    assert_eq!(set.iter().take(10_000).filter(|number| !set.contains(*number)).count(), 0);
    assert_eq!(decode_chunk_set(&encode_chunk_set(&set)).expect("what was read can be sent"), set);
}

fuzz_target!(|input: &[u8]| {
    if let Ok(text) = str::from_utf8(input) {
        check(text);
    }
    check(&URL_SAFE_NO_PAD.encode(input));
});
