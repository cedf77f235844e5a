//! A whole grid on an AWS that runs on this machine: packaged, deployed by the real modules, put through its scenarios, destroyed.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::{
    checked::Checked,
    deploy,
    package::{self, Architecture},
    setup::{self, root, succeed},
    terraform, test,
};

/// The grid's name.
const GRID: &str = "e2e";
/// The line by which the scenarios say what they came to begins with this.
const RESULT: &str = "scenarios on AWS: ";
/// And what one has seen stands on a line that begins with this.
const SEEN: &str = "    ";
/// The scenario that is the client's own tests.
const CLIENT: &str = "client";

/// How the scenarios are run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Package the Lambdas without optimising them, and no container: two minutes instead of ten.
    #[arg(long)]
    quick: bool,
    /// Leave the grid up until a line is read, to look at it.
    #[arg(long)]
    keep: bool,
    /// Only these scenarios.
    scenarios: Vec<String>,
}

impl Options {
    /// What is run with all other tests, which may take an hour together.
    pub(crate) const fn with_tests() -> Self {
        Self { quick: true, keep: false, scenarios: Vec::new() }
    }
}

/// Deploys a grid, runs the scenarios, and destroys it.
pub(crate) fn run(options: &Options) -> anyhow::Result<Checked> {
    let mut checked = Checked::default();
    if !terraform::is_installed() {
        checked.skip("a grid on AWS, end to end: there is no terraform on the PATH");
        return Ok(checked);
    }
    let Some(program) = setup::ministack() else {
        checked.skip("a grid on AWS, end to end: ministack cannot be had");
        return Ok(checked);
    };
    // All of the workspace, as the tests build it, so that nothing is built twice; the command can also do AWS.
    let mut build = test::cargo();
    build.args(["build", "--workspace", "--locked", "--bins", "--tests"]);
    build.args(["--features", "sheaf-cli/aws"]);
    succeed(&mut build)?;
    let programs = std::env::current_exe()?.parent().context("a program is in a folder")?.to_owned();
    let packages = if options.quick { package::quick()? } else { package::run(Architecture::X86_64, "lambda")? };
    let server = Server::start(&program, programs, packages.container)?;
    println!("an AWS on loopback answers at {}", server.endpoint);
    let grid = deploy::GridArgs::on_endpoint(GRID, &server.endpoint);
    // Of an earlier run that was killed.
    grid.forget()?;
    let began = Instant::now();
    if let Err(error) = deploy::deploy(&grid, Some(&packages.zips), false) {
        // Where the provider cannot be had, nothing was tried.
        if !terraform::has_provider() {
            checked.skip(&format!("a grid on AWS, end to end: the provider of AWS cannot be had: {error:#}"));
            return Ok(checked);
        }
        return Err(error);
    }
    println!("deployed in {:.0} s", began.elapsed().as_secs_f64());
    let api = server.on_loopback(&deploy::output(&grid, "api")?);
    let ran = server.run(&mut checked, &api, &options.scenarios);
    if options.scenarios.is_empty() || options.scenarios.iter().any(|scenario| scenario == CLIENT) {
        server.test_client(&mut checked, &api)?;
    }
    if options.keep {
        println!("the grid {GRID} stays at {} until a line is read", server.endpoint);
        std::io::stdin().lock().lines().next();
    }
    let began = Instant::now();
    deploy::destroy(&grid)?;
    println!("destroyed in {:.0} s", began.elapsed().as_secs_f64());
    let mut leftovers = server.scenarios();
    checked.take("what is left of a grid that was destroyed", leftovers.args(["--leftovers"]))?;
    ran.map(|()| checked)
}

/// An AWS on loopback. Ends with this.
struct Server {
    endpoint: String,
    /// Where the programs of this workspace are.
    programs: PathBuf,
    /// The program of the containers as packaged.
    container: Option<PathBuf>,
    child: Child,
}

