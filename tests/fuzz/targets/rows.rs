//! Rows of the local store: what is read can be written, and is read as the same.
//!
//! Rows are private to the store; the file that reads them is compiled here as it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sheaf_core::{Estimate, Job, Manifest};

#[allow(dead_code, unreachable_pub, reason = "the store uses all of it")]
#[path = "../../../shared/local/src/keys.rs"]
mod keys;

fuzz_target!(|input: &[u8]| {
    let Some((&which, row)) = input.split_first() else { return };
    match which % 5 {
        0 => {
            let Ok(chunk) = keys::decode_chunk(row) else { return };
            assert_eq!(keys::decode_chunk(&keys::encode_chunk(&chunk)).expect("a row"), chunk);
        }
        1 => {
            let Some((tasks, ended)) = keys::decode_sum(row) else { return };
            assert_eq!(keys::decode_sum(&keys::encode_sum(tasks, ended)), Some((tasks, ended)));
        }
        2 => {
            let Ok(found) = keys::decode_keys(row) else { return };
            assert_eq!(keys::decode_keys(&keys::encode_keys(&found)).expect("a row"), found);
        }
        3 => {
            if let Some(key) = keys::parse_chunk(row) {
                assert_eq!(keys::chunk(key), row);
            }
            if let Some((due_ms, key)) = keys::parse_due(row) {
                assert_eq!(keys::due(due_ms, key), row);
            }
        }
        _ => {
            if let Ok(job) = keys::decode_json::<Job>(row, "a job") {
                assert_eq!(keys::decode_json::<Job>(&keys::encode_json(&job), "a job").expect("a row"), job);
            }
            if let Ok(manifest) = keys::decode_json::<Manifest>(row, "a function") {
                let row = keys::encode_json(&manifest);
                assert_eq!(keys::decode_json::<Manifest>(&row, "a function").expect("a row"), manifest);
            }
            let _ = keys::decode_json::<Estimate>(row, "an estimate");
        }
    }
});
