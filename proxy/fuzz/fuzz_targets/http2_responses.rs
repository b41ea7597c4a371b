//! Any frames of an HTTP/2 server: the same responses are in them for the proxy's codec as for the h2 crate, or it refuses.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../targets/bodies.rs"]
mod bodies;
#[path = "../targets/frames.rs"]
mod frames;
#[path = "../targets/http2_responses.rs"]
mod target;

fuzz_target!(|bytes: &[u8]| target::run(bytes));
