//! Writes the seeds of every target: `cargo run --manifest-path tests/fuzz/Cargo.toml --example seeds`.
//!
//! A seed is one input that gets a target past its first checks. What a fuzzer finds stays under `target/`; an input that
//! once crashed something is added here, under a name that says what it did.

use std::{fs, path::PathBuf};

use bytes::Bytes;
use sheaf_api::{
    PackBuilder, SegmentBuilder,
    intake::Compression,
    stream::{PageHead, encode_chunk_set, encode_function, encode_submission},
    wire::{ChunkHead, CreateJob, JobView, PutFunction, SubmitChunk},
};
use sheaf_core::{
    Chunk, ChunkEvent, ChunkKey, ChunkSet, ChunkSpec, Digest, Estimate, Failure, FailureKind, FunctionKind, Job, JobId,
    JobOptions, JobState, Manifest, Mark, Owner, Summary, TenantId,
};
use sheaf_fuzz::files::compress;

#[allow(dead_code, unreachable_pub, reason = "the store uses all of it")]
#[path = "../../../shared/local/src/keys.rs"]
mod keys;

const ID: &str = "job_0190a5b2c3d47e8f8a1b2c3d4e5f6071";

fn seed(target: &str, name: &str, bytes: impl AsRef<[u8]>) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).expect("the folder can be made");
    fs::write(folder.join(name), bytes).expect("the seed can be written");
}

/// Behind the byte that says how it is read.
fn led(by: u8, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    [&[by], bytes.as_ref()].concat()
}

fn main() {
    frames();
    parts();
    files();
    json();
    texts();
    journal();
    rows();
}

fn job_id() -> JobId {
    ID.parse().expect("a job id")
}

fn pack(functions: bool, keys: bool, compress: bool) -> sheaf_api::Pack {
    let mut builder = PackBuilder::new();
    for task in 0..4u16 {
        let payload = format!("{{\"n\":{task},\"text\":\"{}\"}}", "x".repeat(200));
        let payload = if task == 2 { &b""[..] } else { payload.as_bytes() };
        let key = if keys { format!("clé {task}") } else { String::new() };
        builder.push_task(payload, if functions { task % 3 } else { 0 }, &key).expect("within limits");
    }
    builder.finish(compress)
}

fn segment(compress: bool) -> Bytes {
    let mut builder = SegmentBuilder::new();
    let failure = Failure::new(FailureKind::Error, "no such thing");
    builder.succeeded(0, &b"\"a result\"".repeat(60), 12).expect("within limits");
    builder.failed(1, Mark::Failed, &failure, 7).expect("within limits");
    builder.failed(5, Mark::Quarantined, &failure, 0).expect("within limits");
    builder.finish(compress)
}

fn frames() {
    seed("pack", "plain", pack(false, false, false).bytes());
    seed("pack", "functions_and_keys", pack(true, true, false).bytes());
    seed("pack", "zstd", pack(true, true, true).bytes());
    seed("pack", "empty", PackBuilder::new().finish(false).bytes());
    // `flags, entries, body`: the body of a pack of two, with keys, to be compressed.
    let body = [&2u32.to_le_bytes()[..], &3u32.to_le_bytes(), b"abc", &[1, 0, 0, 0, 1, 0, 0, 0], b"k"].concat();
    seed("pack", "body_with_keys", [&[4, 2, 0][..], &body].concat());
    seed("pack", "body_to_compress", [&[5, 2, 0][..], &body].concat());
    seed("segment", "plain", segment(false));
    seed("segment", "zstd", segment(true));
    let body = [&2u32.to_le_bytes()[..], b"ok", &[1], &[3, 0, 0, 0], &[9, 0, 0, 0]].concat();
    seed("segment", "body", [&[0, 1, 0][..], &body].concat());
    seed("segment", "body_to_compress", [&[1, 1, 0][..], &body].concat());
}

fn job() -> Job {
    let options = JobOptions::new(vec!["square@0123456789ab".parse().expect("a version")]);
    Job {
        id: job_id(),
        tenant: TenantId::default(),
        options,
        options_digest: Digest::of(b"options"),
        origin: None,
        created_at_ms: 1_700_000_000_000,
        state: JobState::Open,
    }
}

fn view() -> JobView {
    let estimate = Estimate { tasks: 3, mean_us: 12.5, p95_us: 40.0 };
    JobView { job: job(), summary: Summary::default(), estimate, slots: 2, boot_ms: 0 }
}

fn manifest() -> Manifest {
    let argv = vec!["convert".into(), "{input}".into()];
    Manifest::new("thumbnail".parse().expect("a name"), FunctionKind::Command { argv })
}

