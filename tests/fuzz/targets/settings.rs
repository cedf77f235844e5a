//! `sheaf.toml`: no text panics its reader, and what it refuses names the file.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sheaf::{Place, fuzzing};

fuzz_target!(|text: &str| {
    let path = Path::new("/project/sheaf.toml");
    match fuzzing::settings(path, text) {
        // Paths in a file are meant from where the file is.
        Ok(Some(Place::Directory(directory))) => assert!(directory.is_absolute(), "{directory:?}"),
        Ok(_) => {}
        Err(error) => assert!(error.to_string().starts_with("/project/sheaf.toml: "), "{error}"),
    }
});
