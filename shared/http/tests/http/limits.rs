//! Bodies beyond their bounds.

use futures::stream;
use reqwest::{Body, Method};
use sheaf_api::Code;
use sheaf_core::limits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    round_trips::job_id,
    server::{Server, refusal},
};

#[tokio::test]
async fn json_bodies_are_small() {
    let server = Server::start().await;
    let paths =
        ["/v1/jobs".to_owned(), format!("/v1/jobs/{}/seal", job_id(1)), format!("/v1/jobs/{}/results", job_id(1))];
    for path in paths {
        let body = vec![b' '; 2 * sheaf_http::JSON_BYTES_MAX];
        let (status, error) = refusal(server.request(Method::POST, &path).body(body)).await;
        assert_eq!((status, error.code), (413, Code::TooLarge), "{path}");
    }
    server.stopped().await;
}

#[tokio::test]
async fn an_unannounced_body_is_measured_as_it_comes() {
    let server = Server::start().await;
    let pieces = (0..40).map(|_| Ok::<_, std::io::Error>(vec![b' '; 64 * 1024]));
    let request = server.request(Method::POST, "/v1/jobs").body(Body::wrap_stream(stream::iter(pieces)));
    assert_eq!(refusal(request).await.1.code, Code::TooLarge);
    server.stopped().await;
}

#[tokio::test]
async fn an_announced_bulk_body_is_refused_before_it_is_sent() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "PUT /v1/functions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nExpect: 100-continue\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n",
        server.token.expose(),
        limits::REQUEST_BYTES_MAX + 1
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    server.stopped().await;
}

#[tokio::test]
async fn a_client_does_not_send_what_must_be_refused() {
    use sheaf_api::{Api, wire::PutFunction};
    let server = Server::start().await;
    let kind = sheaf_core::FunctionKind::Handler { revision: String::new() };
    let manifest = sheaf_core::Manifest::new("f".parse().unwrap(), kind);
    let package = Some(vec![0; limits::REQUEST_BYTES_MAX].into());
    let error = server.remote().put_function(PutFunction { manifest, package }).await.unwrap_err();
    assert_eq!(error.code, Code::TooLarge);
    server.stopped().await;
}