fn parts() {
    let chunk = |number| SubmitChunk { number, task_first: 4 * u64::from(number), pack: pack(false, true, false) };
    seed("parts", "submission", led(0, encode_submission(&[chunk(0), chunk(1)])));
    let head = ChunkHead { number: 0, task_first: 0, tasks: 6, ended: None };
    let head = serde_json::to_vec(&PageHead { job: view(), chunks: vec![(head, 1, true)] }).expect("JSON");
    let part = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat();
    let page = [part(&head), part(&segment(false)), part(pack(false, false, false).bytes())].concat();
    seed("parts", "results", led(1, page));
    let package = Some(Bytes::from_static(b"PK\x03\x04"));
    seed("parts", "function", led(2, encode_function(&PutFunction { manifest: manifest(), package })));

    let sets: [(&str, ChunkSet); 3] = [
        ("array", ChunkSet::from([1, 5, 70_000])),
        ("runs", (0..100_000).collect()),
        ("bitmap", (0..9_000).map(|number| number * 3).collect()),
    ];
    for (name, set) in sets {
        let text = encode_chunk_set(&set);
        if text.len() < 4_096 {
            seed("chunk_set", &format!("{name}_text"), &text);
        }
        let mut bytes = Vec::new();
        set.serialize_into(&mut bytes).expect("memory takes it");
        bytes.truncate(4_096);
        seed("chunk_set", name, bytes);
    }
}

