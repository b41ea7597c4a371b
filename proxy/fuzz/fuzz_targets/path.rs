//! Any request target.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../targets/path.rs"]
mod target;

fuzz_target!(|bytes: &[u8]| target::run(bytes));
