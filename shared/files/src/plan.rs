//! What a file becomes: which functions, in chunks of which size, in order or not.

use sheaf_api::{
    Api, Code,
    intake::{Format, Scan, stem},
    wire::{CreateJob, FunctionView, JobView},
};
use sheaf_core::{Estimate, FunctionName, FunctionRef, JobId, Origin, ResultForm, Seal, limits};

use crate::{FileError, FileOptions, FileSource, call::call, packing::Packing};

/// The job's label that says how many tasks a chunk has. It is kept with the job, so that a run that goes on after a crash
/// cuts the file at the same places whatever has become of estimates and slots since.
const CHUNK_TASKS: &str = "tasks_per_chunk";
/// The job's label that says how many commands its file has, where somebody else than who submits them collects their results:
/// if the job has as many tasks, that one need not read the file.
pub(crate) const COMMANDS: &str = "commands";
/// Work that a chunk should hold at most, for a function whose task time is known.
const CHUNK_US: f64 = 2_000_000.0;
/// Chunks per slot that a file is cut into at least, if it has as many commands.
const CHUNKS_PER_SLOT: u64 = 8;
/// Chunks in one submission at most; and submissions that fit into a window, so that one is on its way while another runs.
const BATCH_CHUNKS_MAX: usize = 16;
const BATCHES_PER_WINDOW: usize = 4;
/// Chunks submitted and not yet answered: at least so many, or two a slot if those are more, and at most so many.
const WINDOW_CHUNKS_MIN: usize = 4;
const WINDOW_CHUNKS_MAX: usize = 256;

/// What a file becomes.
pub(crate) struct Plan {
    pub(crate) job: JobId,
    pub(crate) format: Format,
    pub(crate) function_default: Option<String>,
    pub(crate) scan: Scan,
    /// For each function of the scan, its index in the job, or none if it is unknown.
    pub(crate) indices: Vec<Option<u16>>,
    /// For each function of the job, what its results are.
    pub(crate) forms: Vec<ResultForm>,
    /// The size of a job that was sealed by an earlier run: all of it is submitted.
    pub(crate) sealed: Option<Seal>,
    ordered: bool,
    chunk_tasks: u32,
    slots: u32,
    backlog_ms: u64,
    estimate: Estimate,
}

impl Plan {
    /// Finds the functions and makes the job, or finds the job that an earlier run has made. A file of which no function is
    /// known makes none.
    pub(crate) async fn make<A: Api>(
        api: &A,
        source: &FileSource,
        (format, scan): (Format, Scan),
        options: &FileOptions,
    ) -> Result<Self, FileError> {
        let commands = scan.commands;
        let mut plan = Self::blank(source.job, (format, scan), options);
        match find_job(api, source.job).await? {
            Some(view) => plan.go_on(api, &view).await?,
            None => plan.start(api, source, options).await?,
        }
        if plan.ordered && commands > u64::from(limits::ORDERED_TASKS_MAX) {
            return Err(FileError::OrderedTooLong { commands });
        }
        Ok(plan)
    }

    /// The plan of a job that is there, if it is, for whoever only reads its results. If there is no job, no function of the
    /// file was known.
    pub(crate) async fn of_job<A: Api>(
        api: &A,
        (job, view): (JobId, Option<&JobView>),
        (format, scan): (Format, Scan),
        options: &FileOptions,
    ) -> Result<Self, FileError> {
        let mut plan = Self::blank(job, (format, scan), options);
        match view {
            Some(view) => plan.go_on(api, view).await?,
            None => plan.indices = vec![None; plan.scan.functions.len()],
        }
        Ok(plan)
    }

    fn blank(job: JobId, (format, scan): (Format, Scan), options: &FileOptions) -> Self {
        Self {
            job,
            format,
            function_default: options.function.clone(),
            indices: Vec::new(),
            forms: Vec::new(),
            sealed: None,
            ordered: false,
            chunk_tasks: 1,
            slots: 1,
            backlog_ms: options.backlog_ms,
            estimate: Estimate::default(),
            scan,
        }
    }

    /// Takes everything from the job as it was made. Its functions are, in order, those that were known then.
    async fn go_on<A: Api>(&mut self, api: &A, view: &JobView) -> Result<(), FileError> {
        let options = &view.job.options;
        (self.indices, self.forms) = Default::default();
        let mut functions = options.functions.iter().zip(0_u16..).peekable();
        for name in &self.scan.functions {
            let is_it = |function: &FunctionRef| function.name.as_str() == name || function.to_string() == *name;
            self.indices.push(functions.next_if(|(function, _)| is_it(function)).map(|(_, index)| index));
        }
        for function in &options.functions {
            let name = function.to_string();
            self.forms.push(call("looking for a function", || api.function(&name)).await?.manifest.result);
        }
        self.sealed = view.job.state.seal();
        self.ordered = options.ordered;
        self.slots = view.slots.max(1);
        self.estimate = view.estimate;
        let kept = options.labels.get(CHUNK_TASKS).and_then(|tasks| tasks.parse().ok());
        self.chunk_tasks = kept.unwrap_or(limits::CHUNK_TASKS_MAX).clamp(1, limits::CHUNK_TASKS_MAX);
        Ok(())
    }

