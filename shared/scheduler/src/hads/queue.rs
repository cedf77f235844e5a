//! A machine as HADS plans it: a list of tasks for each core.

use sheaf_core::Lane;

use super::Bag;

/// A task on a core.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    /// The task, by its place in the bag.
    pub task: usize,
    /// When it starts, in seconds from the machine's start.
    pub start_s: f64,
    /// When it ends.
    pub end_s: f64,
}

/// The tasks of one machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// The type, by its place in the bag's environment.
    pub kind: usize,
    /// The market.
    pub market: Lane,
    /// The tasks of each core, in order.
    pub cores: Vec<Vec<Entry>>,
    /// When the last one ends.
    pub makespan_s: f64,
    /// The tasks in the order they were put in.
    pub tasks: Vec<usize>,
}

impl Queue {
    /// A machine without tasks.
    pub fn new(bag: &Bag, kind: usize, market: Lane) -> Self {
        let cores = vec![Vec::new(); bag.env.instances[kind].vcpu as usize];
        Self { kind, market, cores, makespan_s: 0.0, tasks: Vec::new() }
    }

    /// Where `task` would end first, and on which core; none when it does not run here. `stretch` is how many times as
    /// long as usual it takes, 1 except on a burstable machine at its baseline.
    ///
    /// It starts behind the last task of a core, or later at the end of a task on another core, if only then there is
    /// memory for it.
    pub fn prospect(&self, bag: &Bag, task: usize, stretch: f64) -> Option<(usize, Entry)> {
        let runtime_s = bag.runtime_s(task, self.kind)? * stretch;
        let memory_mb = bag.job.tasks[task].memory_mb;
        let roomy = self.memory_at_most(bag) + memory_mb <= bag.env.instances[self.kind].memory_mb;
        let mut best: Option<(usize, Entry)> = None;
        for core in 0..self.cores.len() {
            let free_s = self.cores[core].last().map_or(0.0, |entry| entry.end_s);
            let mut consider = |start_s: f64| {
                let entry = Entry { task, start_s, end_s: start_s + runtime_s };
                let better = best.is_none_or(|(_, best)| entry.end_s < best.end_s);
                if better && (roomy || self.fits(bag, core, &entry, memory_mb)) {
                    best = Some((core, entry));
                }
            };
            consider(free_s);
            if !roomy {
                let others = self.cores.iter().enumerate().filter(|(other, _)| *other != core);
                others.flat_map(|(_, entries)| entries).map(|e| e.end_s).filter(|end| *end > free_s).for_each(consider);
            }
        }
        best
    }

    /// Puts `task` where it ends first; false when it does not run here.
    pub fn insert(&mut self, bag: &Bag, task: usize, stretch: f64) -> bool {
        let Some((core, entry)) = self.prospect(bag, task, stretch) else { return false };
        self.cores[core].push(entry);
        self.makespan_s = self.makespan_s.max(entry.end_s);
        self.tasks.push(task);
        true
    }

    /// Takes out the task put in last.
    pub fn pop(&mut self) -> Option<usize> {
        let task = self.tasks.pop()?;
        for core in &mut self.cores {
            core.retain(|entry| entry.task != task);
        }
        self.makespan_s = self.cores.iter().flatten().map(|entry| entry.end_s).fold(0.0, f64::max);
        Some(task)
    }

    /// Dollars until its last task ends.
    pub fn cost(&self, bag: &Bag) -> f64 {
        bag.price_per_hour(self.kind, self.market) / 3600.0 * self.makespan_s
    }

    /// The memory the largest task of each core takes together: no instant takes more.
    fn memory_at_most(&self, bag: &Bag) -> f64 {
        let largest = |core: &Vec<Entry>| core.iter().map(|e| bag.job.tasks[e.task].memory_mb).fold(0.0, f64::max);
        self.cores.iter().map(largest).sum()
    }

    /// True when `entry` on `core` and the largest tasks beside it on the others fit in memory.
    fn fits(&self, bag: &Bag, core: usize, entry: &Entry, memory_mb: f64) -> bool {
        let beside = |entries: &Vec<Entry>| {
            let overlapping = entries.iter().filter(|other| other.start_s < entry.end_s && entry.start_s < other.end_s);
            overlapping.map(|other| bag.job.tasks[other.task].memory_mb).fold(0.0, f64::max)
        };
        let others = self.cores.iter().enumerate().filter(|(other, _)| *other != core);
        others.map(|(_, entries)| beside(entries)).sum::<f64>() + memory_mb <= bag.env.instances[self.kind].memory_mb
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::env::Env;
    use crate::formats::job::Job;

    fn bag(memory_mb: [f64; 3]) -> Bag {
        let tasks: serde_json::Map<_, _> = (0..3)
            .map(|i| (i.to_string(), serde_json::json!({"memory": memory_mb[i], "runtime": {"m": 100 * (i + 1)}})))
            .collect();
        let job = serde_json::json!({"job_id": "b", "tasks": tasks});
        let env = r#"{"instances": {"m": {"vcpu": 2, "memory": 1, "gflops": 1, "prices": {"on-demand": 3.6,
            "preemptible": 1.8}, "restrictions": {"limits": {"on-demand": 1, "preemptible": 1}}}},
            "global_limits": {"ec2": {"on-demand": 1, "preemptible": 1}}}"#;
        Bag::new(Job::parse(&job.to_string()).unwrap(), Env::parse(env).unwrap()).unwrap()
    }

    #[test]
    fn tasks_go_where_they_end_first() {
        let bag = bag([1.0; 3]);
        let mut queue = Queue::new(&bag, 0, Lane::OnDemand);
        assert!((0..3).all(|task| queue.insert(&bag, task, 1.0)));
        assert_eq!(queue.makespan_s, 400.0, "100 and 300 on one core, 200 on the other");
        assert_eq!(queue.cost(&bag), 0.4);
        assert_eq!((queue.pop(), queue.makespan_s), (Some(2), 200.0));
    }

    #[test]
    fn memory_makes_a_task_wait_for_another_core() {
        let bag = bag([600.0; 3]);
        let mut queue = Queue::new(&bag, 0, Lane::Spot);
        assert!((0..3).all(|task| queue.insert(&bag, task, 1.0)));
        assert_eq!(queue.makespan_s, 600.0, "one at a time, whatever the cores");
    }
}
