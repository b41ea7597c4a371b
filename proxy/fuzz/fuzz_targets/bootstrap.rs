//! Any text as a bootstrap file.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../targets/bootstrap.rs"]
mod target;

fuzz_target!(|bytes: &[u8]| target::run(bytes));
