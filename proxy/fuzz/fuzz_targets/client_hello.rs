//! Any first bytes of a connection.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../targets/client_hello.rs"]
mod target;

fuzz_target!(|bytes: &[u8]| target::run(bytes));