impl Server {
    fn start(program: &Path, programs: PathBuf, container: Option<PathBuf>) -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = File::create(root().join("target/e2e-aws.log"))?;
        let mut server = Command::new(program);
        server.env("BIND_HOST", "127.0.0.1").env("GATEWAY_PORT", port.to_string()).stdin(Stdio::null());
        let child = server.stdout(log.try_clone()?).stderr(log).spawn().context("ministack")?;
        let server = Self { endpoint: format!("http://127.0.0.1:{port}"), programs, container, child };
        let until = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            anyhow::ensure!(Instant::now() < until, "ministack does not answer: see target/e2e-aws.log");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// Where an API of AWS is found here: by its name below this server's.
    fn on_loopback(&self, api: &str) -> String {
        let name = api.trim_start_matches("https://").split('.').next().unwrap_or_default();
        self.endpoint.replace("127.0.0.1", &format!("{name}.execute-api.localhost"))
    }

    /// The scenarios' program, told where everything is.
    fn scenarios(&self) -> Command {
        let mut command = Command::new(self.programs.join("sheaf-e2e-aws"));
        command.arg("--programs").arg(&self.programs).args(["--grid", GRID]).stdin(Stdio::null());
        if let Some(container) = &self.container {
            command.arg("--container").arg(container);
        }
        command.envs(self.variables());
        command
    }

    /// What a user's programs find it by.
    fn variables(&self) -> [(&str, &str); 5] {
        [
            ("AWS_ENDPOINT_URL", self.endpoint.as_str()),
            ("AWS_REGION", deploy::ENDPOINT_REGION),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ]
    }

    /// Runs the client's own tests on the grid: with the user's own rights, and through its API.
    fn test_client(&self, checked: &mut Checked, api: &str) -> anyhow::Result<()> {
        for place in [&format!("aws:{GRID}"), api] {
            println!("--- {CLIENT}: SHEAF_GRID={place}");
            let mut tests = test::cargo();
            tests.args(["test", "--workspace", "--locked", "--no-fail-fast", "--features", "sheaf-cli/aws"]);
            tests.args(["--test", "any_grid"]).env("SHEAF_GRID", place).envs(self.variables());
            let tested = test::watch(&mut tests)?;
            anyhow::ensure!(tested.passed > 0 || tested.failed() > 0, "there are no tests of the client");
            checked.add(tested);
        }
        Ok(())
    }

    /// Runs the scenarios, passing on what they say.
    fn run(&self, checked: &mut Checked, api: &str, scenarios: &[String]) -> anyhow::Result<()> {
        let mut command = self.scenarios();
        command.args(["--api", api]).args(scenarios).stdout(Stdio::piped());
        let mut child = command.spawn().context("sheaf-e2e-aws")?;
        let (mut scenario, mut named, mut counts) = (String::new(), 0, None);
        for line in BufReader::new(child.stdout.take().context("a pipe")?).lines() {
            let line = line?;
            println!("{line}");
            if let Some(name) = line.strip_prefix("--- ") {
                scenario = name.to_owned();
            }
            // The table at the end says all of it again.
            if line.starts_with(SEEN) {
                checked.hear(&line);
                if line.contains(": FAILED: ") {
                    checked.fail(format!("the scenario {scenario}"));
                    named += 1;
                }
            }
            counts = line.strip_prefix(RESULT).map(numbers).or(counts);
        }
        let status = child.wait()?;
        let (passed, failed) = counts.context("the scenarios did not come to their end")?;
        checked.passed += passed;
        if failed > named || (failed == 0 && !status.success()) {
            checked.fail("scenarios on AWS");
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked to end, it ends the Lambdas that it runs.
        let asked = Command::new("kill").arg(self.child.id().to_string()).status();
        if asked.is_err() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// How many passed and how many failed.
fn numbers(result: &str) -> (u64, u64) {
    let mut numbers = result.split([' ', ',']).filter_map(|word| word.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_scenarios_came_to_is_read() {
        assert_eq!(numbers("12 passed, 1 failed, 2 skipped"), (12, 1));
        assert_eq!(numbers(""), (0, 0));
    }
}
