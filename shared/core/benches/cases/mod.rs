//! The state steps of a chunk's short life, each as something that can be repeated: timed by `apply.rs`, their instructions
//! counted by `shared/api/tests/instructions.rs`.

#[path = "../../tests/fixture/mod.rs"]
mod fixture;

use std::hint::black_box;

use fixture::{Path, S, attempt, claim, commit, finish, marks, segment, spec};
use sheaf_core::{Chunk, ChunkEvent};

/// Tasks of the chunk.
pub(crate) const TASKS: u32 = 1_000;

/// A step that can be repeated.
pub(crate) type Case = Box<dyn FnMut()>;

/// A claim, a segment of half of the chunk's tasks, and a finish with the other half.
pub(crate) fn steps() -> [(&'static str, Case); 3] {
    let half = TASKS as usize / 2;
    let (first, second) = ("s".repeat(half) + &".".repeat(half), ".".repeat(half) + &"s".repeat(half));
    let queued = Path::submitted(spec(TASKS, None)).0;
    let claimed = Path(queued.clone()).then(|_| claim("me", S)).0;
    let committed = Path(claimed.clone()).commits(&first).0;
    let me = attempt(claimed.epoch, "me");
    let commits = segment(&me, claimed.rv, commit(&me, 0, marks(&first)), 60 * S);
    let finishes = finish(&me, committed.rv, Some(commit(&me, 1, marks(&second))), 2 * S);
    [
        ("claim", step(queued, claim("me", S))),
        ("segment", step(claimed, commits)),
        ("finish", step(committed, finishes)),
    ]
}

fn step(before: Chunk, event: ChunkEvent) -> Case {
    Box::new(move || {
        black_box(Chunk::apply(Some(black_box(&before)), black_box(&event)).expect("the chunk's next step"));
    })
}
