//! Any bytes of an HTTP/1 server: the same response is in them for the proxy's codec as for hyper, or it refuses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_proxy::h1;

#[path = "../../src/h1/differential_response.rs"]
mod differential;

fuzz_target!(|bytes: &[u8]| differential::run(bytes));
