//! Ids: each has one text, which is read back as the same id; anything else is refused with what was expected.

use std::{fmt::Display, str::FromStr};

use proptest::prelude::*;
use sheaf_core::{
    ChunkKey, Digest, FunctionName, FunctionRef, IdError, JobId, Lane, Priority, TaskId, TenantId, WorkerId,
};

const HEX: &str = "0190a5b2c3d47e8f8a1b2c3d4e5f6071";

fn config() -> ProptestConfig {
    ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() }
}

fn job() -> impl Strategy<Value = JobId> {
    any::<[u8; 16]>().prop_map(JobId::from_bytes)
}

fn task() -> impl Strategy<Value = TaskId> {
    (job(), any::<u32>(), any::<u32>())
        .prop_map(|(job, number, index)| TaskId { chunk: ChunkKey { job, number }, index })
}

fn check_round_trip<T: FromStr<Err = IdError> + Display + PartialEq + std::fmt::Debug>(id: &T) {
    assert_eq!(id.to_string().parse().as_ref(), Ok(id));
}

/// Reads a text as an id; one that is accepted is the id's own text, but for the case of hexadecimal digits.
fn check_hostile<T: FromStr<Err = IdError> + Display + PartialEq + std::fmt::Debug>(text: &str) {
    match text.parse::<T>() {
        Ok(id) => {
            check_round_trip(&id);
            assert!(id.to_string().eq_ignore_ascii_case(text), "{text:?} was read as {id}");
        }
        Err(error) => assert!(error.to_string().contains(" is not "), "{error}"),
    }
}

fn check_hostile_as_all(text: &str) {
    check_hostile::<JobId>(text);
    check_hostile::<ChunkKey>(text);
    check_hostile::<TaskId>(text);
    check_hostile::<TenantId>(text);
    check_hostile::<FunctionName>(text);
    check_hostile::<WorkerId>(text);
    check_hostile::<FunctionRef>(text);
    check_hostile::<Digest>(text);
    check_hostile::<Lane>(text);
    check_hostile::<Priority>(text);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_id_is_read_back(task in task(), bytes in any::<[u8; 32]>(), name in "[A-Za-z0-9_-][A-Za-z0-9_.-]{0,59}") {
        check_round_trip(&task);
        check_round_trip(&task.chunk);
        check_round_trip(&task.chunk.job);
        check_round_trip(&Digest::from_bytes(bytes));
        check_round_trip(&name.parse::<TenantId>().expect("a tenant"));
        check_round_trip(&format!("wrk_{name}").parse::<WorkerId>().expect("a worker"));
        let name: FunctionName = name.parse().expect("a function name");
        let version: String = Digest::from_bytes(bytes).to_string().chars().take(12).collect();
        check_round_trip(&FunctionRef { name, version: version.into() });
    }

    #[test]
    fn no_text_panics_and_none_has_two_readings(text in any::<String>()) {
        check_hostile_as_all(&text);
    }

    #[test]
    fn nor_does_an_id_with_a_wound(task in task(), at in any::<prop::sample::Index>(), wound in "[-+/ .{}:@a-f0-9A-Fé\u{0}]{0,3}") {
        let whole = task.to_string();
        let at = at.index(whole.len());
        check_hostile_as_all(&format!("{}{wound}{}", &whole[..at], &whole[at..]));
        check_hostile_as_all(&format!("{}{wound}", &whole[..at]));
        check_hostile_as_all(&format!("wrk_{wound}@{}", &whole[at..]));
    }

    #[test]
    fn json_holds_ids_as_text(task in task(), bytes in any::<[u8; 32]>()) {
        let (job, digest) = (task.chunk.job, Digest::from_bytes(bytes));
        prop_assert_eq!(serde_json::to_string(&job).expect("JSON"), format!("\"{job}\""));
        prop_assert_eq!(serde_json::to_string(&digest).expect("JSON"), format!("\"{digest}\""));
        let text = serde_json::to_vec(&(job, task, digest)).expect("JSON");
        prop_assert_eq!(serde_json::from_slice::<(JobId, TaskId, Digest)>(&text).expect("ids"), (job, task, digest));
        // Escapes, so that the text cannot be borrowed from the JSON.
        let escaped = format!("\"\\u006aob_{}\"", &job.to_string()[4..]);
        prop_assert_eq!(serde_json::from_str::<JobId>(&escaped).expect("an id"), job);
    }
}

#[test]
fn near_misses_are_refused_with_what_was_expected() {
    let refused = |result: Result<String, IdError>| result.expect_err("not an id").to_string();
    let job = |text: &str| refused(text.parse::<JobId>().map(|id| id.to_string()));
    let task = |text: &str| refused(text.parse::<TaskId>().map(|id| id.to_string()));
    let tenant = |text: &str| refused(text.parse::<TenantId>().map(|id| id.to_string()));
    let worker = |text: &str| refused(text.parse::<WorkerId>().map(|id| id.to_string()));
    let function = |text: &str| refused(text.parse::<FunctionRef>().map(|id| id.to_string()));
    let digest = |text: &str| refused(text.parse::<Digest>().map(|id| id.to_string()));
    let told = [
        job(""),
        job(HEX),
        job("job_0190a5b2-c3d4-7e8f-8a1b-2c3d4e5f6071"),
        job(&format!("job_{{{HEX}}}")),
        job(&format!("job_{HEX} ")),
        task(&format!("job_{HEX}/1")),
        task(&format!("job_{HEX}/+1/2")),
        task(&format!("job_{HEX}/01/2")),
        task(&format!("job_{HEX}/1/2/3")),
        task(&format!("job_{HEX}/1/4294967296")),
        tenant(""),
        tenant(".."),
        tenant("a/b"),
        tenant(&"x".repeat(65)),
        worker("wrk_"),
        worker("wrk_.."),
        worker("abc"),
        function("square"),
        function("square@0123"),
        function("@0123456789ab"),
        function("square@0123456789xy"),
        digest("00"),
    ];
    let told = told.join("\n");
    insta::assert_snapshot!("refused", told);
}

#[test]
fn hexadecimal_digits_are_read_in_either_case_and_written_in_one() {
    let upper: FunctionRef = "square@0123456789AB".parse().expect("a function version");
    assert_eq!(upper, "square@0123456789ab".parse().expect("a function version"));
    let job: JobId = format!("job_{}", HEX.to_uppercase()).parse().expect("a job id");
    assert_eq!(job.to_string(), format!("job_{HEX}"));
}

#[test]
fn an_upload_is_one_job_however_often_it_is_told_of() {
    let id = JobId::of_upload("bucket", "inbox/a.json", "v1");
    assert_eq!(id, JobId::of_upload("bucket", "inbox/a.json", "v1"));
    // Pinned: a grid of another version must find the same job.
    assert_eq!(id.to_string(), "job_2e4d08dc79e38a88bd01bcb13e12d939");
    let others = [("bucket", "inbox/a.json", "v2"), ("bucketinbox", "/a.json", "v1"), ("bucket", "inbox/a.jsonv1", "")];
    assert!(others.iter().all(|(bucket, key, version)| JobId::of_upload(bucket, key, version) != id));
    assert_eq!((id.as_bytes()[6] >> 4, id.as_bytes()[8] >> 6), (8, 0b10), "not a UUIDv8");
}
