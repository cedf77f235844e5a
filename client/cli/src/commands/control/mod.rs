//! `sheaf control`: a bag's commands, run for real on this machine.

mod figures;
mod machines;

use std::{
    future::Future,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Serialize;
use sheaf_api::{
    Api, Code,
    wire::{CreateJob, JobView, PutFunction},
};
use sheaf_core::{FunctionKind, JobId, Lane, Manifest, limits};
use sheaf_machines::{FleetSpec, Spent};
use sheaf_scheduler::{formats::map::PlanMap, hads::Bag, plan::PlanTable, simulate::Entry};

use self::{
    figures::Figures,
    machines::{EventFile, Local, MachineArgs, Ran},
};
use crate::{
    bags::{check_budget, parse_seconds},
    commands::{
        plan::{self, PlanArgs},
        wait as wait_command,
    },
    connect::{Need, Session},
    feed,
    input::{Input, Task},
    output::{Printer, facts},
    problem::{Outcome, Problem},
    progress::Bar,
    settings::Settings,
    text,
    wait::{self, Waited},
};

/// Run the commands of a bag on this machine, by a deadline, with what each printed in a folder of its own
///
/// The plan says how many tasks run at once, up to the slots of this machine, and in which order they start; what has not
/// ended by the deadline is given up. With --machines, the policy drives worker processes that stand for machines: they
/// boot, are drained when they are wanted no longer, and with --scenario are taken away, after a notice and by kill -9.
/// What a task printed and its exit code are in JOB_N/TASK/data/ (stdout, stderr, exit_code), N counting the executions, and
/// the plan is in JOB_N/map.json.
#[derive(Debug, Args)]
pub(crate) struct Control {
    #[command(flatten)]
    asked: PlanArgs,
    #[command(flatten)]
    machines: MachineArgs,
    /// Let commands leave checkpoints: a file, where SHEAF_CHECKPOINT says, that the next attempt at their task finds there. It
    /// is kept every so often; as often as the policy says, or every minute, if no time is given
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, value_parser = parse_seconds)]
    checkpoint: Option<Option<f64>>,
    /// Where JOB_N is made
    #[arg(long, value_name = "DIR", default_value = ".")]
    results: PathBuf,
    /// Where the commands start
    #[arg(long, value_name = "DIR", default_value = ".")]
    from: PathBuf,
}

/// Starts a command and keeps what it prints; it appears under its name only when it is whole, so that an attempt which was
/// cut short leaves nothing there. One that wakes on a machine that was frozen, and finds that another has begun meanwhile,
/// leaves its results alone; so does a second copy (attempt 0), which runs beside the attempt that it is a copy of, once there are
/// results. The wish for a last checkpoint is not passed on, since it ends commands that do not expect it. No
/// braces: they would be placeholders.
const SCRIPT: &str = r#"
overtaken() (
  [ "$SHEAF_EPOCH" -gt 0 ] || [ ! -e "$1/data" ] || exit 0
  for attempt in "$1"/.data.*/attempt "$1"/data/attempt; do
    [ -f "$attempt" ] && [ "$SHEAF_EPOCH" -gt 0 ] && [ "$(cat "$attempt")" -gt "$SHEAF_EPOCH" ] && exit 0
  done
  exit 1
)
trap : USR1
cd "$1" || exit 126
overtaken "$2" && exit 126
[ "$SHEAF_EPOCH" -eq 0 ] || rm -rf "$2"/.data.[1-9]*
part="$2/.data.$SHEAF_EPOCH"
mkdir -p "$part" && echo "$SHEAF_EPOCH" >"$part/attempt" || exit 126
sh -c "$3" >"$part/stdout" 2>"$part/stderr"
code=$?
overtaken "$2" && exit 126
echo "$code" >"$part/exit_code" || exit 126
rm -rf "$2/data" && mv "$part" "$2/data" || exit 126
rm -rf "$2/.data.0"
tail -c 4096 "$2/data/stderr" >&2
exit "$code"
"#;

/// What the script calls a result that is not whole.
const PART: &str = ".data.";
/// Seconds of the plan between two checkpoints where nobody says anything else.
const CHECKPOINT_EVERY_S: f64 = limits::CHECKPOINT_EVERY_MS_DEFAULT as f64 / 1e3;

/// Executions of one bag in one folder.
const EXECUTIONS_MAX: u32 = 1_000_000;

