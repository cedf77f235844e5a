//! Packs: whatever is accepted can be read whole, and built again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sheaf_api::{Pack, PackBuilder};
use sheaf_core::limits;

fuzz_target!(|input: &[u8]| {
    let frame = sheaf_fuzz::frames::sealed(b"SHPK", input);
    let Ok(pack) = Pack::parse(frame.clone()) else { return };
    assert_eq!(pack.bytes(), &frame);
    assert!(pack.tasks() <= limits::ORDERED_TASKS_MAX);
    let mut builder = PackBuilder::new();
    for task in 0..pack.tasks() {
        assert_eq!(pack.payload(task), &pack.payload_bytes(task)[..]);
        builder.push_task(pack.payload(task), pack.function(task), pack.key(task)).expect("a reader is not laxer");
    }
    for compress in [false, true] {
        let again = builder.clone().finish(compress);
        assert_eq!(again.tasks(), pack.tasks());
        for task in 0..pack.tasks() {
            assert_eq!(again.payload(task), pack.payload(task));
            assert_eq!((again.function(task), again.key(task)), (pack.function(task), pack.key(task)));
        }
        assert_eq!(Pack::parse(again.bytes().clone()).map(|pack| pack.digest()), Ok(again.digest()));
    }
});
