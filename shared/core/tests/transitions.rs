//! The whole transition table as snapshots: reviewers read the protocol there. A line is a state, an event, and what comes
//! of it; `↦` stands before what a success changes.

mod fixture;

use std::{collections::BTreeSet, fmt::Write};

use fixture::{
    Path, S, attempt, checkpoint, checkpoints, claim, commit, digest, end, finish, heartbeat, mark, marks, owner,
    release, segment, spec, submit, take_over, touch, with_checkpoints, with_tallies,
};
use sheaf_core::{
    Attempt, CheckpointRef, Chunk, ChunkEvent, ChunkState, Commit, EndReason, Event, Evidence, FunctionRef, Job,
    JobEvent, JobOptions, JobRefused, JobState, Mark, Marks, Refused, ReleaseReason, Seal, Tally, TenantId, invariant,
    limits,
};

/// When the events of the table happen, unless they say otherwise.
const NOW: u64 = 100 * S;
const DEADLINE: u64 = 200 * S;

/// Every state worth telling apart, each reached by events.
fn states() -> Vec<(&'static str, Option<Chunk>)> {
    let queued = || Path::submitted(spec(4, Some(DEADLINE)));
    let mine = || queued().then(|_| claim("other", 10 * S)).released(11 * S, 0).then(|_| claim("me", 95 * S));
    let theirs = |at_ms| queued().then(|_| claim("other", at_ms)).commits("s...");
    let isolated = || theirs(5 * S).taken_over_by("third").taken_over_by("me");
    let late = || Path::submitted(spec(4, Some(90 * S)));
    let many = limits::CHECKPOINTS_MAX as u32 + 2;
    let crowded =
        Path::submitted(spec(many, Some(DEADLINE))).then(|_| claim("me", 95 * S)).checkpoints(2..many, 96 * S);
    let full = (0..limits::SEGMENTS_MAX).fold(mine(), |path, _| path.commits("...."));
    [
        ("absent", None),
        ("queued", Some(queued())),
        ("queued, not before 150s", Some(queued().then(|_| claim("other", 10 * S)).released(11 * S, 150 * S))),
        ("queued, past deadline", Some(late())),
        ("queued, no deadline", Some(Path::submitted(spec(4, None)))),
        ("mine", Some(mine().commits("s..."))),
        ("mine, isolated, at 1", Some(isolated().then(|chunk| mark(&attempt(3, "me"), chunk.rv, 1)))),
        ("mine, all closed", Some(mine().commits("sfsq"))),
        ("mine, segments full", Some(full)),
        ("mine, 0 with a checkpoint", Some(mine().checkpoints([0], 96 * S))),
        ("mine, resumed at 1", Some(theirs(5 * S).checkpoints([1], 6 * S).taken_over_by("me"))),
        ("mine, checkpoints full", Some(crowded)),
        ("another's", Some(theirs(95 * S))),
        ("another's, one task open", Some(theirs(95 * S).commits(".ss."))),
        ("another's, with a checkpoint", Some(theirs(95 * S).checkpoints([1], 96 * S))),
        ("another's, lease over", Some(theirs(10 * S))),
        ("another's, past deadline", Some(late().then(|_| claim("other", 10 * S)))),
        ("done by me", Some(mine().commits("sssf").finished(99 * S))),
        ("done by another", Some(theirs(95 * S).commits(".sss").finished(99 * S))),
        ("cancelled", Some(theirs(95 * S).then(|_| end(EndReason::Cancelled, 99 * S)))),
        ("expired", Some(late().then(|_| end(EndReason::Expired, 99 * S)))),
    ]
    .map(|(name, path)| (name, path.map(|path| path.0)))
    .into()
}

/// What an author of events goes by: the chunk as it is, or something like it where there is none.
struct View {
    /// The attempt that I have or believe to have.
    mine: Attempt,
    rv: u64,
    due_ms: u64,
    seen: Attempt,
    seen_until_ms: u64,
    marks: Marks,
    segments: u32,
}

