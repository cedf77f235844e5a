//! One executable, many functions: `_HANDLER` says which one this process is, as for any Lambda custom runtime.

use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::value::RawValue;
use sheaf_examples::Functions;

/// One invocation at a time, so one thread does; a function that computes may block it.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let (functions, handler) = (&Functions::default(), &std::env::var("_HANDLER").unwrap_or_default());
    lambda_runtime::run(service_fn(|event: LambdaEvent<Box<RawValue>>| async move {
        functions.call(handler, &event.payload).await
    }))
    .await
}
