//! Virtual time: who runs next, when it is, and who is dead.
//!
//! Everything happens on one thread. A *task* is a future; tasks belong to a *process*, which has a clock of its own, can be
//! paused, and can be killed: then its futures are dropped wherever they are. What a process has sent before is on its way
//! all the same, because effects are *events* of the world, not of the process.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures::channel::oneshot;
use parking_lot::Mutex;

use crate::cloud::Cloud;

/// The time at which every run starts (Unix, ms).
pub const START_MS: u64 = 1_800_000_000_000;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
type Effect = Box<dyn FnOnce(&Sim) + Send>;

/// A process, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u32);

/// What never dies: the world's own loops.
pub const WORLD: ProcessId = ProcessId(0);

struct Process {
    name: &'static str,
    alive: bool,
    paused_until_us: u64,
    paused_us: u64,
    skew_ms: i64,
    tasks: Vec<usize>,
    exit: Vec<oneshot::Sender<()>>,
}

enum Action {
    Wake(Waker),
    Effect(Effect),
}

struct Event {
    at_us: u64,
    order: u64,
    action: Action,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        (self.at_us, self.order) == (other.at_us, other.order)
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.order).cmp(&(other.at_us, other.order))
    }
}

struct Slot {
    process: ProcessId,
    future: Option<Task>,
    wake: Arc<Wakes>,
}

struct Wakes {
    task: usize,
    queued: AtomicBool,
    ready: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.lock().push(self.task);
        }
    }
}

struct State {
    now_us: u64,
    order: u64,
    events: BinaryHeap<Reverse<Event>>,
    processes: Vec<Process>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    rng: fastrand::Rng,
    polls: u64,
    trace: u64,
    print: bool,
}

/// One simulated world. Cloning shares it.
#[derive(Clone)]
pub struct Sim {
    state: Arc<Mutex<State>>,
    ready: Arc<Mutex<Vec<usize>>>,
    cloud: Arc<Mutex<Cloud>>,
}

impl Sim {
    /// A world in which nothing has happened yet.
    pub fn new(seed: u64, cloud: Cloud, print: bool) -> Self {
        let state = State {
            now_us: START_MS * 1_000,
            order: 0,
            events: BinaryHeap::new(),
            processes: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            rng: fastrand::Rng::with_seed(seed),
            polls: 0,
            trace: seed,
            print,
        };
        let sim =
            Self { state: Arc::new(Mutex::new(state)), ready: Arc::default(), cloud: Arc::new(Mutex::new(cloud)) };
        sim.process("world", 0);
        sim
    }

    /// Looks at or changes what is stored, outside any port.
    pub fn cloud<T>(&self, look: impl FnOnce(&mut Cloud) -> T) -> T {
        look(&mut self.cloud.lock())
    }

    /// The true time (Unix, ms).
    pub fn now_ms(&self) -> u64 {
        self.state.lock().now_us / 1_000
    }

    /// The time as a process sees it (Unix, ms).
    pub fn clock_ms(&self, process: ProcessId) -> u64 {
        let state = self.state.lock();
        (state.now_us / 1_000).saturating_add_signed(state.processes[process.0 as usize].skew_ms)
    }