impl View {
    fn of(chunk: Option<&Chunk>) -> Self {
        let epoch = chunk.map_or(1, |chunk| chunk.epoch.max(1));
        let lease = chunk.and_then(Chunk::lease);
        Self {
            mine: attempt(epoch, "me"),
            rv: chunk.map_or(1, |chunk| chunk.rv),
            due_ms: chunk.map_or(0, |chunk| chunk.due_ms),
            seen: lease.map_or_else(|| attempt(epoch, "other"), |lease| lease.attempt.clone()),
            seen_until_ms: lease.map_or(40 * S, |lease| lease.until_ms),
            marks: chunk.map_or_else(|| Marks::open(4), |chunk| chunk.work.marks.clone()),
            segments: chunk.map_or(0, |chunk| chunk.work.segments.len() as u32),
        }
    }

    /// My next segment.
    fn commit(&self, text: &str) -> Commit {
        commit(&self.mine, self.segments, marks(text))
    }

    /// My next segment, with all that is open.
    fn commit_rest(&self) -> Commit {
        let text: String = (0..4).map(|task| if self.marks.get(task) == Mark::Open { 's' } else { '.' }).collect();
        self.commit(&text)
    }

    /// A segment that another attempt wrote.
    fn commit_of(&self, attempt: &Attempt) -> Commit {
        commit(attempt, self.segments, marks(".s.."))
    }

    /// My checkpoint with this number.
    fn checkpoint(&self, number: u32) -> CheckpointRef {
        checkpoint(&self.mine, number, NOW)
    }

    fn earlier(&self) -> Attempt {
        attempt(self.mine.epoch - 1, "me")
    }

    fn impostor(&self) -> Attempt {
        attempt(self.mine.epoch, "somebody")
    }
}

