//! job.json: a bag of tasks.
//!
//! ```json
//! {"job_id": 1, "tasks": {"0": {"memory": 5.1, "io": 0.0, "command": "…", "runtime": {"c4.large": 168.0}}}}
//! ```

use serde::Serialize;

use super::ordered::{Fields, number};
use super::{FormatError, above_zero, at_least};

/// A bag of independent tasks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Job {
    /// Its id, as text.
    pub job_id: String,
    /// Its name, empty where the file has none.
    pub job_name: String,
    /// The tasks, in the order of the file.
    pub tasks: Vec<Task>,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Task {
    /// Its id, the name of its field.
    pub id: String,
    /// Megabytes it holds while it runs.
    pub memory_mb: f64,
    /// The share of its time it waits for I/O, as given; nothing here uses it.
    pub io: f64,
    /// What it runs.
    pub command: String,
    /// Seconds it runs on each machine type, in the order of the file.
    pub runtime_s: Vec<(String, f64)>,
}

impl Job {
    /// Reads a job.json.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let file = Fields::parse(text)?;
        let job_id = match file.required::<serde_json::Value>("job_id")? {
            serde_json::Value::String(id) => id,
            serde_json::Value::Number(id) => id.to_string(),
            other => return Err(FormatError::new("job_id", format!("expected text or a number, found {other}"))),
        };
        let tasks = file.object("tasks")?;
        let tasks = tasks.iter().map(|(id, task)| {
            Fields::parse(task.get()).and_then(|fields| Task::read(id, &fields)).map_err(|e| e.under(id).under("tasks"))
        });
        let tasks = tasks.collect::<Result<Vec<_>, _>>()?;
        if tasks.is_empty() {
            return Err(FormatError::new("tasks", "expected at least one task"));
        }
        Ok(Self { job_id, job_name: file.optional("job_name")?.unwrap_or_default(), tasks })
    }

    /// The job as a job.json.
    pub fn to_json(&self) -> serde_json::Value {
        let tasks = self.tasks.iter().map(|task| {
            let runtime: serde_json::Map<_, _> = task.runtime_s.iter().map(|(k, v)| (k.clone(), (*v).into())).collect();
            let fields = serde_json::json!(
                {"memory": task.memory_mb, "io": task.io, "command": task.command, "runtime": runtime});
            (task.id.clone(), fields)
        });
        serde_json::json!({"job_id": self.job_id, "job_name": self.job_name,
            "tasks": tasks.collect::<serde_json::Map<_, _>>()})
    }
}

impl Task {
    fn read(id: &str, fields: &Fields) -> Result<Self, FormatError> {
        let runtime = fields.object("runtime")?;
        let runtime_s = runtime.iter().map(|(machine, value)| {
            let value = serde_json::from_str(value.get()).map_err(|error| FormatError::new("", error.to_string()));
            let seconds = value.and_then(|value| number(&value)).map_err(|e| e.under(machine).under("runtime"))?;
            Ok((machine.to_owned(), above_zero(&format!("runtime.{machine}"), seconds)?))
        });
        let runtime_s = runtime_s.collect::<Result<Vec<_>, FormatError>>()?;
        if runtime_s.is_empty() {
            return Err(FormatError::new("runtime", "expected the seconds on at least one machine type"));
        }
        Ok(Self {
            id: id.to_owned(),
            memory_mb: at_least("memory", fields.number("memory")?, 0.0)?,
            io: at_least("io", fields.number_or_none("io")?.unwrap_or(0.0), 0.0)?,
            command: fields.optional("command")?.unwrap_or_default(),
            runtime_s,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_bag_in_the_order_of_the_file() {
        let text = r#"{"job_id": 7, "tasks": {
            "10": {"memory": 5, "io": 0.0, "command": "run 10", "runtime": {"c4.large": 168.0, "c3.large": "180"}},
            "2": {"memory": 1.5, "runtime": {"c4.large": 20}}}}"#;
        let job = Job::parse(text).unwrap();
        assert_eq!((job.job_id.as_str(), job.tasks[0].id.as_str(), job.tasks[1].id.as_str()), ("7", "10", "2"));
        assert_eq!(job.tasks[0].runtime_s, [("c4.large".to_owned(), 168.0), ("c3.large".to_owned(), 180.0)]);
        assert_eq!(Job::parse(&job.to_json().to_string()).unwrap().tasks.len(), 2);
    }

    #[test]
    fn errors_name_the_field() {
        let said = |text: &str| Job::parse(text).unwrap_err().to_string();
        assert_eq!(said(r#"{"tasks": {}}"#), "job_id: it is missing");
        assert_eq!(said(r#"{"job_id": 1, "tasks": {}}"#), "tasks: expected at least one task");
        assert_eq!(said(r#"{"job_id": 1, "tasks": {"4": {"runtime": {"a": 1}}}}"#), "tasks.4.memory: it is missing");
        assert_eq!(
            said(r#"{"job_id": 1, "tasks": {"4": {"memory": 1, "runtime": {"a": -1}}}}"#),
            "tasks.4.runtime.a: expected a number above 0, found -1"
        );
        assert_eq!(
            said(r#"{"job_id": 1, "tasks": {"4": {"memory": "big", "runtime": {"a": 1}}}}"#),
            "tasks.4.memory: expected a number, found \"big\""
        );
        assert!(said(r#"{"job_id": 1, "tasks": []}"#).starts_with("tasks: invalid type: sequence, expected an object"));
    }
}
