//! Brings a grid to AWS, and takes it away again, by Terraform.

use std::{
    env, fs,
    io::{BufRead, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    package::{Architecture, ArchitectureArgs, LAMBDAS},
    setup::{root, succeed},
    terraform::{self, Workspace},
};

/// Services of the provider that the configuration uses; an endpoint is given for each.
const SERVICES: [&str; 16] = [
    "apigatewayv2",
    "autoscaling",
    "budgets",
    "cloudwatch",
    "cloudwatchevents",
    "cloudwatchlogs",
    "dynamodb",
    "ec2",
    "ecs",
    "iam",
    "kms",
    "lambda",
    "s3",
    "sns",
    "sqs",
    "sts",
];
/// The region of an endpoint, which has none.
pub(crate) const ENDPOINT_REGION: &str = "us-east-1";
/// The bucket, in the state.
const BUCKET: &str = "module.data.aws_s3_bucket.this";

/// Which grid, and where.
#[derive(clap::Args)]
pub(crate) struct GridArgs {
    /// Name of the grid: lower-case letters, digits and hyphens.
    #[arg(long, value_parser = grid_name)]
    grid: String,
    /// Region; without it, what the environment or profile of AWS names.
    #[arg(long)]
    region: Option<String>,
    #[command(flatten)]
    architecture: ArchitectureArgs,
    /// A variable of infra/terraform, as NAME=VALUE.
    #[arg(long = "var", value_name = "NAME=VALUE")]
    vars: Vec<String>,
    /// A file of such variables.
    #[arg(long = "var-file", value_name = "FILE")]
    var_files: Vec<PathBuf>,
    /// Where Terraform keeps its state: a folder, or s3://BUCKET/PREFIX; .sheaf/aws/GRID here without it.
    #[arg(long, value_name = "PLACE")]
    state: Option<String>,
    /// Not AWS, but what answers at this address as AWS would, with made-up credentials: for tests.
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// What a grid was deployed with, kept beside its state.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Variables {
    vars: Vec<String>,
    var_files: Vec<PathBuf>,
}

/// Where the state is.
enum State {
    Folder(PathBuf),
    Bucket { bucket: String, key: String },
}

fn grid_name(text: &str) -> Result<String, String> {
    let is_taken = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_name = (2..=31).contains(&text.len())
        && text.chars().all(is_taken)
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-');
    if is_name {
        return Ok(text.to_owned());
    }
    Err("a grid's name has 2 to 31 lower-case letters, digits and hyphens, a letter first and no hyphen last"
        .to_owned())
}

/// Makes or changes a grid.
pub(crate) fn deploy(args: &GridArgs, packages: Option<&Path>, plan_only: bool) -> anyhow::Result<()> {
    let architecture = args.architecture.get();
    let state = args.state()?;
    let workspace = args.workspace(&state)?;
    copy_packages(&packages.map_or_else(|| architecture.packages(), Path::to_owned), &workspace, architecture)?;
    let variables = Variables::given(args)?;
    if plan_only {
        return succeed(variables.pass(&mut workspace.terraform("plan")));
    }
    variables.keep(&state)?;
    let mut apply = workspace.terraform("apply");
    apply.args(args.yes.then_some("-auto-approve"));
    succeed(variables.pass(&mut apply))?;
    println!("deployed; `terraform output` in {} says this again", workspace.configuration().display());
    Ok(())
}

/// Removes a grid with all that it holds.
pub(crate) fn destroy(args: &GridArgs) -> anyhow::Result<()> {
    let state = args.state()?;
    let workspace = args.workspace(&state)?;
    let there = resources(&workspace)?;
    anyhow::ensure!(!there.is_empty(), "the state knows of no grid {}", args.grid);
    if !args.yes {
        confirm(&args.grid, there.len())?;
    }
    let variables = Variables::given(args)?.or_kept(&state)?;
    if there.iter().any(|resource| resource == BUCKET) {
        // What empties the bucket is the provider, and it looks for this in the state.
        let mut allow = workspace.terraform("apply");
        allow.args(["-auto-approve", "-input=false", "-var=force_destroy=true"]).arg(format!("-target={BUCKET}"));
        succeed(variables.pass(&mut allow))?;
    }
    let mut destroy = workspace.terraform("destroy");
    succeed(variables.pass(destroy.args(["-auto-approve", "-input=false", "-var=force_destroy=true"])))?;
    let left = resources(&workspace)?;
    anyhow::ensure!(left.is_empty(), "still there: {}", left.join(", "));
    if let State::Folder(folder) = &state {
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    println!("the grid {} is gone", args.grid);
    Ok(())
}

/// An output of a grid's configuration, once it is deployed.
pub(crate) fn output(args: &GridArgs, name: &str) -> anyhow::Result<String> {
    let workspace = args.workspace(&args.state()?)?;
    let output = workspace.terraform("output").args(["-raw", name]).output()?;
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    anyhow::ensure!(output.status.success(), "terraform output {name}: {error}");
    Ok(said.trim().to_owned())
}

impl GridArgs {
    /// A grid for tests, at an endpoint: of a size for one machine, and telling what it asks of AWS.
    pub(crate) fn on_endpoint(grid: &str, endpoint: &str) -> Self {
        // Containers are scaled and never there, so that nothing may be handed on to them by a Lambda that finds it too long.
        let environment = format!("environment={{AWS_ENDPOINT_URL={endpoint:?},SHEAF_SPOT=\"\"}}");
        let workers = r#"workers={image="registry.example.com/worker:1",boot_s=15}"#;
        let vars = ["slots=10", "log_filter=info,sheaf_requests=debug", &environment, workers];
        Self {
            grid: grid.to_owned(),
            region: None,
            architecture: ArchitectureArgs::x86_64(),
            vars: vars.map(str::to_owned).to_vec(),
            var_files: Vec::new(),
            state: None,
            endpoint: Some(endpoint.to_owned()),
            yes: true,
        }
    }

    /// Forgets what a state in a folder knows of, such as the resources of a server that has ended.
    pub(crate) fn forget(&self) -> anyhow::Result<()> {
        match self.state()? {
            State::Folder(folder) if folder.exists() => {
                fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())
            }
            State::Folder(_) | State::Bucket { .. } => Ok(()),
        }
    }

    /// The configuration for this grid, with its state and provider.
    fn workspace(&self, state: &State) -> anyhow::Result<Workspace> {
        anyhow::ensure!(terraform::is_installed(), "there is no terraform on the PATH: 1.10 or later is needed");
        // Of its own for an endpoint, so that a test never comes near a grid of the same name.
        let name = if self.endpoint.is_some() { format!("{}-on-endpoint", self.grid) } else { self.grid.clone() };
        let workspace = Workspace::new(&name)?;
        workspace.put("grid.auto.tfvars.json", &self.variables().to_string())?;
        workspace.put("state_override.tf.json", &state.backend(self.region.as_deref()).to_string())?;
        if let Some(endpoint) = &self.endpoint {
            workspace.put("endpoint_override.tf.json", &provider(endpoint).to_string())?;
        }
        workspace.init(&["-reconfigure"])?;
        Ok(workspace)
    }

    fn variables(&self) -> Value {
        let mut variables = json!({"grid": self.grid, "architecture": self.architecture.get().name()});
        let region = self.region.as_deref().or(self.endpoint.as_ref().map(|_| ENDPOINT_REGION));
        if let Some(region) = region {
            variables["region"] = json!(region);
        }
        if let Some(endpoint) = &self.endpoint {
            variables["environment"] = json!({ "AWS_ENDPOINT_URL": endpoint });
        }
        variables
    }

    fn state(&self) -> anyhow::Result<State> {
        if let Some(place) = self.state.as_deref().and_then(|state| state.strip_prefix("s3://")) {
            let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
            anyhow::ensure!(!bucket.is_empty(), "the state needs a bucket: s3://BUCKET/PREFIX");
            let prefix = prefix.trim_matches('/');
            let key =
                [prefix, &self.grid].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/");
            return Ok(State::Bucket { bucket: bucket.to_owned(), key: format!("{key}/terraform.tfstate") });
        }
        let folder = match (&self.state, &self.endpoint) {
            (Some(folder), _) => std::path::absolute(folder)?.join(&self.grid),
            (None, Some(_)) => root().join("target/terraform").join(format!("{}-on-endpoint", self.grid)).join("state"),
            (None, None) => root().join(".sheaf/aws").join(&self.grid),
        };
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(State::Folder(folder))
    }
}

impl State {
    fn backend(&self, region: Option<&str>) -> Value {
        let backend = match self {
            Self::Folder(folder) => json!({"local": {"path": folder.join("terraform.tfstate")}}),
            Self::Bucket { bucket, key } => {
                let mut s3 = json!({"bucket": bucket, "key": key, "encrypt": true, "use_lockfile": true});
                if let Some(region) = region {
                    s3["region"] = json!(region);
                }
                json!({ "s3": s3 })
            }
        };
        json!({"terraform": {"backend": backend}})
    }

    fn kept_variables(&self) -> Option<PathBuf> {
        match self {
            Self::Folder(folder) => Some(folder.join("variables.json")),
            Self::Bucket { .. } => None,
        }
    }
}

impl Variables {
    fn given(args: &GridArgs) -> anyhow::Result<Self> {
        let files =
            args.var_files.iter().map(|file| fs::canonicalize(file).with_context(|| file.display().to_string()));
        Ok(Self { vars: args.vars.clone(), var_files: files.collect::<Result<_, _>>()? })
    }

    /// Remembers them for the grid's end.
    fn keep(&self, state: &State) -> anyhow::Result<()> {
        let Some(file) = state.kept_variables() else { return Ok(()) };
        fs::write(&file, serde_json::to_vec_pretty(self)?).with_context(|| file.display().to_string())
    }

    /// Those of the last deployment, if none are given now.
    fn or_kept(self, state: &State) -> anyhow::Result<Self> {
        let kept = state.kept_variables().filter(|file| file.is_file() && self == Self::default());
        match kept {
            Some(file) => serde_json::from_slice(&fs::read(&file)?).with_context(|| file.display().to_string()),
            None => Ok(self),
        }
    }

    fn pass<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.args(self.var_files.iter().map(|file| format!("-var-file={}", file.display())));
        command.args(self.vars.iter().map(|var| format!("-var={var}")))
    }
}