type Events = Vec<(&'static str, ChunkEvent)>;

fn events(view: &View) -> Events {
    [
        submissions(),
        claims(),
        take_overs(view),
        renewals(view),
        marks_of_tasks(view),
        releases(view),
        finishes(view),
        ends(view),
    ]
    .concat()
}

fn submissions() -> Events {
    let same = spec(4, Some(DEADLINE));
    let mut other_pack = same.clone();
    other_pack.digest = digest("another pack");
    let mut elsewhere = same.clone();
    elsewhere.task_first = 4;
    vec![
        ("T1 submit", submit(same)),
        ("T1 submit, other pack", submit(other_pack)),
        ("T1 submit, other place in the job", submit(elsewhere)),
    ]
}

fn claims() -> Events {
    vec![
        ("T2 claim", claim("me", NOW)),
        ("T2 claim at 150s", claim("me", 150 * S)),
        ("T2 claim at the deadline", claim("me", DEADLINE)),
    ]
}

fn take_overs(view: &View) -> Events {
    let over = view.seen_until_ms + limits::CLOCK_MARGIN_MS;
    let take = |seen: &Attempt, until_ms, evidence, now_ms| take_over("third", seen, until_ms, evidence, now_ms);
    let (seen, until_ms) = (&view.seen, view.seen_until_ms);
    vec![
        ("T3 take over, lease over", take(seen, until_ms, Evidence::LeaseOver, NOW)),
        ("T3 take over, on the last ms of the margin", take(seen, until_ms, Evidence::LeaseOver, over)),
        ("T3 take over, 1 ms after the margin", take(seen, until_ms, Evidence::LeaseOver, over + 1)),
        ("T3 take over, owner gone", take(seen, until_ms, Evidence::OwnerGone, NOW)),
        ("T3 take over, owner gone, at the deadline", take(seen, until_ms, Evidence::OwnerGone, DEADLINE)),
        ("T3 take over, copy's outcome", take(seen, until_ms, Evidence::Outrun, NOW)),
        ("T3 take over, copy's outcome, at the deadline", take(seen, until_ms, Evidence::Outrun, DEADLINE)),
        ("T3 take over, copy's outcome, earlier lease seen", { take(seen, until_ms - 1, Evidence::Outrun, NOW) }),
        ("T3 take over, earlier attempt seen", take(&view.earlier(), until_ms, Evidence::OwnerGone, NOW)),
        ("T3 take over, earlier lease seen", take(seen, until_ms - 1, Evidence::OwnerGone, NOW)),
    ]
}

fn renewals(view: &View) -> Events {
    let (mine, rv, until_ms) = (&view.mine, view.rv, NOW + 30 * S);
    let tried = Tally { attempts: 1, strikes: 2 };
    let seg = |attempt: &Attempt, rv, commit| segment(attempt, rv, commit, until_ms);
    vec![
        ("T4 heartbeat", heartbeat(mine, until_ms)),
        ("T4 heartbeat, shorter than the lease", heartbeat(mine, 1)),
        ("T4 heartbeat, earlier epoch", heartbeat(&view.earlier(), until_ms)),
        ("T4 heartbeat, other nonce", heartbeat(&view.impostor(), until_ms)),
        ("T5 segment of 1", seg(mine, rv, view.commit(".s.."))),
        ("T5 segment of 1, tallies of 1, 2 and 9", {
            with_tallies(seg(mine, rv, view.commit(".f..")), &[(1, tried), (2, tried), (9, tried)])
        }),
        ("T5 segment of 1, until before the lease", segment(mine, rv, view.commit(".s.."), 1)),
        ("T5 segment of 0", seg(mine, rv, view.commit("s..."))),
        ("T5 segment of other tasks than there are", seg(mine, rv, view.commit("....s"))),
        ("T5 segment of an earlier attempt", seg(mine, rv, view.commit_of(&view.earlier()))),
        ("T5 segment of another's attempt", seg(mine, rv, view.commit_of(&view.impostor()))),
        ("T5 checkpoint of 1", checkpoints(mine, rv, &[(1, view.checkpoint(0))], until_ms)),
        ("T5 checkpoints of 0, 1 and 9, segment of 1", {
            let of = [0, 1, 9].map(|task| (task, view.checkpoint(task)));
            with_checkpoints(seg(mine, rv, view.commit(".s..")), &of)
        }),
        ("T5 checkpoint of an earlier attempt", {
            checkpoints(mine, rv, &[(1, checkpoint(&view.earlier(), 0, NOW))], until_ms)
        }),
        ("T5 checkpoint of another's attempt", {
            checkpoints(mine, rv, &[(1, checkpoint(&view.impostor(), 0, NOW))], until_ms)
        }),
        ("T5 checkpoint, stale rv", checkpoints(mine, rv - 1, &[(1, view.checkpoint(0))], until_ms)),
        ("T5 segment, stale rv", seg(mine, rv - 1, view.commit(".s.."))),
        ("T5 segment, earlier epoch", seg(&view.earlier(), rv, view.commit(".s.."))),
        ("T5 segment, other nonce", seg(&view.impostor(), rv, view.commit(".s.."))),
    ]
}

fn marks_of_tasks(view: &View) -> Events {
    let (mine, rv) = (&view.mine, view.rv);
    vec![
        ("T6 mark 2", mark(mine, rv, 2)),
        ("T6 mark 0", mark(mine, rv, 0)),
        ("T6 mark 4, of 4", mark(mine, rv, 4)),
        ("T6 mark, stale rv", mark(mine, rv - 1, 2)),
        ("T6 mark, earlier epoch", mark(&view.earlier(), rv, 2)),
        ("T6 mark, other nonce", mark(&view.impostor(), rv, 2)),
    ]
}

fn releases(view: &View) -> Events {
    let (mine, rv) = (&view.mine, view.rv);
    let tried = [(2, Tally { attempts: 1, strikes: 0 })];
    let back = |attempt: &Attempt, rv, commit| release(attempt, rv, commit, NOW, NOW);
    vec![
        ("T7 release", back(mine, rv, None)),
        ("T7 release until 160s, segment of 1, tally of 2", {
            with_tallies(release(mine, rv, Some(view.commit(".s..")), NOW, 160 * S), &tried)
        }),
        ("T7 release, segment of 0", back(mine, rv, Some(view.commit("s...")))),
        ("T7 release, segment of an earlier attempt", back(mine, rv, Some(view.commit_of(&view.earlier())))),
        ("T7 release, checkpoint of 1", with_checkpoints(back(mine, rv, None), &[(1, view.checkpoint(0))])),
        ("T7 release, checkpoint of another's attempt", {
            with_checkpoints(back(mine, rv, None), &[(1, checkpoint(&view.impostor(), 0, NOW))])
        }),
        ("T7 release, stale rv", back(mine, rv - 1, None)),
        ("T7 release, earlier epoch", back(&view.earlier(), rv, None)),
        ("T7 release, other nonce", back(&view.impostor(), rv, None)),
    ]
}

fn finishes(view: &View) -> Events {
    let (mine, rv) = (&view.mine, view.rv);
    let rest = || Some(view.commit_rest());
    vec![
        ("T8 finish with the rest", finish(mine, rv, rest(), NOW)),
        ("T8 finish with 1", finish(mine, rv, Some(view.commit(".s..")), NOW)),
        ("T8 finish with nothing", finish(mine, rv, None, NOW)),
        ("T8 finish with all of it", finish(mine, rv, Some(view.commit("ssss")), NOW)),
        ("T8 finish, segment of an earlier attempt", finish(mine, rv, Some(view.commit_of(&view.earlier())), NOW)),
        ("T8 finish, stale rv", finish(mine, rv - 1, rest(), NOW)),
        ("T8 finish, earlier epoch", finish(&view.earlier(), rv, rest(), NOW)),
        ("T8 finish, other nonce", finish(&view.impostor(), rv, rest(), NOW)),
    ]
}

fn ends(view: &View) -> Events {
    vec![
        ("T9 cancel", end(EndReason::Cancelled, NOW)),
        ("T9 expire", end(EndReason::Expired, NOW)),
        ("T9 expire 1 ms before 200s", end(EndReason::Expired, DEADLINE - 1)),
        ("T9 expire at 200s", end(EndReason::Expired, DEADLINE)),
        ("T10 touch, due as seen", touch(view.due_ms, 300 * S)),
        ("T10 touch, due otherwise", touch(view.due_ms + 1, 300 * S)),
    ]
}

struct Row {
    event: &'static str,
    transition: &'static str,
    result: Result<Chunk, Refused>,
    text: String,
}

fn rows(state: Option<&Chunk>) -> Vec<Row> {
    let row = |(event, write): (&'static str, ChunkEvent)| {
        let result = Chunk::apply(state, &write);
        let text = match &result {
            Ok(after) => success(state, after),
            Err(refused) => format!("{refused:?}: {refused}"),
        };
        if let Ok(after) = &result {
            invariant::check_write(state, after).expect("a write keeps what must hold");
            assert!(write.landed_in(after), "{event} cannot be seen in what it made");
        }
        Row { event, transition: write.transition(), result, text }
    };
    events(&View::of(state)).into_iter().map(row).collect()
}

/// What a success changes.
fn success(before: Option<&Chunk>, after: &Chunk) -> String {
    let mut text = format!("↦ {}", state_text(&after.state));
    let Some(before) = before else {
        let _ = write!(text, "; epoch {}, rv {}, due {}", after.epoch, after.rv, seconds(after.due_ms));
        return text;
    };
    let mut changed = |differs: bool, change: String| {
        if differs {
            text.push_str("; ");
            text.push_str(&change);
        }
    };
    changed(before.epoch != after.epoch, format!("epoch+{}", after.epoch - before.epoch));
    changed(before.rv != after.rv, format!("rv+{}", after.rv - before.rv));
    changed(before.due_ms != after.due_ms, format!("due {}", seconds(after.due_ms)));
    let (old, new) = (&before.work, &after.work);
    changed(old.marks != new.marks, format!("{:?}", new.marks));
    changed(old.segments != new.segments, format!("segments+{}", new.segments.len() - old.segments.len()));
    changed(old.crashes != new.crashes, format!("crashes {}", new.crashes));
    let tallies: Vec<String> =
        new.tallies.iter().map(|(task, tally)| format!("{task}:{}a{}s", tally.attempts, tally.strikes)).collect();
    changed(old.tallies != new.tallies, format!("tallies {}", tallies.join(" ")));
    let checkpoints: Vec<String> = new.checkpoints.iter().map(checkpoint_text).collect();
    changed(old.checkpoints != new.checkpoints, format!("checkpoints {}", checkpoints.join(" ")));
    let past =
        new.past.last().map(|past| past.released.map_or("not given back".into(), |reason| format!("{reason:?}")));
    let checkpointed = new.past.last().and_then(|past| past.checkpointed_at_ms);
    let checkpointed = checkpointed.map(|at_ms| format!(", checkpoint at {}", seconds(at_ms))).unwrap_or_default();
    changed(old.past != new.past, format!("past: {}{checkpointed}", past.unwrap_or_default()));
    text
}

fn checkpoint_text((task, of): (&u32, &CheckpointRef)) -> String {
    format!("{task}:{}-{}", of.epoch, of.number)
}

fn state_text(state: &ChunkState) -> String {
    match state {
        ChunkState::Queued { not_before_ms: 0 } => "queued".into(),
        ChunkState::Queued { not_before_ms } => format!("queued, not before {}", seconds(*not_before_ms)),
        ChunkState::Leased(lease) => {
            let marker = lease.marker.map_or(String::new(), |task| format!(", at {task}"));
            format!("leased by {} until {}{marker}", who(&lease.attempt), seconds(lease.until_ms))
        }
        ChunkState::Done { attempt, .. } => format!("done by {}", who(attempt)),
        ChunkState::Ended { reason, .. } => format!("{reason:?}").to_lowercase(),
    }
}

fn who(attempt: &Attempt) -> &'static str {
    ["me", "other", "third"].into_iter().find(|name| owner(name) == attempt.owner).expect("an owner of the table")
}

fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(S) { format!("{}s", ms / S) } else { format!("{}.{:03}s", ms / S, ms % S) }
}

/// The lines of one state; one line for a transition that it refuses alike in all its forms.
fn lines(state: &str, rows: &[Row]) -> String {
    let mut text = String::new();
    let mut line = |event: &str, result: &str| {
        let _ = writeln!(text, "{state:24} × {event:48} → {result}");
    };
    for forms in rows.chunk_by(|a, b| a.transition == b.transition) {
        let alike = forms.iter().all(|row| row.result.is_err() && row.text == forms[0].text);
        if alike {
            line(&format!("{}, each of {}", forms[0].transition, forms.len()), &forms[0].text);
        } else {
            forms.iter().for_each(|row| line(row.event, &row.text));
        }
    }
    text
}

#[test]
fn every_state_answers_every_event() {
    let tables: Vec<String> = states().iter().map(|(name, chunk)| lines(name, &rows(chunk.as_ref()))).collect();
    let table = tables.join("\n");
    insta::assert_snapshot!("chunk", table);
}

#[test]
fn the_table_takes_every_transition_and_shows_every_refusal() {
    let all: Vec<Row> = states().iter().flat_map(|(_, chunk)| rows(chunk.as_ref())).collect();
    let taken: BTreeSet<&str> = all.iter().filter(|row| row.result.is_ok()).map(|row| row.transition).collect();
    let tried: BTreeSet<&str> = all.iter().map(|row| row.transition).collect();
    assert_eq!((tried.len(), taken), (10, tried));
    let refused: BTreeSet<Refused> = all.iter().filter_map(|row| row.result.as_ref().err().copied()).collect();
    assert_eq!(refused, all_refusals());
}

