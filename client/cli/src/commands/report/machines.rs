//! What machines did for a job that `sheaf control --machines` ran: read from the folder of the execution, in seconds of the
//! plan.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use serde::Serialize;
use sheaf_core::{JobId, Lane, WorkerId};
use sheaf_machines::{Decided, EventLog, Life, Lives, Phase, Why};
use sheaf_scheduler::energy::Factors;

use super::{files::Csv, history::History};
use crate::{
    problem::{Outcome, Problem},
    text,
};

/// What machines did, in figures. Seconds are those of the plan.
#[derive(Debug, Serialize)]
pub(super) struct MachineFigures {
    /// Seconds of the plan that passed in a second.
    pub(super) time_scale: f64,
    pub(super) all: Sums,
    pub(super) markets: Vec<Sums>,
    pub(super) machines: Vec<MachineLine>,
    pub(super) decisions: Vec<DecisionLine>,
    pub(super) wasted_s: f64,
    pub(super) energy_wh: f64,
    /// For the timeline and the CSVs.
    #[serde(skip)]
    pub(super) lives: Lives,
    /// What the folder does not tell.
    #[serde(skip)]
    pub(super) not_known: Vec<String>,
}

/// Sums over machines.
#[derive(Debug, Serialize)]
pub(super) struct Sums {
    /// `None` for all.
    pub(super) market: Option<Lane>,
    pub(super) requested: usize,
    pub(super) refused: usize,
    pub(super) reclaims: usize,
    pub(super) hibernations: u32,
    pub(super) frozen_s: f64,
    /// Seconds that were paid for.
    pub(super) worker_s: f64,
    pub(super) utilisation: Option<f64>,
    pub(super) cost: f64,
}

/// A machine's stages, and the times between them.
#[derive(Debug, Serialize)]
pub(super) struct MachineLine {
    pub(super) machine: u64,
    pub(super) name: String,
    pub(super) worker: Option<String>,
    pub(super) slots: u32,
    pub(super) requested_s: f64,
    pub(super) up_s: Option<f64>,
    pub(super) first_busy_s: Option<f64>,
    pub(super) told_s: Option<f64>,
    pub(super) ended_s: Option<f64>,
    pub(super) why: Option<&'static str>,
    pub(super) boot_s: Option<f64>,
    /// From when it was up to its first task.
    pub(super) waited_s: Option<f64>,
    pub(super) busy_s: f64,
    pub(super) idle_s: f64,
    pub(super) draining_s: f64,
    pub(super) frozen_s: f64,
    pub(super) hibernations: u32,
    pub(super) held_s: f64,
    pub(super) paid_s: f64,
    pub(super) utilisation: Option<f64>,
    /// Of second copies that were not needed.
    pub(super) copies_lost_s: f64,
    pub(super) given_back: usize,
    pub(super) cost: f64,
}

/// What the policy answered, when it was something else than before.
#[derive(Debug, Serialize)]
pub(super) struct DecisionLine {
    pub(super) at_s: f64,
    pub(super) policy: String,
    pub(super) wants: String,
    pub(super) drains: String,
    pub(super) reasons: Vec<String>,
}

/// Reads the folder of an execution.
pub(super) fn read(folder: &Path, job: JobId, history: &History) -> Outcome<MachineFigures> {
    let path = folder.join("events.ndjson");
    let hint = "give the folder JOB_N that `sheaf control --machines` made";
    let text = std::fs::read_to_string(&path).map_err(|error| Problem::file("read", &path, error).with_hint(hint))?;
    let log = EventLog::parse(&text).map_err(|error| {
        Problem::usage(format!("{}: {error}", path.display())).with_hint("the file is damaged; take that line out")
    })?;
    let lives = Lives::of(&log);
    let ours: HashSet<_> = lives.machines.iter().filter_map(|life| life.worker.as_ref()).collect();
    if !history.workers.is_empty() && !history.workers.iter().any(|worker| ours.contains(&worker.id)) {
        let message = format!("{}: none of its machines ran anything of {job}", folder.display());
        return Err(Problem::usage(message).with_hint("`sheaf control` names the job and its folder"));
    }
    Ok(MachineFigures::of(lives, &log, history))
}

