//! Warm children: kept per tenant and function version, taken by the next call of it, stopped when idle or in the way.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sheaf_api::run::Call;
use sheaf_core::{FunctionRef, TenantId};

use crate::child::Child;

/// The children of a host that are not in a call.
pub(crate) struct Pool {
    slots: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Longest idle first.
    idle: Vec<Idle>,
    busy: usize,
    closed: bool,
}

struct Idle {
    tenant: TenantId,
    function: FunctionRef,
    child: Child,
    since: Instant,
}

/// A place for a child in a call. The child is dropped with it, which kills it, unless [given back](Place::give_back).
pub(crate) struct Place<'a> {
    pool: &'a Pool,
    pub(crate) child: Option<Child>,
}

impl Idle {
    fn is_of(&self, call: &Call) -> bool {
        self.tenant == call.tenant && self.function == call.function
    }
}

impl Pool {
    /// A pool of at most `slots` children, busy ones included.
    pub(crate) fn new(slots: usize) -> Self {
        Self { slots, state: Mutex::default() }
    }

    /// A place with an idle child of the call's tenant and function, the last used one; or an empty place, for which children of other
    /// functions may have had to go: those are given to be stopped.
    pub(crate) fn take(&self, call: &Call) -> (Place<'_>, Vec<Child>) {
        let mut state = self.state.lock();
        state.busy += 1;
        let mut gone = Vec::new();
        let mut place = Place { pool: self, child: None };
        while let Some(at) = state.idle.iter().rposition(|idle| idle.is_of(call)) {
            let child = state.idle.remove(at).child;
            if child.is_usable() {
                place.child = Some(child);
                return (place, gone);
            }
            gone.push(child);
        }
        let over = (state.busy + state.idle.len()).saturating_sub(self.slots).min(state.idle.len());
        gone.extend(state.idle.drain(..over).map(|idle| idle.child));
        (place, gone)
    }

    /// Those that have been idle for `idle`, or have ended.
    pub(crate) fn take_idle(&self, idle: Duration) -> Vec<Child> {
        let mut state = self.state.lock();
        let gone = |entry: &mut Idle| entry.since.elapsed() >= idle || !entry.child.is_usable();
        state.idle.extract_if(.., gone).map(|entry| entry.child).collect()
    }

    /// All of them; none is kept from now on.
    pub(crate) fn close(&self) -> Vec<Child> {
        let mut state = self.state.lock();
        state.closed = true;
        state.idle.drain(..).map(|idle| idle.child).collect()
    }

    /// How many are idle.
    pub(crate) fn idle(&self) -> usize {
        self.state.lock().idle.len()
    }
}

impl Place<'_> {
    /// Keeps the child for the next call of the same tenant and function, if it can take one.
    pub(crate) fn give_back(mut self, call: &Call) {
        let Some(child) = self.child.take().filter(Child::is_usable) else { return };
        let mut state = self.pool.state.lock();
        if !state.closed {
            let (tenant, function) = (call.tenant.clone(), call.function.clone());
            state.idle.push(Idle { tenant, function, child, since: Instant::now() });
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.pool.state.lock().busy -= 1;
    }
}
