//! The ports on AWS keep their contracts: on an AWS on loopback, on a DynamoDB of other hands, and, if asked, on a real
//! account (see `account.rs`).

/// All checks but one. SQS is fair between tenants, but does not let them take turns: it prefers groups with few messages in
/// flight, as ministack does not.
macro_rules! checks_on_aws {
    ($fresh:expr) => {
        sheaf_conformance::conformance_tests!(@all $fresh;
            blobs: one_put_creates, puts_race_with_one_winner, blobs_of_any_size_come_back, a_prefix_is_deleted, answers_are_in_order;
            chunks: submitting_again_is_the_same_chunk, a_refusal_carries_the_chunk, one_claim_wins, checkpoints_are_kept_while_their_task_is_open,
                writes_in_a_call_are_independent,
                due_follows_the_chunk, chunks_come_in_order_and_pages, a_fenced_attempt_commits_nothing, history_is_kept_in_order;
            jobs: one_creation_wins, events_move_a_job, jobs_are_listed_newest_first, summaries_count_each_chunk_once,
                ended_chunks_are_told_once, changes_wake_who_waits, functions_are_kept_by_version, a_deleted_job_is_gone;
            queue: hints_are_delivered, a_delayed_hint_waits, a_postponed_hint_comes_again, urgent_hints_come_first_and_nothing_starves,
                an_empty_queue_answers_in_time;
        );

        #[test]
        fn tenants_take_turns() {
            sheaf_aws::loopback::skipped("queue::tenants_take_turns: SQS is fair in its own way, ministack is not");
        }
    };
}

mod account;
mod events;
mod invoke;
mod steps;

use std::future::pending;

use sheaf_aws::{AwsPorts, loopback};

/// DynamoDB, SQS and S3 of ministack.
mod ministack {
    use super::*;

    async fn fresh() -> Result<AwsPorts, &'static str> {
        loopback::fresh().await
    }

    checks_on_aws!(match super::fresh().await {
        Ok(ports) => (ports, ()),
        Err(reason) => return sheaf_aws::loopback::skipped(reason),
    });
}

/// DynamoDB of dynoxide, in this process. It has neither queues nor blobs.
mod dynoxide {
    use super::*;

    async fn fresh() -> AwsPorts {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("its address"));
        let table = ::dynoxide::Database::memory().expect("a database");
        tokio::spawn(::dynoxide::server::serve_with_shutdown(listener, table, pending()));
        let config = loopback::config(&endpoint, "test").await;
        let settings = loopback::settings("sheaf");
        sheaf_aws::schema::create_table(&config, &settings.table).await.expect("a table");
        AwsPorts::over(&config, &settings)
    }

    sheaf_conformance::conformance_tests!(@all (super::fresh().await, ());
        chunks: submitting_again_is_the_same_chunk, a_refusal_carries_the_chunk, one_claim_wins, checkpoints_are_kept_while_their_task_is_open,
                writes_in_a_call_are_independent,
            due_follows_the_chunk, chunks_come_in_order_and_pages, a_fenced_attempt_commits_nothing, history_is_kept_in_order;
        jobs: one_creation_wins, events_move_a_job, jobs_are_listed_newest_first, summaries_count_each_chunk_once,
            ended_chunks_are_told_once, changes_wake_who_waits, functions_are_kept_by_version, a_deleted_job_is_gone;
    );
}

/// The lists above name every check of the suite.
#[test]
fn no_check_is_forgotten() {
    let (suite, here) = (concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance/src"), include_str!("main.rs"));
    for port in ["blobs", "chunks", "jobs", "queue"] {
        let checks = std::fs::read_to_string(format!("{suite}/{port}.rs")).expect("the suite");
        let names = checks.split("pub async fn ").skip(1).filter_map(|rest| rest.split('<').next());
        let wanted = if matches!(port, "chunks" | "jobs") { 2 } else { 1 };
        for name in names {
            assert!(here.matches(name).count() >= wanted, "{port}::{name} is not run");
        }
    }
}
