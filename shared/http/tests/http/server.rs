//! Starting and stopping servers, and raw requests to them.

use std::{net::SocketAddr, sync::Arc};

use reqwest::{Method, RequestBuilder};
use sheaf::Remote;
use sheaf_api::{ApiError, Code};
use sheaf_http::{Access, Token, router, serve};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::fake::Fake;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) token: Token,
    pub(crate) fake: Arc<Fake>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), Token::random(), Arc::new(Fake::default())).await
    }

    pub(crate) async fn start_at(address: SocketAddr, token: Token, fake: Arc<Fake>) -> Self {
        let access = Access::TokenAt { token: token.clone(), hosts: vec!["grid.example".into()] };
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let router = router(Arc::clone(&fake), access);
        let running = tokio::spawn(serve(listener, router, async {
            let _ = stopped.await;
        }));
        Self { address, token, fake, stop: Some(stop), running }
    }

    /// Tells it to stop, without waiting.
    pub(crate) fn stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    pub(crate) async fn stopped(mut self) {
        if self.stop.is_some() {
            self.stop();
        }
        self.running.await.unwrap().unwrap();
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn remote(&self) -> Remote {
        Remote::new(&self.url(""), &self.token.expose()).unwrap()
    }

    /// A raw request with the token.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, path).bearer_auth(self.token.expose())
    }

    /// A raw request without it.
    pub(crate) fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        reqwest::Client::builder().no_proxy().build().unwrap().request(method, self.url(path))
    }
}

/// Sends a request that is to be refused; checks that the refusal is JSON under a fitting status, and gives it.
pub(crate) async fn refusal(request: RequestBuilder) -> (u16, ApiError) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let headers = answer.headers().clone();
    let text = answer.text().await.unwrap();
    let error: ApiError = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status} with {text:?}"));
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["cache-control"], "no-store");
    assert!(status == error.code.status() || status == 405, "{status} for {:?}", error.code);
    assert_eq!(headers.contains_key("retry-after"), error.retry_after_ms.is_some());
    assert_eq!(headers.contains_key("www-authenticate"), error.code == Code::Unauthorized);
    (status, error)
}
