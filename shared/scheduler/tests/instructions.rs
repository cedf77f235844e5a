//! How many instructions a decision costs, guarded: the scaler of a large grid makes one every 15 s.
//!
//! ```text
//! cargo test --release -p sheaf-scheduler --test instructions
//! ```

#[path = "../benches/cases/mod.rs"]
mod cases;
#[path = "../../core/benches/counting/mod.rs"]
mod counting;

use counting::Guarded;
use sheaf_scheduler::{Memory, PolicyName, Settings};

/// Of `sheaf`, about 10,000 jobs and 1,000 pools of which 5,000 machines are held.
static GUARDED: Guarded<1> = Guarded {
    measured: [("decide", 11_550_449)],
    unit: "a decision",
    repetitions: [1, 11],
    profiles: env!("CARGO_TARGET_TMPDIR"),
};

fn main() {
    GUARDED.main(|| {
        let snapshot = cases::snapshot(10_000, 1_000, 5_000);
        let policy = Settings::default().policy(PolicyName::Sheaf);
        let decide = move || drop(std::hint::black_box(policy.decide(&snapshot, &mut Memory::default())));
        vec![("decide", Box::new(decide))]
    });
}
