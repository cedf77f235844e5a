//! Dropped files of the shape `CommandFile`: see [`sheaf_fuzz::files`].
#![no_main]

use libfuzzer_sys::fuzz_target;
use sheaf_api::intake::Shape;

fuzz_target!(|input: &[u8]| sheaf_fuzz::files::check(Shape::CommandFile, input));