fn all_refusals() -> BTreeSet<Refused> {
    use Refused::*;
    // No wildcard: a new refusal does not compile until it is listed below, and then wants a row in the table.
    match Exists {
        Exists | Conflict | Absent | Final | Held | NotHeld | Fenced | Stale | TooEarly | PastDeadline | NotExpired
        | OutcomeChange | TasksOpen | TooManySegments | TooManyCheckpoints => {}
    }
    [
        Exists,
        Conflict,
        Absent,
        Final,
        Held,
        NotHeld,
        Fenced,
        Stale,
        TooEarly,
        PastDeadline,
        NotExpired,
        OutcomeChange,
        TasksOpen,
        TooManySegments,
        TooManyCheckpoints,
    ]
    .into()
}

#[test]
fn only_a_death_under_a_known_task_strikes_it() {
    let struck = |path: Path| path.taken_over_by("third").0.work.tallies.into_iter().collect::<Vec<_>>();
    let queued = |tasks| Path::submitted(spec(tasks, None)).then(|_| claim("me", 0));
    let strike = Tally { attempts: 0, strikes: 1 };
    assert_eq!(struck(queued(4)), []);
    assert_eq!(struck(queued(4).commits("s.ss")), [(1, strike)]);
    assert_eq!(struck(queued(1)), [(0, strike)]);
    let marked = || queued(4).then(|chunk| mark(&attempt(1, "me"), chunk.rv, 2));
    assert_eq!(struck(marked()), [(2, strike)]);
    // The commit that closes the marked task takes the marker away.
    assert_eq!(struck(marked().commits("..s.")), []);
    // One of others' results leaves it: the marked task still runs.
    assert_eq!(struck(marked().commits("s...")), [(2, strike)]);
}

