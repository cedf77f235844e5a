//! A call in progress on children.

use std::{sync::Arc, time::Instant};

use sheaf_api::run::{Call, Failed, Report};
use sheaf_core::{Failure, FailureKind};

use crate::{allowance::Allowance, answer, batch};

/// A call in progress. It outlives the children it runs on.
pub(crate) struct Run {
    pub(crate) call: Arc<Call>,
    pub(crate) report: Report,
    pub(crate) allowance: Allowance,
    /// How many of the call's tasks have been handed out.
    pub(crate) begun: usize,
}

impl Run {
    pub(crate) fn new(call: Arc<Call>) -> Self {
        Self { allowance: Allowance::of(&call), call, report: Report::default(), begun: 0 }
    }

    /// Whether nothing more is to be started.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.begun == self.call.tasks.len() || !self.allowance.may_start(now, self.begun, &self.report)
    }

    /// Writes a failure down.
    pub(crate) fn fail(&mut self, task: u32, failure: Failure, run_us: u32) {
        self.report.failures.push(Failed { task, failure, run_us });
    }

    /// Writes down what a batch was answered.
    pub(crate) fn close_batch(&mut self, tasks: &[u32], body: &[u8], each_us: u32) {
        let elements = match batch::decode(body, tasks.len()) {
            Ok(elements) => elements,
            Err(failure) => return tasks.iter().for_each(|&task| self.fail(task, failure.clone(), each_us)),
        };
        for (&task, element) in tasks.iter().zip(elements) {
            let result = match answer::error_in(element) {
                Some(failure) => Err(failure),
                None => self.keep_element(task, element.get().as_bytes(), each_us),
            };
            if let Err(failure) = result {
                self.fail(task, failure, each_us);
            }
        }
    }

    fn keep_element(&mut self, task: u32, result: &[u8], run_us: u32) -> Result<(), Failure> {
        let limit = self.call.manifest.output_bytes_max;
        if result.len() as u64 > limit {
            return Err(answer::too_large(Some(result.len() as u64), limit));
        }
        let kept = self.report.answers.succeeded(task, result, run_us);
        kept.map_err(|error| Failure::new(FailureKind::OutputTooLarge, error.to_string()))
    }
}
