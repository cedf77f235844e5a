//! Ids: a text that is accepted is the id's own text, but for the case of hexadecimal digits; JSON agrees.
#![no_main]

use std::{fmt::Debug, str::FromStr};

use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};
use sheaf_api::intake::{Format, stem};
use sheaf_core::{ChunkKey, Digest, FunctionName, FunctionRef, JobId, Lane, Priority, TaskId, TenantId, WorkerId};

fn check<T>(text: &str)
where
    T: FromStr<Err = sheaf_core::IdError> + ToString + PartialEq + Debug + Serialize + DeserializeOwned,
{
    let json = serde_json::to_string(text).expect("a string");
    let of_json = serde_json::from_str::<T>(&json);
    match text.parse::<T>() {
        Ok(id) => {
            let own = id.to_string();
            assert!(own.eq_ignore_ascii_case(text), "{text:?} was read as {own}");
            assert_eq!(own.parse::<T>().as_ref(), Ok(&id));
            assert_eq!(of_json.expect("JSON reads what text does"), id);
            assert_eq!(serde_json::to_string(&id).expect("a string").trim_matches('"'), own);
        }
        Err(error) => {
            assert!(of_json.is_err(), "JSON reads {text:?}, which text does not");
            assert!(error.to_string().chars().count() < 2_048);
        }
    }
}

fuzz_target!(|text: &str| {
    check::<JobId>(text);
    check::<ChunkKey>(text);
    check::<TaskId>(text);
    check::<TenantId>(text);
    check::<FunctionName>(text);
    check::<WorkerId>(text);
    check::<FunctionRef>(text);
    check::<Digest>(text);
    check::<Lane>(text);
    check::<Priority>(text);
    // Names of dropped files, which the results are named after.
    assert!(text.contains(stem(text)));
    if Format::of(text).is_ok() {
        assert!(!stem(text).is_empty() && !stem(text).contains('/'));
    }
});