#[test]
fn deaths_isolate_a_chunk_and_releases_do_not() {
    let held = || Path::submitted(spec(4, None)).then(|_| claim("me", 0));
    let died = |path: Path, times: u8| (0..times).fold(path, |path, _| path.taken_over_by("third"));
    assert!(!died(held(), limits::CRASHES_BEFORE_ISOLATION - 1).0.is_isolated());
    assert!(died(held(), limits::CRASHES_BEFORE_ISOLATION).0.is_isolated());
    let given_back = (0..9).fold(held(), |path, _| path.released(1, 0).then(|_| claim("me", 1)));
    assert!(!given_back.0.is_isolated());
}

/// Whoever has the outcome of the only open task at hand may take over from a living owner, who is charged with nothing.
#[test]
fn a_copy_outruns_its_owner_for_the_last_task_only() {
    let mine = attempt(1, "me");
    let held = Path::submitted(spec(2, None)).then(|_| claim("me", 0)).0;
    let take = |chunk: &Chunk| {
        let until_ms = chunk.lease().expect("it is held").until_ms;
        Chunk::apply(Some(chunk), &take_over("third", &mine, until_ms, Evidence::Outrun, 1))
    };
    assert_eq!(take(&held), Err(Refused::TasksOpen), "two are open");
    let last = Chunk::apply(Some(&held), &segment(&mine, held.rv, commit(&mine, 0, marks("s.")), 9)).expect("T5");
    let taken = take(&last).expect("one is open");
    assert_eq!((taken.work.crashes, taken.work.tallies.len(), taken.epoch), (0, 0, 2));
    assert_eq!(taken.work.past.last().and_then(|past| past.released), Some(ReleaseReason::Outrun));
    let late = finish(&mine, last.rv, Some(commit(&mine, 1, marks(".s"))), 2);
    assert_eq!(Chunk::apply(Some(&taken), &late), Err(Refused::Fenced));
}

#[test]
fn a_lease_without_end_does_not_run_out() {
    let held =
        Path::submitted(spec(4, None)).then(|_| claim("me", 0)).then(|_| heartbeat(&attempt(1, "me"), u64::MAX)).0;
    let take = |evidence| Chunk::apply(Some(&held), &take_over("third", &attempt(1, "me"), u64::MAX, evidence, 99 * S));
    assert_eq!(take(Evidence::LeaseOver), Err(Refused::Held));
    assert!(take(Evidence::OwnerGone).is_ok());
}