fn files() {
    let commands = r#"{"a":{"type":"greet","arguments":{"arg1":"Hello"}}, "b\u00e9":{"type":"sum","arguments":[1, 2.5e3]},
  "c":{"type":"greet"}, "lone \"quote\"":{"arguments":null}}"#;
    seed("command_file", "plain", led(1, commands));
    seed("command_file", "gzip", led(3, commands));
    seed("command_file", "zstd_in_crumbs", led(4 | 1 << 3, commands));
    seed("command_file", "bom", led(0, "\u{feff}{\"a\":{\"type\":\"f\"}}"));
    seed("command_file", "duplicate", led(0, r#"{"a":{"type":"f"},"\u0061":{"type":"f"}}"#));
    seed("command_file", "lone_surrogate", led(0, r#"{"a":{"type":"f","arguments":"\ud800"}}"#));
    seed("command_file", "cut", led(0, r#"{"a":{"type":"f","argu"#));
    let lines = "{\"id\":\"x\",\"type\":\"f\",\"arguments\":[1]}\n\n{\"id\":7,\"type\":\"g\"}\r\n{\"type\":\"f\"}";
    seed("ndjson", "commands", led(0, lines));
    seed("ndjson", "payloads_as_zstd", led(5, "{\"n\":1}\n\"text\"\n12345678901234567890123\n{\"type\":\"g\"}\n"));
    seed("ndjson", "nul_and_rubbish", led(1, b"\"a\0b\"\n\xff\n"));
    seed("ndjson", "number_that_is_taken", led(0, "{\"id\":\"2\",\"type\":\"f\"}\n{\"type\":\"f\"}\n"));
    seed("csv", "rows", led(0, "id,type,a,\"b,\"\"\"\r\n1,f,x,\"y\r\nz\"\r\n,g,,\n"));
    seed("csv", "rows_as_gzip", led(3, "a,b\n1,2\n\"\"\"\",é\n"));
    seed("csv", "ragged", led(1, "a,b\n1\n"));
    seed("csv", "open_quote", led(1, "a\n\"x"));
    for (name, compression, how) in [("gzip", Compression::Gzip, 6), ("zstd", Compression::Zstd, 7)] {
        let one = compress(&commands.repeat(3).into_bytes(), compression);
        seed("compressed", name, led(how, &one));
        seed("compressed", &format!("{name}_twice"), led(how, [&one[..], &one].concat()));
        seed("compressed", &format!("{name}_cut"), led(how, &one[..one.len() - 5]));
        seed("compressed", &format!("{name}_zeros"), led(how, compress(&vec![0; 1 << 20], compression)));
    }
}

fn json() {
    let request = CreateJob { name: "eod".into(), ..CreateJob::new(job_id(), vec!["price".into()]) };
    let value = |value: &dyn Fn() -> serde_json::Result<Vec<u8>>| value().expect("JSON");
    seed("requests", "create_job", led(0, value(&|| serde_json::to_vec(&request))));
    seed("requests", "manifest", led(1, value(&|| serde_json::to_vec(&manifest()))));
    seed("requests", "options", led(2, value(&|| serde_json::to_vec(&job().options))));
    let reply = r#"{"answers":[{"answer":"accepted"},{"answer":"refused","error":{"code":"throttled","message":"later",
        "retry_after_ms":20}}],"estimate":{"tasks":1,"mean_us":0.1,"p95_us":1e300},"slots":2}"#;
    seed("requests", "reply", led(3, reply));
    seed("requests", "view", led(4, value(&|| serde_json::to_vec(&view()))));
    seed("requests", "filter", led(5, format!(r#"{{"alive":true,"name":"é","before":"{ID}","limit":5}}"#)));
    seed("requests", "head", led(7, r#"{"number":1,"task_first":5,"tasks":3,"ended":"cancelled"}"#));
    let error = r#"{"code":"not_found","message":"\ud83d\ude00","hint":"h"}"#;
    seed("requests", "error", led(14, error));
    let failure = Failure::new(FailureKind::Exited, "exit code 3");
    seed("requests", "failure", led(15, value(&|| serde_json::to_vec(&failure))));
    seed("requests", "chunk", led(17, value(&|| serde_json::to_vec(&chunk(true)))));
}

fn texts() {
    for (name, text) in [
        ("job", ID.to_owned()),
        ("chunk", format!("{ID}/7")),
        ("task", format!("{ID}/7/1023")),
        ("worker", "wrk_0190a5b2".into()),
        ("function", "square@0123456789AB".into()),
        ("digest", Digest::of(b"seed").to_string()),
        ("lane", "on-demand".into()),
        ("file", "inbox/a b.ndjson.gz".into()),
    ] {
        seed("ids", name, text);
    }
    let functions = r#"[functions.price]
package = "lambda/price"
handler = "app.main"
timeout = "1h30m"
memory = "512MiB"
output_max = "6 MB"
batch = true
result = "text"
env = { A = "${A:-x}", B = "$$5" }

[functions."thumb.nail"]
command = ["convert", "{input}", "-"]
ordered = true

[functions.far]
lambda = "arn:aws:lambda:eu-west-1:1:function:x"
"#;
    seed("functions_file", "three", functions);
    seed("functions_file", "variables", "a ${A} ${B:-two}${EMPTY:-} $$ $ {");
    seed("functions_file", "wrong", "[functions.f]\ntimeout = \"5 parsecs\"\ncommand = []\nlambda = \"é\"\n");
    seed(
        "settings",
        "directory",
        "[grid]\ndirectory = \"data\"\nslots = 3\ndurable = false\n[client]\nlinger_ms = 7\n",
    );
    seed("settings", "url", "[grid]\nurl = \"http://grid:7433\"\ntoken_file = \"token\"\n[cli]\noutput = \"json\"\n");
    seed("settings", "two", "[grid]\nmemory = true\nurl = \"x\"\n");
    let result =
        r#"{"a":[1,-0.0,1e400,1e16,123456789012345678901234567890,true,null,"it's \"\u0001\ud83d\ude00"],"a":{}}"#;
    seed("python_text", "every_kind", result);
    seed("python_text", "lone_surrogate", r#"["\ud800","\udc00\ud800"]"#);
    seed("python_text", "deep", "[".repeat(600) + &"]".repeat(600));
}

fn journal() {
    let record = |kind: u8, body: &[u8]| {
        let head = [&[kind][..], &(body.len() as u32).to_le_bytes(), body].concat();
        let crc = crc32fast::hash(&head).to_le_bytes();
        [&head[..], &crc].concat()
    };
    let numbers = |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let request = serde_json::to_string(&CreateJob::new(job_id(), vec!["price".into()])).expect("JSON");
    let begun = [b"SHJN\x01\0\0\0", &record(1, format!("{{\"request\":{request},\"compress\":true}}").as_bytes())[..]];
    let begun = begun.concat();
    let chunks = [record(2, &[1; 8]), record(3, &numbers(&[0, 3])), record(3, &numbers(&[1, 1024]))].concat();
    let ends = [record(4, &numbers(&[1])), record(6, &numbers(&[0, 2])), record(5, &numbers(&[2, 1027, 0]))].concat();
    seed("journal", "begun", &begun);
    seed("journal", "whole", [&begun[..], &chunks, &ends].concat());
    seed("journal", "torn", [&begun[..], &chunks, &ends[..ends.len() - 3]].concat());
    seed("journal", "out_of_turn", [&begun[..], &ends, &chunks].concat());
}

fn chunk(leased: bool) -> Chunk {
    let key = ChunkKey { job: job_id(), number: 3 };
    let spec = ChunkSpec {
        key,
        tenant: TenantId::default(),
        task_first: 12,
        tasks: 5,
        digest: Digest::of(b"pack"),
        pack_bytes: 100,
        deadline_ms: Some(9),
        priority: sheaf_core::Priority::High,
        lane: sheaf_core::Lane::Spot,
        submitted_at_ms: 1,
    };
    let queued = Chunk::apply(None, &ChunkEvent::Submit { spec: Box::new(spec) }).expect("there is none");
    if !leased {
        return queued;
    }
    let owner = Owner { worker: "wrk_a".parse().expect("a worker"), nonce: 7 };
    Chunk::apply(Some(&queued), &ChunkEvent::Claim { owner, now_ms: 2, until_ms: 30_000 }).expect("it is queued")
}

fn rows() {
    seed("rows", "queued", led(0, keys::encode_chunk(&chunk(false))));
    seed("rows", "leased", led(0, keys::encode_chunk(&chunk(true))));
    seed("rows", "sum", led(1, keys::encode_sum(3, None)));
    seed("rows", "sum_ended", led(1, keys::encode_sum(3, Some(Default::default()))));
    seed("rows", "keys", led(2, keys::encode_keys(&[chunk(false).spec.key])));
    seed("rows", "due", led(3, keys::due(17, chunk(false).spec.key)));
    seed("rows", "job", led(4, keys::encode_json(&job())));
    seed("rows", "manifest", led(4, keys::encode_json(&manifest())));
}
