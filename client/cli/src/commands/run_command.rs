//! Running one program many times.

use std::time::Duration;

use clap::Args;
use sheaf_api::{
    Api,
    wire::{CreateJob, JobView, PutFunction},
};
use sheaf_core::{FunctionKind, FunctionName, Manifest, Priority, limits};

use crate::{
    answers::{Answers, TaskAnswer},
    commands::{results::Sink, run::parse_memory, wait as wait_command},
    connect::{Need, Session},
    exit::Exit,
    feed,
    functions_file::beside,
    input::{Input, InputArgs},
    output::Format,
    problem::{Outcome, Problem},
    progress::Bar,
    settings::Settings,
    text,
    wait::{self, Waited},
};

/// Memory of a program that somebody runs by hand: as good as no limit.
pub(super) const MEMORY_BYTES_DEFAULT: u64 = 1 << 40;
/// How long a look for results is held by the grid.
const WAIT_MS: u64 = limits::LONG_POLL_MS_MAX;

/// What a program is given.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Limits {
    /// A variable for CMD: NAME=VALUE, or NAME as it is set here; may be given several times
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// How long CMD may run on one line, such as 30s or 5m; a week by default
    #[arg(long, value_name = "DURATION", value_parser = text::parse_duration)]
    timeout: Option<Duration>,
    /// How much memory one CMD may use, such as 512MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    memory: Option<u64>,
}

/// What is asked of the job.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    pub(super) priority: Priority,
    pub(super) max_attempts: Option<u32>,
}

impl Limits {
    pub(super) fn are_default(&self) -> bool {
        self.env.is_empty() && self.timeout.is_none() && self.memory.is_none()
    }
}

/// Runs a program over an input, printing results as they come, in order.
pub(super) async fn run(settings: &Settings, argv: &[String], input: &InputArgs, limits: &Limits, job: Job) -> Outcome {
    let manifest = manifest(argv, limits)?;
    if let Some(file) = relative_file(argv) {
        eprintln!("{file} is a file here, but CMD starts in a scratch directory: give it as $PWD/{file}");
    }
    let name = manifest.name.to_string();
    let input = match input.open(&name)? {
        Some(input) => input,
        None if takes_line(argv) => stdin(&name)?,
        None => Input::Once(false),
    };
    let session = Session::open(settings, Need::Run).await?;
    let outcome = run_in(&session, settings, argv, manifest, input, job).await;
    wait_command::end(session, outcome).await
}

async fn run_in(
    session: &Session,
    settings: &Settings,
    argv: &[String],
    manifest: Manifest,
    input: Input,
    job: Job,
) -> Outcome {
    let function = session.api().put_function(PutFunction { manifest, package: None }).await?;
    let create = CreateJob {
        name: argv.join(" ").chars().take(100).collect(),
        priority: job.priority,
        max_attempts: job.max_attempts,
        ..CreateJob::new(feed::job_id(), vec![function.reference.to_string()])
    };
    let view = session.api().create_job(create).await?;
    let waited = print_and_wait(session, settings, &view, input).await?;
    wait_command::told(session, &waited).await?;
    Ok(waited.exit)
}

/// Why not everything came to its end.
enum Stop {
    Interrupted(Box<Waited>),
    Problem(Problem),
}

async fn print_and_wait(session: &Session, settings: &Settings, view: &JobView, input: Input) -> Outcome<Waited> {
    let job = view.job.id;
    let bar = Bar::beside_results(settings);
    let feeding = async { feed::feed(session.api(), view, input, None).await.map_err(Stop::Problem) };
    let printing = async {
        let mut sink = Sink::new(settings.output);
        let mut answers = Answers::of(session.api(), job, true);
        while let Some(chunk) = answers.next_chunk(WAIT_MS).await.map_err(Stop::Problem)? {
            // For people what failed stands on stderr, with the end of its log.
            let shown = chunk.into_iter().filter(|answer| settings.output != Format::Table || answer.result.is_some());
            sink.take(shown, write).map_err(Stop::Problem)?;
        }
        sink.finish().map_err(Stop::Problem)
    };
    let waiting = async {
        match wait::until_over(session, job, None, &bar).await {
            Ok(waited) if waited.exit == Exit::Interrupted => Err(Stop::Interrupted(Box::new(waited))),
            Ok(waited) => Ok(waited),
            Err(problem) => Err(Stop::Problem(problem)),
        }
    };
    match tokio::try_join!(feeding, printing, waiting) {
        Ok((_, (), waited)) => Ok(waited),
        Err(Stop::Interrupted(waited)) => Ok(*waited),
        Err(Stop::Problem(problem)) => Err(problem),
    }
}

