//! The driver's own tests, which need nothing but a Python.

use std::process::Command;

#[test]
fn what_judges_the_comparison_notices_what_it_should() {
    let mut tests = Command::new("python3");
    tests.args(["-B", "-m", "unittest", "discover"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    match tests.output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => eprintln!("\nSKIPPED: the driver's tests: python3: {error}"),
    }
}
