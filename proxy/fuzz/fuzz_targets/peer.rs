//! Any bytes as a peer's metadata.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../targets/peer.rs"]
mod target;

fuzz_target!(|bytes: &[u8]| target::run(bytes));
