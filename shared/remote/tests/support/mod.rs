//! A grid's ports, served.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use sheaf_api::wire::GridView;
use sheaf_core::TenantId;
use sheaf_http::{Access, Token};
use sheaf_local::{LocalPorts, LocalStore};
use sheaf_protocol::Service;
use sheaf_remote::{Place, RemotePorts};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

/// Where a grid is that stays where it is.
pub(crate) fn at(url: &str, token: &Token) -> impl Fn() -> Option<Place> + use<> {
    let place = Place { url: url.to_owned(), token: token.expose().into() };
    move || Some(place.clone())
}

/// A server that stops with it.
pub(crate) struct Served {
    pub(crate) ports: LocalPorts,
    pub(crate) url: String,
    pub(crate) token: Token,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Served {
    pub(crate) async fn start() -> Self {
        let ports = LocalPorts::new(LocalStore::memory().expect("memory"));
        Self::at(ports, Token::random(), SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub(crate) async fn at(ports: LocalPorts, token: Token, address: SocketAddr) -> Self {
        let view = GridView {
            version: String::new(),
            backend: "memory".into(),
            directory: None,
            slots: 0,
            durable: false,
            lanes: BTreeMap::new(),
            syncs: None,
        };
        let service = Service::new(ports.clone(), TenantId::default(), view);
        let (workers, again) = sheaf_remote::router(ports.clone(), || std::future::ready(()));
        let router = sheaf_http::router_with(Arc::new(service), Access::Token(token.clone()), workers);
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let (stop, stopped) = oneshot::channel();
        let serving = sheaf_http::serve(listener, router, async {
            let _ = stopped.await;
        });
        let task = tokio::spawn(async move {
            tokio::select! {
                served = serving => served,
                never = again => match never {},
            }
        });
        Self { ports, url, token, stop: Some(stop), task }
    }

    pub(crate) async fn join(&self) -> RemotePorts {
        RemotePorts::join(at(&self.url, &self.token)).await.expect("it joins")
    }

    #[allow(dead_code, reason = "not every test stops it itself")]
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        (&mut self.task).await.expect("it does not panic").expect("it was served");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}
