//! Machines that hibernate: frozen with all that they run, and perhaps woken again.
//!
//! What a frozen machine held is given back in its name, though its process has not ended: the fence is the attempt. Once
//! given back, whatever the frozen worker still writes is refused; it finds that out when it wakes, and stops what it ran.

use sheaf_core::ReleaseReason;

use crate::{
    event::{What, Why},
    fleet::{Fleet, Grid},
    machine::State,
};

impl Fleet<'_> {
    /// Freezes a machine, without notice: that of a hibernation comes when it begins. One that cannot be frozen is taken
    /// away.
    pub(crate) async fn hibernate(&mut self, number: usize, grid: &impl Grid) {
        let machine = &mut self.machines[number];
        if let Err(error) = machine.freeze().await {
            tracing::warn!(machine = machine.id, %error, "a machine could not be frozen: it is ended");
            return self.end(number, Why::Reclaimed, grid).await;
        }
        let since_s = self.now_s();
        let machine = &mut self.machines[number];
        let resumes_s = self.fates.resumes_s(machine.pool, &mut machine.fate, since_s);
        machine.state = State::Hibernated { since_s, resumes_s };
        (machine.busy, machine.hibernations) = (0, machine.hibernations + 1);
        let (id, worker) = (machine.id, machine.worker.clone());
        let given_back =
            if machine.has_process() { grid.give_back(&worker, ReleaseReason::Reclaimed).await } else { Vec::new() };
        // What is wanted in its place is asked at once.
        self.decide_s = 0.0;
        self.tell(What::Hibernated { machine: id, given_back });
    }

    /// Wakes a frozen machine when it is time, and gives back what it has still come to hold: a claim may have been on its
    /// way when it was frozen.
    pub(crate) async fn look_at_frozen(&mut self, number: usize, resumes_s: f64, grid: &impl Grid) {
        let now_s = self.now_s();
        if now_s >= resumes_s {
            return self.wake(number, now_s);
        }
        let machine = &mut self.machines[number];
        if std::mem::take(&mut machine.busy) > 0 {
            let (id, worker) = (machine.id, machine.worker.clone());
            let given_back = grid.give_back(&worker, ReleaseReason::Reclaimed).await;
            tracing::debug!(machine = id, ?given_back, "a frozen machine had claimed more");
        }
    }

    fn wake(&mut self, number: usize, now_s: f64) {
        let boot_s = self.spec.pools[self.machines[number].pool].boot_s;
        let machine = &mut self.machines[number];
        let frozen_s = match machine.thaw(now_s, boot_s) {
            Ok(frozen_s) => frozen_s,
            // It is looked at again, and found to have ended if it has.
            Err(error) => return tracing::warn!(machine = machine.id, %error, "a machine could not be woken"),
        };
        self.fates.again(machine.pool, &mut machine.fate, now_s);
        let id = machine.id;
        self.decide_s = 0.0;
        self.tell(What::Resumed { machine: id, frozen_s });
    }
}
