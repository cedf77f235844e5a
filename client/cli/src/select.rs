//! How people name jobs and tasks: `last`, `last-2`, an id, or the beginning of one.

use sheaf_api::{Api, Code, wire::JobFilter};
use sheaf_core::{ChunkKey, JobId, TaskId, limits};

use crate::problem::{Outcome, Problem};

/// Jobs looked through for the beginning of an id. Source: ids are told apart by their time, so that the beginning of one
/// that anybody still types is among the newest.
const JOBS_SEARCHED_MAX: usize = 20_000;
/// The shortest beginning of an id.
const PREFIX_CHARS_MIN: usize = 4;

/// Finds a job by what the user wrote.
pub(crate) async fn job(api: &impl Api, text: &str) -> Outcome<JobId> {
    if let Some(back) = back(text) {
        return newest(api, back).await;
    }
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let hex = text.strip_prefix("job_").unwrap_or(text);
    if hex.len() < PREFIX_CHARS_MIN || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Problem::usage(format!("{text:?} does not name a job")).with_hint(
            "give last, last-1, an id (job_…), or the first digits of one; `sheaf job list --all` shows them",
        ));
    }
    let found = starting_with(api, &format!("job_{}", hex.to_ascii_lowercase())).await?;
    match found.as_slice() {
        [id] => Ok(*id),
        [] => Err(Problem::new(Code::NotFound, format!("no job starts with {text}"))
            .with_hint("`sheaf job list --all` shows those there are")),
        [first, second, ..] => {
            Err(Problem::usage(format!("{text} may be {first} or {second}")).with_hint("give more digits"))
        }
    }
}

/// `last` is 0, `last-2` is 2.
fn back(text: &str) -> Option<usize> {
    let rest = text.strip_prefix("last")?;
    if rest.is_empty() { Some(0) } else { rest.strip_prefix('-')?.parse().ok() }
}

async fn newest(api: &impl Api, back: usize) -> Outcome<JobId> {
    let mut left = back;
    let mut filter = JobFilter::default();
    loop {
        filter.limit = (left + 1).min(limits::PAGE_ROWS_MAX);
        let page = api.jobs(filter.clone()).await?;
        if let Some(view) = page.rows.get(left) {
            return Ok(view.job.id);
        }
        let Some(last) = page.rows.last().filter(|_| page.rows.len() == filter.limit) else {
            let there = match back - left + page.rows.len() {
                0 => "this grid has no jobs yet".to_owned(),
                jobs => format!("this grid has only {}", crate::text::counted(jobs as u64, "job")),
            };
            return Err(Problem::new(Code::NotFound, there).with_hint("`sheaf job list --all` shows those there are"));
        };
        left -= page.rows.len();
        filter.before = Some(last.job.id);
    }
}

async fn starting_with(api: &impl Api, prefix: &str) -> Outcome<Vec<JobId>> {
    let mut found = Vec::new();
    let mut searched = 0;
    let mut filter = JobFilter { limit: limits::PAGE_ROWS_MAX, ..JobFilter::default() };
    while searched < JOBS_SEARCHED_MAX {
        let page = api.jobs(filter.clone()).await?;
        found.extend(page.rows.iter().map(|view| view.job.id).filter(|id| id.to_string().starts_with(prefix)));
        searched += page.rows.len();
        let Some(last) = page.rows.last().filter(|_| page.next.is_some() && found.len() < 2) else { break };
        filter.before = Some(last.job.id);
    }
    Ok(found)
}

/// A job or a task.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Object {
    /// A job.
    Job(JobId),
    /// A task.
    Task(TaskId),
}

/// Finds a job or a task: a task is its job, chunk and index, as in `last/0/3`.
pub(crate) async fn object(api: &impl Api, text: &str) -> Outcome<Object> {
    if text.contains('/') { task(api, text).await.map(Object::Task) } else { job(api, text).await.map(Object::Job) }
}

/// Finds a task.
pub(crate) async fn task(api: &impl Api, text: &str) -> Outcome<TaskId> {
    let parts: Vec<_> = text.split('/').collect();
    let [name, number, index] = parts.as_slice() else { return Err(not_a_task(text)) };
    let (Ok(number), Ok(index)) = (number.parse(), index.parse()) else { return Err(not_a_task(text)) };
    Ok(TaskId { chunk: ChunkKey { job: job(api, name).await?, number }, index })
}

fn not_a_task(text: &str) -> Problem {
    Problem::usage(format!("{text:?} does not name a task"))
        .with_hint("a task is its job, chunk and index, such as last/0/3; `sheaf task list JOB` shows them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_counts_back() {
        assert_eq!(
            [back("last"), back("last-2"), back("last2"), back("lasting"), back("last-x")],
            [Some(0), Some(2), None, None, None]
        );
    }
}
