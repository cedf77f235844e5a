//! The ways to a grid, as one type.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use futures::future::BoxFuture;
use sheaf_api::{
    Answer, Api,
    wire::{
        CreateJob, EventView, FunctionView, GridView, JobFilter, JobView, Page, PutFunction, ReadResults, ResultsPage,
        RetryJob, SubmitChunk, SubmitReply, TaskView, WorkerView,
    },
};
use sheaf_core::{JobId, Seal, TaskId};

/// A way to a grid. Implements [`Api`], so that what the SDK wraps can also be called as it is. A remote one repeats calls
/// for a while by itself; the others do not.
#[non_exhaustive]
pub enum Transport {
    /// The grid in this process.
    #[cfg(feature = "embedded")]
    Embedded(sheaf_local::Grid),
    /// A grid behind a URL.
    #[cfg(feature = "remote")]
    Remote(crate::remote::Remote),
    /// A grid on AWS, without its API: the steps run in this process.
    #[cfg(feature = "aws")]
    Aws(Other),
    /// Any other implementation of the calls.
    Other(Other),
}

/// An implementation of the calls of unknown type.
#[derive(Clone)]
pub struct Other(Arc<dyn Erased>);

impl Transport {
    /// A way through any implementation of the calls.
    pub fn other(api: impl Api) -> Self {
        Self::Other(Other(Arc::new(api)))
    }

    /// A way to a grid on AWS through the steps in this process.
    #[cfg(feature = "aws")]
    pub(crate) fn aws(steps: impl Api) -> Self {
        Self::Aws(Other(Arc::new(steps)))
    }

    /// The same way without the repetitions that a remote one makes by itself, for callers that repeat calls themselves:
    /// two layers of that would multiply.
    pub fn once(&self) -> Self {
        match self {
            #[cfg(feature = "embedded")]
            Self::Embedded(grid) => Self::Embedded(grid.clone()),
            #[cfg(feature = "remote")]
            Self::Remote(remote) => Self::Remote(remote.clone().with_retry_ms_max(0)),
            #[cfg(feature = "aws")]
            Self::Aws(steps) => Self::Aws(steps.clone()),
            Self::Other(other) => Self::Other(other.clone()),
        }
    }

    /// The word for it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            #[cfg(feature = "embedded")]
            Self::Embedded(_) => "embedded",
            #[cfg(feature = "remote")]
            Self::Remote(_) => "remote",
            #[cfg(feature = "aws")]
            Self::Aws(_) => "aws",
            Self::Other(_) => "other",
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The calls as a trait that can be a `dyn`: one boxed future per call, and no call is made per task.
macro_rules! calls {
    ($($call:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        trait Erased: Send + Sync {
            $(fn $call(&self, $($argument: $type),*) -> BoxFuture<'_, Answer<$answer>>;)*
            fn function(&self, name: String) -> BoxFuture<'_, Answer<FunctionView>>;
        }

        impl<A: Api> Erased for A {
            $(fn $call(&self, $($argument: $type),*) -> BoxFuture<'_, Answer<$answer>> {
                Box::pin(Api::$call(self, $($argument),*))
            })*
            fn function(&self, name: String) -> BoxFuture<'_, Answer<FunctionView>> {
                Box::pin(async move { Api::function(self, &name).await })
            }
        }

        impl Api for Transport {
            $(async fn $call(&self, $($argument: $type),*) -> Answer<$answer> {
                match self {
                    #[cfg(feature = "embedded")]
                    Self::Embedded(api) => Api::$call(api, $($argument),*).await,
                    #[cfg(feature = "remote")]
                    Self::Remote(api) => Api::$call(api, $($argument),*).await,
                    #[cfg(feature = "aws")]
                    Self::Aws(Other(api)) => Erased::$call(&**api, $($argument),*).await,
                    Self::Other(Other(api)) => Erased::$call(&**api, $($argument),*).await,
                }
            })*
            async fn function(&self, name: &str) -> Answer<FunctionView> {
                match self {
                    #[cfg(feature = "embedded")]
                    Self::Embedded(api) => Api::function(api, name).await,
                    #[cfg(feature = "remote")]
                    Self::Remote(api) => Api::function(api, name).await,
                    #[cfg(feature = "aws")]
                    Self::Aws(Other(api)) => Erased::function(&**api, name.to_owned()).await,
                    Self::Other(Other(api)) => Erased::function(&**api, name.to_owned()).await,
                }
            }
        }
    };
}

calls! {
    grid() -> GridView;
    create_job(request: CreateJob) -> JobView;
    submit(job: JobId, chunks: Vec<SubmitChunk>) -> SubmitReply;
    seal(job: JobId, seal: Seal) -> JobView;
    progress(job: JobId, seen: Option<u64>, wait_ms: u64) -> JobView;
    results(job: JobId, read: ReadResults) -> ResultsPage;
    cancel(job: JobId) -> JobView;
    retry(job: JobId, request: RetryJob) -> JobView;
    jobs(filter: JobFilter) -> Page<JobView>;
    task(task: TaskId) -> TaskView;
    logs(task: TaskId) -> Bytes;
    events(job: JobId, from: u64) -> Page<EventView>;
    put_function(request: PutFunction) -> FunctionView;
    functions() -> Page<FunctionView>;
    workers() -> Page<WorkerView>;
}
