//! Checks of infra/ that need no account: Terraform's format and validity, plans against a provider that is made up, policies, and
//! the containers' Dockerfile.

use std::process::Command;

use crate::{
    checked::{Checked, listen},
    setup::{self, root},
    terraform::{self, Workspace},
};

/// Runs them all.
pub(crate) fn run() -> anyhow::Result<Checked> {
    let mut checked = Checked::default();
    if terraform::is_installed() {
        let workspace = Workspace::new("checks")?;
        checked.take("the format", workspace.terraform("fmt").args(["-check", "-diff", "-recursive"]))?;
        match workspace.init(&["-backend=false"]) {
            Ok(()) => {
                checked.take("the configuration's validity", workspace.terraform("validate").arg("-no-color"))?;
                plans(&mut checked, workspace.terraform("test").arg("-no-color"))?;
            }
            Err(error) if !workspace.has_plugins() => {
                checked
                    .skip(&format!("infrastructure: validity and plans: the provider of AWS cannot be had: {error:#}"));
            }
            // The provider is here, so that it is the configuration.
            Err(error) => return Err(error),
        }
    } else {
        checked.skip("infrastructure: format, validity and plans: there is no terraform on the PATH");
    }
    match setup::infra() {
        Ok(venv) => {
            let mut checkov = Command::new(venv.join("checkov"));
            checkov.args(["--framework", "terraform", "--skip-download", "--compact", "--quiet", "-d"]);
            checked.take("the policies", checkov.arg(root().join("infra/terraform")).env("LOG_LEVEL", "ERROR"))?;
            let mut hadolint = Command::new(venv.join("hadolint"));
            checked.take("the Dockerfile", hadolint.arg(root().join("infra/worker.Dockerfile")))?;
        }
        Err(error) => {
            checked.skip(&format!("policies and the Dockerfile: checkov and hadolint cannot be had: {error:#}"))
        }
    }
    checked.sum_up("infrastructure");
    Ok(checked)
}

/// Runs Terraform's own tests, which count themselves.
fn plans(checked: &mut Checked, command: &mut Command) -> anyhow::Result<()> {
    let (ended_well, said) = listen(command)?;
    let (passed, failed) = count(&said).unwrap_or_default();
    checked.passed += passed;
    // Tests that did not even start are a failure too.
    let broken = u64::from(failed == 0 && (!ended_well || passed == 0));
    if failed + broken > 0 {
        println!("{said}\nplans: FAILED");
    }
    (0..failed + broken).for_each(|_| checked.fail("a plan of infra/terraform"));
    Ok(())
}

