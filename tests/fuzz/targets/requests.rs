//! The JSON of requests, replies and manifests: what is read can be written and is read as the same.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};
use sheaf_api::{
    ApiError,
    stream::{PageHead, manifest_json},
    wire::{
        ChunkHead, CreateJob, EventView, FunctionView, GridView, JobFilter, JobView, Page, RetryJob, SealJob,
        SubmitReply, TaskView, WorkerView,
    },
};
use sheaf_core::{Chunk, Failure, FunctionRef, JobOptions, Manifest, Outcome};

fn read<T: Serialize + DeserializeOwned + Debug>(json: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(json).ok()?;
    let text = serde_json::to_vec(&value).expect("what was read can be written");
    let again: T = serde_json::from_slice(&text)
        .unwrap_or_else(|error| panic!("{error}: {}\n{value:?}", String::from_utf8_lossy(&text)));
    let again = serde_json::to_vec(&again).expect("what was read can be written");
    assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&text), "written twice in two ways");
    Some(value)
}

fuzz_target!(|input: &[u8]| {
    let Some((&which, json)) = input.split_first() else { return };
    match which % 18 {
        0 => {
            let Some(request) = read::<CreateJob>(json) else { return };
            let function: FunctionRef = "f@0123456789ab".parse().expect("a version");
            let _ = request.options(vec![function; request.functions.len()], false).check();
        }
        1 => {
            let Some(manifest) = read::<Manifest>(json) else { return };
            let canonical = manifest_json(&manifest);
            assert_eq!(serde_json::from_slice::<Manifest>(&canonical).expect("canonical"), manifest);
            assert_eq!(manifest.reference(&canonical).name, manifest.name);
            let _ = manifest.check();
        }
        2 => drop(read::<JobOptions>(json).map(|options| options.check())),
        3 => drop(read::<SubmitReply>(json)),
        4 => drop(read::<JobView>(json)),
        5 => drop(read::<JobFilter>(json)),
        6 => drop(read::<Page<EventView>>(json)),
        7 => drop(read::<ChunkHead>(json)),
        8 => drop(read::<TaskView>(json)),
        9 => drop(read::<FunctionView>(json)),
        10 => drop(read::<WorkerView>(json)),
        11 => drop(read::<GridView>(json)),
        12 => drop(read::<RetryJob>(json)),
        13 => drop(read::<SealJob>(json)),
        14 => drop(read::<ApiError>(json).map(|error| error.outcome())),
        15 => drop(read::<Failure>(json).map(Failure::capped)),
        16 => drop((read::<Outcome>(json), read::<PageHead>(json))),
        _ => drop(read::<Chunk>(json)),
    }
});
