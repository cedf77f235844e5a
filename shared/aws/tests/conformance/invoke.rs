//! Lambda functions invoked by their ARN: a real one, in Python, that speaks the Runtime API of the Lambda on loopback.

use std::{
    io::{Cursor, Write},
    process::Command,
};

use aws_config::SdkConfig;
use aws_sdk_lambda::{
    Client,
    primitives::Blob,
    types::{FunctionCode, Runtime},
};
use sheaf_api::invoke::{Invocation, Invoker, NotInvoked};
use sheaf_aws::{LambdaInvoker, loopback};
use zip::{ZipWriter, write::SimpleFileOptions};

/// Answers with what it was given and by whom; raises when it is given "raise".
const BOOTSTRAP: &str = r#"#!/usr/bin/env python3
import json, os, urllib.request
base = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"] + "/2018-06-01/runtime/invocation/"
while True:
    with urllib.request.urlopen(base + "next", timeout=None) as reply:
        event, headers = json.load(reply), reply.headers
    what, answer = "response", {"event": event, "context": headers.get("Lambda-Runtime-Client-Context")}
    if event == "raise":
        what, answer = "error", {"errorType": "ValueError", "errorMessage": "no", "stackTrace": ["a", "b"]}
    body, id = json.dumps(answer).encode(), headers["Lambda-Runtime-Aws-Request-Id"]
    urllib.request.urlopen(urllib.request.Request(base + id + "/" + what, body, method="POST")).read()
"#;

fn package() -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("bootstrap", SimpleFileOptions::default().unix_permissions(0o755)).expect("a name");
    zip.write_all(BOOTSTRAP.as_bytes()).expect("memory");
    zip.finish().expect("memory").into_inner()
}

/// A function in an account of its own; its ARN.
async fn created() -> Result<(SdkConfig, String), &'static str> {
    let python = Command::new("python3").arg("--version").output();
    if !python.is_ok_and(|output| output.status.success()) {
        return Err("invoke: python3 is not installed");
    }
    let (config, _) = loopback::fresh_account().await?;
    let create = Client::new(&config).create_function().function_name("echo").handler("bootstrap").timeout(10);
    let create = create.runtime(Runtime::Providedal2023).role("arn:aws:iam::000000000000:role/any");
    let code = FunctionCode::builder().zip_file(Blob::new(package())).build();
    let created = create.code(code).send().await.expect("created");
    Ok((config, created.function_arn.expect("an ARN")))
}

fn invocation(arn: &str, event: &'static str) -> Invocation {
    let context = r#"{"custom":{"task":"1"},"env":{}}"#.to_owned();
    Invocation { arn: arn.to_owned(), event: event.into(), context }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_is_invoked_by_its_arn() {
    let (config, arn) = match created().await {
        Ok(created) => created,
        Err(reason) => return loopback::skipped(reason),
    };
    let invoker = LambdaInvoker::over(&config);
    let answered = invoker.invoke(invocation(&arn, r#"{"a":[1,"x"]}"#)).await.expect("answered");
    let answer: serde_json::Value = serde_json::from_slice(&answered.payload).expect("JSON");
    assert_eq!((answered.failed, &answer["event"]), (false, &serde_json::json!({"a": [1, "x"]})), "{answer}");

    let raised = invoker.invoke(invocation(&arn, "\"raise\"")).await.expect("answered");
    let error: serde_json::Value = serde_json::from_slice(&raised.payload).expect("JSON");
    assert_eq!(
        (raised.failed, &error["errorType"], &error["errorMessage"]),
        (true, &"ValueError".into(), &"no".into())
    );

    let refused = invoker.invoke(invocation(&format!("{arn}-of-nobody"), "1")).await.expect_err("there is none");
    assert!(matches!(&refused, NotInvoked::Refused(why) if why.contains("ResourceNotFound")), "{refused:?}");
}

/// User code is not run twice by the SDK: neither for a broken connection, nor where the service has an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_again_by_itself() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("its address"));
    let (asked, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let server = tokio::spawn(async move {
        let throttled =
            "HTTP/1.1 429 Too Many\r\nx-amzn-errortype: TooManyRequestsException\r\ncontent-length: 2\r\n\r\n{}";
        let broken = "HTTP/1.1 500 Broken\r\nx-amzn-errortype: ServiceException\r\ncontent-length: 2\r\n\r\n{}";
        for reply in ["", broken, throttled] {
            let (mut connection, _) = listener.accept().await.expect("a connection");
            let mut request = vec![0; 65_536];
            let bytes = connection.read(&mut request).await.expect("a request");
            asked.send(String::from_utf8_lossy(&request[..bytes]).to_lowercase()).expect("the test waits");
            connection.write_all(reply.as_bytes()).await.expect("answered");
        }
        // A further request would be one too many.
        listener.accept().await.expect("a connection");
        panic!("asked once more");
    });
    let invoker = LambdaInvoker::over(&loopback::config(&endpoint, "test").await);
    let ask = || invoker.invoke(invocation("arn:aws:lambda:us-east-1:000000000000:function:f", "1"));
    assert!(matches!(ask().await, Err(NotInvoked::Lost(_))));
    assert!(matches!(ask().await, Err(NotInvoked::Lost(_))));
    assert!(matches!(ask().await, Err(NotInvoked::Throttled(_))));
    let request = answers.recv().await.expect("asked");
    assert!(request.contains("x-amz-log-type: tail") && request.contains("x-amz-client-context: "), "{request}");
    assert!(!server.is_finished());
    server.abort();
}
