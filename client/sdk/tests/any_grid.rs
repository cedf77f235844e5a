//! The same promises wherever the grid is, kept by functions that every grid can run: commands.
//!
//! The grid is the one that `SHEAF_GRID` or `sheaf.toml` names, as everywhere:
//! `SHEAF_GRID=aws:eod cargo test -p sheaf-sdk --features aws --test any_grid`. Where none is named there are two: one in this
//! process, and one behind HTTP.

mod promises;

use std::sync::Arc;

use sheaf::{ConnectOptions, Function, Grid, Manifest, Origin, Place, Settings, Transport, wire::PutFunction};
use sheaf_core::{FunctionKind, ResultForm};
use sheaf_http::{Access, Token, router, serve};
use tokio::net::TcpListener;

/// Answers with its payload.
const ECHO: [&str; 1] = ["cat"];
/// Answers even numbers with themselves.
const EVEN: [&str; 3] = ["sh", "-c", "read -r n; [ $((n % 2)) = 0 ] || exit 3; echo $n"];
/// Takes a second.
const SLOW: [&str; 3] = ["sh", "-c", "sleep 1; cat"];

/// The ways to the grids under test.
async fn places() -> Vec<ConnectOptions> {
    let named = sheaf::builder().build();
    let settings = Settings::resolve(&named).expect("settings");
    if settings.place.origin != Origin::Default {
        return vec![named];
    }
    let served = sheaf::builder().memory(true).slots(2).connect().await.expect("a grid in memory");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let token = Token::random();
    let Transport::Embedded(embedded) = served.api() else { unreachable!("it is in this process") };
    let router = router(Arc::new(embedded.clone()), Access::Token(token.clone()));
    tokio::spawn(serve(listener, router, std::future::pending()));
    vec![sheaf::builder().memory(true).slots(2).build(), sheaf::builder().grid(url).token(token.expose()).build()]
}

/// Declares a command; the same one again changes nothing.
async fn command(grid: &Grid, name: &str, argv: &[&str], result: ResultForm) {
    let kind = FunctionKind::Command { argv: argv.iter().map(|word| (*word).to_owned()).collect() };
    let manifest = Manifest { result, ..Manifest::new(name.parse().expect("a name"), kind) };
    grid.put_function(PutFunction { manifest, package: None }).await.expect("declared");
}

/// A command that takes and gives numbers.
async fn numbers(grid: &Grid, name: &str, argv: &[&str]) -> Function<u64, u64> {
    command(grid, name, argv, ResultForm::Json).await;
    Function::named(name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_come_once_and_in_order() {
    for place in places().await {
        let grid = place.connect().await.expect("connected");
        let echo = numbers(&grid, "sdk-echo", &ECHO).await;
        promises::many_tasks_come_back_once(&grid, &echo, 1_000).await;
        promises::results_come_in_order(&grid, &echo, 200).await;
        promises::tickets_resolve(&grid, &echo, 50).await;
        promises::a_job_is_there_for_others(&grid, &echo, 300).await;
        grid.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_told() {
    for place in places().await {
        let grid = place.connect().await.expect("connected");
        let even = numbers(&grid, "sdk-even", &EVEN).await;
        promises::failures_are_told(&grid, &even, 40).await;
        grid.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cancelled_ends() {
    for place in places().await {
        let grid = place.connect().await.expect("connected");
        let slow = numbers(&grid, "sdk-slow", &SLOW).await;
        promises::what_is_cancelled_ends(&grid, &slow, 400).await;
        grid.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_ones_come_back_whole() {
    for place in places().await {
        let grid = place.connect().await.expect("connected");
        command(&grid, "sdk-bytes", &ECHO, ResultForm::Bytes).await;
        promises::large_ones_come_back_whole(&grid, &Function::raw("sdk-bytes"), 30, 1 << 20).await;
        grid.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_outlives_its_client() {
    for place in places().await {
        let directory = tempfile::tempdir().expect("a directory");
        // A grid in memory is gone with its client: there is nothing to go on with.
        let place = match Settings::resolve(&place).expect("settings").place.value {
            Place::Memory => sheaf::builder().directory(directory.path().join("grid")).slots(2).build(),
            _ => place,
        };
        let connect = async || {
            let grid = place.connect().await.expect("connected");
            let echo = numbers(&grid, "sdk-echo", &ECHO).await;
            (grid, echo)
        };
        promises::a_journal_outlives_its_client(connect, &directory.path().join("job.journal"), 600).await;
    }
}
