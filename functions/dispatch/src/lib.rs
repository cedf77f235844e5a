//! The Lambda for tasks: fed with hints by SQS, it claims their chunks, runs them and commits what came of them.
//!
//! [`Dispatcher`] is what a process keeps; each event is one [`Dispatcher::handle`]. The steps are those of any worker
//! (`sheaf_protocol::Worker`): nothing here decides what is right, only what is worth starting in the time there is.
//!
//! # An event
//! Up to ten hints are worked off at once, over as many slots as the Lambda has cores. While they are, their messages are
//! kept hidden for as long as the leases of their chunks last, renewed together with them: when a Lambda dies, its messages
//! come back as soon as another may take over, not after the queue's own timeout, which has to outlast the Lambda's. A hint
//! whose chunk is over is answered as done, and Lambda deletes it. Every other was postponed, and is reported as failed, so that
//! Lambda does not. A body that is no hint is logged and answered as done: nothing would ever become of it.
//!
//! # The Lambda's deadline
//! Some seconds before it ([`Slice`] has the figures) no further task is started; a little later what still runs is stopped,
//! what is done is committed, and the chunk is given back. Its hint comes again at once and goes on with the tasks that are
//! left.
//!
//! # Long tasks
//! *With containers* (`SHEAF_SPOT=1`) a chunk goes to the spot lane, by a hint there, when a whole Lambda would not do:
//! - its function is known, and a task's 95th percentile, or all its open tasks over all slots, take longer;
//! - its function is not known, and may take longer by its manifest;
//! - a worker gave it back for lack of time before without having finished one task.
//!
//! *Without containers* a chunk runs in slices, one Lambda after the other, each task within one of them. A task that a whole
//! Lambda does not suffice for would be started for ever; so the first calls of a slice have no more time than
//! [`Slice::task_ms_max`], and a task that outlasts it fails as `timed_out`, says which limit it was, and what can be done. A
//! function that takes batches is given one task alone at first once its chunk has been tried before, so that a batch that
//! is too long for a Lambda gets on as well.
//!
//! # Between events
//! Lambda freezes the process once it has answered. Nothing of an event is left running then but children that were stopped
//! and are being reaped, which goes on when the process thaws. Warm children stay, frozen with it. Their idle time is
//! measured on the process's monotonic clock, which may or may not run while it is frozen; it is set so long
//! ([`IDLE`]) that they live as long as the process does, and a child that is stopped for it only starts again.

mod dispatcher;
mod event;
mod lane;
mod slice;

pub use dispatcher::{DispatchOptions, Dispatcher, IDLE};
pub use slice::Slice;
