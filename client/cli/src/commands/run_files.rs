//! Running files of commands.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;
use sheaf_api::{Api, intake::stem};
use sheaf_core::{JobId, Outcome as Ended};
use sheaf_local::files::{self, FileError, FileOptions, FileReport, FileSource};

use crate::{
    commands::run::worse,
    connect::Session,
    exit::Exit,
    feed,
    input::unreadable,
    output::{Format, Printer, Row},
    problem::{Outcome, Problem},
    progress::{Bar, Shown},
    settings::Settings,
    text, wait,
};

/// What came of a file.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<PathBuf>,
    #[serde(flatten)]
    report: FileReport,
}

impl Row for Report {
    const COLUMNS: &'static [&'static str] = &["FILE", "JOB", ">COMMANDS"];

    fn id(&self) -> String {
        self.report.job.map(|job| job.to_string()).unwrap_or_default()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.file.clone(), self.id(), text::count(self.report.commands)]
    }
}

/// Runs files one after the other. One that is wrong is reported and does not stop the others.
pub(super) async fn run(
    session: &Session,
    settings: &Settings,
    paths: &[PathBuf],
    options: &FileOptions,
    out: Option<&Path>,
) -> Outcome {
    if let Some(folder) = out {
        fs::create_dir_all(folder).map_err(|error| Problem::file("made", folder, error))?;
    }
    let (last, others) = paths.split_last().expect("there is a file");
    let mut reports = Vec::new();
    let mut exit = Exit::Succeeded;
    for path in others {
        let ran = one(session, settings, path, options, out, &mut reports).await;
        exit = worse(exit, &ran);
        match ran {
            Ok(Exit::Interrupted) => return Ok(exit),
            Ok(_) => {}
            Err(problem) => problem.report(false, false),
        }
    }
    let ran = one(session, settings, last, options, out, &mut reports).await;
    if settings.output != Format::Table {
        Printer(settings.output).list(&reports)?;
    }
    ran.map(|last| exit.and(last))
}

async fn one(
    session: &Session,
    settings: &Settings,
    path: &Path,
    options: &FileOptions,
    out: Option<&Path>,
    reports: &mut Vec<Report>,
) -> Outcome {
    if path.as_os_str() == "-" {
        return Err(Problem::usage("a file of commands is read twice, which stdin cannot be")
            .with_hint("write it to a file, or pipe lines into `sheaf submit --ndjson - --function NAME --wait`"));
    }
    let job = feed::job_id();
    let source = FileSource::open(path, job).map_err(|error| Problem::file("read", path, error))?;
    let bar = if out.is_some() { Bar::new(settings) } else { Bar::beside_results(settings) };
    let progress = |progress: &files::FileProgress| {
        let failed = progress.totals.failed + progress.totals.quarantined;
        bar.show_counts(Shown { ended: progress.ended, failed, tasks: progress.commands, all: true });
    };
    let results = out.map(|folder| folder.join(format!("{}.txt", stem(&path.to_string_lossy()))));
    // Running a file repeats calls itself.
    let api = session.api().once();
    let running = Box::pin(async {
        let report = match &results {
            Some(results) => files::run_to(&api, source, options, results, progress).await,
            None if settings.output == Format::Table => {
                files::run(&api, source, options, std::io::stdout(), progress).await
            }
            None => files::run(&api, source, options, std::io::sink(), progress).await,
        };
        report.map_err(|error| file_problem(path, error, options))
    });
    let mut report = None;
    let ran = async {
        report = Some(running.await?);
        Ok(Exit::Succeeded)
    };
    let ran = wait::unless_stopped(session, None, ran).await;
    bar.finish();
    let Some(report) = report else {
        if matches!(ran, Ok(Exit::Interrupted)) {
            let state = session.api().progress(job, None, 0).await.ok().map(|view| view.job.state);
            eprintln!("{}", wait::how_to_come_back(session, job, state.as_ref()));
        }
        return ran;
    };
    let kept = settings.client.place.value != sheaf::Place::Memory;
    eprintln!("{}", summary(path, &report, results.as_deref(), kept));
    let exit = exit_of(&report);
    let file = path.display().to_string();
    reports.push(Report { file, results, report });
    Ok(exit)
}

fn exit_of(report: &FileReport) -> Exit {
    let totals = &report.totals;
    if totals.cancelled > 0 {
        Exit::Cancelled
    } else if totals.succeeded == report.commands {
        Exit::Succeeded
    } else {
        Exit::TasksFailed
    }
}

/// One line, and a second one where something failed and the grid is still there to be asked.
fn summary(path: &Path, report: &FileReport, results: Option<&Path>, kept: bool) -> String {
    let totals = &report.totals;
    let counts = Ended::ALL.into_iter().map(|outcome| (totals.of(outcome), outcome.as_str()));
    let counts = counts.chain([(report.not_handled, "not handled")]).filter(|(count, _)| *count > 0);
    let counts: Vec<_> = counts.map(|(count, word)| format!("{} {word}", text::count(count))).collect();
    let mut line = format!("{}: {}", path.display(), text::counted(report.commands, "command"));
    if !counts.is_empty() {
        line += &format!(": {}", counts.join(", "));
    }
    let took = std::time::Duration::from_secs_f64(report.seconds.max(0.0));
    line += &format!(" in {} ({})", text::duration(took), text::rate(report.rate()));
    if let Some(results) = results {
        line += &format!(" → {}", results.display());
    }
    if let Some(job) = explained(report).filter(|_| kept) {
        line += &format!("\nsheaf explain {job} says what failed");
    }
    line
}

fn explained(report: &FileReport) -> Option<JobId> {
    report.job.filter(|_| report.totals.failed + report.totals.quarantined > 0)
}

fn file_problem(path: &Path, error: FileError, options: &FileOptions) -> Problem {
    let report = error.error_report(&path.display().to_string());
    match error {
        FileError::Intake(error) => {
            let hint = error.hint().is_none() && options.function.is_none() && lines_of(path);
            let problem = unreadable(path, error);
            let text = "--function NAME runs one function over lines that are payloads and nothing else";
            if hint { problem.with_hint(text) } else { problem }
        }
        FileError::Call { source, .. } => source.into(),
        error => {
            let problem = Problem::new(sheaf_api::Code::Invalid, format!("{}: {}", path.display(), report.message));
            let problem = problem.with_code(error_code(&error)).with_source(error);
            match report.hint {
                Some(hint) => problem.with_hint(hint),
                None => problem,
            }
        }
    }
}

/// Whether a file may hold bare payloads, a line each.
fn lines_of(path: &Path) -> bool {
    let name = path.to_string_lossy();
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    name.ends_with(".ndjson") || name.ends_with(".jsonl")
}

const fn error_code(error: &FileError) -> &'static str {
    match error {
        FileError::OrderedTooLong { .. } | FileError::OrderedTooLarge(_) => "over_limit",
        FileError::Output(_) => "output",
        _ => "internal",
    }
}