/// Two writes of one attempt at the same `rv`, of which the first was applied: the second must not seem to be.
#[test]
fn a_write_is_not_taken_for_another_of_its_attempt() {
    let mine = attempt(1, "me");
    let held = Path::submitted(spec(2, None)).then(|_| claim("me", 0)).0;
    let (first, second) = (commit(&mine, 0, marks("s.")), commit(&mine, 1, marks("f.")));
    let (all, other) = (commit(&mine, 0, marks("ss")), commit(&mine, 1, marks("ff")));
    let kept = |number| [(1, checkpoint(&mine, number, 5))];
    let stored = |number| checkpoints(&mine, held.rv, &kept(number), 9);
    let pairs = [
        (segment(&mine, held.rv, first.clone(), 9), segment(&mine, held.rv, second.clone(), 9)),
        (segment(&mine, held.rv, first.clone(), 9), stored(0)),
        (stored(0), stored(1)),
        (stored(0), segment(&mine, held.rv, first.clone(), 9)),
        (release(&mine, held.rv, None, 5, 9), with_checkpoints(release(&mine, held.rv, None, 5, 9), &kept(0))),
        (mark(&mine, held.rv, 0), mark(&mine, held.rv, 1)),
        (release(&mine, held.rv, Some(first.clone()), 5, 9), release(&mine, held.rv, Some(second), 5, 9)),
        (release(&mine, held.rv, None, 5, 9), release(&mine, held.rv, Some(first), 5, 9)),
        (release(&mine, held.rv, None, 5, 9), release(&mine, held.rv, None, 5, 8)),
        (finish(&mine, held.rv, Some(all), 9), finish(&mine, held.rv, Some(other), 9)),
    ];
    for (applied, not_applied) in pairs {
        let after = Chunk::apply(Some(&held), &applied).expect("its owner writes");
        assert!(applied.landed_in(&after) && !not_applied.landed_in(&after), "{not_applied:?}");
        assert!(!applied.landed_in(&held), "{applied:?}");
    }
}

/// A checkpoint is replaced by the next, lives on in the next attempt, and ends with its task.
#[test]
fn a_checkpoint_lives_as_long_as_its_task_is_open() {
    let of = |path: &Path| path.0.work.checkpoints.iter().map(checkpoint_text).collect::<Vec<_>>();
    let mine = || Path::submitted(spec(4, None)).then(|_| claim("me", 0)).checkpoints([1], 5).checkpoints([1, 2], 9);
    assert_eq!(of(&mine()), ["1:1-1", "2:1-2"]);
    let resumed = mine().taken_over_by("third");
    assert_eq!(of(&resumed), ["1:1-1", "2:1-2"]);
    let past = resumed.0.work.past[0].clone();
    assert_eq!((past.checkpointed_at_ms, past.lost_ms()), (Some(9), past.until_ms - 9));
    assert_eq!(of(&resumed.checkpoints([2], 50).commits(".f..")), ["2:2-2"]);
    assert_eq!(of(&mine().commits("ssss")), [""; 0]);
    assert_eq!(of(&mine().then(|_| end(EndReason::Cancelled, 10))), [""; 0]);
}

#[test]
fn a_chunk_remembers_its_last_attempts() {
    let rounds = limits::PAST_ATTEMPTS_MAX as u64 + 3;
    let chunk = (0..rounds)
        .fold(Path::submitted(spec(4, None)), |path, at_ms| path.then(|_| claim("me", at_ms)).released(at_ms, 0));
    let epochs: Vec<u32> = chunk.0.work.past.iter().map(|past| past.epoch).collect();
    assert_eq!(epochs, (4..=rounds as u32).collect::<Vec<_>>());
}

#[test]
fn open_tasks_of_an_ended_chunk_end_as_it_did() {
    let chunk = Path::submitted(spec(4, None))
        .then(|_| claim("me", 0))
        .commits("sf..")
        .then(|_| end(EndReason::Cancelled, 1))
        .0;
    let outcomes: Vec<String> =
        (0..5).map(|task| chunk.outcome(task).map_or("none".into(), |outcome| outcome.to_string())).collect();
    assert_eq!(outcomes, ["succeeded", "failed", "cancelled", "cancelled", "none"]);
    let totals = chunk.totals();
    assert_eq!(
        (totals.succeeded, totals.failed, totals.cancelled, totals.expired, totals.quarantined),
        (1, 1, 2, 0, 0)
    );
}

