//! What holds whoever goes first.

use std::{
    collections::BTreeMap,
    future::{Future, IntoFuture},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::{Either, join_all, select};
use sheaf_api::{Api, Code};
use sheaf_core::{JobId, JobState};
use shuttle::rand::{Rng, thread_rng};
use tokio::task::yield_now;

use crate::{
    budget::Budget,
    connect::ClientOptions,
    error::{GridError, TaskError},
    fake::Fake,
    function::Function,
    grid::Grid,
    transport::Transport,
};

/// A number below `bound`, of the schedule's own choosing.
fn choose(bound: usize) -> usize {
    thread_rng().gen_range(0..bound)
}

/// Lets others go on, up to so many times.
async fn idle(bound: usize) {
    for _ in 0..choose(bound) {
        yield_now().await;
    }
}

/// Goes on with a future for a while, and drops it if it is not done then.
async fn give_up<T>(future: impl Future<Output = T>) -> Option<T> {
    let (future, patience) = (Box::pin(future), Box::pin(idle(8)));
    match select(future, patience).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}

/// What hands out bytes.
pub trait Purse: Clone + Send + Sync + 'static {
    type Permit: Send;
    fn new(bytes: usize) -> Self;
    fn try_take(&self, bytes: usize) -> Option<Self::Permit>;
    fn take(self, bytes: usize) -> impl Future<Output = Self::Permit> + Send;
    fn taken(&self) -> usize;
}

impl Purse for Budget {
    type Permit = tokio::sync::OwnedSemaphorePermit;

    fn new(bytes: usize) -> Self {
        Self::new(bytes)
    }

    fn try_take(&self, bytes: usize) -> Option<Self::Permit> {
        self.try_take(bytes)
    }

    fn take(self, bytes: usize) -> impl Future<Output = Self::Permit> + Send {
        self.take(bytes)
    }

    fn taken(&self) -> usize {
        self.taken()
    }
}

/// The planted bug: between its look and its taking another may take the same bytes.
#[derive(Clone)]
pub struct Racy {
    bytes: usize,
    out: Arc<AtomicUsize>,
}

/// Bytes of a [`Racy`].
pub struct RacyPermit(Arc<AtomicUsize>, usize);

impl Drop for RacyPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl Purse for Racy {
    type Permit = RacyPermit;

    fn new(bytes: usize) -> Self {
        Self { bytes, out: Arc::default() }
    }

    fn try_take(&self, bytes: usize) -> Option<RacyPermit> {
        (self.taken() + bytes <= self.bytes).then(|| self.clone().permit(bytes))
    }

    async fn take(self, bytes: usize) -> RacyPermit {
        while self.taken() + bytes.min(self.bytes) > self.bytes {
            yield_now().await;
        }
        yield_now().await;
        self.permit(bytes)
    }

    fn taken(&self) -> usize {
        self.out.load(Ordering::Relaxed)
    }
}

impl Racy {
    fn permit(self, bytes: usize) -> RacyPermit {
        let bytes = bytes.min(self.bytes);
        self.out.fetch_add(bytes, Ordering::Relaxed);
        RacyPermit(self.out, bytes)
    }
}

