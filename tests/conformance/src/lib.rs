//! One suite per port, run over every backend.
//!
//! Each check is a plain async function that takes fresh ports and panics when a promise of their contract is broken. A
//! backend runs them all with [`conformance_tests!`], one test per check.

pub mod blobs;
pub mod chunks;
pub mod fixture;
pub mod jobs;
pub mod queue;

/// Makes a test of every check. `$fresh` is an expression that gives fresh ports and whatever must live as long as they.
#[macro_export]
macro_rules! conformance_tests {
    ($fresh:expr) => {
        $crate::conformance_tests!(@all $fresh;
            blobs: one_put_creates, puts_race_with_one_winner, blobs_of_any_size_come_back, a_prefix_is_deleted, answers_are_in_order;
            chunks: submitting_again_is_the_same_chunk, a_refusal_carries_the_chunk, one_claim_wins, checkpoints_are_kept_while_their_task_is_open,
                writes_in_a_call_are_independent,
                due_follows_the_chunk, chunks_come_in_order_and_pages, a_fenced_attempt_commits_nothing, history_is_kept_in_order;
            jobs: one_creation_wins, events_move_a_job, jobs_are_listed_newest_first, summaries_count_each_chunk_once,
                ended_chunks_are_told_once, changes_wake_who_waits, functions_are_kept_by_version, a_deleted_job_is_gone;
            queue: hints_are_delivered, a_delayed_hint_waits, a_postponed_hint_comes_again, urgent_hints_come_first_and_nothing_starves,
                tenants_take_turns, an_empty_queue_answers_in_time;
        );
    };
    (@all $fresh:expr; $($port:ident: $($check:ident),+;)+) => {
        $(mod $port {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                let (ports, _keep) = $fresh;
                $crate::$port::$check(ports).await;
            })+
        })+
    };
}
