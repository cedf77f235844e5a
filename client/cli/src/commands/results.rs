//! `sheaf results`.

use std::io::Write;

use clap::Args;

use crate::{
    answers::{Answers, TaskAnswer},
    connect::{Need, Session},
    exit::Exit,
    output::{Format, Printer},
    problem::Outcome,
    select,
    settings::Settings,
    text,
};

/// Print the results of a job, a line each: the task's key or position, and what it gave
///
/// With -o ndjson every line is an object with result, outcome, run time and failure. Only tasks that are over are printed;
/// a job that is not over can be read again later.
#[derive(Debug, Args)]
pub(crate) struct Results {
    /// The job
    job: String,
    /// In the order of submission
    #[arg(long)]
    ordered: bool,
    /// Only those that failed or were quarantined
    #[arg(long)]
    failed: bool,
}

impl Results {
    pub(crate) async fn run(self, settings: &Settings) -> Outcome {
        let session = Session::open(settings, Need::Look).await?;
        let job = select::job(session.api(), &self.job).await?;
        let mut answers = Answers::of(session.api(), job, self.ordered);
        let mut sink = Sink::new(settings.output);
        while let Some(chunk) = answers.next_chunk(0).await? {
            sink.take(chunk.into_iter().filter(|answer| !self.failed || answer.is_failed()), TaskAnswer::write_line)?;
        }
        sink.finish()?;
        let open = answers.view().map_or(0, |view| {
            let summary = &view.summary;
            summary.tasks_submitted.saturating_sub(summary.totals.ended())
        });
        if open > 0 {
            eprintln!("{} without a result yet", text::counted(open, "task"));
        }
        session.close().await;
        Ok(Exit::Succeeded)
    }
}

/// Where answers go: stdout, in the format that was asked for.
pub(crate) struct Sink {
    format: Format,
    held: Vec<TaskAnswer>,
    line: Vec<u8>,
}

impl Sink {
    pub(crate) const fn new(format: Format) -> Self {
        Self { format, held: Vec::new(), line: Vec::new() }
    }

    /// Prints answers; for people as `write` writes them.
    pub(crate) fn take(
        &mut self,
        answers: impl Iterator<Item = TaskAnswer>,
        write: impl Fn(&TaskAnswer, &mut Vec<u8>),
    ) -> Outcome<()> {
        let mut out = std::io::stdout().lock();
        for answer in answers {
            self.line.clear();
            match self.format {
                Format::Table => write(&answer, &mut self.line),
                Format::Id => writeln!(self.line, "{}", answer.task)?,
                Format::Ndjson => {
                    serde_json::to_writer(&mut self.line, &answer).map_err(std::io::Error::from)?;
                    self.line.push(b'\n');
                }
                // An array is one value: it is printed when it is whole.
                Format::Json => {
                    self.held.push(answer);
                    continue;
                }
            }
            out.write_all(&self.line)?;
        }
        Ok(out.flush()?)
    }

    /// Prints what was held back.
    pub(crate) fn finish(self) -> Outcome<()> {
        if self.format == Format::Json { Printer(self.format).list(&self.held) } else { Ok(()) }
    }
}
