//! A usage as people compare it: by step, per thousand and per million tasks.

use std::fmt;

use serde::Serialize;

use super::{Item, Prices, Step, Usage};

/// What a number of tasks used of the control plane.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The tasks.
    pub tasks: u64,
    /// When the prices were read.
    pub as_of: String,
    /// The region that they are of.
    pub region: String,
    /// One row per step that used something.
    pub steps: Vec<ReportRow>,
    /// All of them together.
    pub total: ReportRow,
}

/// What a step used.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ReportRow {
    /// The step; none for all together.
    pub step: Option<Step>,
    /// Billed requests of all services per 1,000 tasks.
    pub requests_per_1000: f64,
    /// DynamoDB write units per 1,000 tasks.
    pub write_units_per_1000: f64,
    /// DynamoDB read units per 1,000 tasks.
    pub read_units_per_1000: f64,
    /// Bytes sent to services per task; 0 where nobody counted them.
    pub sent_bytes_per_task: f64,
    /// Bytes received from services per task; 0 where nobody counted them.
    pub received_bytes_per_task: f64,
    /// Dollars per million tasks, at list price.
    pub usd_per_million: f64,
}

impl Report {
    /// What these tasks used. `bytes` are those sent and received by a step, as far as known.
    pub fn new(usage: &Usage, bytes: &[(Step, u64, u64)], prices: &Prices, tasks: u64) -> Self {
        let mut steps: Vec<ReportRow> = Vec::new();
        let tasks_f = tasks.max(1) as f64;
        for (step, item, count) in usage.rows().filter(|(step, ..)| step.is_control_plane()) {
            if steps.last().is_none_or(|row| row.step != Some(step)) {
                let of_it = bytes.iter().filter(|(of, ..)| *of == step);
                let (sent, received) = of_it.fold((0, 0), |sum, (_, sent, received)| (sum.0 + sent, sum.1 + received));
                steps.push(ReportRow {
                    step: Some(step),
                    sent_bytes_per_task: sent as f64 / tasks_f,
                    received_bytes_per_task: received as f64 / tasks_f,
                    ..ReportRow::default()
                });
            }
            let row = steps.last_mut().expect("just pushed");
            row.usd_per_million += prices.usd(item, count) / tasks_f * 1e6;
            let per_1000 = count / tasks_f * 1e3;
            match item {
                Item::DynamodbWriteUnit => row.write_units_per_1000 += per_1000,
                Item::DynamodbReadUnit => row.read_units_per_1000 += per_1000,
                item if item.is_request() => row.requests_per_1000 += per_1000,
                _ => {}
            }
        }
        let total = steps.iter().fold(ReportRow::default(), |sum, row| ReportRow {
            step: None,
            requests_per_1000: sum.requests_per_1000 + row.requests_per_1000,
            write_units_per_1000: sum.write_units_per_1000 + row.write_units_per_1000,
            read_units_per_1000: sum.read_units_per_1000 + row.read_units_per_1000,
            sent_bytes_per_task: sum.sent_bytes_per_task + row.sent_bytes_per_task,
            received_bytes_per_task: sum.received_bytes_per_task + row.received_bytes_per_task,
            usd_per_million: sum.usd_per_million + row.usd_per_million,
        });
        Self { tasks, as_of: prices.as_of.clone(), region: prices.region.clone(), steps, total }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<10}{:>16}{:>16}{:>16}{:>14}{:>14}{:>16}",
            "step",
            "requests/1,000",
            "write u./1,000",
            "read u./1,000",
            "sent B/task",
            "recv B/task",
            "$/million tasks"
        )?;
        for row in self.steps.iter().chain([&self.total]) {
            writeln!(
                f,
                "{:<10}{:>16.2}{:>16.2}{:>16.2}{:>14.1}{:>14.1}{:>16.4}",
                row.step.map_or("all", Step::as_str),
                row.requests_per_1000,
                row.write_units_per_1000,
                row.read_units_per_1000,
                row.sent_bytes_per_task,
                row.received_bytes_per_task,
                row.usd_per_million
            )?;
        }
        write!(f, "list prices of {} as of {}, without free tiers", self.region, self.as_of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_add_up() {
        let mut usage = Usage::default();
        usage.add(Step::Submit, Item::S3Put, 10.0);
        usage.add(Step::Submit, Item::DynamodbRequest, 10.0);
        usage.add(Step::Submit, Item::DynamodbWriteUnit, 20.0);
        usage.add(Step::Read, Item::S3Get, 10.0);
        usage.add(Step::Run, Item::LambdaArmGbS, 1e9);
        let bytes = [(Step::Submit, 100, 50), (Step::Submit, 100, 0), (Step::Read, 0, 1_000)];
        let report = Report::new(&usage, &bytes, &Prices::built_in(), 10);
        assert_eq!(report.steps.len(), 2, "the tasks themselves are not the grid's doing");
        assert_eq!(report.steps[0].requests_per_1000, 2_000.0);
        assert_eq!(report.steps[0].write_units_per_1000, 2_000.0);
        assert_eq!((report.steps[0].sent_bytes_per_task, report.steps[1].received_bytes_per_task), (20.0, 100.0));
        assert_eq!(report.total.requests_per_1000, 3_000.0);
        assert!((report.total.usd_per_million - (5.0 + 1.25 + 0.4)).abs() < 1e-9, "{report}");
    }
}
