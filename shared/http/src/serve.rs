//! Running a router on a socket, and stopping without losing what is under way.

use std::{
    convert::Infallible,
    future::{self, Future},
    io,
    pin::pin,
    time::Duration,
};

use axum::{Extension, Router, extract::FromRequestParts, http::request::Parts};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::Instant,
};

use crate::Buffered;

/// Connections held open at once; further ones wait in the listener's backlog.
pub const CONNECTIONS_MAX: usize = 1_024;
/// How long requests under way may take to finish once the server is told to stop; after that they are cut off.
pub const SHUTDOWN_MS_MAX: u64 = 10_000;
/// How long a connection may stay silent, or take over the head of a request. Clients keep idle connections for less.
const SILENCE_MS_MAX: u64 = 60_000;
/// Refused accepts in a row, a pause apart, after which the listener is taken for broken.
const ACCEPT_FAILURES_MAX: u32 = 100;
const ACCEPT_PAUSE_MS: u64 = 100;

/// Whether the server has been told to stop, and by when the request must be answered. Requests of a router that is not run
/// by [`serve`] are never told.
#[derive(Debug, Clone, Default)]
pub struct Stopping {
    told: Option<watch::Receiver<bool>>,
    answer_by: Option<Instant>,
}

impl Stopping {
    pub(crate) fn is_stopped(&self) -> bool {
        self.told.as_ref().is_some_and(|told| *told.borrow())
    }

    async fn stopped(&mut self) {
        let Self { told, answer_by } = self;
        let told = async {
            // The sender lives as long as the server; without one there is nothing to be told.
            if let Some(told) = told
                && told.wait_for(|stop| *stop).await.is_ok()
            {
                return;
            }
            future::pending().await
        };
        let late = async {
            match *answer_by {
                Some(answer_by) => tokio::time::sleep_until(answer_by).await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            () = told => (),
            () = late => (),
        }
    }

    /// What a waiting call gives; or, once the server stops, what `now` gives: the same call without the wait.
    pub async fn cut_short<T, N: Future<Output = T>>(
        mut self,
        waiting: impl Future<Output = T>,
        now: impl FnOnce() -> N,
    ) -> T {
        tokio::select! {
            biased;
            answer = waiting => return answer,
            () = self.stopped() => (),
        }
        now().await
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Stopping {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let stopping = parts.extensions.get::<Self>().cloned().unwrap_or_default();
        let answer_by = parts.extensions.get::<Buffered>().map(|buffered| buffered.answer_by);
        Ok(Self { answer_by, ..stopping })
    }
}

/// Serves HTTP/1.1 until `shutdown` resolves, then stops gracefully: takes no more connections, ends long polls with what
/// they have, lets requests under way finish within [`SHUTDOWN_MS_MAX`], and cuts off the rest. When it returns, no task of
/// it runs any more; dropping it ends all of them at once.
///
/// An error means that the listener is broken; those of single connections are logged and forgotten.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    serve_until(listener, router, shutdown, Duration::from_millis(SHUTDOWN_MS_MAX)).await
}

async fn serve_until(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
    shutdown_max: Duration,
) -> io::Result<()> {
    let (stop, stopping) = watch::channel(false);
    let stopping = Stopping { told: Some(stopping), answer_by: None };
    // The layer is outside of all others: every request carries it from the start.
    let router = router.layer(Extension(stopping.clone()));
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let mut failures = 0;
    let broken = loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break None,
            Some(_) = connections.join_next() => (),
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    failures = 0;
                    connections.spawn(hold(stream, router.clone(), stopping.clone()));
                }
                Err(error) if failures < ACCEPT_FAILURES_MAX => {
                    failures += 1;
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                }
                Err(error) => break Some(error),
            },
        }
    };
    drop(listener);
    stop.send_replace(true);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(shutdown_max, finished).await.is_err() {
        tracing::warn!(connections = connections.len(), "requests were cut off: they took too long to finish");
    }
    connections.shutdown().await;
    broken.map_or(Ok(()), Err)
}

/// Serves one connection to its end, or until its current request is answered once the server stops.
async fn hold(stream: TcpStream, router: Router, mut stopping: Stopping) {
    // Answers are whole when they are written: waiting for more to send with them only costs time.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection was gone before it began");
        return;
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(SILENCE_MS_MAX))
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stopping.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection broke");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::mpsc,
    };

    use super::*;

    /// What a request gets whose answer takes so long, while the server is stopped as soon as it is under way.
    async fn answer_of(work: Duration, shutdown_max: Duration) -> String {
        let (begun, mut has_begun) = mpsc::channel(1);
        let handler = move || async move {
            begun.send(()).await.expect("the test waits for it");
            tokio::time::sleep(work).await;
            "done"
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shutdown = async move { has_begun.recv().await.expect("the handler says so") };
        let router = Router::new().route("/", get(handler));
        let served = tokio::spawn(serve_until(listener, router, shutdown, shutdown_max));
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it reads");
        let mut answer = Vec::new();
        // A connection that is cut may end with an error.
        let _ = stream.read_to_end(&mut answer).await;
        served.await.expect("it does not panic").expect("the listener is sound");
        String::from_utf8(answer).expect("HTTP is text")
    }

    #[tokio::test]
    async fn a_request_under_way_is_finished() {
        let answer = answer_of(Duration::from_millis(200), Duration::from_secs(30)).await;
        assert!(answer.ends_with("done"), "{answer:?}");
    }

    #[tokio::test]
    async fn one_that_takes_too_long_is_cut_off() {
        let started_at = Instant::now();
        assert_eq!(answer_of(Duration::from_secs(60), Duration::from_millis(200)).await, "");
        assert!(started_at.elapsed() < Duration::from_secs(10));
    }
}
