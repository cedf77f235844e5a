//! A container that runs long tasks on spot and on-demand machines: it claims chunks, runs them, and gives back what it cannot
//! finish when its machine is wanted back.
//!
//! # Environment
//! | variable | meaning | default |
//! |---|---|---|
//! | `SHEAF_TABLE`, `SHEAF_BUCKET`, `SHEAF_QUEUES` | where the grid's state, bytes and hints are | must be set |
//! | `SHEAF_GRID` | the grid's name, in logs and metrics | the table's |
//! | `SHEAF_LANES` | which chunks it takes: `spot`, `on-demand`, `lambda`, with commas between | `spot` |
//! | `SHEAF_WORKER_SLOTS` | how many tasks it runs at once | as many as it has cores |
//! | `SHEAF_SCRATCH` | where functions are unpacked and run; on a local disk | `/scratch` if there is one, else in the temporary directory |
//! | `SHEAF_STOP_S` | time from SIGTERM to SIGKILL, as whoever stops it has it | 110 |
//! | `SHEAF_IDLE_S` | it ends by itself after so many seconds without a chunk; 0 for never | 0 |
//! | `SHEAF_METADATA` | URL of the EC2 metadata service; empty to ask none | `http://169.254.169.254` |
//! | `SHEAF_LOG` | a `tracing` filter | `info` |
//!
//! Region, credentials and endpoints are found as the AWS SDK finds them. `ECS_CONTAINER_METADATA_URI_V4`, which ECS sets,
//! gives it its name; `ECS_AGENT_URI`, which ECS sets too, is asked for scale-in protection while chunks are held.
//!
//! # When it stops
//! | notice | from | what is running |
//! |---|---|---|
//! | the machine is taken away | EC2 metadata, looked at every 5 s | may go on for 75 s, but not to within 15 s of the announced time |
//! | the machine may be taken away | EC2 metadata (rebalance recommendation) | may end, unless a notice with a time follows |
//! | SIGTERM, SIGINT | ECS on scale-in, deployment, Spot on Fargate or a draining instance; a person | may go on for 80 of 110 s |
//! | nothing to do | `SHEAF_IDLE_S` | nothing is |
//!
//! What a notice means for what runs is the same for every worker process: see [`sheaf_worker`]. Chunks given back wait for
//! nobody: they are in the queue again at once, with what was committed of them.
//!
//! On Fargate, and in containers that cannot reach the metadata service, a reclaimed machine looks like any other SIGTERM, and
//! is called a drain.
//!
//! # How it ends
//! | exit code | meaning |
//! |---|---|
//! | 0 | it was asked to stop, and everything it had is committed or given back |
//! | 1 | it could not start: a variable makes no sense, its scratch directory cannot be used |
//! | 3 | time was up before everything was given back; what is left goes to others when its lease has run out |
//! | 130, 143 | a second SIGINT or SIGTERM: it has dropped everything |
//!
//! # What functions can reach
//! They get no variable of this process's environment and cannot read its memory or `/proc` entries, which hold where its
//! credentials come from. They share its network: an instance's metadata service must be kept from containers (a hop limit of
//! 1, or `ECS_AWSVPC_BLOCK_IMDS`) if its role may do what functions may not.

mod ec2;
mod machine;
mod protection;
mod settings;

pub use ec2::watch as watch_ec2;
pub use machine::{hide_from_children, name as machine_name};
pub use protection::keep as keep_protected;
pub use settings::Settings;