    /// Draws from the seed.
    pub fn draw<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.state.lock().rng)
    }

    /// Whether something happens that has a probability.
    pub fn happens(&self, probability: f64) -> bool {
        probability > 0.0 && self.draw(|rng| rng.f64()) < probability
    }

    /// A number from a range.
    pub fn between(&self, from: u64, to: u64) -> u64 {
        self.draw(|rng| rng.u64(from..=to))
    }

    /// Digest of everything noted so far: equal for equal runs.
    pub fn trace(&self) -> u64 {
        self.state.lock().trace
    }

    /// How often anybody was polled.
    pub fn polls(&self) -> u64 {
        self.state.lock().polls
    }

    /// Notes an event in the trace; `told` is made only when the trace is printed.
    pub fn note(&self, process: ProcessId, what: &'static str, told: impl FnOnce() -> String) {
        let mut state = self.state.lock();
        let now_us = state.now_us;
        let words = what.bytes().fold(u64::from(process.0) ^ now_us.rotate_left(20), |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        state.trace = (state.trace ^ words).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
        if state.print {
            let seconds = (now_us - START_MS * 1_000) as f64 / 1e6;
            let name = state.processes[process.0 as usize].name;
            println!("{seconds:>12.6}  {name}{}  {what}  {}", process.0, told());
        }
    }

    /// Starts a process.
    pub fn process(&self, name: &'static str, skew_ms: i64) -> ProcessId {
        let mut state = self.state.lock();
        let (tasks, exit) = Default::default();
        state.processes.push(Process { name, alive: true, paused_until_us: 0, paused_us: 0, skew_ms, tasks, exit });
        ProcessId(state.processes.len() as u32 - 1)
    }

    /// Runs a future in a process. Nothing happens if that is dead.
    pub fn spawn(&self, process: ProcessId, future: impl Future<Output = ()> + Send + 'static) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if !state.processes[process.0 as usize].alive {
            drop(guard);
            return;
        }
        let task = state.free.pop().unwrap_or(state.slots.len());
        let wake = Arc::new(Wakes { task, queued: AtomicBool::new(true), ready: self.ready.clone() });
        let slot = Slot { process, future: Some(Box::pin(future)), wake };
        if task == state.slots.len() {
            state.slots.push(Some(slot));
        } else {
            state.slots[task] = Some(slot);
        }
        state.processes[process.0 as usize].tasks.push(task);
        self.ready.lock().push(task);
    }

    /// Ends a process: its futures are dropped where they are. Ending a dead one does nothing.
    pub fn kill(&self, process: ProcessId) {
        let mut state = self.state.lock();
        let dying = &mut state.processes[process.0 as usize];
        if !dying.alive || process == WORLD {
            return;
        }
        dying.alive = false;
        let (tasks, exit) = (std::mem::take(&mut dying.tasks), std::mem::take(&mut dying.exit));
        let slots: Vec<Option<Slot>> = tasks.iter().map(|&task| state.slots[task].take()).collect();
        // A slot whose future is being polled right now is freed when the poll returns.
        state.free.extend(tasks.iter().zip(&slots).filter(|(_, slot)| is_idle(slot)).map(|(&task, _)| task));
        drop(state);
        drop(slots);
        for exit in exit {
            let _ = exit.send(());
        }
    }

    /// Stops a process's clock hand: what it waits for comes later, while its leases run out.
    pub fn pause(&self, process: ProcessId, us: u64) {
        let mut state = self.state.lock();
        let until_us = state.now_us + us;
        let paused = &mut state.processes[process.0 as usize];
        paused.paused_until_us = paused.paused_until_us.max(until_us);
        paused.paused_us += us;
    }

    /// Whether a process lives.
    pub fn is_alive(&self, process: ProcessId) -> bool {
        self.state.lock().processes[process.0 as usize].alive
    }

    /// How long a process was paused in all, in ms.
    pub fn paused_ms(&self, process: ProcessId) -> u64 {
        self.state.lock().processes[process.0 as usize].paused_us / 1_000
    }

    /// Waits for a process to end.
    pub fn exited(&self, process: ProcessId) -> impl Future<Output = ()> + Send + use<> {
        let (tell, told) = oneshot::channel();
        let mut state = self.state.lock();
        let watched = &mut state.processes[process.0 as usize];
        if watched.alive {
            watched.exit.push(tell);
        }
        async move {
            let _ = told.await;
        }
    }

    /// Has an effect on the world after a time, whoever lives then.
    pub fn after(&self, us: u64, effect: impl FnOnce(&Self) + Send + 'static) {
        let mut state = self.state.lock();
        let at_us = state.now_us + us;
        state.push(at_us, Action::Effect(Box::new(effect)));
    }

    /// Waits.
    pub fn sleep(&self, us: u64) -> Sleep {
        let until_us = self.state.lock().now_us + us;
        Sleep { sim: self.clone(), until_us, told: None }
    }

    /// Waits some milliseconds.
    pub fn sleep_ms(&self, ms: u64) -> Sleep {
        self.sleep(ms.saturating_mul(1_000))
    }

    /// Runs until `is_over` says so; answers false if nothing can happen any more before that, or too much did.
    pub fn run(&self, polls_max: u64, is_over: impl Fn() -> bool) -> bool {
        while !is_over() {
            if self.polls() > polls_max || !self.step() {
                return false;
            }
        }
        true
    }

    /// Drops everything that still waits, so that the world can be freed.
    pub fn clear(&self) {
        let (slots, events) = {
            let mut state = self.state.lock();
            state.processes.iter_mut().for_each(|process| process.alive = false);
            (std::mem::take(&mut state.slots), std::mem::take(&mut state.events))
        };
        drop((slots, events));
    }

    /// Lets one task go on, or if none can, time.
    fn step(&self) -> bool {
        let task = {
            let mut ready = self.ready.lock();
            if ready.is_empty() {
                None
            } else {
                let chosen = if ready.len() == 1 { 0 } else { self.state.lock().rng.usize(..ready.len()) };
                Some(ready.swap_remove(chosen))
            }
        };
        let Some(task) = task else {
            let next = {
                let mut state = self.state.lock();
                let next = state.events.pop();
                if let Some(Reverse(event)) = &next {
                    state.now_us = state.now_us.max(event.at_us);
                }
                next
            };
            match next {
                Some(Reverse(Event { action: Action::Wake(waker), .. })) => waker.wake(),
                Some(Reverse(Event { action: Action::Effect(effect), .. })) => effect(self),
                None => return false,
            }
            return true;
        };
        self.poll(task);
        true
    }

    fn poll(&self, task: usize) {
        let (mut future, wake, process) = {
            let mut state = self.state.lock();
            state.polls += 1;
            let now_us = state.now_us;
            let Some(slot) = state.slots[task].as_mut() else { return };
            slot.wake.queued.store(false, Ordering::Relaxed);
            let (process, wake) = (slot.process, slot.wake.clone());
            let paused_until_us = state.processes[process.0 as usize].paused_until_us;
            if paused_until_us > now_us {
                wake.queued.store(true, Ordering::Relaxed);
                let again: Waker = Arc::new(Again(wake)).into();
                state.push(paused_until_us, Action::Wake(again));
                return;
            }
            let Some(slot) = state.slots[task].as_mut() else { return };
            let Some(future) = slot.future.take() else { return };
            (future, wake, process)
        };
        let waker = Waker::from(wake);
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        let mut state = self.state.lock();
        let alive = state.processes[process.0 as usize].alive;
        match (polled, alive) {
            (Poll::Pending, true) => {
                state.slots[task].as_mut().expect("only a dead process loses its slots").future = Some(future);
                return;
            }
            (Poll::Ready(()), true) => {
                state.slots[task] = None;
                state.processes[process.0 as usize].tasks.retain(|&other| other != task);
                state.free.push(task);
            }
            (_, false) => state.free.push(task),
        }
        drop(state);
        drop(future);
    }
}

/// Whether a slot taken from a dying process was not being polled.
fn is_idle(slot: &Option<Slot>) -> bool {
    slot.as_ref().is_none_or(|slot| slot.future.is_some())
}

/// Wakes a task that was put off: it is on nobody's list, though it is marked as queued.
struct Again(Arc<Wakes>);

impl Wake for Again {
    fn wake(self: Arc<Self>) {
        self.0.ready.lock().push(self.0.task);
    }
}

impl State {
    fn push(&mut self, at_us: u64, action: Action) {
        self.order += 1;
        self.events.push(Reverse(Event { at_us, order: self.order, action }));
    }
}

/// A pause.
pub struct Sleep {
    sim: Sim,
    until_us: u64,
    told: Option<Waker>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.sim.state.lock();
        if state.now_us >= self.until_us {
            return Poll::Ready(());
        }
        if self.told.as_ref().is_none_or(|told| !told.will_wake(context.waker())) {
            state.push(self.until_us, Action::Wake(context.waker().clone()));
            drop(state);
            self.told = Some(context.waker().clone());
        }
        Poll::Pending
    }
}