    async fn start<A: Api>(&mut self, api: &A, source: &FileSource, options: &FileOptions) -> Result<(), FileError> {
        let mut functions: Vec<String> = Vec::new();
        for name in &self.scan.functions {
            let known = find(api, name).await?;
            self.indices.push(known.is_some().then_some(functions.len() as u16));
            let Some(FunctionView { reference, manifest, estimate }) = known else { continue };
            if functions.is_empty() {
                self.estimate = estimate;
            }
            functions.push(reference.to_string());
            self.forms.push(manifest.result);
            self.ordered |= manifest.ordered;
        }
        let too_long = self.ordered && self.scan.commands > u64::from(limits::ORDERED_TASKS_MAX);
        if functions.is_empty() || too_long {
            return Ok(());
        }
        self.slots = call("asking for the grid", || api.grid()).await?.slots.max(1);
        self.chunk_tasks = chunk_tasks(self.scan.commands, self.slots, &self.estimate);
        let stem = stem(&source.name);
        let mut labels = source.labels.clone();
        labels.insert(CHUNK_TASKS.to_owned(), self.chunk_tasks.to_string());
        let request = CreateJob {
            name: stem[..stem.floor_char_boundary(limits::JOB_NAME_BYTES_MAX)].to_owned(),
            ordered: self.ordered,
            max_attempts: options.max_attempts,
            priority: options.priority,
            labels,
            origin: Some(Origin::File { path: source.origin.clone() }),
            ..CreateJob::new(self.job, functions)
        };
        match call("creating the job", || api.create_job(request.clone())).await {
            // Somebody else runs the same file at this moment and was first, with other estimates: what was made then counts.
            Err(FileError::Call { source: error, .. }) if error.code == Code::Conflict => {
                let view = find_job(api, self.job).await?;
                let view = view.ok_or(FileError::Call { doing: "creating the job", source: error })?;
                self.go_on(api, &view).await
            }
            created => created.map(drop),
        }
    }

    /// Whether there is a job.
    pub(crate) fn has_tasks(&self) -> bool {
        !self.forms.is_empty()
    }

    /// Cuts the file's commands into chunks.
    pub(crate) fn packing(&self) -> Packing {
        if self.ordered {
            Packing::new(limits::ORDERED_TASKS_MAX, usize::MAX)
        } else {
            Packing::new(self.chunk_tasks, limits::PACK_BYTES_TARGET)
        }
    }

    /// Chunks in one submission.
    pub(crate) fn batch_chunks(&self) -> usize {
        (self.window_at_start() / BATCHES_PER_WINDOW).clamp(1, BATCH_CHUNKS_MAX)
    }

    /// Chunks that may be submitted and not answered before anything has been answered.
    pub(crate) fn window_at_start(&self) -> usize {
        self.window(&self.estimate)
    }

    /// Chunks that may be submitted and not answered. The grid takes chunks in the order they came, so this is also how
    /// long another file that comes later has to wait.
    pub(crate) fn window(&self, estimate: &Estimate) -> usize {
        let least = WINDOW_CHUNKS_MIN.max(2 * self.slots as usize);
        if estimate.tasks == 0 {
            return least;
        }
        let chunk_us = (estimate.mean_us * f64::from(self.chunk_tasks)).max(1.0);
        let backlog_us = (self.backlog_ms * 1_000 * u64::from(self.slots)) as f64;
        ((backlog_us / chunk_us) as usize).clamp(least, least.max(WINDOW_CHUNKS_MAX))
    }
}

/// A job, if there is one.
pub(crate) async fn find_job<A: Api>(api: &A, job: JobId) -> Result<Option<JobView>, FileError> {
    match call("looking for the job", || api.progress(job, None, 0)).await {
        Err(FileError::Call { source, .. }) if source.code == Code::NotFound => Ok(None),
        view => view.map(Some),
    }
}

/// A function by the name in a command; none if there is none, or none can have this name.
async fn find<A: Api>(api: &A, name: &str) -> Result<Option<FunctionView>, FileError> {
    if name.parse::<FunctionName>().is_err() && name.parse::<FunctionRef>().is_err() {
        return Ok(None);
    }
    match call("looking for a function", || api.function(name)).await {
        Err(FileError::Call { source, .. }) if matches!(source.code, Code::NotFound | Code::Invalid) => Ok(None),
        found => found.map(Some),
    }
}

/// Tasks per chunk: so many that few commands reach every slot several times and a million travel in full chunks, and at
/// most what makes two seconds of work where that is known.
fn chunk_tasks(commands: u64, slots: u32, estimate: &Estimate) -> u32 {
    let spread = commands.div_ceil(u64::from(slots.max(1)) * CHUNKS_PER_SLOT);
    let work = if estimate.tasks == 0 { u64::MAX } else { (CHUNK_US / estimate.mean_us.max(0.001)) as u64 };
    spread.min(work).clamp(1, limits::CHUNK_TASKS_MAX.into()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_fit_the_file_and_the_function() {
        let known = |mean_us| Estimate { tasks: 9, mean_us, p95_us: mean_us };
        for (commands, slots, estimate, expected) in [
            (1, 2, Estimate::default(), 1),
            (16, 2, Estimate::default(), 1),
            (17, 2, Estimate::default(), 2),
            (1_000_000, 2, Estimate::default(), 1_024),
            (1_000_000, 64, known(0.0), 1_024),
            (1_000_000, 64, known(10_000.0), 200),
            (1_000_000, 64, known(9e9), 1),
            (100, 64, known(1.0), 1),
            (5, 0, known(1.0), 1),
        ] {
            assert_eq!(chunk_tasks(commands, slots, &estimate), expected, "{commands} on {slots}, {estimate:?}");
        }
    }
}