/// Never more is out than there is; whoever waits gets its turn, whatever others do with theirs; and all comes back.
pub fn budget<P: Purse>() {
    const BYTES: usize = 10;
    shuttle::future::block_on(async {
        let purse = P::new(BYTES);
        let out = Arc::new(AtomicUsize::new(0));
        let tasks = (0..4).map(|_| {
            let (purse, out) = (purse.clone(), Arc::clone(&out));
            tokio::spawn(async move {
                for _ in 0..3 {
                    // Some ask for more than there is, and go alone.
                    let bytes = choose(BYTES + 3) + 1;
                    let permit = match choose(4) {
                        0 => purse.try_take(bytes),
                        1 => give_up(purse.clone().take(bytes)).await,
                        _ => Some(purse.clone().take(bytes).await),
                    };
                    let Some(permit) = permit else { continue };
                    let bytes = bytes.min(BYTES);
                    let now = out.fetch_add(bytes, Ordering::Relaxed) + bytes;
                    assert!(now <= BYTES, "{now} of {BYTES} bytes are out");
                    idle(3).await;
                    out.fetch_sub(bytes, Ordering::Relaxed);
                    drop(permit);
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("it does not panic");
        }
        assert_eq!(purse.taken(), 0);
    });
}

const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// A grid that throttles and loses answers, and a handle on it.
fn grid(unacknowledged_bytes: usize) -> (Fake, Grid) {
    let fake = Fake::seeded(choose(1 << 16) as u64);
    fake.behave(|manners| (manners.throttle, manners.lose) = (0.2, 0.2));
    if choose(2) == 0 {
        fake.knows(0.1);
    }
    let linger = if choose(2) == 0 { Duration::ZERO } else { FOREVER };
    let grid = Grid::new(Transport::other(fake.clone()), ClientOptions { unacknowledged_bytes, linger });
    (fake, grid)
}

/// Which job holds each payload, once for every time that it does.
fn submitted(fake: &Fake) -> BTreeMap<Vec<u8>, Vec<JobId>> {
    let mut found = BTreeMap::<_, Vec<_>>::new();
    for job in fake.jobs_created() {
        for pack in fake.chunks(job).into_values().map(|chunk| chunk.pack) {
            (0..pack.tasks()).for_each(|task| found.entry(pack.payload(task).to_vec()).or_default().push(job));
        }
    }
    found
}

fn assert_sealed(fake: &Fake, job: JobId) {
    let (chunks, state) = (fake.chunks(job).len() as u32, fake.job_state(job).expect("it is there"));
    assert_eq!(state.seal().map(|seal| seal.chunks), Some(chunks), "{state:?}");
}

/// Tasks submitted one by one, by clients of which some lose interest at any moment: what was accepted is in the grid
/// once, its ticket has its own result, nobody waits for ever, and the bytes out stay within the budget and come back.
pub fn tickets() {
    const BYTES: usize = 16;
    shuttle::future::block_on(async {
        let (fake, grid) = grid(BYTES);
        let budget = grid.budget();
        let cancels = choose(4) == 0;
        let function = Function::raw("echo");
        let clients = (0..4u64).map(|number| {
            let (grid, function) = (grid.clone(), function.clone());
            let item = Bytes::copy_from_slice(&number.to_le_bytes());
            tokio::spawn(async move {
                idle(4).await;
                let accepted = match choose(4) {
                    0 => give_up(grid.submit(&function, item.clone())).await,
                    _ => Some(grid.submit(&function, item.clone()).await),
                };
                let ticket = match accepted {
                    None => return None,
                    Some(Ok(ticket)) => ticket,
                    // Cancelling the job behind tickets refuses those that are on their way into it.
                    Some(Err(error)) if cancels && error.code() == Code::Over => return None,
                    Some(Err(error)) => panic!("a grid that comes back refuses nobody: {error}"),
                };
                let id = ticket.id();
                let result = match choose(4) {
                    0 => give_up(ticket).await,
                    _ => Some(ticket.await),
                };
                match result.map(|result| result.expect("the grid works").outcome) {
                    None => {}
                    Some(Ok(answer)) => assert_eq!(answer, item, "another task's result"),
                    Some(Err(TaskError::Cancelled)) if cancels => {}
                    Some(Err(error)) => panic!("echo does not fail: {error}"),
                }
                Some((id, item))
            })
        });
        let clients: Vec<_> = clients.collect();
        if cancels {
            idle(20).await;
            for job in fake.jobs_created() {
                fake.cancel(job).await.expect("it is there");
            }
        }
        let mut accepted = Vec::new();
        for client in clients {
            accepted.extend(client.await.expect("it does not panic"));
        }
        grid.close().await;
        let found = submitted(&fake);
        assert!(found.values().all(|jobs| jobs.len() == 1), "a task is in the grid twice");
        for (id, item) in accepted {
            assert_eq!(found.get(&item[..]), Some(&vec![id.chunk.job]), "{id} was accepted and is not there");
        }
        if !cancels {
            fake.jobs_created().into_iter().for_each(|job| assert_sealed(&fake, job));
        }
        assert!(fake.in_flight_bytes_max() <= BYTES, "{} bytes were out", fake.in_flight_bytes_max());
        assert_eq!(budget.taken(), 0);
    });
}

/// A handle that is closed while others use it, over a grid that runs nothing: each of them is told, and what was accepted
/// is sealed.
pub fn closing() {
    shuttle::future::block_on(async {
        let (fake, grid) = grid(16);
        fake.behave(|manners| manners.hold = true);
        let budget = grid.budget();
        let function = Function::raw("echo");
        let clients = (0..3u64).map(|number| {
            let (grid, function) = (grid.clone(), function.clone());
            tokio::spawn(async move {
                idle(4).await;
                let item = Bytes::copy_from_slice(&number.to_le_bytes());
                match grid.submit(&function, item.clone()).await {
                    Ok(ticket) => {
                        let told = ticket.await.expect_err("nothing runs here");
                        assert_eq!(told.code(), Code::Stopped);
                        Some(item)
                    }
                    Err(error) => {
                        assert_eq!(error.code(), Code::Stopped, "{error}");
                        None
                    }
                }
            })
        });
        let clients: Vec<_> = clients.collect();
        idle(30).await;
        grid.close().await;
        let mut accepted = Vec::new();
        for client in clients {
            accepted.extend(client.await.expect("it does not panic"));
        }
        let found = submitted(&fake);
        assert!(accepted.iter().all(|item| found.get(&item[..]).is_some_and(|jobs| jobs.len() == 1)));
        assert_eq!(budget.taken(), 0);
    });
}

/// A job of many items, whose reader may lose interest: all of them are submitted once, in their order, and sealed.
pub fn feed() {
    const ITEMS: u64 = 12;
    const BYTES: usize = 120;
    shuttle::future::block_on(async {
        let (fake, grid) = grid(BYTES);
        let budget = grid.budget();
        let function = Function::raw("echo");
        let items = (0..ITEMS).map(|number| Bytes::copy_from_slice(&number.to_le_bytes()));
        let job = grid.job("fed").chunk_tasks(choose(4) as u32 + 1);
        let mut results = job.map(&function, items).start().await.expect("it starts");
        let id = results.job_id();
        let reads = if choose(3) == 0 { choose(ITEMS as usize) } else { usize::MAX };
        let mut seen = BTreeMap::new();
        while seen.len() < reads
            && let Some(result) = results.next().await
        {
            let result = result.expect("the grid works");
            assert!(seen.insert(result.index, result.outcome.expect("echoed")).is_none(), "a result came twice");
        }
        if reads == usize::MAX {
            assert_eq!(seen.len() as u64, ITEMS);
        }
        assert!(seen.iter().all(|(index, answer)| index.to_le_bytes() == answer[..]));
        drop(results);
        grid.close().await;
        let mut next = 0;
        for chunk in fake.chunks(id).into_values() {
            assert_eq!(chunk.task_first, next);
            for task in 0..chunk.pack.tasks() {
                assert_eq!(chunk.pack.payload(task), next.to_le_bytes());
                next += 1;
            }
        }
        assert_eq!(next, ITEMS, "items are missing");
        assert_sealed(&fake, id);
        assert!(fake.in_flight_bytes_max() <= BYTES, "{} bytes were out", fake.in_flight_bytes_max());
        assert_eq!(budget.taken(), 0);
    });
}
