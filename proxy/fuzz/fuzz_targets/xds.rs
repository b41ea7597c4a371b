//! Any bytes as any xDS resource.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../targets/xds.rs"]
mod target;

fuzz_target!(|bytes: &[u8]| target::run(bytes));
