//! `sheaf function`.

use std::path::PathBuf;

use clap::Subcommand;
use sheaf_api::{Api, wire::FunctionView};
use sheaf_core::FunctionKind;

use crate::{
    connect::{Need, Session},
    exit::Exit,
    functions_file::FunctionsFile,
    output::{Printer, Row, facts},
    problem::Outcome,
    settings::Settings,
    text,
};

/// Functions
#[derive(Debug, Subcommand)]
pub(crate) enum Function {
    /// List the newest version of every function
    List,
    /// Declare the functions of a functions.toml, or some of them
    Add {
        /// The file
        file: PathBuf,
        /// Only these
        names: Vec<String>,
    },
    /// Show how a function is declared and how long it takes
    Info {
        /// Its name, or name@version
        name: String,
    },
}

impl Row for FunctionView {
    const COLUMNS: &'static [&'static str] =
        &["FUNCTION", "KIND", "RESULT", ">TIMEOUT", ">MEMORY", ">MEAN", ">P95", "WHAT RUNS"];

    fn id(&self) -> String {
        self.reference.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let manifest = &self.manifest;
        let known = |us: f64| if self.estimate.tasks == 0 { "-".into() } else { text::duration_us(us as u64) };
        vec![
            self.reference.to_string(),
            manifest.kind.as_str().into(),
            manifest.result.to_string(),
            text::duration_ms(manifest.timeout_ms),
            text::bytes(manifest.memory_bytes_max),
            known(self.estimate.mean_us),
            known(self.estimate.p95_us),
            what(&manifest.kind),
        ]
    }
}

/// What runs, in a few words.
fn what(kind: &FunctionKind) -> String {
    match kind {
        FunctionKind::Package { digest, handler } => format!("{handler} of {}", &digest.to_string()[..12]),
        FunctionKind::Command { argv } => {
            let words: Vec<_> =
                argv.iter().map(|word| if word.contains(' ') { format!("{word:?}") } else { word.clone() }).collect();
            words.join(" ")
        }
        FunctionKind::Lambda { arn } => arn.clone(),
        FunctionKind::Handler { .. } => "a Rust function".into(),
    }
}

impl Function {
    pub(crate) async fn run(self, settings: &Settings) -> Outcome {
        let printer = Printer(settings.output);
        // What is wrong with a file is said before anything is opened.
        let prepared = match &self {
            Self::Add { file, names } => Some(FunctionsFile::read(file)?.prepare(names)?),
            Self::List | Self::Info { .. } => None,
        };
        let session = Session::open(settings, Need::Look).await?;
        let api = session.api();
        match self {
            Self::List => {
                let rows = api.functions().await?.rows;
                printer.list(&rows)?;
                if rows.is_empty() && printer.0.is_table() {
                    eprintln!("this grid knows no functions; `sheaf function add FILE.toml` declares some");
                }
            }
            Self::Add { .. } => {
                let mut views = Vec::new();
                for prepared in prepared.unwrap_or_default() {
                    views.push(prepared.declare(api).await?);
                }
                printer.list(&views)?;
            }
            Self::Info { name } => {
                let view = api.function(&name).await?;
                printer.one(&view, &view.id(), || describe(&view))?;
            }
        }
        session.close().await;
        Ok(Exit::Succeeded)
    }
}

fn describe(view: &FunctionView) -> String {
    let manifest = &view.manifest;
    let times = match view.estimate.tasks {
        0 => "nothing is known yet".to_owned(),
        tasks => format!(
            "{} on average, {} for one in twenty, over {}",
            text::duration_us(view.estimate.mean_us as u64),
            text::duration_us(view.estimate.p95_us as u64),
            text::counted(tasks, "task")
        ),
    };
    let yes = |is: bool| if is { "yes".to_owned() } else { String::new() };
    let mut shown = facts(&[
        ("function", view.reference.to_string()),
        ("kind", manifest.kind.as_str().into()),
        ("runs", what(&manifest.kind)),
        ("result", manifest.result.to_string()),
        ("timeout", text::duration_ms(manifest.timeout_ms)),
        ("memory", text::bytes(manifest.memory_bytes_max)),
        ("output", format!("{} at most", text::bytes(manifest.output_bytes_max))),
        ("ordered", yes(manifest.ordered)),
        ("batch", yes(manifest.batch)),
        ("takes", times),
    ]);
    // Values may be secrets.
    let names: Vec<_> = manifest.env.keys().map(String::as_str).collect();
    if !names.is_empty() {
        shown += &format!("sets {} (values are not shown)\n", names.join(", "));
    }
    shown
}