/// A provider that calls an endpoint, whatever it is asked for.
fn provider(endpoint: &str) -> Value {
    let endpoints: serde_json::Map<String, Value> =
        SERVICES.iter().map(|service| ((*service).to_owned(), json!(endpoint))).collect();
    // Servers of this kind give each key an account of its own.
    let key = env::var("AWS_ACCESS_KEY_ID").unwrap_or_else(|_| "test".to_owned());
    json!({"provider": {"aws": {
        "access_key": key,
        "secret_key": "test",
        "s3_use_path_style": true,
        "skip_credentials_validation": true,
        "skip_metadata_api_check": true,
        "skip_region_validation": true,
        "max_retries": 3,
        "endpoints": [endpoints],
    }}})
}

fn copy_packages(from: &Path, workspace: &Workspace, architecture: Architecture) -> anyhow::Result<()> {
    for name in LAMBDAS {
        let file = format!("{name}.zip");
        let package = from.join(&file);
        anyhow::ensure!(package.is_file(), "there is no {}: run `cargo xtask package` first", package.display());
        terraform::copy(&package, &workspace.packages(architecture.name()).join(file))?;
    }
    Ok(())
}

/// What the state knows of, without what was only read.
fn resources(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let mut list = workspace.terraform("state");
    let output = list.arg("list").output()?;
    let (known, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // A state that was never written is one of nothing.
    anyhow::ensure!(
        output.status.success() || said.contains("No state file was found"),
        "terraform state list: {said}"
    );
    Ok(known.lines().filter(|line| !is_read(line)).map(str::to_owned).collect())
}

/// Whether an address is of a data source; one of the modules is called data too.
fn is_read(address: &str) -> bool {
    let parts: Vec<&str> = address.split('.').collect();
    parts.iter().enumerate().any(|(at, part)| *part == "data" && (at == 0 || parts[at - 1] != "module"))
}

fn confirm(grid: &str, resources: usize) -> anyhow::Result<()> {
    print!(
        "This removes the grid {grid} ({resources} resources) with all jobs, results and files.\nIts name again, to go on: "
    );
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    anyhow::ensure!(answer.trim() == grid, "nothing was removed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        grid: GridArgs,
    }

    fn args(words: &[&str]) -> Result<GridArgs, clap::Error> {
        Line::try_parse_from([&["deploy"], words].concat()).map(|line| line.grid)
    }

    #[test]
    fn names_of_grids_are_those_that_terraform_takes() {
        let variables = fs::read_to_string(root().join("infra/terraform/variables.tf")).expect("variables");
        assert!(variables.contains("^[a-z][a-z0-9-]{0,29}[a-z0-9]$"), "another rule there");
        for name in ["ab", "night-2", &"x".repeat(31)] {
            assert!(grid_name(name).is_ok(), "{name}");
        }
        for name in ["a", "A1", "9a", "a_b", "ab-", "-ab", "../x", &"x".repeat(32)] {
            assert!(grid_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_state_is_where_it_was_said_to_be() {
        let backend = |words: &[&str]| {
            let args =
                args(&[&["--grid", "night", "--endpoint", "http://127.0.0.1:1"], words].concat()).expect("arguments");
            args.state().expect("a place").backend(args.region.as_deref())
        };
        let s3 = backend(&["--state", "s3://states/sheaf/", "--region", "eu-west-1"]);
        let s3 = &s3["terraform"]["backend"]["s3"];
        assert_eq!((&s3["key"], &s3["region"]), (&json!("sheaf/night/terraform.tfstate"), &json!("eu-west-1")));
        assert_eq!(
            backend(&["--state", "s3://states"])["terraform"]["backend"]["s3"]["key"],
            "night/terraform.tfstate"
        );
        let local = backend(&[])["terraform"]["backend"]["local"]["path"].to_string();
        assert!(local.contains("night-on-endpoint/state/terraform.tfstate"), "{local}");
    }

    #[test]
    fn what_a_grid_was_deployed_with_is_used_to_remove_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::Folder(folder.path().to_owned());
        let some = || Variables { vars: vec!["slots=7".to_owned()], var_files: Vec::new() };
        assert_eq!(Variables::default().or_kept(&state).expect("nothing kept"), Variables::default());
        some().keep(&state).expect("kept");
        assert_eq!(Variables::default().or_kept(&state).expect("kept"), some());
        let other = || Variables { vars: vec!["slots=8".to_owned()], var_files: Vec::new() };
        assert_eq!(other().or_kept(&state).expect("given"), other());
    }

    #[test]
    fn what_was_only_read_is_no_resource() {
        assert!(is_read("data.aws_region.this") && is_read("module.workers[0].data.aws_vpc.default[0]"));
        assert!(is_read("module.data.data.aws_region.this") && !is_read(BUCKET));
        assert!(!is_read("aws_dynamodb_table_item.grid"));
    }

    #[test]
    fn an_endpoint_is_given_for_each_service_that_the_configuration_uses() {
        // The name of a resource type tells its service, mostly.
        let service = |kind: &str| match kind {
            _ if kind.starts_with("cloudwatch_event") => "cloudwatchevents",
            _ if kind.starts_with("cloudwatch_log") => "cloudwatchlogs",
            "security_group" | "vpc_security_group_egress_rule" | "launch_template" | "vpc" | "subnets" => "ec2",
            "caller_identity" => "sts",
            _ => SERVICES.into_iter().find(|service| kind.starts_with(service)).unwrap_or_default(),
        };
        // Of the others, nobody is asked.
        for kind in terraform::kinds().iter().filter(|kind| !["region", "partition"].contains(&kind.as_str())) {
            assert!(SERVICES.contains(&service(kind)), "aws_{kind} is of a service without an endpoint");
        }
    }

    #[test]
    fn a_provider_of_an_endpoint_calls_nothing_else() {
        let provider = provider("http://127.0.0.1:4566");
        let provider = &provider["provider"]["aws"];
        assert_eq!(provider["secret_key"], "test");
        assert_eq!(provider["endpoints"][0]["dynamodb"], "http://127.0.0.1:4566");
        let flags = ["skip_credentials_validation", "skip_metadata_api_check", "s3_use_path_style"];
        assert!(flags.iter().all(|flag| provider[flag] == json!(true)));
        assert!(args(&["--grid", "Night"]).is_err());
    }
}
