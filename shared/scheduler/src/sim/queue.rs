//! The events to come, earliest first; those of one instant in the order they were put in.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

#[derive(Debug)]
struct At<E> {
    at_s: f64,
    number: u64,
    event: E,
}

impl<E> PartialEq for At<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl<E> Eq for At<E> {}
impl<E> PartialOrd for At<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for At<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at_s.total_cmp(&other.at_s).then(self.number.cmp(&other.number))
    }
}

/// Events by time.
#[derive(Debug)]
pub(super) struct Queue<E> {
    heap: BinaryHeap<Reverse<At<E>>>,
    number: u64,
}

impl<E> Queue<E> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), number: 0 }
    }

    /// Puts `event` in for `at_s`; one that never comes is left out.
    pub(super) fn push(&mut self, at_s: f64, event: E) {
        if at_s.is_finite() {
            self.number += 1;
            self.heap.push(Reverse(At { at_s, number: self.number, event }));
        }
    }

    pub(super) fn pop(&mut self) -> Option<(f64, E)> {
        self.heap.pop().map(|Reverse(at)| (at.at_s, at.event))
    }

    pub(super) fn next_at_s(&self) -> Option<f64> {
        self.heap.peek().map(|Reverse(at)| at.at_s)
    }
}
