//! Any frames of an HTTP/2 client.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../targets/frames.rs"]
mod frames;
#[path = "../targets/http2.rs"]
mod target;

fuzz_target!(|bytes: &[u8]| target::run(bytes));
