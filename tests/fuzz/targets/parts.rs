//! The framed bodies of the HTTP API: submissions, pages of results, functions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sheaf_api::stream::{
    decode_function, decode_results, decode_submission, encode_function, encode_results, encode_submission,
};
use sheaf_core::limits;

fuzz_target!(|input: &[u8]| {
    let Some((&which, body)) = input.split_first() else { return };
    let body = sheaf_fuzz::frames::sealed_parts(body);
    match which % 3 {
        0 => {
            let Ok(chunks) = decode_submission(body.clone()) else { return };
            assert!(chunks.len() <= limits::WRITES_PER_CALL_MAX);
            assert_eq!(encode_submission(&chunks), body, "a submission has one form");
        }
        1 => {
            let Ok(page) = decode_results(body) else { return };
            let again = decode_results(encode_results(&page).concat().into()).expect("what was read can be sent");
            assert_eq!(again.job, page.job);
            assert_eq!(again.chunks.len(), page.chunks.len());
            for (was, is) in page.chunks.iter().zip(&again.chunks) {
                assert_eq!((&was.head, &was.segments, &was.pack), (&is.head, &is.segments, &is.pack));
            }
        }
        _ => {
            let Ok(function) = decode_function(body) else { return };
            let again = decode_function(encode_function(&function)).expect("what was read can be sent");
            assert_eq!((again.manifest, again.package), (function.manifest, function.package));
        }
    }
});
