//! Measures how many no-op tasks a second each kind of function takes on this machine.
//!
//! `cargo run --release -p sheaf-host --example throughput [words to choose by]`
//!
//! The package is this program itself: started with the Runtime API's environment it is a function on the public
//! `lambda_runtime` crate that answers what it was asked.

use std::{
    fs,
    io::{Cursor, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::Value;
use sheaf_api::{Pack, PackBuilder};
use sheaf_core::{ChunkKey, Digest, FunctionKind, JobId, Manifest};
use sheaf_host::{Call, Handler, HandlerBatch, Handlers, Host, HostOptions, PackageSource};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

type Error = Box<dyn std::error::Error + Send + Sync>;

struct OnePackage(Bytes);

impl PackageSource for OnePackage {
    fn fetch(&self, _: Digest) -> BoxFuture<'_, Result<Bytes, String>> {
        Box::pin(async { Ok(self.0.clone()) })
    }
}

fn main() -> Result<(), Error> {
    if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let echo = |event: LambdaEvent<Value>| async move { Ok::<_, lambda_runtime::Error>(event.payload) };
        return runtime.block_on(lambda_runtime::run(service_fn(echo)));
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> Result<(), Error> {
    let slots = std::thread::available_parallelism()?.get();
    let dir = tempfile::tempdir()?;
    let zip = package()?;
    let digest = Digest::of(&zip);
    let options = HostOptions::builder().scratch(dir.path()).slots(slots).packages(Arc::new(OnePackage(zip)));
    let host = Host::open(options.handlers(handlers()?).build())?;
    let named = |name: &str, kind| Ok::<_, Error>(Manifest::new(name.parse()?, kind));
    let linked = || FunctionKind::Handler { revision: String::new() };
    let package = || FunctionKind::Package { digest, handler: String::new() };
    let command = |argv: &[&str]| FunctionKind::Command { argv: argv.iter().map(|&arg| arg.to_owned()).collect() };
    let batch = |manifest| Manifest { batch: true, ..manifest };

    println!("{slots} cores; payloads and results of 64 bytes, 1,000 tasks a call unless it says otherwise");
    for calls in [1, slots] {
        println!("{calls} call(s) at once:");
        rate(&host, "handler", calls, 1_000, named("echo", linked())?).await;
        rate(&host, "handler, 1 task a call", calls, 1, named("echo", linked())?).await;
        rate(&host, "handler, async", calls, 1_000, named("echo-async", linked())?).await;
        rate(&host, "handler, batch", calls, 1_000, batch(named("echo-batch", linked())?)).await;
        rate(&host, "package, batch", calls, 1_000, batch(named("batch", package())?)).await;
        rate(&host, "package", calls, 1_000, named("one", package())?).await;
        rate(&host, "package, 1 task a call", calls, 1, named("one", package())?).await;
        rate(&host, "command /bin/true", calls, 100, named("true", command(&["/bin/true"]))?).await;
        rate(&host, "command cat", calls, 100, named("cat", command(&["cat"]))?).await;
    }
    host.shutdown().await;
    Ok(())
}

fn handlers() -> Result<Handlers, Error> {
    let echo = Handler::new(|_, payload, result| {
        result.extend_from_slice(payload);
        Ok(())
    });
    let echo_async = Handler::new_async(|_, payload| async move { Ok(payload) });
    let echo_batch = Handler::new_batch(|batch: &mut HandlerBatch<'_>| {
        batch.tasks().for_each(|(task, payload)| batch.succeed(task, payload));
        Ok(())
    });
    let handlers = Handlers::new().with("echo".parse()?, echo).with("echo-async".parse()?, echo_async);
    Ok(handlers.with("echo-batch".parse()?, echo_batch))
}

/// This program as a package.
fn package() -> Result<Bytes, Error> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().unix_permissions(0o755).compression_method(CompressionMethod::Stored);
    writer.start_file("bootstrap", options)?;
    writer.write_all(&fs::read(std::env::current_exe()?)?)?;
    Ok(writer.finish()?.into_inner().into())
}

fn pack(tasks: u32) -> Pack {
    let mut pack = PackBuilder::new();
    let payload = format!(r#"{{"n":12345,"text":"{}"}}"#, "x".repeat(43));
    (0..tasks).for_each(|_| pack.push(payload.as_bytes()).expect("small"));
    pack.finish(false)
}

/// Whether the arguments ask for this one: all of them, or those that hold a word given.
fn is_asked(what: &str) -> bool {
    let words: Vec<String> = std::env::args().skip(1).collect();
    words.is_empty() || words.iter().any(|word| what.contains(word.as_str()))
}

/// Makes calls for two seconds after a first one, and prints the tasks a second.
async fn rate(host: &Host, what: &str, calls: usize, tasks: u32, manifest: Manifest) {
    if !is_asked(what) {
        return;
    }
    let canonical = serde_json::to_vec(&manifest).expect("JSON");
    let call = Call {
        tenant: sheaf_core::TenantId::default(),
        function: manifest.reference(&canonical),
        manifest: Arc::new(manifest),
        chunk: ChunkKey { job: JobId::from_bytes([1; 16]), number: 0 },
        epoch: 1,
        pack: pack(tasks),
        tasks: (0..tasks).collect(),
        deadline_ms: None,
        budget: None,
        stop_on_failure: false,
        checkpoint: None,
    };
    let warm = async |call: &Call| assert_eq!(host.call(call.clone()).await.answers.tasks(), tasks, "{what}");
    futures::future::join_all((0..calls).map(|_| warm(&call))).await;
    let began = Instant::now();
    let until = began + Duration::from_secs(2);
    let each = (0..calls).map(|_| {
        let (host, call) = (host.clone(), call.clone());
        tokio::spawn(async move {
            let mut done = 0_u64;
            while Instant::now() < until {
                done += u64::from(host.call(call.clone()).await.answers.tasks());
            }
            done
        })
    });
    let done: u64 = futures::future::join_all(each).await.into_iter().map(|done| done.expect("no panic")).sum();
    let per_second = done as f64 / began.elapsed().as_secs_f64();
    println!("  {what:<28}{per_second:>12.0} tasks/s {:>10.2} µs each", 1e6 * calls as f64 / per_second);
}
