//! Serving the API of a grid in this process, so that other commands on this machine reach it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::Arc,
};

use sheaf_api::Code;
use sheaf_http::{Access, Token};
use sheaf_local::{Address, Grid};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::problem::{Outcome, Problem};

/// A running server.
#[derive(Debug)]
pub(crate) struct Served {
    /// Where it is.
    pub(crate) address: Address,
    directory: PathBuf,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Served {
    /// Serves a grid at an address of [`loopback`], for holders of the token in its data directory, and writes down where.
    pub(crate) async fn start(grid: &Grid, directory: &Path, listen: SocketAddr) -> Outcome<Self> {
        let token_file =
            std::path::absolute(directory.join("token")).map_err(|error| Problem::file("found", directory, error))?;
        let token = Token::load_or_create(&token_file).map_err(token_problem)?;
        let cannot = |source| {
            Problem::new(Code::Unavailable, format!("the API cannot be served at {listen}")).with_source(source)
        };
        let listener = TcpListener::bind(listen).await.map_err(cannot)?;
        let url = format!("http://{}", listener.local_addr().map_err(cannot)?);
        let (workers, again) = sheaf_remote::router(grid.ports().clone(), {
            let grid = grid.clone();
            move || {
                let grid = grid.clone();
                async move { grid.refill_queue().await }
            }
        });
        let router = sheaf_http::router_with(Arc::new(grid.clone()), Access::Token(token), workers);
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            // A sender that is gone means the same.
            let _ = stopped.await;
        };
        let serving = sheaf_http::serve(listener, router, shutdown);
        let task = tokio::spawn(async move {
            tokio::select! {
                served = serving => served,
                never = again => match never {},
            }
        });
        let address = Address { url, token_file, pid: std::process::id() };
        address.write(directory).map_err(|error| Problem::file("written", &directory.join("grid.json"), error))?;
        Ok(Self { address, directory: directory.to_owned(), stop, task })
    }

    /// Stops: requests under way are answered first.
    pub(crate) async fn stop(self) {
        Address::remove(&self.directory);
        // It may have stopped by itself.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

fn token_problem(error: sheaf_http::TokenError) -> Problem {
    Problem::new(Code::Unauthorized, error.to_string()).with_source(error)
}

/// Any port of this machine.
pub(crate) const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Reads where to serve. The token travels in the clear, so only this machine is served.
pub(crate) fn loopback(listen: &str) -> Outcome<SocketAddr> {
    let wrong = |why: &str| {
        Problem::usage(format!("--listen {listen:?} {why}")).with_hint("give 127.0.0.1:PORT, or port 0 for any")
    };
    let address = listen.to_socket_addrs().ok().and_then(|mut found| found.next());
    let address = address.ok_or_else(|| wrong("is not an address and a port"))?;
    if address.ip().is_loopback() { Ok(address) } else { Err(wrong("is not on this machine only")) }
}
