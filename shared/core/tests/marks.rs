//! Marks against the plainest model of them: a `Vec` of marks.

use proptest::{collection::vec, prelude::*};
use sheaf_core::{Failure, FailureKind, Mark, Marks, Outcome, limits};

const ALL: [Mark; 4] = [Mark::Open, Mark::Succeeded, Mark::Failed, Mark::Quarantined];

fn config() -> ProptestConfig {
    ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() }
}

fn any_mark() -> impl Strategy<Value = Mark> {
    (0..ALL.len()).prop_map(|index| ALL[index])
}

fn of(model: &[Mark]) -> Marks {
    let mut marks = Marks::open(model.len() as u32);
    (0..).zip(model).for_each(|(task, &mark)| marks.set(task, mark));
    marks
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn marks_are_a_list_of_marks(writes in vec((0..70u32, any_mark()), 0..100), tasks in 0..70u32) {
        let mut marks = Marks::open(tasks);
        let mut model = vec![Mark::Open; tasks as usize];
        for (task, mark) in writes.into_iter().filter(|(task, _)| *task < tasks) {
            marks.set(task, mark);
            model[task as usize] = mark;
        }
        let read: Vec<Mark> = (0..tasks).map(|task| marks.get(task)).collect();
        prop_assert_eq!(&read, &model);
        prop_assert!((tasks..tasks + 9).all(|task| marks.get(task) == Mark::Open));
        for mark in ALL {
            prop_assert_eq!(marks.count(mark) as usize, model.iter().filter(|one| **one == mark).count());
        }
        let open: Vec<u32> = (0..tasks).filter(|task| model[*task as usize] == Mark::Open).collect();
        prop_assert_eq!(marks.is_closed(), open.is_empty());
        prop_assert_eq!(marks.open_tasks().collect::<Vec<_>>(), open);
        prop_assert_eq!(Marks::from_bits(tasks, marks.bits().to_vec()), Some(marks.clone()));
        let json = serde_json::to_string(&marks).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<Marks>(&json).expect("what was written"), marks);
    }

    #[test]
    fn merging_takes_both_or_refuses(pairs in vec((any_mark(), any_mark()), 0..40), longer in 0..3usize) {
        let (a, mut b): (Vec<Mark>, Vec<Mark>) = pairs.into_iter().unzip();
        // Mostly disjoint: marks of the second are kept where the first is open, but for a few.
        for (task, mark) in b.iter_mut().enumerate() {
            if a[task] != Mark::Open && task % 7 != 0 {
                *mark = Mark::Open;
            }
        }
        b.extend(std::iter::repeat_n(Mark::Open, longer));
        let apart = a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| *a == Mark::Open || *b == Mark::Open);
        let union: Vec<Mark> = a.iter().zip(&b).map(|(a, b)| if *a == Mark::Open { *b } else { *a }).collect();
        prop_assert_eq!(of(&a).merged(&of(&b)), apart.then(|| of(&union)));
        prop_assert_eq!(of(&b).merged(&of(&a)), apart.then(|| of(&union)));
    }

    #[test]
    fn bits_are_read_exactly_when_they_are_those_of_the_tasks(tasks in 0..40u32, bits in vec(prop_oneof![Just(0u8), any::<u8>()], 0..11)) {
        let spare = || (tasks..4 * bits.len() as u32).map(|task| bits[task as usize / 4] >> (2 * (task % 4)) & 3);
        let fits = bits.len() == (tasks as usize).div_ceil(4) && spare().all(|mark| mark == 0);
        let marks = Marks::from_bits(tasks, bits.clone());
        prop_assert_eq!(marks.is_some(), fits);
        let json = serde_json::json!({ "tasks": tasks, "bits": bits }).to_string();
        let read = serde_json::from_str::<Marks>(&json).ok();
        prop_assert_eq!(&read, &marks);
        if let Some(marks) = marks {
            prop_assert_eq!(ALL.iter().map(|mark| marks.count(*mark)).sum::<u32>(), tasks);
        }
    }

    #[test]
    fn a_failure_is_cut_to_its_caps_between_characters(text in "[a-zäöü€𝄞]{0,40}", repeat in 1..4_000usize) {
        let long = text.repeat(repeat);
        let mut failure = Failure::new(FailureKind::Error, long.clone()).with_type(long.clone());
        failure.stderr = long.clone();
        failure.stack = vec![long.clone(); 2];
        let failure = failure.capped();
        prop_assert!(failure.message.len() <= limits::MESSAGE_BYTES_MAX && long.starts_with(&failure.message));
        prop_assert!(failure.error_type.len() <= limits::ERROR_TYPE_BYTES_MAX && long.starts_with(&failure.error_type));
        prop_assert!(failure.stderr.len() <= limits::LOG_BYTES_MAX && long.ends_with(&failure.stderr));
        prop_assert!(failure.stack.iter().all(|frame| frame.len() <= limits::STACK_FRAME_BYTES_MAX));
        prop_assert_eq!(failure.clone().capped(), failure);
    }
}

#[test]
#[should_panic(expected = "task 4 of 4")]
fn there_is_no_mark_beyond_the_last_task() {
    Marks::open(4).set(4, Mark::Failed);
}

#[test]
fn marks_print_short() {
    assert_eq!(format!("{:?}", of(&ALL)), ".sfq");
    assert_eq!(format!("{:?}", Marks::open(65)), format!("{}…", ".".repeat(64)));
}

#[test]
fn words_are_those_of_the_wire() {
    let same = |word: &str, json: String| assert_eq!(json, format!("\"{word}\""));
    Outcome::ALL.iter().for_each(|one| same(one.as_str(), serde_json::to_string(one).expect("JSON")));
    let kinds = [
        FailureKind::Error,
        FailureKind::Panic,
        FailureKind::Exited,
        FailureKind::Killed,
        FailureKind::TimedOut,
        FailureKind::OutOfMemory,
        FailureKind::OutputTooLarge,
        FailureKind::BadAnswer,
        FailureKind::NotStarted,
        FailureKind::UnknownFunction,
        FailureKind::WorkerDied,
    ];
    kinds.iter().for_each(|one| same(one.as_str(), serde_json::to_string(one).expect("JSON")));
}