/// How many runs passed and failed, of the last line of `terraform test`.
fn count(said: &str) -> Option<(u64, u64)> {
    let line = said.lines().rev().find(|line| line.starts_with("Success!") || line.starts_with("Failure!"))?;
    let mut numbers = line.split([' ', ',']).filter_map(|word| word.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;

    fn text(path: &str) -> String {
        fs::read_to_string(root().join(path)).expect(path)
    }

    /// All that stands between two marks.
    fn between<'a>(text: &'a str, from: &str, to: &str) -> Vec<&'a str> {
        let behind = text.split(from).skip(1);
        behind.filter_map(|rest| rest.split_once(to)).map(|(found, _)| found).collect()
    }

    #[test]
    fn what_terraform_says_of_its_tests_is_read() {
        assert_eq!(count("run \"a\"... pass\n\nSuccess! 12 passed, 0 failed.\n"), Some((12, 0)));
        assert_eq!(count("Failure! 3 passed, 2 failed, 1 skipped.\n"), Some((3, 2)));
        assert_eq!(count("Error: no such thing"), None);
    }

    #[test]
    fn the_table_is_as_the_code_has_it() {
        let (code, table) = (text("shared/aws/src/schema.rs"), text("infra/terraform/modules/data/table.tf"));
        let indexes = between(&code, "Index = Index { name: \"", "\" };");
        assert_eq!(indexes.len(), 3, "{indexes:?}");
        for index in indexes {
            let words: Vec<&str> = index.split('"').step_by(2).collect();
            let line = format!("{{ partition = \"{}\", sort = \"{}\" }}", words[1], words[2]);
            let line = table.lines().find(|row| row.trim_start().starts_with(words[0]) && row.ends_with(&line));
            assert!(line.is_some(), "{index} is not in the table");
        }
        for (constant, attribute) in [("PK", "hash_key"), ("SK", "range_key"), ("TTL", "attribute_name")] {
            let [name] = between(&code, &format!("pub const {constant}: &str = \""), "\"")[..] else {
                panic!("{constant}")
            };
            let set = table.lines().any(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                words[..] == [attribute, "=", &format!("\"{name}\"")]
            });
            assert!(set, "{attribute} is not {name}");
        }
    }

    #[test]
    fn reads_of_results_are_routes_that_there_are() {
        let (code, api) = (text("shared/http/src/routes.rs"), text("infra/terraform/modules/api/main.tf"));
        let routes: BTreeSet<String> = between(&code, "route(Call::", ")")
            .iter()
            .filter_map(|route| {
                let (_, rest) = route.split_once("Verb::")?;
                let (verb, path) = rest.split_once(", \"")?;
                Some(format!("{} {}", verb.to_uppercase(), path.trim_end_matches('"')))
            })
            .collect();
        assert!(routes.len() > 15, "{routes:?}");
        let ours = between(&api, "for route in [", "]")[0];
        let ours: Vec<&str> = ours.split('"').skip(1).step_by(2).collect();
        assert!(ours.len() >= 4, "{ours:?}");
        for route in &ours {
            assert!(routes.contains(*route), "there is no {route}");
        }
        for route in routes.iter().filter(|route| route.contains("/results") || route.contains("/progress")) {
            assert!(ours.contains(&route.as_str()), "{route} reads results, and does not go to the function that does");
        }
    }

    #[test]
    fn metrics_are_those_that_the_grid_gives() {
        let names = text("shared/telemetry/src/names.rs");
        let alarms = text("infra/terraform/modules/observability/alarms.tf");
        let dashboard = text("infra/terraform/modules/observability/dashboard.tf");
        let own = alarms.split("own = {").nth(1).and_then(|rest| rest.split("lambda = {").next()).expect("alarms");
        let mut metrics = between(own, "metric = \"", "\"");
        let seen = between(&dashboard, "[local.namespace, \"", "\"");
        metrics.extend(seen);
        metrics.extend(
            between(&dashboard, "for name in [", "]").iter().flat_map(|list| list.split('"').skip(1).step_by(2)),
        );
        assert!(metrics.len() >= 12, "{metrics:?}");
        for metric in metrics {
            assert!(names.contains(&format!("(\"{metric}\")")), "there is no metric {metric}");
        }
    }

    #[test]
    fn the_scaler_is_told_what_it_asks() {
        let code = text("functions/sweep/src/scale/settings.rs");
        let asked = |of: &str| -> BTreeSet<String> {
            between(between(&code, of, "\n}")[0], "pub(crate) ", ":").into_iter().map(str::to_owned).collect()
        };
        let keys = |block: &str| -> BTreeSet<String> {
            block.lines().filter_map(|line| Some(line.split_once(" = ")?.0.trim().to_owned())).collect()
        };
        let pools = text("infra/terraform/modules/workers/capacity.tf");
        assert_eq!(keys(between(&pools, "local.services : {", "}]")[0]), asked("struct ServicePool {"));
        let outputs = text("infra/terraform/modules/workers/outputs.tf");
        assert_eq!(keys(between(&outputs, "told = jsonencode({", "})")[0]), asked("struct Capacity {"));
        assert!(text("infra/terraform/modules/functions/main.tf").contains("SHEAF_CAPACITY = "));

        let policies = text("shared/scheduler/src/policy.rs");
        let named = between(&policies, " => \"", "\", \"");
        let variables = text("infra/terraform/variables.tf");
        let known = between(&variables, "[\"fixed\"", "]");
        let known: BTreeSet<&str> = known[0].split('"').skip(1).step_by(2).collect();
        assert_eq!(known.len() + 1, named.len(), "{named:?}");
        for policy in named.iter().filter(|name| **name != "fixed") {
            assert!(known.contains(policy), "Terraform knows no policy {policy}");
        }
    }

    #[test]
    fn programs_are_told_what_they_ask() {
        let main = text("infra/terraform/main.tf");
        let asked = [
            text("shared/lambda/src/settings.rs"),
            text("shared/aws/src/ports.rs"),
            text("shared/telemetry/src/logs.rs"),
        ];
        let told: Vec<&str> = between(&main, "environment = merge(", "\n  )")
            .iter()
            .flat_map(|block| {
                block.split(|c: char| !c.is_ascii_uppercase() && c != '_').filter(|word| word.starts_with("SHEAF_"))
            })
            .collect();
        assert_eq!(told.len(), 9, "{told:?}");
        for variable in told {
            assert!(asked.iter().any(|code| code.contains(&format!("\"{variable}\""))), "nobody asks for {variable}");
        }
    }
}
