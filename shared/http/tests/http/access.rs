//! Who is let in.

use reqwest::{Method, RequestBuilder};
use sheaf_api::Code;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::server::{Server, refusal};

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn the_token_opens() {
    let server = Server::start().await;
    assert_eq!(status(server.request(Method::GET, "/v1/grid")).await, 200);
    let other = server.token.expose();
    let scheme = server.bare(Method::GET, "/v1/grid").header("authorization", format!("bearer {other}"));
    assert_eq!(status(scheme).await, 200, "schemes have no case");
    server.stopped().await;
}

#[tokio::test]
async fn anything_else_does_not() {
    let server = Server::start().await;
    let token = server.token.expose();
    let mut almost = token.clone().into_bytes();
    almost[0] = if almost[0] == b'A' { b'B' } else { b'A' };
    let almost = String::from_utf8(almost).unwrap();
    let other = sheaf_http::Token::random().expose();
    for given in [&format!("Bearer {almost}"), &format!("Bearer {other}"), "Bearer", "Bearer ", &token, "Basic Zm9v"] {
        let request = server.bare(Method::GET, "/v1/grid").header("authorization", given);
        assert_eq!(refusal(request).await.1.code, Code::Unauthorized, "{given}");
    }
    assert_eq!(refusal(server.bare(Method::GET, "/v1/grid")).await.1.code, Code::Unauthorized);
    assert_eq!(refusal(server.bare(Method::GET, "/v1/nowhere")).await.1.code, Code::Unauthorized);
    let (_, error) = refusal(server.bare(Method::GET, "/v1/grid").bearer_auth(&almost)).await;
    assert!(!format!("{error:?}").contains(&almost));
    server.stopped().await;
}

/// Whoever sends first and reads afterwards is told, too, and on a connection that can be used again.
#[tokio::test]
async fn a_wrong_token_is_told_even_while_a_body_is_being_sent() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for _ in 0..3 {
        let body = vec![0; 8 * 1024 * 1024];
        let head = format!(
            "PUT /v1/functions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer no\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, b"HTTP/1.1 401");
        while !answer.ends_with(b"}") {
            answer.push(stream.read_u8().await.unwrap());
        }
    }
    server.stopped().await;
}

#[tokio::test]
async fn health_wants_no_token() {
    let server = Server::start().await;
    assert_eq!(server.bare(Method::GET, "/healthz").send().await.unwrap().text().await.unwrap(), "ok\n");
    assert_eq!(refusal(server.bare(Method::GET, "/healthz").header("host", "evil.example")).await.0, 403);
    server.stopped().await;
}

#[tokio::test]
async fn only_our_names() {
    let server = Server::start().await;
    let as_host = |host: &str| server.request(Method::GET, "/v1/grid").header("host", host);
    let ours = ["localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]", "[::1]:9", "grid.example", "Grid.Example:443"];
    for host in ours {
        assert_eq!(status(as_host(host)).await, 200, "{host}");
    }
    let foreign = [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "me@localhost",
        "localhost@evil",
        "",
        "::1",
    ];
    for host in foreign {
        assert_eq!(refusal(as_host(host)).await.1.code, Code::Forbidden, "{host}");
    }
    server.stopped().await;
}

#[tokio::test]
async fn only_our_origin() {
    let server = Server::start().await;
    let from = |origin: &str| server.request(Method::GET, "/v1/grid").header("origin", origin);
    assert_eq!(status(from(&format!("http://{}", server.address))).await, 200);
    let other_port = format!("http://127.0.0.1:{}", server.address.port() ^ 1);
    for origin in ["http://evil.example", "null", "", "file://", &other_port, "http://127.0.0.1"] {
        assert_eq!(refusal(from(origin)).await.1.code, Code::Forbidden, "{origin}");
    }
    server.stopped().await;
}