/// What came of it.
#[derive(Debug, Serialize)]
struct Controlled {
    job: JobId,
    folder: PathBuf,
    slots: u32,
    deadline_s: f64,
    makespan_s: f64,
    in_time: bool,
    /// Tasks that were left when the budget was spent, or when somebody cancelled the job.
    cancelled: u64,
    /// What the slots would have cost for as long, at the mean price of a core in the plan; with machines, what they cost.
    cost_estimate: f64,
    planned: PlanTable,
    /// What machines did.
    #[serde(skip_serializing_if = "Option::is_none")]
    machines: Option<Figures>,
}

impl Control {
    pub(crate) async fn run(&self, settings: &Settings) -> Outcome {
        check_budget(self.machines.budget, &[self.asked.policy])?;
        let entry = self.asked.bag.read_one()?;
        check(&entry)?;
        self.machines.check(&entry, self.asked.deadline)?;
        // On another machine neither the commands' files nor their results would be here.
        if let place @ (sheaf::Place::Url(_) | sheaf::Place::Aws(_)) = &settings.client.place.value {
            return Err(Problem::usage(format!("the grid is {place}, and a bag is run on this machine"))
                .with_hint("unset SHEAF_GRID, or give --grid DIR"));
        }
        let from = whole_path(&self.from)?;
        let (planned, map) = self.asked.plan(&entry, self.machines.budget)?;
        let cores: usize = map.machines.iter().map(|machine| machine.cores.len()).sum();
        let slots = u32::try_from(settings.slots().min(cores.max(1))).unwrap_or(u32::MAX);
        // Machines are where all of it runs.
        let slots = if self.machines.machines { 0 } else { slots };
        let folder = new_folder(&self.results, &entry.name)?;
        plan::write_map(&folder.join("map.json"), &map)?;
        let tasks = tasks(&entry, &map, &from, &folder);
        let session = Session::open_with_slots(settings, Need::Run, Some(slots)).await?;
        let outcome = async {
            let run = Run { session: &session, settings, entry: &entry, folder: &folder };
            let (waited, figures) = if self.machines.machines {
                let (waited, figures) = Box::pin(self.on_machines(&run, tasks)).await?;
                (waited, Some(figures))
            } else {
                let job = self.create(&run, None).await?;
                feed::feed(session.api(), &job, Input::Tasks(tasks.into_iter()), Some(1)).await?;
                (wait::until_over(&session, job.job.id, None, &Bar::new(settings)).await?, None)
            };
            wait_command::told(&session, &waited).await?;
            let mut done = controlled(&waited.view, folder.clone(), self.asked.deadline, planned, &map);
            if let Some(figures) = figures {
                done.makespan_s *= self.machines.time_scale;
                done.cost_estimate = figures.cost;
                done.machines = Some(figures);
            }
            Printer(settings.output).one(&done, &done.job.to_string(), || describe(&done))?;
            if done.machines.is_some() && settings.output.is_table() {
                eprintln!("what they did: {}", report_command(&done));
            }
            Ok(waited.exit)
        };
        let outcome = outcome.await;
        wait_command::end(session, outcome).await
    }

    /// Creates the job, whose deadline comes sooner where time passes faster.
    async fn create(&self, run: &Run<'_>, fleet: Option<&FleetSpec>) -> Outcome<JobView> {
        let api = run.session.api();
        let time_scale = fleet.map_or(1.0, |fleet| fleet.time_scale);
        let mut manifest = manifest()?;
        manifest.checkpoint_every_ms = self.checkpoint.map(|every_s| {
            let policy = |fleet: &FleetSpec| fleet.checkpoint_every_s(&*fleet.settings.policy(self.asked.policy));
            let every_s = every_s.or_else(|| fleet.and_then(policy)).unwrap_or(CHECKPOINT_EVERY_S);
            ((every_s / time_scale * 1e3) as u64)
                .clamp(limits::CHECKPOINT_EVERY_MS_MIN, limits::FUNCTION_TIMEOUT_MS_MAX)
        });
        let function = api.put_function(PutFunction { manifest, package: None }).await?;
        let create = CreateJob {
            name: run.entry.name.clone(),
            deadline_ms: Some(text::now_ms() + (self.asked.deadline / time_scale * 1e3) as u64),
            // The longest go first: what was measured of them says little of the rest.
            task_ms: mean_s(&run.entry.bag).map(|mean_s| (mean_s / time_scale * 1e3).ceil() as u64),
            // Machines take their tasks from there, and second copies from the lane of those that stay.
            lane: if fleet.is_some() { Lane::Spot } else { Lane::default() },
            ..CreateJob::new(feed::job_id(), vec![function.reference.to_string()])
        };
        Ok(api.create_job(create).await?)
    }

