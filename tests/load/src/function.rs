//! The tasks' function: linked into this process, or a child process of the grid.
//!
//! The child is this very program: a package of one line of shell that starts it again as [`serve`]. So there is nothing to
//! build or to find, and nothing to declare by hand, as long as the grid is on this machine.

use std::{
    io::{Cursor, Write},
    path::{Path, PathBuf},
};

use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::value::RawValue;
use sheaf::{Bytes, Failure, FailureKind, Function, FunctionKind, Grid, Manifest, core::Digest, wire::PutFunction};
use zip::{CompressionMethod, DateTime, ZipWriter, write::SimpleFileOptions};

use crate::{
    error::LoadError,
    scenario::Kind,
    work::{Failed, perform},
};

/// Memory of a child: far above what it needs.
const MEMORY_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// How long a task may run: longer than any is asked to.
const TIMEOUT_MS: u64 = 2 * 3_600 * 1_000;

/// The tasks' function, as a client calls it.
pub type TaskFunction = Function<Vec<u8>, Bytes>;

/// How this program is started as a function's child process.
#[derive(Debug, Clone)]
pub struct Child {
    /// The program.
    pub program: PathBuf,
    /// The arguments that make it call [`serve`].
    pub arguments: Vec<String>,
}

/// Declares the function of a kind, and links it in if it is a handler.
pub async fn declare(grid: &Grid, kind: Kind, child: &Child) -> Result<TaskFunction, LoadError> {
    let name = match kind {
        Kind::Handler => {
            let run = |payload: &[u8], result: &mut Vec<u8>| {
                perform(payload, result).map_err(|failed| Failure::new(FailureKind::Error, failed.to_string()))
            };
            return Ok(grid.handler_raw("bench", run).await?);
        }
        Kind::Batch => "bench_batch",
        Kind::Single => "bench_single",
    };
    let package = package(child)?;
    let digest = Digest::of(&package);
    let name = name.parse().expect("the name is one of the two above");
    let mut manifest = Manifest::new(name, FunctionKind::Package { digest, handler: "bench".to_owned() });
    manifest.batch = kind == Kind::Batch;
    manifest.memory_bytes_max = MEMORY_BYTES_MAX;
    manifest.timeout_ms = TIMEOUT_MS;
    let declared = grid.put_function(PutFunction { manifest, package: Some(package) }).await?;
    Ok(Function::raw(declared.reference.to_string()))
}

/// A zip whose `bootstrap` starts the child.
fn package(child: &Child) -> Result<Bytes, LoadError> {
    let file = |source| LoadError::File { doing: "packed", path: child.program.clone(), source };
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o755);
    zip.start_file("bootstrap", options).map_err(|error| file(error.into()))?;
    zip.write_all(bootstrap(&child.program, &child.arguments).as_bytes()).map_err(file)?;
    let packed = zip.finish().map_err(|error| file(error.into()))?;
    Ok(packed.into_inner().into())
}

fn bootstrap(program: &Path, arguments: &[String]) -> String {
    let program = program.display().to_string();
    let words = std::iter::once(&program).chain(arguments).map(|word| format!("'{}'", word.replace('\'', r"'\''")));
    format!("#!/bin/sh\nexec {}\n", words.collect::<Vec<_>>().join(" "))
}

/// Serves as a function's child process until the grid ends it. A child is given one invocation at a time, so one thread does;
/// this blocks it.
pub fn serve() -> Result<(), LoadError> {
    let failed = |wrong: String| LoadError::Served { wrong };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answer = service_fn(|event: LambdaEvent<Box<RawValue>>| async move {
        answer(event.payload.get())
            .map_err(|error| Diagnostic { error_type: "Failed".to_owned(), error_message: error.to_string() })
    });
    let runtime = runtime.map_err(|error| failed(error.to_string()))?;
    runtime.block_on(lambda_runtime::run(answer)).map_err(|error| failed(error.to_string()))
}

/// The answer to a task, or to a batch of them.
fn answer(payload: &str) -> Result<Box<RawValue>, Failed> {
    if !payload.starts_with('[') {
        let mut result = Vec::with_capacity(payload.len());
        perform(payload.as_bytes(), &mut result)?;
        return raw(result);
    }
    let tasks: Vec<&RawValue> = serde_json::from_str(payload).map_err(|error| Failed::Foreign(error.to_string()))?;
    let mut results = Vec::with_capacity(payload.len() + 2);
    results.push(b'[');
    for (at, task) in tasks.iter().enumerate() {
        if at > 0 {
            results.push(b',');
        }
        let before = results.len();
        if let Err(failed) = perform(task.get().as_bytes(), &mut results) {
            results.truncate(before);
            let failure = serde_json::json!({ "errorType": "Failed", "errorMessage": failed.to_string() });
            results.extend_from_slice(failure.to_string().as_bytes());
        }
    }
    results.push(b']');
    raw(results)
}

fn raw(result: Vec<u8>) -> Result<Box<RawValue>, Failed> {
    let text = String::from_utf8(result).expect("results are made of ASCII");
    RawValue::from_string(text).map_err(|error| Failed::Foreign(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Mix;

    #[test]
    fn a_child_answers_as_a_handler_does() {
        let mix = Mix { fail_share: 0.5, ..Mix::default() };
        let payloads: Vec<String> =
            (0..20).map(|number| String::from_utf8(mix.task(1, number).payload(number)).expect("ASCII")).collect();
        let batch = answer(&format!("[{}]", payloads.join(","))).expect("answered");
        let answers: Vec<&RawValue> = serde_json::from_str(batch.get()).expect("an array");
        assert_eq!(answers.len(), payloads.len());
        for (number, (payload, of_batch)) in payloads.iter().zip(answers).enumerate() {
            let work = mix.task(1, number as u64);
            match answer(payload) {
                Ok(alone) => {
                    assert!(alone.get() == of_batch.get() && work.is_result(number as u64, alone.get().as_bytes()))
                }
                Err(failed) => assert!(work.fails && of_batch.get().contains(&failed.to_string()), "{failed}"),
            }
        }
    }

    #[test]
    fn any_path_is_one_word() {
        let script = bootstrap(Path::new("/a b/it's/sheaf"), &["bench".to_owned()]);
        assert_eq!(script, "#!/bin/sh\nexec '/a b/it'\\''s/sheaf' 'bench'\n");
    }
}