#[test]
fn every_write_but_renewals_and_touches_is_an_event_for_people() {
    let of = |state: &str, event: &str| {
        let chunk = states().into_iter().find(|(name, _)| *name == state).expect("a state of the table").1;
        let (_, write) =
            events(&View::of(chunk.as_ref())).into_iter().find(|(name, _)| *name == event).expect("an event");
        let after = Chunk::apply(chunk.as_ref(), &write).expect("a success of the table");
        let told: Vec<String> =
            Event::of_chunk(&write, &after).map(|event| serde_json::to_string(&event).expect("JSON")).collect();
        if told.is_empty() { "nothing".to_owned() } else { told.join(" ") }
    };
    let told = [
        ("absent", "T1 submit"),
        ("queued", "T2 claim"),
        ("another's", "T3 take over, owner gone"),
        ("mine", "T4 heartbeat"),
        ("another's, with a checkpoint", "T3 take over, owner gone"),
        ("mine", "T5 segment of 1"),
        ("mine", "T5 checkpoint of 1"),
        ("mine", "T7 release, checkpoint of 1"),
        ("mine", "T6 mark 2"),
        ("mine", "T7 release until 160s, segment of 1, tally of 2"),
        ("mine", "T8 finish with the rest"),
        ("mine", "T9 cancel"),
        ("mine", "T10 touch, due as seen"),
    ]
    .map(|(state, event)| format!("{event:48} {}", of(state, event)));
    let table = told.join("\n");
    insta::assert_snapshot!("events", table);
}

fn job(state: JobState) -> Job {
    let function: FunctionRef = "square@0123456789ab".parse().expect("a function version");
    Job {
        id: fixture::job(),
        tenant: TenantId::default(),
        options: JobOptions::new(vec![function]),
        options_digest: digest("options"),
        origin: None,
        created_at_ms: 0,
        state,
    }
}

#[test]
fn every_job_answers_every_event() {
    let (seal, other) = (Seal { chunks: 2, tasks: 8 }, Seal { chunks: 3, tasks: 9 });
    let at_ms = 99 * S;
    let states = [
        ("open", JobState::Open),
        ("sealed", JobState::Sealed { seal }),
        ("cancelling, open", JobState::Cancelling { seal: None }),
        ("cancelling, sealed", JobState::Cancelling { seal: Some(seal) }),
        ("cancelled, open", JobState::Cancelled { seal: None, at_ms }),
        ("cancelled, sealed", JobState::Cancelled { seal: Some(seal), at_ms }),
        ("done", JobState::Done { seal, at_ms }),
    ];
    let events = [
        ("seal", JobEvent::Seal { seal }),
        ("seal, other size", JobEvent::Seal { seal: other }),
        ("cancel", JobEvent::Cancel),
        ("cancel complete", JobEvent::CancelComplete { now_ms: NOW }),
        ("complete", JobEvent::Complete { now_ms: NOW }),
    ];
    let mut table = String::new();
    let mut refused = Vec::new();
    for (state_name, state) in states {
        for (event_name, event) in events {
            let text = match job(state).apply(&event) {
                Ok(after) => format!("↦ {}", serde_json::to_string(&after.state).expect("JSON")),
                Err(error) => {
                    refused.push(error);
                    format!("{error:?}: {error}")
                }
            };
            let _ = writeln!(table, "{state_name:18} × {event_name:16} → {text}");
        }
        table.push('\n');
    }
    insta::assert_snapshot!("job", table);
    // `Absent` is what stores answer; a job that is there cannot.
    let all = [JobRefused::Already, JobRefused::OtherSeal, JobRefused::Over, JobRefused::Open];
    assert!(all.iter().all(|one| refused.contains(one)) && !refused.contains(&JobRefused::Absent));
}