    /// Runs the tasks on processes that stand for machines, which the policy drives.
    async fn on_machines(&self, run: &Run<'_>, tasks: Vec<Task>) -> Outcome<(Waited, Figures)> {
        let Run { session, settings, entry, folder } = run;
        let grid = session.embedded().ok_or_else(|| {
            Problem::new(
                Code::Unavailable,
                "another process serves this grid, and machines are driven by the one that does",
            )
            .with_hint("stop it, or give --grid DIR with a directory of its own")
        })?;
        let directory = settings.directory()?;
        let names: Vec<String> = tasks.iter().map(|task| task.key.clone()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let spec = self.machines.spec(entry, &names, self.asked.deadline)?;
        let mut events = EventFile::create(folder)?;
        let scale = self.machines.time_scale;
        let job = self.create(run, Some(&spec)).await?;
        let local = Local::new(grid, directory, folder, job.job.id, names.len())?;
        let mut fleet = machines::fleet(spec, self.asked.policy, &mut events);
        let feed = feed::feed(session.api(), &job, Input::Tasks(tasks.into_iter()), Some(1));
        let waited = Box::pin(driven(run, &job, feed, fleet.run(&local))).await;
        fleet.close(&local).await;
        leave_results(folder, &names);
        let ran = Ran { machines: fleet.records(), chunks: local.chunks().await.unwrap_or_default() };
        drop(fleet);
        let waited = waited?;
        events.close()?;
        figures::write(folder, &names, &ran, job.job.created_at_ms, scale)?;
        let (policy, budget) = (self.asked.policy, self.machines.budget);
        Ok((waited, Figures::of(&ran, policy, budget, scale)))
    }
}

/// Seconds that a task of a bag takes on average, as job.json tells.
fn mean_s(bag: &Bag) -> Option<f64> {
    let told_s = |task: usize| (0..bag.env.instances.len()).find_map(|kind| bag.runtime_s(task, kind));
    let tasks_s: Vec<f64> = (0..bag.len()).filter_map(told_s).collect();
    (!tasks_s.is_empty()).then(|| tasks_s.iter().sum::<f64>() / tasks_s.len() as f64)
}

/// Submits and waits while machines are driven. When their budget is spent with work left, that is cancelled: nobody does it.
async fn driven(
    run: &Run<'_>,
    job: &JobView,
    feed: impl Future<Output = Outcome<JobView>>,
    drive: impl Future<Output = Spent>,
) -> Outcome<Waited> {
    let (session, job) = (run.session, job.job.id);
    let wait = async || wait::until_over(session, job, None, &Bar::new(run.settings)).await;
    tokio::pin!(feed, drive);
    let spent = tokio::select! {
        fed = &mut feed => {
            fed?;
            tokio::select! {
                waited = wait() => return waited,
                spent = &mut drive => spent,
            }
        }
        spent = &mut drive => {
            feed.await?;
            spent
        }
    };
    let Spent { budget, cost, tasks_left } = spent;
    let tasks = text::counted(tasks_left as u64, "task");
    eprintln!("the budget of ${budget:.5} is spent (${cost:.5}) with {tasks} left, which are cancelled");
    session.api().cancel(job).await?;
    wait().await
}

/// Removes what attempts have left behind that were cut short, now that none runs any more. What cannot be removed does no harm.
fn leave_results(folder: &Path, tasks: &[&str]) {
    let left = tasks.iter().filter_map(|task| std::fs::read_dir(folder.join(task)).ok()).flatten().flatten();
    for part in left.filter(|entry| entry.file_name().to_string_lossy().starts_with(PART)) {
        if let Err(error) = std::fs::remove_dir_all(part.path()) {
            tracing::debug!(path = %part.path().display(), %error, "a part of a result is left");
        }
    }
}

/// What a bag is run in.
struct Run<'a> {
    session: &'a Session,
    settings: &'a Settings,
    entry: &'a Entry,
    folder: &'a Path,
}