/// What the program printed, and a line break if that has none at its end.
fn write(answer: &TaskAnswer, line: &mut Vec<u8>) {
    let Some(given) = &answer.result else { return };
    line.extend_from_slice(&given.bytes);
    if !given.bytes.is_empty() && !given.bytes.ends_with(b"\n") {
        line.push(b'\n');
    }
}

fn manifest(argv: &[String], given: &Limits) -> Outcome<Manifest> {
    let argv: Vec<_> = argv.iter().map(|argument| braced(argument)).collect();
    let argv = beside(&argv, std::path::Path::new("")).map_err(Problem::usage)?;
    let program = argv.first().map(String::as_str).unwrap_or_default();
    let mut manifest = Manifest::new(name(program), FunctionKind::Command { argv });
    manifest.timeout_ms = given.timeout.map_or(limits::FUNCTION_TIMEOUT_MS_MAX, |timeout| timeout.as_millis() as u64);
    manifest.memory_bytes_max = given.memory.unwrap_or(MEMORY_BYTES_DEFAULT);
    if let Ok(path) = std::env::var("PATH") {
        manifest.env.insert("PATH".into(), path);
    }
    for variable in &given.env {
        let (name, value) = match variable.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => {
                let unset = |_| Problem::usage(format!("--env {variable}: the variable is not set here"));
                (variable.as_str(), std::env::var(variable).map_err(unset)?)
            }
        };
        manifest.env.insert(name.to_owned(), value);
    }
    manifest.check().map_err(|error| Problem::usage(error.to_string()))?;
    Ok(manifest)
}

/// An argument that names a file from here, which the program will not find from where it starts.
fn relative_file(argv: &[String]) -> Option<&str> {
    let is_file = |argument: &&String| {
        let path = std::path::Path::new(argument);
        path.is_relative() && path.is_file()
    };
    argv.iter().skip(1).find(is_file).map(String::as_str)
}

/// The function that a program becomes: `run.` and its file name.
fn name(program: &str) -> FunctionName {
    let file = program.rsplit('/').next().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.') { c } else { '_' };
    let file: String = file.chars().map(plain).take(100).collect();
    format!("run.{file}").parse().expect("the prefix makes it a name")
}

/// Whether an argument stands for the line, or for a part of it.
fn takes_line(argv: &[String]) -> bool {
    argv.iter().any(|argument| braced(argument).replace("{{", "").contains('{'))
}

/// An argument in which braces that cannot be a placeholder are doubled: scripts are full of them.
fn braced(argument: &str) -> String {
    let mut braced = String::with_capacity(argument.len());
    let mut rest = argument;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        braced.push_str(before);
        let placeholder = brace.strip_prefix('{').and_then(|open| open.split_once('}')).map(|(name, _)| name);
        let is_name =
            |name: &&str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        let taken = if brace.starts_with("{{") || brace.starts_with("}}") {
            braced.push_str(&brace[..2]);
            2
        } else if let Some(name) = placeholder.filter(is_name) {
            braced.push_str(&brace[..name.len() + 2]);
            name.len() + 2
        } else {
            braced.push_str(&brace[..1].repeat(2));
            1
        };
        rest = &brace[taken..];
    }
    braced + rest
}

fn stdin(name: &str) -> Outcome<Input> {
    if std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        return Err(Problem::usage("an argument stands for a line, and there are no lines")
            .with_hint("pipe them in, or give --lines FILE or --array 1-1000; a brace itself is {{"));
    }
    let lines = InputArgs { lines: Some("-".into()), ..InputArgs::default() };
    Ok(lines.open(name)?.expect("lines were asked for"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_and_names_are_seen() {
        let takes = |argument: &str| takes_line(&["echo".to_owned(), argument.to_owned()]);
        assert!(takes("{}") && takes("x{a}y"));
        assert_eq!(braced("f() { echo {} {{}}; }"), "f() {{ echo {} {{}}; }}");
        assert_eq!(braced("{a-b_1}{a b}{"), "{a-b_1}{{a b}}{{");
        assert!(!takes("x") && !takes("{{}}"));
        assert_eq!(
            [name("/bin/echo"), name("a b"), name("")].map(|name| name.to_string()),
            ["run.echo", "run.a_b", "run."]
        );
    }
}
