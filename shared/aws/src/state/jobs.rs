//! Jobs and their lists.
//!
//! A job is written a handful of times, so each event is a read and a write whose condition is that nothing came between.

use sheaf_api::wire::JobFilter;
use sheaf_core::{Job, JobEvent, JobId, JobRefused, TenantId, limits};
use sheaf_protocol::{StoreError, error::JobWriteError};

use super::{
    AwsState,
    item::{self, Item, Reader, key},
    table::{NotWritten, key_of},
    update::Update,
};
use crate::schema::{self, ALIVE, JOBS, META, job as at};

/// Tries of an event that meets others.
const TRIES_MAX: u32 = 8;
/// When to ask again after those.
const RETRY_AFTER_MS: u64 = 50;

/// A job with what is stored beside it.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) job: Job,
    revision: u64,
    pub(super) sealed_at_ms: Option<u64>,
    pub(super) cancelling_at_ms: Option<u64>,
}

fn stored(item: &Item) -> Result<Stored, StoreError> {
    let read = Reader { item, object: "job" };
    Ok(Stored {
        job: read.json(at::JOB)?,
        revision: read.number(at::REVISION)?,
        sealed_at_ms: read.number_if_any(at::SEALED_AT)?,
        cancelling_at_ms: read.number_if_any(at::CANCELLING_AT)?,
    })
}

fn job_json(job: &Job) -> aws_sdk_dynamodb::types::AttributeValue {
    item::text(serde_json::to_string(job).expect("plain structs become JSON"))
}

fn job_key(id: JobId) -> Item {
    key(schema::job_pk(id), META)
}

impl AwsState {
    pub(super) async fn stored_job(&self, id: JobId) -> Result<Option<Stored>, StoreError> {
        self.table.get(job_key(id)).await?.as_ref().map(stored).transpose()
    }

    pub(super) async fn put_job(&self, job: Job) -> Result<Job, StoreError> {
        let mut item = job_key(job.id);
        let mut set = |name: &str, value| item.insert(name.to_owned(), value);
        set(at::JOB, job_json(&job));
        set(at::REVISION, item::number(1));
        set(JOBS.partition, item::text(job.tenant.as_str()));
        set(JOBS.sort, item::binary(schema::created_row(job.created_at_ms, job.id)));
        if job.state.ended_at_ms().is_none() {
            set(ALIVE.partition, item::text(job.tenant.as_str()));
        }
        match self.table.create(item).await {
            Ok(()) => Ok(job),
            Err(NotWritten::Failed(error)) => Err(error),
            Err(NotWritten::Refused(Some(found))) => Ok(stored(&found)?.job),
            // Deleted between the refusal and its answer; the caller may create it anew.
            Err(NotWritten::Refused(None)) => Err(StoreError::Throttled { retry_after_ms: RETRY_AFTER_MS }),
        }
    }

    pub(super) async fn move_job(&self, id: JobId, event: JobEvent) -> Result<Job, JobWriteError> {
        let mut current = self.stored_job(id).await?;
        for _ in 0..TRIES_MAX {
            let Some(before) = &current else { return Err(JobWriteError::Refused(JobRefused::Absent)) };
            let after = before.job.apply(&event).map_err(JobWriteError::Refused)?;
            let mut update = Update::default();
            update.set(at::JOB, job_json(&after)).add(at::REVISION, item::number(1));
            update.only_if(at::REVISION, "=", item::number(before.revision));
            match event {
                JobEvent::Seal { .. } => update.set(at::SEALED_AT, item::number(super::now_ms())),
                JobEvent::Cancel => update.set(at::CANCELLING_AT, item::number(super::now_ms())),
                JobEvent::CancelComplete { .. } | JobEvent::Complete { .. } => update.remove(ALIVE.partition),
            };
            match self.table.update(job_key(id), update).await {
                Ok(_) => return Ok(after),
                Err(NotWritten::Failed(error)) => return Err(error.into()),
                Err(NotWritten::Refused(found)) => current = found.as_ref().map(stored).transpose()?,
            }
        }
        Err(StoreError::Throttled { retry_after_ms: RETRY_AFTER_MS }.into())
    }

    /// Costs a query and a batch of reads per page of up to 1,000 jobs; a name is looked for in the jobs read.
    pub(super) async fn list_jobs(&self, tenant: &TenantId, filter: &JobFilter) -> Result<Vec<Job>, StoreError> {
        let end = match filter.before {
            None => vec![u8::MAX; 24],
            Some(before) => match self.stored_job(before).await? {
                Some(found) => schema::created_row(found.job.created_at_ms, before),
                None => return Ok(Vec::new()),
            },
        };
        let index = if filter.alive { ALIVE } else { JOBS };
        let fits = |job: &Job| {
            filter.before != Some(job.id)
                && (!filter.alive || job.state.ended_at_ms().is_none())
                && filter.name.as_ref().is_none_or(|name| job.options.name == *name)
        };
        // One more than wanted, since the job that the page begins behind is read with it.
        let page_rows = if filter.name.is_some() { limits::PAGE_ROWS_MAX } else { filter.limit.saturating_add(1) };
        let (mut jobs, mut next) = (Vec::new(), None);
        while jobs.len() < filter.limit {
            let between = (vec![0], end.clone());
            let page = self
                .table
                .query_index(index, tenant.to_string(), between, true, page_rows.min(limits::PAGE_ROWS_MAX), next)
                .await?;
            jobs.extend(self.jobs_of(&page.items).await?.into_iter().filter(fits));
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        jobs.truncate(filter.limit);
        Ok(jobs)
    }

    /// The jobs of index rows as they are, in the rows' order.
    async fn jobs_of(&self, rows: &[Item]) -> Result<Vec<Job>, StoreError> {
        let keys = rows.iter().map(key_of).collect::<Result<Vec<_>, _>>()?;
        let mut found = std::collections::HashMap::with_capacity(keys.len());
        for item in self.table.get_all(keys.clone()).await? {
            found.insert(key_of(&item)?, stored(&item)?.job);
        }
        Ok(keys.iter().filter_map(|key| found.remove(key)).collect())
    }

    /// The job goes last, so that a deletion that broke off is found again.
    pub(super) async fn forget_job(&self, id: JobId) -> Result<(), StoreError> {
        self.delete_chunks(id).await?;
        self.delete_sums(id).await?;
        self.table.delete(job_key(id)).await
    }
}