fn manifest() -> Outcome<Manifest> {
    let argv = ["/bin/sh", "-c", SCRIPT, "control", "{from}", "{folder}", "{command}"].map(ToOwned::to_owned);
    let name =
        "control".parse().map_err(|error: sheaf_core::IdError| Problem::new(Code::Internal, error.to_string()))?;
    let mut manifest = Manifest::new(name, FunctionKind::Command { argv: argv.into() });
    manifest.timeout_ms = limits::FUNCTION_TIMEOUT_MS_MAX;
    manifest.memory_bytes_max = super::run_command::MEMORY_BYTES_DEFAULT;
    if let Ok(path) = std::env::var("PATH") {
        manifest.env.insert("PATH".into(), path);
    }
    Ok(manifest)
}

/// A bag can be run if its tasks have commands, and names that folders can have.
fn check(entry: &Entry) -> Outcome<()> {
    for task in &entry.bag.job.tasks {
        if task.command.trim().is_empty() {
            let message = format!("task {} of {} has no command", task.id, entry.name);
            return Err(Problem::usage(message).with_hint("give each task of job.json a \"command\""));
        }
        if !is_folder_name(&task.id) {
            let message = format!("task {:?} of {} cannot be the name of a folder", task.id, entry.name);
            return Err(Problem::usage(message).with_hint("use letters, digits, _, - and . in the names of tasks"));
        }
    }
    Ok(())
}

/// A path from the root, as the commands are given it.
fn whole_path(path: &Path) -> Outcome<PathBuf> {
    let whole = std::fs::canonicalize(path).map_err(|error| Problem::file("read", path, error))?;
    match whole.to_str() {
        Some(_) => Ok(whole),
        None => Err(Problem::usage(format!("{} is no text in UTF-8", whole.display()))
            .with_hint("give a folder whose whole path is")),
    }
}

fn is_folder_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (1..=200).contains(&name.len()) && name.chars().all(plain) && !name.starts_with('.')
}

/// Makes `JOB_N` for the first N that is free.
fn new_folder(results: &Path, name: &str) -> Outcome<PathBuf> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' };
    let name: String = name.chars().map(plain).take(100).collect();
    std::fs::create_dir_all(results).map_err(|error| Problem::file("made", results, error))?;
    let results = whole_path(results)?;
    for execution in 0..EXECUTIONS_MAX {
        let folder = results.join(format!("{name}_{execution}"));
        match std::fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Problem::file("made", &folder, error)),
        }
    }
    Err(Problem::usage(format!("{} has {EXECUTIONS_MAX} executions of {name}", results.display()))
        .with_hint("give another --results"))
}

/// The tasks, those that the plan starts first in front.
fn tasks(entry: &Entry, map: &PlanMap, from: &Path, folder: &Path) -> Vec<Task> {
    let starts = map.machines.iter().flat_map(|machine| machine.cores.iter().flatten());
    let starts: std::collections::HashMap<&str, f64> =
        starts.map(|(task, start_s, _)| (task.as_str(), *start_s)).collect();
    let start_s =
        |task: &sheaf_scheduler::formats::job::Task| starts.get(task.id.as_str()).copied().unwrap_or(f64::MAX);
    let mut tasks: Vec<_> = entry.bag.job.tasks.iter().collect();
    tasks.sort_by(|a, b| start_s(a).total_cmp(&start_s(b)));
    let task = |task: &sheaf_scheduler::formats::job::Task| {
        let payload = serde_json::json!({"from": from, "folder": folder.join(&task.id), "command": task.command});
        Task { payload: payload.to_string().into_bytes(), key: task.id.clone() }
    };
    tasks.into_iter().map(task).collect()
}

fn controlled(view: &JobView, folder: PathBuf, deadline_s: f64, planned: PlanTable, map: &PlanMap) -> Controlled {
    let until_ms = view.job.state.ended_at_ms().unwrap_or_else(text::now_ms);
    let makespan_s = until_ms.saturating_sub(view.job.created_at_ms) as f64 / 1e3;
    let totals = &view.summary.totals;
    let cores: f64 = map.machines.iter().map(|machine| machine.cores.len() as f64).sum();
    let price: f64 = map.machines.iter().map(|machine| machine.price_per_hour).sum();
    let slots = view.slots;
    Controlled {
        job: view.job.id,
        folder,
        slots,
        deadline_s,
        makespan_s,
        in_time: view.job.state.ended_at_ms().is_some() && totals.expired + totals.cancelled == 0,
        cancelled: totals.cancelled,
        cost_estimate: price / cores.max(1.0) / 3600.0 * f64::from(slots) * makespan_s,
        planned,
        machines: None,
    }
}

