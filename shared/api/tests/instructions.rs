//! How many instructions a task costs in the hot parts, guarded.
//!
//! ```text
//! cargo test --release -p sheaf-api --test instructions
//! ```

#[path = "../benches/cases/mod.rs"]
mod cases;
#[path = "../../core/benches/counting/mod.rs"]
mod counting;
#[path = "../../core/benches/cases/mod.rs"]
mod steps;

use counting::Guarded;

/// For a chunk of 1,000 tasks, of 64 bytes each way: a thousandth of it is what a task costs.
static GUARDED: Guarded<7> = Guarded {
    measured: [
        // Copying the payloads and their offsets; then the frame with its checksum, and checking what was written.
        ("pack build", 329_765),
        // The checksum, the offsets, the limits of each task; then each payload looked up.
        ("pack parse", 155_291),
        // Copying the results, an entry for each; then the columns, and the frame with its checksum.
        ("segment build", 264_564),
        // The checksum, the offsets, outcomes, order and limits; then each entry looked up.
        ("segment parse", 222_342),
        // Copying the chunk, which has two bits for each task.
        ("claim", 693),
        // Copying the chunk, and merging the outcomes of half of its tasks into it.
        ("segment", 4_980),
        // The same with the other half; then looking whether a task is still open.
        ("finish", 7_348),
    ],
    unit: "1,000 tasks",
    repetitions: [10, 110],
    profiles: env!("CARGO_TARGET_TMPDIR"),
};

fn main() {
    GUARDED.main(|| cases::formats().into_iter().chain(steps::steps()).collect());
}