impl MachineFigures {
    fn of(lives: Lives, log: &EventLog, history: &History) -> Self {
        let machines: Vec<MachineLine> = lives.machines.iter().map(line).collect();
        let markets = [Lane::Spot, Lane::OnDemand].map(|market| Sums::of(&lives, Some(market)));
        let lost_ms: u64 = history.losses.iter().map(|(_, loss)| loss.held_ms).sum();
        let copies_lost_s: f64 = lives.machines.iter().map(|life| life.copies_lost_s).sum();
        let busy_slot_s = lives.machines.iter().filter_map(|life| life.busy_slot_s).sum();
        let held_slot_s = lives.machines.iter().map(|life| life.paid_s() * f64::from(life.slots)).sum();
        Self {
            time_scale: lives.time_scale,
            all: Sums::of(&lives, None),
            markets: markets.into_iter().filter(|sums| sums.requested + sums.refused > 0).collect(),
            machines,
            decisions: lives.decisions.iter().map(|of| decided(of, &lives)).collect(),
            wasted_s: lost_ms as f64 / 1e3 * lives.time_scale + copies_lost_s,
            energy_wh: Factors::built_in().watt_hours(busy_slot_s, held_slot_s),
            not_known: not_known(&lives, log),
            lives,
        }
    }
}

impl MachineFigures {
    /// The workers, with how many tasks each ran at once.
    pub(super) fn slots(&self) -> impl Iterator<Item = (WorkerId, u32)> {
        self.lives.machines.iter().filter_map(|life| Some((life.worker.clone()?, life.slots)))
    }
}

impl Sums {
    fn of(lives: &Lives, market: Option<Lane>) -> Self {
        let is_ours = |of: Lane| market.is_none_or(|market| market == of);
        let machines: Vec<&Life> = lives.machines.iter().filter(|life| is_ours(life.market)).collect();
        let sum = |figure: fn(&Life) -> f64| machines.iter().fold(0.0, |sum, life| sum + figure(life));
        let known = |life: &&&Life| life.busy_slot_s.is_some();
        let up_slot_s: f64 = machines.iter().filter(known).map(|life| life.up_s() * f64::from(life.slots)).sum();
        Self {
            market,
            requested: machines.len(),
            refused: lives.refusals.iter().filter(|refusal| is_ours(refusal.market)).count(),
            reclaims: machines.iter().filter(|life| life.why == Some(Why::Reclaimed)).count(),
            hibernations: machines.iter().map(|life| life.hibernations).sum(),
            frozen_s: sum(|life| life.in_phase_s(Phase::Hibernated)),
            worker_s: sum(Life::paid_s),
            utilisation: super::share(sum(|life| life.busy_slot_s.unwrap_or_default()), up_slot_s),
            cost: sum(Life::cost),
        }
    }
}