/// What draws what the machines did.
fn report_command(done: &Controlled) -> String {
    let folder = done.folder.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let folder = if folder.chars().all(plain) { folder } else { format!("'{}'", folder.replace('\'', r"'\''")) };
    format!("sheaf job report {} --machines {folder}", done.job)
}

fn describe(done: &Controlled) -> String {
    let plan = &done.planned;
    let kept = if done.in_time { "kept" } else { "missed" };
    let begin = [("job", done.job.to_string()), ("folder", done.folder.display().to_string())];
    let deadline = ("deadline", format!("{} s, {kept}", done.deadline_s));
    if let Some(machines) = &done.machines {
        let mut counts =
            format!("{} spot, {} on-demand, {} taken away", machines.spot, machines.on_demand, machines.reclaims);
        if machines.hibernations > 0 {
            let times = text::counted(machines.hibernations.into(), "time");
            counts += &format!(", frozen {times} for {:.0} s", machines.frozen_s);
        }
        return facts(&[
            begin[0].clone(),
            begin[1].clone(),
            ("machines", counts),
            ("makespan", format!("{:.0} s", done.makespan_s)),
            deadline,
            ("cost", format!("${:.5}", machines.cost)),
            ("budget", plan::budget_kept(machines.budget, machines.cost, done.cancelled)),
            ("worker time", format!("{:.0} s, of which {:.1} % busy", machines.worker_s, 100.0 * machines.utilisation)),
            ("wasted", format!("{:.0} s", machines.wasted_s)),
            ("energy", format!("{:.2} Wh, estimated", machines.watt_hours)),
            ("planned", format!("{:.0} s and ${:.5} under {}", plan.makespan_s, plan.cost, plan.policy)),
        ]);
    }
    let [job, folder] = begin;
    facts(&[
        job,
        folder,
        ("makespan", format!("{:.1} s on {} here", done.makespan_s, text::counted(done.slots.into(), "slot"))),
        deadline,
        ("cost", format!("${:.5}, estimated at the plan's price of a core", done.cost_estimate)),
        (
            "planned",
            format!(
                "{:.0} s and ${:.5} under {}, on machines that are not here",
                plan.makespan_s, plan.cost, plan.policy
            ),
        ),
    ])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use sheaf_scheduler::{
        PolicyName, Settings as Told, plan,
        sim::published::{self, BAGS},
    };

    use super::*;

    #[test]
    fn names_of_tasks_must_stay_inside_their_folder() {
        assert!(["0", "a-b_1.c"].iter().all(|name| is_folder_name(name)));
        assert!(["", ".", "..", "a/b", "../x", ".data.1", "a b"].iter().all(|name| !is_folder_name(name)));
    }

    #[test]
    fn executions_have_folders_of_their_own() {
        let results = tempfile::tempdir().unwrap();
        let made = |name| new_folder(results.path(), name).unwrap().file_name().unwrap().to_owned();
        assert_eq!([made("night"), made("night"), made("../x y")], ["night_0", "night_1", "___x_y_0"]);
    }

    #[test]
    fn tasks_start_in_the_order_of_the_plan_and_need_commands() {
        let bag = published::bag(&BAGS[0], 1).unwrap();
        let (_, map) = plan::plan(&bag, 2700.0, None, PolicyName::HadsCc, &Told::default()).unwrap();
        let entry = Entry { name: "J60".to_owned(), bag };
        assert!(check(&entry).unwrap_err().to_string().contains("task 0 of J60 has no command"));
        let started = tasks(&entry, &map, Path::new("/a"), Path::new("/b"));
        let planned = |id: &str| {
            let cores = map.machines.iter().flat_map(|machine| machine.cores.iter().flatten());
            cores.clone().find(|(task, ..)| task == id).map(|(_, start_s, _)| *start_s).unwrap()
        };
        assert_eq!(started.len(), 60);
        assert!(started.windows(2).all(|pair| planned(&pair[0].key) <= planned(&pair[1].key)));
    }
}
