//! A plan for a bag: `sheaf plan` before its command line is there.
//!
//! `cargo run -p sheaf-scheduler --example plan -- job.json env.json deadline_s policy [map.json]`
//! With `J60`, `J80`, `J100` or `ED200` in the place of both files, a bag of that size is made up.

use sheaf_scheduler::formats::{env::Env, job::Job};
use sheaf_scheduler::hads::Bag;
use sheaf_scheduler::sim::published::{self, BAGS};
use sheaf_scheduler::{PolicyName, Settings, plan};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let text: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (bag, rest) = match &text[..] {
        [name, rest @ ..] if BAGS.iter().any(|bag| bag.name == *name) => {
            let of = BAGS.iter().find(|bag| bag.name == *name).ok_or("no such bag")?;
            (published::bag(of, 1)?, rest)
        }
        [job, env, rest @ ..] => {
            let job = Job::parse(&std::fs::read_to_string(job)?).map_err(|error| format!("{job}: {error}"))?;
            let env = Env::parse(&std::fs::read_to_string(env)?).map_err(|error| format!("{env}: {error}"))?;
            (Bag::new(job, env)?, rest)
        }
        _ => return Err("usage: plan (job.json env.json | J60) [deadline_s] [policy] [map.json]".into()),
    };
    let deadline_s = rest.first().map_or(Ok(published::DEADLINE_S), |text| text.parse())?;
    let policy = rest.get(1).map_or(Ok(PolicyName::Sheaf), |text| text.parse())?;
    let (table, map) = plan::plan(&bag, deadline_s, policy, &Settings::default())?;
    println!("{}", serde_json::to_string_pretty(&table)?);
    if let Some(path) = rest.get(2) {
        std::fs::write(path, serde_json::to_string_pretty(&map.to_json())?)?;
    }
    Ok(())
}