/// What a machine is called.
pub(super) fn name(life: &Life) -> String {
    format!("{} {} {}", life.r#type, life.market, life.machine)
}

fn line(life: &Life) -> MachineLine {
    let since = |from: Option<f64>, until: Option<f64>| Some(until? - from?);
    MachineLine {
        machine: life.machine,
        name: name(life),
        worker: life.worker.as_ref().map(ToString::to_string),
        slots: life.slots,
        requested_s: life.requested_s,
        up_s: life.up_s,
        first_busy_s: life.first_busy_s,
        told_s: life.told_s,
        ended_s: life.ended_s,
        why: life.why.map(Why::as_str),
        boot_s: since(Some(life.requested_s), life.up_s),
        waited_s: since(life.up_s, life.first_busy_s),
        busy_s: life.in_phase_s(Phase::Busy),
        idle_s: life.in_phase_s(Phase::Idle),
        draining_s: life.in_phase_s(Phase::Draining),
        frozen_s: life.in_phase_s(Phase::Hibernated),
        hibernations: life.hibernations,
        held_s: life.held_s(),
        paid_s: life.paid_s(),
        utilisation: life.busy_slot_s.and_then(|busy_s| super::share(busy_s, life.up_s() * f64::from(life.slots))),
        copies_lost_s: life.copies_lost_s,
        given_back: life.given_back,
        cost: life.cost(),
    }
}

fn decided(Decided { at_s, decision, pools }: &Decided, lives: &Lives) -> DecisionLine {
    let pool = |number: usize| pools.get(number).cloned().unwrap_or_else(|| format!("pool {number}"));
    let wants: Vec<_> = decision.wants.iter().map(|want| format!("{} {}", want.machines, pool(want.pool))).collect();
    let machine = |number: u64| {
        let known = lives.machines.iter().find(|life| life.machine == number);
        known.map_or_else(|| number.to_string(), name)
    };
    let drains: Vec<_> = decision.drains.iter().map(|drain| machine(drain.machine)).collect();
    let or_none = |list: Vec<String>| if list.is_empty() { "none".to_owned() } else { list.join(", ") };
    DecisionLine {
        at_s: *at_s,
        policy: decision.policy.clone(),
        wants: or_none(wants),
        drains: or_none(drains),
        reasons: decision.reasons.clone(),
    }
}

fn not_known(lives: &Lives, log: &EventLog) -> Vec<String> {
    let mut said = Vec::new();
    let counted = |count: u64, noun: &str| text::counted(count, noun);
    for (name, count) in &log.unknown {
        said.push(format!(
            "What {} called {name:?} mean: a later version of sheaf wrote them.",
            counted(*count, "event")
        ));
    }
    if lives.strays > 0 {
        said.push(format!(
            "Of which machines {} are: nobody asked for them, or they were over.",
            counted(lives.strays, "event")
        ));
    }
    if log.is_cut_short {
        said.push("The last event of the machines: its line is not whole.".to_owned());
    }
    let open = lives.machines.iter().filter(|life| life.ended_s.is_none()).count() as u64;
    if open > 0 {
        let machines = counted(open, "machine");
        said.push(format!(
            "How {machines} ended, and how busy they were: the last event is of {:.0} s.",
            lives.until_s
        ));
    }
    said
}

/// Writes machines.csv, requests.csv and decisions.csv. Times are in seconds of the plan.
pub(super) fn write(figures: &MachineFigures, folder: &Path) -> Outcome<Vec<PathBuf>> {
    let mut machines = Csv::create(folder, "machines.csv", &MACHINE_COLUMNS)?;
    for (line, life) in figures.machines.iter().zip(&figures.lives.machines) {
        machines.line(machine_cells(line, life))?;
    }
    let mut requests = Csv::create(folder, "requests.csv", &["at_s", "type", "market", "answer", "machine", "boot_s"])?;
    for request in requested(&figures.lives) {
        requests.line(request.1)?;
    }
    let mut decisions = Csv::create(folder, "decisions.csv", &["at_s", "policy", "wants", "drains", "reasons"])?;
    for line in &figures.decisions {
        let cells = [seconds(line.at_s), line.policy.clone(), line.wants.clone(), line.drains.clone()];
        decisions.line(cells.into_iter().chain([line.reasons.join("; ")]))?;
    }
    [machines, requests, decisions].into_iter().map(Csv::finish).collect()
}

/// Requests with their answers, in the order of their times.
fn requested(lives: &Lives) -> Vec<(f64, [String; 6])> {
    let granted = lives.machines.iter().map(|life| {
        let boot_s = life.up_s.map(|up_s| seconds(up_s - life.requested_s)).unwrap_or_default();
        let (at_s, machine) = (life.requested_s, life.machine.to_string());
        (at_s, [seconds(at_s), life.r#type.clone(), life.market.to_string(), "granted".to_owned(), machine, boot_s])
    });
    let refused = lives.refusals.iter().map(|refusal| {
        let (machine, market) = (refusal.r#type.clone(), refusal.market.to_string());
        let (at_s, none) = (refusal.at_s, String::new());
        (at_s, [seconds(at_s), machine, market, "refused".to_owned(), none.clone(), none])
    });
    let mut all: Vec<_> = granted.chain(refused).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all
}

const MACHINE_COLUMNS: [&str; 25] = [
    "machine",
    "type",
    "market",
    "slots",
    "worker",
    "requested_s",
    "up_s",
    "first_busy_s",
    "told_s",
    "ended_s",
    "why",
    "boot_s",
    "waited_s",
    "busy_s",
    "idle_s",
    "draining_s",
    "frozen_s",
    "hibernations",
    "held_s",
    "paid_s",
    "utilisation",
    "copies_lost_s",
    "given_back",
    "price_per_hour",
    "cost",
];

fn machine_cells(line: &MachineLine, life: &Life) -> [String; 25] {
    let shown = |at_s: Option<f64>| at_s.map(seconds).unwrap_or_default();
    [
        line.machine.to_string(),
        life.r#type.clone(),
        life.market.to_string(),
        line.slots.to_string(),
        line.worker.clone().unwrap_or_default(),
        seconds(line.requested_s),
        shown(line.up_s),
        shown(line.first_busy_s),
        shown(line.told_s),
        shown(line.ended_s),
        line.why.unwrap_or_default().to_owned(),
        shown(line.boot_s),
        shown(line.waited_s),
        seconds(line.busy_s),
        seconds(line.idle_s),
        seconds(line.draining_s),
        seconds(line.frozen_s),
        line.hibernations.to_string(),
        seconds(line.held_s),
        seconds(line.paid_s),
        line.utilisation.map(|share| format!("{share:.4}")).unwrap_or_default(),
        seconds(line.copies_lost_s),
        line.given_back.to_string(),
        life.price_per_hour.to_string(),
        format!("{:.6}", line.cost),
    ]
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.3}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use sheaf_api::wire::EventView;
    use sheaf_core::Event;

    use super::*;

    const JOB: &str = "job_01890a5dac96774bbcceb302099a8057";

    fn read_text(text: &str) -> Outcome<MachineFigures> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("events.ndjson"), text).unwrap();
        read(folder.path(), JOB.parse().unwrap(), &History::new(0, 1))
    }

    const LINES: &str = r#"{"at_s":0.0,"at_ms":0,"event":"decided","decision":{"policy":"sheaf","wants":[{"pool":1,"machines":2}],"reasons":["all of it"]},"pools":["a spot","b spot"]}
{"at_s":0.0,"at_ms":0,"event":"requested","machine":0,"type":"b","market":"spot","slots":2,"price_per_hour":3.6}
{"at_s":0.5,"at_ms":50,"event":"refused","type":"b","market":"spot","failures":1}
{"at_s":10.0,"at_ms":1000,"event":"up","machine":0,"worker":"wrk_remote-7"}
{"at_s":20.0,"at_ms":2000,"event":"busy","machine":0,"tasks":1}
{"at_s":110.0,"at_ms":11000,"event":"ended","machine":0,"why":"reclaimed","given_back":[],"busy_slot_s":90.0}
"#;

    #[test]
    fn figures_and_csvs_come_from_what_was_written_down() {
        let figures = read_text(LINES).unwrap();
        assert_eq!((figures.all.requested, figures.all.refused, figures.all.reclaims), (1, 1, 1));
        assert_eq!((figures.markets.len(), figures.markets[0].market), (1, Some(Lane::Spot)));
        assert!((figures.all.cost - 0.11).abs() < 1e-9 && figures.all.utilisation == Some(0.45), "{figures:?}");
        assert_eq!((figures.time_scale, figures.not_known.len()), (10.0, 0));
        let folder = tempfile::tempdir().unwrap();
        let files = write(&figures, folder.path()).unwrap();
        let texts: Vec<_> = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
        assert!(texts[0].ends_with("0,b,spot,2,wrk_remote-7,0.000,10.000,20.000,,110.000,reclaimed,10.000,10.000,90.000,10.000,0.000,0.000,0,110.000,110.000,0.4500,0.000,0,3.6,0.110000\n"), "{}", texts[0]);
        assert!(texts[1].ends_with("0.000,b,spot,granted,0,10.000\n0.500,b,spot,refused,,\n"), "{}", texts[1]);
        assert!(texts[2].ends_with("0.000,sheaf,2 b spot,none,all of it\n"), "{}", texts[2]);
    }

    #[test]
    fn what_is_damaged_is_named_and_what_is_new_is_noted() {
        let said = read_text(&format!("{LINES}{{\"event\":3}}\n")).unwrap_err().to_string();
        assert!(said.contains("events.ndjson: line 7 is no event"), "{said}");
        let cut = LINES.trim_end().trim_end_matches('}');
        let later = r#"{"at_s":1.0,"at_ms":100,"event":"moved","machine":0}"#;
        let figures = read_text(&format!("{later}\n{cut}")).unwrap();
        let noted = figures.not_known.join("\n");
        assert!(
            noted.contains("\"moved\"") && noted.contains("not whole") && noted.contains("1 machine ended"),
            "{noted}"
        );
        let nowhere = read(Path::new("/nowhere"), JOB.parse().unwrap(), &History::new(0, 1)).unwrap_err();
        assert!(nowhere.to_string().contains("events.ndjson"), "{nowhere}");
    }

    #[test]
    fn what_belongs_to_another_job_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("events.ndjson"), LINES).unwrap();
        let mut history = History::new(0, 1_000);
        let (job, worker) = (JOB.parse().unwrap(), "wrk_other".parse().unwrap());
        let event = Event::ChunkClaimed { chunk: 0, epoch: 1, worker, taken_over: false, resumed: 0 };
        history.take(&EventView { number: 1, at_ms: 5, job, event });
        let said = read(folder.path(), job, &history).unwrap_err().to_string();
        assert!(said.contains("none of its machines ran anything of job_"), "{said}");
    }
}
