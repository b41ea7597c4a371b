//! Any first bytes of a connection that another proxy announces.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../targets/proxy_protocol.rs"]
mod target;

fuzz_target!(|bytes: &[u8]| target::run(bytes));
