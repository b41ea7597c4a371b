//! Any bytes of an HTTP/1 connection: the same requests are in them for the proxy's codec as for hyper, or it refuses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_proxy::h1;

#[path = "../../src/h1/differential.rs"]
mod differential;

fuzz_target!(|bytes: &[u8]| {
    let Some((step, bytes)) = bytes.split_first() else { return };
    differential::compare(bytes, usize::from(*step));
});
